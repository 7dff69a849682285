"""DUL's assignment of cells to anchors, and the zoom under which it must not change.

Source: Araslanov, Schaub-Meyer, Roth: Dense unsupervised learning for video segmentation, NeurIPS
2021, section 3.

A zoom is a theta ``(B, 2, 3)`` that maps coordinates of view 2, in [-1, 1], to those of view 1, x
before y. The corners -1 and 1 are the image's *edges* (``align_corners=False``), because these
fall on the feature map's edges whatever its stride.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def draw_zoom(random: np.random.Generator, scale: tuple[float, float], flip: float) -> Tensor:
    """Draw a crop that is resized back to full size, mirrored or not.

    Args:
        random: where it comes from.
        scale: smallest and largest side of the crop as a share of the image's.
        flip: probability of mirroring.

    Returns:
        theta, float32 ``(2, 3)``.
    """
    size = random.uniform(*scale)
    x, y = random.uniform(size - 1, 1 - size, 2)
    mirror = -1.0 if random.random() < flip else 1.0
    return torch.tensor([[mirror * size, 0.0, x], [0.0, size, y]], dtype=torch.float32)


def zoom(maps: Tensor, theta: Tensor, nearest: bool = False) -> Tensor:
    """Bring maps from view 1 to view 2.

    Args:
        maps: ``(B, T, C, h, w)``: images, features or logits.
        theta: ``(B, 2, 3)``, the same for the T maps of a clip.
        nearest: whether values are picked; otherwise they are interpolated bilinearly.

    Returns:
        ``(B, T, C, h, w)``.
    """
    flat = maps.flatten(1, 2)
    grid = F.affine_grid(theta.to(maps.dtype), list(flat.shape), align_corners=False)
    mode = "nearest" if nearest else "bilinear"
    # The crop lies inside the image; "border" keeps rounding from reading zeros at its edge.
    moved = F.grid_sample(flat, grid, mode=mode, padding_mode="border", align_corners=False)
    return moved.view_as(maps)


def grid_cells(size: tuple[int, int], side: int, offset: tuple[float, float]) -> Tensor:
    """Numbers of the cells on a regular grid.

    Args:
        size: (h, w) of the map.
        side: points of the grid in each direction; at most h and w.
        offset: where in the free space the grid begins, in [0, 1), down and to the right.

    Returns:
        int64 ``(side * side,)``, row by row, of cells counted row by row.
    """
    along = []
    for length, share in zip(size, offset, strict=True):
        step = length // side
        free = length - step * (side - 1)
        along.append(int(share * free) + step * torch.arange(side))
    return (along[0][:, None] * size[1] + along[1][None]).flatten()


def pick(maps: Tensor, cells: Tensor) -> Tensor:
    """The vectors at some cells.

    Args:
        maps: ``(B, C, h, w)``.
        cells: int64 ``(M,)``, see :func:`grid_cells`.

    Returns:
        ``(B, M, C)``.
    """
    return maps.flatten(2)[:, :, cells.to(maps.device)].mT


def anchor_logits(maps: Tensor, anchors: Tensor, temperature: float) -> Tensor:
    """Cosine of every cell to every anchor of the batch, divided by the temperature.

    Args:
        maps: unit vectors ``(B, T, C, h, w)``.
        anchors: unit vectors ``(B, M, C)``.
        temperature: divides.

    Returns:
        ``(B, T, B * M, h, w)``, anchors clip by clip.
    """
    # Sharp softmaxes cannot do with the three digits of bfloat16.
    with torch.autocast(maps.device.type, enabled=False):
        return torch.einsum("btchw,nc->btnhw", maps, anchors.flatten(0, 1)) / temperature


def pseudo_labels(logits: Tensor, clips: int) -> Tensor:
    """Assign each cell to the most similar anchor of its own clip.

    The softmax over all anchors of the batch keeps their order, so it need not be taken.

    Args:
        logits: ``(B, T, B * M, h, w)``.
        clips: B.

    Returns:
        int64 ``(B, T, h, w)``, numbers among all anchors of the batch.
    """
    own = torch.unflatten(logits, 2, (clips, -1)).diagonal(dim1=0, dim2=2)  # (T, M, h, w, B)
    first = torch.arange(clips, device=logits.device) * own.shape[1]
    return (own.argmax(1) + first).movedim(-1, 0)


def assignment_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of cells' anchors among all anchors of the batch: L_temp.

    Args:
        logits: ``(B, T, N, h, w)`` in the labels' geometry.
        labels: int64 ``(B, T, h, w)``.

    Returns:
        ``(B,)``.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="none")
    return torch.unflatten(losses, 0, labels.shape[:2]).mean((1, 2, 3))


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """InfoNCE between the same cells of two views, all other cells of the batch being negatives.

    Source: van den Oord, Li, Vinyals, Representation learning with contrastive predictive coding,
    2018. Here it is L_cross.

    Args:
        first: unit vectors ``(B, M, C)``.
        second: unit vectors ``(B, M, C)`` of the same cells.
        temperature: divides.

    Returns:
        ``(B,)``.
    """
    with torch.autocast(first.device.type, enabled=False):
        logits = first.flatten(0, 1) @ second.flatten(0, 1).mT / temperature
    same = torch.arange(len(logits), device=logits.device)
    losses = F.cross_entropy(logits, same, reduction="none")
    return torch.unflatten(losses, 0, first.shape[:2]).mean(1)
