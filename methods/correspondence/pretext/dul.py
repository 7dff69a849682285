"""DUL: cells keep their assignment to anchors over time and under a zoom.

Source: Araslanov, Schaub-Meyer, Roth: Dense unsupervised learning for video segmentation, NeurIPS
2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.video import RGB
from methods.clips import Normalise, place, resize_short_side
from methods.correspondence.pretext.anchors import (
    anchor_logits,
    assignment_loss,
    contrastive_loss,
    draw_zoom,
    grid_cells,
    pick,
    pseudo_labels,
    zoom,
)
from methods.correspondence.pretext.clips import Sample, crop_at_random, to_tensor

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder


class DULSettings(MethodSettings):
    """How DUL is trained. The defaults are the authors' for YouTube-VOS.

    Attributes:
        frames: T, frames of a clip.
        gap: between them, in frames; the authors take 10 for other data.
        short_side: smallest and largest side in pixels to which the shorter one is scaled.
        crop: side of the random crop in pixels, the same for all frames.
        flip: probability of mirroring the clip.
        zoom: smallest and largest side of view 2 in view 1.
        zoom_flip: probability of mirroring view 2.
        anchors: of a clip, in each direction.
        temperature: of all similarities.
        cross_cells: cells of a clip in L_cross, in each direction.
        cross_weight: of L_cross.
        hidden: channels inside the head.
        embedding: channels out of the head.
        batch_size: clips per step.
        learning_rate: of Adam.
        betas: of Adam.
        weight_decay: of Adam, not for biases.
        bias_rate: factor of the biases' learning rate.
    """

    frames: int = Field(default=5, ge=2)
    gap: int = Field(default=2, ge=1)
    short_side: tuple[int, int] = (256, 320)
    crop: int = Field(default=256, ge=8)
    flip: float = Field(default=0.5, ge=0, le=1)
    zoom: tuple[float, float] = (0.5, 1.0)
    zoom_flip: float = Field(default=0.5, ge=0, le=1)
    anchors: int = Field(default=8, ge=1)
    temperature: float = Field(default=0.05, gt=0)
    cross_cells: int = Field(default=4, ge=1)
    cross_weight: float = Field(default=0.1, ge=0)
    hidden: int = Field(default=512, ge=1)
    embedding: int = Field(default=128, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(default=5e-4, ge=0)
    bias_rate: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> DULSettings:
        if self.crop > self.short_side[0]:
            raise ValueError("crop must not be larger than short_side")
        return self

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """``frames`` frames ``gap`` apart, anywhere in a video of so many."""
        return place(random, length, range(0, self.frames * self.gap, self.gap))


def augment(frames: list[RGB], random: np.random.Generator, settings: DULSettings) -> Sample:
    """Scale, crop, mirror and shuffle a clip, and draw view 2's zoom.

    Returns:
        ``frames``: uint8 ``(T, 3, S, S)``, view 1, the anchor frame first. ``zoom``: float32
        ``(2, 3)``, see :mod:`methods.correspondence.pretext.anchors`.
    """
    low, high = settings.short_side
    side = int(random.integers(low, high + 1))
    frames = crop_at_random(
        [resize_short_side(frame, side) for frame in frames], random, settings.crop
    )
    if random.random() < settings.flip:
        frames = [frame[:, ::-1] for frame in frames]
    order = random.permutation(len(frames))
    return {
        "frames": to_tensor([frames[number] for number in order]),
        "zoom": draw_zoom(random, settings.zoom, settings.zoom_flip),
    }


class ProjectionHead(nn.Sequential):
    """DUL's embedding: 1 x 1 convolution, batch norm, ReLU, 1 x 1 convolution.

    Args:
        channels: of the encoder.
        hidden: channels in between.
        embedding: output channels.
    """

    def __init__(self, channels: int, hidden: int, embedding: int) -> None:
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, embedding, 1),
        )


class DULObjective(nn.Module):
    """L_temp and L_cross.

    Both passes use batch statistics while training, the one without gradients too.

    Args:
        encoder: maps of frames.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder, settings: DULSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.normalise = Normalise()
        self.head = ProjectionHead(encoder.channels, settings.hidden, settings.embedding)

    def embed(self, clips: Tensor) -> Tensor:
        """Images ``(B, T, 3, H, W)`` to unit vectors ``(B, T, C, h, w)``."""
        maps = self.head(self.encoder(clips.flatten(0, 1)))
        return F.normalize(maps.float(), dim=1).view(*clips.shape[:2], *maps.shape[1:])

    def embed_views(self, clips: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Embed view 1, and view 2 without gradients but for its anchor frame.

        Args:
            clips: images ``(B, T, 3, H, W)``, view 1.
            theta: the zoom, ``(B, 2, 3)``.

        Returns:
            Views 1 and 2, ``(B, T, C, h, w)`` each.
        """
        zoomed = zoom(clips, theta)
        with_gradient = self.embed(torch.cat([clips, zoomed[:, :1]], 1))
        with torch.no_grad():
            without = self.embed(zoomed[:, 1:])
        return with_gradient[:, :-1], torch.cat([with_gradient[:, -1:], without], 1)

    def clip_losses(self, batch: Sample, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """L_temp and L_cross per clip, ``(B,)`` each, neither of them weighted.

        Args:
            batch: see :func:`augment`, with a batch dimension.
            offsets: where the grids begin, ``(2, 2)`` in [0, 1): that of the anchors, then that
                of L_cross; see :func:`methods.correspondence.pretext.anchors.grid_cells`.
        """
        settings, theta = self.settings, batch["zoom"]
        first, second = self.embed_views(self.normalise(batch["frames"]), theta)
        size = (first.shape[3], first.shape[4])
        (down, right), (cross_down, cross_right) = offsets.tolist()

        anchors = pick(first[:, 0], grid_cells(size, settings.anchors, (down, right)))
        logits = anchor_logits(first[:, 1:], anchors, settings.temperature)
        with torch.no_grad():
            labels = pseudo_labels(
                anchor_logits(second[:, 1:], anchors, settings.temperature), len(first)
            )
        temporal = assignment_loss(zoom(logits, theta, nearest=True), labels)

        cells = grid_cells(size, settings.cross_cells, (cross_down, cross_right))
        moved = zoom(first[:, :1], theta, nearest=True)[:, 0]
        cross = contrastive_loss(
            pick(moved, cells), pick(second[:, 0], cells), settings.temperature
        )
        return temporal, cross

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The weighted losses: ``temporal`` and ``cross``."""
        temporal, cross = self.clip_losses(batch, torch.rand(2, 2))
        return {"temporal": temporal.mean(), "cross": self.settings.cross_weight * cross.mean()}

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the weighted loss of each clip, with the grids in the middle.

        Other clips of the batch are negatives, so batches of one size alone can be compared.
        """
        temporal, cross = self.clip_losses(batch, torch.full((2, 2), 0.5))
        scores: list[float] = (-temporal - self.settings.cross_weight * cross).tolist()
        return scores

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For the optimiser: biases learn faster than weights and do not decay."""
        groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for name, parameter in self.named_parameters():
            groups[name.endswith("bias")].append(parameter)
        settings = self.settings
        return [
            {"params": groups[False], "weight_decay": settings.weight_decay},
            {
                "params": groups[True],
                "lr": settings.bias_rate * settings.learning_rate,
                "weight_decay": 0.0,
            },
        ]

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors; the head serves training alone."""
        return dict(self.encoder.state_dict())
