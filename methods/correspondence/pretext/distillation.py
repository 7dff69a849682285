"""Correlation distillation: what fine features match is taught to coarse ones.

Source: Li and Liu: Spatial-then-temporal self-supervised learning for video correspondence,
CVPR 2023 (STT), local and global correlation distillation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import MethodError


def pool_affinity(weights: Tensor) -> Tensor:
    """Average a local affinity over 2x2 target cells and 2x2 reference cells.

    It equals average pooling of the dense matrix along both of its pairs of axes. A window of
    radius R, R even, becomes one of radius R / 2, and nothing falls outside of it. Since the
    mean over reference cells is taken, not the sum, weights that sum to 1 sum to 1/4 afterwards,
    and to less near the border of a window that is cut off.

    Args:
        weights: ``(B, (2R + 1)^2, h, w)`` with h and w even; zero outside the map.

    Returns:
        ``(B, (R + 1)^2, h / 2, w / 2)``.

    Raises:
        MethodError: an odd radius or size.
    """
    side = round(weights.shape[1] ** 0.5)
    if side % 4 != 1 or weights.shape[2] % 2 or weights.shape[3] % 2:
        raise MethodError(
            "pool_affinity",
            f"a radius of {side // 2} on a map of {tuple(weights.shape[2:])} cells",
            "even numbers",
            "Choose another crop or radius.",
        )
    window = F.pad(torch.unflatten(weights, 1, (side, side)), (0, 0, 0, 0, 1, 1, 1, 1))
    pooled = torch.zeros((), device=weights.device)
    # A target cell in row q of its 2x2 block sees row k of a reference block, whose offset in
    # blocks is d, at the offset 2 d + k - q.
    for row in (0, 1):
        for column in (0, 1):
            offsets = window[:, 1 - row :, 1 - column :, row::2, column::2]
            blocks = torch.unflatten(offsets[:, : side + 1, : side + 1], 1, (-1, 2))
            blocks = torch.unflatten(blocks, 3, (-1, 2))
            pooled = pooled + blocks.mean((2, 4)) / 4
    return pooled.flatten(1, 2)


def sharpness(affinity: Tensor) -> Tensor:
    """Sum of ``-log p`` over a window's candidates: small where all are alike.

    STT calls it an entropy; yet it lacks the factor p, and so grows the more weight few
    candidates have.

    Args:
        affinity: dot products, scaled, ``(B, (2R + 1)^2, h, w)``. Candidates outside the map,
            minus infinity or not, count as 0, as zero padding makes them in a correlation layer.

    Returns:
        ``(B, h, w)``.
    """
    padded = affinity.masked_fill(affinity == -torch.inf, 0)
    return -F.log_softmax(padded, 1).sum(1)


def above_quantile(scores: Tensor, quantile: float) -> Tensor:
    """Whether a cell's score reaches a quantile of its own map.

    Args:
        scores: ``(B, h, w)``.
        quantile: from 0 (all cells) to 1 (the largest).

    Returns:
        bool ``(B, h, w)``; at least one is true in each map.
    """
    # The official code sorts along the width instead of over the flattened map, and then takes a
    # row of the result by an index meant for cells, so its threshold depends on the column.
    ordered = scores.flatten(1).sort(1).values
    rank = min(int(quantile * ordered.shape[1]), ordered.shape[1] - 1)
    return scores >= ordered[:, rank, None, None]


def local_distillation(student: Tensor, teacher: Tensor, selected: Tensor) -> Tensor:
    """Mean squared difference of two local affinities, as dense matrices, at selected cells.

    Args:
        student: weights ``(B, (2R + 1)^2, h, w)``, zero outside the map.
        teacher: the same; gets no gradient.
        selected: bool ``(B, h, w)``, target cells that count.

    Returns:
        By sample, ``(B,)``: the mean over selected target cells and all h w reference cells, of
        which those outside the windows contribute nothing.
    """
    cells = selected.shape[1] * selected.shape[2]
    squares = (student - teacher.detach()).square().sum(1) / cells
    chosen = selected.to(squares)
    return (squares * chosen).sum((1, 2)) / chosen.sum((1, 2)).clamp(min=1)


def global_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two global affinities.

    Args:
        student: weights ``(B, N, h, w)``.
        teacher: the same; gets no gradient.

    Returns:
        By sample, ``(B,)``.
    """
    return (student - teacher.detach()).square().flatten(1).mean(1)
