"""The record of a run for people to read: log.csv, TensorBoard scalars, picture grids."""

import contextlib
import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.atomic import replace_atomically, write_atomically

COLUMNS = ("step", "kind", "loss", "learning_rate", "patches_per_second", "wait", "hours", "rmse_stops", "terms")
GRID_EXPOSURES = (0, -3)  # stops at which output and truth are shown
GRID_SIZE = 256  # pixels of a side in the grid
GRID_ROWS = 6


class Journal:
    """Writes the log of a run; `kind` is "train", "validation" or "untouched" (the validation loss of no expansion).

    On resuming, lines after the step resumed from are dropped: those steps are taken again. When the disk is
    full, lines are lost; `tell` reports it once, and the run goes on.
    """

    def __init__(self, folder: Path, resumed_step: int = 0, tell: Callable[[str], None] = lambda _text: None) -> None:
        self.folder, self._tell = folder, tell
        self._path = folder / "log.csv"
        self._failing: set[str] = set()  # what could not be written last time
        self._drop_after(resumed_step)
        self._board: Any = None
        self._attempt("tensorboard", lambda: self._open_board(resumed_step))

    def write(self, step: int, kind: str, row: Mapping[str, Any], terms: Mapping[str, float]) -> None:
        """One line: `row` holds some of COLUMNS, `terms` the parts of the loss by name."""
        text = " ".join(f"{name}={value:.6g}" for name, value in terms.items() if name != "loss")
        line = {"step": step, "kind": kind, **row, "terms": text}
        self._attempt("log.csv", lambda: self._append(line))
        scalars = {f"{kind}/{name}": v for name, v in {**row, **terms}.items() if isinstance(v, (int, float))}
        self._show(lambda board: [board.add_scalar(name, value, step) for name, value in scalars.items()])

    def pictures(self, step: int, grid: np.ndarray) -> None:
        """A picture grid, uint8 H×W×3 R'G'B', to TensorBoard and to pictures/STEP.jpg."""
        import cv2

        jpeg = cv2.imencode(".jpg", grid[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        self._attempt("pictures", lambda: self._keep_picture(f"{step:07d}.jpg", jpeg))
        self._show(lambda board: board.add_image("pictures", grid, step, dataformats="HWC"))

    def close(self) -> None:
        self._show(lambda board: board.close())

    def _attempt(self, name: str, write: Callable[[], object]) -> bool:
        """Whether `write` has written to `name`; a failure is reported, repeated failures are not."""
        try:
            write()
        except (OSError, UnicodeError) as fault:  # the latter: TensorBoard takes no folder name that is not UTF-8
            if name not in self._failing:
                reason = getattr(fault, "strerror", None) or str(fault)
                self._tell(
                    f"WARNING: {self.folder / name} could not be written ({reason}); the run goes on without it."
                )
            self._failing.add(name)
            return False
        self._failing.discard(name)
        return True

    def _show(self, what: Callable[[Any], object]) -> None:
        """`what` with TensorBoard's writer, which cannot be used again once its thread has failed."""
        if self._board and not self._attempt("tensorboard", lambda: what(self._board)):
            self._board = None

    def _open_board(self, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=resumed_step + 1)

    def _append(self, line: Mapping[str, Any]) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, COLUMNS, restval="").writerow(line)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self._path, size)  # half a line would spoil the next one
            raise

    def _keep_picture(self, name: str, jpeg: bytes) -> None:
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        replace_atomically(folder / name, lambda file: file.write(jpeg))

    def _drop_after(self, step: int) -> None:
        rows: list[dict[str, str]] = []
        if step and self._path.is_file():
            with self._path.open(newline="", encoding="utf-8", errors="replace") as file:
                lines = [(row.get("step") or "", row) for row in csv.DictReader(file)]
            rows = [row for number, row in lines if number.isdecimal() and int(number) <= step]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._path, text.getvalue().encode())


def picture_grid(columns: list[Tensor]) -> np.ndarray:
    """Columns of (N,3,H,W) display-encoded pictures side by side, a row for each of the first samples.

    Returns uint8, H×W×3.
    """
    rows = min(GRID_ROWS, columns[0].shape[0])
    size = (min(GRID_SIZE, columns[0].shape[2]), min(GRID_SIZE, columns[0].shape[3]))
    shown = [F.interpolate(c[:rows].detach().float().cpu(), size=size, mode="area") for c in columns]
    grid = torch.cat([torch.cat(list(c), dim=1) for c in shown], dim=2)  # samples down, columns across
    return (grid.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def exposed(hdr: Tensor, stops: float, gamma: float = 2.0) -> Tensor:
    """A linear picture as a display shows it, `stops` brighter, clipped at white."""
    return (hdr.clamp_min(0) * 2.0**stops).clamp(0, 1) ** (1 / gamma)
