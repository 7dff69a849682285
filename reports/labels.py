"""Names beside points, where they cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from reports.drawing import SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

OFFSETS = (
    (5, 0, "left", "center"),
    (-5, 0, "right", "center"),
    (0, 5, "center", "bottom"),
    (0, -5, "center", "top"),
    (4, 5, "left", "bottom"),
    (4, -5, "left", "top"),
    (-4, 5, "right", "bottom"),
    (-4, -5, "right", "top"),
    (0, 14, "center", "bottom"),
    (0, -14, "center", "top"),
)
"""Places of a name around its point, in points, the preferred ones first."""

SIZE = 7.5
"""Of the names, in points."""


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
    for x, y, name in zip(xs, ys, names, strict=True):
        candidates: list[tuple[float, int, Annotation, Bbox]] = []
        for dx, dy, horizontal, vertical in OFFSETS:
            text = axes.annotate(
                name,
                (x, y),
                (dx, dy),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=SIZE,
                color=SOFT,
            )
            # Layout would otherwise make room for every attempt.
            text.set_in_layout(False)
            box = text.get_window_extent()
            cost = sum(_shared(box, other) for other in taken)
            cost += box.width * box.height - _shared(box, inside)
            candidates.append((cost, len(candidates), text, box))
        *worse, kept = sorted(candidates, key=lambda each: each[:2], reverse=True)
        for _, _, text, _ in worse:
            text.remove()
        taken.append(kept[3])


def _around(x: float, y: float, radius: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _shared(first: Bbox, second: Bbox) -> float:
    """Area that two boxes have in common, in square pixels."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return float(np.clip(width, 0, None) * np.clip(height, 0, None))
