"""HDR-VDP-3, task "quality", in torch."""

from ldr2hdr_cli.evaluation.hdrvdp.metric import Quality, angular_resolution, hdrvdp3

__all__ = ["Quality", "angular_resolution", "hdrvdp3"]
