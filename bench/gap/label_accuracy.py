"""Label accuracy: how exact masks are, and manual masks made as inexact as automatic ones.

The location accuracy of Kalogeiton, Ferrari and Schmid, Analysing domain shift factors between
videos and images for object detection, TPAMI 2016, carried over from boxes to masks: where the
labels of videos are automatic and those of images are manual, part of the gap is the labels'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from bench.gap.equalise import Equaliser, Samples, largest_kept
from bench.metrics.binary import boundary_f, boundary_radius, disk
from bench.video import VOID, LabelledImage, Mask

Bool = NDArray[np.bool_]

GROWTH = 3
"""How far a displaced outline lies from the true one, in tolerances of the boundary measure."""

COARSEST = 4
"""Coarsest polygon, as how far it may leave the outline, in the same tolerances."""

CELLS = 4
"""Cells of random numbers along each side of an object's box; they say where its mask grows."""


def _shown(mask: Mask) -> Bool:
    return np.asarray((mask != 0) & (mask != VOID), np.bool_)


def boundary_accuracy(mask: Mask, manual: Mask) -> float:
    """Boundary F of a mask against a manual one, objects joined, in [0, 1].

    Args:
        mask: uint8 ids ``(H, W)``.
        manual: likewise; where it is void nothing is compared.
    """
    return boundary_f(_shown(mask), _shown(manual), manual == VOID)


def label_accuracy(masks: Sequence[Mask], manual: Sequence[Mask]) -> float:
    """Mean boundary F of automatic masks against the manual ones of the same images.

    Raises:
        DataError: no masks, or not equally many.
    """
    if not masks or len(masks) != len(manual):
        raise DataError(
            "label accuracy",
            f"{len(masks)} automatic and {len(manual)} manual masks",
            "one of each per image, and one image at least",
            "Pair the masks.",
        )
    pairs = zip(masks, manual, strict=True)
    return float(np.mean([boundary_accuracy(*pair) for pair in pairs]))


# --- manual masks made worse -----------------------------------------------------------------


def polygonised(found: Bool, tolerance: float) -> Bool:
    """A mask with its outlines, of holes too, replaced by polygons of few corners.

    Args:
        found: bool ``(H, W)``.
        tolerance: how far polygons may leave the outline, in pixels; 0 changes nothing.

    Source: Douglas and Peucker, Algorithms for the reduction of the number of points required to
    represent a digitized line or its caricature, Cartographica 10, 1973.
    """
    outlines, _ = cv2.findContours(found.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(found.shape, np.uint8)
    # All at once: the interior of a hole's polygon in that of its object is outside.
    cv2.fillPoly(drawn, [cv2.approxPolyDP(one, tolerance, True) for one in outlines], 1)
    return drawn > 0


def partly_dilated(found: Bool, share: float, radius: int, where: NDArray[np.float32]) -> Bool:
    """A mask that has grown along part of its outline.

    Growth of the whole outline would make the boundary measure fall from 1 to 0 at once, as soon as
    it exceeds the tolerance.

    Args:
        found: bool ``(H, W)``.
        share: of the outline, in [0, 1].
        radius: of the growth, in pixels.
        where: float32 ``(H, W)``; the outline grows where this is lowest.
    """
    edge = found & (cv2.erode(found.astype(np.uint8), disk(1)) == 0)
    if share <= 0 or not edge.any():
        return found
    chosen = edge & (where <= np.quantile(where[edge], share))
    return found | (cv2.dilate(chosen.astype(np.uint8), disk(radius)) > 0)


def _random_field(found: Bool, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth random numbers ``(H, W)`` that vary within the object's box; 0 around it."""
    field = np.zeros(found.shape, np.float32)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    if len(rows):
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        height, width = field[box].shape
        coarse = rng.random((CELLS, CELLS), dtype=np.float32)
        field[box] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return field


def degraded_to(sample: LabelledImage, accuracy: float, rng: np.random.Generator) -> LabelledImage:
    """A sample whose mask has a boundary F of ``accuracy`` against the mask it had.

    The mask becomes a polygon, the coarser the worse, and grows along a part of its outline, the
    larger the worse, until F has fallen so far. All objects become id 1; void stays.

    Args:
        sample: with a mask; without one, or without an object, it stays as it is.
        accuracy: in (0, 1].
        rng: draws where the mask grows.
    """
    manual = sample.mask
    if manual is None or accuracy >= 1 or not _shown(manual).any():
        return sample
    found, void = _shown(manual), manual == VOID
    radius = boundary_radius(*found.shape)
    where = _random_field(found, rng)

    def degraded(strength: float) -> Bool:
        polygon = polygonised(found, COARSEST * radius * strength)
        return partly_dilated(polygon, strength, GROWTH * radius, where)

    strength = largest_kept(lambda s: boundary_f(degraded(s), found, void), accuracy)
    mask = np.where(void, VOID, degraded(strength)).astype(np.uint8)
    return replace(sample, mask=mask)


def equalise_label_accuracy(accuracy: float) -> Equaliser:
    """Equaliser of label accuracy: images' masks as inexact as those of videos are known to be.

    Args:
        accuracy: boundary F of the videos' masks against manual ones, in (0, 1].
    """

    def equalise(images: Samples, frames: Samples, rng: np.random.Generator) -> Samples:
        return [degraded_to(one, accuracy, rng) for one in images]

    return equalise
