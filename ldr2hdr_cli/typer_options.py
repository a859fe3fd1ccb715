"""Options from the fields of a class: for Typer, a YAML file, `LDR2HDR_…` variables and Python alike."""

import inspect
import os
import re
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from ldr2hdr_cli.config_file import read_yaml
from model.errors import Ldr2hdrError
from model.settings import brief, checked

PREFIX = "LDR2HDR_"  # of environment variables
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """Fields that are checked as they are set, made with `setting`.

    What `setting` takes besides a default and a help text: panel, the box of the help that an option stands in; short,
    another spelling of its flag; metavar; decides, whether it decides what comes out; and what `model.settings` knows.
    """

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = checked(entry.name, getattr(self, entry.name), type(self), entry.name)
            object.__setattr__(self, entry.name, value)


def make_options(
    owner: type[T], flags: Mapping[str, Any], config: Path | None, environment: Mapping[str, str] = os.environ
) -> T:
    """Defaults, then a YAML file, then `LDR2HDR_…` variables, then flags; a later one over an earlier.

    Raises Ldr2hdrError that names where the value stood: FILE: tile, LDR2HDR_TILE, or --tile.
    """
    values: dict[str, Any] = {}
    if config is not None:
        table = read_yaml(config, "write one option a line, such as `tile: 512`")
        values = read_table(owner, table, str(config))
    hints = typing.get_type_hints(owner)
    for name, entry in _known(owner).items():
        variable = PREFIX + name.upper()
        if entry.name in flags:
            values[entry.name] = checked(entry.name, flags[entry.name], owner, _flag(entry))
        elif text := environment.get(variable):
            values[entry.name] = checked(entry.name, _of_variable(text, hints[entry.name]), owner, variable)
    return owner(**values)


def read_table(owner: type, table: Mapping[Any, Any], shown: str) -> dict[str, Any]:
    """What a table of options sets, checked, by the names of the fields. shown: what holds it, for an error.

    Raises Ldr2hdrError.
    """
    known, values = _known(owner), {}
    for key, value in table.items():
        entry = known.get(key.replace("-", "_")) if isinstance(key, str) else None
        if entry is None:
            raise Ldr2hdrError(f"{shown} has no option {brief(key)} to set; there are {', '.join(known)}.")
        values[entry.name] = checked(entry.name, value, owner, f"{shown}: {key}")
    return values


def _known(owner: type) -> dict[str, Field[Any]]:
    return {_name(entry): entry for entry in fields(owner)}


def _of_variable(text: str, wanted: Any) -> Any:
    """A variable holds only text: several names stand in it as in PATH, and digits are a number where one is wanted."""
    choices = typing.get_args(wanted)
    if type(None) in choices:
        wanted = next(kind for kind in choices if kind is not type(None))
    if typing.get_origin(wanted) in (list, tuple):
        return text.split(os.pathsep)
    return int(text) if wanted is int and re.fullmatch(r"-?[0-9]{1,18}", text) else text


def _name(entry: Field[Any]) -> str:
    """An option's name in settings files; the field of one that Python knows already ends in an underscore."""
    return entry.name.rstrip("_")


def _flag(entry: Field[Any]) -> str:
    return "--" + _name(entry).replace("_", "-")


def with_options(
    sections: Mapping[str, type], without: Collection[str] = (), *, bounded: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds an option to a command for every field of `sections`, but those named in `without`.

    The command gets what was given on the command line, and no defaults, as `flags`: section → field → value. Beside
    every --x that is true or false there is --no-x, which undoes a `true` from a file or a variable.
    bounded: Typer refuses what is out of a field's bounds, and shows them in the help.
    """
    made = {
        f"{section}__{entry.name}": (section, entry.name, _parameter(section, owner, entry, bounded))
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


class Command(TyperCommand):
    """A command whose help leaves out the --no-x of what is off anyway."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for parameter in self.params:  # changed in place: once its help is written, a command does nothing else
            if parameter.default is False:
                parameter.secondary_opts = []
        super().format_help(ctx, formatter)


def _parameter(section: str, owner: type, entry: Field[Any], bounded: bool) -> inspect.Parameter:
    """The Typer option of one field, named section__field so that its value finds its way back."""
    wanted, more = typing.get_type_hints(owner)[entry.name], entry.metadata
    flag = _flag(entry)
    if wanted is bool:
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
