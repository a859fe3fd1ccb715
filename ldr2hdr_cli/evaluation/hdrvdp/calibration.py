"""The published calibration of HDR-VDP-3.0.7 (task "quality") and HDR-VDP-2.2.

Version 3: distributed by its authors under the BSD 3-clause license, copyright (c) 2010-2020 Rafal Mantiuk,
(c) 2020 Displays and Graphics Ltd. All rights reserved. Version 2.2: copyright (c) 2011 Rafal Mantiuk, who permits
its use and distribution for any purpose. Only their numbers are here; the code that uses them is ours.
Redistribution is permitted provided that this notice is kept; what the numbers come from is provided "as is",
without any warranty, and the names of its authors may not be used to endorse what is derived from it.

The matrices are integrals over measured spectra; `benchmarks/hdrvdp_spectra.py` computes them.
"""

from dataclasses import dataclass

Matrix = tuple[tuple[float, ...], ...]

# Modulation transfer of the eye's optics: Σ a·exp(−b·ρ), ρ in cycles a degree (Mantiuk et al. 2011, eq. 2)
OPTICS = (
    (0.99727370023777070 * 0.426, 0.028),
    (0.99727370023777070 * 0.574, 0.37),
    ((1 - 0.99727370023777070) * 0.061466549455263, 37.0),
    ((1 - 0.99727370023777070) * (1 - 0.061466549455263), 360.0),
)
VISIBLE_DIFFERENCE = 0.001  # relative; pixels that differ by less do not count


@dataclass(frozen=True)
class Calibration:
    """What both versions have. Luminances are cd/m²; equations are those of Mantiuk et al. 2011.

    white: responses of L cones, M cones and rods to 1 cd/m² of D65, 3×1. display: the same to R, G and B of 1 on a
    display, 3×3. joint, rods: sensitivity of all receptors, and of rods, by luminance (eq. 6 and 7), and `peak`, a
    factor on both. csf: four parameters of contrast sensitivity (eq. 8) for each of `csf_luminance`. excitation,
    inhibition: exponents of masking (eq. 12 and 13), and the weights of the own band, of other orientations and of
    neighbouring bands.
    """

    white: Matrix
    display: Matrix
    joint: tuple[float, float, float, float]
    rods: tuple[float, float, float, float, float, float]
    peak: float
    csf_luminance: tuple[float, ...]
    csf: Matrix
    excitation: float
    inhibition: float
    own: float
    orientations: float
    neighbours: float


VERSION_3 = Calibration(
    white=((0.6529314084,), (0.3470685916,), (1.017130068,)),
    display=(  # an LCD with LED backlight, "led-lcd-srgb", whose white is 1 cd/m², seen by a 24-year-old
        (0.1582537046, 0.4475706152, 0.0418696099),
        (0.0321684221, 0.2814425391, 0.0386951092),
        (0.0379539195, 0.6257346225, 0.3661734837),
    ),
    joint=(315.98, 6.7977, 1.6008, 0.25534),
    rods=(1.1732, 1.32, 1.095, 0.5547, 2.9899, 1.8),
    peak=10**0.203943775672,
    csf_luminance=(0.0002, 0.002, 0.02, 0.2, 2.0, 20.0, 150.0),
    csf=(
        (1.26181, 4.27832, 0.361902, 3.11914),
        (0.893585, 4.27832, 0.361902, 2.18938),
        (0.84864, 3.57253, 0.530355, 3.12486),
        (0.699243, 3.94545, 0.68608, 4.41846),
        (0.530826, 4.25337, 0.866916, 4.65117),
        (0.459297, 3.78765, 0.981028, 4.33546),
        (0.312626, 4.15264, 0.952367, 3.22389),
    ),
    excitation=10**0.3424,
    inhibition=10**0.108934275615,
    own=10**1.41846291721,
    orientations=0.0,
    neighbours=10**0.136877512403,
)

# Linear BT.709 to R, G and B of the display of version 3
BT709_TO_DISPLAY = (
    (1.1106163465, 0.0030489524, 0.0010384261),
    (-0.0066449439, 0.9772333708, -0.0021303445),
    (0.0033199969, 0.0144033655, 0.9903247293),
)
AGE, REFERENCE_AGE = 24.0, 28.0  # years: of the observer, and of those whom version 3 was fitted to
PUPIL_AGE = 28.58  # years, of those whose pupils Stanley and Davies measured (Watson and Yellott 2012)
ADAPTATION_RADIUS = 10**-0.781367  # degrees, σ (Vangorp et al. 2015, "A Model of Local Adaptation", model 7)
POOLING = 0.8  # exponent of the Minkowski sum over a band
BEST_QUALITY = 10.0
QUALITY_FLOOR = -4.0  # natural logarithm of the error at which quality is best
JOD = (0.52, 1.2812)  # 10 − a·(10 − Q)^b

VERSION_2 = Calibration(
    white=((0.6018471522,), (0.3167082956,), (0.9046706546,)),
    display=(  # an LCD with fluorescent backlight, "ccfl-lcd", whose R, G and B count as BT.709's
        (0.1989961203, 0.4047626070, 0.0543906193),
        (0.0410058604, 0.2549233064, 0.0500122490),
        (0.0143773686, 0.4809208411, 0.4542758957),
    ),
    joint=(30.162, 4.0627, 1.6596, 0.2712),
    rods=(1.1732, 1.1478, 1.2167, 0.5547, 2.9899, 1.1414),
    peak=0.006894596 * 10**2.4,  # Daly's peak contrast at 30 cd/m²
    csf_luminance=(0.002, 0.02, 0.2, 2.0, 20.0, 150.0),
    csf=(
        (0.991265, 3.74038, 0.50722, 4.46044),
        (0.800889, 3.54104, 0.682505, 4.94958),
        (0.476505, 4.37453, 0.750315, 5.28678),
        (0.405782, 4.40602, 0.935314, 5.61425),
        (0.334278, 3.79542, 1.07327, 6.4635),
        (0.394533, 2.7755, 1.16577, 7.45665),
    ),
    excitation=10**0.544068,
    inhibition=10**0.49576,
    own=10**0.189065,
    orientations=10**0.449199,
    neighbours=10**1.52512,
)
SURROUND = 1e-5  # cd/m², around the picture, in version 2
# Weights of bands by frequency, cycles a degree (Narwaria et al. 2015, fitted to LDR and HDR data sets)
QUALITY_FREQUENCY = (0.2344, 0.4688, 0.9375, 1.875, 3.75, 7.5, 15.0)
QUALITY_WEIGHT = (0.0002, 0.0003, 0.0003, 0.0398, 0.2690, 0.2142, 0.2832)
INVISIBLE = 1e-12  # error of a band that counts as none
