"""One process in a directory."""

import pytest

from ldr2hdr_cli.lock import lock
from model.errors import Ldr2hdrError


def test_a_second_run_into_one_directory_is_refused(tmp_path):
    with lock(tmp_path), pytest.raises(Ldr2hdrError, match="in use by another run"), lock(tmp_path):
        pass


def test_the_lock_sweeps_what_a_killed_run_left(tmp_path):
    left = tmp_path / "clip" / ".ldr2hdr-1234.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with lock(tmp_path):
        assert not left.exists()
