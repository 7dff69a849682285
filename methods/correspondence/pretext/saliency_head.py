"""MUG's head: a frame's saliency, read with the help of a memory of the video's other frames.

Source: Lu, Wang, Shen, Tai, Crandall, Hoi: Learning video object segmentation from unlabeled
videos, CVPR 2020, as its released code builds it. How the parts are wired inside is known in
outline alone; where the outline leaves room, the simplest reading is taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _convolution(
    channels: int, out: int, kernel: int | tuple[int, int], dilation: int = 1
) -> nn.Conv2d:
    """A convolution that keeps the size."""
    tall, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (tall // 2 * dilation, wide // 2 * dilation)
    return nn.Conv2d(channels, out, (tall, wide), padding=padding, dilation=dilation)


class MemoryEncoder(nn.Module):
    """Keys and values of a feature map at half its size.

    Args:
        channels: of the map.
        keys: channels of a key.
        values: channels of a value.
    """

    def __init__(self, channels: int, keys: int = 32, values: int = 128) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.key = _convolution(channels, keys, 3)
        self.value = _convolution(channels, values, 3)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, h, w)`` to keys ``(B, K, h / 2, w / 2)`` and values ``(B, V, h / 2, w / 2)``."""
        pooled = self.pool(maps)
        return self.key(pooled), self.value(pooled)


def global_appearance(values: Tensor) -> Tensor:
    """What values hold in all, regardless of where and when.

    Args:
        values: ``(B, V, ...)``.

    Returns:
        Their mean over all further dimensions as unit vectors, float32 ``(B, V)``.
    """
    return F.normalize(values.flatten(2).float().mean(2), dim=1)


class ExemplarAttention(nn.Module):
    """Attention of a frame to the memory, by a learned bilinear form.

    Of the two softmaxes of the released code, over the memory and over the frame, the first
    reads the memory for the frame; the second reads the frame for the memory, which nothing here
    would use.

    Args:
        keys: channels of a key.
    """

    def __init__(self, keys: int = 32) -> None:
        super().__init__()
        self.form = nn.Linear(keys, keys, bias=False)

    def forward(self, key: Tensor, memory_keys: Tensor, memory_values: Tensor) -> Tensor:
        """What the frame's cells read.

        Args:
            key: of the frame, ``(B, K, h, w)``.
            memory_keys: ``(B, M, K, h, w)`` of M frames.
            memory_values: ``(B, M, V, h, w)``.

        Returns:
            ``(B, V, h, w)``.
        """
        keys = memory_keys.transpose(1, 2).flatten(2)  # (B, K, M * h * w)
        values = memory_values.transpose(1, 2).flatten(2)
        attention = F.softmax(self.form(key.flatten(2).mT) @ keys, dim=2)
        return torch.unflatten(values @ attention.mT, 2, key.shape[2:])


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            _convolution(channels, channels, 3),
            nn.ReLU(),
            _convolution(channels, channels, 3),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, h, w)`` to the same shape."""
        changed: Tensor = self.layers(maps)
        return maps + changed


class Fusion(nn.Module):
    """Joins what comes from above with an earlier stage's features.

    Args:
        channels: from above, and out.
        stage: of the earlier stage.
    """

    def __init__(self, channels: int, stage: int) -> None:
        super().__init__()
        self.stage = _convolution(stage, channels, 3)
        self.before = Residual(channels)
        self.after = Residual(channels)

    def forward(self, above: Tensor, stage: Tensor) -> Tensor:
        """``(B, C, h', w')`` and ``(B, S, h, w)`` to ``(B, C, h, w)``."""
        resized = F.interpolate(above, stage.shape[2:], mode="bilinear", align_corners=False)
        joined: Tensor = self.after(resized + self.before(self.stage(stage)))
        return joined


class GlobalConvolution(nn.Module):
    """A large kernel from two pairs of one-dimensional ones.

    Source: Peng, Zhang, Yu, Luo, Sun: Large kernel matters, CVPR 2017.

    Args:
        channels: in.
        out: channels out.
        kernel: length of the one-dimensional kernels.
    """

    def __init__(self, channels: int, out: int = 64, kernel: int = 7) -> None:
        super().__init__()
        self.tall_first = nn.Sequential(
            _convolution(channels, out, (kernel, 1)), _convolution(out, out, (1, kernel))
        )
        self.wide_first = nn.Sequential(
            _convolution(channels, out, (1, kernel)), _convolution(out, out, (kernel, 1))
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, out, h, w)``."""
        summed: Tensor = self.tall_first(maps) + self.wide_first(maps)
        return summed


class SaliencyHead(nn.Module):
    """From the stages of a frame and of exemplar frames to the frame's saliency logit.

    Args:
        channels: of stages 2, 3 and 4.
        keys: channels of a key.
        values: channels of a value.
        width: channels before the last layer.
        dilations: of the last layer's 3 x 3 convolutions, whose results are summed.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        keys: int = 32,
        values: int = 128,
        width: int = 64,
        dilations: tuple[int, ...] = (6, 12, 18),
    ) -> None:
        super().__init__()
        second, third, fourth = channels
        self.memory = MemoryEncoder(fourth, keys, values)
        self.attention = ExemplarAttention(keys)
        self.fuse_third = Fusion(2 * values, third)
        self.fuse_second = Fusion(2 * values, second)
        self.context = GlobalConvolution(2 * values, width)
        self.saliency = nn.ModuleList(_convolution(width, 1, 3, each) for each in dilations)

    def values(self, frames: Tensor) -> Tensor:
        """Stage 4 of frames, ``(B, T, C, h, w)``, to values ``(B, T, V, h / 2, w / 2)``."""
        values: Tensor = self.memory(frames.flatten(0, 1))[1]
        return torch.unflatten(values, 0, frames.shape[:2])

    def forward(self, stages: tuple[Tensor, Tensor, Tensor], exemplars: Tensor) -> Tensor:
        """Predict.

        Args:
            stages: 2, 3 and 4 of the frame, ``(B, C, h, w)`` each.
            exemplars: stage 4 of the M other frames, ``(B, M, C, h, w)``.

        Returns:
            Logits ``(B, 1, h, w)`` at stage 2's size.
        """
        second, third, fourth = stages
        key, value = self.memory(fourth)
        keys, values = (
            torch.unflatten(each, 0, exemplars.shape[:2])
            for each in self.memory(exemplars.flatten(0, 1))
        )
        joined = torch.cat([value, self.attention(key, keys, values)], 1)
        context = self.context(self.fuse_second(self.fuse_third(joined, third), second))
        return torch.stack([layer(context) for layer in self.saliency]).sum(0)
