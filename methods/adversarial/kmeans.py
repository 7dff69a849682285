"""Clustering of tokens: spherical k-means, matching over time, PCA, Sinkhorn's balancing.

Everything here works on unit vectors, so that the inner product is the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

POINTS_PER_CENTROID = 39
"""Fewest points that k-means needs per centroid; faiss warns below."""

ITERATIONS = 25
RESTARTS = 3
"""Attempts from random centroids, of which the best counts; one from given centroids."""

LLOYD_ITERATIONS = 5
"""Inside a batch."""

SINKHORN_EPSILON = 0.05
SINKHORN_ITERATIONS = 3
"""Both as in Caron et al., SwAV, NeurIPS 2020, and Salehi et al., TimeTuning, ICCV 2023."""


@dataclass(frozen=True)
class KMeans:
    """What k-means found.

    Attributes:
        centroids: float32 ``(K, D)``, of unit length.
        imbalance: faiss' imbalance factor of the last iteration: K times the sum of the squared
            shares of points per cluster. 1 where clusters are equally large, K at worst.
        splits: how often an empty cluster was filled by splitting another, over all iterations.
    """

    centroids: Tensor
    imbalance: float
    splits: int


def spherical_kmeans(points: Tensor, count: int, seed: int, start: Tensor | None = None) -> KMeans:
    """K-means by cosine similarity, with faiss on the CPU.

    Args:
        points: float ``(N, D)``, unit vectors; N is at least ``count``.
        count: K.
        seed: of the random centroids.
        start: centroids ``(K, D)`` to begin with, instead of random ones.
    """
    vectors: NDArray[np.float32] = np.ascontiguousarray(points.detach().float().cpu().numpy())
    found: Any = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=ITERATIONS,
        nredo=RESTARTS if start is None else 1,
        spherical=True,
        seed=seed,
        # All points count; by default faiss draws 256 per centroid.
        max_points_per_centroid=len(vectors),
        min_points_per_centroid=1,
    )
    first = None if start is None else np.ascontiguousarray(start.detach().float().cpu().numpy())
    found.train(vectors, init_centroids=first)
    steps = found.iteration_stats
    return KMeans(
        centroids=F.normalize(torch.from_numpy(found.centroids.copy()), dim=1).to(points.device),
        imbalance=float(steps[-1]["imbalance_factor"]),
        splits=int(sum(step["nsplit"] for step in steps)),
    )


def match_centroids(new: Tensor, old: Tensor) -> Tensor:
    """Pair new centroids with old ones so that the sum of the pairs' cosines is largest.

    Args:
        new: float ``(K, D)``, unit vectors.
        old: float ``(K, D)``, unit vectors.

    Returns:
        int64 ``(K,)``: the row of ``new`` that continues each row of ``old``, so that
        ``new[match_centroids(new, old)]`` is numbered like ``old``.
    """
    cosines = (old.detach().double() @ new.detach().double().T).cpu().numpy()
    _, columns = linear_sum_assignment(cosines, maximize=True)
    return torch.as_tensor(columns, device=new.device)


def assigned_means(points: Tensor, assignment: Tensor, otherwise: Tensor) -> Tensor:
    """Unit-length mean of each cluster's points; empty clusters keep a given vector.

    Args:
        points: float ``(N, D)``.
        assignment: float ``(N, K)``, not negative; weights of the mean.
        otherwise: float ``(K, D)``, for clusters without any weight.
    """
    means = F.normalize(assignment.T @ points, dim=1)
    return torch.where(assignment.sum(0)[:, None] > 0, means, otherwise)


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """One-hot float ``(N, K)`` of the centroid with the largest inner product."""
    similarity = points @ centroids.T
    return F.one_hot(similarity.argmax(1), len(centroids)).to(points.dtype)


def lloyd(points: Tensor, centroids: Tensor, iterations: int = LLOYD_ITERATIONS) -> Tensor:
    """A few iterations of spherical k-means from given centroids.

    Args:
        points: float ``(N, D)``, unit vectors.
        centroids: float ``(K, D)``, unit vectors; those that no point is nearest to stay.
        iterations: how many.

    Returns:
        float ``(K, D)``, unit vectors.
    """
    for _ in range(iterations):
        centroids = assigned_means(points, nearest(points, centroids), centroids)
    return centroids


def sinkhorn_offsets(similarity: Tensor) -> Tensor:
    """What to add to each cluster's similarities so that clusters become equally large.

    Sinkhorn and Knopp's iterations scale the rows and columns of ``exp(similarity / epsilon)`` in
    turn, rows last. A row's own scaling is the softmax, so the columns' are all that has to be
    kept: ``softmax((similarity + offsets) / epsilon)`` is the balanced assignment of these rows,
    and a good one for others drawn like them.

    Args:
        similarity: float ``(N, K)``, cosines.

    Returns:
        float ``(K,)``, in units of the cosine.
    """
    scores = similarity.float() / SINKHORN_EPSILON
    rows = torch.zeros_like(scores[:, :1])
    for _ in range(SINKHORN_ITERATIONS):
        offsets = -(scores + rows).logsumexp(0)
        rows = -(scores + offsets).logsumexp(1, keepdim=True)
    return offsets * SINKHORN_EPSILON


def principal_directions(points: Tensor, dimensions: int) -> Tensor:
    """Directions in which the mean square of points is largest.

    Points whose mean was subtracted give PCA; others keep their cosines as well as any projection
    can.

    Args:
        points: float ``(N, C)``.
        dimensions: D, at most C.

    Returns:
        float ``(C, D)`` with orthonormal columns. Each column's largest entry is positive, so that
        the result does not depend on the solver.
    """
    exact = points.double()
    vectors: Tensor = torch.linalg.eigh(exact.T @ exact).eigenvectors
    found = vectors.flip(1)[:, :dimensions]
    largest = found.gather(0, found.abs().argmax(0, keepdim=True))
    return (found * largest.sign()).to(points.dtype)
