"""The SI-HDR benchmark's protocol: its data set as it is unpacked, pictures by its rules, and its scores."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ldr2hdr_cli.app import app
from ldr2hdr_cli.evaluation.protocol import Case, Protocol
from ldr2hdr_cli.evaluation.si_hdr import MEDIAN, anchored, gain, si_hdr_cases, square, unprocessed
from ldr2hdr_cli.media.exr import write_exr
from model.constants import LUMINANCE
from model.errors import Ldr2hdrError

FAST = ["--protocol", "si-hdr", "--method", "clip", "--no-cvvdp", "--jobs", "1"]


def scene(height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = np.exp2(rng.uniform(-3, 3, (height // 4, width // 4, 3))).astype(np.float32)
    return np.kron(coarse, np.ones((4, 4, 1), np.float32))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "160"})


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def hdr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hdr")
    for index, name in enumerate(("attic", "beach")):
        write_exr(folder / f"{name}.exr", scene(48, 64, index), half=False)
    return folder


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """As the benchmark's archives unpack: 48×64 pixels, the inputs at half and a quarter of the brightest light."""
    root = tmp_path / "data" / "sihdr"
    (root / "reference").mkdir(parents=True)
    for index, name in enumerate(("001", "002")):
        truth = scene(48, 64, index)
        write_exr(root / "reference" / f"{name}.exr", truth, half=False)
        for level, share in (("clip_95", 5), ("clip_97", 3)):
            light = np.clip(truth / np.percentile(truth, 100 - share), 0, 1)
            (root / "input" / level).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(255 * light**0.5).astype(np.uint8)).save(root / "input" / level / f"{name}.png")
            for other in ("expandnet", "maskhdr"):
                made = root / "reconstructions" / other / level
                made.mkdir(parents=True, exist_ok=True)
                write_exr(made / f"{name}.exr", (3 if other == "maskhdr" else 1) * light, half=False)
    return root.parent


def test_the_rules_clip_the_brightest_values_and_show_the_median_at_20(hdr: Path) -> None:
    cases = list(si_hdr_cases(hdr, Protocol(shares=(3.0, 5.0), size=48)))
    assert [case.name for case in cases] == [f"clip_{p}_{s}_v0" for s in ("attic", "beach") for p in (97, 95)]
    for case in cases:
        assert case.ldr.shape == (48, 48, 3)  # the middle of 48×64
        assert case.clipped.mean() == pytest.approx(1 - case.level / 100, abs=0.011)  # values come 16 at a time
        assert case.white is not None
        assert np.median(case.truth @ np.array(LUMINANCE)) * case.white == pytest.approx(MEDIAN, rel=1e-5)
        seen = np.clip(case.truth, 0, 1) ** 0.9
        np.testing.assert_allclose(case.ldr, 1.6 * seen / (seen + 0.6), atol=0.5001 / 255)  # the curve, and 8 bits
    middle = scene(48, 64, 0)[:, 8:56]
    np.testing.assert_allclose(cases[1].truth, middle / np.percentile(middle, 95), rtol=1e-5)


def test_a_panorama_is_looked_at_in_views_of_512_pixels(tmp_path: Path) -> None:
    write_exr(tmp_path / "round.exr", scene(32, 64, 3))
    cases = list(si_hdr_cases(tmp_path, Protocol(shares=(5.0,), size=0, views=2)))
    assert [case.truth.shape for case in cases] == [(512, 512, 3)] * 2
    assert not np.array_equal(cases[0].truth, cases[1].truth)


def test_the_data_set_is_read_as_it_unpacks(data_set: Path) -> None:
    for root in (data_set, data_set / "sihdr"):
        cases = {case.name: case for case in si_hdr_cases(root, Protocol(shares=(3.0, 5.0), size=0))}
        assert sorted(cases) == ["clip_95_001", "clip_95_002", "clip_97_001", "clip_97_002"]
        case = cases["clip_95_001"]
        assert (case.exposure, case.level, case.scene) == ("clip_95", 95.0, "001")
        with Image.open(data_set / "sihdr/input/clip_95/001.png") as picture:
            np.testing.assert_array_equal(np.rint(case.ldr * 255), np.asarray(picture))
        truth = scene(48, 64, 0)
        np.testing.assert_allclose(case.truth / case.truth[0, 0, 0], truth / truth[0, 0, 0], rtol=1e-5)
    (only,) = si_hdr_cases(data_set, Protocol(shares=(3.0,), size=0, only=["002"]))
    assert only.name == "clip_97_002"


def test_of_the_data_set_too_a_square_of_any_size_is_taken(data_set: Path) -> None:
    whole, *_ = si_hdr_cases(data_set, Protocol(shares=(5.0,), size=0))
    small, *_ = si_hdr_cases(data_set, Protocol(shares=(5.0,), size=12))
    assert small.ldr.shape == small.truth.shape == (12, 12, 3)
    assert small.white == whole.white  # as it is shown was decided of the whole picture
    # Each pixel is one block of the scene, whose light it keeps.
    np.testing.assert_allclose(small.truth, whole.truth[2::4, 10:56:4], rtol=1e-5)
    np.testing.assert_allclose(small.ldr, whole.ldr[2::4, 10:56:4], atol=1e-6)


def test_misuse_is_one_sentence(hdr: Path, data_set: Path) -> None:
    with pytest.raises(Ldr2hdrError, match="--share 4: SI-HDR clips 5 or 3 per cent"):
        next(si_hdr_cases(hdr, Protocol(shares=(4.0,))))
    for path in sorted((data_set / "sihdr/input/clip_97").iterdir()):
        path.unlink()
    (data_set / "sihdr/input/clip_97").rmdir()
    with pytest.raises(Ldr2hdrError, match="sihdr lacks input/clip_97"):
        next(si_hdr_cases(data_set, Protocol(shares=(3.0,))))
    for wrong in (["--photos", hdr], ["--hdr", hdr, "--panorama"], ["--hdr", hdr, "--fit-curve"]):
        result = run(*wrong, *FAST)
        assert result.exit_code != 0
        assert "--protocol si-hdr goes with --hdr or --pairs" in " ".join(
            str(result.exception or result.output).split()
        )
    assert "--protocol si-hdr" in str(run("--video", "--hdr", hdr, *FAST).exception)


def test_the_gain_is_the_least_squares_one_of_unclipped_pixels() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = (rng.uniform(0.1, 1, (20, 20, 3)).astype(np.float32) for _ in range(2))
    ldr = np.full((20, 20, 3), 0.5, np.float32)
    ldr[:8, :, 1] = 1.0  # one channel clipped: the pixel is left out
    ldr[8:10, :, 2] = 0.0
    case = Case("a", "a", "clip_95", 95.0, ldr, truth, ldr >= 1)
    found = gain(prediction, case)
    error = [np.square((s * prediction - truth)[10:]).sum() for s in (found - 1e-3, found, found + 1e-3)]
    assert error[1] < min(error[0], error[2])
    worse = prediction.copy()
    worse[:10] = 1000
    assert gain(worse, case) == found
    assert gain(np.zeros_like(prediction), case) == 1.0
    nothing = Case("b", "b", "clip_95", 95.0, np.ones_like(ldr), truth, ldr >= 0)
    assert gain(2 * truth, nothing) == pytest.approx(0.5)  # all pixels, where none is left


def test_the_unprocessed_picture_is_decoded_as_srgb() -> None:
    ldr = np.array([[[0.02, 0.5, 1.0]]], np.float32)
    case = Case("a", "a", "clip_95", 95.0, ldr, ldr, ldr >= 1)
    np.testing.assert_allclose(unprocessed(case), [[[0.02 / 12.92, 0.21404114, 1.0]]], rtol=1e-5)
    assert anchored(case, 50.0).white == 50.0
    assert square(case, 0) is case


@pytest.fixture(scope="module")
def scored(hdr: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("out")
    return run("--hdr", hdr, "--share", "5", "--size", "48", "-o", out, *FAST), out


def test_every_table_has_the_unprocessed_picture_and_what_is_gained_over_it(scored: tuple[Result, Path]) -> None:
    result, out = scored
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "SI-HDR, clipped at the 95th percentile (2 pictures of 2 scenes)" in said
    assert "Gain over the unprocessed LDR" in said
    assert "SSIM is not recommended" in said
    rows = rows_in(out)
    assert {row["method"] for row in rows} == {"unprocessed LDR", "clip"}
    keys = ["pu21_psnr", "pu21_psnr_crf", "pu21_vsi", "pu21_vsi_crf", "hdrvdp3_q", "hdrvdp3_jod_crf", "pu21_piqe"]
    for mine in (row for row in rows if row["method"] == "clip"):
        (plain,) = (row for row in rows if row["case"] == mine["case"] and row["method"] != "clip")
        for key in keys:
            assert float(mine[f"{key}_gain"]) == pytest.approx(float(mine[key]) - float(plain[key]), abs=1e-9)
            assert float(plain[f"{key}_gain"]) == 0
        assert float(mine["pu21_psnr_crf"]) > float(mine["pu21_psnr"])  # a fit of 20 parameters can only help here
    document = json.loads((out / "results.json").read_text())
    assert document["settings"]["protocol"] == "si-hdr"
    assert document["settings"]["peak"] == 1000.0
    clip = next(score for score in document["summary"]["clip_95"] if score["method"] == "clip")["metrics"]
    gains = [float(row["pu21_psnr_gain"]) for row in rows if row["method"] == "clip"]
    assert clip["pu21_psnr_gain"]["mean"] == pytest.approx(np.mean(gains))
    page = (out / "index.html").read_text()
    assert "gain over the unprocessed LDR" in page
    assert "PU21-SSIM (not recommended)" in page


def test_scores_are_of_the_display_that_the_protocol_names(hdr: Path, scored: tuple[Result, Path]) -> None:
    """One figure of the table by hand: the gain, the median at 20 cd/m², a peak of 1000, and 256 as PSNR's peak."""
    from ldr2hdr_cli.evaluation.metrics import pu21_encode

    row = next(row for row in rows_in(scored[1]) if row["method"] == "unprocessed LDR" and "attic" in row["case"])
    case = next(si_hdr_cases(hdr, Protocol(shares=(5.0,), size=48)))
    linear = np.where(case.ldr <= 0.04045, case.ldr / 12.92, ((case.ldr + 0.055) / 1.055) ** 2.4)
    chosen = np.all((case.ldr > 0) & (case.ldr < 1), axis=2)
    p, t = linear[chosen], case.truth[chosen]
    light = case.truth / np.median(case.truth @ np.array(LUMINANCE)) * 20
    shown = linear * (p * t).sum() / (p * p).sum() / np.median(case.truth @ np.array(LUMINANCE)) * 20
    error = pu21_encode(np.clip(shown, 0.005, 1000)) - pu21_encode(np.clip(light, 0.005, 1000))
    assert float(row["pu21_psnr"]) == pytest.approx(20 * np.log10(256 / np.sqrt(np.mean(error**2))), abs=1e-3)


def test_reconstructions_that_come_with_the_data_set_are_methods(data_set: Path, tmp_path: Path) -> None:
    others = [f"--prediction={data_set / 'sihdr/reconstructions' / name}" for name in ("maskhdr", "expandnet")]
    (tmp_path / "list.txt").write_text("002\n")
    given = ["--hdr", data_set, "--list", tmp_path / "list.txt", "--share", "3", *others]
    result = run(*given, *FAST[:2], "--method", "none", *FAST[4:])
    assert result.exit_code == 0, result.output
    assert "SI-HDR, clipped at the 97th percentile (1 picture of 1 scene)" in result.output
    means, _, _ = result.output.partition("Gain over")
    scores = {line.split()[0]: line.split()[1:] for line in means.splitlines() if line.split()}
    assert scores["maskhdr"] == scores["expandnet"]  # but for the gain they are equal
    assert len(scores["maskhdr"]) == 8
    assert scores["maskhdr"] != scores["unprocessed"][1:]


def test_pairs_are_scored_by_the_protocol_too(data_set: Path, tmp_path: Path) -> None:
    root = data_set / "sihdr"
    (tmp_path / "list.txt").write_text("001\n")
    result = run("--pairs", root / "input/clip_95", root / "reference", "--list", tmp_path / "list.txt", *FAST)
    assert result.exit_code == 0, result.output
    assert "Given pairs (1 picture of 1 scene)" in result.output
    assert "Gain over the unprocessed LDR" in result.output
