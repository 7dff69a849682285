"""Label propagation: labels of remembered frames are copied to the next frame along affinities.

One propagator serves every method that matches features. What differs between systems is
:class:`PropagationSettings`; its defaults are those of CRW (Jabri et al., Space-Time
Correspondence as a Contrastive Random Walk, NeurIPS 2020, appendix "label propagation").

The affinity of a cell does not depend on labels, so :meth:`Propagator.affinity` finds, for each
cell of the new frame, its best remembered cells and their weights, and :func:`copy_labels`
gathers any number of label channels along them.

Shapes: ``C`` feature channels, ``h x w`` cells, ``N = h * w``, ``K`` candidates kept per cell,
``L`` label channels (background first), ``S`` memory slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.method import MethodSettings, ProtocolRecord
from bench.video import Mask

DENSE_BELOW_CELLS = 1200
"""Below about 30 x 40 cells a radius-12 window covers most of the map, and one dense product per
frame is faster than tiles."""

TILE = 6
"""Queries are processed in tiles of TILE x TILE cells against one shared window of keys. Smaller
tiles waste fewer products (the window is closer to the disc), larger ones copy fewer keys."""

DENSE_CHUNK_ELEMENTS = 24_000_000
"""Dense affinities are computed for as many queries at once as keep the score matrix below this
many elements (96 MB in float32), so memory does not depend on the map's size."""


class PropagationSettings(MethodSettings):
    """How labels are propagated.

    Attributes:
        top_k: candidates kept per cell, jointly over all remembered frames.
        temperature: divides the affinity before the softmax over the ``top_k`` candidates.
        radius: a remembered cell is a candidate if its Euclidean distance to the target cell, in
            cells, is strictly below this; None compares with the whole map.
        radius_first: the same for the first frame, which stays in memory; None is the whole map.
        context: how many most recent frames are remembered besides the first.
        pad_first: fill the context with copies of the first frame while the video is younger than
            ``context``. The copies compete for the ``top_k`` places like any other frame.
        normalise: divide features by their L2 norm, so that the affinity is the cosine.
    """

    top_k: int = Field(default=10, ge=1)
    temperature: float = Field(default=0.05, gt=0)
    radius: float | None = Field(default=12.0, gt=0)
    radius_first: float | None = Field(default=None, gt=0)
    context: int = Field(default=20, ge=1)
    pad_first: bool = True
    normalise: bool = True

    def record(self, stride: int, resolution: str) -> ProtocolRecord:
        """The record that goes with every result."""
        return ProtocolRecord(
            resolution=resolution,
            stride=stride,
            memory=f"first + {self.context}" + (" (padded)" if self.pad_first else ""),
            top_k=self.top_k,
            radius=self.radius,
            temperature=self.temperature,
            label_resize="bilinear",
            extra={"radius_first": "map" if self.radius_first is None else str(self.radius_first)},
        )


@dataclass
class Affinity:
    """For each target cell, its candidates and their weights.

    Attributes:
        slot: int64 ``(N, K)``, memory slot of each candidate.
        cell: int64 ``(N, K)``, cell index ``y * w + x`` of each candidate.
        weight: float32 ``(N, K)``, non-negative, each row sums to 1.
    """

    slot: Tensor
    cell: Tensor
    weight: Tensor


class Memory:
    """Features and soft labels of the remembered frames; slot 0 is the first frame.

    Slots 1 .. ``context`` are a ring of the most recent other frames, so the size is fixed by the
    settings and never grows with the video.

    Attributes:
        first: ``(N, C)`` features of the first frame.
        keys: ``(context, h + 2 r, w + 2 r, C)`` features with a zero border of ``r`` cells,
            where ``r`` is the largest offset inside the radius.
        labels: ``(1 + context, N, L)`` soft labels.
        seen: number of frames stored after the first.
    """

    def __init__(self, features: Tensor, labels: Tensor, context: int, border: int) -> None:
        channels, height, width = features.shape
        self.height, self.width, self.border = height, width, border
        self.first = features.flatten(1).T.contiguous()
        self.keys = features.new_zeros(context, height + 2 * border, width + 2 * border, channels)
        self.labels = features.new_zeros(1 + context, height * width, labels.shape[0])
        self.labels[0] = labels.flatten(1).T
        self.context = context
        self.seen = 0

    @property
    def filled(self) -> int:
        """Number of ring slots in use."""
        return min(self.seen, self.context)

    def store(self, features: Tensor, labels: Tensor) -> None:
        """Remember a frame: features ``(C, h, w)``, soft labels ``(L, h, w)``."""
        slot = self.seen % self.context
        inner = slice(self.border, self.border + self.height)
        self.keys[slot, inner, self.border : self.border + self.width] = features.permute(1, 2, 0)
        self.labels[1 + slot] = labels.flatten(1).T
        self.seen += 1


class Propagator:
    """Carries labels from frame to frame; see the module's text.

    Args:
        settings: what to match and how.
        tiled: force the tiled (True) or the dense (False) computation; None chooses by size. Both
            give the same affinities.
    """

    def __init__(self, settings: PropagationSettings, tiled: bool | None = None) -> None:
        self.settings = settings
        self.tiled = tiled

    def begin(self, features: Tensor, labels: Tensor) -> Memory:
        """Start a video from its first frame.

        Args:
            features: float ``(C, h, w)``.
            labels: float ``(L, h, w)`` soft labels, background first.
        """
        radius = self.settings.radius
        # Largest integer offset strictly inside the radius.
        border = 0 if radius is None else max(0, math.ceil(radius) - 1)
        border = min(border, max(features.shape[1:]) - 1)
        return Memory(self._prepare(features), labels.float(), self.settings.context, border)

    def step(self, memory: Memory, features: Tensor) -> Tensor:
        """Propagate labels to the next frame and remember it.

        Args:
            features: float ``(C, h, w)``, the size that ``begin`` had.

        Returns:
            float ``(L, h, w)`` soft labels.
        """
        features = self._prepare(features)
        labels = copy_labels(self.affinity(memory, features), memory.labels)
        labels = labels.T.reshape(-1, memory.height, memory.width)
        memory.store(features, labels)
        return labels

    def _prepare(self, features: Tensor) -> Tensor:
        return F.normalize(features.float(), dim=0) if self.settings.normalise else features.float()

    def affinity(self, memory: Memory, features: Tensor) -> Affinity:
        """Best remembered cells of every target cell.

        Args:
            features: ``(C, h, w)``, already normalised where the settings say so.
        """
        first_score, first_cell = self._match_first(memory, features)
        first_slot = torch.zeros_like(first_cell)
        count = self._first_copies(memory, first_cell)
        if memory.filled == 0:
            return self._weigh(first_score, first_slot, first_cell, count)
        tiled = self.tiled
        if tiled is None:
            tiled = memory.height * memory.width >= DENSE_BELOW_CELLS
        match = self._match_tiles if tiled and self.settings.radius is not None else self._match_all
        score, slot, cell = match(memory, features)
        score = torch.cat([first_score, score], 1)
        slot = torch.cat([first_slot, slot], 1)
        cell = torch.cat([first_cell, cell], 1)
        count = torch.cat(
            [count, torch.ones_like(count[:, :1]).expand_as(score[:, count.shape[1] :])], 1
        )
        score, order = score.topk(min(self.settings.top_k, score.shape[1]), dim=1)
        return self._weigh(
            score, slot.gather(1, order), cell.gather(1, order), count.gather(1, order)
        )

    def _weigh(self, score: Tensor, slot: Tensor, cell: Tensor, count: Tensor) -> Affinity:
        """Softmax over the ``top_k`` best, where a candidate may stand for several equal copies.

        All ``(N, K)``, scores in descending order. A candidate with ``count`` copies takes as many
        of the ``top_k`` places as are left.
        """
        before = count.cumsum(1) - count
        taken = (self.settings.top_k - before).clamp(min=0).minimum(count)
        weight = torch.softmax(score / self.settings.temperature + taken.log(), dim=1)
        return Affinity(slot, cell, weight)

    def _padded_copies(self, memory: Memory) -> int:
        """How many copies of the first frame stand in for frames before the video's start.

        With ``context`` frames remembered, frame ``t`` sees ``context + 1 - t`` of them.
        """
        frame = memory.seen + 1
        return max(0, self.settings.context + 1 - frame) if self.settings.pad_first else 0

    def _first_copies(self, memory: Memory, cell: Tensor) -> Tensor:
        """How many copies of each first-frame candidate ``(N, K)`` compete, as float.

        The long-term copy counts where its cell is inside ``radius_first``, each padded copy
        where it is inside ``radius``.
        """
        query = torch.arange(cell.shape[0], device=cell.device)[:, None]
        dy = cell // memory.width - query // memory.width
        dx = cell % memory.width - query % memory.width
        squared = (dy * dy + dx * dx).float()

        def inside(radius: float | None) -> Tensor:
            return torch.ones_like(squared) if radius is None else (squared < radius**2).float()

        long_term = inside(self.settings.radius_first)
        return long_term + self._padded_copies(memory) * inside(self.settings.radius)

    def _match_first(self, memory: Memory, features: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and cells ``(N, K)`` of the best candidates in the first frame, descending."""
        radius = self.settings.radius_first
        if radius is not None and self._padded_copies(memory):
            # The padded copies may reach further than the long-term one.
            padded = self.settings.radius
            radius = None if padded is None else max(radius, padded)
        return self._match_dense(memory, features, memory.first, radius)

    def _match_dense(
        self, memory: Memory, features: Tensor, keys: Tensor, radius: float | None
    ) -> tuple[Tensor, Tensor]:
        """Top-k over ``keys`` (frames * N, C), in chunks of queries; index runs over the rows."""
        queries = features.flatten(1).T
        cells = queries.shape[0]
        top_k = min(self.settings.top_k, keys.shape[0])
        chunk = max(1, DENSE_CHUNK_ELEMENTS // keys.shape[0])
        scores, indices = [], []
        for start in range(0, cells, chunk):
            score = queries[start : start + chunk] @ keys.T
            if radius is not None:
                inside = self._disc(memory, start, score.shape[0], radius, queries.device)
                score.view(score.shape[0], -1, cells).masked_fill_(~inside[:, None], -math.inf)
            best, index = score.topk(top_k, dim=1)
            scores.append(best)
            indices.append(index)
        return torch.cat(scores), torch.cat(indices)

    @staticmethod
    def _disc(
        memory: Memory, start: int, count: int, radius: float, device: torch.device
    ) -> Tensor:
        """Cells inside the radius of ``count`` queries from ``start``: bool ``(count, N)``."""
        cells = torch.arange(memory.height * memory.width, device=device)
        query = cells[start : start + count, None]
        dy = query // memory.width - cells // memory.width
        dx = query % memory.width - cells % memory.width
        return dy * dy + dx * dx < radius * radius

    def _match_all(self, memory: Memory, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, slots, cells ``(N, K)`` of the recent frames by one dense product."""
        border, height, width = memory.border, memory.height, memory.width
        keys = memory.keys[: memory.filled, border : border + height, border : border + width]
        score, index = self._match_dense(
            memory, features, keys.reshape(-1, keys.shape[-1]), self.settings.radius
        )
        cells = height * width
        return score, 1 + index // cells, index % cells

    def _match_tiles(self, memory: Memory, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`_match_all`, but each tile of queries meets only the window around it."""
        radius, border = self.settings.radius, memory.border
        assert radius is not None
        height, width = memory.height, memory.width
        queries = features.permute(1, 2, 0)
        score = queries.new_empty(height, width, self.settings.top_k)
        slot = torch.zeros(score.shape, dtype=torch.int64, device=score.device)
        cell = torch.zeros_like(slot)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                rows = slice(top, min(top + TILE, height))
                columns = slice(left, min(left + TILE, width))
                query = queries[rows, columns]
                # In padded coordinates the window starts at the tile's own corner. Candidates in
                # the zero border are outside the map and excluded by the bias.
                window = memory.keys[
                    : memory.filled, top : rows.stop + 2 * border, left : columns.stop + 2 * border
                ]
                frames, window_height, window_width, channels = window.shape
                bias = _window_bias(
                    rows, columns, (height, width), border, radius, query.device, query.dtype
                )
                product = query.reshape(-1, channels) @ window.reshape(-1, channels).T
                product.view(bias.shape[0], frames, -1).add_(bias[:, None])
                best, index = product.topk(min(self.settings.top_k, product.shape[1]), dim=1)
                position = index % (window_height * window_width)
                y = top - border + position // window_width
                x = left - border + position % window_width
                block = (*query.shape[:2], -1)
                kept = best.shape[1]
                score[rows, columns, :kept] = best.view(block)
                score[rows, columns, kept:] = -math.inf
                slot[rows, columns, :kept] = (1 + index // (window_height * window_width)).view(
                    block
                )
                cell[rows, columns, :kept] = (y * width + x).view(block)
        shape = (height * width, self.settings.top_k)
        # Candidates outside the map have weight zero; their cell only has to be a valid index.
        cell.clamp_(0, height * width - 1)
        return score.view(shape), slot.view(shape), cell.view(shape)


def _window_bias(
    rows: slice,
    columns: slice,
    size: tuple[int, int],
    border: int,
    radius: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """``(queries, window cells)``: 0 for candidates inside the disc and the map, else -inf."""

    def offsets(tile: slice, length: int) -> tuple[Tensor, Tensor]:
        query = torch.arange(tile.start, tile.stop, device=device)
        key = torch.arange(tile.start - border, tile.stop + border, device=device)
        return query[:, None] - key, (key >= 0) & (key < length)

    dy, valid_y = offsets(rows, size[0])
    dx, valid_x = offsets(columns, size[1])
    inside = dy[:, None, :, None] ** 2 + dx[None, :, None, :] ** 2 < radius * radius
    inside = inside & valid_y[:, None] & valid_x
    bias = torch.zeros(inside.shape, dtype=dtype, device=device)
    bias.masked_fill_(~inside, -math.inf)
    return bias.view(dy.shape[0] * dx.shape[0], -1)


def copy_labels(affinity: Affinity, labels: Tensor) -> Tensor:
    """Copy labels along affinities.

    Args:
        affinity: candidates and weights of N cells.
        labels: ``(S, N, L)`` soft labels of the remembered frames.

    Returns:
        ``(N, L)`` weighted means of the candidates' labels.
    """
    cells = labels.shape[1]
    gathered = labels.reshape(-1, labels.shape[2])[affinity.slot * cells + affinity.cell]
    return torch.einsum("nk,nkl->nl", affinity.weight, gathered)


def labels_from_mask(
    mask: Mask, ids: tuple[int, ...], size: tuple[int, int], device: str
) -> Tensor:
    """Soft labels of a mask on the feature grid, by bilinear resizing without anti-aliasing.

    Args:
        mask: uint8 ids ``(H, W)``.
        ids: object ids, in channel order.
        size: (h, w) of the grid.
        device: where the result lies.

    Returns:
        float32 ``(1 + len(ids), h, w)``, background first.
    """
    pixels = torch.from_numpy(mask).to(device)
    one_hot = torch.stack([pixels == i for i in ids]).float()
    one_hot = torch.cat([1 - one_hot.sum(0, keepdim=True), one_hot])
    return resize(one_hot, size)


def resize(maps: Tensor, size: tuple[int, int], policy: Literal["bilinear"] = "bilinear") -> Tensor:
    """Resize ``(L, h, w)`` maps; ``bilinear`` samples at pixel centres, as OpenCV does."""
    return F.interpolate(maps[None], size=size, mode=policy, align_corners=False)[0]
