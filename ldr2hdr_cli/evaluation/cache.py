"""Scores that are known already, so that a second run with one more method or metric computes that alone.

A score is found by all that it depends on: the pixels of the picture and of its truth, the method (for a network its
weights, precision and kind of device; for a picture of another program its pixels), every field of `Scoring`, the
version of this program and its source files, and the packages that compute. Nothing is ever found by a name or a date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ldr2hdr_cli.terminal import one_line
from model import __version__
from model.atomic import make_folder, write_atomically
from model.errors import Ldr2hdrError

if TYPE_CHECKING:
    from ldr2hdr_cli.evaluation.clips import Clip
    from ldr2hdr_cli.evaluation.compare import Scoring
    from ldr2hdr_cli.evaluation.protocol import Case
    from model.device import Precision

SCHEMA = 1  # raised when a file of the cache changes its form
PARTS = ("basic", "cvvdp", "hdrvdp")  # fields of `Scoring` that add columns and change none
LABELS = ("name", "scene", "level")  # of a case, which no score depends on
SOURCES = ("model", "train", "ldr2hdr_cli/convert", "ldr2hdr_cli/evaluation")
PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "cvvdp")


class Cache:
    """A folder of JSON files, one for each picture, method and part of the scores; several processes may share it.

    identities: what makes each method what it is, by its name; a method without one is known by the pictures that it
    makes. A file that cannot be read, or holds something else, counts as none.
    """

    def __init__(self, folder: Path, identities: Mapping[str, str]) -> None:
        make_folder(folder)
        self.folder, self.identities = folder, identities
        self.known = self.computed = 0

    def scores(
        self,
        case: Case,
        pictures: Mapping[str, np.ndarray],
        scoring: Scoring,
        compute: Callable[[str, Scoring], dict[str, Any]],
    ) -> dict[str, dict[str, Any]]:
        """The columns of each method's row: of each part what is known, and else what `compute` gives for it alone."""
        settings = {name: value for name, value in asdict(scoring).items() if name not in PARTS}
        picture = digest(getattr(case, entry.name) for entry in fields(case) if entry.name not in LABELS)
        found: dict[str, dict[str, Any]] = {}
        for name in pictures:
            method = self.identities.get(name) or digest([pictures[name]])
            found[name] = {}
            for part in PARTS:
                if getattr(scoring, part):
                    only: dict[str, Any] = {other: other == part for other in PARTS}
                    alone = replace(scoring, **only)
                    key = {"picture": picture, "method": method, "scores": part, **settings}
                    found[name] |= self.kept(key, partial(compute, name, alone))
        return found

    @property
    def said(self) -> str:
        """How much of the run it has spared; empty where that is nothing."""
        if not self.known:
            return ""
        amount = f"{self.known} of {self.known + self.computed} scores"
        return f"{amount} were known from {one_line(str(self.folder))}; --no-cache computes them again."

    def kept(self, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What stands under a key, or else what `compute` gives, which then stands there."""
        key = {"schema": SCHEMA, **key, **_program()}
        text = json.dumps(key, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
        if (known := _read(path, text)) is not None:
            self.known += 1
            return known
        self.computed += 1
        made = compute()
        with suppress(Ldr2hdrError):  # a full disk costs the next run time, and this one nothing
            write_atomically(path, json.dumps({"key": text, "scores": made}).encode())
        return made


def identities(
    operators: Iterable[str], networks: Iterable[Path | None], device: str, precision: Precision
) -> list[str]:
    """What makes these methods what they are, in the order of `compare.methods_by_name`."""
    from model.checkpoint import weights_sha256
    from model.device import device_of, precision_of

    where = device_of(device)
    how = f"{precision_of(precision, where)} on {where.type}"
    return [f"operator {name}" for name in operators] + [f"network {weights_sha256(p)}, {how}" for p in networks]


def digest(values: Iterable[Any]) -> str:
    """SHA-256 of arrays, with shape and type, and of plain values, in hexadecimal."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape};".encode())
            found.update(value.tobytes())
        else:
            found.update(f"{value!r};".encode())
    return found.hexdigest()


def clip_digest(clip: Clip) -> str:
    """Of all that a clip's scores depend on."""
    return digest(getattr(frame, entry.name) for frame in clip.frames for entry in fields(frame))


@cache
def _program() -> dict[str, Any]:
    return {"version": __version__, "sources": _sources(), "packages": {name: _version(name) for name in PACKAGES}}


def _sources() -> str:
    """Of the program's files: while it is developed, its version stays and its scores change."""
    root = Path(__file__).parents[2]
    paths = sorted(path for folder in SOURCES for path in (root / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: Path, key: str) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("key") != key or not isinstance(document.get("scores"), dict):
        return None
    return document["scores"]
