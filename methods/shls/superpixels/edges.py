"""Canny's edge detector in the form that ISEC rests on, pixel-exact to SciPy's filters.

Superpixels hang on comparisons of neighbouring gradient magnitudes, often equal ones, so that a
last bit can move a whole border. Hence the filters here round where SciPy's do: sums in double
precision, from the outermost tap inwards; results in single precision after each axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.shls.superpixels.compiled import compiled

TRUNCATE = 4.0
"""The Gaussian is cut off at so many standard deviations."""


def gaussian_weights(sigma: float) -> NDArray[np.float64]:
    """The centre tap of a normalised Gaussian and those to one side of it, ``(radius + 1,)``."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * offsets**2)
    return (weights / weights.sum())[radius:]


@compiled
def _smooth(grey: Any, weights: Any) -> Any:
    height, width = grey.shape
    radius = len(weights) - 1
    padded = np.empty((height + 2, width + 2), np.float32)
    total = np.empty(width)
    column_sums = np.zeros(width + 2 * radius)
    middle = column_sums[radius : radius + width]
    zeros = np.zeros(width, np.float32)
    for y in range(height):
        row = grey[y]
        for x in range(width):
            total[x] = np.float64(row[x]) * weights[0]
        for k in range(radius, 0, -1):
            weight = weights[k]
            above = grey[y - k] if y >= k else zeros
            below = grey[y + k] if y + k < height else zeros
            if y < k and y + k >= height:
                continue
            for x in range(width):
                total[x] += (np.float64(above[x]) + np.float64(below[x])) * weight
        for x in range(width):
            middle[x] = np.float32(total[x])
        for x in range(width):
            total[x] = middle[x] * weights[0]
        for k in range(radius, 0, -1):
            weight = weights[k]
            # Slices from where they start: an index that might be negative would keep the
            # compiler from vector instructions.
            left = column_sums[radius - k : radius - k + width]
            right = column_sums[radius + k : radius + k + width]
            for x in range(width):
                total[x] += (left[x] + right[x]) * weight
        out = padded[y + 1, 1 : width + 1]
        for x in range(width):
            out[x] = np.float32(total[x])
        padded[y + 1, 0] = padded[y + 1, 1]
        padded[y + 1, width + 1] = padded[y + 1, width]
    padded[0] = padded[1]
    padded[height + 1] = padded[height]
    return padded


@compiled
def _gradients(padded: Any) -> Any:
    """Sobel gradients down and to the right, and their magnitude; float32 ``(H, W)``."""
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    down = np.empty((height, width), np.float32)
    right = np.empty((height, width), np.float32)
    magnitude = np.empty((height, width), np.float32)
    vertical = np.empty(width + 2, np.float32)
    # Horizontal differences of three rows; row y uses those of y - 1, y and y + 1.
    horizontal = np.empty((3, width), np.float32)
    for y in range(-1, height + 1):
        difference = horizontal[(y + 1) % 3]
        ahead, behind = padded[y + 1, 2:], padded[y + 1, :width]
        for x in range(width):
            difference[x] = ahead[x] - behind[x]
        if y < 1:
            continue
        _gradient_row(
            padded[y - 1],
            padded[y + 1],
            vertical,
            horizontal[(y - 1) % 3],
            horizontal[y % 3],
            difference,
            down[y - 1],
            right[y - 1],
            magnitude[y - 1],
        )
    return down, right, magnitude


@compiled
def _gradient_row(
    above: Any,
    below: Any,
    vertical: Any,
    before: Any,
    centre: Any,
    after: Any,
    down: Any,
    right: Any,
    magnitude: Any,
) -> None:
    width = len(down)
    for x in range(width + 2):
        vertical[x] = below[x] - above[x]
    left_of, middle, right_of = vertical[:width], vertical[1 : width + 1], vertical[2:]
    for x in range(width):
        vertical_sum = np.float64(left_of[x]) + np.float64(right_of[x])
        horizontal_sum = np.float64(before[x]) + np.float64(after[x])
        down[x] = np.float32(np.float64(middle[x]) * 2.0 + vertical_sum)
        right[x] = np.float32(np.float64(centre[x]) * 2.0 + horizontal_sum)
        y_part, x_part = np.float64(down[x]), np.float64(right[x])
        magnitude[x] = np.float32(np.sqrt(y_part * y_part + x_part * x_part))


@compiled
def _is_ridge(magnitude: Any, down: Any, right: Any, y: Any, x: Any) -> Any:
    """Whether no neighbour along the gradient, interpolated between two pixels, is larger."""
    one = np.float32(1.0)
    gradient_y, gradient_x = down[y, x], right[y, x]
    steps_y, steps_x = abs(gradient_y), abs(gradient_x)
    same_sign = (gradient_y >= 0) == (gradient_x >= 0)
    diagonal_x = 1 if same_sign else -1
    if steps_y >= steps_x:
        side_y, side_x = 1, 0
        weight = steps_x / steps_y
    else:
        side_y, side_x = 0, diagonal_x
        weight = steps_y / steps_x
    forward = magnitude[y + 1, x + diagonal_x] * weight + magnitude[y + side_y, x + side_x] * (
        one - weight
    )
    backward = magnitude[y - 1, x - diagonal_x] * weight + magnitude[y - side_y, x - side_x] * (
        one - weight
    )
    centre = magnitude[y, x]
    return forward <= centre and backward <= centre


@compiled
def _ridges(magnitude: Any, down: Any, right: Any, low: Any, high: Any) -> Any:
    """Local maxima: uint8 ``(H, W)``, 1 from the low threshold on, 2 from the high one on."""
    height, width = magnitude.shape
    ridges = np.zeros((height, width), np.uint8)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if magnitude[y, x] >= low and _is_ridge(magnitude, down, right, y, x):
                ridges[y, x] = 2 if magnitude[y, x] >= high else 1
    return ridges


@compiled
def _hysteresis(ridges: Any) -> None:
    """Spread, in place, from twos over 8-connected ones; keep as 1 what was reached."""
    height, width = ridges.shape
    stack = np.empty(height * width, np.int32)
    # Marked with 3 when put on the stack, so that each pixel gets there once.
    for y in range(height):
        for x in range(width):
            if ridges[y, x] != 2:
                continue
            ridges[y, x] = 3
            stack[0] = y * width + x
            size = 1
            while size > 0:
                size -= 1
                at_y, at_x = stack[size] // width, stack[size] % width
                for near_y in range(max(at_y - 1, 0), min(at_y + 2, height)):
                    for near_x in range(max(at_x - 1, 0), min(at_x + 2, width)):
                        if ridges[near_y, near_x] == 1 or ridges[near_y, near_x] == 2:
                            ridges[near_y, near_x] = 3
                            stack[size] = near_y * width + near_x
                            size += 1
    for y in range(height):
        row = ridges[y]
        for x in range(width):
            row[x] = row[x] == 3


def edges(grey: NDArray[np.float32], sigma: float, low: float, high: float) -> NDArray[np.uint8]:
    """Find edges: smooth, differentiate, keep ridges of the gradient, link them.

    Smoothing takes the outside as black, the gradient mirrors the border. A pixel is on a ridge
    if it is no smaller than its two neighbours along the gradient; the frame's outermost pixels
    never are.

    Args:
        grey: float32 ``(H, W)`` in [0, 1].
        sigma: standard deviation of the Gaussian in pixels.
        low: a ridge continues an edge from this gradient magnitude on (Sobel, not normalised).
        high: a ridge starts an edge from this magnitude on.

    Returns:
        uint8 ``(H, W)``, 1 on edges.
    """
    down, right, magnitude = _gradients(_smooth(grey, gaussian_weights(sigma)))
    ridges = _ridges(magnitude, down, right, np.float32(low), np.float32(high))
    _hysteresis(ridges)
    return ridges
