"""Worst cases: where a method falls behind, loses an object, or takes one object for another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.video import Mask, object_ids
from reports.footage import Footage
from reports.regimes import UNKNOWN, UNTRAINED
from reports.results import DatasetInfo, Results

FOUND, GONE = 0.5, 0.1
"""An object was found where its J reached 0.5; it is gone where J stays below 0.1."""

SHORTEST_LOSS = 0.1
"""Share of a video's scored frames for which an object must be gone, up to the last one."""

MOST_CASES = 6
"""Pictures per kind and dataset."""

MOST_OF_A_METHOD = 2
"""Pictures per kind and method: otherwise one bad method would fill the gallery."""


@dataclass(frozen=True)
class Case:
    """One thing that went wrong.

    Attributes:
        kind: ``"drop"``, ``"lost"`` or ``"swapped"``.
        sequence: where.
        method: label of the method that failed.
        other: label of the method that it is compared with, empty where none is.
        frame: index of a frame that shows it.
        size: how bad it is; comparable within a kind.
        text: what happened, in one sentence.
    """

    kind: str
    sequence: str
    method: str
    other: str
    frame: int
    size: float
    text: str


def drops(results: Results, dataset: DatasetInfo) -> list[Case]:
    """Each method's largest drop of J&F in a sequence from the method with the best mean.

    The best method's own largest drop from any other is among them; the largest come first.
    """
    table = dataset.rows(results.objects)
    keys = ["method", "variant"]
    means = table.groupby([*keys, "sequence"])["J&F"].mean().unstack(keys)
    columns = means.columns
    names = zip(columns.get_level_values(0), columns.get_level_values(1), strict=True)
    means.columns = pd.Index([results.methods[name].label for name in names])
    complete = list(results.comparisons[dataset.key].complete)
    if len(means.columns) < 2 or not complete:
        return []
    top = complete[0]
    pairs = [(top, label) for label in means.columns if label != top]
    found = [_drop(results, dataset, means, *pair) for pair in pairs]
    own = [_drop(results, dataset, means, label, top) for label in complete[1:]]
    cases = [case for case in found if case is not None]
    cases += sorted((case for case in own if case is not None), key=_worst_first)[:1]
    return sorted(cases, key=_worst_first)


def lost_objects(results: Results, dataset: DatasetInfo) -> list[Case]:
    """Objects that a method had found and never finds again; the longest lost first."""
    rows = dataset.rows(results.scores)
    rows = rows[rows["metric"] == "J"].sort_values("frame", kind="stable")
    # Pictures are of the lowest seed.
    keys = ["method", "variant", "sequence"]
    rows = rows[rows["seed"] == rows.groupby(keys)["seed"].transform("min")]
    cases = []
    for (method, variant, sequence, number), group in rows.groupby([*keys, "object"]):
        values = group["value"].to_numpy(np.float64)
        start = lost_from(values)
        if start is None:
            continue
        share = 1 - start / len(values)
        label = results.methods[str(method), str(variant)].label
        text = f"object {number} is lost for the last {100 * share:.0f} % of {sequence}"
        frame = int(group["frame"].iloc[(start + len(values)) // 2])
        cases.append(Case("lost", str(sequence), label, "", frame, share, text))
    return sorted(cases, key=_worst_first)


def lost_from(values: NDArray[np.float64]) -> int | None:
    """Place from which an object stays lost, None where it does not.

    Args:
        values: its J per scored frame, in [0, 1].
    """
    there = np.flatnonzero(~(values < GONE))
    start = int(there[-1]) + 1 if there.size else 0
    long_enough = len(values) - start >= max(2, SHORTEST_LOSS * len(values))
    found_before = bool((values[:start] >= FOUND).any())
    return start if long_enough and found_before else None


def swapped_ids(footage: Footage) -> list[Case]:
    """Objects whose mask lies on another object on the shown frames; the most frames first."""
    cases = []
    for track in footage.tracks:
        hits: dict[tuple[int, int], list[int]] = {}
        for place, (mask, truth) in enumerate(zip(track.masks, footage.truth, strict=True)):
            if mask is None or truth is None:
                continue
            for pair in swaps(mask, truth):
                hits.setdefault(pair, []).append(place)
        for (wrong, right), places in hits.items():
            frame = footage.picked[places[len(places) // 2]]
            text = (
                f"object {wrong}'s mask lies on object {right} of {footage.name} "
                f"in {len(places)} of {len(footage.picked)} frames"
            )
            share = len(places) / len(footage.picked)
            label = track.info.label
            cases.append(Case("swapped", footage.name, label, "", frame, share, text))
    return sorted(cases, key=_worst_first)


def swaps(mask: Mask, truth: Mask) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) such that the mask of object i lies on object j.

    Its intersection over union with j is above 0.5, and below 0.1 with i itself.

    Args:
        mask: predicted ids ``(h, w)``.
        truth: true ids ``(h, w)``.
    """
    there = object_ids(truth)
    if len(there) < 2:
        return
    for wrong in object_ids(mask):
        mine = mask == wrong
        if _overlap(mine, truth == wrong) >= GONE:
            continue
        for right in there:
            if right != wrong and _overlap(mine, truth == right) > FOUND:
                yield wrong, right


def of_trained(results: Results, cases: Sequence[Case]) -> list[Case]:
    """The cases of methods that were trained; all where no method was.

    That weights which learned nothing fail tells nobody anything.
    """
    kinds = {info.label: info.regime_kind for info in results.methods.values()}
    if set(kinds.values()) <= {UNTRAINED, UNKNOWN}:
        return list(cases)
    return [case for case in cases if kinds[case.method] != UNTRAINED]


def chosen(cases: Sequence[Case]) -> list[Case]:
    """The cases of one kind worth a picture: the worst, few of a method, one of a sequence."""
    kept: list[Case] = []
    for case in sorted(cases, key=_worst_first):
        same = sum(other.method == case.method for other in kept)
        seen = any(other.sequence == case.sequence for other in kept)
        if not seen and same < MOST_OF_A_METHOD and len(kept) < MOST_CASES:
            kept.append(case)
    return kept


def _worst_first(case: Case) -> tuple[float, str, str]:
    return -case.size, case.sequence, case.method


def _drop(
    results: Results, dataset: DatasetInfo, means: pd.DataFrame, better: str, worse: str
) -> Case | None:
    gap = (means[better] - means[worse]).dropna()
    if not len(gap) or not gap.max() > 0:
        return None
    sequence = str(gap.idxmax())
    size = float(gap.max())
    text = (
        f"{size:.0f} points below {better} on {sequence}: "
        f"{means[worse][sequence]:.0f} against {means[better][sequence]:.0f} J&F"
    )
    frame = _widest_frame(results, dataset, sequence, better, worse)
    return Case("drop", sequence, worse, better, frame, size, text)


def _widest_frame(
    results: Results, dataset: DatasetInfo, sequence: str, better: str, worse: str
) -> int:
    """The frame in which two methods differ most."""
    rows = dataset.rows(results.scores)
    rows = rows[rows["sequence"] == sequence]
    pairs = zip(rows["method"], rows["variant"], strict=True)
    labels = [results.methods[pair].label for pair in pairs]
    means = rows.assign(label=labels).groupby(["label", "frame"])["value"].mean()
    return int((means[better] - means[worse]).idxmax())


def _overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union; 0 where both are empty."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 0.0
