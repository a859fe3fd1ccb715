"""How far an evaluation is, on stderr: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")
EVERY = 30.0  # seconds between two lines
RECENT = 16  # results whose pace tells the time that is left: the first ones may have been known already


class Amount:
    """How many results there will be: of every scene `each`, or, where that varies, at most so many.

    scenes: their names, in the order in which the results come where that matters; empty where they are not known.
    """

    def __init__(self, scenes: Sequence[str], each: int, *, varies: bool = False) -> None:
        self.scenes = scenes
        self.total: int | None = len(scenes) * each or None
        self._place = {name: index for index, name in enumerate(scenes)} if varies else {}
        self._each = each
        self._scene, self._before = "", 0

    def after(self, scene: str, count: int) -> int | None:
        """What is to be expected in all, once `count` are there and the last is of `scene`."""
        if self.total is not None and scene in self._place:
            if scene != self._scene:
                self._scene, self._before = scene, count - 1
            over = self._place[scene]
            mean = (self._before + self._each) / (over + 1)  # as if one more scene had given all
            self.total = max(count, self._before + round(mean * (len(self._place) - over)))
        return self.total


def watched(
    results: Iterable[T],
    what: str,
    amount: Amount,
    scene_of: Callable[[T], str],
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Passes on `results`, and says how many have been dealt with. what: their name in the plural."""
    console = console or Console(stderr=True)
    times = deque([clock()], maxlen=RECENT + 1)
    said = times[0]
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task(f"Evaluating {what}", total=amount.total, left="")
    with bar if console.is_terminal else nullcontext():  # older Rich ends one with an empty line in a log
        for count, result in enumerate(results, 1):
            yield result  # clips are scored by whoever asked for them
            times.append(clock())
            total = amount.after(scene_of(result), count)
            left = _left(total - count, times) if total else ""
            text = f"{count} of {total}{left}" if total else f"{count}"
            bar.update(task, completed=count, total=total, left=text)
            if not console.is_terminal and times[-1] - said >= EVERY:
                said = times[-1]
                console.print(f"Evaluating {what}: {text}", highlight=False)


def _left(amount: int, times: Sequence[float]) -> str:
    seconds = amount * (times[-1] - times[0]) / (len(times) - 1)
    if seconds < 90:
        return f", {seconds:.0f} s left"
    if seconds < 5400:
        return f", {seconds / 60:.0f} min left"
    return f", {seconds / 3600:.1f} h left"
