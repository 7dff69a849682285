"""Differences with their intervals, and mean ranks with the critical difference."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from reports.comparisons import MAIN, SCOPE, Comparison, against
from reports.drawing import (
    INK,
    PAPER,
    RULE,
    SOFT,
    Drawing,
    below_the_line,
    divide_groups,
    draw_figure,
    quoted,
)
from reports.looks import styles
from reports.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.32
"""Height of a row in inches."""


def wrapped(label: str, width: int = 26) -> str:
    """A method's label on as many lines as it needs beside a figure."""
    return textwrap.fill(label, width)


def differences(results: Results, comparison: Comparison, baseline: str | None = None) -> Drawing:
    """Difference of each complete method from one of them, with its 95 % interval."""
    label, found = against(results, comparison, baseline)
    looks = styles(results)
    groups = [results.group_of[each.first] for each in found]
    of_seeds = comparison.of_seeds[MAIN]
    repeated = [each for each in found if len(of_seeds[each.first]) > 1]

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        divide_groups(axes, groups)
        for row, each in enumerate(found):
            look = looks[each.first]
            if math.isfinite(each.low):
                axes.hlines(row, each.low, each.high, color=look.colour, linewidth=2)
            axes.scatter(
                [each.difference],
                [row],
                marker=look.marker,
                s=46,
                zorder=3,
                edgecolor=look.colour,
                # Hollow: the test, corrected, does not exclude zero.
                facecolor=look.colour if each.significant else PAPER,
                linewidth=1.5,
            )
            if each in repeated:
                minus = sum(of_seeds[label]) / len(of_seeds[label])
                places = [mean - minus for mean in of_seeds[each.first]]
                axes.scatter(
                    places,
                    [row + 0.28] * len(places),
                    marker="^",
                    s=12,
                    color=look.colour,
                    linewidth=0,
                    zorder=3,
                )
        axes.set_yticks(range(len(found)), [wrapped(each.first) for each in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"J&F minus that of\n{wrapped(label, 44)} (points)")

    chosen = "" if label == baseline else ", which has the best mean"
    if chosen and len(results.groups) > 1 and not results.group_of[label]:
        chosen += " of the rows without a group"
    text = (
        f"Paired differences of J&F on {comparison.dataset.label} from {label}{chosen}, with 95 % "
        f"bootstrap intervals over sequences, each by itself, {SCOPE}. Filled: significant at 5 % "
        "after Holm's correction over all of them, so an interval can exclude zero where the "
        f"marker is hollow.{below_the_line(groups)}"
    )
    if repeated:
        text += f" Small triangles: single seeds, each minus the mean of {label}."
    title = f"Which differences hold on other videos, {comparison.dataset.label}"
    height = 1.0 + ROW * len(found)
    return draw_figure("differences", comparison.dataset, title, text, draw, height)


def ranks(results: Results, comparison: Comparison) -> Drawing:
    """Critical-difference diagram: bars join methods that are not told apart.

    After Demšar, JMLR 2006, figure 1, with a row per method so that long names stay legible.

    Raises:
        ValueError: the methods were not ranked.
    """
    ranking = comparison.ranking
    if ranking is None:
        raise ValueError("ranks need two complete methods and two sequences")
    looks = styles(results)
    names = list(ranking.ranks)
    rows = {name: row for row, name in enumerate(names)}
    step = 0.07 * (len(names) - 1)

    def draw(axes: Axes) -> None:
        for name, row in rows.items():
            look = looks[name]
            axes.hlines(row, 1, ranking.ranks[name], color=RULE, linewidth=2, zorder=1)
            place = ranking.ranks[name]
            axes.scatter(place, row, color=look.colour, marker=look.marker, s=46, zorder=3)
            axes.annotate(
                f"{ranking.ranks[name]:.2f}",
                (ranking.ranks[name], row),
                (6, 0),
                textcoords="offset points",
                va="center",
            )
        # Methods are sorted by rank, so those of a group are neighbours.
        for place, group in enumerate(ranking.groups):
            x = len(names) + 2.2 * step + place * step
            axes.vlines(x, rows[group[0]] - 0.25, rows[group[-1]] + 0.25, color=INK, linewidth=4)
        axes.hlines(-1, 1, 1 + ranking.critical_difference, color=SOFT, linewidth=4)
        axes.annotate(
            f"critical difference {ranking.critical_difference:.2f}",
            (1 + ranking.critical_difference, -1),
            (6, 0),
            textcoords="offset points",
            va="center",
            color=SOFT,
        )
        axes.set_yticks(range(len(names)), [wrapped(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -1.6)
        right = len(names) + step * (2.5 + len(ranking.groups))
        axes.set_xlim(0.95, max(right, 1 + ranking.critical_difference))
        # Numbers of two digits would touch.
        axes.set_xticks(range(1, len(names) + 1, 1 if len(names) < 10 else 2))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("mean rank over sequences (1 is best)")

    text = (
        f"Mean rank of J&F over the {ranking.sequences} sequences of {comparison.dataset.label}, "
        "1 is best. Upright bars join methods that are not told apart: their ranks differ by less "
        "than the critical difference (Nemenyi's test at 5 %). "
        f"{_friedman(ranking.p_value)}"
    )
    if len(results.groups) > 1:
        text += f" Not ranked: {quoted(results.groups[1:])}."
    title = f"Ranks, {comparison.dataset.label}"
    height = 1.2 + ROW * len(names)
    return draw_figure("ranks", comparison.dataset, title, text, draw, height)


def _friedman(p_value: float) -> str:
    value = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    if p_value < 0.05:
        return f"Friedman's test: the methods differ ({value})."
    return f"Friedman's test finds no difference between any methods ({value})."
