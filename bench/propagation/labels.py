"""Masks to labels on the feature grid and back.

The way of resizing alone moves the score of a perfect method by several points, so each is a
named policy (see :mod:`bench.propagation.settings`) and none is mixed with another.

Shapes: ``L`` label channels, background first; ``(h, w)`` the grid; ``(H, W)`` the frame.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.propagation.settings import LabelDown, LabelUp
from bench.video import Mask


def labels_from_mask(
    mask: Mask,
    ids: tuple[int, ...],
    size: tuple[int, int],
    device: str,
    policy: LabelDown = "bilinear",
) -> Tensor:
    """Labels of a mask on the feature grid.

    Args:
        mask: uint8 ids ``(H, W)``.
        ids: object ids, in channel order.
        size: (h, w) of the grid.
        device: where the result lies.
        policy: how the mask is resized.

    Returns:
        float32 ``(1 + len(ids), h, w)``, background first.
    """
    channel_of = np.zeros(256, np.uint8)
    channel_of[list(ids)] = np.arange(1, 1 + len(ids))
    channels = torch.from_numpy(channel_of[mask]).to(device)
    return labels_from_channels(channels, 1 + len(ids), size, policy)


def labels_from_channels(
    channels: Tensor, count: int, size: tuple[int, int], policy: LabelDown
) -> Tensor:
    """The same from channel numbers: uint8 ``(H, W)`` to float32 ``(count, h, w)``."""
    if policy in ("bilinear", "bilinear_aligned"):
        one_hot = F.one_hot(channels.long(), count).permute(2, 0, 1).float()
        return resize(one_hot, size, policy)
    if policy == "stride":
        height, width = channels.shape
        small = channels[:: -(-height // size[0]), :: -(-width // size[1])]
    elif policy == "nearest":  # at pixel centres, unlike torch's "nearest"
        small = F.interpolate(channels[None, None].float(), size, mode="nearest-exact")[0, 0]
    else:
        small = resize(channels[None].float(), size)[0].trunc()
    return F.one_hot(small.long(), count).permute(2, 0, 1).float()


def resize(maps: Tensor, size: tuple[int, int], policy: LabelUp = "bilinear") -> Tensor:
    """Resize ``(L, h, w)`` maps; ``bilinear`` samples at pixel centres, as OpenCV does."""
    aligned = policy == "bilinear_aligned"
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=aligned)[0]


def stretch(maps: Tensor) -> Tensor:
    """Stretch each of ``(L, h, w)`` maps to [0, 1] by its minimum and maximum.

    Maps without a positive value stay as they are.
    """
    low = maps.amin((1, 2), keepdim=True)
    high = maps.amax((1, 2), keepdim=True)
    return torch.where(high > 0, (maps - low) / (high - low + 1e-12), maps)
