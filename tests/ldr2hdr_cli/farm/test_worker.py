"""One process of a farm, without a farm around it."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldr2hdr_cli.convert import run
from ldr2hdr_cli.convert.events import Done, Failed
from ldr2hdr_cli.farm.worker import Ended, Order, Refused, Wants, Worker
from ldr2hdr_cli.options import ConvertOptions
from model import __version__

OPTIONS = ConvertOptions(method="clip", encoders="2")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """18 pictures, of which the last is damaged, and an output directory."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for index in range(18):
        Image.fromarray(np.full((8, 8, 3), 10 * index, np.uint8)).save(tmp_path / "in" / f"{index:02d}.png")
    damaged = tmp_path / "in" / "17.png"
    damaged.write_bytes(damaged.read_bytes()[:20])
    return tmp_path


@pytest.fixture
def order(place: Path) -> Order:
    items, selection = run.plan([place / "in"], place / "out", OPTIONS)
    return Order({items[0]: items[0].input.path.stat().st_size}, None, selection, place / "out", OPTIONS, "", 0)


def test_it_asks_for_chunks_and_tells_what_became_of_each(place, order):
    items, selection = run.plan([place / "in"], place / "out", OPTIONS)
    waiting = list(run.chunks(items, selection, OPTIONS))
    keys, told = [chunk.key for chunk in waiting], []
    worker = Worker()
    assert worker.hello(__version__, pickle.dumps(order)).settings is not None
    for reports in worker.run(place / "in"):
        for report in pickle.loads(pickle.dumps(reports)):  # as they travel
            if isinstance(report, Wants) and waiting:
                worker.give(waiting.pop(0))
            elif not isinstance(report, Wants):
                told.append(report)
            if report == Ended(keys[-1]):
                worker.stop()
    assert len(keys) == 2
    assert [report.key for report in told if isinstance(report, Ended)] == keys
    assert [report.output.name for report in told if isinstance(report, Done)] == [f"{n:02d}.exr" for n in range(17)]
    (failed,) = [report for report in told if isinstance(report, Failed)]
    assert failed.item == items[17] and "17.png" in failed.message
    assert told.index(failed) < told.index(Ended(keys[1]))


def test_it_says_why_it_cannot_take_part(place, order):
    item = next(iter(order.sizes))
    missing = replace(item, input=replace(item.input, path=place / "gone.png"))
    for changed, why in [
        (replace(order, sizes={missing: 1}), r"gone.png cannot be seen (No such file or directory): mount it under"),
        (replace(order, sizes={item: 1}), "is another file there, of"),
        (replace(order, out=place / "nowhere"), "nowhere is not there: mount it under the same path"),
        (replace(order, options=replace(OPTIONS, ocio=str(place), ocio_space="x")), "ocio"),
    ]:
        hello = Worker().hello(__version__, pickle.dumps(changed))
        assert hello.settings is None and why in hello.refusal
    other = Worker().hello("9.9", b"what another version pickles")
    assert other.refusal == f"it has ldr2hdr {__version__}, and not 9.9: install that there."


def test_an_output_directory_that_only_has_the_same_name_is_refused(place, order, monkeypatch):
    monkeypatch.setattr("ldr2hdr_cli.farm.worker._SEEN_WITHIN", 0.0)
    worker = Worker()
    worker.hello(__version__, pickle.dumps(order))
    ((refused,),) = worker.run(place / "out" / "the sign of a driver elsewhere")
    assert isinstance(refused, Refused) and "is another directory there" in refused.why
