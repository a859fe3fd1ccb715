"""Every option of `convert`, once: default, help, bounds, panel, and whether it decides the bytes of a result.

The command line, `--config FILE`, the environment, the Python API and the manifest are all made from the fields of one
class. A new option is a new field; `decides=True` makes finished files of other values be made again. Nothing heavier
than the standard library and Typer is imported here, since `ldr2hdr --help` reads this file.
"""

import inspect
import os
import re
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from ldr2hdr_cli.media.limits import MAX_FRAMES, MAX_PIXELS
from model.errors import Ldr2hdrError
from model.settings import checked, read_yaml, setting

PREFIX = "LDR2HDR_"  # of environment variables
T = TypeVar("T")


def _text(value: Any, _shown: str) -> Any:
    """A number, as YAML reads `fps: 25`, is the same as its text."""
    return str(value) if isinstance(value, int | float | Fraction) and not isinstance(value, bool) else value


def _length(*words: str) -> Callable[[Any, str], Any]:
    """Reads a length in pixels, or one of `words`."""

    def read(value: Any, shown: str) -> Any:
        text = _text(value, shown)
        # `isdigit` would take ² for a number.
        if text in words or (isinstance(text, str) and re.fullmatch(r"0*[1-9][0-9]{0,8}", text)):
            return text
        raise Ldr2hdrError(f"{shown} {_short(text)}: give a number of pixels, or {' or '.join(words)}.")

    return read


def frame_rate(value: Any, shown: str = "--fps") -> Fraction | None:
    """ "25", "23.976", "24000/1001" → frames a second. Raises Ldr2hdrError."""
    if value is None:
        return None
    text = str(value)
    try:
        rate = Fraction(0 if "e" in text.lower() else text.strip())  # 1e99999999 would be written out in full
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise Ldr2hdrError(f"{shown} {_short(text)}: give frames a second, such as 25, 23.976 or 24000/1001.")
    return rate


def memory_bytes(value: Any, shown: str = "--memory") -> int | None:
    """ "6G", "512M", "1.5g" → bytes; None for "auto". Raises Ldr2hdrError."""
    if value is None or value == "auto":
        return None
    text = str(value)
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)i?b?", text.strip().lower())
    amount = int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " ")) if found else 0
    if amount == 0:
        raise Ldr2hdrError(f"{shown} {_short(text)}: not an amount of memory; write it like 6G or 512M.")
    return amount


def _read_with(check: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Keeps the text that `check` accepts, as results and the manifest quote it."""

    def read(value: Any, shown: str) -> Any:
        check(value, shown)
        return _text(value, shown)

    return read


def _short(text: Any) -> str:
    text = str(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class ConvertOptions:
    """How `convert` reads, reconstructs and writes; a default is what the command does without the option.

    Raises Ldr2hdrError for a value of the wrong type or out of range. A number is taken
    where text is wanted: `tile=512`.
    """

    recursive: bool = setting(False, "Subdirectories too; their tree is kept.", panel="Input", short="-r")
    frames: str | None = setting(None, "Frames of a clip, e.g. 100-250.", panel="Input", metavar="A-B", read=_text)
    every: int = setting(1, "Every Nth frame only.", panel="Input", low=1)
    start_number: int = setting(1, "Number of a clip's first frame.", panel="Input", low=0)
    deinterlace: bool = setting(False, "One progressive picture a frame.", panel="Input", decides=True)
    fps: str | None = setting(
        None,
        "A numbered sequence is a clip of so many frames a second: 25, 24000/1001.",
        panel="Input",
        metavar="RATE",
        read=_read_with(frame_rate),
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
    method: Literal["network", "clip", "landis2002", "akyuz2007", "banterle2006", "rempel2007", "kovaleski2014"] = (
        setting("network", "The network, or a classical operator.", panel="Reconstruction", decides=True)
    )
    transfer: Literal["gamma", "srgb", "bt709"] = setting(
        "gamma",
        "How the source is linearised: T^gamma of the paper, or a standard's curve.",
        panel="Reconstruction",
        decides=True,
    )
    gamma: float = setting(2.0, "For --transfer gamma.", panel="Reconstruction", low=0.1, high=10, decides=True)
    exposure: float = setting(
        0.0,
        "Scale the result by so many stops, from -32 to 32.",
        panel="Reconstruction",
        metavar="EV",
        low=-32,
        high=32,
        decides=True,
    )
    temporal: Literal["auto", "off", "strong"] = setting(
        "auto",
        "How much clipped areas of a clip keep from the frame before, so that they do not flicker.",
        panel="Reconstruction",
        decides=True,
    )
    working_size: str = setting(
        "auto",
        "Longer side of the reduced picture that sets the level of clipped areas; auto: 512; off: none.",
        panel="Reconstruction",
        metavar="auto|off|PIXELS",
        read=_length("auto", "off"),
        decides=True,
    )

    format: Literal["exr", "hdr"] = setting("exr", "OpenEXR, or Radiance.", panel="Output", decides=True)
    float_: bool = setting(False, "32-bit float instead of half.", panel="Output", decides=True)
    compression: Literal["zip", "zips", "piz", "pxr24", "b44", "dwaa", "dwab", "rle", "none"] = setting(
        "zip", "", panel="Output", decides=True
    )
    dwa_level: float = setting(45.0, "Loss of dwaa and dwab.", panel="Output", low=0, high=100_000, decides=True)
    preview: bool = setting(
        False, "A PNG strip beside each result: source, −4, −2, 0 stops.", panel="Output", decides=True
    )
    preview_curve: Literal["filmic", "plain"] = setting(
        "filmic", "Tone curve of the strip: filmic or plain.", panel="Output", decides=True
    )
    overwrite: bool = setting(False, "Redo what is finished.", panel="Output")
    verify: bool = setting(False, "Read every finished file back and compare its checksum.", panel="Output")

    device: str = setting(
        "auto", "auto, cpu, cuda, mps; several: cuda:0,cuda:1; all: every GPU.", panel="Speed and memory"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "auto: bf16 where the processor has it.", panel="Speed and memory", decides=True
    )
    tile: str = setting(
        "auto",
        "Side in pixels; auto: as large as memory allows.",
        panel="Speed and memory",
        read=_length("auto"),
        decides=True,
    )
    overlap: int = setting(128, "Pixels shared by neighbouring tiles.", panel="Speed and memory", low=0, decides=True)
    memory: str | None = setting(
        None,
        "For the network, e.g. 6G. (default: a quarter of the machine's)",
        panel="Speed and memory",
        read=_read_with(memory_bytes),
        decides=True,
    )
    encoders: int = setting(2, "Threads that write results.", panel="Speed and memory", low=1)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = checked(entry.name, getattr(self, entry.name), type(self), entry.name)
            object.__setattr__(self, entry.name, value)

    def deciding(self) -> dict[str, Any]:
        """What decides the bytes of a result, by the names that the manifest has always used.

        What only the machine and the inputs settle (the weights' checksum, `auto`) is put in by `run`.
        """
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.metadata.get("decides")}
        values["half"] = not values.pop("float_")
        curve = values.pop("preview_curve")
        values["preview"] = curve if self.preview else "none"
        values["fps"] = str(frame_rate(self.fps) or "")
        values["memory"] = self.memory or "auto"
        return values


@dataclass(frozen=True)
class CommandOptions(ConvertOptions):
    """Those that only the command has: what is seen of a run."""

    dry_run: bool = setting(False, "Say what would be written, and stop.", panel="Messages")
    quiet: bool = setting(False, "Only failures.", panel="Messages", short="-q")
    json: bool = setting(False, "One JSON line an event on stdout.", panel="Messages")
    log_file: Path | None = setting(  # noqa: RUF009
        None, "Append every event, with the time, to this file.", panel="Messages", metavar="FILE"
    )


def make_options(
    owner: type[T], flags: Mapping[str, Any], config: Path | None, environment: Mapping[str, str] = os.environ
) -> T:
    """Defaults, then a YAML file, then `LDR2HDR_…` variables, then flags; a later one over an earlier.

    Raises Ldr2hdrError that names where the value stood: FILE: tile, LDR2HDR_TILE, or --tile.
    """
    known = {_name(entry): entry for entry in fields(owner)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    if config is not None:
        for key, value in read_yaml(config, "write one option a line, such as `tile: 512`").items():
            entry = known.get(key.replace("-", "_")) if isinstance(key, str) else None
            if entry is None:
                raise Ldr2hdrError(f"{config} has no option {_short(repr(key))} to set; there are {', '.join(known)}.")
            values[entry.name] = checked(entry.name, value, owner, f"{config}: {key}")
    hints = typing.get_type_hints(owner)
    for name, entry in known.items():
        variable = PREFIX + name.upper()
        if text := environment.get(variable):
            is_number = hints[entry.name] is int and re.fullmatch(r"-?[0-9]{1,18}", text)
            values[entry.name] = checked(entry.name, int(text) if is_number else text, owner, variable)
        if entry.name in flags:
            values[entry.name] = checked(entry.name, flags[entry.name], owner, _flag(entry))
    return owner(**values)


def _name(entry: Field) -> str:
    """Of an option, as files spell it: a Python keyword or built-in has a trailing underscore as a field only."""
    return entry.name.rstrip("_")


def _flag(entry: Field) -> str:
    return "--" + _name(entry).replace("_", "-")


def with_options(
    sections: Mapping[str, type], without: Collection[str] = (), *, negatable: bool = False, bounded: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds an option to a command for every field of `sections`, but those named in `without`.

    The command gets what was given on the command line, and no defaults, as `flags`: section → field → value.
    negatable: --no-x beside --x. bounded: Typer refuses what is out of a field's bounds, and shows them in the help.
    """
    made = {
        f"{section}__{entry.name}": (section, entry.name, _parameter(section, owner, entry, negatable, bounded))
        for section, owner in sections.items()
        for entry in fields(owner)
        if entry.name not in without
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.name not in ("flags", "context")]
        asks_context = "context" in inspect.signature(command).parameters

        def wrapper(context: typer.Context, **values: Any) -> None:
            flags: dict[str, dict[str, Any]] = {}
            for key, (section, name, _) in made.items():
                value = values.pop(key)
                source = context.get_parameter_source(key)
                if source is not None and source.name == "COMMANDLINE":
                    flags.setdefault(section, {})[name] = value
            command(**values, **({"context": context} if asks_context else {}), flags=flags)

        keyword = inspect.Parameter.KEYWORD_ONLY
        given = [inspect.Parameter("context", keyword, annotation=typer.Context)]
        given += [p.replace(kind=keyword) for p in own] + [parameter for _, _, parameter in made.values()]
        wrapper.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in given}
        wrapper.__doc__, wrapper.__name__ = command.__doc__, command.__name__
        return wrapper

    return decorate


def _parameter(section: str, owner: type, entry: Field, negatable: bool, bounded: bool) -> inspect.Parameter:
    """The Typer option of one field, named section__field so that its value finds its way back."""
    wanted, more = typing.get_type_hints(owner)[entry.name], entry.metadata
    flag = _flag(entry)
    if negatable and wanted is bool:
        flag += "/--no-" + flag[2:]
    info = typer.Option(
        *[flag, more["short"]] if "short" in more else [flag],
        help=more["help"],
        rich_help_panel=more.get("panel", section.capitalize()),
        metavar=more.get("metavar"),
        min=more.get("low") if bounded else None,
        max=more.get("high") if bounded else None,
    )
    return inspect.Parameter(
        f"{section}__{entry.name}",
        inspect.Parameter.KEYWORD_ONLY,
        default=entry.default,
        annotation=Annotated[wanted, info],
    )
