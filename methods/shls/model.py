"""SHLS as it is trained: a batch of pseudo-sequences in, losses out (section 4)."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.shls.losses import nt_xent, sample_triplets
from methods.shls.network import SHLSNetwork
from methods.shls.pooling import majority
from methods.shls.segmentation import (
    FrameFeatures,
    SegmentationSettings,
    Sequence,
    decode,
    encode,
)

Part = Literal["backbone", "superfeatures", "modulator", "decoder"]


@dataclass(frozen=True)
class Sample:
    """One pseudo-sequence.

    Attributes:
        frames: uint8 RGB ``(T, H, W, 3)``.
        labels: uint8 ``(T, H, W)``, 0 = background, 1 .. ``objects``.
        superpixels: int32 ``(T, H, W)``; the first frame's are split along its labels.
        objects: K, the largest label.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    superpixels: NDArray[np.int32]
    objects: int


@dataclass(frozen=True)
class Batch:
    """Samples of one size and length, as tensors.

    Attributes:
        frames: uint8 ``(B, T, H, W, 3)``.
        labels: uint8 ``(B, T, H, W)``.
        superpixels: int32 ``(B, T, H, W)``.
        objects: per sample.
    """

    frames: Tensor
    labels: Tensor
    superpixels: Tensor
    objects: tuple[int, ...]


def collate(samples: list[Sample]) -> Batch:
    """Put samples into a batch."""

    def stack(arrays: list[NDArray[np.generic]]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    return Batch(
        stack([sample.frames for sample in samples]),
        stack([sample.labels for sample in samples]),
        stack([sample.superpixels for sample in samples]),
        tuple(sample.objects for sample in samples),
    )


def metric_loss(
    superfeatures: Rows[Rows[Tensor]],
    superpixels: Rows[Rows[Tensor]],
    batch: Batch,
    across_frames: bool,
) -> Tensor:
    """NT-Xent over superfeatures whose superpixels have the same or another label (section 4).

    Args:
        superfeatures: by sample and frame, float ``(N, S)``.
        superpixels: by sample and frame, int64 ``(H, W)``, ids 1 .. N.
        batch: whose labels count, each superpixel's being that of most of its pixels.
        across_frames: whether superpixels of all frames of a sequence are compared, or those of
            one frame (the authors).

    Returns:
        A scalar, the mean over sequences, or over frames.
    """
    losses = []
    for sample, (of_frames, maps) in enumerate(zip(superfeatures, superpixels, strict=True)):
        classes = batch.objects[sample] + 1
        vectors = list(of_frames)
        labels = [
            majority(
                ids,
                batch.labels[sample, number].to(ids.device).long(),
                len(vectors[number]),
                classes,
            )
            for number, ids in enumerate(maps)
        ]
        if across_frames:
            vectors, labels = [torch.cat(vectors)], [torch.cat(labels)]
        losses += [
            nt_xent(rows, sample_triplets(of_rows))
            for rows, of_rows in zip(vectors, labels, strict=True)
        ]
    return torch.stack(losses).mean()


class SHLSModel(nn.Module):
    """Networks and losses.

    Args:
        network: the networks.
        settings: how networks and memory are put together.
        mean: of RGB in [0, 1], subtracted.
        std: divides.
        metric_weight: of the metric loss; 0 leaves it out.
        segmentation_weight: of the cross-entropy; 0 leaves the decoder out.
        across_frames: whether the metric loss compares superpixels of all frames of a sequence.
            The authors compare those of one frame.
        teacher_forcing: share of the frames whose regions come from the true masks, as the
            authors' all do; the others' come from the pre-segmentation, as at test.
        frozen: parts that are not trained.
        seed: of teacher forcing; triplets are drawn by torch's global generator.
    """

    def __init__(
        self,
        network: SHLSNetwork,
        settings: SegmentationSettings,
        mean: Rows[float],
        std: Rows[float],
        metric_weight: float = 1.0,
        segmentation_weight: float = 1.0,
        across_frames: bool = False,
        teacher_forcing: float = 1.0,
        frozen: Rows[Part] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.metric_weight = metric_weight
        self.segmentation_weight = segmentation_weight
        self.across_frames = across_frames
        self.teacher_forcing = teacher_forcing
        self.frozen = tuple(frozen)
        self.random = np.random.default_rng(seed)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        for part in self.frozen:
            getattr(network, part).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> SHLSModel:
        """Frozen parts keep their running statistics."""
        super().train(mode)
        for part in self.frozen:
            getattr(self.network, part).eval()
        return self

    @property
    def fixed(self) -> bool:
        """Whether the networks are of the variant ``fixed``."""
        return self.network.settings.variant == "fixed"

    def encode(self, batch: Batch) -> list[list[FrameFeatures]]:
        """Features of all frames, by sample and frame; the backbone runs once on all of them."""
        device = self.mean.device
        samples, length = batch.frames.shape[:2]
        frames = batch.frames.to(device).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        superpixels = batch.superpixels.to(device).flatten(0, 1).long()
        images = (frames - self.mean) / self.std
        features = encode(self.network, images, list(superpixels))
        return [features[i * length : (i + 1) * length] for i in range(samples)]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses: ``metric_loss`` and ``segmentation_loss``, scalars to be summed."""
        features = self.encode(batch)
        losses = {}
        if self.metric_weight:
            losses["metric_loss"] = self.metric_weight * self.metric_loss(features, batch)
        if self.segmentation_weight:
            loss = self.segmentation_loss(features, batch)
            losses["segmentation_loss"] = self.segmentation_weight * loss
        return losses

    def metric_loss(self, features: list[list[FrameFeatures]], batch: Batch) -> Tensor:
        """:func:`metric_loss` of a batch."""
        vectors = [[frame.superfeatures for frame in frames] for frames in features]
        superpixels = [[frame.superpixels for frame in frames] for frames in features]
        return metric_loss(vectors, superpixels, batch, self.across_frames)

    def segmentation_loss(self, features: list[list[FrameFeatures]], batch: Batch) -> Tensor:
        """Cross-entropy of all frames after the first, the model's own masks being fed back."""
        labels = batch.labels.numpy()
        sequences = self._begin(features, batch)
        losses = []
        length = batch.frames.shape[1]
        for number in range(1, length):
            frames = [of_sample[number] for of_sample in features]
            truth = [labels[sample, number] for sample in range(len(frames))]
            logits = self._step(sequences, frames, truth, last=number == length - 1)
            for found, target in zip(logits, batch.labels[:, number], strict=True):
                target = target.to(found.device).long()
                losses.append(F.cross_entropy(found[None], target[None]))
        return torch.stack(losses).mean()

    def _begin(self, features: list[list[FrameFeatures]], batch: Batch) -> list[Sequence]:
        return [
            Sequence.begin(
                self.settings, self.fixed, frames[0], batch.labels[sample, 0].numpy(), objects
            )
            for sample, (frames, objects) in enumerate(zip(features, batch.objects, strict=True))
        ]

    def _step(
        self,
        sequences: list[Sequence],
        frames: list[FrameFeatures],
        truth: list[NDArray[np.uint8]] | None,
        last: bool,
    ) -> list[Tensor]:
        """Segment the next frame of every sequence; aggregated logits ``(1 + K, H, W)`` each."""
        looks, inputs = [], []
        for sample, (sequence, frame) in enumerate(zip(sequences, frames, strict=True)):
            forced = truth is not None and self.random.random() < self.teacher_forcing
            views = sequence.look(frame, truth[sample] if truth is not None and forced else None)[1]
            looks.append(views)
            inputs.append(sequence.inputs(views))
        decoded = iter(decode(self.network, [item for items in inputs for item in items]))
        logits = []
        for sequence, frame, views, items in zip(sequences, frames, looks, inputs, strict=True):
            found = sequence.combine([next(decoded) for _ in items], items)
            if not last:
                sequence.advance(frame, views, found)
            logits.append(found)
        return logits

    @torch.no_grad()
    def validate(self, batch: Batch) -> list[float]:
        """Mean J of each sample's objects in the frames after the first that show them."""
        features = self.encode(batch)
        sequences = self._begin(features, batch)
        length = batch.frames.shape[1]
        scores: list[list[float]] = [[] for _ in sequences]
        for number in range(1, length):
            frames = [of_sample[number] for of_sample in features]
            logits = self._step(sequences, frames, None, last=number == length - 1)
            for sample, found in enumerate(logits):
                predicted = found.argmax(0).cpu().numpy()
                truth = batch.labels[sample, number].numpy()
                for label in np.unique(truth[truth > 0]):
                    hit = predicted == label
                    union = (hit | (truth == label)).sum()
                    scores[sample].append(float((hit & (truth == label)).sum() / union))
        return [sum(of_sample) / len(of_sample) if of_sample else 1.0 for of_sample in scores]
