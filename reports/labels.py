"""Names beside points: of which ones, and where they cover neither each other nor a point."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reports.drawing import SOFT
from reports.lines import Line
from reports.regimes import UNTRAINED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

OFFSETS = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (5, 5, "left", "bottom"),
    (5, -5, "left", "top"),
    (-5, 5, "right", "bottom"),
    (-5, -5, "right", "top"),
    (0, 18, "center", "bottom"),
    (0, -18, "center", "top"),
    (14, 12, "left", "bottom"),
    (14, -12, "left", "top"),
    (-14, 12, "right", "bottom"),
    (-14, -12, "right", "top"),
    (0, 32, "center", "bottom"),
    (0, -32, "center", "top"),
    (22, 24, "left", "bottom"),
    (22, -24, "left", "top"),
    (-22, 24, "right", "bottom"),
    (-22, -24, "right", "top"),
)
"""Places of a name around its point, in points, the preferred ones first."""

NEAR = 8
"""The first ones need no line from the name to its point."""

SIZE = 7.5
"""Of the names, in points."""

ALL_NAMED = 8
"""With more methods than this only the best and the worst of each kind are named."""

LINE = 18
"""Letters of a name on one line."""


def names_of(lines: Sequence[Line]) -> Mapping[str, str]:
    """What to write beside the points of methods, by label, the most telling ones first.

    The best and the worst of each kind of label regime have names, of what was not trained the best
    alone, those outside the controlled comparison by themselves; all have one where they are few.
    What all methods of a kind share at the beginning of their labels, up to a comma, is left out:
    the colour tells it.
    """
    kinds: dict[str, list[Line]] = {}
    alike: dict[tuple[str, str], list[Line]] = {}
    for line in sorted(lines, key=lambda each: -each.numbers["J&F"].mean):
        kinds.setdefault(line.info.regime_kind, []).append(line)
        alike.setdefault((line.info.regime_kind, line.info.group), []).append(line)
    best = [members[0] for members in alike.values()]
    worst = [
        members[-1]
        for (kind, _), members in alike.items()
        if len(members) > 1 and kind != UNTRAINED
    ]
    named = lines if len(lines) <= ALL_NAMED else [*best, *worst]
    shared = {kind: _shared_words(members) for kind, members in kinds.items()}
    return {
        line.info.label: textwrap.fill(
            line.info.label.removeprefix(shared[line.info.regime_kind]), LINE
        )
        for line in named
    }


def _shared_words(lines: Sequence[Line]) -> str:
    """The beginning, up to a comma, that all labels of several methods have; else nothing."""
    starts = {line.info.label.partition(", ")[0] + ", " for line in lines}
    start = min(starts)
    alike = len(lines) > 1 and all(line.info.label.startswith(start) for line in lines)
    return start if alike else ""


def place_labels(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float],
    names: Sequence[str],
    avoid: Sequence[tuple[float, float]] = (),
) -> None:
    """Write a name beside each point; where no place is free, the one that covers least.

    Call when the limits of the axes are final.

    Args:
        axes: where.
        xs: of the points.
        ys: of the points.
        names: of the points.
        avoid: other points that no name should cover.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("axes without a figure have no place for names")
    # Positions are final only after layout.
    figure.draw_without_rendering()
    pixels = axes.transData.transform([*zip(xs, ys, strict=True), *avoid])
    taken = [_around(x, y, 4.0 * figure.dpi / 72) for x, y in pixels]
    inside = axes.get_window_extent()
    point = figure.dpi / 72
    for x, y, (right, up), name in zip(xs, ys, pixels, names, strict=False):
        width, height = _size(axes, name, (x, y))
        boxes = [
            _box(right + point * dx, up + point * dy, width, height, horizontal, vertical)
            for dx, dy, horizontal, vertical in OFFSETS
        ]
        # Rounded, so that of places that cover nothing the preferred one is taken.
        costs = [
            round(sum(_shared(box, other) for other in taken) + _outside(box, inside))
            for box in boxes
        ]
        place = costs.index(min(costs))
        _write(axes, name, (x, y), place)
        taken.append(boxes[place])


def _write(axes: Axes, name: str, point: tuple[float, float], place: int = 0) -> Annotation:
    """A name at one of the offsets from a point, with a line to it unless it is near."""
    right, up, horizontal, vertical = OFFSETS[place]
    leader = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
    text = axes.annotate(
        name,
        point,
        (right, up),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=SIZE,
        linespacing=0.95,
        color=SOFT,
        arrowprops=None if place < NEAR else leader,
    )
    # The layout would otherwise make room for it.
    text.set_in_layout(False)
    return text


def _size(axes: Axes, name: str, point: tuple[float, float]) -> tuple[float, float]:
    """Width and height of a name in pixels; it has none beside a point outside the axes."""
    text = _write(axes, name, point)
    box = text.get_window_extent()
    text.remove()
    return float(box.width), float(box.height)


def _box(x: float, y: float, width: float, height: float, horizontal: str, vertical: str) -> Bbox:
    """The area of a text that is aligned to a place."""
    from matplotlib.transforms import Bbox

    left = x - width * {"left": 0, "center": 0.5, "right": 1}[horizontal]
    bottom = y - height * {"bottom": 0, "center": 0.5, "top": 1}[vertical]
    return Bbox.from_bounds(left, bottom, width, height)


def _around(x: float, y: float, radius: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _outside(box: Bbox, inside: Bbox) -> float:
    """Area of a box that lies outside another one, in square pixels."""
    return float(box.width * box.height) - _shared(box, inside)


def _shared(first: Bbox, second: Bbox) -> float:
    """Area that two boxes have in common, in square pixels."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return float(np.clip(width, 0, None) * np.clip(height, 0, None))
