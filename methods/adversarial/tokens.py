"""Positions of feature maps as tokens, and assignments of tokens to clusters as maps.

Tokens are in one order everywhere: map by map (frame by frame within a clip), row by row.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import MethodError


def flatten_positions(maps: Tensor) -> Tensor:
    """Every position of every map as a row.

    Args:
        maps: ``(N, C, h, w)``, clips ``(B, C, T, h, w)``, or tokens ``(M, C)``, which stay.

    Returns:
        ``(M, C)`` with M the number of positions, frames before rows before columns.
    """
    return maps.movedim(1, -1).flatten(0, -2)


def unflatten_positions(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`flatten_positions`, for another number of channels.

    Args:
        rows: ``(M, K)``, in the order of :func:`flatten_positions`.
        like: the maps (or tokens) whose positions the rows describe.

    Returns:
        ``(N, K, h, w)``, ``(B, K, T, h, w)`` or ``(M, K)``, as ``like``.

    Raises:
        MethodError: if the numbers of positions differ.
    """
    shape = (like.shape[0], *like.shape[2:])
    positions = math.prod(shape)
    if rows.ndim != 2 or len(rows) != positions:
        raise MethodError(
            "adversarial assignment",
            f"shape {tuple(rows.shape)} for features {tuple(like.shape)}",
            f"({positions}, K)",
            "Give one row per position, frames before rows before columns.",
        )
    return rows.reshape(*shape, rows.shape[1]).movedim(-1, 1)


def unfold_clips(features: Tensor, frames: int) -> Tensor:
    """Maps of clips with time as a dimension of its own.

    Args:
        features: ``(B * T, C, h, w)``, clip-major.
        frames: T.

    Returns:
        ``(B, C, T, h, w)``.
    """
    return features.reshape(-1, frames, *features.shape[1:]).movedim(1, 2)


def adjacent_pairs(features: Tensor, frames: int) -> Tensor:
    """Every frame of a clip but the last beside the next one.

    Args:
        features: ``(B * T, C, h, w)``, clip-major.
        frames: T, at least 2.

    Returns:
        ``(B * (T - 1), 2C, h, w)``, clip-major, the earlier frame's channels first.
    """
    clips = features.reshape(-1, frames, *features.shape[1:])
    return torch.cat([clips[:, :-1], clips[:, 1:]], dim=2).flatten(0, 1)


def pool_to_grid(assignment: Tensor, grid: torch.Size) -> Tensor:
    """Assignment maps averaged over the cells of a coarser grid (the discriminator's output).

    Args:
        assignment: float ``(N, K, h, w)`` or ``(B, K, T, h, w)``; tokens ``(M, K)`` stay.
        grid: the spatial part of the output's shape, ``(h', w')`` or ``(T', h', w')``.

    Returns:
        ``(N, K, h', w')`` or ``(B, K, T', h', w')``: the share of each cell's area.
    """
    if assignment.shape[2:] == grid:
        return assignment
    return F.interpolate(assignment, size=tuple(grid), mode="area")


def sample_tokens(
    features: Tensor, count: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw positions without replacement, equally many from every map.

    One clip's frames are near-duplicates, so no map may have more than its share.

    Args:
        features: float ``(N, C, h, w)``.
        count: tokens in total at most. Every map has at least one, even where N exceeds it.
        generator: source of randomness; None is the global one.

    Returns:
        Tokens ``(M, C)``, through which gradients flow, and int64 ``(M,)``, their rows in
        :func:`flatten_positions`. M is the same for all maps of the same size.
    """
    number, _, height, width = features.shape
    positions = height * width
    each = min(max(1, count // max(1, number)), positions)
    device = features.device if generator is None else generator.device
    drawn = torch.rand((number, positions), generator=generator, device=device)
    chosen = drawn.argsort(1)[:, :each].sort(1).values.to(features.device)
    offsets = torch.arange(number, device=features.device)[:, None] * positions
    rows = (chosen + offsets).flatten()
    return flatten_positions(features)[rows], rows
