"""RPM-Net: copy colour classes from places that a deformable sampler chooses. Our reading.

Source: Kim, Choi, Lee, Kim, Kim: RPM-Net: Robust pixel-level matching networks for self-supervised
video object segmentation, WACV 2020. It is known that features are matched through deformable
convolution and trained by colour alone. The loss and all constants are not; here the loss, the
palette and the dropout of channels are CorrFlow's (Lai and Xie, BMVC 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.video import RGB
from methods.clips import place
from methods.correspondence.deformable import DeformableSampler, copy_sampled
from methods.correspondence.inputs import rgb_unit
from methods.correspondence.pretext.clips import Sample
from methods.correspondence.pretext.colours import (
    CENTROIDS,
    Centroids,
    ab,
    drop_channels,
    one_hot,
    quantise,
    resize_frame,
)
from methods.correspondence.pretext.copying import likelihood_loss, upsample
from methods.correspondence.pretext.corrflow import draw_dropped

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder


class RPMNetSettings(MethodSettings):
    """How RPM-Net is trained. All defaults are ours.

    Attributes:
        gap: between the two frames of a pair.
        size: frames are resized to squares of this side, in pixels.
        keep_channels: probability of dropping no channel; else one or two of RGB are dropped.
        centroids: the palette.
        samples: samples a side, see :class:`methods.correspondence.deformable.DeformableSampler`.
        dilation: cells between them before they are moved.
        scale: multiplies the dot products; the default is for features of 64 channels.
        batch_size: pairs per step.
        learning_rate: of Adam.
        weight_decay: of Adam.
    """

    gap: int = Field(default=1, ge=1)
    size: int = Field(default=256, ge=16)
    keep_channels: float = Field(default=0.3, ge=0, le=1)
    centroids: Centroids = CENTROIDS
    samples: int = Field(default=5, ge=1)
    dilation: int = Field(default=1, ge=1)
    scale: float = Field(default=64**-0.5, gt=0)
    batch_size: int = Field(default=12, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """Two frames ``gap`` apart, anywhere in a video of so many."""
        return place(random, length, (0, self.gap))


def augment(frames: list[RGB], random: np.random.Generator, settings: RPMNetSettings) -> Sample:
    """Resize a pair, take its colour classes, and hide colour channels from the encoder.

    Returns:
        ``images``: RGB, float32 ``(2, 3, S, S)``. ``colours``: numbers of the palette's colours,
        int64 ``(2, S, S)``.
    """
    resized = [resize_frame(frame, settings.size) for frame in frames]
    images = torch.stack([rgb_unit(frame) for frame in resized])
    return {
        "images": drop_channels(images, draw_dropped(random, settings.keep_channels)),
        "colours": quantise(torch.stack([ab(frame) for frame in resized]), settings.centroids),
    }


def sampled_affinity(
    encoder: nn.Module, sampler: DeformableSampler, scale: float, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the second frames of pairs look in the first ones, and how much they copy from there.

    Args:
        encoder: of frames.
        sampler: of its features.
        scale: multiplies the dot products.
        images: pairs, reference before target, ``(B, 2, 3, H, W)``.

    Returns:
        The grid ``(B, h, w, N, 2)``, and weights that sum to 1 over N, ``(B, N, h, w)``.
    """
    maps: Tensor = encoder(images.flatten(0, 1))
    reference, target = torch.unflatten(maps, 0, images.shape[:2]).unbind(1)
    grid, affinity = sampler(target, reference)
    return grid, F.softmax(scale * affinity, 1)


def class_loss(grid: Tensor, weights: Tensor, ids: Tensor, count: int) -> Tensor:
    """Minus the logarithm of the copied probability of the true classes.

    Args:
        grid: see :func:`sampled_affinity`.
        weights: see there.
        ids: classes of pairs, reference before target, int64 ``(B, 2, H, W)``.
        count: how many classes there are.

    Returns:
        Means by pair, ``(B,)``.
    """
    source, true = ids.unbind(1)
    # A cell holds the share that each class has of its pixels.
    values = F.interpolate(one_hot(source, count), grid.shape[1:3], mode="area")
    copied = copy_sampled(weights, grid, values)
    return likelihood_loss(upsample(copied, (true.shape[1], true.shape[2])), true)


class RPMNetObjective(nn.Module):
    """Cross-entropy of the second frame's colour classes, copied from the first frame's.

    Args:
        encoder: maps of RGB frames with dropped channels.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder, settings: RPMNetSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.sampler = DeformableSampler(encoder.channels, settings.samples, settings.dilation)

    def colour_loss(self, batch: Sample) -> Tensor:
        """Minus the logarithm of the true classes' copied probability, mean by pair, ``(B,)``."""
        found = sampled_affinity(self.encoder, self.sampler, self.settings.scale, batch["images"])
        return class_loss(*found, batch["colours"], len(self.settings.centroids))

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
        """The encoder's tensors, and the sampler's, whose names begin with ``sampler.``."""
        sampler = self.sampler.state_dict(prefix="sampler.")
        return {**self.encoder.state_dict(), **sampler}
