"""What is refused before it is decoded, unless the user allows more."""

from pathlib import Path

from model.errors import Ldr2hdrError

MAX_PIXELS = 2**28  # of a picture, or of a frame
MAX_FRAMES = 2**20  # of a clip


def check_size(path: Path, width: int, height: int, most: int, samples: int = 4, what: str = "") -> None:
    """Raises Ldr2hdrError for more than `most` pixels; those of up to four samples count once, of eight twice."""
    if width * height * max(samples / 4, 1) > most:
        size = f"{what}{width}×{height} pixels" + (f" of {samples} samples" if samples > 4 else "")
        raise Ldr2hdrError(f"{path} has {size}, more than the {most} allowed; raise --max-pixels if it is meant.")
