"""How each source is linearised and in which colour it is written: from the options, and from what a file says."""

from typing import Any

from ldr2hdr_cli.media.colour import COLORSPACES, Chromaticities, color_interop_id, conversion
from ldr2hdr_cli.media.source_info import SourceInfo
from ldr2hdr_cli.options import ConvertOptions
from model.exposure import Encoding
from model.rendering import Rendering


def rendering_of(info: SourceInfo, options: ConvertOptions) -> Rendering:
    """How this source's frames become scene-linear."""
    encoding = info.encoding if options.transfer == "auto" else Encoding(options.transfer, options.gamma)
    matrix = conversion(info.chromaticities, written_primaries(info, options))
    return Rendering(encoding, matrix=matrix, gain=2.0**options.exposure)


def written_primaries(info: SourceInfo, options: ConvertOptions) -> Chromaticities:
    """Those of the results."""
    return COLORSPACES.get(options.colorspace, info.chromaticities)


def assumptions(info: SourceInfo, options: ConvertOptions) -> tuple[str, ...]:
    """Sentences on what this source does not name and the result rests on."""
    assumed = [what for what in info.assumed if what == "primaries" or options.transfer == "auto"]
    if not assumed:
        return ()
    taken = {"primaries": info.primaries, "transfer": str(info.encoding)}
    values = dict.fromkeys(taken[what] for what in assumed)
    shown = "sRGB" if "srgb" in values else " and ".join(values)
    return (f"it names no {' and no '.join(assumed)}: {shown} is assumed.",)


def labels(info: SourceInfo, options: ConvertOptions) -> dict[str, Any]:
    """The header entries that say in which colour a result is.

    A `colorInteropID` only where the values are scene-linear by a curve that the file or the user names: eq. 1's T^γ is
    no camera's and no file's, unless that is what the file names.
    """
    chromaticities = written_primaries(info, options)
    encoding = rendering_of(info, options).encoding
    found: dict[str, Any] = {"chromaticities": chromaticities, "ldr2hdr/transfer": str(encoding)}
    is_linear = options.transfer != "gamma" or (encoding == info.encoding and "transfer" not in info.assumed)
    if is_linear and (name := color_interop_id(chromaticities)) is not None:
        found["colorInteropID"] = name
    if options.colorspace == "aces2065-1" and is_linear:
        found["acesImageContainerFlag"] = 1
    return found
