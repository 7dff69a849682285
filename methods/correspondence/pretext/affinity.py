"""UVC's affinity between two maps, and what carried coordinates say about it.

Source: Li, Liu, De Mello, Wang, Kautz, Yang: Joint-task self-supervised learning for temporal
correspondence, NeurIPS 2019.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.correspondence.pretext.copying import copy_global, global_affinity


def coordinates(size: tuple[int, int], like: Tensor) -> Tensor:
    """Positions of a map's cells, x before y, -1 and 1 being the outermost cells' centres.

    Returns:
        ``(2, h * w)``.
    """
    y, x = (torch.linspace(-1, 1, length).to(like) for length in size)
    return torch.stack([x.expand(size), y[:, None].expand(size)]).flatten(1)


def soft_affinity(reference: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Softmax over the reference's cells of the dot products with each target cell.

    Args:
        reference: ``(B, C, h, w)``.
        target: ``(B, C, H, W)``.
        temperature: divides the dot products.

    Returns:
        ``(B, h * w, H, W)``, the sum over the second dimension being 1.
    """
    return F.softmax(global_affinity(target, reference, 1 / temperature), dim=1)


def concentration_loss(affinity: Tensor, block: int) -> Tensor:
    """How far the cells of a block are scattered by an affinity.

    Each cell is taken to its expected position; what counts is the variance of these positions
    inside a block of neighbouring cells. Cells beyond the last whole block are left out.

    Args:
        affinity: between maps of one size, ``(B, h * w, h, w)``; see :func:`soft_affinity`.
        block: side of a block in cells; at most h and w.

    Returns:
        A scalar: the mean over blocks, cells, x and y.
    """
    size = (affinity.shape[2], affinity.shape[3])
    maps = copy_global(affinity, coordinates(size, affinity).expand(len(affinity), 2, -1))
    blocks = maps.unfold(2, block, block).unfold(3, block, block).flatten(4)
    return blocks.var(4, correction=0).mean()


def transposed(affinity: Tensor, size: tuple[int, int]) -> Tensor:
    """The same affinity the other way, whose sums are not 1.

    Args:
        affinity: ``(B, h * w, H, W)``; see :func:`soft_affinity`.
        size: of the reference, h and w.

    Returns:
        ``(B, H * W, h, w)``.
    """
    return torch.unflatten(affinity.flatten(2).mT, 2, size)


def coordinate_switch_loss(affinity: Tensor, size: tuple[int, int]) -> Tensor:
    """How far the reference's coordinates come back changed from the target.

    The switch loss on colours goes back along the transposed affinity; this one goes there and
    back, since coordinates, unlike colours, are not kept by motion. The transpose inverts an
    affinity that matches the cells one to one, so the loss is 0 there, whatever the motion. The
    authors' training gives it no weight; the absolute distance is our reading.

    Args:
        affinity: ``(B, h * w, H, W)``; see :func:`soft_affinity`.
        size: of the reference, h and w.

    Returns:
        ``(B,)``: the mean over cells, x and y, 2 being the map's width or height.
    """
    start = coordinates(size, affinity).expand(len(affinity), 2, -1)
    arrived = copy_global(affinity, start)
    returned = copy_global(transposed(affinity, size), arrived)
    return (returned.flatten(2) - start).abs().mean((1, 2))
