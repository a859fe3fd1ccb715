"""Dead channels: never above 0 before a ReLU. They get no gradient either, so training does not bring them back."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from model.masked_unet import MaskedUNet

MANY = 0.5
"""The share of a layer's channels from which a run is warned. Healthy layers have a few per cent."""


class Peaks:
    """The greatest value of every channel before its activation, while `recorded_peaks` lasted."""

    def __init__(self) -> None:
        self._peaks: dict[str, Tensor] = {}

    def record(self, name: str, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        """A forward hook. output: (N, C, H, W), before the activation."""
        peak = output.detach().float().amax(dim=(0, 2, 3))
        known = self._peaks.get(name)
        self._peaks[name] = peak if known is None else torch.maximum(known, peak)

    def dead(self) -> dict[str, tuple[int, int]]:
        """Layer → (channels that were never above 0, all of its channels)."""
        return {name: (int((peak <= 0).sum()), len(peak)) for name, peak in self._peaks.items()}


@contextmanager
def recorded_peaks(net: MaskedUNet) -> Iterator[Peaks]:
    """Records every layer of `net` that ends in a ReLU. What the network computes does not change."""
    peaks = Peaks()
    layers: dict[str, nn.Module] = {}
    if net.config.encoder_activation == "relu":
        layers |= {f"encoder level {level + 1}": layer for level, layer in enumerate(net.encoder)}
    if net.config.decoder_activation == "relu":
        # The last layer, level 0, is linear.
        layers |= {f"decoder level {level}": layer for level, layer in enumerate(net.decoder) if level}

    hooks = [layer.register_forward_hook(partial(peaks.record, name)) for name, layer in layers.items()]
    try:
        yield peaks
    finally:
        for handle in hooks:
            handle.remove()
