"""The two datasets. Sample i is a function of the seed and i alone, for any i ≥ 0, so a run can be resumed anywhere."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from model.errors import Ldr2hdrError
from model.exposure import exposure_mask, linearise
from train.camera import BRIGHTEST, CameraConfig, photograph
from train.holes import binary_mask, irregular_hole
from train.panorama import focal_length, reduced
from train.patches import INDEX, TEXTURED, choose, crop, draw_exposure, read_index, shows_all_around
from train.pictures import PictureError, read_hdr, read_photo

Sample = dict[str, torch.Tensor]


class Scenes:
    """Decoded pictures, the last used ones kept: one `Scenes` in each worker process.

    read: what decodes a file. memory: bytes to keep. A picture that cannot be read raises PictureError every time.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[Path], np.ndarray], memory: int = 1 << 30) -> None:
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


def usable(
    paths: Sequence[Path], read: Callable[[Path], np.ndarray], least: int, tell: Callable[[str], None]
) -> list[Path]:
    """The pictures that can be read and have at least `least` pixels each way; the others are named once, by `tell`.

    Raises Ldr2hdrError when none is left.
    """
    good = []
    for path in paths:
        try:
            shape = read(path).shape
            if min(shape[:2]) < least:
                raise PictureError(
                    f"{path} is too small: {shape[1]}×{shape[0]}; each side must have at least {least} pixels."
                )
            good.append(path)
        except PictureError as error:
            tell(str(error))
    if len(good) < len(paths):
        tell(f"{len(paths) - len(good)} of {len(paths)} pictures are left out.")
    if not good:
        raise Ldr2hdrError(f"{paths[0].parent}: none of its {len(paths)} pictures can be used; see the lines above.")
    return good


class InpaintingDataset(Dataset):
    """Photographs with holes: {"image", "mask", "truth"}, each float32 (3, size, size) in [0, 1].

    A hole is white in the image, as clipped pixels are: the last layer sees the picture unmasked, and must not find
    the answer there.
    """

    def __init__(
        self, paths: Sequence[Path], patch_size: int, seed: int, share: tuple[float, float] = (0.0, 0.6)
    ) -> None:
        self.scenes, self.size, self.seed, self.share = Scenes(paths, read_photo), patch_size, seed, share

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

    ldr: [0, 1]; mask: β(ldr); truth: linear, of eq. 1's scale. paths: HDR pictures. read: how they are decoded.
    sampling: keep textured patches (algorithm 1). photos: photographs of which `photo_share` of the samples are made,
    taken for HDR scenes as `read_without_light` does: a few HDR pictures know few kinds of snow, skin and cloud.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        patch_size: int,
        seed: int,
        camera: CameraConfig | None = None,
        *,
        mask_threshold: float = 0.96,
        panorama: str = "auto",
        sampling: bool = True,
        texture_threshold: float = TEXTURED,
        read: Callable[[Path], np.ndarray] = read_hdr,
        photos: Sequence[Path] = (),
        photo_share: float = 0.0,
    ) -> None:
        self.camera, self.mask_threshold, self.panorama = camera or CameraConfig(), mask_threshold, panorama
        finest = focal_length(patch_size, self.camera.fov_low)
        self.scenes = Scenes(paths, partial(_read_for_views, read=read, finest=finest, panorama=panorama))
        self.photos, self.photo_share = Scenes(photos, read_without_light), photo_share if photos else 0.0
        self.size, self.seed = patch_size, seed
        self.sampling, self.texture_threshold = sampling, texture_threshold

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        flat = self.photo_share > 0 and rng.random() < self.photo_share
        scenes = self.photos if flat else self.scenes
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
    """The same from patches that `cut_patches` stored: no decoding, no cutting, no scoring.

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


def read_simulated(path: Path, most: float = 0.01) -> np.ndarray:
    """A photograph taken for an HDR scene, for pre-training on simulated HDR (Eilertsen et al. 2017, section 5.2).

    Linearised by T^2; the camera will expose it so that its bright parts clip. One whose own highlights are clipped
    (over `most` of the pixels at 250 or above) has no truth to give and raises PictureError.
    """
    photo = read_photo(path)
    if (photo.max(axis=2) >= 250 / 255).mean() > most:
        raise PictureError(f"{path} is clipped itself, and cannot stand for an HDR scene.")
    return linearise(photo)


def read_without_light(path: Path) -> np.ndarray:
    """`read_simulated` of a photograph without a light in view: nearly nothing of it is clipped.

    Beside HDR pictures, a photograph with a sun would teach that suns are no brighter than its white.
    """
    return read_simulated(path, most=0.001)


def is_store(folder: Path) -> bool:
    """Whether a folder holds patches cut beforehand."""
    return (folder / INDEX).is_file()


def _read_for_views(path: Path, read: Callable[[Path], np.ndarray], finest: float, panorama: str) -> np.ndarray:
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
