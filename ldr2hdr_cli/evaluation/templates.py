"""The evaluation pages, as Jinja2 templates beside this file; whatever is put into one is escaped there."""

from functools import cache
from typing import Any

from model.errors import Ldr2hdrError


def render(name: str, **values: Any) -> str:
    """A template of this folder with its values. Raises Ldr2hdrError without the package jinja2."""
    return str(_environment().get_template(name).render(values))


@cache
def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise Ldr2hdrError('Pages need the package jinja2: pip install "ldr2hdr[evaluate]".') from error
    loader = PackageLoader("ldr2hdr_cli.evaluation", ".")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.policies["json.dumps_kwargs"] = {"allow_nan": False}  # for the filter `tojson`, which escapes < > & '
    return made
