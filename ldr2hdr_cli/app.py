"""The command line: options, help, exit statuses; no work of its own."""

import math
import re
import signal
import sys
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ldr2hdr_cli.evaluation.command import evaluate
from ldr2hdr_cli.train_commands import train_app
from model import __version__
from model.errors import Ldr2hdrError

app = typer.Typer(
    name="ldr2hdr",
    help="JPEGs and LDR video to scene-linear OpenEXR: what the camera clipped, reconstructed.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Transfer(StrEnum):
    gamma = "gamma"
    srgb = "srgb"
    bt709 = "bt709"


class Format(StrEnum):
    exr = "exr"
    hdr = "hdr"


class Compression(StrEnum):
    zip = "zip"
    zips = "zips"
    piz = "piz"
    pxr24 = "pxr24"
    b44 = "b44"
    dwaa = "dwaa"
    dwab = "dwab"
    rle = "rle"
    none = "none"


class Method(StrEnum):
    network = "network"
    clip = "clip"
    landis2002 = "landis2002"
    akyuz2007 = "akyuz2007"
    banterle2006 = "banterle2006"
    rempel2007 = "rempel2007"
    kovaleski2014 = "kovaleski2014"


class Temporal(StrEnum):
    auto = "auto"
    off = "off"
    strong = "strong"


class Curve(StrEnum):
    filmic = "filmic"
    plain = "plain"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ldr2hdr {__version__}")
        raise typer.Exit


def _number(value: float) -> float:
    """Bounds let NaN through, which is neither below nor above any."""
    if math.isnan(value):
        raise typer.BadParameter(f"{value} is not a number.")
    return value


@app.callback()
def main_options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show Python's traceback when something fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    context.obj = {"debug": debug}


@app.command()
def convert(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(help="Files, directories, globs, or sequences such as plate.%04d.png", metavar="INPUT"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the results.", metavar="DIR")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Subdirectories too; their tree is kept.", rich_help_panel="Input")
    ] = False,
    frames: Annotated[
        str | None, typer.Option(help="Frames of a clip, e.g. 100-250.", rich_help_panel="Input", metavar="A-B")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Every Nth frame only.", rich_help_panel="Input")] = 1,
    start_number: Annotated[
        int, typer.Option(min=0, help="Number of a clip's first frame.", rich_help_panel="Input")
    ] = 1,
    deinterlace: Annotated[
        bool, typer.Option("--deinterlace", help="One progressive picture a frame.", rich_help_panel="Input")
    ] = False,
    fps: Annotated[
        str | None,
        typer.Option(
            help="A numbered sequence is a clip of so many frames a second: 25, 24000/1001.",
            rich_help_panel="Input",
            metavar="RATE",
        ),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse pictures with more pixels than this.", rich_help_panel="Input")
    ] = 2**28,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Refuse clips with more frames than this.", rich_help_panel="Input")
    ] = 2**20,
    weights: Annotated[
        Path | None,
        typer.Option(help="A .safetensors that `train` wrote, or the authors' .pth.", rich_help_panel="Reconstruction"),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="The network, or a classical operator.", rich_help_panel="Reconstruction")
    ] = Method.network,
    transfer: Annotated[
        Transfer,
        typer.Option(
            help="How the source is linearised: T^gamma of the paper, or a standard's curve.",
            rich_help_panel="Reconstruction",
        ),
    ] = Transfer.gamma,
    gamma: Annotated[
        float,
        typer.Option(min=0.1, max=10, callback=_number, help="For --transfer gamma.", rich_help_panel="Reconstruction"),
    ] = 2.0,
    exposure: Annotated[
        float,
        typer.Option(
            min=-32,
            max=32,
            callback=_number,
            help="Scale the result by so many stops, from -32 to 32.",
            metavar="EV",
            rich_help_panel="Reconstruction",
        ),
    ] = 0.0,
    temporal: Annotated[
        Temporal,
        typer.Option(
            help="How much clipped areas of a clip keep from the frame before, so that they do not flicker.",
            rich_help_panel="Reconstruction",
        ),
    ] = Temporal.auto,
    format: Annotated[Format, typer.Option(help="OpenEXR, or Radiance.", rich_help_panel="Output")] = Format.exr,
    float_: Annotated[
        bool, typer.Option("--float", help="32-bit float instead of half.", rich_help_panel="Output")
    ] = False,
    compression: Annotated[Compression, typer.Option(rich_help_panel="Output")] = Compression.zip,
    dwa_level: Annotated[
        float,
        typer.Option(min=0, max=100_000, callback=_number, help="Loss of dwaa and dwab.", rich_help_panel="Output"),
    ] = 45.0,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview", help="A PNG strip beside each result: source, −4, −2, 0 stops.", rich_help_panel="Output"
        ),
    ] = False,
    preview_curve: Annotated[
        Curve, typer.Option(help="Tone curve of the strip: filmic or plain.", rich_help_panel="Output")
    ] = Curve.filmic,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Redo what is finished.", rich_help_panel="Output")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read every finished file back and compare its checksum.", rich_help_panel="Output"
        ),
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, mps; several: cuda:0,cuda:1; all: every GPU.", rich_help_panel="Speed and memory"
        ),
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto: bf16 where the processor has it.", rich_help_panel="Speed and memory")
    ] = Precision.auto,
    tile: Annotated[
        str, typer.Option(help="Side in pixels; auto: as large as memory allows.", rich_help_panel="Speed and memory")
    ] = "auto",
    overlap: Annotated[
        int, typer.Option(min=0, help="Pixels shared by neighbouring tiles.", rich_help_panel="Speed and memory")
    ] = 128,
    working_size: Annotated[
        str,
        typer.Option(
            help="Longer side of the reduced picture that sets the level of clipped areas; auto: 512; off: none.",
            rich_help_panel="Reconstruction",
            metavar="auto|off|PIXELS",
        ),
    ] = "auto",
    memory: Annotated[
        str | None,
        typer.Option(
            help="For the network, e.g. 6G. (default: a quarter of the machine's)",
            rich_help_panel="Speed and memory",
            show_default=False,
        ),
    ] = None,
    encoders: Annotated[
        int, typer.Option(min=1, help="Threads that write results.", rich_help_panel="Speed and memory")
    ] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, and stop.", rich_help_panel="Messages")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only failures.", rich_help_panel="Messages")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON line an event on stdout.", rich_help_panel="Messages")
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            help="Append every event, with the time, to this file.", rich_help_panel="Messages", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Convert photographs and clips to scene-linear EXR.

    [bold]ldr2hdr convert photos/ -o exr/[/]   every picture of a directory

    [bold]ldr2hdr convert clip.mov -o exr/ --frames 100-250 --transfer bt709[/]   a range of a clip, for a compositor

    [bold]ldr2hdr convert plate.%04d.png -o exr/ --preview[/]   a numbered sequence, with pictures to look at

    The same command again does only what is missing. Exit status: 0 all done, 1 some failed, 2 misuse, 130 interrupted,
    143 terminated.
    """
    if tile != "auto" and not _is_size(tile):
        raise Ldr2hdrError(f"--tile {tile}: give a number of pixels, or auto.")
    if working_size not in ("auto", "off") and not _is_size(working_size):
        raise Ldr2hdrError(f"--working-size {working_size}: give a number of pixels, auto or off.")
    from ldr2hdr_cli.convert import command

    status = command.convert(
        command.Request(
            inputs=inputs,
            output=output,
            recursive=recursive,
            frames=frames,
            every=every,
            start_number=start_number,
            deinterlace=deinterlace,
            fps=_rate(fps),
            weights=weights,
            method=method.value,
            device=device,
            precision=precision.value,
            tile=tile,
            overlap=overlap,
            working_size=working_size,
            memory=memory,
            transfer=transfer.value,
            gamma=gamma,
            exposure=exposure,
            temporal=temporal.value,
            format=format.value,
            half=not float_,
            compression=compression.value,
            dwa_level=dwa_level,
            preview=("plain" if preview_curve.value == "plain" else "filmic") if preview else "none",
            max_pixels=max_pixels,
            max_frames=max_frames,
            overwrite=overwrite,
            verify=verify,
            dry_run=dry_run,
            quiet=quiet,
            as_json=as_json,
            log_file=log_file,
            encoders=encoders,
            debug=context.obj["debug"],
        )
    )
    raise typer.Exit(status)


def _is_size(text: str) -> bool:
    """Whether it is a length in pixels; `isdigit` takes ² for one."""
    return re.fullmatch(r"0*[1-9][0-9]{0,8}", text) is not None


def _rate(text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        rate = Fraction(0 if "e" in text.lower() else text.strip())  # 1e99999999 would be written out in full
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise Ldr2hdrError(f"--fps {text}: give frames a second, such as 25, 23.976 or 24000/1001.")
    return rate


@app.command()
def info(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Pictures, clips, EXRs, weights files; none: the default weights.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a file.")] = False,
) -> None:
    """Describe a picture, a clip, an EXR (attributes, range in stops) or a weights file."""
    import json

    from rich.console import Console

    from ldr2hdr_cli.info import describe, render
    from ldr2hdr_cli.terminal import one_line
    from model.checkpoint import DEFAULT_WEIGHTS

    failed = False
    for path in files or [DEFAULT_WEIGHTS]:
        try:
            found = describe(path)
        except Ldr2hdrError as error:
            typer.echo(one_line(str(error)), err=True)
            failed = True
            continue
        if as_json:
            typer.echo(json.dumps(found, default=str))
        else:
            Console().print(render(found))
    raise typer.Exit(1 if failed else 0)


app.command("evaluate")(evaluate)
app.add_typer(train_app, name="train")


def _interrupted(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt, but for an import: C code would swallow it there, or abort, so the process dies at once.

    SIGTERM is left alone for the same reason: a command that has something to finish sets its handlers when it runs.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        frame = frame.f_back
    raise KeyboardInterrupt


def main() -> None:
    """The `ldr2hdr` command. Every fault that the user can mend becomes one sentence here, once."""
    debug = "--debug" in sys.argv
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # neither nohup nor a caller's own
        signal.signal(signal.SIGINT, _interrupted)
    try:
        app()
    except Ldr2hdrError as error:
        if debug:
            raise
        from ldr2hdr_cli.terminal import one_line

        typer.echo(f"ldr2hdr: {one_line(str(error))}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        typer.echo(f"ldr2hdr: unexpected {kind}: {error}. Run it again with --debug for the whole story.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
