import os
import stat
from pathlib import Path

import pytest

from model.atomic import make_folder, replace_atomically, sweep, write_atomically
from model.errors import Ldr2hdrError


def test_a_file_gets_the_bytes_and_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "result", b"new")
    assert (tmp_path / "result").read_bytes() == b"new"
    assert (tmp_path / "result").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_is_made_with_its_parents_or_refused_in_a_sentence(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Ldr2hdrError, match=r"file.c cannot be created \(.*\); choose another folder\."):
        make_folder(tmp_path / "file" / "c")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_is_honoured(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "result", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "result").stat().st_mode) == mode


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")

    def half(file: object) -> None:
        file.write(b"ne")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_atomically(path, half)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["result"]  # noqa: PTH208


def test_the_old_file_stands_until_the_new_one_is_on_the_disk_and_then_the_directory_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "result", []
    path.write_bytes(b"old")

    def fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        size = os.fstat(descriptor).st_size if kind == "file" else 0
        flushed.append((kind, size, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(path, b"brand new")
    expected = [("file", 9, b"old"), ("directory", 0, b"brand new")]
    assert flushed == (expected if hasattr(os, "O_DIRECTORY") else expected[:1])


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Ldr2hdrError, match="cannot be written"):
        write_atomically(tmp_path / "no" / "result", b"x")


def test_sweeping_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    for name in (".ldr2hdr-0123.tmp", "mine.tmp", ".hidden", "ldr2hdr-1.tmp"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "ldr2hdr-1.tmp", "mine.tmp"]  # noqa: PTH208
