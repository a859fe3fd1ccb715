"""Settings as fields of dataclasses: what each field may hold, and the sentence that refuses anything else.

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

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def setting(default: Any, text: str, **more: Any) -> Any:
    """A dataclass field with a help text. A number is at least `low`, at most `high` and greater than `above`.

    read: `(value, shown) -> value`, where the type alone does not say what is allowed. Raises Ldr2hdrError.
    """
    return field(default=default, metadata={"help": text, **more})


def checked(key: str, value: Any, owner: type, shown: str) -> Any:
    """`value` as the type of field `key` of `owner`, within its bounds.

    shown: the name by which the user set it, with which an error begins. Raises Ldr2hdrError.
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
    if (several := typing.get_origin(wanted)) in (list, tuple):
        names = [value] if several is list and isinstance(value, (str, os.PathLike)) else value
        is_of_names = isinstance(names, (list, tuple)) and all(isinstance(item, (str, os.PathLike)) for item in names)
        if is_of_names and (several is list or len(names) == len(choices)):
            return several(choices[0](os.fspath(item)) for item in names)
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
    kind = kinds.get(wanted, f"a list of {len(choices)} names" if several is tuple else "a list of names")
    raise Ldr2hdrError(f"{shown} is {brief(value)}, but must be {kind}.")
