"""Connected components of label maps, by runs.

A row of pixels falls into a few runs of one value. Components are found by joining the runs of
neighbouring rows, so that beyond one look at every pixel the work grows with the number of runs,
far below the number of pixels in superpixel maps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.shls.superpixels.compiled import compiled


@compiled
def _root(parents: Any, run: Any) -> Any:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@compiled
def _joined_runs(values: Any, left_out: Any, reach: Any) -> Any:
    """Find the runs of equal values and the component of each.

    Args:
        values: integers ``(H, W)``.
        left_out: pixels of this value belong to no run.
        reach: 0 joins runs that share a side, 1 also runs that share a corner; the latter only
            for maps of two values, where a row's runs never touch each other.

    Returns:
        The number of each row's first run ``(H + 1,)``; each run's first column, the column
        after its last, and the first run in raster order of its component, ``(runs,)``; int32.
    """
    height, width = values.shape
    rows = np.empty(height + 1, np.int32)
    starts = np.empty(height * width, np.int32)
    stops = np.empty(height * width, np.int32)
    parents = np.empty(height * width, np.int32)
    count = 0
    for y in range(height):
        rows[y] = count
        row = values[y]
        x = 0
        while x < width:
            value = row[x]
            start = x
            x += 1
            while x < width and row[x] == value:
                x += 1
            if value != left_out:
                starts[count] = start
                stops[count] = x
                parents[count] = count
                count += 1
        if y == 0:
            continue
        above, here = rows[y - 1], rows[y]
        while above < rows[y] and here < count:
            overlap = starts[above] < stops[here] + reach and starts[here] < stops[above] + reach
            if overlap and values[y - 1, starts[above]] == row[starts[here]]:
                first, second = _root(parents, above), _root(parents, here)
                # The earlier run stays the root, hence a root is first in raster order.
                parents[max(first, second)] = min(first, second)
            if stops[above] < stops[here]:
                above += 1
            else:
                here += 1
    rows[height] = count
    for run in range(count):
        parents[run] = _root(parents, run)
    return rows, starts[:count], stops[:count], parents[:count]


@compiled
def _flip_small(mask: Any, value: Any, area: Any, reach: Any) -> None:
    rows, starts, stops, roots = _joined_runs(mask, 1 - value, reach)
    areas = np.zeros(len(roots), np.int32)
    for run in range(len(roots)):
        areas[roots[run]] += stops[run] - starts[run]
    for y in range(mask.shape[0]):
        for run in range(rows[y], rows[y + 1]):
            if areas[roots[run]] < area:
                mask[y, starts[run] : stops[run]] = 1 - value


@compiled
def _label(values: Any, left_out: Any) -> Any:
    rows, starts, stops, roots = _joined_runs(values, left_out, 0)
    labels = np.zeros(values.shape, np.int32)
    ids = np.empty(len(roots), np.int32)
    count = 0
    for y in range(values.shape[0]):
        for run in range(rows[y], rows[y + 1]):
            if roots[run] == run:
                count += 1
                ids[run] = count
            labels[y, starts[run] : stops[run]] = ids[roots[run]]
    return labels, count


def fill_small_holes(mask: NDArray[np.uint8], area: int) -> None:
    """Set, in place, the 4-connected components of zeros with fewer than ``area`` pixels.

    Args:
        mask: uint8 ``(H, W)`` of 0 and 1.
        area: in pixels; as large or larger holes stay.
    """
    _flip_small(mask, 0, area, 0)


def remove_small_parts(mask: NDArray[np.uint8], area: int) -> None:
    """Clear, in place, the 8-connected components of ones with fewer than ``area`` pixels.

    Args:
        mask: uint8 ``(H, W)`` of 0 and 1.
        area: in pixels; as large or larger parts stay.
    """
    _flip_small(mask, 1, area, 1)


def label_components(values: NDArray[Any], left_out: int) -> tuple[NDArray[np.int32], int]:
    """Number the 4-connected components of equal value in raster order of their first pixels.

    Args:
        values: integers ``(H, W)``.
        left_out: pixels of this value get label 0.

    Returns:
        int32 ``(H, W)`` labels 1 .. N, and N.
    """
    labels, count = _label(values, left_out)
    return labels, int(count)
