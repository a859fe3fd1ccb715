"""`ldr2hdr convert` killed, on a full disk, beside another run, and fed with damage and with hostile names.

benchmarks/robustness.py does the same many thousand times.
"""

import hashlib
import json
import os
import pickle
import random
import resource
import signal
import time
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import tifffile
from PIL import Image

from ldr2hdr_cli.convert.claims import CLAIMS, Claims
from ldr2hdr_cli.convert.manifest import MANIFEST, Settings
from model import MaskedUNet, NetworkConfig, save_network
from model.masked_unet import initialise
from tests import cli


def picture(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 H×W×3, a third of it blown out."""
    values = np.random.default_rng(seed).integers(0, 240, (height, width, 3), dtype=np.uint8)
    values[: height // 3] = 255
    return values


def clip(path: Path, frames: int, codec: str = "libx264", **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index)).reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def convert(*arguments, **how) -> tuple[int, list[dict], str]:
    """Exit status, events, and what it said."""
    done = cli.run("convert", "--json", *arguments, **how)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def checksums(out: Path) -> dict[str, str]:
    """Of every result by its name, and of what bears none."""
    ours = {MANIFEST, CLAIMS}
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and not ours & set(path.parts)
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), path)
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory, weights) -> tuple[list, dict[str, str]]:
    """Arguments that convert two pictures and a clip with open groups, and the checksums of an undisturbed run."""
    folder = tmp_path_factory.mktemp("in")
    for index in range(2):
        Image.fromarray(picture(index)).save(folder / f"still{index}.png")
    clip(folder / "clip.mkv", 48, **{"x264-params": "bframes=3:open-gop=1:keyint=12"})
    arguments = [*sorted(folder.iterdir()), "--weights", weights]
    out = tmp_path_factory.mktemp("whole")
    status, _, said = convert(*arguments, "-o", out)
    assert status == 0, said
    whole = checksums(out)
    assert len(whole) == 50
    return arguments, whole


def test_a_killed_run_leaves_nothing_torn_and_the_next_ones_complete_it(work, tmp_path):
    arguments, whole = work
    rng = random.Random(7)
    out = tmp_path / "out"
    statuses = []
    for _ in range(3):
        run = cli.start("convert", "--json", *arguments, "-o", out)
        frames = (line for line in run.stdout if '"done"' in line or '"skipped"' in line)
        for _ in range(rng.randrange(1, 15)):
            next(frames, None)
        time.sleep(rng.random() * 0.02)
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=60)
        statuses.append(run.returncode)
        stands = {name: found for name, found in checksums(out).items() if not name.endswith(".tmp")}
        assert stands and stands.items() <= whole.items()
    assert -signal.SIGKILL in statuses and set(statuses) <= {-signal.SIGKILL, 0}  # 0: it was faster
    status, events, said = convert(*arguments, "-o", out)
    assert status == 0, said
    assert 0 < events[-1]["skipped"] <= len(stands)  # one may have been killed before it was noted
    assert checksums(out) == whole


def test_a_full_disk_is_a_sentence_and_the_next_run_completes(work, tmp_path):
    """A limit on the size of a file fails a write in its middle, as a full disk does."""
    arguments, whole = work
    smallest = 4096
    status, events, said = convert(
        *arguments, "-o", tmp_path, before=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (smallest, smallest))
    )
    assert status == 1 and "Traceback" not in said
    messages = [event["message"] for event in events if event["event"] == "failed"]
    assert messages and all("cannot be written" in message and "\n" not in message for message in messages)
    assert checksums(tmp_path).items() <= whole.items()  # no part of a file under any name
    status, _, said = convert(*arguments, "-o", tmp_path)
    assert status == 0, said
    assert checksums(tmp_path) == whole


def test_a_run_with_other_settings_into_a_directory_in_use_is_refused_and_touches_nothing(work, tmp_path):
    arguments, _ = work
    with Claims(tmp_path, Settings({"exposure": 1.0})):
        status, events, said = convert(*arguments, "-o", tmp_path)
        assert status == 2 and not checksums(tmp_path)
    assert str(tmp_path) in said + str(events) and "Traceback" not in said


def test_hostile_names_stay_inside_the_output_directory(weights, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["...png", "..png", "..x.png", "--overwrite.png", "a\nb\t.png", "ä日本\u202e.png", "%s{0}$(touch x)`.png"]
    for name in names:
        Image.fromarray(picture(0)).save(folder / name, format="PNG")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "deep").mkdir()
    (folder / "deep" / "loop").symlink_to(folder)
    Image.fromarray(picture(1)).save(folder / "deep" / "one.png")
    before = set(tmp_path.rglob("*"))
    given = [folder / name for name in names] + [f"{folder}/deep/../..x.png", folder]
    status, events, said = convert(*given, "--recursive", "--weights", weights, "-o", tmp_path / "out", cwd=folder)
    assert status == 1 and "Traceback" not in said
    failed = [event["message"] for event in events if event["event"] == "failed"]
    assert len(failed) == 1 and "circle.png" in failed[0]
    found = {path for path in tmp_path.rglob("*") if tmp_path / "out" not in path.parents} - {tmp_path / "out"}
    assert found == before
    assert sum(event["event"] == "done" for event in events) == len(names) + 1
    assert len(list((tmp_path / "out").rglob("*.exr"))) == len(names) + 1


class Payload:
    """Unpickled, it would make a directory."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "photo.png")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": Payload(tmp_path / "proof")}, protocol=2))
    status, _, said = convert(tmp_path / "photo.png", "--weights", tmp_path / "evil.pth", "-o", tmp_path / "out")
    assert status == 2 and "evil.pth" in said and "Traceback" not in said
    assert not (tmp_path / "proof").exists()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """With one to eight faults: bits, numbers, pieces lost or doubled, the end cut off; half of them in the header."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(min(len(data), 600) if rng.random() < 0.5 else len(data))
        length = rng.choice([1, 2, 4, 100])
        fault = rng.randrange(5)
        if fault == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif fault == 1:
            data[at : at + length] = rng.choice([b"\0", b"\x7f", b"\x80", b"\xff"]) * len(data[at : at + length])
        elif fault == 2:
            data[at:at] = data[at : at + length]
        elif fault == 3:
            del data[at : at + length]
        else:
            del data[max(at, 8) :]
    return bytes(data)


def test_damaged_files_give_a_picture_or_a_sentence_each(weights, tmp_path):
    folder, seeds = tmp_path / "in", tmp_path / "seeds"
    folder.mkdir()
    seeds.mkdir()
    colour = Image.fromarray(picture(3))
    colour.save(seeds / "baseline.jpg", exif=Image.Exif())
    colour.save(seeds / "progressive.jpg", progressive=True)
    colour.convert("RGBA").save(seeds / "alpha.png")
    colour.quantize(16).save(seeds / "palette.png")
    colour.save(seeds / "lzw.tif", compression="tiff_lzw")
    tifffile.imwrite(seeds / "deep.tif", picture(4).astype(np.uint16) << 8, photometric="rgb", tile=(16, 16))
    clip(seeds / "h264.mp4", 8, bf="2", g="4")
    clip(seeds / "mpeg4.mp4", 6, "mpeg4")
    rng = random.Random(11)
    for number in range(13):
        for seed in sorted(seeds.iterdir()):
            (folder / f"{number}-{seed.name}").write_bytes(damaged(seed.read_bytes(), rng))
    before = set(tmp_path.rglob("*"))
    limits = ("--max-pixels", 2**20, "--max-frames", 1000)
    status, events, said = convert(
        folder, "--weights", weights, *limits, "-o", tmp_path / "out", cwd=tmp_path
    )  # one that hangs runs into the time limit, one that crashes has another status
    assert status == 1 and "Traceback" not in said, said
    done = {Path(event["source"]).name for event in events if event["event"] == "done"}
    failed = {Path(event["source"]).name: event["message"] for event in events if event["event"] == "failed"}
    assert done | failed.keys() == {path.name for path in folder.iterdir()}
    assert len(done) > 10 and len(failed) > 10
    for name, message in failed.items():
        assert name in message and "Error" not in message, message
    assert set(tmp_path.rglob("*")) - before - set((tmp_path / "out").rglob("*")) == {tmp_path / "out"}
