"""`ldr2hdr train` as a subprocess: how it ends, what it says of bad input, what it leaves behind."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ldr2hdr_cli.app import main
from model import load_network

TINY = ["--base-channels", 2, "--depth", 2, "--patch-size", 16, "--batch-size", 2, "--accelerator", "cpu"]
TINY += ["--perceptual", "none", "--validation-patches", 2, "--pictures-every", 0, "--log-every", 1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "ldr2hdr_cli.app", "train", *map(str, arguments)]


@pytest.fixture
def train(monkeypatch, capfd):
    """train(*arguments) → (exit status, what was said), in this process, through the `ldr2hdr` command's own main."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ldr2hdr", "train", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        return int(end.value.code or 0), said.out + said.err

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in "abc":
        cv2.imwrite(str(folder / f"{name}.png"), rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return folder


def logged(run: Path, kind: str = "train") -> list[int]:
    """The steps in a run's log."""
    path = run / "log.csv"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [int(line.split(",")[0]) for line in lines if f",{kind}," in line]


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="process groups and /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group_saves_and_the_run_can_go_on(photos, tmp_path, train, number):
    run = tmp_path / "run"
    begin = command("pretrain", "--images", photos, "--out", run, *TINY, "--workers", 2, "--max-steps", 10**9)
    process = subprocess.Popen(begin, stderr=subprocess.PIPE, text=True, start_new_session=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 60
    while not logged(run) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = children(process.pid)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, said
    assert len(workers) == 2 and "Traceback" not in said and "killed" not in said
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    reached = logged(run)[-1]
    assert f"Ended at step {reached} (signal)" in said
    status, said = train("pretrain", "--out", run, "--resume", "--max-steps", reached + 2)
    assert status == 0, said
    assert f"Resumed at step {reached} " in said
    assert logged(run) == list(range(1, reached + 3))


def test_two_processes_step_as_one_with_the_doubled_batch(photos, tmp_path, train):
    options = ["pretrain", "--images", photos, *TINY, "--workers", 0, "--max-steps", 4, "--validation-patches", 1]
    pair = subprocess.run(
        command(*options, "--out", tmp_path / "pair", "--batch-size", 1, "--devices", 2, "--strategy", "ddp"),
        capture_output=True, text=True, timeout=120, env=ENVIRONMENT,
    )  # fmt: skip
    assert pair.returncode == 0, pair.stderr
    assert train(*options, "--out", tmp_path / "one", "--batch-size", 2)[0] == 0
    for said in ("Reading 3 pictures", "The bar:", "step 4:", "Ended at step 4"):
        assert pair.stderr.count(said) == 1
    assert losses(tmp_path / "pair") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    ends = [load_network(tmp_path / run / "last.safetensors").state_dict() for run in ("pair", "one")]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-6) for name in ends[0])


def losses(run: Path) -> list[float]:
    with (run / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]
