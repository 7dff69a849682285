"""Which differences hold on other videos: paired bootstrap, Holm correction, ranks.

Scores are per object; the mean over objects is the figure that DAVIS reports. Objects of one
sequence share its difficulty, and frames even more so, so whole sequences are what is resampled.
Trainings are not: what is found holds for the weights that were measured. What other trainings
would give, on the sequences that were measured, is a question of its own.

::

    comparisons = compare({"crw": scores, "mast": others}, sequences)
    best(comparisons)
    over_seeds([45.6, 46.1, 44.9], [48.8, 48.0, 49.3])
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bench.metrics.bootstrap import (
    CONFIDENCE,
    Float,
    cluster_bootstraps,
    cluster_totals,
    least_p_value,
    resamples_for,
)


@dataclass(frozen=True)
class Difference:
    """One method against another on the same objects.

    Attributes:
        first: name.
        second: name.
        difference: mean of the first minus mean of the second, in the scores' unit; NaN with no
            object in common.
        low: lower end of its 95 % interval; NaN with fewer than two sequences.
        high: upper end.
        p_value: two-sided, of no difference; NaN with fewer than two sequences.
        adjusted: the p-value after Holm's correction over all comparisons made together.
        compared: how many comparisons these are.
        resamples: how many the bootstrap drew.
        sequences: in which both have scores.
        objects: for which both have scores.
        won: sequences in which the first is better.
        lost: sequences in which the second is better.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float
    compared: int
    resamples: int
    sequences: int
    objects: int
    won: int
    lost: int

    @property
    def significant(self) -> bool:
        """Whether it is after correction, at 5 %."""
        return bool(self.adjusted < 1 - CONFIDENCE)

    @property
    def at_floor(self) -> bool:
        """Whether ``adjusted`` is the least that so many resamples can give: an upper bound."""
        # The rounding of a product may differ from that of the correction.
        return bool(self.adjusted <= self.compared * least_p_value(self.resamples) * (1 + 1e-9))


def holm(p_values: ArrayLike) -> Float:
    """Holm's step-down correction (Scandinavian Journal of Statistics 1979).

    Args:
        p_values: float ``(m,)``; NaN is no test and does not count.

    Returns:
        Adjusted p-values in the given order; below 0.05 where the family-wise error is.
    """
    values = np.asarray(p_values, np.float64)
    adjusted = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return adjusted


def compare(
    scores: Mapping[str, ArrayLike],
    sequences: ArrayLike,
    *,
    against: str | None = None,
    seed: int = 0,
    resamples: int | None = None,
) -> list[Difference]:
    """Every pair of methods, or all against one, on the objects that both have scores for.

    Args:
        scores: by method: float ``(objects,)``, NaN where there is none. Of several training seeds,
            give the mean.
        sequences: ``(objects,)``: the sequence each object is in.
        against: compare the others with this method only.
        seed: of the resamples.
        resamples: how many; None for :func:`resamples_for` as many comparisons.

    Returns:
        Differences in the order of ``scores``, corrected together.
    """
    tables = {name: np.asarray(values, np.float64) for name, values in scores.items()}
    names = np.asarray(sequences)
    pairs = list(itertools.combinations(tables, 2))
    if against is not None:
        pairs = [(name, against) for name in tables if name != against]
    found = []
    for first, second in pairs:
        delta = tables[first] - tables[second]
        shared = ~np.isnan(delta)
        found.append((delta[shared], names[shared]))
    count = resamples_for(len(pairs)) if resamples is None else resamples
    results = cluster_bootstraps(found, seed, count)
    differences = []
    for (first, second), (delta, where), result in zip(pairs, found, results, strict=True):
        signs = np.sign(cluster_totals(delta, where)[0])
        differences.append(
            Difference(
                first,
                second,
                result.mean,
                result.low,
                result.high,
                result.p_value,
                result.p_value,
                1,
                count,
                len(signs),
                len(delta),
                int((signs > 0).sum()),
                int((signs < 0).sum()),
            )
        )
    return corrected(differences)


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences, their p-values corrected over these and no others.

    A family is chosen before looking at the scores: all pairs, or those with one method.
    """
    adjusted = holm([each.p_value for each in differences])
    compared = sum(not np.isnan(each.p_value) for each in differences)
    return [
        replace(each, adjusted=float(value), compared=compared)
        for each, value in zip(differences, adjusted, strict=True)
    ]


def over_seeds(first: ArrayLike, second: ArrayLike) -> tuple[float, float]:
    """95 % interval of a difference between two methods over other seeds, by Welch's test.

    Source: Welch, The generalization of Student's problem when several different population
    variances are involved. Biometrika 1947.

    Args:
        first: mean score of each seed's training, on the same sequences: float ``(seeds,)``.
        second: of the other method, which may have others.

    Returns:
        Ends of the interval of the first's minus the second's; NaN with fewer than two seeds of
        either.
    """
    samples = [np.asarray(values, np.float64) for values in (first, second)]
    if min(len(each) for each in samples) < 2:
        return float("nan"), float("nan")
    difference = float(samples[0].mean() - samples[1].mean())
    # Variances of the two means, and their degrees of freedom.
    variances = np.array([each.var(ddof=1) / len(each) for each in samples])
    freedom = np.array([len(each) - 1 for each in samples])
    variance = variances.sum()
    if variance == 0:
        return difference, difference
    # Welch and Satterthwaite's degrees of freedom of the difference.
    joint = variance**2 / (variances**2 / freedom).sum()
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, joint) * np.sqrt(variance))
    return difference - half, difference + half


def best(differences: Sequence[Difference]) -> str | None:
    """The method that is significantly better than every other one; None where there is none.

    Args:
        differences: of every pair, from :func:`compare`.
    """
    names = {name for each in differences for name in (each.first, each.second)}
    beaten: dict[str, set[str]] = {name: set() for name in names}
    for each in differences:
        if each.significant:
            better = each.difference > 0
            winner, loser = (each.first, each.second) if better else (each.second, each.first)
            beaten[winner].add(loser)
    for name, others in beaten.items():
        if len(others) == len(names) - 1 and others:
            return name
    return None


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over sequences, and how far apart they must be to mean something.

    Attributes:
        ranks: mean rank by method, 1 is best; ties share the mean of their ranks.
        critical_difference: least difference of mean ranks that is significant at 5 %.
        p_value: of no difference between any methods (Friedman's test with Iman and Davenport's
            correction).
        sequences: ranked over.
        groups: methods, from best to worst, that cannot be told apart; the largest such groups.
    """

    ranks: Mapping[str, float]
    critical_difference: float
    p_value: float
    sequences: int
    groups: tuple[tuple[str, ...], ...]


def critical_difference(methods: int, sequences: int) -> float:
    """Least significant difference of mean ranks in Nemenyi's test at 5 %.

    Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006,
    section 3.2.2.

    Args:
        methods: k, 2 at least.
        sequences: N, ranked over.
    """
    q = stats.studentized_range.ppf(CONFIDENCE, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * sequences)))


def rank(scores: Mapping[str, ArrayLike]) -> Ranking | None:
    """Rank methods in every sequence and average.

    Args:
        scores: by method: float ``(sequences,)``, larger is better. Sequences in which a method has
            no score (NaN) are left out for all.

    Returns:
        None with fewer than two methods or two sequences.
    """
    names = list(scores)
    table = np.array([np.asarray(scores[name], np.float64) for name in names])
    if len(names) < 2:
        return None
    table = table[:, ~np.isnan(table).any(0)]
    count = table.shape[1]
    if count < 2:
        return None
    means = stats.rankdata(-table, axis=0).mean(1)
    k = len(names)
    chi = 12 * count / (k * (k + 1)) * (np.sum(means**2) - k * (k + 1) ** 2 / 4)
    rest = count * (k - 1) - chi
    # All sequences rank alike: the statistic is infinite.
    f = (count - 1) * chi / rest if rest > 1e-12 else np.inf
    order = sorted(range(k), key=lambda i: (means[i], names[i]))
    difference = critical_difference(k, count)
    return Ranking(
        {names[i]: float(means[i]) for i in order},
        difference,
        float(stats.f.sf(f, k - 1, (k - 1) * (count - 1))),
        count,
        _groups([names[i] for i in order], means[order], difference),
    )


def _groups(names: list[str], ranks: Float, difference: float) -> tuple[tuple[str, ...], ...]:
    """Longest runs of ranks no further apart than the critical difference, two methods at least."""
    groups: list[tuple[str, ...]] = []
    reached = 0
    for start in range(len(names)):
        end = int(np.searchsorted(ranks, ranks[start] + difference, side="right"))
        if end - start > 1 and end > reached:
            groups.append(tuple(names[start:end]))
            reached = end
    return tuple(groups)
