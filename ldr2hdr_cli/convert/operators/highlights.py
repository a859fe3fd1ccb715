"""Operators that look at where in the picture a pixel is: they find what is bright and expand that."""

import cv2
import numpy as np

from ldr2hdr_cli.convert.operators.filters import blur, cross_bilateral, light_density, sobel5
from ldr2hdr_cli.convert.operators.given import LUMINANCE_WEIGHTS, OperatorInput, with_luminance

LARGEST_REFLECTION = 2e-4  # of the picture's area: 20×20 pixels of 1080 lines
LARGEST_LIGHT = 0.05  # of the picture's area: what is larger is sky, snow or paper
SMALLEST_WITH_A_CURVE = 16  # pixels
SURROUND = 54.0  # pixels around a region
BRIGHT_SURROUND = 0.6  # linear; a region that is hardly brighter than what is around it is a surface


def banterle2006(given: OperatorInput) -> np.ndarray:
    """Banterle et al. 2006, "Inverse tone mapping" (GRAPHITE): inverse operator, blended by an expand map.

    The inverse of Reinhard's photographic operator with white point Lwhite, eq. in section 4:
    Lw = ½·peak·Lwhite·(L − 1 + √((1 − L)² + 4L/Lwhite²)). Here Lwhite = peak, the choice that leaves darks at
    their value. Then L′ = (1 − Λ)·L + Λ·Lw, where Λ is the density of light sources found by median cut
    (Debevec 2005), 1024 of them, spread by a Gaussian and scaled to a maximum of 1.
    Deviations: Gaussian kernel throughout; isolated light sources are not removed; no noise filter. Λ is
    relative to the picture, so a picture without any light is expanded where it is brightest.
    """
    white, lum = given.peak, given.luminance
    root = np.sqrt((1.0 - lum) ** 2 + 4.0 * lum / white**2)
    expanded = 0.5 * given.peak * white * np.maximum(lum - 1.0 + root, 0.0)
    density = light_density(lum)
    # Rounding may leave the inverse a hair under the identity in the darks.
    return with_luminance(given, lum + density * np.maximum(expanded - lum, 0.0))


def rempel2007(given: OperatorInput) -> np.ndarray:
    """Rempel et al. 2007, "LDR2HDR: On-the-fly Reverse Tone Mapping of Legacy Video and Photographs" (TOG 26(3)).

    A brightness enhancement function B in [0, 1] multiplies the linear picture by 1 + (peak − 1)·B (the paper
    goes to a factor of 4). B is the saturated mask blurred by a Gaussian of σ = 30 pixels, times an
    edge-stopping mask: the region flooded from saturated pixels without crossing a gradient of 0.05 in
    luminance (5×5 Sobel), its border softened by a Gaussian of σ = 1.
    Deviations: one threshold for saturation instead of 230/255 for video; no noise filter before it; the
    whole blur instead of its pyramid approximation.
    """
    saturated = given.saturated
    smooth = blur(saturated, 30.0 * given.scale)
    gradient = np.hypot(*(sobel5(given.luminance, axis) for axis in (0, 1)))
    passable = ((gradient < 0.05) & (smooth > 0.001)) | (saturated > 0)
    _, labels = cv2.connectedComponents(passable.astype(np.uint8), connectivity=4)
    reached = np.zeros(labels.max() + 1, dtype=np.float32)
    reached[labels[saturated > 0]] = 1.0
    flooded = np.maximum(blur(reached[labels], 1.0), 0.0)
    return given.linear * (1.0 + (given.peak - 1.0) * smooth * flooded)[..., None]


def kovaleski2014(given: OperatorInput) -> np.ndarray:
    """Kovaleski and Oliveira 2014, "High-Quality Reverse Tone Mapping for a Wide Range of Exposures" (SIBGRAPI).

    As Rempel et al., but B is one cross-bilateral filter of the saturated mask, guided by the picture: blur
    that stops at edges by itself. σ = 150 pixels and 25/255 in display-encoded luminance, evaluated on a
    bilateral grid (Paris and Durand 2006) with a cell of one σ.
    Deviations: one threshold for saturation instead of 254/255 for photographs and 230/255 for video; only the
    brightness enhancement function is built, without the paper's further treatment by exposure.
    """
    guide = given.encoded @ LUMINANCE_WEIGHTS
    cell = max(150.0 * given.scale, 1.0)
    enhancement = cross_bilateral(given.saturated, guide, cell, sigma_range=25.0 / 255.0)
    return given.linear * (1.0 + (given.peak - 1.0) * enhancement)[..., None]


def meylan2006(given: OperatorInput) -> np.ndarray:
    """Meylan et al. 2006, "The reproduction of specular highlights on high dynamic range displays" (CIC 14).

    One piecewise linear curve: up to ω, the darkest luminance that belongs to a highlight, the picture is stretched to
    a share ρ = 0.67 of the peak, and the rest of the peak is for what is brighter. Highlights are found as in the paper
    and HDR Toolbox: brighter than the picture blurred over a fiftieth of its height ever is, without single pixels, and
    grown over pixels brighter than it is when blurred twice as wide. Above ω a 5×5 mean hides the steps of codes.
    A picture without highlights, which is one whose largest bright areas are wider than that blur, is stretched whole.
    Deviation: ω is the one found, where the Toolbox always takes 0.99.
    """
    lum, diffuse_share = given.luminance, 0.67
    highlights = _specular(lum)
    brightest = max(float(lum.max()), 1e-6)
    if not highlights.any():
        return with_luminance(given, given.peak * lum / brightest)
    omega = float(lum[highlights].min())
    above = np.maximum(lum - omega, 0.0) / max(brightest - omega, 1e-6)
    curve = given.peak * (diffuse_share * np.minimum(lum, omega) / omega + (1 - diffuse_share) * above)
    near = cv2.dilate((lum > omega).astype(np.float32), np.ones((3, 3), np.uint8))
    near, mean = (cv2.blur(one, (5, 5), borderType=cv2.BORDER_REPLICATE) for one in (near, curve))
    return with_luminance(given, curve + near * (mean - curve))


def didyk2008(given: OperatorInput) -> np.ndarray:
    """Didyk et al. 2008, "Enhancement of Bright Video Features for HDR Displays" (Computer Graphics Forum 27(4)).

    Clipped regions are told apart as lights, reflections and diffuse surfaces. Lights are expanded to the peak,
    reflections half as far (the paper: to 150 % and 125 % of white), surfaces and all that is not clipped stay as they
    are. Inside a region the curve is steep where few gradients lie and flat where many do, so that edges are not
    exaggerated: f(bin i) = t + k·Σ(1 − H[j]) over the bins up to i, from the region's darkest luminance t to the
    boosted brightest one, with H the share of the region's gradients in a bin. That is the account of Banterle et al.
    2009 (CGF 28(8)); it was not checked against the paper itself.
    Deviations: the paper's classifier is a support vector machine, trained on labelled regions that are not published,
    corrected by a user's strokes and followed through a video. Strokes and tracking are left out, and the classes come
    from two of the features that it looks at: see `_shares_of_boost`. A region of fewer than 16 pixels has no gradients
    to speak of and is multiplied as a whole.
    """
    lum = given.luminance
    labels, statistics = cv2.connectedComponentsWithStats(given.saturated.astype(np.uint8), connectivity=8)[1:3]
    boosts = 1.0 + (given.peak - 1.0) * _shares_of_boost(given, labels, statistics[:, cv2.CC_STAT_AREA])
    result = lum * boosts[labels]
    gradient = np.hypot(*(sobel5(lum, axis) for axis in (0, 1)))
    for label in np.flatnonzero((boosts > 1) & (statistics[:, cv2.CC_STAT_AREA] >= SMALLEST_WITH_A_CURVE)):
        left, top, width, height = statistics[label, :4]
        place = slice(top, top + height), slice(left, left + width)
        inside = labels[place] == label
        result[place][inside] = _stretched(lum[place][inside], gradient[place][inside], float(boosts[label]))
    return with_luminance(given, result)


def _shares_of_boost(given: OperatorInput, labels: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """How far each labelled region is expanded: 1.0 for a light, 0.5 for a reflection, 0.0 for a surface and for 0.

    A surface is larger than 5 % of the picture, or the mean luminance of what is not clipped around it is at least 0.6
    of white: over-exposed surfaces fade into what is nearly as bright, lights and reflections stand out. Of the others,
    the small are reflections.
    """
    side = 2 * max(2, round(SURROUND * given.scale)) + 1
    free = 1.0 - given.saturated
    light, weight = (
        np.bincount(labels.ravel(), cv2.blur(one, (side, side), borderType=cv2.BORDER_REPLICATE).ravel())
        for one in (given.luminance * free, free)
    )
    stands_out = light < BRIGHT_SURROUND * weight - 1e-6
    share = np.where(areas <= LARGEST_REFLECTION * labels.size, 0.5, 1.0)
    share[~stands_out | (areas > LARGEST_LIGHT * labels.size)] = 0.0
    share[0] = 0.0
    return share.astype(np.float32)


def _stretched(values: np.ndarray, gradient: np.ndarray, boost: float, bins: int = 64) -> np.ndarray:
    """`values` of a region, the darkest kept and the brightest times `boost`, slowly where `gradient` is high."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return values * np.float32(boost)
    edges = np.linspace(low, high, bins + 1)
    weights, _ = np.histogram(values, edges, weights=gradient)
    slopes = 1.0 - weights / max(float(weights.sum()), 1e-12)
    rising = np.concatenate([[0.0], np.cumsum(slopes)])
    return np.interp(values, edges, low + (boost * high - low) * rising / rising[-1])


def _specular(luminance: np.ndarray) -> np.ndarray:
    """The highlights of Meylan et al.: bool H×W."""
    side = max(1, round(len(luminance) / 50))
    narrow, wide = (
        float(cv2.blur(luminance, (n, n), borderType=cv2.BORDER_REPLICATE).max()) for n in (side, 2 * side + 1)
    )
    found = luminance > narrow + 1e-6
    for _ in range(100):  # it settles in a few rounds
        kept = found & (_neighbours(found) >= 1)
        grown = kept | ((_neighbours(kept) > 3) & (luminance > wide))
        if np.array_equal(grown, found):
            break
        found = grown
    return found


def _neighbours(mask: np.ndarray) -> np.ndarray:
    """How many of the eight neighbours of each pixel are set."""
    around = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.float32)
    return cv2.filter2D(mask.astype(np.uint8), -1, around, borderType=cv2.BORDER_CONSTANT)
