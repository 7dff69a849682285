"""Labels of remembered frames, copied along the affinities of the network's features.

No head is used and nothing is trained, so this measures the representation alone. The settings
are those of DINO (Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV
2021, evaluation on DAVIS-2017).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench.method import MethodSettings, ProtocolRecord
from bench.propagation import Memory, PropagationSettings, Propagator, labels_from_mask
from bench.video import Frame, Mask, object_ids
from methods.adversarial.protocols.base import Prompted
from methods.adversarial.protocols.frames import FrameNetwork, Geometry, SlidingClip
from methods.adversarial.taps import Tap

DINO = PropagationSettings(
    temperature=0.1,
    top_k=5,
    window="square",
    radius=12,
    radius_first=12,
    context=7,
    early="available",
    min_max="output",
)
"""First frame and seven recent ones, a window of 12 cells, the five best of all."""


class LabelPropagationSettings(MethodSettings):
    """How labels are carried along features.

    Attributes:
        tap: where features are taken.
        propagation: how labels are copied; DINO's setting.
        radius_stride: stride in pixels at which its radii are meant. At a tap of another stride
            the window covers the same pixels with more or fewer cells. None takes radii as they
            are.
    """

    tap: Tap = "enc3"
    propagation: PropagationSettings = DINO
    radius_stride: int | None = Field(default=8, ge=1)

    def at_stride(self, stride: int) -> PropagationSettings:
        """The propagation with its radii in cells of this stride; one cell at least."""
        if self.radius_stride is None:
            return self.propagation
        scale = self.radius_stride / stride
        radii = {
            name: None if radius is None else max(1.0, radius * scale)
            for name, radius in (
                ("radius", self.propagation.radius),
                ("radius_first", self.propagation.radius_first),
            )
        }
        return self.propagation.model_copy(update=radii)


class PropagationProtocolSettings(LabelPropagationSettings):
    """Settings of :class:`FeaturePropagationProtocol`."""

    kind: Literal["propagation"] = "propagation"


@dataclass
class PropagatedVideo:
    """One video.

    Attributes:
        memory: what is remembered of it.
        clip: its last frames.
        sizes: of its frames.
    """

    memory: Memory
    clip: SlidingClip
    sizes: Geometry


class LabelPropagation:
    """The recursion from frame to frame, shared by the protocols that need it.

    Args:
        frames: the network.
        settings: where and how.
    """

    def __init__(self, frames: FrameNetwork, settings: LabelPropagationSettings) -> None:
        self.frames = frames
        self.tap = settings.tap
        self.stride = frames.stride(settings.tap)
        self.propagator = Propagator(settings.at_stride(self.stride))

    def begin(self, features: Tensor, sizes: Geometry, mask: Mask) -> Memory:
        """Remember the first frame: features ``(C, h, w)`` and its mask ``(H, W)``."""
        height, width = sizes.cover(self.stride)
        margin = ((0, height - mask.shape[0]), (0, width - mask.shape[1]))
        labels = labels_from_mask(
            np.pad(mask, margin, mode="edge"),
            object_ids(mask),
            (features.shape[1], features.shape[2]),
            self.frames.device,
            self.propagator.settings.label_down,
        )
        return self.propagator.begin(features, labels, (height, width))

    def step(self, memory: Memory, features: Tensor, sizes: Geometry) -> Tensor:
        """Scores ``(1 + K, H, W)`` of the next frame at the native size, by ``(C, h, w)``."""
        labels = self.propagator.step(memory, features)
        height, width = sizes.native
        return memory.to_frame(labels)[:, :height, :width]

    def record(self) -> ProtocolRecord:
        """Tap, resolution and propagation."""
        record = self.propagator.settings.record(self.stride, self.frames.resolution)
        return replace(record, extra={"tap": self.tap, **record.extra})


class FeaturePropagationProtocol(Prompted):
    """Copies labels along features; the default."""

    def __init__(self, frames: FrameNetwork, settings: PropagationProtocolSettings) -> None:
        self.frames = frames
        self.labels = LabelPropagation(frames, settings)

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> PropagatedVideo:
        """Remember the first frame and its mask."""
        sizes = self.frames.geometry(mask.shape)
        clip = self.frames.clip()
        window = clip.push(self.frames.prepare(frame.image))
        features = self.frames.features(window, self.labels.tap, sizes)
        return PropagatedVideo(self.labels.begin(features, sizes, mask), clip, sizes)

    @torch.inference_mode()
    def step(self, state: PropagatedVideo, frame: Frame) -> tuple[PropagatedVideo, Tensor]:
        """Copy labels to the next frame."""
        window = state.clip.push(self.frames.prepare(frame.image))
        features = self.frames.features(window, self.labels.tap, state.sizes)
        return state, self.labels.step(state.memory, features, state.sizes)

    def record(self) -> ProtocolRecord:
        """Tap, resolution and propagation."""
        return self.labels.record()
