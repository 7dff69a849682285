"""The shape of all correspondence systems: an encoder, and labels copied along its affinities.

What tells the systems apart at test time is settings (``configs/methods/<system>.yaml``): the
encoder, how a frame is prepared and resized, and how labels are propagated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from bench.dataset import Dataset
from bench.errors import ConfigError, MethodError
from bench.method import (
    AddsObjects,
    Context,
    HasFeatures,
    Method,
    MethodSettings,
    ProtocolRecord,
)
from bench.propagation import Memory, PropagationSettings, Propagator, labels_from_mask
from bench.training import (
    TrainingRequest,
    TrainingTask,
    read_header,
    regime_from,
)
from bench.video import RGB, Frame, Mask, object_ids
from bench.weights import OwnWeights, TrainedSettings
from methods.correspondence.checkpoint import load_encoder
from methods.correspondence.encoder import ENCODERS, Encoder, EncoderSettings
from methods.correspondence.inputs import (
    PREPARATIONS,
    RESIZE_POLICIES,
    LongSideToMultiple,
    ResizePolicy,
    Square,
    prepare,
)
from methods.correspondence.preactivation import PreactivationEncoder, PreactivationSettings
from methods.correspondence.training import ClipTraining, training_task
from methods.feature_propagation import short_side_size

VIDCOLOR = "vidcolor"
"""Name of the one encoder that is not an :class:`Encoder`."""

PROJECTION = "projection"
"""Tap of an :class:`Encoder`'s projected features."""

FEATURE = "feature"
"""The one tap of VidColor's encoder, called as its last module."""


class CorrespondenceSettings(TrainedSettings):
    """Settings of every correspondence system.

    Attributes:
        encoder: a name in :data:`methods.correspondence.encoder.ENCODERS`, or ``"vidcolor"``.
        preparation: of a frame's colours; see :mod:`methods.correspondence.inputs`.
        resize: what happens to a frame's size; see there.
        resize_to: side in pixels that ``resize`` works with, where it has one; None is its own.
        short_side: with ``resize`` ``"native"``: frames are shrunk to this short side before they
            are encoded; masks are not.
        propagation: how labels are propagated.
    """

    encoder: str = "tiny"
    preparation: str = "rgb_imagenet"
    resize: str = "native"
    resize_to: int | None = Field(default=None, ge=32)
    short_side: int | None = Field(default=None, ge=32)
    propagation: PropagationSettings = PropagationSettings()

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, value: str) -> str:
        return _known(value, [*ENCODERS, VIDCOLOR])

    @field_validator("preparation")
    @classmethod
    def _known_preparation(cls, value: str) -> str:
        return _known(value, list(PREPARATIONS))

    @field_validator("resize")
    @classmethod
    def _known_resize(cls, value: str) -> str:
        return _known(value, list(RESIZE_POLICIES))

    @model_validator(mode="after")
    def _consistent(self) -> CorrespondenceSettings:
        if self.short_side is not None and self.resize != "native":
            raise ValueError("short_side needs resize 'native'")
        if self.resize_to is not None and not isinstance(
            RESIZE_POLICIES[self.resize], LongSideToMultiple | Square
        ):
            raise ValueError(f"resize {self.resize!r} has no side to set with resize_to")
        return self

    @property
    def policy(self) -> ResizePolicy:
        """The resize policy with its size."""
        policy = RESIZE_POLICIES[self.resize]
        if self.resize_to is None:
            return policy
        if isinstance(policy, Square):
            return Square(self.resize_to)
        return LongSideToMultiple(self.resize_to)


def _known(value: str, names: list[str]) -> str:
    if value not in names:
        raise ValueError(f"{value!r}: expected one of {', '.join(names)}")
    return value


def build_encoder(
    name: str,
    seed: int,
    layout: Callable[[EncoderSettings], EncoderSettings] = lambda settings: settings,
) -> Encoder | PreactivationEncoder:
    """An encoder with random weights; ``layout`` changes it for training."""
    torch.manual_seed(seed)
    if name == VIDCOLOR:
        return PreactivationEncoder(PreactivationSettings())
    return Encoder(layout(ENCODERS[name]))


def trainable_resnet(
    method: str, settings: CorrespondenceSettings, preparation: str, request: TrainingRequest
) -> Encoder:
    """The encoder of a method that trains it by an objective for images of one preparation.

    Args:
        method: registered name, for messages.
        settings: of the method.
        preparation: the colours that the objective feeds.
        request: seed, and the start weights if it names any.

    Raises:
        ConfigError: an encoder that is no ResNet, or another preparation.
        MethodError: start weights that do not fit.
    """
    if settings.preparation != preparation:
        raise ConfigError(
            f"{method}.preparation",
            repr(settings.preparation),
            repr(preparation),
            "Leave it as it is: the method is trained on these colours.",
        )
    encoder = build_encoder(settings.encoder, request.seed)
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            f"{method}.encoder",
            repr(settings.encoder),
            "a ResNet, whose stages can be compared",
            "Name another encoder, for instance tiny.",
        )
    if request.start is not None:
        load_encoder(encoder, request.start, settings.encoder)
    return encoder


@dataclass
class VideoState:
    """One video.

    Attributes:
        memory: what is remembered of it.
        size: (H, W) of its frames.
        extra: what a system carries besides.
    """

    memory: Memory
    size: tuple[int, int]
    extra: Any = None


class Correspondence(OwnWeights, Method, AddsObjects, HasFeatures):
    """Encodes every frame once and copies labels from remembered frames."""

    Settings = CorrespondenceSettings
    packaged = Path(__file__).parent / "weights"
    fitted = ("encoder", "preparation")

    def __init__(self, settings: CorrespondenceSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.settings: CorrespondenceSettings = settings
        self.propagator = Propagator(settings.propagation)
        self.encoder = build_encoder(settings.encoder, context.seed)
        self.load_chosen()
        self.encoder.eval().requires_grad_(False)
        self.encoder.to(context.device, memory_format=torch.channels_last)

    @classmethod
    def training_task(
        cls,
        settings: MethodSettings,
        training: MethodSettings,
        data: Sequence[Dataset],
        request: TrainingRequest,
    ) -> TrainingTask:
        """The encoder under the system's objective; see :mod:`methods.correspondence.training`."""
        assert isinstance(settings, CorrespondenceSettings)
        assert isinstance(training, ClipTraining)
        return training_task(
            cls.card.name,
            lambda layout: build_encoder(settings.encoder, request.seed, layout),
            {"encoder": settings.encoder, "preparation": settings.preparation},
            training,
            data,
            request,
        )

    def load(self, path: Path) -> None:
        """Load the system's released file or one of ours, strictly."""
        load_encoder(self.encoder, path, self.settings.encoder)
        if path.suffix == ".safetensors":
            self.trained_on = regime_from(read_header(path))
        else:
            self.trained_on = self.card.regime

    def protocol(self) -> ProtocolRecord:
        """Propagation, stride and resolution."""
        settings = self.settings
        resolution = settings.resize if settings.short_side is None else "short side"
        size = settings.resize_to or settings.short_side
        resolution += f" {size}" if size else ""
        return settings.propagation.record(self.encoder.stride, resolution.replace("_", " "))

    def parameters_count(self) -> int:
        """Parameters of the encoder."""
        return sum(parameter.numel() for parameter in self.encoder.parameters())

    # ------------------------------------------------------------------ features

    def feature_taps(self) -> tuple[str, ...]:
        """The encoder's stages, ``layer1`` to ``layer4`` or as many as it has, and ``projection``.

        Encoders without a projection do not have that one. The last tap is what labels are copied
        along, :meth:`features`. VidColor's own encoder has it alone, as ``feature``.
        """
        if isinstance(self.encoder, PreactivationEncoder):
            return (FEATURE,)
        settings = self.encoder.settings
        stages = tuple(f"layer{stage}" for stage in range(1, settings.last_stage + 1))
        return stages if settings.projection is None else (*stages, PROJECTION)

    @torch.inference_mode()
    def features_at(self, image: RGB, taps: Sequence[str]) -> Mapping[str, Tensor]:
        """Features of a frame as the encoder sees it (:meth:`prepared`), before affinities.

        Grids have the stages' strides at the working size, rounded up; see
        :meth:`bench.method.HasFeatures.features_at`.
        """
        images = self.prepared(image)
        if isinstance(self.encoder, PreactivationEncoder):
            return dict.fromkeys(taps, self.encoder(images)[0])
        stages = range(1, self.encoder.settings.last_stage + 1)
        maps = self.encoder.forward_stages(images, stages)
        found = {f"layer{stage}": maps[stage] for stage in stages}
        found[PROJECTION] = self.encoder.project(maps[stages[-1]])
        return {tap: found[tap][0] for tap in taps}

    # ------------------------------------------------------------------ one frame

    def features(self, image: RGB) -> Tensor:
        """Features ``(C, h, w)`` of a frame."""
        features: Tensor = self.encoder(self.prepared(image))
        return features[0]

    def prepared(self, image: RGB) -> Tensor:
        """A frame as the encoder sees it, ``(1, C, H, W)``."""
        size = short_side_size((image.shape[0], image.shape[1]), self.settings.short_side)
        if size != image.shape[:2]:
            import cv2

            small = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
            image = np.asarray(small, np.uint8)
        prepared = prepare(image, self.settings.preparation, self.settings.policy)
        return prepared[None].to(self.context.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> VideoState:
        """Remember the first frame and its mask; see :meth:`bench.method.Method.begin`."""
        features = self.features(frame.image)
        height, width = mask.shape
        labels = self.labels(mask, (features.shape[1], features.shape[2]))
        size = self.settings.policy.working_size(height, width)
        return VideoState(self.propagator.begin(features, labels, size), (height, width))

    def labels(self, mask: Mask, grid: tuple[int, int]) -> Tensor:
        """Labels ``(1 + objects, h, w)`` of a mask on the feature grid, background first."""
        return labels_from_mask(
            self.settings.policy.resize_mask(mask),
            object_ids(mask),
            grid,
            self.context.device,
            self.settings.propagation.label_down,
        )

    @torch.inference_mode()
    def step(self, state: VideoState, frame: Frame) -> tuple[VideoState, Tensor]:
        """Propagate to the next frame; scores are label shares at the frame's size."""
        features = self.features(frame.image)
        labels = self.propagator.step(state.memory, features, self.flows(state, frame))
        return state, self.restored(state, labels)

    @torch.inference_mode()
    def add_objects(self, state: VideoState, frame: Frame, mask: Mask) -> VideoState:
        """Propagate new objects from this frame on; see :meth:`Propagator.add`."""
        memory = state.memory
        self.propagator.add(memory, self.labels(mask, (memory.height, memory.width)))
        return state

    def flows(self, state: VideoState, frame: Frame) -> Mapping[int, Tensor] | None:
        """Motion by remembered frame, for systems that align (:meth:`Memory.aligned`)."""
        return None

    def restored(self, state: VideoState, labels: Tensor) -> Tensor:
        """Labels ``(L, h, w)`` as scores at the frame's size."""
        return self.settings.policy.restore_scores(state.memory.scores(labels), *state.size)


def require(path: Path | None, what: str, setting: str) -> Path:
    """A path that must be set and exist; :class:`MethodError` says what for."""
    if path is None or not path.exists():
        raise MethodError(setting, f"{path or 'nothing'}", f"{what} that exists", f"Set {setting}.")
    return path
