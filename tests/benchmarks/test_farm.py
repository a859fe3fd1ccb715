"""The simulated farm, where its answer is known without simulating."""

import importlib.util
import statistics
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "farm.py"


@pytest.fixture(scope="module")
def farm():
    spec = importlib.util.spec_from_file_location("farm", PATH)
    module = sys.modules["farm"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["farm"]


@pytest.mark.parametrize(
    ("machines", "warm_up", "limits", "seconds"),
    [
        (1, 0, {}, 1003),
        (10, 0, {}, 103),
        (10, 25, {}, 128),  # a chunk each
        (3, 0, {}, 403),  # the tenth chunk is one machine's fourth
        (10, 0, {"bytes": 50e6}, 203),  # half of what ten ask for
        (10, 0, {"files": 5.5}, 203),  # a frame and a tenth of a sign of life a second each
    ],
)
def test_without_failures_a_job_takes_what_can_be_told_by_hand(farm, machines, warm_up, limits, seconds):
    """1000 frames of a second and of 10 MB, in ten chunks, on machines that take three seconds to start."""
    job, stages = farm.Job(1000, 100, warm_up), farm.Stages(1.0, 3.0, 1e6, 9e6)
    assert farm.Simulation(job, farm.Farm(machines, **limits), stages).run().seconds == pytest.approx(seconds)


def test_machines_fail_as_often_as_is_said_and_every_lost_chunk_is_done_again(farm):
    job, stages = farm.Job(20_000, 100, 0), farm.Stages(1.0, 0.0, 1e6, 9e6)
    runs = [
        farm.Simulation(job, farm.Farm(10, between_failures=500, repair=50, lease=20), stages, seed).run()
        for seed in range(40)
    ]
    rate = statistics.mean(run.failures / run.seconds for run in runs)
    assert rate == pytest.approx(10 / 550, rel=0.03)  # each up for 500 seconds and away for 50
    for run in runs:  # no machine works longer than the run, and all work is done
        assert 20_000 + run.lost <= 10 * run.seconds
