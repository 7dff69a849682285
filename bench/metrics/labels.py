"""Label maps: which ids are in them, and whether they are label maps at all."""

from __future__ import annotations

import numpy as np

from bench.video import Mask


def check_labels(mask: Mask, what: str) -> None:
    """Raise ValueError unless a label map is uint8 ``(H, W)``."""
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(
            f"{what}: found shape {mask.shape} and dtype {mask.dtype}; expected uint8 (H, W)"
        )
