"""VidColor: colour a grey frame by copying colours of grey reference frames.

Source: Vondrick, Shrivastava, Fathi, Guadarrama, Murphy: Tracking emerges by colorizing videos,
ECCV 2018; constants of its public TensorFlow re-implementation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.errors import MethodError
from bench.method import MethodSettings
from bench.video import RGB
from methods.clips import place, resize_short_side
from methods.correspondence.inputs import PREPARATIONS
from methods.correspondence.pretext.clips import Sample, crop_at_random
from methods.correspondence.pretext.colours import (
    CENTROIDS,
    Centroids,
    ab,
    one_hot,
    quantise,
    resize_frame,
)
from methods.correspondence.pretext.copying import (
    copy_global,
    global_affinity,
    likelihood_loss,
)

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder
    from methods.correspondence.preactivation import PreactivationEncoder


class VidColorSettings(MethodSettings):
    """How VidColor is trained. The defaults are the re-implementation's, but for the palette.

    Attributes:
        offsets: of the clip's frames from its start; the last frame is the target.
        short_side: frames are scaled to it first, in pixels.
        crop: side in pixels of the square cut out of the same place of all frames.
        cells: side of the map of colours; the encoder's map of a crop must have it.
        preparation: of what the encoder sees: ``"grey"`` has one channel, ``"lightness"`` has
            three alike, for an encoder of colour images.
        temperature: of the affinity. The paper reduces it to 0.5 while training.
        centroids: the palette.
        weight_penalty: multiplies half the sum of the squared weights.
        batch_size: clips per step.
        learning_rate: of Adam.
        weight_decay: of Adam, besides ``weight_penalty``.
    """

    offsets: tuple[int, ...] = Field(default=(0, 5, 10, 19), min_length=2)
    short_side: int = Field(default=256, ge=16)
    crop: int = Field(default=256, ge=16)
    cells: int = Field(default=32, ge=2)
    preparation: Literal["grey", "lightness"] = "grey"
    temperature: float = Field(default=1.0, gt=0)
    centroids: Centroids = CENTROIDS
    weight_penalty: float = Field(default=1e-4, ge=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """Frames at ``offsets`` from anywhere in a video of so many."""
        return place(random, length, self.offsets)


def augment(frames: list[RGB], random: np.random.Generator, settings: VidColorSettings) -> Sample:
    """Cut the same square out of all frames; keep its grey for the encoder, its colours to copy.

    Returns:
        ``images``: float32 ``(T, 1 or 3, S, S)``, grey. ``colours``: numbers of the palette's
        colours on the encoder's map, int64 ``(T, cells, cells)``.
    """
    scaled = [resize_short_side(frame, settings.short_side) for frame in frames]
    scaled = crop_at_random(scaled, random, settings.crop)
    prepare = PREPARATIONS[settings.preparation]
    small = torch.stack([ab(resize_frame(frame, settings.cells)) for frame in scaled])
    return {
        "images": torch.stack([prepare(frame) for frame in scaled]),
        "colours": quantise(small, settings.centroids),
    }


class VidColorObjective(nn.Module):
    """Cross-entropy of the target's colours under the mean of the references', by affinity.

    The re-implementation passes the copied probabilities through a second softmax, which bounds
    the loss from below. Here the paper's equations hold.

    Args:
        encoder: sees grey frames.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder | PreactivationEncoder, settings: VidColorSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings

    def colour_loss(self, batch: Sample) -> Tensor:
        """Minus the logarithm of the true colours' probability, mean by clip, ``(B,)``."""
        images, ids = batch["images"], batch["colours"]
        features: Tensor = self.encoder(images.flatten(0, 1))
        if features.shape[2:] != ids.shape[2:]:
            raise MethodError(
                "VidColorObjective",
                f"features of {tuple(features.shape[2:])} cells and {tuple(ids.shape[2:])} colours",
                "as many colours as cells",
                "Set cells to crop divided by the encoder's stride.",
            )
        features = torch.unflatten(features, 0, images.shape[:2])
        references = features[:, :-1].transpose(1, 2)
        affinity = global_affinity(features[:, -1], references, 1 / self.settings.temperature)
        colours = one_hot(ids[:, :-1].flatten(1, 2), len(self.settings.centroids))
        return likelihood_loss(copy_global(F.softmax(affinity, 1), colours), ids[:, -1])

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The weighted losses.

        Args:
            batch: see :func:`augment`, with a batch dimension.

        Returns:
            ``colour`` and ``weights``, scalars.

        Raises:
            MethodError: the encoder's map has not as many cells as there are colours.
        """
        squares = [each.square().sum() for each in self.encoder.parameters()]
        return {
            "colour": self.colour_loss(batch).mean(),
            "weights": self.settings.weight_penalty / 2 * torch.stack(squares).sum(),
        }

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the colour loss of each clip."""
        scores: list[float] = (-self.colour_loss(batch)).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors."""
        return dict(self.encoder.state_dict())
