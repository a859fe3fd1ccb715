"""Which patches are worth training on (section 3.4, algorithm 1), how scenes are split, and patches cut beforehand."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from model.atomic import make_folder, replace_atomically, write_atomically
from model.errors import Ldr2hdrError
from model.exposure import exposure_mask
from train.camera import CameraConfig, camera_curve, draw_exposure
from train.panorama import is_panorama, perspective, random_direction
from train.readers import Read, Readers

SIGMA_COLOUR, SIGMA_SPACE = 100.0, 10.0  # of algorithm 1's bilateral filter
RADIUS = round(1.5 * SIGMA_SPACE)  # of its window, a disc, as OpenCV has it
TEXTURED = 0.85
"""The paper's threshold. It holds for its own pictures, at their resolution and scale; it is a setting."""

INDEX = "index.jsonl"


def texture_score(hdr: np.ndarray, mask: np.ndarray) -> float:
    """Algorithm 1: how much texture a patch has where it is clipped.

    hdr: float32 H×W×3, linear, clip level 1.0; mask: float32 H×W×3, 1 = well exposed. I = grey of H, L = log(I + 1),
    B = bilateral(L), D = L − B; the mean of (|Sobel x of D| + |Sobel y of D|) ⊙ (1 − M), M averaged over the channels.
    Taken literally: natural logarithm, 3×3 Sobel kernels without a factor, the mean over the whole patch.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(hdr, np.float32), cv2.COLOR_RGB2GRAY)
    log = np.log1p(grey)
    detail = log - bilateral(log)
    gradient = np.abs(cv2.Sobel(detail, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(detail, cv2.CV_32F, 0, 1))
    clipped = 1 - cv2.transform(np.ascontiguousarray(mask, np.float32), np.full((1, 3), 1 / 3, np.float32))
    return float((gradient * clipped).mean(dtype=np.float64))


def bilateral(log: np.ndarray) -> np.ndarray:
    """cv2.bilateralFilter(log, -1, σ_c, σ_s), equal to about 1e-5 and twenty times as fast. float32 H×W, L = log(I+1).

    A neighbour q of p has the weight G·exp(−(L_p − L_q)²/2σ_c²), G a Gaussian cut off at a radius of 1.5 σ_s. What
    of it depends on p alone cancels out; e_q = exp(−L_q²/2σ_c²) depends on q alone; and exp(y), y = L_p·L_q/σ_c², is
    1 + y + y²/2 to under 1e-6, since σ_c is far above any range of L. So the sums over neighbours are those of
    e_q·L_q^k, k from 0 to 3, convolved with G, which goes through Fourier space, two real pictures to a complex one.
    """
    middle = (float(log.min()) + float(log.max())) / 2
    values = log - np.float32(middle)
    height, width = log.shape
    size = cv2.getOptimalDFTSize(height + 2 * RADIUS), cv2.getOptimalDFTSize(width + 2 * RADIUS)
    bottom, right = size[0] - height - RADIUS, size[1] - width - RADIUS
    around = cv2.copyMakeBorder(values, RADIUS, bottom, RADIUS, right, cv2.BORDER_REFLECT_101)
    own = np.exp(around * around * np.float32(-0.5 / SIGMA_COLOUR**2))
    first = cv2.merge([own, own * around])
    spectrum = _gaussian_spectrum(*size)
    sums: list[np.ndarray] = []
    for pair in (first, first * (around * around)[..., None]):
        smooth = cv2.idft(cv2.dft(pair) * spectrum, flags=cv2.DFT_SCALE)
        sums += cv2.split(smooth[RADIUS : RADIUS + height, RADIUS : RADIUS + width])
    slope = values * np.float32(1 / SIGMA_COLOUR**2)
    above = sums[1] + slope * (sums[2] + slope * sums[3] / 2)
    below = sums[0] + slope * (sums[1] + slope * sums[2] / 2)
    return above / below + np.float32(middle)


@lru_cache(maxsize=8)
def _gaussian_spectrum(height: int, width: int) -> np.ndarray:
    """The spectrum of the filter's Gaussian around (0, 0), real since it is even: float32 (height, width, 1)."""
    y, x = np.ogrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    kernel = np.exp(-(x * x + y * y) / (2 * SIGMA_SPACE**2)) * (x * x + y * y <= RADIUS**2)
    whole = np.zeros((height, width))
    whole[: 2 * RADIUS + 1, : 2 * RADIUS + 1] = kernel / kernel.sum()
    whole = np.roll(whole, (-RADIUS, -RADIUS), (0, 1))
    return np.fft.fft2(whole).real.astype(np.float32)[..., None]


def has_saturation(mask: np.ndarray) -> bool:
    """Whether anything is clipped at all; a patch without clipping teaches nothing."""
    return bool((mask < 1).any())


def rough_mask(hdr: np.ndarray, factor: float, config: CameraConfig, threshold: float) -> np.ndarray:
    """The mask of an exposure by the mean camera without noise, to score a patch before a picture of it is taken."""
    code = camera_curve(np.clip(hdr * np.float32(factor), 0, 1), config.n_mean, config.sigma_mean)
    return exposure_mask(code, threshold)


def scene_of(path: Path) -> str:
    """The scene that a picture shows: its name without resolution and number, so that twins share it.

    `studio_small_03_1k` and `studio_small_08_1k` are one scene, and so is everything called a photo studio.
    """
    name = re.sub(r"_\d+k$", "", path.stem.lower())
    if re.search(r"photo_?studio", name):
        return "photostudio"
    return re.sub(r"([_-]?\d+)+$", "", name) or name


def scenes_split(
    paths: Sequence[Path], validation_share: float, seed: int, scene: Callable[[Path], str] = scene_of
) -> tuple[list[Path], list[Path]]:
    """(training, validation): whole scenes, never patches, with twins on one side.

    Raises Ldr2hdrError when there is only one scene to split.
    """
    scenes = sorted({scene(path) for path in paths})
    if validation_share > 0 and len(scenes) < 2:
        raise Ldr2hdrError(
            f"{paths[0]}: validation needs a scene of its own, but all pictures show the same one ({scenes[0]}); "
            "add pictures of another scene, under another name."
        )
    count = max(1, round(validation_share * len(scenes))) if validation_share > 0 else 0
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(scenes))
    held_out = {scenes[index] for index in order[:count]}
    validation = [path for path in paths if scene(path) in held_out]
    return [path for path in paths if scene(path) not in held_out], validation


def shows_all_around(scene: np.ndarray, panorama: str) -> bool:
    """Whether views are to be cut: panorama "auto" (2:1 pictures are panoramas), "yes", "no"."""
    return panorama == "yes" or (panorama == "auto" and is_panorama(scene.shape))


def cut(scene: np.ndarray, rng: np.random.Generator, size: int, config: CameraConfig, panorama: str) -> np.ndarray:
    """A patch of size×size: a view of a panorama, or a crop of a flat picture, mirrored half the time.

    panorama: "auto" (2:1 pictures are panoramas), "yes", "no".
    """
    if shows_all_around(scene, panorama):
        yaw, pitch, roll = random_direction(rng, config.pitch_max, config.roll_max)
        patch = perspective(scene, yaw, pitch, roll, float(rng.uniform(config.fov_low, config.fov_high)), (size, size))
    else:
        patch = crop(scene, rng, size, config.scale_low)
    return np.ascontiguousarray(patch[:, ::-1] if rng.random() < 0.5 else patch)


def crop(picture: np.ndarray, rng: np.random.Generator, size: int, scale_low: float) -> np.ndarray:
    """A random square of at least `scale_low` of the shorter side, resized to size×size."""
    shorter = min(picture.shape[:2])
    side = min(shorter, max(size, round(shorter * rng.uniform(scale_low, 1)))) if shorter >= size else shorter
    top = int(rng.integers(picture.shape[0] - side + 1))
    left = int(rng.integers(picture.shape[1] - side + 1))
    square = picture[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return square if side == size else cv2.resize(square, (size, size), interpolation=how)


def choose(
    scene: np.ndarray,
    rng: np.random.Generator,
    size: int,
    config: CameraConfig,
    *,
    panorama: str = "auto",
    sampling: bool = True,
    threshold: float = TEXTURED,
    mask_threshold: float = 0.96,
    tries: int = 4,
) -> tuple[np.ndarray, float, float]:
    """A patch, the factor of its exposure and its score: the first textured one of a few, or the best of them.

    Without `sampling` the first with anything clipped, its score 0.
    """
    best: tuple[np.ndarray, float, float] | None = None
    for _ in range(tries):
        patch = cut(scene, rng, size, config, panorama)
        factor = draw_exposure(patch, rng, config)
        mask = rough_mask(patch, factor, config, mask_threshold)
        if not has_saturation(mask):
            best = best or (patch, factor, -1.0)
            continue
        score = texture_score(patch * np.float32(factor), mask) if sampling else 0.0
        if best is None or score > best[2]:
            best = (patch, factor, score)
        if not sampling or score > threshold:
            break
    assert best is not None
    return best


def excluded_by(listing: Path | None) -> Callable[[Path], bool]:
    """Whether a text file lists a picture's name, with or without its suffix. Raises Ldr2hdrError."""
    if listing is None:
        return lambda _path: False
    try:
        names = {line.strip() for line in listing.read_text("utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise Ldr2hdrError(f"{listing} cannot be read ({reason}); give a text file with one name a line.") from None
    return lambda path: path.name in names or path.stem in names


@dataclass
class CutSummary:
    """What `cut_patches` did."""

    kept: int = 0
    untextured: int = 0  # dropped: a score under the threshold
    unsaturated: int = 0  # dropped: nothing clipped
    scenes: int = 0
    bad: int = 0  # pictures that were left out


def cut_patches(
    folders: Sequence[Path],
    out: Path,
    readers: Readers,
    *,
    per_scene: int = 32,
    size: int = 512,
    panorama: str = "auto",
    seed: int = 0,
    threshold: float = TEXTURED,
    mask_threshold: float = 0.96,
    config: CameraConfig | None = None,
    exclude: Callable[[Path], bool] = lambda _path: False,
    progress: Callable[[Path, CutSummary], None] = lambda _path, _summary: None,
    tell: Callable[[str], None] = lambda _sentence: None,
) -> CutSummary:
    """Cut, score and filter patches, and store them: one float16 array a scene, and an index with every score.

    Each patch is exposed once, to be scored; it is stored unexposed, scaled to a median of 0.18, for the camera to
    expose anew every time it is used. Pictures that cannot be used are named by `tell` and left out.
    Raises Ldr2hdrError when nothing is kept. readers, exclude: see `Readers` and `excluded_by`.
    """
    config = config or CameraConfig()
    summary, lines = CutSummary(), []
    paths = readers.find(folders, "hdr")
    make_folder(out)
    for number, path in enumerate(paths):
        if exclude(path):
            continue
        try:
            patches, scores = _cut_scene(
                path, readers.hdr, number, per_scene, size, panorama, seed, threshold, mask_threshold, config, summary
            )
        except Ldr2hdrError as error:
            summary.bad += 1
            tell(str(error))
            continue
        if patches:
            name = f"{number:05d}_{path.stem}.npy"
            _save(out / name, np.stack(patches))
            lines += [
                json.dumps(
                    {"file": name, "row": row, "source": str(path), "scene": scene_of(path), "score": round(score, 5)}
                )
                for row, score in enumerate(scores)
            ]
        summary.kept += len(patches)
        summary.scenes += 1
        progress(path, summary)
    if not summary.scenes:
        raise Ldr2hdrError(f"{folders[0]}: none of its {len(paths)} pictures can be used; see the lines above.")
    if not lines:
        raise Ldr2hdrError(
            f"{out}: no patch was kept ({summary.untextured} under the threshold of {threshold}, "
            f"{summary.unsaturated} with nothing clipped, {summary.bad} bad pictures); lower the threshold."
        )
    write_atomically(out / INDEX, ("\n".join(lines) + "\n").encode())
    return summary


def _cut_scene(
    path: Path,
    read: Read,
    number: int,
    count: int,
    size: int,
    panorama: str,
    seed: int,
    threshold: float,
    mask_threshold: float,
    config: CameraConfig,
    summary: CutSummary,
) -> tuple[list[np.ndarray], list[float]]:
    scene = read(path)
    if min(scene.shape[:2]) < size // 4:
        raise Ldr2hdrError(f"{path} is too small for patches of {size} pixels: {scene.shape[1]}×{scene.shape[0]}.")
    patches, scores = [], []
    for index in range(count):
        rng = np.random.default_rng([seed, number, index])
        patch = cut(scene, rng, size, config, panorama)
        factor = draw_exposure(patch, rng, config)
        mask = rough_mask(patch, factor, config, mask_threshold)
        score = texture_score(patch * np.float32(factor), mask)
        if not has_saturation(mask):
            summary.unsaturated += 1
        elif score < threshold:
            summary.untextured += 1
        else:
            middle = max(float(np.median(patch)), 1e-6)
            patches.append(np.clip(patch * (0.18 / middle), 0, 65504).astype(np.float16))
            scores.append(score)
    return patches, scores


def _save(path: Path, array: np.ndarray) -> None:
    try:
        replace_atomically(path, lambda file: np.save(file, array))
    except OSError as error:
        raise Ldr2hdrError(
            f"{path} cannot be written ({error.strerror}): make space, or choose another --out."
        ) from None


def read_index(folder: Path) -> list[dict]:
    """The lines of a patch store's index, after checking that its arrays exist and are complete.

    Raises Ldr2hdrError for a folder that is not a store, a damaged one, or one that names files outside of it.
    """
    try:
        entries = [json.loads(line) for line in (folder / INDEX).read_text("utf-8").splitlines() if line]
        if not entries:
            raise ValueError("its index is empty")
        rows: dict[str, int] = {}
        for entry in entries:
            name, row, source = entry["file"], entry["row"], entry["source"]
            if type(name) is not str or type(row) is not int or row < 0 or type(source) is not str:
                raise ValueError("its index has values of the wrong type")
            rows[name] = max(rows.get(name, 0), row)
        for name, last in rows.items():
            _check_array(folder, name, last)
    except Exception as error:  # json, numpy and pathlib raise nearly anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Ldr2hdrError(
            f"{folder} is not a complete patch store ({reason}); recreate it with `ldr2hdr train patches`."
        ) from None
    return entries


def _check_array(folder: Path, name: str, last: int) -> None:
    path = folder / name
    if path.resolve().parent != folder.resolve():  # absolute, through .. or a link
        raise ValueError(f"its index names {name}, which is outside of it")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype.kind != "f" or last >= array.shape[0] or not array.size:
        raise ValueError(f"{name} does not hold what the index says")
