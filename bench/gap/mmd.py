"""Maximum mean discrepancy between the features of images and of videos.

Source: Gretton et al., A kernel two-sample test, JMLR 13, 2012.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.gap.statistics import (
    VIDEO,
    Array,
    Estimate,
    FloatArray,
    Groups,
    as_features,
    percentile_interval,
)

SCALES = (0.5, 1.0, 2.0)
"""Squared bandwidths of the kernels, in units of the median squared distance."""


@dataclass(frozen=True)
class MmdEstimate(Estimate):
    """Squared maximum mean discrepancy.

    Attributes:
        p_value: of the hypothesis that both domains have one distribution; by permutation.
    """

    p_value: float = math.nan


def squared_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """Squared Euclidean distances ``(N, M)`` between rows ``(N, C)`` and rows ``(M, C)``."""
    # Centring keeps the terms small that cancel below.
    centre = second.mean(0)
    first, second = first - centre, second - centre
    squares = -2 * first @ second.T
    squares += (first**2).sum(1)[:, None]
    squares += (second**2).sum(1)
    return np.maximum(squares, 0, out=squares)


def gaussian_kernels(squares: FloatArray, squared_bandwidths: Sequence[float]) -> FloatArray:
    """Sum of Gaussian kernels ``exp(-d^2 / (2 sigma^2))`` over squared bandwidths sigma^2.

    Args:
        squares: squared distances d^2, any shape.
        squared_bandwidths: the sigma^2, each above 0.
    """
    total = np.zeros_like(squares)
    for bandwidth in squared_bandwidths:
        total += np.exp(squares * (-0.5 / bandwidth))
    return total


def group_kernel(kernel: FloatArray, groups: Groups) -> FloatArray:
    """Mean kernel value between the rows of every two groups ``(G, G)``; the diagonal is 0.

    Rows of one group are dependent, so pairs of them have no place in an unbiased estimate.
    """
    if len(groups) == len(kernel):
        order = np.argsort(groups.index)
        between = kernel[np.ix_(order, order)]
    else:
        order = np.argsort(groups.index, kind="stable")
        starts = np.cumsum(groups.sizes) - groups.sizes
        by_row = np.add.reduceat(kernel[order], starts, axis=0)
        between = np.add.reduceat(by_row[:, order], starts, axis=1)
        between /= np.outer(groups.sizes, groups.sizes)
    np.fill_diagonal(between, 0)
    return between


def unbiased_squared_mmd(between: FloatArray, images: Array, videos: Array) -> FloatArray:
    """Unbiased squared MMD ``(R,)`` for R divisions of groups into images and videos.

    Args:
        between: from :func:`group_kernel`, ``(G, G)``.
        images: ``(R, G)``, how often each group is among the images.
        videos: ``(R, G)``, likewise; copies of one group make no pair with each other.

    Source: Gretton et al. 2012, equation 3, with groups in place of rows.
    """
    a, b = images.astype(np.float64), videos.astype(np.float64)
    to_a, to_b = a @ between, b @ between
    size_a, size_b = a.sum(1), b.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):  # resamples of a single group
        within_a = (to_a * a).sum(1) / (size_a**2 - (a**2).sum(1))
        within_b = (to_b * b).sum(1) / (size_b**2 - (b**2).sum(1))
        return np.asarray(within_a + within_b - 2 * (to_a * b).sum(1) / (size_a * size_b))


def squared_mmd(
    features: Array,
    domains: Array,
    groups: Array | None = None,
    *,
    scales: Sequence[float] = SCALES,
    permutations: int = 200,
    resamples: int = 1000,
    seed: int = 0,
) -> MmdEstimate:
    """Unbiased squared MMD with a sum of Gaussian kernels, and its permutation test.

    Squared bandwidths are multiples of the median squared distance between rows of different
    groups. Every group counts once. The estimate has mean 0 where the domains are equal, so it can
    be negative. The kernel matrix, N x N float64, is computed once.

    Args:
        features: float ``(N, C)``.
        domains: ``(N,)``, 0 for images and 1 for videos.
        groups: ``(N,)`` labels of independent units (videos, images); None: every row is one.
        scales: squared bandwidths in units of the median squared distance.
        permutations: of domains among whole groups; the p-value is at least 1 / (1 + these).
        resamples: bootstrap samples of groups for the interval, which is too wide where the
            domains are equal: there the p-value decides.
        seed: of permutations and bootstrap.

    Returns:
        The estimate; NaN where a domain has a single group or most rows coincide. The p-value is
        exact where groups of both domains are equally large, else the note says that it is not.

    Raises:
        DataError: arrays that do not fit together, or a group in both domains.

    Source: Gretton et al. 2012, equation 3; multiples of one bandwidth after Long
    et al., Learning transferable features with deep adaptation networks, ICML 2015.
    """
    array = as_features(features)
    gathered = Groups.of_rows(len(array), domains, groups)
    rows, counts = gathered.rows_per_domain, gathered.per_domain
    if min(counts) < 2:
        return MmdEstimate(math.nan, None, rows, counts, "Undefined: a domain of a single group.")
    squares = squared_distances(array, array)
    median = float(np.median(squares[gathered.index[:, None] < gathered.index]))
    if median <= 0:
        return MmdEstimate(math.nan, None, rows, counts, "Undefined: most rows coincide.")
    kernel = gaussian_kernels(squares, [scale * median for scale in scales])
    between = group_kernel(kernel, gathered)
    is_video = gathered.domains == VIDEO

    generator = np.random.default_rng(seed)
    value = float(unbiased_squared_mmd(between, ~is_video[None], is_video[None])[0])
    shuffled = generator.permuted(np.tile(is_video, (permutations, 1)), axis=1)
    null = unbiased_squared_mmd(between, ~shuffled, shuffled)
    # The data's own division counts as one permutation; rounding must not part equal values.
    as_large = int((null >= value - 1e-12 * float(kernel.max())).sum())
    drawn = gathered.multiplicities(resamples, generator)
    resampled = unbiased_squared_mmd(between, drawn * ~is_video, drawn * is_video)
    return MmdEstimate(
        value=value,
        interval=percentile_interval(resampled),
        rows=rows,
        groups=counts,
        note=_exactness_note(gathered),
        p_value=(1 + as_large) / (1 + permutations),
    )


def _exactness_note(groups: Groups) -> str:
    mean_sizes = [
        rows / n for rows, n in zip(groups.rows_per_domain, groups.per_domain, strict=True)
    ]
    if math.isclose(*mean_sizes, rel_tol=0.1):
        return ""
    return (
        "Groups hold {:.1f} rows among images and {:.1f} among videos: the p-value is approximate; "
        "one row per group makes it exact."
    ).format(*mean_sizes)
