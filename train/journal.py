"""What a run leaves to look at: log.csv, TensorBoard scalars, picture grids."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.atomic import write_atomically

COLUMNS = ("step", "kind", "loss", "learning_rate", "patches_per_second", "wait", "hours", "rmse_stops", "terms")
GRID_EXPOSURES = (0, -3)  # stops at which output and truth are shown
GRID_SIZE = 256  # pixels of a side in the grid
GRID_ROWS = 6


class Journal:
    """Writes the log of a run; `kind` is "train", "validation" or "untouched" (the validation loss of no expansion).

    On resuming, lines after the step resumed from are dropped: those steps are taken again.
    """

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        self.folder = folder
        self._path = folder / "log.csv"
        self._drop_after(resumed_step)
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, kind: str, row: Mapping[str, Any], terms: Mapping[str, float]) -> None:
        """One line: `row` holds some of COLUMNS, `terms` the parts of the loss by name."""
        text = " ".join(f"{name}={value:.6g}" for name, value in terms.items() if name != "loss")
        line = {"step": step, "kind": kind, **row, "terms": text}
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS, restval="").writerow(line)
        for name, value in {**row, **terms}.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def pictures(self, step: int, grid: np.ndarray) -> None:
        """A picture grid, uint8 H×W×3 R'G'B', to TensorBoard and to pictures/STEP.jpg."""
        import cv2

        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{step:07d}.jpg"), grid[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        self._board.add_image("pictures", grid, step, dataformats="HWC")

    def close(self) -> None:
        self._board.close()

    def _drop_after(self, step: int) -> None:
        rows: list[dict[str, str]] = []
        if step and self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= step]
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
