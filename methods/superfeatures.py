"""SHLS's superfeatures learned on the encoder that all regimes share: what its objective buys.

SHLS itself has networks, a memory and a way to masks of its own, so its figure says what the
system reaches, not what its way of learning does. Here that way of learning alone, pseudo-sequences
made of still images and NT-Xent over superfeatures (sections 1.3, 3.3 and 4; the first of the
stages in which the authors' code trains), meets the small ResNet of the controlled comparison.
The superfeature heads are left away after training, and labels are propagated as for every other
row. Nothing here is a claim about the published system.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.dataset import Dataset
from bench.method import LabelRegime, MethodCard, MethodSettings
from bench.registry import register_method
from bench.training import TrainingRequest, TrainingTask
from methods.clips import IMAGENET_MEAN, IMAGENET_STD
from methods.correspondence.encoder import Encoder
from methods.correspondence.method import (
    Correspondence,
    CorrespondenceSettings,
    trainable_resnet,
)
from methods.shls.model import Batch, collate, metric_loss
from methods.shls.network import SuperfeatureEmbedding
from methods.shls.pooling import (
    INFO_CHANNELS,
    majority,
    paint,
    shrink_superpixels,
    superpixel_info,
)
from methods.shls.segmentation import full_resolution
from methods.shls.training import PseudoSequenceTraining, material

PREPARATION = "rgb_imagenet"
"""The colours that the encoder is trained on."""

FINE_STAGE = 1
"""The encoder's stage that stands for the backbone's first one in SHLS."""

QUARTER = 4
"""Stride of the grid to which the encoder's last stage is brought, SHLS's coarser one."""


class SuperfeatureTraining(PseudoSequenceTraining):
    """How superfeatures are learned on the common encoder.

    Attributes:
        superfeature_size: S, the number of values that describe a superpixel.
    """

    superfeature_size: int = Field(default=32, ge=2)


class Described(NamedTuple):
    """One frame's superpixels.

    Attributes:
        superfeatures: float ``(N, S)``.
        superpixels: int64 ``(H, W)``, ids 1 .. N.
    """

    superfeatures: Tensor
    superpixels: Tensor


class SuperfeatureObjective(nn.Module):
    """The encoder, superfeature heads, and NT-Xent.

    Args:
        encoder: the common one.
        size: S.
        across_frames: whether superpixels of different frames are compared.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, size: int, across_frames: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.last_stage = encoder.settings.last_stage
        self.superfeatures = SuperfeatureEmbedding(
            encoder.stage_channels(FINE_STAGE) + INFO_CHANNELS,
            encoder.channels + INFO_CHANNELS,
            size,
            "fixed",
        )
        self.across_frames = across_frames
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.from_numpy(values).view(1, 3, 1, 1), persistent=False)

    def describe(self, batch: Batch) -> list[list[Described]]:
        """Superfeatures of all frames, by sample and frame; the encoder runs once on all."""
        device = self.mean.device
        samples, length = batch.frames.shape[:2]
        frames = batch.frames.to(device).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        superpixels = batch.superpixels.to(device).flatten(0, 1).long()
        images = ((frames - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        maps = self.encoder.forward_stages(images, (FINE_STAGE, self.last_stage))
        height, width = superpixels.shape[1:]
        # Superpixels that would vanish on the encoder's own grid are still there on SHLS's.
        grid = (-(-height // QUARTER), -(-width // QUARTER))
        features = self.encoder.project(maps[self.last_stage])
        coarse = F.interpolate(features, size=grid, mode="bilinear", align_corners=False)
        found = [
            Described(self._embed(fine, wide, ids), ids)
            for fine, wide, ids in zip(maps[FINE_STAGE], coarse, superpixels, strict=True)
        ]
        return [found[i * length : (i + 1) * length] for i in range(samples)]

    def _embed(self, fine: Tensor, coarse: Tensor, superpixels: Tensor) -> Tensor:
        """Superfeatures ``(N, S)`` of one frame."""
        count = int(superpixels.max())
        small = shrink_superpixels(superpixels, (coarse.shape[1], coarse.shape[2]))
        small_info = paint(superpixel_info(small, count), small).to(coarse.dtype)
        full = full_resolution(fine, superpixels, superpixel_info(superpixels, count))
        embedded: Tensor = self.superfeatures(
            full, torch.cat([coarse, small_info]), superpixels, small
        )
        return embedded

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, ``metric_loss``."""
        described = self.describe(batch)
        vectors = [[frame.superfeatures for frame in frames] for frames in described]
        superpixels = [[frame.superpixels for frame in frames] for frames in described]
        return {"metric_loss": metric_loss(vectors, superpixels, batch, self.across_frames)}

    @torch.no_grad()
    def validate(self, batch: Batch) -> list[float]:
        """Mean J of each sample's objects where superpixels take the label of their nearest.

        The nearest superfeature of the first frame counts, by cosine similarity. Objects count in
        the frames after the first that show them.
        """
        scores = []
        for sample, frames in enumerate(self.describe(batch)):
            truth = batch.labels[sample].to(frames[0].superpixels.device).long()
            known = F.normalize(frames[0].superfeatures.float())
            labels = majority(
                frames[0].superpixels, truth[0], len(known), batch.objects[sample] + 1
            )
            found = []
            for frame, true in zip(frames[1:], truth[1:], strict=True):
                affinity = F.normalize(frame.superfeatures.float()) @ known.T
                masks = paint(labels[affinity.argmax(1)], frame.superpixels)
                for number in true.unique().tolist():
                    if number:
                        hit, here = masks == number, true == number
                        found.append(float((hit & here).sum() / (hit | here).sum()))
            scores.append(sum(found) / len(found) if found else 1.0)
        return scores


@register_method("superfeatures")
class Superfeatures(Correspondence):
    """SHLS's way of learning, with the correspondence rows' encoder and propagation."""

    TrainingSettings = SuperfeatureTraining
    packaged = Path(__file__).parent / "shls" / "weights"
    card = MethodCard(
        name="superfeatures",
        title="Superfeatures, common encoder",
        description=(
            "The small encoder of the correspondence systems trained with SHLS's superfeature "
            "loss on pseudo-sequences made of still images; labels are propagated along its "
            "features. Neither SHLS's memory nor its decoder takes part."
        ),
        regime=LabelRegime(images=900, note="ECSSD without its masks"),
        paper=(
            "The objective: Mendonça, Fontinele, Oliveira: SHLS: Superfeatures learned from still "
            "images for self-supervised VOS. BMVC 2023"
        ),
    )

    @classmethod
    def training_task(
        cls,
        settings: MethodSettings,
        training: MethodSettings,
        data: Rows[Dataset],
        request: TrainingRequest,
    ) -> TrainingTask:
        """Encoder, pseudo-sequences and NT-Xent.

        Raises:
            ConfigError: another preparation of colours than the one trained on, an encoder that
                is no ResNet, videos instead of images, too few images.
            DataError: broken images, missing maps.
        """
        assert isinstance(settings, CorrespondenceSettings)
        assert isinstance(training, SuperfeatureTraining)
        encoder = trainable_resnet(cls.card.name, settings, PREPARATION, request)
        seen = material(training, data, request)
        torch.manual_seed(request.seed)
        model = SuperfeatureObjective(encoder, training.superfeature_size, training.across_frames)
        return TrainingTask(
            model=model,
            samples=seen.samples,
            held_out=seen.held_out,
            collate=collate,
            batch_size=training.batch_size,
            parameters=list(model.parameters()),
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            clip_gradient=training.clip_gradient,
            validate_every=training.validate_every,
            score="J",
            weights=encoder.state_dict,
            settings={
                "encoder": settings.encoder,
                "preparation": settings.preparation,
                "training": training.model_dump(mode="json"),
            },
            regime=seen.regime,
        )
