"""What steps cost and took: kept on the device, and read by the host only now and then, since reading waits for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class _Step:
    names: list[str]
    values: Tensor  # the terms, and 1 where the gradient was not finite


class Meter:
    """Means of the terms, patches a second and the share of the time spent on data since it was last read."""

    def __init__(self, fabric: Any, patches: int, on_device: bool) -> None:
        self._fabric, self._patches = fabric, patches
        # A GPU makes its samples while the host goes on: only its own clock tells how long that took.
        self._by_events = on_device and fabric.device.type == "cuda"
        self._events: list[tuple[Any, Any]] = []
        self._pending: list[_Step] = []
        self.history: list[float] = []
        self.bad: list[bool] = []  # of each step, whether its gradient was not finite
        self.restart()
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}
        self._steps, self._took, self._waited = 0, 0.0, 0.0

    @property
    def pending(self) -> int:
        """Steps that the host has not read."""
        return len(self._pending)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what gets a batch."""
        began = time.monotonic()
        if self._by_events:
            event: Any = torch.cuda.Event
            pair = event(enable_timing=True), event(enable_timing=True)
            pair[0].record()
        yield
        if self._by_events:
            pair[1].record()
            self._events.append(pair)
        else:
            self._waited += time.monotonic() - began

    def add(self, terms: dict[str, Tensor], bad: Tensor) -> None:
        """A step's terms and whether its gradient was not finite; nothing waits for them."""
        self._pending.append(_Step(list(terms), torch.stack([*terms.values(), bad.to(terms["loss"])])))

    def settle(self) -> None:
        """Reads all steps so far, the means over the processes of the run. Waits for the device."""
        if self._pending:
            values = self._fabric.all_reduce(torch.cat([step.values for step in self._pending]), reduce_op="mean")
            numbers = iter(values.tolist())
            for step in self._pending:
                terms = {name: next(numbers) for name in step.names}
                self.bad.append(next(numbers) > 0)
                self.history.append(terms["loss"])
                for name, value in terms.items():
                    total, count = self._sums.get(name, (0.0, 0))
                    self._sums[name] = (total + value, count + 1)
            self._waited += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._steps += len(self._pending)
            self._pending, self._events = [], []
        self._took += time.monotonic() - self._began
        self.restart()

    def restart(self) -> None:
        """The clock starts again: what happened since `settle` was no step."""
        self._began = time.monotonic()

    @property
    def seconds_a_step(self) -> float:
        return self._took / max(self._steps, 1)

    def read(self) -> tuple[dict[str, float], float, float]:
        """Settles, and gives the mean terms, patches a second, and the share of waiting, all since the last time."""
        self.settle()
        terms = {name: total / count for name, (total, count) in self._sums.items()}
        took = max(self._took, 1e-9)
        result = terms, self._steps * self._patches / took, self._waited / took
        self._clear()
        return result
