"""JPEGs and LDR video to scene-linear OpenEXR, from Python.

    import ldr2hdr

    hdr = ldr2hdr.reconstruct(ldr)
    for event in ldr2hdr.convert(["photos/"], "exr/", ldr2hdr.ConvertOptions(temporal="strong")):
        print(event)

The names are loaded at first use, so that importing this costs next to nothing. Import it before torch: torch then
takes `OMP_WAIT_POLICY=PASSIVE` from it, without which a busy machine slows the network down many times over.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import model

if TYPE_CHECKING:
    from ldr2hdr_cli.convert.events import Done, Elsewhere, Event, Failed, Message, Note, Skipped, Started
    from ldr2hdr_cli.convert.network import reconstruct
    from ldr2hdr_cli.convert.run import convert
    from ldr2hdr_cli.options import ConvertOptions
    from model.checkpoint import load_network
    from model.errors import Ldr2hdrError
    from model.reconstructor import Reconstructor

if Path(model.__file__ or "").parent.parent.resolve() != Path(__file__).parent.parent.resolve():
    raise ImportError(
        f"ldr2hdr needs its own package `model`, but {model.__file__} comes first on sys.path: rename that, or "
        "import ldr2hdr from another folder."
    )

__version__ = model.__version__

_HOME = {
    "ConvertOptions": "ldr2hdr_cli.options",
    "Done": "ldr2hdr_cli.convert.events",
    "Elsewhere": "ldr2hdr_cli.convert.events",
    "Event": "ldr2hdr_cli.convert.events",
    "Failed": "ldr2hdr_cli.convert.events",
    "Ldr2hdrError": "model.errors",
    "Message": "ldr2hdr_cli.convert.events",
    "Note": "ldr2hdr_cli.convert.events",
    "Reconstructor": "model.reconstructor",
    "Skipped": "ldr2hdr_cli.convert.events",
    "Started": "ldr2hdr_cli.convert.events",
    "convert": "ldr2hdr_cli.convert.run",
    "load_network": "model.checkpoint",
    "reconstruct": "ldr2hdr_cli.convert.network",
}

__all__ = [
    "ConvertOptions",
    "Done",
    "Elsewhere",
    "Event",
    "Failed",
    "Ldr2hdrError",
    "Message",
    "Note",
    "Reconstructor",
    "Skipped",
    "Started",
    "__version__",
    "convert",
    "load_network",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ldr2hdr' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
