"""How a job is cut: every frame in one chunk, and each with the bytes that it has in a run of the whole."""

import hashlib
import threading
from itertools import pairwise
from pathlib import Path, PurePath

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldr2hdr_cli.convert import chunks as chunking
from ldr2hdr_cli.convert import run
from ldr2hdr_cli.convert.chunks import FRAMES, PICTURES, Chunk, ChunkEnded, cut
from ldr2hdr_cli.convert.events import Done, Failed
from ldr2hdr_cli.convert.job import Selection, plan
from ldr2hdr_cli.convert.temporal import BLOCK, warm_up
from ldr2hdr_cli.media.sources import Input
from ldr2hdr_cli.options import ConvertOptions
from model import MaskedUNet, NetworkConfig, save_network
from model.masked_unet import initialise


def items(*sources: Input, out: Path = Path("out")):
    return plan(sources, out, ".exr")


def video(name: str = "clip") -> Input:
    return Input(Path(f"{name}.mov"), "video", PurePath(name))


def plate(number: int) -> Input:
    name = f"plate.{number:04d}"
    return Input(Path(f"{name}.png"), "still", PurePath(name), number=number, sequence="plate.%04d.png")


def cut_all(planned, selection=Selection(), length=None, is_sequence_clip=False) -> list[Chunk | Failed]:
    return list(cut(planned, selection, is_sequence_clip=is_sequence_clip, length=lambda _: length))


@given(
    length=st.integers(1, 5000),
    every=st.integers(1, 5),
    begin=st.integers(0, 3000),
    size=st.none() | st.integers(1, 4000),
)
def test_every_frame_that_is_asked_for_is_in_one_chunk_and_chunks_begin_with_a_block(length, every, begin, size):
    selection = Selection(begin + 1, None if size is None else begin + size, every)
    found = cut_all(items(video()), selection, length)
    last = length - 1 if size is None else min(length, begin + size) - 1
    wanted = [selection.number(index) for index in range(begin, last + 1, every)]
    assert all([number in chunk for chunk in found].count(True) == 1 for number in wanted)
    assert all(chunk.start % BLOCK == 0 for chunk in found)
    assert all(one.is_before(other) for one, other in pairwise(found))
    assert [chunk.is_first for chunk in found] == [True] + [False] * (len(found) - 1)
    assert found[-1].end is None  # a container may promise too few frames


def test_a_clip_of_unknown_length_or_with_a_film_is_not_cut():
    assert len(cut_all(items(video()))) == 1
    filmed = plan([video()], Path("out"), ".exr", films=("hdr10",))
    assert len(cut_all(filmed, length=10 * FRAMES)) == 1


def test_photographs_go_in_small_groups_and_a_clip_between_them_keeps_its_place():
    photographs = [Input(Path(f"{index}.jpg"), "still", PurePath(f"{index}")) for index in range(PICTURES + 2)]
    found = cut_all(items(*photographs[:3], video(), *photographs[3:]), length=10)
    assert [len(chunk.items) for chunk in found] == [3, 1, PICTURES - 1]
    assert [item.input.path.name for chunk in found for item in chunk.items] == [
        "0.jpg", "1.jpg", "2.jpg", "clip.mov", *(f"{index}.jpg" for index in range(3, PICTURES + 2))
    ]  # fmt: skip


def test_a_numbered_sequence_is_cut_like_a_clip_and_each_chunk_knows_the_pictures_before():
    planned = items(*map(plate, range(1001, 1001 + 2 * FRAMES)))
    found = cut_all(planned, is_sequence_clip=True)
    assert [item.input.number for chunk in found for item in chunk.items] == [*range(1001, 1001 + 2 * FRAMES)]
    near = [[item.input.number for item in chunk.sequence] for chunk in found]
    assert near == [[*range(max(1001, warm_up(chunk.start)), chunk.end or 1001 + 2 * FRAMES)] for chunk in found]
    assert all(item.input.number in chunk for chunk in found for item in chunk.items)


def test_a_sequence_without_a_picture_that_is_asked_for_fails_and_the_rest_goes_on():
    found = cut_all(items(plate(1), video()), Selection(7, 9), length=10)
    assert isinstance(found[0], Failed) and "their numbers go from 1 to 1" in found[0].message
    assert isinstance(found[1], Chunk)


def test_keys_are_those_of_the_job_wherever_its_directories_are_mounted():
    here, there = (cut_all(items(video(), plate(3), out=Path(out)), length=1000) for out in ("out", "/mnt/job/out"))
    assert [chunk.key for chunk in here] == [chunk.key for chunk in there]
    assert len({chunk.key for chunk in here}) == len(here)


@given(parts=st.integers(1, 9), clips=st.integers(0, 3), photographs=st.integers(0, 60), length=st.integers(1, 4000))
def test_the_shards_of_a_job_are_the_job(parts, clips, photographs, length):
    sources = [Input(Path(f"{index}.jpg"), "still", PurePath(f"{index}")) for index in range(photographs)]
    sources += [video(f"clip{index}") for index in range(clips)]
    whole = cut_all(items(*sources), length=length)
    shared = [[chunk for chunk in whole if chunk.turn % parts == part] for part in range(parts)]
    assert sorted(chunk.key for shard in shared for chunk in shard) == sorted(chunk.key for chunk in whole)
    if clips == 1 and not photographs:  # a single long clip is for all of them
        sizes = [len(shard) for shard in shared]
        assert max(sizes) - min(sizes) <= 1


@pytest.fixture(scope="module")
def panning(tmp_path_factory) -> tuple[Path, Path]:
    """A clip of 2.2 blocks that something is clipped in, and weights."""
    folder = tmp_path_factory.mktemp("panning")
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 255, (4, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    scene[8:20, 60:200] = 255
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "bframes=2:keyint=30"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for index in range(2 * BLOCK + 20):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[:, index : index + 48]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), folder / "w.safetensors")
    return folder / "clip.mp4", folder / "w.safetensors"


def test_chunks_that_are_made_apart_and_out_of_order_have_the_bytes_of_a_whole_run(panning, tmp_path, monkeypatch):
    clip, weights = panning
    options = ConvertOptions(weights=weights, memory="1G", compression="none")
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    assert not [event for event in run.convert(clip, whole, options) if isinstance(event, Failed)]
    monkeypatch.setattr(chunking, "FRAMES", BLOCK)
    planned, selection = run.plan(clip, apart, options)
    made = []
    for place in (2, 0, 1):
        converter = run.Converter(planned, selection, apart, options, threading.Event())
        chunk = [*run.chunks(planned, selection, options)][place]
        events = [*converter.events([chunk])]
        converter.close()
        assert [event.chunk for event in events if isinstance(event, ChunkEnded)] == [chunk]
        made += [event.output.name for event in events if isinstance(event, Done)]
    assert sorted(made) == sorted(path.name for path in (whole / "clip").iterdir())  # each once
    assert checksums(apart) == checksums(whole)


def checksums(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*.exr")}


def test_a_clip_that_ends_before_its_container_says_so_fails_once_and_has_no_empty_chunks(
    panning, tmp_path, monkeypatch
):
    clip, _ = panning
    monkeypatch.setattr(chunking, "FRAMES", BLOCK)
    short = tmp_path / "short.mp4"
    with av.open(str(clip)) as source, av.open(str(short), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    short.write_bytes(short.read_bytes()[: short.stat().st_size * 3 // 4])
    options = ConvertOptions(method="clip", compression="none")
    events = [*run.convert(short, tmp_path / "out", options)]
    done = [event for event in events if isinstance(event, Done)]
    assert 0 < len(done) < 2 * BLOCK
    assert len([event for event in events if isinstance(event, Failed)]) == 1


@pytest.mark.parametrize(
    ("other", "name"), [(Selection(1, 10), ""), (Selection(every=2), ""), (Selection(), "{frame:04d}")]
)
@pytest.mark.parametrize("length", [1000, None])
def test_jobs_with_other_frames_or_names_beside_each_other_do_not_pass_for_the_same(other, name, length):
    (whole,) = {chunk.key for chunk in cut_all(items(video()), length=length)[:1]}
    again = plan([video()], Path("out"), ".exr", name=name)
    assert whole not in {chunk.key for chunk in cut_all(again, other, length)}
    assert whole in {chunk.key for chunk in cut_all(items(video()), Selection(), length)}
