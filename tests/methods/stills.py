"""A few still images in ECSSD's layout, for trainings that last as long as a test may."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_stills(root: Path, count: int) -> Path:
    """Bright discs on dark textured ground, and their masks; returns the dataset's folder."""
    for folder in ("images", "ground_truth_mask"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        image = random.integers(0, 60, (60, 80, 3), dtype=np.uint8)
        mask = np.zeros((60, 80), np.uint8)
        cv2.circle(mask, (30 + 2 * number, 30), 14, 255, -1)
        image[mask > 0] = 255 - image[mask > 0]
        cv2.imwrite(str(root / "images" / f"{number:04d}.jpg"), image)
        cv2.imwrite(str(root / "ground_truth_mask" / f"{number:04d}.png"), mask)
    return root
