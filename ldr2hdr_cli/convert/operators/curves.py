"""Operators that put every pixel of a picture through one curve."""

import numpy as np

from ldr2hdr_cli.convert.operators.given import OperatorInput, with_luminance


def clip(given: OperatorInput) -> np.ndarray:
    """No expansion: the linearised picture, white at 1.0. What every other method has to beat."""
    return given.linear


def landis2002(given: OperatorInput) -> np.ndarray:
    """Landis 2002, "Production-Ready Global Illumination" (SIGGRAPH course 16): expand above a threshold.

    L′ = (1 − k)·L + k·peak·L with k = ((L − R)/(1 − R))^α for L ≥ R, else L. R = 0.5 and α = 2 on linear
    luminance. The formula is the one under which surveys hand it on (Banterle et al. 2009, "High Dynamic Range
    Imaging and Low Dynamic Range Expansion for Generating HDR Content", CGF 28(8)). Global, monotone.
    """
    start, alpha = 0.5, 2.0
    k = np.clip((given.luminance - start) / (1.0 - start), 0.0, 1.0) ** alpha
    return given.linear * (1.0 + k * (given.peak - 1.0))[..., None]


def akyuz2007(given: OperatorInput) -> np.ndarray:
    """Akyüz et al. 2007, "Do HDR displays support LDR content? A psychophysical evaluation" (ACM TOG 26(3)).

    L′ = peak·((L − Lmin)/(Lmax − Lmin))^γ with γ = 1, which their observers preferred: a plain stretch of the
    picture to the display's range. It scales the well-exposed part by the same factor as white, so after
    alignment of scale it is `clip` with the blacks stretched. A picture of one luminance has no range; it is
    multiplied by `peak`. Lmin and Lmax belong to one picture: in video they change from frame to frame.
    """
    low, high = float(given.luminance.min()), float(given.luminance.max())
    if high - low < 1e-6:
        return given.linear * np.float32(given.peak)
    stretched = given.peak * (given.luminance - low) / (high - low)
    return with_luminance(given, stretched)


def masia2009(given: OperatorInput) -> np.ndarray:
    """Masia et al. 2009, "Evaluation of Reverse Tone Mapping Through Varying Exposure Conditions" (ACM TOG 28(5)).

    L′ = peak·L^γ with γ = 10.44·k − 6.282, k the picture's key (Akyüz and Reinhard 2006): bright pictures, in which
    much may be clipped, get more contrast instead of more light.
    As HDR Toolbox has it: L is linear, and k leaves out 1 % of the pixels at either end. Deviations: γ is at least 1,
    since the line, fitted to over-exposed pictures, is under 1 for a key below 0.70 and negative below 0.60; no
    bilateral filter against noise, for which the paper gives no figures.
    """
    key, _ = _key(given.luminance)
    return _power(given, 10.44 * key - 6.282)


def masia2017(given: OperatorInput) -> np.ndarray:
    """Masia et al. 2017, "Dynamic range expansion based on image statistics" (Multimedia Tools and Applications 76).

    As Masia et al. 2009 with eq. 5: γ = 2.4379 + 0.2319·ln(Lavg) − 1.1228·k + 0.0085·p, where Lavg is the logarithmic
    mean of luminance and p the percentage of pixels whose luminance is clipped (254/255 and more, as in HDR Toolbox).
    """
    key, average = _key(given.luminance)
    clipped = 100.0 * float((given.luminance >= 254 / 255).mean())
    return _power(given, 2.4379 + 0.2319 * np.log(average) - 1.1228 * key + 0.0085 * clipped)


def bist2017(given: OperatorInput) -> np.ndarray:
    """Bist et al. 2017, "Tone expansion using lighting style aesthetics" (Computers & Graphics 62).

    L′ = peak·L^γ with γ = 1 + log10(1/M), where M is the median lightness (CIE L*, as a share of 100): a dark style
    stays dark, a bright one is nearly a plain stretch. The formula is the one that later comparisons give for it; it
    was not checked against the paper itself.
    Deviations: M is at least 0.01, so that a black picture has a γ; colours are not corrected, as chromaticity stays in
    all operators here.
    """
    median = float(np.median(given.luminance))
    lightness = 1.16 * np.cbrt(median) - 0.16 if median > 216 / 24389 else 24389 / 2700 * median
    return _power(given, 1.0 - np.log10(max(lightness, 0.01)))


def luzardo2018(given: OperatorInput) -> np.ndarray:
    """Luzardo et al. 2018, "Fully-Automatic Inverse Tone Mapping Preserving the Content Creator's Artistic Intentions".

    (Picture Coding Symposium.) Mid-level mapping: L′ = peak·L^a / (b·L^(a·d) + c), after the tone curve of Lottes 2016
    ("Advanced Techniques and Optimization of HDR Color Pipelines", GDC), where b and c follow from two points: white
    becomes `peak`, and middle grey, 0.18, becomes what is asked for.
    Deviations: the paper derives the middle grey from statistics of the picture; here it keeps its luminance. a = 1 and
    d = 4 are ours: darks keep their contrast, and of three stops of peak half are gained above 0.93. The curve was not
    checked against the paper itself.
    """
    grey, shoulder = 0.18, 4.0
    b = (given.peak - 1.0) / (grey**shoulder - 1.0)
    lum = given.luminance
    return with_luminance(given, given.peak * lum / (b * lum**shoulder + 1.0 - b))


def _power(given: OperatorInput, gamma: float) -> np.ndarray:
    return with_luminance(given, given.peak * given.luminance ** np.float32(max(gamma, 1.0)))


def _key(luminance: np.ndarray) -> tuple[float, float]:
    """The key of a picture and the logarithmic mean of its luminance.

    Akyüz and Reinhard 2006, "Color appearance in high-dynamic-range imaging" (Journal of Electronic Imaging 15(3)):
    where the logarithmic mean lies between the smallest and the largest luminance, in logarithms; 0 to 1. Those are
    the 1st and 99th percentile of all luminance above 0. A picture of one luminance has a key of 0.
    """
    average = float(np.exp(np.log(luminance + 1e-6, dtype=np.float64).mean()))
    lit = luminance[luminance > 0]
    if lit.size == 0:
        return 0.0, average
    low, high = np.log(np.percentile(lit, (1, 99)))
    if high - low < 1e-6:
        return 0.0, average
    return float(np.clip((np.log(average) - low) / (high - low), 0.0, 1.0)), average
