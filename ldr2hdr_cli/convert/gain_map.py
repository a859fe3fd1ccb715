"""The highlights that a source brings itself, on the device where its frames are rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ldr2hdr_cli.media.source_info import Frame, SourceInfo

if TYPE_CHECKING:
    import torch

    from model.gain_map import OwnLight


def own_light(frame: Frame, info: SourceInfo, device: torch.device) -> OwnLight | None:
    """What the gain map of a frame says; None where it has none."""
    if frame.gain is None:
        return None
    from model.codes import as_tensor
    from model.device import up
    from model.gain_map import OwnLight

    return OwnLight(up(as_tensor(frame.gain), device), info.gain_max, info.is_hdr)
