"""Any colour space of an OpenColorIO configuration, by the extra `ocio`, which is imported where it is used."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.errors import Ldr2hdrError

_REFERENCE = "ocio://default"  # whose ACES2065-1 other configurations are brought to


@dataclass(frozen=True)
class Space:
    """A colour space of a configuration. interop_id: by the Colour Interop Forum; empty where it has none.

    identity: of the configuration, as OpenColorIO tells two apart.
    """

    config: str
    name: str
    interop_id: str
    identity: str
    processor: Any

    def from_aces(self, pixels: np.ndarray) -> np.ndarray:
        """H×W×3 float32 of linear AP0 (ACES2065-1) in this space; called from several threads."""
        found = np.array(pixels, np.float32, order="C")
        self.processor.applyRGB(found)
        return found


def load(config: str, name: str) -> Space:
    """config: a file, or one that is built in, such as ocio://default. name: or an alias, or a role of it.

    Raises Ldr2hdrError: no OpenColorIO, no such configuration or space, or one that nothing leads to.
    """
    try:
        import PyOpenColorIO as ocio
    except ImportError:
        raise Ldr2hdrError("--ocio needs OpenColorIO: pip install 'ldr2hdr[ocio]'.") from None
    try:
        opened = ocio.Config.CreateFromFile(config)
    except (ocio.Exception, ocio.ExceptionMissingFile) as error:
        raise Ldr2hdrError(f"--ocio {config} cannot be read ({_first_line(error)}); give a configuration.") from None
    space = opened.getColorSpace(name)
    if space is None:
        known = ", ".join(opened.getColorSpaceNames())
        raise Ldr2hdrError(f"--ocio-space {name}: {config} has no such colour space; it has {known}.")
    try:
        reference = ocio.Config.CreateFromFile(_REFERENCE)
        processor = ocio.Config.GetProcessorFromConfigs(reference, "ACES2065-1", opened, space.getName())
    except ocio.Exception as error:
        raise Ldr2hdrError(
            f"--ocio-space {name}: {config} does not say how to get there from ACES2065-1 ({_first_line(error)}); "
            "give it the role aces_interchange."
        ) from None
    interop = space.getInteropID() if hasattr(space, "getInteropID") else ""
    return Space(config, space.getName(), interop or "", opened.getCacheID(), processor.getDefaultCPUProcessor())


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
