"""`ldr2hdr evaluate` as a person types it, on tiny pictures and a tiny network."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ldr2hdr_cli.app import app
from ldr2hdr_cli.convert.operators import METHODS
from ldr2hdr_cli.evaluation.compare import network_method
from ldr2hdr_cli.evaluation.options import OPERATORS
from ldr2hdr_cli.evaluation.protocol import Case
from ldr2hdr_cli.media.exr import write_exr
from ldr2hdr_cli.media.pictures import read_hdr
from ldr2hdr_cli.media.radiance import write_radiance
from model import MaskedUNet, NetworkConfig, save_network
from model.errors import Ldr2hdrError
from tests import cli

SMALL = ["--size", "48", "--views", "1", "--no-cvvdp", "--jobs", "1", "--device", "cpu"]


@pytest.fixture
def hdr(tmp_path: Path) -> Path:
    folder = tmp_path / "hdr"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index, name in enumerate(("attic", "beach", "cave")):
        coarse = np.exp2(rng.uniform(-1, 1, (6, 8, 3))).astype(np.float32)
        picture = np.kron(coarse, np.ones((8, 8, 1), np.float32))
        if index != 1:  # the beach has no lamp
            picture[8:16, 8:16] *= 40
        write_exr(folder / f"{name}.exr", picture)
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    import torch

    torch.manual_seed(0)
    net = MaskedUNet(NetworkConfig(base_channels=4, depth=3))
    save_network(net, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def run(*arguments: object, **environment: str) -> Result:
    words = ["evaluate", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "160", **environment})


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_table_a_verdict_and_every_file(hdr: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("--hdr", hdr, "--weights", weights, "--method", "clip", "--method", "landis2002", "-o", out, *SMALL)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())  # a table's title wraps at its width
    assert "A share of the pixels clipped (9 pictures of 3 scenes)" in said
    assert "Mild over-exposure, no light source in view (1 picture of 1 scene)" in said
    assert "has the lowest error" in said and "That does not tell which is better: a claim needs 10 scenes" in said
    names = {"results.csv", "results.json", "scores.svg", "scores.png", "index.html", "cache"}
    assert {path.name for path in out.iterdir()} == names
    rows = rows_in(out)
    assert len(rows) == 30
    assert {row["method"] for row in rows} == {"clip", "landis2002", "tiny"}
    assert {row["level"] for row in rows if row["exposure"] == "share"} == {"4.0", "8.0", "12.0"}
    document = json.loads((out / "results.json").read_text())
    assert document["settings"]["seed"] == 0
    means = {score["method"]: score["metrics"]["rmse_stops_clipped"]["mean"] for score in document["summary"]["share"]}
    for method, mean in means.items():
        per_scene: dict[str, list[float]] = {}
        for row in rows:
            if row["method"] == method and row["exposure"] == "share":
                per_scene.setdefault(row["scene"], []).append(float(row["rmse_stops_clipped"]))
        assert mean == pytest.approx(np.mean([np.mean(values) for values in per_scene.values()]))


def test_the_number_of_jobs_changes_nothing(hdr: Path, weights: Path, tmp_path: Path) -> None:
    for jobs in (1, 3):
        options = [*SMALL, "--share", "8", "--jobs", jobs, "-o", tmp_path / str(jobs), "--page-pictures", "0"]
        result = run("--hdr", hdr, "--weights", weights, "--method", "clip", *options)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "1" / "results.csv").read_bytes() == (tmp_path / "3" / "results.csv").read_bytes()


def test_another_program_is_scored_on_the_inputs_that_were_saved(hdr: Path, tmp_path: Path) -> None:
    inputs, other = tmp_path / "inputs", tmp_path / "other"
    result = run("--hdr", hdr, "--save-inputs", inputs, *SMALL)
    assert result.exit_code == 0 and "Wrote 10 pictures" in result.output
    other.mkdir()
    for path in inputs.glob("*.png"):
        ldr = np.asarray(Image.open(path)).astype(np.float32) / 255
        write_exr(other / f"{path.stem}.exr", 5 * ldr**2, half=False)  # what `clip` does, five times as bright
    result = run("--hdr", hdr, "--method", "clip", "--prediction", other, "-o", tmp_path / "out", *SMALL)
    assert result.exit_code == 0, result.output
    by_method: dict[str, list[float]] = {"clip": [], "other": []}
    for row in rows_in(tmp_path / "out"):
        by_method[row["method"]].append(float(row["rmse_stops_clipped"]))
    np.testing.assert_allclose(by_method["other"], by_method["clip"], rtol=1e-4)
    (other / "attic_v0_share8.exr").unlink()
    with pytest.raises(Ldr2hdrError, match="lacks attic_v0_share8"):
        CliRunner().invoke(
            app,
            ["evaluate", "--hdr", str(hdr), "--method", "none", "--prediction", str(other), *SMALL],
            catch_exceptions=False,
        )


def test_given_pairs(hdr: Path, tmp_path: Path) -> None:
    from ldr2hdr_cli.media.exr import read_exr

    inputs = tmp_path / "ldr"
    inputs.mkdir()
    for path in hdr.glob("*.exr"):
        truth = read_exr(path)[0]
        Image.fromarray(np.rint(np.sqrt(np.clip(truth, 0, 1)) * 255).astype(np.uint8)).save(inputs / f"{path.stem}.png")
    result = run("--pairs", inputs, hdr, "--method", "clip", "--method", "akyuz2007", *SMALL)
    assert result.exit_code == 0, result.output
    assert "Given pairs (3 pictures of 3 scenes)" in result.output


def test_panoramas_as_lights_and_photographs_exposed_again(tmp_path: Path) -> None:
    panoramas, photographs = tmp_path / "hdr", tmp_path / "photos"
    panoramas.mkdir()
    photographs.mkdir()
    rng = np.random.default_rng(5)
    scene = np.kron(rng.uniform(0.1, 0.9, (8, 16, 3)), np.ones((8, 8, 1))).astype(np.float32)
    Image.fromarray(np.rint(scene * 255).astype(np.uint8)).save(photographs / "yard.png")
    scene[20:22, 40:42] = 500
    write_exr(panoramas / "lamp.exr", scene)
    options = ["--method", "clip", "--no-cvvdp", "--size", "64"]
    result = run("--hdr", panoramas, "--panorama", "-o", tmp_path / "lights", *options)
    assert result.exit_code == 0, result.output
    assert "Whole panoramas, a share of the pixels clipped (3 pictures of 1 scene)" in " ".join(result.output.split())
    assert [row["level"] for row in rows_in(tmp_path / "lights")] == ["0.5", "2.0", "8.0"]
    assert all(float(row["light_rmse_stops"]) > 0.5 for row in rows_in(tmp_path / "lights"))
    result = run("--photos", photographs, "--share", "5,15", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "(2 pictures of 1 scene)" in result.output


def test_a_network_looks_at_a_panorama_as_convert_does(weights: Path) -> None:
    """In views: what lies behind the seam is beside what lies before it, and T² stands where nothing is clipped."""
    ldr = np.full((64, 128, 3), 0.5, np.float32)
    ldr[28:36, 60:68] = 1
    turned = np.roll(ldr, 64, axis=1)
    found = {}
    for exposure in ("panorama", "share"):
        method = network_method(weights, "cpu", "fp32")
        cases = [Case("a", "a", exposure, 5.0, one, one, one >= 1) for one in (ldr, turned)]
        found[exposure] = [method(case) for case in cases]
        assert all((one[case.ldr < 1] == 0.25).all() for one, case in zip(found[exposure], cases, strict=True))
    whole, behind = found["panorama"]
    np.testing.assert_allclose(np.roll(behind, -64, axis=1), whole, rtol=1e-3)
    assert not np.allclose(np.roll(found["share"][1], -64, axis=1), found["share"][0], rtol=1e-3)


def test_fitting_the_curve_is_another_score(hdr: Path, tmp_path: Path) -> None:
    errors = {}
    for name, extra in (("plain", []), ("fitted", ["--fit-curve"])):
        few = ["--share", "8", "--no-mild", "-o", tmp_path / name]
        result = run("--hdr", hdr, "--method", "clip", *few, *SMALL, *extra)
        assert result.exit_code == 0, result.output
        errors[name] = np.mean([float(row["rmse_stops"]) for row in rows_in(tmp_path / name)])
    assert errors["fitted"] < errors["plain"]


def test_only_the_listed_scenes(hdr: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("beach.exr\n")
    result = run("--hdr", hdr, "--only", names, "--method", "clip", *SMALL)
    assert "(3 pictures of 1 scene)" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --hdr DIR, --photos DIR, or --pairs LDR_DIR HDR_DIR"),
        (["--hdr", "HDR", "--photos", "HDR"], "Both --hdr and --photos are given"),
        (["--photos", "HDR", "--panorama"], "--panorama goes with --hdr DIR alone"),
        (["--hdr", "HDR", "--pairs", "HDR", "HDR"], "give only one of them"),
        (["--hdr", "HDR", "--share", "4,x"], "--share '4,x': give per cents"),
        (["--hdr", "HDR", "--share", "0"], "--share '0': give per cents"),
        (["--hdr", "HDR", "--share", ","], "--share ',': give per cents"),
        (["--hdr", "HDR", "--share", "nan"], "--share 'nan': give per cents"),
        (["--hdr", "HDR", "--method", "magic"], "--method 'magic': must be one of clip, landis2002"),
        (["--hdr", "HDR", "--method", "none"], "nothing to compare"),
        (["--hdr", "HDR", "--video", "--prediction", "HDR"], "--video goes with --hdr"),
        (["--video"], "--video goes with --hdr"),
    ],
)
def test_misuse_is_one_sentence(hdr: Path, arguments: list[str], message: str) -> None:
    result = run(*[str(hdr) if argument == "HDR" else argument for argument in arguments])
    assert isinstance(result.exception, Ldr2hdrError)
    assert message in str(result.exception) and "\n" not in str(result.exception)


def test_hdrvdp_is_asked_for(hdr: Path, tmp_path: Path) -> None:
    """Its columns are there with --hdrvdp only, and its distance from the screen decides them."""
    rows = {}
    (tmp_path / "one.txt").write_text(min(path.stem for path in hdr.iterdir()))
    for name, options in (("without", []), ("far", ["--hdrvdp"]), ("near", ["--hdrvdp", "--pixels-per-degree", "15"])):
        out = tmp_path / name
        result = run("--hdr", hdr, "--method", "clip", "--share", "8", "--no-mild", *SMALL, *options, "-o", out,
                     "--list", tmp_path / "one.txt")  # fmt: skip
        assert result.exit_code == 0, result.output
        assert ("VDP3↑" in result.output) == ("VDP2↑" in result.output) == (name != "without")
        rows[name] = rows_in(out)[0]
    assert "hdrvdp3_q" not in rows["without"]
    for key in ("hdrvdp3_q", "hdrvdp3_jod", "hdrvdp2_q"):
        assert float(rows["near"][key]) != float(rows["far"][key])
    document = json.loads((tmp_path / "near" / "results.json").read_text())
    assert document["settings"]["pixels_per_degree"] == 15.0


def test_every_operator_can_be_named() -> None:
    assert list(METHODS) == OPERATORS


def test_options_come_from_a_file_then_variables_then_flags(hdr: Path, weights: Path, tmp_path: Path) -> None:
    config = tmp_path / "evaluate.yaml"
    config.write_text(
        f"hdr: {hdr}\nsize: 32\nviews: 2\nshare: 8\ncvvdp: false\nfit-curve: true\nmethod: clip\n"
        f"weights: [{weights}]\njobs: 1\nprecision: fp32\nmild: no\njpeg: 80\nframes: 7\n"
    )
    variables = {
        "LDR2HDR_SIZE": "48",
        "LDR2HDR_VIEWS": "2",
        "LDR2HDR_JPEG": "90",
        "LDR2HDR_METHOD": os.pathsep.join(["clip", "landis2002"]),
    }
    out = tmp_path / "out"
    flags = ["--config", config, "--views", "1", "--no-fit-curve", "-o", out]
    result = run(*flags, "--device", "cpu", **variables)
    assert result.exit_code == 0, result.output + str(result.exception)
    assert json.loads((out / "results.json").read_text())["settings"] == {
        "hdr": str(hdr), "pairs": None, "photos": None, "protocol": "santos", "panorama": False,
        "share": "8", "mild": False, "seed": 0, "size": 48, "views": 1, "jpeg": 90,
        "fit_curve": False, "pixels_per_degree": None, "peak": 4000.0, "white": 100.0,
            "methods": ["clip", "landis2002", "tiny"],
    }  # fmt: skip
    assert {row["level"] for row in rows_in(out)} == {"8.0"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sizes: 3", "evaluate.yaml has no option 'sizes' to set; there are hdr, pairs, photos, only"),
        ("size: 3", "evaluate.yaml: size is 3, but must be at least 16"),
        ("pairs: [a]", "evaluate.yaml: pairs is ['a'], but must be a list of 2 names"),
        ("pairs: a", "evaluate.yaml: pairs is 'a', but must be a list of 2 names"),
        ("weights: [1]", "evaluate.yaml: weights is [1], but must be a list of names"),
        ("method: [clip, 3]", "evaluate.yaml: method 3: must be one of clip"),
        ("precision: int3", "evaluate.yaml: precision is 'int3', but must be one of auto, fp32"),
        ("share: 100", "evaluate.yaml: share 100: give per cents"),
    ],
)
def test_what_a_file_says_wrongly_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "evaluate.yaml").write_text(text + "\n")
    result = run("--config", tmp_path / "evaluate.yaml")
    assert isinstance(result.exception, Ldr2hdrError) and message in str(result.exception)


def test_two_weights_of_one_name_stay_apart(hdr: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    twin = tmp_path / "b" / weights.name
    twin.write_bytes(weights.read_bytes())
    result = run("--hdr", hdr, "--method", "none", "--weights", weights, "--weights", twin, "--no-mild", *SMALL)
    assert result.exit_code == 0, result.output
    assert "tiny (2)" in result.output and "equal in every scene" in " ".join(result.output.split())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_hostile_names_are_read_and_shown_as_text(hdr: Path, weights: Path, tmp_path: Path) -> None:
    """In a process of its own: OpenCV ended Python (SIGSEGV) on a name that is not UTF-8."""
    folder = tmp_path / "truth\x1b[2J\udcff"
    folder.mkdir()
    write_radiance(folder / "=cave\x1b]0;owned\x07\udcff.hdr", read_hdr(hdr / "cave.exr"), {})
    write_exr(folder / "attic\r\udcff.exr", read_hdr(hdr / "attic.exr"))
    evil = weights.rename(tmp_path / "@net\x1b[2J.safetensors")
    out = tmp_path / "out\x1b[2J"
    arguments = ["--hdr", folder, "--weights", evil, "--method", "clip", "-o", out, "--no-mild", *SMALL]
    done = cli.run("evaluate", *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert all(character.isprintable() or character == "\n" for character in said)
    for name in ("results.csv", "results.json", "index.html"):
        text = (out / name).read_text("utf-8")
        assert "cave" in text and all(character.isprintable() or character == "\n" for character in text), name
    rows = rows_in(out)
    assert {row["scene"] for row in rows} == {r"'=cave\x1b]0;owned\x07\udcff", r"attic\r\udcff"}
    assert {row["method"] for row in rows} == {"clip", r"'@net\x1b[2J"}


def test_inputs_with_hostile_names_meet_their_predictions(hdr: Path, tmp_path: Path) -> None:
    (hdr / "cave.exr").rename(hdr / "ca\x1b[2Jve.exr")
    result = run("--hdr", hdr, "--save-inputs", tmp_path / "in\x1b[2J", "--no-mild", *SMALL)
    assert result.exit_code == 0 and r"in\x1b[2J" in result.output
    other = tmp_path / "other\x1b"
    other.mkdir()
    for path in (tmp_path / "in\x1b[2J").glob("*.png"):
        write_exr(other / f"{path.stem}.exr", (np.asarray(Image.open(path)) / np.float32(255)) ** 2)
    result = run("--hdr", hdr, "--method", "none", "--prediction", other, "--no-mild", *SMALL)
    assert result.exit_code == 0 and r"other\x1b is off by" in result.output
