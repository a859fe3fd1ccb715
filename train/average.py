"""The mean of several weights of one lineage, often better than each (Wortsman et al., Model soups, ICML 2022)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from model import MaskedUNet, load_network, save_network
from model.checkpoint import SCENES_KEY, read_metadata, read_scenes, weights_sha256
from model.errors import Ldr2hdrError

KEPT = ("ldr2hdr.stage", "ldr2hdr.perceptual")
MEAN_OF = "ldr2hdr.mean_of"


def average_networks(paths: Sequence[Path]) -> MaskedUNet:
    """The network whose every parameter is the mean of those in the weights files `paths`, in float32.

    Useful only where one run started from the other, or both from the same weights: the channels of two runs from
    scratch are unrelated. One file gives its own network. Raises Ldr2hdrError where two files hold networks of
    different settings, and WeightsError for a file that does not hold weights.
    """
    mean = load_network(paths[0])
    with torch.no_grad():
        for count, path in enumerate(paths[1:], 2):
            other = load_network(path)
            if other.config != mean.config:
                raise Ldr2hdrError(
                    f"{path} and {paths[0]} cannot be averaged: their settings differ ({other.config}, {mean.config})."
                )
            for own, its in zip(mean.parameters(), other.parameters(), strict=True):
                own.lerp_(its, 1 / count)
    return mean


def write_average(paths: Sequence[Path], out: Path, half: bool, metadata: Mapping[str, str]) -> None:
    """Writes the mean of `paths` to `out`, in float16 if `half`, with the names and sha256 of what it is made of.

    It names all scenes that any of them names.
    """
    net = average_networks(paths)  # first, since it checks the files
    first = read_metadata(paths[0])
    kept = {key: first[key] for key in KEPT if key in first}
    scenes = sorted({scene for path in paths for scene in read_scenes(path)})
    made_of = {MEAN_OF: ", ".join(f"{path.name} {weights_sha256(path)}" for path in paths)}
    kept |= {SCENES_KEY: json.dumps(scenes)} if scenes else {}
    save_network(net, out, {**kept, **made_of, **metadata}, torch.float16 if half else None)
