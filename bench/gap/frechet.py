"""Frechet distance between Gaussians fitted to the features of images and of videos.

Source: Dowson and Landau, The Frechet distance between multivariate normal distributions, Journal
of Multivariate Analysis 12, 1982; used on features by Heusel et al., GANs trained by a two
time-scale update rule, NIPS 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.errors import DataError
from bench.gap.statistics import (
    IMAGE,
    VIDEO,
    Array,
    Estimate,
    FloatArray,
    Groups,
    as_features,
    percentile_interval,
)

COMPONENTS = 64
GROUPS_PER_COMPONENT = 10
"""Independent rows that each domain must have per principal component."""


@dataclass(frozen=True)
class FrechetEstimate(Estimate):
    """Frechet distance between domains, divided by that between random halves of the images.

    Attributes:
        distance: the numerator, in the squared unit of the features.
        between_halves: the denominator.
        components: number of principal components that both were measured in.
    """

    distance: float = math.nan
    between_halves: float = math.nan
    components: int = COMPONENTS


def frechet_between_gaussians(
    mean_a: FloatArray, covariance_a: FloatArray, mean_b: FloatArray, covariance_b: FloatArray
) -> float:
    """``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``: the squared Frechet distance.

    Args:
        mean_a: ``(C,)``.
        covariance_a: ``(C, C)``, symmetric and positive semi-definite; may be singular.
        mean_b: ``(C,)``.
        covariance_b: ``(C, C)``, likewise.

    Source: Dowson and Landau 1982, equation 4.
    """
    # S_a S_b has the eigenvalues of the symmetric R S_b R, where R is the root of S_a.
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace_of_root = np.sqrt(np.maximum(product, 0)).sum()
    means = ((mean_a - mean_b) ** 2).sum()
    return float(means + np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace_of_root)


def frechet_distance(first: Array, second: Array) -> float:
    """Squared Frechet distance between Gaussians fitted to rows ``(N, C)`` and rows ``(M, C)``.

    Small samples make it too large, by about C / N parts; :func:`frechet_ratio` cancels that.

    Raises:
        DataError: different channels, fewer than two rows, or values that are not finite.
    """
    a, b = as_features(first, "first"), as_features(second, "second")
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(
            "Frechet distance",
            f"arrays of shape {a.shape} and {b.shape}",
            "two rows at least in each, of equally many channels",
            "Measure both samples with one encoder.",
        )
    return frechet_between_gaussians(a.mean(0), _covariance(a), b.mean(0), _covariance(b))


def _covariance(rows: FloatArray) -> FloatArray:
    return np.atleast_2d(np.cov(rows, rowvar=False))


def principal_components(features: FloatArray, weights: FloatArray, count: int) -> FloatArray:
    """Coordinates ``(N, count)`` of rows ``(N, C)`` along the axes of largest weighted variance.

    Args:
        features: ``(N, C)``.
        weights: of the rows ``(N,)``.
        count: number of axes, C at most.
    """
    centred = features - np.average(features, axis=0, weights=weights)
    _, vectors = np.linalg.eigh((centred * weights[:, None]).T @ centred)
    return np.asarray(centred @ vectors[:, ::-1][:, :count])


def frechet_ratio(
    features: Array,
    domains: Array,
    groups: Array | None = None,
    *,
    components: int = COMPONENTS,
    draws: int = 20,
    seed: int = 0,
) -> FrechetEstimate:
    """Frechet distance between domains relative to that between random halves of the images.

    1 means no gap. Both distances are means over random draws of equally many rows, one row per
    group, so that the bias of small samples cancels. Features are projected on the principal
    components of both domains together, in which every group counts once.

    With an encoder that is the same for all methods the ratio measures the data; with a method's
    own network it measures its representation.

    Args:
        features: float ``(N, C)``.
        domains: ``(N,)``, 0 for images and 1 for videos.
        groups: ``(N,)`` labels of independent units (videos, images); None: every row is one.
        components: principal components; C at most are used.
        draws: number of random draws.
        seed: of the draws.

    Returns:
        The estimate. Its interval holds the central 95 % of ``distance of a draw / mean distance
        between halves``; draws overlap, so it does not tell the noise of the data as a whole. NaN
        where a domain has fewer than 10 groups per component; the note says how many would do.

    Raises:
        DataError: arrays that do not fit together, or a group in both domains.

    Source: Heusel et al. 2017; on the bias, Chong and Forsyth, Effectively unbiased FID and
    Inception Score and where to find them, CVPR 2020.
    """
    array = as_features(features)
    gathered = Groups.of_rows(len(array), domains, groups)
    if components < 1:
        found = f"{components} components"
        raise DataError("Frechet ratio", found, "one at least", "64 are usual.")
    count = min(components, array.shape[1])
    rows, counts = gathered.rows_per_domain, gathered.per_domain
    if min(counts) < GROUPS_PER_COMPONENT * count:
        reason = (
            f"Undefined: {min(counts)} groups in the smaller domain; {count} components need "
            f"{GROUPS_PER_COMPONENT * count}, and these groups allow "
            f"{min(counts) // GROUPS_PER_COMPONENT} components."
        )
        return FrechetEstimate(math.nan, None, rows, counts, reason, components=count)

    # Were domains weighed alike, the axes would fit the noise of the smaller one: a false gap.
    reduced = principal_components(array, 1 / gathered.sizes[gathered.index], count)
    size = min(counts[IMAGE] // 2, counts[VIDEO])
    generator = np.random.default_rng(seed)
    between_domains, between_halves = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        chosen = generator.permutation(gathered.one_row_each(generator))
        is_video = gathered.domains[gathered.index[chosen]] == VIDEO
        images, videos = reduced[chosen[~is_video]], reduced[chosen[is_video]]
        between_domains[draw] = frechet_distance(images[:size], videos[:size])
        between_halves[draw] = frechet_distance(images[:size], images[size : 2 * size])
    reference = float(between_halves.mean())
    if reference <= 0:
        reason = "Undefined: the images do not differ from each other."
        return FrechetEstimate(math.nan, None, rows, counts, reason, components=count)
    return FrechetEstimate(
        value=float(between_domains.mean()) / reference,
        interval=percentile_interval(between_domains / reference),
        rows=rows,
        groups=counts,
        distance=float(between_domains.mean()),
        between_halves=reference,
        components=count,
    )
