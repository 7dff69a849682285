"""Saliency by robust background detection.

Zhu, Liang, Wei, Sun: "Saliency Optimization from Robust Background Detection", CVPR 2014.
Superpixels that are widely connected to the image border are background. Contrast to them makes
foreground. A quadratic energy reconciles both with each other and with the image's edges.

Section and equation numbers are those of the paper, and so are the constants.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB
from methods.shls.offline.minimum_barrier import SaliencyMap
from methods.shls.superpixels import slic

SUPERPIXELS = 200
"""The paper's 600 pixels each, in an image of 400 x 300."""

COMPACTNESS = 20.0
"""SLIC's weight of position against colour."""

COLOUR_SIGMA = 10.0
"""In units of CIE Lab; within about so much, superpixels are taken for one region (eq. 2)."""

SPACE_SIGMA = 0.25
"""As a share of the image's longer side: how far contrast reaches (eq. 5)."""

CONNECTIVITY_SIGMA = 1.0
"""How fast the background probability grows with boundary connectivity (eq. 6)."""

LEAST_SMOOTHNESS = 0.1
"""Neighbours are drawn together at least so much, across the strongest edge too (eq. 10)."""

FEWEST_SUPERPIXELS = 4
"""With fewer there is no inside and outside."""

LEAST_CONTRAST = 1.0
"""In units of CIE Lab. If all superpixels differ by less, nothing is salient."""


def robust_background(image: RGB) -> SaliencyMap:
    """Saliency by robust background detection.

    Args:
        image: uint8 RGB ``(H, W, 3)``.

    Returns:
        float32 ``(H, W)`` in [0, 1], constant inside superpixels; all zero for an image of one
        colour.
    """
    height, width = image.shape[:2]
    ids = slic(image, SUPERPIXELS, COMPACTNESS) - 1
    count = int(ids.max()) + 1
    nothing = np.zeros((height, width), np.float32)
    if count < FEWEST_SUPERPIXELS:
        return nothing
    colours, places = _means(image, ids, count)
    contrast = _distances(colours)
    if contrast.max() < LEAST_CONTRAST:
        return nothing
    near = _neighbours(ids, count)
    at_border = np.zeros(count, bool)
    at_border[np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]])] = True

    background = background_probability(contrast, near, at_border)
    # Background weighted contrast (eq. 5): a lone colour far from all background is foreground.
    closeness = np.exp(-(_distances(places) ** 2) / (2 * SPACE_SIGMA**2))
    foreground = _stretch((contrast * closeness) @ background)
    saliency = _stretch(_optimise(background, foreground, contrast, near, at_border))
    return saliency.astype(np.float32)[ids]


def background_probability(
    contrast: NDArray[np.float64], near: NDArray[np.bool_], at_border: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How likely each superpixel is background, by boundary connectivity (eq. 2 to 4 and 6).

    A region's boundary connectivity is the length of the image border it covers over the square
    root of its area. Which superpixels make up a region is decided softly, by geodesic distance.

    Args:
        contrast: float64 ``(N, N)``, colour distances.
        near: bool ``(N, N)``, which superpixels touch.
        at_border: bool ``(N,)``, which touch the image border.

    Returns:
        float64 ``(N,)`` in [0, 1].
    """
    # Imported here, since most users of the package find their maps on disk.
    from scipy.sparse.csgraph import shortest_path

    # All superpixels at the border are linked: an object that cuts the background in two makes
    # neither part less background (section 3.2).
    linked = near | np.outer(at_border, at_border)
    # SciPy takes what is below 1e-8 for a missing edge, and equal colours are none.
    steps = np.where(linked, np.maximum(contrast, 1e-6), 0)
    np.fill_diagonal(steps, 0)
    geodesic = shortest_path(steps, method="D", directed=False)
    membership = np.exp(-(geodesic**2) / (2 * COLOUR_SIGMA**2))
    border_length = membership[:, at_border].sum(1)
    connectivity = border_length / np.sqrt(membership.sum(1))
    return np.asarray(1 - np.exp(-(connectivity**2) / (2 * CONNECTIVITY_SIGMA**2)))


def _optimise(
    background: NDArray[np.float64],
    foreground: NDArray[np.float64],
    contrast: NDArray[np.float64],
    near: NDArray[np.bool_],
    at_border: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Minimise ``Σ b s² + Σ f (s - 1)² + Σ w (s_i - s_j)²`` over the saliencies (eq. 9 and 10)."""
    linked = near | np.outer(at_border, at_border)
    np.fill_diagonal(linked, False)
    smoothness = np.exp(-(contrast**2) / (2 * COLOUR_SIGMA**2)) + LEAST_SMOOTHNESS
    smoothness = np.where(linked, smoothness, 0)
    laplacian = np.diag(smoothness.sum(1)) - smoothness
    # A trace on the diagonal keeps the system solvable where both weights vanish.
    system = np.diag(background + foreground + 1e-9) + laplacian
    return np.asarray(np.linalg.solve(system, foreground))


def _means(
    image: RGB, ids: NDArray[np.int32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean CIE Lab colours ``(N, 3)``, and mean rows and columns ``(N, 2)`` by the longer side."""
    height, width = ids.shape
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    rows, columns = np.indices((height, width)) / max(height, width)
    flat = ids.ravel()
    areas = np.bincount(flat, minlength=count)
    layers = [lab[..., 0], lab[..., 1], lab[..., 2], rows, columns]
    means = np.stack([np.bincount(flat, layer.ravel(), count) / areas for layer in layers], 1)
    return means[:, :3], means[:, 3:]


def _distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances ``(N, N)`` between points ``(N, D)``."""
    return np.asarray(np.linalg.norm(points[:, None] - points[None], axis=2))


def _neighbours(ids: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """Which superpixels share a side, bool ``(N, N)``."""
    near = np.zeros((count, count), bool)
    near[ids[:, :-1], ids[:, 1:]] = True
    near[ids[:-1], ids[1:]] = True
    near |= near.T
    np.fill_diagonal(near, False)
    return near


def _stretch(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift and scale to [0, 1]; zeros if all values are the same."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
