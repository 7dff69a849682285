"""Copying labels only within regions: what a tracker says about where an object is.

Each label has a region in the new frame and one in every remembered frame. Affinities are those of
whole frames; of them, candidates outside the label's region are left out before the best are kept
(UVC, Li et al., NeurIPS 2019, propagation inside tracked boxes).

Unlike elsewhere, what a cell copies from thus depends on the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.propagation.matching import blocks
from bench.propagation.memory import Memory
from bench.propagation.settings import PropagationSettings


@dataclass(frozen=True)
class Regions:
    """Where labels may be.

    Attributes:
        target: bool ``(L, N)``, in the new frame.
        references: the same by number of a remembered frame. Labels that do not know the frame yet
            may have any value there.
    """

    target: Tensor
    references: Mapping[int, Tensor]


Locate = Callable[[Memory, Tensor], Regions]
"""Finds the regions from the memory and the new frame's features ``(N, C)``, prepared."""


def copy_within(
    settings: PropagationSettings, memory: Memory, features: Tensor, regions: Regions
) -> Tensor:
    """Labels copied within their regions, as the mean of what each remembered frame gives.

    Args:
        settings: with selection ``"softmax_then_top_k"``, and early ``"available"``.
        memory: of the video.
        features: ``(N, C)`` of the new frame.
        regions: of all labels.

    Returns:
        ``(N, L)``, 0 outside the regions.
    """
    views = memory.views()
    known = [view.anchor_slots() + view.recent_slots() for view in views]
    slots = sorted({slot for each in known for slot in each})
    copied = memory.labels.new_zeros(memory.cells, memory.labels.shape[2])
    for block in blocks(settings, memory, memory.keys, slots, settings.radius):
        scores = block.scores(features).div_(settings.temperature)
        logarithms = scores.sub_(scores.logsumexp(2, keepdim=True))
        for group, own in zip(memory.groups, known, strict=True):
            places = [slots.index(slot) for slot in own]
            for label in range(group.channels.start, group.channels.stop):
                rows = regions.target[label, block.queries].nonzero()[:, 0]
                within = [regions.references[memory.frames[slot]][label] for slot in own]
                allowed = torch.stack(within)[:, block.cells]
                values = memory.labels[own, :, label][:, block.cells]
                weights = logarithms[rows][:, places].masked_fill_(~allowed, -math.inf)
                best, cell = weights.topk(min(settings.top_k, weights.shape[2]), dim=2)
                given = values.expand(len(rows), -1, -1).gather(2, cell)
                copied[block.queries[rows], label] = (best.exp() * given).sum(2).mean(1)
    return copied
