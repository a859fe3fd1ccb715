"""Photographs that bring their own highlights: written by libultrahdr, and by hand after the specifications."""

import io
import json
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ldr2hdr_cli.app import app
from ldr2hdr_cli.media.colour import P3D65
from ldr2hdr_cli.media.display_light import DisplayLight
from ldr2hdr_cli.media.exr import read_exr
from ldr2hdr_cli.media.sources import probe, read_still
from ldr2hdr_cli.media.ultrahdr import write_ultrahdr
from model import MaskedUNet, NetworkConfig, save_network
from model.exposure import linearise
from model.gain_map import OwnLight
from model.masked_unet import initialise

HEIGHT, WIDTH = 48, 64
ADOBE = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" {}</rdf:RDF></x:xmpmeta>'
)
APPLE = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/" HDRGainMap:HDRGainMapVersion="65536"{}>'
    '<apdi:AuxiliaryImageType xmlns:apdi="http://ns.apple.com/pixeldatainfo/1.0/">'
    "urn:com:apple:photo:2020:aux:hdrgainmap</apdi:AuxiliaryImageType></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def jpeg(codes: np.ndarray, *segments: tuple[int, bytes], **how) -> bytes:
    """segments: (marker, payload), put in behind the start of the image."""
    buffer = io.BytesIO()
    Image.fromarray(codes).save(buffer, "jpeg", quality=100, subsampling=0, **how)
    data = buffer.getvalue()
    extra = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return data[:2] + extra + data[2:]


def two_pictures(base: np.ndarray, gain: bytes, order: str = ">", **how) -> bytes:
    """A JPEG with another behind it, and the index of CIPA DC-007 that says where."""
    length = 8 + 2 + 3 * 12 + 4 + 32

    def index(size: int, offset: int) -> bytes:
        head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}IH", 8, 3)
        entries = struct.pack(f"{order}HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(f"{order}HHII", 0xB001, 4, 1, 2)
        entries += struct.pack(f"{order}HHIII", 0xB002, 7, 32, 50, 0)
        pictures = struct.pack(f"{order}IIIHH", 0x030000, size, 0, 0, 0)
        return head + entries + pictures + struct.pack(f"{order}IIIHH", 0, len(gain), offset, 0, 0)

    size = len(jpeg(base, (0xE2, b"MPF\0" + bytes(length)), **how))
    whole = jpeg(base, (0xE2, b"MPF\0" + index(size, size - 10)), **how)  # behind SOI, marker, length and "MPF\0"
    assert len(whole) == size
    return whole + gain


def xmp(text: str) -> tuple[int, bytes]:
    return 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text.encode()


def base(code: int = 200) -> np.ndarray:
    codes = np.full((HEIGHT, WIDTH, 3), code, np.uint8)
    codes[:, WIDTH // 2 :] = 255
    return codes


def ramp(channels: int = 1) -> np.ndarray:
    codes = np.tile(np.linspace(0, 255, WIDTH // 2).astype(np.uint8), (HEIGHT // 2, 1))
    return codes if channels == 1 else np.dstack([codes, codes // 2, codes * 0])


def light(path: Path) -> np.ndarray:
    """The file's own, linear."""
    info, frame = read_still(path, gain_map="use")
    assert info.gain_max and probe(path).gain_max == info.gain_max
    return linearise(frame.pixels, "srgb") * frame.gain


def sampled(gain: np.ndarray) -> np.ndarray:
    """The map at the size of the base, bilinear; H×W or H×W×3 in [0, 1]."""
    values = torch.from_numpy(gain.astype(np.float64) / 255).reshape(*gain.shape[:2], -1).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(values, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    return large[0].permute(1, 2, 0).numpy()


def ultra_hdr(path: Path, peak: float = 4) -> np.ndarray:
    scene = np.ones((64, 96, 4), np.float16)
    scene[..., :3] = np.linspace(0, peak**0.5, 96)[None, :, None] ** 2
    path.write_bytes(imagecodecs.ultrahdr_encode(scene))
    return scene[..., :3].astype(np.float32)


@pytest.mark.skipif(not hasattr(imagecodecs, "ultrahdr_encode"), reason="an imagecodecs from before libultrahdr")
def test_an_ultra_hdr_of_googles_encoder_has_its_own_light(tmp_path):
    """ISO 21496-1's metadata, as libultrahdr 1.4 writes it; its own decoder is the judge."""
    scene = ultra_hdr(tmp_path / "a.jpg")
    info, _ = read_still(tmp_path / "a.jpg", gain_map="use")
    assert info.chromaticities == P3D65 and not any("2 pictures" in note for note in info.notes)
    judge = imagecodecs.ultrahdr_decode((tmp_path / "a.jpg").read_bytes())[..., :3].astype(np.float32)
    found = light(tmp_path / "a.jpg")
    assert np.abs(found - judge).max() < 0.01 and np.abs(found - scene).max() < 0.08


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("form", ["attributes", "elements"])
def test_the_metadata_of_adobe_and_google(tmp_path, form, order):
    """Ultra HDR Image Format v1.1, "Gain map application": (base + OffsetSDR) · 2^gain − OffsetHDR."""
    values = {"GainMapMin": -0.5, "GainMapMax": 3, "Gamma": 0.8, "OffsetSDR": 0.02, "OffsetHDR": 0.01}
    if form == "attributes":
        inside = " ".join(f'hdrgm:{name}="{value}"' for name, value in values.items()) + "/>"
        gain = ramp()
    else:
        items = "".join(
            f"<hdrgm:{name}><rdf:Seq><rdf:li>{value}</rdf:li><rdf:li>{value}</rdf:li><rdf:li>{value}</rdf:li></rdf:Seq>"
            f"</hdrgm:{name}>"
            for name, value in values.items()
        )
        inside, gain = f">{items}</rdf:Description>", ramp(3)
    data = two_pictures(base(), jpeg(gain, xmp(ADOBE.format(inside))), order)
    (tmp_path / "a.jpg").write_bytes(data)
    gains = 2 ** (-0.5 + 3.5 * sampled(gain) ** (1 / 0.8))
    wanted = (linearise(base() / 255, "srgb") + 0.02) * gains - 0.01
    assert np.abs(light(tmp_path / "a.jpg") / wanted - 1).max() < 0.04  # of the JPEG


def test_the_defaults_of_the_metadata(tmp_path):
    gain = jpeg(ramp(), xmp(ADOBE.format('hdrgm:GainMapMax="2"/>')))
    (tmp_path / "a.jpg").write_bytes(two_pictures(base(), gain))
    wanted = (linearise(base() / 255, "srgb") + 1 / 64) * 4 ** sampled(ramp()) - 1 / 64
    assert np.abs(light(tmp_path / "a.jpg") / wanted - 1).max() < 0.03


def metadata(*most: int) -> bytes:
    """ISO 21496-1, annex C.2, of one channel or three: stops at the most, from 0 on, without offsets."""
    flags = 0xC0 if len(most) == 3 else 0x40
    fractions = [number for high in most for number in (0, 1, high * 10, 10, 1, 1, 0, 1, 0, 1)]
    return struct.pack(f">HHBIIII{len(fractions)}I", 0, 0, flags, 0, 1, 3, 1, *fractions)


def test_three_channels_of_iso_21496_1(tmp_path):
    payload = b"urn:iso:std:iso:ts:21496:-1\0" + metadata(3, 2, 1)
    (tmp_path / "a.jpg").write_bytes(two_pictures(base(), jpeg(ramp(3), (0xE2, payload))))
    wanted = linearise(base() / 255, "srgb") * 2 ** (sampled(ramp(3)) * [3, 2, 1])
    assert np.abs(light(tmp_path / "a.jpg") / wanted - 1).max() < 0.04
    assert probe(tmp_path / "a.jpg").gain_max == (8, 4, 2)


def maker_note(numbers: dict[int, float]) -> bytes:
    """Apple's: a big-endian IFD of signed rationals behind its name."""
    start = 14 + 2 + 12 * len(numbers) + 4
    entries = b"".join(struct.pack(">HHII", tag, 10, 1, start + 8 * place) for place, tag in enumerate(numbers))
    values = b"".join(struct.pack(">ii", round(value * 10_000), 10_000) for value in numbers.values())
    return b"Apple iOS\0\0\1MM" + struct.pack(">H", len(numbers)) + entries + bytes(4) + values


@pytest.mark.parametrize(
    ("numbers", "stops"),
    [({33: 0.5, 48: 0.005}, 1.7), ({33: 0.5, 48: 0.1}, 1.5909), ({33: 1.1, 48: 0.0}, 3.0), ({33: 1.1, 48: 1.0}, 2.0)],
)
def test_an_apple_photograph_has_its_headroom_in_the_maker_note(tmp_path, numbers, stops):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x927C] = maker_note(numbers)
    data = two_pictures(base(), jpeg(ramp(), xmp(APPLE.format(""))), exif=exif)
    (tmp_path / "a.jpg").write_bytes(data)
    assert np.log2(probe(tmp_path / "a.jpg").gain_max[0]) == pytest.approx(stops, abs=2e-3)
    found = light(tmp_path / "a.jpg")
    assert found[0, -1, 0] == pytest.approx(2**stops, rel=0.02)
    assert found[0, 0, 0] == pytest.approx(linearise(np.array([200 / 255]), "srgb")[0], rel=0.02)


def test_an_apple_photograph_may_have_it_in_the_maps_xmp(tmp_path):
    gain = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    text = APPLE.format(' HDRGainMap:HDRGainMapHeadroom="5"')
    (tmp_path / "a.jpg").write_bytes(two_pictures(base(), jpeg(gain, xmp(text))))
    wanted = 1 + 4 * linearise(np.array([128 / 255]), "bt709")[0]
    assert light(tmp_path / "a.jpg")[0, -1, 0] == pytest.approx(wanted, rel=0.02)


def boxes(data: bytes) -> dict[bytes, bytes]:
    """The bodies of the boxes in a row (ISO 14496-12, 4.2); of several with one name the first."""
    found, at = {}, 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.setdefault(data[at + 4 : at + 8], data[at + 8 : at + size])
        at += size
    return found


def box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def coded(codes: np.ndarray, kind: bytes, **how) -> tuple[bytes, bytes, bytes]:
    """Its configuration, its pixi and its coded picture, as libheif or libavif writes a file of one item."""
    buffer = io.BytesIO()
    if kind == b"av01":
        Image.fromarray(codes).save(buffer, "avif", quality=100, subsampling="4:4:4")
    else:
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(Image.fromarray(codes)).save(buffer, quality=-1, **how)
    whole = boxes(buffer.getvalue())
    properties = boxes(boxes(boxes(whole[b"meta"][4:])[b"iprp"])[b"ipco"])
    return properties[b"av1C" if kind == b"av01" else b"hvcC"], properties[b"pixi"], whole[b"mdat"]


def phone_heic(
    path: Path,
    picture: np.ndarray,
    gain: np.ndarray,
    exif: bytes,
    xmp: bytes = b"",
    turn: int = 0,
    tone_map: bytes = b"",
    kind: bytes = b"hvc1",
) -> None:
    """Two coded items and EXIF and XMP (ISO 23008-12, clauses 6 to 9).

    The second is auxiliary to the first as Apple has it; with tone_map, the metadata of ISO 21496-1, it is hidden, and
    an item of kind `tmap` is derived from both.
    """
    items = [coded(picture, kind, chroma=444, matrix_coefficients=6), coded(gain, kind)]
    payloads = [items[0][2], items[1][2], struct.pack(">I", 6) + exif, xmp]
    kinds = [kind, kind, b"Exif", b"mime"]
    if tone_map:
        payloads.append(b"\0" + tone_map)
        kinds.append(b"tmap")
    full = bytes(4)  # version and flags
    properties, associations = b"", b""
    count = 0
    for number, (codes, (config, pixi, _)) in enumerate(zip((picture, gain), items, strict=True), 1):
        own = [box(b"ispe", full, struct.pack(">II", codes.shape[1], codes.shape[0])), box(b"pixi", pixi)]
        own.append(box(b"av1C" if kind == b"av01" else b"hvcC", config))
        if number == 2 and not tone_map:
            own.append(box(b"auxC", full, b"urn:com:apple:photo:2020:aux:hdrgainmap\0"))
        if turn:
            own.append(box(b"irot", bytes([turn])))
        properties += b"".join(own)
        places = range(count + 1, count + len(own) + 1)
        associations += struct.pack(">HB", number, len(own)) + bytes(0x80 | place for place in places)
        count += len(own)
    entries = b"".join(
        box(b"infe", bytes([2, 0, 0, number == 2]), struct.pack(">HH4s", number, 0, kind),
            b"\0application/rdf+xml\0" if kind == b"mime" else b"\0")
        for number, kind in enumerate(kinds, 1)
    )  # fmt: skip
    references = b"".join(
        box(name, struct.pack(">HHH", this, 1, other))
        for name, this, other in ((b"auxl", 2, 1), (b"cdsc", 3, 1), (b"cdsc", 4, 2))[bool(tone_map) :]
    )
    if tone_map:
        references += box(b"dimg", struct.pack(">HHHH", 5, 2, 1, 2))

    def file(start: int) -> bytes:
        places, at = b"", start
        for number, payload in enumerate(payloads, 1):
            places += struct.pack(">HHHII", number, 0, 1, at, len(payload))
            at += len(payload)
        meta = box(
            b"meta",
            full,
            box(b"hdlr", full, bytes(4), b"pict", bytes(13)),
            box(b"pitm", full, struct.pack(">H", 1)),
            box(b"iinf", full, struct.pack(">H", len(kinds)), entries),
            box(b"iref", full, references),
            box(b"iprp", box(b"ipco", properties), box(b"ipma", full, struct.pack(">I", 2), associations)),
            box(b"iloc", full, b"\x44\0", struct.pack(">H", len(kinds)), places),
        )
        brand = b"avif" if kind == b"av01" else b"heic"
        head = box(b"ftyp", brand, bytes(4), b"mif1", brand) + meta
        return head + box(b"mdat", *payloads)

    path.write_bytes(file(len(file(0)) - sum(map(len, payloads))))


@pytest.mark.parametrize("turn", [0, 3])
@pytest.mark.parametrize("place", ["maker note", "xmp"])
def test_a_heic_of_a_phone_has_its_map_as_an_auxiliary_picture(tmp_path, place, turn):
    exif = Image.Exif()
    exif[0x0112] = {0: 1, 3: 6}[turn]
    if place == "maker note":
        exif.get_ifd(0x8769)[0x927C] = maker_note({33: 1.1, 48: 0.0})  # 8 times
    text = APPLE.format(' HDRGainMap:HDRGainMapHeadroom="8"').encode() if place == "xmp" else b""
    gain = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    picture = np.full((128, 192, 3), 200, np.uint8)
    picture[:, 96:] = 255
    phone_heic(tmp_path / "a.heic", picture, gain, exif.tobytes(), text, turn)
    info, frame = read_still(tmp_path / "a.heic", gain_map="use")
    assert info.gain_max == pytest.approx((8,), rel=1e-4) and info.codec == "heif"
    assert probe(tmp_path / "a.heic").gain_max == info.gain_max
    pixels, found = (np.rot90(one, turn // 3) for one in (frame.pixels, frame.gain))
    assert pixels.shape == picture.shape and np.abs(pixels * 255 - picture).max() < 2.1
    middle = 1 + 7 * linearise(np.array([0.5]), "bt709")[0]
    np.testing.assert_allclose(found[64, [0, 96, -1], 0], [1, middle, 8], rtol=0.03)


@pytest.mark.parametrize("turn", [0, 3])
@pytest.mark.parametrize(("name", "kind"), [("a.heic", b"hvc1"), ("a.avif", b"av01")])
def test_heif_and_avif_may_have_a_tone_map_after_the_standard(tmp_path, name, kind, turn):
    gain = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    picture = np.full((128, 192, 3), 255, np.uint8)
    path = tmp_path / name
    phone_heic(path, picture, gain, Image.Exif().tobytes(), turn=turn, tone_map=metadata(3), kind=kind)
    info, frame = read_still(path, gain_map="use")
    assert info.gain_max == (8.0,) and probe(path).gain_max == (8.0,)
    found = np.rot90(frame.gain, turn // 3)
    np.testing.assert_allclose(found[64, [0, 96, -1], 0], [1, 2**1.5, 8], rtol=0.03)
    assert read_still(path)[1].gain is None
    damaged = metadata(3)[:-4] + bytes(4)  # a fraction over 0
    phone_heic(path, picture, gain, Image.Exif().tobytes(), turn=turn, tone_map=damaged, kind=kind)
    info, frame = read_still(path, gain_map="use")
    assert frame.gain is None and any("gain map is damaged" in note for note in info.notes)
    assert frame.pixels.min() > 0.98


def test_the_ultra_hdr_that_convert_writes_is_read_with_its_light(tmp_path):
    """Its base says hdrgm:Version, as those of Android phones do."""
    Image.fromarray(base()).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    wanted = linearise(read_still(tmp_path / "a.jpg")[1].pixels, "srgb") * np.linspace(1, 4, WIDTH)[None, :, None]
    how = DisplayLight(peak=10_000)  # which has no shoulder
    write_ultrahdr(tmp_path / "b.jpg", wanted.astype(np.float32), tmp_path / "a.jpg", light=how)
    np.testing.assert_allclose(light(tmp_path / "b.jpg"), wanted, rtol=0.03)


def test_a_turned_photograph_turns_its_map(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    gain = jpeg(ramp(), xmp(ADOBE.format('hdrgm:GainMapMax="2" hdrgm:OffsetSDR="0" hdrgm:OffsetHDR="0"/>')))
    (tmp_path / "a.jpg").write_bytes(two_pictures(base(255), gain, exif=exif))
    info, frame = read_still(tmp_path / "a.jpg", gain_map="use")
    assert (info.width, info.height) == (HEIGHT, WIDTH) and frame.gain.shape == (WIDTH, HEIGHT, 1)
    assert frame.gain[0, :, 0].max() < 1.1 and frame.gain[-1, :, 0].min() > 3.9  # the stored right is the bottom


def test_a_second_picture_that_is_no_gain_map_is_none(tmp_path):
    (tmp_path / "a.jpg").write_bytes(two_pictures(base(), jpeg(ramp())))
    info, frame = read_still(tmp_path / "a.jpg", gain_map="use")
    assert frame.gain is None and not info.gain_max and any("2 pictures" in note for note in info.notes)


@pytest.mark.parametrize("kept", [40, 700])
def test_a_damaged_map_costs_the_map_and_not_the_picture(tmp_path, kept):
    """Cut in its metadata, and in its pixels."""
    text = ADOBE.format('hdrgm:GainMapMax="2"/>') if kept > 40 else ADOBE.format('hdrgm:GainMapMax="two"/>')
    data = two_pictures(base(), jpeg(ramp(), xmp(text)))
    (tmp_path / "a.jpg").write_bytes(data[: data.rindex(b"\xff\xd8") + kept] if kept > 40 else data)
    info, frame = read_still(tmp_path / "a.jpg", gain_map="use")
    assert frame.gain is None and any("gain map is damaged" in note for note in info.notes)
    assert np.abs(frame.pixels * 255 - base()).max() < 2


def test_the_network_decides_only_where_the_map_is_at_its_maximum_and_the_base_clipped():
    hdr = torch.tensor([[[9.0, 9, 9]], [[9, 9, 9]], [[9, 9, 9]], [[1, 1, 1]]])
    seen = torch.tensor([[[0.5, 0.5, 0.5]], [[1, 1, 1]], [[1, 1, 1]], [[1, 1, 1]]])
    gain = torch.tensor([[[4.0]], [[2]], [[4]], [[4]]])
    mask = torch.tensor([[[1.0, 1, 1]], [[0, 0, 0]], [[0, 0, 0]], [[0, 0, 0]]])
    found = OwnLight(gain, (4.0,)).beside(hdr, seen, mask)[:, 0, 0]
    # Well exposed; clipped below the maximum; clipped at it; and a network that knows less than the file.
    assert found.tolist() == [2.0, 2.0, 9.0, 4.0]


def test_convert_uses_ignores_or_takes_alone_what_a_photograph_brings(tmp_path):
    """Half is clipped; the map says two stops at most, and there is a network of its own opinion above."""
    weights = tmp_path / "w.safetensors"
    save_network(initialise(MaskedUNet(NetworkConfig(base_channels=4, depth=3, floor=True)), seed=1), weights)
    gain = jpeg(ramp(), xmp(ADOBE.format('hdrgm:GainMapMax="2" hdrgm:OffsetSDR="0" hdrgm:OffsetHDR="0"/>')))
    (tmp_path / "a.jpg").write_bytes(two_pictures(base(), gain))
    found, said = {}, {}
    for how in ("use", "ignore", "only"):
        command = ["convert", tmp_path / "a.jpg", "-o", tmp_path / how, "--json", "--weights", weights, "--float"]
        done = CliRunner().invoke(app, [*map(str, command), "--transfer", "srgb", "--gain-map", how, "--device", "cpu"])
        assert done.exit_code == 0, done.output
        found[how] = read_exr(tmp_path / how / "a.exr")[0]
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        said[how] = [event["message"] for event in events if event["event"] == "note"]
    own = light(tmp_path / "a.jpg")
    np.testing.assert_allclose(found["only"], own, rtol=1e-5)
    below = sampled(ramp())[..., 0] < 0.85
    np.testing.assert_allclose(found["use"][below], own[below], rtol=1e-5)
    top = np.s_[:, -1]
    np.testing.assert_allclose(found["use"][top], np.maximum(found["ignore"][top], own[top]), rtol=1e-4)
    assert (found["use"] >= own * (1 - 1e-6)).all() and not np.allclose(found["ignore"][below], own[below], rtol=0.05)
    assert "2.00 stops" in said["use"][0] and "taken alone" in said["only"][0] and "2 pictures" in said["ignore"][0]
