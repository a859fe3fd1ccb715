"""What JPEG does to a picture, as batched tensor code: 4:2:0, and the tables of ITU-T T.81, annex K, as in libjpeg."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.views import upload

LUMA_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMA_TABLE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, *[99] * 32,
)  # fmt: skip
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])  # JFIF


def jpeg(codes: Tensor, quality: np.ndarray) -> Tensor:
    """(N, 3, H, W) R'G'B' in whole codes, 0 to 255, through JPEG of each one's quality, 1 to 100."""
    high, wide = codes.shape[2:]
    padded = F.pad(codes, (0, -wide % 16, 0, -high % 16), mode="replicate")
    ycc = (_mixed(padded, TO_YCC)).round_()
    chroma = F.avg_pool2d(ycc[:, 1:], 2).round_()
    luma = _through(ycc[:, :1] - 128, LUMA_TABLE, quality) + 128
    chroma = F.interpolate(_through(chroma, CHROMA_TABLE, quality), scale_factor=2, mode="bilinear")
    rgb = _mixed(torch.cat((luma, chroma), 1), np.linalg.inv(TO_YCC))
    return rgb[..., :high, :wide].round().clamp_(0, 255)


def _mixed(picture: Tensor, matrix: np.ndarray) -> Tensor:
    """Each pixel's channels times a 3×3 matrix."""
    n, _, high, wide = picture.shape
    weights = upload(matrix, picture.device).expand(n, 3, 3)
    return torch.bmm(weights, picture.reshape(n, 3, -1)).view(n, 3, high, wide)


def _through(planes: Tensor, table: tuple[int, ...], quality: np.ndarray) -> Tensor:
    """(N, C, H, W) around 0, H and W multiples of 8, through cosine transform, rounding, and back; in whole codes."""
    n, c, high, wide = planes.shape
    quality = np.floor(np.clip(quality, 1, 100))
    scale = np.where(quality < 50, np.floor(5000 / quality), 200 - 2 * quality)
    steps = np.clip(np.floor((np.array(table) * scale[:, None] + 50) / 100), 1, 255)
    step = upload(steps, planes.device)[:, None]
    transform = upload(_DCT, planes.device)
    blocks = planes.view(n, c, high // 8, 8, wide // 8, 8).permute(0, 1, 2, 4, 3, 5).reshape(n, -1, 64)
    kept = (blocks @ transform.T).div_(step).round_().mul_(step) @ transform
    back = kept.view(n, c, high // 8, wide // 8, 8, 8).permute(0, 1, 2, 4, 3, 5).reshape(n, c, high, wide)
    return back.round_()


def _cosines() -> np.ndarray:
    """The cosine transform of an 8×8 block, as a matrix of 64×64 on the block row by row."""
    k = np.arange(8)
    one = np.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    one[0] /= math.sqrt(2)
    return np.kron(one, one)


_DCT = _cosines()
