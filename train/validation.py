"""Validation: the loss on held-out scenes, the loss of doing nothing, dead channels, picture grids."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.exposure import compose_hdr
from model.masked_unet import MaskedUNet
from train.batches import validation_batches
from train.checkpoints import BEST, save_weights, saved
from train.dead_channels import MANY, recorded_peaks
from train.journal import GRID_EXPOSURES, exposed, picture_grid
from train.losses import floor_of, hdr_loss, inpainting_loss
from train.processes import reduce_over_processes
from train.run import Run, Terms
from train.schedule import learning_rate, lower_rate_on_plateau


def validate(run: Run, validation: Dataset[Any], on_schedule: bool = True) -> None:
    """Measures the averaged network, logs and reports it, and writes best.safetensors if it is the best so far.

    on_schedule: whether the learning rate may follow from it, as from those that come at given steps.
    """
    position = run.position
    with recorded_peaks(run.average) as peaks:
        terms = measure(run, validation, run.average)
    _warn_of_dead_channels(run, peaks.dead())
    loss = terms["loss"]
    if on_schedule and lower_rate_on_plateau(run.settings, position, loss):
        rate = learning_rate(run.settings, position)
        run.listener.message(f"Validation has stalled: learning rate {rate:.3g}.")
    if not run.fabric.is_global_zero:
        return
    stops = _write(run, "validation", terms, hours=position.seconds / 3600)
    best = loss < position.best
    run.listener.message(
        f"Step {position.step}: validation loss {loss:.4f}{stops}"
        + (" (best so far)" if best else f" (best {position.best:.4f} at step {position.best_step})")
    )
    path, more = run.out / BEST, {"validation_loss": f"{loss:.6g}"}
    if best and saved(run, path, lambda: save_weights(run, path, more)):
        position.best, position.best_step = loss, position.step  # of the weights in the file


def measure_untouched(run: Run, validation: Dataset[Any]) -> None:
    """Logs and reports the validation loss of doing nothing, which the network has to beat."""
    terms = measure(run, validation, None)
    if run.fabric.is_global_zero:
        stops = _write(run, "untouched", terms)
        what = "filling holes with grey" if run.settings.stage == "inpainting" else "not expanding at all"
        run.listener.message(f"The bar: {what} has a validation loss of {terms['loss']:.4f}{stops}.")


@torch.no_grad()
def measure(run: Run, validation: Dataset[Any], net: MaskedUNet | None) -> dict[str, float]:
    """Mean terms over the validation set, always with the perceptual ones; net None: of untouched pictures.

    For the HDR stages also "rmse_stops": the root mean square error over clipped pixels, in stops.
    """
    sums: dict[str, float] = {}
    count = 0
    for batch in validation_batches(run, validation):
        output = untouched(batch, run.settings.stage) if net is None else _infer(run, net, batch)
        size = output.shape[0]
        for name, value in _terms(run, output, batch).items():
            sums[name] = sums.get(name, 0.0) + float(value) * size
        count += size
    names: list[str] = run.fabric.broadcast(list(sums))  # a process without a share of the set has no names
    *totals, total = reduce_over_processes(run.fabric, [*(sums.get(name, 0.0) for name in names), count], "sum")
    result: dict[str, float] = {name: value / total for name, value in zip(names, totals, strict=True)}
    if "squared_stops" in result:
        share = max(result.pop("clipped_share"), 1e-12)
        result["rmse_stops"] = math.sqrt(result.pop("squared_stops") / share)
    return result


def untouched(batch: Terms, stage: str) -> Tensor:
    """The output of doing nothing, (N,3,H,W): clipped pixels stay at T^γ; holes are filled with middle grey."""
    if stage == "inpainting":
        return batch["mask"] * batch["truth"] + (1 - batch["mask"]) * 0.5
    return floor_of(batch["ldr"])


@torch.no_grad()
def write_pictures(run: Run, validation: Dataset[Any]) -> None:
    """A grid of the first validation batch to the journal: input, mask, output and truth."""
    if not (run.journal and run.fabric.is_global_zero):
        return
    batch = next(validation_batches(run, validation))
    output = _infer(run, run.average, batch)
    if run.settings.stage == "inpainting":
        mixed = batch["mask"] * batch["image"] + (1 - batch["mask"]) * output
        columns = [batch["image"], batch["mask"], output, mixed, batch["truth"]]
    else:
        hdr = compose_hdr(batch["ldr"], batch["mask"], output, floor=run.settings.network.floor)
        columns = [batch["ldr"], batch["mask"]]
        columns += [exposed(picture, stops) for picture in (hdr, batch["truth"]) for stops in GRID_EXPOSURES]
    run.journal.pictures(run.position.step, picture_grid(columns))


def _infer(run: Run, net: MaskedUNet, batch: Terms) -> Tensor:
    picture = batch["image" if run.settings.stage == "inpainting" else "ldr"]
    with run.fabric.autocast():
        return net(picture, batch["mask"]).float()


def _terms(run: Run, output: Tensor, batch: Terms) -> Terms:
    """The loss of the stage and its terms; for HDR also the squared error in stops and the share it is taken over."""
    loss, features = run.settings.loss, run.features()
    if run.settings.stage == "inpainting":
        return inpainting_loss(output, batch, loss, features)
    terms = hdr_loss(output, batch, loss, features, run.settings.network.floor)
    clipped = (batch["mask"] < 1).float()
    hdr = compose_hdr(batch["ldr"], batch["mask"], output, floor=run.settings.network.floor)
    stops = torch.log2(hdr.clamp_min(1e-3)) - torch.log2(batch["truth"].clamp_min(1e-3))
    return terms | {"squared_stops": (clipped * stops**2).mean(), "clipped_share": clipped.mean()}


def _write(run: Run, kind: str, terms: dict[str, float], **more: float) -> str:
    """Writes a line of the log. Returns the error in stops as it is reported, "" where there is none."""
    error = terms.pop("rmse_stops", None)
    if run.journal:
        row = {"loss": terms["loss"], **more, "rmse_stops": "" if error is None else error}
        run.journal.write(run.position.step, kind, row, terms)
    return "" if error is None else f", {error:.3f} stops"


def _warn_of_dead_channels(run: Run, layers: dict[str, tuple[int, int]]) -> None:
    """Warns once if much of a layer is dead, as ReLUs are once too high a rate has pushed them below 0."""
    worst = max(layers, key=lambda name: layers[name][0] / layers[name][1], default=None)
    if worst is None or run.warned_of_dead_channels or layers[worst][0] < MANY * layers[worst][1]:
        return
    run.warned_of_dead_channels = True
    run.listener.message(
        f"{layers[worst][0]} of {layers[worst][1]} channels of {worst} are 0 on all validation pictures, and a "
        "ReLU does not come back from that. Start again with leaky_relu as --encoder-activation and "
        "--decoder-activation, or with a lower --learning-rate and --warmup."
    )
