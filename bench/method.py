"""The contract between the harness and a method, and the card that says what labels it consumed."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from bench.video import RGB, Frame, Mask

if TYPE_CHECKING:
    import torch

    from bench.dataset import Dataset
    from bench.training import TrainingRequest, TrainingTask

State = Any
"""Whatever a method carries from frame to frame; the harness only hands it back."""

ImageLabels = Literal["none", "class", "saliency", "mask"]
VideoLabels = Literal["none", "mask"]


SECONDS_PER_LABEL: Mapping[str, float] = {
    "none": 0.0,
    "class": 20.0,
    "saliency": 54.0,
    "mask": 79.0,
}
"""Estimated annotation time of one label in seconds, by kind.

- ``class``: 20 s for an image's class labels (Bearman et al., What's the Point, ECCV 2016).
- ``saliency``: 54 s for one tight outline (Jain and Grauman, ICCV 2013).
- ``mask``: 79 s for one object, from 22 worker hours per 1,000 segmentations (Lin et al., COCO,
  ECCV 2014).
"""


@dataclass(frozen=True)
class LabelRegime:
    """What a method was trained on, counted.

    Attributes:
        images: number of still images.
        image_labels: kind of human label each of them carries.
        videos: number of videos.
        video_hours: their length in hours.
        video_labels: ``"mask"`` where training used masks of video frames.
        video_masks: number of annotated video masks used.
        pretraining: sources the weights started from, e.g. ``("ImageNet-1k classes",)``.
        note: one sentence where the numbers need one.
    """

    images: int = 0
    image_labels: ImageLabels = "none"
    videos: int = 0
    video_hours: float = 0.0
    video_labels: VideoLabels = "none"
    video_masks: int = 0
    pretraining: tuple[str, ...] = ()
    note: str = ""

    @property
    def annotated_masks(self) -> int:
        """Number of human-drawn masks used for training."""
        image_masks = self.images if self.image_labels in ("mask", "saliency") else 0
        return image_masks + self.video_masks

    @property
    def annotation_hours(self) -> float:
        """Estimated hours of human annotation, from :data:`SECONDS_PER_LABEL`."""
        seconds = self.images * SECONDS_PER_LABEL[self.image_labels]
        seconds += self.video_masks * SECONDS_PER_LABEL["mask"]
        return seconds / 3600

    @property
    def summary(self) -> str:
        """One short phrase for tables."""
        parts = []
        if self.images:
            kind = "unlabelled" if self.image_labels == "none" else f"{self.image_labels}-labelled"
            parts.append(f"{self.images:,} {kind} images")
        kind = "unlabelled" if self.video_labels == "none" else "mask-labelled"
        if self.videos:
            parts.append(f"{self.videos:,} {kind} videos")
        elif self.video_hours:  # many papers count hours alone
            parts.append(f"{self.video_hours:g} h of {kind} video")
        return " + ".join(parts) or "no training"


@dataclass(frozen=True)
class MethodCard:
    """What a method is, for tables and pages.

    Attributes:
        name: what ``--methods`` calls it.
        title: what tables call it.
        description: one or two sentences.
        regime: the labels its default weights consumed.
        paper: citation, empty for baselines.
        paper_checkpoint: whether the authors' released checkpoint can be loaded.
    """

    name: str
    title: str
    description: str
    regime: LabelRegime
    paper: str = ""
    paper_checkpoint: bool = False


@dataclass(frozen=True)
class ProtocolRecord:
    """The inference settings that move scores without touching weights; part of every result row.

    Fields that a method does not have stay None. ``extra`` holds what other settings matter.
    """

    resolution: str | None = None
    stride: int | None = None
    memory: str | None = None
    top_k: int | None = None
    radius: float | None = None
    temperature: float | None = None
    label_resize: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


class MethodSettings(BaseModel):
    """Base of a method's settings: unknown keys are errors, values are checked and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Context:
    """What a run hands a method besides its settings.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``; resolved, never ``"auto"``.
        seed: for whatever the method draws at random.
        weights: a checkpoint named by the user, or None for the method's own.
    """

    device: str = "cpu"
    seed: int = 0
    weights: Path | None = None


SettingsT = TypeVar("SettingsT", bound=MethodSettings)


class Method(abc.ABC):
    """A video object segmentation method: ``begin`` once, then ``step`` per frame.

    A method holds its network and settings; everything that belongs to one video lives in the
    state that ``begin`` returns, so one instance can segment many videos. Memory must be bounded
    by the method's own policy, never by the length of the video.

    Class attributes:
        card: what it is and what it consumed.
        Settings: pydantic model of its settings; the defaults must be usable.
        config_file: YAML with its presets, for plugins; methods in the tree have theirs in
            ``configs/methods/<name>.yaml``.

    Args:
        settings: an instance of ``Settings``.
        context: device, seed and weights.

    Raises:
        MethodError: weights that do not fit.
    """

    card: ClassVar[MethodCard]
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    config_file: ClassVar[Path | None] = None

    def __init__(self, settings: MethodSettings, context: Context) -> None:
        self.settings = settings
        self.context = context

    @classmethod
    def why_not(cls, settings: MethodSettings, context: Context) -> str | None:
        """Reason why it cannot run here (missing weights, device, package), or None."""
        return None

    def regime(self) -> LabelRegime:
        """What the loaded weights consumed; override where settings change it."""
        return self.card.regime

    def protocol(self) -> ProtocolRecord:
        """The inference settings recorded with every result."""
        return ProtocolRecord()

    def parameters_count(self) -> int:
        """Number of network parameters used at inference."""
        return 0

    def training_seconds(self) -> float:
        """How long the loaded weights were trained here; 0 for none, NaN where it is unknown."""
        return math.nan

    def training_steps(self) -> float:
        """How many optimiser steps that took; 0 for none, NaN where it is unknown."""
        return 0.0 if self.training_seconds() == 0 else math.nan

    @abc.abstractmethod
    def begin(self, frame: Frame, mask: Mask) -> State:
        """Start on a video.

        Args:
            frame: the first frame, uint8 RGB ``(H, W, 3)``.
            mask: uint8 ids ``(H, W)`` with at least one object and no void.

        Returns:
            The state handed to the first ``step``.
        """

    @abc.abstractmethod
    def step(self, state: State, frame: Frame) -> tuple[State, torch.Tensor]:
        """Segment the next frame.

        Returns:
            The new state, and scores: float tensor ``(1 + objects, H, W)`` at the frame's size,
            background first, then the objects in ascending order of their ids (objects added
            later follow in the order they were added). The label of a pixel is the arg-max.
        """


class AddsObjects(abc.ABC):
    """Mix-in of methods that take up objects in mid-video themselves.

    The harness runs methods without it once per group of objects that enter together and merges
    the groups' scores (:class:`bench.protocol.Streams`).
    """

    @abc.abstractmethod
    def add_objects(self, state: State, frame: Frame, mask: Mask) -> State:
        """Take up new objects.

        Args:
            state: the state *after* ``step`` on this same frame.
            frame: the frame in which the objects enter.
            mask: uint8 ids ``(H, W)`` of the new objects only.
        """


class Unprompted(abc.ABC):
    """Mix-in of methods that can segment a video without being given any mask."""

    @abc.abstractmethod
    def begin_unprompted(self, frame: Frame) -> tuple[State, torch.Tensor]:
        """Start on a video without a mask.

        Returns:
            The state for the next ``step``, and the first frame's scores ``(1 + proposals, H, W)``
            as ``step`` returns them. The number of proposals (20 at most) stays fixed.
        """


class Semantic(abc.ABC):
    """Mix-in of methods that tell the class of every pixel, without being given any mask."""

    @classmethod
    def why_not_semantic(cls, settings: MethodSettings, context: Context) -> str | None:
        """Reason why it cannot with these settings and weights, or None."""
        return None

    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2, ..., each once; background, class 0, is not among them."""

    @abc.abstractmethod
    def begin_semantic(self, frame: Frame) -> tuple[State, torch.Tensor]:
        """Start on a video.

        Returns:
            The state for the next ``step``, and the first frame's scores ``(1 + classes, H, W)``
            as ``step`` returns them, background first.
        """


class HasFeatures(abc.ABC):
    """Mix-in of methods whose features can be looked at; ``python -m bench gap`` measures them."""

    @abc.abstractmethod
    def feature_taps(self) -> tuple[str, ...]:
        """Names of the places where features are taken, from the input towards the output.

        Pictures, curves and the linear probe use the last one. A segmentation is no feature of
        itself: logits and probabilities are no taps.
        """

    @abc.abstractmethod
    def features_at(self, image: RGB, taps: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """Features of a single image, or of a video's frame on its own.

        Equal images have equal features, whatever was looked at before.

        Args:
            image: uint8 RGB ``(H, W, 3)``; it is left as it is.
            taps: some of :meth:`feature_taps`.

        Returns:
            By tap, those asked for and no others: float32 ``(C, h, w)``, finite, on the method's
            device. C is the same for all images. The grid covers the image; its last row and
            column may overhang.
        """


class FromCheckpoint(abc.ABC):
    """Mix-in of methods that load weights from a file."""

    @abc.abstractmethod
    def load(self, path: Path) -> None:
        """Load the authors' released file or one of ours, strictly.

        Raises:
            MethodError: names every unknown and every missing key.
        """


class Trainable(abc.ABC):
    """Mix-in of methods that can be trained.

    A method says what is trained; :mod:`bench.training` builds the mmengine Runner around it.

    Class attributes:
        TrainingSettings: pydantic model of what training can be told, besides ``Settings``.
    """

    TrainingSettings: ClassVar[type[MethodSettings]]

    @classmethod
    @abc.abstractmethod
    def training_task(
        cls,
        settings: MethodSettings,
        training: MethodSettings,
        data: Sequence[Dataset],
        request: TrainingRequest,
    ) -> TrainingTask:
        """What is trained on these datasets.

        Args:
            settings: an instance of ``Settings``.
            training: an instance of ``TrainingSettings``.
            data: the datasets asked for, opened.
            request: seed, device and folder.

        Raises:
            ConfigError: datasets of the wrong kind.
            DataError: too little in them.
        """

    @classmethod
    def find_weights(cls, settings: MethodSettings) -> Path | None:
        """The newest weights that fit these settings, trained here or shipped; None if none do."""
        return None

    @classmethod
    def lacks_weights(cls, settings: MethodSettings) -> bool:
        """Whether nothing but missing weights keeps it from running with these settings."""
        return cls.find_weights(settings) is None
