"""From 2D to 3D: how the frames of a clip see each other.

All modules work on maps whose batch folds the clips, clip-major: ``(B T, C, h, w)``. So the rest
of a network, batch normalisation included, needs no change: over folded frames 2D statistics are
3D statistics.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import MethodError

KERNEL_FRAMES = 3
HEADS = 4
LARGEST_WIDTH = 256
LONGEST_CLIP = 32
SHIFT_SHARE = 8


class ClipLength:
    """T of the clips in the batch that goes through the network; shared by all its modules."""

    def __init__(self) -> None:
        self.frames = 1


def _as_clips(maps: Tensor, clip: ClipLength) -> Tensor:
    """``(B T, C, h, w)`` as ``(B, T, C, h, w)``."""
    return maps.reshape(-1, clip.frames, *maps.shape[1:])


class InflatedConv2d(nn.Module):
    """A convolution over space and the three frames around each one.

    Space is padded as the 2D convolution did, time by repeating the first and the last frame. The
    stride in time is 1.

    After Carreira and Zisserman, Quo vadis, action recognition?, CVPR 2017 (I3D).

    Args:
        conv: the 2D convolution; its bias is taken over.
        clip: says how many frames a clip has when the module is called.
        inflation: ``"mean"`` shares the kernel out over the frames, which gives the 2D result on
            static clips. ``"center"`` leaves it to the centre frame, which gives it on any clip.
    """

    def __init__(
        self, conv: nn.Conv2d, clip: ClipLength, inflation: Literal["center", "mean"]
    ) -> None:
        super().__init__()
        kernel = conv.weight.detach()
        if inflation == "mean":
            inflated = torch.stack([kernel / KERNEL_FRAMES] * KERNEL_FRAMES, dim=2)
        else:
            inflated = torch.stack([torch.zeros_like(kernel), kernel, torch.zeros_like(kernel)], 2)
        self.weight = nn.Parameter(inflated)
        self.bias = conv.bias
        self.clip = clip
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.dilation, self.groups = conv.dilation, conv.groups
        assert not isinstance(conv.padding, str)
        self.padding = conv.padding
        # TensorFlow's "same" padding, which depends on the size of the map (timm's Conv2dSame).
        self.same_padding = type(conv).__name__ == "Conv2dSame"

    def forward(self, maps: Tensor) -> Tensor:
        """``(B T, C, h, w)`` to ``(B T, C', h', w')``."""
        if self.same_padding:
            maps = self._pad_same(maps)
        volume = _as_clips(maps, self.clip).transpose(1, 2)
        volume = torch.cat([volume[:, :, :1], volume, volume[:, :, -1:]], dim=2)
        volume = F.conv3d(
            volume,
            self.weight,
            self.bias,
            stride=(1, *self.stride),
            padding=(0, *self.padding),
            dilation=(1, *self.dilation),
            groups=self.groups,
        )
        return volume.transpose(1, 2).flatten(0, 1)

    def _pad_same(self, maps: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):
            size, stride = maps.shape[2 + axis], self.stride[axis]
            extent = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(maps, pads)


def inflate(network: nn.Module, clip: ClipLength, inflation: Literal["center", "mean"]) -> int:
    """Replace all 2D convolutions with kernels larger than one pixel, in place.

    Linear layers and attention stay within a frame.

    Returns:
        The number of convolutions inflated.
    """
    count = 0
    for name, child in list(network.named_children()):
        if isinstance(child, nn.Conv2d):
            if max(child.kernel_size) > 1:
                setattr(network, name, InflatedConv2d(child, clip, inflation))
                count += 1
        else:
            count += inflate(child, clip, inflation)
    return count


class TemporalAttention(nn.Module):
    """Self-attention among the frames of a clip at the same position.

    A residual branch with a learned embedding of time. Its output projection starts at zero, so
    that an untrained module changes nothing.
    """

    def __init__(self, channels: int, clip: ClipLength) -> None:
        super().__init__()
        width = min(channels, LARGEST_WIDTH)
        self.clip = clip
        self.norm = nn.LayerNorm(channels)
        self.time = nn.Parameter(torch.empty(LONGEST_CLIP, channels))
        self.query_key_value = nn.Linear(channels, 3 * width)
        self.projection = nn.Linear(width, channels)
        nn.init.trunc_normal_(self.time, std=0.02)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B T, C, h, w)``, same shape.

        Raises:
            MethodError: the clip is longer than the embedding of time.
        """
        frames = self.clip.frames
        if frames > LONGEST_CLIP:
            raise MethodError(
                "temporal attention",
                f"a clip of {frames} frames",
                f"at most {LONGEST_CLIP}",
                "Hand the network shorter clips.",
            )
        height, width = maps.shape[-2:]
        clips = _as_clips(maps, self.clip).permute(0, 3, 4, 1, 2)  # (B, h, w, T, C)
        tokens = self.norm(clips.flatten(0, 2)) + self.time[:frames]
        # (B h w, T, 3 width) to three times (B h w, heads, T, width / heads)
        parts = self.query_key_value(tokens).view(len(tokens), frames, 3, HEADS, -1)
        parts = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        branch: Tensor = self.projection(mixed.transpose(1, 2).flatten(2))
        branch = branch.view(-1, height, width, frames, maps.shape[1]).permute(0, 3, 4, 1, 2)
        return maps + branch.flatten(0, 1)


class TemporalShift(nn.Module):
    """An eighth of the channels comes from the previous frame, an eighth from the next one.

    Frames beyond the clip count as zero. After Lin et al., TSM: temporal shift module for efficient
    video understanding, ICCV 2019; here once, between encoder and decoder.
    """

    def __init__(self, channels: int, clip: ClipLength) -> None:
        super().__init__()
        self.clip = clip
        self.shifted = max(channels // SHIFT_SHARE, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B T, C, h, w)``, same shape."""
        clips = _as_clips(maps, self.clip)
        past, future = clips[:, :, : self.shifted], clips[:, :, self.shifted : 2 * self.shifted]
        rest = clips[:, :, 2 * self.shifted :]
        nothing = torch.zeros_like(past[:, :1])
        past = torch.cat([nothing, past[:, :-1]], dim=1)
        future = torch.cat([future[:, 1:], nothing], dim=1)
        return torch.cat([past, future, rest], dim=2).flatten(0, 1)
