"""One training loop for both stages, over Lightning Fabric: the same code from one CPU to several machines.

Whatever is drawn at random is a function of the seed and of a sample's number, and the sample numbers of a step
follow from the step. So a run that is stopped and resumed takes the same steps as one that is not.

The host does not wait for the device in a step: losses stay there until they are logged (`train.meter`), and a step
whose gradient is not finite is left out there.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.errors import Ldr2hdrError
from train.batches import made_on_device, training_batches
from train.checkpoints import save, save_last_weights
from train.config import LossSettings, Settings, save_settings
from train.journal import Journal
from train.losses import Features, hdr_loss, inpainting_loss
from train.meter import Meter
from train.processes import (
    StopSignals,
    fast_arithmetic,
    lost_processes_named,
    reduce_over_processes,
    seconds_exchanging,
)
from train.run import Listener, Progress, Run, Terms
from train.schedule import learning_rate
from train.setup import set_up
from train.temporal import Movement, temporal_loss, with_moved
from train.validation import measure_untouched, validate, write_pictures

MAX_BAD_STEPS = 50  # steps in a row whose gradient is not finite, after which a run ends
CHEAP = 0.1  # of the time between two writings of the weights: validations that take less go with them


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
    training: Dataset[Any],
    validation: Dataset[Any],
    listener: Listener | None = None,
    resume: bool = False,
    credits: dict[str, str] | None = None,
    began: float | None = None,
) -> Outcome:
    """Trains a network and writes it to `settings.run.out`.

    Args:
        settings: all of the run.
        training: sample i for any i ≥ 0, a function of i alone; `Samples` can make them on the device. For the stage
            "inpainting" a dict of "image", "mask" and "truth", each (3,H,W) in [0,1]; otherwise of "ldr", "mask" and
            "truth", linear, eq. 1's scale.
        validation: the same of held-out scenes; its first `data.validation_patches` samples are used.
        listener: receives messages and progress.
        resume: go on from RUN/last.ckpt.
        credits: strings to keep in the weights' metadata, such as the sources of the data.
        began: when this process began, by `time.monotonic`; `run.max_hours` count from there. None: now.

    Raises:
        Ldr2hdrError: a checkpoint that does not fit, too many gradients that are not finite, a precision
            that the device lacks, pictures that the device was asked to hold and cannot, another process that is lost.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(lost_processes_named(settings.run))
        run = set_up(settings, listener, resume, credits or {}, began)
        stack.enter_context(fast_arithmetic(run.fabric, settings.run))
        if run.fabric.is_global_zero:
            save_settings(settings, run.out / "settings.yaml")
            run.journal = Journal(run.out, run.position.step, run.listener.message)
            stack.callback(run.journal.close)
        stop = stack.enter_context(StopSignals())
        return _fit(run, training, validation, stop)


def _fit(run: Run, training: Dataset[Any], validation: Dataset[Any], stop: StopSignals) -> Outcome:
    """Steps until the budget or a signal ends them."""
    position = run.position
    run.on_device = made_on_device(run, training, validation)
    meter = Meter(run.fabric, run.patches_per_step, run.on_device)
    batches = training_batches(run, training)
    reason = _reason_to_end(run, stop)
    if reason is None and position.step == 0:
        with run.budget.measured("validation"):
            measure_untouched(run, validation)
    chores = _Chores(run, validation)
    meter.restart()
    while reason is None:
        rate = _set_learning_rate(run)
        _step(run, batches, meter)
        position.step += 1
        if position.step % run.settings.run.log_every == 0:
            _log(run, meter, rate)
        elif meter.pending >= MAX_BAD_STEPS:
            _settle(run, meter)
        reason = _reason_to_end(run, stop)
        if due := chores.due(reason):
            _settle(run, meter)
            for chore in due:
                chore()
            meter.restart()
    meter.settle()
    return Outcome(position.step, reason, position.best, stop.signal, meter.history)


# -- a step -----------------------------------------------------------------------------------------------------------


def _set_learning_rate(run: Run) -> float:
    """Sets the rate of the coming step in the optimiser, and returns it."""
    rate = learning_rate(run.settings, run.position)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    return rate


def _step(run: Run, batches: Iterator[Terms], meter: Meter) -> None:
    """One step of the optimiser: `accumulate` batches."""
    accumulate = run.settings.optimiser.accumulate
    sums: dict[str, Tensor] = {}
    for part in range(accumulate):
        with meter.waiting():
            batch = next(batches)
        with run.fabric.no_backward_sync(run.wrapped, enabled=part + 1 < accumulate):
            terms = _loss_terms(run, batch, part)
            run.fabric.backward(terms["loss"] / accumulate)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0) + value.detach() / accumulate
    meter.add(sums, _descend(run))
    _update_average(run)


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


def _descend(run: Run) -> Tensor:
    """Clips the gradient and lets the optimiser step, but not where the gradient is not finite. Returns whether so."""
    clip = run.settings.optimiser.clip or math.inf
    norm = run.fabric.clip_gradients(run.wrapped, run.optimiser, max_norm=clip, error_if_nonfinite=False)
    bad = ~torch.isfinite(norm)
    optimiser = run.optimiser.optimizer
    if optimiser.defaults.get("fused"):
        optimiser.found_inf = bad.float()  # as PyTorch's GradScaler tells a fused optimiser to leave the weights alone
        run.optimiser.step()
    elif run.settings.run.precision == "fp16" or not bad:  # fp16's scaler skips by itself
        run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    return bad


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
    """Why the run ends now, the same in all processes, or None. Also makes `position.seconds` the same in all.

    Several processes agree when they log, since that makes each wait for the others.
    """
    limits, position = run.settings.run, run.position
    if limits.max_steps and position.step >= limits.max_steps:
        return "steps"
    if run.fabric.world_size > 1 and position.step % limits.log_every:
        return None
    heard, seconds, reserve = [float(stop.signal), run.budget.seconds, run.budget.reserve]
    number, position.seconds, reserve = reduce_over_processes(run.fabric, [heard, seconds, reserve], "max")
    if number:  # not `stop.signal`: it may have changed since the processes agreed
        stop.signal = int(number)
        return "signal"
    return "hours" if limits.max_hours and position.seconds + reserve >= limits.max_hours * 3600 else None


class _Chores:
    """What a run does beside its steps, and when: by steps, or by its clock, which is the same in all processes."""

    def __init__(self, run: Run, validation: Dataset[Any]) -> None:
        self._run, self._validation = run, validation
        self._saved = self._weighed = run.position.seconds

    def due(self, reason: str | None) -> list[Callable[[], None]]:
        """What is to be done after this step; reason: why the run ends with it."""
        run, every, now = self._run, self._run.settings.run, self._run.position.seconds
        step = run.position.step
        weigh = now - self._weighed > every.weights_minutes * 60
        due: list[Callable[[], None]] = []
        if step % every.validate_every == 0 or reason in ("steps", "hours"):
            due.append(lambda: self._validate(on_schedule=True))
        elif weigh and run.budget.of("validation") < CHEAP * every.weights_minutes * 60:
            due.append(lambda: self._validate(on_schedule=False))
        if every.pictures_every and step % every.pictures_every == 0:
            due.append(lambda: write_pictures(run, self._validation))
        if reason or now - self._saved > every.checkpoint_minutes * 60 or step % every.checkpoint_every == 0:
            self._saved = self._weighed = now
            due.append(self._save)
        elif weigh:
            self._weighed = now
            due.append(lambda: save_last_weights(run))
        return due

    def _validate(self, on_schedule: bool) -> None:
        with self._run.budget.measured("validation"):
            validate(self._run, self._validation, on_schedule)

    def _save(self) -> None:
        with self._run.budget.measured("save"):
            save(self._run)


def _settle(run: Run, meter: Meter) -> None:
    """Reads what the device knows of the steps so far, and reports those that it left out.

    Raises:
        Ldr2hdrError: MAX_BAD_STEPS gradients in a row were not finite.
    """
    known = len(meter.bad)
    meter.settle()
    first = run.position.step - len(meter.bad) + 1
    run.budget.step_took(meter.seconds_a_step)
    for place in range(known, len(meter.bad)):
        if meter.bad[place] and not (place and meter.bad[place - 1]):
            run.listener.message(f"Step {first + place} was skipped: its gradient is not finite.")
        if place + 1 >= MAX_BAD_STEPS and all(meter.bad[place + 1 - MAX_BAD_STEPS : place + 1]):
            raise Ldr2hdrError(
                f"The gradient was not finite in {MAX_BAD_STEPS} steps in a row; lower --learning-rate or use "
                "--precision fp32, and continue from the last checkpoint with --resume."
            )


def _log(run: Run, meter: Meter, rate: float) -> None:
    _settle(run, meter)
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
    step, exchange = run.patches_per_step / max(speed, 1e-9), seconds_exchanging(run.wrapped)
    run.listener.progress(
        Progress(position.step, limits.max_steps, terms["loss"], terms, rate, speed, wait, hours, step, exchange)
    )
