"""The processes of a run: those that train together, under Lightning Fabric, and those that load data; signals."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from model.errors import Ldr2hdrError
from train.config import OptimiserSettings, RunSettings
from train.run import Run, Terms

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

# -- processes that train together ------------------------------------------------------------------------------------


def start_fabric(run: RunSettings) -> Any:
    """A launched Fabric for the devices and machines of the run.

    Raises:
        Ldr2hdrError: no Lightning, no such device, or a precision that the device lacks.
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


def speaks_for_the_run() -> bool:
    """Whether this is the first process of its run, by the variables that Lightning, torchrun and Slurm set."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return not any(int(os.environ.get(name) or 0) for name in ranks)


def reduce_over_processes(fabric: Any, values: list[float], how: str) -> list[float]:
    """The "sum" or "max" of each value over the processes of the run."""
    if fabric.world_size == 1:
        return values
    mine = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    return fabric.all_reduce(mine, reduce_op=how).tolist()


# -- signals ----------------------------------------------------------------------------------------------------------


class StopSignals:
    """Remembers a SIGINT or SIGTERM until the step is done; a second SIGINT ends the run at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        with contextlib.suppress(ValueError):  # not the main thread, which alone receives signals
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


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM. Processes started meanwhile inherit that; this one receives them afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- data -------------------------------------------------------------------------------------------------------------


class BatchNumbers(Sampler[list[int]]):
    """The sample numbers of each batch, from a step on and without end, for one of `world` processes."""

    def __init__(self, step: int, settings: OptimiserSettings, rank: int = 0, world: int = 1) -> None:
        self._size, self._rank, self._world = settings.batch_size, rank, world
        self._first = step * settings.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        batch = self._first
        while True:
            start = (batch * self._world + self._rank) * self._size
            yield list(range(start, start + self._size))
            batch += 1


def training_batches(run: Run, data: Dataset) -> Iterator[Terms]:
    """The training batches of this process, from the present step on, in main memory."""
    fabric = run.fabric
    numbers = BatchNumbers(run.position.step, run.settings.optimiser, fabric.global_rank, fabric.world_size)
    return _load(run, data, numbers)


def validation_batches(run: Run, data: Dataset) -> Iterator[Terms]:
    """This process's share of the validation set, on its device."""
    count, size = run.settings.data.validation_patches, run.settings.optimiser.batch_size
    starts = range(run.fabric.global_rank * size, count, run.fabric.world_size * size)
    numbers = [list(range(start, min(start + size, count))) for start in starts]
    for batch in _load(run, data, numbers):
        yield to_device(run, batch)


def to_device(run: Run, batch: Terms) -> Terms:
    """A batch's tensors on the device of this process, in the run's memory format."""
    batch = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    batch = run.fabric.to_device(batch)
    if run.settings.run.channels_last:
        batch = {k: v.contiguous(memory_format=torch.channels_last) for k, v in batch.items()}
    return batch


def _load(run: Run, data: Dataset, numbers: Iterable[list[int]]) -> Iterator[Terms]:
    workers = run.settings.data.workers
    more: dict[str, Any] = {"worker_init_fn": set_up_worker, "prefetch_factor": 4} if workers else {}
    if workers and sys.platform == "linux":
        # Python 3.14 would have a server fork them: its signals, not ours, and not our children, whom we could end.
        more["multiprocessing_context"] = "fork"
    pin = run.fabric.device.type == "cuda"
    with signals_blocked():  # in the workers too, until `set_up_worker` runs there
        batches = iter(DataLoader(data, batch_sampler=numbers, num_workers=workers, pin_memory=pin, **more))  # type: ignore[arg-type]
    return _without_worker_traceback(batches)


def _without_worker_traceback(batches: Iterator[Terms]) -> Iterator[Terms]:
    """The same batches. An error about a picture loses the traceback that PyTorch puts around it in a worker."""
    try:
        yield from batches
    except Ldr2hdrError as fault:
        last = str(fault).strip().splitlines()[-1]
        raise Ldr2hdrError(last.removeprefix(f"{type(fault).__module__}.{type(fault).__name__}: ")) from None


def set_up_worker(_number: int) -> None:
    """Gives a data worker one thread, and lets only the training process end it.

    Ctrl-C and a batch system's SIGTERM reach all processes, but the training process needs its data until the step is
    done. A worker obeys SIGTERM from the training process alone, which waits for its workers when it fails.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_obey_parent, daemon=True).start()
    elif hasattr(os, "setpgid"):  # macOS: leave the process group that signals are sent to
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(0)


def _obey_parent() -> None:
    """Ends this process at a SIGTERM of its parent. The signal is blocked in every thread, by `signals_blocked`."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
