"""The bootstrap of means over values that come in clusters, as objects do in videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 10_000
"""Fewest bootstrap resamples; the p-value of an interval's edge then varies by about 0.002."""

RESAMPLES_PER_COMPARISON = 400
"""More of them where many comparisons are corrected together. Of R resamples the least p-value is
2 / (R + 1), and Holm multiplies it by the number of comparisons: 0.005 is within reach of any."""

CONFIDENCE = 0.95

_AT_ONCE = 4_000_000
"""Most numbers in one array of the bootstrap, 32 MB."""

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Resampled:
    """A mean and its bootstrap interval.

    Attributes:
        mean: over objects.
        low: lower end of the 95 % interval; NaN with fewer than two sequences.
        high: upper end.
        p_value: two-sided, of a mean of zero; NaN with fewer than two sequences.
    """

    mean: float
    low: float
    high: float
    p_value: float


def least_p_value(resamples: int) -> float:
    """The least two-sided p-value that a bootstrap can give."""
    return 2 / (resamples + 1)


def resamples_for(comparisons: int) -> int:
    """How many resamples let any of so many comparisons be significant after Holm's correction."""
    return max(RESAMPLES, RESAMPLES_PER_COMPARISON * comparisons)


def cluster_bootstrap(
    values: ArrayLike, clusters: ArrayLike, seed: int = 0, resamples: int = RESAMPLES
) -> Resampled:
    """The mean of values that come in clusters, with an interval for other clusters of the kind.

    Clusters are drawn with replacement and keep all of their values (Davison and Hinkley, Bootstrap
    Methods, 1997, section 3.8). Percentile intervals of few clusters are too narrow; deviations
    from the mean are therefore stretched by ``t / z * sqrt(n / (n - 1))`` (Hesterberg, The
    American Statistician 2015, expanded percentile interval).

    Args:
        values: float ``(n,)``.
        clusters: ``(n,)``, equal for values of one cluster.
        seed: of the resamples.
        resamples: how many.
    """
    sample = (np.asarray(values, np.float64), np.asarray(clusters))
    return cluster_bootstraps([sample], seed, resamples)[0]


def cluster_bootstraps(
    samples: Sequence[tuple[Float, NDArray[Any]]], seed: int = 0, resamples: int = RESAMPLES
) -> list[Resampled]:
    """:func:`cluster_bootstrap` of many samples, where those with as many clusters share resamples.

    Args:
        samples: values and clusters of each.
        seed: of the resamples.
        resamples: how many.
    """
    results = [Resampled(_mean(values), np.nan, np.nan, np.nan) for values, _ in samples]
    totals = [cluster_totals(values, clusters) for values, clusters in samples]
    by_size: dict[int, list[int]] = {}
    for place, (sums, _) in enumerate(totals):
        by_size.setdefault(len(sums), []).append(place)
    at_once = max(1, _AT_ONCE // resamples)
    for size, places in by_size.items():
        if size < 2:  # no other cluster to draw
            continue
        drawn = _resamples(size, seed, resamples)
        for start in range(0, len(places), at_once):
            block = places[start : start + at_once]
            sums = np.array([totals[place][0] for place in block])
            counts = np.array([totals[place][1] for place in block], np.float64)
            if (counts == counts[0]).all():
                counts = counts[:1]
            for place, row in zip(block, _resampled_means(sums, counts, drawn), strict=True):
                results[place] = _expanded(results[place].mean, row, size)
    return results


def _mean(values: Float) -> float:
    return float(values.mean()) if values.size else np.nan


def cluster_totals(values: Float, clusters: NDArray[Any]) -> tuple[Float, NDArray[np.int64]]:
    """Sum and number of each cluster's values."""
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.asarray(np.bincount(index, values), np.float64)
    return sums, np.asarray(np.bincount(index), np.int64)


def _resampled_means(sums: Float, counts: Float, drawn: NDArray[np.uint16]) -> Float:
    """Mean of every sample in every resample.

    Args:
        sums: ``(samples, clusters)``.
        counts: ``(samples, clusters)``, or ``(1, clusters)`` where they are the same for all.
        drawn: ``(resamples, clusters)``, see :func:`_resamples`.

    Returns:
        ``(samples, resamples)``.
    """
    means = np.empty((len(sums), len(drawn)))
    step = max(1, _AT_ONCE // drawn.shape[1])
    for start in range(0, len(drawn), step):
        part = drawn[start : start + step].astype(np.float64).T
        means[:, start : start + step] = (sums @ part) / (counts @ part)
    return means


def _expanded(mean: float, means: Float, clusters: int) -> Resampled:
    """The expanded percentile interval of a mean, from its resamples' means."""
    tail = (1 - CONFIDENCE) / 2
    n = clusters
    stretch = stats.t.ppf(1 - tail, n - 1) / stats.norm.ppf(1 - tail) * np.sqrt(n / (n - 1))
    # Stretched are the quantiles and, the other way, zero, instead of every resample.
    low, high = mean + (np.quantile(means, [tail, 1 - tail]) - mean) * stretch
    zero = mean - mean / stretch
    # As often as a resample lies on the other side of zero, or on it; one is added to both counts
    # since a p-value of exactly 0 cannot be estimated.
    opposed = min(np.count_nonzero(means <= zero), np.count_nonzero(means >= zero))
    p_value = min(1.0, (opposed + 1) * least_p_value(len(means)))
    return Resampled(mean, float(low), float(high), p_value)


def _resamples(clusters: int, seed: int, resamples: int) -> NDArray[np.uint16]:
    """How often each resample holds each cluster, ``(resamples, clusters)``."""
    random = np.random.default_rng(seed)
    shares = np.full(clusters, 1 / clusters)
    drawn = np.empty((resamples, clusters), np.uint16)
    step = max(1, _AT_ONCE // clusters)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn[start : start + count] = random.multinomial(clusters, shares, size=count)
    return drawn
