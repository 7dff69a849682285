"""CorrFlow: copy colour classes from frame to frame, in short steps and round long cycles.

Source: Lai and Xie: Self-supervised learning for video correspondence flow, BMVC 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.video import RGB
from methods.clips import place
from methods.correspondence.inputs import rgb_unit
from methods.correspondence.pretext.clips import Sample
from methods.correspondence.pretext.colours import (
    CENTROIDS,
    Centroids,
    ab,
    drop_channels,
    jitter,
    one_hot,
    quantise,
    resize_frame,
)
from methods.correspondence.pretext.copying import (
    copy_local,
    likelihood_loss,
    local_weights,
    upsample,
)

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder

Reduction = Literal["truncated_ids", "bilinear"]
"""How true colour classes come to the feature map: their numbers are resized bilinearly as if they
were quantities, and truncated (the official code's way, which makes up classes at edges); or maps
of each class are resized bilinearly."""


class CorrFlowSettings(MethodSettings):
    """How CorrFlow is trained. The defaults are the authors', but for the palette.

    Attributes:
        gap: between the clip's three frames, in frames.
        size: frames are resized to squares of this side, in pixels.
        keep_channels: probability of dropping no channel. Else one or two of RGB are dropped,
            both equally often, the same ones in all frames of a clip. (The authors draw for a
            batch as a whole.)
        jitter_probability: of changing a frame's colours, each frame by itself.
        jitter: how far, see :func:`methods.correspondence.pretext.colours.jitter`.
        centroids: the palette.
        reduction: see :data:`Reduction`.
        radius: of the window, in cells.
        scale: multiplies the dot products.
        true_colours: probability that the second step copies from true colours instead of copied
            ones, at the start and at the end of training.
        sampling_steps: steps over which it goes from one to the other; the default is ours, about
            a million samples, after which the authors no longer change the learning rate.
        long_weight: of the cycles.
        batch_size: clips per step.
        learning_rate: of Adam.
        weight_decay: of Adam.
    """

    gap: int = Field(default=4, ge=1)
    size: int = Field(default=256, ge=16)
    keep_channels: float = Field(default=0.3, ge=0, le=1)
    jitter_probability: float = Field(default=0.1, ge=0, le=1)
    jitter: float = Field(default=0.1, ge=0, le=0.5)
    centroids: Centroids = CENTROIDS
    reduction: Reduction = "truncated_ids"
    radius: int = Field(default=6, ge=1)
    scale: float = Field(default=1.0, gt=0)
    true_colours: tuple[float, float] = (0.9, 0.6)
    sampling_steps: int = Field(default=170_000, ge=1)
    long_weight: float = Field(default=0.1, ge=0)
    batch_size: int = Field(default=6, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """Three frames ``gap`` apart, anywhere in a video of so many."""
        return place(random, length, (0, self.gap, 2 * self.gap))


def draw_dropped(random: np.random.Generator, keep: float) -> list[int]:
    """Numbers of the RGB channels to drop: none with probability ``keep``, else one or two."""
    if random.random() < keep:
        return []
    return [int(channel) for channel in random.permutation(3)[: random.integers(1, 3)]]


def augment(frames: list[RGB], random: np.random.Generator, settings: CorrFlowSettings) -> Sample:
    """Resize a clip, take its colour classes, and hide colour channels from the encoder.

    Returns:
        ``images``: RGB, float32 ``(T, 3, S, S)``. ``colours``: numbers of the palette's colours,
        int64 ``(T, S, S)``.
    """
    resized = [resize_frame(frame, settings.size) for frame in frames]
    images = [rgb_unit(frame) for frame in resized]
    images = [
        jitter(image, random, settings.jitter)
        if random.random() < settings.jitter_probability
        else image
        for image in images
    ]
    return {
        "images": drop_channels(torch.stack(images), draw_dropped(random, settings.keep_channels)),
        "colours": quantise(torch.stack([ab(frame) for frame in resized]), settings.centroids),
    }


def truncated_classes(ids: Tensor, size: tuple[int, int], count: int) -> Tensor:
    """Resize class *numbers* bilinearly, and truncate; see :data:`Reduction`.

    Args:
        ids: int64 ``(B, H, W)``.
        size: (h, w).
        count: number of classes.

    Returns:
        float32 ``(B, count, h, w)`` of 0 and 1.
    """
    numbers = F.interpolate(ids[:, None].float(), size, mode="bilinear", align_corners=False)
    return one_hot(numbers[:, 0].long(), count)


class CorrFlowObjective(nn.Module):
    """Cross-entropy of copied colour classes after each step and after cycles.

    Args:
        encoder: maps of RGB frames with dropped channels.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder, settings: CorrFlowSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def true_colours(self) -> float:
        """The present probability that the second step copies from true colours."""
        first, last = self.settings.true_colours
        progress = min(1.0, int(self.steps) / self.settings.sampling_steps)
        return first + (last - first) * progress

    def encode(self, images: Tensor) -> list[Tensor]:
        """Features of the frames ``(B, T, 3, H, W)``, one tensor ``(B, C, h, w)`` per frame."""
        maps: Tensor = self.encoder(images.flatten(0, 1))
        return list(torch.unflatten(maps, 0, images.shape[:2]).unbind(1))

    def reduce(self, ids: Tensor, size: tuple[int, int]) -> Tensor:
        """True classes ``(B, H, W)`` on the feature map, ``(B, K, h, w)``."""
        count = len(self.settings.centroids)
        if self.settings.reduction == "truncated_ids":
            return truncated_classes(ids, size, count)
        return F.interpolate(one_hot(ids, count), size, mode="bilinear", align_corners=False)

    def weights(self, target: Tensor, reference: Tensor) -> Tensor:
        """Weights of the reference's cells, see :func:`local_weights`."""
        return local_weights(
            target, reference, self.settings.radius, self.settings.scale, "exclude"
        )

    def carry(self, weights: Tensor, colours: Tensor, size: tuple[int, int]) -> Tensor:
        """Copy classes from one frame to another.

        Args:
            weights: ``(B, (2R + 1)^2, h, w)``.
            colours: of the reference: true ones, int64 ``(B, H, W)``, or probabilities copied
                before, float ``(B, K, H, W)``.
            size: (H, W).

        Returns:
            Probabilities ``(B, K, H, W)``.
        """
        cells = (weights.shape[2], weights.shape[3])
        if colours.is_floating_point():
            values = F.interpolate(colours, cells, mode="bilinear", align_corners=False)
        else:
            values = self.reduce(colours, cells)
        return upsample(copy_local(weights, values), size)

    def step_losses(
        self, weights: list[Tensor], colours: Tensor, true_colours: float
    ) -> list[Tensor]:
        """Losses of copying from each frame to the next, by clip.

        Args:
            weights: from frame t to frame t + 1, ``(B, (2R + 1)^2, h, w)`` for each t.
            colours: true classes, int64 ``(B, T, H, W)``.
            true_colours: probability of copying from true colours where there are copied ones.

        Returns:
            ``(B,)`` per step.
        """
        losses: list[Tensor] = []
        copied = colours[:, 0]
        for number, each in enumerate(weights):
            from_true = number == 0 or float(torch.rand(())) < true_colours
            source = colours[:, number] if from_true else copied
            copied = self.carry(each, source, (colours.shape[2], colours.shape[3]))
            losses.append(likelihood_loss(copied, colours[:, number + 1]))
        return losses

    def cycle_loss(self, path: list[Tensor], colours: Tensor) -> Tensor:
        """Loss of carrying the first frame's classes along a path that returns to it, ``(B,)``.

        Args:
            path: weights of each step.
            colours: the first frame's classes, int64 ``(B, H, W)``.
        """
        copied = colours
        for weights in path:
            copied = self.carry(weights, copied, (colours.shape[1], colours.shape[2]))
        return likelihood_loss(copied, colours)

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The weighted losses.

        Args:
            batch: see :func:`augment`, with a batch dimension.

        Returns:
            ``similarity``, the sum over two steps, and ``long``, the sum over the cycles through
            frames 0, 1, 0 and 0, 1, 2, 1, 0.
        """
        settings, colours = self.settings, batch["colours"]
        first, second, third = self.encode(batch["images"])
        ahead = [self.weights(second, first), self.weights(third, second)]
        back = [self.weights(second, third), self.weights(first, second)]
        steps = self.step_losses(ahead, colours, self.true_colours)
        cycles = [
            self.cycle_loss([ahead[0], back[1]], colours[:, 0]),
            self.cycle_loss([*ahead, *back], colours[:, 0]),
        ]
        if self.training:
            self.steps += 1
        return {
            "similarity": torch.stack(steps).sum(0).mean(),
            "long": settings.long_weight * torch.stack(cycles).sum(0).mean(),
        }

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the loss of both steps from true colours, per clip."""
        first, second, third = self.encode(batch["images"])
        ahead = [self.weights(second, first), self.weights(third, second)]
        losses = self.step_losses(ahead, batch["colours"], true_colours=1.0)
        scores: list[float] = (-torch.stack(losses).sum(0)).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors."""
        return dict(self.encoder.state_dict())
