"""Draws docs/light.png, the curve from scene-linear to display light: python docs/light.py [FILE]"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter

from ldr2hdr_cli.media.display_light import DisplayLight

PEAKS = (400, 600, 1000, 2000, 4000)


def main(path: Path) -> None:
    stops = np.linspace(-4, 6, 500)
    grey = np.float32(2.0) ** stops.astype(np.float32)[None, :, None].repeat(3, 2)
    figure, axes = plt.subplots(figsize=(7.2, 4.2), dpi=110)
    axes.plot(stops, 203 * 2.0**stops, color="0.75", linestyle="--", label="proportional")
    for peak in PEAKS:
        light = DisplayLight(peak=peak)
        (line,) = axes.plot(stops, light.nits(grey)[0, :, 0], label=f"--peak {peak}")
        axes.plot(np.log2(light.knee / light.white), light.knee, "o", markersize=4, color=line.get_color())
    axes.axvline(0, color="0.85", zorder=0)
    axes.set_yscale("log", base=2)
    axes.set_ylim(12, 6000)
    axes.set_yticks([12.7, 25, 50, 100, 203, 400, 600, 1000, 2000, 4000])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.set_xlabel("scene-linear, in stops above the source's white")
    axes.set_ylabel("cd/m² of the strongest channel")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("light.png"))
