"""The search for distant references in two steps (MAST, Lai et al., CVPR 2020, section 3.3).

An object may have moved out of the window in the meantime. So a coarse search over a dilated
window gives one expected displacement per target cell, and the fine window is centred there. The
displacement is a fraction of a cell; features and labels are sampled bilinearly, zero outside.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.propagation.memory import Memory
from bench.propagation.settings import PropagationSettings

LARGEST_DILATION = 4

CHUNK_ELEMENTS = 24_000_000
"""Gathered features are held for as many cells at once as stay below this many elements."""


def attend_in_two_steps(
    settings: PropagationSettings, memory: Memory, features: Tensor, slots: list[int]
) -> list[tuple[Tensor, Tensor]]:
    """Labels copied from distant frames.

    Args:
        settings: with a square window that has a radius, and ``distant``.
        memory: of the video.
        features: ``(N, C)`` of the new frame.
        slots: of the references, oldest first.

    Returns:
        Per reference, the logarithm of the softmax's denominator ``(N,)`` and labels ``(N, L)``,
        as :func:`bench.propagation.matching.attend` gives them.
    """
    assert settings.radius is not None
    assert settings.distant is not None
    radius = settings.reach(settings.radius)
    offsets = []
    for slot in slots:
        dilation = (memory.next - memory.frames[slot]) // settings.distant + 1
        keys = memory.keys[slot]
        dilation = min(LARGEST_DILATION, dilation)
        offsets.append(expected_displacement(features, keys, radius, dilation))
    of_labels = offsets if settings.distant_labels == "own" else [offsets[-1]] * len(offsets)
    return [
        _attend_displaced(settings, memory, features, slot, *both)
        for slot, both in zip(slots, zip(offsets, of_labels, strict=True), strict=True)
    ]


def _attend_displaced(
    settings: PropagationSettings,
    memory: Memory,
    features: Tensor,
    slot: int,
    offset: Tensor,
    label_offset: Tensor,
) -> tuple[Tensor, Tensor]:
    """Labels from the window around displaced cells; offsets are ``(N, 2)``, down and right."""
    assert settings.radius is not None
    radius = settings.reach(settings.radius)
    side = 2 * radius + 2
    keys = _Samples(memory, memory.keys[slot], offset, radius)
    labels = memory.labels[slot].view(memory.height, memory.width, -1)
    values = _Samples(memory, labels, label_offset, radius)
    chunk = max(1, CHUNK_ELEMENTS // (side * side * features.shape[1]))
    normaliser, copied = [], []
    for rows in torch.split(torch.arange(memory.cells, device=features.device), chunk):
        # Blending positions of the whole window is blending dot products on whole cells, because
        # the fraction is the same all over the window.
        products = torch.einsum("nc,nkc->nk", features[rows], keys.on_cells(rows))
        scores = keys.blend(products[..., None], rows)[..., 0] / settings.temperature
        total = scores.logsumexp(1, keepdim=True)
        sampled = values.blend(values.on_cells(rows), rows)
        copied.append(torch.einsum("nk,nkl->nl", (scores - total).exp(), sampled))
        normaliser.append(total[:, 0])
    return torch.cat(normaliser), torch.cat(copied)


class _Samples:
    """Windows of a map ``(h, w, D)`` around displaced cells, zero outside the map."""

    def __init__(self, memory: Memory, values: Tensor, offset: Tensor, radius: int) -> None:
        whole = offset.floor()
        self.fraction = offset - whole
        self.side = 2 * radius + 2
        margin = int(whole.abs().max()) + radius + 1
        padded = F.pad(values, (0, 0, margin, margin, margin, margin))
        self.values = padded.flatten(0, 1)
        span = torch.arange(-radius, radius + 2, device=values.device)
        self.window = (span[:, None] * padded.shape[1] + span).flatten()
        cell = torch.arange(memory.cells, device=values.device)
        row = cell // memory.width + whole[:, 0].long() + margin
        column = cell % memory.width + whole[:, 1].long() + margin
        self.centre = row * padded.shape[1] + column

    def on_cells(self, rows: Tensor) -> Tensor:
        """``(n, side^2, D)`` on the whole cells that the windows of some target cells span."""
        return self.values[self.centre[rows, None] + self.window]

    def blend(self, values: Tensor, rows: Tensor) -> Tensor:
        """Bilinear samples ``(n, (side - 1)^2, D)`` from values on whole cells."""
        grid = values.view(values.shape[0], self.side, self.side, -1)
        down, right = (self.fraction[rows, axis, None, None, None] for axis in (0, 1))
        between = grid[:, :-1] * (1 - down) + grid[:, 1:] * down
        return (between[:, :, :-1] * (1 - right) + between[:, :, 1:] * right).flatten(1, 2)


def expected_displacement(features: Tensor, keys: Tensor, radius: int, dilation: int) -> Tensor:
    """Where the reference's matching cell is expected to be, relative to the target cell.

    Args:
        features: ``(N, C)`` of the target frame.
        keys: ``(h, w, C)`` of the reference; zero outside.
        radius: of the window, in steps.
        dilation: cells per step.

    Returns:
        ``(N, 2)`` vertical and horizontal displacement in cells.
    """
    height, width, channels = keys.shape
    margin = radius * dilation
    padded = F.pad(keys, (0, 0, margin, margin, margin, margin))
    queries = features.view(height, width, channels)
    steps = range(0, 2 * margin + 1, dilation)
    scores = torch.stack(
        [
            (queries * padded[y : y + height, x : x + width]).sum(-1).flatten()
            for y in steps
            for x in steps
        ],
        1,
    )
    weights = torch.softmax(scores, 1).view(-1, len(steps), len(steps))
    distance = torch.arange(-margin, margin + 1, dilation, device=keys.device).float()
    return torch.stack([weights.sum(2) @ distance, weights.sum(1) @ distance], 1)
