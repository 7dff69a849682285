"""Saliency by minimum barrier distance to the image border.

Zhang, Sclaroff, Lin, Shen, Price, Mech: "Minimum Barrier Salient Object Detection at 80 FPS",
ICCV 2015, in its extended form (MB+). The barrier of a path is the range of the values on it. A
pixel is salient if every path from it to the border has a large barrier, and if its colour is
unlike the colours along the border.

Section numbers are those of the paper.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB
from methods.shls.superpixels.compiled import compiled

SaliencyMap = NDArray[np.float32]
"""float32 ``(H, W)`` in [0, 1], 0 = background."""

PASSES = 3
"""Raster scans, forward and backward in turn (section 3.1)."""

BORDER_SHARE = 0.1
"""Thickness of the four border strips whose colours are background, as a share of the image's
side (section 3.2)."""

SMOOTHING = 20.0
"""Width of the structuring element in pixels per square root of the mean saliency (3.3)."""

CONTRAST = 10.0
"""Slope of the sigmoid that spreads the values at last (section 3.3)."""


@compiled
def _scan(values: Any, distance: Any, highest: Any, lowest: Any, backward: Any) -> Any:
    """One raster scan of FastMBD, in place; each pixel looks at the two neighbours just visited."""
    height, width = values.shape
    step = -1 if backward else 1
    for row in range(height):
        y = height - 1 - row if backward else row
        for column in range(width):
            x = width - 1 - column if backward else column
            value = values[y, x]
            for vertical in range(2):
                v, u = (y - step, x) if vertical == 0 else (y, x - step)
                if v < 0 or v >= height or u < 0 or u >= width:
                    continue
                high = max(highest[v, u], value)
                low = min(lowest[v, u], value)
                if high - low < distance[y, x]:
                    distance[y, x] = high - low
                    highest[y, x] = high
                    lowest[y, x] = low


def barrier_distance(values: NDArray[np.float32], passes: int = PASSES) -> NDArray[np.float32]:
    """Minimum barrier distance to the image border, by raster scans (FastMBD, section 3.1).

    Each pixel remembers the extremes of its best path so far. The result is never below the exact
    distance, and mostly equal to it.

    Args:
        values: float32 ``(H, W)``.
        passes: number of scans.

    Returns:
        float32 ``(H, W)`` in the unit of ``values``, 0 along the border.
    """
    values = np.ascontiguousarray(values, np.float32)
    distance = np.full(values.shape, np.inf, np.float32)
    distance[[0, -1]] = 0
    distance[:, [0, -1]] = 0
    highest, lowest = values.copy(), values.copy()
    for number in range(passes):
        _scan(values, distance, highest, lowest, number % 2 == 1)
    return distance


def border_contrast(lab: NDArray[np.float32]) -> SaliencyMap:
    """How unlike the border's colours each pixel is (image boundary contrast, section 3.2).

    The four border strips are modelled by a Gaussian each. The strip that a pixel differs from
    most does not count, so that an object that touches one side is still found.

    Args:
        lab: float32 CIE Lab ``(H, W, 3)``.

    Returns:
        float32 ``(H, W)`` in [0, 1], not stretched to a minimum of 0.
    """
    height, width = lab.shape[:2]
    rows, columns = max(1, round(BORDER_SHARE * height)), max(1, round(BORDER_SHARE * width))
    flat = lab.reshape(-1, 3).astype(np.float64)
    contrasts = []
    for strip in (lab[:rows], lab[-rows:], lab[:, :columns], lab[:, -columns:]):
        colours = strip.reshape(-1, 3).astype(np.float64)
        # One unit of variance is added, about what the eye can tell; a strip of one colour
        # has no inverse otherwise.
        covariance = np.cov(colours, rowvar=False) + np.eye(3)
        offset = flat - colours.mean(0)
        squared = np.einsum("ni,ni->n", offset @ np.linalg.inv(covariance), offset)
        contrasts.append(_to_one(np.sqrt(np.maximum(squared, 0)).reshape(height, width)))
    stacked = np.stack(contrasts)
    return _to_one(stacked.sum(0) - stacked.max(0)).astype(np.float32)


def minimum_barrier(image: RGB, centre_prior: bool = True) -> SaliencyMap:
    """Saliency by minimum barrier distance (MB+).

    Its scales are meant for images of about 300 pixels.

    Args:
        image: uint8 RGB ``(H, W, 3)``, at least 3 pixels a side.
        centre_prior: whether saliency falls with the distance to the image's middle, as in the
            paper; photographers put objects there.

    Returns:
        float32 ``(H, W)`` in [0, 1]; all zero for an image of one colour.
    """
    lab = np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    barriers = np.sum([barrier_distance(lab[..., channel]) for channel in range(3)], axis=0)
    # Below the rounding of 8 bits there is nothing to see, only noise to blow up.
    if barriers.max() < 1:
        return np.zeros(image.shape[:2], np.float32)
    saliency = _to_one(_to_one(barriers) + border_contrast(lab)).astype(np.float32)
    saliency = _smooth(saliency)
    if centre_prior:
        height, width = saliency.shape
        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
        saliency *= 1 - np.hypot(rows, columns) / np.float32(math.sqrt(2))
    spread = 1 / (1 + np.exp(-CONTRAST * (_to_one(saliency) - 0.5)))
    # The sigmoid leaves 0.7 % of saliency at the bottom; the map starts at exactly zero.
    bottom = 1 / (1 + math.exp(CONTRAST / 2))
    return np.clip((spread - bottom) / (1 - 2 * bottom), 0, 1).astype(np.float32)


def _to_one(values: NDArray[Any]) -> NDArray[Any]:
    """Divide by the maximum, if there is one above 0."""
    highest = values.max()
    return values / highest if highest > 0 else values


@compiled
def _reconstruct(marker: Any, mask: Any) -> Any:
    """Grow ``marker`` under ``mask`` in place, along 4-connected paths, until nothing changes.

    This is morphological reconstruction by dilation (Vincent, IEEE Trans. Image Processing 2(2),
    1993) by raster scans.
    """
    height, width = marker.shape
    changed = True
    while changed:
        changed = False
        for backward in range(2):
            step = -1 if backward else 1
            for row in range(height):
                y = height - 1 - row if backward else row
                for column in range(width):
                    x = width - 1 - column if backward else column
                    level = marker[y, x]
                    if 0 <= y - step < height:
                        level = max(level, marker[y - step, x])
                    if 0 <= x - step < width:
                        level = max(level, marker[y, x - step])
                    level = min(level, mask[y, x])
                    if level > marker[y, x]:
                        marker[y, x] = level
                        changed = True


def _smooth(saliency: SaliencyMap) -> SaliencyMap:
    """Opening by reconstruction, then closing by reconstruction (section 3.3).

    Bright specks and dark holes narrower than the structuring element go; outlines stay.
    """
    width = max(1, round(SMOOTHING * math.sqrt(float(saliency.mean()))))
    square = np.ones((width, width), np.uint8)
    opened = np.asarray(cv2.erode(saliency, square), np.float32)
    _reconstruct(opened, saliency)
    # Closing is opening upside down.
    upside_down = 1 - opened
    closed = np.asarray(cv2.erode(upside_down, square), np.float32)
    _reconstruct(closed, upside_down)
    return (1 - closed).astype(np.float32)
