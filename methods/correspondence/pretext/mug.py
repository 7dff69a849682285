"""MUG: learn from several granularities of unlabelled video at once.

Source: Lu, Wang, Shen, Tai, Crandall, Hoi: Learning video object segmentation from unlabeled
videos, CVPR 2020. The paper has losses of four granularities: frame, short-term, long-term and
video. The released code minimises the frames' alone, and so do the defaults here; the other three
are our reading of the paper.
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
from methods.clips import place, resize_short_side
from methods.correspondence.inputs import lab_bytes
from methods.correspondence.pretext.affinity import soft_affinity
from methods.correspondence.pretext.autoencoder import colour_distance, grey_input
from methods.correspondence.pretext.clips import Sample
from methods.correspondence.pretext.copying import copy_global
from methods.correspondence.pretext.saliency_head import SaliencyHead, global_appearance
from methods.correspondence.pretext.walk import cycle_loss, palindromes, transitions
from methods.shls.offline.saliency import detect

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder

STAGES = (2, 3, 4)
"""Of the encoder, that the head reads."""


class MUGSettings(MethodSettings):
    """How MUG is trained. The defaults are the released code's.

    Attributes:
        exemplars: frames spread over the video that fill the memory.
        short_gap: largest distance in frames of the neighbour for the short-term loss.
        short_side: frames are scaled to it, in pixels.
        crop: side of the random crop in pixels, the same for all frames.
        flip: probability of mirroring the clip.
        detector: of the saliency prior, see :data:`methods.shls.offline.saliency.DETECTORS`.
        confidence: the prior is kept so far from 0 and 1 that its logit is finite.
        threshold: of the prior, for the cross-entropy.
        prior_weight: of the L1 distance to the prior's logit.
        mask_weight: of the cross-entropy with the thresholded prior.
        short_term_weight: of copying colours from a neighbouring frame; 0 leaves it out.
        long_term_weight: of walking to a distant frame and back; 0 leaves it out.
        temperature: of that walk.
        video_weight: of telling the batch's videos apart by their memories; 0 leaves it out.
        video_temperature: of that choice among videos.
        batch_size: clips per step.
        learning_rate: of Adam, for encoder and head.
        weight_decay: of Adam.
    """

    exemplars: int = Field(default=8, ge=1)
    short_gap: int = Field(default=5, ge=1)
    short_side: int = Field(default=360, ge=16)
    crop: int = Field(default=256, ge=16)
    flip: float = Field(default=0.5, ge=0, le=1)
    detector: str = "combined"
    confidence: float = Field(default=0.01, gt=0, lt=0.5)
    threshold: float = Field(default=0.2, gt=0, lt=1)
    prior_weight: float = Field(default=1.0, ge=0)
    mask_weight: float = Field(default=1.0, ge=0)
    short_term_weight: float = Field(default=0.0, ge=0)
    long_term_weight: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=0.05, gt=0)
    video_weight: float = Field(default=0.0, ge=0)
    video_temperature: float = Field(default=0.07, gt=0)
    batch_size: int = Field(default=20, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=5e-3, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> MUGSettings:
        if self.crop > self.short_side:
            raise ValueError("crop must not be larger than short_side")
        if self.video_weight > 0 and self.batch_size < 2:
            raise ValueError("video_weight needs a batch_size of 2 or more videos to tell apart")
        return self

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """A frame, a neighbour of it, and the exemplars: one from each equal part of the video."""
        gap = int(random.integers(1, self.short_gap + 1))
        frame, neighbour = place(random, length, random.permutation([0, gap]).tolist())
        starts = np.arange(self.exemplars) + random.random(self.exemplars)
        exemplars = (starts * length / self.exemplars).astype(int).tolist()
        return (frame, neighbour, *exemplars)


def augment(frames: list[RGB], random: np.random.Generator, settings: MUGSettings) -> Sample:
    """Crop a clip alike and detect what is salient in its first frame.

    The detector sees the frame before it is cropped, since it takes the border for background.

    Returns:
        ``frames``: Lab in [-1, 1], float32 ``(2 + exemplars, 3, S, S)``: the frame, its
        neighbour, the exemplars. ``saliency``: the prior, float32 ``(1, S, S)`` in [0, 1].
    """
    frames = [resize_short_side(frame, settings.short_side) for frame in frames]
    saliency = detect(frames[0], settings.detector)
    height, width = saliency.shape
    top = int(random.integers(height - settings.crop + 1))
    left = int(random.integers(width - settings.crop + 1))
    step = -1 if random.random() < settings.flip else 1
    rows, columns = slice(top, top + settings.crop), slice(left, left + settings.crop)
    cut = [frame[rows, columns][:, ::step] for frame in frames]
    prior = np.ascontiguousarray(saliency[rows, columns][:, ::step])
    return {
        "frames": torch.stack([lab_bytes(np.ascontiguousarray(frame)) for frame in cut]),
        "saliency": torch.from_numpy(prior)[None],
    }


def frame_losses(
    logits: Tensor, saliency: Tensor, threshold: float, confidence: float
) -> tuple[Tensor, Tensor]:
    """Distance of predicted saliency to a prior: as logits, and as a mask.

    Args:
        logits: ``(B, 1, h, w)``.
        saliency: the prior in [0, 1], ``(B, 1, h, w)``.
        threshold: above which the prior says salient.
        confidence: the prior's logit is that of values at least so far from 0 and 1.

    Returns:
        Mean L1 distance to the prior's logit, and mean binary cross-entropy with the mask; both
        ``(B,)``.
    """
    prior = torch.logit(saliency, eps=confidence)
    mask = (saliency > threshold).to(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    return (logits - prior).abs().mean((1, 2, 3)), entropy.mean((1, 2, 3))


def short_term_loss(
    reference: Tensor, target: Tensor, reference_lab: Tensor, target_lab: Tensor
) -> Tensor:
    """Coherence inside a short clip: a frame's colours are copied from its neighbour's.

    Copied are the colours averaged over each cell, without an auto-encoder.

    Args:
        reference: features ``(B, C, h, w)`` of the neighbour.
        target: features ``(B, C, h, w)`` of the frame.
        reference_lab: Lab in [-1, 1], ``(B, 3, H, W)``.
        target_lab: the same of the frame.

    Returns:
        ``(B,)``.
    """
    size = (target.shape[2], target.shape[3])
    # Dot products of C channels; divided by their scale the softmax starts out soft.
    affinity = soft_affinity(reference, target, temperature=target.shape[1] ** 0.5)
    copied = copy_global(affinity, F.adaptive_avg_pool2d(reference_lab, size))
    return colour_distance(copied, F.adaptive_avg_pool2d(target_lab, size))


def long_term_loss(frame: Tensor, distant: Tensor, temperature: float) -> Tensor:
    """Cycle-consistency with a distant frame: a walk there and back ends where it began.

    Args:
        frame: features ``(B, C, h, w)``.
        distant: features ``(B, C, h, w)``.
        temperature: of the walk.

    Returns:
        ``(B,)``.
    """
    nodes = F.normalize(torch.stack([frame, distant], 1).flatten(3).mT.float(), dim=3)
    return cycle_loss(palindromes(transitions(nodes, temperature), first=1)[0])


def video_loss(
    frame: Tensor, memory: Tensor, temperature: float, videos: Tensor | None = None
) -> Tensor:
    """Discrimination of whole videos: a frame is told by its own video's global memory.

    Each memory is summarised as one vector, the frame likewise, and the frame chooses among the
    memories of all videos in the batch by softmax (InfoNCE). This is our reading of the paper's
    global, discriminative memory, not released code.

    Args:
        frame: the memory encoder's values of a frame, ``(B, V, h, w)``.
        memory: its values of M frames of the same video, ``(B, M, V, h, w)``.
        temperature: divides the cosines.
        videos: number of each clip's video, int64 ``(B,)``; other clips of the same video are
            left out of the choice. None where all clips are of different videos.

    Returns:
        ``(B,)``, log B where all videos look alike.
    """
    own = global_appearance(frame)
    memories = global_appearance(memory.transpose(1, 2))
    with torch.autocast(own.device.type, enabled=False):
        logits = own.float() @ memories.float().mT / temperature
    itself = torch.arange(len(logits), device=logits.device)
    if videos is not None:
        same = (videos[:, None] == videos) & (itself[:, None] != itself)
        logits = logits.masked_fill(same, -torch.inf)
    return F.cross_entropy(logits, itself, reduction="none")


class MUGObjective(nn.Module):
    """The frame granularity's losses, and those of longer ones where they have a weight.

    Args:
        encoder: with four stages; sees lightness alone.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder, settings: MUGSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        second, third, fourth = (encoder.stage_channels(stage) for stage in STAGES)
        self.head = SaliencyHead((second, third, fourth))

    def encode(self, batch: Sample) -> tuple[Tensor, dict[int, Tensor]]:
        """Lab ``(B, T, 3, H, W)`` and stages ``(B, T, C, h, w)`` of a batch's frames."""
        lab = batch["frames"]
        stages = self.encoder.forward_stages(grey_input(lab).flatten(0, 1), STAGES)
        return lab, {
            stage: torch.unflatten(maps, 0, lab.shape[:2]) for stage, maps in stages.items()
        }

    def predict(self, stages: dict[int, Tensor], size: tuple[int, int]) -> Tensor:
        """Saliency logits ``(B, 1, H, W)`` of the first frames."""
        second, third, fourth = (stages[stage] for stage in STAGES)
        logits = self.head((second[:, 0], third[:, 0], fourth[:, 0]), fourth[:, 2:])
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    def frame_losses(self, batch: Sample, stages: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """See :func:`frame_losses`."""
        prior = batch["saliency"]
        logits = self.predict(stages, (prior.shape[2], prior.shape[3]))
        return frame_losses(logits, prior, self.settings.threshold, self.settings.confidence)

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The weighted losses.

        Returns:
            ``prior`` and ``mask``, and ``short_term``, ``long_term`` and ``video`` if wanted.
        """
        settings = self.settings
        lab, stages = self.encode(batch)
        prior, mask = self.frame_losses(batch, stages)
        losses = {
            "prior": settings.prior_weight * prior.mean(),
            "mask": settings.mask_weight * mask.mean(),
        }
        last = stages[STAGES[-1]]
        if settings.short_term_weight > 0:
            coherence = short_term_loss(last[:, 1], last[:, 0], lab[:, 1], lab[:, 0])
            losses["short_term"] = settings.short_term_weight * coherence.mean()
        if settings.long_term_weight > 0:
            cycle = long_term_loss(last[:, 0], last[:, -1], settings.temperature)
            losses["long_term"] = settings.long_term_weight * cycle.mean()
        if settings.video_weight > 0:
            values = self.head.values(torch.cat([last[:, :1], last[:, 2:]], 1))
            choice = video_loss(
                values[:, 0], values[:, 1:], settings.video_temperature, batch.get("video")
            )
            losses["video"] = settings.video_weight * choice.mean()
        return losses

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the weighted frame losses of each clip."""
        prior, mask = self.frame_losses(batch, self.encode(batch)[1])
        weighted = self.settings.prior_weight * prior + self.settings.mask_weight * mask
        scores: list[float] = (-weighted).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors; the head serves training and unprompted segmentation."""
        return dict(self.encoder.state_dict())
