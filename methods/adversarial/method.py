"""``adv`` under the harness: settings, weights, and the protocol that turns frames into masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError, field_validator
from torch import Tensor

from bench.dataset import Dataset
from bench.errors import MethodError
from bench.method import (
    Context,
    HasFeatures,
    LabelRegime,
    Method,
    MethodCard,
    MethodSettings,
    ProtocolRecord,
    Semantic,
    State,
    Unprompted,
)
from bench.registry import register_method
from bench.training import (
    TrainingRequest,
    TrainingTask,
    load_strictly,
    parameter_count,
    read_weights,
    regime_from,
)
from bench.video import RGB, Frame, Mask
from bench.weights import OwnWeights, TrainedSettings, header_of_file
from methods.adversarial.domains import statistics_at_test
from methods.adversarial.networks import build_network
from methods.adversarial.protocols import (
    FrameNetwork,
    FromNothing,
    Prompted,
    PromptedSettings,
    SemanticProtocol,
    UnpromptedSettings,
    build_prompted,
    build_unprompted,
)
from methods.adversarial.protocols.foreground import ForegroundSettings
from methods.adversarial.protocols.propagation import PropagationProtocolSettings
from methods.adversarial.settings import AdaptationSettings, NetworkSettings
from methods.adversarial.taps import OUTPUT_TAPS
from methods.adversarial.training import training_task


class AdversarialSettings(TrainedSettings):
    """Settings of ``adv``.

    Attributes:
        network: weights belong to one of them.
        protocol: how a given first mask is carried on; see :mod:`methods.adversarial.protocols`.
        unprompted: how objects are found where no mask is given.
        short_side: frames are shrunk to this short side in pixels; None keeps the native size.
        clip_frames: T of the sliding clip that a 3D network sees, odd; 2D networks see one frame.
    """

    network: NetworkSettings = NetworkSettings()
    protocol: PromptedSettings = PropagationProtocolSettings()
    unprompted: UnpromptedSettings = ForegroundSettings()
    short_side: int | None = Field(default=None, ge=32)
    clip_frames: int = Field(default=3, ge=1)

    @field_validator("clip_frames")
    @classmethod
    def _has_a_centre(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(
                f"{value}: expected an odd number, for a clip to have a centre; set 3 or 5"
            )
        return value


@dataclass(frozen=True)
class VideoState:
    """One video: the protocol that segments it, and what that carries from frame to frame."""

    protocol: Prompted | FromNothing
    inner: State


@register_method("adv")
class Adversarial(OwnWeights, Method, Unprompted, Semantic, HasFeatures):
    """A segmentation network trained on labelled images and adapted to unlabelled videos."""

    Settings = AdversarialSettings
    TrainingSettings = AdaptationSettings
    packaged = Path(__file__).parent / "weights"
    fitted = ("network",)
    card = MethodCard(
        name="adv",
        title="Adversarial image-to-video adaptation",
        description=(
            "Trained on labelled images, while domain discriminators make its features alike on "
            "unlabelled videos. After Learning from labeled images and unlabeled videos for video "
            "segmentation (ICLR 2023 submission); the paper's networks, equations and numbers are "
            "not public: a reading, not a reproduction."
        ),
        regime=LabelRegime(note="depends on the weights, which say what they were trained on"),
        paper=(
            "Learning from labeled images and unlabeled videos for video segmentation. "
            "Submitted to ICLR 2023"
        ),
    )

    def __init__(self, settings: AdversarialSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.settings: AdversarialSettings = settings
        # Whatever training started from: the weights replace it, and the control must not have it.
        network = settings.network.model_copy(update={"initial": "random"})
        self.network = build_network(network, context.seed)
        self.header: Mapping[str, Any] = {}
        self.load_chosen()
        self.network.eval().requires_grad_(False)
        self.network.to(context.device)
        clip_frames = 1 if settings.network.time == "none" else settings.clip_frames
        self.frames = FrameNetwork(self.network, settings.short_side, clip_frames, context.device)
        self.prompted = build_prompted(self.frames, settings.protocol, context.seed)
        self.from_nothing = build_unprompted(self.frames, settings.unprompted)
        self.semantic = SemanticProtocol(self.frames)

    @classmethod
    def training_task(
        cls,
        settings: MethodSettings,
        training: MethodSettings,
        data: Sequence[Dataset],
        request: TrainingRequest,
    ) -> TrainingTask:
        """Network, losses and both domains; see :mod:`methods.adversarial.training`."""
        assert isinstance(settings, AdversarialSettings)
        assert isinstance(training, AdaptationSettings)
        return training_task(settings.network, training, data, request)

    def load(self, path: Path) -> None:
        """Load weights that `python -m bench train` wrote, or a state dict of the network.

        Raises:
            MethodError: names every missing and every unknown tensor.
        """
        load_strictly(self.network, read_weights(path), path)
        self.header = header_of_file(path)
        self.trained_on = regime_from(self.header)

    def protocol(self) -> ProtocolRecord:
        """The protocol with a first mask and the one without, and what the network normalises by.

        A result belongs to one of the two; which one, its run's protocol says. Under the semantic
        protocol it belongs to neither, and only the resolution counts.
        """
        record = self.prompted.record()
        unprompted = self.from_nothing.record()
        extra = {"protocol": self.settings.protocol.kind.replace("_", " "), **record.extra}
        extra |= {
            "unprompted": self.settings.unprompted.kind.replace("_", " "),
            **{f"unprompted {name}": value for name, value in unprompted.extra.items()},
            "batch norm statistics": batch_norm_statistics(self.header),
        }
        if self.frames.clip_frames > 1:
            extra["clip"] = f"{self.frames.clip_frames} frames, none later than the segmented one"
        return replace(record, extra=extra)

    def parameters_count(self) -> int:
        """Parameters of the network with all its heads."""
        return parameter_count(self.network)

    # ------------------------------------------------------------------ features

    def feature_taps(self) -> tuple[str, ...]:
        """The network's taps without its outputs.

        ``embed`` and ``enc1`` to ``enc4`` are the stages of the encoder, ``temporal`` its last one
        after frames have seen each other (networks with such a module), ``neck`` and ``dec`` what
        the decoder makes of them.
        """
        return tuple(tap for tap in self.network.channels if tap not in OUTPUT_TAPS)

    @torch.inference_mode()
    def features_at(self, image: RGB, taps: Sequence[str]) -> Mapping[str, Tensor]:
        """Features of an image on its own; a clip network sees a clip that stands still.

        Grids have the taps' strides at the working size; see
        :meth:`bench.method.HasFeatures.features_at`.
        """
        frames = self.frames
        sizes = frames.geometry(image.shape)
        output = self.network(frames.clip().push(frames.prepare(image)), taps)
        return {tap: frames.on_frame(output.taps[tap], tap, sizes) for tap in taps}

    # ------------------------------------------------------------------ one frame

    def begin(self, frame: Frame, mask: Mask) -> VideoState:
        """Start with a first mask; see :meth:`bench.method.Method.begin`."""
        return VideoState(self.prompted, self.prompted.begin(frame, mask))

    def begin_unprompted(self, frame: Frame) -> tuple[VideoState, Tensor]:
        """Start without one; see :meth:`bench.method.Unprompted.begin_unprompted`."""
        inner, scores = self.from_nothing.begin(frame)
        return VideoState(self.from_nothing, inner), scores

    def step(self, state: VideoState, frame: Frame) -> tuple[VideoState, Tensor]:
        """Segment the next frame; see :meth:`bench.method.Method.step`."""
        inner, scores = state.protocol.step(state.inner, frame)
        return replace(state, inner=inner), scores

    # ------------------------------------------------------------------ classes

    @classmethod
    def why_not_semantic(cls, settings: MethodSettings, context: Context) -> str | None:
        """Its weights do not name the classes of its semantic head."""
        assert isinstance(settings, AdversarialSettings)
        weights = context.weights or cls.find_weights(settings)
        names = _class_names(settings.network, header_of_file(weights) if weights else {})
        if len(names) == _classes_of(settings.network):
            return None
        return (
            f"its weights name {len(names)} classes for a semantic head of "
            f"{_classes_of(settings.network)}; train it with training.domains.categories"
        )

    def class_names(self) -> tuple[str, ...]:
        """Categories that the weights were trained on; ``foreground`` for such a head alone.

        Raises:
            MethodError: the weights name none, or another number than the head has.
        """
        names = _class_names(self.settings.network, self.header)
        wanted = _classes_of(self.settings.network)
        if len(names) != wanted:
            raise MethodError(
                "method adv",
                f"weights that name {len(names)} classes",
                f"{wanted} names, one for each class of the semantic head but the background",
                "Train it with training.domains.categories, or name other weights.",
            )
        return names

    def begin_semantic(self, frame: Frame) -> tuple[VideoState, Tensor]:
        """Start without a mask; see :meth:`bench.method.Semantic.begin_semantic`."""
        inner, scores = self.semantic.begin(frame)
        return VideoState(self.semantic, inner), scores


def _class_names(network: NetworkSettings, header: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a network's classes without background, as far as the weights' header has them."""
    if network.head == "foreground":
        return ("foreground",)
    recorded = header.get("settings", {}).get("training", {}).get("domains", {})
    return tuple(recorded.get("categories", ()))


def _classes_of(network: NetworkSettings) -> int:
    """How many classes a network tells apart, without background."""
    return 1 if network.head == "foreground" else network.classes - 1


def batch_norm_statistics(header: Mapping[str, Any]) -> str:
    """Which statistics the weights were exported with, by the recipe in their header.

    Recipes of another version of these settings cannot be told: "as in the file".
    """
    if not header:
        return "initial"
    try:
        recipe = AdaptationSettings.model_validate(header["settings"]["training"])
    except (KeyError, ValidationError):
        return "as in the file"
    return statistics_at_test(recipe)
