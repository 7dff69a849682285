"""How differently two sets frame their objects: a Kullback-Leibler divergence from samples."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from bench.errors import DataError
from bench.gap.frechet import principal_components
from bench.gap.statistics import FloatArray, IntArray

NEIGHBOURS = 5
"""Neighbours that densities are estimated from."""

COMPONENTS = 2
"""Of the plane in which framing is compared: densities of few samples need few dimensions."""


def kl_divergence(
    samples: FloatArray,
    reference: FloatArray,
    neighbours: int = NEIGHBOURS,
    weights: FloatArray | IntArray | None = None,
) -> float:
    """KL(samples || reference) in nats from nearest neighbours; may be slightly negative.

    With weights the density at a sample comes from the share of the weight that its neighbours
    hold; with equal weights that is the estimator of the paper.

    Args:
        samples: float ``(N, D)``, N > ``neighbours``; no more than ``neighbours`` equal rows.
        reference: float ``(M, D)``, M >= ``neighbours``.
        neighbours: k.
        weights: of the samples ``(N,)``, such as how often each was drawn; those of weight 0 do not
            count. None: all count alike.

    Raises:
        DataError: fewer samples than that.

    Source: Wang, Kulkarni and Verdú, Divergence Estimation for Multidimensional Densities via
    k-Nearest-Neighbor Distances, IEEE Transactions on Information Theory 2009.
    """
    share = np.ones(len(samples)) if weights is None else np.asarray(weights, np.float64)
    samples, share = samples[share > 0], share[share > 0] / share.sum()
    if len(samples) <= neighbours or len(reference) < neighbours:
        raise DataError(
            "samples of a divergence",
            f"{len(samples)} and {len(reference)}",
            f"more than {neighbours} and at least {neighbours}",
            "Measure more samples or use fewer neighbours.",
        )
    # Each sample is its own nearest neighbour among the samples.
    distance, index = cKDTree(samples).query(samples, k=neighbours + 1)
    own = np.maximum(distance[:, -1], 1e-12)
    itself = index == np.arange(len(samples))[:, None]
    near = np.where(itself, 0.0, share[index]).sum(1) / (1 - share)
    other = cKDTree(reference).query(samples, k=[neighbours])[0][:, 0]
    ratio = samples.shape[1] * np.log(np.maximum(other, 1e-12) / own)
    return float(share @ (ratio + np.log(near * len(reference) / neighbours)))


def framing_plane(images: FloatArray, videos: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Framing of both domains in the plane of largest variance, both domains weighed alike.

    Args:
        images: statistics of framing, float ``(N, D)`` without NaN.
        videos: float ``(M, D)``, likewise.

    Returns:
        Coordinates ``(N, 2)`` and ``(M, 2)``; one where D is 1.
    """
    both = np.concatenate([images, videos])
    weights = np.repeat([0.5 / len(images), 0.5 / len(videos)], [len(images), len(videos)])
    spread = both.std(0)
    scaled = both / np.where(spread > 0, spread, 1.0)
    plane = principal_components(scaled, weights, min(COMPONENTS, both.shape[1]))
    return plane[: len(images)], plane[len(images) :]
