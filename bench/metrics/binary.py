"""Region similarity J and boundary accuracy F of one binary mask against another.

Definitions: Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation, CVPR 2016, with the details of the DAVIS toolkits.

Everything is computed inside the bounding box of both masks, grown by one pixel. Outside of it
both masks and both boundary maps are empty, so the counts, and with them the scores, are those of
the full frame to the last bit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BinaryMask = NDArray[np.bool_] | NDArray[np.uint8]
"""bool or uint8 ``(H, W)``; whatever is not 0 belongs to the object."""

Bits = NDArray[np.uint8]
"""uint8 ``(H, W)`` of 0 and 1."""

BOUNDARY_TOLERANCE = 0.008
"""How far apart boundaries may lie and still match, as a share of the image's diagonal."""

_SQUARE = np.ones((2, 2), np.uint8)


def boundary_radius(height: int, width: int) -> int:
    """Radius in pixels within which boundary pixels match: ceil(0.008 x diagonal)."""
    return math.ceil(BOUNDARY_TOLERANCE * math.hypot(height, width))


@lru_cache(maxsize=16)
def disk(radius: int) -> Bits:
    """All offsets with dy² + dx² ≤ radius², uint8 0/1 ``(2 radius + 1, 2 radius + 1)``."""
    offset = np.arange(-radius, radius + 1) ** 2
    return (np.add.outer(offset, offset) <= radius**2).astype(np.uint8)


def bits(mask: BinaryMask) -> Bits:
    """A binary mask as uint8 0/1 ``(H, W)``.

    Raises:
        ValueError: not two-dimensional, or neither bool nor uint8.
    """
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(
            f"found a mask of shape {mask.shape} and dtype {mask.dtype}; "
            "expected bool or uint8 of shape (H, W)"
        )
    return np.not_equal(mask, 0).view(np.uint8)


def boundary_map(mask: BinaryMask) -> NDArray[np.bool_]:
    """Pixels that differ from their right, lower or lower-right neighbour.

    The last row compares to the right only, the last column downwards only, and the last corner
    never belongs to the boundary.

    Args:
        mask: bool or uint8 ``(H, W)``.

    Returns:
        bool ``(H, W)``.
    """
    return outline(bits(mask)).view(np.bool_)


def outline(mask: Bits) -> Bits:
    """:func:`boundary_map` of 0/1 as 0/1.

    A pixel differs from one of the three neighbours exactly if the 2x2 window that starts at it
    has both values; repeating the border leaves out the neighbours that do not exist.
    """
    options: dict[str, Any] = {"anchor": (0, 0), "borderType": cv2.BORDER_REPLICATE}
    grown = np.asarray(cv2.dilate(mask, _SQUARE, **options), dtype=np.uint8)
    shrunk = np.asarray(cv2.erode(mask, _SQUARE, **options), dtype=np.uint8)
    return grown ^ shrunk


def dilated(boundary: Bits, radius: int) -> Bits:
    """Pixels within ``radius`` of a boundary pixel, uint8 0/1 ``(H, W)``."""
    return np.asarray(cv2.dilate(boundary, disk(radius)), dtype=np.uint8)


@lru_cache(maxsize=16)
def _square_inside(radius: int) -> Bits:
    """The largest square of ones whose corners lie inside the disk."""
    half = math.isqrt(radius**2 // 2)
    return np.ones((2 * half + 1, 2 * half + 1), np.uint8)


def count_matched(edge: Bits, other: Bits, radius: int) -> int:
    """Number of pixels of ``edge`` within ``radius`` of a pixel of ``other``.

    Most pixels match within a square inside the disk, and OpenCV dilates by a square eight times
    faster, row by row and column by column. The disk is left for the surroundings of the others.
    """
    near = np.asarray(cv2.dilate(other, _square_inside(radius)), dtype=np.uint8)
    unmatched: Bits = edge & (near ^ np.uint8(1))
    count, rest = cv2.countNonZero(edge), cv2.countNonZero(unmatched)
    if rest == 0:
        return count
    window = crop_of(unmatched, radius)
    reach = dilated(other[window], radius)
    return count - rest + cv2.countNonZero(unmatched[window] & reach)


def f_measure(matched_predicted: int, predicted: int, matched_true: int, true: int) -> float:
    """F from numbers of boundary pixels: harmonic mean of precision and recall, in [0, 1]."""
    if predicted == 0 and true == 0:
        return 1.0
    # With one boundary empty, one of precision and recall is 0 and the other is 1 by definition.
    if predicted == 0 or true == 0:
        return 0.0
    precision, recall = matched_predicted / predicted, matched_true / true
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def crop_of(mask: Bits, margin: int = 1) -> tuple[slice, slice]:
    """The bounding box of a mask, grown by ``margin`` pixels and cut at the image's borders."""
    x, y, width, height = cv2.boundingRect(mask)
    return (
        slice(max(y - margin, 0), y + height + margin),
        slice(max(x - margin, 0), x + width + margin),
    )


def score_bits(predicted: Bits, true: Bits) -> tuple[float, float]:
    """J and F of two masks of 0 and 1, uint8 ``(H, W)`` each."""
    radius = boundary_radius(*true.shape)
    either = predicted | true
    crop = crop_of(either)
    predicted, true = predicted[crop], true[crop]
    union = cv2.countNonZero(either[crop])
    if union == 0:
        return 1.0, 1.0
    j = cv2.countNonZero(predicted & true) / union
    edge, true_edge = outline(predicted), outline(true)
    count, true_count = cv2.countNonZero(edge), cv2.countNonZero(true_edge)
    if count == 0 or true_count == 0:
        return j, f_measure(0, count, 0, true_count)
    matched = count_matched(edge, true_edge, radius)
    true_matched = count_matched(true_edge, edge, radius)
    return j, f_measure(matched, count, true_matched, true_count)


def _without_void(
    predicted: BinaryMask, true: BinaryMask, void: BinaryMask | None
) -> tuple[Bits, Bits]:
    masks = [bits(predicted), bits(true)]
    outside = None if void is None else bits(void)
    for other in (masks[1], outside):
        if other is not None and other.shape != masks[0].shape:
            raise ValueError(
                f"found masks of shapes {masks[0].shape} and {other.shape}; expected one shape"
            )
    if outside is not None:
        masks = [np.asarray(mask & (outside ^ 1), dtype=np.uint8) for mask in masks]
    return masks[0], masks[1]


def j_and_f(
    predicted: BinaryMask, true: BinaryMask, void: BinaryMask | None = None
) -> tuple[float, float]:
    """Region similarity and boundary accuracy of one object in one frame.

    Args:
        predicted: bool or uint8 ``(H, W)``.
        true: the ground truth, likewise.
        void: pixels removed from both masks first, likewise.

    Returns:
        J = |P∩G| / |P∪G| (1 if both are empty) and F (see :func:`boundary_f`), both in [0, 1].

    Raises:
        ValueError: shapes differ, or a mask is not ``(H, W)`` of bool or uint8.
    """
    return score_bits(*_without_void(predicted, true, void))


def region_j(predicted: BinaryMask, true: BinaryMask, void: BinaryMask | None = None) -> float:
    """Region similarity J (intersection over union) in [0, 1]; arguments as :func:`j_and_f`."""
    p, g = _without_void(predicted, true, void)
    union = cv2.countNonZero(p | g)
    return cv2.countNonZero(p & g) / union if union else 1.0


def boundary_f(predicted: BinaryMask, true: BinaryMask, void: BinaryMask | None = None) -> float:
    """Boundary accuracy F in [0, 1]; arguments as :func:`j_and_f`.

    A boundary pixel matches if it lies within :func:`boundary_radius` of the other boundary.
    Precision is the matched share of the predicted boundary, recall that of the true one; F is
    their harmonic mean. Two empty boundaries score 1, one empty boundary 0.
    """
    return j_and_f(predicted, true, void)[1]
