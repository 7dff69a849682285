"""Comparing the cells of a new frame with remembered cells, in blocks that bound the memory used.

A *block* is a set of target cells with all their candidates: a chunk of the map against whole
remembered frames, or a tile of the map against the window around it. What is done with the scores
of a block does not depend on how it was cut.

Shapes: ``N = h * w`` cells, ``Q`` target cells of a block, ``F`` remembered frames, ``M`` cells of
each in a block, ``K`` candidates kept, ``L`` label channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.propagation.memory import Memory
from bench.propagation.screening import best_of_pairs, exact_scores, survivors
from bench.propagation.settings import PropagationSettings

DENSE_BELOW_CELLS = 1200
"""Below about 30 x 40 cells a radius-12 window covers most of the map, and one dense product per
frame is faster than tiles."""

TILE = 6
"""Target cells are processed in tiles of TILE x TILE cells against one shared window of keys.
Smaller tiles waste fewer products (the window is closer to the disc), larger ones copy fewer
keys."""

WINDOW_ELEMENTS = 32_000_000
"""The windows of a tile are cut out of as many remembered frames at once as stay below this many
elements (128 MB in float32)."""

DENSE_CHUNK_ELEMENTS = 24_000_000
"""Dense blocks have as many target cells as keep their scores below this many elements (96 MB in
float32), so memory does not depend on the map's size."""


NOWHERE = -1
"""Stands for the cell of a candidate outside the map, whose label is 0."""


@dataclass
class Block:
    """Target cells and their candidates.

    Attributes:
        queries: int64 ``(Q,)``, target cells.
        keys: ``(F, M, C)``, features of the candidates, zero outside the map.
        cells: int64 ``(M,)``, cell of each candidate; ``NOWHERE`` outside the map.
        bias: ``(Q, M)``, 0, and -inf for pairs that are not compared; None if all are.
    """

    queries: Tensor
    keys: Tensor
    cells: Tensor
    bias: Tensor | None

    def scores(self, features: Tensor) -> Tensor:
        """Scores ``(Q, F, M)``, -inf where not compared; ``features`` is ``(N, C)``."""
        frames, count, channels = self.keys.shape
        scores = features[self.queries] @ self.keys.reshape(-1, channels).T
        scores = scores.view(-1, frames, count)
        return scores if self.bias is None else scores.add_(self.bias[:, None])


def blocks(
    settings: PropagationSettings,
    memory: Memory,
    keys: Tensor,
    slots: list[int],
    radius: float | None,
    tiled: bool | None = None,
) -> Iterator[Block]:
    """All target cells against their candidates in some slots.

    Args:
        settings: window and what is outside the map.
        memory: of the video.
        keys: its :attr:`Memory.keys`, or others laid out like them.
        slots: what to compare with.
        radius: of the window; None compares with whole frames.
        tiled: forces tiles (True) or whole frames (False); None chooses by size. Both give the
            same candidates. Candidates outside the map exist in tiles alone.
    """
    if radius is None:
        return _dense_blocks(settings, memory, keys, slots, radius)
    if settings.outside == "zero" or tiled or (tiled is None and memory.cells >= DENSE_BELOW_CELLS):
        return _tile_blocks(settings, memory, keys, slots, radius)
    return _dense_blocks(settings, memory, keys, slots, radius)


def _within(settings: PropagationSettings, dy: Tensor, dx: Tensor, radius: float) -> Tensor:
    if settings.window == "square":
        return torch.maximum(dy.abs(), dx.abs()) <= radius
    return dy * dy + dx * dx < radius * radius


def frames_at_once(settings: PropagationSettings, memory: Memory, radius: float | None) -> int:
    """How many remembered frames to search together, so that memory does not depend on more."""
    if radius is None:
        return len(memory.frames)
    side = TILE + 2 * settings.reach(radius)
    return max(1, WINDOW_ELEMENTS // (side * side * memory.keys.shape[-1]))


def inside_window(
    settings: PropagationSettings, memory: Memory, cells: Tensor, radius: float | None
) -> Tensor:
    """Whether candidates ``(N, K)`` are inside the window of their target cells: bool."""
    if radius is None:
        return torch.ones_like(cells, dtype=torch.bool)
    query = torch.arange(cells.shape[0], device=cells.device)[:, None]
    dy = cells // memory.width - query // memory.width
    dx = cells % memory.width - query % memory.width
    return _within(settings, dy, dx, radius)


def _dense_blocks(
    settings: PropagationSettings,
    memory: Memory,
    keys: Tensor,
    slots: list[int],
    radius: float | None,
) -> Iterator[Block]:
    keys = _take(keys, slots).reshape(len(slots), memory.cells, -1)
    cells = torch.arange(memory.cells, device=keys.device)
    chunk = max(1, DENSE_CHUNK_ELEMENTS // (len(slots) * memory.cells))
    for queries in torch.split(cells, chunk):
        bias = None
        if radius is not None:
            dy = queries[:, None] // memory.width - cells // memory.width
            dx = queries[:, None] % memory.width - cells % memory.width
            bias = _bias(_within(settings, dy, dx, radius), keys)
        yield Block(queries, keys, cells, bias)


def _tile_blocks(
    settings: PropagationSettings,
    memory: Memory,
    keys: Tensor,
    slots: list[int],
    radius: float,
) -> Iterator[Block]:
    reach, height, width, device = settings.reach(radius), memory.height, memory.width, keys.device
    biases: dict[tuple[int, ...], Tensor] = {}
    for top in range(0, height, TILE):
        rows = _Span.around(top, TILE, height, reach, settings)
        for left in range(0, width, TILE):
            columns = _Span.around(left, TILE, width, reach, settings)
            window = _take(keys[:, rows.first : rows.last, columns.first : columns.last], slots)
            if rows.beyond or columns.beyond:
                window = F.pad(window, (0, 0, *columns.outside, *rows.outside))
            y, x = rows.places(device), columns.places(device)
            on_map = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
            # All tiles in the middle of the map share theirs.
            kind = (*rows.kind, *columns.kind)
            if kind not in biases:
                dy = rows.targets(device)[:, None] - y
                dx = columns.targets(device)[:, None] - x
                within = _within(settings, dy[:, None, :, None], dx[None, :, None, :], radius)
                biases[kind] = _bias(within.reshape(-1, len(y) * len(x)), keys)
            cells = (y[:, None] * width + x).masked_fill_(~on_map, NOWHERE).flatten()
            queries = rows.targets(device)[:, None] * width + columns.targets(device)
            yield Block(queries.flatten(), window.flatten(1, 2), cells, biases[kind])


@dataclass(frozen=True)
class _Span:
    """A tile along one axis, and the part of the map that its windows cover.

    Attributes:
        start: first target.
        stop: end of the targets.
        first: first candidate on the map.
        last: end of the candidates on the map.
        outside: candidates before and beyond the map, where they count.
    """

    start: int
    stop: int
    first: int
    last: int
    outside: tuple[int, int]

    @classmethod
    def around(
        cls, start: int, length: int, size: int, reach: int, settings: PropagationSettings
    ) -> _Span:
        stop = min(start + length, size)
        first, last = max(0, start - reach), min(size, stop + reach)
        outside = (first - (start - reach), stop + reach - last)
        counted = outside if settings.outside == "zero" else (0, 0)
        return cls(start, stop, first, last, counted)

    @property
    def beyond(self) -> bool:
        """Whether candidates outside the map count here."""
        return self.outside != (0, 0)

    @property
    def kind(self) -> tuple[int, int, int]:
        """What the offsets from targets to candidates depend on."""
        first = self.first - self.outside[0]
        return self.stop - self.start, self.start - first, self.last + self.outside[1] - first

    def targets(self, device: torch.device) -> Tensor:
        """Places of the targets."""
        return torch.arange(self.start, self.stop, device=device)

    def places(self, device: torch.device) -> Tensor:
        """Places of the candidates, those outside the map too."""
        return torch.arange(
            self.first - self.outside[0], self.last + self.outside[1], device=device
        )


def _bias(compared: Tensor, like: Tensor) -> Tensor:
    """0 where true, else -inf, in the type of features."""
    return like.new_zeros(compared.shape).masked_fill_(~compared, -math.inf)


def _take(keys: Tensor, slots: list[int]) -> Tensor:
    """Some slots of ``(S, ...)``; a view where they are neighbours."""
    if slots == list(range(slots[0], slots[0] + len(slots))):
        return keys[slots[0] : slots[0] + len(slots)]
    return keys[slots]


def best_candidates(
    settings: PropagationSettings,
    memory: Memory,
    features: Tensor,
    slots: list[int],
    radius: float | None,
    tiled: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``top_k`` best candidates of every cell, jointly over slots, best first.

    Args:
        features: ``(N, C)`` of the new frame.

    Returns:
        Scores float32, slots int64 and cells int64, all ``(N, K)``. Where a window has fewer
        candidates, the rest have score -inf and any slot and cell.
    """
    search = _candidates if memory.screen is None else _screened_candidates
    # Results go where they stay at once: small pieces kept from every block would lie between the
    # large ones that come and go, and keep the memory of these from being used again.
    score = features.new_full((memory.cells, settings.top_k), -math.inf)
    slot = torch.zeros_like(score, dtype=torch.int64)
    cell = torch.zeros_like(slot)
    for queries, best, best_slots, best_cells in search(
        settings, memory, features, slots, radius, tiled
    ):
        score[queries, : best.shape[1]] = best
        slot[queries, : best.shape[1]] = best_slots
        cell[queries, : best.shape[1]] = best_cells
    return score, slot, cell


Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""Target cells ``(Q,)`` and their candidates' scores, slots and cells, each ``(Q, K)``."""


def _candidates(
    settings: PropagationSettings,
    memory: Memory,
    features: Tensor,
    slots: list[int],
    radius: float | None,
    tiled: bool | None,
) -> Iterator[Found]:
    slot_numbers = torch.tensor(slots, device=features.device)
    for block in blocks(settings, memory, memory.keys, slots, radius, tiled):
        scores = block.scores(features).flatten(1)
        best, index = scores.topk(min(settings.top_k, scores.shape[1]), dim=1)
        count = block.cells.shape[0]
        yield block.queries, best, slot_numbers[index // count], block.cells[index % count]


def _screened_candidates(
    settings: PropagationSettings,
    memory: Memory,
    features: Tensor,
    slots: list[int],
    radius: float | None,
    tiled: bool | None,
) -> Iterator[Found]:
    """As :func:`_candidates`, by screening; see :mod:`bench.propagation.screening`."""
    assert memory.screen is not None
    slot_numbers = torch.tensor(slots, device=features.device)
    queries, margin = memory.screen.queries(features, slots)
    for block in blocks(settings, memory, memory.screen.keys, slots, radius, tiled):
        scores = block.scores(queries).flatten(1)
        query, index = survivors(scores, margin[block.queries], settings.top_k)
        count = block.cells.shape[0]
        slot, cell = slot_numbers[index // count], block.cells[index % count]
        score = exact_scores(memory, features, block.queries[query], slot, cell)
        best, pair = best_of_pairs(query, score, len(block.queries), settings.top_k)
        yield block.queries, best, slot[pair], cell[pair]


def copies_by_frame(
    settings: PropagationSettings,
    memory: Memory,
    features: Tensor,
    slots: list[int],
    radius: float | None,
    tiled: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Per remembered frame, the best cells and their shares of a softmax over all of its cells.

    Args:
        features: ``(N, C)`` of the new frame.

    Returns:
        Weights float32, slots int64 and cells int64, all ``(N, F * K)``. The weights of a frame
        sum to at most 1, because what is not kept is not made up for.
    """
    slot_numbers = torch.tensor(slots, device=features.device)
    shape = (memory.cells, len(slots) * settings.top_k)
    weight = features.new_zeros(shape)
    slot = torch.zeros_like(weight, dtype=torch.int64)
    cell = torch.zeros_like(slot)
    for block in blocks(settings, memory, memory.keys, slots, radius, tiled):
        scores = block.scores(features).div_(settings.temperature)
        normaliser = scores.logsumexp(2, keepdim=True)
        best, index = scores.topk(min(settings.top_k, scores.shape[2]), dim=2)
        kept = best.shape[1] * best.shape[2]
        weight[block.queries, :kept] = (best - normaliser).exp().flatten(1)
        cell[block.queries, :kept] = block.cells[index].flatten(1)
        slot[block.queries, :kept] = slot_numbers[:, None].expand(index.shape[1:]).flatten()
    return weight, slot, cell


def attend(
    settings: PropagationSettings,
    memory: Memory,
    features: Tensor,
    slots: list[int],
    radius: float | None,
    tiled: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Labels copied from all candidates, by a softmax over all slots together.

    Args:
        features: ``(N, C)`` of the new frame.

    Returns:
        Logarithm of the softmax's denominator ``(N,)``, with which results of several calls are
        joined, and labels ``(N, L)``.
    """
    normaliser = features.new_empty(memory.cells)
    copied = memory.labels.new_empty(memory.cells, memory.labels.shape[2])
    labels = _take(memory.labels, slots)
    for block in blocks(settings, memory, memory.keys, slots, radius, tiled):
        scores = block.scores(features).div_(settings.temperature).flatten(1)
        total = scores.logsumexp(1, keepdim=True)
        values = labels[:, block.cells] * (block.cells != NOWHERE)[:, None]
        copied[block.queries] = (scores - total).exp_() @ values.flatten(0, 1)
        normaliser[block.queries] = total[:, 0]
    return normaliser, copied
