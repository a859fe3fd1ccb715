"""The files of a run: last.ckpt, which it is resumed from, and the weights.

All of a checkpoint is checked before any of it is used.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.atomic import replace_atomically
from model.checkpoint import save_network
from model.errors import Ldr2hdrError
from model.masked_unet import MaskedUNet
from train.config import to_yaml
from train.run import Position, Run

CHECKPOINT = "last.ckpt"
LAST, BEST = "last.safetensors", "best.safetensors"
CHECKPOINT_FORMAT = 1
_KEPT = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum"}, {"step", "mean", "square"})  # of a weight: Adam's and Muon's


def save(run: Run) -> None:
    """Writes last.ckpt and last.safetensors. On a full disk the former ones stay, and a warning is given."""
    if not run.fabric.is_global_zero:
        return
    content = {
        "format": CHECKPOINT_FORMAT,
        "position": asdict(run.position),
        "network": run.net.state_dict(),
        "average": run.average.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "scaler": run.fabric.strategy.precision.state_dict(),
        "random": torch.get_rng_state(),
        "settings": to_yaml(run.settings),
    }

    def write() -> None:
        replace_atomically(run.out / CHECKPOINT, lambda file: torch.save(content, file))
        save_weights(run, run.out / LAST, {})

    saved(run, run.out, write)


def save_last_weights(run: Run) -> None:
    """Writes last.safetensors alone, in between checkpoints."""
    if run.fabric.is_global_zero:
        saved(run, run.out / LAST, lambda: save_weights(run, run.out / LAST, {}))


def save_weights(run: Run, path: Path, more: dict[str, str]) -> None:
    """Writes the averaged weights, or the last ones of a run without an average; `more` is added to the metadata."""
    metadata = {
        "ldr2hdr.stage": run.settings.stage,
        "ldr2hdr.step": str(run.position.step),
        "ldr2hdr.hours": f"{run.position.seconds / 3600:.3f}",
        "ldr2hdr.perceptual": "none" if run.vgg is None else run.vgg.description,
        "ldr2hdr.settings": to_yaml(run.settings),
        **{f"ldr2hdr.{name}": value for name, value in {**more, **run.credits}.items()},
    }
    net = run.average if run.settings.optimiser.ema else run.net
    save_network(net, path, metadata, torch.float16 if run.settings.run.half else None)


def saved(run: Run, path: Path, write: Callable[[], None]) -> bool:
    """Calls `write`, which writes `path`. Returns whether it could; a full disk must not cost hours of training."""
    try:
        write()
    except (OSError, RuntimeError) as fault:  # torch.save reports a full disk as a RuntimeError
        run.listener.message(
            f"WARNING: step {run.position.step} could not be saved in {path} ({fault}); what was saved before is "
            "kept, and the run goes on. Free some space."
        )
        return False
    return True


def read_checkpoint(path: Path, net: MaskedUNet) -> dict[str, Any]:
    """What `save` wrote, its "position" as a `Position`; only tensors, numbers and strings are read, never code.

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
    with _part(path, "position"):
        content["position"] = _position(content["position"])
    for part in ("network", "average"):
        with _part(path, part):
            _check_weights(content[part], net)
    with _part(path, "scaler"):
        if not all(math.isfinite(number) for number in dict(content["scaler"]).values()):
            raise ValueError("not finite")
    return content


@contextmanager
def _part(path: Path, part: str) -> Iterator[None]:
    """Turns whatever a missing or malformed value raises, in this part of a checkpoint, into one sentence."""
    try:
        yield
    except Ldr2hdrError:
        raise
    except Exception as fault:
        raise Ldr2hdrError(
            f"{path} is damaged: its {part} cannot be used; start another run with --init "
            f"{path.with_name('last.safetensors')}."
        ) from fault


def restore(run: Run, checkpoint: dict[str, Any]) -> None:
    """Restores what `read_checkpoint` gave, except the network, which is loaded before Fabric wraps it."""
    path = run.out / CHECKPOINT
    run.position = checkpoint["position"]
    run.average.load_state_dict(checkpoint["average"])
    with _part(path, "optimiser"):
        _restore_optimiser(run.optimiser, checkpoint["optimiser"], path)
    with _part(path, "scaler"):
        if checkpoint["scaler"]:
            run.fabric.strategy.precision.load_state_dict(checkpoint["scaler"])
    with _part(path, "random"):
        torch.set_rng_state(checkpoint["random"])


def _restore_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Load what `optimiser.state_dict()` was, for tensors that fit; the groups' settings (betas) stay the run's own.

    To be called within `_part`. Raises Ldr2hdrError where the state is of another optimiser, and anything where it
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
