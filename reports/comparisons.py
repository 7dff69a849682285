"""Which differences of a report are real: everything that is tested, tested once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.results import DATASET, DatasetInfo, Results

if TYPE_CHECKING:
    from bench.metrics.comparison import Difference, Ranking

MAIN = "J&F"
"""The score that methods are ranked by."""

TESTED = ("J&F", "J", "F")
"""Scores whose differences are tested. Recall and decay follow from the same values: testing them
too would say little more, at twice the tests."""

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
        best: by score, the method that is significantly better than every other complete one;
            None where there is none.
        ranking: mean ranks over sequences by J&F; None with fewer than two complete methods or
            two sequences.
    """

    dataset: DatasetInfo
    complete: tuple[str, ...]
    partial: tuple[str, ...]
    pairs: Mapping[str, Sequence[Difference]]
    best: Mapping[str, str | None]
    ranking: Ranking | None


def compare_methods(results: Results, dataset: DatasetInfo) -> Comparison:
    """Compare the methods of a dataset in every tested score; their seeds are averaged first.

    Methods that lack sequences are left out: what they were scored on is another test set.
    """
    from bench.metrics.comparison import best, compare, rank

    scores, sequences = object_scores(results, dataset, MAIN)
    complete, partial = _complete(results, dataset, scores)
    pairs = {}
    winners = {}
    for name in TESTED:
        values, where = object_scores(results, dataset, name)
        pairs[name] = compare({label: values[label] for label in complete}, where)
        winners[name] = best(pairs[name])
    per_sequence = _by_sequence({label: scores[label] for label in complete}, sequences)
    return Comparison(dataset, complete, partial, pairs, winners, rank(per_sequence))


def against(
    results: Results, comparison: Comparison, baseline: str | None = None, score: str = MAIN
) -> tuple[str, list[Difference]]:
    """Differences of all complete methods from one of them, each minus that one.

    Args:
        results: the report's results.
        comparison: the dataset's.
        baseline: label of a complete method, chosen before looking at the scores. Then only its
            own comparisons are corrected for. Otherwise the method with the best mean is taken,
            and the correction is over all pairs, since it was chosen by looking.
        score: one of :data:`TESTED`.

    Returns:
        The label compared against, and the differences, best method first; empty with fewer than
        two complete methods.
    """
    from bench.metrics.comparison import compare

    if len(comparison.complete) < 2:
        return "", []
    if baseline in comparison.complete and baseline is not None:
        values, where = object_scores(results, comparison.dataset, score)
        chosen = {label: values[label] for label in comparison.complete}
        return baseline, compare(chosen, where, against=baseline)
    top = comparison.complete[0]
    found = [each for each in comparison.pairs[score] if top in (each.first, each.second)]
    turned = [each if each.second == top else swapped(each) for each in found]
    order = {label: place for place, label in enumerate(comparison.complete)}
    return top, sorted(turned, key=lambda each: order[each.first])


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

    Without a baseline, one row per dataset, score and pair of complete methods, corrected over the
    pairs of one dataset and score; with one, only the pairs that it is in.
    """
    rows = []
    for comparison in results.comparisons.values():
        for score in TESTED:
            found: Sequence[Difference] = comparison.pairs[score]
            if baseline in comparison.complete:
                found = against(results, comparison, baseline, score)[1]
            key = dict(zip(DATASET, comparison.dataset.key, strict=True))
            rows += [
                {**key, "score": score, **vars(each), "significant": each.significant}
                for each in found
            ]
    columns = ["score", "first", "second", "difference", "low", "high", "p_value", "adjusted"]
    columns += ["sequences", "objects", "won", "lost", "significant"]
    return pd.DataFrame(rows, columns=[*DATASET, *columns]).to_csv(index=False, lineterminator="\n")


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


def interval(difference: Difference) -> str:
    """The 95 % interval of a difference for a table, empty where there is none."""
    if math.isnan(difference.low):
        return ""
    return f"{signed(difference.low)} to {signed(difference.high)}"


def signed(value: float) -> str:
    """A difference with its sign: ``"+1.2"``, ``"−0.4"``, ``"0.0"``."""
    text = f"{abs(value):.1f}"
    if math.isnan(value) or text == "0.0":
        return "0.0" if not math.isnan(value) else "–"
    return ("+" if value > 0 else "−") + text


def probability(value: float) -> str:
    """A p-value for a table: ``"0.031"``, ``"< 0.001"``, a dash where there is none."""
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
