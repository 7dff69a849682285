"""Finding the best candidates at the speed of bfloat16 products, and yet exactly.

Products in bfloat16 cost a third of those in float32, but rank near neighbours wrongly. So they
only *screen*: whatever a bfloat16 score cannot rule out, by a bound on its error, is scored again
in float32. The bound for a target cell q and a candidate k follows from Cauchy and Schwarz,

    |q.k - q'.k'| <= |q - q'| |k'| + |q| |k - k'|        (q', k' are rounded)

with the norms measured, not estimated. If the tenth best screened score is s and no score is off by
more than e, the ten best candidates all have screened scores of at least s - 2 e. Features are
centred before, because what all cells share would only add to the error: q.k = q.(k - m) + q.m, and
the last term is the same for all candidates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.propagation.settings import PropagationSettings

if TYPE_CHECKING:
    from bench.propagation.memory import Memory

ENOUGH_CHANNELS = 96
"""With fewer channels products are cheap, and screening does not pay."""

MOST_BYTES = 600 << 20
"""Larger rounded copies of the memory are not kept; with one, ResNet-50 at stride 4 would need more
than 4 GB at 480p."""

GROUP = 24
"""Scores are looked through in groups of this many."""

OFFSET_CHANNELS = 3
"""Channels that add m.(k - m) to the product: three bfloat16 numbers hold a float32."""

ROUNDING = 2**-8
"""Relative error of a bfloat16 result is at most half of this; twice that is allowed for."""

SUMMING = 2**-14
"""Generous bound on the relative error of sums of products in float32, up to 1,024 channels."""

PAIRS_AT_ONCE = 2**15


class Screen:
    """Rounded, centred features of the frames in memory, and how far off they are.

    Attributes:
        centre: ``(C,)``, subtracted from all features.
        keys: bfloat16 ``(S, h, w, C + 3)``, laid out as :attr:`Memory.keys`.
    """

    def __init__(self, keys: Tensor, features: Tensor) -> None:
        """Args: ``keys`` as in :class:`Memory`, ``features`` ``(C, h, w)`` of the first frame."""
        self.centre = features.flatten(1).mean(1)
        channels = keys.shape[-1] + OFFSET_CHANNELS
        self.keys = keys.new_zeros(*keys.shape[:3], channels, dtype=torch.bfloat16)
        self.largest_error = [0.0] * len(keys)
        self.largest_norm = [0.0] * len(keys)

    def grow(self, slots: int) -> None:
        """Make room for more frames."""
        self.keys = torch.cat([self.keys, torch.zeros_like(self.keys[:slots])])
        self.largest_error += [0.0] * slots
        self.largest_norm += [0.0] * slots

    def put(self, slot: int, features: Tensor) -> None:
        """Remember a frame: features ``(C, h, w)``."""
        centred = features.permute(1, 2, 0) - self.centre
        rounded = centred.bfloat16()
        self.largest_error[slot] = float((centred - rounded.float()).norm(dim=-1).max())
        self.largest_norm[slot] = float(rounded.float().norm(dim=-1).max())
        self.keys[slot, ..., :-OFFSET_CHANNELS] = rounded
        rest = centred @ self.centre
        for channel in range(-OFFSET_CHANNELS, 0):
            part = rest.bfloat16()
            self.keys[slot, ..., channel] = part
            rest = rest - part.float()

    def queries(self, features: Tensor, slots: list[int]) -> tuple[Tensor, Tensor]:
        """Target cells as the screen compares them.

        Args:
            features: ``(N, C)``.
            slots: that will be compared with.

        Returns:
            bfloat16 ``(N, C + 3)``, and float32 ``(N,)``: how far off a product can be before its
            own rounding.
        """
        centred = features - self.centre
        rounded = centred.bfloat16()
        norm = centred.norm(dim=1)
        error = (centred - rounded.float()).norm(dim=1)
        key_norm = max(self.largest_norm[slot] for slot in slots)
        key_error = max(self.largest_error[slot] for slot in slots)
        margin = error * key_norm + norm * key_error + SUMMING * norm * key_norm
        # The products lack m.(q - m), the same for all candidates of a cell.
        ones = rounded.new_ones(len(rounded), OFFSET_CHANNELS)
        return torch.cat([rounded, ones], 1), margin


def pays(settings: PropagationSettings, features: Tensor, slots: int) -> bool:
    """Whether to screen: only where few candidates are kept, of many channels, on a CPU.

    Args:
        settings: what is kept.
        features: ``(C, h, w)``.
        slots: how many such maps are remembered.
    """
    return (
        settings.selection == "top_k_then_softmax"
        and settings.outside == "exclude"
        and features.shape[0] >= ENOUGH_CHANNELS
        and features.device.type == "cpu"
        and slots * features.numel() * torch.bfloat16.itemsize <= MOST_BYTES
    )


def survivors(scores: Tensor, margin: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Candidates that may be among the ``top_k`` best, found without sorting.

    The ``top_k``-th largest of the maxima of groups is not above the ``top_k``-th largest score,
    and few groups have a maximum so large that they need a closer look.

    Args:
        scores: bfloat16 ``(Q, n)``, -inf for pairs that are not compared.
        margin: ``(Q,)``, from :meth:`Screen.queries`.
        top_k: how many are wanted.

    Returns:
        int64 target cells, ascending, and candidates, each ``(pairs,)``.
    """
    groups = scores.shape[1] // GROUP
    grouped = scores[:, : groups * GROUP].view(len(scores), GROUP, groups)
    # What is left over is a group each.
    rest = scores[:, groups * GROUP :]
    maxima = torch.cat([grouped.amax(1), rest], 1).float()
    best = maxima.topk(min(top_k, maxima.shape[1]), dim=1).values
    largest, last = best[:, 0], best[:, -1] if best.shape[1] == top_k else best[:, 0] - math.inf
    size = torch.maximum(largest.abs(), last.abs()).nan_to_num(posinf=0.0)
    limit = last - 2 * (margin + ROUNDING * size)
    query, group = ((maxima >= limit[:, None]) & (maxima > -math.inf)).nonzero(as_tuple=True)
    closer = group < groups
    alone = (query[~closer], group[~closer] - groups + groups * GROUP)
    query, group = query[closer], group[closer]
    members = grouped[query, :, group].float()
    chosen, member = ((members >= limit[query, None]) & (members > -math.inf)).nonzero(
        as_tuple=True
    )
    query = torch.cat([query[chosen], alone[0]])
    candidate = torch.cat([member * groups + group[chosen], alone[1]])
    query, order = query.sort(stable=True)
    return query, candidate[order]


def exact_scores(
    memory: Memory, features: Tensor, query: Tensor, slot: Tensor, cell: Tensor
) -> Tensor:
    """float32 scores ``(pairs,)`` of target cells and remembered cells."""
    index = slot * memory.cells + cell
    keys = memory.keys.flatten(0, 2)
    return torch.cat(
        [
            torch.linalg.vecdot(features[some], keys[others])
            for some, others in zip(
                torch.split(query, PAIRS_AT_ONCE), torch.split(index, PAIRS_AT_ONCE), strict=True
            )
        ]
    )


def best_of_pairs(query: Tensor, score: Tensor, targets: int, top_k: int) -> tuple[Tensor, Tensor]:
    """The best pairs of every target cell.

    Args:
        query: int64 ``(pairs,)``, target cells from 0, ascending.
        score: float32 ``(pairs,)``.
        targets: number of target cells.
        top_k: how many are wanted.

    Returns:
        Scores ``(targets, K)``, best first, -inf where there are fewer, and int64 numbers of
        pairs ``(targets, K)``, any where there are fewer.
    """
    counts = torch.bincount(query, minlength=targets)
    place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
    columns = int(counts.max())
    table = score.new_full((targets, columns), -math.inf)
    table[query, place] = score
    number = query.new_zeros(targets, columns)
    number[query, place] = torch.arange(len(query), device=query.device)
    best, order = table.topk(min(top_k, columns), dim=1)
    return best, number.gather(1, order)
