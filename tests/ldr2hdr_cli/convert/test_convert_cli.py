"""`ldr2hdr convert` as a subprocess, on real files: what it writes, says and returns."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from ldr2hdr_cli import option_values, options
from ldr2hdr_cli.app import _interrupted, app
from ldr2hdr_cli.media.exr import read_exr
from model import MaskedUNet, NetworkConfig, save_network
from model.errors import Ldr2hdrError
from model.masked_unet import initialise
from tests import cli


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A network small enough to run hundreds of times."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), path)
    return path


@pytest.fixture
def photo(tmp_path) -> Path:
    """64×48, a third of it blown out."""
    path = tmp_path / "photo.png"
    Image.fromarray(picture()).save(path)
    return path


def picture(seed: int = 0, width: int = 64, height: int = 48) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 240, (height, width, 3), dtype=np.uint8)
    values[: height // 3] = 255
    return values


def clip(path: Path, frames: int = 6) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for index in range(frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="bgr0"))
            )
        container.mux(stream.encode())
    return path


def here(*arguments) -> Result:
    """In this process, which is quicker, and can be meddled with."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_working_size_is_written_down_and_changes_what_was_clipped(photo, tmp_path, weights):
    for name in ("auto", "off", "16"):
        out = tmp_path / name
        done = cli.run("convert", photo, "-o", out, "--weights", weights, "--float", "--working-size", name)
        assert done.returncode == 0, done.stderr
    (auto, _, first), (off, _, second), (small, _, third) = (
        read_exr(tmp_path / name / "photo.exr") for name in ("auto", "off", "16")
    )
    settings = [json.loads(attributes["ldr2hdr/settings"]) for attributes in (first, second, third)]
    assert [one["working_size"] for one in settings] == ["512 smooth", "off", "16 smooth"]
    assert np.array_equal(auto, off)  # 64 pixels are fewer than 512
    clipped = np.asarray(Image.open(photo)) == 255
    assert not np.array_equal(small[clipped], off[clipped]) and np.array_equal(small[~clipped], off[~clipped])


def test_a_photograph_becomes_an_exr_that_keeps_what_was_well_exposed(photo, tmp_path, weights):
    done = cli.run("convert", photo, "-o", tmp_path / "out", "--weights", weights, "--float", "--preview")
    assert done.returncode == 0, done.stderr
    pixels, channels, attributes = read_exr(tmp_path / "out" / "photo.exr")
    assert channels == ["R", "G", "B"]
    source = np.asarray(Image.open(photo), np.float32) / 255
    exposed = source <= 0.96
    light = np.where(source <= 0.04045, source / 12.92, ((source + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    assert np.allclose(pixels[exposed], light[exposed], rtol=1e-5)
    assert attributes["ldr2hdr/source"] == "photo.png"
    strip = np.asarray(Image.open(tmp_path / "out" / "photo.preview.png"))
    assert strip.ndim == 3 and strip.shape[1] > 3 * strip.shape[0]


def test_a_clip_becomes_numbered_frames_with_its_rate_and_the_chosen_range(tmp_path, weights):
    source = clip(tmp_path / "clip.mkv")
    done = cli.run("convert", source, "-o", tmp_path / "out", "--weights", weights, "--frames", "2-5", "--every", "2")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out" / "clip").iterdir()) == ["clip.000002.exr", "clip.000004.exr"]
    _, _, attributes = read_exr(tmp_path / "out" / "clip" / "clip.000002.exr")
    assert float(attributes["framesPerSecond"]) == 25


def test_json_tells_the_share_that_was_clipped_and_where_the_time_went(photo, tmp_path, monkeypatch):
    from ldr2hdr_cli.convert import operators, run

    def slow(function, seconds):
        return lambda *given, **more: (time.sleep(seconds), function(*given, **more))[1]

    monkeypatch.setattr(operators, "expand", slow(operators.expand, 0.3))
    monkeypatch.setattr(run, "write_exr", slow(run.write_exr, 0.2))
    said = here("convert", photo, "-o", tmp_path / "out", "--method", "clip", "--json").stdout
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]  # the oldest Click has one stream
    (done,) = [event for event in events if event["event"] == "done"]
    assert done["output"] == str(tmp_path / "out" / "photo.exr")
    assert done["clipped"] == pytest.approx(1 / 3, abs=0.01) and done["peak"] == 1
    assert done["read_seconds"] > 0 and done["reconstruct_seconds"] >= 0.3 and done["write_seconds"] >= 0.2
    parts = done["read_seconds"] + done["reconstruct_seconds"] + done["write_seconds"]
    assert done["seconds"] == pytest.approx(parts, abs=2e-4)


def test_the_same_command_again_does_only_what_is_missing(tmp_path, weights):
    source = clip(tmp_path / "clip.mkv")
    command = ("convert", source, "-o", tmp_path / "out", "--weights", weights, "--json")
    assert cli.run(*command).returncode == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out" / "clip").iterdir()}
    (tmp_path / "out" / "clip" / "clip.000003.exr").unlink()
    again = cli.run(*command)
    events = [json.loads(line)["event"] for line in again.stdout.splitlines()]
    assert events.count("done") == 1 and events.count("skipped") == 5
    assert {p.name: p.read_bytes() for p in (tmp_path / "out" / "clip").iterdir()} == before


def test_one_bad_file_fails_alone(photo, tmp_path, weights):
    folder = tmp_path / "in"
    folder.mkdir()
    photo.rename(folder / "good.png")
    (folder / "bad.jpg").write_text("this is no picture")
    whole = folder / "whole.jpg"
    Image.fromarray(picture(width=200, height=200)).save(whole)
    (folder / "cut.jpg").write_bytes(whole.read_bytes()[:4000])
    done = cli.run("convert", folder, "-o", tmp_path / "out", "--weights", weights)
    assert done.returncode == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("*.exr")) == ["good.exr", "whole.exr"]
    assert "bad.jpg" in done.stderr and "cut.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_damaged_clip_keeps_its_good_frames_and_names_the_others(tmp_path):
    source = tmp_path / "reel.mov"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        packets = [
            packet
            for index in range(8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(index)).reformat(format="yuvj420p"))
        ]
        broken = bytes(packets[5])
        container.mux(packets)
        container.mux(stream.encode())
    source.write_bytes(source.read_bytes().replace(broken, bytes(len(broken))))
    done = cli.run("convert", source, "-o", tmp_path / "out", "--method", "clip", "--start-number", "100")
    assert done.returncode == 1
    names = sorted(path.name for path in (tmp_path / "out" / "reel").iterdir())
    assert names == [f"reel.{number:06d}.exr" for number in range(100, 108) if number != 105]
    assert "frame 105 cannot be decoded" in " ".join(done.stderr.split())


def misuse(*arguments, says: str) -> None:
    done = cli.run(*arguments)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_directory_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    misuse("convert", tmp_path / "empty", "-o", tmp_path / "out", says="empty")


def test_a_missing_file_is_named(tmp_path):
    misuse("convert", tmp_path / "gone.jpg", "-o", tmp_path / "out", says="gone.jpg")


def test_an_unwritable_output_is_named(photo, tmp_path, weights):
    (tmp_path / "file").write_text("not a directory")
    misuse("convert", photo, "-o", tmp_path / "file" / "out", "--weights", weights, says=str(tmp_path / "file"))


def test_a_weights_file_that_is_something_else_is_named(photo, tmp_path):
    misuse("convert", photo, "-o", tmp_path / "out", "--weights", photo, says="photo.png")


def test_an_audio_file_fails_with_a_sentence(tmp_path, weights):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    done = cli.run("convert", path, "-o", tmp_path / "out", "--weights", weights)
    assert done.returncode in (1, 2)
    assert "sound.wav" in done.stderr and "Traceback" not in done.stderr


def test_verify_reads_a_result_whose_name_is_not_utf_8(photo, tmp_path):
    name = os.fsdecode(b"plate\xff")
    try:
        photo.rename(tmp_path / f"{name}.png")
    except OSError:
        pytest.skip("this file system has no such names")
    for _ in range(2):
        done = here("convert", tmp_path / f"{name}.png", "-o", tmp_path / "out", "--method", "clip", "--verify")
        assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / f"{name}.exr").is_file() and "again" not in done.output


def test_two_inputs_for_one_output_are_refused(photo, tmp_path, weights):
    twin = tmp_path / "other" / "photo.png"
    twin.parent.mkdir()
    twin.write_bytes(photo.read_bytes())
    misuse("convert", photo, twin, "-o", tmp_path / "out", "--weights", weights, says="would both write")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(photo, tmp_path):
    done = cli.run("convert", photo, "-o", tmp_path / "out", "--dry-run")
    assert done.returncode == 0
    assert done.stdout == f"{photo} -> {tmp_path / 'out' / 'photo.exr'}\n"
    assert not (tmp_path / "out").exists()


def test_names_that_look_like_markup_or_options_are_only_names(tmp_path, weights):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("[red]a.png", "-b.png", "c d\n.png", "ü.png"):
        Image.fromarray(picture()).save(folder / name, format="PNG")
    done = cli.run("convert", folder, "-o", tmp_path / "out", "--weights", weights)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").glob("*.exr")) == ["-b.exr", "[red]a.exr", "c d\n.exr", "ü.exr"]


def test_a_classical_operator_runs_without_weights(photo, tmp_path):
    done = cli.run("convert", photo, "-o", tmp_path / "out", "--method", "clip", "--float")
    assert done.returncode == 0, done.stderr
    pixels, _, attributes = read_exr(tmp_path / "out" / "photo.exr")
    assert pixels.max() == 1.0
    assert "clip" in str(attributes["ldr2hdr/settings"])


def test_an_interrupted_run_ends_with_130_and_the_next_one_completes_to_the_same_bytes(tmp_path, weights):
    source = clip(tmp_path / "clip.mkv", frames=70)
    arguments = ["convert", source, "--weights", weights, "--json"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli.run(*arguments, "-o", whole).returncode == 0
    run = cli.start(*arguments, "-o", parts)
    next(line for line in run.stdout if '"done"' in line)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    made = len(list((parts / "clip").glob("*.exr")))
    assert run.returncode == 130 and 0 < made < 70, (run.returncode, made, stderr)
    assert "To go on" in stderr
    assert cli.run(*arguments, "-o", parts).returncode == 0
    for path in (whole / "clip").iterdir():
        assert (parts / "clip" / path.name).read_bytes() == path.read_bytes()


def test_help_does_not_load_torch():
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ldr2hdr_cli.app", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert loaded.returncode == 0
    assert "convert" in loaded.stdout
    for heavy in ("torch", "numpy", "cv2", "av", "OpenEXR", "natsort", "psutil", "jinja2"):
        assert f" {heavy}\n" not in loaded.stderr, heavy


@pytest.mark.parametrize(
    "option",
    [("--tile", "huge"), ("--working-size", "0"), ("--memory", "lots"), ("--frames", "9-1"), ("--device", "abacus")],
)
def test_an_option_that_makes_no_sense_is_misuse(photo, tmp_path, weights, option):
    misuse("convert", photo, "-o", tmp_path / "out", "--weights", weights, *option, says=option[1])


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--exposure", ["nan", "inf", "-inf", "1e9", "32.1", "-33"]),
        ("--gamma", ["nan", "inf", "0"]),
        ("--dwa-level", ["nan", "inf", "-1", "1e9"]),
        ("--tile", ["²", "①", "0", "-1", "9" * 5000]),
        ("--working-size", ["²", "0", "9" * 5000]),
        ("--memory", ["0.5", "0.0001K", "0", "nan", "9" * 400, "²G"]),
    ],
)
def test_numbers_that_are_none_or_beyond_reason_are_misuse(photo, tmp_path, weights, option, values):
    for value in values:
        done = here("convert", photo, "-o", tmp_path / "out", "--weights", weights, f"{option}={value}")
        assert isinstance(done.exception, Ldr2hdrError) or done.exit_code == 2, (value, done.output)
        assert option in f"{done.exception}{done.output}"
    assert not list(tmp_path.rglob("*.exr"))


def test_the_exposure_is_as_many_stops_as_were_asked_for(photo, tmp_path, weights):
    for stops in (0, 32, -32):
        done = here("convert", photo, "-o", tmp_path / str(stops), "--weights", weights, "--float", "--exposure", stops)
        assert done.exit_code == 0, done.output
    plain, bright, dark = (read_exr(tmp_path / str(stops) / "photo.exr")[0] for stops in (0, 32, -32))
    assert np.array_equal(bright, plain * np.float32(2**32)) and np.array_equal(dark, plain * np.float32(2**-32))


def test_memory_limits_the_tiles(photo, tmp_path, weights):
    hows = {"all": (), "memory": ("--memory", "182K"), "tile": ("--tile", "32")}  # 177 bytes a pixel
    for name, how in hows.items():
        common = ("--weights", weights, "--float", "--precision", "fp32", "--overlap", 8)
        assert here("convert", photo, "-o", tmp_path / name, *common, *how).exit_code == 0
    whole, memory, tile = (read_exr(tmp_path / name / "photo.exr")[0] for name in hows)
    assert np.array_equal(memory, tile) and not np.array_equal(memory, whole)


@pytest.mark.parametrize("format", ["exr", "hdr"])
def test_what_is_no_light_is_not_written(photo, tmp_path, format):
    net = initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e30)  # finite, and the sums are not
    save_network(net, tmp_path / "huge.safetensors")
    Image.fromarray(picture()[30:]).save(tmp_path / "dark.png")  # without anything clipped
    dark = tmp_path / "dark.png"
    done = here(
        "convert", photo, dark, "-o", tmp_path, "--weights", tmp_path / "huge.safetensors", "--format", format, "--json"
    )
    assert done.exit_code == 1, done.output
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = [event["message"] for event in events if event["event"] == "failed"]
    assert len(failed) == 1 and "photo.png" in failed[0] and "nan" in failed[0]
    assert [path.name for path in tmp_path.glob(f"*.{format}")] == [f"dark.{format}"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-6])
def test_one_value_that_is_no_light_is_enough(photo, tmp_path, monkeypatch, value):
    def spoilt(ldr, *_, **__):
        result = ldr.copy()
        result[7, 5, 1] = value
        return result

    monkeypatch.setattr("ldr2hdr_cli.convert.operators.expand", spoilt)
    done = here("convert", photo, "-o", tmp_path / "out", "--method", "clip", "--preview")
    assert done.exit_code == 1 and "no light" in done.output
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".exr", ".png")]


# A module that is slow to load, where a signal arrives; as in torch's C code, an exception is not heeded there.
SLOW = """
import os, signal
try:
    os.kill(os.getpid(), signal.{signal})
    for _ in range(100): pass
except BaseException:
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("command", ["info", "convert"])
def test_a_signal_during_an_import_ends_the_process_without_a_word(photo, tmp_path, name, command):
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "torch.py").write_text(SLOW.format(signal=name))
    arguments = ["info"] if command == "info" else ["convert", str(photo), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "ldr2hdr_cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "fake"), *sys.path])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.Signals[name], "", "")


def test_an_interrupt_elsewhere_is_still_an_exception():
    with pytest.raises(KeyboardInterrupt):
        _interrupted(signal.SIGINT, sys._getframe())


def test_a_range_without_a_frame_fails_each_clip_that_has_none(tmp_path):
    clip(tmp_path / "short.avi", 3), clip(tmp_path / "long.mkv", 6)
    for number in (1, 2):
        Image.fromarray(picture(number)).save(tmp_path / f"plate.{number:04d}.png")
    given = (tmp_path / "short.avi", tmp_path / "long.mkv", tmp_path / "plate.%04d.png")
    for how, name in (((), "plain"), (("--fps", "25"), "clip")):
        out = tmp_path / name
        for _ in range(2):  # also where the others are finished
            done = here("convert", *given, "-o", out, "--method", "clip", "--frames", "4-5", *how)
            said = " ".join(done.output.split())
            assert done.exit_code == 1
            assert "short.avi has no frame in --frames 4-5; it has 3, from number 1 on." in said
            assert "plate.%04d.png has no picture in --frames 4-5; their numbers go from 1 to 2." in said
            assert "long.mkv has no" not in said
            assert sorted(path.name for path in out.rglob("*.exr")) == ["long.000004.exr", "long.000005.exr"]


def test_pictures_of_one_name_keep_their_suffixes_also_beside_their_results(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, name in enumerate(("a.png", "a.webp", "b.png")):
        Image.fromarray(picture(index)).save(folder / name)
    command = ("convert", folder, "-o", folder, "--method", "clip", "--preview", "--json")
    dry = here(*command, "--dry-run")
    plans = [json.loads(line) for line in dry.stdout.splitlines() if line.startswith('{"event": "plan"')]
    names = ["a.png.exr", "a.webp.exr", "b.exr"]
    assert [Path(event["output"]).name for event in plans] == names
    done = here(*command)
    assert done.exit_code == 0 and "2 inputs would share names with others" in done.output
    assert sorted(path.name for path in folder.glob("*.exr")) == names
    assert read_exr(folder / "a.webp.exr")[2]["ldr2hdr/source"] == "a.webp"
    assert {path.name for path in folder.glob("*.preview.png")} == {
        "a.png.preview.png",
        "a.webp.preview.png",
        "b.preview.png",
    }
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    again = here(*command)
    assert again.exit_code == 0 and again.stdout.count('"event": "skipped"') == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_debug_shows_the_traceback_of_what_was_not_foreseen(photo, tmp_path, monkeypatch):
    def fault(*_, **__):
        raise ZeroDivisionError("\x1b[31mred")

    monkeypatch.setattr("ldr2hdr_cli.convert.operators.expand", fault)
    for debug in ([], ["--debug"]):
        done = here(*debug, "convert", photo, "-o", tmp_path / "out", "--method", "clip")
        assert done.exit_code == 1 and "unexpected ZeroDivisionError" in done.output
        assert ("Traceback (most recent call last)" in done.output) == bool(debug)
        assert ("in fault" in done.output) == bool(debug)
        assert "\x1b[31m" not in done.output


def test_version():
    done = cli.run("--version")
    assert done.stdout.startswith("ldr2hdr 0.")


def test_several_devices_give_the_bytes_and_the_order_of_one(tmp_path, photo, weights):
    """Whichever device meets which frame, photograph or clip."""
    sources = [clip(tmp_path / "clip.mkv", frames=7), photo, clip(tmp_path / "sequel.mkv", frames=3)]
    said = []
    for device in ("cpu", "cpu,cpu"):
        out = tmp_path / device.replace(",", "-")
        done = cli.run("convert", *sources, "-o", out, "--weights", weights, "--device", device, "--json")
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        said.append([Path(event["output"]).relative_to(out) for event in events if event["event"] == "done"])
    assert said[0] == said[1] == sorted(said[0]) and len(said[0]) == 7 + 1 + 3
    for name in said[0]:
        one, both = (tmp_path / device / name for device in ("cpu", "cpu-cpu"))
        assert one.read_bytes() == both.read_bytes()


def test_a_device_that_is_not_there_is_named(tmp_path, photo, weights):
    done = cli.run("convert", photo, "-o", tmp_path / "out", "--weights", weights, "--device", "cpu,warp:9")
    assert done.returncode == 2
    assert "--device warp:9: cannot be used" in done.stderr and "Traceback" not in done.stderr


def whole(items):
    """A job that is not cut."""
    from ldr2hdr_cli.convert.chunks import cut
    from ldr2hdr_cli.convert.job import Selection

    return cut(items, Selection(), is_sequence_clip=False, length=lambda _: None)


def test_large_pictures_wait_for_room_instead_of_filling_the_memory(tmp_path, monkeypatch):
    from ldr2hdr_cli.convert import job, pipeline
    from ldr2hdr_cli.convert.chunks import ChunkEnded
    from ldr2hdr_cli.convert.events import Done
    from ldr2hdr_cli.convert.worklist import Options
    from ldr2hdr_cli.media.sources import find_inputs
    from model.rendering import Rendering, rendered

    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(picture(number)).save(paths[-1])
    in_hand, most = set(), []

    class Operator:
        workers, ahead = 1, 0

        def predict(self, work):
            light = torch.from_numpy(work.frame.pixels)
            return rendered(lambda rows: light[rows], light[..., 0] == 1, Rendering(), half=True)

        def finish(self, work, predicted):
            return predicted

        def lose(self, work):
            raise AssertionError(work)

        def close(self):
            pass

    def write(work, hdr):
        in_hand.discard(work.output)
        return 0

    read = pipeline._PixelBudget.enter

    def enter(self, work, timeout):
        if entered := read(self, work, timeout):
            in_hand.add(work.output)
            most.append(len(in_hand))
            work.output.parent.mkdir(parents=True, exist_ok=True)
            work.output.touch()
        return entered

    monkeypatch.setattr(pipeline._PixelBudget, "enter", enter)
    out = tmp_path / "out"
    out.mkdir()
    for pixels, expected in ((64 * 48 * 3 // 2, 1), (64 * 48 * 2, 2)):
        most.clear()
        manifest = job.Manifest(out)
        items = job.plan(find_inputs(list(map(str, paths))), out, ".exr")
        options = Options(pixels=pixels, overwrite=True)
        events = list(pipeline.run(whole(items), Operator(), write, manifest, job.Settings(), options))
        manifest.close()
        assert [type(event) for event in events] == [Done] * 5 + [ChunkEnded]
        assert max(most) <= expected


def converted(out: Path, *arguments) -> tuple[np.ndarray, dict[str, str]]:
    """The one EXR that an invocation in this process makes of a picture, and its settings."""
    result = CliRunner().invoke(app, ["convert", "-o", str(out), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    (path,) = out.rglob("*.exr")
    pixels, _, attributes = read_exr(path)
    return pixels, json.loads(attributes["ldr2hdr/settings"])


def test_strength_scales_what_is_added_in_stops_and_leaves_the_rest(tmp_path, photo):
    net = initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1)
    with torch.no_grad():
        net.decoder[0].conv.weight.mul_(0.1)
        net.decoder[0].conv.bias.fill_(1.5)
    save_network(net, tmp_path / "bright.safetensors")
    how = (photo, "--weights", tmp_path / "bright.safetensors", "--float")
    made = {text: converted(tmp_path / text, *how, "--strength", text) for text in ("0", "0.5", "1", "2")}
    usual, settings = converted(tmp_path / "usual", *how)
    assert np.array_equal(made["1"][0], usual) and settings["strength"] == "1.0"
    assert made["0.5"][1]["strength"] == "0.5"
    white = slice(0, 48 // 3)
    assert usual[white].min() > 0.01 and np.ptp(usual[white]) > 0.1 and np.allclose(made["0"][0][white], 1)
    stops = {text: np.log2(pixels[white].clip(1e-6)) for text, (pixels, _) in made.items()}
    for text in ("0.5", "2"):
        np.testing.assert_allclose(stops[text], float(text) * stops["1"], atol=1e-4)
        assert np.array_equal(made[text][0][20:], usual[20:])
    refused = CliRunner().invoke(app, ["convert", str(photo), "-o", str(tmp_path), "--strength", "2.5"])
    assert refused.exit_code == 2


def test_a_threshold_decides_what_counts_as_clipped(tmp_path, photo, weights):
    how = (photo, "--weights", weights, "--float", "--transfer", "gamma")
    usual, settings = converted(tmp_path / "usual", *how)
    assert settings["threshold"] == "0.96"
    lower, settings = converted(tmp_path / "lower", *how, "--threshold", "0.5")
    assert settings["threshold"] == "0.5"
    square = (picture() / np.float32(255)) ** 2
    assert (np.abs(usual - square)[20:] < 1e-6).all()
    changed = np.abs(lower - square) > 1e-6
    assert changed[20:].any() and not changed[picture() / 255 <= 0.5].any()


def test_a_decoder_that_is_not_there_is_told_and_made_up_for(tmp_path, weights):
    source = clip(tmp_path / "clip.mkv", 2)
    for name in ("none", "d3d11va" if sys.platform != "win32" else "videotoolbox"):
        arguments = ["convert", str(source), "-o", str(tmp_path / name), "--weights", str(weights), "--hwaccel", name]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        said = " ".join(result.output.split())
        assert ("clips are decoded in software" in said) == (name != "none")
    first, other = ([path.read_bytes() for path in sorted((tmp_path / name).rglob("*.exr"))] for name in ("none", name))
    assert len(first) == 2 and first == other


@pytest.mark.parametrize(("there", "threads"), [(1, 2), (8, 8), (64, 16)])
def test_there_are_as_many_encoders_as_cores(monkeypatch, there, threads):
    monkeypatch.setattr(option_values, "cores", lambda: there)
    assert option_values.encoder_threads(options.ConvertOptions().encoders) == threads
    assert option_values.encoder_threads(options.ConvertOptions(encoders=3).encoders) == 3  # type: ignore[arg-type]
    with pytest.raises(Ldr2hdrError, match="encoders 0: give a number of threads, or auto"):
        options.ConvertOptions(encoders="0")


def test_hundreds_of_frames_are_told_in_their_order_and_none_is_held_too_long(tmp_path):
    """However fast what comes after the network is; and nothing of it is done by the thread that hands on."""
    from ldr2hdr_cli.convert import job, pipeline
    from ldr2hdr_cli.convert.events import Done
    from ldr2hdr_cli.convert.worklist import Options
    from ldr2hdr_cli.media.sources import find_inputs
    from model.rendering import Rendering, rendered

    source = clip(tmp_path / "clip.mkv", 40)
    began, most, order, caller = [], [], [], threading.get_ident()

    class Operator:
        workers, ahead = 2, 3

        def predict(self, work):
            began.append(work.number)
            return torch.from_numpy(work.frame.pixels)

        def finish(self, work, light):
            order.append(work.number)
            assert threading.get_ident() != caller
            return rendered(lambda rows: light[rows], light[..., 0] == 1, Rendering(), half=True)

        def lose(self, work):
            raise AssertionError(work)

        def close(self):
            pass

    def write(work, result):
        most.append(len(began) - work.number)
        work.output.touch()
        return 0

    items = job.plan(find_inputs([str(source)]), tmp_path / "out", ".exr")
    (tmp_path / "out").mkdir()
    manifest = job.Manifest(tmp_path / "out")
    events = list(pipeline.run(whole(items), Operator(), write, manifest, job.Settings(), Options(encoders=4)))
    manifest.close()
    done = [event for event in events if isinstance(event, Done)]
    assert [event.frame for event in done] == list(range(1, 41)) and order == list(range(40))
    assert max(most) <= 2 + 3 + 4 + 2
