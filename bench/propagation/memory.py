"""What is remembered of a video: features and labels of the frames that labels are copied from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.propagation.labels import resize, stretch
from bench.propagation.screening import Screen, pays
from bench.propagation.settings import PropagationSettings


@dataclass
class Affinity:
    """For each target cell, its candidates and their weights.

    Attributes:
        slot: int64 ``(N, K)``, memory slot of each candidate.
        cell: int64 ``(N, K)``, cell index ``y * w + x`` of each candidate.
        weight: float32 ``(N, K)``, non-negative.
    """

    slot: Tensor
    cell: Tensor
    weight: Tensor


class Memory:
    """Features and labels of remembered frames. Its size never grows with the video.

    Slots ``0 .. len(anchors) - 1`` are for the anchors, the others a ring of recent frames.

    Attributes:
        keys: ``(S, h, w, C)`` features.
        labels: ``(S, N, L)`` labels.
        screen: the same features in less precision, where the search uses them; else None.
        frames: number of the frame in each slot; -1 where there is none.
        size: (H, W) of the masks.
        next: number of the next frame.
        recent: how many frames were stored as recent ones.
    """

    def __init__(
        self, settings: PropagationSettings, features: Tensor, channels: int, size: tuple[int, int]
    ) -> None:
        """Args: ``features`` are those of the first frame, ``channels`` is L."""
        depth, self.height, self.width = features.shape
        self.settings = settings
        self.ring = (settings.context - 1) * settings.interval + 1
        slots = len(settings.anchors) + self.ring
        self.keys = features.new_zeros(slots, self.height, self.width, depth)
        self.labels = features.new_zeros(slots, self.height * self.width, channels)
        self.screen: Screen | None = None
        if pays(settings, features, slots):
            self.screen = Screen(self.keys, features)
        self.frames = [-1] * slots
        self.size = size
        self.next = 0
        self.recent = 0

    @property
    def cells(self) -> int:
        """Cells of the grid."""
        return self.height * self.width

    def store(self, features: Tensor, labels: Tensor) -> None:
        """Remember the next frame: features ``(C, h, w)``, labels ``(L, h, w)``."""
        anchors = self.settings.anchors
        if self.next in anchors:
            self._put(anchors.index(self.next), self.next, features, labels)
        if self.next > 0 or 0 not in anchors:
            self._store_recent(features, labels)
        self.next += 1

    def store_prediction_of_first(self, features: Tensor, labels: Tensor) -> None:
        """Remember the first frame once more, as a recent one."""
        self.next = 0
        self._store_recent(features, labels)
        self.next = 1

    def _store_recent(self, features: Tensor, labels: Tensor) -> None:
        slot = len(self.settings.anchors) + self.next % self.ring
        self._put(slot, self.next, features, labels)
        self.recent += 1

    def _put(self, slot: int, frame: int, features: Tensor, labels: Tensor) -> None:
        self.keys[slot] = features.permute(1, 2, 0)
        if self.screen is not None:
            self.screen.put(slot, features)
        self.labels[slot] = labels.flatten(1).T
        self.frames[slot] = frame

    def anchor_slots(self) -> list[int]:
        """Slots of the anchors that are there."""
        return [slot for slot in range(len(self.settings.anchors)) if self.frames[slot] >= 0]

    def recent_slots(self) -> list[int]:
        """Slots of the recent frames to compare with, without those of later anchors."""
        count = len(self.settings.anchors)
        wanted = {self.next - 1 - i * self.settings.interval for i in range(self.settings.context)}
        later_anchors = {frame for frame in self.settings.anchors if frame > 0}
        return [
            slot
            for slot in range(count, len(self.frames))
            if self.frames[slot] >= 0 and self.frames[slot] in wanted - later_anchors
        ]

    def copies_of_first(self) -> int:
        """How many copies of the first frame stand in for recent frames."""
        missing = max(0, self.settings.context - self.recent)
        return {"copies": missing, "again": min(1, missing), "available": 0}[self.settings.early]

    def aligned(self, flows: Mapping[int, Tensor]) -> Memory:
        """A copy in which remembered frames are moved onto the next frame.

        Args:
            flows: by number of the remembered frame, int64 ``(2, h, w)``: how many cells to the
                right and down of a target cell its content was in that frame. Frames without one
                stay as they are. What comes from outside the map is zero, labels too.
        """
        moved = copy.copy(self)
        moved.keys, moved.labels = self.keys.clone(), self.labels.clone()
        rows = torch.arange(self.height, device=self.keys.device)[:, None]
        columns = torch.arange(self.width, device=self.keys.device)
        for slot, frame in enumerate(self.frames):
            if frame not in flows:
                continue
            x, y = columns + flows[frame][0], rows + flows[frame][1]
            inside = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height)
            source = (y * self.width + x).masked_fill(~inside, 0).flatten()
            here = self.keys[slot].flatten(0, 1)[source].view_as(self.keys[slot])
            moved.keys[slot] = here * inside[..., None]
            moved.labels[slot] = self.labels[slot][source] * inside.flatten()[:, None]
        return moved

    def referenced(self) -> list[int]:
        """Numbers of the frames that the next frame is compared with."""
        return sorted({self.frames[slot] for slot in self.anchor_slots() + self.recent_slots()})

    def to_frame(self, labels: Tensor) -> Tensor:
        """Scores ``(L, H, W)`` of labels ``(L, h, w)``, as the settings say."""
        scores = resize(labels, self.size, self.settings.label_up)
        return stretch(scores) if self.settings.min_max == "output" else scores


def copy_labels(affinity: Affinity, labels: Tensor) -> Tensor:
    """Copy labels along affinities.

    Args:
        affinity: candidates and weights of N cells.
        labels: ``(S, N, L)`` labels of the remembered frames.

    Returns:
        ``(N, L)`` sums of the candidates' labels by weight.
    """
    cells = labels.shape[1]
    gathered = labels.reshape(-1, labels.shape[2])[affinity.slot * cells + affinity.cell]
    return torch.einsum("nk,nkl->nl", affinity.weight, gathered)
