"""Prototypes of each object and of its surroundings, which every pixel is compared with.

Between propagation, which trusts single cells, and fine-tuning, which trains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.method import MethodSettings, ProtocolRecord
from bench.propagation import labels_from_mask, resize
from bench.video import Frame, Mask, object_ids
from methods.adversarial.kmeans import lloyd, spherical_kmeans
from methods.adversarial.protocols.base import Prompted
from methods.adversarial.protocols.frames import (
    FrameNetwork,
    Geometry,
    SlidingClip,
    object_scores,
    pad,
)
from methods.adversarial.taps import Tap


class MatchingSettings(MethodSettings):
    """Settings of :class:`MatchingProtocol`.

    Attributes:
        tap: where features are taken.
        prototypes: of each object, and as many of everything else.
        temperature: divides the difference of the two best cosines before the sigmoid.
        confidence: probability from which a cell of the previous frame counts as the object's;
            below one minus it, as the surroundings'.
    """

    kind: Literal["matching"] = "matching"
    tap: Tap = "enc3"
    prototypes: int = Field(default=8, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    confidence: float = Field(default=0.9, gt=0.5, lt=1)


@dataclass
class ObjectPrototypes:
    """What one object is compared by.

    Attributes:
        inside: unit vectors ``(N, C)`` of the first frame's cells that the object covers.
        outside: the others of that frame.
        of_object: prototypes ``(P, C)``, unit vectors.
        of_rest: prototypes of everything else.
    """

    inside: Tensor
    outside: Tensor
    of_object: Tensor
    of_rest: Tensor

    @classmethod
    def of_first_frame(
        cls, cells: Tensor, share: Tensor, count: int, seed: int
    ) -> ObjectPrototypes:
        """Cluster the first frame: cells ``(N, C)``, the object's share ``(N,)`` of each."""
        covered = share > 0.5
        if not covered.any():  # an object smaller than a cell
            covered = share >= share.max()
        inside, outside = cells[covered], cells[~covered]
        return cls(inside, outside, clusters(inside, count, seed), clusters(outside, count, seed))

    def difference(self, cells: Tensor) -> Tensor:
        """Best cosine with the object less the best with the rest: ``(N,)`` of ``(N, C)``."""
        rest = best_cosine(cells, self.of_rest)
        return best_cosine(cells, self.of_object) - rest

    def follow(self, cells: Tensor, probability: Tensor, confidence: float) -> None:
        """Move the prototypes to the first frame's cells and the latest frame's confident ones."""
        sure, surely_not = probability > confidence, probability < 1 - confidence
        self.of_object = lloyd(torch.cat([self.inside, cells[sure]]), self.of_object)
        if len(self.of_rest):
            self.of_rest = lloyd(torch.cat([self.outside, cells[surely_not]]), self.of_rest)


@dataclass
class MatchedVideo:
    """One video: its objects' prototypes, last frames, and sizes."""

    clip: SlidingClip
    sizes: Geometry
    objects: list[ObjectPrototypes] = field(default_factory=list)


class MatchingProtocol(Prompted):
    """Compares every cell with prototypes of object and rest."""

    def __init__(self, frames: FrameNetwork, settings: MatchingSettings, seed: int) -> None:
        self.frames = frames
        self.settings = settings
        self.stride = frames.stride(settings.tap)
        self.seed = seed

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> MatchedVideo:
        """Find the prototypes of the first frame."""
        state = MatchedVideo(self.frames.clip(), self.frames.geometry(mask.shape))
        cells, grid = self._cells(state, frame)
        labels = labels_from_mask(mask, object_ids(mask), state.sizes.native, self.frames.device)
        cover = pad(labels[1:], state.sizes.cover(self.stride))
        for share in F.interpolate(cover[None], size=grid, mode="area")[0]:
            state.objects.append(
                ObjectPrototypes.of_first_frame(
                    cells, share.flatten(), self.settings.prototypes, self.seed
                )
            )
        return state

    @torch.inference_mode()
    def step(self, state: MatchedVideo, frame: Frame) -> tuple[MatchedVideo, Tensor]:
        """Compare the next frame, then let its confident cells move the prototypes."""
        cells, grid = self._cells(state, frame)
        logits = torch.stack([known.difference(cells) for known in state.objects])
        logits = logits / self.settings.temperature
        for known, probability in zip(state.objects, logits.sigmoid(), strict=True):
            known.follow(cells, probability, self.settings.confidence)
        height, width = state.sizes.native
        maps = resize(logits.view(-1, *grid), state.sizes.cover(self.stride))
        return state, object_scores(maps[:, :height, :width].sigmoid())

    def _cells(self, state: MatchedVideo, frame: Frame) -> tuple[Tensor, tuple[int, int]]:
        """The next frame's cells as unit vectors ``(N, C)``, and the grid they came from."""
        window = state.clip.push(self.frames.prepare(frame.image))
        features = self.frames.features(window, self.settings.tap, state.sizes)
        cells = F.normalize(features.float(), dim=0).flatten(1).T.contiguous()
        return cells, (features.shape[1], features.shape[2])

    def record(self) -> ProtocolRecord:
        """Tap, resolution, prototypes."""
        settings = self.settings
        return ProtocolRecord(
            resolution=self.frames.resolution,
            stride=self.stride,
            memory="first + previous (confident cells)",
            temperature=settings.temperature,
            label_resize="area / bilinear",
            extra={
                "tap": settings.tap,
                "prototypes": str(settings.prototypes),
                "confidence": f"{settings.confidence:g}",
            },
        )


def clusters(cells: Tensor, count: int, seed: int) -> Tensor:
    """Up to ``count`` prototypes of cells ``(N, C)``; none where there are no cells."""
    if len(cells) <= count:
        return cells
    return spherical_kmeans(cells, count, seed).centroids


def best_cosine(cells: Tensor, prototypes: Tensor) -> Tensor:
    """Largest cosine ``(N,)`` of cells ``(N, C)`` with prototypes; -1 where there are none."""
    if not len(prototypes):
        return cells.new_full((len(cells),), -1.0)
    return (cells @ prototypes.T).amax(1)
