"""Images as clips: what a moving camera would have seen of a still scene.

A network that looks at several frames at once needs clips, and copies of an image have no motion at
all. So a virtual camera moves over the image, and its label with it.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB


class Extent(NamedTuple):
    """How far a camera may move.

    Attributes:
        zoom: smallest and largest magnification.
        shift: largest shift either way, as a share of the image's sides.
        rotation: largest rotation either way, in degrees.
    """

    zoom: tuple[float, float]
    shift: float
    rotation: float


STEADY = Extent((0.9, 1.1), 0.05, 3.0)
"""A camera held still, more or less."""


def camera_path(
    random: np.random.Generator, frames: int, extent: Extent = STEADY, leg: int | None = None
) -> NDArray[np.float64]:
    """Draw a path through random poses, of constant speed between one and the next.

    Args:
        random: where poses come from.
        frames: how many.
        extent: limits of the poses.
        leg: frames from one pose to the next; None goes from one pose to one other.

    Returns:
        float64 ``(frames, 4)``: zoom, shifts along x and y as shares of the sides, rotation in
        degrees.
    """
    leg = frames - 1 if leg is None else leg
    (near, far), shift, rotation = extent
    limits = np.array([[near, -shift, -shift, -rotation], [far, shift, shift, rotation]])
    poses = np.stack([random.uniform(*limits) for _ in range(-(-(frames - 1) // max(leg, 1)) + 1)])
    passed = np.arange(frames) / max(leg, 1)
    return np.stack([np.interp(passed, np.arange(len(poses)), part) for part in poses.T], axis=1)


def follow(
    image: RGB, labels: NDArray[np.uint8], path: NDArray[np.float64]
) -> tuple[list[RGB], list[NDArray[np.uint8]]]:
    """What the camera sees along a path, of an image and its labels.

    Args:
        image: uint8 ``(H, W, 3)``.
        labels: uint8 ``(H, W, C)``; taken from the nearest pixel.
        path: of :func:`camera_path`.

    Returns:
        Frames and their labels, each of the given size.
    """
    frames = [look(image, pose) for pose in path]
    return frames, [look(labels, pose, cv2.INTER_NEAREST) for pose in path]


def look(
    pixels: NDArray[np.uint8], pose: NDArray[np.float64], how: int = cv2.INTER_LINEAR
) -> NDArray[np.uint8]:
    """What the camera sees in one pose, of the given size.

    Beyond its border the image is mirrored, since black there would give away that it is one.

    Args:
        pixels: uint8 ``(H, W, C)``.
        pose: a row of :func:`camera_path`.
        how: OpenCV's interpolation.
    """
    height, width = pixels.shape[:2]
    zoom, x, y, angle = pose
    centre = (width - 1) / 2, (height - 1) / 2
    matrix = np.asarray(cv2.getRotationMatrix2D(centre, angle, zoom), np.float64)
    matrix[:, 2] += (x * width, y * height)
    seen = cv2.warpAffine(
        pixels, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(seen, np.uint8).reshape(pixels.shape)
