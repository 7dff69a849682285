"""The encoders of the correspondence systems: one ResNet, told apart by settings alone.

Source: He et al., Deep residual learning for image recognition, CVPR 2016. What the systems change
is where it halves the resolution, whether it pools after the stem, how many stages it keeps, how
it pads, and what it projects the last stage to. Parameters are named as in torchvision
(``conv1, bn1, layer3.0.conv1, layer3.0.downsample.0``), plus ``projection``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Literal, TypeAlias

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.errors import MethodError
from bench.method import MethodSettings
from bench.training import FEWEST_CHANNELS

Four: TypeAlias = tuple[int, int, int, int]
"""One number for each of the stages layer1 to layer4."""

Padding: TypeAlias = Literal["zeros", "reflect"]

BOTTLENECK_EXPANSION = 4
"""A bottleneck block puts out this many times its width."""

STEM_STRIDE = 2
POOL_STRIDE = 2


class ProjectionSettings(MethodSettings):
    """A convolution of the last stage's features.

    Attributes:
        channels: channels it puts out.
        kernel: its odd kernel size in cells.
        bias: whether it has a bias.
        unit: whether ReLU and division by the L2 norm over channels follow.
    """

    channels: int = Field(ge=1)
    kernel: Literal[1, 3] = 1
    bias: bool = True
    unit: bool = False


class EncoderSettings(MethodSettings):
    """What tells the systems' ResNets apart; the defaults are a ResNet-18 of stride 8.

    Attributes:
        block: ``"basic"`` (two 3x3 convolutions) or ``"bottleneck"`` (1x1, 3x3, 1x1).
        layers: number of blocks per stage.
        widths: channels inside the blocks per stage.
        strides: stride of the first block per stage.
        dilations: dilation of the 3x3 convolutions per stage, for bottleneck blocks. The first
            block of a stage keeps the dilation of the stage before it: a stage with stride 1 and
            dilation 2 then sees what it saw with stride 2 (Yu et al., CVPR 2017).
        pool: what follows the stem: 3x3 maximum or mean with stride 2, or nothing.
        last_stage: the last stage that is built; its output is the feature map.
        projection: what the feature map is projected with, if anything.
        padding: what convolutions see beyond the border.
    """

    block: Literal["basic", "bottleneck"] = "basic"
    layers: Four = (2, 2, 2, 2)
    widths: Four = (64, 128, 256, 512)
    strides: Four = (1, 2, 1, 1)
    dilations: Four = (1, 1, 1, 1)
    pool: Literal["max", "mean", "none"] = "max"
    last_stage: int = Field(default=4, ge=1, le=4)
    projection: ProjectionSettings | None = None
    padding: Padding = "zeros"

    @model_validator(mode="after")
    def _fit_together(self) -> EncoderSettings:
        for name in ("layers", "widths", "strides", "dilations"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.block == "basic" and max(self.dilations) > 1:
            raise ValueError("dilations are for bottleneck blocks")
        if min(self.widths) < FEWEST_CHANNELS:
            raise ValueError(f"widths must be at least {FEWEST_CHANNELS}")
        return self

    @property
    def expansion(self) -> int:
        """Channels a block puts out, relative to its width."""
        return BOTTLENECK_EXPANSION if self.block == "bottleneck" else 1

    def stage_channels(self, stage: int) -> int:
        """Channels of the output of stage 1 to 4."""
        return self.expansion * self.widths[stage - 1]

    def stage_stride(self, stage: int) -> int:
        """Pixels per cell of the output of stage 1 to 4, or of the stem (0)."""
        pooled = 1 if self.pool == "none" else POOL_STRIDE
        return STEM_STRIDE * pooled * prod(self.strides[:stage])

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return self.projection.channels if self.projection else self.stage_channels(self.last_stage)

    @property
    def stride(self) -> int:
        """Pixels per feature cell."""
        return self.stage_stride(self.last_stage)


def _convolution(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "zeros",
) -> nn.Conv2d:
    """A convolution without bias whose output has ``ceil(size / stride)`` cells per side."""
    margin = dilation * (kernel - 1) // 2
    sizes = (channels_in, channels_out, kernel, stride, margin, dilation)
    return nn.Conv2d(*sizes, bias=False, padding_mode=padding)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    """1x1 convolution and batch normalisation where the shape changes, else None (identity)."""
    if stride == 1 and channels_in == channels_out:
        return None
    convolution = _convolution(channels_in, channels_out, 1, stride)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet, figure 5 left)."""

    def __init__(self, channels_in: int, width: int, stride: int, padding: Padding) -> None:
        super().__init__()
        self.conv1 = _convolution(channels_in, width, 3, stride, padding=padding)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, padding=padding)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels_in, width, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, channels_in, h, w)`` to ``(B, width, ceil(h/stride), ceil(w/stride))``."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu_(self.bn1(self.conv1(maps)))
        return F.relu_(self.bn2(self.conv2(maps)) + shortcut)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet, figure 5 right).

    The 3x3 convolution has the stride, as in torchvision.
    """

    def __init__(
        self, channels_in: int, width: int, stride: int, dilation: int, padding: Padding
    ) -> None:
        super().__init__()
        channels_out = BOTTLENECK_EXPANSION * width
        self.conv1 = _convolution(channels_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride, dilation, padding)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, channels_out, 1)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, channels_in, h, w)`` to ``(B, 4 width, ceil(h/stride), ceil(w/stride))``."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu_(self.bn1(self.conv1(maps)))
        maps = F.relu_(self.bn2(self.conv2(maps)))
        return F.relu_(self.bn3(self.conv3(maps)) + shortcut)


def _pool(kind: Literal["max", "mean", "none"]) -> nn.Module:
    pool = {"max": nn.MaxPool2d, "mean": nn.AvgPool2d, "none": nn.Identity}[kind]
    return pool(3, POOL_STRIDE, 1)


def _block(
    settings: EncoderSettings, channels_in: int, width: int, stride: int, dilation: int
) -> nn.Module:
    if settings.block == "bottleneck":
        return BottleneckBlock(channels_in, width, stride, dilation, settings.padding)
    return BasicBlock(channels_in, width, stride, settings.padding)


def _stage(settings: EncoderSettings, stage: int) -> nn.Sequential:
    """The blocks of stage 1 to 4."""
    index = stage - 1
    width, dilation = settings.widths[index], settings.dilations[index]
    channels_in = settings.stage_channels(index) if index else settings.widths[0]
    before = settings.dilations[max(index - 1, 0)]
    first = _block(settings, channels_in, width, settings.strides[index], before)
    others = [
        _block(settings, settings.expansion * width, width, 1, dilation)
        for _ in range(1, settings.layers[index])
    ]
    return nn.Sequential(first, *others)


class Encoder(nn.Module):
    """A ResNet that turns frames into maps of features to be matched.

    Convolutions start from He et al.'s normal distribution (ICCV 2015), by outgoing connections.

    Args:
        settings: its layout, e.g. ``ENCODERS["crw"]``.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.conv1 = _convolution(3, settings.widths[0], 7, STEM_STRIDE, padding=settings.padding)
        self.bn1 = nn.BatchNorm2d(settings.widths[0])
        self.pool = _pool(settings.pool)
        for stage in range(1, settings.last_stage + 1):
            self.add_module(f"layer{stage}", _stage(settings, stage))
        self.projection = self._build_projection()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _build_projection(self) -> nn.Conv2d | None:
        wanted = self.settings.projection
        if wanted is None:
            return None
        sizes = (self.stage_channels(self.settings.last_stage), wanted.channels, wanted.kernel)
        return nn.Conv2d(*sizes, padding=wanted.kernel // 2, bias=wanted.bias)

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return self.settings.channels

    @property
    def stride(self) -> int:
        """Pixels per feature cell."""
        return self.settings.stride

    def stage_channels(self, stage: int) -> int:
        """Channels of the output of stage 1 to 4."""
        return self.settings.stage_channels(stage)

    def forward(self, images: Tensor) -> Tensor:
        """Features of frames.

        Args:
            images: float ``(B, 3, H, W)``, prepared as the system wants them
                (:data:`methods.correspondence.inputs.PREPARATIONS`).

        Returns:
            ``(B, channels, ceil(H / stride), ceil(W / stride))``. They are divided by their L2
            norm only where the projection says so (``unit``).
        """
        last = self.settings.last_stage
        return self.project(self.forward_stages(images, (last,))[last])

    def forward_stages(self, images: Tensor, stages: Sequence[int]) -> dict[int, Tensor]:
        """Outputs of several stages, before any projection; what training objectives compare.

        Args:
            images: float ``(B, 3, H, W)``, prepared.
            stages: numbers from 1 (layer1) to ``last_stage``. Later stages are not computed.

        Returns:
            By stage, ``(B, settings.stage_channels(stage), h, w)``.

        Raises:
            MethodError: a stage that was not built.
        """
        built = range(1, self.settings.last_stage + 1)
        if not stages or any(stage not in built for stage in stages):
            raise MethodError(
                "Encoder.forward_stages",
                f"stages {list(stages)}",
                f"stages among {list(built)}",
                "Build the encoder with a larger last_stage.",
            )
        maps = self.stem(images)
        outputs: dict[int, Tensor] = {}
        for stage in range(1, max(stages) + 1):
            maps = self.get_submodule(f"layer{stage}")(maps)
            outputs[stage] = maps
        return {stage: outputs[stage] for stage in stages}

    def stem(self, images: Tensor) -> Tensor:
        """What the first stage sees of prepared frames: ``(B, widths[0], h, w)``."""
        maps: Tensor = self.pool(F.relu_(self.bn1(self.conv1(images))))
        return maps

    def project(self, maps: Tensor) -> Tensor:
        """The last stage's output ``(B, C, h, w)`` to features ``(B, channels, h, w)``."""
        wanted = self.settings.projection
        if wanted is None or self.projection is None:
            return maps
        features: Tensor = self.projection(maps)
        return F.normalize(F.relu(features)) if wanted.unit else features


_RESNET18 = EncoderSettings()
_RESNET50 = EncoderSettings(block="bottleneck", layers=(3, 4, 6, 3))

_STRIDE_4 = EncoderSettings(
    widths=(64, 128, 256, 256), pool="none", projection=ProjectionSettings(channels=64, kernel=3)
)

_UNIT_PROJECTION = ProjectionSettings(channels=512, bias=False, unit=True)
_CYCLETIME = _RESNET50.model_copy(update={"last_stage": 3, "projection": _UNIT_PROJECTION})

_STT_STRIDE_8 = {"strides": (1, 2, 2, 1), "pool": "none", "last_stage": 3}
_STT_STRIDE_4 = {"strides": (1, 1, 1, 1), "pool": "mean", "last_stage": 3}

TINY = EncoderSettings(
    layers=(1, 1, 2, 1), widths=(24, 40, 128, 128), strides=(1, 2, 1, 1), last_stage=3
)
"""A small shared encoder for controlled comparisons on a CPU.

Stride 8, 128 channels, 533,128 parameters; 7.90 GFLOP for a frame of 480x854, convolutions alone,
two operations per multiply-add. Where an objective needs a fourth stage in training,
``last_stage=4`` adds one that inference leaves out.
"""

ENCODERS: Mapping[str, EncoderSettings] = MappingProxyType(
    {
        "corrflow": _STRIDE_4,
        "cycletime": _CYCLETIME,
        "uvc": _RESNET18,
        # No code and no layout is published. This is a reading of "ResNet-101, 43 M parameters".
        "rpmnet": EncoderSettings(
            block="bottleneck",
            layers=(3, 4, 23, 3),
            dilations=(1, 1, 2, 4),
            projection=ProjectionSettings(channels=64),
        ),
        "mast": _STRIDE_4,
        "mug": _RESNET18,
        "crw": EncoderSettings(last_stage=3, padding="reflect"),
        "dul": _RESNET18,
        # No code is published and the encoder is not named; the closest system's stands in.
        "twiaa": _CYCLETIME,
        "stt_resnet18_d8": _RESNET18.model_copy(update=_STT_STRIDE_8),
        "stt_resnet18_d4": _RESNET18.model_copy(update=_STT_STRIDE_4),
        "stt_resnet50_d8": _RESNET50.model_copy(update=_STT_STRIDE_8),
        "stt_resnet50_d4": _RESNET50.model_copy(update=_STT_STRIDE_4),
        "mamp": _STRIDE_4,
        "tiny": TINY,
    }
)
"""The encoder at test time by system; CRW's and STT's training builds ``last_stage=4`` as well."""
