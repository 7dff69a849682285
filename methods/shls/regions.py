"""Regions of interest: where an object is looked for, and what is cut out there (3.5 and 3.6)."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SMALLEST_SIDE = 0.05
"""A region's side below this share of the frame's is not trusted; the whole side is used."""

KEPT_OVERLAP = 0.05
"""A component is kept if it overlaps the previous mask by more than this share of that mask."""


class Box(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, both ends exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    def cut(self, maps: Tensor) -> Tensor:
        """The box's part of ``(..., H, W)``."""
        return maps[..., self.top : self.bottom, self.left : self.right]


def tight_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box around a mask ``(H, W)``; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def region_of_interest(
    mask: NDArray[np.bool_], growth: float, at_least: tuple[int, int] = (0, 0)
) -> Box:
    """The region around a mask.

    Args:
        mask: bool ``(H, W)``. An empty one gives the whole frame.
        growth: by how much the tight box grows in all, as a share of its side.
        at_least: height and width in pixels to which a smaller region is enlarged, on both sides
            alike. What would lie outside the frame is cut off and not made up for.
    """
    height, width = mask.shape
    tight = tight_box(mask)
    if tight is None:
        return Box(0, height, 0, width)
    sides = []
    for low, high, full, least in (
        (tight.top, tight.bottom, height, at_least[0]),
        (tight.left, tight.right, width, at_least[1]),
    ):
        margin = int((high - low) * growth / 2)
        low, high = max(0, low - margin), min(full, high + margin)
        missing = max(0, least - (high - low))
        low, high = max(0, low - (missing + 1) // 2), min(full, high + (missing + 1) // 2)
        sides += [0, full] if high - low < SMALLEST_SIDE * full else [low, high]
    return Box(*sides)


def drop_outliers(
    labels: NDArray[np.uint8], previous: NDArray[np.uint8], unassigned: int
) -> NDArray[np.uint8]:
    """Remove parts of objects that lie far from where they were (section 3.4).

    Of each object's 4-connected components those count that overlap its previous mask. What lies
    outside their convex hull becomes unassigned; so does the whole object where none counts.

    Args:
        labels: uint8 ``(H, W)``, 0 = background.
        previous: uint8 ``(H, W)``, the final labels of the frame before.
        unassigned: the label given to what is removed.
    """
    kept = labels.copy()
    for number in np.unique(labels):
        if number in (0, unassigned):
            continue
        mask, before = labels == number, previous == number
        count, components = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
        overlap = np.bincount(components[before], minlength=count)
        counts = overlap > KEPT_OVERLAP * before.sum()
        counts[0] = False
        kept[mask & ~convex_hull(counts[components])] = unassigned
    return kept


def convex_hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The convex hull of a mask's pixels, as a mask ``(H, W)``."""
    hull = np.zeros(mask.shape, np.uint8)
    points = cv2.findNonZero(mask.view(np.uint8))
    if points is not None:
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull.view(np.bool_)


class Window(NamedTuple):
    """The size at which all crops of one object are brought together, and their padding.

    Attributes:
        size: height and width in pixels before padding.
        padding: left, right, top, bottom, so that both sides are multiples of 4.
    """

    size: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width with padding."""
        left, right, top, bottom = self.padding
        return self.size[0] + top + bottom, self.size[1] + left + right


def window_of(box: Box, side: int | None) -> Window:
    """The window for a region: its own size (paper), or ``side`` squared, a multiple of 4."""
    if side is not None:
        return Window((side, side), (0, 0, 0, 0))
    rows, columns = -box.height % 4, -box.width % 4
    padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return Window((box.height, box.width), padding)


def take(maps: Tensor, box: Box, window: Window, mode: str = "bilinear") -> Tensor:
    """Cut a box out of ``(C, H, W)`` and bring it to a window: ``(C, *window.padded)``."""
    part = box.cut(maps)[None]
    if part.shape[-2:] != window.size:
        corners = None if mode == "nearest" else False
        part = F.interpolate(part, size=window.size, mode=mode, align_corners=corners)
    return F.pad(part, window.padding)[0]


def take_quarter(maps: Tensor, box: Box, window: Window, aligned: bool) -> Tensor:
    """RoIAlign of a quarter-resolution map (He et al., Mask R-CNN, ICCV 2017).

    Args:
        maps: ``(C, h, w)`` at stride 4.
        box: in pixels of the frame.
        window: the result is a quarter of it.
        aligned: whether samples lie at pixel centres. The authors' do not: half a pixel off.

    Returns:
        ``(C, window height / 4, window width / 4)``.
    """
    corners = [[0.0, box.left, box.top, box.right, box.bottom]]
    height, width = window.padded
    with torch.autocast(maps.device.type, enabled=False):  # RoIAlign has no bfloat16 kernel
        rois = torch.tensor(corners, device=maps.device)
        size = (height // 4, width // 4)
        # Its import takes a second, which every command would pay.
        from torchvision.ops import roi_align

        return roi_align(maps[None].float(), rois, size, 0.25, -1, aligned)[0]


def put_back(probability: Tensor, box: Box, window: Window, size: tuple[int, int]) -> Tensor:
    """Undo :func:`take`: ``window.padded`` to ``size`` (H, W), zero outside the box."""
    left, right, top, bottom = window.padding
    height, width = probability.shape
    inner = probability[top : height - bottom, left : width - right]
    if inner.shape != (box.height, box.width):
        inner = F.interpolate(
            inner[None, None],
            size=(box.height, box.width),
            mode="bilinear",
            align_corners=False,
        )[0, 0]
    return F.pad(inner, (box.left, size[1] - box.right, box.top, size[0] - box.bottom))
