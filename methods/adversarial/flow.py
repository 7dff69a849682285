"""Maps of a clip's earlier frame, moved along optical flow to the next one.

Sources: Xing et al., Domain adaptive video segmentation via temporal pseudo supervision (TPS),
ECCV 2022, for pseudo-labels that come from an earlier frame; Kroeger et al., Fast optical flow
using dense inverse search, ECCV 2016, for the flow; Sundaram et al., Dense point trajectories by
GPU-accelerated large displacement optical flow, ECCV 2010, for what is visible in both frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RELATIVE_ERROR, ABSOLUTE_ERROR = 0.01, 0.5
"""A pixel is hidden in the other frame where flow there and back misses it by more than these: the
first times both flows' squared lengths, plus the second in squared pixels (Sundaram et al.)."""


class Moved(NamedTuple):
    """Maps of every frame but a clip's last, as they would look one frame later.

    Attributes:
        maps: float ``(B (T - 1), C, H, W)``.
        known: bool ``(B (T - 1), H, W)``; False where the later frame shows what the earlier one
            does not.
    """

    maps: Tensor
    known: Tensor


def moved_to_next_frame(maps: Tensor, frames: Tensor) -> Moved:
    """Move maps of clips on by one frame.

    Args:
        maps: float ``(B T, C, H, W)``, clip-major.
        frames: uint8 RGB ``(B, T, 3, H, W)``, T at least 2; flow is computed on the CPU.
    """
    earlier, later = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    back, forth = optical_flow(later, earlier), optical_flow(earlier, later)
    clips = maps.reshape(-1, frames.shape[1], *maps.shape[1:])
    return Moved(warp(clips[:, :-1].flatten(0, 1), back), visible(back, forth))


def optical_flow(source: Tensor, target: Tensor) -> Tensor:
    """Where each pixel of ``source`` is in ``target``.

    Args:
        source: uint8 RGB ``(N, 3, H, W)``.
        target: of the same shape.

    Returns:
        float32 ``(N, 2, H, W)``, (x, y) in pixels, on the device of ``source``.
    """
    # Measures of gaps come with it, which need libraries that a training does not.
    from bench.gap.motion_blur import dis_flow

    pictures = [
        np.ascontiguousarray(frames.permute(0, 2, 3, 1).cpu().numpy())
        for frames in (source, target)
    ]
    flows = np.stack([dis_flow(one, other) for one, other in zip(*pictures, strict=True)])
    return torch.from_numpy(flows).permute(0, 3, 1, 2).to(source.device)


def warp(maps: Tensor, flow: Tensor) -> Tensor:
    """Take from each pixel's place plus its flow, bilinearly; beyond the border, from the border.

    Args:
        maps: float ``(N, C, H, W)``.
        flow: float ``(N, 2, H, W)``, (x, y) in pixels.

    Returns:
        float32 ``(N, C, H, W)``.
    """
    height, width = maps.shape[-2:]
    places = flow.float() + _pixels(flow)
    scale = torch.tensor([width - 1, height - 1], device=flow.device).clamp(min=1)
    grid = 2 * places.movedim(1, -1) / scale - 1
    return F.grid_sample(maps.float(), grid, "bilinear", "border", align_corners=True)


def visible(flow: Tensor, back: Tensor) -> Tensor:
    """Whether flow there and flow back lead to where they started.

    Args:
        flow: float ``(N, 2, H, W)`` from one frame to another, (x, y) in pixels.
        back: the other frame's flow to the first.

    Returns:
        bool ``(N, H, W)``, False also where the flow leaves the frame.
    """
    returned = warp(back, flow)
    error = (flow + returned).square().sum(1)
    lengths = flow.square().sum(1) + returned.square().sum(1)
    places = flow + _pixels(flow)
    height, width = flow.shape[-2:]
    inside = (places >= 0).all(1) & (places[:, 0] <= width - 1) & (places[:, 1] <= height - 1)
    return inside & (error <= RELATIVE_ERROR * lengths + ABSOLUTE_ERROR)


def _pixels(flow: Tensor) -> Tensor:
    """Coordinates of all pixels, ``(2, H, W)``, x before y."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device),
        torch.arange(width, device=flow.device),
        indexing="ij",
    )
    return torch.stack([x, y])
