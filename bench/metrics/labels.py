"""Label maps: which ids are in them, and whether they are label maps at all."""

from __future__ import annotations

import cv2
import numpy as np

from bench.video import VOID, Mask


def check_labels(mask: Mask, what: str) -> None:
    """Raise ValueError unless a label map is uint8 ``(H, W)``."""
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(
            f"{what}: found shape {mask.shape} and dtype {mask.dtype}; expected uint8 (H, W)"
        )


def present_values(mask: Mask) -> tuple[int, ...]:
    """The values in a label map, ascending, background and void included.

    OpenCV's histogram reads bytes as they are, where ``np.bincount`` converts them to 8-byte
    integers first: three times faster.
    """
    histogram = cv2.calcHist([mask], [0], None, [256], [0, 256])
    return tuple(np.flatnonzero(histogram).tolist())


def present_objects(mask: Mask) -> tuple[int, ...]:
    """The object ids in a label map, ascending, without background (0) and void (255)."""
    return tuple(value for value in present_values(mask) if value not in (0, VOID))
