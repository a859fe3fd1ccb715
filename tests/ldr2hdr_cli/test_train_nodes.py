"""Training over machines: two real processes, each a "node", that find each other over loopback."""

import contextlib
import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ldr2hdr_cli.app import main
from model import load_network

TINY = ["--base-channels", 2, "--depth", 2, "--patch-size", 16, "--accelerator", "cpu", "--perceptual", "none"]
TINY += ["--validation-patches", 2, "--pictures-every", 0, "--log-every", 1, "--workers", 0, "--checkpoint-every", 2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


# Imports what a node needs, which takes longer than all of these tests, and forks nodes as it is told to.
NURSERY = """
import json, os, sys
import lightning_fabric, torch.utils.tensorboard
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
import ldr2hdr_cli.convert.job, ldr2hdr_cli.train_display, train.datasets, train.loop
from ldr2hdr_cli.app import main

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
    else:
        answer = os.fork()
        if not answer:
            break
    print(answer, flush=True)
else:
    os._exit(0)

def node():
    try:
        main()
    except SystemExit as end:
        assert not end.code

os.dup2(os.open(order["stderr"], os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
os.environ.update(order["variables"])
sys.argv = ["ldr2hdr", "train", *order["arguments"]]
if order["torchrun"]:
    elastic_launch(LaunchConfig(2, 2, 1, start_method="fork", rdzv_backend="static", **order["torchrun"]), node)()
else:
    main()
"""


class Node:
    """A process that the nursery has forked."""

    def __init__(self, nursery: subprocess.Popen, number: int, stderr: Path) -> None:
        self._nursery, self._number, self._stderr = nursery, number, stderr
        self._status: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self._number, number)

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said, once it has ended."""
        if self._status is None:
            self._status = ask(self._nursery, {"wait": self._number})
        return self._status, self._stderr.read_text()


def ask(nursery: subprocess.Popen, order: dict) -> int:
    nursery.stdin.write(json.dumps(order) + "\n")
    nursery.stdin.flush()
    return int(nursery.stdout.readline())


@pytest.fixture(scope="module")
def nursery():
    command = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as made:
        yield made
        made.stdin.close()


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


@pytest.fixture
def start(nursery, tmp_path):
    """start(how, ...) → the two nodes of a run, as `how`, by_srun or by_torchrun, has them started."""
    nodes: list[Node] = []

    def run(how: Callable[[int, int], dict], *arguments) -> list[Node]:
        port = free_port()
        options = [*map(str, arguments), "--num-nodes", "2"]
        for rank in (0, 1):
            stderr = tmp_path / f"stderr{len(nodes)}"
            order = {"arguments": options, "stderr": str(stderr), "variables": {}, "torchrun": {}}
            nodes.append(Node(nursery, ask(nursery, order | how(rank, port)), stderr))
        return nodes[-2:]

    yield run
    for node in nodes:
        with contextlib.suppress(ProcessLookupError):
            node.send_signal(signal.SIGKILL)
        node.end()


def by_srun(rank: int, port: int) -> dict:
    """The variables of `srun --nodes 2 --ntasks-per-node 1`."""
    slurm = {
        "JOB_ID": 7_000_000 + port - 15000, "JOB_NAME": "train", "NTASKS": 2, "NTASKS_PER_NODE": 1, "NNODES": 2,
        "NODELIST": "127.0.0.1,127.0.0.[2-3]", "JOB_NODELIST": "127.0.0.1,127.0.0.[2-3]", "PROCID": rank,
        "NODEID": rank, "LOCALID": 0,
    }  # fmt: skip
    return {"variables": {f"SLURM_{name}": str(value) for name, value in slurm.items()}}


def by_torchrun(rank: int, port: int) -> dict:
    """What torchrun makes of `--nnodes 2 --node-rank RANK --master-addr 127.0.0.1 --master-port PORT`."""
    return {"torchrun": {"run_id": "none", "rdzv_endpoint": f"127.0.0.1:{port}", "rdzv_configs": {"rank": rank}}}


def curve(run: Path) -> dict[int, float]:
    """The logged loss of each step."""
    if not (run / "log.csv").is_file():
        return {}
    with (run / "log.csv").open(newline="") as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file) if row["kind"] == "train"}


def broken_off(number: int, start, photos: Path, run: Path, *arguments) -> str:
    """What a node says when the other one of its run is sent a signal."""
    options = ["pretrain", "--images", photos, "--out", run, *TINY, "--batch-size", 1, *arguments]
    first, second = start(by_srun, *options, "--max-steps", 10**9)
    deadline = time.monotonic() + 60
    while len(curve(run)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    second.send_signal(number)
    status, said = first.end()
    assert status == 2, said
    return said


def told(said: str) -> str:
    lines = said.strip().splitlines()
    assert "Traceback" not in said and [line for line in lines if line.startswith("ldr2hdr: ")] == lines[-1:], said
    return lines[-1]


def test_a_node_that_dies_ends_the_other_and_the_resumed_curve_is_that_of_one_process(photos, tmp_path, train, start):
    """Started by Slurm's variables, resumed by torchrun.

    The mean of two halves of a batch is not to the bit the mean of the batch, and steps carry that on: hence 1e-4.
    """
    said = broken_off(signal.SIGKILL, start, photos, tmp_path / "run")
    assert "2 processes on 2 machines train together." in said and " s of it for the other processes" in said
    assert told(said).startswith("ldr2hdr: Another process of this run has ended, ")
    assert said.strip().endswith("with --resume to continue from the last checkpoint.")
    steps = max(curve(tmp_path / "run")) + 3
    nodes = start(by_torchrun, "pretrain", "--out", tmp_path / "run", "--resume", "--max-steps", steps)
    (status, said), (second_status, second_said) = [node.end() for node in nodes]
    assert (status, second_status) == (0, 0), said + second_said
    assert "Resumed at step " in said and f"Ended at step {steps} (steps)" in said and "step" not in second_said

    options = ["pretrain", "--images", photos, "--out", tmp_path / "one", *TINY]
    assert train(*options, "--batch-size", 2, "--max-steps", steps)[0] == 0
    found, wanted = curve(tmp_path / "run"), curve(tmp_path / "one")
    assert list(found) == list(range(1, steps + 1)) == list(wanted)
    assert list(found.values()) == pytest.approx(list(wanted.values()), rel=1e-4)
    ends = [load_network(tmp_path / run / "last.safetensors").state_dict() for run in ("run", "one")]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-5) for name in ends[0])


def test_a_node_that_no_longer_answers_ends_the_other(photos, tmp_path, start):
    said = broken_off(signal.SIGSTOP, start, photos, tmp_path / "run", "--wait-minutes", 0.02)
    assert "did not answer for 0.02 minutes (--wait-minutes); its own messages say why" in told(said)


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
            "The world size is 2 by torchrun, but 1 by --num-nodes 1 with --devices 1; give both the same",
        ),
        ({**SRUN, "SLURM_NTASKS": "3", "SLURM_NTASKS_PER_NODE": "1"}, 2, "The world size is 3 by srun, but 2 by"),
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
