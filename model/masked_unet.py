"""The network of Santos, Ren and Kalantari, SIGGRAPH 2020 (figure 6), layer by layer as section 3.1 tells it."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.constants import IMAGENET_MEAN, IMAGENET_STD

Masking = Literal["feature", "input", "gated", "none"]
Activation = Literal["leaky_relu", "relu"]


@dataclass(frozen=True)
class NetworkConfig:
    """What a weights file must say so that its network can be built again.

    base_channels: channels of the first layer (paper: 64). depth: layers down, and up (paper: 7).
    masking: the columns of table 2: "feature" (eq. 2-4), "input" (the mask multiplies the picture only), "gated"
        (learned gates, Yu et al. 2019), "none".
    mask_threshold: α of figure 2. encoder_activation, decoder_activation: the text has relu in the decoder, the
        released code in the encoder. skip_mask: the mask that a skip connection carries into the decoder, all "ones" as
        in the released code, or that of the "encoder" layer it comes from.
    floor: in eq. 1, hold the reconstruction at or above T^γ.
    """

    base_channels: int = 64
    depth: int = 7
    masking: Masking = "feature"
    mask_threshold: float = 0.96
    encoder_activation: Activation = "leaky_relu"
    decoder_activation: Activation = "relu"
    skip_mask: Literal["ones", "encoder"] = "ones"
    floor: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.base_channels, int) and 1 <= self.base_channels <= 1024):
            raise ValueError(f"base_channels must be 1 to 1024, not {self.base_channels!r}")
        if not (isinstance(self.depth, int) and 1 <= self.depth <= 10):
            raise ValueError(f"depth must be 1 to 10, not {self.depth!r}")
        if not 0 <= self.mask_threshold < 1:
            raise ValueError(f"mask_threshold must be in [0, 1), not {self.mask_threshold!r}")
        for name, allowed in (
            ("masking", ("feature", "input", "gated", "none")),
            ("encoder_activation", ("leaky_relu", "relu")),
            ("decoder_activation", ("leaky_relu", "relu")),
            ("skip_mask", ("ones", "encoder")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")

    @property
    def multiple(self) -> int:
        """Height and width of what the network takes are multiples of this."""
        return 2**self.depth

    def channels(self) -> list[int]:
        """Channels of the picture and of each encoder layer: 3, 64, 128, 256, 512, 512, 512, 512."""
        return [3] + [self.base_channels * min(2**level, 8) for level in range(self.depth)]

    def kernels(self) -> list[int]:
        """Kernel sizes of the encoder: 7, 5, 5, 3, 3, 3, 3."""
        return [7, 5, 5, *[3] * self.depth][: self.depth]


class MaskedConv(nn.Module):
    """One convolution on masked features, eq. 2 and 3, and the update of its mask, eq. 4."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
        self._filter: Tensor | None = None
        self._filter_of: tuple[object, ...] | None = None

    def forward(self, features: Tensor, mask: Tensor | None, skip: Tensor | None = None) -> Tensor:
        """Wˡ ∗ (Xˡ ⊙ Mˡ), eq. 2 and 3. `skip` is joined to the features as it is, already masked."""
        masked = features if mask is None else features * mask
        return self.conv(masked if skip is None else torch.cat((masked, skip), 1))

    @torch.no_grad()
    def update(self, mask: Tensor, skip_mask: Tensor | None = None) -> Tensor:
        """Mˡ⁺¹ = |Wˡ| / (‖Wˡ‖₁ + ε) ∗ Mˡ, eq. 4; no gradient.

        A skip_mask of one channel stands for all channels of the skip: its filters are summed, which is the same sum.
        """
        weight = self.mask_filter()
        stride, padding = self.conv.stride, self.conv.padding
        if skip_mask is None:
            return F.conv2d(mask, weight, None, stride, padding)
        if skip_mask.shape[1] + mask.shape[1] == weight.shape[1]:
            return F.conv2d(torch.cat((mask, skip_mask), 1), weight, None, stride, padding)
        own, skipped = weight[:, : mask.shape[1]], weight[:, mask.shape[1] :].sum(1, keepdim=True)
        updated = F.conv2d(mask, own, None, stride, padding)
        return updated.add_(F.conv2d(skip_mask, skipped, None, stride, padding))

    @torch.no_grad()
    def mask_filter(self) -> Tensor:
        """|W| / (‖W‖₁ + 1e-6), ‖·‖₁ per output channel; in eval mode it is kept until the weights change."""
        weight = self.conv.weight
        version = 0 if weight.is_inference() else weight._version
        state = (version, weight.data_ptr(), weight.dtype, weight.device)
        if self.training or self._filter is None or self._filter_of != state:
            magnitude = weight.float().abs()
            self._filter = (magnitude / (magnitude.sum((1, 2, 3), keepdim=True) + 1e-6)).to(weight)
            self._filter_of = state
        return self._filter


class GatedConv(nn.Module):
    """A convolution whose output is multiplied by learned gates (Yu et al. 2019), the GConv column of table 2."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
        self.gate = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)

    def forward(self, features: Tensor, mask: Tensor | None, skip: Tensor | None = None) -> Tensor:
        joined = features if skip is None else torch.cat((features, skip), 1)
        return self.conv(joined) * torch.sigmoid(self.gate(joined))


class MaskedUNet(nn.Module):
    """Seven layers down, seven up, a mask beside every feature map.

    net(ldr, mask) -> log_hdr: (N, 3, H, W) display-encoded in [0, 1] and its mask, both of one shape, to Y of eq. 1,
    log(H + 1), unbounded. H and W are multiples of 2^depth (`config.multiple`).
    """

    encoder: Any  # nn.ModuleList, whose layers the type checker cannot know
    decoder: Any
    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        layer = GatedConv if self.config.masking == "gated" else MaskedConv
        channels, kernels = self.config.channels(), self.config.kernels()
        self.encoder = nn.ModuleList(
            layer(channels[i], channels[i + 1], kernels[i], stride=2, bias=False) for i in range(self.config.depth)
        )
        self.decoder = nn.ModuleList(  # decoder[i] brings level i + 1 up to level i; decoder[0] gives the picture
            layer(channels[i + 1] + channels[i], channels[i], 3, stride=1, bias=i == 0)
            for i in range(self.config.depth)
        )
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, ldr: Tensor, mask: Tensor) -> Tensor:
        features, masks = self.encode(ldr, mask)
        x, x_mask = features.pop(), masks.pop()
        for level in reversed(range(self.config.depth)):
            x, x_mask = self.decode_level(level, x, x_mask, features.pop(), masks.pop())
        return x

    def encode(
        self, ldr: Tensor, mask: Tensor, chain_of: Callable[[Tensor], Iterator[Tensor]] | None = None
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """The normalised picture and the features of every level, deepest last, and the mask that each carries.

        As skips they carry masks of ones, in one channel for all, or those of their layer (`config.skip_mask`); the
        deepest carries its layer's. Masks are None unless `masking` is "feature". `chain_of` stands in for
        `encoder_masks`.
        """
        self._check(ldr, mask)
        image = self.normalise(ldr)
        mask = mask.to(image.dtype)
        if self.config.masking == "input":
            image = image * mask
        features: list[Tensor] = [image]
        masks: list[Tensor | None] = []
        chain: Iterator[Tensor | None] = itertools.repeat(None)
        if self.config.masking == "feature":
            chain = self.encoder_masks(mask) if chain_of is None else chain_of(mask)
        for layer in self.encoder:
            current = next(chain)
            features.append(activate(layer(features[-1], current), self.config.encoder_activation))
            if current is not None and self.config.skip_mask == "ones":
                current = torch.ones_like(current[:, :1])
            masks.append(current)
        return features, [*masks, next(chain)]

    def normalise(self, ldr: Tensor) -> Tensor:
        """The picture as the first layer takes it: ImageNet mean and standard deviation, the weights' type."""
        return (ldr - self.mean).div_(self.std).to(next(self.parameters()).dtype)

    def encoder_masks(self, mask: Tensor) -> Iterator[Tensor]:
        """M of the picture and of every encoder layer, eq. 4, one at a time."""
        yield mask
        for layer in self.encoder:
            mask = layer.update(mask)
            yield mask

    def decode_level(
        self, level: int, x: Tensor, mask: Tensor | None, skip: Tensor, skip_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Nearest ×2, the skip joined, one convolution; that of level 0 is linear and needs no mask after it.

        x, mask: features of the level below and their mask. skip, skip_mask: of the encoder, at this level. Masks are
        None unless `masking` is "feature". Returns the features of this level and their mask. In the shapes C is the
        channels of `level`, D those of the level below, H and W the size of `level`.
        """
        layer = self.decoder[level]
        x = F.interpolate(x, scale_factor=2, mode="nearest")  # (N, D, H/2, W/2) → (N, D, H, W)
        if mask is not None:
            mask = F.interpolate(mask, scale_factor=2, mode="nearest")  # as x
        if skip_mask is not None and self.config.skip_mask == "encoder":
            skip = skip * skip_mask  # (N, C, H, W); with "ones" it stays as it is, and skip_mask is (N, 1, H, W)
        x = layer(x, mask, skip)  # (N, D + C, H, W) → (N, C, H, W)
        if level == 0:
            return x, None  # (N, 3, H, W)
        updated = None if mask is None else layer.update(mask, skip_mask)  # (N, C, H, W)
        return activate(x, self.config.decoder_activation), updated

    def _check(self, ldr: Tensor, mask: Tensor) -> None:
        if ldr.ndim != 4 or ldr.shape[1] != 3 or mask.shape != ldr.shape:
            raise ValueError(f"expected two (N, 3, H, W) tensors, not {tuple(ldr.shape)} and {tuple(mask.shape)}")
        if ldr.shape[2] % self.config.multiple or ldr.shape[3] % self.config.multiple:
            raise ValueError(
                f"height and width must be multiples of {self.config.multiple}, not {tuple(ldr.shape[2:])}"
            )


def receptive_radius(config: NetworkConfig) -> int:
    """How far, in pixels, an output can see in every direction, wherever it lies on the grid of the deepest level.

    Followed exactly: a decoder layer reads one pixel around and nearest ×2 halves what it read; an encoder layer reads
    half a kernel around twice its place.
    """
    reach = 0
    for start in range(config.multiple):
        low = high = start
        for _ in range(config.depth):
            low, high = (low - 1) // 2, (high + 1) // 2
        for kernel in reversed(config.kernels()):
            low, high = 2 * low - kernel // 2, 2 * high + kernel // 2
        reach = max(reach, start - low, high - start)
    return reach


def activate(x: Tensor, kind: Activation) -> Tensor:
    """In place: no layer's gradient reads what went into its activation."""
    return F.relu(x, inplace=True) if kind == "relu" else F.leaky_relu(x, 0.2, inplace=True)


def initialise(net: MaskedUNet, seed: int | None = None) -> MaskedUNet:
    """Xavier weights (section 4), from `seed` where given; biases 0. The same net comes back."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight, gain=2**0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net
