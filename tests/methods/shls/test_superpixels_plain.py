"""ISEC as its description reads, in SciPy and scikit-image, and the reference values for it.

Other tests and the benchmark compare the fast implementation with this one.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import thin

SQUARE = np.ones((3, 3), bool)

GOLDEN = {
    ((120, 160), 11, 4): "bcab6d18f34268baec24028911c44d31",
    ((120, 160), 11, 5): "b4e9b13d352f82b32cb898b8783efd78",
    ((120, 160), 5, 4): "d1d5e7955d9c663dc2651f052445dbc3",
    ((240, 320), 11, 4): "b864e5fb86845bdc004b165ba94f3223",
    ((240, 320), 11, 5): "2657351d029aa122e84a17880a7e9b20",
    ((240, 320), 5, 4): "4cdf9aeb8b81c899a86b2225540bc722",
}
"""MD5 of the official implementation's int32 labels of :func:`pattern`, by size, order, scales."""


def pattern(size):
    """A synthetic float32 image ``(H, W, 3)`` with waves, steps and a radial ramp."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    red = 0.5 + 0.3 * np.sign(np.sin(x / 11) * np.cos(y / 13))
    green = ((x // 17 + y // 23) % 3) / 2
    blue = np.minimum(1, np.hypot(x - width / 2, y - height / 2) / (0.5 * height))
    return np.stack([red, green, blue], -1).astype(np.float32)


def digest(labels):
    return hashlib.md5(labels.astype("<i4").tobytes()).hexdigest()


def plain_grey(image):
    """Products exact, one rounding per addition."""
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
    weights = np.array([0.2125, 0.7154, 0.0721], np.float32).astype(np.float64)
    grey = (red * weights[0]).astype(np.float32)
    grey = (green * weights[1] + grey).astype(np.float32)
    return (blue * weights[2] + grey).astype(np.float32)


def plain_smooth(grey, sigma):
    return ndimage.gaussian_filter(grey, sigma, mode="constant", truncate=4.0)


def plain_ridges(smooth, low, high):
    """Non-maximum suppression over four sectors: 1 weak, 2 strong."""
    down, right = ndimage.sobel(smooth, axis=0), ndimage.sobel(smooth, axis=1)
    magnitude = np.hypot(down, right)
    height, width = magnitude.shape
    padded = np.pad(magnitude, 1)

    def moved(y, x):
        return padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    steps_y, steps_x = np.abs(down), np.abs(right)
    ridge = np.zeros(magnitude.shape, bool)
    for steep in (True, False):
        for sign in (1, -1):
            sector = (steps_y >= steps_x if steep else steps_y <= steps_x) & (
                ((down >= 0) & (sign * right >= 0)) | ((down <= 0) & (sign * right <= 0))
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                weight = steps_x / steps_y if steep else steps_y / steps_x
                y, x = (1, 0) if steep else (0, sign)
                ahead = moved(1, sign) * weight + moved(y, x) * (1 - weight)
                behind = moved(-1, -sign) * weight + moved(-y, -x) * (1 - weight)
            ridge = np.where(sector, (ahead <= magnitude) & (behind <= magnitude), ridge)
    ridge[[0, -1]] = ridge[:, [0, -1]] = False
    return (ridge & (magnitude >= low)).astype(np.uint8) + (ridge & (magnitude >= high))


def plain_hysteresis(ridges):
    parts, _ = ndimage.label(ridges > 0, SQUARE)
    return np.isin(parts, np.unique(parts[ridges == 2]))


def plain_fill(mask, area, connectivity=1):
    """Set the components of False with fewer than ``area`` pixels."""
    parts = label(~mask, connectivity=connectivity)
    areas = np.bincount(parts.ravel())
    areas[0] = area
    return mask | (areas < area)[parts]


def plain_thin_mirrored(mask, size):
    padded = np.pad(mask, size, mode="reflect")
    return thin(padded, max_num_iter=(size - 1) // 2)[size:-size, size:-size]


def plain_isec(image, filter_order=11, iterations=4, area_threshold=20):
    """ISEC of a float32 image in [0, 1]."""
    grey = plain_grey(image)
    borders = np.zeros(grey.shape, bool)
    for i in range(iterations):
        high = 0.1 * math.exp(0.02 * i)
        found = plain_hysteresis(plain_ridges(plain_smooth(grey, 1 + i), 0.1 * high, high))
        size = max(3, filter_order - 2 * i)
        density = ndimage.convolve(found.astype(float), np.ones((size, size)), mode="reflect")
        density = (density - density.min()) / max(np.ptp(density), 1)
        density = density * plain_thin_mirrored(density > 0, size)
        clusters = plain_fill(density > 0.05 * i, 10 + 5 * i)
        borders |= clusters & ~ndimage.minimum_filter(clusters, 3)
    borders = plain_fill(borders, area_threshold)
    borders &= plain_thin_mirrored(borders, filter_order)
    borders &= ~ndimage.minimum_filter(borders, 3)
    borders = ~plain_fill(~borders, area_threshold, connectivity=2)
    regions = label(~borders, connectivity=1).astype(np.int32)
    return np.where(borders, ndimage.maximum_filter(regions, 3), regions)


def test_the_plain_formulation_gives_the_official_labels():
    found = {case: digest(plain_isec(pattern(case[0]), *case[1:])) for case in GOLDEN}
    assert found == GOLDEN


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_the_fast_implementation_gives_the_official_labels(case):
    from methods.shls.superpixels import isec_float

    size, filter_order, iterations = case
    assert digest(isec_float(pattern(size), filter_order, iterations)) == GOLDEN[case]
