"""Several processes of one job, on their own or as shards, killed at random: the files of a single run, each once."""

import json
import random
import signal
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ldr2hdr_cli.convert.claims import CLAIMS
from ldr2hdr_cli.convert.manifest import MANIFEST
from tests import cli


def job(folder: Path) -> Path:
    """40 pictures in three chunks, and two clips."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 255, (16, 24, 3), np.uint8)).save(folder / f"{index:02d}.png")
    for name in ("one", "two"):
        with av.open(str(folder / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 24, 16, "yuv420p"
            for _ in range(30):
                frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (16, 24, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    (folder / "damaged.png").write_bytes((folder / "00.png").read_bytes()[:200])
    return folder


def results(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.exr")}


def recorded(out: Path) -> list[str]:
    """Each time that an output was recorded."""
    lines = [line for part in (out / MANIFEST).rglob("*.jsonl") for line in part.read_text().splitlines()]
    return [entry["output"] for entry in map(json.loads, lines) if "output" in entry]


def events(said: str, kind: str) -> list[dict]:
    return [event for event in map(json.loads, said.splitlines()) if event["event"] == kind]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[list, dict[str, bytes]]:
    """The words of a command without -o, and what it makes alone."""
    folder = tmp_path_factory.mktemp("several")
    words = ["convert", job(folder / "in"), "--method", "clip", "--compression", "none", "--json"]
    done = cli.run(*words, "-o", folder / "out")
    assert done.returncode == 1 and len(events(done.stdout, "failed")) == 1  # damaged.png
    made = results(folder / "out")
    assert len(made) == 100
    return words, made


def test_processes_share_a_job_and_each_tells_of_what_failed_anywhere(whole, tmp_path):
    words, made = whole
    processes = [cli.start(*words, "-o", tmp_path) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 1, 1]
    assert results(tmp_path) == made
    assert sorted(recorded(tmp_path)) == sorted(made)  # none lost, none twice
    for one in said:
        (summary,) = events(one, "summary")
        assert summary["done"] + summary["skipped"] + summary["elsewhere"] == len(made)
        (failure,) = events(one, "failed")
        assert "damaged.png" in failure["message"]
    assert not (tmp_path / CLAIMS).exists()


def test_what_killed_processes_held_is_taken_over(whole, tmp_path):
    words, made = whole
    rng = random.Random(3)
    survivor = cli.start(*words, "-o", tmp_path)
    for _ in range(3):
        victim = cli.start(*words, "-o", tmp_path)
        time.sleep(0.2 + rng.random() / 2)
        victim.send_signal(signal.SIGKILL)
        victim.communicate(timeout=60)
    survivor.communicate(timeout=120)
    assert survivor.returncode == 1
    assert results(tmp_path) == made
    assert set(recorded(tmp_path)) == set(made)


def test_shards_are_the_whole(whole, tmp_path):
    words, made = whole
    processes = [cli.start(*words, "-o", tmp_path, "--shard", f"{part}/3") for part in (1, 2, 3)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 0, 1]  # one has the damaged picture
    assert results(tmp_path) == made
    assert sorted(recorded(tmp_path)) == sorted(made)
    assert sum(events(one, "summary")[0]["done"] for one in said) == len(made)


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_cannot_be_is_misuse(shard, tmp_path):
    (tmp_path / "a.png").touch()
    done = cli.run("convert", tmp_path / "a.png", "-o", tmp_path / "out", f"--shard={shard}")
    assert done.returncode == 2 and "--shard" in done.stderr and "from 1/8 to 8/8" in " ".join(done.stderr.split())
