"""What accuracy costs: training images, hours of annotation, frames per second."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.cost_axes import MARKER, CostAxis, apart, short_count
from reports.costs import PublishedPoint, pareto_front, published_points, training_images
from reports.drawing import INK, SOFT, WIDTH, Drawing, draw_figure, legend_rows, score_limits
from reports.labels import names_of, place_labels
from reports.lines import Line, remarks
from reports.looks import Style, hue, styles
from reports.regimes import KINDS, changed_costs
from reports.results import PUBLISHED, DatasetInfo, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALE = 0.3
"""Opacity of the markers of methods that lack sequences."""

HEIGHT = 3.4
"""Of a figure in inches, without its legend."""

OTHERS = "in no controlled comparison"
HIGHEST = "highest so far"
"""Names in the legend."""


@dataclass(frozen=True)
class Point:
    """A measured method in a figure.

    Attributes:
        line: its figures.
        x: its place, as the horizontal axis counts.
        arrow: whether it belongs further to the right.
    """

    line: Line
    x: float
    arrow: bool = False

    @property
    def y(self) -> float:
        """J&F in percent."""
        return self.line.numbers["J&F"].mean

    @property
    def reach(self) -> float:
        """Standard deviation over seeds, 0 where there is none."""
        sd = self.line.numbers["J&F"].sd
        return sd if math.isfinite(sd) else 0.0


@dataclass(frozen=True)
class Plane:
    """What makes one figure.

    Attributes:
        points: measured methods.
        axis: draws the horizontal axis.
        others: published systems, with their places.
        front: places and scores of the line of highest scores, ending at the right border.
    """

    points: Sequence[Point]
    axis: Callable[[Axes], None]
    others: Sequence[tuple[float, PublishedPoint]] = ()
    front: Sequence[tuple[float, float]] = ()


def against_hours(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """J&F against the estimated hours of annotation, with the highest score for so many hours."""
    costs = {line.info.label: line.info.annotation_hours for line in lines}
    shown = [line for line in lines if math.isfinite(costs[line.info.label])]
    axis = _cost_axis(shown, costs, first=0)
    points = _points(shown, costs, axis, arrows=True)
    front = _front(points, costs, axis)
    plane = Plane(points, lambda axes: axis.draw(axes, "hours of annotation (estimate)"), (), front)
    text = (
        f"J&F on {dataset.label} against the estimated hours of human annotation behind each "
        "method's weights; up and left is better. In the grey band are methods without any, side "
        "by side by kind. Right of it the axis is logarithmic. "
        f"{_aside()} The line is the highest score reached with so many hours or fewer (Pareto "
        f"front of complete methods{_compared(shown)})."
    )
    if any(point.arrow for point in points):
        text += (
            " Arrow: training started from weights that others had trained; labels of that "
            "pretraining are not in the hours, so such a point belongs further to the right."
        )
    text += "".join(f" {sentence}" for sentence in changed_costs(results.label_seconds))
    title = f"What labels bought, {dataset.label}"
    return _scatter("against-hours", dataset, title, text, plane, styles(results))


def against_images(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """J&F against training images; published systems are shown with other markers."""
    costs = {line.info.label: training_images(line.info.regime) for line in lines}
    shown = [line for line in lines if math.isfinite(costs[line.info.label])]
    others = published_points(dataset)
    axis = _cost_axis(shown, costs, first=2, others=[point.images for point in others])
    places = [(axis.place(point.images), point) for point in others]
    name = "training images, frames of video included"
    points = _points(shown, costs, axis)
    plane = Plane(points, lambda axes: axis.draw(axes, name), places)
    text = (
        f"J&F on {dataset.label} against the images that training saw, an hour of video counting "
        "as 24 frames a second and pretraining not at all; up and left is better. In the grey band "
        f"are methods without any; right of it the axis is logarithmic. {_aside()}"
    )
    if others:
        sources = "; ".join(sorted({point.source for point in others}))
        text += f" Crosses: published, as printed in {sources}; not measured here."
    title = f"Score against training images, {dataset.label}"
    return _scatter("against-images", dataset, title, text, plane, styles(results))


def against_fps(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing | None:
    """J&F against frames per second; None where no network was timed."""
    timed = [line for line in lines if math.isfinite(line.numbers["fps"].mean)]
    # What computes nothing is faster by powers of ten and would leave the rest no room.
    shown = [line for line in timed if line.numbers["parameters"].mean != 0]
    if not shown:
        return None
    points = [Point(line, line.numbers["fps"].mean) for line in shown]

    def axis(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_xscale("log")
        low, high = min(point.x for point in points), max(point.x for point in points)
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
    if len(shown) < len(timed):
        names = ", ".join(line.info.label for line in timed if line not in shown)
        text += f" Left out, having no parameters: {names}."
    title = f"Score against speed, {dataset.label}"
    return _scatter("against-fps", dataset, title, text, Plane(points, axis), styles(results))


def _aside() -> str:
    return "Points that would hide each other stand a little aside."


def _compared(lines: Sequence[Line]) -> str:
    grouped = any(line.info.group for line in lines)
    return ", of the controlled comparison alone" if grouped else ""


def _cost_axis(
    lines: Sequence[Line],
    costs: Mapping[str, float],
    first: int,
    others: Sequence[float] = (),
) -> CostAxis:
    values = [costs[line.info.label] for line in lines]
    at_zero = [line.info.regime_kind for line in lines if costs[line.info.label] == 0]
    return CostAxis.of([*values, *others], at_zero, first)


def _points(
    lines: Sequence[Line], costs: Mapping[str, float], axis: CostAxis, arrows: bool = False
) -> list[Point]:
    """The methods at their places, those that would hide each other moved apart."""
    places = [axis.place(costs[line.info.label], line.info.regime_kind) for line in lines]
    scores = [line.numbers["J&F"].mean for line in lines]
    rooms = [axis.room(costs[line.info.label]) for line in lines]
    span = max(max(scores, default=0) - min(scores, default=0), 10) * 1.2
    # About what the axes measure in points, so that shifts are as wide as markers.
    marker = (MARKER * axis.width / (62 * WIDTH), MARKER * span / (50 * HEIGHT))
    shifts = apart(list(zip(places, scores, strict=True)), rooms, marker)
    return [
        Point(line, place + shift, arrows and _pretrained(line))
        for line, place, shift in zip(lines, places, shifts, strict=True)
    ]


def _pretrained(line: Line) -> bool:
    """Whether training started from weights whose own labels are not counted."""
    return line.info.regime is not None and bool(line.info.regime.pretraining)


def _front(
    points: Sequence[Point], costs: Mapping[str, float], axis: CostAxis
) -> list[tuple[float, float]]:
    """The highest score by cost; only rows of the controlled comparison where there are others."""
    grouped = any(point.line.info.group for point in points)
    complete = {
        point.line.info.label: (costs[point.line.info.label], point.y)
        for point in points
        if not point.line.partial and not (grouped and point.line.info.group)
    }
    places = {point.line.info.label: point.x for point in points}
    found = [(places[name], complete[name][1]) for name in pareto_front(complete)]
    return [*found, (axis.highest, found[-1][1])] if found else []


def _scatter(
    kind: str,
    dataset: DatasetInfo,
    title: str,
    text: str,
    plane: Plane,
    looks: Mapping[str, Style],
) -> Drawing:
    """A point per method in the hue of its kind, the extremes of each kind named."""
    lines = [point.line for point in plane.points]
    grouped = any(line.info.group for line in lines)
    named = names_of(lines)

    def draw(axes: Axes) -> None:
        # What has a name lies on top.
        for point in sorted(plane.points, key=lambda each: each.line.info.label in named):
            _measured(axes, point, looks[point.line.info.label])
        others = [point.score for _, point in plane.others]
        score_limits(
            axes,
            [*(point.y - point.reach for point in plane.points), *others],
            [*(point.y + point.reach for point in plane.points), *others],
        )
        axes.set_ylabel("J&F (%)")
        plane.axis(axes)
        _keys(axes, lines)
        if grouped:
            options: dict[str, Any] = {"marker": "o", "facecolor": "none", "edgecolor": SOFT}
            axes.scatter([], [], s=48, linewidth=1.5, label=OTHERS, **options)
        if plane.front:
            xs, ys = zip(*plane.front, strict=True)
            style: dict[str, Any] = {"color": INK, "linewidth": 1.2, "alpha": 0.6, "zorder": 1}
            axes.step(xs, ys, where="post", label=HIGHEST, **style)
        if others:
            crosses = [x for x, _ in plane.others]
            axes.scatter(
                crosses, others, marker="x", s=26, color=SOFT, linewidth=1.2, label=PUBLISHED
            )

    if any(line.partial for line in lines):
        text += f" Pale: partial. {remarks(lines)[0]}"
    if grouped:
        text += " Hollow: not of the controlled comparison."
    labels = [*_kinds(lines), *([OTHERS] if grouped else [])]
    labels += [HIGHEST] if plane.front else []
    labels += [PUBLISHED] if plane.others else []
    height = HEIGHT + (0.8 if plane.others else 0) + 0.2 * legend_rows(labels)
    return draw_figure(
        kind, dataset, title, text, draw, height, labels, lambda axes: _names(axes, plane, named)
    )


def _kinds(lines: Sequence[Line]) -> list[str]:
    present = {line.info.regime_kind for line in lines}
    return [kind for kind in KINDS if kind in present]


def _keys(axes: Axes, lines: Sequence[Line]) -> None:
    """An entry of the legend per kind of label regime."""
    for kind in _kinds(lines):
        axes.scatter([], [], marker="o", s=48, color=hue(kind), linewidth=0, label=kind)


def _measured(axes: Axes, point: Point, look: Style) -> None:
    # A pale marker says that sequences are missing, a hollow one that it is not comparable.
    hollow = bool(point.line.info.group)
    face = "none" if hollow else (look.colour, PALE if point.line.partial else 1.0)
    options: dict[str, Any] = {
        "marker": look.marker,
        "s": 52,
        "zorder": 3,
        "facecolor": face,
        "edgecolor": look.colour,
        "linewidth": 1.5 if hollow or point.line.partial else 0.5,
        "clip_on": False,
    }
    axes.scatter([point.x], [point.y], **options)
    if point.reach:
        axes.errorbar(point.x, point.y, yerr=point.reach, color=look.colour, capsize=3)
    if point.arrow:
        style = {"arrowstyle": "<-", "color": look.colour, "shrinkA": 0, "shrinkB": 4}
        place = (point.x, point.y)
        axes.annotate("", place, (18, 0), textcoords="offset points", arrowprops=style)


def _names(axes: Axes, plane: Plane, named: Mapping[str, str]) -> None:
    """Names beside the extremes of each kind and beside all published systems."""
    shown = [point for point in plane.points if point.line.info.label in named]
    points = [(point.x, point.y) for point in shown]
    points += [(x, point.score) for x, point in plane.others]
    names = [named[point.line.info.label] for point in shown]
    names += [point.method for _, point in plane.others]
    rest = [(point.x, point.y) for point in plane.points if point not in shown]
    bars = [
        [(point.x, point.y - point.reach), (point.x, point.y + point.reach)]
        for point in plane.points
        if point.reach
    ]
    strokes = [*bars, _stairs(plane.front)] if plane.front else bars
    place_labels(axes, points, names, rest, strokes)


def _stairs(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the line of highest scores."""
    corners = list(front[:1])
    for (_, before), (x, y) in itertools.pairwise(front):
        corners += [(x, before), (x, y)]
    return corners
