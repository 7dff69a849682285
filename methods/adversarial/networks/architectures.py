"""The architectures and their sizes: which encoder goes with which decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import MethodError
from methods.adversarial.networks import mmseg_parts
from methods.adversarial.networks.decoders import (
    Classifiers,
    FusionDecoder,
    MaskTransformerDecoder,
    PoolingDecoder,
    PyramidDecoder,
)
from methods.adversarial.networks.encoders import (
    CORRESPONDENCE,
    CorrespondenceEncoder,
    MixTransformerEncoder,
    ResNetEncoder,
    SwinEncoder,
    TimmEncoder,
    VisionTransformerEncoder,
    no_imagenet_weights,
)
from methods.adversarial.settings import NetworkSettings
from methods.pretrained.imagenet import PACKAGED_ENCODER

Parts = tuple[Any, Any]
"""An encoder and a decoder; see the protocols of these names."""


@dataclass(frozen=True)
class _DeepLabSize:
    channels: int
    output_stride: int
    dilations: tuple[int, ...]
    encoder: str | None
    dropped: float


@dataclass(frozen=True)
class _SegFormerSize:
    width: int
    layers: tuple[int, int, int, int]
    channels: int
    dropped: float


@dataclass(frozen=True)
class _SegmenterSize:
    width: int
    layers: int
    heads: int
    patch: int
    side: int
    mask_layers: int
    dropped: float


@dataclass(frozen=True)
class _SwinSize:
    width: int
    layers: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int
    channels: int
    dropped: float


# The tiny sizes are this suite's own, for training on a CPU with crops of 128 pixels: without
# dropout and stochastic depth, and with no map of fewer than 16 channels. The others are those of
# the papers.
_DEEPLAB = {
    "tiny": _DeepLabSize(64, 16, (1, 2, 4, 6), PACKAGED_ENCODER, 0.0),
    "r50": _DeepLabSize(256, 8, (1, 12, 24, 36), None, 0.1),
}
_SEGFORMER = {
    "tiny": _SegFormerSize(24, (1, 1, 1, 1), 64, 0.0),
    "b0": _SegFormerSize(32, (2, 2, 2, 2), 256, 0.1),
    "b1": _SegFormerSize(64, (2, 2, 2, 2), 256, 0.1),
}
_SEGMENTER = {
    "tiny": _SegmenterSize(128, 4, 4, 8, 128, 1, 0.0),
    "s16": _SegmenterSize(384, 12, 6, 16, 512, 2, 0.1),
}
_SWIN = {
    "tiny": _SwinSize(24, (2, 2, 2, 1), (1, 2, 4, 8), 4, 48, 0.0),
    "t": _SwinSize(96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 512, 0.1),
}

SIZES: Mapping[str, tuple[str, ...]] = {
    "deeplabv3": tuple(_DEEPLAB),
    "segformer": tuple(_SEGFORMER),
    "segmenter": tuple(_SEGMENTER),
    "swin": tuple(_SWIN),
}
"""Names of sizes by architecture. ``tiny`` trains on a CPU."""


def build_parts(settings: NetworkSettings, heads: Mapping[str, int]) -> Parts:
    """The encoder and the decoder, initialised from torch's global random state.

    Args:
        settings: architecture, size, encoder and initial weights.
        heads: number of classes by name of the head.

    Raises:
        MethodError: unknown size, an encoder that does not fit, or missing initial weights.
    """
    sizes = SIZES[settings.architecture]
    if settings.size not in sizes:
        raise MethodError(
            "network.size",
            f"{settings.size!r}",
            f"one of {', '.join(sizes)} for {settings.architecture}",
            "Change network.size.",
        )
    if settings.architecture != "deeplabv3":
        if settings.encoder is not None:
            raise MethodError(
                "network.encoder",
                f"{settings.encoder!r} with {settings.architecture}",
                "None: only deeplabv3 takes another encoder",
                "Drop network.encoder, or set network.architecture to 'deeplabv3'.",
            )
        if settings.initial == "imagenet":
            raise no_imagenet_weights(f"architecture = {settings.architecture!r}")
    return _BUILDERS[settings.architecture](settings, heads)


def _deeplab(settings: NetworkSettings, heads: Mapping[str, int]) -> Parts:
    size = _DEEPLAB[settings.size]
    name = settings.encoder or size.encoder
    imagenet = settings.initial == "imagenet"
    encoder: TimmEncoder | ResNetEncoder | CorrespondenceEncoder
    if name is None:
        if imagenet:
            raise no_imagenet_weights(f"size = {settings.size!r}")
        encoder = ResNetEncoder(mmseg_parts.resnet50())
    elif name.startswith(CORRESPONDENCE):
        if imagenet:
            raise no_imagenet_weights(f"encoder = {name!r}")
        encoder = CorrespondenceEncoder(name.removeprefix(CORRESPONDENCE))
    else:
        encoder = TimmEncoder(name, imagenet, size.output_stride)
    return encoder, PoolingDecoder(
        mmseg_parts.aspp_head(encoder.channels[-1], size.channels, size.dilations),
        mmseg_parts.convolution(size.channels, size.channels, 3),
        size.channels,
        encoder.strides[-1],
        Classifiers(size.channels, heads, size.dropped),
    )


def _segformer(settings: NetworkSettings, heads: Mapping[str, int]) -> Parts:
    size = _SEGFORMER[settings.size]
    encoder = MixTransformerEncoder(
        mmseg_parts.mix_transformer(size.width, size.layers, size.dropped)
    )
    return encoder, FusionDecoder(
        mmseg_parts.segformer_head(encoder.channels[1:], size.channels),
        size.channels,
        encoder.strides[1],
        Classifiers(size.channels, heads, size.dropped),
    )


def _segmenter(settings: NetworkSettings, heads: Mapping[str, int]) -> Parts:
    size = _SEGMENTER[settings.size]
    encoder = VisionTransformerEncoder(
        mmseg_parts.vision_transformer(
            size.width, size.layers, size.heads, size.patch, size.side, size.dropped
        )
    )
    head = mmseg_parts.mask_transformer_head(
        size.width, size.width, size.mask_layers, size.heads, sum(heads.values()), size.dropped
    )
    return encoder, MaskTransformerDecoder(head, size.width, size.patch, heads)


def _swin(settings: NetworkSettings, heads: Mapping[str, int]) -> Parts:
    size = _SWIN[settings.size]
    encoder = SwinEncoder(
        mmseg_parts.swin_transformer(size.width, size.layers, size.heads, size.window, size.dropped)
    )
    return encoder, PyramidDecoder(
        mmseg_parts.uper_head(encoder.channels[1:], size.channels),
        size.channels,
        (encoder.strides[4], encoder.strides[1]),
        Classifiers(size.channels, heads, size.dropped),
    )


_BUILDERS: Mapping[str, Callable[[NetworkSettings, Mapping[str, int]], Parts]] = {
    "deeplabv3": _deeplab,
    "segformer": _segformer,
    "segmenter": _segmenter,
    "swin": _swin,
}
