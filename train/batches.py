"""Batches of samples, on the device of the run: made there, or by data processes and copied."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from model.errors import Ldr2hdrError
from train.config import OptimiserSettings
from train.processes import signals_blocked
from train.run import Run, Terms
from train.samples import Samples


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


def made_on_device(run: Run, *sets: Dataset[Any]) -> bool:
    """Whether the samples of these sets are made on the device of the run, for which their pictures are then held.

    Raises:
        Ldr2hdrError: that is asked for, and there is no memory for the pictures.
    """
    where, device = run.settings.data.data_on, run.fabric.device
    if where == "processes" or (where == "auto" and device.type == "cpu"):
        return False
    if not all(isinstance(one, Samples) for one in sets):
        return False
    if all(one.hold(device) for one in sets if isinstance(one, Samples)):
        return True
    if where == "device":
        raise Ldr2hdrError("The pictures do not fit into memory; give --data-on processes, which reads them as needed.")
    run.listener.message("The pictures do not fit into memory: samples are made by data processes.")
    return False


def training_batches(run: Run, data: Dataset[Any]) -> Iterator[Terms]:
    """The training batches of this process, from the present step on."""
    fabric = run.fabric
    numbers = BatchNumbers(run.position.step, run.settings.optimiser, fabric.global_rank, fabric.world_size)
    return _batches(run, data, numbers)


def validation_batches(run: Run, data: Dataset[Any]) -> Iterator[Terms]:
    """This process's share of the validation set."""
    count, size = run.settings.data.validation_patches, run.settings.optimiser.batch_size
    starts = range(run.fabric.global_rank * size, count, run.fabric.world_size * size)
    return _batches(run, data, [list(range(start, min(start + size, count))) for start in starts])


def _batches(run: Run, data: Dataset[Any], numbers: Iterable[list[int]]) -> Iterator[Terms]:
    if run.on_device and isinstance(data, Samples):
        made: Iterator[Terms] = (data.batch(one, run.fabric.device) for one in numbers)
    else:
        made = _loaded(run, data, numbers)
    for batch in made:
        yield _to_device(run, batch)


def _to_device(run: Run, batch: Terms) -> Terms:
    """A batch's tensors on the device of this process, in the run's memory format."""
    batch = run.fabric.to_device({name: value for name, value in batch.items() if isinstance(value, Tensor)})
    if run.settings.run.channels_last:
        batch = {k: v.contiguous(memory_format=torch.channels_last) for k, v in batch.items()}
    return batch


class _Batches(Dataset[Terms]):
    """Batches by the numbers of their samples, made at once where the set can do that."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __getitem__(self, numbers: Sequence[int]) -> Terms:
        if isinstance(self.data, Samples):
            return self.data.batch(numbers)
        collated: Terms = default_collate([self.data[number] for number in numbers])
        return collated


def _loaded(run: Run, data: Dataset[Any], numbers: Iterable[list[int]]) -> Iterator[Terms]:
    """The batches in main memory, made by data processes, or by this one if there are none."""
    workers = run.settings.data.workers
    more: dict[str, Any] = {"worker_init_fn": set_up_worker, "prefetch_factor": 4} if workers else {}
    if workers and sys.platform == "linux":
        # Python 3.14 would have a server fork them: its signals, not ours, and not our children, whom we could end.
        more["multiprocessing_context"] = "fork"
    more["pin_memory"] = run.fabric.device.type == "cuda"
    with signals_blocked():  # in the workers too, until `set_up_worker` runs there
        loader = DataLoader(_Batches(data), batch_size=None, sampler=numbers, num_workers=workers, **more)
        batches = iter(loader)
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
