"""Label propagation: labels of remembered frames are copied to the next frame along affinities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

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
from bench.propagation.regions import Locate, copy_within
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
        self._predict_first(memory)
        return memory

    def add(self, memory: Memory, labels: Tensor) -> None:
        """Take up objects in the frame that ``begin`` or ``step`` remembered last.

        They know the frames from this one on, as if the video began here (DUL, Araslanov et al.,
        NeurIPS 2021, keeps a memory per starting frame). Frames are encoded and compared once for
        all objects, whenever they entered.

        Args:
            memory: of the video.
            labels: float ``(1 + objects, h, w)`` labels of the new objects alone, with a background
                of their own first. They follow those there are.
        """
        memory.add(labels.float())
        self._predict_first(memory)

    def _predict_first(self, memory: Memory) -> None:
        if self.settings.predict_first:
            view, features = memory.views()[-1], memory.latest()
            predicted = self._remembered(view, self._copy(view, features))
            memory.store_prediction_of_first(features, predicted)

    def step(
        self,
        memory: Memory,
        features: Tensor,
        flows: Mapping[int, Tensor] | None = None,
        locate: Locate | None = None,
    ) -> Tensor:
        """Propagate labels to the next frame and remember it.

        Args:
            memory: of the video.
            features: float ``(C, h, w)``, the size that ``begin`` had.
            flows: moves remembered frames before they are compared; see :meth:`Memory.aligned`.
            locate: restricts where labels are copied; see :mod:`bench.propagation.regions`.

        Returns:
            float ``(L, h, w)`` labels on the grid; :meth:`Memory.scores` makes scores of them.
        """
        features = self._prepare(features)
        references = memory if flows is None else memory.aligned(flows)
        labels = self._copy(references, features, locate)
        memory.store(features, self._remembered(memory, labels))
        return labels

    def _prepare(self, features: Tensor) -> Tensor:
        return F.normalize(features.float(), dim=0) if self.settings.normalise else features.float()

    def _copy(self, memory: Memory, features: Tensor, locate: Locate | None = None) -> Tensor:
        queries = features.flatten(1).T.contiguous()
        if locate is not None:
            labels = copy_within(self.settings, memory, queries, locate(memory, queries))
        elif self.settings.selection == "softmax":
            search = SearchOnce(attend, self.settings, memory, queries, self.tiled)
            labels = torch.cat(
                [
                    self._attend(view, group.channels, search)
                    for view, group in zip(memory.views(), memory.groups, strict=True)
                ],
                1,
            )
        else:
            search = self._search(memory, queries)
            labels = torch.cat(
                [copy_labels(self._affinity(view, search), view.labels) for view in memory.views()],
                1,
            )
        labels = labels.T.reshape(-1, memory.height, memory.width)
        return stretch(labels) if self.settings.min_max == "memory" else labels

    def _remembered(self, memory: Memory, labels: Tensor) -> Tensor:
        """What is stored of labels ``(L, h, w)``: themselves, or those of the mask they give."""
        if self.settings.label_state == "soft":
            return labels
        maps = memory.to_frame(labels)
        grid = (memory.height, memory.width)
        return torch.cat(
            [
                labels_from_channels(
                    maps[group.channels].argmax(0).to(torch.uint8),
                    group.channels.stop - group.channels.start,
                    grid,
                    self.settings.label_down,
                )
                for group in memory.groups
            ]
        )

    def affinity(self, memory: Memory, queries: Tensor) -> Affinity:
        """Remembered cells that each target cell copies from. It does not depend on labels.

        Args:
            queries: features ``(N, C)``, already normalised where the settings say so.
        """
        return self._affinity(memory, self._search(memory, queries))

    def _search(self, memory: Memory, queries: Tensor) -> SearchOnce:
        by_frame = self.settings.selection == "softmax_then_top_k"
        search = copies_by_frame if by_frame else best_candidates
        return SearchOnce(search, self.settings, memory, queries, self.tiled)

    def _affinity(self, memory: Memory, search: SearchOnce) -> Affinity:
        by_frame = self.settings.selection == "softmax_then_top_k"
        found = (self._affinity_by_frame if by_frame else self._joint_affinity)(memory, search)
        # Candidates outside the map have taken their share of the weight and give no label.
        weight = found.weight.masked_fill_(found.cell == NOWHERE, 0)
        return Affinity(found.slot, found.cell.clamp_(min=0), weight)

    def _joint_affinity(self, memory: Memory, search: SearchOnce) -> Affinity:
        settings = self.settings
        copies, first = memory.copies_of_first(), memory.first_slot()
        groups = []
        counts = []
        for slots, radius in self._groups(memory):
            if slots == [first] and copies and settings.radius_first is not None:
                # The copies may reach further than the long-term one.
                radius = None if settings.radius is None else max(radius or 0, settings.radius)
            score, slot, cell = search(slots, radius)
            count = torch.ones_like(score)
            if slots == [first] and copies:
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

        The first frame is always by itself, and so are frames that only some objects know.
        """
        anchors, first = memory.anchor_slots(), memory.first_slot()
        groups: list[tuple[list[int], float | None]] = []
        if first is not None and anchors:
            groups.append(([first], self.settings.radius_first))
            anchors = anchors[1:]
        radius = self.settings.radius
        most = frames_at_once(self.settings, memory, radius)
        for slots in memory.alike(anchors + memory.recent_slots()):
            groups += [(slots[i : i + most], radius) for i in range(0, len(slots), most)]
        return groups

    def _weigh(self, score: Tensor, slot: Tensor, cell: Tensor, count: Tensor) -> Affinity:
        """Softmax over the ``top_k`` best, where a candidate may stand for several equal copies.

        All ``(N, K)``, scores in descending order. A candidate with ``count`` copies takes as many
        of the ``top_k`` places as are left.
        """
        before = count.cumsum(1) - count
        taken = (self.settings.top_k - before).clamp(min=0).minimum(count)
        weight = torch.softmax(score / self.settings.temperature + taken.log(), dim=1)
        return Affinity(slot, cell, weight)

    def _affinity_by_frame(self, memory: Memory, search: SearchOnce) -> Affinity:
        """Each frame's own copy, with a weight of one over the number of frames."""
        copies, first = memory.copies_of_first(), memory.first_slot()
        weights, slots, cells, total = [], [], [], 0
        for group, radius in self._groups(memory):
            weight, slot, cell = search(group, radius)
            times = 1 + copies if group == [first] else 1
            weights.append(weight * times)
            slots.append(slot)
            cells.append(cell)
            total += times * len(group)
        return Affinity(torch.cat(slots, 1), torch.cat(cells, 1), torch.cat(weights, 1) / total)

    def _attend(self, memory: Memory, channels: slice, search: SearchOnce) -> Tensor:
        """Labels ``(N, L)`` by a softmax over all candidates of all frames.

        Args:
            memory: of one group of objects.
            channels: the group's among those that the search copies.
            search: by :func:`attend`.
        """
        most = math.inf if self.settings.distant is None else self.settings.distant
        parts, distant = [], []
        for slots, radius in self._groups(memory):
            near = [slot for slot in slots if memory.next - memory.frames[slot] <= most]
            distant += [slot for slot in slots if slot not in near]
            if near:
                normaliser, labels = search(near, radius)
                parts.append((normaliser, labels[:, channels]))
        if distant:
            parts += attend_in_two_steps(self.settings, memory, search.queries, distant)
        shares = torch.softmax(torch.stack([normaliser for normaliser, _ in parts]), 0)
        return (shares[..., None] * torch.stack([labels for _, labels in parts])).sum(0)


class SearchOnce:
    """A search of :mod:`bench.propagation.matching` in one frame, done once for the same slots.

    Groups of objects that know the same frames share what was found there.

    Args:
        search: ``best_candidates``, ``copies_by_frame`` or ``attend``.
        settings: what to match and how.
        memory: of the video, with the labels of all groups.
        queries: features ``(N, C)`` of the new frame.
        tiled: see :class:`Propagator`.
    """

    def __init__(
        self,
        search: Callable[..., tuple[Tensor, ...]],
        settings: PropagationSettings,
        memory: Memory,
        queries: Tensor,
        tiled: bool | None,
    ) -> None:
        self.search = search
        self.settings = settings
        self.memory = memory
        self.queries = queries
        self.tiled = tiled
        self.found: dict[tuple[tuple[int, ...], float | None], tuple[Tensor, ...]] = {}

    def __call__(self, slots: list[int], radius: float | None) -> tuple[Tensor, ...]:
        """What the search gives for these slots and this radius; not to be written into."""
        key = (tuple(slots), radius)
        if key not in self.found:
            self.found[key] = self.search(
                self.settings, self.memory, self.queries, slots, radius, self.tiled
            )
        return self.found[key]
