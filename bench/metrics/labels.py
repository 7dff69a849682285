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


SAMPLE_STRIDE = 16


def present_values(mask: Mask) -> tuple[int, ...]:
    """The values in a label map, ascending, background and void included.

    A sample of the pixels mostly has all values. Counting these over the whole map proves it, at
    a third of the time of a histogram where values are few; otherwise the histogram decides.
    """
    sample = mask[::SAMPLE_STRIDE, ::SAMPLE_STRIDE].ravel()
    found = np.flatnonzero(np.bincount(sample, minlength=256)).tolist()
    if len(found) <= 8:
        counted = sum(cv2.countNonZero((mask == value).view(np.uint8)) for value in found)
        if counted == mask.size:
            return tuple(found)
    # OpenCV reads bytes as they are, where np.bincount would convert all to 8-byte integers.
    histogram = cv2.calcHist([mask], [0], None, [256], [0, 256])
    return tuple(np.flatnonzero(histogram).tolist())


def present_objects(mask: Mask) -> tuple[int, ...]:
    """The object ids in a label map, ascending, without background (0) and void (255)."""
    return tuple(value for value in present_values(mask) if value not in (0, VOID))
