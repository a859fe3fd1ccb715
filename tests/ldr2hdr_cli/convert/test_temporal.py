"""The temporal filter: what it carries over, along what motion, and what it must leave alone."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import ldr2hdr_cli.convert.run
from ldr2hdr_cli.app import app
from ldr2hdr_cli.convert import network, temporal
from ldr2hdr_cli.convert.temporal import BLOCK, WARM_UP, Depends, TemporalFilter, measure, warm_up
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.option_values import frame_rate
from model import MaskedUNet, NetworkConfig, Reconstructor, save_network
from model.errors import Ldr2hdrError
from model.masked_unet import initialise
from model.reconstructor import ClipReconstructor
from tests import cli
from tests.conftest import write_clip

DEVICES = ["cpu"] + [name for name, there in (("cuda", torch.cuda.is_available()),) if there]
HEIGHT, WIDTH = 120, 160


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A textured scene of twice the size with blown-out lamps, and the truth of its log output."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.random((2 * HEIGHT, 2 * WIDTH, 3), np.float32), (0, 0), 2)
    ldr = 0.15 + 0.6 * cv2.normalize(texture, None, 0, 1, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    truth = np.zeros_like(ldr)
    rows, columns = np.mgrid[: 2 * HEIGHT, : 2 * WIDTH]
    for row, column in ((90, 110), (130, 190), (70, 230)):
        lamp = (rows - row) ** 2 + (columns - column) ** 2 < 22**2
        ldr[lamp] = 1
        truth[lamp] = (1.5 + 0.5 * np.sin(columns / 9) * np.sin(rows / 7))[lamp, None]
    return ldr.astype(np.float32), truth.astype(np.float32)


def view(picture: np.ndarray, across: int, down: int = 0) -> np.ndarray:
    return np.ascontiguousarray(picture[40 + down : 40 + down + HEIGHT, 60 + across : 60 + across + WIDTH])


def pan(frames: int, step: int = 2, noise: float = 0.2) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frame by frame: the picture, a log output that flickers about the truth, and the truth."""
    ldr, truth = world()
    rng = np.random.default_rng(1)
    found = []
    for index in range(frames):
        seen, true = view(ldr, step * index), view(truth, step * index)
        made = np.where(seen > 0.96, true + np.float32(noise * rng.standard_normal()), 0).astype(np.float32)
        found.append((seen, made, true))
    return found


def steady(frames, start: int = 0, strength: str = "auto") -> list[np.ndarray]:
    temporal_filter = TemporalFilter(strength, 0.96)  # type: ignore[arg-type]
    results = []
    for index, (ldr, log_hdr, *_) in enumerate(frames, start):
        result = temporal_filter.push(index, ldr, log_hdr)
        assert result is not None
        results.append(result)
    return results


def test_a_clip_that_stands_still_gives_identical_frames():
    ldr, made, _ = pan(1)[0]
    for result in steady([(ldr, made)] * 5):
        assert np.array_equal(result, made)


@pytest.mark.parametrize("strength", ["auto", "strong"])
def test_a_pan_is_followed_and_flickers_less(strength):
    frames = pan(14)
    results = steady(frames, strength=strength)
    inside = [cv2.erode((ldr[..., 0] > 0.96).astype(np.uint8), np.ones((5, 5))) > 0 for ldr, _, _ in frames]

    def flicker(pictures):
        errors = [(picture - true)[where].mean() for picture, where, (_, _, true) in zip(pictures, inside, frames)]  # noqa: B905
        return np.abs(np.diff(errors)).mean()

    assert flicker(results) < 0.4 * flicker([made for _, made, _ in frames])
    # The pattern inside the lamps moves with them: were it left behind, this would be 0.2 and more.
    last, (_, _, true) = results[-1] - frames[-1][2], frames[-1]
    assert true[inside[-1]].std() > 0.2
    assert last[inside[-1]].std() < 0.05


def test_nothing_is_blended_into_what_is_well_exposed():
    for (ldr, _, _), result in zip(pan(4), steady(pan(4)), strict=True):
        assert np.all(result[ldr.max(axis=2) <= 0.96] == 0)


def test_the_first_frame_is_what_the_network_made():
    frames = pan(2)
    assert np.array_equal(steady(frames)[0], frames[0][1])


def test_a_cut_carries_nothing_over():
    before = pan(5)
    other, truth = world(seed=7)
    after = view(other, 10, 5), view(truth, 10, 5) + np.float32(0.3) * (view(other, 10, 5) > 0.96)
    assert np.array_equal(steady([*before, after])[-1], after[1])


def test_a_flash_carries_nothing_over():
    ldr, made, _ = pan(1)[0]
    flash = np.minimum(ldr * 1.6, 1), made + np.float32(1) * (made > 0)
    results = steady([(ldr, made)] * 3 + [flash])
    assert np.array_equal(results[-1], flash[1])


def test_what_is_carried_follows_the_exposure():
    ldr, made, _ = pan(1)[0]
    linear = np.expm1(made)
    dimmed = ldr * np.float32(np.sqrt(0.9))
    dimmed[ldr == 1] = 1
    results = steady([(ldr, made), (dimmed, np.log1p(linear * np.float32(0.9)))])
    inside = cv2.erode((made[..., 0] > 0).astype(np.uint8), np.ones((5, 5))) > 0
    np.testing.assert_allclose(np.expm1(results[1])[inside], 0.9 * linear[inside], rtol=0.01)


def test_motion_is_that_of_a_turning_and_zooming_camera_also_where_nothing_is_seen():
    ldr, _ = world()
    matrix = np.float32([[1.02, 0.01, -4], [-0.01, 1.02, 2.5]])
    now = view(ldr, 0)
    before = cv2.warpAffine(now, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    motion = measure(before, now)
    assert motion is not None
    row, column = 50, 50  # the middle of a lamp, without texture
    assert now[row - 10 : row + 10, column - 10 : column + 10].min() == 1
    expected = matrix @ [column, row, 1] - [column, row]
    np.testing.assert_allclose(motion.flow[row, column, :2], expected, atol=0.3)
    assert motion.gain == pytest.approx(1, abs=0.02)


def test_a_picture_without_anything_to_see_gives_no_motion():
    white = np.ones((60, 80, 3), np.float32)
    black = np.zeros((60, 80, 3), np.float32)
    assert measure(white, black) is None


@pytest.mark.parametrize("number", [BLOCK - WARM_UP - 1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 7])
def test_any_frame_can_be_made_again_from_those_of_its_run_in(number):
    frames = pan(BLOCK + 8, step=0)
    whole = steady(frames)
    start = warm_up(number)
    again = steady(frames[start : number + 1], start)
    assert np.array_equal(again[-1], whole[number])


def test_a_block_begins_without_a_jump():
    frames = pan(BLOCK + 4, step=0)
    steps = [np.abs(b - a).max() for a, b in zip(steady(frames), steady(frames)[1:], strict=False)]
    assert steps[BLOCK - 1] < 1.5 * max(steps[WARM_UP : BLOCK - 1])


def test_frames_that_hang_on_a_lost_one_are_refused_up_to_where_nothing_is_carried_over():
    frames: list[tuple[np.ndarray, np.ndarray | None]] = [(ldr, made) for ldr, made, _ in pan(12)]
    frames[5] = frames[5][0] * np.float32(0.5), None  # nothing clipped
    other, truth = world(seed=7)
    frames[9] = view(other, 10, 5), view(truth, 10, 5)  # a cut to it, and one back
    clean, disturbed = TemporalFilter("auto", 0.96), TemporalFilter("auto", 0.96)
    refused = []
    for number, frame in enumerate(frames):
        expected = clean.push(number, *frame)
        if number in (2, 7):
            disturbed.lose(number, f"frame {number}")
            continue
        try:
            found = disturbed.push(number, *frame)
        except Depends as error:
            refused.append(number)
            assert f"frame {2 if number < 5 else 7}, which failed" in str(error)
        else:
            assert (found is None and expected is None) or np.array_equal(found, expected)
    assert refused == [3, 4, 8]


def test_a_block_that_does_not_hang_on_a_lost_frame_goes_on():
    frames = pan(BLOCK + 2, step=0)
    whole = steady(frames)
    lost = BLOCK - WARM_UP - 1  # the last frame that the next block does not look at
    temporal_filter = TemporalFilter("auto", 0.96)
    made = set()
    for number, (ldr, log_hdr, _) in enumerate(frames):
        if number == lost:
            temporal_filter.lose(number, "it")
            continue
        with suppress(Depends):
            assert np.array_equal(temporal_filter.push(number, ldr, log_hdr), whole[number])  # type: ignore[arg-type]
            made.add(number)
    assert made == {*range(lost), *range(BLOCK, BLOCK + 2)}


def test_frames_without_anything_clipped_and_frames_of_another_size_pass():
    ldr, made, _ = pan(1)[0]
    dark = ldr * np.float32(0.5)
    temporal_filter = TemporalFilter("auto", 0.96)
    assert temporal_filter.push(0, dark, None) is None
    assert np.array_equal(temporal_filter.push(1, ldr, made), made)  # type: ignore[arg-type]
    half = np.ascontiguousarray(ldr[:60]), np.ascontiguousarray(made[:60])
    assert np.array_equal(temporal_filter.push(2, *half), half[1])  # type: ignore[arg-type]
    tiny = np.ones((1, 1, 3), np.float32)
    for number in (3, 4):
        assert np.array_equal(temporal_filter.push(number, tiny, tiny), tiny)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", DEVICES)
def test_what_lies_between_pixels_is_what_opencv_makes_of_it(device):
    """Up to the 32nds of a pixel to which `cv2.remap` rounds."""
    rng = np.random.default_rng(0)
    shown = cv2.GaussianBlur(rng.random((40, 50, 4), np.float32), (0, 0), 2)
    x, y = (rng.uniform(-3, side + 3, 500).astype(np.float32) for side in (50, 40))
    there = [torch.from_numpy(one).to(device) for one in (shown.reshape(-1, 4), x, y)]
    found = temporal._between(*there, 40, 50).cpu().numpy()
    wanted = cv2.remap(shown, x[None], y[None], cv2.INTER_LINEAR)[0]
    inside = (x > 0) & (x < 49) & (y > 0) & (y < 39)
    assert np.abs(found - wanted)[inside].max() < np.abs(np.diff(shown, axis=1)).max() / 20
    np.testing.assert_allclose(found, wanted, atol=0.04)
    there[1:] = [torch.tensor([3.0, 49.0]), torch.tensor([5.0, 39.0])]
    exact = temporal._between(there[0], *[one.to(device) for one in there[1:]], 40, 50).cpu().numpy()
    assert np.array_equal(exact, shown[[5, 39], [3, 49]])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(480, 1280), (1080, 1920), (500, 701), (900, 300), (2, 1000)])
def test_motion_is_measured_on_averages_of_areas(device, size):
    shown = np.random.default_rng(0).random((*size, 3), np.float32)
    factor = min(1, 640 / max(size))
    width, height = (max(1, round(length * factor)) for length in size[::-1])
    wanted = cv2.resize(shown, (width, height), interpolation=cv2.INTER_AREA)
    found = temporal.reduced(torch.from_numpy(shown).to(device)).cpu().numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_all_pixels_or_the_clipped_ones_are_blended_alike(device, monkeypatch):
    frames = pan(4)
    wanted = steady(frames)

    def everywhere(clipped):
        numbers = torch.arange(len(clipped), device=clipped.device)
        yield slice(0, len(clipped)), numbers

    monkeypatch.setattr(temporal, "_places", everywhere)
    for found, expected in zip(steady(frames), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_motion_that_is_measured_ahead_is_that_which_is_measured_when_it_is_asked_for(tmp_path, weights, monkeypatch):
    pictures = codes(7)
    for number, shown in enumerate(pictures, 1):
        Image.fromarray(shown).save(tmp_path / f"plate.{number:04d}.png")
    (tmp_path / "plate.0004.png").write_bytes(b"no picture")  # the fifth follows the third
    how = [tmp_path / "plate.%04d.png", "--fps", 25, "--weights", weights]
    assert run(*how, "-o", tmp_path / "ahead")[0] == 1
    monkeypatch.setattr(network.Network, "_measure_ahead", _kept_only)
    assert run(*how, "-o", tmp_path / "asked")[0] == 1
    assert len(checksums(tmp_path / "ahead")) == 6
    assert checksums(tmp_path / "ahead") == checksums(tmp_path / "asked")


def _kept_only(self, clip, number, predicted):
    with self._turn:
        self._seen[clip, number] = network._Seen(network.Down(temporal.reduced(predicted.ldr)))


# --- the command ---


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), path)
    return path


def codes(frames: int) -> list[np.ndarray]:
    """A pan with noise, so that the network's output flickers."""
    rng = np.random.default_rng(3)
    return [
        np.clip(np.rint(255 * ldr + 3 * rng.standard_normal(ldr.shape) * (ldr < 0.99)), 0, 255).astype(np.uint8)
        for ldr, _, _ in pan(frames)
    ]


def convert(*arguments) -> None:
    done = cli.run("convert", *arguments)
    assert done.returncode == 0, done.stderr


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.exr"))}


def test_a_clip_made_in_pieces_has_the_bytes_of_one_made_at_once(tmp_path, weights):
    clip = write_clip(tmp_path / "clip.mkv", codes(8), pixels="bgr0", layout="rgb24")
    convert(clip, "-o", tmp_path / "whole", "--weights", weights)
    for frames in ("5", "2-3", "7-", "1-8"):
        convert(clip, "-o", tmp_path / "pieces", "--weights", weights, "--frames", frames)
    assert len(checksums(tmp_path / "whole")) == 8
    assert checksums(tmp_path / "pieces") == checksums(tmp_path / "whole")
    convert(clip, "-o", tmp_path / "off", "--weights", weights, "--temporal", "off")
    off, whole = checksums(tmp_path / "off"), checksums(tmp_path / "whole")
    assert all(off[name] != whole[name] for name in list(whole)[1:])


def test_a_numbered_sequence_with_a_rate_is_a_clip(tmp_path, weights):
    pictures = codes(5)
    clip = write_clip(tmp_path / "clip.mkv", pictures, pixels="bgr0", layout="rgb24")
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"plate.{number:04d}.png")
    how = ("--weights", weights, "--transfer", "srgb")  # which a picture that names none is, and a clip is not
    convert(clip, "-o", tmp_path / "clip", *how)
    convert(tmp_path / "plate.%04d.png", "-o", tmp_path / "plates", *how, "--fps", "24000/1001")
    for number in range(5):
        expected, *_ = read_exr(tmp_path / "clip" / "clip" / f"clip.{number + 1:06d}.exr")
        found, _, attributes = read_exr(tmp_path / "plates" / f"plate.{number:04d}.exr")
        np.testing.assert_array_equal(found, expected)
        assert attributes["framesPerSecond"] == Fraction(24000, 1001)
    # In two runs, and without what --frames leaves out.
    pattern = tmp_path / "plate.####.png"
    convert(pattern, "-o", tmp_path / "again", *how, "--fps", "24000/1001", "--frames", "3-4")
    assert sorted(checksums(tmp_path / "again")) == ["plate.0003.exr", "plate.0004.exr"]
    convert(pattern, "-o", tmp_path / "again", *how, "--fps", "24000/1001")
    assert checksums(tmp_path / "again") == checksums(tmp_path / "plates")


def run(*arguments) -> tuple[int, dict[str, int], dict[int, str]]:
    """In this process: exit status, summary, and what was said of frames that failed."""
    result = CliRunner().invoke(app, ["convert", "--json", *map(str, arguments)])
    events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    summary = next(event for event in events if event["event"] == "summary")
    return result.exit_code, summary, {one["frame"]: one["message"] for one in events if one["event"] == "failed"}


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int, error: Exception) -> None:
    whole: Callable = getattr(owner, name)
    calls = iter(range(1000))

    def failing(*given, **named):
        if next(calls) == call:
            raise error
        return whole(*given, **named)

    monkeypatch.setattr(owner, name, failing)


OWNERS = {"predict": ClipReconstructor, "render": Reconstructor, "write_exr": ldr2hdr_cli.convert.run}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, weights) -> Callable[[bool], tuple[list, dict[str, str]]]:
    """Arguments for a clip, or a numbered sequence, of seven frames, and the checksums of an undisturbed run."""

    @cache
    def made(is_sequence: bool) -> tuple[list, dict[str, str]]:
        folder = tmp_path_factory.mktemp("in")
        for number, picture in enumerate(codes(7), 1):
            Image.fromarray(picture).save(folder / f"plate.{number:04d}.png")
        clip = write_clip(folder / "clip.mkv", codes(7), pixels="bgr0", layout="rgb24")
        arguments = [folder / "plate.%04d.png", "--fps", 25] if is_sequence else [clip]
        arguments += ["--weights", weights, "--encoders", 1]
        assert run(*arguments, "-o", folder / "whole")[0] == 0
        return arguments, checksums(folder / "whole")

    return made


@pytest.mark.parametrize(
    ("name", "error", "made", "is_sequence"),
    [
        ("predict", RuntimeError("out of luck"), [1, 2, 3], False),
        ("predict", MemoryError(), [1, 2, 3], True),
        ("render", ValueError("out of luck"), [1, 2, 3], False),
        ("write_exr", OSError(5, "out of luck"), [1, 2, 3, 5, 6, 7], False),  # the filter has had the frame
    ],
)
def test_after_a_failure_that_passes_a_second_run_makes_the_bytes_of_an_undisturbed_one(
    tmp_path, undisturbed, monkeypatch, name, error, made, is_sequence
):
    arguments, whole = undisturbed(is_sequence)
    fail_once(monkeypatch, OWNERS[name], name, 3, error)
    status, _, failed = run(*arguments, "-o", tmp_path)
    first = checksums(tmp_path)
    assert status == 1 and first.items() <= whole.items()
    assert [int(one.split(".")[1]) for one in first] == made
    assert sorted({*made, *failed}) == [1, 2, 3, 4, 5, 6, 7]
    assert all("blended with frame 4, which failed" in failed[number] for number in failed if number > 4)
    status, summary, _ = run(*arguments, "-o", tmp_path)
    assert status == 0 and summary["skipped"] == len(made)
    assert checksums(tmp_path) == whole


def test_pictures_that_hang_on_one_that_is_mended_replaced_or_added_are_made_again(tmp_path, weights):
    pattern, how = tmp_path / "plate.%04d.png", ("--weights", weights, "--fps", 25)
    pictures = codes(5)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"plate.{number:04d}.png")
    assert run(pattern, "-o", tmp_path / "whole", *how)[0] == 0
    whole = checksums(tmp_path / "whole")
    second = tmp_path / "plate.0001.png"
    for state in ("broken", "another", "absent"):
        second.write_bytes(b"no picture")
        if state == "another":
            Image.fromarray(pictures[4]).save(second)
        elif state == "absent":
            second.unlink()
        assert run(pattern, "-o", tmp_path / state, *how)[0] == (state == "broken")
        assert len(checksums(tmp_path / state).items() & whole.items()) == 1  # the first
        # What is broken is tried again, and the others are left alone.
        _, summary, _ = run(pattern, "-o", tmp_path / state, *how)
        assert summary["done"] == 0
        Image.fromarray(pictures[1]).save(second)
        assert run(pattern, "-o", tmp_path / state, *how)[0] == 0
        assert checksums(tmp_path / state) == whole
        _, summary, _ = run(pattern, "-o", tmp_path / state, *how, "--frames", "3-")
        assert summary["done"] == 0 and summary["skipped"] == 2


def test_a_rate_with_an_exponent_is_refused_at_once(tmp_path):
    """As a fraction it has a hundred million digits."""
    ran = cli.run("convert", "plate.%04d.png", "-o", "out", "--fps", "1e99999999", cwd=tmp_path)
    assert ran.returncode == 2 and "--fps 1e99999999: give frames a second" in ran.stderr


@pytest.mark.parametrize("rate", ["1e-99999999", "0", "-25", "1/0", "1001", "fast", "", "\N{SUPERSCRIPT TWO}"])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(Ldr2hdrError, match="give frames a second"):
        frame_rate(rate)
    rates = [frame_rate(text) for text in (None, "23.976", "24000/1001")]
    assert rates == [None, Fraction(2997, 125), Fraction(24000, 1001)]
