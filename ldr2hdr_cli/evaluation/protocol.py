"""What is converted and compared: LDR pictures with a known truth, made by a fixed camera or given in pairs.

A case is one LDR picture with its truth, in which the clip level is 1.0. `made_cases` photographs HDR pictures
with a virtual camera whose every number follows from the seed, the scene's name and the view, so that two
runs, on two machines, compare on the same pictures. Three kinds of exposure are made of them:

"share": a given share of the pixels clips. That is the test of Santos et al. 2020 (section 5, figure 8).
"mild": the brightest point of a view without a light source lies 0.25 to 1.5 stops above the clip level. A
    method that takes every clipped pixel for a lamp does well in the first test and fails this one.
"panorama": a whole panorama of which a given share clips, as a lighter has it.

Photographs in which nothing is clipped serve as HDR pictures too, see `photo_cases`: they are sharp, where views
of panoramas are enlarged.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np

from ldr2hdr_cli.evaluation.alignment import align_scale
from ldr2hdr_cli.media.pictures import find_pictures, read_hdr, read_photo
from ldr2hdr_cli.media.sources import STILL_SUFFIXES, read_still
from model.atomic import make_folder, write_atomically
from model.constants import LUMINANCE
from model.errors import Ldr2hdrError
from model.exposure import linearise
from train.camera import camera_curve, expose
from train.views import is_panorama, perspective, to_tensor

SHARES = (4.0, 8.0, 12.0)  # per cent of the pixels
UNCLIPPED = 2e-3  # share of the pixels that may be clipped in a photograph that serves as the truth
MILD_STOPS = (0.25, 1.5)  # the brightest point above the clip level
MILD_RANGE = 3.0  # stops from the median to the brightest point, at most, in a view without a light source
BRIGHTEST = 99.95  # percentile that stands for the brightest point; above it lie fireflies and glints
FLAT_RANGE = 0.5  # stops from the 1st to the 99th percentile; a view with less is featureless
FIELD_OF_VIEW = (60.0, 100.0)  # degrees
PITCH = (-20.0, 20.0)  # degrees, of views whose share of clipped pixels is given
MILD_PITCH = (-50.0, 20.0)  # lamps, sky and sun are above: look down more often
TRIES = 8  # directions that are tried for each view
# Camera curve f(x) = (1+σ)·xⁿ/(xⁿ+σ), Eilertsen et al. 2017, section 4.1: n ~ N(0.9, 0.1), σ ~ N(0.6, 0.1);
# both are held within three standard deviations.
CURVE_N = (0.9, 0.1)
CURVE_SIGMA = (0.6, 0.1)
WELL_EXPOSED = (0.5, 0.9)  # display values of the brightest channel on which scale is aligned
WELL_EXPOSED_FALLBACK = (0.1, 0.9)
ENOUGH = 64  # pixels needed to align on
CLIPPED_CODE = 1 - 1.5 / 255  # display value from which a channel of a given LDR picture counts as clipped


@dataclass(frozen=True)
class Case:
    """One picture to convert and the truth about it.

    name: a file stem, unique in a run. scene: what the bootstrap resamples. exposure: "share", "mild", "panorama",
    "given", and those of `si_hdr.LEVELS`. level: the share of clipped pixels that was asked for, in per cent; stops
    over the clip level for "mild"; for SI-HDR the percentile that clips.
    ldr: float32 H×W×3, display-encoded in [0, 1]. truth: float32 H×W×3, linear, the clip level is 1.0.
    clipped: bool H×W×3, channel by channel. white: cd/m² at which the clip level is shown; None for the run's.
    """

    name: str
    scene: str
    exposure: str
    level: float
    ldr: np.ndarray
    truth: np.ndarray
    clipped: np.ndarray
    white: float | None = None

    @property
    def share(self) -> float:
        """Per cent of the pixels of which a channel is clipped."""
        return 100.0 * float(self.clipped.any(axis=2).mean())


@dataclass(frozen=True)
class Protocol:
    """How cases are made. size: side of a view, or longer side of a picture, in pixels. views: of a panorama.

    jpeg: quality 1 to 100, or None for 8 bit without compression. only: names of scenes, empty for all.
    panorama: whole panoramas instead of views, 2·size × size pixels.
    """

    shares: Sequence[float] = SHARES
    mild: bool = True
    seed: int = 0
    size: int = 512
    views: int = 3
    jpeg: int | None = None
    only: Sequence[str] = field(default=())
    panorama: bool = False


def made_cases(folder: Path, protocol: Protocol) -> Iterator[Case]:
    """Photograph the HDR pictures of `folder`; scene by scene, in the order of their names.

    Raises Ldr2hdrError where the folder has no picture, or lacks one that `protocol.only` names.
    """
    for path in scenes(folder, protocol.only):
        truth = read_truth(path)
        if protocol.panorama:
            yield from _panorama_cases(path, truth, protocol)
            continue
        for view, tag in views_of(truth, path.stem, protocol, mild=False):
            n, sigma = _curve(numbers_of(protocol.seed, path.stem, tag))
            for share in protocol.shares:
                exposed = view * np.float32(expose(to_tensor(view)[None], share / 100))
                name = f"{path.stem}_{tag}_share{share:g}"
                yield photograph(name, path.stem, "share", share, exposed, n, sigma, protocol.jpeg)
        if protocol.mild:
            yield from _mild_cases(truth, path.stem, protocol)


def photo_cases(folder: Path, protocol: Protocol) -> Iterator[Case]:
    """Photograph the photographs of `folder` again, over-exposed: the sRGB curve's inverse of each is the truth.

    Raises Ldr2hdrError where the folder has no photograph, or one in which something is clipped, since what was
    there is not known.
    """
    for path in photographs(folder, protocol.only):
        ldr = read_photo(path)
        if (share := float((ldr >= CLIPPED_CODE).any(axis=2).mean())) > UNCLIPPED:
            raise Ldr2hdrError(
                f"{path} has {share:.1%} of its pixels clipped, so the truth is not known; leave it out with --list."
            )
        view = _shrink(linearise(ldr, "srgb"), protocol.size)
        n, sigma = _curve(numbers_of(protocol.seed, path.stem, "f0"))
        for share in protocol.shares:
            exposed = view * np.float32(expose(to_tensor(view)[None], share / 100))
            yield photograph(f"{path.stem}_share{share:g}", path.stem, "share", share, exposed, n, sigma, protocol.jpeg)


def photographs(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The photographs of `folder`, by name; of those, the ones that `only` names (with or without suffix)."""
    return _named(folder, find_pictures([folder], "photo"), only)


def scenes(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The HDR pictures of `folder`, by name; of those, the ones that `only` names (with or without suffix)."""
    paths = find_pictures([folder], "hdr")
    if not paths:
        raise Ldr2hdrError(f"{folder} holds no HDR picture (.exr or .hdr); give a folder that does.")
    return _named(folder, paths, only)


def read_truth(path: Path) -> np.ndarray:
    """An HDR picture as a truth: H×W×3, linear, finite and ≥ 0. Raises Ldr2hdrError."""
    return np.maximum(np.nan_to_num(read_hdr(path)[..., :3], nan=0.0, posinf=65504.0), 0.0)


def _named(folder: Path, paths: list[Path], only: Sequence[str]) -> list[Path]:
    """By name; of those, the ones that `only` names (with or without suffix)."""
    paths = sorted(paths, key=lambda path: (path.stem, str(path)))
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise Ldr2hdrError(f"{folder} holds two pictures called {twice}; rename one of them.")
    if not only:
        return paths
    suffixes = {path.suffix for path in paths}
    wanted = {Path(name).stem if Path(name).suffix in suffixes else name for name in only}
    if missing := sorted(wanted - set(stems)):
        more = f" and {len(missing) - 1} more of the list" if len(missing) > 1 else ""
        raise Ldr2hdrError(f"{folder} lacks {missing[0]}{more}; add the pictures, or correct the list.")
    return [path for path in paths if path.stem in wanted]


def read_list(path: Path) -> list[str]:
    """The names in a text file, one a line; empty lines and lines that begin with # are skipped."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Ldr2hdrError(f"{path} cannot be read as a list of names; give a text file.") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise Ldr2hdrError(f"{path} names no picture; put one name on each line.")
    return names


def given_cases(ldr_folder: Path, hdr_folder: Path, only: Sequence[str] = ()) -> Iterator[Case]:
    """Inputs and truths that belong together by the stems of their names.

    The truth is scaled so that its clip level is 1.0: its well-exposed pixels then agree with T², eq. 1.
    Raises Ldr2hdrError where no names match or two pictures differ in size.
    """
    truths = {path.stem: path for path in scenes(hdr_folder, only)}
    inputs = {path.stem: path for path in _stills(ldr_folder)}
    if not (names := sorted(truths.keys() & inputs.keys())):
        raise Ldr2hdrError(
            f"No picture in {ldr_folder} has the name of one in {hdr_folder}; name pairs alike, but for the suffix."
        )
    for name in names:
        ldr = np.clip(read_still(inputs[name])[1].pixels[..., :3], 0, 1).astype(np.float32)
        truth = read_truth(truths[name])
        if ldr.shape != truth.shape:
            raise Ldr2hdrError(
                f"{inputs[name]} is {_size(ldr)} and {truths[name]} is {_size(truth)}; give pairs of one size."
            )
        truth = truth * align_scale(truth, ldr**2, aligning_pixels(ldr))
        yield Case(name, name, "given", 0.0, ldr, truth.astype(np.float32), ldr >= CLIPPED_CODE)


def save_as_png(cases: Iterable[Case], folder: Path) -> int:
    """Writes the LDR picture of each case as `NAME.png`, 8 bit. Returns how many."""
    make_folder(folder)
    count = 0
    for case in cases:
        codes = (case.ldr * 255 + 0.5).astype(np.uint8)
        encoded = iio.imwrite("<bytes>", codes, plugin="pillow", extension=".png")
        write_atomically(folder / f"{case.name}.png", encoded)
        count += 1
    return count


def aligning_pixels(ldr: np.ndarray) -> np.ndarray:
    """Where scale is aligned: bool H×W×3, well-exposed values that lie next below the clip level.

    ldr: H×W×3 in [0, 1]. A pixel counts if its brightest channel is in `WELL_EXPOSED`, which is about the two stops
    below the clip level under eq. 1. A camera curve makes predictions drift from the truth towards the shadows;
    aligned on all of them, that drift would reappear as an error of the highlights, which is what Eilertsen
    et al. 2021 warn of. Where there are too few such pixels, darker ones count too, and then single channels
    of pixels that are clipped in another; there may be none.
    """
    brightest = ldr.max(axis=2, keepdims=True)
    for values, (low, high) in (
        (brightest, WELL_EXPOSED),
        (brightest, WELL_EXPOSED_FALLBACK),
        (ldr, WELL_EXPOSED_FALLBACK),
    ):
        chosen = np.broadcast_to((values >= low) & (values <= high), ldr.shape)
        if np.count_nonzero(chosen) >= 3 * ENOUGH:
            break
    return chosen


def without_light_source(view: np.ndarray) -> bool:
    """Whether nothing in a linear view (H×W×3) can be a light source, and something is to be seen.

    Its brightest point (99.95th percentile of luminance) is at most 3 stops above its median: white paper under
    a lamp is 2.5 stops above a grey card, a window or lamp in a room is 5 to 10 above the room.
    """
    luminance = _luminance(view)
    median, brightest = np.percentile(luminance, (50, BRIGHTEST))
    return bool(0 < brightest <= median * 2**MILD_RANGE) and not _is_flat(luminance)


def _mild_cases(truth: np.ndarray, scene: str, protocol: Protocol) -> Iterator[Case]:
    for view, tag in views_of(truth, scene, protocol, mild=True):
        rng = numbers_of(protocol.seed, scene, tag)
        n, sigma = _curve(rng)
        peaks = view.max(axis=2)
        half, brightest = (max(float(value), 1e-12) for value in np.percentile(peaks, (50, BRIGHTEST)))
        # A picture of which more than half clips is not a mild case, and leaves little to align on.
        stops = min(float(rng.uniform(*MILD_STOPS)), float(np.log2(brightest / half)))
        if stops < MILD_STOPS[0]:
            continue
        exposed = view * np.float32(2**stops / brightest)
        yield photograph(f"{scene}_{tag}_mild", scene, "mild", stops, exposed, n, sigma, protocol.jpeg)


def _panorama_cases(path: Path, truth: np.ndarray, protocol: Protocol) -> Iterator[Case]:
    if not is_panorama(truth.shape):
        raise Ldr2hdrError(
            f"{path} is {_size(truth)}, not twice as wide as high: no panorama; leave it out with --list."
        )
    truth = _shrink(truth, 2 * protocol.size)
    n, sigma = _curve(numbers_of(protocol.seed, path.stem, "p0"))
    for share in protocol.shares:
        exposed = truth * np.float32(expose(to_tensor(truth)[None], share / 100))
        name = f"{path.stem}_panorama_share{share:g}"
        yield photograph(name, path.stem, "panorama", share, exposed, n, sigma, protocol.jpeg)


def views_of(truth: np.ndarray, scene: str, protocol: Protocol, *, mild: bool) -> Iterator[tuple[np.ndarray, str]]:
    """Views of a panorama, or the picture itself, that fit the kind of exposure; with a tag that names each."""
    fits = without_light_source if mild else lambda view: not _is_flat(_luminance(view))
    letter = "m" if mild else "v"
    if not is_panorama(truth.shape):
        view = _shrink(truth, protocol.size)
        if fits(view):
            yield view, f"{letter}0"
        return
    rng = numbers_of(protocol.seed, scene, letter)
    found = 0
    for attempt in range(TRIES * protocol.views):
        yaw = float(rng.uniform(-180, 180) if mild else 360 * attempt / protocol.views + rng.uniform(-30, 30))
        pitch, fov = float(rng.uniform(*(MILD_PITCH if mild else PITCH))), float(rng.uniform(*FIELD_OF_VIEW))
        view = np.maximum(perspective(truth, yaw, pitch, 0.0, fov, (protocol.size, protocol.size)), 0.0)
        if fits(view):
            yield view, f"{letter}{found}"
            found += 1
            if found == protocol.views:
                return


def photograph(
    name: str, scene: str, exposure: str, level: float, exposed: np.ndarray, n: float, sigma: float, jpeg: int | None
) -> Case:
    """The camera: clip at 1.0, curve, 8 bit, JPEG where asked for."""
    exposed = exposed.astype(np.float32)
    seen = camera_curve(np.clip(exposed, 0, 1), n, sigma)
    codes = np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)
    if jpeg is not None:
        encoded = iio.imwrite("<bytes>", codes, plugin="pillow", extension=".jpg", quality=jpeg, subsampling=0)
        codes = iio.imread(encoded, plugin="pillow", extension=".jpg")
    ldr = codes.astype(np.float32) / 255
    return Case(name, scene, exposure, level, ldr, exposed, exposed >= 1)


def _curve(rng: np.random.Generator) -> tuple[float, float]:
    n, sigma = (
        float(np.clip(rng.normal(mean, spread), mean - 3 * spread, mean + 3 * spread))
        for mean, spread in (CURVE_N, CURVE_SIGMA)
    )
    return n, sigma


def numbers_of(seed: int, scene: str, tag: str) -> np.random.Generator:
    """Numbers that depend on the seed, scene and view alone, whatever else is evaluated."""
    name = scene.encode("utf-8", "surrogateescape")
    return np.random.default_rng([seed, zlib.crc32(name), zlib.crc32(tag.encode())])


def _luminance(linear: np.ndarray) -> np.ndarray:
    return linear @ np.array(LUMINANCE, np.float32)


def _is_flat(luminance: np.ndarray) -> bool:
    low, high = np.percentile(luminance, (1, 99))
    return bool(high <= max(low, 1e-6) * 2**FLAT_RANGE)


def _shrink(picture: np.ndarray, size: int) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = size / max(height, width)
    if factor >= 1:
        return picture
    shape = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)


def _stills(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise Ldr2hdrError(f"{folder} is not a folder; give the folder of the LDR pictures.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in STILL_SUFFIXES)


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
