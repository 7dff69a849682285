"""What is remembered of a video: features and labels of the frames that labels are copied from.

Objects may enter in mid-video. Those that enter together form a *group*, whose labels know the
frames since it entered and nothing before, as if the video began there: what older frames show at
the group's cells is not background, but unknown. Groups share the features of all frames.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
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


@dataclass(frozen=True)
class Group:
    """Objects that entered together, and which frames they know.

    Attributes:
        start: number of the frame in which they entered.
        channels: their labels, background first.
        anchor: the first of their slots for anchors.
        first_recent: number of the first frame that can be a recent one.
    """

    start: int
    channels: slice
    anchor: int
    first_recent: int


class Memory:
    """Features and labels of remembered frames. Its size never grows with the video.

    Slots ``0 .. len(anchors) - 1`` are for the anchors, the next ones a ring of recent frames. Each
    group of objects that enters later adds slots for its own anchors, and label channels.

    Attributes:
        keys: ``(S, h, w, C)`` features.
        labels: ``(S, N, L)`` labels.
        screen: the same features in less precision, where the search uses them; else None.
        frames: number of the frame in each slot; -1 where there is none.
        size: (H, W) of the masks.
        next: number of the next frame.
        groups: of objects, in the order in which they entered.
        users: by slot, what tells slots apart that not the same groups compare with; None where
            there is one group.
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
        self.groups = [self._group(0, slice(0, channels), 0)]
        self.users: list[tuple[bool, ...]] | None = None

    def _group(self, start: int, channels: slice, anchor: int) -> Group:
        # A first frame that stays for good is not also a recent one.
        return Group(start, channels, anchor, start + (0 in self.settings.anchors))

    @property
    def cells(self) -> int:
        """Cells of the grid."""
        return self.height * self.width

    @property
    def recent(self) -> int:
        """How many frames were stored as recent ones."""
        return self.next - self.groups[0].first_recent

    # ------------------------------------------------------------------ storing

    def store(self, features: Tensor, labels: Tensor) -> None:
        """Remember the next frame: features ``(C, h, w)``, labels ``(L, h, w)``."""
        anchors = self.settings.anchors
        for group in self.groups:
            if self.next - group.start in anchors:
                slot = group.anchor + anchors.index(self.next - group.start)
                self._put(slot, self.next, features, labels)
        if self.next >= self.groups[0].first_recent:
            self._put(self._ring_slot(self.next), self.next, features, labels)
        self.next += 1

    def store_prediction_of_first(self, features: Tensor, labels: Tensor) -> None:
        """Remember the first frame of the latest group once more, as a recent one.

        Args:
            features: ``(C, h, w)`` of that frame.
            labels: ``(L, h, w)`` of that group.
        """
        group = self.groups[-1]
        slot = self._ring_slot(group.start)
        self._put_features(slot, group.start, features)
        self.labels[slot, :, group.channels] = labels.flatten(1).T
        self.groups[-1] = replace(group, first_recent=group.start)

    def add(self, labels: Tensor) -> None:
        """Take up a group of objects in the frame stored last.

        Args:
            labels: ``(L', h, w)``, the group's own background first.
        """
        frame, slots, known = self.next - 1, len(self.frames), self.labels.shape[2]
        features = self.latest()
        group = self._group(frame, slice(known, known + len(labels)), slots)
        added = len(self.settings.anchors)
        if added:
            self.keys = torch.cat([self.keys, torch.zeros_like(self.keys[:added])])
            self.frames += [-1] * added
            if self.screen is not None:
                self.screen.grow(added)
        self.labels = F.pad(self.labels, (0, len(labels), 0, 0, 0, added))
        if 0 in self.settings.anchors:
            self._put_features(group.anchor, frame, features)
        for slot, stored in enumerate(self.frames):
            if stored == frame:
                self.labels[slot, :, group.channels] = labels.flatten(1).T
        self.groups.append(group)

    def latest(self) -> Tensor:
        """Features ``(C, h, w)`` of the frame stored last."""
        return self.keys[self.frames.index(self.next - 1)].permute(2, 0, 1)

    def _ring_slot(self, frame: int) -> int:
        return len(self.settings.anchors) + frame % self.ring

    def _put(self, slot: int, frame: int, features: Tensor, labels: Tensor) -> None:
        self._put_features(slot, frame, features)
        self.labels[slot] = labels.flatten(1).T

    def _put_features(self, slot: int, frame: int, features: Tensor) -> None:
        self.keys[slot] = features.permute(1, 2, 0)
        if self.screen is not None:
            self.screen.put(slot, features)
        self.frames[slot] = frame

    # ------------------------------------------------------------------ what is compared with

    def views(self) -> list[Memory]:
        """What each group knows, as a memory of this group alone that shares the features."""
        if len(self.groups) == 1:
            return [self]
        views = []
        for group in self.groups:
            view = copy.copy(self)
            view.labels = self.labels[..., group.channels]
            view.groups = [replace(group, channels=slice(0, view.labels.shape[2]))]
            views.append(view)
        used = [{*view.anchor_slots(), *view.recent_slots()} for view in views]
        users = [tuple(slot in slots for slots in used) for slot in range(len(self.frames))]
        for view in views:
            view.users = users
        return views

    def alike(self, slots: list[int]) -> list[list[int]]:
        """Slots in parts, each of which is compared with by the same groups, all or none of it."""
        if self.users is None:
            return [slots] if slots else []
        parts: dict[tuple[bool, ...], list[int]] = {}
        for slot in slots:
            parts.setdefault(self.users[slot], []).append(slot)
        return list(parts.values())

    def first_slot(self) -> int | None:
        """Slot of the first frame, where it stays for good."""
        return self.groups[0].anchor if 0 in self.settings.anchors else None

    def anchor_slots(self) -> list[int]:
        """Slots of the anchors that are there."""
        first = self.groups[0].anchor
        slots = range(first, first + len(self.settings.anchors))
        return [slot for slot in slots if self.frames[slot] >= 0]

    def recent_slots(self) -> list[int]:
        """Slots of the recent frames to compare with, without those of later anchors."""
        count, group = len(self.settings.anchors), self.groups[0]
        wanted = {self.next - 1 - i * self.settings.interval for i in range(self.settings.context)}
        later_anchors = {group.start + age for age in self.settings.anchors if age > 0}
        return [
            slot
            for slot in range(count, count + self.ring)
            if self.frames[slot] >= group.first_recent
            and self.frames[slot] in wanted - later_anchors
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
        slots = [
            slot for view in self.views() for slot in view.anchor_slots() + view.recent_slots()
        ]
        return sorted({self.frames[slot] for slot in slots})

    # ------------------------------------------------------------------ back to the frame

    def to_frame(self, labels: Tensor) -> Tensor:
        """Labels ``(L, H, W)`` of labels ``(L, h, w)``, as the settings say."""
        scores = resize(labels, self.size, self.settings.label_up)
        return stretch(scores) if self.settings.min_max == "output" else scores

    def scores(self, labels: Tensor) -> Tensor:
        """Scores ``(1 + objects, H, W)`` of labels ``(L, h, w)``.

        Where there are several groups, an object's score is by how much it exceeds its own group's
        background, and the background's is 0.
        """
        maps = self.to_frame(labels)
        if len(self.groups) == 1:
            return maps
        of_groups = [maps[group.channels] for group in self.groups]
        margins = [each[1:] - each[:1] for each in of_groups]
        return torch.cat([torch.zeros_like(maps[:1]), *margins])


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
