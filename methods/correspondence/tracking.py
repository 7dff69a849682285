"""Boxes around objects, and where they move: what keeps a copied label from jumping elsewhere.

Source: Li et al., Joint-task self-supervised learning for temporal correspondence, NeurIPS 2019:
an object is located in the new frame through the affinity of its cells, and then copied inside its
box alone. Where the text leaves a choice, :class:`TrackingSettings` says what is ours.

All coordinates are in cells, rows before columns, (0, 0) being the centre of the first cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.method import MethodSettings
from bench.propagation import Memory, Regions

ITERATIONS = 100
"""Mean shift stops after so many at the latest."""

SETTLED = 1e-3
"""It stops when no centre moves further than this share of the bandwidth."""

CHUNK = 2048
"""Cells of an object that are located at once."""


class TrackingSettings(MethodSettings):
    """How objects are tracked.

    The sizes are the authors'. That each object gets lost by itself, and that a box is smoothed
    towards the box of the mask in the frame before, is how we read them.

    Attributes:
        bandwidth: of the mean shift over the places where an object's cells went, in cells.
        margin: by what share a box around these places is made larger.
        smoothing: weight of such a box's size; the rest has the size of the box before.
        mask_bandwidth: of the mean shift over a mask, in pixels as the encoder sees them.
        mask_margin: by what share a box around a mask is made larger.
        smallest: an object with fewer cells, or in a box with a shorter side in cells, is lost: it
            is copied as if there were no boxes.
    """

    bandwidth: float = Field(default=5.0, gt=0)
    margin: float = Field(default=1.0, ge=0)
    smoothing: float = Field(default=0.1, ge=0, le=1)
    mask_bandwidth: float = Field(default=20.0, gt=0)
    mask_margin: float = Field(default=0.6, ge=0)
    smallest: float = Field(default=3.0, ge=0)


def mean_shift(points: Tensor, weights: Tensor, bandwidth: float) -> Tensor:
    """The densest place among points (Comaniciu and Meer, PAMI 2002), with a flat kernel.

    Means move from the middle of each square of side ``bandwidth`` that has points in it, until
    they rest. The one with most weight within the bandwidth wins.

    Args:
        points: ``(n, 2)``, at least one.
        weights: of the points, ``(n,)``, positive.
        bandwidth: radius of the kernel.

    Returns:
        ``(2,)``.
    """
    means: Tensor = torch.unique((points / bandwidth).round(), dim=0) * bandwidth
    for _ in range(ITERATIONS):
        near = (torch.cdist(means, points) <= bandwidth) * weights
        total = near.sum(1, keepdim=True)
        # The middle of a square may be too far from all of its points.
        moved = torch.where(total > 0, near @ points / total.clamp(min=1e-12), means)
        settled = (moved - means).norm(dim=1).max() <= SETTLED * bandwidth
        means = moved
        if settled:
            break
    density = ((torch.cdist(means, points) <= bandwidth) * weights).sum(1)
    return means[int(density.argmax())]


@dataclass(frozen=True)
class Box:
    """A rectangle.

    Attributes:
        centre: row and column, ``(2,)``.
        half: half its height and half its width, ``(2,)``.
    """

    centre: Tensor
    half: Tensor

    @classmethod
    def around(cls, points: Tensor, weights: Tensor, bandwidth: float, margin: float) -> Box:
        """A box around points: two mean deviations each way, which a full rectangle fills.

        Args:
            points: ``(n, 2)``.
            weights: ``(n,)``, positive.
            bandwidth: of the mean shift that finds its centre.
            margin: share by which it is made larger.
        """
        centre = mean_shift(points, weights, bandwidth)
        deviation = (weights[:, None] * (points - centre).abs()).sum(0) / weights.sum()
        return cls(centre, 2 * deviation * (1 + margin))

    def smoothed(self, before: Box | None, share: float) -> Box:
        """This place with a size between this one's (by ``share``) and another's."""
        if before is None:
            return self
        return Box(self.centre, share * self.half + (1 - share) * before.half)

    def cells(self, height: int, width: int) -> Tensor:
        """Cells whose centres are inside: bool ``(height * width,)``."""
        distance = (coordinates(height, width, self.centre.device) - self.centre).abs()
        return (distance <= self.half).all(1)


def coordinates(height: int, width: int, device: torch.device) -> Tensor:
    """Row and column of every cell, float32 ``(height * width, 2)``."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return torch.cartesian_prod(rows, columns).float()


@dataclass
class Tracker:
    """The boxes of a video's objects.

    Attributes:
        settings: sizes.
        boxes: by number of a frame, the box of each object's mask; None for lost ones.
        objects: in the latest frame, the object of each cell, int64 ``(N,)``; 0 is background.
    """

    settings: TrackingSettings
    boxes: dict[int, list[Box | None]] = field(default_factory=dict)
    objects: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def remember(self, memory: Memory, mask: Tensor) -> None:
        """Find the boxes of all objects in the frame that the memory stored last.

        Args:
            memory: of the video; boxes of frames that it has forgotten are dropped.
            mask: numbers of objects, uint8 ``(H, W)`` as the memory's masks; 0 is background.
        """
        frame = memory.next - 1
        known = {*memory.frames, frame}
        self.boxes = {number: boxes for number, boxes in self.boxes.items() if number in known}
        self.boxes[frame] = []
        self.objects = torch.zeros(memory.cells, dtype=torch.int64, device=mask.device)
        self.add(memory, mask)

    def add(self, memory: Memory, mask: Tensor) -> None:
        """The same for objects that enter in this frame; ``mask`` holds their numbers alone."""
        grid = (memory.height, memory.width)
        small = F.interpolate(mask[None, None].float(), grid, mode="nearest-exact")
        objects = small.flatten().long()
        self.objects = torch.where(objects > 0, objects, self.objects)
        cell = memory.size[0] / memory.height
        boxes = self.boxes[memory.next - 1]
        for number in range(len(boxes) + 1, len(object_labels(memory)) + 1):
            boxes.append(self._box_of_mask(mask == number, grid, cell))

    def _box_of_mask(self, mask: Tensor, grid: tuple[int, int], cell: float) -> Box | None:
        # A cell weighs as much as it has pixels of the mask.
        weights = F.adaptive_avg_pool2d(mask[None].float(), grid).flatten()
        inside = weights > 0
        if int(inside.sum()) < self.settings.smallest:
            return None
        points = coordinates(*grid, mask.device)[inside]
        bandwidth = self.settings.mask_bandwidth / cell
        return self._kept(Box.around(points, weights[inside], bandwidth, self.settings.mask_margin))

    def _kept(self, box: Box) -> Box | None:
        return box if float(2 * box.half.min()) >= self.settings.smallest else None

    def locate(self, memory: Memory, features: Tensor) -> Regions:
        """Where the objects of the latest frame are in the next one.

        Args:
            memory: of the video.
            features: ``(N, C)`` of the next frame.

        Returns:
            Regions of all labels; those of backgrounds and of lost objects are the whole frame.
        """
        before = self.boxes[memory.next - 1]
        boxes = [self._follow(memory, features, n, box) for n, box in enumerate(before, start=1)]
        references = {frame: regions(memory, self.boxes[frame]) for frame in memory.referenced()}
        return Regions(regions(memory, boxes), references)

    def _follow(
        self, memory: Memory, features: Tensor, number: int, before: Box | None
    ) -> Box | None:
        cells = self.objects == number
        if int(cells.sum()) < self.settings.smallest:
            return None
        sources = memory.latest().flatten(1).T[cells]
        places = expected_places(
            sources, features, memory.settings.temperature, (memory.height, memory.width)
        )
        box = Box.around(
            places, places.new_ones(len(places)), self.settings.bandwidth, self.settings.margin
        )
        return self._kept(box.smoothed(before, self.settings.smoothing))


def expected_places(
    sources: Tensor, features: Tensor, temperature: float, grid: tuple[int, int]
) -> Tensor:
    """Where cells are expected in another frame, by a softmax over all of its cells.

    Args:
        sources: features of the cells, ``(n, C)``.
        features: of the other frame, ``(N, C)``.
        temperature: divides the dot products.
        grid: (h, w) of the other frame.

    Returns:
        Rows and columns, ``(n, 2)``.
    """
    places = coordinates(*grid, features.device)
    return torch.cat(
        [
            torch.softmax(some @ features.T / temperature, 1) @ places
            for some in torch.split(sources, CHUNK)
        ]
    )


def regions(memory: Memory, boxes: list[Box | None]) -> Tensor:
    """Cells of each label's box, bool ``(L, N)``; all cells for backgrounds and without a box.

    Args:
        memory: of the video, whose groups say which labels are backgrounds.
        boxes: of the objects in the order of their labels; fewer where a frame is older than some.
    """
    inside = torch.ones(memory.labels.shape[2], memory.cells, dtype=torch.bool)
    inside = inside.to(memory.labels.device)
    for label, box in zip(object_labels(memory), boxes, strict=False):
        if box is not None:
            inside[label] = box.cells(memory.height, memory.width)
    return inside


def object_labels(memory: Memory) -> list[int]:
    """Label channels of the objects, without the backgrounds."""
    return [
        label
        for group in memory.groups
        for label in range(group.channels.start + 1, group.channels.stop)
    ]
