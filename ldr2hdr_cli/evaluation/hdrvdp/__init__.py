"""HDR-VDP, task "quality", in torch: version 3.0.7 and version 2.2."""

from ldr2hdr_cli.evaluation.hdrvdp.pictures import angular_resolution
from ldr2hdr_cli.evaluation.hdrvdp.version2 import hdrvdp2
from ldr2hdr_cli.evaluation.hdrvdp.version3 import Quality, hdrvdp3

__all__ = ["Quality", "angular_resolution", "hdrvdp2", "hdrvdp3"]
