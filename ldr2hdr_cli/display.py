"""What is seen of a run: a live display on a terminal, plain lines elsewhere, JSON lines for scripts, a summary."""

import json
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ldr2hdr_cli.pipeline import Done, Event, Failed, Note, Skipped


class Display:
    """Counts what happened and shows it on stderr; with `as_json`, one line an event on stdout."""

    def __init__(self, total: int, quiet: bool, as_json: bool) -> None:
        self.console = Console(stderr=True, soft_wrap=True)
        self.quiet, self.as_json = quiet, as_json
        self.done = self.skipped = self.clamped = 0
        self.megapixels = self.clipped = self.peak = 0.0
        self.failures: list[Failed] = []
        self.started = time.monotonic()
        self.inputs: set[str] = set()
        self.live = self.console.is_terminal and not quiet
        self.progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.progress.add_task("", total=total, rate="")

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def say(self, message: str) -> None:
        """One line to the user, whatever is going on; markup in a file's name is only text."""
        self._emit({"event": "message", "message": message})
        self.console.print(escape(message), highlight=False)

    def show(self, event: Event) -> None:
        source = str(event.item.input.path)
        if not isinstance(event, Note):
            self.inputs.add(source)
        match event:
            case Done():
                self._count(event)
                self._emit(
                    {
                        "event": "done",
                        "source": source,
                        "output": str(event.output),
                        "frame": event.frame,
                        "clipped": round(event.clipped, 6),
                        "peak": round(event.peak, 4),
                        "clamped": event.clamped,
                        "sha256": event.entry["sha256"],
                    }
                )
                self._line(f"{source} -> {event.output}  {event.clipped:.1%} clipped, peak {event.peak:.4g}")
            case Skipped():
                self.skipped += 1
                self._emit({"event": "skipped", "source": source, "output": str(event.output)})
            case Failed():
                self.failures.append(event)
                self._emit({"event": "failed", "source": source, "frame": event.frame, "message": event.message})
                self.console.print(f"[red]failed[/] {escape(event.message)}", highlight=False)
            case Note():
                self._emit({"event": "note", "source": source, "message": event.message})
                if not self.quiet:
                    self.console.print(f"note: {escape(event.message)}", highlight=False)
        self._advance(event)

    def finish(self, retry: str = "") -> None:
        """The summary, and how to do again only what failed."""
        seconds = time.monotonic() - self.started
        summary = {
            "done": self.done,
            "already done": self.skipped,
            "failed": len(self.failures),
            "clipped pixels": f"{self.clipped / self.done:.2%}" if self.done else "-",
            "brightest (white = 1)": f"{self.peak:.4g}" if self.done else "-",
            "values clamped to 65504": self.clamped,
            "time": f"{seconds:.1f} s",
            "speed": f"{self.megapixels / seconds:.2f} MP/s" if seconds else "-",
        }
        self.progress.stop()
        self._emit({"event": "summary", **{name.replace(" ", "_"): value for name, value in summary.items()}})
        if self.quiet and not self.failures:
            return
        table = Table(show_header=False, box=None)
        for name, value in summary.items():
            table.add_row(name, str(value))
        self.console.print(table)
        for failure in self.failures:
            self.console.print(f"[red]failed[/] {escape(failure.message)}", highlight=False)
        if self.failures and retry:
            self.console.print(f"To try again only what failed: {escape(retry)}", highlight=False)

    def _count(self, event: Done) -> None:
        self.done += 1
        self.megapixels += event.megapixels
        self.clipped += event.clipped
        self.peak = max(self.peak, event.peak)
        self.clamped += event.clamped

    def _line(self, text: str) -> None:
        if not self.live and not self.quiet and not self.as_json:
            self.console.print(escape(text), highlight=False)

    def _advance(self, event: Event) -> None:
        seconds = time.monotonic() - self.started
        clipped = f", {event.clipped:.1%} clipped" if isinstance(event, Done) else ""
        self.progress.update(
            self.task,
            completed=max(len(self.inputs) - (event.item.input.kind == "video"), 0),
            description=escape(f"{event.item.input.path.name}{_frame(event)}{clipped}"),
            rate=f"{self.megapixels / max(seconds, 1e-6):.2f} MP/s",
        )

    def _emit(self, event: dict[str, Any]) -> None:
        if self.as_json:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()


def _frame(event: Event) -> str:
    frame = getattr(event, "frame", None)
    return "" if frame is None else f" #{frame}"
