"""How each source is linearised and in which colour it is written: from the options, and from what a file says."""

from typing import Any

from ldr2hdr_cli.media.colour import AP0, COLORSPACES, Chromaticities, color_interop_id, conversion
from ldr2hdr_cli.media.exr import PREFIX
from ldr2hdr_cli.media.ocio import Space
from ldr2hdr_cli.media.source_info import HDR_NOTES, SourceInfo
from ldr2hdr_cli.options import ConvertOptions
from model.exposure import Encoding
from model.rendering import Rendering


def rendering_of(info: SourceInfo, options: ConvertOptions) -> Rendering:
    """How this source's frames become scene-linear."""
    # PQ and HLG are no codes of a standard display, and RAW was encoded for the network.
    is_fixed, transfer = info.transfer in HDR_NOTES or info.codec == "raw", options.transfer
    encoding = info.encoding if transfer == "auto" or is_fixed else Encoding(transfer, options.gamma)
    matrix = conversion(info.chromaticities, written_primaries(info, options))
    return Rendering(encoding, options.strength, matrix, 2.0**options.exposure)


def written_primaries(info: SourceInfo, options: ConvertOptions) -> Chromaticities:
    """Those of the results; with `--ocio`, those that OpenColorIO is given."""
    if options.ocio:
        return AP0
    return COLORSPACES.get(options.colorspace, info.chromaticities)


def assumptions(info: SourceInfo, options: ConvertOptions) -> tuple[str, ...]:
    """Sentences on what this source does not name and the result rests on, and on what of it the result cannot hold."""
    others = [name for name in options.format.split(",") if name != "exr"]
    lost = (f"its alpha is not in {' and '.join(others)}: EXR alone has one.",) if info.has_alpha and others else ()
    assumed = [what for what in info.assumed if what == "primaries" or options.transfer == "auto"]
    if not assumed:
        return lost
    taken = {"primaries": info.primaries, "transfer": str(info.encoding)}
    values = dict.fromkeys(taken[what] for what in assumed)
    shown = "sRGB" if "srgb" in values else " and ".join(values)
    return (f"it names no {' and no '.join(assumed)}: {shown} is assumed.", *lost)


def labels(info: SourceInfo, options: ConvertOptions, space: Space | None = None) -> dict[str, Any]:
    """The header entries that say in which colour a result is; space: of `--ocio`.

    A `colorInteropID` only where the values are linear by a curve that the file or the user names: eq. 1's T^γ is no
    camera's and no file's, unless the file names that very γ.
    """
    encoding = rendering_of(info, options).encoding
    found: dict[str, Any] = {PREFIX + "transfer": str(encoding)}
    if space is None:
        found["chromaticities"] = written_primaries(info, options)
        name = color_interop_id(found["chromaticities"])
    else:
        found[PREFIX + "ocio"] = f"{space.name} of {space.config}"
        name = space.interop_id
    if options.transfer == "gamma" and (encoding != info.encoding or "transfer" in info.assumed):
        return found
    if name:
        found["colorInteropID"] = name
    if options.colorspace == "aces2065-1":
        found["acesImageContainerFlag"] = 1  # SMPTE ST 2065-4
    return found
