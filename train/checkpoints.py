"""What a run is resumed from: last.ckpt. All of it is checked before anything of it is used."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import Ldr2hdrError
from model.masked_unet import MaskedUNet

CHECKPOINT = "last.ckpt"
CHECKPOINT_FORMAT = 1
_KEPT = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum"}, {"step", "mean", "square"})  # of a weight: Adam's and Muon's


@dataclass
class Position:
    """Where a run stands: all that a checkpoint holds besides tensors."""

    step: int = 0
    seconds: float = 0.0
    rate_factor: float = 1.0  # by which plateaus have lowered the learning rate
    stalled: int = 0  # validations since the last progress
    plateau_best: float = math.inf
    best: float = math.inf
    best_step: int = 0


def read_checkpoint(path: Path, net: MaskedUNet) -> dict[str, Any]:
    """What `Run.save` wrote, its "position" as a `Position`; only tensors, numbers and strings are read, never code.

    Raises:
        Ldr2hdrError: no such file, damaged, or of a network of another shape.
    """
    if not path.is_file():
        raise Ldr2hdrError(f"{path} does not exist, so there is nothing to resume; omit --resume.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        known = content["format"] == CHECKPOINT_FORMAT
        shapes = {name: value.shape for name, value in content["network"].items()}
    except Exception as fault:
        raise Ldr2hdrError(f"{path} is not a checkpoint of ldr2hdr train ({type(fault).__name__}).") from fault
    if not known:
        raise Ldr2hdrError(f"{path} was written by another version of ldr2hdr; resume it with that version.")
    if shapes != {name: value.shape for name, value in net.state_dict().items()}:
        raise Ldr2hdrError(
            f"{path} is of a network of another shape; resume it with the settings that it was started with."
        )
    with part_of(path, "position"):
        content["position"] = _position(content["position"])
    for part in ("network", "average"):
        with part_of(path, part):
            _check_weights(content[part], net)
    with part_of(path, "scaler"):
        if not all(math.isfinite(number) for number in dict(content["scaler"]).values()):
            raise ValueError("not finite")
    return content


@contextmanager
def part_of(path: Path, part: str) -> Iterator[None]:
    """Whatever a value that is missing or of the wrong kind leads to, in this part of a checkpoint, as a sentence."""
    try:
        yield
    except Ldr2hdrError:
        raise
    except Exception as fault:
        raise Ldr2hdrError(
            f"{path} is damaged: its {part} cannot be used; start another run with --init "
            f"{path.with_name('last.safetensors')}."
        ) from fault


def restore_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Load what `optimiser.state_dict()` was, for tensors that fit; the groups' settings (betas) stay the run's own.

    To be called within `part_of`. Raises Ldr2hdrError where the state is of another optimiser, and anything where it
    is not that of an optimiser.
    """
    groups = optimiser.state_dict()["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in state["param_groups"]]:
        raise Ldr2hdrError(f"{path} is of another optimiser; resume it with the --optimiser that it was started with.")
    optimiser.load_state_dict({"state": state["state"], "param_groups": groups})
    for weight, kept in optimiser.state.items():
        if kept.keys() not in _KEPT:
            raise ValueError(f"a state of {list(kept)}")
        for name, value in kept.items():
            if value.shape != (torch.Size() if name == "step" else weight.shape) or not torch.isfinite(value).all():
                raise ValueError(f"{name} does not fit")


def _position(content: dict[str, Any]) -> Position:
    found = Position(**content)
    for entry in fields(Position):
        value = getattr(found, entry.name)
        wanted = (int,) if type(entry.default) is int else (int, float)
        if type(value) not in wanted or not value >= 0:  # NaN too
            raise ValueError(f"{entry.name} is {value!r:.40}")
    if not math.isfinite(found.seconds) or max(found.step, found.best_step, found.stalled) >= 2**53:
        raise ValueError("too far into the run")
    return found


def _check_weights(state: dict[str, Tensor], net: MaskedUNet) -> None:
    expected = net.state_dict()
    if state.keys() != expected.keys():
        raise ValueError("other weights")
    for name, value in state.items():
        if value.shape != expected[name].shape or not value.is_floating_point() or not torch.isfinite(value).all():
            raise ValueError(f"{name} does not fit")
