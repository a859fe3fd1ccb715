"""The time of a run: from the start of its process to the end of its last file, over resumes.

A batch system ends a job by its own clock, which runs while Python starts and while the weights are written.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

MARGIN = 1.25  # of what the end of a run is expected to take
CLOSING = 1.0  # seconds in which the log is closed and the processes end
DISK = 50e6  # bytes a second, before any file has been written


class Budget:
    """How long a run has taken, and how long its end will take: a last step, validation and save."""

    def __init__(self, began: float | None = None, before: float = 0.0, unsaved: float = 0.0) -> None:
        """began: of this process, on the clock of `time.monotonic`. before: seconds of earlier ones. unsaved: bytes."""
        self._began, self._before = time.monotonic() if began is None else began, before
        self._took = {"validation": 0.0, "save": unsaved / DISK, "step": 0.0}

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def of(self, work: str) -> float:
        """Seconds that a "validation", a "save" or a "step" took the last time."""
        return self._took[work]

    @property
    def reserve(self) -> float:
        """Seconds to keep for the end of the run."""
        return MARGIN * sum(self._took.values()) + CLOSING

    @contextmanager
    def measured(self, work: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._took[work] = time.monotonic() - began

    def step_took(self, seconds: float) -> None:
        self._took["step"] = seconds
