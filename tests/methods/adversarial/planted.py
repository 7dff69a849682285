"""Tokens whose clusters are known, and what tests of clusters share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adversarial.adversary_settings import ClusterSettings
from methods.adversarial.clusters import Clusters, TokenContext
from methods.adversarial.kmeans import SINKHORN_EPSILON
from methods.adversarial.monitors import normalised_mutual_information

CHANNELS = 12
EQUAL = (1 / 3, 1 / 3, 1 / 3)
IMAGE, VIDEO = TokenContext(0), TokenContext(1)


def planted(
    seed: int,
    priors: tuple[float, ...] = EQUAL,
    count: int = 300,
    shift: float = 0.0,
    noise: float = 0.05,
) -> tuple[Tensor, Tensor]:
    """Tokens around fixed orthogonal directions, and which of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(priors), count, True, generator=generator)
    tokens = F.one_hot(labels, CHANNELS).float()
    tokens[:, -1] += shift
    return 3 * (tokens + noise * torch.randn(count, CHANNELS, generator=generator)), labels


def class_nmi(assignment: Tensor, labels: Tensor) -> float:
    return normalised_mutual_information(assignment.T @ F.one_hot(labels).float())


def settings(**changes: Any) -> ClusterSettings:
    return ClusterSettings(count=3, refresh=1, bank=600, dimensions=None, fewest=4).model_copy(
        update=changes
    )


def fitted(chosen: ClusterSettings) -> Clusters:
    clusters = Clusters(chosen, CHANNELS, seed=0)
    clusters.collect(planted(1)[0], planted(2)[0])
    assert clusters.due(1)
    clusters.refresh()
    return clusters


def naive_sinkhorn(cosines: Tensor) -> Tensor:
    """SwAV's iterations on the matrix itself."""
    matrix = (cosines.double() / SINKHORN_EPSILON).exp()
    matrix = matrix / matrix.sum()
    for _ in range(3):
        matrix = matrix / matrix.sum(0, keepdim=True) / matrix.shape[1]
        matrix = matrix / matrix.sum(1, keepdim=True) / matrix.shape[0]
    return matrix * matrix.shape[0]
