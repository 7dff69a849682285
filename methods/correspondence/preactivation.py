"""VidColor's encoder: a pre-activation ResNet on grey frames.

Source: Vondrick et al., Tracking emerges by colorizing videos, ECCV 2018, in the layout of its
public TensorFlow re-implementation. Pre-activation units: He et al., Identity mappings in deep
residual networks, ECCV 2016. The re-implementation has none of the paper's 3-D convolutions.
"""

from __future__ import annotations

from math import prod

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.method import MethodSettings

EPSILON = 1e-3
"""Of batch normalisation."""

MOMENTUM = 0.003
"""Weight of a new batch in the running statistics; TensorFlow calls 1 minus it the decay (.997)."""

STEM_STRIDE = 2


class PreactivationSettings(MethodSettings):
    """Sizes of VidColor's encoder; the defaults are its own (5.1 M parameters).

    Attributes:
        widths: channels of the four stages, two units each; the stem has the first one's.
        strides: stride of the first unit of each stage.
        channels: channels of the features.
    """

    widths: tuple[int, int, int, int] = (64, 128, 256, 256)
    strides: tuple[int, int, int, int] = (2, 2, 1, 1)
    channels: int = Field(default=64, ge=1)


def _convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded with ``kernel - 1`` zeros, half of them on each side.

    TensorFlow's own ``SAME`` padding would put more zeros on the right and at the bottom where
    the stride is 2; the pixels that a cell sees would then depend on the frame's size.
    """
    convolution = nn.Conv2d(
        channels_in, channels_out, kernel, stride, (kernel - 1) // 2, bias=False
    )
    nn.init.normal_(convolution.weight, std=(2 / (kernel * kernel * channels_in)) ** 0.5)
    return convolution


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)


class PaddedShortcut(nn.Module):
    """A shortcut without parameters: mean over stride x stride cells, then zero channels.

    The new channels lie half before and half after the old ones. Blocks cut by the right or lower
    border are averaged over the cells they have.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        added = channels_out - channels_in
        self.before, self.after = added // 2, added - added // 2
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, channels_in, h, w)`` to ``(B, channels_out, ceil(h/stride), ceil(w/stride))``."""
        if self.stride > 1:
            maps = F.avg_pool2d(maps, self.stride, ceil_mode=True, count_include_pad=False)
        return F.pad(maps, (0, 0, 0, 0, self.before, self.after))


class PreactivationUnit(nn.Module):
    """Batch normalisation, ReLU and convolution, twice, added to a shortcut of the raw input.

    The shortcut is a :class:`PaddedShortcut`, or a 1x1 convolution where channels become fewer.

    Args:
        channels_in: channels taken.
        channels_out: channels put out.
        kernel: of both convolutions.
        stride: of the first convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        self.bn1 = _normalisation(channels_in)
        self.conv1 = _convolution(channels_in, channels_out, kernel, stride)
        self.bn2 = _normalisation(channels_out)
        self.conv2 = _convolution(channels_out, channels_out, kernel)
        self.shortcut: nn.Module
        if channels_out < channels_in:
            self.shortcut = _convolution(channels_in, channels_out, 1, stride)
        else:
            self.shortcut = PaddedShortcut(channels_in, channels_out, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, channels_in, h, w)`` to ``(B, channels_out, ceil(h/stride), ceil(w/stride))``."""
        residual = self.conv1(F.relu(self.bn1(maps)))
        residual = self.conv2(F.relu(self.bn2(residual)))
        features: Tensor = residual + self.shortcut(maps)
        return features


class PreactivationEncoder(nn.Module):
    """VidColor's network from grey frames to features, without any final normalisation.

    Args:
        settings: sizes.
    """

    def __init__(self, settings: PreactivationSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or PreactivationSettings()
        self.conv1 = _convolution(1, settings.widths[0], 7, STEM_STRIDE)
        self.bn1 = _normalisation(settings.widths[0])
        incoming = (settings.widths[0], *settings.widths)
        stages = [
            nn.Sequential(
                PreactivationUnit(channels_in, width, stride=stride),
                PreactivationUnit(width, width),
            )
            for channels_in, width, stride in zip(
                incoming[:-1], settings.widths, settings.strides, strict=True
            )
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.feature = PreactivationUnit(settings.widths[-1], settings.channels, kernel=1)

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return self.settings.channels

    @property
    def stride(self) -> int:
        """Pixels per feature cell; a map of H pixels has ``ceil(H / stride)`` cells."""
        return STEM_STRIDE * prod(self.settings.strides)

    def forward(self, images: Tensor) -> Tensor:
        """Features of frames.

        Args:
            images: float ``(B, 1, H, W)``, grey, prepared as ``"grey"``
                (:data:`methods.correspondence.inputs.PREPARATIONS`).

        Returns:
            ``(B, channels, ceil(H / stride), ceil(W / stride))``, not normalised.
        """
        maps = F.relu(self.bn1(self.conv1(images)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        features: Tensor = self.feature(maps)
        return features
