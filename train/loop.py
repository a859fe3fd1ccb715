"""One training loop for both stages, over Lightning Fabric: from one CPU to several machines with the same code.

Everything that is drawn at random is a function of the seed and of a sample's number, and the numbers of a step
follow from the step. So a run that is stopped and resumed takes the same steps as one that is not.
"""

import contextlib
import copy
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from model.atomic import replace_atomically
from model.checkpoint import load_network, save_network
from model.errors import Ldr2hdrError
from model.exposure import compose_hdr
from model.masked_unet import MaskedUNet, NetworkConfig, initialise
from train.checkpoints import (
    CHECKPOINT,
    CHECKPOINT_FORMAT,
    Position,
    part_of,
    read_checkpoint,
    restore_optimiser,
)
from train.config import LossSettings, OptimiserSettings, RunSettings, Settings, save_settings, to_yaml
from train.dead_channels import MANY, listening
from train.journal import GRID_EXPOSURES, Journal, exposed, picture_grid
from train.losses import Features, floor_of, hdr_loss, inpainting_loss
from train.muon import Muon
from train.pictures import make_folder
from train.temporal import Movement, temporal_loss, with_moved
from train.vgg import VGG19Features, load_vgg

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
MAX_BAD_STEPS = 50  # steps in a row whose gradient is not finite, after which a run ends
Terms = dict[str, Tensor]


@dataclass
class Progress:
    """What a listener hears of, at every logged step; `wait` is the share of the time spent waiting for data."""

    step: int
    max_steps: int | None
    loss: float
    terms: dict[str, float]
    learning_rate: float
    patches_per_second: float
    wait: float
    hours_left: float | None


class Listener:
    """Hears what a run has to tell; this one keeps silent. The command line has one that speaks."""

    def message(self, text: str) -> None:
        """A sentence: validation figures, warnings, files written."""

    def progress(self, progress: Progress) -> None:
        """A logged step."""


@dataclass
class Outcome:
    """How a run ended. `reason` is "steps", "hours" or "signal"; `signal` its number, or 0."""

    step: int
    reason: str
    best: float
    signal: int = 0
    history: list[float] = field(default_factory=list)  # loss of every step taken in this call


class BatchNumbers(Sampler[list[int]]):
    """Numbers of the samples of each batch, from a step on and without end, for one process of `world`."""

    def __init__(self, step: int, settings: OptimiserSettings, rank: int = 0, world: int = 1) -> None:
        self._size, self._rank, self._world = settings.batch_size, rank, world
        self._first = step * settings.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        batch = self._first
        while True:
            start = (batch * self._world + self._rank) * self._size
            yield list(range(start, start + self._size))
            batch += 1


class _Stop:
    """Remembers a SIGINT or SIGTERM until the step is done; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        with contextlib.suppress(ValueError):  # not in the main thread: no signals to catch
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _frame: object) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def speaks_for_the_run() -> bool:
    """Whether this process is the first of its run, as the variables of Lightning, torchrun and Slurm tell."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return not any(int(os.environ.get(name) or 0) for name in ranks)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Processes started meanwhile do not hear SIGINT and SIGTERM; this one hears them afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        listener: hears of progress.
        resume: go on from RUN/last.ckpt.
        credits: strings to keep in the weights' metadata, as the data's sources.

    Raises:
        Ldr2hdrError: a checkpoint that does not fit, a loss that stays not finite, a precision the device lacks.
    """
    fabric = start_fabric(settings.run)
    listener = listener if listener and fabric.is_global_zero else Listener()
    out = Path(settings.run.out)
    make_folder(out)
    net = build_network(settings, listener)
    rate, betas = settings.optimiser.learning_rate, (settings.optimiser.beta1, settings.optimiser.beta2)
    muon = settings.optimiser.optimiser == "muon"
    optimiser = Muon(net, rate, betas) if muon else torch.optim.Adam(net.parameters(), rate, betas)
    vgg = load_vgg(settings.loss.perceptual, settings.loss.vgg_weights)
    if settings.loss.perceptual == "random":
        listener.message(
            "WARNING: the perceptual terms look through a network with RANDOM weights, never trained on pictures; "
            "give --vgg-weights FILE for the loss of the paper. The weights' card will say so."
        )
    checkpoint = read_checkpoint(out / CHECKPOINT, net) if resume else None
    if checkpoint:
        net.load_state_dict(checkpoint["network"])
    if settings.run.channels_last:
        net = net.to(memory_format=torch.channels_last)
    wrapped, optimiser = fabric.setup(net, optimiser)
    run = Run(settings, fabric, wrapped, net, optimiser, None if vgg is None else fabric.to_device(vgg), listener)
    run.credits = credits or {}
    if checkpoint:
        run.restore(checkpoint)
        listener.message(f"Resumed at step {run.position.step} from {out / CHECKPOINT}.")
    with contextlib.ExitStack() as stack:
        if fabric.is_global_zero:
            save_settings(settings, out / "settings.yaml")
            run.journal = Journal(out, run.position.step, listener.message)
            stack.callback(run.journal.close)
        return run.go(training, validation)


def start_fabric(run: RunSettings) -> Any:
    """A launched Fabric for the run's machines.

    Raises:
        Ldr2hdrError: no Lightning, no such device, or a precision the device lacks.
    """
    try:
        from lightning_fabric import Fabric, seed_everything
    except ImportError as fault:
        raise Ldr2hdrError('Training needs Lightning Fabric; install it with: pip install "ldr2hdr[train]"') from fault
    try:
        fabric = Fabric(
            accelerator=run.accelerator,
            devices=run.devices,
            num_nodes=run.num_nodes,
            strategy=run.strategy,
            precision=PRECISIONS[run.precision],  # type: ignore[arg-type]
        )
        if run.precision == "fp16" and fabric.device.type == "cpu":
            raise Ldr2hdrError("fp16 needs a GPU, since its gradients are scaled; use --precision bf16 on a CPU.")
        fabric.launch()
    except (RuntimeError, ValueError) as fault:
        raise Ldr2hdrError(f"The requested devices are not available: {str(fault).splitlines()[0]}") from fault
    seed_everything(run.seed, verbose=False)
    return fabric


def build_network(settings: Settings, listener: Listener) -> MaskedUNet:
    """The network of the settings, Xavier-initialised, with what fits of `run.init`'s weights."""
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


@dataclass
class Run:
    """A run under way: network, optimiser, position."""

    settings: Settings
    fabric: Any
    wrapped: Any  # the network as Fabric runs it
    net: MaskedUNet  # the same, bare
    optimiser: Any
    vgg: VGG19Features | None
    listener: Listener
    position: Position = field(default_factory=Position)
    journal: Journal | None = None
    credits: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self._saved_step, self._saved_at = -1, time.monotonic()
        self._bad_steps = 0
        self._told_of_silence = False

    def go(self, training: Dataset, validation: Dataset) -> Outcome:
        """Steps until the budget or a signal ends them."""
        run, position = self.settings.run, self.position
        history: list[float] = []
        meter = _Meter(self._patches_a_step())
        with _Stop() as stop:
            batches = self._batches(training)
            reason = self._ended(stop)
            if reason is None and position.step == 0:
                self._untouched(validation)
            began = time.monotonic()
            while reason is None:
                step_began = time.monotonic()
                rate = self._set_rate()
                terms, waited = self._step(batches)
                position.step += 1
                history.append(float(terms["loss"]))
                meter.add(terms, time.monotonic() - step_began, waited)
                position.seconds, began = position.seconds + time.monotonic() - began, time.monotonic()
                if position.step % run.log_every == 0:
                    self._log(meter, rate)
                reason = self._ended(stop)
                if position.step % run.validate_every == 0 or reason in ("steps", "hours"):
                    self._validate(validation)
                if run.pictures_every and position.step % run.pictures_every == 0:
                    self._pictures(validation)
                if reason or self._checkpoint_due():
                    self.save()
        return Outcome(position.step, reason, position.best, stop.signal, history)

    def _step(self, batches: Iterator[Terms]) -> tuple[dict[str, float], float]:
        """One step of the optimiser: `accumulate` batches. Returns the mean terms and the seconds of waiting."""
        accumulate = self.settings.optimiser.accumulate
        sums: dict[str, Tensor] = {}
        waited = 0.0
        for part in range(accumulate):
            began = time.monotonic()
            batch = self._to_device(next(batches))
            waited += time.monotonic() - began
            with self.fabric.no_backward_sync(self.wrapped, enabled=part + 1 < accumulate):
                terms = self._terms(batch, *self._perceptual_now(), part=part)
                self.fabric.backward(terms["loss"] / accumulate)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() / accumulate
        self._descend()
        reduced = self.fabric.all_reduce(torch.stack(list(sums.values())), reduce_op="mean")
        return dict(zip(sums, reduced.tolist(), strict=True)), waited

    def _descend(self) -> None:
        clip = self.settings.optimiser.clip or math.inf
        norm = self.fabric.clip_gradients(self.wrapped, self.optimiser, max_norm=clip, error_if_nonfinite=False)
        if bool(torch.isfinite(norm)) or self.settings.run.precision == "fp16":  # fp16's scaler skips by itself
            self.optimiser.step()
        self._bad_steps = 0 if bool(torch.isfinite(norm)) else self._bad_steps + 1
        if self._bad_steps == 1:
            self.listener.message(f"Step {self.position.step + 1} was skipped: its gradient is not finite.")
        if self._bad_steps >= MAX_BAD_STEPS:
            raise Ldr2hdrError(
                f"The gradient was not finite in {MAX_BAD_STEPS} steps in a row; lower --learning-rate or use "
                "--precision fp32, and continue from the last checkpoint with --resume."
            )
        self.optimiser.zero_grad(set_to_none=True)
        self._average()

    @torch.no_grad()
    def _average(self) -> None:
        """The moving average of the weights, quicker at the start so that it forgets the initial ones."""
        step = self.position.step + 1
        decay = min(self.settings.optimiser.ema, (1 + step) / (10 + step))
        mine: list[Tensor] = list(self.average.parameters())
        theirs: list[Tensor] = list(self.net.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    def _terms(self, batch: Terms, perceptual: bool = True, weight: float = 1.0, part: int = 0) -> Terms:
        """The loss of the stage and its parts; the perceptual terms `weight` times as heavy. part: of the step."""
        vgg = self._features() if perceptual else None
        loss = self.settings.loss
        if weight != 1:
            loss = copy.copy(loss)
            loss.lambda_perceptual *= weight
            loss.inpainting_perceptual *= weight
            loss.inpainting_style *= weight
        if self.settings.stage == "inpainting":
            return inpainting_loss(self.wrapped(batch["image"], batch["mask"]).float(), batch, loss, vgg)
        if loss.temporal_weight and self.position.step >= loss.temporal_start:
            return self._steady_terms(batch, loss, vgg, part)
        output = self.wrapped(batch["ldr"], batch["mask"]).float()
        return hdr_loss(output, batch, loss, vgg, self.settings.network.floor)

    def _steady_terms(self, batch: Terms, loss: LossSettings, vgg: Features | None, part: int) -> Terms:
        """The terms of the HDR stage, and that of what moves a little, of a quarter of the batch."""
        network, ldr = self.settings.network, batch["ldr"]
        count = max(1, len(ldr) // 4)
        place = [self.settings.run.seed, 0x7E47, self.position.step, self.fabric.global_rank, part]
        movement = Movement.drawn(np.random.default_rng(place), count, ldr.shape[-1])
        pictures = with_moved(ldr, batch["mask"], movement, network.mask_threshold)
        output, moved = self.wrapped(*pictures).float().split([len(ldr), count])
        terms = hdr_loss(output, batch, loss, vgg, network.floor)
        own = temporal_loss(output[:count], moved, ldr[:count], movement, network.mask_threshold, network.floor)
        return terms | {"loss": terms["loss"] + loss.temporal_weight * own, "temporal": own}

    def _features(self) -> Features | None:
        if self.vgg is None:
            return None
        vgg: Callable = self.vgg

        def look(picture: Tensor) -> list[Tensor]:
            with self.fabric.autocast():
                return vgg(picture)

        return look

    def _perceptual_now(self) -> tuple[bool, float]:
        """Whether this step has perceptual terms, and how heavy."""
        loss, step = self.settings.loss, self.position.step
        now = step >= loss.perceptual_start and step % loss.perceptual_every == 0
        return now, float(loss.perceptual_every)

    def _set_rate(self) -> float:
        """The learning rate of the coming step, set in the optimiser."""
        rate = learning_rate(self.settings, self.position)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    # -- data ---------------------------------------------------------------------------------------------------

    def _batches(self, data: Dataset) -> Iterator[Terms]:
        """The training batches of this process, from the present step on."""
        numbers = BatchNumbers(
            self.position.step, self.settings.optimiser, self.fabric.global_rank, self.fabric.world_size
        )
        return self._load(data, numbers)

    def _load(self, data: Dataset, numbers: Iterable[list[int]]) -> Iterator[Terms]:
        workers = self.settings.data.workers
        more: dict[str, Any] = {"worker_init_fn": quiet_worker, "prefetch_factor": 4} if workers else {}
        pin = self.fabric.device.type == "cuda"
        with signals_held_back():  # also in what is started here, before `quiet_worker` has its say
            batches = iter(DataLoader(data, batch_sampler=numbers, num_workers=workers, pin_memory=pin, **more))  # type: ignore[arg-type]
        return _named_faults(batches)

    def _to_device(self, batch: Terms) -> Terms:
        batch = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        batch = self.fabric.to_device(batch)
        if self.settings.run.channels_last:
            batch = {k: v.contiguous(memory_format=torch.channels_last) for k, v in batch.items()}
        return batch

    def _held_out(self, validation: Dataset) -> Iterator[Terms]:
        """This process's share of the validation set."""
        count = self.settings.data.validation_patches
        size = self.settings.optimiser.batch_size
        starts = range(self.fabric.global_rank * size, count, self.fabric.world_size * size)
        numbers = [list(range(start, min(start + size, count))) for start in starts]
        for batch in self._load(validation, numbers):
            yield self._to_device(batch)

    # -- looking ------------------------------------------------------------------------------------------------

    def _validate(self, validation: Dataset) -> None:
        position, out = self.position, Path(self.settings.run.out)
        with listening(self.average) as heard:
            terms = self._measure(validation, self.average)
        self._tell_of_silence(heard.silent())
        loss = terms["loss"]
        self._progress_of(loss)
        if not self.fabric.is_global_zero:
            return
        row = {"loss": loss, "hours": position.seconds / 3600, "rmse_stops": terms.pop("rmse_stops", "")}
        if self.journal:
            self.journal.write(position.step, "validation", row, terms)
        stops = f", {row['rmse_stops']:.3f} stops" if row["rmse_stops"] != "" else ""
        best = loss < position.best
        self.listener.message(
            f"Step {position.step}: validation loss {loss:.4f}{stops}"
            + (" (best so far)" if best else f" (best {position.best:.4f} at step {position.best_step})")
        )
        path, more = out / "best.safetensors", {"validation_loss": f"{loss:.6g}"}
        if best and self._kept(path, lambda: self._save_weights(path, more)):
            position.best, position.best_step = loss, position.step  # of what lies in the file

    def _tell_of_silence(self, layers: dict[str, tuple[int, int]]) -> None:
        """Says once that much of the network is lost, as it is to ReLUs that a too great rate has pushed under 0."""
        worst = max(layers, key=lambda name: layers[name][0] / layers[name][1], default=None)
        if worst is None or self._told_of_silence or layers[worst][0] < MANY * layers[worst][1]:
            return
        self._told_of_silence = True
        self.listener.message(
            f"{layers[worst][0]} of {layers[worst][1]} channels of {worst} are 0 on all validation pictures, and a "
            "ReLU does not come back from that. Start again with leaky_relu as --encoder-activation and "
            "--decoder-activation, or with a lower --learning-rate and --warmup."
        )

    def _progress_of(self, loss: float) -> None:
        """Halves the learning rate when validation has stalled for `patience` times."""
        position, optimiser = self.position, self.settings.optimiser
        if loss < position.plateau_best * (1 - 1e-4):
            position.plateau_best, position.stalled = loss, 0
            return
        position.stalled += 1
        if optimiser.schedule == "plateau" and position.stalled >= optimiser.patience:
            position.rate_factor, position.stalled = position.rate_factor / 2, 0
            self.listener.message(
                f"Validation has stalled: learning rate {learning_rate(self.settings, position):.3g}."
            )

    def _untouched(self, validation: Dataset) -> None:
        """The bar to pass: the validation loss of doing nothing."""
        terms = self._measure(validation, None)
        if self.fabric.is_global_zero:
            row = {"loss": terms["loss"], "rmse_stops": terms.pop("rmse_stops", "")}
            if self.journal:
                self.journal.write(self.position.step, "untouched", row, terms)
            what = "filling holes with grey" if self.settings.stage == "inpainting" else "not expanding at all"
            stops = f", {row['rmse_stops']:.3f} stops" if row["rmse_stops"] != "" else ""
            self.listener.message(f"The bar: {what} has a validation loss of {terms['loss']:.4f}{stops}.")

    @torch.no_grad()
    def _measure(self, validation: Dataset, net: MaskedUNet | None) -> dict[str, float]:
        """Mean terms over the validation set, perceptual ones always among them; None: of an untouched picture."""
        sums: dict[str, float] = {}
        count = 0
        for batch in self._held_out(validation):
            output = untouched(batch, self.settings.stage) if net is None else self._infer(net, batch)
            terms = self._judge(output, batch)
            size = output.shape[0]
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
            count += size
        names: list[str] = self.fabric.broadcast(list(sums))  # a process without a share of the set knows no names
        *totals, total = self._over_processes([*(sums.get(name, 0.0) for name in names), count], "sum")
        result: dict[str, float] = {name: value / total for name, value in zip(names, totals, strict=True)}
        if "squared_stops" in result:
            share = max(result.pop("clipped_share"), 1e-12)
            result["rmse_stops"] = math.sqrt(result.pop("squared_stops") / share)
        return result

    def _infer(self, net: MaskedUNet, batch: Terms) -> Tensor:
        picture = batch["image" if self.settings.stage == "inpainting" else "ldr"]
        with self.fabric.autocast():
            return net(picture, batch["mask"]).float()

    def _judge(self, output: Tensor, batch: Terms) -> Terms:
        loss, vgg = self.settings.loss, self._features()
        if self.settings.stage == "inpainting":
            return inpainting_loss(output, batch, loss, vgg)
        terms = hdr_loss(output, batch, loss, vgg, self.settings.network.floor)
        clipped = (batch["mask"] < 1).float()
        hdr = compose_hdr(batch["ldr"], batch["mask"], output, floor=self.settings.network.floor)
        stops = torch.log2(hdr.clamp_min(1e-3)) - torch.log2(batch["truth"].clamp_min(1e-3))
        return terms | {"squared_stops": (clipped * stops**2).mean(), "clipped_share": clipped.mean()}

    @torch.no_grad()
    def _pictures(self, validation: Dataset) -> None:
        if not (self.journal and self.fabric.is_global_zero):
            return
        batch = next(self._held_out(validation))
        output = self._infer(self.average, batch)
        if self.settings.stage == "inpainting":
            mixed = batch["mask"] * batch["image"] + (1 - batch["mask"]) * output
            columns = [batch["image"], batch["mask"], output, mixed, batch["truth"]]
        else:
            hdr = compose_hdr(batch["ldr"], batch["mask"], output, floor=self.settings.network.floor)
            columns = [batch["ldr"], batch["mask"]]
            columns += [exposed(picture, stops) for picture in (hdr, batch["truth"]) for stops in GRID_EXPOSURES]
        self.journal.pictures(self.position.step, picture_grid(columns))

    def _log(self, meter: "_Meter", rate: float) -> None:
        run, position = self.settings.run, self.position
        terms, speed, wait = meter.read()
        if not (self.journal and self.fabric.is_global_zero):
            return
        row = {"loss": terms["loss"], "learning_rate": rate, "patches_per_second": speed, "wait": wait}
        self.journal.write(position.step, "train", {**row, "hours": position.seconds / 3600}, terms)
        left = [run.max_hours - position.seconds / 3600] if run.max_hours else []
        if run.max_steps:
            left.append((run.max_steps - position.step) * self._patches_a_step() / max(speed, 1e-9) / 3600)
        hours = min(left) if left else None
        self.listener.progress(Progress(position.step, run.max_steps, terms["loss"], terms, rate, speed, wait, hours))

    def _patches_a_step(self) -> int:
        return self.settings.optimiser.batch_size * self.settings.optimiser.accumulate * self.fabric.world_size

    def _over_processes(self, values: list[float], how: str) -> list[float]:
        """Each value's "sum" or "max" over the processes of the run."""
        if self.fabric.world_size == 1:
            return values
        mine = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        return self.fabric.all_reduce(mine, reduce_op=how).tolist()

    # -- ending and keeping -------------------------------------------------------------------------------------

    def _ended(self, stop: _Stop) -> str | None:
        """Why the run ends now, agreed upon by all processes, or None."""
        run, position = self.settings.run, self.position
        number, position.seconds = self._over_processes([stop.signal, position.seconds], "max")  # rates hang on these
        if number:
            stop.signal = int(number)
        if run.max_steps and position.step >= run.max_steps:
            return "steps"
        if number:  # not `stop.signal`: that may be newer than what was agreed on
            return "signal"
        return "hours" if run.max_hours and position.seconds >= run.max_hours * 3600 else None

    def _checkpoint_due(self) -> bool:
        run, step = self.settings.run, self.position.step
        late = time.monotonic() - self._saved_at > run.checkpoint_minutes * 60
        return step != self._saved_step and (step % run.checkpoint_every == 0 or late)

    def save(self) -> None:
        """Writes last.ckpt and last.safetensors. A full disk leaves the former ones and is only reported."""
        self._saved_step, self._saved_at = self.position.step, time.monotonic()
        if not self.fabric.is_global_zero:
            return
        out = Path(self.settings.run.out)
        content = {
            "format": CHECKPOINT_FORMAT,
            "position": asdict(self.position),
            "network": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "settings": to_yaml(self.settings),
        }

        def write() -> None:
            replace_atomically(out / CHECKPOINT, lambda file: torch.save(content, file))
            self._save_weights(out / "last.safetensors", {})

        self._kept(out, write)

    def _kept(self, path: Path, write: Callable[[], None]) -> bool:
        """Whether `write` has written `path`. A full disk is only reported: hours of training go on."""
        try:
            write()
        except (OSError, RuntimeError) as fault:  # torch.save tells of a full disk with a RuntimeError
            self.listener.message(
                f"WARNING: step {self.position.step} could not be saved in {path} ({fault}); what was saved before is "
                "kept, and the run goes on. Free some space."
            )
            return False
        return True

    def _save_weights(self, path: Path, more: dict[str, str]) -> None:
        net = self.average if self.settings.optimiser.ema else self.net
        metadata = {
            "ldr2hdr.stage": self.settings.stage,
            "ldr2hdr.step": str(self.position.step),
            "ldr2hdr.hours": f"{self.position.seconds / 3600:.3f}",
            "ldr2hdr.perceptual": "none" if self.vgg is None else self.vgg.description,
            "ldr2hdr.settings": to_yaml(self.settings),
            **{f"ldr2hdr.{name}": value for name, value in {**more, **self.credits}.items()},
        }
        save_network(net, path, metadata)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Takes up what `read_checkpoint` gave, all but the network, which was loaded before Fabric took it."""
        path = Path(self.settings.run.out) / CHECKPOINT
        self.position = checkpoint["position"]
        self.average.load_state_dict(checkpoint["average"])
        with part_of(path, "optimiser"):
            restore_optimiser(self.optimiser, checkpoint["optimiser"], path)
        with part_of(path, "scaler"):
            if checkpoint["scaler"]:
                self.fabric.strategy.precision.load_state_dict(checkpoint["scaler"])
        with part_of(path, "random"):
            torch.set_rng_state(checkpoint["random"])
        self._saved_step = self.position.step


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


def learning_rate(settings: Settings, position: Position) -> float:
    """The rate of the step after `position.step`: warm-up, then the schedule. A cosine ends at 1 % of the rate."""
    optimiser, run = settings.optimiser, settings.run
    rate = optimiser.learning_rate * min(1.0, (position.step + 1) / (optimiser.warmup + 1))
    if optimiser.schedule == "plateau":
        return rate * position.rate_factor
    if optimiser.schedule == "constant":
        return rate
    shares = [position.step / run.max_steps] if run.max_steps else []
    shares += [position.seconds / 3600 / run.max_hours] if run.max_hours else []
    done = min(1.0, max(shares, default=0.0))
    return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def untouched(batch: Terms, stage: str) -> Tensor:
    """The answer of one who does nothing: clipped pixels stay at T^γ; holes are filled with middle grey."""
    if stage == "inpainting":
        return batch["mask"] * batch["truth"] + (1 - batch["mask"]) * 0.5
    return floor_of(batch["ldr"])


def _named_faults(batches: Iterator[Terms]) -> Iterator[Terms]:
    """The same; a fault of a picture in a data process arrives without that process's traceback around it."""
    try:
        yield from batches
    except Ldr2hdrError as fault:
        last = str(fault).strip().splitlines()[-1]
        raise Ldr2hdrError(last.removeprefix(f"{type(fault).__module__}.{type(fault).__name__}: ")) from None


def quiet_worker(_number: int) -> None:
    """One thread for the work of each data process, which nobody ends but the training process.

    Ctrl-C and a batch system's SIGTERM reach all processes, and the training process needs its data until the step is
    done. Its own SIGTERM is heeded: it waits for these processes when it ends on a fault.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_heed_parent, daemon=True).start()
    elif hasattr(os, "setpgid"):  # macOS: out of the group that signals are sent to
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(0)


def _heed_parent() -> None:
    """Ends this process at a SIGTERM of its parent. The signal is blocked in every thread, by `signals_held_back`."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
