"""One training loop for both stages, over Lightning Fabric: the same code from one CPU to several machines.

Whatever is drawn at random is a function of the seed and of a sample's number, and the sample numbers of a step
follow from the step. So a run that is stopped and resumed takes the same steps as one that is not.
"""

import contextlib
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.atomic import make_folder
from model.checkpoint import load_network
from model.errors import Ldr2hdrError
from model.masked_unet import MaskedUNet, NetworkConfig, initialise
from train.checkpoints import CHECKPOINT, read_checkpoint, restore, save
from train.config import LossSettings, Settings, save_settings
from train.journal import Journal
from train.losses import Features, hdr_loss, inpainting_loss
from train.muon import Muon
from train.processes import StopSignals, reduce_over_processes, start_fabric, to_device, training_batches
from train.run import Listener, Progress, Run, Terms
from train.schedule import learning_rate
from train.temporal import Movement, temporal_loss, with_moved
from train.validation import measure_untouched, validate, write_pictures
from train.vgg import load_vgg

MAX_BAD_STEPS = 50  # steps in a row whose gradient is not finite, after which a run ends


@dataclass
class Outcome:
    """How a run ended. `reason` is "steps", "hours" or "signal"; `signal` its number, or 0."""

    step: int
    reason: str
    best: float
    signal: int = 0
    history: list[float] = field(default_factory=list)  # loss of every step taken in this call


def train(
    settings: Settings,
    training: Dataset,
    validation: Dataset,
    listener: Listener | None = None,
    resume: bool = False,
    credits: dict[str, str] | None = None,
) -> Outcome:
    """Trains a network and writes it to `settings.run.out`.

    Args:
        settings: all of the run.
        training: sample i for any i ≥ 0, a function of i alone. For the stage "inpainting" a dict of "image", "mask"
            and "truth", each (3,H,W) in [0,1]; otherwise of "ldr", "mask" and "truth", linear, eq. 1's scale.
        validation: the same of held-out scenes; its first `data.validation_patches` samples are used.
        listener: receives messages and progress.
        resume: go on from RUN/last.ckpt.
        credits: strings to keep in the weights' metadata, such as the sources of the data.

    Raises:
        Ldr2hdrError: a checkpoint that does not fit, too many gradients that are not finite, a precision
            that the device lacks.
    """
    with contextlib.ExitStack() as stack:
        run = _set_up(settings, listener, resume, credits or {})
        if run.fabric.is_global_zero:
            save_settings(settings, run.out / "settings.yaml")
            run.journal = Journal(run.out, run.position.step, run.listener.message)
            stack.callback(run.journal.close)
        stop = stack.enter_context(StopSignals())
        return _fit(run, training, validation, stop)


def _fit(run: Run, training: Dataset, validation: Dataset, stop: StopSignals) -> Outcome:
    """Steps until the budget or a signal ends them."""
    position, every = run.position, run.settings.run
    history: list[float] = []
    meter = _Meter(run.patches_per_step)
    batches = training_batches(run, training)
    reason = _reason_to_end(run, stop)
    if reason is None and position.step == 0:
        measure_untouched(run, validation)
    saved_at = began = time.monotonic()
    while reason is None:
        step_began = time.monotonic()
        rate = _set_learning_rate(run)
        terms, waited = _step(run, batches)
        position.step += 1
        history.append(terms["loss"])
        meter.add(terms, time.monotonic() - step_began, waited)
        position.seconds, began = position.seconds + time.monotonic() - began, time.monotonic()
        if position.step % every.log_every == 0:
            _log(run, meter, rate)
        reason = _reason_to_end(run, stop)
        if position.step % every.validate_every == 0 or reason in ("steps", "hours"):
            validate(run, validation)
        if every.pictures_every and position.step % every.pictures_every == 0:
            write_pictures(run, validation)
        late = time.monotonic() - saved_at > every.checkpoint_minutes * 60
        if reason or late or position.step % every.checkpoint_every == 0:
            saved_at = time.monotonic()
            save(run)
    return Outcome(position.step, reason, position.best, stop.signal, history)


# -- a step -----------------------------------------------------------------------------------------------------------


def _set_learning_rate(run: Run) -> float:
    """Sets the rate of the coming step in the optimiser, and returns it."""
    rate = learning_rate(run.settings, run.position)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    return rate


def _step(run: Run, batches: Iterator[Terms]) -> tuple[dict[str, float], float]:
    """One step of the optimiser: `accumulate` batches. Returns the mean terms and the seconds waited for data."""
    accumulate = run.settings.optimiser.accumulate
    sums: dict[str, Tensor] = {}
    waited = 0.0
    for part in range(accumulate):
        began = time.monotonic()
        batch = to_device(run, next(batches))
        waited += time.monotonic() - began
        with run.fabric.no_backward_sync(run.wrapped, enabled=part + 1 < accumulate):
            terms = _loss_terms(run, batch, part)
            run.fabric.backward(terms["loss"] / accumulate)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach() / accumulate
    _descend(run)
    _update_average(run)
    reduced = run.fabric.all_reduce(torch.stack(list(sums.values())), reduce_op="mean")
    return dict(zip(sums, reduced.tolist(), strict=True)), waited


def _loss_terms(run: Run, batch: Terms, part: int) -> Terms:
    """The loss of the stage and its terms. part: which of the batches of this step.

    Steps without perceptual terms are made up for by the others, where they weigh `perceptual_every` times as much.
    """
    loss, step = run.settings.loss, run.position.step
    perceptual = step >= loss.perceptual_start and step % loss.perceptual_every == 0
    features = run.features() if perceptual else None
    if loss.perceptual_every != 1:
        loss = copy.copy(loss)
        loss.lambda_perceptual *= loss.perceptual_every
        loss.inpainting_perceptual *= loss.perceptual_every
        loss.inpainting_style *= loss.perceptual_every
    if run.settings.stage == "inpainting":
        return inpainting_loss(run.wrapped(batch["image"], batch["mask"]).float(), batch, loss, features)
    if loss.temporal_weight and step >= loss.temporal_start:
        return _temporal_terms(run, batch, loss, features, part)
    output = run.wrapped(batch["ldr"], batch["mask"]).float()
    return hdr_loss(output, batch, loss, features, run.settings.network.floor)


def _temporal_terms(run: Run, batch: Terms, loss: LossSettings, features: Features | None, part: int) -> Terms:
    """The terms of the HDR stage, and the temporal one, of a quarter of the batch and its moved copies."""
    network, ldr = run.settings.network, batch["ldr"]
    count = max(1, len(ldr) // 4)
    place = [run.settings.run.seed, 0x7E47, run.position.step, run.fabric.global_rank, part]
    movement = Movement.drawn(np.random.default_rng(place), count, ldr.shape[-1])
    pictures = with_moved(ldr, batch["mask"], movement, network.mask_threshold)
    output, moved = run.wrapped(*pictures).float().split([len(ldr), count])
    terms = hdr_loss(output, batch, loss, features, network.floor)
    own = temporal_loss(output[:count], moved, ldr[:count], movement, network.mask_threshold, network.floor)
    return terms | {"loss": terms["loss"] + loss.temporal_weight * own, "temporal": own}


def _descend(run: Run) -> None:
    """Clips the gradient and lets the optimiser step. A gradient that is not finite is skipped.

    Raises:
        Ldr2hdrError: MAX_BAD_STEPS gradients in a row were not finite.
    """
    clip = run.settings.optimiser.clip or math.inf
    norm = run.fabric.clip_gradients(run.wrapped, run.optimiser, max_norm=clip, error_if_nonfinite=False)
    finite = bool(torch.isfinite(norm))
    if finite or run.settings.run.precision == "fp16":  # fp16's scaler skips by itself
        run.optimiser.step()
    run.bad_steps = 0 if finite else run.bad_steps + 1
    if run.bad_steps == 1:
        run.listener.message(f"Step {run.position.step + 1} was skipped: its gradient is not finite.")
    if run.bad_steps >= MAX_BAD_STEPS:
        raise Ldr2hdrError(
            f"The gradient was not finite in {MAX_BAD_STEPS} steps in a row; lower --learning-rate or use "
            "--precision fp32, and continue from the last checkpoint with --resume."
        )
    run.optimiser.zero_grad(set_to_none=True)


@torch.no_grad()
def _update_average(run: Run) -> None:
    """The moving average of the weights, faster at the start so that it forgets the initial ones."""
    step = run.position.step + 1
    decay = min(run.settings.optimiser.ema, (1 + step) / (10 + step))
    average: list[Tensor] = list(run.average.parameters())
    weights: list[Tensor] = list(run.net.parameters())
    torch._foreach_lerp_(average, weights, 1 - decay)


# -- logging and ending -----------------------------------------------------------------------------------------------


def _reason_to_end(run: Run, stop: StopSignals) -> str | None:
    """Why the run ends now, the same in all processes, or None. Also makes `position.seconds` the same in all."""
    limits, position = run.settings.run, run.position
    number, position.seconds = reduce_over_processes(run.fabric, [stop.signal, position.seconds], "max")
    if number:
        stop.signal = int(number)
    if limits.max_steps and position.step >= limits.max_steps:
        return "steps"
    if number:  # not `stop.signal`: it may have changed since the processes agreed
        return "signal"
    return "hours" if limits.max_hours and position.seconds >= limits.max_hours * 3600 else None


def _log(run: Run, meter: "_Meter", rate: float) -> None:
    limits, position = run.settings.run, run.position
    terms, speed, wait = meter.read()
    if not (run.journal and run.fabric.is_global_zero):
        return
    row = {"loss": terms["loss"], "learning_rate": rate, "patches_per_second": speed, "wait": wait}
    run.journal.write(position.step, "train", {**row, "hours": position.seconds / 3600}, terms)
    left = [limits.max_hours - position.seconds / 3600] if limits.max_hours else []
    if limits.max_steps:
        left.append((limits.max_steps - position.step) * run.patches_per_step / max(speed, 1e-9) / 3600)
    hours = min(left) if left else None
    run.listener.progress(Progress(position.step, limits.max_steps, terms["loss"], terms, rate, speed, wait, hours))


class _Meter:
    """Means of the terms, patches a second and the share of waiting since it was last read."""

    def __init__(self, patches: int) -> None:
        self._patches = patches
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}
        self._steps, self._took, self._waited = 0, 0.0, 0.0

    def add(self, terms: dict[str, float], took: float, waited: float) -> None:
        for name, value in terms.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        self._steps, self._took, self._waited = self._steps + 1, self._took + took, self._waited + waited

    def read(self) -> tuple[dict[str, float], float, float]:
        terms = {name: total / count for name, (total, count) in self._sums.items()}
        speed, wait = self._steps * self._patches / max(self._took, 1e-9), self._waited / max(self._took, 1e-9)
        self._clear()
        return terms, speed, wait


# -- setting up -------------------------------------------------------------------------------------------------------


def _set_up(settings: Settings, listener: Listener | None, resume: bool, credits: dict[str, str]) -> Run:
    """The run at its first step, or at the step of its checkpoint."""
    fabric = start_fabric(settings.run)
    listener = listener if listener and fabric.is_global_zero else Listener()
    out = Path(settings.run.out)
    make_folder(out)
    net = _network(settings, listener)
    optimiser = _optimiser(settings, net)
    vgg = load_vgg(settings.loss.perceptual, settings.loss.vgg_weights)
    if settings.loss.perceptual == "random":
        listener.message(
            "WARNING: the perceptual terms use a network with RANDOM weights, never trained on pictures; "
            "give --vgg-weights FILE for the loss of the paper. The weights' card will say so."
        )
    checkpoint = read_checkpoint(out / CHECKPOINT, net) if resume else None
    if checkpoint:
        net.load_state_dict(checkpoint["network"])
    if settings.run.channels_last:
        net = net.to(memory_format=torch.channels_last)
    wrapped, optimiser = fabric.setup(net, optimiser)
    average = copy.deepcopy(net).eval().requires_grad_(False)
    vgg = None if vgg is None else fabric.to_device(vgg)
    run = Run(settings, fabric, wrapped, net, average, optimiser, vgg, listener, credits)
    if checkpoint:
        restore(run, checkpoint)
        listener.message(f"Resumed at step {run.position.step} from {out / CHECKPOINT}.")
    return run


def _network(settings: Settings, listener: Listener) -> MaskedUNet:
    """The network of the settings, Xavier-initialised, with the tensors of `run.init` that fit."""
    try:
        config = NetworkConfig(**asdict(settings.network))
    except ValueError as fault:
        raise Ldr2hdrError(f"The network's settings do not fit: {fault}.") from fault
    if settings.data.patch_size % 2**config.depth:
        raise Ldr2hdrError(
            f"A patch size of {settings.data.patch_size} is not a multiple of 2^depth = {2**config.depth}; change one."
        )
    net = initialise(MaskedUNet(config), settings.run.seed)
    if settings.run.init:
        given = load_network(settings.run.init).state_dict()
        own = net.state_dict()
        fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        if not fitting:
            raise Ldr2hdrError(
                f"{settings.run.init} has no layer of the shape that these settings call for; give its base_channels "
                "and depth, or omit them."
            )
        net.load_state_dict({**own, **fitting})
        fresh = len(own) - len(fitting)
        listener.message(f"Starting from {settings.run.init}" + (f"; {fresh} tensors are new." if fresh else "."))
    return net.train()


def _optimiser(settings: Settings, net: MaskedUNet) -> torch.optim.Optimizer:
    rate, betas = settings.optimiser.learning_rate, (settings.optimiser.beta1, settings.optimiser.beta2)
    if settings.optimiser.optimiser == "muon":
        return Muon(net, rate, betas)
    return torch.optim.Adam(net.parameters(), rate, betas)
