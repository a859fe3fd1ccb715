"""What becomes of a picture after the network: eq. 1, then colour and exposure, up to what is written."""

from dataclasses import dataclass, field

from model.exposure import Encoding

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Rendering:
    """From T, M and Y to the values of a result, in this order.

    encoding: how T is linearised in eq. 1. strength: scales the log of what the network adds above the clip level; 1 is
    the network's answer, 0 leaves the clip level. matrix: from the source's linear RGB to the result's, rows first;
    None: the source's primaries are kept. gain: linear, of `--exposure`.
    """

    encoding: Encoding = field(default_factory=Encoding)
    strength: float = 1.0
    matrix: Matrix | None = None
    gain: float = 1.0
