"""The numbers of HDR-VDP-3.0.7, task "quality".

They are the published calibration of the metric, distributed by its authors under the BSD 3-clause license:
copyright (c) 2010-2020 Rafal Mantiuk, (c) 2020 Displays and Graphics Ltd. All rights reserved. (The code that uses
them here is ours.) Redistribution is permitted provided that this notice is kept; the software that they come from
is provided "as is", without any warranty, and the names of its authors may not be used to endorse what is derived
from it.

The three matrices at the top are integrals over measured spectra; `benchmarks/hdrvdp_spectra.py` computes them.
"""

# Responses of L cones, M cones and rods to 1 cd/m² of D65
D65_TO_RECEPTORS = ((0.6529314084,), (0.3470685916,), (1.017130068,))
# The same to R, G and B of a display, an LCD with LED backlight ("led-lcd-srgb"), whose white is 1 cd/m²
DISPLAY_TO_RECEPTORS = (
    (0.1582537046, 0.4475706152, 0.0418696099),
    (0.0321684221, 0.2814425391, 0.0386951092),
    (0.0379539195, 0.6257346225, 0.3661734837),
)
# Linear BT.709 to the R, G and B of that display
BT709_TO_DISPLAY = (
    (1.1106163465, 0.0030489524, 0.0010384261),
    (-0.0066449439, 0.9772333708, -0.0021303445),
    (0.0033199969, 0.0144033655, 0.9903247293),
)

# Modulation transfer of the eye's optics: Σ a·exp(−b·ρ), ρ in cycles a degree (Mantiuk et al. 2011, eq. 2)
OPTICS = (
    (0.99727370023777070 * 0.426, 0.028),
    (0.99727370023777070 * 0.574, 0.37),
    ((1 - 0.99727370023777070) * 0.061466549455263, 37.0),
    ((1 - 0.99727370023777070) * (1 - 0.061466549455263), 360.0),
)

AGE, REFERENCE_AGE = 24.0, 28.0  # years: of the observer, and of the observers that the metric was fitted to
PUPIL_AGE = 28.58  # years, for which Stanley and Davies measured pupils (Watson and Yellott 2012)

ADAPTATION_RADIUS = 10**-0.781367  # degrees, σ (Vangorp et al. 2015, "A Model of Local Adaptation", model 7)

# Sensitivity of cones and rods together, and of rods alone, by luminance (Mantiuk et al. 2011, eq. 6 and 7)
JOINT_SENSITIVITY = (315.98, 6.7977, 1.6008, 0.25534)
ROD_SENSITIVITY = (1.1732, 1.32, 1.095, 0.5547, 2.9899, 1.8)
SENSITIVITY = 10**0.203943775672  # of this task, relative to them

# Contrast sensitivity by luminance, cd/m²: four parameters each (Mantiuk et al. 2011, eq. 8; refitted in 2020)
CSF_LUMINANCE = (0.0002, 0.002, 0.02, 0.2, 2.0, 20.0, 150.0)
CSF = (
    (1.26181, 4.27832, 0.361902, 3.11914),
    (0.893585, 4.27832, 0.361902, 2.18938),
    (0.84864, 3.57253, 0.530355, 3.12486),
    (0.699243, 3.94545, 0.68608, 4.41846),
    (0.530826, 4.25337, 0.866916, 4.65117),
    (0.459297, 3.78765, 0.981028, 4.33546),
    (0.312626, 4.15264, 0.952367, 3.22389),
)

# Contrast masking: exponents of excitation and inhibition, weights of the own and the neighbouring bands
EXCITATION = 10**0.3424
INHIBITION = 10**0.108934275615
MASKING_SELF = 10**1.41846291721
MASKING_NEIGHBOUR = 10**0.136877512403

VISIBLE_DIFFERENCE = 0.001  # relative; pixels that differ by less do not count
POOLING = 0.8  # exponent of the Minkowski sum over a band
BEST_QUALITY = 10.0
QUALITY_FLOOR = -4.0  # natural logarithm of the error at which quality is best
JOD = (0.52, 1.2812)  # 10 − a·(10 − Q)^b
