"""Label propagation: labels of remembered frames are copied to the next frame along affinities."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.propagation.distant import attend_in_two_steps
from bench.propagation.labels import labels_from_channels, stretch
from bench.propagation.matching import (
    NOWHERE,
    attend,
    best_candidates,
    copies_by_frame,
    frames_at_once,
    inside_window,
)
from bench.propagation.memory import Affinity, Memory, copy_labels
from bench.propagation.settings import PropagationSettings


class Propagator:
    """Carries labels from frame to frame, as :class:`PropagationSettings` say.

    Args:
        settings: what to match and how.
        tiled: force the tiled (True) or the dense (False) computation; None chooses by size. Both
            give the same labels.
    """

    def __init__(self, settings: PropagationSettings, tiled: bool | None = None) -> None:
        self.settings = settings
        self.tiled = tiled

    def begin(self, features: Tensor, labels: Tensor, size: tuple[int, int]) -> Memory:
        """Start a video from its first frame.

        Args:
            features: float ``(C, h, w)``.
            labels: float ``(L, h, w)`` labels, background first.
            size: (H, W) of the masks.
        """
        features = self._prepare(features)
        memory = Memory(self.settings, features, len(labels), size)
        memory.store(features, labels.float())
        if self.settings.predict_first:
            predicted = self._copy(memory, features)
            memory.store_prediction_of_first(features, self._remembered(memory, predicted))
        return memory

    def step(
        self, memory: Memory, features: Tensor, flows: Mapping[int, Tensor] | None = None
    ) -> Tensor:
        """Propagate labels to the next frame and remember it.

        Args:
            memory: of the video.
            features: float ``(C, h, w)``, the size that ``begin`` had.
            flows: moves remembered frames before they are compared; see :meth:`Memory.aligned`.

        Returns:
            float ``(L, h, w)`` labels on the grid; :meth:`Memory.to_frame` makes scores of them.
        """
        features = self._prepare(features)
        labels = self._copy(memory if flows is None else memory.aligned(flows), features)
        memory.store(features, self._remembered(memory, labels))
        return labels

    def _prepare(self, features: Tensor) -> Tensor:
        return F.normalize(features.float(), dim=0) if self.settings.normalise else features.float()

    def _copy(self, memory: Memory, features: Tensor) -> Tensor:
        queries = features.flatten(1).T.contiguous()
        if self.settings.selection == "softmax":
            labels = self._attend(memory, queries)
        else:
            labels = copy_labels(self.affinity(memory, queries), memory.labels)
        labels = labels.T.reshape(-1, memory.height, memory.width)
        return stretch(labels) if self.settings.min_max == "memory" else labels

    def _remembered(self, memory: Memory, labels: Tensor) -> Tensor:
        """What is stored of labels ``(L, h, w)``: themselves, or those of the mask they give."""
        if self.settings.label_state == "soft":
            return labels
        channels = memory.to_frame(labels).argmax(0).to(torch.uint8)
        grid = (memory.height, memory.width)
        return labels_from_channels(channels, len(labels), grid, self.settings.label_down)

    def affinity(self, memory: Memory, queries: Tensor) -> Affinity:
        """Remembered cells that each target cell copies from. It does not depend on labels.

        Args:
            queries: features ``(N, C)``, already normalised where the settings say so.
        """
        by_frame = self.settings.selection == "softmax_then_top_k"
        find = self._affinity_by_frame if by_frame else self._joint_affinity
        found = find(memory, queries)
        # Candidates outside the map have taken their share of the weight and give no label.
        weight = found.weight.masked_fill_(found.cell == NOWHERE, 0)
        return Affinity(found.slot, found.cell.clamp_(min=0), weight)

    def _joint_affinity(self, memory: Memory, queries: Tensor) -> Affinity:
        settings = self.settings
        copies = memory.copies_of_first()
        groups = []
        counts = []
        for slots, radius in self._groups(memory):
            if 0 in slots and copies and settings.radius_first is not None:
                # The copies may reach further than the long-term one.
                radius = None if settings.radius is None else max(radius or 0, settings.radius)
            score, slot, cell = best_candidates(
                settings, memory, queries, slots, radius, self.tiled
            )
            count = torch.ones_like(score)
            if slots == [0] and copies:
                count = inside_window(settings, memory, cell, settings.radius_first).float()
                count += copies * inside_window(settings, memory, cell, settings.radius)
            groups.append((score, slot, cell))
            counts.append(count)
        score, slot, cell = (torch.cat(parts, 1) for parts in zip(*groups, strict=True))
        score, order = score.topk(min(settings.top_k, score.shape[1]), dim=1)
        count = torch.cat(counts, 1).gather(1, order)
        return self._weigh(score, slot.gather(1, order), cell.gather(1, order), count)

    def _groups(self, memory: Memory) -> list[tuple[list[int], float | None]]:
        """Slots that share a window, with its radius, no more than are searched together.

        The first frame is always by itself.
        """
        anchors, recent = memory.anchor_slots(), memory.recent_slots()
        groups: list[tuple[list[int], float | None]] = []
        if anchors and memory.frames[anchors[0]] == 0:
            groups.append(([anchors[0]], self.settings.radius_first))
            anchors = anchors[1:]
        radius = self.settings.radius
        most = frames_at_once(self.settings, memory, radius)
        slots = anchors + recent
        return groups + [(slots[i : i + most], radius) for i in range(0, len(slots), most)]

    def _weigh(self, score: Tensor, slot: Tensor, cell: Tensor, count: Tensor) -> Affinity:
        """Softmax over the ``top_k`` best, where a candidate may stand for several equal copies.

        All ``(N, K)``, scores in descending order. A candidate with ``count`` copies takes as many
        of the ``top_k`` places as are left.
        """
        before = count.cumsum(1) - count
        taken = (self.settings.top_k - before).clamp(min=0).minimum(count)
        weight = torch.softmax(score / self.settings.temperature + taken.log(), dim=1)
        return Affinity(slot, cell, weight)

    def _affinity_by_frame(self, memory: Memory, queries: Tensor) -> Affinity:
        """Each frame's own copy, with a weight of one over the number of frames."""
        copies = memory.copies_of_first()
        weights, slots, cells, total = [], [], [], 0
        for group, radius in self._groups(memory):
            weight, slot, cell = copies_by_frame(
                self.settings, memory, queries, group, radius, self.tiled
            )
            times = 1 + copies if group == [0] and memory.frames[0] == 0 else 1
            weights.append(weight * times)
            slots.append(slot)
            cells.append(cell)
            total += times * len(group)
        return Affinity(torch.cat(slots, 1), torch.cat(cells, 1), torch.cat(weights, 1) / total)

    def _attend(self, memory: Memory, queries: Tensor) -> Tensor:
        """Labels ``(N, L)`` by a softmax over all candidates of all frames."""
        most = math.inf if self.settings.distant is None else self.settings.distant
        parts, distant = [], []
        for slots, radius in self._groups(memory):
            near = [slot for slot in slots if memory.next - memory.frames[slot] <= most]
            distant += [slot for slot in slots if slot not in near]
            if near:
                parts.append(attend(self.settings, memory, queries, near, radius, self.tiled))
        if distant:
            parts += attend_in_two_steps(self.settings, memory, queries, distant)
        shares = torch.softmax(torch.stack([normaliser for normaliser, _ in parts]), 0)
        return (shares[..., None] * torch.stack([labels for _, labels in parts])).sum(0)
