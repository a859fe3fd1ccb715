"""Every option of `serve`, once, as those of `convert` are in `ldr2hdr_cli.options`."""
# ruff: noqa: RUF009 (`setting` makes a field)

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldr2hdr_cli.media.limits import MAX_FRAMES, MAX_PIXELS
from ldr2hdr_cli.option_values import memory_bytes, shortened
from ldr2hdr_cli.typer_options import Options
from model.errors import Ldr2hdrError
from model.settings import setting


def _amount(value: Any, shown: str) -> str:
    if value == "auto" or memory_bytes(value, shown) is None:
        raise Ldr2hdrError(f"{shown} {shortened(value)}: give bytes, such as 512M or 20G.")
    return str(value)


@dataclass(frozen=True)
class ServeOptions(Options):
    """Where the server listens, what it converts with, and what it refuses."""

    host: str = setting(
        "127.0.0.1", "Address to listen on; others than this machine's own need --token.", panel="Access"
    )
    port: int = setting(8000, "0: any that is free.", panel="Access", low=0, high=65535)
    token: str | None = setting(
        None,
        "What clients send as Authorization: Bearer TOKEN; better given as LDR2HDR_TOKEN, which `ps` does not show.",
        panel="Access",
    )
    root: list[Path] | None = setting(
        None,
        "Folder that clients may name files of, links followed; repeat it for several. None unless given.",
        panel="Access",
        metavar="DIR",
    )

    device: str = setting(
        "auto", "auto, cpu, cuda, mps; several: cuda:0,cuda:1; all: every GPU; each takes a job.", panel="Network"
    )
    weights: Path | None = setting(
        None, "A .safetensors that `train` wrote, or the authors' .pth, for jobs that name none.", panel="Network"
    )

    max_upload: str = setting("1G", "Bytes of one upload.", panel="Limits", metavar="BYTES", read=_amount)
    max_pictures: int = setting(200, "Pictures and clips of one job.", panel="Limits", low=1)
    max_queued: int = setting(50, "Jobs that wait.", panel="Limits", low=1)
    max_pixels: int = setting(MAX_PIXELS, "Refuse pictures with more pixels than this.", panel="Limits", low=1)
    max_frames: int = setting(MAX_FRAMES, "Refuse clips with more frames than this.", panel="Limits", low=1)
    keep: float = setting(24.0, "Hours that finished jobs are kept.", panel="Limits", metavar="HOURS", above=0)
    keep_size: str = setting(
        "20G",
        "Bytes of all jobs; the oldest finished ones make way, and a job that is larger by itself is ended.",
        panel="Limits",
        metavar="BYTES",
        read=_amount,
    )

    @property
    def upload_bytes(self) -> int:
        return memory_bytes(self.max_upload) or 0

    @property
    def kept_bytes(self) -> int:
        return memory_bytes(self.keep_size) or 0
