"""The pictures of a run: which can be used, which show the same scene, and where they are kept."""

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from model.errors import Ldr2hdrError
from train.camera import CameraConfig
from train.views import Picture, flat, focal_length, is_panorama
from train.views import panorama as around

WORKER_MEMORY = 1 << 30
"""Bytes of pictures that a data worker keeps."""

HELD_SHARE = 0.4
"""Of the free memory of a device, and of a machine's whole: what the pictures held for training may take."""


class Pictures:
    """Pictures by number: the last used ones are kept, or all of them once they are held for a device.

    load: makes picture i; what it raises is raised. known: pictures loaded already. memory: bytes to keep. names: of
    the files that they are of, without suffix.
    """

    def __init__(
        self,
        load: Callable[[int], Picture],
        count: int,
        known: Mapping[int, Picture] | None = None,
        memory: int = WORKER_MEMORY,
        names: Iterable[str] = (),
    ) -> None:
        self.load, self.count, self.memory, self.names = load, count, memory, sorted(set(names))
        self._kept: OrderedDict[int, Picture] = OrderedDict(known or {})
        self._bytes = sum(picture.nbytes for picture in self._kept.values())
        self._held_for: torch.device | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Picture:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        picture = self._kept[index] = self.load(index)
        self._bytes += picture.nbytes
        while self._bytes > self.memory and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return picture

    def hold(self, device: torch.device) -> bool:
        """Loads all and puts on the device what fits there, the others in pinned memory of the host.

        Returns whether they fit in either; if not, they are loaded when they are used, as before.
        """
        if self._held_for == device:
            return True
        before, self.memory = self.memory, max(self.memory, memory_to_hold())
        for index in range(self.count):
            self[index]
            if len(self._kept) <= index:  # one of them had to go again
                self.memory = before
                return False
        room = _room(device)
        for index, picture in list(self._kept.items()):
            room -= picture.nbytes
            if device.type != "cpu":
                self._kept[index] = picture.to(device) if room >= 0 else picture.pinned()
        self._held_for = device
        return True


def pictures_of(paths: Sequence[Path], load: Callable[[Path], Picture], known: Mapping[Path, Picture]) -> Pictures:
    """Pictures in the order of `paths`, those in `known` loaded already."""
    return Pictures(
        partial(_nth, list(paths), load),
        len(paths),
        {index: known[path] for index, path in enumerate(paths) if path in known},
        names=[path.stem for path in paths],
    )


def _nth(paths: list[Path], load: Callable[[Path], Picture], index: int) -> Picture:
    return load(paths[index])


def memory_to_hold() -> int:
    """Bytes of the host's memory that the pictures of a run may take, on the device or beside it."""
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return int(HELD_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return 4 << 30


def _room(device: torch.device) -> float:
    """Bytes of a device's memory that pictures may take."""
    return HELD_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def usable(
    paths: Sequence[Path], load: Callable[[Path], Picture], tell: Callable[[str], None], memory: int = WORKER_MEMORY
) -> tuple[list[Path], dict[Path, Picture]]:
    """The pictures that can be used, and as many of them as fit in `memory`; the others are named once, by `tell`.

    Raises Ldr2hdrError when none is left.
    """
    good: list[Path] = []
    first: dict[Path, Picture] = {}
    for path in paths:
        try:
            picture = load(path)
        except Ldr2hdrError as error:
            tell(str(error))
            continue
        good.append(path)
        memory -= picture.nbytes
        if memory >= 0:
            first[path] = picture
    if len(good) < len(paths):
        tell(f"{len(paths) - len(good)} of {len(paths)} pictures are left out.")
    if not good:
        raise Ldr2hdrError(f"{paths[0].parent}: none of its {len(paths)} pictures can be used; see the lines above.")
    return good, first


def to_picture(path: Path, scene: np.ndarray, size: int, camera: CameraConfig, panorama: str) -> Picture:
    """A linear picture, float32 H×W×3, ready to cut patches of `size` pixels from, no larger than they have use for.

    panorama: "auto" (2:1 pictures are panoramas), "yes", "no". Raises Ldr2hdrError where it is too small.
    """
    check_size(path, scene, size // 4)
    if panorama == "yes" or (panorama == "auto" and is_panorama(scene.shape)):
        return around(scene, focal_length(size, camera.fov_low), focal_length(size, camera.fov_high))
    return flat(scene, round(size / max(camera.scale_low, 1e-3)))


def check_size(path: Path, scene: np.ndarray, least: int) -> None:
    """Raises Ldr2hdrError for a picture of fewer than `least` pixels either way."""
    if min(scene.shape[:2]) < least:
        raise Ldr2hdrError(
            f"{path} is too small: {scene.shape[1]}×{scene.shape[0]}; each side must have at least {least} pixels."
        )


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
