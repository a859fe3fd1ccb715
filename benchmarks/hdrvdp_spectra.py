"""Reduces the spectral curves of HDR-VDP to the small matrices in `ldr2hdr_cli/evaluation/hdrvdp/calibration.py`.

    python benchmarks/hdrvdp_spectra.py HDRVDP307/data [HDRVDP22]

The folders hold the published measurements: emission of the displays, D65, the cones of Smith and Pokorny 1975, CIE
scotopic luminous efficiency, CIE 1931 colour matching. Every curve is resampled to 420 wavelengths from 360 to
780 nm with monotone cubic interpolation and 0 outside, and products are integrated with the trapezoidal rule. In
version 3 the lens of a 24-year-old observer (Pokorny et al. 1987) filters the light, and responses are scaled so
that white of 1 cd/m² makes L + M = 1. Needs scipy.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

AGE = 24
WAVELENGTHS = np.linspace(360, 780, 420)  # nm
BT709_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

# Optical density of the eye's lens at 32 years, every 10 nm from 400 nm: the part that grows with age, and the rest
AGEING = "600 510 433 377 327 295 267 233 207 187 167 147 133 120 107 93 80 67 53 40 33 27 20 13 7 0"  # thousandths
GROWTH = 0.02  # a year, up to 60


def curves(path: Path) -> np.ndarray:
    """The columns of a table of wavelengths and values, at WAVELENGTHS: 420×columns."""
    text = path.read_text().replace(",", " ")
    table = np.array([line.split() for line in text.splitlines() if line.strip()], dtype=np.float64)
    found = PchipInterpolator(table[:, 0], table[:, 1:], extrapolate=False)(WAVELENGTHS)
    return np.nan_to_num(found, nan=0.0)


def lens() -> np.ndarray:
    """Transmittance at AGE relative to 32 years, at WAVELENGTHS."""
    ageing = np.array(AGEING.split(), dtype=np.float64) / 1000
    wavelengths = 400 + 10 * np.arange(ageing.size)
    density = ageing * GROWTH * (AGE - 32)
    return 10 ** -PchipInterpolator(wavelengths, density)(np.clip(WAVELENGTHS, wavelengths[0], wavelengths[-1]))


def receptors(data: Path, light: np.ndarray) -> np.ndarray:
    """Responses of L and M cones and rods to each spectrum: 3×spectra."""
    log_cones = curves(data / "log_cone_smith_pokorny_1975.csv")
    log_cones[log_cones == 0] = log_cones.min()  # outside the measurements
    sensitivity = np.column_stack([10 ** log_cones[:, :2], curves(data / "cie_scotopic_lum.txt")])
    return integrals(sensitivity, light)


def integrals(sensitivity: np.ndarray, light: np.ndarray) -> np.ndarray:
    return np.trapezoid(sensitivity[:, :, None] * light[:, None, :], WAVELENGTHS, axis=0)


def main(data: Path, version2: Path | None = None) -> None:
    np.set_printoptions(precision=10, suppress=True)
    display = curves(data / "emission_spectra_led-lcd-srgb.csv")
    for name, spectra in (("white", curves(data / "d65.csv")), ("display", display)):
        response = receptors(data, spectra * lens()[:, None])
        print(f"VERSION_3.{name}", response / response[:2].sum(), sep="\n")
    to_xyz = integrals(curves(data / "ciexyz31.csv"), display)
    print("BT709_TO_DISPLAY", np.linalg.solve(to_xyz / to_xyz[1].sum(), BT709_TO_XYZ), sep="\n")
    if version2 is not None:
        for name, file in (("white", "d65.csv"), ("display", "emission_spectra_ccfl-lcd.csv")):
            print(f"VERSION_2.{name}", receptors(version2, curves(version2 / file)), sep="\n")


if __name__ == "__main__":
    main(*(Path(folder) for folder in sys.argv[1:]))
