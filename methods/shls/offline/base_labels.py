"""From a saliency map to objects (section 1.2)."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import Mask

Variant = Literal["fixed", "paper"]

SMALLEST = 0.001
"""Components below this share of the image are dropped."""

MOST_LABELS = 255
"""Different labels, background included, that are told apart; 255 itself would mean void."""

_SQUARE = np.ones((3, 3), np.uint8)


def base_labels(saliency: NDArray[Any], variant: Variant = "fixed") -> Mask:
    """Tell the objects of a saliency map apart.

    A mask's inner contour, one pixel wide, separates objects that barely touch: each connected
    interior is an object, and the contour goes to the object beside it, the one with the larger
    number where there are two. Components below 0.1 % of the image take the label that is most
    frequent around them.

    What ``"fixed"`` mends: the authors number all components that are not contour, whatever they
    show. So holes of a mask and background that an object cuts off become objects, and if the
    first pixel is salient, its object becomes background and the background an object.
    ``"paper"`` keeps that. Neither fuses objects when small ones are dropped, as theirs does.

    Args:
        saliency: integer or float ``(H, W)``; above 0 is salient.
        variant: see above.

    Returns:
        uint8 ``(H, W)``: 0 = background, objects 1 .. K in raster order of their first pixels.
    """
    mask = (saliency > 0).astype(np.uint8)
    interior = cv2.erode(mask, _SQUARE, borderType=cv2.BORDER_REFLECT)
    contour = (mask != interior).view(np.uint8)
    separated = interior if variant == "fixed" else 1 - contour
    count, found = cv2.connectedComponents(separated, connectivity=4)
    parts = np.asarray(found, np.int32)
    # Exact in float32 far beyond any number of components; OpenCV dilates no int32.
    beside = cv2.dilate(parts.astype(np.float32), _SQUARE, borderType=cv2.BORDER_REFLECT)
    parts = np.where(contour > 0, np.asarray(beside, np.int32), parts)
    parts = _without_small(parts, count)
    if variant == "paper":
        parts = np.maximum(parts - 1, 0)
    return _compact(parts)


def largest_objects(labels: Mask, most: int) -> Mask:
    """Keep the ``most`` largest objects of ``(H, W)``, numbered anew in the same order."""
    areas = np.bincount(labels.ravel(), minlength=1)
    areas[0] = 0
    if np.count_nonzero(areas) <= most:
        return labels
    kept = np.sort(np.argsort(-areas, kind="stable")[:most])
    table = np.zeros(256, np.uint8)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[labels]


def _without_small(parts: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Give small components the most frequent label around them, in ascending order of labels."""
    areas = np.bincount(parts.ravel(), minlength=count)
    small = np.flatnonzero((areas > 0) & (areas < SMALLEST * parts.size))
    for number in small[small > 0]:
        shape = (parts == number).astype(np.uint8)
        ring = (cv2.dilate(shape, _SQUARE) > 0) & (shape == 0)
        around = parts[ring]
        if len(around):
            parts = np.where(shape > 0, np.int32(np.bincount(around).argmax()), parts)
    return parts


def _compact(parts: NDArray[np.int32]) -> Mask:
    """Labels without gaps, in the same order; 0 stays 0, and what exceeds uint8 becomes 0."""
    present = np.flatnonzero(np.bincount(parts.ravel(), minlength=1))
    present = present[present > 0][: MOST_LABELS - 1]
    table = np.zeros(int(parts.max()) + 1, np.uint8)
    table[present] = np.arange(1, len(present) + 1)
    return table[parts]
