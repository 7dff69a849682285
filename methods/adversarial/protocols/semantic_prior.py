"""Propagation whose scores are weighted by what the head says an object is made of.

Against plain propagation this shows what an adapted head adds to the features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.method import ProtocolRecord
from bench.propagation import Memory, labels_from_mask
from bench.video import Frame, Mask, object_ids
from methods.adversarial.protocols.base import Prompted
from methods.adversarial.protocols.frames import FrameNetwork, Geometry, SlidingClip, to_native
from methods.adversarial.protocols.propagation import LabelPropagation, LabelPropagationSettings


class SemanticPriorSettings(LabelPropagationSettings):
    """Settings of :class:`SemanticPriorProtocol`.

    Attributes:
        strength: exponent of the prior; 0 is plain propagation.
    """

    kind: Literal["semantic_prior"] = "semantic_prior"
    strength: float = Field(default=0.5, ge=0)


@dataclass
class PriorVideo:
    """One video.

    Attributes:
        memory: what is remembered of it.
        clip: its last frames.
        sizes: of its frames.
        classes: ``(1 + K, C)`` mean class probabilities inside background and each object, in the
            first frame.
    """

    memory: Memory
    clip: SlidingClip
    sizes: Geometry
    classes: Tensor


class SemanticPriorProtocol(Prompted):
    """Propagation times how well a pixel's classes agree with the object's."""

    def __init__(self, frames: FrameNetwork, settings: SemanticPriorSettings) -> None:
        self.frames = frames
        self.strength = settings.strength
        self.labels = LabelPropagation(frames, settings)

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> PriorVideo:
        """Remember the first frame, its mask, and the classes that the mask covers."""
        sizes = self.frames.geometry(mask.shape)
        clip = self.frames.clip()
        features, probabilities = self._look(clip, frame, sizes)
        labels = labels_from_mask(mask, object_ids(mask), sizes.native, self.frames.device)
        share = F.interpolate(labels[None], size=sizes.working, mode="area")[0]
        covered = torch.einsum("ohw,chw->oc", share, probabilities)
        classes = covered / share.sum((1, 2)).clamp(min=1e-6)[:, None]
        return PriorVideo(self.labels.begin(features, sizes, mask), clip, sizes, classes)

    @torch.inference_mode()
    def step(self, state: PriorVideo, frame: Frame) -> tuple[PriorVideo, Tensor]:
        """Copy labels to the next frame and weigh them by the prior.

        Background has a prior of its own, so that a head without an opinion changes nothing.
        """
        features, probabilities = self._look(state.clip, frame, state.sizes)
        scores = self.labels.step(state.memory, features, state.sizes)
        agreement = torch.einsum("oc,chw->ohw", state.classes, probabilities)
        return state, scores * to_native(agreement, state.sizes) ** self.strength

    def _look(self, clip: SlidingClip, frame: Frame, sizes: Geometry) -> tuple[Tensor, Tensor]:
        """Features and class probabilities of the next frame, from one pass."""
        window = clip.push(self.frames.prepare(frame.image))
        output = self.frames.network(window, (self.labels.tap,))
        features = self.frames.on_frame(output.taps[self.labels.tap], self.labels.tap, sizes)
        return features, self.frames.classes(output, sizes)

    def record(self) -> ProtocolRecord:
        """Tap, resolution, propagation and the prior."""
        record = self.labels.record()
        return replace(record, extra={**record.extra, "prior": f"{self.strength:g}"})
