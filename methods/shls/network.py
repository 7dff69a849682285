"""The networks of SHLS: backbone, superfeature embedding, feature modulator, feature decoder.

Source: Mendonça et al., SHLS: Superfeatures learned from still images for self-supervised VOS,
BMVC 2023, and for the decoder Oh et al., Video object segmentation using space-time memory
networks (STM), ICCV 2019, whose refinement it follows.

Two variants. ``paper`` is the authors' model: 244 tensors, 13,946,572 parameters at the paper's
widths. ``fixed`` differs in one module, :class:`SuperfeatureHead`: superfeatures are normalised
the same way in training and at test, and keep their sign, so that none of them is all zero.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.training import FEWEST_CHANNELS
from methods.shls.pooling import INFO_CHANNELS, segment_mean

Variant = Literal["paper", "fixed"]

ATTENTION_CHANNELS = 4
"""Per object: k-NN similarity to it, to the best other class, and the same for centroids."""

MASK_CHANNELS = 2
"""The object's mask in the first frame and in the previous one."""


class NetworkSettings(MethodSettings):
    """Sizes of the networks; the defaults are the paper's.

    Attributes:
        width: channels of the backbone's first stage; stages have 1, 2, 4 and 4 times as many.
        superfeature_size: S, the number of values that describe a superpixel.
        modulator_width: channels inside the feature modulator.
        decoder_width: channels of the decoder.
        decoder_skip_width: channels of the decoder's half-resolution skip.
        variant: ``"paper"`` or ``"fixed"``.
    """

    width: int = Field(default=64, ge=FEWEST_CHANNELS)
    superfeature_size: int = Field(default=32, ge=2)
    modulator_width: int = Field(default=32, ge=1)
    decoder_width: int = Field(default=256, ge=4)
    decoder_skip_width: int = Field(default=128, ge=4)
    variant: Variant = "fixed"

    @property
    def full_channels(self) -> int:
        """Channels of the full-resolution map: features and superpixel info (67 in the paper)."""
        return self.width + INFO_CHANNELS

    @property
    def quarter_channels(self) -> int:
        """Channels of the quarter-resolution map: features and superpixel info (259)."""
        return 4 * self.width + INFO_CHANNELS


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, channels_in, H, W)`` to ``(B, channels_out, ceil(H/stride), ceil(W/stride))``."""
        return F.relu_(self.left(maps) + self.shortcut(maps))


def _stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(channels_in, channels_out, stride), BasicBlock(channels_out, channels_out)
    )


class Backbone(nn.Module):
    """A ResNet-18 without max-pooling that stays at strides 2 and 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 1)
        self.layer4 = _stage(4 * width, 4 * width, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps at strides 2 and 4.

        Args:
            image: float ``(B, 3, H, W)``, normalised RGB.

        Returns:
            ``(B, width, H/2, W/2)`` and ``(B, 4 width, H/4, W/4)``; sizes are rounded up.
        """
        half = self.layer1(self.conv1(image))
        return half, self.layer4(self.layer3(self.layer2(half)))


class PerSuperpixelNorm(nn.Module):
    """Batch normalisation as the authors apply it: to one superpixel at a time.

    With a single channel and a single superpixel it is layer normalisation over the S entries
    with a scalar weight and bias while training, and a constant shift and scale at test. The
    running statistics follow the last superpixels seen, in order, with momentum 0.1.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum = 0.1
    epsilon = 1e-5

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("running_mean", torch.zeros(1))
        self.register_buffer("running_var", torch.ones(1))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def forward(self, values: Tensor) -> Tensor:
        """Normalise ``(N, S)``, row by row."""
        if not self.training:
            scale = torch.rsqrt(self.running_var + self.epsilon)
            return (values - self.running_mean) * scale * self.weight + self.bias
        self._track(values.detach())
        size = values.shape[-1:]
        return F.layer_norm(values, size, eps=self.epsilon) * self.weight + self.bias

    def _track(self, values: Tensor) -> None:
        """N momentum updates, one per row, in closed form."""
        count = values.shape[0]
        ages = torch.arange(count - 1, -1, -1, device=values.device, dtype=values.dtype)
        shares = self.momentum * (1 - self.momentum) ** ages
        kept = (1 - self.momentum) ** count
        self.running_mean.mul_(kept).add_((shares * values.mean(1)).sum())
        self.running_var.mul_(kept).add_((shares * values.var(1)).sum())
        self.num_batches_tracked += count


class SuperfeatureHead(nn.Module):
    """One level's part of a superfeature: a linear map of a superpixel's mean features.

    ``paper``: :class:`PerSuperpixelNorm` and ReLU. ``fixed``: layer normalisation, which is the
    same function in training and at test, and no ReLU.
    """

    def __init__(self, channels: int, size: int, variant: Variant) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, size)
        self.norm: nn.Module = PerSuperpixelNorm() if variant == "paper" else nn.LayerNorm(size)
        self.rectified = variant == "paper"

    def forward(self, pooled: Tensor) -> Tensor:
        """``(N, channels)`` to ``(N, S)``."""
        values = self.norm(self.linear(pooled))
        return F.relu_(values) if self.rectified else values


class SuperfeatureEmbedding(nn.Module):
    """Superfeatures: S values per superpixel from its mean features at two levels (section 3.3).

    Args:
        full_channels: of the full-resolution map, superpixel info included.
        quarter_channels: of the quarter-resolution map, superpixel info included.
        size: S.
        variant: see :class:`SuperfeatureHead`.
    """

    def __init__(
        self, full_channels: int, quarter_channels: int, size: int, variant: Variant
    ) -> None:
        super().__init__()
        self.full = SuperfeatureHead(full_channels, size, variant)
        self.quarter = SuperfeatureHead(quarter_channels, size, variant)
        self.combine = nn.Conv2d(2, 1, 1)
        self.rectified = variant == "paper"

    def forward(
        self, full: Tensor, quarter: Tensor, superpixels: Tensor, small_superpixels: Tensor
    ) -> Tensor:
        """Embed the superpixels of one frame.

        Args:
            full: ``(full_channels, H, W)``.
            quarter: ``(quarter_channels, h, w)``.
            superpixels: int64 ``(H, W)``, ids 1 .. N.
            small_superpixels: the same map at ``(h, w)``; some ids may be gone.

        Returns:
            ``(N, S)``. In the paper's variant they are non-negative. A superpixel that vanished
            at ``(h, w)`` has no quarter-resolution part.
        """
        count = int(superpixels.max())
        pooled_full, _ = segment_mean(full, superpixels, count)
        pooled_quarter, sizes = segment_mean(quarter, small_superpixels, count)
        seen = sizes > 0
        first = self.full(pooled_full)
        second = torch.zeros_like(first)
        second[seen] = self.quarter(pooled_quarter[seen])
        weight = self.combine.weight.view(2)
        combined = weight[0] * first + weight[1] * second + self.combine.bias
        return F.relu_(combined) if self.rectified else combined


class FeatureModulator(nn.Module):
    """Gates the quarter-resolution features of two frames by their attention (section 3.7)."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        width = settings.modulator_width
        self.attention = nn.Conv2d(ATTENTION_CHANNELS, width, 3, 2, 1)
        self.features = nn.Conv2d(settings.full_channels, width, 3, 2, 1)
        self.gate = nn.Conv2d(width, settings.quarter_channels, 3, 2, 1)

    def forward(self, attention: Tensor, full: Tensor, quarter: Tensor) -> Tensor:
        """Gate a frame's features; previous and current frame go through it alike.

        Args:
            attention: ``(B, 4, h, w)``.
            full: ``(B, width + 3, h, w)``.
            quarter: ``(B, 4 width + 3, h/4, w/4)``.

        Returns:
            ``(B, 4 width + 3, h/4, w/4)``.
        """
        hidden = self.features(full) + self.attention(attention)
        return torch.softmax(self.gate(hidden), dim=1) * quarter


class ResidualBlock(nn.Module):
    """``x + f(relu(x))``, where f is twice convolution, normalisation and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def convolution() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, channels, 3, 1, 1),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )

        self.conv1 = convolution()
        self.conv2 = convolution()

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, channels, H, W)``, same shape."""
        return maps + self.conv2(self.conv1(F.relu(maps)))


class Refine(nn.Module):
    """Brings a coarse map to the resolution of a skip connection and merges both (STM)."""

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, channels, 3, 1, 1)
        self.skip_residual = ResidualBlock(channels)
        self.merged_residual = ResidualBlock(channels)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """``(B, skip_channels, 2h, 2w)`` and ``(B, C, h, w)`` to ``(B, C, 2h, 2w)``."""
        finer = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.merged_residual(self.skip_residual(self.skip(skip)) + finer)


class FeatureDecoder(nn.Module):
    """From features, masks and attention of one object in its ROI to its mask (section 3.8)."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        width, skip_width = settings.decoder_width, settings.decoder_skip_width
        full = MASK_CHANNELS + settings.full_channels
        self.skip_stage = _stage(full, skip_width, 2)
        self.fuse = nn.Conv2d(3 * settings.quarter_channels, width, 3, 1, 1)
        self.residual = ResidualBlock(width)
        self.refine_half = Refine(skip_width, width)
        self.refine_full = Refine(full + ATTENTION_CHANNELS, width)
        self.predict = nn.Conv2d(width, 2, 3, 1, 1)

    def forward(self, quarter: Tensor, full: Tensor, attention: Tensor) -> Tensor:
        """Decode objects.

        Args:
            quarter: ``(B, 3 (4 width + 3), h/4, w/4)``: the first frame's features, then the
                previous and the current frame's after the modulator.
            full: ``(B, 2 + width + 3, h, w)``: first mask, previous mask, first frame's features.
            attention: ``(B, 4, h, w)`` of the current frame. h and w are multiples of 4.

        Returns:
            Logits ``(B, 2, h, w)``: background, object.
        """
        maps = self.residual(self.fuse(quarter))
        maps = self.refine_half(self.skip_stage(full), maps)
        maps = self.refine_full(torch.cat([full, attention], dim=1), maps)
        return self.predict(maps)


class SHLSNetwork(nn.Module):
    """All that is learned: backbone, superfeature embedding, feature modulator, feature decoder."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.width)
        self.superfeatures = SuperfeatureEmbedding(
            settings.full_channels,
            settings.quarter_channels,
            settings.superfeature_size,
            settings.variant,
        )
        self.modulator = FeatureModulator(settings)
        self.decoder = FeatureDecoder(settings)
