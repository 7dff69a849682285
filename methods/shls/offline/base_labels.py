"""From a saliency map to objects (section 1.2)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from methods.shls.offline.saliency import Saliency

SMALLEST = 0.001
"""Objects below this share of the image are dropped."""

_FULL = np.ones((3, 3), np.uint8)


def base_labels(saliency: Saliency) -> NDArray[np.uint8]:
    """Objects of a saliency map.

    The mask's inner contour, one pixel wide, separates objects that barely touch: each connected
    interior is an object, and takes its contour along.

    Mended here against the authors' code: holes of the mask and background that an object cuts
    off stay background, and dropping a small object does not rename others.

    Args:
        saliency: uint8 ``(H, W)``, zero = background.

    Returns:
        uint8 ``(H, W)``: 0 = background, 1 .. K by falling area.
    """
    mask = (saliency > 0).astype(np.uint8)
    interior = cv2.erode(mask, _FULL, borderType=cv2.BORDER_REFLECT)
    count, parts = cv2.connectedComponents(interior, connectivity=4)
    # A contour pixel goes to the largest part number among its neighbours.
    spread = cv2.dilate(parts.astype(np.float32), _FULL).astype(np.int32)
    parts = np.where(mask > 0, np.where(parts > 0, parts, spread), 0)
    areas = np.bincount(parts.ravel(), minlength=count)
    order = (np.argsort(-areas[1:], kind="stable") + 1).tolist()
    kept = [number for number in order if areas[number] >= max(1, SMALLEST * mask.size)]
    table = np.zeros(count, np.uint8)
    table[kept[:254]] = np.arange(1, len(kept[:254]) + 1)
    return table[parts]
