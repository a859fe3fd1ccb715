"""A second run computes what the first did not, and says the same."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ldr2hdr_cli.evaluation.cache import PARTS, Cache
from ldr2hdr_cli.evaluation.compare import Method, Result, Scoring, compare
from ldr2hdr_cli.evaluation.page import Album
from ldr2hdr_cli.evaluation.protocol import Case
from ldr2hdr_cli.media.exr import write_exr
from model import MaskedUNet, NetworkConfig, save_network
from model.masked_unet import initialise
from tests import cli

SCORING = Scoring(cvvdp=False)


@pytest.fixture(scope="module")
def case() -> Case:
    truth = np.exp2(np.random.default_rng(0).uniform(-4, 2, (24, 24, 3))).astype(np.float32)
    ldr = np.rint(np.sqrt(np.clip(truth, 0, 1)) * 255).astype(np.float32) / 255
    return Case("room_v0_share8", "room", "share", 8.0, ldr, truth, truth >= 1)


class Counted:
    """Methods that say how often they ran."""

    def __init__(self, *names: str) -> None:
        self.ran: list[str] = []
        self.methods: dict[str, Method] = {name: self._method(name, index) for index, name in enumerate(names)}

    def _method(self, name: str, index: int) -> Method:
        def run(case: Case) -> np.ndarray:
            self.ran.append(name)
            return case.ldr**2 * (1 + index * (case.ldr >= 1))

        return run


def run(folder: Path, case: Case, counted: Counted, scoring: Scoring = SCORING, **identities: str) -> Result:
    (result,) = compare([case], counted.methods, scoring, 1, Cache(folder, identities))
    return result


def test_only_a_new_method_runs_and_the_rows_are_the_same(case: Case, tmp_path: Path) -> None:
    first, second = Counted("a"), Counted("a", "b")
    before = run(tmp_path, case, first, a="a1")
    after = run(tmp_path, case, second, a="a1", b="b1")
    assert (first.ran, second.ran) == (["a"], ["b"])
    (alone,) = compare([case], Counted("a", "b").methods, SCORING)
    assert json.dumps(after.rows) == json.dumps(alone.rows)
    assert json.dumps(after.rows[0]) == json.dumps(before.rows[0])


def test_the_pictures_of_known_rows_are_made_when_the_page_asks_for_them(case: Case, tmp_path: Path) -> None:
    fresh = run(tmp_path, case, Counted("a"), a="a1")
    counted = Counted("a")
    known = run(tmp_path, case, counted, a="a1")
    assert counted.ran == []
    albums = [Album(1), Album(1)]
    for album, result in zip(albums, (fresh, known), strict=True):
        album.offer(result)
    assert albums[0].pictures()[0].layers == albums[1].pictures()[0].layers
    assert counted.ran == ["a"]


def test_a_new_metric_is_computed_alone(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ldr2hdr_cli.evaluation import compare as module

    computed: list[str] = []

    def counting(name: str) -> Callable[..., Any]:
        plain = getattr(module, name)

        def call(*arguments: Any, **more: Any) -> Any:
            computed.append(name)
            return plain(*arguments, **more)

        return call

    for name in ("score", "hdrvdp"):
        monkeypatch.setattr(module, name, counting(name))
    with_it = replace(SCORING, hdrvdp=True)
    plain = run(tmp_path, case, Counted("a"), a="a1").rows[0]
    more = run(tmp_path, case, Counted("a"), with_it, a="a1").rows[0]
    assert computed == ["score", "hdrvdp"]
    assert more.keys() - plain.keys() == {"hdrvdp3_q", "hdrvdp3_jod", "hdrvdp2_q"}
    assert run(tmp_path, case, Counted("a"), a="a1").rows[0].keys() == plain.keys()
    assert computed == ["score", "hdrvdp"]


def changed(value: Any) -> Any:
    return not value if isinstance(value, bool) else "cuda" if isinstance(value, str) else (value or 30.0) / 2


@pytest.mark.parametrize("field", [entry.name for entry in fields(Scoring) if entry.name not in PARTS])
def test_every_setting_of_the_scores_is_part_of_the_key(case: Case, tmp_path: Path, field: str) -> None:
    """Also those that are added after this was written."""
    run(tmp_path, case, Counted("a"), a="a1")
    other = replace(SCORING, **{field: changed(getattr(SCORING, field))})
    cache = Cache(tmp_path, {"a": "a1"})
    asked = []
    cache.scores(case, {"a": case.truth}, other, lambda name, scoring: asked.append(name) or {})  # type: ignore[func-returns-value]
    assert asked == ["a"]


def test_other_pixels_and_other_methods_are_other_scores(case: Case, tmp_path: Path) -> None:
    def ran(case: Case, **identities: str) -> list[str]:
        counted = Counted("a")
        run(tmp_path, case, counted, **identities)
        return counted.ran

    assert ran(case, a="a1") == ["a"]
    assert ran(replace(case, name="x", scene="y", level=9.0), a="a1") == []  # names decide nothing
    assert ran(case, a="a2") == ["a"]
    assert ran(replace(case, truth=case.truth * np.float32(1.01)), a="a1") == ["a"]
    assert ran(replace(case, exposure="panorama"), a="a1") == ["a"]
    renamed = run(tmp_path, replace(case, name="x", scene="y", level=9.0), Counted("a"), a="a1").rows[0]
    assert (renamed["case"], renamed["scene"], renamed["level"]) == ("x", "y", 9.0)


def test_what_another_program_made_is_known_by_its_pixels(case: Case, tmp_path: Path) -> None:
    cache = Cache(tmp_path, {})
    bright: dict[str, Method] = {"other": lambda case: case.ldr**2 * (1 + 3 * (case.ldr >= 1))}
    plain: dict[str, Method] = {"other": lambda case: case.ldr**2}
    (one,), (two,) = (list(compare([case], methods, SCORING, 1, cache)) for methods in (bright, plain))
    assert (cache.known, cache.computed) == (0, 2) and one.rows != two.rows
    (again,) = compare([case], bright, SCORING, 1, cache)
    assert cache.known == 1 and json.dumps(again.rows) == json.dumps(one.rows)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 5000, b'{"key": 1, "scores": {}}'])
def test_a_torn_or_foreign_file_counts_as_none(case: Case, tmp_path: Path, content: bytes) -> None:
    rows = run(tmp_path, case, Counted("a"), a="a1").rows
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    counted = Counted("a")
    assert json.dumps(run(tmp_path, case, counted, a="a1").rows) == json.dumps(rows)
    assert counted.ran == ["a"] and path.read_bytes() != content


def test_a_folder_that_cannot_be_written_costs_nothing(case: Case, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", {"a": "a1"})
    (tmp_path / "cache").rmdir()
    (result,) = compare([case], Counted("a").methods, SCORING, 1, cache)
    assert len(result.rows) == 1


def test_the_command_finds_what_it_knows(tmp_path: Path) -> None:
    """By the weights themselves and not by their name, and with --no-cache nothing."""
    (tmp_path / "hdr").mkdir()
    picture = np.exp2(np.random.default_rng(0).uniform(-3, 3, (32, 40, 3))).astype(np.float32)
    write_exr(tmp_path / "hdr" / "attic.exr", picture)
    for seed, name in enumerate(("one", "two")):
        save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed), tmp_path / f"{name}.pth")
    fixed = ["--hdr", tmp_path / "hdr", "--no-cvvdp", "--no-mild", "--size", 32, "--share", 8, "--device", "cpu"]

    def evaluate(*arguments: object) -> tuple[str, str]:
        words = ["evaluate", *fixed, "--method", "clip", "--weights", tmp_path / "one.pth", *arguments]
        done = cli.run(*words, env={"COLUMNS": "200"})
        assert done.returncode == 0, done.stderr
        return " ".join(done.stderr.split()), done.stdout

    cache = tmp_path / "cache"
    said, table = evaluate("--cache", cache)
    assert said == "" and len(list(cache.glob("*.json"))) == 2
    known = f"2 of 2 scores were known from {cache}; --no-cache computes them again."
    assert evaluate("--cache", cache) == (known, table)
    (tmp_path / "two.pth").replace(tmp_path / "one.pth")  # other weights of the same name
    said, table = evaluate("--method", "akyuz2007", "--cache", cache)
    assert said.startswith("1 of 3 scores were known")
    assert evaluate("--method", "akyuz2007", "--cache", cache, "--no-cache") == ("", table)
