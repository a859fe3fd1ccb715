"""How each source is linearised and in which colour it is written: from the options, and from what a file says."""

from ldr2hdr_cli.media.source_info import SourceInfo
from ldr2hdr_cli.options import ConvertOptions
from model.exposure import Encoding
from model.rendering import Rendering


def rendering_of(info: SourceInfo, options: ConvertOptions) -> Rendering:
    """How this source's frames become scene-linear."""
    return Rendering(
        encoding=Encoding(options.transfer, options.gamma), strength=options.strength, gain=2.0**options.exposure
    )
