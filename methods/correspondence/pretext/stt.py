"""STT (Spa-then-Temp): copying at two strides, and distillation of what is matched.

Source: Li and Liu: Spatial-then-temporal self-supervised learning for video correspondence,
CVPR 2023. This is the second, temporal step. The first, contrastive learning on still images,
gives the weights to start from and the frozen teacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.video import RGB
from methods.clips import place
from methods.correspondence.checkpoint import load_encoder
from methods.correspondence.encoder import ENCODERS, Encoder, EncoderSettings
from methods.correspondence.inputs import rgb_imagenet
from methods.correspondence.pretext.clips import Sample, resized_crop
from methods.correspondence.pretext.colours import lab_targets
from methods.correspondence.pretext.copying import (
    global_affinity,
    local_affinity,
    local_reconstruction,
    reconstruction_loss,
)
from methods.correspondence.pretext.distillation import (
    above_quantile,
    global_distillation,
    local_distillation,
    pool_affinity,
    sharpness,
)

FINE, COARSE, GLOBAL = 2, 3, 4
"""Stages compared inside a wide window, inside a narrow window, and as a whole."""


class STTSettings(MethodSettings):
    """How STT is trained in its second step. The defaults are the authors'.

    Attributes:
        gap: between the two frames.
        size: side in pixels to which crops are resized.
        crop_scale: a crop's area as a share of the frame's.
        crop_ratio: its width by height.
        flip: probability of mirroring both frames.
        fine_radius: of the window at stage 2, in cells; twice ``coarse_radius``.
        coarse_radius: of the window at stage 3, in cells.
        fine_weight: of the reconstruction at stage 2.
        coarse_weight: of the reconstruction at stage 3.
        local_weight: of the local correlation distillation.
        local_quantile: the share of cells that it leaves out.
        global_weight: of the global correlation distillation.
        teacher: weights of the global distillation's teacher: a ResNet's as torchvision names
            them, those of a contrastive training (MoCo), the authors' released file of STT, which
            holds its teacher, or ours with four stages. None leaves this distillation out.
        teacher_encoder: its encoder, a name in
            :data:`methods.correspondence.encoder.ENCODERS`; None takes the student's.
        teacher_temperature: divides the teacher's dot products; features are not normalised.
        batch_size: pairs per step; the authors use four GPUs with so many each.
        learning_rate: of Adam.
        weight_decay: of Adam.
    """

    gap: int = Field(default=1, ge=1)
    size: int = Field(default=256, ge=32, multiple_of=32)
    crop_scale: tuple[float, float] = (0.6, 1.0)
    crop_ratio: tuple[float, float] = (1.5, 2.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    fine_radius: int = Field(default=12, ge=2)
    coarse_radius: int = Field(default=6, ge=1)
    fine_weight: float = Field(default=1.0, ge=0)
    coarse_weight: float = Field(default=1.0, ge=0)
    local_weight: float = Field(default=1000.0, ge=0)
    local_quantile: float = Field(default=0.7, ge=0, le=1)
    global_weight: float = Field(default=50.0, ge=0)
    teacher: Path | None = None
    teacher_encoder: str | None = None
    teacher_temperature: float = Field(default=0.07, gt=0)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=5e-5, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    @field_validator("teacher_encoder")
    @classmethod
    def _known_encoder(cls, value: str | None) -> str | None:
        if value is not None and value not in ENCODERS:
            raise ValueError(f"{value!r}: expected one of {', '.join(ENCODERS)}")
        return value

    @model_validator(mode="after")
    def _has_matching_windows(self) -> STTSettings:
        if self.fine_radius != 2 * self.coarse_radius:
            raise ValueError("fine_radius must be twice coarse_radius")
        return self

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """Two frames ``gap`` apart, anywhere in a video of so many."""
        return place(random, length, (0, self.gap))


def student_layout(settings: EncoderSettings) -> EncoderSettings:
    """An encoder's layout in training: strides 4, 8 and 32 after stages 2, 3 and 4."""
    return settings.model_copy(update={"strides": (1, 2, 2, 4), "pool": "none", "last_stage": 4})


def teacher_layout(settings: EncoderSettings) -> EncoderSettings:
    """The teacher's layout: an ordinary ResNet with pooling, of stride 32."""
    return settings.model_copy(
        update={"strides": (1, 2, 2, 2), "pool": "max", "last_stage": 4, "projection": None}
    )


def load_teacher(student: Encoder, settings: STTSettings) -> Encoder | None:
    """The teacher that the settings name, or None.

    Args:
        student: gives the teacher's blocks and widths where the settings name no encoder.
        settings: of the training.

    Raises:
        MethodError: a file that is missing, or holds other tensors than the teacher's.
    """
    if settings.teacher is None:
        return None
    named = settings.teacher_encoder
    teacher = Encoder(teacher_layout(student.settings if named is None else ENCODERS[named]))
    load_encoder(teacher, settings.teacher, "stt_teacher")
    return teacher


def augment(frames: list[RGB], random: np.random.Generator, settings: STTSettings) -> Sample:
    """Crop and mirror both frames alike, and hide a or b from the encoder.

    Returns:
        ``images``: Lab without one colour channel, float32 ``(2, 3, S, S)``. ``colours``: that
        channel, float32 ``(2, 1, S, S)``. ``rgb``: what the teacher sees, normalised RGB,
        float32 ``(2, 3, S, S)``.
    """
    # Both frames draw the same crop from generators of the same seed.
    seed = int(random.integers(2**32))
    crops = [
        resized_crop(
            frame,
            np.random.default_rng(seed),
            settings.size,
            settings.crop_scale,
            settings.crop_ratio,
        )
        for frame in frames
    ]
    if random.random() < settings.flip:
        crops = [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
    images, colours = lab_targets(crops, int(random.integers(1, 3)))
    return {
        "images": images,
        "colours": colours,
        "rgb": torch.stack([rgb_imagenet(crop) for crop in crops]),
    }


class Pair(NamedTuple):
    """One stage's features of reference and target, ``(B, C, h, w)`` each."""

    reference: Tensor
    target: Tensor


class STTObjective(nn.Module):
    """Reconstruction at two stages, local and global correlation distillation.

    Args:
        encoder: with four stages, see :func:`student_layout`; sees Lab with a hidden channel.
        settings: of the training.
        teacher: with as many cells in its last stage, see :func:`teacher_layout`; sees RGB. It
            is kept as it is. None takes the one that the settings name; where they name none,
            there is no global distillation.

    Raises:
        MethodError: the named teacher's weights do not fit.
    """

    def __init__(
        self, encoder: Encoder, settings: STTSettings, teacher: Encoder | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        teacher = teacher or load_teacher(encoder, settings)
        self.teacher = None if teacher is None else teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> STTObjective:
        """As usual, but the teacher keeps its running statistics, too."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def local_affinity(self, pair: Pair, radius: int) -> Tensor:
        """Dot products divided by the root of the channels, see :func:`local_affinity`."""
        scale = pair.target.shape[1] ** -0.5
        return local_affinity(pair.target, pair.reference, radius, scale, "exclude")

    def global_loss(self, pair: Pair, rgb: Tensor) -> Tensor:
        """Global distillation from the teacher, ``(B,)``.

        Args:
            pair: the student's last stage.
            rgb: frames for the teacher, ``(B, 2, 3, H, W)``.
        """
        assert self.teacher is not None
        with torch.no_grad():
            seen = split(self.teacher.forward_stages(rgb.flatten(0, 1), (GLOBAL,))[GLOBAL])
            scale = 1 / self.settings.teacher_temperature
            taught = F.softmax(global_affinity(seen.target, seen.reference, scale), 1)
        scale = pair.target.shape[1] ** -0.5
        found = F.softmax(global_affinity(pair.target, pair.reference, scale), 1)
        return global_distillation(found, taught)

    def sample_losses(self, batch: Sample) -> dict[str, Tensor]:
        """The losses of :meth:`forward` by sample, ``(B,)``, unweighted."""
        settings = self.settings
        stages = (FINE, COARSE) if self.teacher is None else (FINE, COARSE, GLOBAL)
        maps = self.encoder.forward_stages(batch["images"].flatten(0, 1), stages)
        pairs = {stage: split(each) for stage, each in maps.items()}
        affinity = self.local_affinity(pairs[COARSE], settings.coarse_radius)
        fine = F.softmax(self.local_affinity(pairs[FINE], settings.fine_radius), 1)
        coarse = F.softmax(affinity, 1)
        selected = above_quantile(sharpness(affinity.detach()), settings.local_quantile)
        source, true = batch["colours"].unbind(1)
        losses = {
            "fine": reconstruction_loss(local_reconstruction(fine, source), true),
            "coarse": reconstruction_loss(local_reconstruction(coarse, source), true),
            "local": local_distillation(coarse, pool_affinity(fine.detach()), selected),
        }
        if self.teacher is not None:
            losses["global"] = self.global_loss(pairs[GLOBAL], batch["rgb"])
        return losses

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The weighted losses.

        Args:
            batch: see :func:`augment`, with a batch dimension.

        Returns:
            ``fine`` and ``coarse`` (reconstruction), ``local`` and, with a teacher, ``global``
            (distillation).
        """
        settings = self.settings
        weights = {
            "fine": settings.fine_weight,
            "coarse": settings.coarse_weight,
            "local": settings.local_weight,
            "global": settings.global_weight,
        }
        return {
            name: weights[name] * loss.mean() for name, loss in self.sample_losses(batch).items()
        }

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the reconstruction losses of each pair, both stages added."""
        losses = self.sample_losses(batch)
        scores: list[float] = (-losses["fine"] - losses["coarse"]).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors; the teacher serves training alone."""
        return dict(self.encoder.state_dict())


def split(maps: Tensor) -> Pair:
    """Features of pairs ``(2 B, C, h, w)``, reference before target, as a :class:`Pair`."""
    return Pair(*torch.unflatten(maps, 0, (-1, 2)).unbind(1))
