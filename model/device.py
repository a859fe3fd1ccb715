"""What a device can do, what it costs, and how its work is kept from waiting."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Forward = Callable[[Tensor, Tensor], Tensor]


def devices(names: str) -> list[str]:
    """ "cuda:0,cuda:1" → both; "all" → every GPU, or the CPU where there is none; another name → that one."""
    if names == "all":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["auto"]
    return [name for name in (part.strip() for part in names.split(",")) if name] or ["auto"]


def device_of(name: str) -> torch.device:
    """ "auto": the first GPU, else the CPU. Always with its number, so that two names of one device are equal."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def precision_of(name: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """ "auto": bf16 where the processor has it, fp16 on older GPUs, else fp32."""
    if name != "auto":
        if name not in DTYPES:
            raise ValueError(f"precision must be auto, fp32, bf16 or fp16, not {name!r}")
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return "bf16"
    return "fp32"


def memory_of(device: torch.device, host: int | None = None) -> int:
    """Bytes that the device has in all: what is free just now would make the result depend on the neighbours.

    host: what the machine has, where the caller knows it; None: what the system says, which may miss a limit.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if host is not None:
        return host
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 << 30  # no way to ask: what a small laptop has
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))  # a container's limit
    except (OSError, ValueError):
        return physical


def out_of_memory(error: RuntimeError) -> bool:
    """torch.OutOfMemoryError is a RuntimeError; the CPU's allocator raises the bare class."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


_STREAMS: dict[tuple[torch.device, str], "torch.cuda.Stream"] = {}


def side_stream(device: torch.device, way: str) -> "torch.cuda.Stream":
    """Where pictures go "up" or "down", beside what the device computes."""
    if (device, way) not in _STREAMS:
        _STREAMS[device, way] = torch.cuda.Stream(device)
    return _STREAMS[device, way]


def up(values: Tensor, device: torch.device) -> Tensor:
    """To the device, without waiting for it: from memory that is kept from being paged out."""
    if device.type != "cuda":
        return values.to(device)
    pinned = torch.empty_like(values, pin_memory=True)  # torch keeps such memory, and gives it out again
    return pinned.copy_(values).to(device, non_blocking=True)


class Down:
    """Tensors on their way to the host, beside what the device computes; `wait` gives them, in any thread."""

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = list(tensors)
        self._event: torch.cuda.Event | None = None
        device = tensors[0].device
        if device.type == "cuda":
            stream = side_stream(device, "down")
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for place, source in enumerate(self._tensors):
                    self._tensors[place] = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
                    self._tensors[place].copy_(source, non_blocking=True)
                    source.record_stream(stream)
                self._event = stream.record_event()
        elif device.type != "cpu":
            self._tensors = [tensor.cpu() for tensor in tensors]

    def wait(self) -> list[Tensor]:
        if self._event is not None:
            self._event.synchronize()
        return self._tensors


_EXACT = threading.Lock()
_exact = {"users": 0}
_allowed: list[bool] = []


@contextmanager
def exact_products() -> Iterator[None]:
    """fp32 that is not rounded to TF32 on a GPU, as cuDNN's convolutions are by default. Threads may overlap.

    The flags are the process's own; they are put back when the last one leaves.
    """
    owners: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    with _EXACT:
        if not _exact["users"]:
            _allowed[:] = [owner.allow_tf32 for owner in owners]
            for owner in owners:
                owner.allow_tf32 = False
        _exact["users"] += 1
    try:
        yield
    finally:
        with _EXACT:
            _exact["users"] -= 1
            if not _exact["users"]:
                for owner, was in zip(owners, _allowed, strict=True):
                    owner.allow_tf32 = was


def seconds(work: Callable[[], Tensor], times: int = 3) -> float:
    """Of the fastest of a few runs, each waited for, after one that warms up."""
    best = float("inf")
    for run in range(times + 1):
        start = time.perf_counter()
        work().flatten()[0].item()
        if run:
            best = min(best, time.perf_counter() - start)
    return best


class Replayed:
    """A forward pass that CUDA replays as one graph, for shapes that come again; elsewhere, simply the pass.

    A graph launches the same kernels on the same numbers, without the host's time for each, and its result is the same.
    Where it cannot be captured, `notify` is told once and the pass goes on without.
    """

    KEPT = 2  # graphs, each with the memory of its features: of a clip's frames, and of them reduced

    def __init__(self, forward: Forward, notify: Callable[[str], None]) -> None:
        self._forward, self._notify = forward, notify
        self._turn = threading.Lock()  # inputs and outputs of a graph are its own
        self._graphs: OrderedDict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]] = OrderedDict()
        self._seen: set[tuple[Any, ...]] = set()
        self._is_usable = True

    def __call__(self, images: Tensor, masks: Tensor) -> Tensor:
        if images.device.type != "cuda" or not self._is_usable:
            return self._forward(images, masks)
        with self._turn:
            key = (tuple(images.shape), torch.cuda.current_stream(images.device).cuda_stream)
            if key not in self._graphs:
                if key not in self._seen:  # a graph costs a few passes: not for a shape that comes once
                    self._seen.add(key)
                    return self._forward(images, masks)
                try:
                    self._graphs[key] = self._captured(images, masks)
                except RuntimeError as error:
                    if out_of_memory(error):
                        raise
                    self._is_usable = False
                    reason = str(error).splitlines()[0]
                    self._notify(
                        f"{images.device}: no CUDA graph can be made ({reason}); each layer is launched alone."
                    )
                    return self._forward(images, masks)
                while len(self._graphs) > self.KEPT:
                    self._graphs.popitem(last=False)
            self._graphs.move_to_end(key)
            graph, own_images, own_masks, result = self._graphs[key]
            own_images.copy_(images)
            own_masks.copy_(masks)
            graph.replay()
            return result.clone()

    def forget(self) -> bool:
        """Give the graphs' memory back; whether there were any."""
        with self._turn:
            had_some = bool(self._graphs)
            self._graphs.clear()
            self._seen.clear()
            return had_some

    def _captured(self, images: Tensor, masks: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        own_images, own_masks = images.clone(), masks.clone()
        aside = torch.cuda.Stream(images.device)
        aside.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(aside):  # cuDNN chooses its algorithms, and allocates, before the capture
            for _ in range(2):
                self._forward(own_images, own_masks)
        torch.cuda.current_stream(images.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._forward(own_images, own_masks)
        return graph, own_images, own_masks, result
