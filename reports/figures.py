"""Figures of measured scores; :mod:`reports.drawing` says how all figures look.

seaborn is imported when the first figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.comparison_figures import differences, ranks
from reports.drawing import (
    RULE,
    Drawing,
    draw_figure,
    legend_rows,
    score_limits,
    styles,
)
from reports.lines import Line, lines_of
from reports.results import DatasetInfo, MethodInfo, Results
from reports.tradeoffs import against_fps, against_hours, against_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 10
"""Parts of a video in the figure over time: tenths, so that short videos fill every part."""

MOST_NAMED = 40
"""With more sequences than this, names would not be legible: a distribution is drawn instead."""


def draw_all(results: Results, baseline: str | None = None) -> list[Drawing]:
    """Every figure of every dataset that has scores, the suite's question first."""
    drawings = []
    for dataset in results.datasets.values():
        if not dataset.scored:
            continue
        lines = [line for line in lines_of(results, dataset) if line.scored]
        comparison = results.comparisons[dataset.key]
        drawings.append(against_hours(results, dataset, lines))
        drawings.append(against_images(results, dataset, lines))
        if any(np.isfinite(line.numbers["fps"].mean) for line in lines):
            drawings.append(against_fps(results, dataset, lines))
        if len(comparison.complete) > 1:
            drawings.append(differences(results, comparison, baseline))
        if comparison.ranking is not None:
            drawings.append(ranks(results, comparison))
        drawings.append(per_sequence(results, dataset))
        drawings.append(over_time(results, dataset, lines))
    return drawings


def per_sequence(results: Results, dataset: DatasetInfo) -> Drawing:
    """J&F of every sequence and method; a distribution where there are too many to name."""
    scores = dataset.rows(results.objects).copy()
    scores["label"] = _labels(scores, results)
    per_method = scores.groupby(["sequence", "label"], as_index=False)["J&F"].mean()
    order = per_method.groupby("sequence")["J&F"].mean().sort_values(ascending=False).index
    named = len(order) <= MOST_NAMED
    looks = styles(results)
    present = [label for label in looks if label in set(per_method["label"])]

    def dots(axes: Axes) -> None:
        import seaborn

        rows = {name: place for place, name in enumerate(order)}
        ends = per_method.groupby("sequence")["J&F"].agg(["min", "max"]).reindex(order)
        axes.hlines(range(len(order)), ends["min"], ends["max"], color=RULE, linewidth=2.5)
        for label in present:
            mine = per_method[per_method["label"] == label]
            seaborn.scatterplot(
                x=mine["J&F"],
                y=mine["sequence"].map(rows),
                ax=axes,
                color=looks[label].colour,
                marker=looks[label].marker,
                s=34,
                linewidth=0,
                alpha=0.9,
                label=label,
                legend=False,
                zorder=3,
            )
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel="J&F (%)", ylabel="", xlim=(-2, 102))

    def distribution(axes: Axes) -> None:
        import seaborn

        for label in present:
            mine = per_method[per_method["label"] == label]
            seaborn.ecdfplot(
                x=mine["J&F"],
                ax=axes,
                color=looks[label].colour,
                dashes=looks[label].dash or (None, None),
                label=label,
                complementary=True,
                stat="percent",
            )
        axes.set(xlabel="J&F (%)", ylabel="sequences above it (%)", xlim=(0, 100), ylim=(0, 100))

    if named:
        height = 1.0 + 0.2 * len(order) + 0.2 * legend_rows(present)
        text = (
            f"J&F of each sequence of {dataset.label}, easiest on top (mean over its objects); "
            "the grey bar spans the methods."
        )
    else:
        height = 3.4 + 0.2 * legend_rows(present)
        text = (
            f"Share of the {len(order)} sequences of {dataset.label} whose J&F (mean over its "
            "objects) is above the value on the horizontal axis."
        )
    title = f"Score per sequence, {dataset.label}"
    draw = dots if named else distribution
    return draw_figure("per-sequence", dataset, title, text, draw, height, legend=present)


def over_time(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """Mean J&F per tenth of the video, per method."""
    means = time_table(results, dataset)
    looks = styles(results)
    names = {}
    for line in lines:
        decay = (line.numbers["J_decay"].mean + line.numbers["F_decay"].mean) / 2
        minus = "−" if decay <= -0.05 else ""
        names[line.info.label] = f"{line.info.label} (decay {minus}{abs(decay):.1f})"

    def draw(axes: Axes) -> None:
        import seaborn

        for label, name in names.items():
            mine = means[means["label"] == label]
            seaborn.lineplot(
                x=mine["position"],
                y=mine["J&F"],
                ax=axes,
                color=looks[label].colour,
                marker=looks[label].marker,
                markeredgewidth=0,
                markersize=5,
                linewidth=1.6,
                label=name,
                legend=False,
                errorbar=None,
            )
            axes.lines[-1].set_dashes(looks[label].dash or (None, None))
        axes.set(xlabel="position in the video (%)", ylabel="J&F (%)", xlim=(0, 100))
        axes.set_xticks(range(0, 101, 20))
        score_limits(axes, means["J&F"])

    text = (
        f"Mean J&F over the objects of {dataset.label} in each tenth of the video. Decay is the "
        "first quarter's mean minus the last quarter's, averaged over J and F."
    )
    title = f"Score over time, {dataset.label}"
    shown = list(names.values())
    height = 3.2 + 0.2 * legend_rows(shown)
    return draw_figure("over-time", dataset, title, text, draw, height, legend=shown)


def time_table(results: Results, dataset: DatasetInfo) -> pd.DataFrame:
    """Mean J&F in percent per method label and tenth of the video.

    The position of a frame is its index over the last scored index of its sequence. Each object
    counts alike in every tenth it has frames in.

    Returns:
        Columns ``label``, ``position`` (middle of the tenth, in percent), ``J&F``.
    """
    scores = dataset.rows(results.scores)
    last = scores.groupby("sequence")["frame"].transform("max").clip(lower=1)
    part = (scores["frame"] / last * BINS).astype(int).clip(upper=BINS - 1)
    scores = scores.assign(label=_labels(scores, results), position=(part + 0.5) * 100 / BINS)
    keys = ["label", "seed", "sequence", "object", "position"]
    # First over the frames of each metric, then J with F, then over objects.
    means = scores.groupby([*keys, "metric"])["value"].mean().groupby(keys).mean()
    means = 100 * means.groupby(["label", "position"]).mean()
    return means.rename("J&F").reset_index()


def _labels(table: pd.DataFrame, results: Results) -> list[str]:
    methods: dict[tuple[str, str], MethodInfo] = dict(results.methods)
    pairs = zip(table["method"], table["variant"], strict=True)
    return [methods[method, variant].label for method, variant in pairs]
