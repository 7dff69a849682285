"""Semantic video segmentation: the class of every pixel, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.method import ProtocolRecord
from bench.video import Frame
from methods.adversarial.protocols.base import FromNothing
from methods.adversarial.protocols.frames import FrameNetwork, Geometry, SlidingClip, to_native


@dataclass(frozen=True)
class SemanticVideo:
    """One video: its last frames, and sizes."""

    clip: SlidingClip
    sizes: Geometry


class SemanticProtocol(FromNothing):
    """The head's classes; a network with a foreground head alone knows background and foreground.

    Args:
        frames: the network.
    """

    def __init__(self, frames: FrameNetwork) -> None:
        self.frames = frames

    def begin(self, frame: Frame) -> tuple[SemanticVideo, Tensor]:
        """Segment the first frame, like any other."""
        state = SemanticVideo(self.frames.clip(), self.frames.geometry(frame.image.shape))
        return self.step(state, frame)

    @torch.inference_mode()
    def step(self, state: SemanticVideo, frame: Frame) -> tuple[SemanticVideo, Tensor]:
        """Probabilities of the classes, float ``(1 + classes, H, W)``, background first."""
        window = state.clip.push(self.frames.prepare(frame.image))
        found = self.frames.classes(self.frames.network(window), state.sizes)
        return state, to_native(found, state.sizes)

    def record(self) -> ProtocolRecord:
        """Resolution; nothing is remembered."""
        return ProtocolRecord(
            resolution=self.frames.resolution, stride=1, memory="none", label_resize="bilinear"
        )
