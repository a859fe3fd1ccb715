"""Reads YAML settings files: `--config`, and the settings.yaml that a training run leaves.

The values are not checked here: `options.make_options` and `train.config.make_settings` do that. PyYAML is imported
when a file is read, since `ldr2hdr --help` imports this module.
"""

from pathlib import Path
from typing import Any

from model.errors import Ldr2hdrError

MAX_YAML = 2**17  # bytes of a settings file; PyYAML takes some seconds for as many


def read_yaml(path: str | Path, advice: str = "write it like the settings.yaml of a run") -> dict[str, Any]:
    """The tables of a settings file, unchecked. advice: how an error ends.

    Raises:
        Ldr2hdrError: no such file, one that is too large, not YAML, not a table, or empty.
    """
    import yaml

    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_YAML + 1)
    except OSError as fault:
        raise Ldr2hdrError(f"{path} cannot be read ({fault.strerror}); give --config a YAML file.") from fault
    if len(text) > MAX_YAML:
        raise Ldr2hdrError(f"{path} has more than {MAX_YAML} bytes, too many for settings; {advice}.")
    try:
        content = yaml.load(text, _plain_loader(path))
    except Ldr2hdrError:
        raise
    except Exception as fault:  # PyYAML lets through what its constructors raise: ValueError, RecursionError, …
        first = (str(fault) or type(fault).__name__).splitlines()[0]
        raise Ldr2hdrError(f"{path} is not YAML ({first}); {advice}.") from fault
    if not isinstance(content, dict) or not content:
        raise Ldr2hdrError(f"{path} holds no table of settings; {advice}.")
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
