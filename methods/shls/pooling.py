"""From pixels to superpixels and back: means, information channels, painting.

A superpixel map is an int64 tensor ``(H, W)`` with the ids 1 .. N. Per-superpixel values are
tensors whose row ``i`` belongs to superpixel ``i + 1``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

INFO_CHANNELS = 3
"""Area, row and column of a superpixel, relative to the frame."""


def segment_sum(maps: Tensor, superpixels: Tensor, count: int) -> Tensor:
    """Sum of each channel over each superpixel.

    Args:
        maps: float ``(C, H, W)``.
        superpixels: int64 ``(H, W)``, ids 1 .. ``count``.
        count: number of superpixels.

    Returns:
        float32 ``(count, C)``, whatever the type of ``maps``.
    """
    values = maps.flatten(1).t().float()
    sums = values.new_zeros(count, maps.shape[0])
    return sums.index_add_(0, superpixels.flatten() - 1, values)


def segment_mean(maps: Tensor, superpixels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean of each channel over each superpixel, and the superpixels' sizes.

    Args:
        maps: float ``(C, H, W)``.
        superpixels: int64 ``(H, W)``, ids among 1 .. ``count``.
        count: number of superpixels.

    Returns:
        ``(count, C)``, zero where a superpixel has no pixel; and float ``(count,)`` in pixels.
    """
    sizes = superpixel_sizes(superpixels, count)
    return segment_sum(maps, superpixels, count) / sizes.clamp(min=1)[:, None], sizes


def superpixel_sizes(superpixels: Tensor, count: int) -> Tensor:
    """Number of pixels of each superpixel, float ``(count,)``."""
    return torch.bincount(superpixels.flatten(), minlength=count + 1)[1:].float()


def superpixel_info(superpixels: Tensor, count: int) -> Tensor:
    """Where each superpixel lies and how large it is (section 3.2), the same for all its pixels.

    Args:
        superpixels: int64 ``(H, W)``, ids among 1 .. ``count``.
        count: number of superpixels.

    Returns:
        float ``(count, 3)``: area / (H W), mean row / (H - 1), mean column / (W - 1).
    """
    height, width = superpixels.shape
    device = superpixels.device
    rows = torch.arange(height, device=device, dtype=torch.float32) / max(height - 1, 1)
    columns = torch.arange(width, device=device, dtype=torch.float32) / max(width - 1, 1)
    # Sums over some 10^5 pixels lose digits in float32; the positions are the only large sums.
    ids = superpixels.flatten()
    sizes = superpixel_sizes(superpixels, count)
    info = torch.empty(count, INFO_CHANNELS, device=device)
    info[:, 0] = sizes / (height * width)
    for channel, positions in ((1, rows[:, None]), (2, columns[None, :])):
        weights = positions.expand(height, width).flatten()
        sums = torch.bincount(ids, weights.double(), minlength=count + 1)[1:]
        info[:, channel] = (sums / sizes.clamp(min=1)).float()
    return info


def paint(values: Tensor, superpixels: Tensor) -> Tensor:
    """Give every pixel the values of its superpixel.

    Args:
        values: ``(N,)`` or ``(N, C)``.
        superpixels: int64 ``(H, W)``, ids 1 .. N.

    Returns:
        ``(H, W)`` or ``(C, H, W)``.
    """
    painted = values[superpixels - 1]
    return painted if values.ndim == 1 else painted.permute(2, 0, 1)


def shrink_superpixels(superpixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The superpixel map at a smaller size, by nearest neighbour; small superpixels may vanish."""
    # float64 holds every id exactly; nearest interpolation has no integer kernel.
    resized = F.interpolate(superpixels[None, None].double(), size=size, mode="nearest")
    return resized[0, 0].long()


def majority(superpixels: Tensor, labels: Tensor, count: int, classes: int) -> Tensor:
    """The most frequent label of each superpixel; the lowest one where several are.

    Args:
        superpixels: int64 ``(H, W)``, ids 1 .. ``count``.
        labels: int64 ``(H, W)`` in 0 .. ``classes`` - 1.
        count: number of superpixels.
        classes: number of labels.

    Returns:
        int64 ``(count,)``.
    """
    keys = (superpixels - 1) * classes + labels
    histogram = torch.bincount(keys.flatten(), minlength=count * classes)
    return histogram.view(count, classes).argmax(1)
