"""Scenes that the default weights have seen are named, in whatever resolution they come."""

import json
from pathlib import Path

import numpy as np
import pytest

from ldr2hdr_cli.evaluation.trained_on import CREDITS, credited, scene_of, warnings
from ldr2hdr_cli.media.exr import write_exr
from model import MaskedUNet, NetworkConfig, save_network
from model.checkpoint import DEFAULT_WEIGHTS, SCENES_KEY
from tests import cli


def test_every_picture_of_the_card_is_known() -> None:
    text = CREDITS.read_text("utf-8")
    found = credited()
    assert len(found["panoramas"]) >= 116 and len(found["photographs"]) >= 941
    assert all(name in text.lower() for names in found.values() for name in names)
    assert {"pillars", "san_giuseppe_bridge", "abandoned_games_room_02", "witsand_woolshop"} <= found["panoramas"]
    assert {"canyon-wren", "mr. lee", "picture_0b_by_freespace"} <= found["photographs"]


@pytest.mark.parametrize("name", ["kloppenheim_06", "kloppenheim_06_4k", "Kloppenheim_06_puresky_1k"])
def test_a_scene_is_the_same_in_every_resolution_and_under_the_same_sky(name: str) -> None:
    assert scene_of(name) == "kloppenheim_06"


def test_networks_are_known_by_their_weights_and_not_by_their_name(tmp_path: Path) -> None:
    net, other = MaskedUNet(NetworkConfig(base_channels=2, depth=2)), tmp_path / "default.safetensors"
    save_network(net, other)
    scenes = ["attic", "pillars_8k", "lookout_1k"]
    said = warnings({"ldr2hdr": None, "default": other}, scenes, photographs=False)
    assert said == [
        "ldr2hdr was trained or validated on 2 of these 3 scenes: pillars_8k, lookout_1k; "
        "its scores on them say nothing about others."
    ]
    copy = tmp_path / "copy.safetensors"
    copy.symlink_to(DEFAULT_WEIGHTS)
    assert warnings({"copy": copy}, scenes, photographs=False)[0].startswith("copy was trained")
    assert warnings({"ldr2hdr": None}, ["attic"], photographs=False) == []


@pytest.mark.parametrize(
    ("text", "seen"), [('["Attic_2k", 3, "cellar"]', ["attic_1k"]), ("[" * 5000, []), ("{}", []), ("attic", [])]
)
def test_other_weights_are_known_by_what_their_metadata_names(tmp_path: Path, text: str, seen: list[str]) -> None:
    path = tmp_path / "net.safetensors"
    save_network(MaskedUNet(NetworkConfig(base_channels=2, depth=2)), path, {SCENES_KEY: text})
    said = warnings({"net": path}, ["attic_1k", "pillars"], photographs=False)
    assert [sentence.partition("; ")[0] for sentence in said] == [
        f"net was trained or validated on 1 of these 2 scenes: {name}" for name in seen
    ]


def test_photographs_are_not_panoramas() -> None:
    assert warnings({"ldr2hdr": None}, ["pillars", "Canyon-Wren"], photographs=True)[0].startswith(
        "ldr2hdr was trained or validated on 1 of these 2 scenes: Canyon-Wren;"
    )


def test_many_scenes_are_counted() -> None:
    scenes = sorted(credited()["panoramas"])[:15]
    (said,) = warnings({"ldr2hdr": None}, scenes, photographs=False)
    assert said.endswith(f", {scenes[11]} and 3 more; its scores on them say nothing about others.")


def test_the_run_the_verdict_and_the_page_say_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "hdr").mkdir()
    for name in ("attic", "pillars_2k"):
        write_exr(tmp_path / "hdr" / f"{name}.exr", np.exp2(rng.uniform(-3, 3, (32, 40, 3))).astype(np.float32))
    arguments = ["--hdr", tmp_path / "hdr", "--weights", "default", "--method", "none", "--share", "8", "--no-mild"]
    more = ["--no-cvvdp", "--size", "32", "--views", "1", "--device", "cpu", "-o", tmp_path / "out"]
    result = cli.run("evaluate", *arguments, *more, env={"COLUMNS": "200"})
    assert result.returncode == 0, result.stderr
    sentence = "ldr2hdr was trained or validated on 1 of these 2 scenes: pillars_2k"
    assert f"Warning: {sentence}" in " ".join(result.stderr.split())
    assert sentence in " ".join(result.stdout.split())
    assert json.loads((tmp_path / "out" / "results.json").read_text())["verdict"][0].startswith(sentence)
    assert sentence in (tmp_path / "out" / "index.html").read_text("utf-8")
