"""`ldr2hdr convert`: a display and signals around `run.convert`, and the exit status."""

import logging
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ldr2hdr_cli.convert import job, run
from ldr2hdr_cli.convert.display import Display
from ldr2hdr_cli.convert.events import Message, Started
from ldr2hdr_cli.memory import keep_freed_memory
from ldr2hdr_cli.options import CommandOptions
from model import __version__
from model.errors import Ldr2hdrError


def convert(inputs: Sequence[str], output: Path, options: CommandOptions, debug: bool = False) -> int:
    """Run it. Returns the exit status: 0 all done, 1 some failed, 130 or 143 interrupted.

    inputs: as for `run.convert`; "-" stands for the names that stdin lists.
    """
    inputs = [name for word in inputs for name in (listed("-") if word == "-" else [word])]
    if options.list_ is not None:
        inputs += listed(str(options.list_))
    stop = threading.Event()
    with Display(options.quiet, options.json, options.log_file, debug) as display, signals(stop) as caught:
        display.log(f"ldr2hdr {__version__}: {_command()}")
        if options.dry_run:
            return _dry_run(inputs, output, options, display)
        keep_freed_memory()
        for event in run.convert(inputs, output, options, stop=stop):
            match event:
                case Started():
                    display.begin(event.total)
                case Message():
                    display.say(event.text, logging.WARNING)
                case _:
                    display.show(event)
        again = _command(without="--overwrite")  # what was made again a moment ago is finished
        if options.overwrite and "--overwrite" not in sys.argv:  # a file or a variable says so
            again += " --no-overwrite"
        display.finish(retry=again)
        if caught:
            display.say(f"Interrupted; what is finished stays. To go on: {again}")
            return 128 + caught[0]
        return 1 if display.failures else 0


def listed(source: str) -> list[str]:
    """The names in a file, or of stdin for "-": one a line, or ended by NUL as `find -print0` does.

    Raises Ldr2hdrError for a file that cannot be read, or holds no name.
    """
    shown = "the list on stdin" if source == "-" else f"--list {source}"
    try:
        if source == "-":
            data = sys.stdin.buffer.read(_LONGEST_LIST + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(_LONGEST_LIST + 1)
    except OSError as error:
        raise Ldr2hdrError(f"{shown} cannot be read ({error.strerror}); give a file with one name a line.") from None
    if len(data) > _LONGEST_LIST:
        raise Ldr2hdrError(f"{shown} has more than {_LONGEST_LIST} bytes: is it a list of names? Give it in parts.")
    lines = data.split(b"\0") if b"\0" in data else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    names = [os.fsdecode(line) for line in lines if line]
    if not names:
        raise Ldr2hdrError(f"{shown} is empty; write one name a line.")
    return names


_LONGEST_LIST = 2**26  # bytes


@contextmanager
def signals(stop: threading.Event) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM asks the run to finish what is in hand; a second one leaves at once.

    A thread listens, since Python's own handlers wait for the main thread, which may be inside the network.
    """
    caught: list[int] = []
    listener, teller = socket.socketpair()
    teller.setblocking(False)

    def listen() -> None:
        while received := listener.recv(1):
            if received[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            if caught:
                tell(b"\x1b[?25h" if sys.stderr.isatty() else b"")  # the live display hides the cursor
                os._exit(128 + received[0])
            caught.append(received[0])
            stop.set()
            tell(b"Finishing what is in hand; a second signal ends the run at once.\n")

    def tell(text: bytes) -> None:
        with suppress(OSError):
            os.write(2, text)

    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    wake = signal.set_wakeup_fd(teller.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield caught
    finally:
        signal.set_wakeup_fd(wake)
        for number, handler in before.items():
            signal.signal(number, handler)
        teller.close()
        thread.join()
        listener.close()


def _dry_run(inputs: Sequence[str], output: Path, options: CommandOptions, display: Display) -> int:
    items, _ = run.plan(inputs, output, options)
    for note in run.shared_names(items):
        display.show(note)
    for item in items:
        display.plan(item.input.path, _target(item))
    return 0


def _target(item: job.Item) -> Path:
    return item.output(0) if item.input.kind == "still" or not item.suffix else item.pattern()


def _command(without: str = "") -> str:
    """What was typed, for a shell."""
    return " ".join(_quoted(word) for word in ["ldr2hdr", *sys.argv[1:]] if word != without)


def _quoted(word: str) -> str:
    """As shlex.quote; control characters and bytes that are no UTF-8 in bash's $'...', so that it stays one line."""
    if word.isprintable():
        return shlex.quote(word)

    def escaped(character: str) -> str:
        if character in "\\'":
            return "\\" + character
        data = character.encode("utf-8", "surrogateescape")
        return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in data)

    return "$'" + "".join(map(escaped, word)) + "'"
