"""Where the frame shows its object: moving and scaling image and mask together.

Location and framing are factors of Kalogeiton et al., Analysing domain shift factors between
videos and images for object detection, TPAMI 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB, VOID, Mask


@dataclass(frozen=True)
class Placement:
    """A change of the frame: the point (u, v) goes to ``(scale * u + x, scale * v + y)``.

    Attributes:
        scale: relative size.
        x: in pixels; the left edge of the frame is 0, the centre of the first pixel 0.5.
        y: in pixels.
    """

    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0


IN_PLACE = Placement()


def placed(image: RGB, mask: Mask | None, placement: Placement) -> tuple[RGB, Mask | None]:
    """Move an image and its mask.

    What comes into view is mirrored background. The object is filled in there, so that no
    unlabelled copy of it appears; without a mask it cannot be.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: uint8 ids ``(H, W)``, or None.
        placement: where to.

    Returns:
        The image, and the mask with background where it was outside.
    """
    if placement == IN_PLACE:
        return image, mask
    shown = _warped(image, placement, cv2.BORDER_REFLECT_101)
    if mask is None:
        return shown, None
    frame = np.ones(mask.shape, np.uint8)
    outside = placed_mask(frame, placement) == 0
    if outside.any():
        plate = _warped(_without_object(image, mask), placement, cv2.BORDER_REFLECT_101)
        shown[outside] = plate[outside]
    return shown, placed_mask(mask, placement)


def placed_mask(mask: Mask, placement: Placement) -> Mask:
    """A mask alone, moved; background where the frame shows what was outside."""
    return cv2.warpAffine(
        mask,
        _matrix((placement.scale, placement.scale), placement),
        (mask.shape[1], mask.shape[0]),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    ).astype(np.uint8)


def _matrix(scale: tuple[float, float], placement: Placement) -> NDArray[np.float64]:
    """A placement in OpenCV's coordinates, where the centre of the first pixel is 0."""
    across, down = scale
    return np.array(
        [
            [across, 0, placement.x + 0.5 * across - 0.5],
            [0, down, placement.y + 0.5 * down - 0.5],
        ]
    )


def _warped(image: RGB, placement: Placement, border: int) -> RGB:
    height, width = image.shape[:2]
    across = down = placement.scale
    if placement.scale < 1:
        # Area averaging does the shrinking, because bilinear sampling would skip pixels.
        small = max(1, round(width * across)), max(1, round(height * down))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.uint8)
        across, down = across * width / small[0], down * height / small[1]
    return cv2.warpAffine(
        image,
        _matrix((across, down), placement),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=border,
    ).astype(np.uint8)


def _without_object(image: RGB, mask: Mask) -> RGB:
    """The object replaced by the mean background around it, uint8 ``(H, W, 3)``."""
    # A margin of two pixels takes the soft edge along.
    away = cv2.dilate((mask != 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    rows, columns = np.flatnonzero(away.any(1)), np.flatnonzero(away.any(0))
    if not len(rows):
        return image
    # A window of twice the object's box reaches beyond the object from everywhere inside it.
    window = 2 * int(np.ptp(columns)) + 3, 2 * int(np.ptp(rows)) + 3
    kept = 1 - away.astype(np.float32)
    colour = cv2.blur(image * kept[..., None], window)
    weight = cv2.blur(kept, window)[..., None]
    filled = np.where(weight > 1e-6, colour / np.maximum(weight, 1e-6), image.mean((0, 1)))
    return np.where(away[..., None] > 0, np.rint(filled), image).astype(np.uint8)


def _centre(mask: Mask) -> tuple[float, float] | None:
    """Centre of mass (x, y) of all objects in pixels, or None where there is no object."""
    ys, xs = np.nonzero((mask != 0) & (mask != VOID))
    return (float(xs.mean()) + 0.5, float(ys.mean()) + 0.5) if len(xs) else None


def at_offset(mask: Mask, share: float, rng: np.random.Generator) -> Placement:
    """Put the object's centre ``share`` of the frame's width and height from the frame's centre.

    The direction is drawn. A large object may be cut by the frame.
    """
    angle = rng.uniform(0, 2 * np.pi)
    centre = _centre(mask)
    if centre is None:
        return IN_PLACE
    height, width = mask.shape
    x = (0.5 + share * np.cos(angle)) * width - centre[0]
    y = (0.5 + share * np.sin(angle)) * height - centre[1]
    # Whole pixels: moving must not blur.
    return Placement(1.0, float(np.rint(x)), float(np.rint(y)))


def cut_by_frame(mask: Mask, share: float, rng: np.random.Generator) -> Placement:
    """Move the frame until ``share`` of the object's area is outside, to within one line.

    The side is drawn. The frame moves instead of shrinking, so that the object's size and sharpness
    stay as they are.
    """
    side = int(rng.integers(4))
    objects = (mask != 0) & (mask != VOID)
    if not objects.any():
        return IN_PLACE
    lines = objects.sum(side // 2)  # by column for the first two sides, by row for the others
    lines = lines[::-1] if side % 2 else lines
    outside = np.concatenate([[0], np.cumsum(lines)]) / lines.sum()
    moved = float(np.argmin(np.abs(outside - share))) * (1 if side % 2 else -1)
    return Placement(1.0, moved, 0.0) if side < 2 else Placement(1.0, 0.0, moved)


def at_height(mask: Mask, share: float, rng: np.random.Generator) -> Placement:
    """Make the object ``share`` of the frame high; its centre stays where it is. Draws nothing."""
    centre = _centre(mask)
    if centre is None:
        return IN_PLACE
    rows = np.flatnonzero(((mask != 0) & (mask != VOID)).any(1))
    scale = share * mask.shape[0] / float(rows[-1] - rows[0] + 1)
    return Placement(scale, centre[0] * (1 - scale), centre[1] * (1 - scale))
