"""Figures of measured scores; :mod:`reports.drawing` says how all figures look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.comparison_figures import differences, ranks
from reports.drawing import RULE, SOFT, Drawing, draw_figure, legend_rows, score_limits
from reports.lines import Line, lines_of
from reports.looks import Style, styles
from reports.results import DatasetInfo, MethodInfo, Results
from reports.tradeoffs import against_fps, against_hours, against_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 10
"""Parts of a video in the figure over time: tenths, so that short videos fill every part."""

OTHERS = "others"
"""In the legend, all methods in grey."""

MOST_NAMED = 40
"""With more sequences than this, names would not be legible: a distribution is drawn instead."""


ALL_TOLD = 6
"""With more methods than this, figures of many marks colour the best of each kind alone."""


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
        speed = against_fps(results, dataset, lines)
        drawings += [speed] if speed is not None else []
        if len(comparison.complete) > 1:
            drawings.append(differences(results, comparison, baseline))
        if comparison.ranking is not None:
            drawings.append(ranks(results, comparison))
        drawings.append(per_sequence(results, dataset, lines))
        drawings.append(over_time(results, dataset, lines))
    return drawings


def telling(lines: Sequence[Line]) -> list[Line]:
    """The best method of each kind of label regime; all where they are few.

    A kind's best is a complete row of the controlled comparison where it has one.
    """
    if len(lines) <= ALL_TOLD:
        return list(lines)
    best: dict[str, Line] = {}
    for line in sorted(
        lines, key=lambda each: (bool(each.info.group), each.partial, -_score(each))
    ):
        best.setdefault(line.info.regime_kind, line)
    return sorted(best.values(), key=lambda each: -_score(each))


def _score(line: Line) -> float:
    return line.numbers["J&F"].mean


def _told(lines: Sequence[Line], shown: Sequence[Line]) -> str:
    """What a caption says of methods in grey."""
    if len(shown) == len(lines):
        return ""
    text = " In colour the best of each kind of label regime; grey: all others."
    if any(line.info.group for line in shown):
        text += " Dashed or hollow: not of the controlled comparison."
    return text


def per_sequence(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """J&F of every sequence and method; a distribution where there are too many to name."""
    scores = dataset.rows(results.objects).copy()
    scores["label"] = _labels(scores, results)
    per_method = scores.groupby(["sequence", "label"], as_index=False)["J&F"].mean()
    order = per_method.groupby("sequence")["J&F"].mean().sort_values(ascending=False).index
    shown = telling(lines)
    names = [line.info.label for line in shown]
    rest = per_method[~per_method["label"].isin(names)]
    looks = styles(results)
    legend = [*names, *([OTHERS] if len(rest) else [])]

    def dots(axes: Axes) -> None:
        rows = {name: place for place, name in enumerate(order)}
        ends = per_method.groupby("sequence")["J&F"].agg(["min", "max"]).reindex(order)
        axes.hlines(range(len(order)), ends["min"], ends["max"], color=RULE, linewidth=2.5)
        # The best lies on top.
        for order_drawn, line in enumerate(shown):
            mine = per_method[per_method["label"] == line.info.label]
            look = looks[line.info.label]
            axes.scatter(
                mine["J&F"],
                mine["sequence"].map(rows),
                marker=look.marker,
                s=30,
                facecolor="none" if line.info.group else look.colour,
                edgecolor=look.colour,
                linewidth=1.2 if line.info.group else 0,
                label=line.info.label,
                zorder=4 - order_drawn / len(shown),
            )
        if len(rest):
            places = rest["sequence"].map(rows)
            options: dict[str, Any] = {"s": 9, "color": SOFT, "alpha": 0.7, "linewidth": 0}
            axes.scatter(rest["J&F"], places, label=OTHERS, zorder=2, **options)
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel="J&F (%)", ylabel="", xlim=(-2, 102))

    def distribution(axes: Axes) -> None:
        grey = list(dict.fromkeys(rest["label"]))
        for order_drawn, label in enumerate([*names, *grey]):
            mine = per_method[per_method["label"] == label]["J&F"]
            stroke = _stroke(label, shown, looks)
            stroke["label"] = label if label in names else OTHERS if label == grey[0] else None
            stroke["zorder"] = 3 - order_drawn / 1000
            axes.ecdf(mine, complementary=True, **stroke)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        axes.set(xlabel="J&F (%)", ylabel="sequences above it (%)", xlim=(0, 100), ylim=(0, 1))

    if len(order) <= MOST_NAMED:
        height = 1.0 + 0.2 * len(order) + 0.2 * legend_rows(legend)
        text = (
            f"J&F of each sequence of {dataset.label}, easiest on top (mean over its objects); "
            "the grey bar spans the methods."
        )
        draw = dots
    else:
        height = 3.4 + 0.2 * legend_rows(legend)
        text = (
            f"Share of the {len(order)} sequences of {dataset.label} whose J&F (mean over its "
            "objects) is above the value on the horizontal axis."
        )
        draw = distribution
    title = f"Score per sequence, {dataset.label}"
    text += _told(lines, shown)
    return draw_figure("per-sequence", dataset, title, text, draw, height, legend=legend)


def over_time(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """Mean J&F per tenth of the video, the best method of each kind in colour."""
    means = time_table(results, dataset)
    looks = styles(results)
    shown = telling(lines)
    names = {line.info.label: f"{line.info.label} ({_decay(line)})" for line in shown}
    rest = [line.info.label for line in lines if line.info.label not in names]
    legend = [*names.values(), *([OTHERS] if rest else [])]

    def draw(axes: Axes) -> None:
        # The legend has the best first; what lies on top is drawn last.
        for order, label in enumerate([*names, *rest]):
            mine = means[means["label"] == label]
            stroke = _stroke(label, shown, looks) | {"zorder": 3 - order / 1000}
            if label in names:
                marker = {"marker": looks[label].marker, "markersize": 5, "markeredgewidth": 0}
                stroke |= {**marker, "label": names[label]}
            else:
                # One entry in the legend stands for all.
                stroke["label"] = OTHERS if label == rest[0] else None
            axes.plot(mine["position"], mine["J&F"], **stroke)
        axes.set(xlabel="position in the video (%)", ylabel="J&F (%)", xlim=(0, 100))
        axes.set_xticks(range(0, 101, 20))
        score_limits(axes, means["J&F"].tolist(), [])

    text = (
        f"Mean J&F over the objects of {dataset.label} in each tenth of the video. Decay is the "
        "first quarter's mean minus the last quarter's, averaged over J and F."
        f"{_told(lines, shown)}"
    )
    title = f"Score over time, {dataset.label}"
    height = 3.2 + 0.2 * legend_rows(legend)
    return draw_figure("over-time", dataset, title, text, draw, height, legend=legend)


def _decay(line: Line) -> str:
    decay = (line.numbers["J_decay"].mean + line.numbers["F_decay"].mean) / 2
    minus = "−" if decay <= -0.05 else ""
    return f"decay {minus}{abs(decay):.1f}"


def _stroke(label: str, shown: Sequence[Line], looks: Mapping[str, Style]) -> dict[str, Any]:
    """How a method's line is drawn."""
    for line in shown:
        if line.info.label == label:
            dash = (0, (4, 1.5)) if line.info.group else "-"
            return {"color": looks[label].colour, "linewidth": 1.8, "linestyle": dash}
    return {"color": SOFT, "linewidth": 0.8, "alpha": 0.45}


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
