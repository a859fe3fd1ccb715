"""Seconds that a frame of 1920×1080 takes in each format, beside EXR's.

    python benchmarks/formats.py PHOTOGRAPH [--frames N]

The photograph, enlarged to the size and lit up where it is clipped, moves by four pixels a frame. Nothing is asserted.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ldr2hdr_cli.media.avif import write_avif
from ldr2hdr_cli.media.colour import REC709
from ldr2hdr_cli.media.display_light import to_rec2020
from ldr2hdr_cli.media.exr import write_exr
from ldr2hdr_cli.media.hdr_video import VideoSettings, picture, write_segment
from ldr2hdr_cli.media.radiance import write_radiance
from ldr2hdr_cli.media.ultrahdr import write_ultrahdr

SIZE = (1920, 1080)
FILMS = (("hdr10", "libx265"), ("hdr10", "libsvtav1"), ("hlg", "libx265"), ("prores", "libx265"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--frames", type=int, default=8, help="of each film")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = cv2.resize(cv2.imread(str(given.photograph)), SIZE, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / "base.jpg"), base)
        linear = (cv2.cvtColor(base, cv2.COLOR_BGR2RGB).astype(np.float32) / 255) ** 2.2
        linear[linear.min(axis=-1) > 0.95] *= 5
        exr = _show("exr", lambda: write_exr(folder / "a.exr", linear), folder / "a.exr")
        _show("hdr", lambda: write_radiance(folder / "a.hdr", linear, {}), folder / "a.hdr", exr)
        ultra = folder / "a.jpg"
        _show("ultrahdr", lambda: write_ultrahdr(ultra, linear, folder / "base.jpg"), ultra, exr)
        matrix = to_rec2020(REC709)
        _show("avif", lambda: write_avif(folder / "a.avif", linear, matrix=matrix), folder / "a.avif", exr)
        for format, codec in FILMS:
            settings, film = VideoSettings(format, codec), folder / "a.mov"
            frames = [np.roll(linear, 4 * index, axis=1) for index in range(given.frames)]

            def write(frames: list = frames, settings: VideoSettings = settings, film: Path = film) -> None:
                write_segment(film, ((picture(frame, settings), None) for frame in frames), settings)

            _show(f"{format}, {settings.encoder}", write, film, exr, given.frames)


def _show(name: str, write: Callable[[], object], path: Path, exr: float | None = None, frames: int = 1) -> float:
    started = time.perf_counter()
    write()
    seconds = (time.perf_counter() - started) / frames
    ratio = 1.0 if exr is None else seconds / exr
    megabytes = path.stat().st_size / frames / 1e6
    print(f"{name:>18} {seconds:7.2f} s  {ratio:5.2f}×  {megabytes:7.2f} MB", flush=True)
    return seconds


if __name__ == "__main__":
    main()
