"""`evaluate --video`: clips whose motion is known, and a measure of flicker that cannot be cheated."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ldr2hdr_cli.evaluation import clip_report
from ldr2hdr_cli.evaluation.cache import Cache
from ldr2hdr_cli.evaluation.clips import Clip, Frame, Pose, correspondence, directions, made_clips, motion, project
from ldr2hdr_cli.evaluation.flicker import ALONE, aligned, along, flicker, score_clip, tracked
from ldr2hdr_cli.evaluation.outcome import ClipScores
from ldr2hdr_cli.media.exr import write_exr
from model import MaskedUNet, NetworkConfig, save_network
from model.masked_unet import initialise
from tests import cli

SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three panoramas: soft clouds of light with lamps."""
    place = tmp_path_factory.mktemp("panoramas")
    for number in range(3):
        rng = np.random.default_rng(number)
        log = cv2.GaussianBlur(rng.normal(0, 8, (128, 256, 3)).astype(np.float32), (0, 0), 4)
        for row, column in zip(rng.integers(30, 80, 14), rng.integers(5, 250, 14), strict=True):
            cv2.circle(log, (int(column), int(row)), 7, (4.0, 4.2, 4.4), -1)
        write_exr(place / f"room{'abc'[number]}.exr", np.exp(log))
    return place


@pytest.fixture(scope="module")
def clips(folder) -> list[Clip]:
    return list(made_clips(folder, frames=5, size=SIZE))


def test_every_scene_gives_a_clip_of_another_motion_and_the_same_in_every_run(folder, clips):
    assert [clip.motion for clip in clips] == ["pan", "tilt", "zoom"]
    again = next(iter(made_clips(folder, frames=5, size=SIZE, only=["rooma"])))
    for one, other in zip(again.frames, clips[0].frames, strict=True):
        assert np.array_equal(one.ldr, other.ldr) and np.array_equal(one.truth, other.truth)
    first = clips[0].frames[0]
    assert 0.04 < first.clipped.any(axis=2).mean() < 0.14  # 8 % were asked for; the ball covers some and adds a glint
    assert first.ldr[first.clipped].min() == 1


def test_a_turn_to_the_right_moves_the_picture_to_the_left():
    now, before = Pose(10, 0, 0, 90, (0, 0)), Pose(0, 0, 0, 90, (0, 0))
    place = motion(now, before, 101)
    # tan(10°) of half the picture's width, which 45° span
    np.testing.assert_allclose(place[50, 50], [50 + 50.5 * np.tan(np.radians(10)), 50], atol=1e-3)
    # and what is at the left edge now, 45° − 10° to the left of straight ahead then
    assert motion(now, before, 101)[50, 0, 0] == pytest.approx(
        50 - 50.5 * np.tan(np.arctan(50 / 50.5) - np.radians(10))
    )


def test_a_zoom_moves_away_from_the_middle_and_back_is_where_it_was():
    wide, narrow = Pose(20, 5, 3, 90, (0, 0)), Pose(21, 4, -2, 60, (0, 0))
    places = np.stack(np.meshgrid(np.arange(20.0, 80), np.arange(20.0, 80)), 2)
    there = project(directions(places, narrow, 100), wide, 100)
    back = project(directions(there, wide, 100), narrow, 100)
    np.testing.assert_allclose(back, places, atol=1e-9)
    assert np.ptp(there) < np.ptp(places)


def test_what_corresponds_is_the_same_piece_of_the_world(clips):
    for clip in clips:
        for before, now in zip(clip.frames, clip.frames[1:], strict=False):
            place, is_same = correspondence(now, before)
            assert 0.3 < is_same.mean() < 1
            carried = cv2.remap(np.log2(before.truth + 0.01), place[..., 0], place[..., 1], cv2.INTER_LINEAR)
            off = np.abs(carried + now.stops - before.stops - np.log2(now.truth + 0.01))[is_same]
            assert np.median(off) < 0.03
            ball = is_same & (now.ball >= 1)
            assert ball.any() and (now.ball[is_same] % 1 == 0).all()  # its edge has no past
            # The ball does not move with the room: its pixels come from where it was.
            step = np.subtract(now.pose.ball, before.pose.ball)
            rows, columns = np.nonzero(ball)
            np.testing.assert_allclose(place[ball], np.stack([columns, rows], 1) - step, atol=1e-3)


def test_flicker_is_what_changes_and_not_what_is_wrong(clips):
    clip = clips[0]
    truth = [frame.truth for frame in clip.frames]
    floor = flicker(truth, clip).mean()
    assert floor < 0.05
    doubled = score_clip(
        [2 * picture * (1 + 7 * frame.clipped) for picture, frame in zip(truth, clip.frames, strict=True)], clip, "x"
    )
    assert doubled["flicker"] < 0.05 and doubled["rmse_stops_clipped"] == pytest.approx(3, abs=1e-3)
    assert doubled["bias_stops_clipped"] == pytest.approx(3, abs=1e-3)
    waves = [picture * np.float32(2 ** (0.5 * (-1) ** number)) for number, picture in enumerate(truth)]
    assert flicker(waves, clip).mean() == pytest.approx(1, abs=0.05)
    # A frozen picture does not follow the motion: it flickers more than the truth, and is wrong.
    frozen = score_clip([truth[0]] * len(truth), clip, "frozen")
    assert frozen["rmse_stops_clipped"] > 0.2


def test_one_factor_aligns_the_whole_clip(clips):
    clip = clips[1]
    made = [np.float32(5) * frame.truth for frame in clip.frames]
    for picture, frame in zip(aligned(made, clip), clip.frames, strict=True):
        np.testing.assert_allclose(picture, frame.truth, rtol=1e-3)


def test_the_tracked_highlight_stays_clipped(clips):
    found = 0
    for clip in clips:
        track = tracked(clip)
        if track is None:
            continue
        found += 1
        for (x, y), frame in zip(np.rint(track).astype(int), clip.frames, strict=True):
            assert frame.clipped[y - 2 : y + 3, x - 2 : x + 3].all()
        made = [2 * frame.truth for frame in clip.frames]
        assert along(made, clip, track) == pytest.approx([1.0] * len(clip.frames), abs=1e-5)
    assert found


def test_shares_are_of_sums_over_scenes():
    def row(scene, method, value):
        return {"scene": scene, "case": scene, "method": method} | dict.fromkeys(clip_report.COLUMNS, value)

    rows = [row("a", "net", 0.1), row("b", "net", 0.3), row("a", "net" + ALONE, 0.4), row("b", "net" + ALONE, 0.6)]
    shares = clip_report.against_alone(rows, "net")
    assert shares is not None and shares[0].mean == pytest.approx(0.4)
    assert shares[0].low >= 0.25 and shares[0].high <= 0.5
    assert clip_report.against_alone(rows, "net" + ALONE) is None
    (said,) = clip_report.sentences(rows, clip_report.summarise_clips(rows))
    assert "0.200 stops a frame in clipped areas, 0.40 of what it does frame by frame" in said


def test_known_clips_are_not_converted_again_but_for_the_page(clips, tmp_path):
    def scored(peak: float, on_page: int) -> tuple[list[str], ClipScores]:
        ran = []

        def way(clip: Clip) -> dict[str, list[np.ndarray]]:
            ran.append(clip.scene)
            return {"square": [frame.ldr**2 for frame in clip.frames]}

        methods = {"square: operator square": way}
        return ran, ClipScores.of(clips, methods, 0, peak, 100.0, on_page, Cache(tmp_path, {}), ["Beware."])

    ran, first = scored(4000.0, 0)
    assert ran == ["rooma", "roomb", "roomc"] and first.verdict[0] == "Beware."
    ran, again = scored(4000.0, 1)
    assert ran == ["rooma"] and again.album.entries[0]["panels"] == ["source", "square", "truth"]
    assert json.dumps(again.rows) == json.dumps(first.rows)
    ran, other = scored(1000.0, 0)
    assert len(ran) == 3 and other.rows[0]["pu21_psnr"] != first.rows[0]["pu21_psnr"]


def test_the_command_prints_a_table_and_writes_a_page_that_plays(folder, tmp_path):
    weights = tmp_path / "small<b>.safetensors"
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), weights)
    out = tmp_path / "out"
    done = cli.run(
        "evaluate", "--hdr", folder, "--video", "--frames", 3, "--size", SIZE, "--weights", weights, "-o", out
    )
    assert done.returncode == 0, done.stderr
    assert "3 rendered clips" in done.stdout and "frame by frame" in done.stdout
    document = json.loads((out / "results.json").read_text())
    assert {row["method"] for row in document["rows"]} == {
        "clip", "small<b>", "small<b>, strong", "small<b>" + ALONE,
    }  # fmt: skip
    assert len((out / "results.csv").read_text().splitlines()) == 1 + 4 * 3
    page = (out / "index.html").read_text()
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert len(data["clips"]) == 3
    clip = data["clips"][0]
    assert clip["panels"][0] == "source" and clip["panels"][-1] == "truth"
    assert all(len(frames) == 3 for panels in clip["pictures"].values() for frames in panels)
    assert "small<b>" not in page  # only as data, its < escaped


@pytest.mark.parametrize("other", [["--pairs", "a", "b"], ["--save-inputs", "x"], ["--prediction", "x"]])
def test_what_does_not_go_with_video_is_refused(folder, other):
    done = cli.run("evaluate", "--hdr", folder, "--video", *other)
    assert done.returncode == 2 and "--video goes with --hdr DIR" in " ".join(done.stderr.split()).replace("│ ", "")


def test_flat_pictures_are_no_world_to_move_in(tmp_path):
    write_exr(tmp_path / "flat.exr", np.random.default_rng(0).random((40, 50, 3)).astype(np.float32))
    done = cli.run("evaluate", "--hdr", tmp_path, "--video", "--method", "clip")
    assert done.returncode != 0 and "holds no panorama" in done.stderr and "Traceback" not in done.stderr


def test_a_frame_knows_what_is_clipped():
    truth = np.zeros((4, 4, 3), np.float32)
    truth[1, 2, 0] = 1
    frame = Frame(Pose(0, 0, 0, 60, (0, 0)), truth, truth, truth[..., 0], 0.0)
    assert frame.clipped.sum() == 1 and frame.clipped[1, 2, 0]
