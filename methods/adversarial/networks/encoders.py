"""Encoders as sequences of five maps: the embedding and four stages.

Each encoder's ``stages`` is a generator, so that nothing runs beyond the map somebody needs. Maps
are ``(N, C, h, w)``; their channels and strides are told beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.errors import MethodError
from methods.correspondence.encoder import ENCODERS
from methods.correspondence.encoder import Encoder as CorrespondenceResNet
from methods.pretrained.imagenet import PACKAGED_ENCODER, packaged_state

STAGES: tuple[str, ...] = ("embed", "enc1", "enc2", "enc3", "enc4")


class Encoder(Protocol):
    """What a network needs of an encoder.

    Attributes:
        channels: of the five maps.
        strides: of the five maps, in pixels of the frame.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def stages(self, frames: Tensor) -> Iterator[Tensor]:
        """The five maps of frames ``(N, 3, H, W)``, one after the other."""


class ResNetEncoder(nn.Module):
    """mmsegmentation's ResNet: the stem's output and those of four layers."""

    channels = (64, 256, 512, 1024, 2048)
    strides = (4, 4, 8, 8, 8)

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.resnet = resnet

    def stages(self, frames: Tensor) -> Iterator[Tensor]:
        """See :class:`Encoder`."""
        maps = self.resnet.maxpool(self.resnet.stem(frames))
        yield maps
        for name in self.resnet.res_layers:
            maps = getattr(self.resnet, name)(maps)
            yield maps


class MixTransformerEncoder(nn.Module):
    """mmsegmentation's Mix Transformer: the first overlapping patch embedding and four stages."""

    strides = (4, 4, 8, 16, 32)

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        first, heads = transformer.embed_dims, transformer.num_heads
        self.channels = (first, *(first * number for number in heads))

    def stages(self, frames: Tensor) -> Iterator[Tensor]:
        """See :class:`Encoder`."""
        maps = frames
        for index, (embedding, blocks, norm) in enumerate(self.transformer.layers):
            tokens, size = embedding(maps)
            if index == 0:
                yield _as_map(tokens, size)
            for block in blocks:
                tokens = block(tokens, size)
            maps = _as_map(norm(tokens), size)
            yield maps


class VisionTransformerEncoder(nn.Module):
    """mmsegmentation's Vision Transformer: embedded patches with positions, four groups of blocks.

    The final normalisation belongs to the decoder, since it makes the bottleneck.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        width = transformer.pos_embed.shape[-1]
        self.channels = (width,) * len(STAGES)
        self.strides = (transformer.patch_size,) * len(STAGES)

    def stages(self, frames: Tensor) -> Iterator[Tensor]:
        """See :class:`Encoder`; without the class token."""
        vit = self.transformer
        patches, size = vit.patch_embed(frames)
        tokens = torch.cat([vit.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        # mmsegmentation interpolates its grid of positions here, under a name spelt like this.
        tokens = vit._pos_embeding(tokens, size, vit.pos_embed)
        yield _as_map(tokens[:, 1:], size)
        group = len(vit.layers) // 4
        for index, block in enumerate(vit.layers, start=1):
            tokens = block(tokens)
            if index % group == 0:
                yield _as_map(tokens[:, 1:], size)


class SwinEncoder(nn.Module):
    """mmsegmentation's Swin Transformer: the patch embedding and four normalised stages."""

    strides = (4, 4, 8, 16, 32)

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        features = transformer.num_features
        self.channels = (features[0], *features)

    def stages(self, frames: Tensor) -> Iterator[Tensor]:
        """See :class:`Encoder`."""
        swin = self.transformer
        tokens, size = swin.patch_embed(frames)
        yield _as_map(tokens, size)
        tokens = swin.drop_after_pos(tokens)
        for index, stage in enumerate(swin.stages):
            tokens, size, output, output_size = stage(tokens, size)
            yield _as_map(getattr(swin, f"norm{index}")(output), output_size)


class TimmEncoder(nn.Module):
    """A timm model with five feature maps, the first one as the embedding.

    Args:
        name: a timm model.
        imagenet: whether it starts from ImageNet weights.
        output_stride: of the last maps; deeper layers are dilated instead of strided.

    Raises:
        MethodError: no such model, no five feature maps, or no package carries its weights.
    """

    def __init__(self, name: str, imagenet: bool, output_stride: int) -> None:
        super().__init__()
        classifier = _timm_classifier(name, output_stride)
        if imagenet:
            if name != PACKAGED_ENCODER:
                raise no_imagenet_weights(f"encoder = {name!r}")
            # The whole classifier is loaded, strictly, and cut afterwards: a name that fails to
            # match cannot pass unnoticed.
            classifier.load_state_dict(packaged_state(classifier.state_dict()), strict=True)
        self.extractor = _feature_maps(name, classifier)
        information = self.extractor.feature_info
        self.channels = tuple(information.channels())
        self.strides = tuple(information.reduction())

    def stages(self, frames: Tensor) -> Iterator[Tensor]:
        """See :class:`Encoder`."""
        maps = frames
        for name, module in self.extractor.items():
            maps = module(maps)
            if name in self.extractor.return_layers:
                yield maps


CORRESPONDENCE = "correspondence_"
"""What a correspondence system's encoder is called by here, before its own name."""


class CorrespondenceEncoder(nn.Module):
    """A correspondence system's ResNet with all of its four stages, the stem as the embedding.

    With it, labels and unlabelled video can be compared on one encoder: the features of a stage are
    those that the correspondence systems propagate labels along.

    Args:
        name: of one of :data:`methods.correspondence.encoder.ENCODERS`.

    Raises:
        MethodError: no such encoder.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in ENCODERS:
            raise MethodError(
                f"network.encoder = {CORRESPONDENCE + name!r}",
                "a correspondence encoder that is not known",
                f"{CORRESPONDENCE} and one of {', '.join(ENCODERS)}",
                "Correct network.encoder.",
            )
        settings = ENCODERS[name].model_copy(
            update={"last_stage": len(STAGES) - 1, "projection": None}
        )
        self.resnet = CorrespondenceResNet(settings)
        numbers = range(1, len(STAGES))
        self.channels = (settings.widths[0], *(settings.stage_channels(n) for n in numbers))
        self.strides = (settings.stage_stride(0), *(settings.stage_stride(n) for n in numbers))

    def stages(self, frames: Tensor) -> Iterator[Tensor]:
        """See :class:`Encoder`."""
        maps = self.resnet.stem(frames)
        yield maps
        for number in range(1, len(STAGES)):
            maps = self.resnet.get_submodule(f"layer{number}")(maps)
            yield maps


def no_imagenet_weights(where: str) -> MethodError:
    """The error of networks that no installed package carries pretrained weights for."""
    return MethodError(
        f"network.{where}",
        "initial = 'imagenet', and no installed package that carries such weights",
        f"architecture = 'deeplabv3' with encoder = {PACKAGED_ENCODER!r}, whose weights are "
        "packaged",
        "Set network.initial to 'random', or choose that encoder.",
    )


def _timm_classifier(name: str, output_stride: int) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(name, pretrained=False, output_stride=output_stride)
    except Exception as error:  # timm raises RuntimeError, TypeError, NotImplementedError, ...
        raise MethodError(
            f"network.encoder = {name!r}",
            f"{type(error).__name__}: {error}",
            f"a timm model that can be built with an output stride of {output_stride}",
            f"Use {PACKAGED_ENCODER}, or another convolutional timm model.",
        ) from error
    return model


def _feature_maps(name: str, classifier: nn.Module) -> Any:
    """The classifier cut to its five feature maps, as a sequence of modules."""
    from timm.models._features import FeatureListNet

    indices = tuple(range(len(STAGES)))
    for flatten in (True, False):  # whether stages sit in a sequence of their own
        try:
            return FeatureListNet(classifier, out_indices=indices, flatten_sequential=flatten)
        except (AssertionError, AttributeError, IndexError):
            continue
    raise MethodError(
        f"network.encoder = {name!r}",
        f"no {len(indices)} feature maps that can be cut from it",
        "a convolutional timm model with feature maps at strides 2 to 32",
        f"Use {PACKAGED_ENCODER}, or another such model.",
    )


def _as_map(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Tokens ``(N, h w, C)`` as a map ``(N, C, h, w)``."""
    return tokens.transpose(1, 2).reshape(*tokens.shape[::2], *size)
