"""How fast it is: tables of ratios, each measured side by side in one run.

    python benchmarks/speed.py [network|frame|stages|clip|start|size ...]

Times are the best of a few, since whatever else a machine does only ever adds. Nothing here is asserted.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from ldr2hdr_cli.convert.temporal import TemporalFilter, as_measured, measure, reduced
from ldr2hdr_cli.media.exr import write_exr
from ldr2hdr_cli.media.sources import read_frames, read_still
from ldr2hdr_cli.option_values import cores, encoder_threads
from model import MaskedUNet, NetworkConfig, Reconstructor, exposure_mask, load_network
from model.checkpoint import usual_working_size
from model.codes import Codes
from model.device import seconds
from model.masked_unet import initialise

EXAMPLES = Path(__file__).parent.parent / "examples"
CLI = [sys.executable, "-m", "ldr2hdr_cli"]


def best(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of a few runs, after one that warms up."""
    work()
    found = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        found = min(found, time.perf_counter() - start)
    return found


def picture(height: int, width: int, share: float = 0.0, spots: int = 1) -> np.ndarray:
    """Texture below the threshold, `share` of it clipped in square spots: float32 H×W×3."""
    rng = np.random.default_rng(0)
    ldr = cv2.resize(rng.random((height // 4, width // 4, 3), np.float32) * 0.9, (width, height))
    side = round((share * height * width / spots) ** 0.5)
    across = max(1, round((spots * width / height) ** 0.5))
    for spot in range(spots if side else 0):
        row, column = divmod(spot, across)
        top = int((row + 0.5) * height / (spots / across) - side / 2)
        left = int((column + 0.5) * width / across - side / 2)
        ldr[max(top, 0) : top + side, max(left, 0) : left + side] = 1
    return ldr


def network() -> None:
    """(a) The Reconstructor against a plain forward pass of the same weights, and what its precision costs."""
    net = initialise(MaskedUNet(NetworkConfig(base_channels=64)), seed=0).eval()
    reconstructor, exact = Reconstructor(net), Reconstructor(net, precision="fp32")
    size = (1080, 1920)
    padded = torch.zeros(1, 3, 1152, 1920)

    def plain(ldr: np.ndarray) -> None:
        padded[:, :, : size[0]] = torch.from_numpy(ldr).permute(2, 0, 1)
        with torch.inference_mode():
            net.train()  # as the authors do: |W| / ‖W‖₁ is made again at every call
            net(padded, exposure_mask(padded))

    eager = best(lambda: plain(picture(*size, 0.05)), 3)
    print(f"\n1920×1080, width 64: one plain eager fp32 pass {eager:.2f} s; Reconstructor in {reconstructor.precision}")
    print(f"{'clipped':>9} {'one blob':>18} {'100 scattered':>18}")
    for share in (0.0, 0.05, 0.15, 0.5):
        cells = []
        for spots in (1, 100):
            ldr = picture(*size, share, spots)
            seconds = best(lambda ldr=ldr: reconstructor.reconstruct(ldr), 2)
            cells.append(f"{seconds:7.2f} s {eager / seconds:6.1f}×")
        print(f"{share:9.0%} {cells[0]:>18} {cells[1]:>18}")
    default = load_network()
    reconstructor, exact = Reconstructor(default), Reconstructor(default, precision="fp32")
    print(f"\n{reconstructor.precision} against fp32, default weights, inside clipped areas, stops:")
    for path in sorted(EXAMPLES.glob("*.jpg")):
        ldr = read_still(path)[1].pixels
        clipped = exposure_mask(ldr) < 1
        low, high = (r.reconstruct(ldr)[clipped] for r in (reconstructor, exact))
        off = np.abs(np.log2(low.clip(1e-6)) - np.log2(high.clip(1e-6)))
        print(f"{path.name:>20} median {np.median(off):.4f}, 99th percentile {np.percentile(off, 99):.4f}")


def stages(frames: int = 24) -> None:
    """(b) JPEG in, EXR out, against its stages one by one, and against what the processor can multiply."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        for number in range(frames):
            shown = np.rint(picture(1080, 1920, 0.08) * 255).astype(np.uint8)
            cv2.imwrite(str(inputs / f"plate.{number:04d}.jpg"), shown, [cv2.IMWRITE_JPEG_QUALITY, 92])
        one = inputs / "plate.0000.jpg"
        ldr = read_still(one)[1].codes
        plain = Reconstructor(load_network())
        reconstructor = Reconstructor(load_network(), working_size=usual_working_size())

        def converted(own: Reconstructor) -> np.ndarray:
            return own.render(own.predict(ldr), half=True).fetch().pixels

        hdr = converted(reconstructor)
        alone = best(lambda: converted(plain))
        each = {
            "decode": best(lambda: read_still(one)),
            "network": best(lambda: converted(reconstructor)),
            "encode": best(lambda: write_exr(Path(folder, "one.exr"), hdr)) / encoder_threads("auto"),
        }
        start = _cli("--version")
        total = _cli("convert", str(inputs), "-o", str(outputs), "--quiet") - start
        files = _cli("convert", str(one), "-o", str(Path(folder, "single")), "--quiet") - start
        frame = (total - files) / (frames - 1)
        print(f"\n{frames} JPEGs of 1920×1080, 8 % clipped, default weights; a frame:")
        print("  " + ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in each.items()))
        print(f"  network without the working size: {alone * 1e3:.0f} ms")
        slowest = max(each.values())
        print(f"  end to end {frame * 1e3:.0f} ms: {frame / slowest:.2f} of the slowest stage,", end=" ")
        print(f"{frame / sum(each.values()):.2f} of their sum")
    config, dtype = reconstructor.config, reconstructor.dtype
    a = torch.randn(2048, 2048).to(dtype)
    rate = 2048**3 / best(lambda: a @ a, 5)
    full = picture(1024, 1024, 1.0)
    seconds = best(lambda: plain.reconstruct(full))
    work = multiplications(config) * 4
    print(
        f"  1024×1024, all clipped: {work / 1e9:.1f} GMAC (features) in {seconds:.2f} s; a {dtype} matrix product makes"
    )
    print(
        f"  {rate / 1e9:.0f} GMAC/s here: {work / rate / seconds:.0%} of it; {2 * work / rate / seconds:.0%} with eq. 4"
    )


def frame() -> None:
    """A frame from its codes to half floats on the host, against a bare forward pass of all of it on its device."""
    net = load_network()
    reconstructor = Reconstructor(net, working_size=usual_working_size())
    device, dtype = reconstructor.device, reconstructor.dtype
    sizes = [(1080, 1920)] if device.type == "cpu" else [(1080, 1920), (2160, 3840)]
    passes = "blocks are chosen" if reconstructor.selective else "frames are run whole"
    print(f"\nA frame of a clip, default weights, {reconstructor.precision} on {device}: {passes}")
    for height, width in sizes:
        multiple = reconstructor.config.multiple
        padded = (1, 3, -(-height // multiple) * multiple, -(-width // multiple) * multiple)
        images = torch.rand(padded, device=device).to(memory_format=torch.channels_last)
        masks = exposure_mask(images).to(dtype)

        def bare(images: torch.Tensor = images, masks: torch.Tensor = masks) -> torch.Tensor:
            with reconstructor._running():
                return reconstructor.net(images, masks)

        alone = seconds(bare, 1 if device.type == "cpu" else 10)
        print(f"  {width}×{height}: bare pass {alone * 1e3:.1f} ms")
        for share, spots in ((0.0, 1), (0.05, 1), (0.15, 1), (0.5, 1), (0.08, 100)):
            shown = np.rint(picture(height, width + 64, share, spots) * 255).astype(np.uint8)
            # Never the frame before, which would not be run again.
            frames = itertools.cycle(np.ascontiguousarray(shown[:, left : left + width]) for left in range(0, 64, 8))
            clip = reconstructor.clip()
            own = best(
                lambda frames=frames, clip=clip: reconstructor.render(
                    clip.predict(Codes(next(frames))), half=True
                ).fetch(),
                2 if device.type == "cpu" else 20,
            )
            print(f"  {share:5.0%} clipped in {spots:3}: {own * 1e3:8.1f} ms, {own / alone:5.2f} of the bare pass")


def clip(frames: int = 24) -> None:
    """A panning clip of 1920×1080 from JPEG to EXR, with and without the temporal filter, against its stages."""
    reconstructor = Reconstructor(load_network(), working_size=usual_working_size())
    encoders = encoder_threads("auto")
    print(f"\nA panning clip of {frames} frames, 1920×1080; a frame in each stage alone, with all its threads:")
    for share, spots in ((0.05, 1), (0.08, 100), (0.3, 1)):
        wide = np.rint(picture(1080, 1920 + 4 * frames, share, spots) * 255).astype(np.uint8)
        codes = [np.ascontiguousarray(wide[:, 4 * index : 4 * index + 1920]) for index in range(frames)]
        with tempfile.TemporaryDirectory() as folder:
            for number, shown in enumerate(codes):
                cv2.imwrite(str(Path(folder, f"plate.{number:04d}.jpg")), shown)
            each = {"decode": best(lambda folder=folder: read_still(Path(folder, "plate.0000.jpg")))}
            predictor = reconstructor.clip()
            turns = itertools.cycle(codes[:8])
            each["network"] = best(
                lambda predictor=predictor, turns=turns: reconstructor.render(
                    predictor.predict(Codes(next(turns))), half=True
                ).fetch()
            )
            predicted = [predictor.predict(Codes(one)) for one in codes[:4]]
            small = [as_measured(reduced(one.ldr).cpu().numpy()) for one in predicted]
            each["motion"] = best(lambda small=small: measure(small[0], small[1])) / cores()
            motion, found = measure(small[0], small[1]), []
            for _ in range(2):
                temporal_filter = TemporalFilter("auto", reconstructor.threshold, reconstructor.config.floor)
                for number, one in enumerate(predicted):
                    begin = time.perf_counter()
                    made = temporal_filter.blend(number, one.clipped, one.log_hdr, lambda motion=motion: motion)
                    if made is not None:
                        made.flatten()[0].item()
                    found.append(time.perf_counter() - begin)
            each["blend"] = min(found[2:4] + found[6:])
            pixels = reconstructor.render(predicted[0], half=True).fetch().pixels
            each["encode"] = (
                best(lambda folder=folder, pixels=pixels: write_exr(Path(folder, "one.exr"), pixels)) / encoders
            )
            words = ("convert", str(Path(folder, "plate.%04d.jpg")), "--fps", "24", "--overwrite", "--quiet")

            def whole(temporal: str, last: int, words: tuple = words, folder: str = folder) -> float:
                return _cli(*words, "-o", str(Path(folder, "out")), "--temporal", temporal, "--frames", f"0-{last}")

            whole("off", 0)
            off, on = (
                (min(whole(name, frames - 1) for _ in range(2)) - whole(name, 0)) / (frames - 1)
                for name in ("off", "auto")
            )
        print(f"  {share:4.0%} clipped in {spots:3}: " + ", ".join(f"{k} {v * 1e3:.0f} ms" for k, v in each.items()))
        slowest = max(each.values())
        print(
            f"       end to end {on * 1e3:.0f} ms, {1 / on:.1f} a second: {on / slowest:.2f} of the slowest stage;"
            f" without the filter {off * 1e3:.0f} ms ({on / off - 1:+.0%})"
        )


def multiplications(config: NetworkConfig, side: int = 512) -> float:
    """Multiplications of the feature path for side×side pixels; eq. 4 asks for as many again."""
    channels, total = config.channels(), 0.0
    for level, kernel in enumerate(config.kernels()):
        total += (side >> (level + 1)) ** 2 * channels[level] * channels[level + 1] * kernel**2
        total += (side >> level) ** 2 * (channels[level + 1] + channels[level]) * channels[level] * 9
    return total


def start() -> None:
    """(c) From return to prompt."""
    one = EXAMPLES / "dandelion.jpg"
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small.png")
        cv2.imwrite(str(small), np.rint(picture(256, 256, 0.05) * 255).astype(np.uint8))
        print(f"\n--help {_cli('--help'):.2f} s; a picture of 256×256", end=" ")
        print(
            f"{min(_cli('convert', str(small), '-o', folder, '--overwrite', '--quiet') for _ in range(3)):.2f} s",
            end="",
        )
        print(f"; {one.name} {_cli('convert', str(one), '-o', folder, '--quiet'):.2f} s")


def size() -> None:
    """(d) Cost a megapixel, from small to huge, and a frame, from a short clip to a long one; peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty.png")
        cv2.imwrite(str(empty), np.full((128, 128, 3), 255, np.uint8))
        base, _ = _peak("convert", str(empty), "-o", folder, "--quiet")
        print(f"\n{'picture':>13} {'a megapixel':>12} {'peak':>9}    (less the {base:.1f} s of starting; 8 % clipped)")
        for height, width in ((512, 512), (1024, 1024), (2048, 2048), (4096, 8192), (8192, 8192)):
            path = Path(folder, f"p{height}x{width}.png")
            shown = np.rint(picture(height, width, 0.08) * 255).astype(np.uint8)
            cv2.imwrite(str(path), shown, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            seconds, peak = _peak("convert", str(path), "-o", folder, "--quiet", "--overwrite")
            print(
                f"{width:>6}×{height:<6} {(seconds - base) / (height * width / 1e6):10.2f} s {peak:6.2f} GiB",
                flush=True,
            )
            path.unlink()
        print(f"\n{'frames':>13} {'a frame':>12} {'peak':>9}    (480×270)")
        for frames in (10, 100, 1000):
            clip = Path(folder, f"clip{frames}.mp4")
            _clip(clip, frames)
            seconds, peak = _peak("convert", str(clip), "-o", folder, "--quiet")
            print(f"{frames:13} {(seconds - base) / frames:10.3f} s {peak:6.2f} GiB", flush=True)
            assert sum(1 for _ in read_frames(clip)) == frames


def _clip(path: Path, frames: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        shown = np.rint(picture(270, 480, 0.08) * 255).astype(np.uint8)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(shown, 2 * number, 1), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _cli(*arguments: str) -> float:
    return _peak(*arguments)[0]


def _peak(*arguments: str) -> tuple[float, float]:
    """Seconds and peak resident GiB of one command."""
    begin = time.perf_counter()
    process = subprocess.Popen([*CLI, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - begin, usage.ru_maxrss * unit / 2**30


def machine() -> None:
    """The machine, in a line."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = "unknown processor"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{name}, {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command has it
    parts = {"network": network, "frame": frame, "stages": stages, "clip": clip, "start": start, "size": size}
    if sys.argv[1:]:
        machine()
    for part in sys.argv[1:]:
        parts[part]()
        sys.stdout.flush()
    if not sys.argv[1:]:  # each by itself: what a process has taken counts for its children too (getrusage(2))
        for part in parts:
            subprocess.run([sys.executable, __file__, part], check=True)
