"""Every option of `convert`, once: default, help, bounds, panel, and whether it decides the bytes of a result.

The command line, `--config FILE`, the environment, the Python API and the manifest are all made from the fields of one
class. A new option is a new field; with `decides=True`, results that were made with another value are made again. The
options of `evaluate` are in `evaluation.options`, those of training in `train.config`. Nothing heavier than the
standard library and Typer is imported here, since `ldr2hdr --help` reads this file.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ldr2hdr_cli.media.formats import FILMS, SHOWN, SUFFIXES
from ldr2hdr_cli.media.limits import MAX_FRAMES, MAX_PIXELS
from ldr2hdr_cli.option_values import (
    as_text,
    count,
    farm,
    formats,
    frame_rate,
    memory_bytes,
    name_pattern,
    read_with,
    shard,
)
from ldr2hdr_cli.typer_options import Options
from model.settings import setting


@dataclass(frozen=True)
class ConvertOptions(Options):
    """How `convert` reads, reconstructs and writes; a default is what the command does without the option.

    Raises Ldr2hdrError for a value of the wrong type or out of range. A number is taken
    where text is wanted: `tile=512`.
    """

    recursive: bool = setting(False, "Subdirectories too; their tree is kept.", panel="Input", short="-r")
    frames: str | None = setting(None, "Frames of a clip, e.g. 100-250.", panel="Input", metavar="A-B", read=as_text)
    every: int = setting(1, "Every Nth frame only.", panel="Input", low=1)
    start_number: int = setting(1, "Number of a clip's first frame.", panel="Input", low=0)
    deinterlace: bool = setting(
        False, "Interlaced clips: one progressive picture per frame.", panel="Input", decides=True
    )
    fps: str | None = setting(
        None,
        "Take a numbered sequence for a clip of this frame rate: 25, 24000/1001.",
        panel="Input",
        metavar="RATE",
        read=read_with(frame_rate),
        decides=True,
    )
    from_hdr: bool = setting(
        False, "Make PQ and HLG linear, without the network, instead of refusing them.", panel="Input", decides=True
    )
    gain_map: Literal["use", "ignore", "only"] = setting(
        "use",
        "Highlights that a photograph brings in a gain map: below its maximum, not at all, or without the network.",
        panel="Input",
        decides=True,
    )
    max_pixels: int = setting(MAX_PIXELS, "Refuse pictures with more pixels than this.", panel="Input", low=1)
    max_frames: int = setting(MAX_FRAMES, "Refuse clips with more frames than this.", panel="Input", low=1)

    weights: Path | None = setting(  # noqa: RUF009
        None, "A .safetensors that `train` wrote, or the authors' .pth.", panel="Reconstruction", decides=True
    )
    method: Literal[
        "network",
        "clip",
        "landis2002",
        "banterle2006",
        "meylan2006",
        "akyuz2007",
        "rempel2007",
        "didyk2008",
        "masia2009",
        "kovaleski2014",
        "bist2017",
        "masia2017",
        "luzardo2018",
    ] = setting("network", "The network, or a classical operator.", panel="Reconstruction", decides=True)
    transfer: Literal["auto", "gamma", "srgb", "bt709", "bt1886", "linear"] = setting(
        "auto",
        "How the source is linearised: auto: as each file says of itself; a standard's curve; gamma: T^gamma of the "
        "paper, which is not labelled as scene-linear.",
        panel="Reconstruction",
        decides=True,
    )
    gamma: float = setting(2.0, "For --transfer gamma.", panel="Reconstruction", low=0.1, high=10, decides=True)
    exposure: float = setting(
        0.0,
        "Scale the result by this many stops, from -32 to 32.",
        panel="Reconstruction",
        metavar="EV",
        low=-32,
        high=32,
        decides=True,
    )
    temporal: Literal["auto", "off", "strong"] = setting(
        "auto",
        "How much the clipped areas of a clip keep of the frame before, against flicker.",
        panel="Reconstruction",
        decides=True,
    )
    panorama: Literal["auto", "on", "off"] = setting(
        "auto",
        "360° panoramas are seen in perspective views; auto: pictures that say or show that they are one; never clips.",
        panel="Reconstruction",
        decides=True,
    )
    working_size: str = setting(
        "auto",
        "Longer side of the reduced picture that sets the level of clipped areas; auto: 512; off: none.",
        panel="Reconstruction",
        metavar="auto|off|PIXELS",
        read=count("auto", "off"),
        decides=True,
    )

    strength: float = setting(
        1.0,
        "How much of what the network adds above the clip level is kept, in stops: 1 all, 0 nothing, 2 twice.",
        panel="Reconstruction",
        low=0,
        high=2,
        decides=True,
    )
    threshold: float | None = setting(
        None,
        "Display-encoded value above which a channel counts as clipped. (default: that of the weights)",
        panel="Reconstruction",
        metavar="0..1",
        low=0,
        high=0.999,
        decides=True,
    )

    name: str | None = setting(
        None,
        'Names of the results, e.g. "{stem}.{frame:04d}"; without it, photo.exr and clip/clip.000001.exr.',
        panel="Output",
        metavar="PATTERN",
        read=read_with(name_pattern),
    )
    format: str = setting(
        "exr",
        "exr; hdr: Radiance; ultrahdr: JPEG with a gain map; avif; of clips: hdr10, hlg, prores. Several: exr,hdr10.",
        panel="Output",
        metavar="NAME,…",
        read=formats,
        decides=True,
    )
    white: float = setting(
        203.0,
        "cd/m² of the source's white, in all formats but exr and hdr.",
        panel="Output",
        metavar="NITS",
        low=1,
        high=10_000,
        decides=True,
    )
    peak: float = setting(
        1000.0,
        "cd/m² of the brightest display that is written for, in all formats but exr and hdr.",
        panel="Output",
        metavar="NITS",
        low=1,
        high=10_000,
        decides=True,
    )
    quality: int = setting(
        95, "Of avif, where 100 is lossless, and of ultrahdr's gain map.", panel="Output", low=1, high=100, decides=True
    )
    avif_bits: Literal["10", "12"] = setting("10", "Of avif.", panel="Output", decides=True)
    codec: str = setting(
        "libx265",
        "FFmpeg's encoder for hdr10 and hlg: libx265, libsvtav1, hevc_nvenc, av1_nvenc, …",
        panel="Output",
        metavar="ENCODER",
        decides=True,
    )
    crf: float = setting(
        16.0, "Constant quality of hdr10 and hlg; 0 is the best.", panel="Output", low=0, high=63, decides=True
    )
    preset: str | None = setting(None, "Of the encoder.", panel="Output", metavar="NAME", read=as_text, decides=True)
    colorspace: Literal["source", "rec709", "rec2020", "acescg", "aces2065-1", "p3-d65"] = setting(
        "source",
        "Primaries of the results: those of each source, or converted; aces2065-1: an ACES container, uncompressed.",
        panel="Output",
        decides=True,
    )
    ocio: str | None = setting(
        None,
        "An OpenColorIO configuration: a file, or ocio://default; with --ocio-space.",
        panel="Output",
        metavar="CONFIG",
        decides=True,
    )
    ocio_space: str | None = setting(
        None, "Colour space of --ocio that results are converted to.", panel="Output", metavar="NAME", decides=True
    )
    channel: Literal["none", "mask"] = setting(
        "none",
        "mask: how much of each pixel is made up, 1 - M of eq. 1, as the channel reconstructed.Y.",
        panel="Output",
        decides=True,
    )
    metadata: bool = setting(
        True, "Write what the source says of camera, lens, time, place and owner.", panel="Output", decides=True
    )
    alpha: Literal["premultiplied", "straight"] = setting(
        "premultiplied", "Colour times alpha, as readers of EXR expect, or untouched.", panel="Output", decides=True
    )
    float_: bool = setting(False, "32-bit float instead of half.", panel="Output", decides=True)
    compression: Literal["zip", "zips", "piz", "pxr24", "b44", "dwaa", "dwab", "rle", "none"] = setting(
        "zip", "Of the EXR.", panel="Output", decides=True
    )
    dwa_level: float = setting(
        45.0, "Of dwaa and dwab: higher is smaller and coarser.", panel="Output", low=0, high=100_000, decides=True
    )
    preview: bool = setting(
        False, "A PNG strip beside each result: source, −4, −2, 0 stops.", panel="Output", decides=True
    )
    preview_curve: Literal["soft", "plain", "filmic"] = setting(
        "soft",
        "Of the strip; soft: what was not clipped as in the source, highlights rolled off; plain: clipped at white.",
        panel="Output",
        decides=True,
    )
    overwrite: bool = setting(False, "Redo finished results.", panel="Output")
    verify: bool = setting(False, "Read every finished file back and compare its checksum.", panel="Output")

    device: str = setting(
        "auto", "auto, cpu, cuda, mps; several: cuda:0,cuda:1; all: every GPU.", panel="Speed and memory"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "auto: bf16 where the processor has it.", panel="Speed and memory", decides=True
    )
    tile: str = setting(
        "auto",
        "Side of a tile in pixels; auto: as large as memory allows.",
        panel="Speed and memory",
        read=count("auto"),
        decides=True,
    )
    overlap: int = setting(128, "Pixels shared by neighbouring tiles.", panel="Speed and memory", low=0, decides=True)
    memory: str | None = setting(
        None,
        "For the network, e.g. 6G; a quarter of the machine's unless given.",
        panel="Speed and memory",
        read=read_with(memory_bytes),
        decides=True,
    )
    encoders: str = setting(
        "auto",
        "Threads that write results; auto: one a core, from 2 to 16.",
        panel="Speed and memory",
        metavar="auto|THREADS",
        read=count("auto", what="threads"),
    )
    hwaccel: Literal["none", "auto", "cuda", "qsv", "vaapi", "d3d11va", "videotoolbox"] = setting(
        "none",
        "Decode clips on hardware where it and the file allow; the software decoder makes up for what they do not.",
        panel="Speed and memory",
        decides=True,
    )

    shard: str | None = setting(
        None,
        "Only part I of N of the work, for the array job of a batch system; every part into the same -o.",
        panel="Several processes",
        metavar="I/N",
        read=read_with(shard),
    )
    on: str | None = setting(
        None,
        "Convert on the machines of a Ray cluster; without an address, on that of this machine, or this machine alone.",
        panel="Several processes",
        metavar="ray[:HOST:PORT]",
        read=read_with(farm),
    )

    @property
    def pictures(self) -> tuple[str, ...]:
        """Those of `format` with a file a frame; the first names the result in messages and the manifest."""
        return tuple(name for name in self.format.split(",") if name in SUFFIXES)

    @property
    def films(self) -> tuple[str, ...]:
        """Those of `format` with a file a clip."""
        return tuple(name for name in self.format.split(",") if name in FILMS)

    def deciding(self) -> dict[str, Any]:
        """What decides the bytes of a result, by the names that the manifest has always used.

        What the machine and the inputs decide (the weights' checksum, what `auto` means) is added by `convert.run`.
        """
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.metadata.get("decides")}
        values["half"] = not values.pop("float_")
        curve = values.pop("preview_curve")
        values["preview"] = curve if self.preview else "none"
        shown = {name: values.pop(name) for name in ("white", "peak", "quality", "avif_bits")}
        encoder = {name: values.pop(name) for name in ("codec", "crf", "preset")}
        if set(SHOWN) & set(self.format.split(",")):  # else finished EXRs would be made again for another --peak
            values |= shown
        if self.films:
            first = f" from {self.start_number}" if self.frames and self.start_number != 1 else ""
            values |= encoder | {"frames": f"{self.frames or 'all'} by {self.every}{first}"}
        values["fps"] = str(frame_rate(self.fps) or "")
        values["memory"] = self.memory or "auto"
        return values


@dataclass(frozen=True)
class CommandOptions(ConvertOptions):
    """What only the command has besides: how a run is reported."""

    list_: Path | None = setting(  # noqa: RUF009
        None, "Inputs too: the names in this file, one a line; -: on stdin.", panel="Input", metavar="FILE"
    )
    dry_run: bool = setting(False, "Print what would be written, and stop.", panel="Messages")
    quiet: bool = setting(False, "Print only failures.", panel="Messages", short="-q")
    json: bool = setting(False, "One JSON line an event on stdout.", panel="Messages")
    log_file: Path | None = setting(  # noqa: RUF009
        None, "Append every event, with the time, to this file.", panel="Messages", metavar="FILE"
    )
