"""A picture in the numbers of its decoder, and what they mean: what goes up to a device."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_AT_ONCE = {"cpu": 2**20}  # values worked on at a time: few enough for the cache, and no second copy of a large picture
_AT_ONCE_ELSEWHERE = 2**27


@dataclass(frozen=True, eq=False)
class Codes:
    """A picture as it was decoded.

    values: H×W×3, or H×W×1 where it is grey, of any strides: uint8 or uint16, whose largest stands for 1.0, or
    float32. affine: 3×4, or 3×2 where it is grey, from the values and a 1 to R′G′B′, which is then held to [0, 1];
    None: they are R′G′B′ already.
    """

    values: np.ndarray
    affine: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.values.shape[0], self.values.shape[1]

    def pixels(self) -> np.ndarray:
        """Display-encoded R′G′B′ in [0, 1], float32 H×W×3."""
        return display_encoded(as_tensor(self.values), self.affine).numpy()


def as_tensor(values: np.ndarray) -> Tensor:
    """On the host, without a copy where torch can take the memory as it is."""
    if not values.dtype.isnative or not values.flags.writeable or any(stride < 0 for stride in values.strides):
        values = values.astype(values.dtype.newbyteorder("="))
    return torch.from_numpy(values)


def display_encoded(values: Tensor, affine: np.ndarray | None = None) -> Tensor:
    """What `Codes` mean: float32 H×W×3 in [0, 1], on the device of the values; a float32 tensor may be returned as is.

    values, affine: as in `Codes`.
    """
    if affine is None:
        if values.dtype == torch.float32:
            return values.expand(-1, -1, 3).contiguous()
        encoded = values.to(torch.float32, memory_format=torch.contiguous_format)
        return encoded.div_(255 if values.dtype == torch.uint8 else 65535).expand(-1, -1, 3).contiguous()
    encoded = torch.empty((*values.shape[:2], 3), device=values.device)
    for rows in bands(encoded):
        mix(values[rows], affine, encoded[rows]).clamp_(0, 1)
    return encoded


def mix(values: Tensor, matrix: np.ndarray, out: Tensor) -> Tensor:
    """`out` (H×W×3) = matrix · (values, 1), values H×W×C, matrix 3×C or 3×(C + 1).

    Written out, because a matrix product rounds to TF32 on some GPUs, and is slow for three columns on CPUs.
    """
    planes = values.to(torch.float32).unbind(-1)
    for channel, row in enumerate(matrix.tolist()):
        mixed = torch.full_like(planes[0], row[-1] if len(row) > len(planes) else 0)
        for plane, factor in reversed([*zip(planes, row, strict=False)]):
            if factor:
                mixed.add_(plane, alpha=factor)
        out[..., channel] = mixed
    return out


def bands(picture: Tensor | np.ndarray) -> Iterator[slice]:
    """Rows of a picture to work on at a time."""
    device = picture.device.type if isinstance(picture, Tensor) else "cpu"
    values = max(1, int(np.prod(picture.shape[1:])))
    step = max(1, _AT_ONCE.get(device, _AT_ONCE_ELSEWHERE) // values)
    for top in range(0, picture.shape[0], step):
        yield slice(top, min(top + step, picture.shape[0]))
