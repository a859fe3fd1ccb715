"""The file of `--log-file`: a line an event, with the local time and a level, through Python's `logging`."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ldr2hdr_cli.terminal import one_line
from model.errors import Ldr2hdrError


class LogFile(logging.Handler):
    """Appends to a file, one write a record, so that two runs may share it and a killed one leaves whole lines.

    on_fault: told once, when the file cannot be written any more; nothing is written after that. Raises Ldr2hdrError
    where it cannot be opened.
    """

    def __init__(self, path: Path, on_fault: Callable[[OSError], None]) -> None:
        super().__init__()
        self.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
        self._on_fault, self._is_good = on_fault, True
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise Ldr2hdrError(f"--log-file {path}: cannot be written ({error.strerror}).") from None

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_good:
            return
        try:
            os.write(self._file, f"{self.format(record)}\n".encode())
        except OSError as error:
            self._is_good = False
            self._on_fault(error)

    def close(self) -> None:
        with suppress(OSError):  # a network's disk may say only now what it could not write
            os.close(self._file)
        super().close()


class _Lines(logging.Formatter):
    """A record begins with its time; what else belongs to it is indented, so that no text can pass for a record."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"    {one_line(line)}" for line in super().formatException(ei).splitlines())
