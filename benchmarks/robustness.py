"""Kills, fills, corrupts and restarts `ldr2hdr convert`, and counts what was lost.

    python benchmarks/robustness.py                        everything; about a quarter of an hour on two cores
    python benchmarks/robustness.py kill --kills 500       processes killed at random moments, and restarted
    python benchmarks/robustness.py fill                   a disk that fills up
    python benchmarks/robustness.py fuzz --fuzz 100000     damaged files through the real decoders
    python benchmarks/robustness.py leak                   memory over 2,000 frames
    python benchmarks/robustness.py same                   the same bytes whatever the threads, the order and the stops

The network is real and tiny, so that the time goes into files. Exit status 1 when anything did not hold.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import tifffile
import torch
from PIL import Image

from model.rendering import Rendered, Rendering, Result, rendered

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30  # for one damaged file, after which its decoder counts as hung
FUZZED_PIXELS = 2**22  # --max-pixels of the fuzzed, so that a damaged size is refused instead of waited for
FLAT = 5.0  # MB that memory may grow in a thousand frames; those that are kept would be 37 MB, as float32


def main() -> int:
    sections: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
        "kill": kill,
        "fill": fill,
        "fuzz": fuzz,
        "leak": leak,
        "same": same,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=", ".join(sections))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--fuzz", type=int, default=10_000, help="damaged files")
    parser.add_argument("--frames", type=int, default=2_000, help="of the memory test")
    parser.add_argument("--keep", type=Path, default=Path("robustness-findings"), help="where files that break it go")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker)
    failed = False
    for name in options.sections or sections:
        with tempfile.TemporaryDirectory(prefix="ldr2hdr-robustness-") as folder:
            started = time.monotonic()
            counts = sections[name](Path(folder), options)
            held = counts.pop("held")
            failed |= not held
            print(f"{name}: {'held' if held else 'DID NOT HOLD'} ({time.monotonic() - started:.0f} s)")
            for what, count in counts.items():
                print(f"  {what}: {count}")
            sys.stdout.flush()
    return int(failed)


# What is converted


def picture(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 H×W×3: smooth, a little noise, and a third blown out."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    values = 120 + 80 * np.sin(x[..., None] / 9 + rng.uniform(0, 6, 3)) * np.cos(y[..., None] / 7 + seed)
    values = values + rng.normal(0, 4, values.shape)
    values[: height // 3] = 255
    return np.clip(values, 0, 255).astype(np.uint8)


def clip(path: Path, frames: int, codec: str, pixels: str, options: dict[str, str] | None = None) -> Path:
    with av.open(str(path), "w") as container:
        container.metadata["timecode"] = "01:00:00:00"
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index)).reformat(format=pixels)))
        container.mux(stream.encode())
    return path


def material(folder: Path, stills: int, frames: int) -> list[Path]:
    """Pictures, and two clips: every frame a key frame, and B-frames over open groups."""
    folder.mkdir()
    for index in range(stills):
        suffix = ("png", "jpg", "tif", "webp")[index % 4]
        Image.fromarray(picture(index, 48 + 16 * (index % 5), 40 + 8 * (index % 7))).save(
            folder / f"still{index:04d}.{suffix}"
        )
    if frames:
        clip(folder / "intra.mkv", frames // 2, "ffv1", "bgr0")
        clip(folder / "long.mp4", frames - frames // 2, "libx264", "yuv420p", {"x264-params": "bframes=3:open-gop=1"})
    return sorted(folder.iterdir())


def tiny_weights(folder: Path) -> Path:
    from model import MaskedUNet, NetworkConfig, save_network
    from model.masked_unet import initialise

    path = folder / "tiny.safetensors"
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), path)
    return path


# Running it


def start(*arguments: Any, threads: int = 1, before: Callable[[], None] | None = None) -> subprocess.Popen:
    """`ldr2hdr convert --json`, from this checkout."""
    return subprocess.Popen(
        [sys.executable, "-m", "ldr2hdr_cli", "convert", "--json", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
        preexec_fn=before,
    )


def convert(*arguments: Any, **how: Any) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, events, and what it said."""
    process = start(*arguments, **how)
    stdout, stderr = process.communicate(timeout=600)
    return process.returncode, [json.loads(line) for line in stdout.splitlines()], stderr


def checksums(out: Path) -> dict[str, str]:
    """Every result, finished or not, by its name."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.suffix in (".exr", ".png")
    }


def undisturbed(out: Path, *arguments: Any) -> dict[str, str]:
    status, _, said = convert(*arguments, "-o", out)
    if status:
        raise SystemExit(f"the undisturbed run failed: {said}")
    return checksums(out)


class Comparison:
    """Of what stands there with what an undisturbed run makes."""

    def __init__(self, reference: dict[str, str]) -> None:
        self.reference = reference
        self.wrong = self.lost = self.left = 0

    def running(self, out: Path) -> None:
        """At any moment, what bears a result's name is that result."""
        self.wrong += sum(self.reference.get(name) != found for name, found in checksums(out).items())

    def complete(self, out: Path) -> None:
        self.running(out)
        self.lost += len(self.reference.keys() - checksums(out).keys())
        self.left += sum(1 for path in out.rglob("*.tmp"))

    def counts(self) -> dict[str, Any]:
        return {
            "frames lost": self.lost,
            "frames wrong": self.wrong,
            "half-written files left": self.left,
            "held": not (self.lost or self.wrong or self.left),
        }


# Killed


def kill(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    inputs = material(folder / "in", stills=24, frames=120)
    common = (*inputs, "--weights", tiny_weights(folder), "--preview", "--verify")
    comparison = Comparison(undisturbed(folder / "whole", *common))
    out = folder / "killed"
    ways: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    wrong_status = completed = killed = 0
    while killed < options.kills:
        way = rng.choice(["KILL", "KILL", "TERM", "INT", "INT twice"])
        hit = _kill_one(start(*common, "-o", out), way, rng)
        comparison.running(out)
        if hit is None:  # it was done before
            completed += 1
            comparison.complete(out)
            shutil.rmtree(out)
            continue
        status, working = hit
        killed += 1
        ways[way] += 1
        statuses[f"{way}: {status}"] += 1
        expected = {"KILL": -9, "TERM": 143, "INT": 130, "INT twice": 130}[way]
        wrong_status += working and status != expected
    status, _, said = convert(*common, "-o", out)
    if status:
        raise SystemExit(f"the last run failed: {said}")
    comparison.complete(out)
    counts = comparison.counts()
    counts["held"] &= not wrong_status
    return {
        "kills survived": f"{killed} ({', '.join(f'{way} {n}' for way, n in sorted(ways.items()))})",
        "exit statuses": ", ".join(f"{what} ×{n}" for what, n in sorted(statuses.items())),
        "unexpected exit statuses": wrong_status,
        "runs completed": completed + 1,
        "results compared in each": len(comparison.reference),
        **counts,
    }


def _kill_one(process: subprocess.Popen, way: str, rng: random.Random) -> tuple[int, bool] | None:
    """Exit status, and whether it was at work by then; None when it had finished."""
    assert process.stdout is not None
    working = rng.random() < 0.8
    if working:
        for _ in range(rng.randrange(1, 25)):
            if not process.stdout.readline():
                break
        time.sleep(rng.random() * 0.03)
    else:
        time.sleep(rng.random() * 2.5)
    number = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM}.get(way, signal.SIGINT)
    process.send_signal(number)
    if way == "INT twice":
        time.sleep(rng.random() * 0.01)
        process.send_signal(number)
    stdout, _ = process.communicate(timeout=120)
    finished = process.returncode == 0 or (not working and '"summary"' in stdout)
    return None if finished else (process.returncode, working)


# Full


def fill(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    inputs = material(folder / "in", stills=16, frames=40)
    common = (*inputs, "--weights", tiny_weights(folder), "--preview")
    comparison = Comparison(undisturbed(folder / "whole", *common))
    needed = sum(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())
    out = folder / "full"
    out.mkdir()
    fulls = silent = 0
    with _small_disk(out) as resize:
        size = 0
        while True:
            size += rng.randrange(4096, needed // 4)
            status, events, said = convert(*common, "-o", out, before=resize(size))
            comparison.running(out)
            if status == 0:
                break
            fulls += 1
            named = any("cannot be written" in event.get("message", "") for event in events)
            silent += not named or "Traceback" in said
            if fulls > 200:
                raise SystemExit(f"never completes: {said}")
        comparison.complete(out)
        how = resize.__name__
    counts = comparison.counts()
    counts["held"] &= not silent and fulls > 0
    return {f"full disks ({how})": fulls, "of them without a sentence": silent, **counts}


@contextmanager
def _small_disk(out: Path) -> Iterator[Callable[[int], Callable[[], None] | None]]:
    """A function that sets its size, and returns what a process must do to have that limit."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", out], capture_output=True).returncode:

        def limit_of_one_file(size: int) -> Callable[[], None]:
            return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 20, size // 20))

        yield limit_of_one_file
        return

    def tmpfs(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", out], check=True)

    try:
        yield tmpfs
    finally:
        subprocess.run(["umount", out], check=True)


# Damaged


def fuzz(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    seeds = fuzz_seeds(folder / "seeds")
    arena = folder / "arena"
    (arena / "in").mkdir(parents=True)
    (arena / "cwd").mkdir()
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    sentences: Counter[str] = Counter()
    with Worker(arena) as decoder:
        for number in range(options.fuzz):
            seed = rng.choice(seeds)
            damaged = arena / "in" / f"{number}{seed.suffix}"
            damaged.write_bytes(mutate(seed.read_bytes(), rng, seed.suffix))
            outcome, said = decoder.convert(damaged)
            outcomes[outcome] += 1
            kinds[seed.suffix] += 1
            sentences[f"{outcome}: {said[:200]}"] += 1
            if outcome not in ("converted", "refused"):
                options.keep.mkdir(exist_ok=True)
                shutil.copy(damaged, options.keep / f"{outcome}-{options.seed}-{damaged.name}")
                print(f"  {outcome}: {damaged.name} from {seed.name}: {said}", flush=True)
            damaged.unlink()
    outside = [p for p in arena.rglob("*") if p.is_file() and arena / "out" not in p.parents]
    broken = {what: outcomes[what] for what in ("crashed", "hung", "unexpected")}
    return {
        "inputs fuzzed": f"{options.fuzz} ({', '.join(f'{kind} {n}' for kind, n in sorted(kinds.items()))})",
        "converted, at least in part": outcomes["converted"],
        "refused with a sentence": outcomes["refused"],
        **broken,
        "files outside the output directory": len(outside),
        "largest memory of the decoders": f"{decoder.largest / 2**20:.0f} MB",
        "held": not outside and not any(broken.values()),
    }


def fuzz_seeds(folder: Path) -> list[Path]:
    """One small file of each kind that decoders treat differently."""
    folder.mkdir()
    colour = Image.fromarray(picture(3))
    alpha = colour.convert("RGBA")
    alpha.putalpha(128)
    deep = (picture(4).astype(np.uint16) << 8) | 77
    profile = _profile()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    colour.save(folder / "baseline.jpg", quality=90, exif=exif, icc_profile=profile)
    colour.save(folder / "progressive.jpg", progressive=True, subsampling=2)
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    colour.convert("L").save(folder / "grey.jpg")
    alpha.save(folder / "alpha.png", icc_profile=profile)
    colour.quantize(16).save(folder / "palette.png", transparency=3)
    colour.convert("1").save(folder / "bits.png")
    _deep_png(folder / "deep.png", deep)
    colour.save(folder / "plain.tif", exif=exif)
    colour.save(folder / "lzw.tif", compression="tiff_lzw")
    colour.save(folder / "jpeg.tif", compression="jpeg")
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb", compression="zlib", tile=(16, 16))
    tifffile.imwrite(folder / "planes.tif", np.moveaxis(deep, 2, 0), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(folder / "pages.tif", np.stack([deep[..., 0]] * 3), photometric="minisblack")
    tifffile.imwrite(folder / "big.tif", deep, photometric="rgb", bigtiff=True, byteorder=">", compression="lzw")
    colour.save(folder / "lossy.webp", exif=exif)
    alpha.save(folder / "lossless.webp", lossless=True, icc_profile=profile)
    colour.save(folder / "moving.webp", save_all=True, append_images=[Image.fromarray(picture(5))])
    colour.save(folder / "moving.gif", save_all=True, append_images=[Image.fromarray(picture(5))])
    colour.save(folder / "plain.bmp")
    colour.save(folder / "plain.avif")
    clip(folder / "h264.mp4", 8, "libx264", "yuv420p", {"x264-params": "bframes=2:keyint=4"})
    clip(folder / "hevc.mp4", 6, "libx265", "yuv420p10le", {"x265-params": "log-level=none"})
    clip(folder / "mpeg4.mp4", 6, "mpeg4", "yuv420p")
    clip(folder / "mjpeg.mov", 4, "mjpeg", "yuvj420p")
    clip(folder / "prores.mov", 3, "prores_ks", "yuva444p10le")
    clip(folder / "ffv1.mkv", 4, "ffv1", "yuv420p")
    clip(folder / "vp9.webm", 5, "libvpx-vp9", "yuv420p")
    clip(folder / "mpeg2.ts", 6, "mpeg2video", "yuv420p")
    return sorted(folder.iterdir())


def _profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _deep_png(path: Path, codes: np.ndarray) -> None:
    """16-bit colour, which Pillow does not write."""
    import cv2

    cv2.imwrite(str(path), codes[..., ::-1])


_INTERESTING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def mutate(data: bytes, rng: random.Random, suffix: str) -> bytes:
    """The file with one to eight faults: bits, bytes, numbers, pieces cut, doubled, moved or lost, the end cut off."""
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        if not damaged:
            break
        # Headers decide most, and are a small part.
        at = rng.randrange(min(len(damaged), 600)) if rng.random() < 0.5 else rng.randrange(len(damaged))
        length = min(rng.choice([1, 2, 4, 16, 100, 1000]), len(damaged) - at)
        fault = rng.randrange(8)
        if fault == 0:
            damaged[at] ^= 1 << rng.randrange(8)
        elif fault == 1:
            damaged[at] = rng.randrange(256)
        elif fault == 2:
            size, order = rng.choice([1, 2, 4]), rng.choice(["big", "little"])
            number = (rng.choice(_INTERESTING) % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
            damaged[at : at + size] = number
        elif fault == 3:
            damaged[at : at + length] = rng.randbytes(length)
        elif fault == 4:
            del damaged[at : at + length]
        elif fault == 5:
            damaged[at:at] = damaged[at : at + length] * rng.choice([1, 1, 50])
        elif fault == 6:
            target = rng.randrange(len(damaged))
            damaged[target : target + length] = damaged[at : at + length]
        else:
            del damaged[max(at, 8) :]
    # A checksum would stop most faults at the door.
    return _mended_png(bytes(damaged)) if suffix == ".png" and rng.random() < 0.7 else bytes(damaged)


def _mended_png(data: bytes) -> bytes:
    """With every chunk's CRC right again, as far as the chunks can be followed."""
    mended, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        mended += data[at:end] + zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(mended + data[at:])


class Worker:
    """A process that converts damaged files, one after the other; a new one after each that it does not survive."""

    def __init__(self, arena: Path) -> None:
        self.arena = arena
        self.process: subprocess.Popen | None = None
        self.largest = 0

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self._stop()

    def convert(self, path: Path) -> tuple[str, str]:
        """ "converted", "refused", "unexpected", "crashed" or "hung", and what was said."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--worker", self.arena],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self.arena / "cwd",
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )
            self._answer(120)
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n".encode())
        self.process.stdin.flush()
        answer = self._answer(SECONDS)
        if answer is None:
            status = self.process.poll()
            self._stop()
            return ("hung", f"after {SECONDS} s") if status is None else ("crashed", f"exit status {status}")
        self.largest = max(self.largest, answer["memory"])
        return answer["outcome"], answer["said"]

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        assert self.process is not None and self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(30)
            return None
        return json.loads(line)

    def _stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        self.process = None


def worker(arena: Path) -> int:
    """The other side of `Worker`: file names on stdin, outcomes on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a decoder prints is no answer
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        outcome, said = convert_damaged(Path(line.rstrip("\n")), arena / "out")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"outcome": outcome, "said": said, "memory": memory}), file=answers, flush=True)
    return 0


def convert_damaged(path: Path, out: Path) -> tuple[str, str]:
    """One file through the pipeline of `convert`, decoders, attributes and EXR writer included; its results removed."""
    from ldr2hdr_cli.convert import job, pipeline
    from ldr2hdr_cli.convert.chunks import cut
    from ldr2hdr_cli.convert.events import Done, Failed
    from ldr2hdr_cli.convert.worklist import Options, Work
    from ldr2hdr_cli.media.exr import frame_attributes, write_exr
    from ldr2hdr_cli.media.sources import find_inputs
    from model.errors import Ldr2hdrError

    def write(work: Work, result: Result) -> int:
        attributes = frame_attributes(
            labels={"chromaticities": work.info.chromaticities},
            frame_rate=work.info.frame_rate,
            timecode=work.frame.timecode,
            pixel_aspect=work.info.pixel_aspect,
            source=path.name,
            frame_number=work.frame.index,
            weights_sha256="",
            settings={},
            seconds=work.frame.seconds,
        )
        return write_exr(work.output, result.pixels, work.frame.alpha, attributes, compression="rle")

    try:
        out.mkdir(parents=True, exist_ok=True)
        items = job.plan(find_inputs([str(path)]), out, ".exr")
        options = Options(max_pixels=FUZZED_PIXELS, verify=True, encoders=1)
        manifest = job.Manifest.read(out)
        chunks = cut(items, options.selection, is_sequence_clip=False, length=lambda _: None)
        events = list(pipeline.run(chunks, _Square(), write, manifest, job.Settings(), options))
        manifest.close()
    except Ldr2hdrError as error:
        return "unexpected", f"the run ended: {error}"
    failures = [event for event in events if isinstance(event, Failed)]
    done = sum(isinstance(event, Done) for event in events)
    shutil.rmtree(out)
    if unforeseen := [failure.message for failure in failures if failure.cause is not None]:
        return "unexpected", unforeseen[0]
    if silent := [failure.message for failure in failures if path.name not in failure.message]:
        return "unexpected", f"a sentence that does not name the file: {silent[0]}"
    if not done and not failures:
        return "unexpected", "neither a result nor a sentence"
    return ("converted" if done else "refused"), (failures[0].message if failures else "")


class _Square:
    """T², for pixels that the network would take."""

    workers, ahead = 1, 0

    def predict(self, work: Any) -> Rendered:
        ldr = work.frame.pixels
        if ldr.ndim != 3 or ldr.shape[2] != 3 or ldr.dtype != np.float32 or not (ldr.min() >= 0 and ldr.max() <= 1):
            raise ValueError(f"pixels of shape {ldr.shape}, type {ldr.dtype}")
        light = torch.from_numpy(ldr * ldr)
        return rendered(lambda rows: light[rows], light[..., 0] == 1, Rendering(), half=True)

    def lose(self, work: Any) -> None:
        pass

    def finish(self, _work: Any, predicted: Rendered) -> Rendered:
        return predicted

    def close(self) -> None:
        pass


# Flat


def leak(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Pictures and short clips in turn, so that every decoder is opened and closed all the time."""
    inputs = material(folder / "in", stills=options.frames // 2, frames=0)
    for index in range((options.frames - len(inputs)) // 50):
        codec, pixels = [("ffv1", "bgr0"), ("libx264", "yuv420p")][index % 2]
        inputs.append(clip(folder / "in" / f"clip{index:03d}.mkv", 50, codec, pixels))
    random.Random(options.seed).shuffle(inputs)
    process = start(*inputs, "--weights", tiny_weights(folder), "--preview", "-o", folder / "out")
    assert process.stdout is not None
    seen: list[tuple[int, float]] = []
    count = 0
    for line in process.stdout:
        if '"event": "done"' in line:
            count += 1
            seen.append((count, _resident(process.pid) / 2**20))
    status = process.wait()
    frames, megabytes = np.array(seen[len(seen) // 4 :]).T  # once the caches of the decoders are filled
    slope = float(np.polyfit(frames, megabytes, 1)[0]) * 1000
    return {
        "frames converted": count,
        "memory after a quarter, and at the end": f"{megabytes[0]:.0f} MB, {megabytes[-1]:.0f} MB",
        "slope": f"{slope:+.2f} MB in 1,000 frames (at most {FLAT})",
        "held": status == 0 and slope < FLAT,
    }


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# The same


def same(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    inputs = material(folder / "in", stills=12, frames=40)
    for index in range(3):  # large enough for several tiles
        path = folder / "in" / f"large{index}.png"
        Image.fromarray(picture(index, 400 + 40 * index, 300)).save(path)
        inputs.append(path)
    shuffled = inputs.copy()
    rng.shuffle(shuffled)
    common = ("--weights", tiny_weights(folder), "--tile", 128, "--overlap", 32)
    reference = undisturbed(folder / "whole", *inputs, *common, "--encoders", 1)
    counts: dict[str, Any] = {"files compared": len(reference)}
    ways: dict[str, tuple[list[Path], tuple, dict[str, Any]]] = {
        "4 encoders": (inputs, ("--encoders", 4), {}),
        "shuffled": (shuffled, ("--encoders", 3), {}),
        "2 threads of the network": (inputs, (), {"threads": 2}),
    }
    for name, (order, extra, how) in ways.items():
        convert(*order, *common, *extra, "-o", folder / name, **how)
        counts[f"different with {name}"] = _different(reference, checksums(folder / name))
    out = folder / "pieces"
    for path in rng.sample(inputs, len(inputs)):
        extra = ("--frames", f"1-{rng.randrange(1, 20)}") if path.suffix in (".mkv", ".mp4") else ()
        convert(path, *common, *extra, "-o", out)
    convert(*inputs, *common, "-o", out)
    counts["different in pieces"] = _different(reference, checksums(out))
    return {**counts, "held": not any(value for name, value in counts.items() if name.startswith("different"))}


def _different(one: dict[str, str], other: dict[str, str]) -> int:
    return sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())


if __name__ == "__main__":
    sys.exit(main())
