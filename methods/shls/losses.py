"""The metric loss on superfeatures: NT-Xent over random triplets (section 4).

Source: Sohn, Improved deep metric learning with multi-class N-pair loss objective, NeurIPS 2016,
with the temperature of Chen et al., SimCLR, ICML 2020.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
TRIPLETS = 16
"""Positives and negatives drawn per anchor."""


class Triplets(NamedTuple):
    """Rows of a superfeature matrix that are pulled together and pushed apart.

    Attributes:
        anchors: int64 ``(M,)``.
        positives: int64 ``(M, n)``, of the anchor's class but not the anchor.
        negatives: int64 ``(M, n)``, of other classes.
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor


def sample_triplets(
    labels: Tensor, count: int = TRIPLETS, generator: torch.Generator | None = None
) -> Triplets:
    """Draw positives and negatives with replacement for every row that has some of both.

    Args:
        labels: int64 ``(N,)``.
        count: n, triplets per anchor.
        generator: source of randomness, on the labels' device.
    """
    # With rows sorted by class, positives are a run of rows and negatives are all others.
    order = torch.argsort(labels, stable=True)
    _, sizes = torch.unique_consecutive(labels[order], return_counts=True)
    size = sizes.repeat_interleave(sizes)
    start = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.arange(len(labels), device=labels.device) - start
    usable = (size > 1) & (size < len(labels))
    size, start, rank = size[usable, None], start[usable, None], rank[usable, None]

    def draw(high: Tensor) -> Tensor:
        shape = (high.shape[0], count)
        uniform = torch.rand(shape, generator=generator, device=labels.device)
        return torch.minimum((uniform * high).long(), high - 1)

    positive = draw(size - 1)
    positive = start + positive + (positive >= rank)
    negative = draw(len(labels) - size)
    negative = negative + (negative >= start) * size
    return Triplets(order[usable], order[positive], order[negative])


def nt_xent(superfeatures: Tensor, triplets: Triplets, temperature: float = TEMPERATURE) -> Tensor:
    """Mean over anchors and positives of ``-log(e^p / (e^p + sum over negatives of e^n))``.

    p and n are cosine similarities to the anchor divided by the temperature.

    Args:
        superfeatures: float ``(N, S)``.
        triplets: see :func:`sample_triplets`.
        temperature: divides the similarities.

    Returns:
        A scalar; zero where there is no triplet.
    """
    unit = F.normalize(superfeatures.float(), dim=1)
    if len(triplets.anchors) == 0:
        return unit.sum() * 0
    anchors = unit[triplets.anchors][:, None]
    positive = (anchors * unit[triplets.positives]).sum(2) / temperature
    negative = (anchors * unit[triplets.negatives]).sum(2) / temperature
    everything = torch.logaddexp(positive, negative.logsumexp(1, keepdim=True))
    return (everything - positive).mean()
