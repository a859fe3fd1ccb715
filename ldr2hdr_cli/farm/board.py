"""Who does which chunk of a job, and what becomes of it when a worker dies. It knows nothing of Ray."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from ldr2hdr_cli.convert.chunks import Chunk
from ldr2hdr_cli.convert.events import Done, Failed, FileEvent, Skipped

TRIES = 3
"""Deaths of workers in a row, without a file more, after which a chunk is given up."""
SLOW = 2.0  # times the median, after which a chunk is taken from its worker when another has nothing to do
SLOW_AT_LEAST = 30.0  # seconds


@dataclass(eq=False)
class _Whole:
    """A chunk as it is claimed. Several workers may have a part in it, one after the other."""

    chunk: Chunk
    parts: int = 1  # not ended yet
    outputs: set[Path] = field(default_factory=set)
    failures: dict[tuple[Any, ...], Failed] = field(default_factory=dict)


@dataclass(eq=False)
class _Task:
    """A chunk, or one photograph of it, as a worker gets it."""

    chunk: Chunk
    whole: _Whole
    deaths: int = 0
    got_further: bool = False
    was_moved: bool = False
    began: float = 0.0

    @property
    def is_suspect(self) -> bool:
        return self.deaths > 0


@dataclass(frozen=True)
class Finished:
    """Everything of a claimed chunk has been told."""

    chunk: Chunk
    made: int
    failures: list[Failed]


@dataclass
class Board:
    """Chunks that are waiting, and those that workers have in hand, each in the order in which it was given.

    A worker's events belong to the first chunk that it has in hand. What is told again, because a chunk is done again,
    is passed over. Workers are known by any key.
    """

    clock: Callable[[], float] = time.monotonic
    waiting: deque[_Task] = field(default_factory=deque)
    _in_hand: dict[Any, deque[_Task]] = field(default_factory=dict)
    _seconds: dict[bool, deque[float]] = field(default_factory=dict)  # of the last chunks, of clips and photographs

    def add(self, chunk: Chunk) -> None:
        self.waiting.append(_Task(chunk, _Whole(chunk)))

    def has(self, worker: Any) -> bool:
        """Whether it has anything in hand."""
        return bool(self._in_hand.get(worker))

    @property
    def busy(self) -> int:
        """How many workers have something in hand."""
        return sum(map(bool, self._in_hand.values()))

    def folders(self, worker: Any) -> set[Path]:
        """In which it may be writing."""
        return {item.folder for task in self._in_hand.get(worker, ()) for item in task.chunk.items}

    def may_have_more(self, worker: Any) -> bool:
        """Not while it is at a chunk that somebody has died of: that is done by itself, so that it is known for it."""
        return not any(task.is_suspect for task in self._in_hand.get(worker, ()))

    def give(self, worker: Any) -> Chunk | None:
        """The next for this worker, if there is one that it may have."""
        if not self.may_have_more(worker):
            return None
        hand = self._in_hand.setdefault(worker, deque())
        task = next((one for one in self.waiting if not (hand and one.is_suspect)), None)
        if task is None:
            return None
        self.waiting.remove(task)
        task.got_further, task.began = False, self.clock()
        hand.append(task)
        return task.chunk

    def see(self, worker: Any, event: FileEvent) -> Iterator[FileEvent]:
        """The event, unless it was told before."""
        if not self.has(worker):
            return
        task = self._in_hand[worker][0]
        whole = task.whole
        if isinstance(event, Done | Skipped):
            if event.output in whole.outputs:
                return
            task.got_further |= isinstance(event, Done)
            whole.outputs.add(event.output)
        elif isinstance(event, Failed):
            key = event.item.input.path, event.frame, event.message
            if key in whole.failures:
                return
            whole.failures[key] = event
        yield event

    def end(self, worker: Any, key: str) -> Finished | None:
        """The worker has told everything of its first chunk; what was claimed, if that is all of it."""
        hand = self._in_hand.get(worker)
        if not hand or hand[0].chunk.key != key:
            return None
        task, now = hand.popleft(), self.clock()
        self._seconds.setdefault(task.chunk.clip is None, deque(maxlen=200)).append(now - task.began)
        if hand:
            hand[0].began = now
        return self._ended(task)

    def give_back(self, worker: Any) -> None:
        """It has stopped, since it was asked to: others do what is left."""
        for task in reversed(self._in_hand.pop(worker, deque())):
            task.was_moved = True
            self.waiting.appendleft(task)

    def lose(self, worker: Any, why: str, ends_run: bool = False) -> list[Failed | Finished]:
        """It has died. Returns what nobody tries any more.

        why: "its process has died on node-7". ends_run: if it is given up, no other chunk can succeed either.
        """
        found: list[Failed | Finished] = []
        for task in reversed(self._in_hand.pop(worker, deque())):
            task.deaths = 1 if task.got_further else task.deaths + 1
            if task.deaths >= TRIES:
                found += self._given_up(task, why, ends_run)
            elif task.deaths == TRIES - 1 and task.chunk.clip is None and len(task.chunk.items) > 1:
                self._split(task)
            else:
                self.waiting.appendleft(task)
        return found

    def got_further(self, worker: Any) -> bool:
        """Whether the worker has made a file of what it has in hand."""
        return any(task.got_further for task in self._in_hand.get(worker, ()))

    def straggler(self) -> Any | None:
        """The worker that is at one chunk far longer than others are, so that one who has nothing to do gets it.

        The encoder of a film need not make the same bytes twice, so that a film is never moved.
        """
        slowest, longest = None, 0.0
        for worker, hand in self._in_hand.items():
            if not hand or hand[0].was_moved or hand[0].chunk.items[0].films:
                continue
            known = self._seconds.get(hand[0].chunk.clip is None, ())
            spent = self.clock() - hand[0].began
            if len(known) >= 2 and spent > max(SLOW * median(known), SLOW_AT_LEAST, longest):
                slowest, longest = worker, spent
        return slowest

    def _ended(self, task: _Task) -> Finished | None:
        whole = task.whole
        whole.parts -= 1
        if whole.parts:
            return None
        return Finished(whole.chunk, len(whole.outputs), list(whole.failures.values()))

    def _split(self, task: _Task) -> None:
        """Into single photographs, so that one alone is given up."""
        items = task.chunk.items
        task.whole.parts += len(items) - 1
        for index, item in reversed(list(enumerate(items))):
            part = replace(task.chunk, items=(item,), key=f"{task.chunk.key}.{index}")
            self.waiting.appendleft(_Task(part, task.whole, deaths=1))

    def _given_up(self, task: _Task, why: str, ends_run: bool) -> Iterator[Failed | Finished]:
        chunk, whole = task.chunk, task.whole
        for item in chunk.items:
            is_still = item.input.kind == "still"
            if is_still and item.output(0) in whole.outputs:
                continue
            part = "" if is_still or not chunk.start else f" of its frames from the {chunk.start + 1}th on"
            message = f"{item.input.path}: nothing{part} was made, because {TRIES} processes failed at it; {why}"
            failure = Failed(item, message, ends_run=ends_run)
            whole.failures[item.input.path, None, message] = failure
            yield failure
        finished = self._ended(task)
        if finished is not None:
            yield finished
