"""Horizontal axes of costs: a band for zero, then powers of ten; and points that hide no other."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.drawing import RULE
from reports.regimes import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN = 1.3
"""Width of a kind's column in the band for zero, in powers of ten."""

ASIDE = 0.25
"""How far a point may stand beside its place to hide no other one, in powers of ten."""

MARKER = 8.5
"""Side of a marker with the space around it, in points."""


@dataclass(frozen=True)
class CostAxis:
    """Places on an axis that counts in powers of ten, with a band for zero on its left.

    Attributes:
        lowest: exponent at the left end of the powers of ten.
        highest: exponent at the right end.
        columns: kinds of label regime that have a column in the band, from left to right.
    """

    lowest: int
    highest: float
    columns: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[float], kinds_at_zero: Sequence[str], first: int) -> CostAxis:
        """An axis that holds some values.

        Args:
            values: costs; those above zero decide how far the axis goes.
            kinds_at_zero: kind of every point whose cost is zero.
            first: the least exponent of ten, unless a value is smaller.
        """
        exponents = [math.log10(value) for value in values if value > 0]
        lowest = math.floor(min([first, *exponents]))
        highest = max([lowest + 1.0, *exponents])
        columns = tuple(kind for kind in KINDS if kind in kinds_at_zero)
        return cls(lowest, highest + 0.4, columns)

    @property
    def band(self) -> tuple[float, float]:
        """Both ends of the band for zero; of no width without points at zero."""
        right = self.lowest - 0.15
        return right - COLUMN * len(self.columns), right

    @property
    def width(self) -> float:
        """Of the whole axis, in powers of ten."""
        return self.highest - self.band[0]

    def place(self, cost: float, kind: str = "") -> float:
        """Where a cost stands; at zero, where the kind's column stands."""
        if cost > 0:
            return math.log10(cost)
        number = self.columns.index(kind) if kind in self.columns else 0
        return self.band[0] + COLUMN * (number + 0.5)

    def room(self, cost: float) -> float:
        """How far a point may stand aside."""
        return ASIDE if cost > 0 else 0.38 * COLUMN

    def draw(self, axes: Axes, name: str) -> None:
        """Limits, ticks, the band and the axis's name."""
        from matplotlib.ticker import FixedLocator, NullLocator

        left, right = self.band
        axes.set_xlim(left, self.highest)
        if self.columns:
            axes.axvspan(left, right, color=RULE, alpha=0.35, linewidth=0, zorder=0)
        exponents = range(self.lowest, math.floor(self.highest) + 1)
        step = 1 if len(exponents) <= 6 else 2
        zeros = [self.place(0, kind) for kind in self.columns]
        names = [textwrap.fill(kind, 13) for kind in self.columns]
        # One column needs no name: the legend has it.
        words = [f"0\n{name}" for name in names] if len(names) > 1 else ["0"] * len(names)
        axes.xaxis.set_major_locator(FixedLocator([*zeros, *exponents[::step]]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([*words, *(short_count(10.0**each) for each in exponents[::step])])
        for tick in axes.xaxis.get_major_ticks()[: len(zeros)]:
            tick.gridline.set_visible(False)
            tick.label1.set_fontsize(7.5)
        axes.set_xlabel(name)


def short_count(value: float) -> str:
    """``"0"``, ``"100"``, ``"10 k"``, ``"1 M"``."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:,.0f}{name}"
    return f"{value:g}"


def apart(
    points: Sequence[tuple[float, float]],
    rooms: Sequence[float],
    marker: tuple[float, float],
) -> list[float]:
    """Sideways shifts with which markers cover each other as little as the room allows.

    The highest points are placed first, each as near to its own place as it can be.

    Args:
        points: places, horizontal and vertical.
        rooms: by point, the longest shift.
        marker: width and height that a marker takes.

    Returns:
        By point, its shift to the right.
    """
    width, height = marker
    shifts = [0.0] * len(points)
    placed: list[tuple[float, float]] = []
    for index in sorted(range(len(points)), key=lambda each: (-points[each][1], points[each][0])):
        x, y = points[index]
        steps = int(rooms[index] / width + 1e-9)
        tried = [sign * step * width for step in range(steps + 1) for sign in (1, -1)]

        def covered(shift: float, x: float = x, y: float = y) -> float:
            return sum(
                max(0.0, 1 - abs(x + shift - other) / width) * max(0.0, 1 - abs(y - high) / height)
                for other, high in placed
            )

        shifts[index] = min(tried, key=lambda shift: (round(covered(shift), 9), abs(shift)))
        placed.append((x + shifts[index], y))
    return shifts
