"""Images as clips: what a moving camera would have seen of a still scene.

A network that looks at several frames at once needs clips of both domains. Copies of an image have
no motion at all, which gives a discriminator away what it should learn, so a virtual camera moves
over the image, and its label with it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB

ZOOM = (0.9, 1.1)
"""Smallest and largest magnification."""

SHIFT = 0.05
"""Largest shift, as a share of the image's sides."""

ROTATION = 3.0
"""Largest rotation in degrees."""


def camera_path(random: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """Draw a path of constant speed between two random poses.

    Args:
        random: where poses come from.
        frames: how many.

    Returns:
        float64 ``(frames, 4)``: zoom, shifts along x and y as shares of the sides, rotation in
        degrees.
    """
    limits = np.array([[ZOOM[0], -SHIFT, -SHIFT, -ROTATION], [ZOOM[1], SHIFT, SHIFT, ROTATION]])
    start, end = random.uniform(*limits), random.uniform(*limits)
    return np.linspace(start, end, frames)


def follow(
    image: RGB, labels: NDArray[np.uint8], path: NDArray[np.float64]
) -> tuple[list[RGB], list[NDArray[np.uint8]]]:
    """What the camera sees along a path.

    Beyond its border the image is mirrored, since black there would give the domain away.

    Args:
        image: uint8 ``(H, W, 3)``.
        labels: uint8 ``(H, W, C)``; taken from the nearest pixel.
        path: of :func:`camera_path`.

    Returns:
        Frames and their labels, each of the given size.
    """
    height, width = image.shape[:2]
    frames, warped = [], []
    for zoom, x, y, angle in path:
        centre = (width - 1) / 2, (height - 1) / 2
        matrix = np.asarray(cv2.getRotationMatrix2D(centre, angle, zoom), np.float64)
        matrix[:, 2] += (x * width, y * height)
        frames.append(_warp(image, matrix, cv2.INTER_LINEAR))
        warped.append(_warp(labels, matrix, cv2.INTER_NEAREST))
    return frames, warped


def _warp(pixels: NDArray[np.uint8], matrix: NDArray[np.float64], how: int) -> NDArray[np.uint8]:
    size = pixels.shape[1], pixels.shape[0]
    warped = cv2.warpAffine(pixels, matrix, size, flags=how, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, np.uint8).reshape(pixels.shape)
