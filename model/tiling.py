"""Where the tiles of a picture lie, how they are blended, and what need not be run at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.masked_unet import NetworkConfig, receptive_radius

# Peak memory of one forward pass per pixel: so many feature maps of `base_channels` at full resolution, and so many
# bytes for the picture, its mask and the output. Peak resident sizes measured at 1536×1024, all of it clipped, on the
# CPU: 239, 276 and 560 bytes at widths 16, 32 and 64 in fp32, 220 at 32 in bf16; this gives 259, 368, 585 and 259.
MAPS_AT_PEAK = 1.7
BYTES_BESIDES = 150


@dataclass(frozen=True)
class Tile:
    """A rectangle of the picture in pixels. It may reach past the picture's edge; what lies there is invalid."""

    top: int
    left: int
    height: int
    width: int

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """The part of it that the picture has."""
        return (
            slice(self.top, min(self.top + self.height, height)),
            slice(self.left, min(self.left + self.width, width)),
        )


def clipped_region(rows: np.ndarray, columns: np.ndarray, shape: Sequence[int], config: NetworkConfig) -> Tile:
    """The smallest rectangle, on the network's grid, that holds all that the clipped pixels can see.

    rows, columns: in which any pixel of a picture of `shape` is clipped, ascending. Running the network on it alone
    gives the same values at the clipped pixels as the whole picture, because nothing outside reaches them.
    """
    top, height = _span(int(rows[0]), int(rows[-1]), shape[0], config)
    left, width = _span(int(columns[0]), int(columns[-1]), shape[1], config)
    return Tile(top, left, height, width)


def whole_region(height: int, width: int, config: NetworkConfig) -> Tile:
    """The picture, on the network's grid."""
    return Tile(0, 0, _up(height, config.multiple), _up(width, config.multiple))


def _span(first: int, last: int, size: int, config: NetworkConfig) -> tuple[int, int]:
    reach, multiple = receptive_radius(config), config.multiple
    start = max(0, first - reach) // multiple * multiple
    stop = min(_up(last + 1 + reach, multiple), _up(size, multiple))
    return start, stop - start


def plan(region: Tile, tile: int, overlap: int, multiple: int) -> list[Tile]:
    """Tiles that cover `region`, row by row, neighbours sharing at least `overlap` pixels.

    All starts and sizes are multiples of `multiple`, so that every tile sees the picture on the grid that the
    whole picture would be seen on.
    """
    tile, overlap = max(_up(tile, multiple), multiple), _up(overlap, multiple)
    if tile <= overlap and (region.height > tile or region.width > tile):
        raise ValueError(f"a tile of {tile} pixels must be larger than the overlap of {overlap}")
    return [
        Tile(region.top + top, region.left + left, min(tile, region.height), min(tile, region.width))
        for top in _starts(region.height, tile, overlap)
        for left in _starts(region.width, tile, overlap)
    ]


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    if size <= tile:
        return [0]
    return [*range(0, size - tile, tile - overlap), size - tile]


def window(tile: Tile, region: Tile, overlap: int, reach: int) -> np.ndarray:
    """How much each pixel of a tile counts, float32 height×width in (0, 1].

    A raised cosine along the sides that another tile overlaps, flat elsewhere. It leaves the outermost pixels out,
    which have seen least: all that lack context where the overlap is wide enough for that, a quarter of it otherwise.
    """
    margin = reach if overlap >= 2 * reach + 64 else overlap // 4
    rows = _ramp(
        tile.height, overlap, margin, tile.top > region.top, _end(tile.top, tile.height, region.top, region.height)
    )
    columns = _ramp(
        tile.width, overlap, margin, tile.left > region.left, _end(tile.left, tile.width, region.left, region.width)
    )
    return np.outer(rows, columns)


def _end(start: int, length: int, region_start: int, region_length: int) -> bool:
    return start + length < region_start + region_length


def _ramp(length: int, overlap: int, margin: int, before: bool, after: bool) -> np.ndarray:
    position = np.arange(length, dtype=np.float64) + 0.5
    rise = np.clip((position - margin) / max(overlap - 2 * margin, 1), 0, 1)
    rise = np.maximum(0.5 - 0.5 * np.cos(np.pi * rise), 1e-6)  # never 0: the sum of all windows is divided by
    return ((rise if before else 1.0) * (rise[::-1] if after else 1.0) * np.ones(length)).astype(np.float32)


def bytes_per_pixel(config: NetworkConfig, bytes_per_value: int) -> float:
    """Memory of a forward pass, per pixel of the tile, in bytes."""
    return MAPS_AT_PEAK * config.base_channels * bytes_per_value + BYTES_BESIDES


def largest_tile(region: Tile, budget: float, config: NetworkConfig, bytes_per_value: int) -> int:
    """Side in pixels of the largest square tile that `budget` bytes allow; the longer side of a region that fits."""
    pixels = budget / bytes_per_pixel(config, bytes_per_value)
    if region.height * region.width <= pixels:
        return max(region.height, region.width)
    shorter = min(region.height, region.width)
    side = int(pixels**0.5) if pixels < shorter**2 else int(pixels / shorter)
    return max(side // config.multiple * config.multiple, config.multiple)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
