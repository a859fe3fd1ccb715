"""The display of a training run: a progress line on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from ldr2hdr_cli.terminal import one_line, silence
from train.processes import speaks_for_the_run
from train.run import Listener
from train.run import Progress as Step


def say(text: str, err: bool = True) -> None:
    """Prints a line on stderr, or stdout. If the reader has gone, as `head` goes, the work goes on without it."""
    stream = sys.stderr if err else sys.stdout
    try:
        stream.write(one_line(text) + "\n")
        stream.flush()
    except OSError:
        silence(stream.fileno())


class TrainDisplay(Listener):
    """Prints a run's reports on stderr; of several processes of a run only the first prints."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, soft_wrap=True, quiet=not speaks_for_the_run())
        self.bar = Progress(
            BarColumn(), TextColumn("{task.description}"), console=self.console, disable=not self.console.is_terminal
        )
        self.task = self.bar.add_task("", total=None)

    def __enter__(self) -> "TrainDisplay":
        self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def message(self, text: str) -> None:
        try:
            self.console.print(escape(one_line(text)), highlight=False)
        except (OSError, SystemExit):  # rich exits when its reader has gone; a run of hours must not
            self.console.quiet = True
            silence(sys.stderr.fileno())

    def progress(self, progress: Step) -> None:
        terms = " ".join(f"{name} {value:.4f}" for name, value in progress.terms.items() if name != "loss")
        left = "" if progress.hours_left is None else f", {progress.hours_left:.2f} h left"
        if progress.exchange is not None:
            left = f", {progress.seconds:.3g} s a step, {progress.exchange:.2g} s of it for the other processes" + left
        line = (
            f"step {progress.step}: loss {progress.loss:.4f} ({terms}), rate {progress.learning_rate:.2g}, "
            f"{progress.patches_per_second:.1f} patches/s, {progress.wait:.0%} waiting{left}"
        )
        if self.console.is_terminal:
            self.bar.update(
                self.task, total=progress.max_steps, completed=progress.step, description=escape(one_line(line))
            )
        else:
            self.message(line)
