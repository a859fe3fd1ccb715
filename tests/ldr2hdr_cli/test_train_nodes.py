"""Training over machines: two real processes, each a "node", that find each other over loopback."""

import csv
import os
import random
import signal
import socket
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

TINY = ["--base-channels", 2, "--depth", 2, "--patch-size", 16, "--accelerator", "cpu", "--perceptual", "none"]
TINY += ["--validation-patches", 2, "--pictures-every", 0, "--log-every", 1, "--workers", 0, "--checkpoint-every", 2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in "abc":
        cv2.imwrite(str(folder / f"{name}.png"), rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return folder


@pytest.fixture
def train(monkeypatch, capfd):
    """train(*arguments) → (exit status, stderr), in this process, through the `ldr2hdr` command's own main."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ldr2hdr", "train", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capfd.readouterr().err

    return run


def free_port() -> int:
    """One of those that Lightning derives from a Slurm job's number: 15000 and its last four digits."""
    while True:
        port = random.randrange(15000, 25000)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port


def by_srun(node: int, port: int, *arguments) -> subprocess.Popen:
    """Node `node` of two as `srun --nodes 2 --ntasks-per-node 1` starts it."""
    slurm = {
        "JOB_ID": 7_000_000 + port - 15000, "JOB_NAME": "train", "NTASKS": 2, "NTASKS_PER_NODE": 1, "NNODES": 2,
        "NODELIST": "127.0.0.1,127.0.0.[2-3]", "JOB_NODELIST": "127.0.0.1,127.0.0.[2-3]", "PROCID": node,
        "NODEID": node, "LOCALID": 0,
    }  # fmt: skip
    return start([], arguments, {f"SLURM_{name}": str(value) for name, value in slurm.items()})


def by_torchrun(node: int, port: int, *arguments) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--nnodes", 2, "--node-rank", node, "--nproc-per-node", 1]
    return start([*launcher, "--master-addr", "127.0.0.1", "--master-port", port], arguments, {})


def start(launcher: list, arguments: tuple, variables: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, *launcher, "-m", "ldr2hdr_cli.app", "train", *arguments, "--num-nodes", 2]
    environment = {**ENVIRONMENT, **variables}
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)


def curve(run: Path) -> dict[int, float]:
    """The logged loss of each step."""
    if not (run / "log.csv").is_file():
        return {}
    with (run / "log.csv").open(newline="") as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file) if row["kind"] == "train"}


@pytest.fixture
def broken_off(photos, tmp_path):
    """broken_off(number, *arguments): a run over two nodes, of which one is sent a signal; what the other says."""
    nodes = []

    def run(number: int, *arguments) -> str:
        port = free_port()
        options = ["pretrain", "--images", photos, "--out", tmp_path / "run", *TINY, "--batch-size", 1, *arguments]
        nodes.extend(by_srun(node, port, *options, "--max-steps", 10**9) for node in (0, 1))
        deadline = time.monotonic() + 60
        while len(curve(tmp_path / "run")) < 5 and nodes[0].poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        nodes[1].send_signal(number)
        said = nodes[0].communicate(timeout=60)[1]
        assert nodes[0].returncode == 2, said
        return said

    yield run
    for node in nodes:
        node.kill()
        node.communicate()


def told(said: str) -> str:
    lines = said.strip().splitlines()
    assert "Traceback" not in said and [line for line in lines if line.startswith("ldr2hdr: ")] == lines[-1:], said
    return lines[-1]


def test_a_node_that_dies_ends_the_other_and_the_resumed_curve_is_that_of_one_process(
    photos, tmp_path, train, broken_off
):
    """Started by Slurm's variables, resumed by torchrun.

    The mean of two halves of a batch is not to the bit the mean of the batch, and steps carry that on: hence 1e-4.
    """
    said = broken_off(signal.SIGKILL)
    assert "2 processes on 2 machines train together." in said and " s of it for the other processes" in said
    assert told(said).startswith("ldr2hdr: Another process of this run has ended, ")
    assert said.strip().endswith("with --resume to continue from the last checkpoint.")
    steps = max(curve(tmp_path / "run")) + 3
    port = free_port()
    again = ["pretrain", "--out", tmp_path / "run", "--resume", "--max-steps", steps]
    nodes = [by_torchrun(node, port, *again) for node in (0, 1)]
    said = [node.communicate(timeout=100)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "Resumed at step " in said[0] and f"Ended at step {steps} (steps)" in said[0] and "step" not in said[1]

    options = ["pretrain", "--images", photos, "--out", tmp_path / "one", *TINY]
    assert train(*options, "--batch-size", 2, "--max-steps", steps)[0] == 0
    found, wanted = curve(tmp_path / "run"), curve(tmp_path / "one")
    assert list(found) == list(range(1, steps + 1)) == list(wanted)
    assert list(found.values()) == pytest.approx(list(wanted.values()), rel=1e-4)
    ends = [load_network(tmp_path / run / "last.safetensors").state_dict() for run in ("run", "one")]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-5) for name in ends[0])


def test_a_node_that_no_longer_answers_ends_the_other(broken_off):
    said = broken_off(signal.SIGSTOP, "--wait-minutes", 0.05)
    assert "did not answer for 0.05 minutes (--wait-minutes); its own messages say why" in told(said)


# -- a launcher that does not fit: one sentence, before anything waits ------------------------------------------------

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}
SRUN = {"SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.mark.parametrize(
    ("variables", "nodes", "sentence"),
    [
        ({}, 2, "start the command with torchrun or srun"),
        (
            {**TORCHRUN, "WORLD_SIZE": "2"},
            1,
            "torchrun has started 2 processes, but --num-nodes 1 with --devices 1 asks",
        ),
        ({**SRUN, "SLURM_NTASKS": "3", "SLURM_NTASKS_PER_NODE": "1"}, 2, "srun has started 3 processes"),
        ({**SRUN, "SLURM_NTASKS": "2"}, 2, "give it --ntasks-per-node 1"),
    ],
)
def test_processes_that_are_not_those_of_the_run_are_refused(
    photos, tmp_path, train, monkeypatch, variables, nodes, sentence
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    status, said = train("pretrain", "--images", photos, "--out", tmp_path / "run", *TINY, "--num-nodes", nodes)
    assert status == 2 and sentence in told(said)


def test_nodes_that_do_not_find_each_other_say_what_to_do(photos, tmp_path, train, monkeypatch):
    for name, value in {**TORCHRUN, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    options = ["pretrain", "--images", photos, "--out", tmp_path / "run", *TINY, "--num-nodes", 2]
    status, said = train(*options, "--wait-minutes", 0.01)
    assert status == 2
    assert "did not find each other within 0.01 minutes (--wait-minutes); start the command on every" in told(said)
