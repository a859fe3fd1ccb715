"""What a run shows: a live display on a terminal, plain lines or JSON elsewhere, a log file, a summary."""

import json
import logging
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ldr2hdr_cli.convert.events import Done, Elsewhere, Failed, FileEvent, Note, Skipped
from ldr2hdr_cli.convert.log_file import LogFile
from ldr2hdr_cli.terminal import one_line, silence
from model import __version__
from model.errors import Ldr2hdrError

SCHEMA = 1
"""Of the JSON lines, see docs/json.md: it is raised when a key goes, or means something else; keys may be added."""


class Display:
    """Counts what happened and shows it on stderr; with `as_json`, a line an event on stdout; all in `log_file`.

    debug: with Python's traceback of what was not foreseen.

    Where the reader of a pipe goes away, or the log's disk fills up, the run goes on without it.
    """

    def __init__(self, quiet: bool, as_json: bool, log_file: Path | None = None, debug: bool = False) -> None:
        self.console = Console(stderr=True, soft_wrap=True)
        self.quiet, self.as_json, self.debug = quiet, as_json, debug
        self.done = self.skipped = self.elsewhere = self.clamped = 0
        self.megapixels = self.clipped = self.peak = 0.0
        self.failures: list[Failed] = []
        self.started = time.monotonic()
        self.total = 0
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
        self.task = self.progress.add_task("", total=0, rate="")
        self._logger = logging.Logger("ldr2hdr.convert")  # of this run alone, and out of reach of other handlers
        self._logger.addHandler(logging.NullHandler() if log_file is None else LogFile(log_file, self._log_is_lost))

    def __enter__(self) -> "Display":
        self._emit({"event": "header", "schema": SCHEMA, "version": __version__})
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop_progress()
        if isinstance(error, Exception):
            self._emit({"event": "error", "message": str(error)})
            self.log(str(error), logging.ERROR, None if isinstance(error, Ldr2hdrError) else error)
        for handler in self._logger.handlers:
            handler.close()

    def begin(self, total: int) -> None:
        """The work starts: so many inputs."""
        self.total = total
        self._emit({"event": "started", "inputs": total})
        self.progress.update(self.task, total=total)
        self.progress.start()

    def _stop_progress(self) -> None:
        if not self.progress.disable:  # older Rich prints an empty line even where there is nothing to stop
            self.progress.stop()

    def say(self, message: str, level: int = logging.INFO) -> None:
        """One line to the user, whatever is going on."""
        self._emit({"event": "message", "message": message})
        self.log(message, level)
        self._print(message)

    def plan(self, source: Path, target: Path) -> None:
        """A line of a dry run, on stdout."""
        if self.as_json:
            self._emit({"event": "plan", "source": str(source), "output": str(target)})
        else:
            sys.stdout.write(one_line(f"{source} -> {target}") + "\n")

    def log(self, text: str, level: int = logging.INFO, cause: Exception | None = None) -> None:
        """A line of the log file; below it the traceback of `cause`."""
        self._logger.log(level, "%s", text, exc_info=cause)

    def _log_is_lost(self, error: OSError) -> None:
        self.say(f"The log file cannot be written any more ({error.strerror}); the run goes on without it.")

    def show(self, event: FileEvent) -> None:
        source = str(event.item.input.path)
        if not isinstance(event, Note):
            self.inputs.add(source)
        self._emit(as_json(event))
        match event:
            case Done():
                self._count(event)
                line = f"{source} -> {event.output}  {event.clipped:.1%} clipped, peak {event.peak:.4g}"
                self.log(f"done {line}")
                if not self.live and not self.quiet and not self.as_json:
                    self._print(line)
            case Skipped():
                self.skipped += 1
                self.log(f"skipped {event.output}: already finished")
            case Elsewhere():
                self.elsewhere += event.made
                self.log(f"elsewhere {source}: {event.made} made by {event.by}")
            case Failed():
                self.failures.append(event)
                self.log(f"failed {event.message}", logging.ERROR, event.cause)
                self._print(event.message, "[red]failed[/] ")
                if event.cause is not None and self.debug:
                    for line in "".join(traceback.format_exception(event.cause)).splitlines():
                        self._print(line)
            case Note():
                self.log(f"note {event.message}", logging.WARNING)
                if not self.quiet:
                    self._print(event.message, "note: ")
        self._advance(event)

    def finish(self, retry: str = "") -> None:
        """The summary, and how to do again only what failed."""
        seconds = time.monotonic() - self.started
        done, speed = self.done, self.megapixels / max(seconds, 1e-6)
        numbers = {
            "done": done,
            "skipped": self.skipped,
            "elsewhere": self.elsewhere,
            "failed": len(self.failures),
            "clipped": round(self.clipped / done, 6) if done else None,
            "peak": _rounded(self.peak) if done else None,
            "clamped": self.clamped,
            "megapixels": round(self.megapixels, 6),
            "seconds": round(seconds, 3),
            "megapixels_per_second": round(speed, 4),
        }
        summary = {
            "done": done,
            "already done": self.skipped,
            **({"made by other processes": self.elsewhere} if self.elsewhere else {}),
            "failed": len(self.failures),
            "clipped pixels": f"{self.clipped / done:.2%}" if done else "-",
            "brightest (white = 1)": f"{self.peak:.4g}" if done else "-",
            "values clamped to 65504": self.clamped,
            "time": f"{seconds:.1f} s",
            "speed": f"{speed:.2f} MP/s",
        }
        self._stop_progress()
        self._emit({"event": "summary", **numbers})
        self.log("summary " + ", ".join(f"{name} {value}" for name, value in summary.items()))
        if not self.quiet or self.failures:
            table = Table(show_header=False, box=None)
            for name, value in summary.items():
                table.add_row(name, str(value))
            self._print(table)
        for failure in self.failures:
            self._print(failure.message, "[red]failed[/] ")
        if self.failures and self.failures[-1].ends_run:
            self.say(f"The run ended there: {self.total - len(self.inputs)} of {self.total} inputs were not begun.")
        if retry and self.failures:
            self.say(f"To try again only what failed: {retry}")

    def _count(self, event: Done) -> None:
        self.done += 1
        self.megapixels += event.megapixels
        self.clipped += event.clipped
        self.peak = max(self.peak, event.peak)
        self.clamped += event.clamped

    def _advance(self, event: FileEvent) -> None:
        seconds = time.monotonic() - self.started
        clipped = f", {event.clipped:.1%} clipped" if isinstance(event, Done) else ""
        self.progress.update(
            self.task,
            completed=max(len(self.inputs) - (event.item.input.kind == "video"), 0),
            description=escape(one_line(f"{event.item.input.path.name}{_frame(event)}{clipped}")),
            rate=f"{self.megapixels / max(seconds, 1e-6):.2f} MP/s",
        )

    def _emit(self, event: dict[str, Any]) -> None:
        if not self.as_json:
            return
        try:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()
        except OSError:  # the reader of the pipe has gone
            self.as_json = False
            silence(sys.stdout.fileno())

    def _print(self, what: str | Table, mark: str = "") -> None:
        """Markup and control characters in a file's name are only text."""
        try:
            self.console.print(mark + escape(one_line(what)) if isinstance(what, str) else what, highlight=False)
        except (OSError, SystemExit):  # rich leaves when its reader has gone; a run of hours does not
            self.live, self.quiet = False, True
            silence(sys.stderr.fileno())


def as_json(event: FileEvent) -> dict[str, Any]:
    """What the JSON line of an event holds, see docs/json.md."""
    source = str(event.item.input.path)
    return {"event": type(event).__name__.lower(), "source": source, **_details(event)}


def _details(event: FileEvent) -> dict[str, Any]:
    match event:
        case Done():
            return {
                "output": str(event.output),
                "frame": event.frame,
                "megapixels": round(event.megapixels, 6),
                "clipped": round(event.clipped, 6),
                "peak": _rounded(event.peak),
                "clamped": event.clamped,
                "sha256": event.entry.get("sha256"),
                "seconds": round(event.spent.total, 4),
                "read_seconds": round(event.spent.read, 4),
                "reconstruct_seconds": round(event.spent.reconstruct, 4),
                "write_seconds": round(event.spent.write, 4),
            }
        case Skipped():
            return {"output": str(event.output)}
        case Elsewhere():
            return {"made": event.made, "by": event.by}
        case Failed():
            return {"frame": event.frame, "message": event.message, "ends_run": event.ends_run}
        case Note():
            return {"message": event.message}


def _rounded(value: float) -> float:
    """Six digits that count, whatever the range."""
    return float(f"{value:.6g}")


def _frame(event: FileEvent) -> str:
    frame = getattr(event, "frame", None)
    return "" if frame is None else f" #{frame}"
