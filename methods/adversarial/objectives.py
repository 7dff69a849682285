"""What the segmentation network is taught without an opponent: labels, certainty, a teacher.

Sources: Milletari et al., V-Net, 3DV 2016 (Dice); Vu et al., ADVENT, CVPR 2019 (entropy); Tranheden
et al., DACS, WACV 2021, and Sohn et al., FixMatch, NeurIPS 2020 (confident pseudo-labels).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.video import VOID
from methods.adversarial.processes import sum_over_processes, world_size

SMOOTHING = 1.0
"""Pixels added to both sides of Dice's fraction, so that empty masks have a score."""


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over all pixels with a label; 0 where there are none.

    The mean over processes, which gradients are of, is that over all processes' pixels.

    Args:
        logits: float ``(N, C, H, W)``.
        target: integers ``(N, H, W)``, 255 ignored.
    """
    known = _per_process((target != VOID).sum())
    return F.cross_entropy(logits, target.long(), ignore_index=VOID, reduction="sum") / known


def foreground_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy and Dice loss, 1:1.

    Args:
        logits: float ``(N, 2, H, W)``, background and foreground.
        target: integers ``(N, H, W)``: 0, 1, or 255 to ignore.
    """
    return segmentation_loss(logits, target) + dice_loss(logits, target)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus Dice's overlap of foreground probability and mask, mean over maps.

    Maps without a labelled pixel do not count; if there is none with one the loss is 0. The mean
    over processes is that over all processes' maps.

    Args:
        logits: float ``(N, 2, H, W)``.
        target: integers ``(N, H, W)``: 0, 1, or 255 to ignore.
    """
    known = (target != VOID).flatten(1)
    foreground = logits.float().softmax(1)[:, 1].flatten(1) * known
    mask = (target == 1).flatten(1).float()
    overlap = 2 * (foreground * mask).sum(1) + SMOOTHING
    score = overlap / (foreground.sum(1) + mask.sum(1) + SMOOTHING)
    counted = known.any(1)
    return ((1 - score) * counted).sum() / _per_process(counted.sum())


def _per_process(count: Tensor) -> Tensor:
    """All processes' count, at least 1, by the number of processes."""
    return sum_over_processes(count).clamp(min=1) / world_size()


def entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy of the predictions, 1 where all classes are equally likely (ADVENT).

    Args:
        logits: float ``(N, C, H, W)``.
    """
    log = logits.float().log_softmax(1)
    return -(log.exp() * log).sum(1).mean() / math.log(logits.shape[1])


def pseudo_label_loss(
    logits: Tensor, teacher: Tensor, threshold: float, known: Tensor | None = None
) -> Tensor:
    """Cross-entropy to a teacher's predictions where it is confident, mean over all pixels.

    Args:
        logits: float ``(N, C, H, W)``.
        teacher: the teacher's logits of the same shape; no gradient passes.
        threshold: probability from which on a prediction counts.
        known: bool ``(N, H, W)``, where the teacher has a prediction; None for everywhere.
    """
    confidence, label = teacher.detach().float().softmax(1).max(1)
    counted = confidence >= threshold
    if known is not None:
        counted = counted & known
    loss = F.cross_entropy(logits, label, reduction="none")
    return (loss * counted).mean()


def cell_labels(labels: Tensor, size: tuple[int, int], classes: int) -> Tensor:
    """The most frequent label of every cell of a coarser grid.

    Args:
        labels: integers ``(N, H, W)``, 255 unknown.
        size: (h, w) of the grid.
        classes: number of labels.

    Returns:
        int64 ``(N, h, w)``; 255 where most of a cell is unknown.
    """
    shares = [(labels == value).float() for value in (*range(classes), VOID)]
    most = F.adaptive_avg_pool2d(torch.stack(shares, 1), size).argmax(1)
    return torch.where(most == classes, VOID, most)


def foreground_iou(logits: Tensor, target: Tensor) -> list[float]:
    """Intersection over union of predicted and true foreground, per image.

    Args:
        logits: float ``(N, C, H, W)``; all classes but the first are foreground.
        target: integers ``(N, H, W)``: 0, 1, or 255 to ignore.

    Returns:
        N numbers; 1 where neither has any foreground.
    """
    known = target != VOID
    predicted, true = (logits.argmax(1) > 0) & known, (target == 1) & known
    union = (predicted | true).flatten(1).sum(1)
    shared = (predicted & true).flatten(1).sum(1)
    scores: list[float] = torch.where(union > 0, shared / union.clamp(min=1), 1.0).tolist()
    return scores
