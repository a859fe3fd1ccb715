"""Asks the published HDR-VDP in Octave for the qualities that the tests hold, and times both.

    python benchmarks/hdrvdp_octave.py HDRVDP307 [HDRVDP22]    Octave's Q of every pair, beside ours
    python benchmarks/hdrvdp_octave.py HDRVDP307 --time        seconds a megapixel of version 3, Octave and ours in turn

HDRVDP307 and HDRVDP22 are checkouts of hdrvdp-3.0.7 (libjxl/codec-comparison has it) and hdrvdp-2.2.0. Needs
`octave-cli` with its packages image and statistics. The pairs are made here and nowhere else: the tests load this
file.

Version 2.2.0 runs in Octave without its compiled files and without ifft2's argument "symmetric", which Octave does
not have. Its Q is the mean over bands of w·log(error + 1e-12); versions 2.2.1 and 2.2.2 have the same errors, and
Q = 100 − Σ w·(log(error + 1e-12) − log 1e-12), which is what is printed: computed from 2.2.0's Q and the weights.
(It was checked on errors and Q of luminance that others published from 2.2.2: imazen/zenmetrics,
crates/hdrvdp/validation. For colour, the spectra are those of 2.2.0.)

On 27 November 2026, with Octave 7.3.0 and its image package 2.14.0, the largest of 18 relative differences was
8.3e-6 for version 3 (the heaviest noise; half of the pairs are under 2e-7) and 2.6e-6 for version 2.2; the values
are in `tests/ldr2hdr_cli/evaluation/test_hdrvdp.py`. Times, of two processors that eight other processes shared:

    512×384, a megapixel: Octave 128.8 s (16.7 s of processors), ours 29.2 s (4.2); 2 cores, load 11
    1024×768, a megapixel: Octave 80.4 s (16.8 s of processors), ours 20.1 s (4.9); 2 cores, load 9
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ldr2hdr_cli.evaluation.hdrvdp import hdrvdp2, hdrvdp3

ROOT = Path(__file__).resolve().parents[1]
WHITE = 100.0  # cd/m², of the examples' white
SIZES = ((512, 384), (1024, 768))


@dataclass(frozen=True)
class Pair:
    """test, reference: cd/m², H×W luminance or H×W×3 linear BT.709."""

    test: np.ndarray
    reference: np.ndarray
    pixels_per_degree: float


def pairs() -> dict[str, Pair]:
    """Every pair by its name, the same to the last bits on every machine."""
    return {**_luminance_pairs(), **_colour_pairs()}


def _luminance_pairs() -> dict[str, Pair]:
    height, width = 128, 192
    y, x = np.mgrid[:height, :width].astype(np.float64)
    noise = _noise((height, width))
    ramp = np.tile(np.logspace(-1, 3, height)[:, None], (1, width))
    night = np.tile(np.logspace(-3.5, 0, width), (height, 1))
    rings = 50 * (1 + 0.8 * np.cos(((x - 90) ** 2 + (y - 60) ** 2) / 400))
    lamp = 2 + 4000 * np.exp(-((x - 60) ** 2 + (y - 40) ** 2) / 50)
    spot = rings.copy()
    spot[50:70, 100:130] *= 1.5
    odd = rings[:97, :151] + 5
    return {
        "identical": Pair(rings, rings, 63.6),
        "ramp, 5 % noise": Pair(ramp * (1 + 0.1 * (noise - 0.5)), ramp, 63.6),
        "ramp, 60 % noise": Pair(ramp * (1 + 1.2 * (noise - 0.5)), ramp, 63.6),
        "rings, blurred": Pair(_blurred(rings, 2.0), rings, 63.6),
        "rings, brighter by 10 %": Pair(rings * 1.1, rings, 63.6),
        "rings, one spot differs": Pair(spot, rings, 63.6),
        "rings, 20 levels": Pair(np.round(rings / 5) * 5 + 1, rings + 1, 30.0),
        "night, noise": Pair(night * (1 + 0.8 * (noise - 0.5)), night, 45.0),
        "lamp, clipped at 100": Pair(np.minimum(lamp, 100.0), lamp, 63.6),
        "odd size, few pixels a degree": Pair(odd * (1 + 0.2 * (noise[:97, :151] - 0.5)), odd, 20.0),
        "upright, small": Pair(_blurred(rings[:60, :41], 1.0) + 1, rings[:60, :41] + 1, 63.6),
    }


def _colour_pairs() -> dict[str, Pair]:
    dandelion, mountain, sunset = (_example(name) for name in ("dandelion", "mountain", "sunset"))
    noise = np.stack([_noise(mountain.shape[:2], seed) for seed in (1, 2, 3)], axis=-1)
    grey = mountain.mean(axis=2, keepdims=True)
    bright = sunset * (1 + 30 * (sunset > 0.7 * WHITE))
    return {
        "dandelion, blurred": Pair(_blurred(dandelion, 1.5), dandelion, 63.6),
        "dandelion, half as bright": Pair(dandelion * 0.5, dandelion, 63.6),
        "mountain, noise": Pair(mountain * (1 + 0.3 * (noise - 0.5)), mountain, 63.6),
        "mountain, greyer": Pair(0.5 * mountain + 0.5 * grey, mountain, 63.6),
        "mountain, out of gamut": Pair(np.maximum(grey + 1.6 * (mountain - grey), 0.0), mountain, 40.0),
        "sunset, clipped": Pair(np.minimum(bright, WHITE), bright, 63.6),
        "sunset, highlights too dim": Pair(np.where(bright > WHITE, 0.4 * bright, bright), bright, 63.6),
    }


def _noise(shape: tuple[int, int], seed: float = 0.0) -> np.ndarray:
    """0…1 by a formula, so that no random generator's version matters."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    value = np.sin(12.9898 * x + 78.233 * y + 37.719 * seed) * 43758.5453
    return value - np.floor(value)


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian, edges mirrored; H×W or H×W×3."""
    radius = int(np.ceil(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    for axis in (0, 1):
        margin = [(radius, radius) if axis == a else (0, 0) for a in range(picture.ndim)]
        padded = np.pad(picture, margin, mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, taps.size, axis=axis)
        picture = windows @ (taps / taps.sum())
    return picture


def _example(name: str) -> np.ndarray:
    """A picture of examples/ as it is shown at 100 cd/m² on a black of 0.1: 128×192×3, cd/m²."""
    picture = np.asarray(Image.open(ROOT / "examples" / f"{name}.jpg").convert("RGB"), dtype=np.float64) / 255
    step = min(picture.shape[0] // 128, picture.shape[1] // 192)
    cut = picture[: 128 * step, : 192 * step].reshape(128, step, 192, step, 3).mean(axis=(1, 3))
    return (WHITE - 0.1) * cut**2.2 + 0.1


def version3(checkout: Path, asked: list[Pair]) -> list[dict[str, float]]:
    """Q, Q_JOD, seconds and processor seconds of each pair, from the published code in one Octave process."""
    call = "v = hdrvdp3('quality', t, r, e, p, {'use_gpu', false, 'quiet', true}); q = [v.Q, v.Q_JOD];"
    paths = [checkout, checkout / "utils", checkout / "matlabPyrTools"]
    return [dict(zip(("q", "q_jod", "seconds", "processor"), a, strict=True)) for a in _octave(paths, call, asked)]


def version2(checkout: Path, asked: list[Pair]) -> list[float]:
    """Q of versions 2.2.1 and 2.2.2 for each pair, from version 2.2.0."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "hdrvdp")
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns("*.mex*"))
        for name in ("fast_conv_fft.m", "fast_gauss.m"):
            code = (copy / name).read_text(encoding="latin-1").replace(", 'symmetric' )", " )")
            (copy / name).write_text(code, encoding="latin-1")
        paths = [copy, copy / "matlabPyrTools_1.4_fixed"]
        found = _octave(paths, "v = hdrvdp(t, r, e, p); q = [v.Q, 0];", asked)
    return [_scaled(q, pair) for (q, *_), pair in zip(found, asked, strict=True)]


def _scaled(q: float, pair: Pair) -> float:
    levels = int(np.log2(min(pair.test.shape[:2]) / 17)) + 1
    bands = [0, *np.repeat(np.arange(1, levels + 1), 4), levels + 1]
    frequencies = pair.pixels_per_degree / 2.0 ** (np.array(bands) + 1)
    known = (0.2344, 0.4688, 0.9375, 1.875, 3.75, 7.5, 15.0)
    weights = np.interp(frequencies, known, (0.0002, 0.0003, 0.0003, 0.0398, 0.2690, 0.2142, 0.2832))
    return float(100 - (q * len(bands) - weights.sum() * np.log(1e-12)))


def _octave(paths: list[Path], call: str, asked: list[Pair]) -> list[list[float]]:
    """Two numbers, the seconds and the processor seconds of each pair.

    call: Octave code that sets q to two numbers, from test t, reference r, encoding e and p pixels per degree.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines = ["pkg load statistics image; warning('off', 'all');", f"cd('{paths[0].resolve()}');"]
        lines += [f"addpath('{path.resolve()}');" for path in paths]
        for number, pair in enumerate(asked):
            for variable, picture in (("t", pair.test), ("r", pair.reference)):
                file = f"{folder}/{number}.{variable}"
                picture.astype("<f8").ravel(order="F").tofile(file)
                shape = " ".join(str(side) for side in picture.shape)
                lines.append(f"{variable} = reshape(fread(fopen('{file}'), Inf, 'double'), [{shape}]);")
            encoding = "luminance" if pair.test.ndim == 2 else "rgb-bt.709"
            lines.append(f"e = '{encoding}'; p = {pair.pixels_per_degree!r}; tic; c = cputime; {call}")
            lines.append("printf('\\nanswer %.9f %.9f %.3f %.3f\\n', q, toc, cputime - c); fclose('all');")
        script = Path(folder, "ask.m")
        script.write_text("\n".join(lines))
        done = subprocess.run(["octave-cli", "--norc", str(script)], capture_output=True, text=True)
    answers = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("answer")]
    if len(answers) != len(asked):
        raise SystemExit(f"Octave answered {len(answers)} of {len(asked)} pairs:\n{done.stderr}")
    return [[float(value) for value in answer] for answer in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version3", type=Path, metavar="HDRVDP307")
    parser.add_argument("version2", type=Path, metavar="HDRVDP22", nargs="?")
    parser.add_argument("--time", action="store_true", help="seconds a megapixel instead, Octave and ours in turn")
    options = parser.parse_args()
    if options.time:
        compare_speed(options.version3)
    else:
        compare_quality(options.version3, options.version2)


def compare_quality(checkout3: Path, checkout2: Path | None) -> None:
    named = pairs()
    asked = list(named.values())
    print("version 3: Octave's Q and Q_JOD, and how far ours is from them")
    for (name, pair), answer in zip(named.items(), version3(checkout3, asked), strict=True):
        ours = hdrvdp3(pair.test, pair.reference, pair.pixels_per_degree)
        off = max(abs(ours.q / answer["q"] - 1), abs(ours.q_jod / answer["q_jod"] - 1))
        print(f'    "{name}": ({answer["q"]:.6f}, {answer["q_jod"]:.6f}),  # {off:.1e}')
    if checkout2 is None:
        return
    print("version 2.2: Octave's Q, and how far ours is from it")
    for (name, pair), q in zip(named.items(), version2(checkout2, asked), strict=True):
        off = abs(hdrvdp2(pair.test, pair.reference, pair.pixels_per_degree) / q - 1)
        print(f'    "{name}": {q:.6f},  # {off:.1e}')


def compare_speed(checkout: Path, rounds: int = 3) -> None:
    """Medians over rounds in which Octave and we take turns; what starts Octave is not counted."""
    for width, height in SIZES:
        reference = 100 * _noise((height, width))[..., None] ** np.array([2.0, 2.2, 2.4]) + 0.1
        pair = Pair(reference * (0.9 + 0.2 * _noise((height, width), 1)[..., None]), reference, 63.6)
        rows = [(*_octave_seconds(checkout, pair), *_our_seconds(pair)) for _ in range(rounds)]
        theirs, their_processor, ours, our_processor = np.median(rows, axis=0) / (width * height / 1e6)
        print(
            f"{width}×{height}, a megapixel: Octave {theirs:.1f} s ({their_processor:.1f} s of processors), "
            f"ours {ours:.1f} s ({our_processor:.1f}); {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}",
            flush=True,
        )


def _octave_seconds(checkout: Path, pair: Pair) -> tuple[float, float]:
    answer = version3(checkout, [pair])[0]
    return answer["seconds"], answer["processor"]


def _our_seconds(pair: Pair) -> tuple[float, float]:
    start, processor = time.perf_counter(), time.process_time()
    hdrvdp3(pair.test, pair.reference, pair.pixels_per_degree)
    return time.perf_counter() - start, time.process_time() - processor


if __name__ == "__main__":
    main()
