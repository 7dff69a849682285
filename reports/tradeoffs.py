"""What accuracy costs: training images, hours of annotation, frames per second."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reports.costs import PublishedPoint, pareto_front, published_points, training_images
from reports.drawing import (
    INK,
    SOFT,
    Drawing,
    Style,
    draw_figure,
    legend_rows,
    score_limits,
    styles,
)
from reports.labels import place_labels
from reports.lines import Line, remarks
from reports.results import PUBLISHED, DatasetInfo, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALE = 0.3
"""Opacity of the markers of methods that lack sequences."""

Points = Mapping[str, tuple[Line, float]]
"""By method label: its line and its place on the horizontal axis."""


def against_images(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """J&F against training images; published systems are shown with other markers."""
    points = _points(lines, lambda line: training_images(line.info.regime))
    others = published_points(dataset)

    def scale(axes: Axes) -> None:
        values = [x for _, x in points.values()] + [point.images for point in others]
        _log_from_zero(axes, values, first=100)
        axes.set_xlabel("training images, frames of video included (log scale)")

    text = (
        f"J&F on {dataset.label} against the images that training saw, an hour of video counting "
        "as 24 frames a second and pretraining not at all; up and left is better."
    )
    if others:
        text += " Crosses: published by their authors, not measured here."
    title = f"Score against training images, {dataset.label}"
    return _scatter("against-images", dataset, title, text, points, scale, styles(results), others)


def against_hours(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """J&F against the estimated hours of annotation, with the Pareto front of complete methods."""
    points = _points(lines, lambda line: line.info.annotation_hours)

    def scale(axes: Axes) -> None:
        _log_from_zero(axes, [x for _, x in points.values()], first=1)
        axes.set_xlabel("hours of annotation (estimate, log scale)")

    text = (
        f"J&F on {dataset.label} against the estimated hours of human annotation behind each "
        "method's weights; up and left is better. The line joins methods that no other one beats "
        "with as few hours (Pareto front)."
    )
    if any(_pretrained(line) for line, _ in points.values()):
        text += (
            " Open: training started from weights that others had trained; labels of that "
            "pretraining are not in the hours, so such a point belongs further to the right."
        )
    title = f"What labels bought, {dataset.label}"
    return _scatter(
        "against-hours", dataset, title, text, points, scale, styles(results), hours=True
    )


def against_fps(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """J&F against frames per second."""
    points = _points(lines, lambda line: line.numbers["fps"].mean)

    def scale(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_xscale("log")
        values = [x for _, x in points.values()]
        low, high = min(values), max(values)
        axes.set_xlim(low / 2, high * 2)
        # Over a short range, powers of ten alone would leave the axis with a label or none.
        steps = (1,) if high / low > 100 else (1, 2, 5)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("frames per second (log scale)")

    text = (
        f"J&F on {dataset.label} against frames per second; up and right is better. On a CPU these "
        "are seconds of the processor, so that jobs beside it hardly count; on a GPU wall time."
    )
    title = f"Score against speed, {dataset.label}"
    return _scatter("against-fps", dataset, title, text, points, scale, styles(results))


def _points(lines: Sequence[Line], cost: Callable[[Line], float]) -> Points:
    found = {line.info.label: (line, cost(line)) for line in lines}
    return {label: (line, x) for label, (line, x) in found.items() if math.isfinite(x)}


def _log_from_zero(axes: Axes, values: Sequence[float], first: float) -> None:
    """A log scale that has a place for zero, with ticks at zero and at powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    high = max([*values, first * 10])
    axes.set_xscale("symlog", linthresh=first, linscale=0.5)
    axes.set_xlim(-first / 4, high * 2.5)
    powers = np.arange(round(math.log10(first)), math.ceil(math.log10(high)) + 1)
    step = 2 if len(powers) > 6 else 1
    axes.xaxis.set_major_locator(FixedLocator([0.0, *(10.0 ** powers[::step])]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def short_count(value: float) -> str:
    """``"0"``, ``"100"``, ``"10 k"``, ``"1 M"``."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:,.0f}{name}"
    return f"{value:g}"


def _scatter(
    kind: str,
    dataset: DatasetInfo,
    title: str,
    text: str,
    points: Points,
    scale: Callable[[Axes], None],
    looks: Mapping[str, Style],
    others: Sequence[PublishedPoint] = (),
    hours: bool = False,
) -> Drawing:
    """One point per measured method, small named crosses for published ones.

    Over hours of annotation, the Pareto front is drawn, and pretrained methods are open.
    """

    def draw(axes: Axes) -> None:
        for label, (line, x) in points.items():
            _measured(axes, line, x, looks[label], hours and _pretrained(line))
        scores = [line.numbers["J&F"].mean for line, _ in points.values()]
        score_limits(axes, pd.Series([*scores, *(point.score for point in others)]))
        axes.set_ylabel("J&F (%)")
        scale(axes)
        if hours:
            _front(axes, points)
        if others:
            xs, ys = [point.images for point in others], [point.score for point in others]
            axes.scatter(xs, ys, marker="x", s=26, color=SOFT, linewidth=1.2, label=PUBLISHED)
            own = [(x, line.numbers["J&F"].mean) for line, x in points.values()]
            place_labels(axes, xs, ys, [point.method for point in others], own)

    shown = [line for line, _ in points.values()]
    if any(line.partial for line in shown):
        text += f" Pale: partial. {remarks(shown)[0]}"
    labels = [f"{line.info.label} {line.mark}".strip() for line in shown]
    labels += [PUBLISHED] if others else []
    height = (4.2 if others else 3.0) + 0.2 * legend_rows(labels)
    return draw_figure(kind, dataset, title, text, draw, height, legend=labels)


def _pretrained(line: Line) -> bool:
    """Whether training started from weights whose own labels are not counted."""
    return line.info.regime is not None and bool(line.info.regime.pretraining)


def _measured(axes: Axes, line: Line, x: float, look: Style, open_marker: bool) -> None:
    number = line.numbers["J&F"]
    # A pale marker says that sequences are missing.
    face = "none" if open_marker else (look.colour, PALE if line.partial else 1.0)
    options: dict[str, Any] = {
        "marker": look.marker,
        "s": 64,
        "zorder": 3,
        "facecolor": face,
        "edgecolor": look.colour,
        "linewidth": 1.5,
        "clip_on": False,
        "label": f"{line.info.label} {line.mark}".strip(),
    }
    axes.scatter([x], [number.mean], **options)
    if np.isfinite(number.sd):
        axes.errorbar(x, number.mean, yerr=number.sd, color=look.colour, capsize=3)


def _front(axes: Axes, points: Points) -> None:
    """A line through the methods of the Pareto front."""
    complete = {
        label: (x, line.numbers["J&F"].mean)
        for label, (line, x) in points.items()
        if not line.partial
    }
    names = pareto_front(complete)
    if not names:
        return
    xs, ys = zip(*(complete[name] for name in names), strict=True)
    axes.plot(xs, ys, color=INK, linewidth=1.2, alpha=0.6, zorder=1)
