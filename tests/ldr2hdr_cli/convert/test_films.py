"""Clips as films from `convert`: whole, resumable, and of the same light as the EXRs of the run."""

import errno
import signal
import subprocess
import sys
import threading

import av
import numpy as np
import pytest

from ldr2hdr import convert
from ldr2hdr_cli.convert import films
from ldr2hdr_cli.convert.events import Done, Failed, Note, Skipped
from ldr2hdr_cli.media import hdr_video
from ldr2hdr_cli.media.colour import REC709
from ldr2hdr_cli.media.display_light import DisplayLight, pq, to_rec2020
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.options import ConvertOptions
from model.errors import Ldr2hdrError

COUNT = 10


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(films, "SEGMENT", 4)


@pytest.fixture
def movie(clip):
    """A clip with a light that is clipped and gets brighter around it."""

    def make(name="movie.mov"):
        frames = []
        for index in range(COUNT):
            codes = np.full((64, 96, 3), 40 + 10 * index, np.uint8)
            codes[16:48, 32:64] = 255
            frames.append(codes)
        return clip(name, frames, codec="libx264", pixels="yuv444p", layout="rgb24", options={"crf": "5"})

    return make


def options(**given):
    return ConvertOptions(**{"method": "rempel2007", "float_": True, "crf": 0.0, "preset": "ultrafast", **given})


def events(source, out, kind, **given):
    return [event for event in convert(source, out, options(**given)) if isinstance(event, kind)]


def decoded(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def luma(frame):
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint16).reshape(plane.height, -1)[:, : plane.width]


def test_film_shows_the_light_of_the_exrs_of_the_same_run(movie, tmp_path):
    out = tmp_path / "out"
    assert events(movie(), out, Failed, format="exr,hdr10,prores") == []
    frames = decoded(out / "movie" / "movie.hdr10.mp4")
    assert len(frames) == len(decoded(out / "movie" / "movie.prores.mov")) == COUNT
    assert [round(frame.time * 25) for frame in frames] == [*range(COUNT)]
    for index, frame in enumerate(frames):
        linear = read_exr(out / "movie" / f"movie.{index + 1:06d}.exr")[0]
        # Its file names no other curve than a camera's, which a television does not undo.
        signal = pq(DisplayLight(viewing="bt1886").nits(linear, to_rec2020(REC709)))
        exact = (219 * (signal @ np.float32([0.2627, 0.6780, 0.0593])) + 16) * 4
        assert np.abs(luma(frame) - exact).max() < 0.51
    assert linear.max() > 1
    names = {path.name for path in (out / "movie").iterdir()}
    exrs = {f"movie.{index + 1:06d}.exr" for index in range(COUNT)}
    assert names == exrs | {"movie.hdr10.mp4", "movie.prores.mov"}  # and nothing hidden is left


@pytest.mark.parametrize("format", ["hdr10", "exr,hlg"])
def test_run_that_was_ended_goes_on_to_the_same_bytes(movie, tmp_path, format):
    source, whole, parted = movie(), tmp_path / "whole", tmp_path / "parted"
    name = "movie/movie." + format.rpartition(",")[2] + ".mp4"
    events(source, whole, Done, format=format)
    stop = threading.Event()
    first = []
    for event in convert(source, parted, options(format=format, encoders=1), stop=stop):
        first += [event] if isinstance(event, Done) else []
        if len(first) == 6:
            stop.set()
    assert 6 <= len(first) < COUNT
    assert not (parted / name).exists()
    second = events(source, parted, Done, format=format)
    assert len(second) <= COUNT - 4  # the first segment is not made again
    assert (parted / name).read_bytes() == (whole / name).read_bytes()
    before = (whole / name).stat().st_mtime_ns
    assert events(source, whole, Done, format=format) == []
    assert (whole / name).stat().st_mtime_ns == before


def test_finished_film_is_passed_over_and_made_again_when_it_is_gone(movie, tmp_path):
    source, out = movie(), tmp_path / "out"
    events(source, out, Done, format="hdr10")
    film = out / "movie" / "movie.hdr10.mp4"
    data = film.read_bytes()
    (skipped,) = events(source, out, Skipped, format="hdr10")
    assert skipped.output == film
    film.unlink()
    assert len(events(source, out, Done, format="hdr10")) == COUNT
    assert film.read_bytes() == data
    film.write_bytes(data[:-1] + b"?")
    assert len(events(source, out, Done, format="hdr10", verify=True)) == COUNT
    assert film.read_bytes() == data


def test_only_the_frames_that_are_asked_for(movie, tmp_path):
    source, out = movie(), tmp_path / "out"
    events(source, out, Done, format="hdr10", frames="3-8", every=2)
    frames = decoded(out / "movie" / "movie.hdr10.mp4")
    assert [round(frame.time * 25) for frame in frames] == [0, 2, 4]
    events(source, out, Done, format="hdr10")
    assert len(decoded(out / "movie" / "movie.hdr10.mp4")) == COUNT


def test_frame_that_fails_keeps_the_film_from_being_written_until_it_is_made(movie, tmp_path, monkeypatch):
    source, out = movie(), tmp_path / "out"
    real = films.picture
    state = {"calls": 0}

    def spoilt(*how):
        state["calls"] += 1
        if state["calls"] == 6:
            raise MemoryError
        return real(*how)

    monkeypatch.setattr(films, "picture", spoilt)
    told = [*convert(source, out, options(format="hdr10", encoders=1))]
    (failed,) = [event for event in told if isinstance(event, Failed)]
    assert failed.frame == 6
    assert any(
        "is not written, because frames of it failed" in event.message for event in told if isinstance(event, Note)
    )
    film = out / "movie" / "movie.hdr10.mp4"
    assert not film.exists()
    assert len(events(source, out, Done, format="hdr10")) == 4  # its segment alone
    assert len(decoded(film)) == COUNT


def test_clip_that_breaks_off_is_a_film_of_what_is_good(clip, tmp_path):
    frames = [np.full((64, 96, 3), 20 * index, np.uint8) for index in range(COUNT)]
    source = clip("movie.mkv", frames, codec="ffv1", pixels="yuv444p", layout="rgb24")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 3 // 4])
    out = tmp_path / "out"
    told = [*convert(source, out, options(format="exr,hdr10"))]
    assert "breaks off" in next(event.message for event in told if isinstance(event, Failed))
    assert any(
        "without the frames that cannot be decoded" in event.message for event in told if isinstance(event, Note)
    )
    exrs = [*(out / "movie").glob("*.exr")]
    assert 4 < len(exrs) < COUNT
    assert len(decoded(out / "movie" / "movie.hdr10.mkv")) == len(exrs)


KILLED = """
import os, signal, sys
from ldr2hdr import convert
from ldr2hdr_cli.convert import films
from ldr2hdr_cli.convert.events import Done
from ldr2hdr_cli.options import ConvertOptions
films.SEGMENT = 4
options = ConvertOptions(method="rempel2007", float_=True, crf=0.0, preset="ultrafast", format="hdr10", encoders=1)
made = [event for event in convert(sys.argv[1], sys.argv[2], options) if isinstance(event, Done)
        and event.frame == 7 and os.kill(os.getpid(), signal.SIGKILL)]
"""


def test_killed_run_leaves_no_film_and_goes_on(movie, tmp_path):
    source, out, whole = movie(), tmp_path / "out", tmp_path / "whole"
    killed = subprocess.run([sys.executable, "-c", KILLED, source, out], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name[0] for path in (out / "movie").iterdir()] == ["."]  # segments alone
    made = events(source, out, Done, format="hdr10")
    assert [event.frame for event in made] == [5, 6, 7, 8, 9, 10]
    events(source, whole, Done, format="hdr10")
    film = "movie/movie.hdr10.mp4"
    assert (out / film).read_bytes() == (whole / film).read_bytes()
    assert {path.name for path in (out / "movie").iterdir()} == {"movie.hdr10.mp4"}


def test_encoder_that_fails_is_one_sentence_and_the_exrs_are_written(movie, tmp_path):
    out = tmp_path / "out"
    told = [*convert(movie(), out, options(format="exr,hdr10", codec="libnone"))]
    (failed,) = [event for event in told if isinstance(event, Failed)]
    assert "--codec libnone: this FFmpeg has no such encoder" in failed.message
    assert len([*(out / "movie").glob("*.exr")]) == COUNT


def test_full_disk_is_one_sentence(movie, tmp_path, monkeypatch):
    def full(path, *_how):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(films, "write_segment", full)
    (failed,) = events(movie(), tmp_path / "out", Failed, format="exr,hdr10")
    assert "movie cannot take a film (No space left on device): make space" in failed.message


def test_film_beside_its_source_is_no_input(movie, tmp_path):
    source = movie()
    events(source.parent, source.parent, Done, format="hdr10", recursive=True)
    assert (source.parent / "movie" / "movie.hdr10.mp4").exists()
    told = [*convert(source.parent, source.parent, options(format="hdr10", recursive=True))]
    assert [type(event) for event in told if isinstance(event, Done | Failed | Skipped)] == [Skipped]


def test_photographs_are_no_films(tmp_path):
    import imageio.v3 as iio

    iio.imwrite(tmp_path / "photo.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(
        Ldr2hdrError, match=r"photo\.jpg is a picture, and --format hdr10 is for clips: add ultrahdr or exr"
    ):
        next(iter(convert(tmp_path / "photo.jpg", tmp_path / "out", options(format="hdr10"))))
    assert len(events(tmp_path / "photo.jpg", tmp_path / "out", Done, format="exr,hdr10")) == 1
    (tmp_path / "photo.jpg").rename(tmp_path / "plate.0001.jpg")
    with pytest.raises(Ldr2hdrError, match="--format hdr10 makes films of clips alone, not of numbered sequences"):
        next(iter(convert(tmp_path / "plate.%04d.jpg", tmp_path / "out", options(format="exr,hdr10", fps="25"))))


def test_segments_are_as_long_as_the_filters_blocks():
    from ldr2hdr_cli.convert.temporal import BLOCK

    assert hdr_video.SEGMENT == BLOCK


@pytest.mark.parametrize("size", [(32, 48), (96, 48)])
def test_film_of_a_picture_too_small_for_its_encoder_is_one_sentence(clip, tmp_path, size):
    """libx265 would end the whole process over it."""
    small = clip("small.mkv", [np.full((*size, 3), 200, np.uint8)] * 3, codec="ffv1", pixels="bgr0", layout="rgb24")
    (failed,) = events(small, tmp_path / "out", Failed, format="hdr10")
    assert f"{size[1]}×{size[0]} pixels cannot be encoded" in failed.message and "needs 64 a side" in failed.message
    assert not events(small, tmp_path / "out", Failed, format="prores")
