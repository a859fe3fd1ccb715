"""The settings of a run: small dataclasses that the command line and a YAML file fill alike.

Each field carries its help text, so that a setting is described once. Defaults are those of the paper where it names
one. Only the standard library is imported here, since `ldr2hdr --help` reads this file.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from model.atomic import write_atomically
from model.errors import Ldr2hdrError
from model.settings import brief, checked, setting


@dataclass
class NetworkSettings:
    """The network; see `model.masked_unet.NetworkConfig`."""

    base_channels: int = setting(64, "Channels of the first layer.", low=1)
    depth: int = setting(7, "Layers down, and up.", low=1)
    masking: Literal["feature", "input", "gated", "none"] = setting("feature", "Where masks act (table 2).")
    mask_threshold: float = setting(0.96, "α: codes above it (0 to 1) count as clipped.", low=0)
    encoder_activation: Literal["leaky_relu", "relu"] = setting("leaky_relu", "Activation of the encoder.")
    # Not the text's ReLU: without normalisation most of the decoder dies under it (benchmarks/README.md).
    decoder_activation: Literal["leaky_relu", "relu"] = setting("leaky_relu", "Activation of the decoder.")
    skip_mask: Literal["ones", "encoder"] = setting("ones", "The mask that a skip carries into the decoder.")
    floor: bool = setting(False, "Hold the reconstruction at or above the clip level.")


@dataclass
class DataSettings:
    """Pictures and how samples are made of them."""

    folders: list[str] = field(default_factory=list, metadata={"help": "Folders of pictures, searched to the bottom."})
    patch_size: int = setting(512, "Side of a training patch, pixels; a multiple of 2^depth.", low=8)
    patch_sampling: bool = setting(True, "Keep textured patches only (algorithm 1).")
    texture_threshold: float = setting(0.85, "Textured from this score of algorithm 1.", low=0)
    panorama: Literal["auto", "yes", "no"] = setting(
        "auto", "Cut perspective views, as from 360° panoramas; auto: where a picture is 2:1."
    )
    validation_share: float = setting(0.1, "Share of the scenes held out for validation.", low=0.001, high=0.9)
    validation_patches: int = setting(64, "Patches in the validation set.", low=1)
    data_on: Literal["auto", "device", "processes"] = setting(
        "auto",
        "Where samples are made: on the training device, which also holds the pictures, or in --workers; "
        "auto: the device if it is a GPU and there is memory for the pictures.",
    )
    workers: int = setting(2, "Processes that decode and cut; 0: none but the training process.", low=0)
    images: list[str] = field(
        default_factory=list, metadata={"help": "Fine-tuning: folders of photographs to take for HDR scenes as well."}
    )
    images_share: float = setting(0.3, "Fine-tuning: share of the samples made of --images.", low=0, high=1)
    exclude: str | None = setting(None, "A text file that names pictures never to be used, one a line.")


@dataclass
class LossSettings:
    """Weights of eq. 5 to 11 and of Liu et al. 2018, eq. 7."""

    perceptual: Literal["vgg19", "random", "none"] = setting("vgg19", "The network of the perceptual terms.")
    vgg_weights: str | None = setting(None, "VGG-19, .safetensors or .pth; else from torch.hub.")
    perceptual_crop: int = setting(0, "Perceptual terms on an N×N crop around what is clipped; 0: all.", low=0)
    perceptual_every: int = setting(1, "Perceptual terms at every Nth step only, N times as heavy.", low=1)
    perceptual_start: int = setting(0, "Perceptual terms from this step on.", low=0)
    lambda_reconstruction: float = setting(6.0, "λ₁ of L_r (eq. 5).", low=0)
    lambda_perceptual: float = setting(1.0, "λ₂ of L_p (eq. 5).", low=0)
    lambda_vgg: float = setting(1.0, "λ₃ of L_v (eq. 7).", low=0)
    lambda_style: float = setting(120.0, "λ₄ of L_s (eq. 7).", low=0)
    mu: float = setting(500.0, "μ of the range compressor (eq. 10).", low=1e-6)
    peak: float = setting(50.0, "Largest divisor before the μ-law, in clip levels.", low=1)
    lambda_chroma: float = setting(0.0, "Weight of the chroma term, against coloured blotches.", low=0)
    lambda_rms: float = setting(0.0, "Weight of each picture's RMS log error: dim lights are pulled up.", low=0)
    lambda_gradient: float = setting(0.0, "Weight of the multi-scale gradient term.", low=0)
    temporal_weight: float = setting(
        0.0, "Weight of steadiness: a slightly moved input must give the moved output.", low=0
    )
    temporal_start: int = setting(0, "The steadiness term from this step on.", low=0)
    lambda_valid: float = setting(1.0, "Inpainting: weight outside the holes.", low=0)
    lambda_hole: float = setting(6.0, "Inpainting: weight inside the holes.", low=0)
    inpainting_perceptual: float = setting(0.05, "Inpainting: weight of the perceptual term.", low=0)
    inpainting_style: float = setting(120.0, "Inpainting: weight of the style term.", low=0)
    lambda_variation: float = setting(0.1, "Inpainting: weight of the total variation.", low=0)


@dataclass
class OptimiserSettings:
    """The optimiser and its learning rate."""

    optimiser: Literal["adam", "muon"] = setting("adam", "The paper's, or Muon, which learns faster step for step.")
    learning_rate: float = setting(2e-4, "Learning rate; for Muon about 1e-3.", low=0)
    beta1: float = setting(0.9, "β₁ of Adam.", low=0, high=1)
    beta2: float = setting(0.999, "β₂ of Adam.", low=0, high=1)
    batch_size: int = setting(4, "Patches of a step, on each device.", low=1)
    accumulate: int = setting(1, "Batches whose gradients are added before a step.", low=1)
    clip: float = setting(1.0, "Largest norm of the gradient; 0: any.", low=0)
    schedule: Literal["plateau", "cosine", "constant"] = setting(
        "plateau", "Learning rate: halved when validation stalls, down a cosine over the budget, or constant."
    )
    warmup: int = setting(0, "Steps over which the learning rate rises from 0.", low=0)
    patience: int = setting(5, "Plateau: validations without progress before the rate is halved.", low=1)
    ema: float = setting(0.999, "Decay of the averaged weights, which inference uses; 0: none.", low=0, high=1)


@dataclass
class RunSettings:
    """Budget, machines, and what is written when."""

    out: str = setting("", "Folder of the run: checkpoints, weights, log, settings.")
    init: str | None = setting(None, "Weights to begin with: RUN/last.safetensors of the stage before.")
    seed: int = setting(0, "Seed of the weights, patches, holes and cameras.", low=0, high=2**32 - 1)  # as numpy's
    max_steps: int | None = setting(None, "End after this many steps, counted over resumes.", low=1)
    max_hours: float | None = setting(
        None, "End within this many hours, start-up and last save included; resumes count.", above=0
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", "Arithmetic of the convolutions.")
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "Where to train.")
    devices: int = setting(1, "Devices on each machine.", low=1)
    num_nodes: int = setting(1, "Machines; start the command on each with torchrun or srun.", low=1)
    wait_minutes: float = setting(
        10.0, "Minutes that processes of a run wait for one another, before one is taken for lost.", above=0
    )
    strategy: Literal["auto", "ddp"] = setting("auto", "How several devices work together.")
    channels_last: bool = setting(False, "Store pictures channel by channel within the pixel.")
    log_every: int = setting(10, "Steps between two lines of the log.", low=1)
    validate_every: int = setting(500, "Steps between two validations.", low=1)
    checkpoint_every: int = setting(500, "Steps between two checkpoints.", low=1)
    checkpoint_minutes: float = setting(10.0, "Minutes after which a checkpoint is written anyway.", above=0)
    weights_minutes: float = setting(
        5.0, "Minutes between two writings of the weights alone, after a validation where that is quick.", above=0
    )
    half: bool = setting(False, "Write weights as float16: half the size.")
    pictures_every: int = setting(500, "Steps between two picture grids; 0: none.", low=0)


@dataclass
class Settings:
    """Everything a run needs to be repeated. `camera` holds fields of `train.camera.CameraConfig`."""

    stage: Literal["inpainting", "simulated", "hdr"] = "hdr"
    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    camera: dict[str, Any] = field(default_factory=dict)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)


SECTIONS: dict[str, type] = {
    "network": NetworkSettings,
    "data": DataSettings,
    "loss": LossSettings,
    "optimiser": OptimiserSettings,
    "run": RunSettings,
}


def make_settings(*layers: Mapping[str, Any]) -> Settings:
    """Settings from nested tables, a later one over an earlier: `{"stage": "hdr", "run": {"seed": 3}}`.

    Raises:
        Ldr2hdrError: a name that does not exist, or a value of the wrong type or out of range.
    """
    settings = Settings()
    for layer in layers:
        for name, value in layer.items():
            if name == "stage":
                settings.stage = checked("stage", value, Settings, "stage")
            elif name == "camera" and isinstance(value, Mapping):
                settings.camera = {**settings.camera, **value}
            elif name in SECTIONS and isinstance(value, Mapping):
                for key, content in value.items():
                    setattr(getattr(settings, name), key, checked(key, content, SECTIONS[name], f"{name}.{key}"))
            elif name == "camera" or name in SECTIONS:
                raise Ldr2hdrError(f"{name} is {brief(value)}, but must be a table of settings, one a line.")
            else:
                known = ", ".join(f.name for f in fields(Settings))
                raise Ldr2hdrError(f"The settings have no section {brief(name)}; the sections are {known}.")
    return settings


def to_yaml(settings: Settings) -> str:
    """The settings as YAML, which `make_settings` takes back."""
    import yaml

    assert is_dataclass(settings)
    return yaml.safe_dump(asdict(settings), sort_keys=False, allow_unicode=True)


def save_settings(settings: Settings, path: str | Path) -> None:
    """Writes `to_yaml` to `path`, whole or not at all."""
    write_atomically(Path(path), to_yaml(settings).encode())
