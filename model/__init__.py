"""The network and what runs it: tensors only, no files but weights.

The names are loaded at first use, so that a program that only prints its help does not import torch.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.checkpoint import load_network, save_network
    from model.exposure import compose_hdr, exposure_mask
    from model.masked_unet import MaskedUNet, NetworkConfig
    from model.reconstructor import Reconstructor

__version__ = "0.1.0"  # pyproject.toml and every EXR take it from here

# OpenMP's threads spin while they wait for one another. Beside anything else that computes (encoders, the data
# processes of training, another program) a spinning thread keeps the one it waits for from its core. Read once, by
# torch.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOME = {
    "MaskedUNet": "model.masked_unet",
    "NetworkConfig": "model.masked_unet",
    "Reconstructor": "model.reconstructor",
    "load_network": "model.checkpoint",
    "save_network": "model.checkpoint",
    "exposure_mask": "model.exposure",
    "compose_hdr": "model.exposure",
}

__all__ = [
    "MaskedUNet",
    "NetworkConfig",
    "Reconstructor",
    "compose_hdr",
    "exposure_mask",
    "load_network",
    "save_network",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
