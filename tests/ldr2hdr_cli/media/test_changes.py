"""Clips that do not stay as they began: each frame is converted as it is, and the change is named by its number."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from typer.testing import CliRunner

from ldr2hdr_cli.app import app
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.media.sources import probe, read_frames
from model.errors import Ldr2hdrError


def grey(code: int, height: int = 48, width: int = 64) -> tuple[np.ndarray, ...]:
    luma = np.full((height, width), code, np.uint8)
    luma[: height // 2, : width // 2] = 235  # top left
    chroma = np.full((height // 2, width // 2), 128, np.uint8)
    return luma, chroma, chroma


def part(clip, name: str, frames: int = 3, height: int = 48, width: int = 64, filtered: str = "", **how) -> bytes:
    """A bare H.264 stream. filtered: options of FFmpeg's h264_metadata, which writes into it."""
    pictures = [grey(60 + 20 * index, height, width) for index in range(frames)]
    how = {
        "codec": "libx264",
        "pixels": "yuv420p",
        "options": {"qp": "0", "g": "1"},
        **how,
    }  # each frame a key frame: it carries the orientation
    path = clip(f"{name}.h264", pictures, **how)
    if not filtered:
        return path.read_bytes()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rewrite = BitStreamFilterContext(f"h264_metadata={filtered}", stream)
        packets = [one for packet in container.demux(stream) if packet.size for one in rewrite.filter(packet)]
        packets += rewrite.filter(None)
    return b"".join(bytes(packet) for packet in packets)


def join(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def notes(path: Path, **how) -> dict[int, str]:
    return {frame.index: frame.note for frame in read_frames(path, start_number=1, **how) if frame.note}


def test_a_size_that_changes_is_converted_and_named(clip, tmp_path):
    path = join(tmp_path / "a.h264", part(clip, "x"), part(clip, "y", height=96, width=128), part(clip, "x"))
    assert notes(path) == {
        3: "from frame 4 on, its pictures are 128×96, no longer 64×48.",
        6: "from frame 7 on, its pictures are 64×48, no longer 128×96.",
    }
    command = ["convert", path, "-o", tmp_path / "out", "--method", "clip"]
    done = CliRunner().invoke(app, [*map(str, command)])
    said = " ".join(done.output.split())
    assert done.exit_code == 0 and "from frame 4 on, its pictures are 128×96" in said
    shapes = [read_exr(tmp_path / "out" / "a" / f"a.{number:06d}.exr")[0].shape[:2] for number in range(1, 10)]
    assert shapes == [(48, 64)] * 3 + [(96, 128)] * 3 + [(48, 64)] * 3


def test_a_rotation_that_changes_is_followed_and_named(clip, tmp_path):
    # FFmpeg takes the orientation for that of one picture alone.
    turned = part(clip, "y", frames=1, filtered="display_orientation=insert:rotate=180") * 3
    path = join(tmp_path / "a.h264", part(clip, "x"), turned)
    frames = list(read_frames(path))
    bright = [
        tuple(int(axis) for axis in np.argwhere(frame.pixels[..., 1] > 0.9).mean(0) // [24, 32]) for frame in frames
    ]
    assert bright == [(0, 0)] * 3 + [(1, 1)] * 3
    assert notes(path) == {3: "from frame 4 on, they are turned another way."}
    upended = part(clip, "z", frames=1, filtered="display_orientation=insert:rotate=90") * 3
    path = join(tmp_path / "b.h264", part(clip, "x"), upended)
    assert [frame.pixels.shape[:2] for frame in read_frames(path)] == [(48, 64)] * 3 + [(64, 48)] * 3
    assert "48×64, no longer 64×48; they are turned another way" in notes(path)[3]


def test_frames_that_begin_to_be_interlaced_are_named_unless_they_are_deinterlaced(clip, tmp_path):
    options = {"qp": "0", "flags": "+ildct"}
    path = join(tmp_path / "a.h264", part(clip, "x"), part(clip, "y", options=options, field="tff"))
    assert not probe(path).interlaced
    assert notes(path) == {3: "from frame 4 on, its frames are interlaced; --deinterlace makes them progressive."}
    assert notes(path, deinterlace=True) == {}
    assert len(list(read_frames(path, deinterlace=True))) == 6


@pytest.mark.parametrize("order", [("bt709", "hlg"), ("hlg", "bt709")])
def test_a_clip_that_turns_to_hdr_or_back_ends_there_by_name(clip, tmp_path, order):
    """As a broadcast does between programmes."""
    trc = {"bt709": 1, "hlg": 18}
    parts = [part(clip, name, tags={"colorspace": 9, "color_primaries": 9, "color_trc": trc[name]}) for name in order]
    path = join(tmp_path / "a.h264", *parts)
    found = []
    with pytest.raises(Ldr2hdrError, match=f"changes from {order[0]} to {order[1]} at frame 4.*--frames"):
        for frame in read_frames(path, start_number=1, from_hdr=True):
            found.append(frame.index)  # noqa: PERF401 - what came before the error counts
    assert found == [0, 1, 2]


def edits(path: Path, *entries: tuple[int, int]) -> None:
    """The edit list (ISO 14496-12, 8.6.6): durations in ms, and starts in the units of the media, −1 for none."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") - 4
    old = int.from_bytes(data[at : at + 4], "big")
    box = struct.pack(">I4sII", 16 + 12 * len(entries), b"elst", 0, len(entries))
    box += b"".join(struct.pack(">IiI", *entry, 1 << 16) for entry in entries)
    more = len(box) - old
    for name in (b"moov", b"trak", b"edts"):
        where = data.index(name) - 4
        data[where : where + 4] = (int.from_bytes(data[where : where + 4], "big") + more).to_bytes(4, "big")
    path.write_bytes(data[:at] + box + data[at + old :])


def test_edit_lists_that_wait_cut_and_change_the_order(clip):
    """Frames are those that a player shows, in its order: 40 ms each, 512 units."""
    how = {"codec": "libx264", "pixels": "yuv420p", "options": {"qp": "0", "g": "1", "bf": "0"}}
    pictures = [grey(40 + 10 * index) for index in range(12)]

    def shown(*entries: tuple[int, int]) -> list[int]:
        path = clip("a.mp4", pictures, **how)
        edits(path, *entries)
        return [round((frame.pixels[-1, -1, 1] * 219 + 16 - 40) / 10) for frame in read_frames(path)]

    assert shown((480, 0)) == [*range(12)]
    assert shown((200, -1), (480, 0)) == [*range(12)]
    assert shown((120, 2 * 512), (160, 7 * 512)) == [2, 3, 4, 7, 8, 9, 10]
    assert shown((120, 7 * 512), (120, 1 * 512)) == [7, 8, 9, 1, 2, 3]
