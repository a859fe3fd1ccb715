"""Which scenes of an evaluation a network has seen before, by the names in its credits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from model.checkpoint import DEFAULT_WEIGHTS, read_scenes, weights_sha256

CREDITS = DEFAULT_WEIGHTS.with_name("CREDITS.md")
NAMED = 12  # scenes that a sentence names, at most


def warnings(networks: Mapping[str, Path | None], scenes: Sequence[str], *, photographs: bool) -> list[str]:
    """A sentence for each network that has seen some of the scenes.

    networks: weights by the name of the method, None for the default weights. scenes: stems of files. photographs:
    whether they are photographs; those of the default weights are known by the names of their sources.
    """
    said = []
    for method, path in networks.items():
        known = _known(path, photographs)
        if seen := [name for name in scenes if scene_of(name) in known]:
            said.append(_sentence(method, seen, len(scenes)))
    return said


def scene_of(name: str) -> str:
    """The scene that a file shows: `kloppenheim_06_puresky_4k` has the sky of `kloppenheim_06`."""
    return re.sub(r"(_puresky)?(_\d+k)?$", "", name.lower())


def _known(weights: Path | None, photographs: bool) -> frozenset[str]:
    """The scenes of the default weights' credits, or those that a file's metadata names; none where nothing does."""
    if weights is None or weights_sha256(weights) == weights_sha256():
        return credited()["photographs" if photographs else "panoramas"]
    return _scenes(read_scenes(weights))


@cache
def credited() -> dict[str, frozenset[str]]:
    """What CREDITS.md names, as scenes: "panoramas" of their section, and "photographs" by the stems of their paths."""
    panoramas, photographs = CREDITS.read_text(encoding="utf-8").split("\n## Photographs", 1)
    names = [name for line in re.findall(r"CC0-1\.0: (.+)\.$", panoramas, re.MULTILINE) for name in line.split(", ")]
    paths = re.findall(r"^- (?:★ )?\S+: `([^`]+)`", photographs, re.MULTILINE)
    return {"panoramas": _scenes(names), "photographs": _scenes(Path(path).stem for path in paths)}


def _scenes(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(scene_of, names))


def _sentence(method: str, seen: Sequence[str], amount: int) -> str:
    names = ", ".join(seen[:NAMED]) + (f" and {len(seen) - NAMED} more" if len(seen) > NAMED else "")
    return (
        f"{method} was trained or validated on {len(seen)} of these {amount} scenes: {names}; "
        "its scores on them say nothing about others."
    )
