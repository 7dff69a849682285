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
    settings: PropagationSettings, memory: Memory, features: Tensor, slot: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """Labels copied from one distant frame.

    Args:
        settings: with a square window that has a radius.
        memory: of the video.
        features: ``(N, C)`` of the new frame.
        slot: of the reference.
        dilation: step of the coarse search in cells; at most 4 is used.

    Returns:
        Logarithm of the softmax's denominator ``(N,)`` and labels ``(N, L)``, as
        :func:`bench.propagation.matching.attend` gives them.
    """
    assert settings.radius is not None
    radius, dilation = settings.reach(settings.radius), min(LARGEST_DILATION, dilation)
    keys = memory.keys[slot, memory.rows, memory.columns]
    offset = expected_displacement(features, keys, radius, dilation)
    # Blending positions of the whole window is blending dot products on whole cells, because the
    # fraction is the same all over the window.
    whole = offset.floor()
    fraction = offset - whole
    margin = radius * dilation + radius + 1
    padding = (0, 0, margin, margin, margin, margin)
    padded = F.pad(keys, padding)
    labels = F.pad(memory.labels[slot].view(memory.height, memory.width, -1), padding)
    width = padded.shape[1]
    span = torch.arange(-radius, radius + 2, device=features.device)
    window = (span[:, None] * width + span).flatten()
    cell = torch.arange(memory.cells, device=features.device)
    centre = torch.stack([cell // memory.width, cell % memory.width], 1) + whole.long() + margin
    centre = centre[:, 0] * width + centre[:, 1]
    chunk = max(1, CHUNK_ELEMENTS // (len(window) * features.shape[1]))
    normaliser, copied = [], []
    for rows in torch.split(cell, chunk):
        places = centre[rows, None] + window
        products = torch.einsum("nc,nkc->nk", features[rows], padded.flatten(0, 1)[places])
        scores = _blend(products[..., None], fraction[rows], len(span))[..., 0]
        scores = scores / settings.temperature
        values = _blend(labels.flatten(0, 1)[places], fraction[rows], len(span))
        total = scores.logsumexp(1, keepdim=True)
        copied.append(torch.einsum("nk,nkl->nl", (scores - total).exp(), values))
        normaliser.append(total[:, 0])
    return torch.cat(normaliser), torch.cat(copied)


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


def _blend(values: Tensor, fraction: Tensor, side: int) -> Tensor:
    """Bilinear samples between neighbours.

    Args:
        values: ``(n, side * side, D)`` on whole cells.
        fraction: ``(n, 2)``, how far between a cell and the next one, vertically and horizontally.
        side: cells along an axis.

    Returns:
        ``(n, (side - 1)^2, D)``.
    """
    grid = values.view(values.shape[0], side, side, -1)
    down, right = fraction[:, 0, None, None, None], fraction[:, 1, None, None, None]
    rows = grid[:, :-1] * (1 - down) + grid[:, 1:] * down
    return (rows[:, :, :-1] * (1 - right) + rows[:, :, 1:] * right).flatten(1, 2)
