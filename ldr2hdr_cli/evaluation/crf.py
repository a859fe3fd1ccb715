"""The tone and colour fit of the SI-HDR benchmark, "+CRF": what a wrong camera curve costs is taken out of a score.

Hanji, Mantiuk, Eilertsen, Hajisharif and Unger 2022, "Comparison of single image HDR reconstruction methods — the
caveats of quality assessment" (SIGGRAPH), eq. 3 to 6; the constants are those of the authors' `crf_correction.m`
(github.com/gfxdisp/pu21). Two polynomials of degree 3 are fitted to all pixels, clipped ones too: one of 4 coefficients
for luminance in the PQ encoding, and one of 16 for chromaticity u′v′, which is drawn towards changing nothing.
"""

import numpy as np

DEGREE = 3
SHRINKAGE = 0.01  # λ of eq. 6 is this times pixels per term
DARKEST = 0.005  # cd/m²
PQ_PEAK = 10000.0  # cd/m²
PQ_M, PQ_N, PQ_C1, PQ_C2, PQ_C3 = 78.8438, 0.1593, 0.8359, 18.8516, 18.6875  # rounded SMPTE ST 2084
XYZ_RANGE = (1e-4, 1e8)  # cd/m²
UV_SCALE = 410 / 255  # the shrinkage acts on u′v′ times this
RGB_TO_XYZ = np.array([[0.412424, 0.357579, 0.180464], [0.212656, 0.715158, 0.072186], [0.019332, 0.119193, 0.950444]])


def crf_corrected(test: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`test` with its tones and colours as near to those of `reference` as the two polynomials bring them.

    test, reference: H×W×3, linear BT.709, cd/m² as a display shows them. float64, ≥ 0; a NaN in either makes all NaN.
    """
    if np.isnan(test).any() or np.isnan(reference).any():
        return np.full(test.shape, np.nan)
    light, chroma = _luminance_and_uv(test)
    light_wanted, chroma_wanted = _luminance_and_uv(reference)
    tone = _fitted(_pq(light)[:, None], _pq(light_wanted)[:, None], shrinkage=0.0)[:, 0]
    colour = _fitted(chroma, chroma_wanted, SHRINKAGE)
    # The authors' floor is meant for luminance, and is applied to u′v′ as well.
    darkest, brightest = _pq(np.array([DARKEST, XYZ_RANGE[1]]))
    corrected = _rgb(_from_pq(np.clip(tone, darkest, brightest)), np.maximum(colour, DARKEST))
    return corrected.reshape(test.shape)


def _fitted(values: np.ndarray, wanted: np.ndarray, shrinkage: float) -> np.ndarray:
    """The polynomial of `values` (pixels×channels) that is nearest to `wanted`, eq. 6."""
    channels = values.shape[1]
    products = [values[:, i] * values[:, j] for i in range(channels) for j in range(i + 1, channels)]
    powers = [values**power for power in range(2, DEGREE + 1)]
    terms = np.column_stack([values, np.ones(len(values)), *products, *powers])
    unchanged = np.eye(terms.shape[1], channels)
    weight = shrinkage * len(terms) / terms.shape[1]
    gram = terms.T @ terms + weight * np.eye(terms.shape[1])
    coefficients = np.linalg.pinv(gram, hermitian=True) @ (terms.T @ wanted + weight * unchanged)
    fitted: np.ndarray = terms @ coefficients
    return fitted


def _pq(light: np.ndarray) -> np.ndarray:
    power = (light / PQ_PEAK) ** PQ_N
    encoded: np.ndarray = ((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M
    return encoded


def _from_pq(encoded: np.ndarray) -> np.ndarray:
    root = encoded ** (1 / PQ_M)
    light: np.ndarray = PQ_PEAK * ((PQ_C1 - root) / (PQ_C3 * root - PQ_C2)) ** (1 / PQ_N)
    return light


def _luminance_and_uv(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel: cd/m², and CIE 1976 u′v′ times UV_SCALE (pixels×2)."""
    rgb = np.maximum(picture.reshape(-1, 3).astype(np.float64), DARKEST)
    x, y, z = np.clip(rgb @ RGB_TO_XYZ.T, *XYZ_RANGE).T
    uv = np.stack([4 * x, 9 * y], axis=1) / (x + 15 * y + 3 * z)[:, None]
    return y, uv * UV_SCALE


def _rgb(light: np.ndarray, uv: np.ndarray) -> np.ndarray:
    u, v = (uv / UV_SCALE).T
    across = 9 * u / (4 * v) * light
    deep = (12 - 3 * u - 20 * v) / (4 * v) * light
    xyz = np.clip(np.stack([across, light, deep], axis=1), *XYZ_RANGE)
    return np.maximum(xyz @ np.linalg.inv(RGB_TO_XYZ).T, 0.0)
