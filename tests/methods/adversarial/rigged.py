"""A network whose answers are known: features are the pixels themselves, bright is foreground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.video import Frame, Mask
from methods.adversarial.networks import Output
from methods.adversarial.protocols import FrameNetwork
from methods.adversarial.protocols.frames import MEAN, STD
from methods.adversarial.settings import NetworkSettings


class Rigged(nn.Module):
    """Stands in for a segmentation network.

    ``enc3`` and ``dec`` are the colours of ``stride`` x ``stride`` pixels around zero. Foreground
    is what is brighter than the middle. The semantic head, if any, knows red, green and blue.
    """

    def __init__(self, stride: int = 1, semantic: bool = False, foreground: bool = True) -> None:
        super().__init__()
        self.settings = NetworkSettings()
        self.strides = dict.fromkeys(("enc3", "dec"), stride)
        self.channels = dict.fromkeys(("enc3", "dec"), 3 * stride**2)
        self.stride = stride
        self.semantic = semantic
        self.foreground = foreground
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, frames: Tensor, taps: Sequence[str] = ()) -> Output:
        colours = self._colours(frames)
        bright = 20 * (colours.mean(1) - 0.5) * self.gain
        classes = torch.cat([torch.full_like(colours[:, :1], 0.6), colours], 1) * 20
        return Output(
            foreground=torch.stack([-bright, bright], 1) if self.foreground else None,
            semantic=classes if self.semantic else None,
            taps={tap: self.features(frames, tap) for tap in taps},
        )

    def features(self, frames: Tensor, tap: str) -> Tensor:
        centred = (self._colours(frames) - 0.5) * self.gain
        return F.pixel_unshuffle(centred, self.stride)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        return [self.gain], []

    def _colours(self, frames: Tensor) -> Tensor:
        pixels = frames.flatten(0, 1)
        return pixels * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


def rigged(
    stride: int = 1, short_side: int | None = None, clip_frames: int = 1, **heads: bool
) -> FrameNetwork:
    network: Any = Rigged(stride, **heads).eval().requires_grad_(False)
    return FrameNetwork(network, short_side, clip_frames, "cpu")


def frame(image: NDArray[np.uint8], index: int = 0) -> Frame:
    return Frame(index, f"{index:05d}", image)


def noise(size: tuple[int, int], seed: int, low: int = 0, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(low, high, (*size, 3), dtype=np.uint8)


def moving_square(
    size: tuple[int, int] = (64, 96),
    side: int = 24,
    step: tuple[int, int] = (2, 4),
    length: int = 6,
    seed: int = 0,
) -> list[tuple[NDArray[np.uint8], Mask]]:
    """Frames and masks of a bright textured square that moves over a dark texture."""
    background, texture = noise(size, seed, 0, 100), noise((side, side), seed + 1, 155, 256)
    video = []
    for index in range(length):
        y, x = 8 + step[0] * index, 8 + step[1] * index
        image, mask = background.copy(), np.zeros(size, np.uint8)
        image[y : y + side, x : x + side] = texture
        mask[y : y + side, x : x + side] = 1
        video.append((image, mask))
    return video
