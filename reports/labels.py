"""Names beside points: of which ones, and where they cover neither each other nor a point."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from reports.drawing import SOFT
from reports.lines import Line
from reports.placement import PLACES, SHARES, Obstacles, Place, best_places
from reports.regimes import UNTRAINED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

SIZE = 7.5
"""Of the names, in points."""

ALL_NAMED = 8
"""With more methods than this only the best and the worst of each kind are named."""

WIDER = 1.06
"""Times the width that is measured: text is drawn at a finer resolution, which makes it wider."""

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
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    avoid: Sequence[tuple[float, float]] = (),
    strokes: Sequence[Sequence[tuple[float, float]]] = (),
) -> None:
    """Write a name beside each point; where no place is free, the one that covers least.

    Call when the limits of the axes are final.

    Args:
        axes: where.
        points: that have names.
        names: of the points.
        avoid: other points that no name should cover.
        strokes: corners of lines that no name should cover.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("axes without a figure have no place for names")
    if not names:
        return
    # Positions are final only after layout.
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    placed = scale * axes.transData.transform([*points, *avoid])
    lines = [scale * axes.transData.transform(corners) for corners in strokes]
    obstacles = Obstacles.of(placed, lines, scale * np.array(axes.get_window_extent().extents))
    pairs = list(zip(points, names, strict=True))
    sizes = scale * np.array([_size(axes, name, point) for point, name in pairs])
    places = best_places(placed[: len(names)], sizes, obstacles)
    for (point, name), place in zip(pairs, places, strict=True):
        _write(axes, name, point, place)


def _write(axes: Axes, name: str, point: tuple[float, float], place: Place) -> Annotation:
    """A name at a place beside a point, with a line to it unless it is near."""
    leader = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
    # The line begins where the text is aligned to the place, not in its middle.
    leader["relpos"] = (SHARES[place.horizontal], SHARES[place.vertical])
    text = axes.annotate(
        name,
        point,
        (place.right, place.up),
        textcoords="offset points",
        ha=place.horizontal,
        va=place.vertical,
        fontsize=SIZE,
        linespacing=0.95,
        color=SOFT,
        arrowprops=None if place.near else leader,
    )
    # The layout would otherwise make room for it.
    text.set_in_layout(False)
    return text


def _size(axes: Axes, name: str, point: tuple[float, float]) -> tuple[float, float]:
    """Width and height of a name in pixels; it has none beside a point outside the axes."""
    text = _write(axes, name, point, PLACES[0])
    box = text.get_window_extent()
    text.remove()
    return WIDER * float(box.width), float(box.height)
