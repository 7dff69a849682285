"""Superpixels by clustering colour and position (SLIC), and plain rectangles.

Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", PAMI 34(11),
2012, as implemented in scikit-image. SHLS trains on these and segments with ISEC.
"""

from __future__ import annotations

import numpy as np

from bench.video import RGB
from methods.shls.superpixels.isec import SuperpixelMap


def slic(
    image: RGB, segments: int = 300, compactness: float = 20.0, sigma: float = 1.0
) -> SuperpixelMap:
    """Superpixels of about equal size.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        segments: how many to aim for; their number is mostly somewhat lower.
        compactness: weight of position against colour.
        sigma: standard deviation in pixels of the Gaussian that smooths the image first.

    Returns:
        int32 ``(H, W)``, ids 1 .. N.
    """
    # Takes half a second to import, and most users of the package need ISEC only.
    from skimage.segmentation import slic as scikit_slic

    labels = scikit_slic(
        image / np.float32(255),
        n_segments=segments,
        compactness=compactness,
        sigma=sigma,
        start_label=1,
        channel_axis=-1,
    )
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    return np.cumsum(present, dtype=np.int32)[labels]


def grid(size: tuple[int, int], segments: int = 1024) -> SuperpixelMap:
    """Rectangles, as square as their number allows.

    Args:
        size: (H, W) in pixels.
        segments: how many to aim for; rounding may give some more or fewer, and there are never
            more than pixels.

    Returns:
        int32 ``(H, W)``, ids 1 .. N row by row.
    """
    height, width = size
    rows = min(height, segments, max(1, round((segments * height / width) ** 0.5)))
    columns = min(width, max(1, round(segments / rows)))
    row = np.arange(height, dtype=np.int32) * rows // height
    column = np.arange(width, dtype=np.int32) * columns // width
    return (row[:, None] * np.int32(columns) + column + np.int32(1)).astype(np.int32)
