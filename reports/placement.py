"""Where names stand beside the points of a figure: near, or at the end of a line to the point.

Every name has the same candidates around its point. What a candidate covers is counted, and the
cheapest one is taken: first by one name after the other, then again with all others in place. Who
comes first matters, so several orders are tried. All lengths are in points (1/72 inch).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""``(N, 4)``: left, bottom, right, top."""

Points = NDArray[np.float64]
"""``(N, 2)``: right, up."""

SHARES = {"left": 0.0, "center": 0.5, "right": 1.0, "bottom": 0.0, "top": 1.0}
"""Which share of a text lies left of, or below, the place that it is aligned to."""

ROUNDS = 3
"""How often each name takes the best place that is left."""

ORDERS = 12
"""In how many orders names choose."""

MARKER = 4.0
"""Half the side of a marker."""


@dataclass(frozen=True)
class Place:
    """Where a name stands.

    Attributes:
        right: of its point.
        up: from its point.
        horizontal: how the text is aligned there.
        vertical: likewise.
        near: whether it needs no line to its point.
    """

    right: float
    up: float
    horizontal: str
    vertical: str
    near: bool = False

    @classmethod
    def at(cls, distance: float, turn: float) -> Place:
        """A place with a line, in a direction given in turns from the right, counterclockwise."""
        right, up = math.cos(math.tau * turn), math.sin(math.tau * turn)
        horizontal = "center" if abs(right) < 0.5 else "left" if right > 0 else "right"
        vertical = "center" if abs(up) < 0.5 else "bottom" if up > 0 else "top"
        return cls(distance * right, distance * up, horizontal, vertical)


PLACES = (
    Place(7, 0, "left", "center", near=True),
    Place(-7, 0, "right", "center", near=True),
    Place(0, 6, "center", "bottom", near=True),
    Place(0, -6, "center", "top", near=True),
    Place(5, 5, "left", "bottom", near=True),
    Place(5, -5, "left", "top", near=True),
    Place(-5, 5, "right", "bottom", near=True),
    Place(-5, -5, "right", "top", near=True),
    *(Place.at(distance, turn / 16) for distance in (18, 30, 44, 60, 80) for turn in range(16)),
)
"""Places of a name around its point, the preferred ones first."""


@dataclass(frozen=True)
class Obstacles:
    """What names should not cover.

    Attributes:
        markers: boxes of all points, those of the names first.
        strokes: boxes of pieces of drawn lines.
        inside: the one box that names should stay in.
    """

    markers: Boxes
    strokes: Boxes
    inside: Boxes

    @classmethod
    def of(cls, markers: Points, strokes: Sequence[Points], inside: Boxes) -> Obstacles:
        """From the centres of markers, the corners of lines and the box of the axes."""
        pieces = np.concatenate([np.empty((0, 2)), *map(_along, strokes)])
        return cls(_around(markers, MARKER), _around(pieces, 0.5), inside.reshape(1, 4))


@dataclass(frozen=True)
class _Candidates:
    """One name at all places: its boxes ``(C, 4)``, and points ``(C, L, 2)`` of its lines.

    Lines that are not drawn have no points but NaN.
    """

    boxes: Boxes
    lines: NDArray[np.float64]

    @classmethod
    def of(cls, point: Points, size: Points) -> _Candidates:
        offsets = np.array([(place.right, place.up) for place in PLACES])
        shares = np.array([(SHARES[place.horizontal], SHARES[place.vertical]) for place in PLACES])
        corners = point + offsets - shares * size
        # From the name to the border of the marker; the shortest line is 18 long.
        lines = point + offsets[:, None] * np.linspace(1, 0.25, 12)[:, None]
        lines[[place.near for place in PLACES]] = np.nan
        return cls(np.hstack([corners, corners + size]), lines)

    def costs(
        self, obstacles: Obstacles, own: int, others: Sequence[tuple[_Candidates, int]]
    ) -> NDArray[np.float64]:
        """What each place covers, about in square points.

        Two names upon each other are worst, then a name cut by a line; a name that touches another
        point may be taken for that one's; a line over a marker is what a crowd of points cannot do
        without. Of places that cover nothing the nearest is best.

        Args:
            obstacles: what is drawn.
            own: index of the name's marker.
            others: the other names, each with the index of its place.
        """
        names = np.array([each.boxes[place] for each, place in others]).reshape(-1, 4)
        drawn = np.array([each.lines[place] for each, place in others]).reshape(-1, 2)
        drawn = drawn[~np.isnan(drawn).any(axis=1)]
        strokes = np.concatenate([obstacles.strokes, _around(drawn, 0.5)])
        rest = np.delete(obstacles.markers, own, axis=0)
        area = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1)
        costs = 3 * _shared(_grown(self.boxes, 1), names).sum(axis=1)
        costs += 6 * (area - _shared(self.boxes, obstacles.inside)[:, 0])
        costs += 2 * _shared(self.boxes, obstacles.markers).sum(axis=1)
        costs += 8 * (_shared(_grown(self.boxes, 4), rest) > 0).sum(axis=1)
        costs += 8 * (_shared(self.boxes, strokes) > 0).sum(axis=1)
        costs += 40 * _held(self.lines, names)
        costs += 20 * _held(self.lines, _around(drawn, 1.5))
        costs += 8 * _held(self.lines, rest)
        distances = [0 if place.near else math.hypot(place.right, place.up) for place in PLACES]
        # Rounded, so that of equal places the preferred one is taken.
        return np.asarray(costs.round() + 0.75 * np.array(distances), dtype=np.float64)


def best_places(points: Points, sizes: Points, obstacles: Obstacles) -> list[Place]:
    """The place of each name.

    Args:
        points: of the names, ``(N, 2)``.
        sizes: widths and heights of the names, ``(N, 2)``.
        obstacles: what is drawn; its first N markers are the points'.
    """
    names = [_Candidates.of(point, size) for point, size in zip(points, sizes, strict=True)]
    random = np.random.default_rng(0)
    orders = [
        list(range(len(names))),
        *(random.permutation(len(names)).tolist() for _ in range(ORDERS - 1)),
    ]
    _, chosen = min((_search(names, obstacles, order) for order in orders), key=itemgetter(0))
    return [PLACES[chosen[index]] for index in range(len(names))]


def _search(
    names: Sequence[_Candidates], obstacles: Obstacles, order: Sequence[int]
) -> tuple[float, dict[int, int]]:
    """What all names cover, and the index of each one's place, if they choose in this order."""
    chosen: dict[int, int] = {}
    total = 0.0
    for _ in range(ROUNDS):
        total = 0.0
        for index in order:
            others = [(names[other], place) for other, place in chosen.items() if other != index]
            costs = names[index].costs(obstacles, index, others)
            chosen[index] = int(np.argmin(costs))
            total += float(costs[chosen[index]])
    return total, chosen


def _along(corners: Points) -> Points:
    """Points along a line, two apart at most."""
    pieces = [
        np.linspace(start, end, 2 + int(np.abs(end - start).max() / 2))
        for start, end in itertools.pairwise(corners)
    ]
    return np.concatenate([np.empty((0, 2)), *pieces])


def _around(points: Points, radius: float) -> Boxes:
    return np.hstack([points - radius, points + radius])


def _grown(boxes: Boxes, border: float) -> Boxes:
    return np.hstack([boxes[:, :2] - border, boxes[:, 2:] + border])


def _shared(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Areas ``(N, M)`` that boxes ``(N, 4)`` and ``(M, 4)`` have in common."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    area: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    return area


def _held(lines: NDArray[np.float64], boxes: Boxes) -> NDArray[np.float64]:
    """How many points of each line ``(C, L, 2)`` lie in boxes ``(M, 4)``; NaN lies in none."""
    points = lines[:, :, None]
    held = (points > boxes[:, :2]) & (points < boxes[:, 2:])
    return np.asarray(held.all(axis=3).sum(axis=(1, 2)), dtype=np.float64)
