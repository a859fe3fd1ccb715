"""What an operator is given, and how it changes the luminance of a picture."""

from dataclasses import dataclass

import numpy as np

from model.constants import LUMINANCE

LUMINANCE_WEIGHTS = np.array(LUMINANCE, np.float32)
REFERENCE_SIDE = 1080.0  # pixels, for which the papers give their filter sizes


@dataclass(frozen=True)
class OperatorInput:
    """What an operator works on. All float32, H×W unless noted."""

    encoded: np.ndarray  # display-encoded RGB in [0, 1], H×W×3
    linear: np.ndarray  # the same picture linear, LDR white = 1, H×W×3
    luminance: np.ndarray  # of `linear`
    peak: float  # see `expand`
    threshold: float  # see `expand`

    @property
    def saturated(self) -> np.ndarray:
        """1.0 where any channel is saturated, else 0.0."""
        return (self.encoded.max(axis=-1) >= self.threshold).astype(np.float32)

    @property
    def scale(self) -> float:
        """The picture's size relative to the one that the papers' pixel counts were chosen for."""
        return min(self.luminance.shape) / REFERENCE_SIDE


def with_luminance(given: OperatorInput, luminance: np.ndarray) -> np.ndarray:
    """The picture with its luminance replaced and its chromaticities kept; black stays black."""
    ratio = luminance / np.maximum(given.luminance, 1e-12)
    return (given.linear * ratio[..., None]).astype(np.float32)
