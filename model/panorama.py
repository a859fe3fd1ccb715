"""Equirectangular panoramas, seen as the network was trained: in perspective views.

Straight ahead (yaw and pitch 0) is the middle of a panorama; yaw goes to the right, pitch up. Directions are unit
vectors: x right, y up, z ahead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

_CHUNK = 2**20  # directions that are worked on at a time


@dataclass(frozen=True)
class View:
    """A square view from the middle of the sphere. yaw, pitch, fov: degrees; fov is the whole angle, side to side."""

    yaw: float
    pitch: float
    fov: float

    @property
    def reach(self) -> float:
        """Tangent of half the field of view."""
        return math.tan(math.radians(self.fov) / 2)

    def rotation(self) -> torch.Tensor:
        """3×3 float32: from the camera's directions to those of the sphere."""
        a, b = math.radians(self.yaw), math.radians(self.pitch)
        about_y = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
        about_x = torch.tensor([[1, 0, 0], [0, math.cos(b), math.sin(b)], [0, -math.sin(b), math.cos(b)]])
        return about_y @ about_x


VIEWS = [
    *(View(yaw, pitch, 75.0) for pitch in (-45.0, 0.0, 45.0) for yaw in range(-180, 180, 60)),
    View(0, 90, 75.0),
    View(0, -90, 75.0),
]
"""Every direction lies well inside at least one of them. Steps of 60° are the same from the seam as from the middle."""


def reconstruct_views(
    predict: Callable[[np.ndarray], np.ndarray | None],
    panorama: np.ndarray,
    threshold: float,
    device: torch.device | str = "cpu",
) -> np.ndarray | None:
    """Y of eq. 1 for a panorama, from what `predict` says of its views, blended by distance to each view's edge.

    predict: `Reconstructor.predict_log`. panorama: float32 H×W×3, display-encoded in [0, 1]; threshold: α of the mask.
    Returns as `predict_log`: float32 H×W×3, valid where a channel is above α; None where none is. Where no view has
    anything to say, as of a point smaller than a view's pixel, Y is that of the clip level.
    """
    height, width = panorama.shape[:2]
    clipped = np.flatnonzero((panorama > threshold).any(2))
    if not len(clipped):
        return None
    sphere = wrapped(torch.from_numpy(panorama).to(device).permute(2, 0, 1)[None])
    texels = torch.from_numpy(clipped).to(device)
    total = torch.zeros(len(clipped), 4, device=device)  # weight · Y, weight
    for view in VIEWS:
        inside, places, weight = _places(view, texels, height, width)
        if not len(inside):
            continue
        side = max(32, round(width / math.pi * view.reach))  # in the middle as fine as the panorama
        codes = _view_codes(sphere, view, side, threshold)
        if (log_view := predict(codes)) is not None:
            log_map = _spread(*(torch.from_numpy(one).to(device) for one in (log_view, (codes > threshold).any(2))))
            found = F.grid_sample(log_map, places[None, None], "bilinear", "border", align_corners=False)
            total[inside] += found[0, :, 0].T * weight[:, None]
    log_hdr = np.zeros_like(panorama)
    found = torch.where(total[:, 3:] > 0, total[:, :3] / total[:, 3:], math.log(2))
    log_hdr.reshape(-1, 3)[clipped] = found.cpu().numpy()
    return log_hdr


def wrapped(panorama: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) → (N, C, H, W + 2): past the last column comes the first, for `look`."""
    return torch.cat([panorama[..., -1:], panorama, panorama[..., :1]], -1)


def look(sphere: torch.Tensor, directions: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """What lies in some directions. sphere: (N, C, H, W + 2) from `wrapped`; directions: (N, h, w, 3), of any length.

    mode: "bilinear" or "nearest". Returns (N, C, h, w).
    """
    x, y, z = directions.unbind(-1)
    wide = sphere.shape[-1]
    across = torch.atan2(x, z) / math.pi * (wide - 2) / wide
    down = torch.atan2(y, torch.hypot(x, z)) * (-2 / math.pi)
    return F.grid_sample(sphere, torch.stack([across, down], -1), mode, "border", align_corners=False)


def view_directions(view: View, side: int, rows: slice, device: torch.device | str = "cpu") -> torch.Tensor:
    """Of the pixels of some rows of a view, (rows, side, 3)."""
    steps = ((torch.arange(side, device=device) + 0.5) / side * 2 - 1) * view.reach
    y, x = torch.meshgrid(-steps[rows], steps, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1) @ view.rotation().T.to(device)


def _view_codes(sphere: torch.Tensor, view: View, side: int, threshold: float) -> np.ndarray:
    """A view, float32 side×side×3, averaged from four samples a pixel.

    Where half of a pixel is clipped all of it is: a code between that of a lamp and that of the wall beside it would
    hide the lamp's edge from the mask.
    """
    codes = np.empty((side, side, 3), np.float32)
    step = max(1, _CHUNK // (4 * side))
    for top in range(0, side, step):
        rows = slice(2 * top, 2 * min(top + step, side))
        directions = view_directions(view, 2 * side, rows, sphere.device)[None]
        nearest = look(sphere, directions, "nearest")
        is_clipped = (nearest > threshold).float()
        share = F.avg_pool2d(is_clipped, 2)
        clipped = F.avg_pool2d(nearest * is_clipped, 2) / share.clamp(min=0.25)
        seen = F.avg_pool2d(look(sphere, directions), 2)
        seen = torch.where(share >= 0.5, torch.maximum(seen, clipped), seen)
        codes[top : top + step] = seen[0].permute(1, 2, 0).clamp(0, 1).cpu().numpy()
    return codes


def _spread(log_view: torch.Tensor, is_known: torch.Tensor) -> torch.Tensor:
    """(h, w, 3) and bool (h, w) → (1, 4, h, w): Y times its certainty, and that: 1 where Y is known, less beside it.

    Texels at the edge of a clipped area fall between pixels that have a Y and others.
    """
    known = torch.cat([log_view, torch.ones_like(log_view[..., :1])], 2) * is_known[..., None]
    known = known.permute(2, 0, 1)[None]
    return torch.where(is_known, known, F.avg_pool2d(known, 3, stride=1, padding=1) * 1e-3)


def _places(
    view: View, texels: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which of `texels` lie in a view, where, as (n, 2) for `grid_sample`, and how far from its edge: 1 in the middle.

    texels: their places in a panorama of that size, row by row.
    """
    device = texels.device
    latitude = (0.5 - (torch.arange(height, device=device) + 0.5) / height) * math.pi
    longitude = ((torch.arange(width, device=device) + 0.5) / width * 2 - 1) * math.pi
    into_camera = view.rotation().to(device)  # the transpose of its inverse, as rows are multiplied
    found: list[tuple[torch.Tensor, ...]] = []
    for start in range(0, len(texels), _CHUNK):
        part = texels[start : start + _CHUNK]
        phi, theta = latitude[part // width], longitude[part % width]
        directions = torch.stack([phi.cos() * theta.sin(), phi.sin(), phi.cos() * theta.cos()], -1) @ into_camera
        across, up = (directions[:, axis] / directions[:, 2] / view.reach for axis in (0, 1))
        weight = 1 - torch.maximum(across.abs(), up.abs())
        inside = torch.nonzero((directions[:, 2] > 0) & (weight > 0))[:, 0]
        places = torch.stack([across[inside], -up[inside]], -1)
        found.append((inside + start, places, weight[inside]))
    inside, places, weight = (torch.cat(parts) for parts in zip(*found, strict=True))
    return inside, places, weight
