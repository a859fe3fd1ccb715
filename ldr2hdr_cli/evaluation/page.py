"""The page that people look at: one HTML file, which needs no network and no program but a browser.

HDR pictures travel as pictures that every browser decodes. Each value is a whole number, log2 of the linear
value in 64ths of a stop; what is stored is its difference from the source's 8-bit value, as two 8-bit planes in
one lossless WebP. Where a method left the source alone the difference is constant, and costs next to nothing.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np

from ldr2hdr_cli.evaluation import plots, report
from ldr2hdr_cli.evaluation.compare import Result
from ldr2hdr_cli.evaluation.report import SHOWN, SI_HDR_SHOWN
from ldr2hdr_cli.evaluation.si_hdr import GAIN, UNPROCESSED
from ldr2hdr_cli.evaluation.summary import BIN_NAMES, HEADLINE, KINDS, METRICS, BinScore, Estimate, MethodScore
from ldr2hdr_cli.evaluation.templates import render
from ldr2hdr_cli.terminal import one_line

SIDE = 384  # longer side of a picture on the page, in pixels
BUDGET = 28_000_000  # bytes of a page
STEP = 64  # codes a stop: 1.1 %, which no eye sees
DARKEST, BRIGHTEST = -18 * STEP, 16 * STEP  # codes; LDR white is 0
OFFSET = 1536  # of a stored difference: −18 stops (dark on white) to 34 (a sun on black) fit 12 bits
COLOUR_FULL = 3.0  # stops of bias at which a cell of the table has its full colour
DIRECTION = {-1: "less is better", 0: "nearest to 0 is best", 1: "more is better"}
TRUTH = "truth"
# Of the source's 8-bit values under eq. 1's γ = 2. The page gets this table, so both sides round alike.
SOURCE_CODES = np.rint(STEP * np.log2(np.maximum((np.arange(256) / 255.0) ** 2, 2.0 ** (DARKEST / STEP)))).astype(
    np.int32
)


@dataclass(frozen=True)
class PagePicture:
    """A case made ready for the page. source: H×W×3 uint8. layers: lossless WebP by method, and of the truth."""

    name: str
    exposure: str
    level: float
    share: float
    source: np.ndarray
    layers: dict[str, bytes]
    rows: list[dict[str, Any]]

    @property
    def size(self) -> int:
        """Bytes on the page, about: base64 makes four of three."""
        return (sum(map(len, self.layers.values())) + self.source.size // 2) * 4 // 3


class Album:
    """Chooses at most `limit` pictures for the page as results come by, and keeps those only.

    The first picture of each scene and kind of exposure comes before any second one. Among equals a hash of the
    name decides, so that the choice is the same in every run and spread over the scenes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._seen: dict[tuple[str, str], int] = {}
        self._kept: dict[str, list[tuple[int, int, PagePicture]]] = {kind: [] for kind in KINDS}

    def offer(self, result: Result) -> None:
        """Consider a result; its pictures are encoded at once if it is taken."""
        case = result.case
        order = self._seen.get((case.scene, case.exposure), 0)
        self._seen[case.scene, case.exposure] = order + 1
        kept = self._kept[case.exposure]
        key = (order, zlib.crc32(case.name.encode("utf-8", "surrogateescape")))
        if self.limit < 1 or (len(kept) == self.limit and key > kept[-1][:2]):
            return
        kept.append((*key, _page_picture(result)))
        kept.sort(key=lambda entry: entry[:2])
        del kept[self.limit :]

    def pictures(self) -> list[PagePicture]:
        """The chosen pictures: an equal number of each kind while they last, ordered by kind and name."""
        queues = [[entry[2] for entry in kept] for kept in self._kept.values() if kept]
        chosen: list[PagePicture] = []
        while any(queues) and len(chosen) < self.limit:
            chosen.extend(queue.pop(0) for queue in queues if queue)
        kinds = list(KINDS)
        return sorted(chosen[: self.limit], key=lambda picture: (kinds.index(picture.exposure), picture.name))


def encode_layer(linear: np.ndarray, source: np.ndarray) -> bytes:
    """A linear H×W×3 picture as differences of log2 from its 8-bit source: lossless WebP, 2H×W, high plane first."""
    logs = np.log2(np.maximum(linear.astype(np.float64), 2.0 ** (DARKEST / STEP)))
    codes = np.clip(np.rint(STEP * logs), DARKEST, BRIGHTEST).astype(np.int32)
    stored = codes - SOURCE_CODES[source] + OFFSET
    planes = np.concatenate([stored >> 4, stored & 15]).astype(np.uint8)
    return _webp(planes)


def decode_layer(data: bytes, source: np.ndarray) -> np.ndarray:
    """The inverse of `encode_layer`, float32, within 1/128 stop between 2^-18 and 2^16; what the page's script does."""
    planes = iio.imread(data, plugin="pillow", extension=".webp", mode="RGB").astype(np.int32)
    high, low = np.split(planes, 2)
    codes = SOURCE_CODES[source] + (high * 16 + low) - OFFSET
    return np.where(codes > DARKEST, np.exp2(codes / STEP), 0.0).astype(np.float32)


def build_page(
    album: Album,
    summary: dict[str, list[MethodScore]],
    sentences: Sequence[str],
    settings: dict[str, Any],
    budget: int = BUDGET,
) -> str:
    """The whole page as HTML, under about `budget` bytes: pictures are made smaller until they fit.

    Names of files and methods are data: the template escapes them, and its script puts them in place as text only.
    """
    pictures = _within(album.pictures(), budget)
    order = [score.method for score in next(iter(summary.values()))]
    data = {
        "step": STEP,
        "darkest": DARKEST,
        "brightest": BRIGHTEST,
        "offset": OFFSET,
        "sourceCodes": SOURCE_CODES.tolist(),
        "methods": order,
        "pictures": [_picture(picture, order) for picture in pictures],
    }
    figure = base64.b64encode(plots.figure(summary, "svg", dark=True)).decode()
    return render(
        "page.html",
        verdict=sentences,
        tables=[table for scores in summary.values() for table in _tables(scores)],
        figure=f"data:image/svg+xml;base64,{figure}",
        settings=", ".join(f"{key} {_said(value)}" for key, value in settings.items() if value),
        data=data,
    )


def _page_picture(result: Result) -> PagePicture:
    case = result.case
    source = _codes(_smaller(case.ldr, SIDE))
    pictures = {TRUTH: case.truth, **result.pictures}
    layers = {_key(name): encode_layer(_smaller(picture, SIDE), source) for name, picture in pictures.items()}
    return PagePicture(one_line(case.name), case.exposure, case.level, case.share, source, layers, result.rows)


def _key(name: str) -> str:
    """Methods are kept apart from the truth, whatever they are called."""
    return name if name == TRUTH else f"method {name}"


def _within(pictures: list[PagePicture], budget: int) -> list[PagePicture]:
    for _ in range(6):
        total = sum(picture.size for picture in pictures)
        if total <= budget:
            break
        factor = 0.95 * (budget / total) ** 0.5
        pictures = [_shrunk(picture, factor) for picture in pictures]
    return pictures


def _shrunk(picture: PagePicture, factor: float) -> PagePicture:
    side = max(16, int(max(picture.source.shape[:2]) * factor))
    source = _codes(_smaller(picture.source.astype(np.float32) / 255, side))
    layers = {
        name: encode_layer(_smaller(decode_layer(data, picture.source), side), source)
        for name, data in picture.layers.items()
    }
    return replace(picture, source=source, layers=layers)


def _smaller(picture: np.ndarray, side: int) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return picture
    shape = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)


def _codes(encoded: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(encoded * 255), 0, 255).astype(np.uint8)


def _picture(picture: PagePicture, order: Sequence[str]) -> dict[str, Any]:
    rows = {row["method"]: row for row in picture.rows}
    height, width = picture.source.shape[:2]
    asked = f"{picture.level:g} % asked"
    about = {"share": asked, "panorama": asked, "mild": f"{picture.level:.2f} stops over", "given": "given"}
    percentile = f"clipped at the {picture.level:g}th percentile"
    return {
        "name": picture.name,
        "kind": KINDS[picture.exposure],
        "about": f"{about.get(picture.exposure, percentile)}, {picture.share:.1f} % of the pixels clipped",
        "width": width,
        "height": height,
        "source": _url(_webp(picture.source)),
        "truth": _url(picture.layers[TRUTH]),
        "layers": [_url(picture.layers[_key(method)]) for method in order],
        "numbers": [_numbers(rows[method]) for method in order],
        "errors": [rows[m][HEADLINE] if isfinite(rows[m][HEADLINE]) else None for m in order],
    }


def _numbers(row: dict[str, Any]) -> list[list[str]]:
    """Label and value of what is shown under a picture."""
    shown = ((key, row.get(key)) for key in (SI_HDR_SHOWN if "pu21_piqe" in row else SHOWN))
    return [
        [METRICS[key].label, f"{report.show(Estimate(value, value, value), key, False)} {METRICS[key].unit}".strip()]
        for key, value in shown
        if value is not None
    ]


def _webp(codes: np.ndarray) -> bytes:
    return iio.imwrite("<bytes>", codes, plugin="pillow", extension=".webp", lossless=True, quality=30, method=2)


def _url(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _tables(scores: Sequence[MethodScore]) -> list[dict[str, Any]]:
    """Of one kind of exposure: the metrics and the bins; and the gains, by the SI-HDR benchmark's protocol."""
    kind = KINDS[scores[0].exposure]
    if not report.is_si_hdr(scores):
        return [_table(kind, scores, SHOWN, BIN_NAMES)]
    ranked = report.by_psnr(scores)
    others = [score for score in ranked if score.method != UNPROCESSED]
    gains = _table(f"{kind}: gain over the {UNPROCESSED}", others, [key + GAIN for key in SI_HDR_SHOWN], ())
    return [_table(kind, ranked, list(SI_HDR_SHOWN), BIN_NAMES), *([gains] if others else [])]


def _table(kind: str, scores: Sequence[MethodScore], shown: Sequence[str], bins: Sequence[str]) -> dict[str, Any]:
    """The metrics and the bins side by side, a row for each method."""
    keys = [key for key in shown if any(isfinite(score.metrics[key].mean) for score in scores)]
    best = {key: _best([score.metrics[key].mean for score in scores], METRICS[key].better) for key in keys}
    return {
        "kind": kind,
        "cases": scores[0].cases,
        "scenes": scores[0].scenes,
        "bins": bins,
        "metrics": [
            {"label": METRICS[key].label, "unit": METRICS[key].unit, "direction": DIRECTION[METRICS[key].better]}
            for key in keys
        ],
        "rows": [
            {
                "method": score.method,
                "metrics": [_metric_cell(score.metrics[key], key, best[key] == index) for key in keys],
                "bins": [_bin_cell(entry) for entry in score.bins if bins],
            }
            for index, score in enumerate(scores)
        ],
    }


def _metric_cell(estimate: Estimate, key: str, is_best: bool) -> dict[str, Any]:
    low, high = (report.show(Estimate(end, end, end), key, False) for end in estimate[1:])
    interval = f"{low} … {high}" if isfinite(estimate.low) else ""
    return {"mean": report.show(estimate, key, False), "interval": interval, "is_best": is_best}


def _bin_cell(entry: BinScore) -> dict[str, str] | None:
    if not entry.count:
        return None
    return {
        "rmse": f"{entry.rmse.mean:.2f}",
        "bias": f"{entry.bias.mean:+.2f}",
        "colour": "226 122 38" if entry.bias.mean > 0 else "54 124 214",
        "strength": f"{min(1.0, abs(entry.bias.mean) / COLOUR_FULL) * 0.75:.2f}",
    }


def _best(means: Sequence[float], better: int) -> int | None:
    worth = [-abs(mean) if better == 0 else better * mean for mean in means]
    finite = [index for index, value in enumerate(worth) if isfinite(value)]
    return max(finite, key=lambda index: worth[index]) if finite else None


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
