"""Morphological thinning that visits only pixels that can change.

The criteria are those of Guo and Hall, "Parallel thinning with two-subiteration algorithms",
Comm. ACM 32(3), 1989, in the variant of Lam, Lee and Suen, PAMI 14(9), 1992: the results equal
:func:`skimage.morphology.thin`. Each pixel carries the state of its eight neighbours in one byte,
which is kept up to date when a neighbour goes. After the first two subiterations, which look at
every pixel, only the surroundings of pixels that went since can be decided otherwise than before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.shls.superpixels.compiled import compiled


def deletion_tables() -> NDArray[np.bool_]:
    """Whether a pixel goes, for the two subiterations and the 256 states of its neighbours.

    Bit ``i`` of a state stands for neighbour ``x(i+1)``; x1 is the one to the east, the others
    follow counter-clockwise. A pixel goes if

    * exactly one run of neighbours begins at or beside the sides (crossing number 1);
    * two or three of the four pairs of adjacent neighbours have a set pixel, in the smaller of
      the two ways to form pairs;
    * its east side is free, in a way that keeps lines connected; west in the second subiteration.

    Returns:
        bool ``(2, 256)``.
    """
    states = np.arange(256)
    # x[1] .. x[8], and x[9] = x[1] to close the circle; x[0] is not used.
    x = [(states >> ((i - 1) % 8) & 1).astype(bool) for i in range(10)]
    sides = (1, 3, 5, 7)
    crossings = sum((~x[i] & (x[i + 1] | x[i + 2])).astype(int) for i in sides)
    pairs = sum((x[i] | x[i + 1]).astype(int) for i in sides)
    other_pairs = sum((x[i + 1] | x[i + 2]).astype(int) for i in sides)
    fewest = np.minimum(pairs, other_pairs)
    common = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    east = (x[2] | x[3] | ~x[8]) & x[1]
    west = (x[6] | x[7] | ~x[4]) & x[5]
    return np.stack([common & ~east, common & ~west])


DELETION_TABLES = deletion_tables()


@compiled
def _neighbour_states(mask: Any, states: Any) -> None:
    """The neighbours' byte of all pixels but the border's; both uint8 ``(H, W)``."""
    height, width = mask.shape
    for y in range(1, height - 1):
        # Whole slices, which the compiler turns into vector instructions.
        east, west = mask[y, 2:], mask[y, : width - 2]
        north, south = mask[y - 1, 1 : width - 1], mask[y + 1, 1 : width - 1]
        north_east, north_west = mask[y - 1, 2:], mask[y - 1, : width - 2]
        south_east, south_west = mask[y + 1, 2:], mask[y + 1, : width - 2]
        row = states[y, 1 : width - 1]
        for x in range(width - 2):
            row[x] = (
                east[x]
                | north_east[x] << 1
                | north[x] << 2
                | north_west[x] << 3
                | west[x] << 4
                | south_west[x] << 5
                | south[x] << 6
                | south_east[x] << 7
            )


@compiled
def _delete(mask: Any, states: Any, offsets: Any, gone: Any, count: Any) -> None:
    for i in range(count):
        pixel = gone[i]
        mask[pixel] = 0
        for direction in range(8):
            # To my neighbour in a direction, I am the neighbour in the opposite one.
            states[pixel + offsets[direction]] &= ~(1 << ((direction + 4) % 8))


@compiled
def _thin(padded: Any, subiterations: Any, tables: Any) -> None:
    height, width = padded.shape
    all_states = np.zeros((height, width), np.uint8)
    _neighbour_states(padded, all_states)
    mask, states = padded.ravel(), all_states.ravel()
    offsets = np.array(
        [1, 1 - width, -width, -width - 1, -1, width - 1, width, width + 1], np.int64
    )
    # Pixels that went in the last even and in the last odd subiteration.
    gone = np.empty((2, height * width), np.int32)
    counts = np.zeros(2, np.int64)
    subiteration = 0
    while subiteration < subiterations or subiterations < 0:
        turn = subiteration % 2
        table = tables[turn]
        found = 0
        if subiteration < 2:
            for pixel in range(width + 1, height * width - width - 1):
                if mask[pixel] != 0 and table[states[pixel]]:
                    gone[turn, found] = pixel
                    found += 1
        else:
            # This turn's earlier list is read, so the new one goes behind it; a pixel is marked
            # with 2 lest it be listed twice. Lists never overlap: pixels in them are all cleared.
            offset = counts[turn]
            for recent in range(2):
                for i in range(counts[recent]):
                    for direction in range(8):
                        pixel = gone[recent, i] + offsets[direction]
                        if mask[pixel] == 1 and table[states[pixel]]:
                            mask[pixel] = 2
                            gone[turn, offset + found] = pixel
                            found += 1
            for i in range(found):
                gone[turn, i] = gone[turn, offset + i]
        _delete(mask, states, offsets, gone[turn], found)
        counts[turn] = found
        subiteration += 1
        if subiteration >= 2 and counts[0] + counts[1] == 0:
            break


def thin(mask: NDArray[np.uint8], iterations: int | None = None) -> NDArray[np.uint8]:
    """Thin a binary image to lines, at most so many layers from each side.

    Args:
        mask: uint8 ``(H, W)`` of 0 and 1. Outside is background.
        iterations: each peels one layer in two subiterations; None goes on to the end.

    Returns:
        uint8 ``(H, W)``, a new array.
    """
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), np.uint8)
    padded[1:-1, 1:-1] = mask
    _thin(padded, -1 if iterations is None else 2 * iterations, DELETION_TABLES)
    return padded[1:-1, 1:-1]
