"""`convert --on ray` on a real Ray of this machine: two actors, and what becomes of a job when they are killed."""

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import ldr2hdr
from model import MaskedUNet, NetworkConfig, save_network
from model.errors import Ldr2hdrError
from model.masked_unet import initialise
from tests.conftest import write_clip

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.timeout(600)  # on a busy machine Ray takes a minute to start, and an actor half of one


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a Ray that has room for two actors, of which this process is a part."""
    ray = pytest.importorskip("ray", reason="pip install 'ldr2hdr[farm]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else a busy machine keeps the actors waiting
        patch.setenv("PYTHONPATH", str(ROOT))
        ray.init(num_cpus=8, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    """Photographs and a clip, five chunks in all, the weights, and in `plain` what a run by itself makes of them."""
    place = tmp_path_factory.mktemp("job")
    (place / "in").mkdir()
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), place / "net.safetensors")
    values = np.random.default_rng(0).integers(0, 240, (32, 500, 3), dtype=np.uint8)
    values[8:16] = 255
    for index in range(40):
        Image.fromarray(values[:, index : index + 32]).save(place / "in" / f"p{index:02d}.png")
    frames = [np.ascontiguousarray(values[:, index : index + 32]) for index in range(420)]
    write_clip(place / "in" / "clip.mkv", frames, codec="libx264", pixels="yuv420p", layout="rgb24")
    counted = Counter(type(event) for event in ldr2hdr.convert(place / "in", place / "plain", options(place)))
    assert counted[ldr2hdr.Done] == 460
    return place


def options(place: Path, **more) -> ldr2hdr.ConvertOptions:
    return ldr2hdr.ConvertOptions(weights=place / "net.safetensors", device="cpu", precision="fp32", **more)


def sums(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*.exr")}


def recorded(out: Path) -> Counter[str]:
    """How often the manifest has each output."""
    lines = [line for path in (out / "ldr2hdr-manifest").rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    return Counter(entry["output"] for entry in map(json.loads, lines) if "output" in entry)


def test_a_cluster_makes_the_bytes_of_one_process_and_the_display_stays_clean(cluster, job):
    out = job / "on_ray"
    words = ["in", "-o", out, "--weights", "net.safetensors", "--device", "cpu", "--precision", "fp32", "--json"]
    command = [sys.executable, "-m", "ldr2hdr_cli", "convert", *map(str, words), "--on", f"ray:{cluster}"]
    run = subprocess.run(command, cwd=job, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert run.returncode == 0, run.stderr
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert events[-1] | {"done": 460, "skipped": 0, "failed": 0} == events[-1]
    assert Counter(event["output"] for event in events if event["event"] == "done").most_common(1)[0][1] == 1
    assert "raylet" not in run.stderr and "WARNING" not in run.stderr
    assert sums(out) == sums(job / "plain")
    assert set(recorded(out).values()) == {1}
    assert not list(out.rglob(".ldr2hdr*"))  # claims, half-written files


def test_actors_that_are_killed_cost_no_file_and_make_none_twice(cluster, job):
    out, rng = job / "killed", random.Random(4)
    kill_at = set(rng.sample(range(5, 300), 2))
    made: list[ldr2hdr.Event] = []
    lost = 0
    for event in ldr2hdr.convert(job / "in", out, options(job, on="ray")):
        made += [event] if isinstance(event, ldr2hdr.Done | ldr2hdr.Skipped) else []
        assert not isinstance(event, ldr2hdr.Failed), event
        lost += isinstance(event, ldr2hdr.Message) and "is done again" in event.text
        if len(made) in kill_at:
            kill_at.discard(len(made))
            rng.choice(actors()).kill()
    assert not kill_at and lost == 2
    assert Counter(event.output for event in made).most_common(1)[0][1] == 1  # told once
    assert sums(out) == sums(job / "plain")
    assert len(recorded(out)) == 460 and set(recorded(out).values()) == {1}
    assert not list(out.rglob(".ldr2hdr*"))


def actors() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "_RayWorker" in process.cmdline()[0]:
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def test_a_cluster_that_is_not_there_is_refused_at_once(job):
    with pytest.raises(Ldr2hdrError, match=r"--on ray:127\.0\.0\.1:1: the cluster cannot be reached"):
        list(ldr2hdr.convert(job / "in", job / "nothing", options(job, on="ray:127.0.0.1:1")))


def test_without_ray_one_sentence_says_what_to_install(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Ldr2hdrError, match=r"pip install 'ldr2hdr\[farm\]'"):
        list(ldr2hdr.convert(job / "in", job / "nothing", options(job, on="ray")))


@pytest.mark.parametrize("device", ["cuda:1", "all", "mps"])
def test_a_device_that_is_one_machines_own_is_refused(job, device):
    with pytest.raises(Ldr2hdrError, match="choose auto, cpu or cuda"):
        list(ldr2hdr.convert(job / "in", job / "nothing", replace(options(job, on="ray"), device=device)))


@pytest.mark.parametrize("on", ["slurm", "ray:", "ray://host:10001", "ray:host", "ray:a b:1"])
def test_on_takes_ray_with_or_without_an_address(on):
    with pytest.raises(Ldr2hdrError, match="write ray, or ray:HOST:PORT"):
        ldr2hdr.ConvertOptions(on=on)
