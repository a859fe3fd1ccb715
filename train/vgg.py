"""VGG-19 up to pool3, the network of the perceptual loss (paper, section 3.2).

torchvision is not a dependency (its wheel requires one exact torch), since twelve lines replace it. The parameter
names are torchvision's, so its weights file loads as it is.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from model.constants import IMAGENET_MEAN, IMAGENET_STD
from model.errors import Ldr2hdrError

TORCHVISION_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
RANDOM_SEED = 19  # of the network that `random` builds: the same on every machine

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256, 256))  # Simonyan and Zisserman 2015, table 1, column E


class VGG19Features(nn.Module):
    """Maps a picture (N,3,H,W), R'G'B' in [0,1], to the activations after pool1, pool2 and pool3.

    They have 64, 128 and 256 channels at a half, a quarter and an eighth of the size. The parameters are frozen.
    `description` says where they came from.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for block in _WIDTHS:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.description = "untrained"
        self.requires_grad_(False)

    def forward(self, picture: Tensor) -> list[Tensor]:
        x = (picture - self.mean) / self.std
        pools = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        return pools


def load_vgg(perceptual: str = "vgg19", weights: str | Path | None = None) -> VGG19Features | None:
    """The network of the perceptual terms.

    Args:
        perceptual: "vgg19" (trained on ImageNet), "random" (the same network with weights from a fixed seed) or
            "none", for which None is returned.
        weights: a `.safetensors` or `.pth` file with torchvision's names; other layers are ignored.
            Without one, "vgg19" takes torchvision's file from torch.hub's cache or from the network, and checks
            its hash.

    Raises:
        Ldr2hdrError: unknown `perceptual`, a file that does not fit, or a failed download.
    """
    if perceptual == "none":
        return None
    if perceptual not in ("vgg19", "random"):
        raise Ldr2hdrError(f'perceptual is "{perceptual}", but must be vgg19, random or none.')
    vgg = VGG19Features()
    if perceptual == "random":
        _randomise(vgg)
        return vgg.eval()
    state = _read(Path(weights)) if weights else _download()
    wanted = vgg.state_dict()
    missing = [name for name, value in wanted.items() if getattr(state.get(name), "shape", None) != value.shape]
    if missing:
        raise Ldr2hdrError(
            f"{weights or TORCHVISION_URL} is not a VGG-19 file: {missing[0]} is missing or has another shape; "
            "give a file with torchvision's parameter names."
        )
    vgg.load_state_dict({name: state[name].float() for name in wanted})
    vgg.description = f"VGG-19 from {Path(weights).name if weights else Path(TORCHVISION_URL).name}"
    return vgg.eval()


def _randomise(vgg: VGG19Features) -> None:
    """Fills in weights that keep the size of the activations (He et al. 2015, eq. 10), from a fixed seed."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    for layer in vgg.features:
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.in_channels * 9
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels), requires_grad=False)
    vgg.description = f"VGG-19 with random weights (seed {RANDOM_SEED}), never trained on pictures"


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise Ldr2hdrError(f"{path} does not exist; give --vgg-weights a .safetensors or .pth file of VGG-19.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:
        raise Ldr2hdrError(f"{path} cannot be read as weights ({type(fault).__name__}); give another file.") from fault
    if not isinstance(state, dict):
        raise Ldr2hdrError(f"{path} is not a table of weights; give a state dict of VGG-19.")
    return state


def _download() -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(
            TORCHVISION_URL, map_location="cpu", check_hash=True, progress=False, weights_only=True
        )
    except Exception as fault:
        raise Ldr2hdrError(
            f"VGG-19 could not be downloaded from {TORCHVISION_URL} ({type(fault).__name__}); give the file with "
            "--vgg-weights FILE, or train with --perceptual random or --perceptual none."
        ) from fault
