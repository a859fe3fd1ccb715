"""`ldr2hdr convert` on 360° panoramas, and on what only has their shape."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from ldr2hdr_cli.app import app
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.media.panorama import full_sphere, looks_like_panorama
from model import MaskedUNet, NetworkConfig, save_network
from model.masked_unet import initialise

HEIGHT, WIDTH = 256, 512


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3)), seed=1), path)
    return path


def panorama() -> np.ndarray:
    """Soft walls with a lamp about the middle; uint8."""
    phi, theta = np.meshgrid(
        (0.5 - (np.arange(HEIGHT) + 0.5) / HEIGHT) * np.pi,
        ((np.arange(WIDTH) + 0.5) / WIDTH * 2 - 1) * np.pi,
        indexing="ij",
    )
    directions = np.stack([np.cos(phi) * np.sin(theta), np.sin(phi), np.cos(phi) * np.cos(theta)], -1)
    codes = 110 + 60 * directions
    codes[directions @ (0.14, 0.17, 0.975) > 0.97] = 255
    return codes.round().astype(np.uint8)


def convert(out: Path, weights: Path, *arguments: object) -> list[dict]:
    """The events of a run in which nothing failed."""
    how = ["--precision", "fp32", "--float", "--json", "--transfer", "gamma"]
    words = ["convert", "-o", out, "--weights", weights, *how, *arguments]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def panorama_notes(events: list[dict]) -> list[str]:
    notes = [event["message"] for event in events if event["event"] == "note"]
    return [note for note in notes if "taken for a 360° panorama" in note]


def test_a_lamp_on_the_seam_comes_out_as_one_in_the_middle(tmp_path: Path, weights: Path) -> None:
    """The panorama, and the same one turned by half."""
    picture = panorama()
    Image.fromarray(picture).save(tmp_path / "middle.png")
    Image.fromarray(np.roll(picture, WIDTH // 2, 1)).save(tmp_path / "seam.png")
    events = convert(tmp_path / "out", weights, tmp_path / "middle.png", tmp_path / "seam.png")
    assert len(panorama_notes(events)) == 2
    middle, seam = (read_exr(tmp_path / "out" / f"{name}.exr")[0] for name in ("middle", "seam"))
    lamp = (picture == 255).all(2)
    assert np.ptp(middle[lamp]) > 0.01 and np.isfinite(middle).all()
    np.testing.assert_allclose(np.roll(seam, WIDTH // 2, 1), middle, atol=1e-3)
    np.testing.assert_array_equal(middle[~lamp], np.square(picture[~lamp] / np.float32(255)))
    flat = convert(tmp_path / "off", weights, tmp_path / "middle.png", tmp_path / "seam.png", "--panorama", "off")
    assert not panorama_notes(flat)
    middle, seam = (read_exr(tmp_path / "off" / f"{name}.exr")[0] for name in ("middle", "seam"))
    assert np.abs(np.roll(seam, WIDTH // 2, 1) - middle).max() > 0.01


def gpano(**more: str) -> bytes:
    said = {
        "ProjectionType": "equirectangular",
        "FullPanoWidthPixels": "512",
        "CroppedAreaImageWidthPixels": "512",
        **more,
    }
    attributes = " ".join(f'GPano:{name}="{value}"' for name, value in said.items())
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {attributes}/></x:xmpmeta>'.encode()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_what_a_file_says_of_itself_counts_before_what_it_shows(tmp_path: Path, weights: Path, suffix: str) -> None:
    closed = Image.fromarray(panorama())
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 250, 3), dtype=np.uint8))
    for name, picture, said in (("part", closed, gpano(FullPanoWidthPixels="1024")), ("whole", noise, gpano())):
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", said.decode())
        picture.save(tmp_path / f"{name}.{suffix}", xmp=said, pnginfo=text)
    events = convert(tmp_path / "out", weights, tmp_path / f"part.{suffix}", tmp_path / f"whole.{suffix}")
    (note,) = panorama_notes(events)
    assert "whole." in note and "its XMP says so" in note


def test_gpano_as_elements_and_broken() -> None:
    elements = "<GPano:ProjectionType>equirectangular</GPano:ProjectionType>"
    assert full_sphere(elements) is True
    assert full_sphere(elements.replace("equirectangular", "cylindrical")) is False
    assert full_sphere(elements + "<GPano:FullPanoHeightPixels>9</GPano:FullPanoHeightPixels>") is False
    assert full_sphere(b"\xff\x00GPano:") is None and full_sphere(None) is None and full_sphere("<x/>") is None


def test_a_wide_picture_is_no_panorama() -> None:
    """2:1 is a format of films and of icons."""
    closed = panorama().astype(np.float32) / 255
    assert looks_like_panorama(closed)
    assert not looks_like_panorama(closed[1:]) and not looks_like_panorama(closed[::4, ::4])
    assert not looks_like_panorama(np.roll(closed, 64, 0))  # its first row is none of a sphere
    film = np.linspace(0, 1, WIDTH, dtype=np.float32)[None, :, None] * np.ones((HEIGHT, 1, 3), np.float32)
    assert not looks_like_panorama(film)
    assert not looks_like_panorama(np.zeros_like(film))


def test_a_clip_is_a_panorama_only_where_it_is_said(tmp_path: Path, weights: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for shift in (0, WIDTH // 2):
            frame = av.VideoFrame.from_ndarray(np.roll(panorama(), shift, 1), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode())
    same = {}
    for wanted in ("auto", "on"):
        convert(tmp_path / wanted, weights, tmp_path / "clip.mkv", "--panorama", wanted, "--temporal", "off")
        first, second = (read_exr(tmp_path / wanted / "clip" / f"clip.00000{n}.exr")[0] for n in (1, 2))
        same[wanted] = np.allclose(np.roll(second, WIDTH // 2, 1), first, atol=1e-3)
    assert same == {"auto": False, "on": True}
