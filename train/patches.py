"""Patches cut beforehand, kept where they are textured (section 3.4, algorithm 1): a store, and what is read of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.atomic import make_folder, replace_atomically, write_atomically
from model.errors import Ldr2hdrError
from train.camera import CameraConfig, Exposure
from train.readers import Read, Readers
from train.samples import CUT, TRIED, cut
from train.scenes import scene_of, to_picture
from train.texture import TEXTURED, has_saturation, rough_mask, texture_scores
from train.views import MIDDLE_GREY, Picture, to_tensor

INDEX = "index.jsonl"


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


@torch.no_grad()
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
    picture = to_picture(path, read(path), size, config, panorama)
    patches, scores = [], []
    for index in range(count):
        u = np.random.default_rng([seed, number, index]).random((1, TRIED))
        patch = cut([picture], u, size, config)
        exposed = patch * Exposure.drawn(u[:, CUT:], config).factors(patch)
        mask = rough_mask(exposed, config, mask_threshold)
        score = float(texture_scores(exposed, mask))
        if not has_saturation(mask):
            summary.unsaturated += 1
        elif score < threshold:
            summary.untextured += 1
        else:
            middle = patch.median().clamp_min(1e-6)
            kept = (patch[0] * (MIDDLE_GREY / middle)).clamp(0, 65504)
            patches.append(kept.permute(1, 2, 0).numpy().astype(np.float16))
            scores.append(score)
    return patches, scores


def _save(path: Path, array: np.ndarray) -> None:
    try:
        replace_atomically(path, lambda file: np.save(file, array))
    except OSError as error:
        raise Ldr2hdrError(
            f"{path} cannot be written ({error.strerror}): make space, or choose another --out."
        ) from None


def read_index(folder: Path) -> list[dict[str, Any]]:
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


class StoredPatches:
    """The patches of some entries of a store's index, by number; their arrays are mapped, not read."""

    def __init__(self, folder: Path, entries: Sequence[dict[str, Any]]) -> None:
        self._folder, self._entries = folder, list(entries)
        self._open: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __call__(self, index: int) -> Picture:
        name = self._entries[index]["file"]
        if name not in self._open:
            self._open[name] = np.load(self._folder / name, mmap_mode="r", allow_pickle=False)
        return Picture((to_tensor(self._open[name][self._entries[index]["row"]]).half(),))
