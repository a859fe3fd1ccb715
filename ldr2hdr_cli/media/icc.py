"""What an ICC profile says: its primaries and curve where they can be kept, a conversion to sRGB where not."""

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from ldr2hdr_cli.media.colour import (
    ADOBE_RGB,
    P3D65,
    PROPHOTO,
    REC709,
    REC2020,
    SRGB_CURVE,
    Chromaticities,
    adaptation,
    are_primaries,
    to_xyz,
    white,
)
from model.exposure import Encoding, encode, linearise

KNOWN = {"bt709": REC709, "p3d65": P3D65, "adobergb": ADOBE_RGB, "bt2020": REC2020, "prophoto": PROPHOTO}
_XY_TOLERANCE = 0.004  # profiles round their primaries
_CODES = np.linspace(0, 1, 1025)
_CURVE_TOLERANCE = 0.5 / 255  # of a code
_TABLE_STEP = 1 / 65535  # of what a table of 16 bits can hold
_PCS_WHITE = np.array([0.9642, 1.0, 0.8249])  # D50 as profiles store it (ICC.1:2022, 7.2.16)


@dataclass(frozen=True)
class Space:
    """What the codes of a picture mean: the name of its primaries, their xy, and its curve.

    is_converted: its profile can only be used by converting to this space.
    """

    primaries: str = "bt709"
    chromaticities: Chromaticities = REC709
    encoding: Encoding = SRGB_CURVE
    is_converted: bool = False


SRGB = Space()


@lru_cache(maxsize=16)
def space_of(profile: bytes) -> Space | None:
    """The space of a profile; None for one that cannot be read, whose picture is as if it had none.

    A profile of three primaries and one curve, or of a grey curve, is kept as it is where the curve is one of
    `model.exposure`'s within half a code of 8 bits. Any other, with tables or for inks, is converted to sRGB.
    """
    try:
        with np.errstate(all="ignore"):  # a damaged profile may hold anything
            return _space(_tags(profile), profile[16:20])
    except (KeyError, ValueError, struct.error, np.linalg.LinAlgError, ArithmeticError):
        return None


def _space(tags: Mapping[bytes, bytes], model: bytes) -> Space | None:
    if model == b"GRAY":
        encoding = _encoding([_curve(tags[b"kTRC"])])
        return Space(encoding=encoding) if encoding else Space(is_converted=True)
    if model != b"RGB " or b"A2B0" in tags or b"A2B1" in tags:
        return Space(is_converted=True) if model in _MODELS else None
    encoding = _encoding([_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")])
    if encoding is None:
        return Space(is_converted=True)
    name, chromaticities = _primaries(tags)
    return Space(name, chromaticities, encoding)


_MODELS = (b"RGB ", b"CMYK", b"Lab ")


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """ICC.1:2022, 7.3. Raises struct.error, ValueError."""
    if profile[36:40] != b"acsp":
        raise ValueError("no profile")
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * index) for index in range(min(count, 200))]
    return {name: profile[at : at + size] for name, at, size in entries}


def _curve(tag: bytes) -> np.ndarray:
    """The light of `_CODES` by a curve: a gamma, a table or a formula (ICC.1:2022, 10.6 and 10.18)."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return _CODES
        table = np.array(struct.unpack_from(f">{count}H", tag, 12))
        if count == 1:
            return _CODES ** (table[0] / 256)
        return np.interp(_CODES, np.linspace(0, 1, count), table / 65535)
    if tag[:4] != b"para":
        raise ValueError("no curve")
    (kind,) = struct.unpack_from(">H", tag, 8)
    given = struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind] if kind < 5 else 99}i", tag, 12)
    g, a, b, c, d, e, f = (*(value / 65536 for value in given), *(0.0,) * 7)[:7]
    if kind == 0:
        return _CODES**g
    if kind in (1, 2):  # Y = (aX + b)^g + c from −b/a on, and c below
        a, b, c, d, e, f = a, b, 0.0, -b / a, c, c
    above = np.maximum(a * _CODES + b, 0) ** g + (e if kind in (2, 4) else 0)
    return np.where(d <= _CODES, above, c * _CODES + (f if kind in (2, 4) else 0))


def _encoding(curves: list[np.ndarray]) -> Encoding | None:
    """The transfer that all curves are; None where there is none."""
    middle = curves[0][len(_CODES) // 2]
    gamma = float(np.log(middle) / np.log(0.5)) if 0 < middle < 1 else 1.0
    candidates = [Encoding("srgb"), Encoding("bt709"), Encoding("prophoto"), Encoding("gamma", round(gamma, 5))]
    misses = [max(_miss(curve, one) for curve in curves) for one in candidates]
    best = int(np.argmin(np.nan_to_num(misses, nan=np.inf)))
    return candidates[best] if misses[best] <= _CURVE_TOLERANCE else None


def _miss(curve: np.ndarray, encoding: Encoding) -> float:
    """The largest difference in codes, but for what a table's own steps make in the dark."""
    off = np.abs(encode(np.clip(curve, 0, 1), encoding.transfer, encoding.gamma) - _CODES)
    is_step = np.abs(curve - linearise(_CODES, encoding.transfer, encoding.gamma)) <= _TABLE_STEP
    return float(np.where(is_step, 0, off).max())


def _primaries(tags: Mapping[bytes, bytes]) -> tuple[str, Chromaticities]:
    """Known ones by their place under D50, where profiles have them; others with the white that they came from."""
    stored = np.column_stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")])
    for name, known in KNOWN.items():
        if np.allclose(_xy(stored), _xy(adaptation(white(known), _PCS_WHITE) @ to_xyz(known)), atol=_XY_TOLERANCE):
            return name, known
    if b"chad" in tags:
        back = np.linalg.inv(np.reshape(struct.unpack_from(">9i", tags[b"chad"], 8), (3, 3)) / 65536)
    else:
        back = adaptation(_PCS_WHITE, _xyz(tags[b"wtpt"]))
    native = back @ stored
    xy = tuple(round(float(value), 5) for value in _xy(np.column_stack([native, native.sum(1)])).ravel())
    if not are_primaries(xy):
        raise ValueError("no primaries")
    return "icc", xy


def _xyz(tag: bytes) -> np.ndarray:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _xy(columns: np.ndarray) -> np.ndarray:
    return (columns[:2] / columns.sum(0)).T


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """By LittleCMS, relative colorimetric. A profile that it cannot use is passed over: the numbers stay."""
    from PIL import ImageCms

    if image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB")
    assert converted is not None
    return converted


def deep_to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """H×W×1 or H×W×3 float32 codes in [0, 1] → sRGB, relative colorimetric, by LittleCMS in float.

    Raises ValueError for a profile that it cannot use.
    """
    import imagecodecs
    from PIL import ImageCms

    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = pixels.shape[2] == 1
    try:
        converted = imagecodecs.cms_transform(
            np.ascontiguousarray(pixels[..., 0] if grey else pixels),
            profile,
            target,
            colorspace="gray" if grey else "rgb",
            outcolorspace="rgb",
            intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
            flags=imagecodecs.CMS.FLAGS.NOOPTIMIZE,  # its shortcut through a table costs up to 6 % of the range
        )
    except imagecodecs.CmsError as error:
        raise ValueError(str(error)) from None
    return np.clip(converted, 0, 1)
