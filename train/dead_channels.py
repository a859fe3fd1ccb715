"""Channels that never answer. Under ReLU they have no gradient either, so that training cannot bring them back."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from model.masked_unet import MaskedUNet

MANY = 0.5
"""From this share of a layer's channels on, a run is told of it. Healthy layers have a few per cent."""


class Listening:
    """What `listening` has heard so far: the greatest value of every channel before its activation."""

    def __init__(self) -> None:
        self._peaks: dict[str, Tensor] = {}

    def hear(self, name: str, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        """A forward hook. output: (N, C, H, W), before the activation."""
        peak = output.detach().float().amax(dim=(0, 2, 3))
        known = self._peaks.get(name)
        self._peaks[name] = peak if known is None else torch.maximum(known, peak)

    def silent(self) -> dict[str, tuple[int, int]]:
        """Layer → (channels that were never above 0, all of its channels)."""
        return {name: (int((peak <= 0).sum()), len(peak)) for name, peak in self._peaks.items()}


@contextmanager
def listening(net: MaskedUNet) -> Iterator[Listening]:
    """Listens to every layer of `net` that ends in a ReLU. The network computes what it would without."""
    heard = Listening()
    layers: dict[str, nn.Module] = {}
    if net.config.encoder_activation == "relu":
        layers |= {f"encoder level {level + 1}": layer for level, layer in enumerate(net.encoder)}
    if net.config.decoder_activation == "relu":
        # The last layer, level 0, is linear.
        layers |= {f"decoder level {level}": layer for level, layer in enumerate(net.decoder) if level}

    hooks = [layer.register_forward_hook(partial(heard.hear, name)) for name, layer in layers.items()]
    try:
        yield heard
    finally:
        for handle in hooks:
            handle.remove()
