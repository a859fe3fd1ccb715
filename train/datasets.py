"""The data sets. Sample i is a function of the seed and i alone, for any i ≥ 0, so a run can be resumed anywhere."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from model.errors import Ldr2hdrError
from model.exposure import exposure_mask, linearise
from train.camera import BRIGHTEST, CameraConfig, camera_config, photograph
from train.config import Settings
from train.holes import binary_mask, irregular_hole
from train.panorama import focal_length, reduced
from train.patches import (
    INDEX,
    TEXTURED,
    choose,
    crop,
    draw_exposure,
    excluded_by,
    read_index,
    scene_of,
    scenes_split,
    shows_all_around,
)
from train.readers import Read, Readers

Sample = dict[str, torch.Tensor]
VALIDATION_SEED = 7  # added to the run's seed


def datasets(settings: Settings, readers: Readers, tell: Callable[[str], None]) -> tuple[Dataset, Dataset]:
    """Training and validation sets of a run, of different scenes; the validation's camera is fixed by its own seed.

    Every picture is read once; what cannot be used is named by `tell` and left out. Raises Ldr2hdrError for folders
    and settings that do not fit, and when no picture is left.
    """
    data, stage, seed = settings.data, settings.stage, settings.run.seed
    folders = [Path(folder) for folder in data.folders]
    camera = camera_config(settings.camera)
    if stage == "hdr" and any(is_store(folder) for folder in folders):
        return _stored(settings, folders, camera, tell)
    read_of: dict[str, Read] = {
        "inpainting": readers.photo,
        "simulated": partial(read_simulated, read_photo=readers.photo),
        "hdr": readers.hdr,
    }
    read = read_of[stage]
    paths = _not_excluded(readers.find(folders, "hdr" if stage == "hdr" else "photo"), data.exclude)
    tell(f"Reading {len(paths)} pictures once, to leave out what cannot be used.")
    paths = usable(paths, read, data.patch_size // 4, tell)
    # Names tell which HDR panoramas show the same scene; those of photographs do not.
    scene = scene_of if stage == "hdr" else str
    training, held_out = scenes_split(paths, data.validation_share, seed, scene)
    tell(f"{len(training)} pictures to train on, {len(held_out)} held out for validation, by scene.")
    if stage == "inpainting":
        return (
            InpaintingDataset(training, data.patch_size, seed, read),
            InpaintingDataset(held_out, data.patch_size, seed + VALIDATION_SEED, read),
        )
    make = partial(
        HDRDataset,
        patch_size=data.patch_size,
        read=read,
        camera=camera,
        mask_threshold=settings.network.mask_threshold,
        panorama=data.panorama,
        sampling=data.patch_sampling,
        texture_threshold=data.texture_threshold,
    )
    photos = _photographs(settings, readers, tell)
    return (
        make(training, seed=seed, photos=photos, photo_share=data.images_share),
        make(held_out, seed=seed + VALIDATION_SEED),
    )


def _stored(
    settings: Settings, folders: list[Path], camera: CameraConfig, tell: Callable[[str], None]
) -> tuple[Dataset, Dataset]:
    """The sets of a patch store."""
    data, seed, store = settings.data, settings.run.seed, folders[0]
    if len(folders) > 1:
        raise Ldr2hdrError(f"{store} and {folders[1]}: a patch store cannot be combined with other folders.")
    if data.images:
        raise Ldr2hdrError(
            f"{store}: a patch store cannot be combined with --images; give the HDR pictures themselves."
        )
    sources = sorted({Path(entry["source"]) for entry in read_index(store)})
    training, held_out = scenes_split(_not_excluded(sources, data.exclude), data.validation_share, seed)
    tell(f"Patches of {len(training)} pictures to train on, of {len(held_out)} held out for validation.")
    make = partial(
        PatchDataset,
        store,
        data.patch_size,
        camera=camera,
        mask_threshold=settings.network.mask_threshold,
    )
    return make(seed, sources=set(training)), make(seed + VALIDATION_SEED, sources=set(held_out))


def _photographs(settings: Settings, readers: Readers, tell: Callable[[str], None]) -> "Scenes | None":
    """The photographs that the HDR stage trains on beside its HDR pictures; None for none."""
    data = settings.data
    if settings.stage != "hdr" or not data.images:
        return None
    read = partial(read_without_light, read_photo=readers.photo)
    paths = _not_excluded(readers.find([Path(folder) for folder in data.images], "photo"), data.exclude)
    paths = usable(paths, read, data.patch_size // 4, tell)
    tell(f"{len(paths)} photographs to train on beside them.")
    return Scenes(paths, read)


def _not_excluded(paths: list[Path], listing: str | None) -> list[Path]:
    excluded = excluded_by(Path(listing) if listing else None)
    kept = [path for path in paths if not excluded(path)]
    if not kept:
        raise Ldr2hdrError(f"{listing} excludes all {len(paths)} pictures below {paths[0].parent}; none is left.")
    return kept


class Scenes:
    """Decoded pictures, the last used ones cached, in each data worker by itself.

    read: decodes a file. memory: bytes to keep. A picture that cannot be read raises Ldr2hdrError every time.
    """

    def __init__(self, paths: Sequence[Path], read: Read, memory: int = 1 << 30) -> None:
        self.paths, self.read, self.memory = list(paths), read, memory
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        picture = self._kept[index] = self.read(self.paths[index])
        while sum(kept.nbytes for kept in self._kept.values()) > self.memory and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return picture


def usable(paths: Sequence[Path], read: Read, least: int, tell: Callable[[str], None]) -> list[Path]:
    """The pictures that can be read and have at least `least` pixels each way; the others are named once, by `tell`.

    Raises Ldr2hdrError when none is left.
    """
    good = []
    for path in paths:
        try:
            shape = read(path).shape
            if min(shape[:2]) < least:
                raise Ldr2hdrError(
                    f"{path} is too small: {shape[1]}×{shape[0]}; each side must have at least {least} pixels."
                )
            good.append(path)
        except Ldr2hdrError as error:
            tell(str(error))
    if len(good) < len(paths):
        tell(f"{len(paths) - len(good)} of {len(paths)} pictures are left out.")
    if not good:
        raise Ldr2hdrError(f"{paths[0].parent}: none of its {len(paths)} pictures can be used; see the lines above.")
    return good


class InpaintingDataset(Dataset):
    """Photographs with holes: {"image", "mask", "truth"}, each float32 (3, size, size) in [0, 1].

    A hole is white in the image, as clipped pixels are: the last layer sees the picture unmasked, and must not find
    the truth there.
    """

    def __init__(
        self, paths: Sequence[Path], patch_size: int, seed: int, read: Read, share: tuple[float, float] = (0.0, 0.6)
    ) -> None:
        self.scenes, self.size, self.seed, self.share = Scenes(paths, read), patch_size, seed, share

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        photo = self.scenes[int(rng.integers(len(self.scenes)))]
        truth = crop(photo, rng, self.size, 0.5)
        truth = truth[:, ::-1] if rng.random() < 0.5 else truth
        mask = binary_mask(irregular_hole(rng, self.size, self.size, self.share))
        image = truth * mask + (1 - mask)
        return {"image": _tensor(image), "mask": _tensor(mask), "truth": _tensor(truth)}


class HDRDataset(Dataset):
    """What a virtual camera sees of HDR scenes: {"ldr", "mask", "truth"}, each float32 (3, size, size).

    ldr: [0, 1]; mask: β(ldr); truth: linear, of eq. 1's scale. paths: HDR pictures. read: decodes one of them.
    sampling: keep textured patches (algorithm 1). photos: photographs, read as `read_without_light` does, of which
    `photo_share` of the samples are made: a few HDR pictures know few kinds of snow, skin and cloud.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        patch_size: int,
        seed: int,
        read: Read,
        camera: CameraConfig | None = None,
        *,
        mask_threshold: float = 0.96,
        panorama: str = "auto",
        sampling: bool = True,
        texture_threshold: float = TEXTURED,
        photos: Scenes | None = None,
        photo_share: float = 0.0,
    ) -> None:
        self.camera, self.mask_threshold, self.panorama = camera or CameraConfig(), mask_threshold, panorama
        finest = focal_length(patch_size, self.camera.fov_low)
        self.scenes = Scenes(paths, partial(_read_for_views, read=read, finest=finest, panorama=panorama))
        self.photos, self.photo_share = photos, photo_share if photos else 0.0
        self.size, self.seed = patch_size, seed
        self.sampling, self.texture_threshold = sampling, texture_threshold

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        flat = self.photo_share > 0 and rng.random() < self.photo_share
        scenes = self.photos if flat and self.photos else self.scenes
        patch, factor, _ = choose(
            scenes[int(rng.integers(len(scenes)))],
            rng,
            self.size,
            self.camera,
            panorama="no" if flat else self.panorama,
            sampling=self.sampling,
            threshold=self.texture_threshold,
            mask_threshold=self.mask_threshold,
        )
        return _shot(patch, rng, self.camera, factor, self.mask_threshold)


class PatchDataset(Dataset):
    """Samples as of `HDRDataset`, from patches that `cut_patches` stored: no decoding, no cutting, no scoring.

    folder: the store. sources: the pictures whose patches to use; None: all.
    """

    def __init__(
        self,
        folder: Path,
        patch_size: int,
        seed: int,
        camera: CameraConfig | None = None,
        *,
        mask_threshold: float = 0.96,
        sources: set[Path] | None = None,
    ) -> None:
        self.entries = [entry for entry in read_index(folder) if sources is None or Path(entry["source"]) in sources]
        if not self.entries:
            raise Ldr2hdrError(f"{folder} has no patches of the requested pictures.")
        self.folder, self.size, self.seed = folder, patch_size, seed
        self.camera, self.mask_threshold = camera or CameraConfig(), mask_threshold
        self._open: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        entry = self.entries[int(rng.integers(len(self.entries)))]
        if entry["file"] not in self._open:
            self._open[entry["file"]] = np.load(self.folder / entry["file"], mmap_mode="r", allow_pickle=False)
        patch = crop(self._open[entry["file"]][entry["row"]].astype(np.float32), rng, self.size, self.camera.scale_low)
        patch = np.ascontiguousarray(patch[:, ::-1] if rng.random() < 0.5 else patch)
        return _shot(patch, rng, self.camera, draw_exposure(patch, rng, self.camera), self.mask_threshold)


def read_simulated(path: Path, read_photo: Read, most: float = 0.01) -> np.ndarray:
    """A photograph used as an HDR scene, for pre-training on simulated HDR (Eilertsen et al. 2017, section 5.2).

    Linearised by T^2; the camera will expose it so that its bright parts clip. Raises Ldr2hdrError where its own
    highlights are clipped (over `most` of the pixels at 250 or above), since their truth is unknown.
    """
    photo = read_photo(path)
    if (photo.max(axis=2) >= 250 / 255).mean() > most:
        raise Ldr2hdrError(f"{path} is clipped itself, so it cannot be used as an HDR scene.")
    return linearise(photo)


def read_without_light(path: Path, read_photo: Read) -> np.ndarray:
    """`read_simulated` of a photograph without a light in view: nearly nothing of it is clipped.

    Beside HDR pictures, a photograph with a sun in it would teach that suns are as dim as its white.
    """
    return read_simulated(path, read_photo, most=0.001)


def is_store(folder: Path) -> bool:
    """Whether a folder holds patches cut beforehand."""
    return (folder / INDEX).is_file()


def _read_for_views(path: Path, read: Read, finest: float, panorama: str) -> np.ndarray:
    """A scene; a panorama no larger than the view of the greatest focal length asks for, so that more are kept."""
    scene = read(path)
    return reduced(scene, finest) if shows_all_around(scene, panorama) else scene


def _shot(
    patch: np.ndarray, rng: np.random.Generator, camera: CameraConfig, factor: float, mask_threshold: float
) -> Sample:
    ldr, truth = photograph(patch, rng, camera, factor)
    mask = exposure_mask(ldr, mask_threshold)
    return {"ldr": _tensor(ldr), "mask": _tensor(mask), "truth": _tensor(np.minimum(truth, BRIGHTEST))}


def _tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32))
