"""The processes that train together, under Lightning Fabric, and the signals that end them."""

import contextlib
import logging
import os
import re
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from model.errors import Ldr2hdrError
from train.checkpoints import CHECKPOINT
from train.config import RunSettings

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
OF_THE_CONNECTION = re.compile(r"gloo|nccl|pair closure|timed out|connection (closed|reset|refused)", re.IGNORECASE)
"""In what torch says when another process has gone: most of it is a plain RuntimeError."""

# -- processes that train together ------------------------------------------------------------------------------------


def start_fabric(run: RunSettings) -> Any:
    """A launched Fabric for the devices and machines of the run.

    Raises:
        Ldr2hdrError: no Lightning, no such device, a precision that the device lacks, or processes that were started
            in another number than the run asks for, or that do not find each other.
    """
    try:
        from lightning_fabric import Fabric, seed_everything
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as fault:
        raise Ldr2hdrError('Training needs Lightning Fabric; install it with: pip install "ldr2hdr[train]"') from fault
    _check_launcher(run)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each process in a banner
    together = run.devices * run.num_nodes > 1
    try:
        fabric = Fabric(
            accelerator=run.accelerator,
            devices=run.devices,
            num_nodes=run.num_nodes,
            strategy=DDPStrategy(timeout=timedelta(minutes=run.wait_minutes)) if together else run.strategy,
            precision=PRECISIONS[run.precision],  # type: ignore[arg-type]
        )
        if run.precision == "fp16" and fabric.device.type == "cpu":
            raise Ldr2hdrError("fp16 needs a GPU, since its gradients are scaled; use --precision bf16 on a CPU.")
        fabric.launch()
    except torch.distributed.DistError as fault:
        raise Ldr2hdrError(
            f"The processes of this run did not find each other within {run.wait_minutes:g} minutes (--wait-minutes); "
            "start the command on every machine, with an address and a port of the first one that all can reach."
        ) from fault
    except (RuntimeError, ValueError) as fault:
        raise Ldr2hdrError(f"The requested devices are not available: {str(fault).splitlines()[0]}") from fault
    seed_everything(run.seed, verbose=False)
    return fabric


def _check_launcher(run: RunSettings) -> None:
    """Raises Ldr2hdrError where torchrun or srun has started other processes than the run asks for, or nobody has."""
    asked, wanted = f"--num-nodes {run.num_nodes} with --devices {run.devices}", run.num_nodes * run.devices
    launcher = started = ""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # it may itself have been started by srun
        launcher, started = "torchrun", os.environ.get("WORLD_SIZE", "1")
    elif "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        launcher, started = "srun", os.environ["SLURM_NTASKS"]
    if launcher and int(started) != wanted:
        raise Ldr2hdrError(
            f"The world size is {started} by {launcher}, but {wanted} by {asked}; give both the same number of "
            "machines, and of processes on each."
        )
    if launcher == "srun" and wanted > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise Ldr2hdrError(f"srun was not told how to spread the processes; give it --ntasks-per-node {run.devices}.")
    if launcher:
        return
    if run.num_nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys():
        raise Ldr2hdrError(
            f"{asked} needs a process on each machine that knows of the others; start the command with torchrun or "
            "srun."
        )


@contextlib.contextmanager
def lost_processes_named(run: RunSettings) -> Iterator[None]:
    """Turns what torch raises once another process of the run is gone into one sentence.

    A process that dies closes its connections, which the others see at once. One that is cut off or stands still is
    taken for lost after `run.wait_minutes`.
    """
    try:
        yield
    except RuntimeError as fault:
        known = isinstance(fault, torch.distributed.DistError) or OF_THE_CONNECTION.search(str(fault))
        if run.devices * run.num_nodes == 1 or not known:
            raise
        saved = (Path(run.out) / CHECKPOINT).is_file()
        raise Ldr2hdrError(
            f"Another process of this run has ended, or did not answer for {run.wait_minutes:g} minutes "
            "(--wait-minutes); its own messages say why. Start the command again on every machine"
            + (", with --resume to continue from the last checkpoint." if saved else ".")
        ) from fault


def seconds_exchanging(wrapped: Any) -> float | None:
    """Seconds of a step that this process waits for the gradients of the others, None for a process on its own.

    What is exchanged while gradients are still computed is not waited for. DistributedDataParallel measures it itself,
    in the first ten steps and in every hundredth.
    """
    data: dict[str, Any] = getattr(getattr(wrapped, "_forward_module", None), "_get_ddp_logging_data", dict)()
    took = data.get("avg_backward_comm_time")
    return None if took is None else max(0, took - data["avg_backward_compute_comm_overlap_time"]) / 1e9


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
