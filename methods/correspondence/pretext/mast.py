"""MAST: copy the colour channel that the encoder is not shown.

Source: Lai, Lu, Xie: MAST: a memory-augmented self-supervised tracker, CVPR 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.propagation.settings import Outside
from bench.video import RGB
from methods.clips import place
from methods.correspondence.pretext.clips import Sample
from methods.correspondence.pretext.colours import lab_targets, resize_frame
from methods.correspondence.pretext.copying import (
    local_reconstruction,
    local_weights,
    reconstruction_loss,
)

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder


class MASTSettings(MethodSettings):
    """How MAST is trained. The defaults are the authors', but for ``scale``.

    Attributes:
        intervals: distances between the two frames of a pair, in frames.
        interval_probabilities: of each of them.
        size: frames are resized to squares of this side, in pixels.
        radius: of the window, in cells.
        scale: multiplies the dot products. The authors train with 1, which is reported to diverge
            with current PyTorch; ``1 / sqrt(64)`` is MAMP's, for features of 64 channels.
        outside: what window cells beyond the border are.
        batch_size: pairs per step.
        learning_rate: of Adam.
        weight_decay: of Adam.
    """

    intervals: tuple[int, ...] = (2, 5, 8)
    interval_probabilities: tuple[float, ...] = (0.4, 0.4, 0.2)
    size: int = Field(default=256, ge=16)
    radius: int = Field(default=6, ge=1)
    scale: float = Field(default=64**-0.5, gt=0)
    outside: Outside = "zero"
    batch_size: int = Field(default=12, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _has_probabilities(self) -> MASTSettings:
        if len(self.intervals) != len(self.interval_probabilities) or min(self.intervals) < 1:
            raise ValueError("intervals must be positive and have a probability each")
        if min(self.interval_probabilities) < 0 or abs(sum(self.interval_probabilities) - 1) > 1e-6:
            raise ValueError("interval_probabilities must sum to 1")
        return self

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """Two frames at a random interval, anywhere in a video of so many."""
        interval = random.choice(self.intervals, p=self.interval_probabilities)
        return place(random, length, (0, int(interval)))


def augment(frames: list[RGB], random: np.random.Generator, settings: MASTSettings) -> Sample:
    """Resize a pair, and hide a or b from the encoder.

    Returns:
        ``images``: Lab without one colour channel, float32 ``(2, 3, S, S)``. ``colours``: that
        channel, float32 ``(2, 1, S, S)``.
    """
    resized = [resize_frame(frame, settings.size) for frame in frames]
    images, colours = lab_targets(resized, int(random.integers(1, 3)))
    return {"images": images, "colours": colours}


class MASTObjective(nn.Module):
    """Huber loss of the second frame's hidden channel, copied from the first frame's.

    Args:
        encoder: maps of Lab frames with a hidden channel.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder, settings: MASTSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings

    def colour_loss(self, batch: Sample) -> Tensor:
        """Reconstruction loss of each pair, ``(B,)``."""
        images, settings = batch["images"], self.settings
        maps: Tensor = self.encoder(images.flatten(0, 1))
        reference, target = torch.unflatten(maps, 0, images.shape[:2]).unbind(1)
        weights = local_weights(
            target, reference, settings.radius, settings.scale, settings.outside
        )
        source, true = batch["colours"].unbind(1)
        return reconstruction_loss(local_reconstruction(weights, source), true)

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The loss.

        Args:
            batch: see :func:`augment`, with a batch dimension.

        Returns:
            ``colour``, a scalar.
        """
        return {"colour": self.colour_loss(batch).mean()}

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the loss of each pair."""
        scores: list[float] = (-self.colour_loss(batch)).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors."""
        return dict(self.encoder.state_dict())
