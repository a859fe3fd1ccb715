"""Several processes in one output directory: who does what, and who takes over from the dead."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePath

import psutil
import pytest

from ldr2hdr_cli.convert.chunks import Chunk, cut
from ldr2hdr_cli.convert.claims import CLAIMS, Claims, Holder
from ldr2hdr_cli.convert.events import Elsewhere, Failed
from ldr2hdr_cli.convert.job import Selection, plan
from ldr2hdr_cli.convert.manifest import Settings
from ldr2hdr_cli.convert.pipeline import _PixelBudget, _prefetch
from ldr2hdr_cli.media.sources import Input
from model.errors import Ldr2hdrError

JOB, ANOTHER = Settings({"precision": "bf16"}), Settings({"precision": "fp32"})


@pytest.fixture
def chunks(tmp_path) -> list[Chunk]:
    """Three, of photographs."""
    sources = [Input(Path(f"{index}.jpg"), "still", PurePath(f"{index}")) for index in range(40)]
    return list(cut(plan(sources, tmp_path, ".exr"), Selection(), is_sequence_clip=False, length=lambda _: None))


def nothing() -> None:
    """Nothing has to be read again."""


def elsewhere(**how) -> Holder:
    """A process of another machine."""
    return replace(Holder.me(), **{"host": "other", "home": "other boot", **how})


def test_what_one_holds_another_does_not_get_and_what_it_finished_is_told(tmp_path, chunks):
    with Claims(tmp_path, JOB) as first, Claims(tmp_path, JOB, me=elsewhere()) as second:
        mine = first.share(chunks, nothing)
        assert next(mine) is chunks[0]
        theirs = second.share(chunks, nothing)
        assert next(theirs) is chunks[1]
        assert next(mine) is chunks[2]
        failed = Failed(chunks[0].items[3], "3.jpg is damaged.")
        first.finish(chunks[0], 15, [failed])
        first.finish(chunks[2], 8, [])
        told = list(theirs)
        assert [event for event in told if isinstance(event, Failed)] == [failed]
        made = [event for event in told if isinstance(event, Elsewhere)]
        assert {event.item.input.path.name for event in made} == {
            f"{index}.jpg" for index in [*range(3), *range(4, 16), *range(32, 40)]
        }
        assert {event.by for event in made} == {first.me.name}
        second.finish(chunks[1], 16, [])
        assert all(isinstance(event, Elsewhere) for event in mine)
    assert not (tmp_path / CLAIMS).exists()  # whoever leaves last tidies up


def test_what_was_finished_before_a_process_began_is_looked_at_again(tmp_path, chunks):
    with Claims(tmp_path, JOB, me=elsewhere()) as first:
        for chunk in first.share(chunks, nothing):
            first.finish(chunk, 16, [])
        time.sleep(0.02)
        with Claims(tmp_path, JOB) as second:
            assert list(second.share(chunks, nothing)) == chunks  # an output may have been removed since


def test_a_process_that_died_here_is_known_at_once(tmp_path, chunks):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = psutil.Process(process.pid).create_time()
        theirs = replace(Holder.me(), pid=process.pid, began=began)
        with Claims(tmp_path, JOB, me=theirs) as dying, Claims(tmp_path, JOB, patience=1000) as claims:
            assert next(dying.share(chunks, nothing)) is chunks[0]
            mine = claims.share(chunks, nothing)
            assert next(mine) is chunks[1]
            process.kill()
            process.wait()
            assert [*mine] == [chunks[2], chunks[0]]


def test_one_that_gives_no_sign_of_life_is_taken_over_and_one_that_does_is_waited_for(tmp_path, chunks):
    silent = Claims(tmp_path, JOB, me=elsewhere(), beat=1000)
    lively = Claims(tmp_path, JOB, me=elsewhere(home="third"), beat=0.05)
    said: list[str] = []
    with silent, lively, Claims(tmp_path, JOB, say=said.append, patience=0.5) as claims:
        assert next(silent.share(chunks, nothing)) is chunks[0]
        assert next(lively.share(chunks, nothing)) is chunks[1]
        shared = claims.share(chunks, nothing)
        assert next(shared) is chunks[2]
        assert next(shared) is chunks[0]  # after the patience
        threading.Timer(0.3, lambda: lively.finish(chunks[1], 16, [])).start()
        assert all(isinstance(event, Elsewhere) for event in shared)
        assert any("Waiting for" in text for text in said)
        silent.finish(chunks[0], 16, [])  # it wakes up again: nothing of the new holder's is touched
        assert any(path.suffix == ".2" for path in (tmp_path / CLAIMS).rglob(chunks[0].key + "*"))


def test_a_job_with_other_settings_is_refused_while_one_is_at_work(tmp_path):
    with (
        Claims(tmp_path, JOB, me=elsewhere()),
        pytest.raises(
            Ldr2hdrError,
            match=r"is in use by process .* on other, which converts with other settings \(precision bf16, now fp32\)",
        ),
        Claims(tmp_path, ANOTHER),
    ):
        pass
    with Claims(tmp_path, ANOTHER):
        pass


def test_a_process_does_not_wait_for_itself(tmp_path):
    with Claims(tmp_path, JOB), pytest.raises(Ldr2hdrError, match="is in use by process"), Claims(tmp_path, JOB):
        pass


def test_the_sign_of_a_job_that_was_killed_does_not_lock_the_directory(tmp_path):
    gone = replace(Holder.me(), began=1.0)  # another process had this number
    (tmp_path / CLAIMS).mkdir()
    killed = Claims(tmp_path, JOB, me=gone)
    killed._place(killed.sign)
    with Claims(tmp_path, ANOTHER):
        pass


def test_a_file_system_without_links_will_do(tmp_path, chunks, monkeypatch):
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    with Claims(tmp_path, JOB) as first, Claims(tmp_path, JOB, me=elsewhere()) as second:
        assert next(first.share(chunks, nothing)) is chunks[0]
        assert next(second.share(chunks, nothing)) is chunks[1]


def test_stopping_ends_the_wait_and_gives_the_rest_back(tmp_path, chunks):
    stop = threading.Event()
    with Claims(tmp_path, JOB, me=elsewhere()) as first:
        assert next(first.share(chunks[:1], nothing)) is chunks[0]
        with Claims(tmp_path, JOB, stop) as second:
            threading.Timer(0.2, stop.set).start()
            assert [*second.share(chunks, nothing)] == chunks[1:]
        with Claims(tmp_path, JOB) as third:  # what the second had is free again
            assert next(third.share(chunks[1:], nothing)) is chunks[1]


def test_half_written_files_of_killed_runs_go_and_those_of_others_stay(tmp_path, chunks):
    def half_written(name: str, seconds_ago: float) -> Path:
        path = tmp_path / f".ldr2hdr-{name}.tmp"
        path.touch()
        os.utime(path, (time.time() - seconds_ago,) * 2)
        return path

    old, recent = half_written("old", 1000), half_written("recent", 30)
    with Claims(tmp_path, JOB, me=elsewhere()), Claims(tmp_path, JOB) as second:
        next(second.share(chunks, nothing))
        assert not old.exists() and recent.exists()
    with Claims(tmp_path, JOB) as alone:
        next(alone.share(chunks, nothing))
        assert not recent.exists()


def test_a_claim_that_cannot_be_written_ends_the_run_in_one_sentence(tmp_path, chunks):
    with Claims(tmp_path, JOB) as claims:
        shared = claims.share(chunks, nothing)
        next(shared)
        shutil.rmtree(tmp_path)
        (failed,) = shared
        assert isinstance(failed, Failed) and failed.ends_run
        assert (
            failed.message == f"{tmp_path} cannot be written (No such file or directory): make space or allow writing."
        )
    assert not tmp_path.exists()  # as the mount point of a disk that is gone, it would take what belongs there


def test_one_that_ends_as_another_begins_is_in_nobodys_way(tmp_path, monkeypatch):
    sign = tmp_path / CLAIMS / "run.other"
    sign.parent.mkdir()
    sign.write_bytes(Claims(tmp_path, ANOTHER, me=elsewhere())._sign())
    read = Claims._read

    def ends(self: Claims, path: Path) -> object:
        found = read(self, path)
        sign.unlink()
        return found

    monkeypatch.setattr(Claims, "_read", ends)
    with Claims(tmp_path, JOB):
        pass


def test_a_folder_that_the_last_one_removes_as_another_begins_is_made_again(tmp_path, chunks, monkeypatch):
    link, left = os.link, []

    def removed(*names: Path) -> None:
        if not left:
            left.append(True)
            shutil.rmtree(tmp_path / CLAIMS)
        link(*names)

    monkeypatch.setattr(os, "link", removed)
    with Claims(tmp_path, JOB) as claims:
        assert next(claims.share(chunks, nothing)) is chunks[0]


def test_a_reader_that_goes_away_ends_the_wait_for_others():
    stop = threading.Event()

    def chunks_of_others() -> Iterator[int]:
        yield 1
        stop.wait(60)

    with closing(_prefetch(chunks_of_others(), stop, _PixelBudget(1))) as found:  # type: ignore[type-var]
        assert next(one for one in found if one is not None) == 1
    assert stop.is_set()
