"""The command line: options, help, exit statuses; no work of its own."""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from ldr2hdr_cli.evaluation.options import EvaluateOptions
from ldr2hdr_cli.options import CommandOptions
from ldr2hdr_cli.serve.options import ServeOptions
from ldr2hdr_cli.train_commands import train_app
from ldr2hdr_cli.typer_options import Command, make_options, with_options
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


Config = Annotated[
    Path | None,
    typer.Option(
        help="Options as YAML. LDR2HDR_… variables override it, and flags both; --no-… undoes what they turn on.",
        metavar="FILE",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ldr2hdr {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show Python's traceback when something fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    context.obj = {"debug": debug}


@app.command(cls=Command)
@with_options({"convert": CommandOptions})
def convert(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the results.", metavar="DIR")],
    flags: dict[str, dict[str, Any]],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, directories, globs, or sequences such as plate.%04d.png; -: names on stdin, one a line",
            metavar="INPUT",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Convert photographs and clips to scene-linear EXR.

    [bold]ldr2hdr convert photos/ -o exr/[/]   every picture of a directory

    [bold]ldr2hdr convert clip.mov -o exr/ --frames 100-250[/]   a range of a clip, for a compositor

    [bold]ldr2hdr convert plate.%04d.png -o exr/ --preview[/]   a numbered sequence, with pictures to look at

    The same command again does only what is missing. Exit status: 0 all done, 1 some failed, 2 misuse, 130 interrupted,
    143 terminated.
    """
    options = make_options(CommandOptions, flags.get("convert", {}), config)
    if not inputs and options.list_ is None:
        raise typer.BadParameter("give files, or --list FILE.", param_hint="INPUT")
    from ldr2hdr_cli.convert import command

    raise typer.Exit(command.convert(inputs or [], output, options, debug=context.obj["debug"]))


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


@app.command(cls=Command)
@with_options({"evaluate": EvaluateOptions})
def evaluate(flags: dict[str, dict[str, Any]], config: Config = None) -> None:
    """Compare networks, classical operators and other programs on pictures whose truth is known."""
    options = make_options(EvaluateOptions, flags.get("evaluate", {}), config)
    from ldr2hdr_cli.evaluation import command

    command.evaluate(options)


@app.command(cls=Command)
def view(
    out: Annotated[Path, typer.Argument(help="What -o named for convert.", metavar="OUT")],
    folder: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory for the page. (default: OUT/ldr2hdr-view)", metavar="DIR"),
    ] = None,
) -> None:
    """Make a page to look through a finished job with: source and result, at several exposures.

    It needs a browser and nothing else. What failed and what deserves a look comes first; of a clip a few frames are
    shown, spread evenly.
    """
    from rich.console import Console
    from rich.progress import track

    from ldr2hdr_cli.view.page import build

    console = Console(stderr=True)
    page, cards = build(
        out, folder, lambda chosen: track(chosen, "", console=console, transient=True, disable=not console.is_terminal)
    )
    failed = sum(card.failed for card in cards)
    typer.echo(f"{page}: {len(cards) - failed} results" + (f", {failed} failed" if failed else ""))


@app.command(cls=Command)
@with_options({"serve": ServeOptions})
def serve(
    data: Annotated[Path, typer.Option("--data", "-d", help="Folder for the jobs, with room for them.", metavar="DIR")],
    flags: dict[str, dict[str, Any]],
    config: Config = None,
) -> None:
    """Convert over HTTP, with a queue, and a page to drop pictures on. docs/serve.md describes the API.

    The first SIGINT or SIGTERM finishes what is in hand; what is left, the next server on the same folder goes on with.
    """
    options = make_options(ServeOptions, flags.get("serve", {}), config)
    from ldr2hdr_cli.serve import command

    command.serve(data, options)


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
        typer.echo(f"ldr2hdr: unexpected {kind}: {error}. Run it again with --debug for a traceback.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
