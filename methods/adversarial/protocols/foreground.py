"""Foreground without a mask: whatever the head takes for a thing, in every frame anew.

A head that knows many classes marks all things; DAVIS annotates only the main one. Recall, which
the metrics list beside J, shows when that is what fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.method import MethodSettings, ProtocolRecord
from bench.video import Frame
from methods.adversarial.protocols.base import FromNothing
from methods.adversarial.protocols.frames import FrameNetwork, Geometry, SlidingClip, to_native


class ForegroundSettings(MethodSettings):
    """Settings of :class:`ForegroundProtocol`.

    Attributes:
        threshold: probability above which a pixel is foreground; the same for all videos.
        smooth: average each frame's probability with the previous one's (the next one's is not
            known yet).
        primary: keep only the connected component that gathered most probability over the video
            so far.
    """

    kind: Literal["foreground"] = "foreground"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    smooth: bool = False
    primary: bool = False


class Chains:
    """Connected components followed from frame to frame.

    A component continues the chain that covers most of its pixels in the previous frame, or
    starts one of its own. A chain ends when nothing continues it.
    """

    def __init__(self) -> None:
        self.gathered: dict[int, float] = {}
        self.previous: NDArray[np.int32] | None = None
        self.next = 1

    def primary(self, probability: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
        """Add a frame ``(H, W)``; where the chain is that gathered most probability so far."""
        count, components = cv2.connectedComponents((probability > threshold).astype(np.uint8))
        chains = np.zeros(components.shape, np.int32)
        gathered: dict[int, float] = {}
        for component in range(1, count):
            inside = components == component
            chain = self._continued(inside)
            chains[inside] = chain
            before = gathered.get(chain, self.gathered.get(chain, 0.0))
            gathered[chain] = before + float(probability[inside].sum())
        self.previous, self.gathered = chains, gathered
        best = max(gathered, key=lambda chain: gathered[chain], default=-1)
        kept: NDArray[np.bool_] = chains == best
        return kept

    def _continued(self, inside: NDArray[np.bool_]) -> int:
        if self.previous is not None:
            covered = np.bincount(self.previous[inside])
            covered[0] = 0
            if covered.any():
                return int(covered.argmax())
        self.next += 1
        return self.next - 1


@dataclass
class ForegroundVideo:
    """One video: its last frames, sizes, the previous frame's probability, its chains."""

    clip: SlidingClip
    sizes: Geometry
    previous: Tensor | None = None
    chains: Chains = field(default_factory=Chains)


class ForegroundProtocol(FromNothing):
    """One proposal: all foreground of a frame."""

    def __init__(self, frames: FrameNetwork, settings: ForegroundSettings) -> None:
        self.frames = frames
        self.settings = settings

    def begin(self, frame: Frame) -> tuple[ForegroundVideo, Tensor]:
        """Segment the first frame, like any other."""
        state = ForegroundVideo(self.frames.clip(), self.frames.geometry(frame.image.shape))
        return self.step(state, frame)

    @torch.inference_mode()
    def step(self, state: ForegroundVideo, frame: Frame) -> tuple[ForegroundVideo, Tensor]:
        """Foreground ``(2, H, W)``: the threshold against the probability."""
        window = state.clip.push(self.frames.prepare(frame.image))
        found = self.frames.foreground(self.frames.network(window), state.sizes)
        probability = found
        if self.settings.smooth:
            probability = found if state.previous is None else (found + state.previous) / 2
            state.previous = found
        probability = to_native(probability[None], state.sizes)[0]
        threshold = self.settings.threshold
        if self.settings.primary:
            kept = state.chains.primary(probability.float().cpu().numpy(), threshold)
            probability = probability * torch.from_numpy(kept).to(probability.device)
        return state, torch.stack([torch.full_like(probability, threshold), probability])

    def record(self) -> ProtocolRecord:
        """Threshold, smoothing, resolution."""
        return ProtocolRecord(
            resolution=self.frames.resolution,
            stride=1,
            memory="previous" if self.settings.smooth or self.settings.primary else "none",
            label_resize="bilinear",
            extra={
                "threshold": f"{self.settings.threshold:g}",
                "smooth": str(self.settings.smooth).lower(),
                "primary": str(self.settings.primary).lower(),
            },
        )
