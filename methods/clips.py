"""What trainings on video have in common, whatever they learn: where a clip lies, size and colours.

Methods that are trained on clips import it; it knows none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from bench.video import RGB

IMAGENET_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
IMAGENET_STD = np.array((0.229, 0.224, 0.225), np.float32)

FRAME_RATE = 24.0
"""Frames per second of DAVIS and most web video; for hours of video where nothing says it."""


def place(random: np.random.Generator, length: int, offsets: Sequence[int]) -> tuple[int, ...]:
    """Lay a clip somewhere into a video, all places being equally likely.

    In a video too short for the offsets all gaps shrink in proportion and are rounded down, so
    frames may repeat in a very short one.

    Args:
        random: where the place comes from.
        length: the video's number of frames.
        offsets: of the frames from the clip's start, the smallest being 0.

    Returns:
        The frames' numbers in the order of their offsets.
    """
    span = max(offsets)
    if span >= length:
        offsets = [offset * (length - 1) // span for offset in offsets]
        span = length - 1
    start = int(random.integers(length - span))
    return tuple(start + offset for offset in offsets)


def resize_short_side(image: RGB, side: int) -> RGB:
    """Scale so that the shorter side has ``side`` pixels: area-averaged down, bilinear up."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    if scale == 1:
        return image
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


class Normalise(nn.Module):
    """From uint8 RGB to what an encoder takes. Samples stay small while they travel as bytes.

    Args:
        mean: of RGB in [0, 1], subtracted.
        std: of RGB in [0, 1], divided by.
    """

    def __init__(
        self,
        mean: Sequence[float] = tuple(IMAGENET_MEAN.tolist()),
        std: Sequence[float] = tuple(IMAGENET_STD.tolist()),
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Uint8 ``(..., 3, H, W)`` to float32 of the same shape."""
        return (images.float() / 255 - self.mean) / self.std
