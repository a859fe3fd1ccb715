"""Cases are the same in every run, clip what was asked for, and know their truth."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ldr2hdr_cli.evaluation.compare import Scoring, aligned, compare
from ldr2hdr_cli.evaluation.protocol import (
    MILD_STOPS,
    Case,
    Protocol,
    aligning_pixels,
    given_cases,
    made_cases,
    photo_cases,
    read_list,
    scenes,
    without_light_source,
)
from ldr2hdr_cli.evaluation.summary import summarise
from ldr2hdr_cli.media.exr import write_exr
from model.errors import Ldr2hdrError


def texture(height: int, width: int, seed: int = 0, stops: float = 2.0) -> np.ndarray:
    """Reflecting surfaces: smooth patches of colour over `stops` stops."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-stops / 2, stops / 2, (height // 8, width // 8, 3)).astype(np.float32)
    return np.exp2(np.kron(coarse, np.ones((8, 8, 1), np.float32)))


def lamp_room(height: int, width: int, seed: int = 0) -> np.ndarray:
    """The same with lamps of 100 to 400 times the light, wherever one looks."""
    room = texture(height, width, seed)
    room[4::16, 4::16] *= 300
    return room


def case_of(ldr: np.ndarray, truth: np.ndarray) -> Case:
    return Case("a", "a", "share", 4.0, ldr, truth, truth >= 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_exr(tmp_path / "lamps.exr", lamp_room(64, 128))
    write_exr(tmp_path / "rock.exr", texture(64, 80, seed=1))
    return tmp_path


SMALL = Protocol(size=48, views=2)


def test_same_seed_makes_the_same_pictures_and_another_seed_others(folder: Path) -> None:
    first, again = (list(made_cases(folder, SMALL)) for _ in range(2))
    assert [case.name for case in first] == [case.name for case in again]
    assert all(np.array_equal(a.ldr, b.ldr) for a, b in zip(first, again, strict=True))
    other = {case.name: case for case in made_cases(folder, Protocol(size=48, views=2, seed=1))}
    rock = next(case for case in first if case.name == "rock_v0_share8")
    assert not np.array_equal(rock.ldr, other["rock_v0_share8"].ldr)


def test_what_else_is_in_the_folder_does_not_matter(folder: Path) -> None:
    alone = list(made_cases(folder, Protocol(size=48, views=2, only=["rock.exr"])))
    among = [case for case in made_cases(folder, SMALL) if case.scene == "rock"]
    assert [case.name for case in alone] == [case.name for case in among]
    assert all(np.array_equal(a.ldr, b.ldr) for a, b in zip(alone, among, strict=True))


@settings(max_examples=15, deadline=None)
@given(share=st.floats(1, 60), seed=st.integers(0, 50))
def test_the_share_that_was_asked_for_clips(tmp_path_factory: pytest.TempPathFactory, share: float, seed: int) -> None:
    folder = tmp_path_factory.mktemp("share")
    ramp = np.exp2(np.random.default_rng(seed).uniform(-3, 3, (48, 64, 3))).astype(np.float32)
    write_exr(folder / "noise.exr", ramp, half=False)
    (case,) = made_cases(folder, Protocol([share], False, seed, 64, 1))
    assert case.share == pytest.approx(share, abs=0.2)
    # Codes come from the clipped scene: white exactly where the truth is over, but for rounding next to it.
    assert (case.ldr[case.clipped] == 1).all()
    assert (case.truth[case.ldr < 1] < 1).all()
    assert np.array_equal(case.clipped, case.truth >= 1)
    codes = case.ldr * 255
    assert np.abs(codes - np.rint(codes)).max() < 1e-4


def test_truth_is_the_scene_up_to_one_factor(folder: Path) -> None:
    rock = texture(64, 80, seed=1)
    for case in made_cases(folder, Protocol(size=80, only=["rock"])):
        ratio = case.truth / rock
        assert ratio.max() / ratio.min() == pytest.approx(1, abs=2e-3)  # half floats in the file


def test_mild_exposures_show_no_light_source_and_are_over_by_what_they_say(folder: Path) -> None:
    cases = list(made_cases(folder, SMALL))
    mild = [case for case in cases if case.exposure == "mild"]
    assert {case.scene for case in mild} == {"rock"}
    assert {case.scene for case in cases if case.exposure == "share"} == {"rock", "lamps"}
    for case in mild:
        assert MILD_STOPS[0] <= case.level <= MILD_STOPS[1]
        brightest = np.percentile(case.truth.max(axis=2), 99.95)
        assert np.log2(brightest) == pytest.approx(case.level, abs=0.01)
        assert 0 < case.share <= 54  # the median's own patch of 64 equal pixels may go over


def test_alignment_makes_do_with_single_channels_and_with_nothing() -> None:
    ldr = np.ones((20, 20, 3), np.float32)
    ldr[..., 2] = 0.5
    chosen = aligning_pixels(ldr)
    assert chosen[..., 2].all() and not chosen[..., :2].any()
    truth = np.dstack([np.full((20, 20, 2), 3.0), np.full((20, 20, 1), 0.25)]).astype(np.float32)
    np.testing.assert_allclose(aligned(truth * 9, case_of(ldr, truth)), truth, rtol=1e-5)
    white = np.ones((20, 20, 3), np.float32)
    assert np.array_equal(aligned(white * 9, case_of(white, white)), white * 9)


def test_light_source_is_told_from_paper() -> None:
    grey = np.full((100, 100, 3), 0.18, np.float32)
    grey[:20] = 0.09
    paper = grey.copy()
    paper[50:60, 50:60] = 0.9  # 2.3 stops over grey
    lamp = grey.copy()
    lamp[50:60, 50:60] = 0.18 * 2**5
    assert without_light_source(paper)
    assert not without_light_source(lamp)
    assert not without_light_source(np.full((100, 100, 3), 0.5, np.float32))  # nothing to see
    assert not without_light_source(np.zeros((100, 100, 3), np.float32))


def test_a_jpeg_camera_changes_the_picture_but_not_the_truth(folder: Path) -> None:
    plain, jpeg = (
        next(iter(made_cases(folder, Protocol(size=48, views=1, jpeg=quality, only=["rock"]))))
        for quality in (None, 60)
    )
    assert np.array_equal(plain.truth, jpeg.truth)
    assert 0 < np.abs(plain.ldr - jpeg.ldr).mean() < 0.05


def test_alignment_looks_at_well_exposed_pixels_only() -> None:
    ldr = np.full((20, 20, 3), 0.7, np.float32)
    ldr[:5] = 1.0
    ldr[5:8] = 0.2
    truth = ldr**2
    truth[:5] = 16.0
    prediction = truth * np.float32(7)
    prediction[:5] = 1e4  # what a method invents must not move the scale
    prediction[5:8] *= 3  # nor how it draws the shadows
    result = aligned(prediction, case_of(ldr, truth))
    np.testing.assert_allclose(result[8:], truth[8:], rtol=1e-5)
    np.testing.assert_allclose(result[:5], 1e4 / 7, rtol=1e-5)
    chosen = aligning_pixels(ldr)
    assert chosen[8:].all() and not chosen[:8].any()


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1e-3, 1e3), fit=st.booleans())
def test_the_scale_of_a_prediction_does_not_matter(factor: float, fit: bool) -> None:
    rng = np.random.default_rng(3)
    truth = np.exp2(rng.uniform(-6, 3, (24, 24, 3))).astype(np.float32)
    ldr = np.minimum(truth, 1) ** np.float32(0.5)
    case = case_of(ldr, truth)
    prediction = truth * np.exp2(rng.normal(0, 0.2, truth.shape)).astype(np.float32)
    plain, scaled = aligned(prediction, case, fit), aligned(prediction * np.float32(factor), case, fit)
    np.testing.assert_allclose(scaled, plain, rtol=1e-3)


def test_fitting_the_curve_removes_a_camera_curve() -> None:
    truth = np.exp2(np.random.default_rng(4).uniform(-5, -0.35, (48, 48, 3))).astype(np.float32)
    seen = truth**1.5
    case = case_of(np.sqrt(truth), truth)
    error = {fit: np.abs(np.log2(aligned(seen, case, fit) / truth)).mean() for fit in (False, True)}
    assert error[True] < 0.02 < 0.5 < error[False]


def test_given_pairs_meet_by_name_at_the_clip_level(tmp_path: Path) -> None:
    inputs, truths = tmp_path / "ldr", tmp_path / "hdr"
    inputs.mkdir(), truths.mkdir()
    scene = texture(32, 48, stops=4)
    codes = np.rint(np.sqrt(np.minimum(scene, 1)) * 255).astype(np.uint8)
    Image.fromarray(codes).save(inputs / "one.png")
    Image.fromarray(codes).save(inputs / "lonely.png")
    write_exr(truths / "one.exr", scene * np.float32(40))  # another unit than LDR white
    (case,) = given_cases(inputs, truths)
    assert (case.name, case.exposure) == ("one", "given")
    np.testing.assert_allclose(case.truth, scene, rtol=0.02)
    # codes of 254 and 255 count as clipped: up to 1.5/255 below white, which is 0.017 stops
    assert case.clipped[scene >= 1].all() and not case.clipped[scene < 0.98].any()
    write_exr(truths / "lonely.exr", scene[:16])
    with pytest.raises(Ldr2hdrError, match=r"48×32.*48×16"):
        list(given_cases(inputs, truths))


def test_faults_are_sentences(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Ldr2hdrError, match="no HDR picture"):
        scenes(empty)
    with pytest.raises(Ldr2hdrError, match="lacks forest"):
        scenes(folder, ["rock", "forest.exr"])
    with pytest.raises(Ldr2hdrError, match="No picture"):
        (empty / "other.png").write_bytes(b"")
        list(given_cases(empty, folder))
    with pytest.raises(Ldr2hdrError, match="not a folder"):
        list(given_cases(folder / "nowhere", folder))


def test_a_list_of_names(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("# held out\nrock.exr\n\n  lamps.exr \n")
    assert read_list(names) == ["rock.exr", "lamps.exr"]
    names.write_text("# nothing\n")
    with pytest.raises(Ldr2hdrError, match="names no picture"):
        read_list(names)
    names.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Ldr2hdrError, match="cannot be read"):
        read_list(names)


def test_whole_panoramas_clip_what_is_asked_and_are_scored_as_lights(folder: Path) -> None:
    (folder / "rock.exr").unlink()
    cases = list(made_cases(folder, Protocol(shares=(2.0, 8.0), size=64, panorama=True)))
    assert [(case.exposure, case.level, case.ldr.shape) for case in cases] == [
        ("panorama", 2.0, (64, 128, 3)),
        ("panorama", 8.0, (64, 128, 3)),
    ]
    assert cases[1].share == pytest.approx(8.0, abs=0.5)
    truth = {"truth": lambda case: case.truth, "clip": lambda case: case.ldr**2}
    rows = [row for result in compare(cases, truth, Scoring(cvvdp=False)) for row in result.rows]
    assert [row["light_rmse_stops"] for row in rows if row["method"] == "truth"] == [0.0, 0.0]
    assert all(row["light_rmse_stops"] > 0.5 for row in rows if row["method"] == "clip")
    clip = next(score for score in summarise(rows)["panorama"] if score.method == "clip")
    assert sorted(clip.by_level) == [2.0, 8.0]


def test_a_picture_that_is_no_panorama_is_named(folder: Path) -> None:
    with pytest.raises(Ldr2hdrError, match=r"rock\.exr is 80×64.*--list"):
        list(made_cases(folder, Protocol(size=48, panorama=True)))


def test_unclipped_photographs_are_the_truth_and_are_exposed_again(tmp_path: Path) -> None:
    codes = np.rint(texture(60, 90, seed=3) / 2.5 * 200).clip(0, 240).astype(np.uint8)
    Image.fromarray(codes).save(tmp_path / "yard.png")
    (case,) = photo_cases(tmp_path, Protocol(shares=(15.0,), size=90))
    assert case.share == pytest.approx(15.0, abs=1.0)
    linear = np.where(codes <= 10, codes / 255 / 12.92, ((codes / 255 + 0.055) / 1.055) ** 2.4)
    scale = case.truth / linear
    assert float(scale.std() / scale.mean()) < 1e-5  # the truth is the photograph's light, at another exposure
    codes[:8] = 255
    Image.fromarray(codes).save(tmp_path / "window.png")
    with pytest.raises(Ldr2hdrError, match=r"window\.png has 14\.3% of its pixels clipped"):
        list(photo_cases(tmp_path, Protocol(only=["window"])))
