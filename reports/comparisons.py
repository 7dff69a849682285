"""Which differences of a report hold on other videos: everything that is tested, tested once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.lines import rows_of, seeds_agree
from reports.results import DATASET, DatasetInfo, Results

if TYPE_CHECKING:
    from bench.metrics.comparison import Difference, Ranking

MAIN = "J&F"
"""The score that methods are ranked by."""

TESTED = ("J&F", "J", "F")
"""Scores whose differences are tested. Recall and decay follow from the same values: testing them
too would say little more, at twice the tests."""

SCOPE = "for these trainings; of other trainings they say nothing"
"""What intervals are for: they resample videos, and average the seeds of a method."""

Scores = Mapping[str, NDArray[np.float64]]
"""Scores by method label; NaN where there is none."""


@dataclass(frozen=True)
class Comparison:
    """The methods of one dataset, compared.

    Attributes:
        dataset: the dataset.
        complete: labels of the methods that were scored on all sequences, best mean J&F first.
        partial: labels of the other scored methods.
        pairs: every pair of complete methods by score, corrected together within a score.
        best: by score, in each group the method that is significantly better than every other
            complete one of it; groups without such a method have none.
        ranking: mean ranks over sequences by J&F of the complete methods without a group; None
            with fewer than two of them or two sequences.
        of_seeds: by score and label of a complete method, the mean of each seed that counts, see
            :func:`reports.lines.seeds_agree`.
    """

    dataset: DatasetInfo
    complete: tuple[str, ...]
    partial: tuple[str, ...]
    pairs: Mapping[str, Sequence[Difference]]
    best: Mapping[str, tuple[str, ...]]
    ranking: Ranking | None
    of_seeds: Mapping[str, Mapping[str, tuple[float, ...]]]

    def over_seeds(self, difference: Difference, score: str = MAIN) -> tuple[float, float]:
        """95 % interval of a difference over other seeds; NaN where either has fewer than two."""
        from bench.metrics.comparison import over_seeds

        means = self.of_seeds[score]
        return over_seeds(means[difference.first], means[difference.second])


def compare_methods(results: Results, dataset: DatasetInfo) -> Comparison:
    """Compare the methods of a dataset in every tested score; their seeds are averaged first.

    Methods that lack sequences are left out: what they were scored on is another test set.
    """
    from bench.metrics.comparison import compare, rank

    scores, sequences = object_scores(results, dataset, MAIN)
    complete, partial = _complete(results, dataset, scores)
    pairs = {}
    winners = {}
    for name in TESTED:
        values, where = object_scores(results, dataset, name)
        pairs[name] = compare({label: values[label] for label in complete}, where)
        winners[name] = _best_of_groups(results, pairs[name])
    ranked = {label: scores[label] for label in complete if not results.group_of[label]}
    ranking = rank(_by_sequence(ranked, sequences))
    of_seeds = {name: _of_seeds(results, dataset, complete, name) for name in TESTED}
    return Comparison(dataset, complete, partial, pairs, winners, ranking, of_seeds)


def _of_seeds(
    results: Results, dataset: DatasetInfo, labels: Sequence[str], score: str
) -> Mapping[str, tuple[float, ...]]:
    found = {}
    for info in results.methods.values():
        if info.label in labels:
            rows = rows_of(results, dataset, info)
            found[info.label] = tuple(rows[score][: 1 if seeds_agree(rows) else None])
    return found


def _best_of_groups(results: Results, pairs: Sequence[Difference]) -> tuple[str, ...]:
    from bench.metrics.comparison import best

    found = []
    for group in results.groups:
        inside = [
            each
            for each in pairs
            if results.group_of[each.first] == results.group_of[each.second] == group
        ]
        found.append(best(inside))
    return tuple(label for label in found if label is not None)


def against(
    results: Results, comparison: Comparison, baseline: str | None = None, score: str = MAIN
) -> tuple[str, list[Difference]]:
    """Differences of all complete methods from one of them, each minus that one.

    Args:
        results: the report's results.
        comparison: the dataset's.
        baseline: label of a complete method, chosen before looking at the scores. Then only its
            own comparisons are corrected for. Otherwise the method with the best mean is taken, of
            those without a group where there are any, and the correction is over all pairs, since
            it was chosen by looking.
        score: one of :data:`TESTED`.

    Returns:
        The label compared against, and the differences, group after group, in each the best
        method first; empty with fewer than two complete methods.
    """
    from bench.metrics.comparison import corrected

    if len(comparison.complete) < 2:
        return "", []
    groups = results.group_of
    ungrouped = [label for label in comparison.complete if not groups[label]]
    chosen = baseline is not None and baseline in comparison.complete
    label = baseline if chosen and baseline else (ungrouped or comparison.complete)[0]
    found = [each for each in comparison.pairs[score] if label in (each.first, each.second)]
    turned = [each if each.second == label else swapped(each) for each in found]
    order = {label: place for place, label in enumerate(comparison.complete)}
    turned.sort(key=lambda each: (results.groups.index(groups[each.first]), order[each.first]))
    return label, corrected(turned) if chosen else turned


def baseline_label(results: Results, name: str | None, where: str = "baseline") -> str | None:
    """The label of the method that differences are taken from.

    Args:
        results: the report's results.
        name: a label, or the registered name of a method that has one variant.
        where: what it was given as, for messages.

    Raises:
        ConfigError: no such method, or several.
    """
    from bench.errors import ConfigError

    if name is None:
        return None
    labels = [info.label for info in results.methods.values()]
    if name in labels:
        return name
    found = [info.label for info in results.methods.values() if info.method == name]
    if len(found) == 1:
        return found[0]
    raise ConfigError(
        f"{where} {name}",
        "several variants" if found else "no such method in these runs",
        f"one of {', '.join(found or labels)}",
        "Name the method as the tables do.",
    )


def object_scores(
    results: Results, dataset: DatasetInfo, score: str
) -> tuple[Scores, NDArray[np.object_]]:
    """A score of every object by method, and the sequence of each object.

    Returns:
        Percent, float ``(objects,)`` by label, mean over seeds, NaN where a method has no score;
        and the sequences, ``(objects,)``.
    """
    objects = dataset.rows(results.objects)
    keys = ["sequence", "object"]
    means = objects.groupby(["method", "variant", *keys])[score].mean()
    present = set(zip(objects["method"], objects["variant"], strict=True))
    columns = {}
    index = pd.MultiIndex.from_frame(objects[keys].drop_duplicates().sort_values(keys))
    for key, info in results.methods.items():
        if key in present:
            columns[info.label] = means.loc[key].reindex(index).to_numpy(dtype=np.float64)
    return columns, index.get_level_values("sequence").to_numpy(dtype=object)


def swapped(difference: Difference) -> Difference:
    """The same comparison, told the other way round."""
    return replace(
        difference,
        first=difference.second,
        second=difference.first,
        # Taken from zero, so that a difference of nothing is not written as -0.
        difference=0.0 - difference.difference,
        low=0.0 - difference.high,
        high=0.0 - difference.low,
        won=difference.lost,
        lost=difference.won,
    )


def differences_csv(results: Results, baseline: str | None = None) -> str:
    """Every tested difference, full precision, in percentage points.

    One row per dataset, score and pair of complete methods: family "all pairs", corrected over the
    pairs of one dataset and score. With a baseline, the pairs that it is in come first and once
    more: family "baseline", corrected over these alone.
    """
    rows = []
    for comparison in results.comparisons.values():
        for score in TESTED:
            families = {"all pairs": comparison.pairs[score]}
            if baseline in comparison.complete:
                families = {
                    "baseline": against(results, comparison, baseline, score)[1],
                    **families,
                }
            key = dict(zip(DATASET, comparison.dataset.key, strict=True))
            rows += [
                {**key, "score": score, "family": family, **vars(each)}
                | {"significant": each.significant, "at_floor": each.at_floor}
                | _seeds_of(comparison, each, score)
                for family, found in families.items()
                for each in found
            ]
    columns = ["score", "family", "first", "second", "difference", "low", "high", "p_value"]
    columns += ["adjusted", "at_floor", "significant", "compared", "resamples"]
    columns += ["sequences", "objects", "won", "lost"]
    columns += ["first_seeds", "second_seeds", "over_seeds_low", "over_seeds_high"]
    return pd.DataFrame(rows, columns=[*DATASET, *columns]).to_csv(index=False, lineterminator="\n")


def _seeds_of(comparison: Comparison, difference: Difference, score: str) -> dict[str, float]:
    low, high = comparison.over_seeds(difference, score)
    means = comparison.of_seeds[score]
    return {
        "first_seeds": len(means[difference.first]),
        "second_seeds": len(means[difference.second]),
        "over_seeds_low": low,
        "over_seeds_high": high,
    }


def _complete(
    results: Results, dataset: DatasetInfo, scores: Scores
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels of complete methods, best first, and of the others that have scores."""
    table = dataset.rows(results.table)
    short = table[table["sequences"] < table["sequences_expected"]]
    pairs = zip(short["method"], short["variant"], strict=True)
    lacking = {results.methods[pair].label for pair in pairs}
    whole = [label for label in scores if label not in lacking]
    # Stable: of equal means, the first in the order of labels.
    whole.sort(key=lambda label: -float(np.nanmean(scores[label])))
    return tuple(whole), tuple(label for label in scores if label in lacking)


def _by_sequence(scores: Scores, sequences: NDArray[np.object_]) -> Scores:
    """Means over each sequence's objects, ``(sequences,)`` by method."""
    if not scores:  # of no method's objects are there groups
        return {}
    table = pd.DataFrame(dict(scores)).groupby(sequences).mean()
    return {label: table[label].to_numpy(dtype=np.float64) for label in scores}


def interval(low: float, high: float) -> str:
    """The 95 % interval of a difference for a table, empty where there is none (NaN)."""
    return "" if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def signed(value: float) -> str:
    """A difference with its sign: ``"+1.2"``, ``"−0.4"``, ``"0.0"``."""
    text = f"{abs(value):.1f}"
    if math.isnan(value) or text == "0.0":
        return "0.0" if not math.isnan(value) else "–"
    return ("+" if value > 0 else "−") + text


def probability(value: float, at_most: bool = False) -> str:
    """A p-value for a table: ``"0.031"``, ``"< 0.001"``, ``"≤ 0.005"``, a dash for none.

    Args:
        value: in [0, 1]; NaN for none.
        at_most: whether it is an upper bound, which is then rounded up.
    """
    if math.isnan(value):
        return "–"
    if value < 0.001:
        return "< 0.001"
    # What is 0.005 but for the rounding of floats is not 0.006.
    return f"≤ {math.ceil(1000 * value - 1e-6) / 1000:.3f}" if at_most else f"{value:.3f}"
