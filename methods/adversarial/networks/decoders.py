"""Decoders: from the encoder's four stages to the bottleneck, the last map, and the heads' logits.

Like encoders they are generators. They yield names with maps: ``neck``, ``dec``, then the logits
of each head under its name. All heads share everything before their classifiers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Stages = Iterator[tuple[str, Tensor]]


class Decoder(Protocol):
    """What a network needs of a decoder.

    Attributes:
        channels: of ``neck`` and ``dec``.
        strides: of ``neck`` and ``dec``, in pixels of the frame; logits have the latter's.
    """

    channels: tuple[int, int]
    strides: tuple[int, int]

    def stages(self, maps: Sequence[Tensor]) -> Stages:
        """``neck``, ``dec`` and logits by head, from the maps of the encoder's four stages."""


class Classifiers(nn.Module):
    """One linear classifier of positions per head, after dropping whole channels in training."""

    def __init__(self, channels: int, heads: Mapping[str, int], dropped: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropped)
        self.linear = nn.ModuleDict()
        for name, classes in heads.items():
            layer = nn.Conv2d(channels, classes, 1)
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            self.linear[name] = layer

    def stages(self, last: Tensor) -> Stages:
        """Logits ``(N, classes, h, w)`` of each head."""
        last = self.dropout(last)
        for name, layer in self.linear.items():
            yield name, layer(last)


class PoolingDecoder(nn.Module):
    """DeepLabV3: atrous spatial pyramid pooling of the deepest map, a convolution, classifiers."""

    def __init__(
        self, aspp: Any, last: nn.Module, channels: int, stride: int, classifiers: Classifiers
    ) -> None:
        super().__init__()
        self.aspp, self.last, self.classifiers = aspp, last, classifiers
        self.channels, self.strides = (channels, channels), (stride, stride)

    def stages(self, maps: Sequence[Tensor]) -> Stages:
        """See :class:`Decoder`."""
        neck = self.aspp([maps[-1]])
        yield "neck", neck
        last = self.last(neck)
        yield "dec", last
        yield from self.classifiers.stages(last)


class FusionDecoder(nn.Module):
    """SegFormer: four maps brought to one grid and fused; the bottleneck is the last map."""

    def __init__(self, fusion: Any, channels: int, stride: int, classifiers: Classifiers) -> None:
        super().__init__()
        self.fusion, self.classifiers = fusion, classifiers
        self.channels, self.strides = (channels, channels), (stride, stride)

    def stages(self, maps: Sequence[Tensor]) -> Stages:
        """See :class:`Decoder`."""
        fused = self.fusion(maps)
        yield "neck", fused
        yield "dec", fused
        yield from self.classifiers.stages(fused)


class PyramidDecoder(nn.Module):
    """UPerNet: pyramid pooling of the deepest map, then a feature pyramid down to the finest."""

    def __init__(
        self, pyramid: Any, channels: int, strides: tuple[int, int], classifiers: Classifiers
    ) -> None:
        super().__init__()
        self.pyramid, self.classifiers = pyramid, classifiers
        self.channels, self.strides = (channels, channels), strides

    def stages(self, maps: Sequence[Tensor]) -> Stages:
        """See :class:`Decoder`."""
        neck = self.pyramid.psp_forward(maps)
        yield "neck", neck
        level, levels = neck, [neck]  # coarsest last
        convolutions = zip(self.pyramid.lateral_convs, self.pyramid.fpn_convs, strict=True)
        for features, (lateral, smooth) in reversed(
            list(zip(maps[:-1], convolutions, strict=True))
        ):
            level = lateral(features) + _resize(level, features)
            levels.insert(0, smooth(level))
        last = self.pyramid.fpn_bottleneck(
            torch.cat([_resize(m, levels[0]) for m in levels], dim=1)
        )
        yield "dec", last
        yield from self.classifiers.stages(last)


class CosineScale(nn.Module):
    """A learned factor and offset per class for cosines."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((classes,), 10.0))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, cosines: Tensor) -> Tensor:
        """``(..., classes)``, same shape."""
        return cosines * self.weight + self.bias


def mask_norm(classes: int) -> nn.Module:
    """How Segmenter's mask scores are scaled: layer normalisation over the classes.

    Over two classes that would be the sign of their difference, which passes next to no gradient;
    a learned scale takes its place there.
    """
    return nn.LayerNorm(classes) if classes > 2 else CosineScale(classes)


class MaskTransformerDecoder(nn.Module):
    """Segmenter: patches and class embeddings attend to each other; their cosines are the masks.

    The bottleneck is the encoder's output after its final normalisation, ``dec`` the patches after
    the mask Transformer, before projection. Each head has class embeddings of its own; the
    embeddings of all heads attend together.

    Args:
        head: :func:`~methods.adversarial.networks.mmseg_parts.mask_transformer_head` with one class
            embedding for each class of each head.
        width: channels of the encoder's tokens.
        stride: side of a patch.
        heads: classes of each head.
    """

    def __init__(self, head: Any, width: int, stride: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = head
        self.mask_norms = nn.ModuleDict({name: mask_norm(count) for name, count in heads.items()})
        self.classes = dict(heads)
        self.channels = (width, head.dec_proj.out_features)
        self.strides = (stride, stride)

    def stages(self, maps: Sequence[Tensor]) -> Stages:
        """See :class:`Decoder`."""
        head, size = self.head, _size(maps[-1])
        tokens = self.norm(maps[-1].flatten(2).transpose(1, 2))
        yield "neck", _as_map(tokens, size)
        embeddings = head.cls_emb.expand(len(tokens), -1, -1)
        tokens = torch.cat([head.dec_proj(tokens), embeddings], dim=1)
        for layer in head.layers:
            tokens = layer(tokens)
        tokens = head.decoder_norm(tokens)
        count = size[0] * size[1]
        patches, embeddings = tokens[:, :count], tokens[:, count:]
        yield "dec", _as_map(patches, size)
        patches = F.normalize(head.patch_proj(patches), dim=2)
        embeddings = F.normalize(head.classes_proj(embeddings), dim=2)
        cosines = patches @ embeddings.transpose(1, 2)
        parts = torch.split(cosines, list(self.classes.values()), dim=2)
        for name, part in zip(self.classes, parts, strict=True):
            yield name, _as_map(self.mask_norms[name](part), size)


def _resize(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps, size=_size(like), mode="bilinear", align_corners=False)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def _as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens ``(N, h w, C)`` as a map ``(N, C, h, w)``."""
    return tokens.transpose(1, 2).reshape(*tokens.shape[::2], *size)
