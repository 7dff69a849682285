"""CRW: a contrastive random walk between patches of neighbouring frames.

Source: Jabri, Owens, Efros: Space-time correspondence as a contrastive random walk, NeurIPS 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.video import RGB
from methods.clips import Normalise, place
from methods.correspondence.pretext.clips import Sample, resized_crop, to_tensor
from methods.correspondence.pretext.walk import (
    cycle_accuracy,
    cycle_loss,
    palindromes,
    transitions,
)

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
"""The statistics that CRW was trained with. It is tested with ImageNet's."""


class CRWSettings(MethodSettings):
    """How CRW is trained. The defaults are the authors'.

    Attributes:
        frames: T, frames of a clip.
        gap: between them, in frames. The authors' videos have 8 frames per second, so 3 is about
            the same for videos of 24.
        crop: side in pixels to which a crop of each frame is resized.
        crop_scale: its area as a share of the frame's.
        crop_ratio: its width by height.
        patch: side of a patch in pixels.
        stride: of the grid of patches, in pixels.
        patch_scale: area of the crop inside a patch as a share of the patch's.
        patch_ratio: its width by height.
        embedding: channels of a node.
        temperature: of the transitions.
        edge_dropout: probability of dropping an edge.
        share_dropped_edges: whether backward steps lose the forward steps' edges too.
        first_cycle: steps of the shortest cycle that counts.
        mean: of RGB in [0, 1], subtracted.
        std: of RGB in [0, 1], divided by.
        batch_size: clips per step.
        learning_rate: of Adam.
        weight_decay: of Adam.
    """

    frames: int = Field(default=4, ge=2)
    gap: int = Field(default=1, ge=1)
    crop: int = Field(default=256, ge=8)
    crop_scale: tuple[float, float] = (0.8, 0.95)
    crop_ratio: tuple[float, float] = (0.7, 1.3)
    patch: int = Field(default=64, ge=8)
    stride: int = Field(default=32, ge=1)
    patch_scale: tuple[float, float] = (0.7, 0.9)
    patch_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    embedding: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.05, gt=0)
    edge_dropout: float = Field(default=0.1, ge=0, lt=1)
    share_dropped_edges: bool = True
    first_cycle: int = Field(default=2, ge=1)
    mean: tuple[float, float, float] = CIFAR_MEAN
    std: tuple[float, float, float] = CIFAR_STD
    batch_size: int = Field(default=20, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _has_cycles(self) -> CRWSettings:
        if self.first_cycle > self.frames - 1:
            raise ValueError("first_cycle must be smaller than frames")
        if self.patch > self.crop:
            raise ValueError("patch must not be larger than crop")
        return self

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """``frames`` frames ``gap`` apart, anywhere in a video of so many."""
        return place(random, length, range(0, self.frames * self.gap, self.gap))


def augment(frames: list[RGB], random: np.random.Generator, settings: CRWSettings) -> Sample:
    """Cut each frame's random crop into a grid of patches, each cropped again.

    Every frame and every patch is cropped on its own, so that no position says which is which.

    Returns:
        ``patches``: uint8 ``(T, N, 3, P, P)``, row by row.
    """
    side, stride = settings.patch, settings.stride
    starts = range(0, settings.crop - side + 1, stride)
    clip = []
    for frame in frames:
        image = resized_crop(frame, random, settings.crop, settings.crop_scale, settings.crop_ratio)
        patches = [image[top : top + side, left : left + side] for top in starts for left in starts]
        clip.append(
            to_tensor(
                [
                    resized_crop(patch, random, side, settings.patch_scale, settings.patch_ratio)
                    for patch in patches
                ]
            )
        )
    return {"patches": torch.stack(clip)}


class CRWObjective(nn.Module):
    """The walk's loss over the palindromes of a clip.

    The authors train the encoder with its last stage, whose output is averaged over a patch, and
    then use the stage before.

    Args:
        encoder: sees patches as images.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder, settings: CRWSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.normalise = Normalise(settings.mean, settings.std)
        self.head = nn.Linear(encoder.channels, settings.embedding)

    def nodes(self, patches: Tensor) -> Tensor:
        """Unit vectors of patches, all encoded in one batch.

        Args:
            patches: uint8 ``(B, T, N, 3, P, P)``.

        Returns:
            ``(B, T, N, C)``.
        """
        maps: Tensor = self.encoder(self.normalise(patches.flatten(0, 2)))
        embedded: Tensor = self.head(maps.mean((2, 3)))
        return F.normalize(embedded.float(), dim=1).view(*patches.shape[:3], -1)

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The mean over cycles of the cross-entropy of ending where a walk began.

        Args:
            batch: ``patches``, see :func:`augment`, with a batch dimension.

        Returns:
            ``cycle``, a scalar.
        """
        steps = transitions(
            self.nodes(batch["patches"]),
            self.settings.temperature,
            self.settings.edge_dropout if self.training else 0.0,
            self.settings.share_dropped_edges,
        )
        losses = [cycle_loss(found) for found in palindromes(steps, self.settings.first_cycle)]
        return {"cycle": torch.stack(losses).mean()}

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Share of the nodes that return over the longest cycle, per clip; nothing is dropped."""
        steps = transitions(self.nodes(batch["patches"]), self.settings.temperature)
        scores: list[float] = cycle_accuracy(palindromes(steps)[-1]).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors."""
        return dict(self.encoder.state_dict())
