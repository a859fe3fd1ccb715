"""How each source is linearised and in which colour it is written: from the options, and from what a file says."""

from ldr2hdr_cli.media.source_info import SourceInfo
from ldr2hdr_cli.options import ConvertOptions
from model.exposure import Encoding
from model.rendering import Rendering


def rendering_of(info: SourceInfo, options: ConvertOptions) -> Rendering:
    """How this source's frames become scene-linear."""
    encoding = Encoding(options.transfer, options.gamma)
    if info.transfer == "pq":  # no choice: these are no codes of a standard display
        encoding = Encoding("pq")
    elif info.transfer == "hlg":
        encoding = Encoding("hlg")
    elif info.codec == "raw":  # as it was encoded for the network
        encoding = Encoding("srgb")
    return Rendering(encoding=encoding, gain=2.0**options.exposure)
