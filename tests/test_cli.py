"""The processes of tests/cli.py end, speak and die as those of subprocess do."""

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import cli


def real(*words: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(cli.ROOT), **env}
    command = [sys.executable, "-m", "ldr2hdr_cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False)


@pytest.mark.parametrize("words", [("info", "none.exr", "a b.png"), ("convert", "x", "-o", "out")])
def test_status_stdout_and_stderr_are_those_of_a_real_process(tmp_path, words):
    env = {"LDR2HDR_TILE": "huge", "COLUMNS": "70"}
    found, expected = (one(*words, cwd=tmp_path, env=env) for one in (cli.run, real))
    assert found.returncode == expected.returncode > 0
    assert found.stdout == expected.stdout and found.stderr == expected.stderr != ""


@pytest.fixture
def waiting(tmp_path):
    """Begins a command that waits for names on stdin, and returns it when it does."""
    if sys.platform == "win32":
        pytest.skip("Windows has no such signals")
    import fcntl
    import termios

    read, write = os.pipe()

    def begin() -> cli.Forked:
        process = cli.start("convert", "-", "-o", "out", cwd=tmp_path, stdin=read, start_new_session=True)
        os.write(write, b"some.png\n")
        while int.from_bytes(fcntl.ioctl(read, termios.FIONREAD, bytes(4)), sys.byteorder):
            time.sleep(0.01)
        return process

    yield begin
    os.close(read), os.close(write)


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", -15), ("SIGKILL", -9)])
def test_a_signal_reaches_the_process_by_its_number(waiting, name, status):
    process = waiting()
    assert process.poll() is None and os.getpgid(process.pid) == process.pid
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    os.kill(process.pid, signal.Signals[name])
    assert process.wait(60) == process.returncode == process.poll() == status


def test_nothing_hangs_and_nothing_is_left(waiting, tmp_path):
    late, left = waiting(), waiting()
    if cli.FORKS:
        with pytest.raises(subprocess.TimeoutExpired):
            late.communicate(timeout=0.01)
    cli.close_all()
    for process in (late, left):
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
    with pytest.raises(FileNotFoundError):
        cli.start("--version", cwd=tmp_path / "none")


@pytest.mark.skipif(not cli.FORKS, reason="processes are started by themselves here")
def test_a_helper_without_an_owner_ends_all_that_it_has_forked(waiting):
    process, helper = waiting(), cli._zygote()
    refused = pickle.dumps(([], "/none", {}, None, False))
    with open(os.devnull, "r+b") as null:  # noqa: PTH123
        socket.send_fds(helper._socket, [refused], [null.fileno()] * 4)
    assert select.select([helper._socket], [], [], 60)[0]  # an answer, which is left unread
    helper.close()
    cli._zygote.cache_clear()
    assert process.communicate(timeout=30) == ("", "")  # nobody holds its pipes any more
