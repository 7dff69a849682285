"""A sheet of pseudo-sequences to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.masks import overlay
from methods.shls.offline.sequences import PseudoSequences

GAP = 4
"""White pixels between pictures."""


def contact_sheet(sequences: PseudoSequences, count: int, path: Path) -> None:
    """Write a PNG with one row per sequence.

    From left to right: the base image, its saliency, the frames, and the frames under their
    labels in the colours of the ids.

    Args:
        sequences: numbers 0 .. ``count`` - 1 are shown.
        count: number of rows, at least 1.
        path: the file to write.
    """
    size = sequences.settings.size
    rows = []
    for index in range(count):
        sequence = sequences[index]
        base = sequences.sources[sequence.base]
        saliency = np.repeat(base.saliency[..., None], 3, axis=2)
        pictures = [_fit(base.image, size), _fit(saliency, size), *sequence.frames]
        pictures += map(overlay, sequence.frames, sequence.labels)
        rows.append(np.hstack([_framed(picture) for picture in pictures]))
    Image.fromarray(np.vstack(rows)).save(path, format="PNG")


def _fit(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An image in its own proportions, in the middle of a white square."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - fitted[1]) // 2, (size - fitted[0]) // 2
    resized = cv2.resize(image, fitted, interpolation=cv2.INTER_AREA)
    square[top : top + fitted[1], left : left + fitted[0]] = resized
    return square


def _framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
