"""How long a job takes on 1 to 1,000 machines that share one storage, and what machines that fail cost.

    python benchmarks/farm.py                            measures this machine, checks two processes, prints the tables
    python benchmarks/farm.py --frame-seconds 0.6 --start-seconds 3 --read-mb 0.5 --write-mb 8      a machine of yours

A machine claims a chunk, makes its frames and writes them, until none is left. What it reads and writes shares the
storage's bytes and files a second with all others: where they ask for more, all are slowed down alike. A machine that
fails loses its chunk, which waits until the lease has run out and is then done again, whole; the machine comes back
after its repair.

Why no simulation package: every machine that starts, ends or fails changes the pace of all. With one clock of work,
which runs slower than the clock on the wall where the storage is the limit, that is one number; a process a machine, as
in SimPy, would have to be interrupted and timed anew at each of these events.
"""

import argparse
import heapq
import itertools
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
HOUR = 24 * 3600  # frames of an hour of video
PICTURES = 16  # in a chunk of photographs, as convert has it
SMALL = 360  # rows of a picture where a core stands for a machine
BEAT = 10.0  # seconds between two signs of life of a machine, each a file written


@dataclass(frozen=True)
class Stages:
    """What one machine was measured at: seconds of a frame and of a start, bytes read and written for a frame."""

    frame: float
    start: float
    read: float
    write: float


@dataclass(frozen=True)
class Farm:
    """bytes, files: a second, of the storage. between_failures, repair: seconds, of a machine.

    lease: seconds after a failure until another machine may take the chunk.
    """

    machines: int
    bytes: float = math.inf
    files: float = math.inf
    between_failures: float = math.inf
    repair: float = 600
    lease: float = 70

    def pace(self, working: int, wanted: tuple[float, float]) -> float:
        """Seconds of work that a machine gets done in a second, where so many work at once; wanted: see `demand`."""
        return min(1.0, self.bytes / (working * wanted[0]), self.files / (working * wanted[1]))


@dataclass(frozen=True)
class Job:
    """warm_up: frames that are made, and not written, before those of a chunk."""

    frames: int
    chunk: int = 384
    warm_up: int = 32


def demand(job: Job, stages: Stages) -> tuple[float, float]:
    """Bytes, and files written, in a second of a machine that nothing holds up."""
    kept = job.chunk / (job.chunk + job.warm_up) / stages.frame
    return stages.read / stages.frame + stages.write * kept, kept + 1 / BEAT


@dataclass
class Outcome:
    seconds: float
    failures: int = 0
    lost: float = 0.0  # seconds of work that were done again


class Simulation:
    """One run of a job. Events wait in two heaps: by the clock, and by the work done since the start."""

    def __init__(self, job: Job, farm: Farm, stages: Stages, seed: int = 0) -> None:
        self.farm, self.stages, self.wanted = farm, stages, demand(job, stages)
        self.random = random.Random(seed)
        self.sizes = [job.chunk] * (job.frames // job.chunk) + [job.frames % job.chunk] * (job.frames % job.chunk > 0)
        self.sizes.reverse()  # the last one is claimed next
        self.unfinished, self.warm_up = len(self.sizes), job.warm_up
        self.now = self.work = 0.0
        self.timed: list[tuple[float, int, str, int]] = []
        self.worked: list[tuple[float, int, int]] = []
        self.holds: dict[int, tuple[int, float, int]] = {}  # of a machine: its chunk's size, begin in work, and claim
        self.idle: list[int] = []
        self.claim = itertools.count()
        self.outcome = Outcome(0.0)

    def run(self) -> Outcome:
        for machine in range(self.farm.machines):
            self._at(self.stages.start, "up", machine)
        while self.unfinished:
            pace = self.farm.pace(len(self.holds), self.wanted) if self.holds else 1.0
            ends = self.now + (self.worked[0][0] - self.work) / pace if self.worked else math.inf
            if self.timed and self.timed[0][0] <= ends:
                when, _, kind, subject = heapq.heappop(self.timed)
                self._forward(when, pace)
                getattr(self, f"_{kind}")(subject)
            else:
                self._forward(ends, pace)
                _, claim, machine = heapq.heappop(self.worked)
                if self.holds.get(machine, (0, 0, -1))[2] == claim:  # else the machine has failed meanwhile
                    del self.holds[machine]
                    self.unfinished -= 1
                    self._free(machine)
        self.outcome.seconds = self.now
        return self.outcome

    def _at(self, delay: float, kind: str, subject: int) -> None:
        heapq.heappush(self.timed, (self.now + delay, next(self.claim), kind, subject))

    def _forward(self, when: float, pace: float) -> None:
        self.work += (when - self.now) * pace
        self.now = when

    def _free(self, machine: int) -> None:
        """The machine claims a chunk, or waits for one."""
        if not self.sizes:
            self.idle.append(machine)
            return
        size, claim = self.sizes.pop(), next(self.claim)
        self.holds[machine] = size, self.work, claim
        heapq.heappush(self.worked, (self.work + (size + self.warm_up) * self.stages.frame, claim, machine))

    def _up(self, machine: int) -> None:
        if math.isfinite(self.farm.between_failures):
            self._at(self.random.expovariate(1 / self.farm.between_failures), "fail", machine)
        self._free(machine)

    def _fail(self, machine: int) -> None:
        self.outcome.failures += 1
        if machine in self.holds:
            size, began, _ = self.holds.pop(machine)
            self.outcome.lost += self.work - began
            self._at(self.farm.lease, "expired", size)
        else:
            self.idle.remove(machine)
        self._at(self.farm.repair + self.stages.start, "up", machine)

    def _expired(self, size: int) -> None:
        self.sizes.append(size)
        if self.idle:
            self._free(self.idle.pop())


# -- measuring this machine -------------------------------------------------------------------------------------------


def pictures(folder: Path, count: int, height: int = 1080) -> Path:
    """JPEGs, 16 to 9, 8 % clipped in a hundred spots."""
    import cv2
    from speed import picture

    folder.mkdir(parents=True)
    for number in range(count):
        codes = (picture(height, height * 16 // 9, 0.08, 100) * 255).round().astype("uint8")
        cv2.imwrite(str(folder / f"p{number:03d}.jpg"), codes[..., ::-1])
    return folder


def convert(inputs: Path, out: Path, core: int | None = None, shard: str = "1/1") -> subprocess.Popen:
    """`ldr2hdr convert`, on one core where one is named, which then stands for a machine."""
    options = [str(inputs), "-o", str(out), "--quiet", "--device", "cpu", "--shard", shard]
    pinned = None if core is None else partial(os.sched_setaffinity, 0, {core})
    return subprocess.Popen([sys.executable, "-m", "ldr2hdr_cli", "convert", *options], preexec_fn=pinned)


def timed(
    inputs: Path, out: Path, cores: Sequence[int | None], shards: Sequence[str] = ("1/1",)
) -> tuple[float, float]:
    """Seconds until the processes, one a core, all begun at once, have ended, and the most that one of them worked."""
    began = time.perf_counter()
    running = [convert(inputs, out, core, shard) for core, shard in zip(cores, shards, strict=True)]
    ends = [os.wait4(process.pid, 0)[1:] for process in running]
    if any(status for status, _ in ends):
        raise SystemExit("The conversion failed.")
    return time.perf_counter() - began, max(used.ru_utime + used.ru_stime for _, used in ends)


def measured(here: Path, core: int | None, rounds: int, clock: int = 0, height: int = 1080) -> Stages:
    """What a frame and what the start takes, from the best runs over 2 and over 10 pictures. clock: see `check`."""
    folders = {count: pictures(here / f"{count}", count, height) for count in (2, 10)}
    took = dict.fromkeys(folders, math.inf)
    for turn in range(rounds):
        for count, inputs in folders.items():
            took[count] = min(took[count], timed(inputs, here / f"{count}.{turn}", [core])[clock])
    frame = (took[10] - took[2]) / 8
    read = sum(path.stat().st_size for path in folders[10].iterdir()) / 10
    write = sum(path.stat().st_size for path in (here / "10.0").glob("*.exr")) / 10
    return Stages(frame, max(0.0, took[2] - 2 * frame), read, write)


def check(here: Path, rounds: int, clock: int) -> None:
    """The model against one and two real processes with a core each; the storage is this machine's disk.

    clock: 1 to count the seconds that a process works, where a machine is shared with others; 0: that pass.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        print("\nTwo processes cannot be checked on a single core.")
        return
    stages = measured(here / "stages", cores[0], rounds, clock, SMALL)
    inputs = pictures(here / "pictures", 2 * PICTURES, SMALL)
    ways = {
        "one process": (cores[:1], ["1/1"]),
        "two, --shard 1/2 and 2/2": (cores, ["1/2", "2/2"]),
        "two that claim chunks": (cores, ["1/1", "1/1"]),
    }
    best = dict.fromkeys(ways, math.inf)
    for turn, (name, (at, shards)) in itertools.product(range(rounds), ways.items()):
        best[name] = min(best[name], timed(inputs, here / f"{name[-3:]}{turn}", at, shards)[clock])
    print(
        f"\nOne core as a machine, pictures of {SMALL} rows: {stages.frame:.2f} s a frame, {stages.start:.1f} s to "
        f"start; {stages.read / 1e6:.2f} MB read and {stages.write / 1e6:.2f} MB written a frame."
    )
    print(f"{2 * PICTURES} pictures in chunks of {PICTURES}, the best of {rounds}:")
    for name, seconds in best.items():
        job = Job(2 * PICTURES, PICTURES, 0)
        predicted = Simulation(job, Farm(len(ways[name][0])), stages).run().seconds
        print(f"  {name:26} {seconds:5.1f} s, predicted {predicted:5.1f} s: {predicted / seconds - 1:+.0%}")


# -- tables -----------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def scaling(job: Job, farm: Farm, stages: Stages, failing: list[float]) -> None:
    """Time and throughput by the number of machines, and what failures add at each rate."""
    warm_up = job.warm_up
    head = "".join(f"{f'fails every {hours:g} h':>22}" for hours in failing)
    print(f"  machines  frames/s   of ideal      time{head}")
    for count in COUNTS:
        # A machine on its own takes the chunks of a clip one after the other, and goes on where it was.
        job = replace(job, warm_up=warm_up if count > 1 else 0)
        sound = Simulation(job, replace(farm, machines=count), stages).run()
        rate = job.frames / sound.seconds
        line = f"  {count:8}  {rate:8.1f}   {rate * stages.frame / count:7.0%}  {duration(sound.seconds):>9}"
        for hours in failing:
            failed = Simulation(job, replace(farm, machines=count, between_failures=hours * 3600), stages).run()
            share = failed.lost / (job.frames * stages.frame)
            line += f"{duration(failed.seconds):>11} {failed.seconds / sound.seconds - 1:+5.0%} {share:4.1%}"
        print(line)


def choices(job: Job, farm: Farm, stages: Stages) -> None:
    """What the size of a chunk and the length of the lease cost: the median of five runs."""

    def median(job: Job, farm: Farm) -> float:
        return sorted(Simulation(job, farm, stages, seed).run().seconds for seed in range(5))[2]

    print(f"\n{job.frames} frames, {farm.machines} machines, each fails every {farm.between_failures / 3600:g} h:")
    sizes = (96, 192, 384, 768, 1536)
    print(
        "  chunk " + "  ".join(f"{size} frames: {duration(median(replace(job, chunk=size), farm))}" for size in sizes)
    )
    leases = (20, 70, 300, 1800)
    times = (f"{lease} s: {duration(median(job, replace(farm, lease=lease)))}" for lease in leases)
    print("  lease " + "  ".join(times))


def main() -> None:
    given = arguments()
    stages = [given.frame_seconds, given.start_seconds, given.read_mb, given.write_mb]
    with tempfile.TemporaryDirectory() as folder:
        if given.check or None in stages:
            check(Path(folder, "check"), given.rounds, int(given.shared))
        if None in stages:
            measure = measured(Path(folder, "machine"), None, given.rounds)
        else:
            measure = Stages(stages[0], stages[1], stages[2] * 1e6, stages[3] * 1e6)
    farm = Farm(1, given.storage_mb * 1e6, given.storage_files, math.inf, given.repair, given.lease)
    wanted = demand(Job(1, given.chunk, given.warm_up), measure)
    what, limit = min(("bytes", farm.bytes / wanted[0]), ("files", farm.files / wanted[1]), key=lambda one: one[1])
    print(
        f"\nA machine: {measure.frame:.3g} s a frame, {measure.start:.3g} s to start, {measure.read / 1e6:.2f} MB read "
        f"and {measure.write / 1e6:.2f} MB written a frame.\nStorage: {given.storage_mb:g} MB and "
        f"{given.storage_files:g} files a second; from {limit:.0f} machines on its {what} are the limit.\nA failed "
        f"machine is back after {duration(farm.repair)}, its chunk is claimed again after {duration(farm.lease)}."
    )
    for name, frames in (("An hour of video", HOUR), (f"An archive of {given.hours:g} hours", int(given.hours * HOUR))):
        job = Job(frames, given.chunk, given.warm_up)
        print(f"\n{name}: {frames} frames in chunks of {job.chunk}, {job.warm_up} of warm-up each")
        scaling(job, farm, measure, given.fails_every or [1000, 24])
    busy = replace(farm, machines=100, between_failures=(given.fails_every or [24])[-1] * 3600)
    choices(Job(HOUR * 10, given.chunk, given.warm_up), busy, measure)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A farm of 1 to 1,000 machines, simulated.")
    for name, what in (
        ("frame-seconds", "seconds that a machine takes for a frame"),
        ("start-seconds", "seconds until a machine makes its first frame"),
        ("read-mb", "megabytes read for a frame"),
        ("write-mb", "megabytes written for a frame"),
    ):
        parser.add_argument(f"--{name}", type=float, metavar="N", help=f"{what}; these four, or all are measured")
    for name, default, what in (
        ("storage-mb", 1100, "megabytes a second of the storage, 10 gigabit Ethernet"),
        ("storage-files", 2000, "files that the storage creates in a second"),
        ("repair", 600, "seconds that a failed machine is away"),
        ("lease", 70, "seconds until a lost chunk can be claimed again: convert's 60, and a sign of life of 10"),
        ("hours", 1000, "of video in the archive"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, metavar="N", help=f"{what} [{default}]")
    parser.add_argument("--chunk", type=int, default=384, metavar="N", help="frames of a chunk [384]")
    parser.add_argument("--warm-up", type=int, default=32, metavar="N", help="of the temporal filter, a chunk [32]")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of measuring; the best counts [3]")
    parser.add_argument("--check", action="store_true", help="check two processes, though the four are given")
    parser.add_argument("--shared", action="store_true", help="others use this machine: check by processor seconds")
    parser.add_argument(
        "--fails-every", type=float, action="append", metavar="HOURS", help="of a machine; repeatable [1000, 24]"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
