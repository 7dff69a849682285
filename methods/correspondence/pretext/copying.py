"""Copy-reconstruction: a target cell's colour as the mean of reference colours, by affinity.

Everything in this family of objectives is made of three steps: dot products of a target cell's
feature with the reference's features (an *affinity*), a softmax over the candidates, and the
weighted mean of the candidates' colours (a *copy*). Candidates are always the second dimension.

Sources: Vondrick et al., Tracking emerges by colorizing videos, ECCV 2018, equations 1 and 2
(global); Lai and Xie, Self-supervised learning for video correspondence flow, BMVC 2019, and Lai,
Lu, Xie, MAST, CVPR 2020, section 3 (inside a window).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.propagation.settings import Outside

TINY = 1e-8
"""Keeps the logarithm of a probability finite."""

SHARPNESS = 20.0
"""Both sides of the Huber loss are multiplied by it, so that it is linear beyond 1/20."""


def global_affinity(target: Tensor, reference: Tensor, scale: float = 1.0) -> Tensor:
    """Dot products of each target cell with all reference cells.

    Args:
        target: features ``(B, C, h, w)``.
        reference: features ``(B, C, ...)``; all dimensions after the second are candidates, so
            several frames go as ``(B, C, T, h, w)``.
        scale: multiplies the dot products.

    Returns:
        float32 ``(B, N, h, w)``, N being the number of candidates.
    """
    # Sharp softmaxes cannot do with the three digits of bfloat16.
    with torch.autocast(target.device.type, enabled=False):
        dots = reference.flatten(2).float().mT @ target.flatten(2).float()
    return torch.unflatten(scale * dots, 2, target.shape[2:])


def copy_global(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of all reference values.

    Args:
        weights: of the candidates, ``(B, N, h, w)``; mostly a softmax over the second dimension.
        values: of the reference, ``(B, L, ...)`` with N values after the second dimension.

    Returns:
        float32 ``(B, L, h, w)``.
    """
    with torch.autocast(weights.device.type, enabled=False):
        copied = values.flatten(2).float() @ weights.flatten(2).float()
    return torch.unflatten(copied, 2, weights.shape[2:])


def local_affinity(
    target: Tensor,
    reference: Tensor,
    radius: int,
    scale: float = 1.0,
    outside: Outside = "exclude",
) -> Tensor:
    """Dot products of each target cell with the reference cells around the same place.

    Each row of the target meets each row within the radius as a whole, in one matrix product, of
    which the band of near columns is kept. That is more arithmetic than needed, but it takes less
    time and memory than one pass over the features per candidate.

    Args:
        target: features ``(B, C, h, w)``.
        reference: features ``(B, C, h, w)``.
        radius: R; the window has 2R + 1 cells a side.
        scale: multiplies the dot products.
        outside: candidates beyond the border get minus infinity (``"exclude"``) or 0 (``"zero"``,
            where they take weight away in a softmax).

    Returns:
        float32 ``(B, (2R + 1)^2, h, w)``; candidates row by row, from the upper left.
    """
    height, width = target.shape[2:]
    side = 2 * radius + 1
    queries = target.permute(0, 2, 3, 1).float()
    keys = F.pad(reference.float(), (radius,) * 4).permute(0, 2, 1, 3)
    rows = []
    with torch.autocast(target.device.type, enabled=False):
        for dy in range(side):
            dots = queries @ keys[:, dy : dy + height]  # (B, h, w, w + 2R)
            rows.append(_band(dots, side))
    affinity = scale * torch.cat(rows, 3).permute(0, 3, 1, 2)
    if outside == "exclude":
        inside = inside_map(height, width, radius, target.device)
        affinity = affinity.masked_fill(~inside, -torch.inf)
    return affinity


def copy_local(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of the reference values around the same place.

    Args:
        weights: of the candidates, ``(B, (2R + 1)^2, h, w)``, see :func:`local_affinity`.
        values: of the reference, ``(B, L, h, w)``; zero beyond the border.

    Returns:
        float32 ``(B, L, h, w)``.
    """
    height = weights.shape[2]
    side = round(weights.shape[1] ** 0.5)
    radius = side // 2
    bands = torch.unflatten(weights.permute(0, 2, 3, 1).float(), 3, (side, side))
    padded = F.pad(values.float(), (radius,) * 4).permute(0, 2, 3, 1)
    copied = torch.zeros((), device=weights.device)
    with torch.autocast(weights.device.type, enabled=False):
        for dy in range(side):
            dense = _from_band(bands[:, :, :, dy])  # (B, h, w, w + 2R)
            copied = copied + dense @ padded[:, dy : dy + height]
    return copied.permute(0, 3, 1, 2)


def _band(dense: Tensor, side: int) -> Tensor:
    """Columns x to x + side - 1 of row x: ``(..., w, w + side - 1)`` to ``(..., w, side)``.

    Read with rows one element longer than they are, each row starts one column later.
    """
    rows, columns = dense.shape[-2:]
    longer = F.pad(dense.flatten(-2), (0, rows))
    return torch.unflatten(longer, -1, (rows, columns + 1))[..., :side]


def _from_band(band: Tensor) -> Tensor:
    """The inverse of :func:`_band`: ``(..., w, side)`` to ``(..., w, w + side - 1)``, else zero."""
    rows, side = band.shape[-2:]
    longer = F.pad(band, (0, rows)).flatten(-2)[..., :-rows]
    return torch.unflatten(longer, -1, (rows, rows + side - 1))


def local_weights(
    target: Tensor, reference: Tensor, radius: int, scale: float, outside: Outside
) -> Tensor:
    """Softmax over the candidates of :func:`local_affinity`, ``(B, (2R + 1)^2, h, w)``."""
    return F.softmax(local_affinity(target, reference, radius, scale, outside), 1)


def inside_map(height: int, width: int, radius: int, device: torch.device) -> Tensor:
    """Which candidates of a window lie on the map: bool ``((2R + 1)^2, h, w)``."""
    around = torch.arange(-radius, radius + 1, device=device)
    ys = around[:, None] + torch.arange(height, device=device)
    xs = around[:, None] + torch.arange(width, device=device)
    on_rows, on_columns = (ys >= 0) & (ys < height), (xs >= 0) & (xs < width)
    return (on_rows[:, None, :, None] & on_columns[None, :, None, :]).flatten(0, 1)


def subsample(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Every s-th row and column, from the first, so that values fit on a feature map.

    Args:
        values: ``(..., H, W)``.
        size: (h, w) with h the ceiling of H / s and w that of W / s.
    """
    rows, columns = (
        -(-length // cells) for length, cells in zip(values.shape[-2:], size, strict=True)
    )
    return values[..., ::rows, ::columns]


def upsample(copied: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinearly at pixel centres, ``(B, L, h, w)`` to ``(B, L, H, W)``."""
    return F.interpolate(copied, size, mode="bilinear", align_corners=False)


def reconstruction_loss(copied: Tensor, true: Tensor) -> Tensor:
    """Huber loss of colours, both sides times 20 (MAST, section 3.1).

    Args:
        copied: ``(B, L, H, W)``.
        true: the same.

    Returns:
        Means by sample, ``(B,)``.
    """
    each = F.smooth_l1_loss(SHARPNESS * copied, SHARPNESS * true, reduction="none")
    return each.flatten(1).mean(1)


def likelihood_loss(copied: Tensor, ids: Tensor) -> Tensor:
    """Minus the logarithm of the copied probability of the true colour (VidColor, equation 3).

    Args:
        copied: probabilities ``(B, K, H, W)``.
        ids: the true colours' numbers, int64 ``(B, H, W)``.

    Returns:
        Means by sample, ``(B,)``.
    """
    likelihood = copied.gather(1, ids[:, None])[:, 0]
    return -(likelihood + TINY).log().flatten(1).mean(1)


def local_reconstruction(weights: Tensor, colours: Tensor) -> Tensor:
    """Reconstruct a frame's colours from another frame's, inside a window (MAST, section 3.1).

    Args:
        weights: softmax of :func:`local_affinity`, ``(B, (2R + 1)^2, h, w)``.
        colours: of the reference, ``(B, L, H, W)``; those at every s-th pixel are copied.

    Returns:
        ``(B, L, H, W)``.
    """
    values = subsample(colours, (weights.shape[2], weights.shape[3]))
    return upsample(copy_local(weights, values), (colours.shape[2], colours.shape[3]))
