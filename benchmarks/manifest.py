"""What it costs to open a job of ten million frames: 116 clips of an hour, all but the last frames finished.

    python benchmarks/manifest.py [--clips 116] [--frames 86400] [--keep DIR]

Writes the manifest of such a job (3.7 GB; the frames themselves are not needed), opens it in a process of its own, and
prints the seconds until the first answer, until a thousand answers from all over the job, and until one clip has been
walked through frame by frame, with the memory that each took beyond that of an empty job.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENTRY = {
    "bytes": 8_123_456, "clipped": 0.053721, "frame": 0, "modified": 1_764_000_000_000_000_000, "seconds": 12.345,
    "sha256": "5" * 64, "size": 9_876_543_210, "weights": "2" * 64, "time": 1_764_000_000.123,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clips", type=int, default=116)
    parser.add_argument("--frames", type=int, default=86_400)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = asked.keep or Path(temporary) / "out"
        write_job(out, asked.clips, asked.frames)
        size = sum(path.stat().st_size for path in out.rglob("*.jsonl"))
        print(f"{asked.clips * asked.frames:,} frames, {size / 1e9:.2f} GB of manifest")
        (Path(temporary) / "empty").mkdir()
        base = measured(Path(temporary) / "empty", 1, 0)
        for what, (seconds, memory) in measured(out, asked.clips, asked.frames).items():
            print(f"{what:>40}: {seconds:8.3f} s {(memory - base['opened and first answer'][1]) / 2**20:7.1f} MiB")


def write_job(out: Path, clips: int, frames: int) -> None:
    from ldr2hdr_cli.convert.manifest import BLOCK, MANIFEST, Settings

    settings = Settings({"weights": "2" * 64, "exposure": 0.0})
    head = json.dumps({"digest": settings.digest(), "settings": dict(settings.values)}) + "\n"
    line = json.dumps({**ENTRY, "settings": settings.digest()})
    for clip in range(clips):
        name = f"reel{clip:04d}"
        folder = out / MANIFEST / name
        folder.mkdir(parents=True, exist_ok=True)
        before, after = line.split('"frame": 0,')
        source = f'"source": "/archive/masters/{name}.mov", '
        for start in range(0, frames + 1, BLOCK):
            numbers = range(max(start, 1), min(start + BLOCK, frames + 1))
            lines = (
                f'{before}"frame": {n}, "index": {n - 1}, "output": "{name}/{name}.{n:06d}.exr", {source}{after}\n'
                for n in numbers
            )
            (folder / f"{start:09d}@node-0000.jsonl").write_text(head + "".join(lines))


def measured(out: Path, clips: int, frames: int) -> dict[str, tuple[float, int]]:
    """Seconds and peak memory, in bytes, of each step in a process that does nothing else."""
    done = subprocess.run(
        [sys.executable, __file__, "--probe", str(out), str(clips), str(frames)],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: (seconds, memory) for name, seconds, memory in json.loads(done.stdout)}


def probe(out: Path, clips: int, frames: int) -> None:
    import random
    import resource

    from ldr2hdr_cli.convert.manifest import Manifest

    found = []
    began = time.perf_counter()

    def tell(what: str) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        found.append((what, time.perf_counter() - began, memory))

    def ask(clip: int, frame: int) -> None:
        name = f"reel{clip:04d}"
        answer = manifest.entry(out / name / f"{name}.{frame:06d}.exr", frame)
        assert answer is None if not frames else (answer or {})["frame"] == frame

    manifest = Manifest.read(out)
    ask(clips // 2, max(1, frames // 2))
    tell("opened and first answer")
    if frames:
        rng = random.Random(0)
        began = time.perf_counter()
        for _ in range(1000):
            ask(rng.randrange(clips), rng.randint(1, frames))
        tell("1,000 answers from all over the job")
        began = time.perf_counter()
        for frame in range(1, frames + 1):
            ask(0, frame)
        tell(f"{frames:,} answers, one clip in order")
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        probe(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
