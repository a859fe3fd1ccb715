"""The data sets of a run, from its settings: which pictures, how they are read, and what samples are made of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from model.errors import Ldr2hdrError
from model.exposure import linearise
from train.camera import CameraConfig, camera_config
from train.config import Settings
from train.patches import INDEX, StoredPatches, read_index
from train.readers import Read, Readers
from train.samples import HDRDataset, InpaintingDataset, Samples
from train.scenes import (
    WORKER_MEMORY,
    Pictures,
    check_size,
    excluded_by,
    memory_to_hold,
    pictures_of,
    scene_of,
    scenes_split,
    to_picture,
    usable,
)
from train.views import Picture, flat

VALIDATION_SEED = 7  # added to the run's seed


def datasets(settings: Settings, readers: Readers, tell: Callable[[str], None]) -> tuple[Samples, Samples]:
    """Training and validation sets of a run, of different scenes; the validation's camera is fixed by its own seed.

    Every picture is read once; what cannot be used is named by `tell` and left out. Raises Ldr2hdrError for folders
    and settings that do not fit, and when no picture is left.
    """
    data, stage, seed = settings.data, settings.stage, settings.run.seed
    folders = [Path(folder) for folder in data.folders]
    camera = camera_config(settings.camera)
    if stage == "hdr" and any(is_store(folder) for folder in folders):
        return _stored(settings, folders, camera, tell)
    load = _loader(settings, readers, camera)
    paths = _not_excluded(readers.find(folders, "hdr" if stage == "hdr" else "photo"), data.exclude)
    tell(f"Reading {len(paths)} pictures once, to leave out what cannot be used.")
    paths, known = usable(paths, load, tell, _memory(settings))
    # Names tell which HDR panoramas show the same scene; those of photographs do not.
    scene = scene_of if stage == "hdr" else str
    training, held_out = (
        pictures_of(part, load, known) for part in scenes_split(paths, data.validation_share, seed, scene)
    )
    tell(f"{len(training)} pictures to train on, {len(held_out)} held out for validation, by scene.")
    if stage == "inpainting":
        return (
            InpaintingDataset(training, data.patch_size, seed),
            InpaintingDataset(held_out, data.patch_size, seed + VALIDATION_SEED),
        )
    make = partial(
        HDRDataset,
        patch_size=data.patch_size,
        camera=camera,
        mask_threshold=settings.network.mask_threshold,
        sampling=data.patch_sampling,
        texture_threshold=data.texture_threshold,
    )
    photos = _photographs(settings, readers, camera, tell)
    return (
        make(training, seed=seed, photos=photos, photo_share=data.images_share),
        make(held_out, seed=seed + VALIDATION_SEED),
    )


def _loader(settings: Settings, readers: Readers, camera: CameraConfig) -> Callable[[Path], Picture]:
    """What makes a picture to cut from out of a file, for the stage of the run."""
    data = settings.data
    if settings.stage == "inpainting":
        return partial(load_photo, read=readers.photo, size=data.patch_size)
    read = readers.hdr if settings.stage == "hdr" else partial(read_simulated, read_photo=readers.photo)
    return partial(load_scene, read=read, size=data.patch_size, camera=camera, panorama=data.panorama)


def _memory(settings: Settings) -> int:
    """Bytes of pictures to keep while they are looked through: all of them where they will be held."""
    return WORKER_MEMORY if settings.data.data_on == "processes" else memory_to_hold()


def _stored(
    settings: Settings, folders: list[Path], camera: CameraConfig, tell: Callable[[str], None]
) -> tuple[Samples, Samples]:
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
        stored_patches,
        store,
        data.patch_size,
        camera=camera,
        mask_threshold=settings.network.mask_threshold,
    )
    return make(seed, sources=set(training)), make(seed + VALIDATION_SEED, sources=set(held_out))


def stored_patches(
    folder: Path,
    patch_size: int,
    seed: int,
    camera: CameraConfig | None = None,
    *,
    mask_threshold: float = 0.96,
    sources: set[Path] | None = None,
) -> HDRDataset:
    """Samples from the patches that `cut_patches` stored: no decoding, no cutting, no scoring.

    folder: the store. sources: the pictures whose patches to use; None: all.
    """
    entries = [entry for entry in read_index(folder) if sources is None or Path(entry["source"]) in sources]
    if not entries:
        raise Ldr2hdrError(f"{folder} has no patches of the requested pictures.")
    names = (Path(entry["source"]).stem for entry in entries)
    patches = Pictures(StoredPatches(folder, entries), len(entries), names=names)
    return HDRDataset(patches, patch_size, seed, camera, mask_threshold=mask_threshold, tries=1)


def _photographs(
    settings: Settings, readers: Readers, camera: CameraConfig, tell: Callable[[str], None]
) -> Pictures | None:
    """The photographs that the HDR stage trains on beside its HDR pictures; None for none."""
    data = settings.data
    if settings.stage != "hdr" or not data.images:
        return None
    read = partial(read_without_light, read_photo=readers.photo)
    load = partial(load_scene, read=read, size=data.patch_size, camera=camera, panorama="no")
    paths = _not_excluded(readers.find([Path(folder) for folder in data.images], "photo"), data.exclude)
    paths, known = usable(paths, load, tell, _memory(settings))
    tell(f"{len(paths)} photographs to train on beside them.")
    return pictures_of(paths, load, known)


def _not_excluded(paths: list[Path], listing: str | None) -> list[Path]:
    excluded = excluded_by(Path(listing) if listing else None)
    kept = [path for path in paths if not excluded(path)]
    if not kept:
        raise Ldr2hdrError(f"{listing} excludes all {len(paths)} pictures below {paths[0].parent}; none is left.")
    return kept


def load_scene(path: Path, read: Read, size: int, camera: CameraConfig, panorama: str = "auto") -> Picture:
    """A linear picture of `read`, ready to cut patches of `size` pixels from. Raises Ldr2hdrError."""
    return to_picture(path, read(path), size, camera, panorama)


def load_photo(path: Path, read: Read, size: int) -> Picture:
    """A photograph of `read`, display-encoded, ready to cut patches of `size` pixels from. Raises Ldr2hdrError."""
    photo = read(path)
    check_size(path, photo, size // 4)
    return flat(photo, 2 * size, linear=False)


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
