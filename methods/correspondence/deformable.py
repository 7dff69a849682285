"""Deformable matching: a target cell looks at reference cells whose places it predicts itself.

Source: Kim, Choi, Lee, Kim, Kim: RPM-Net: Robust pixel-level matching networks for self-supervised
video object segmentation, WACV 2020. It is known to sample similar features in neighbouring pixels
with deformable convolution; how is not published. This is our reading, with the offsets of Dai et
al., Deformable convolutional networks, ICCV 2017, section 2.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeformableSampler(nn.Module):
    """Samples K x K places of a reference map for each cell of a target map.

    A 3x3 convolution of both maps, one after the other along channels, gives each sample an
    offset, which is added to a regular K x K grid around the cell. At the start all offsets are
    zero.

    Args:
        channels: of a map.
        samples: K, samples a side.
        dilation: cells between neighbours on the regular grid.
    """

    def __init__(self, channels: int, samples: int, dilation: int = 1) -> None:
        super().__init__()
        self.samples = samples
        self.dilation = dilation
        self.offsets = nn.Conv2d(2 * channels, 2 * samples * samples, 3, padding=1)
        nn.init.zeros_(self.offsets.weight)
        assert self.offsets.bias is not None
        nn.init.zeros_(self.offsets.bias)

    def forward(self, target: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Where each target cell looks, and how alike it finds what is there.

        Args:
            target: features ``(B, C, h, w)``.
            reference: features ``(B, C, h, w)``.

        Returns:
            The grid ``(B, h, w, K * K, 2)``: x before y, -1 and 1 being the centres of the
            outermost cells. And the affinity, dot products ``(B, K * K, h, w)``, unscaled.
        """
        offsets: Tensor = self.offsets(torch.cat([target, reference], 1))
        grid = self.regular_grid(target) + torch.unflatten(offsets.float(), 1, (-1, 2))
        height, width = target.shape[2:]
        last = grid.new_tensor([max(width - 1, 1), max(height - 1, 1)]).view(2, 1, 1)
        grid = (2 * grid / last - 1).permute(0, 3, 4, 1, 2)
        sampled = sample(reference, grid)
        return grid, (target.float()[..., None] * sampled).sum(1).movedim(-1, 1)

    def regular_grid(self, like: Tensor) -> Tensor:
        """Places without offsets, in cells, x before y: ``(K * K, 2, h, w)``."""
        height, width = like.shape[2:]
        y, x = torch.arange(height, device=like.device), torch.arange(width, device=like.device)
        cells = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
        around = torch.arange(self.samples, device=like.device) - (self.samples - 1) / 2
        around = self.dilation * around
        steps = torch.stack(torch.meshgrid(around, around, indexing="xy"), -1).view(-1, 2, 1, 1)
        return cells + steps


def sample(maps: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples of maps; places beyond the border are moved onto it.

    Args:
        maps: ``(B, C, h, w)``.
        grid: ``(B, h', w', N, 2)``, see :meth:`DeformableSampler.forward`.

    Returns:
        float32 ``(B, C, h', w', N)``.
    """
    sampled = F.grid_sample(
        maps.float(), grid.flatten(2, 3), padding_mode="border", align_corners=True
    )
    return torch.unflatten(sampled, 3, grid.shape[2:4])


def copy_sampled(weights: Tensor, grid: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of reference values at the sampled places.

    Args:
        weights: ``(B, N, h, w)``; mostly the softmax of a scaled affinity over dimension 1.
        grid: ``(B, h, w, N, 2)``, see :meth:`DeformableSampler.forward`.
        values: of the reference, ``(B, L, h, w)``: colours in training, labels at test time.

    Returns:
        float32 ``(B, L, h, w)``.
    """
    return (sample(values, grid) * weights.movedim(1, -1)[:, None]).sum(-1)
