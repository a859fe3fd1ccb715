"""`ldr2hdr` as a process of its own, without paying for its imports each time.

`run` and `start` stand for subprocess.run and subprocess.Popen. On Linux the process is a fork of a helper that has
imported PyTorch, the codecs and the command, and done nothing else: it has no thread and has run no operation. What
depends on how Python starts (imports, `python -m`, variables that libraries read when they load, processes that start
themselves anew) is to be tested with subprocess. SLOW_CLI=1 in the environment does so everywhere.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TextIO

ROOT = Path(__file__).resolve().parents[1]
FORKS = sys.platform == "linux" and not os.environ.get("SLOW_CLI")
HEAVY = {
    "": ("torch", "av", "cv2", "OpenEXR", "imagecodecs", "tifffile", "rich.progress", "ldr2hdr_cli.app"),
    "convert": ("ldr2hdr_cli.convert.command",),
    "info": ("ldr2hdr_cli.info",),
    "view": ("ldr2hdr_cli.view.page",),
    "evaluate": ("ldr2hdr_cli.evaluation.command", "ldr2hdr_cli.evaluation.compare", "scipy.ndimage"),
    "train": ("train.loop", "train.datasets", "train.patches", "ldr2hdr_cli.train_display", "lightning_fabric"),
}
"""What to import before the fork, for every command and for one."""
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def run(*words: Any, timeout: float = 120, **how: Any) -> subprocess.CompletedProcess[str]:
    """`ldr2hdr WORDS…` to its end. What it said is printed too, so that a test that fails shows it.

    how: see `start`. Raises subprocess.TimeoutExpired, and has killed the process then.
    """
    process = start(*words, **how)
    stdout, stderr = process.communicate(timeout=timeout)
    print(f"$ ldr2hdr {' '.join(map(str, words))}\n{stdout}{stderr}→ {process.returncode}")
    return subprocess.CompletedProcess(list(words), process.returncode, stdout, stderr)


def start(
    *words: Any,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    before: Callable[[], object] | None = None,
    start_new_session: bool = False,
) -> "Forked | subprocess.Popen[str]":
    """`ldr2hdr WORDS…`, its stdout and stderr being pipes of text.

    env: variables beside those of this process. stdin: a file descriptor, or DEVNULL. before: called in the new process
    first, as preexec_fn is; it must be picklable: a function of a module, or functools.partial of one.
    """
    arguments = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in words]
    environment = {**os.environ, "PYTHONPATH": _path(), "OMP_NUM_THREADS": "1", **(env or {})}
    if not FORKS:
        real = subprocess.Popen(
            [sys.executable, "-m", "ldr2hdr_cli", *arguments],
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="surrogateescape",
            cwd=cwd, env=environment, preexec_fn=before, start_new_session=start_new_session,
        )  # fmt: skip
        _started.append(real)
        return real
    with contextlib.ExitStack() as ours:
        ends = [os.pipe() for _ in range(3)]
        for _, end in ends:
            ours.callback(os.close, end)
        if stdin == subprocess.DEVNULL:
            stdin = os.open(os.devnull, os.O_RDONLY)
            ours.callback(os.close, stdin)
        stdout, stderr, status = (end for end, _ in ends)
        request = pickle.dumps((arguments, str(cwd or Path.cwd()), environment, before, start_new_session))
        pid = _zygote().ask(request, [stdin, *(end for _, end in ends)])
    process = Forked(pid, *(os.fdopen(end, **TEXT) for end in (stdout, stderr)), status)
    _started.append(process)
    return process


def _path() -> str:
    """PYTHONPATH with this checkout in front, whatever is installed and wherever the process is started."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


class Forked:
    """A process that the helper has forked: what tests use of subprocess.Popen, with the same meaning."""

    def __init__(self, pid: int, stdout: TextIO, stderr: TextIO, status: int) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            told = os.read(self._status, 4)
            os.close(self._status)
            (self.returncode,) = struct.unpack("i", told) if told else (-signal.SIGKILL,)  # by the helper, at its end
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """The rest of stdout and of stderr. Raises TimeoutExpired, and has killed the process then, unlike Popen."""
        said = {self.stdout: "", self.stderr: ""}
        deadline = time.monotonic() + timeout
        readers = [threading.Thread(target=_read, args=(stream, said), daemon=True) for stream in said]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(0, deadline - time.monotonic()))
        try:
            if any(reader.is_alive() for reader in readers):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as expired:
            self.kill()
            for reader in readers:
                reader.join(5)
            expired.output, expired.stderr = said[self.stdout], said[self.stderr]
            print(f"killed after {timeout} s\n{expired.output}{expired.stderr}")
            raise
        return said[self.stdout], said[self.stderr]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its status is on the way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *fault: object) -> None:
        for stream in (self.stdout, self.stderr):
            stream.close()
        self.wait()


def _read(stream: TextIO, said: dict[TextIO, str]) -> None:
    if not stream.closed:
        for line in stream:  # line by line, so that something is there when time has run out
            said[stream] += line


_started: "list[Forked | subprocess.Popen[str]]" = []


def close_all() -> None:
    """Kills what a test has started and left."""
    while _started:
        with _started.pop() as process:
            process.kill()


# -- the helper: this file as a program -------------------------------------------------------------------------------


class Zygote:
    """The helper, from the side of the tests."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": _path(), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            )  # fmt: skip
        self._socket.settimeout(170)  # imports on a busy machine; less than the time limit of a test

    def ask(self, request: bytes, descriptors: list[int]) -> int:
        """The number of the process that runs it. Raises what failed in it before the command began."""
        try:
            socket.send_fds(self._socket, [request], descriptors)
            answer = self._socket.recv(2**16)
        except BaseException:  # an answer that comes later would be taken for that to the next request
            self._process.kill()
            self.close()
            _zygote.cache_clear()
            raise
        if not answer:
            raise RuntimeError(f"the helper of tests/cli.py has ended with status {self._process.wait(30)}")
        found = pickle.loads(answer)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self._socket.close()
        self._process.wait(30)


@functools.cache
def _zygote() -> Zygote:
    return Zygote()


def close() -> None:
    """Ends the helper, and all that it has forked."""
    close_all()
    if _zygote.cache_info().currsize:
        _zygote().close()
        _zygote.cache_clear()


def serve(control: socket.socket) -> None:
    """Forks a process for each request. Returns in that process only, where all is ready for the command's main."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: it ends with the tests
    running: dict[int, tuple[int, int]] = {}  # a descriptor of each process → its number, and where its status goes
    while True:
        for ready in select.select([control, *running], [], [])[0]:
            if ready is not control:
                pid, status = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):
                    os.write(status, struct.pack("i", code))
                os.close(status), os.close(ready)
                continue
            request, descriptors = b"", []
            with contextlib.suppress(ConnectionError):  # the tests have ended, and have left an answer unread
                request, descriptors, _, _ = socket.recv_fds(control, 2**20, 4)
            if not request:
                for pid, _ in running.values():
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            *streams, status = descriptors
            arguments, *rest = pickle.loads(request)
            try:
                _import(HEAVY[""] + HEAVY.get(arguments[0] if arguments else "", ()))
                pid = os.fork()
            except Exception as fault:
                control.send(pickle.dumps(RuntimeError("".join(traceback.format_exception(fault)))))
                continue
            if not pid:
                for number in [status, *running, *(other for _, other in running.values())]:
                    os.close(number)
                _prepare(control, streams, arguments, *rest)
                return
            for number in streams:
                os.close(number)
            running[os.pidfd_open(pid)] = pid, status


def _import(names: Iterable[str]) -> None:
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        importlib.import_module(name)
    if missing:
        gc.collect()
        gc.freeze()  # the collector of a fork would copy their pages


def _prepare(
    control: socket.socket,
    streams: list[int],
    arguments: list[str],
    cwd: str,
    environment: dict[str, str],
    before: Callable[[], object] | None,
    new_session: bool,
) -> None:
    """This fork becomes the process that was asked for, and says its number."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if new_session:
            os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.argv = ["ldr2hdr", *arguments]
        if before:
            before()
    except Exception as fault:
        control.send(pickle.dumps(fault))
        os._exit(1)
    control.send(pickle.dumps(os.getpid()))
    control.close()


def _call(main: Callable[[], None]) -> int:
    """The exit status that Python gives a program which ends as `main` does."""
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 255
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _exit(code: int) -> NoReturn:
    """As Python ends, but for taking all modules down: a fork would copy their pages for that, which takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = 120
    os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    from ldr2hdr_cli.app import main

    _exit(_call(main))
