"""What a training step is made of, and how much of it is waiting for data.

    python benchmarks/training.py [--hdr DIR] [--images DIR] [--base-channels 32] [--workers 2] ...
    python benchmarks/training.py --nodes 2     what a step costs over so many processes, on this machine's loopback

Without folders it makes its own pictures. First patches a second for the data, the network and the losses apart, each
the best of a few; then whole runs of a few steps, their samples made on the device or by processes, as a share of the
same run with its data at hand. Nothing here is asserted.
"""

import argparse
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ldr2hdr_cli.media.exr import write_exr
from ldr2hdr_cli.media.pictures import find_pictures, read_hdr, read_photo
from model import MaskedUNet, NetworkConfig
from model.masked_unet import initialise
from train.camera import CameraConfig
from train.config import LossSettings, Settings, make_settings
from train.datasets import load_photo, load_scene, stored_patches
from train.loop import train
from train.losses import hdr_loss
from train.patches import cut_patches
from train.readers import Readers
from train.run import Listener, Progress
from train.samples import HDRDataset, InpaintingDataset, Sample, Samples
from train.scenes import pictures_of
from train.vgg import load_vgg

AIM = 0.9  # of the throughput of a run with its data at hand


def main() -> None:
    given = arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{device.type}, {name}; patches of {given.patch_size}², batch {given.batch_size}, ", end="")
    print(f"width {given.base_channels}, depth {given.depth}, {given.precision}")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        hdr, images = given.hdr or [panoramas(here / "hdr")], given.images or [photographs(here / "images")]
        made = datasets(given, hdr, images, here / "store")
        if given.nodes:
            nodes(made["HDR, without sampling"], given, here)
            return
        data(made, given, device)
        network_and_losses(made["HDR, without sampling"], given, device)
        waiting(made, given, device, here / "runs")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a training step is made of.")
    parser.add_argument("--hdr", action="append", type=Path, metavar="DIR", help="HDR pictures; else made up")
    parser.add_argument("--images", action="append", type=Path, metavar="DIR", help="photographs; else made up")
    for option, default in (("patch-size", 256), ("batch-size", 4), ("base-channels", 32), ("depth", 7)):
        parser.add_argument(f"--{option}", type=int, default=default, metavar="N", help=f"[{default}]")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="data processes [2]")
    parser.add_argument("--steps", type=int, default=16, metavar="N", help="of each run; the later half counts [16]")
    parser.add_argument("--nodes", type=int, metavar="N", help="only this: N processes, alone and then together")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="bf16", help="[bf16]")
    return parser.parse_args()


def panoramas(folder: Path, count: int = 4) -> Path:
    """Made-up 360° scenes of 1024×512: clouds of light at many scales, and lamps a thousand times as bright."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        log = np.zeros((512, 1024, 3), np.float32)
        for cells in (4, 16, 64, 256):
            coarse = rng.normal(0, 1.5 / cells**0.25, (cells, 2 * cells, 3)).astype(np.float32)
            log += cv2.resize(coarse, (1024, 512), interpolation=cv2.INTER_CUBIC)
        for row, column in zip(rng.integers(40, 470, 12), rng.integers(40, 980, 12), strict=True):
            cv2.circle(log, (int(column), int(row)), int(rng.integers(2, 20)), (7.0, 6.8, 6.5), -1)
        write_exr(folder / f"scene{'abcdefgh'[number]}.exr", np.exp(log))
    return folder


def photographs(folder: Path, count: int = 8) -> Path:
    """Made-up JPEGs of 768×512."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = cv2.resize(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8), (768, 512))
        cv2.imwrite(str(folder / f"photo{number}.jpg"), picture)
    return folder


def datasets(given: argparse.Namespace, hdr: list[Path], images: list[Path], store: Path) -> dict[str, Samples]:
    """What the two stages are fed with, by name."""
    size = given.patch_size
    scenes = find_pictures(hdr, "hdr")[:32]
    readers = Readers(find_pictures, read_photo, read_hdr)
    cut_patches(hdr, store, readers, per_scene=8, size=2 * size, threshold=0, exclude=lambda path: path not in scenes)
    hdrs = pictures_of(scenes, partial(load_scene, read=read_hdr, size=size, camera=CameraConfig()), {})
    photos = pictures_of(find_pictures(images, "photo"), partial(load_photo, read=read_photo, size=size), {})
    return {
        "photographs with holes": InpaintingDataset(photos, size, 0),
        "HDR, textured patches sampled": HDRDataset(hdrs, size, 0),
        "HDR, without sampling": HDRDataset(hdrs, size, 0, sampling=False),
        "HDR, cut beforehand": stored_patches(store, size, 0),
    }


def data(made: dict[str, Samples], given: argparse.Namespace, device: torch.device, seconds: float = 4) -> None:
    """Patches a second of one data process, its pictures decoded; and of the device, where that is a GPU."""
    threads, opencv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    print("\nData, patches a second of one process once its pictures are decoded:")
    for name, dataset in made.items():
        for number in range(64):
            dataset[number]
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            dataset[count]
            count += 1
        print(f"  {name:32} {count / (time.perf_counter() - began):8.1f}")
    torch.set_num_threads(threads)
    cv2.setNumThreads(opencv)
    if device.type == "cpu":
        return
    print(f"\nData, patches a second made on the device, {given.batch_size} at once:")
    for name, dataset in made.items():
        if dataset.hold(device):
            took = best(partial(dataset.batch, range(given.batch_size), device), device, 10)
            print(f"  {name:32} {given.batch_size / took:8.1f}")


def network_and_losses(dataset: Samples, given: argparse.Namespace, device: torch.device) -> None:
    """Patches a second forward and backward: the network with nothing but a sum after it, and each loss alone."""
    size = given.patch_size
    batch = {k: v.to(device) for k, v in dataset.batch(range(given.batch_size)).items()}
    config = NetworkConfig(base_channels=given.base_channels, depth=given.depth)
    net = initialise(MaskedUNet(config), 0).to(device).train()
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(given.precision)

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, dtype=kind, enabled=kind is not None)

    def through_network() -> None:
        with autocast():
            output = net(batch["ldr"], batch["mask"])
        output.float().sum().backward()

    with torch.no_grad(), autocast():
        answer = net(batch["ldr"], batch["mask"]).float()
    vgg = load_vgg("random")
    assert vgg is not None
    vgg.to(device)

    def look(picture: torch.Tensor) -> list[torch.Tensor]:
        with autocast():
            return vgg(picture)

    def through_loss(settings: LossSettings, features: Callable | None) -> None:
        log_hdr = answer.clone().requires_grad_()
        hdr_loss(log_hdr, batch, settings, features)["loss"].backward()

    crop = LossSettings(perceptual_crop=size // 2)
    works: dict[str, Callable[[], None]] = {
        "network": through_network,
        "pixel loss": lambda: through_loss(LossSettings(), None),
        "with perceptual terms": lambda: through_loss(LossSettings(), look),
        f"with perceptual terms, crop {size // 2}": lambda: through_loss(crop, look),
    }
    print(f"\nForward and backward, patches a second ({(batch['mask'] < 1).float().mean():.0%} clipped):")
    for name, work in works.items():
        seconds = best(work, device)
        print(f"  {name:32} {given.batch_size / seconds:8.1f}   {seconds:.3f} s a step")


def best(work: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """Seconds of the fastest of a few runs, after one that warms up."""
    found = float("inf")
    for number in range(times + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number:
            found = min(found, time.perf_counter() - began)
    return found


class Last(Listener):
    """Keeps what was last said of a run's progress."""

    heard: Progress

    def progress(self, progress: Progress) -> None:
        self.heard = progress


class AtHand(Samples):
    """The same batch again and again: what a step takes that need not wait for its data."""

    def __init__(self, dataset: Samples, count: int, device: torch.device) -> None:
        self.pictures = []
        self._batch = {name: values.to(device) for name, values in dataset.batch(range(count)).items()}

    def batch(self, numbers: Sequence[int], device: torch.device = torch.device("cpu")) -> Sample:
        return {name: values[: len(numbers)] for name, values in self._batch.items()}


def waiting(made: dict[str, Samples], given: argparse.Namespace, device: torch.device, out: Path) -> None:
    """Whole runs: patches a second, as a share of those of a run with its data at hand, and the share of waiting."""
    print(f"\nRuns of {given.steps} steps, the later half (aim: {AIM:.0%} of the run with its data at hand):")
    for number, (name, perceptual) in enumerate(runs(made)):
        stage = "inpainting" if "holes" in name else "hdr"
        bare = run(AtHand(made[name], given.batch_size, device), given, stage, perceptual, "device", out / f"{number}")
        loss = "pixel loss" if perceptual == "none" else "perceptual terms"
        print(f"  {name:32} {loss:18} at hand    {bare.patches_per_second:6.1f} a second")
        for where in ("device", "processes"):
            got = run(made[name], given, stage, perceptual, where, out / f"{number}{where}")
            share = got.patches_per_second / bare.patches_per_second
            print(f"  {'':51} {where:10} {got.patches_per_second:6.1f}, {share:4.0%}; {got.wait:4.0%} on data")


def run(data: Samples, given: argparse.Namespace, stage: str, perceptual: str, where: str, out: Path) -> Progress:
    """The last progress of a run of a few steps."""
    last = Last()
    train(run_settings(given, stage, perceptual, where, out), data, data, last)
    return last.heard


def nodes(dataset: Samples, given: argparse.Namespace, out: Path) -> None:
    """A step of N processes that share this machine: each on its own, then together, as if each were a machine."""
    batch = AtHand(dataset, given.batch_size, torch.device("cpu"))
    weights = sum(one.numel() for one in MaskedUNet(NetworkConfig(given.base_channels, given.depth)).parameters())
    print(f"\n{given.nodes} processes, {4e-6 * weights:.0f} MB of gradients; the later half of {given.steps} steps:")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    for together in (False, True):
        results = spawn.Queue()
        work = [(rank, port if together else 0, batch, given, out / f"{together}{rank}") for rank in range(given.nodes)]
        started = [spawn.Process(target=node, args=(*one, results)) for one in work]
        for process in started:
            process.start()
        seconds, exchange = max(results.get() for _ in range(1 if together else given.nodes))
        for process in started:
            process.join()
        waited = f", {exchange:.3f} s of it waiting for the other processes" if together else ""
        print(f"  {'together' if together else 'each on its own':16} {seconds:.3f} s a step{waited}")


def node(rank: int, port: int, batch: Samples, given: argparse.Namespace, out: Path, results: Any) -> None:
    """One process of `nodes`: the seconds of a step, and those spent on the exchange. port: 0 for a run of its own."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // given.nodes))
    settings = run_settings(given, "hdr", "none", "device", out)
    settings.run.accelerator = "cpu"
    if port:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank)}
        settings.run.num_nodes, settings.run.out = given.nodes, str(out.parent / "together")
    last = Last()
    train(settings, batch, batch, last)
    if not port or rank == 0:
        results.put((last.heard.seconds, last.heard.exchange or 0.0))


def runs(made: dict[str, Samples]) -> Iterator[tuple[str, str]]:
    for name in made:
        yield name, "none"
    yield "HDR, textured patches sampled", "random"


def run_settings(given: argparse.Namespace, stage: str, perceptual: str, where: str, out: Path) -> Settings:
    return make_settings(
        {
            "stage": stage,
            "network": {"base_channels": given.base_channels, "depth": given.depth},
            "data": {
                "patch_size": given.patch_size, "workers": given.workers, "validation_patches": 1, "data_on": where,
            },
            "loss": {"perceptual": perceptual},
            "optimiser": {"batch_size": given.batch_size},
            "run": {
                "out": str(out), "max_steps": given.steps, "precision": given.precision, "pictures_every": 0,
                "log_every": max(1, given.steps // 2),
            },
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
