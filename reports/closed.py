"""Gap closed: what each method recovers of the difference between two others.

The two are chosen by the reader: a *source*, trained on labelled images alone, and an *oracle*,
trained with the labels of the target. A method at the source's score closes nothing, one at the
oracle's closes all. How sure that is depends on what is thought of as random, the training or the
choice of test videos, so there are two intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.comparisons import MAIN, baseline_label
from reports.drawing import (
    INK,
    SOFT,
    Drawing,
    below_the_line,
    divide_groups,
    draw_figure,
    slug,
)
from reports.lines import MISSING, Number, about_seeds, over_seeds, rows_of, seeds_agree
from reports.looks import styles
from reports.page_tables import Cell, Head, Row, Table, sortable
from reports.results import DATASET, DatasetInfo, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.gap.statistics import Estimate

WIDEST = (-100.0, 200.0)
"""Shares beyond these are not drawn: what reaches them says no more than that nothing is known."""

ROW = 0.36
"""Height of a row of the figure in inches."""


@dataclass(frozen=True)
class Closed:
    """What one method closes of a gap.

    Attributes:
        label: of the method.
        score: J&F in percent, over seeds.
        seeds: how many count, one where all agree (see :func:`reports.lines.seeds_agree`).
        over_seeds: share of the gap over the seeds that both ends have too, with the interval for
            other trainings on these sequences.
        over_sequences: share of the gap over all seeds of each, with the interval for other
            sequences and these trainings. It is that of the means.
    """

    label: str
    score: Number
    seeds: int
    over_seeds: Estimate
    over_sequences: Estimate


@dataclass(frozen=True)
class Gap:
    """The gap of one dataset, and what the methods between its ends close of it.

    Attributes:
        dataset: where it was measured.
        source: label of the method at its lower end.
        oracle: label of the method at its upper end.
        ends: their J&F in percent, source first.
        rows: every other complete method: group after group, in each in the order of their names.
        same: labels of those of all whose seeds agree, of which one counts.
    """

    dataset: DatasetInfo
    source: str
    oracle: str
    ends: tuple[Number, Number]
    rows: Sequence[Closed]
    same: Sequence[str]


def find_gaps(results: Results, source: str, oracle: str) -> tuple[list[Gap], list[str]]:
    """The gap between two methods on every dataset on which both were scored completely.

    Args:
        results: the report's.
        source: method trained on labelled images alone, by name or label.
        oracle: method trained with the target's labels, by name or label.

    Returns:
        The gaps, and a sentence for every dataset without one.

    Raises:
        ConfigError: one of them is no method of these runs, or they are the same.
    """
    from bench.errors import ConfigError

    first = baseline_label(results, source, "source")
    last = baseline_label(results, oracle, "oracle")
    assert first is not None
    assert last is not None
    if first == last:
        raise ConfigError("oracle", f"{oracle}, the source", "another method", "Name two methods.")
    gaps, notes = [], []
    for comparison in results.comparisons.values():
        dataset = comparison.dataset
        missing = [label for label in (first, last) if label not in comparison.complete]
        if missing:
            names = " and ".join(missing)
            notes.append(f"No gap on {dataset.label}: {names} lacks sequences there.")
        else:
            gaps.append(_gap(results, dataset, first, last, comparison.complete))
    return gaps, notes


def _gap(
    results: Results, dataset: DatasetInfo, source: str, oracle: str, complete: Sequence[str]
) -> Gap:
    objects = dataset.rows(results.objects)
    by_seed, by_sequence, scores, same = {}, {}, {}, []
    infos = sorted(results.methods.values(), key=lambda info: results.groups.index(info.group))
    for info in infos:
        label = info.label
        mine = objects[(objects["method"] == info.method) & (objects["variant"] == info.variant)]
        if label not in complete:
            continue
        identical = seeds_agree(rows_of(results, dataset, info))
        same += [label] if identical else []
        by_seed[label] = _means(mine)
        by_sequence[label] = _shares(mine)
        scores[label] = over_seeds(list(by_seed[label].values()), identical)
    rows = []
    for label, of_seeds in by_seed.items():
        if label in (source, oracle):
            continue
        three: Sequence[Mapping[Any, float]] = (of_seeds, by_seed[source], by_seed[oracle])
        if {label, source, oracle} <= set(same):
            three = _one_seed(three)
        rows.append(
            Closed(
                label,
                scores[label],
                1 if label in same else len(of_seeds),
                _closed(three[0], three[1], three[2], "seed"),
                _closed(by_sequence[label], by_sequence[source], by_sequence[oracle], "sequence"),
            )
        )
    return Gap(dataset, source, oracle, (scores[source], scores[oracle]), rows, same)


def _one_seed(scores: Sequence[Mapping[Any, float]]) -> Sequence[Mapping[Any, float]]:
    """Scores of a seed that all have; as they are where there is none.

    Repeating what depends on no seed does not show what other trainings would reach.
    """
    common = [seed for seed in scores[0] if all(seed in each for each in scores)]
    return [{seed: each[seed] for seed in common[:1]} if common else each for each in scores]


def _means(objects: pd.DataFrame) -> dict[Any, float]:
    """Mean over objects by seed."""
    return {seed: float(mean) for seed, mean in objects.groupby("seed")[MAIN].mean().items()}


def _shares(objects: pd.DataFrame) -> dict[Any, float]:
    """What each sequence adds to the mean over objects; the mean of these is that mean."""
    totals = objects.groupby("sequence")[MAIN].sum() * objects["sequence"].nunique() / len(objects)
    return {name: float(total) for name, total in totals.items()}


def _closed(
    adapted: Mapping[Any, float], source: Mapping[Any, float], oracle: Mapping[Any, float], by: str
) -> Estimate:
    """The share with its interval; NaN with the reason in its note where units do not overlap."""
    from bench.errors import DataError
    from bench.gap.closing import gap_closed
    from bench.gap.statistics import Estimate

    try:
        return gap_closed(adapted, source, oracle, by)
    except DataError as error:
        return Estimate(math.nan, None, (0,), (0,), f"{error.found[:1].upper()}{error.found[1:]}.")


def gap_table(results: Results, gap: Gap) -> Table:
    """The gap for the page."""
    looks = styles(results)
    kinds = {info.label: info.regime_kind for info in results.methods.values()}
    heads = [Head("Method", number=False), Head(MAIN, hint="mean ± standard deviation over seeds")]
    heads += [Head("Gap closed, %"), Head("95 %, over seeds"), Head("95 %, over sequences")]
    rows = []
    for label, score in zip((gap.source, gap.oracle), gap.ends, strict=True):
        share = 0.0 if label == gap.source else 100.0
        cells = [Cell(label, head=True, look=looks[label]), Cell(score.text(), score.mean)]
        cells += [Cell(f"{share:.0f}", share), Cell(MISSING), Cell(MISSING)]
        rows.append(Row(cells, kinds[label], results.group_of[label]))
    for row in gap.rows:
        share = 100 * row.over_sequences.value
        if math.isnan(share):
            share = 100 * row.over_seeds.value
        cells = [Cell(row.label, head=True, look=looks[row.label])]
        cells.append(Cell(row.score.text(), row.score.mean))
        cells.append(Cell(MISSING if math.isnan(share) else percent(share), sortable(share)))
        cells += [_interval(row.over_seeds), _interval(row.over_sequences)]
        rows.append(Row(cells, kinds[row.label], results.group_of[row.label]))
    # The ends stand first in their groups.
    rows.sort(key=lambda row: results.groups.index(row.group))
    caption = (
        f"Share of the way from {gap.source} to {gap.oracle} in {MAIN}: (method − source) / "
        "(oracle − source). Intervals after Fieller, paired: one for other trainings tested on the "
        "same sequences, one for other sequences segmented by the same trainings."
    )
    notes = about_seeds({}, gap.same)
    notes += [
        f"{row.label}, over {by}: {estimate.note}"
        for row in gap.rows
        for by, estimate in (("seeds", row.over_seeds), ("sequences", row.over_sequences))
        if estimate.note
    ]
    return Table(slug(gap.dataset), gap.dataset.label, caption, heads, rows, notes)


def _interval(estimate: Estimate) -> Cell:
    if estimate.interval is None:
        return Cell(MISSING)
    low, high = (100 * end for end in estimate.interval)
    return Cell(f"{percent(low)} to {percent(high)}", low)


def percent(value: float) -> str:
    """A share in percent for a table, with a minus that is as wide as a plus."""
    text = f"{value:.0f}"
    return "0" if text == "-0" else text.replace("-", "−")


def gap_figure(results: Results, gap: Gap) -> Drawing | None:
    """Share closed by every method, with both intervals; None where no share is defined."""
    rows = [row for row in gap.rows if not math.isnan(row.over_sequences.value)]
    if not rows:
        return None
    looks = styles(results)
    groups = [results.group_of[row.label] for row in rows]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=SOFT, linewidth=1)
        axes.axvline(100, color=SOFT, linewidth=1)
        divide_groups(axes, groups)
        for place, row in enumerate(rows):
            look = looks[row.label]
            for estimate, shift, width in (
                (row.over_sequences, -0.13, 1.2),
                (row.over_seeds, 0.13, 3.0),
            ):
                if estimate.interval is not None:
                    low, high = (100 * end for end in estimate.interval)
                    axes.hlines(place + shift, low, high, color=look.colour, linewidth=width)
            value = 100 * row.over_sequences.value
            axes.scatter([value], [place], marker=look.marker, s=46, zorder=3, color=look.colour)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, WIDEST[0]), min(high, WIDEST[1]))
        ends = zip((0, 100), (gap.source, gap.oracle), gap.ends, strict=True)
        names = [f"{place}: {label} ({end.mean:.1f})" for place, label, end in ends]
        axes.set_xlabel("\n".join([f"gap closed in {MAIN}, %", *names]), color=INK)

    text = (
        f"Share of the way from {gap.source} to {gap.oracle} on {gap.dataset.label}. Thick: 95 % "
        "interval over trainings with other seeds, where there is one; thin: over other sequences. "
        f"Nothing beyond {WIDEST[0]:.0f} and {WIDEST[1]:.0f} % is drawn.{below_the_line(groups)}"
    )
    title = f"How much of the gap is closed, {gap.dataset.label}"
    return draw_figure("gap-closed", gap.dataset, title, text, draw, 1.6 + ROW * len(rows))


def gaps_csv(gaps: Sequence[Gap]) -> str:
    """All gaps, full precision; shares of 1."""
    rows = []
    for gap in gaps:
        key = dict(zip(DATASET, gap.dataset.key, strict=True))
        for row in gap.rows:
            line: dict[str, Any] = {"source": gap.source, "oracle": gap.oracle, "method": row.label}
            line |= {MAIN: row.score.mean, "deviation": row.score.sd, "seeds": row.seeds}
            for name in ("over_seeds", "over_sequences"):
                estimate: Estimate = getattr(row, name)
                low, high = estimate.interval or (math.nan, math.nan)
                line |= {f"closed_{name}": estimate.value}
                line |= {f"low_{name}": low, f"high_{name}": high, f"note_{name}": estimate.note}
            rows.append(key | line)
    columns = [*DATASET, "source", "oracle", "method", MAIN, "deviation", "seeds"]
    for name in ("over_seeds", "over_sequences"):
        columns += [f"{what}_{name}" for what in ("closed", "low", "high", "note")]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")
