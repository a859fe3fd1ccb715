"""Every option of `evaluate`, once, as those of `convert` are in `ldr2hdr_cli.options`."""
# ruff: noqa: RUF009 (`setting` makes a field)

import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ldr2hdr_cli.option_values import read_with
from ldr2hdr_cli.options import ConvertOptions
from ldr2hdr_cli.typer_options import Options
from model.errors import Ldr2hdrError
from model.settings import brief, setting

OPERATORS = [name for name in typing.get_args(typing.get_type_hints(ConvertOptions)["method"]) if name != "network"]


def shares(value: Any, shown: str = "--share") -> list[float]:
    """ "4,8,12" → per cents, ascending, each once. Raises Ldr2hdrError."""
    try:
        found = sorted({float(part) for part in str(value).split(",") if part.strip()})
    except ValueError:
        found = []
    if not found or not all(0 < share < 100 for share in found):
        raise Ldr2hdrError(f"{shown} {brief(value)}: give per cents between 0 and 100, such as 4,8,12.")
    return found


def _operators(value: Any, shown: str) -> Any:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and (unknown := [name for name in names if name not in [*OPERATORS, "none"]]):
        raise Ldr2hdrError(f"{shown} {brief(unknown[0])}: must be one of {', '.join(OPERATORS)}, or none.")
    return names


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """What is compared, on which pictures, and how it is scored.

    decides: "pictures", "clips" or both, whose scores depend on it; results.json quotes it.
    """

    hdr: Path | None = setting(
        None,
        "Folder of HDR pictures (.exr, .hdr); panoramas are cut into views.",
        panel="Pictures",
        decides=("pictures", "clips"),
    )
    pairs: tuple[Path, Path] | None = setting(
        None,
        "Inputs that exist already and their truths, matched by name.",
        panel="Pictures",
        metavar="LDR_DIR HDR_DIR",
        decides=("pictures",),
    )
    photos: Path | None = setting(
        None,
        "Folder of photographs in which nothing is clipped, to be over-exposed.",
        panel="Pictures",
        decides=("pictures",),
    )
    only: Path | None = setting(
        None, "Text file with the scenes to use, one name a line.", panel="Pictures", short="--list"
    )
    protocol: Literal["santos", "si-hdr"] = setting(
        "santos",
        "How pictures are made, aligned and scored: santos, with its shares of clipped pixels and errors in them; "
        "si-hdr, the benchmark of Hanji et al., whose unpacked data set --hdr may name.",
        panel="Pictures",
        decides=("pictures",),
    )
    video: bool = setting(
        False, "Score clips of a camera that moves inside the panoramas: flicker and errors.", panel="Pictures"
    )
    panorama: bool = setting(
        False,
        "Whole panoramas instead of views of them, scored as lights too.",
        panel="Pictures",
        decides=("pictures",),
    )
    frames: int = setting(24, "Frames of a clip, for --video.", panel="Pictures", low=2, decides=("clips",))
    share: str | None = setting(
        None,
        "Shares of the pixels to clip, in per cent: 4,8,12 unless given; 0.5,2,8 with --panorama, 3,5 for SI-HDR.",
        panel="Pictures",
        read=read_with(shares),
        decides=("pictures",),
    )
    mild: bool = setting(
        True,
        "Also make mildly over-exposed pictures of views without a light source.",
        panel="Pictures",
        decides=("pictures",),
    )
    seed: int = setting(
        0,
        "Seed of the virtual camera, the views and the bootstrap.",
        panel="Pictures",
        low=0,
        decides=("pictures", "clips"),
    )
    size: int | None = setting(
        None,
        "Side of a view, or longer side of a picture, in pixels: 512 unless given. SI-HDR's own pictures stay whole "
        "unless it is given; then their middle is reduced to a square of it.",
        panel="Pictures",
        low=16,
        decides=("pictures", "clips"),
    )
    views: int = setting(3, "Views of a panorama.", panel="Pictures", low=1, decides=("pictures",))
    jpeg: int | None = setting(
        None,
        "The camera's JPEG quality; 8 bit, lossless, unless given.",
        panel="Pictures",
        low=1,
        high=100,
        decides=("pictures",),
    )

    weights: list[str] | None = setting(
        None, "A network's weights, or 'default'; repeat it for several.", panel="Methods"
    )
    method: list[str] | None = setting(
        None, "A classical operator, or 'none'; repeat it. All of them unless given.", panel="Methods", read=_operators
    )
    prediction: list[Path] | None = setting(
        None, "Folder of HDR pictures that another program made of the same inputs.", panel="Methods"
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps.", panel="Methods")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "auto: bf16 where the processor has it.", panel="Methods"
    )

    fit_curve: bool = setting(
        False, "Also remove the camera curve, by a monotone fit.", panel="Scores", decides=("pictures",)
    )
    cvvdp: bool = setting(True, "Score with ColorVideoVDP too; it is slow.", panel="Scores")
    hdrvdp: bool = setting(
        False, "Score with HDR-VDP-3 and HDR-VDP-2.2 too: seconds a megapixel for each method.", panel="Scores"
    )
    pixels_per_degree: float | None = setting(
        None,
        "For HDR-VDP; those of a 24-inch 1080p screen at 1 m, 63.5, unless given.",
        panel="Scores",
        low=2.0,
        high=1000.0,
        decides=("pictures",),
    )
    peak: float | None = setting(
        None,
        "Peak of the display that PU21, cvvdp and HDR-VDP assume, cd/m²: 4000 unless given; 1000 for SI-HDR.",
        panel="Scores",
        low=1.0,
        decides=("pictures", "clips"),
    )
    white: float | None = setting(
        None,
        "LDR white on that display, cd/m²: 100 unless given; for SI-HDR what shows the median luminance at 20.",
        panel="Scores",
        low=1.0,
        decides=("pictures", "clips"),
    )
    jobs: int | None = setting(None, "Pictures scored at the same time; up to 4 unless given.", panel="Scores", low=1)

    out: Path | None = setting(
        None, "Write results.csv, results.json, plots and a page there.", panel="Output", short="-o"
    )
    page_pictures: int = setting(24, "Pictures on the page, at most.", panel="Output", low=0)
    cache: Path | None = setting(
        None,
        "Keep scores there, and compute only what it lacks: OUT/cache unless given. Delete the folder to clear it.",
        panel="Output",
        metavar="DIR",
    )
    no_cache: bool = setting(False, "Compute everything, and keep no scores.", panel="Output")
    save_inputs: Path | None = setting(
        None, "Write the LDR pictures there as PNG, for another program, and stop.", panel="Output"
    )

    def deciding(self, what: Literal["pictures", "clips"]) -> dict[str, Any]:
        """What the scores depend on, by name."""
        found = {
            entry.name: getattr(self, entry.name) for entry in fields(self) if what in entry.metadata.get("decides", ())
        }
        if what == "clips" or self.protocol == "santos":
            found |= {"size": self.side, "peak": self.shown_peak, "white": self.shown_white}
        else:
            found["peak"] = self.shown_peak
        return {**found, "share": self.share or self._usual_shares}

    @property
    def side(self) -> int:
        """Pixels of a view, or of a picture's longer side."""
        return self.size or 512

    @property
    def shown_peak(self) -> float:
        """cd/m² of the display."""
        return self.peak or (1000.0 if self.protocol == "si-hdr" else 4000.0)

    @property
    def shown_white(self) -> float:
        """cd/m² of LDR white, where a picture has not its own."""
        return self.white or 100.0

    @property
    def cache_folder(self) -> Path | None:
        """Where scores are kept; None: nowhere."""
        if self.no_cache:
            return None
        return self.cache or (None if self.out is None else self.out / "cache")

    @property
    def per_cents(self) -> list[float]:
        """Shares of the pixels to clip."""
        return shares(self.share or self._usual_shares)

    @property
    def _usual_shares(self) -> str:
        if self.protocol == "si-hdr":
            return "3,5"
        return "0.5,2,8" if self.panorama else "4,8,12"
