"""UVC: localise a region, then copy its colours cell by cell.

Source: Li, Liu, De Mello, Wang, Kautz, Yang: Joint-task self-supervised learning for temporal
correspondence, NeurIPS 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.video import RGB
from methods.clips import place, resize_short_side
from methods.correspondence.inputs import lab_bytes
from methods.correspondence.pretext.affinity import (
    concentration_loss,
    coordinate_switch_loss,
    coordinates,
    soft_affinity,
    transposed,
)
from methods.correspondence.pretext.autoencoder import (
    ColourAutoencoder,
    colour_distance,
    grey_input,
    load_autoencoder,
)
from methods.correspondence.pretext.clips import Sample, crop_at_random
from methods.correspondence.pretext.copying import copy_global
from methods.correspondence.pretext.transformer import crop

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder

Stage = Literal["warm_up", "localise"]


class UVCSettings(MethodSettings):
    """How UVC is trained. The defaults are the authors', in the first of their two stages.

    The authors count in epochs of Kinetics, some 6,000 steps each.

    Attributes:
        stage: ``"warm_up"`` copies between crops of both frames; ``"localise"``, started from
            the first stage's weights, finds a crop of the first frame in the whole second one.
        largest_gap: between the two frames, in frames; drawn evenly from 1 on.
        short_side: frames are scaled to it in the first stage, in pixels.
        rotation: largest angle in the first stage, in degrees, the same for both frames.
        scale: smallest and largest factor in the first stage, the same for both frames.
        flip: probability of mirroring both frames.
        crop: side of a crop in pixels, a multiple of the encoder's stride and of 8.
        full: long side of whole frames in the second stage in pixels, a multiple likewise.
        temperature: of the affinity; features are not normalised.
        switch_weight: of copying colours back along the transposed affinity.
        coordinate_switch_weight: of carrying coordinates there and back; 0 leaves it out, as the
            authors' training does.
        concentration_weight: of the concentration loss.
        concentration_block: side in cells of the blocks that shall stay together.
        concentration_from: steps before the concentration loss sets in.
        largest_colour_loss: samples above it do not count; their frames show different things.
        largest_from: steps before that limit sets in; 12,000 in the authors' second stage.
        autoencoder: weights of the colour auto-encoder.
        autoencoder_width: see :class:`ColourAutoencoder`.
        batch_size: pairs per step.
        learning_rate: of Adam.
        weight_decay: of Adam.
    """

    stage: Stage = "warm_up"
    largest_gap: int = Field(default=50, ge=1)
    short_side: int = Field(default=256, ge=16)
    rotation: float = Field(default=10.0, ge=0)
    scale: tuple[float, float] = (1 / 1.2, 1.2)
    flip: float = Field(default=0.5, ge=0, le=1)
    crop: int = Field(default=256, ge=16, multiple_of=8)
    full: int = Field(default=640, ge=16, multiple_of=8)
    temperature: float = Field(default=1.0, gt=0)
    switch_weight: float = Field(default=0.1, ge=0)
    coordinate_switch_weight: float = Field(default=0.0, ge=0)
    concentration_weight: float = Field(default=0.3, ge=0)
    concentration_block: int = Field(default=8, ge=1)
    concentration_from: int = Field(default=6000, ge=0)
    largest_colour_loss: float = Field(default=2.5, gt=0)
    largest_from: int = Field(default=6000, ge=0)
    autoencoder: Path | None = None
    autoencoder_width: int = Field(default=64, ge=1)
    batch_size: int = Field(default=40, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> UVCSettings:
        if self.crop > min(self.short_side, self.full):
            raise ValueError("crop must not be larger than short_side and full")
        return self

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """Two frames at a random gap, anywhere in a video of so many."""
        return place(random, length, (0, int(random.integers(1, self.largest_gap + 1))))


def warm_up_pair(
    frames: list[RGB], random: np.random.Generator, settings: UVCSettings
) -> list[RGB]:
    """Rotate and scale both frames alike, and crop each somewhere else."""
    frames = [resize_short_side(frame, settings.short_side) for frame in frames]
    height, width = frames[0].shape[:2]
    angle = random.uniform(-settings.rotation, settings.rotation)
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), angle, random.uniform(*settings.scale)
    )
    turned = [
        np.asarray(
            cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101),
            np.uint8,
        )
        for frame in frames
    ]
    return [crop_at_random([frame], random, settings.crop)[0] for frame in turned]


def whole_square(image: RGB, side: int) -> RGB:
    """Scale the long side, to nearest neighbours, and reflect the image to a square."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    margins = [((side - have) // 2, side - have - (side - have) // 2) for have in size[::-1]]
    return np.pad(scaled, [*margins, (0, 0)], mode="reflect")


def augment(frames: list[RGB], random: np.random.Generator, settings: UVCSettings) -> Sample:
    """Prepare a pair of frames for the stage.

    Returns:
        ``reference``: Lab in [-1, 1], float32 ``(3, S, S)``, a crop. ``target``: the same in the
        first stage; in the second the whole other frame, ``(3, L, L)``.
    """
    if settings.stage == "warm_up":
        reference, target = warm_up_pair(frames, random, settings)
    else:
        first, target = (whole_square(frame, settings.full) for frame in frames)
        (reference,) = crop_at_random([first], random, settings.crop)
    if random.random() < settings.flip:
        reference, target = reference[:, ::-1], target[:, ::-1]
    return {
        "reference": lab_bytes(np.ascontiguousarray(reference)),
        "target": lab_bytes(np.ascontiguousarray(target)),
    }


def locate(reference: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Where in the target a crop of the reference lies: the mean of its cells' expected places.

    The softmax runs over the target's cells here, other than when colours are copied. The box
    has the reference's size and is pushed back where it would leave the target.

    Args:
        reference: ``(B, C, h, w)``.
        target: ``(B, C, H, W)``, at least as large.
        temperature: divides the dot products.

    Returns:
        The box's first cell, x and y, float ``(B, 2)``.
    """
    to_target = soft_affinity(target, reference, temperature).flatten(2)  # (B, H * W, h * w)
    size = (target.shape[2], target.shape[3])
    expected = coordinates(size, to_target) @ to_target
    last = expected.new_tensor([size[1] - 1, size[0] - 1])
    box = expected.new_tensor([reference.shape[3] - 1, reference.shape[2] - 1])
    corner = (expected.mean(2) + 1) / 2 * last - box / 2
    return torch.minimum(corner.clamp(min=0), last - box)


def box_transform(corner: Tensor, side: int, full: int) -> Tensor:
    """The theta that crops a box out of a square.

    See :mod:`methods.correspondence.pretext.transformer` for what a theta is.

    Args:
        corner: the box's first cell or pixel, x and y, ``(B, 2)``.
        side: of the box in cells or pixels.
        full: of the square.

    Returns:
        ``(B, 2, 3)``.
    """
    scale = (side - 1) / (full - 1)
    shift = (2 * corner + side - 1) / (full - 1) - 1
    zoom = torch.eye(2).to(corner).mul(scale).expand(len(corner), 2, 2)
    return torch.cat([zoom, shift[:, :, None]], 2)


class UVCObjective(nn.Module):
    """Colour, switch and concentration losses; in the second stage inside the located box.

    The switch loss on coordinates joins them where it has a weight.

    Args:
        encoder: sees lightness alone.
        settings: of the training.
        autoencoder: of colours, kept as it is; None loads ``settings.autoencoder``.

    Raises:
        ConfigError: no auto-encoder.
        MethodError: its weights do not fit.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: UVCSettings,
        autoencoder: ColourAutoencoder | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        if autoencoder is None:
            autoencoder = load_autoencoder(settings.autoencoder, settings.autoencoder_width)
        self.autoencoder = autoencoder.requires_grad_(False)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def encode(self, batch: Sample) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features and Lab of reference and target, the target cropped where it was located."""
        settings = self.settings
        reference, target = batch["reference"], batch["target"]
        first: Tensor = self.encoder(grey_input(reference))
        second: Tensor = self.encoder(grey_input(target))
        if settings.stage == "localise":
            corner = locate(first, second, settings.temperature)
            side, full = first.shape[3], second.shape[3]
            second = crop(second, box_transform(corner, side, full), side)
            # Colours are what the copy must explain, so the box is not moved to please them.
            pixels = corner.detach() * (settings.full / full)
            box = box_transform(pixels, settings.crop, settings.full)
            target = crop(target, box, settings.crop)
        return first, second, reference, target

    def colour_loss(self, affinity: Tensor, lab: Tensor, true: Tensor) -> Tensor:
        """Distance of copied and decoded colours to the true ones, ``(B,)``."""
        copied = copy_global(affinity, self.autoencoder.encode(lab))
        return colour_distance(self.autoencoder.decode(copied), true)

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The weighted losses.

        Returns:
            ``colour``, ``switch`` and ``concentration``, and ``coordinate_switch`` if wanted.
        """
        settings = self.settings
        first, second, reference, target = self.encode(batch)
        affinity = soft_affinity(first, second, settings.temperature)
        backward = soft_affinity(second, first, settings.temperature)
        colour = self.colour_loss(affinity, reference, target)
        size = (first.shape[2], first.shape[3])
        switch = self.colour_loss(transposed(affinity, size), target, reference)
        counted = self.counted(colour)
        spread = torch.stack(
            [
                concentration_loss(each, settings.concentration_block)
                for each in (affinity, backward)
            ]
        ).sum()
        started = int(self.steps) >= settings.concentration_from
        if self.training:
            self.steps += 1
        losses = {
            "colour": (colour * counted).mean(),
            "switch": settings.switch_weight * (switch * counted).mean(),
            "concentration": settings.concentration_weight * started * spread,
        }
        if settings.coordinate_switch_weight > 0:
            returned = coordinate_switch_loss(affinity, size)
            losses["coordinate_switch"] = (
                settings.coordinate_switch_weight * (returned * counted).mean()
            )
        return losses

    def counted(self, colour: Tensor) -> Tensor:
        """1 for samples that count, 0 for those whose colour loss is too large; ``(B,)``."""
        if int(self.steps) < self.settings.largest_from:
            return torch.ones_like(colour)
        return (colour.detach() <= self.settings.largest_colour_loss).to(colour)

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the colour loss of each pair."""
        first, second, reference, target = self.encode(batch)
        affinity = soft_affinity(first, second, self.settings.temperature)
        scores: list[float] = (-self.colour_loss(affinity, reference, target)).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors; the auto-encoder serves training alone."""
        return dict(self.encoder.state_dict())
