"""Settings as fields of dataclasses: what each may be, and the YAML file that fills them.

`train.config` and `ldr2hdr_cli.options` are made of them. Only the standard library is imported here, since
`ldr2hdr --help` reads this file.
"""

import math
import os
import typing
from dataclasses import field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from model.errors import Ldr2hdrError

MAX_YAML = 2**17  # bytes of a settings file; PyYAML takes some seconds for as many
_PATTERN = "use the settings.yaml of a run as a pattern"

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def setting(default: Any, text: str, **more: Any) -> Any:
    """A dataclass field with a help text; `low` and `high` bound a number, which must be greater than `above`.

    read: `(value, shown) -> value`, where the type alone does not say what is allowed. Raises Ldr2hdrError.
    """
    return field(default=default, metadata={"help": text, **more})


def checked(key: str, value: Any, owner: type, shown: str) -> Any:
    """`value` as the type of field `key` of `owner`, within its bounds.

    shown: what the user knows the setting by, as an error begins with it. Raises Ldr2hdrError.
    """
    known = {f.name: f for f in fields(owner)}
    if key not in known:
        raise Ldr2hdrError(f'There is no setting "{shown}"; this section has {", ".join(known)}.')
    if (read := known[key].metadata.get("read")) is not None and value is not None:
        value = read(value, shown)
    value = converted(value, _hints(owner)[key], shown)
    low, high, above = (known[key].metadata.get(name) for name in ("low", "high", "above"))
    if isinstance(value, float) and not math.isfinite(value):
        raise Ldr2hdrError(f"{shown} is {value}, but must be a finite number.")
    if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
        bounds = f"at least {low}" if high is None else f"{low} to {high}"
        raise Ldr2hdrError(f"{shown} is {brief(value)}, but must be {bounds}.")
    if value is not None and above is not None and value <= above:
        raise Ldr2hdrError(f"{shown} is {value}, but must be greater than {above}.")
    return value


@cache
def _hints(owner: type) -> dict[str, Any]:
    return typing.get_type_hints(owner)


def brief(value: Any) -> str:
    """A value as a sentence quotes it: settings files may hold anything, of any length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return "something that cannot be shown"
    return text if len(text) <= 80 else f"{text[:77]}..."


def converted(value: Any, wanted: Any, shown: str) -> Any:
    """`value` as the type `wanted` of a field. Raises Ldr2hdrError where it is of another kind."""
    choices = typing.get_args(wanted)
    if typing.get_origin(wanted) is Literal:
        if value in choices:
            return value
        raise Ldr2hdrError(f"{shown} is {brief(value)}, but must be one of {', '.join(map(str, choices))}.")
    if type(None) in choices:
        return None if value is None else converted(value, next(c for c in choices if c is not type(None)), shown)
    if typing.get_origin(wanted) is list:
        if isinstance(value, (list, tuple)) and all(isinstance(item, (str, os.PathLike)) for item in value):
            return [os.fspath(item) for item in value]
    elif wanted is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:  # YAML reads 2e-4 as text
            return float(value)
        except (ValueError, OverflowError):
            pass
    elif wanted is bool and isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    elif wanted is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    elif wanted is Path and isinstance(value, (str, os.PathLike)):
        return Path(value)
    elif isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool):
        return value
    kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "the name of a file"}
    raise Ldr2hdrError(f"{shown} is {brief(value)}, but must be {kinds.get(wanted, 'a list of names')}.")


def read_yaml(path: str | Path, pattern: str = _PATTERN) -> dict[str, Any]:
    """The tables of a settings file, unchecked. pattern: what an error tells the user to follow.

    Raises:
        Ldr2hdrError: no such file, one that is too large, not YAML, not a table, or empty.
    """
    try:
        import yaml
    except ImportError:
        raise Ldr2hdrError(f"{path} cannot be read without PyYAML: pip install pyyaml.") from None
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_YAML + 1)
    except OSError as fault:
        raise Ldr2hdrError(f"{path} cannot be read ({fault.strerror}); give --config a YAML file.") from fault
    if len(text) > MAX_YAML:
        raise Ldr2hdrError(f"{path} has more than {MAX_YAML} bytes, too many for settings; {pattern}.")
    try:
        content = yaml.load(text, _plain_loader(path))
    except Ldr2hdrError:
        raise
    except Exception as fault:  # PyYAML lets through what its constructors raise: ValueError, RecursionError, …
        first = (str(fault) or type(fault).__name__).splitlines()[0]
        raise Ldr2hdrError(f"{path} is not YAML ({first}); {pattern}.") from fault
    if not isinstance(content, dict) or not content:
        raise Ldr2hdrError(f"{path} holds no table of settings; {pattern}.")
    return content


def _plain_loader(path: str | Path) -> Any:
    """PyYAML's safe loader, without two traps.

    It ends at the first alias: ten lines of them make a table of billions of entries. And as in YAML 1.2 only true and
    false are booleans, since `temporal: off` and `panorama: no` mean the words.
    """
    import yaml

    class PlainLoader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise Ldr2hdrError(f"{path} has YAML aliases (*name); write the values out instead.")
            return super().compose_node(parent, index)

    PlainLoader.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return PlainLoader
