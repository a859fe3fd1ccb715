"""The processes that train together, under Lightning Fabric, and the signals that end them."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import torch

from model.errors import Ldr2hdrError
from train.config import RunSettings

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


@contextlib.contextmanager
def fast_arithmetic(fabric: Any, run: RunSettings) -> Iterator[None]:
    """Within it, a GPU's libraries choose their fastest convolutions, and TF32 unless the run asks for fp32."""
    if fabric.device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    exact = run.precision == "fp32"
    cudnn.benchmark, cudnn.allow_tf32 = True, not exact
    torch.set_float32_matmul_precision("highest" if exact else "high")
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before[:2]
        torch.set_float32_matmul_precision(before[2])


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
