"""ISEC superpixels: regions between the edges that several scales agree on.

Mendonça and Oliveira, "ISEC: Iterative over-Segmentation via Edge Clustering", Image and Vision
Computing 80, 2018 (arXiv 1802.05816), in the variant that SHLS uses: edges are found at growing
scale; where they cluster, their density is thinned to lines and its regions' outlines become
segment borders. The number of superpixels is an outcome, not a parameter.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB
from methods.shls.superpixels.compiled import compiled
from methods.shls.superpixels.components import (
    fill_small_holes,
    label_components,
    remove_small_parts,
)
from methods.shls.superpixels.edges import edges
from methods.shls.superpixels.thinning import thin

SuperpixelMap = NDArray[np.int32]
"""int32 ``(H, W)``, ids 1 .. N, each of which occurs."""

VERSION = 1
"""To be raised whenever the labels of any image change; part of the key of cached maps."""

SQUARE = np.ones((3, 3), np.uint8)

SMALLEST_FILTER = 3
"""In pixels; the density's window never gets smaller."""


@compiled
def _grey(image: Any) -> Any:
    """Luminance of float32 RGB.

    Products are added with a single rounding each, as fused multiply-add does in the matrix
    product of scikit-image's rgb2gray: a product of two single-precision numbers is exact in
    double precision.
    """
    height, width, _ = image.shape
    grey = np.empty((height, width), np.float32)
    weights = np.array([0.2125, 0.7154, 0.0721], np.float32).astype(np.float64)
    for y in range(height):
        for x in range(width):
            red = np.float32(image[y, x, 0] * weights[0])
            both = np.float32(image[y, x, 1] * weights[1] + red)
            grey[y, x] = np.float32(image[y, x, 2] * weights[2] + both)
    return grey


@compiled
def _spread(labels: Any) -> Any:
    """Give border pixels (0) the largest label among their neighbours, all at once."""
    height, width = labels.shape
    spread = labels.copy()
    for y in range(height):
        for x in range(width):
            if labels[y, x] != 0:
                continue
            largest = 0
            for near_y in range(max(y - 1, 0), min(y + 2, height)):
                for near_x in range(max(x - 1, 0), min(x + 2, width)):
                    largest = max(largest, labels[near_y, near_x])
            spread[y, x] = largest
    return spread


def _thin_mirrored(mask: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Thin by half a filter's size; the image goes on mirrored, so that borders do not erode."""
    padded = cv2.copyMakeBorder(mask, size, size, size, size, cv2.BORDER_REFLECT_101)
    return thin(padded, (size - 1) // 2)[size:-size, size:-size]


def _outlines(grey: NDArray[np.float32], iteration: int, size: int) -> NDArray[np.uint8]:
    """One scale's segment borders: uint8 ``(H, W)`` of 0 and 1."""
    high = 0.1 * math.exp(0.02 * iteration)
    found = edges(grey, 1.0 + iteration, 0.1 * high, high)
    # Edge pixels in the window around each pixel, rescaled so that the extremes become 0 and 1.
    density = cv2.boxFilter(
        found, cv2.CV_16U, (size, size), normalize=False, borderType=cv2.BORDER_REFLECT
    )
    lowest, highest = int(density.min()), int(density.max())
    if lowest == highest:
        return np.zeros_like(found)
    rescaled = (np.arange(highest + 1) - lowest) / (highest - lowest)
    dense = (rescaled > 0.05 * iteration).astype(np.uint8)[density]
    clusters = _thin_mirrored((density > lowest).view(np.uint8), size) & dense
    fill_small_holes(clusters, 10 + 5 * iteration)
    return clusters ^ cv2.erode(clusters, SQUARE)


def isec_float(
    image: NDArray[np.float32],
    filter_order: int = 11,
    iterations: int = 4,
    area_threshold: int = 20,
) -> SuperpixelMap:
    """As :func:`isec`, for an image with values in [0, 1].

    Args:
        image: float32 RGB ``(H, W, 3)``.
        filter_order: see :func:`isec`.
        iterations: see :func:`isec`.
        area_threshold: see :func:`isec`.

    Returns:
        int32 ``(H, W)``, ids 1 .. N in raster order.

    Raises:
        ValueError: another shape or dtype, or an even or too small filter order.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.float32 or not image.size:
        raise ValueError(f"a float32 image (H, W, 3) is needed, not {image.dtype} {image.shape}")
    if filter_order < SMALLEST_FILTER or filter_order % 2 == 0:
        raise ValueError(f"filter_order must be odd and at least 3, not {filter_order}")
    grey = _grey(np.ascontiguousarray(image))
    borders = np.zeros(grey.shape, np.uint8)
    for iteration in range(iterations):
        borders |= _outlines(grey, iteration, max(SMALLEST_FILTER, filter_order - 2 * iteration))
    fill_small_holes(borders, area_threshold)
    borders = _thin_mirrored(borders, filter_order)
    # The inside of what is still thick becomes tiny regions; every border pixel then has a
    # neighbour in a region, which is what lets all of them be given away below.
    borders ^= cv2.erode(borders, SQUARE)
    remove_small_parts(borders, area_threshold)
    regions, _ = label_components(borders, left_out=1)
    return _spread(regions)


def isec(
    image: RGB, filter_order: int = 11, iterations: int = 4, area_threshold: int = 20
) -> SuperpixelMap:
    """Superpixels of one frame; about a thousand at 480p.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        filter_order: odd window in which edges are counted, in pixels; smaller makes more
            superpixels.
        iterations: scales of edges.
        area_threshold: holes in borders and pieces of border below so many pixels vanish.

    Returns:
        int32 ``(H, W)``, ids 1 .. N in raster order; every superpixel is 8-connected.

    Raises:
        ValueError: another shape or dtype, or an even or too small filter order.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"a uint8 image is needed, not {image.dtype}")
    return isec_float(image / np.float32(255), filter_order, iterations, area_threshold)
