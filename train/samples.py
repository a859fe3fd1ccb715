"""Samples as batched tensor code. Sample i is a function of the seed and i alone, for any i ≥ 0.

What is drawn for a sample comes from its own generator, on the host; what is made of it comes from those numbers. On
a CPU each sample is made by itself, so it is the same to the bit in any batch; elsewhere to float rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.exposure import exposure_mask
from train.camera import CameraConfig, Exposure, Shot, drawn_sharpening, photograph, sharpened
from train.holes import binary_mask, irregular_hole
from train.scenes import Pictures
from train.texture import TEXTURED, has_saturation, rough_mask, texture_scores
from train.views import Picture, crops, focal_length, rotation, upload, views

Sample = dict[str, Tensor]
CPU = torch.device("cpu")

TRIES = 4  # patches of a scene that are looked at, the first textured one of which is taken
CUT, EXPOSED = 5, 3  # uniform numbers that a cut and an exposure take
TRIED = CUT + EXPOSED
FIRST = 4  # a sample's kind, its picture and its sharpening


class Samples(Dataset[Sample]):
    """An endless set whose samples are made in batches, on a device. `pictures`: what they are cut from."""

    pictures: Sequence[Pictures]

    def __len__(self) -> int:
        return 1 << 62

    def __getitem__(self, index: int) -> Sample:
        return {name: value[0] for name, value in self.batch([index]).items()}

    def hold(self, device: torch.device) -> bool:
        """Loads all pictures, for batches to be made on `device`. Returns whether there is room for them."""
        return all(pictures.hold(device) for pictures in self.pictures)

    @torch.no_grad()
    def batch(self, numbers: Sequence[int], device: torch.device = CPU) -> Sample:
        """The samples of these numbers, each tensor (N, 3, size, size) on `device`."""
        # A sample's intermediate pictures stay in a processor's cache; a GPU wants all of the work at once.
        parts = [[number] for number in numbers] if device.type == "cpu" else [list(numbers)]
        with exact_products():
            made = [self._made(part, device) for part in parts]
        return made[0] if len(made) == 1 else {name: torch.cat([one[name] for one in made]) for name in made[0]}

    def _made(self, numbers: list[int], device: torch.device) -> Sample:
        raise NotImplementedError


@contextmanager
def exact_products() -> Iterator[None]:
    """Within it, matrix products of float32 keep its precision: TF32 has too few digits for codes and angles."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class HDRDataset(Samples):
    """What a virtual camera sees of HDR scenes: {"ldr", "mask", "truth"}, each float32 (3, size, size).

    ldr: [0, 1]; mask: β(ldr); truth: linear, of eq. 1's scale. scenes: HDR pictures. sampling: keep textured patches
    (algorithm 1). tries: patches looked at for a sample, 1 where they were chosen beforehand. photos: photographs, of
    which `photo_share` of the samples are made: a few HDR pictures know few kinds of snow, skin and cloud.
    """

    def __init__(
        self,
        scenes: Pictures,
        patch_size: int,
        seed: int,
        camera: CameraConfig | None = None,
        *,
        mask_threshold: float = 0.96,
        sampling: bool = True,
        texture_threshold: float = TEXTURED,
        tries: int = TRIES,
        photos: Pictures | None = None,
        photo_share: float = 0.0,
    ) -> None:
        self.scenes, self.photos, self.photo_share = scenes, photos, photo_share if photos else 0.0
        self.pictures = [scenes, photos] if photos else [scenes]
        self.size, self.seed, self.camera = patch_size, seed, camera or CameraConfig()
        self.mask_threshold, self.tries = mask_threshold, tries
        self.least_score = texture_threshold if sampling else None

    def _made(self, numbers: list[int], device: torch.device) -> Sample:
        generators = [np.random.default_rng([self.seed, number]) for number in numbers]
        u = np.stack([one.random(FIRST + TRIES * TRIED + 4) for one in generators])
        z = np.stack([one.standard_normal(4) for one in generators])
        scenes = [self._scene(kind, place) for kind, place in u[:, :2]]
        sharpening = drawn_sharpening(u[:, 2:4], self.camera)
        tried = u[:, FIRST:-4].reshape(len(u), TRIES, TRIED)[:, : self.tries]
        patch, factor = choose(
            scenes, tried, sharpening, self.size, self.camera, self.mask_threshold, self.least_score, device
        )
        ldr, truth = photograph(patch, factor, Shot.drawn(u[:, -4:], z, self.camera), self.camera)
        return {"ldr": ldr, "mask": exposure_mask(ldr, self.mask_threshold), "truth": truth}

    def _scene(self, kind: float, place: float) -> Picture:
        pictures = self.photos if self.photos and kind < self.photo_share else self.scenes
        return pictures[int(place * len(pictures))]


def choose(
    scenes: Sequence[Picture],
    tried: np.ndarray,
    sharpening: np.ndarray,
    size: int,
    camera: CameraConfig,
    mask_threshold: float = 0.96,
    least_score: float | None = TEXTURED,
    device: torch.device = CPU,
) -> tuple[Tensor, Tensor]:
    """A patch of each scene and the factor of its exposure: the first textured one of a few, or the best of them.

    tried: (N, tries, TRIED), uniform. least_score: textured above it; None: the first with anything clipped.
    Returns (N, 3, size, size) and (N,).
    """
    enough = -0.5 if least_score is None else least_score
    # Asking a GPU which patches are good enough would make the host wait for it, so there all are tried.
    rows = np.arange(len(scenes))
    for number in range(tried.shape[1]):
        u = tried[rows, number]
        patch = sharpened(cut([scenes[int(row)] for row in rows], u, size, camera, device), sharpening[rows])
        factor = Exposure.drawn(u[:, CUT:], camera).factors(patch)
        if tried.shape[1] == 1:
            return patch, factor
        score = _score(patch, factor, camera, mask_threshold, least_score is not None)
        if number == 0:
            best = patch, factor, score
        else:
            place = upload(rows, device)
            known = best[2][place]
            better = (score > known) & (known <= enough)
            for kept, new in zip(best, (patch, factor, score), strict=True):
                kept[place] = torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, kept[place])
        if device.type == "cpu":
            rows = np.flatnonzero(best[2].numpy() <= enough)
        if not len(rows):
            break
    return best[0], best[1]


def _score(patch: Tensor, factor: Tensor, camera: CameraConfig, threshold: float, textured: bool) -> Tensor:
    """(N,): how much texture each patch has where it is clipped, or 0; −1 where nothing is."""
    exposed = patch * factor.view(-1, 1, 1, 1)
    mask = rough_mask(exposed, camera, threshold)
    score = texture_scores(exposed, mask) if textured else torch.zeros_like(factor)
    return torch.where(has_saturation(mask), score, -torch.ones_like(score))


def cut(
    scenes: Sequence[Picture], u: np.ndarray, size: int, camera: CameraConfig, device: torch.device = CPU
) -> Tensor:
    """(N, 3, size, size): a view of each panorama, a crop of each flat picture, mirrored half the time.

    u: (N, CUT or more), uniform in [0, 1).
    """
    around = np.array([scene.around for scene in scenes])
    mirrored = u[:, 4] < 0.5
    if around.all():
        return _views(scenes, u, mirrored, size, camera, device)
    if not around.any():
        scale = camera.scale_low + u[:, 0] * (1 - camera.scale_low)
        return crops(scenes, scale, u[:, 1:3], mirrored, size, device)
    patches = torch.empty(len(scenes), 3, size, size, device=device)
    for kind in (True, False):
        rows = np.flatnonzero(around == kind)
        patches[upload(rows, device)] = cut([scenes[int(row)] for row in rows], u[rows], size, camera, device)
    return patches


def _views(
    scenes: Sequence[Picture],
    u: np.ndarray,
    mirrored: np.ndarray,
    size: int,
    camera: CameraConfig,
    device: torch.device,
) -> Tensor:
    """Yaw is drawn evenly; pitch within ±pitch_max, evenly over the sphere; roll and field of view within theirs."""
    limit = np.sin(np.radians(min(camera.pitch_max, 90)))
    pitch = np.degrees(np.arcsin((2 * u[:, 1] - 1) * limit))
    turn = rotation(360 * u[:, 0] - 180, pitch, (2 * u[:, 2] - 1) * camera.roll_max)
    fov = camera.fov_low + u[:, 3] * (camera.fov_high - camera.fov_low)
    return views(scenes, turn, focal_length(size, fov), mirrored, (size, size), device)


class InpaintingDataset(Samples):
    """Photographs with holes: {"image", "mask", "truth"}, each float32 (3, size, size) in [0, 1].

    A hole is white in the image, as clipped pixels are: the last layer sees the picture unmasked, and must not find
    the truth there.
    """

    def __init__(self, photos: Pictures, patch_size: int, seed: int, share: tuple[float, float] = (0.0, 0.6)) -> None:
        self.pictures = [photos]
        self.photos, self.size, self.seed, self.share = photos, patch_size, seed, share

    def _made(self, numbers: list[int], device: torch.device) -> Sample:
        generators = [np.random.default_rng([self.seed, number]) for number in numbers]
        u = np.stack([one.random(5) for one in generators])
        photos = [self.photos[int(place * len(self.photos))] for place in u[:, 4]]
        truth = crops(photos, 0.5 + 0.5 * u[:, 0], u[:, 1:3], u[:, 3] < 0.5, self.size, device)
        holes = np.stack([irregular_hole(one, self.size, self.size, self.share) for one in generators])
        mask = binary_mask(upload(holes, device))
        return {"image": truth * mask + (1 - mask), "mask": mask, "truth": truth}
