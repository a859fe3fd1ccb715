"""What an evaluation found, of pictures or of clips, and the files that hold it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ldr2hdr_cli.evaluation import clip_report, plots, report
from ldr2hdr_cli.evaluation.cache import Cache, clip_digest
from ldr2hdr_cli.evaluation.clips import Clip
from ldr2hdr_cli.evaluation.compare import Result
from ldr2hdr_cli.evaluation.flicker import ClipMethod, aligned, score_clip
from ldr2hdr_cli.evaluation.page import Album, build_page
from ldr2hdr_cli.evaluation.summary import MethodScore, summarise
from ldr2hdr_cli.evaluation.verdict import verdict
from model.atomic import write_atomically
from model.errors import Ldr2hdrError


@dataclass(frozen=True)
class PictureScores:
    """rows: one of each picture and method. summary: by kind of exposure, see `summary`. verdict: as sentences."""

    rows: list[dict[str, Any]]
    summary: dict[str, list[MethodScore]]
    verdict: list[str]
    album: Album

    @classmethod
    def of(
        cls, results: Iterable[Result], seed: int, page_pictures: int, warnings: Sequence[str] = ()
    ) -> PictureScores:
        """page_pictures: how many are kept for the page, at most. warnings: sentences that the verdict begins with.

        Raises Ldr2hdrError where there is no picture.
        """
        album, rows = Album(page_pictures), []
        for result in results:
            rows.extend(result.rows)
            album.offer(result)
        if not rows:
            raise Ldr2hdrError("No picture could be made: every view is featureless; give pictures with more detail.")
        summary = summarise(rows, seed)
        return cls(rows, summary, [*warnings, *verdict(rows, summary, seed)], album)

    def write(self, out: Path, settings: dict[str, Any]) -> None:
        """results.csv, results.json, scores.svg, scores.png and index.html."""
        report.write_csv(out / "results.csv", self.rows)
        report.write_json(out / "results.json", self.rows, self.summary, settings, self.verdict)
        for format in ("svg", "png"):
            write_atomically(out / f"scores.{format}", plots.figure(self.summary, format))
        page = build_page(self.album, self.summary, self.verdict, settings)
        write_atomically(out / "index.html", page.encode())


class Made:
    """What a method makes of a clip, once it is asked for: its scores may be known already."""

    def __init__(self, way: ClipMethod, clip: Clip) -> None:
        self.way, self.clip = way, clip

    @cached_property
    def frames(self) -> dict[str, list[np.ndarray]]:
        """Aligned, by the name of each way to make them."""
        return {name: aligned(pictures, self.clip) for name, pictures in self.way(self.clip).items()}


def _scores(made: Made, peak: float, white: float) -> dict[str, Any]:
    return {"rows": [score_clip(frames, made.clip, name, peak, white) for name, frames in made.frames.items()]}


@dataclass(frozen=True)
class ClipScores:
    """rows: one of each clip and method. summary: by method, see `clip_report`. verdict: as sentences."""

    rows: list[dict[str, Any]]
    summary: clip_report.Summary
    verdict: list[str]
    album: clip_report.ClipAlbum

    @classmethod
    def of(
        cls,
        clips: Iterable[Clip],
        methods: Mapping[str, ClipMethod],
        seed: int,
        peak: float,
        white: float,
        page_clips: int,
        cache: Cache | None = None,
        warnings: Sequence[str] = (),
    ) -> ClipScores:
        """methods: by what makes each what it is. peak, white: cd/m². page_clips: kept for the page, at most.

        cache: of scores; what it has is not computed again. warnings: sentences that the verdict begins with. Raises
        Ldr2hdrError where there is no clip.
        """
        album, rows = clip_report.ClipAlbum(page_clips), []
        for clip in clips:
            content = "" if cache is None else clip_digest(clip)
            shown: dict[str, list[np.ndarray]] = {}
            for identity, way in methods.items():
                made = Made(way, clip)
                key = {"clip": content, "method": identity, "peak": peak, "white": white}
                score = partial(_scores, made, peak, white)
                found = score() if cache is None else cache.kept(key, score)
                rows += [row | {"case": clip.name, "scene": clip.scene} for row in found["rows"]]
                if album.is_open:
                    shown |= made.frames
            album.offer(clip, shown)
        if not rows:
            raise Ldr2hdrError("No clip could be made: nothing in these panoramas outshines the rest; give others.")
        summary = clip_report.summarise_clips(rows, seed)
        return cls(rows, summary, [*warnings, *clip_report.sentences(rows, summary, seed)], album)

    @property
    def clip_count(self) -> int:
        return len({row["case"] for row in self.rows})

    def write(self, out: Path, settings: dict[str, Any]) -> None:
        """results.csv, results.json and index.html."""
        report.write_csv(out / "results.csv", self.rows)
        means = {method: {key: one._asdict() for key, one in all_.items()} for method, all_ in self.summary.items()}
        document = {"settings": settings, "verdict": self.verdict, "summary": means, "rows": self.rows}
        text = json.dumps(report.finite(document), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(out / "results.json", text.encode() + b"\n")
        page = clip_report.build_clip_page(self.album, self.summary, self.verdict, settings)
        write_atomically(out / "index.html", page.encode())
