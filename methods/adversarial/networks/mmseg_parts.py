"""The parts that come from mmsegmentation, and the only place that imports it.

The import takes seconds and happens when the first network is built. Its library-wide settings are
left as they are: the default scope is set while a part is built, and no longer. Synchronised batch
normalisation, the default of its configurations, needs several processes; all parts are built with
the plain kind.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import Any

from torch import nn

from bench.errors import MethodError

BATCH_NORM = {"type": "BN", "requires_grad": True}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without mmengine's report on every tensor it initialises and mmsegmentation's advice.

    Some of it is logged, some warned, and some printed.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@cache
def _registry() -> Any:
    """The registry of mmsegmentation's models, filled."""
    try:
        with _quiet():
            from mmseg.registry import MODELS
            from mmseg.utils import register_all_modules

            register_all_modules(init_default_scope=False)
    except ImportError as error:
        raise MethodError(
            "mmsegmentation",
            f"{type(error).__name__}: {error}",
            "the packages onedl-mmsegmentation, onedl-mmcv and onedl-mmengine",
            "Install the versions of constraints.txt.",
        ) from error
    return MODELS


def _build(kind: str, **arguments: Any) -> nn.Module:
    """A part of mmsegmentation, initialised as its papers do."""
    registry = _registry()
    from mmengine.registry import DefaultScope

    # Parts look for parts of their own where the last Runner left the scope, if not told otherwise.
    with _quiet(), DefaultScope.overwrite_default_scope("mmseg"):
        part: Any = registry.build({"type": f"mmseg.{kind}", **arguments})
        part.init_weights()
    for attention in part.modules():
        if isinstance(attention, nn.MultiheadAttention):
            attention.register_forward_pre_hook(_skip_attention_map, with_kwargs=True)
    module: nn.Module = part
    return module


def _skip_attention_map(
    _: nn.Module, positional: Any, named: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Ask for no attention map: nobody reads it, and on long sequences it fills the memory."""
    return positional, {**named, "need_weights": False}


def resnet50() -> Any:
    """ResNet-50 with a stem of three 3x3 convolutions and an output stride of 8.

    He et al., Deep residual learning for image recognition, CVPR 2016; dilated as in Chen et al.,
    Rethinking atrous convolution for semantic image segmentation, 2017.
    """
    return _build(
        "ResNetV1c",
        depth=50,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        norm_cfg=BATCH_NORM,
    )


def mix_transformer(width: int, layers: Sequence[int], dropped: float) -> Any:
    """The Mix Transformer (Xie et al., SegFormer, NeurIPS 2021).

    Args:
        width: channels of the first stage; the others have 2, 5 and 8 times as many.
        layers: of each stage.
        dropped: share of residual branches left out in the last layer while training.
    """
    return _build(
        "MixVisionTransformer",
        embed_dims=width,
        num_layers=tuple(layers),
        num_heads=(1, 2, 5, 8),
        sr_ratios=(8, 4, 2, 1),
        drop_path_rate=dropped,
    )


def vision_transformer(
    width: int, layers: int, heads: int, patch: int, side: int, dropped: float
) -> Any:
    """The Vision Transformer (Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021).

    Args:
        width: channels of a token.
        layers: number of blocks.
        heads: of attention.
        patch: side of a patch in pixels.
        side: of the square image that the grid of position embeddings fits; for other sizes it is
            interpolated.
        dropped: share of residual branches left out in the last layer while training.
    """
    return _build(
        "VisionTransformer",
        img_size=side,
        patch_size=patch,
        patch_bias=True,
        embed_dims=width,
        num_layers=layers,
        num_heads=heads,
        drop_path_rate=dropped,
        final_norm=False,
    )


def swin_transformer(
    width: int, layers: Sequence[int], heads: Sequence[int], window: int, dropped: float
) -> Any:
    """The Swin Transformer (Liu et al., ICCV 2021).

    Args:
        width: channels of the first stage; they double from stage to stage.
        layers: of each stage.
        heads: of each stage.
        window: side of attention windows in tokens.
        dropped: share of residual branches left out in the last layer while training.
    """
    return _build(
        "SwinTransformer",
        embed_dims=width,
        depths=tuple(layers),
        num_heads=tuple(heads),
        window_size=window,
        drop_path_rate=dropped,
    )


def aspp_head(inputs: int, channels: int, dilations: Sequence[int]) -> Any:
    """Atrous spatial pyramid pooling (Chen et al., 2017), from one map; without a classifier."""
    return _featureless(
        "ASPPHead", in_channels=inputs, in_index=0, channels=channels, dilations=tuple(dilations)
    )


def segformer_head(inputs: Sequence[int], channels: int) -> Any:
    """SegFormer's fusion of four maps; without a classifier, so that it returns features."""
    return _featureless(
        "SegformerHead", in_channels=list(inputs), in_index=[0, 1, 2, 3], channels=channels
    )


def uper_head(inputs: Sequence[int], channels: int) -> Any:
    """Pyramid pooling and feature pyramid of UPerNet (Xiao et al., ECCV 2018); no classifier."""
    return _featureless(
        "UPerHead", in_channels=list(inputs), in_index=[0, 1, 2, 3], channels=channels
    )


def _featureless(kind: str, **arguments: Any) -> Any:
    """A convolutional head whose classifier is gone: ours sit on top of it."""
    # Two classes are a placeholder; the layer that has them is dropped.
    head: Any = _build(kind, num_classes=2, norm_cfg=BATCH_NORM, dropout_ratio=0.0, **arguments)
    head.conv_seg = nn.Identity()
    return head


def mask_transformer_head(
    inputs: int, width: int, layers: int, heads: int, classes: int, dropped: float
) -> Any:
    """The mask Transformer of Segmenter (Strudel et al., ICCV 2021).

    Without its normalisation of mask scores, which depends on the classes of a single head.
    """
    head: Any = _build(
        "SegmenterMaskTransformerHead",
        in_channels=inputs,
        channels=width,
        embed_dims=width,
        num_layers=layers,
        num_heads=heads,
        num_classes=classes,
        dropout_ratio=0.0,
        drop_path_rate=dropped,
    )
    del head.mask_norm
    return head


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Module:
    """Convolution, batch normalisation and ReLU."""
    with _quiet():
        _registry()
        from mmcv.cnn import ConvModule

    module: nn.Module = ConvModule(
        inputs, outputs, kernel, padding=kernel // 2, norm_cfg=BATCH_NORM
    )
    return module
