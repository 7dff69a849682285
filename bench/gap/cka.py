"""Linear centred kernel alignment of two representations of the same inputs.

Source: Kornblith et al., Similarity of neural network representations revisited, ICML 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.errors import DataError
from bench.gap.statistics import (
    Array,
    Estimate,
    FloatArray,
    Groups,
    IntArray,
    as_features,
    group_jackknife,
)

NOTEWORTHY_CHANCE = 0.1


@dataclass(frozen=True)
class CkaEstimate(Estimate):
    """Similarity of two representations.

    Attributes:
        chance: mean value when the pairs are shuffled; above 0 because rows are finitely many.
    """

    chance: float = math.nan


def linear_cka(
    first: Array,
    second: Array,
    groups: Array | None = None,
    *,
    names: tuple[Array, Array] | None = None,
    blocks: int = 40,
    seed: int = 0,
) -> CkaEstimate:
    """``|Y'X|_F^2 / (|X'X|_F |Y'Y|_F)`` of column-centred X and Y, in [0, 1].

    Row i of both must describe the same input, e.g. a frame and its blurred copy, or one frame in
    two networks. It cannot compare images with videos: those have no pairs. Rotations and a common
    factor of either representation do not change it.

    Args:
        first: X, float ``(N, C)``.
        second: Y, float ``(N, D)``.
        groups: ``(N,)`` labels of independent units (videos, images); None: every row is one.
        names: what the rows of X and those of Y describe, ``(N,)`` each; where given they must
            be equal, row by row.
        blocks: blocks of groups for the jackknife that gives the interval.
        seed: of the jackknife.

    Returns:
        The estimate. NaN where the rows of one representation are all equal. With few rows per
        channel even unrelated representations look similar: ``chance`` is what they would get,
        and the note tells where that matters. The interval does not include this bias.

    Raises:
        DataError: rows that are not paired, or values that are not finite.

    Source: Kornblith et al. 2019, section 3.
    """
    x, y = as_features(first, "first"), as_features(second, "second")
    _check_pairs(x, y, names)
    gathered = Groups.of_sample(len(x), groups)
    rows, counts = (len(x),), gathered.per_domain

    def of_rows(chosen: IntArray) -> float:
        return _linear_cka(x[chosen], y[chosen])[0]

    value, chance = _linear_cka(x, y)
    if math.isnan(value):
        reason = "Undefined: all rows of one representation are equal."
        return CkaEstimate(value, None, rows, counts, reason)
    note = ""
    if chance > NOTEWORTHY_CHANCE:
        note = f"{len(x)} rows are few for so many channels: shuffled pairs get {chance:.2f}."
    interval = group_jackknife(of_rows, gathered, blocks, seed)
    return CkaEstimate(value, interval, rows, counts, note, chance)


def _check_pairs(x: FloatArray, y: FloatArray, names: tuple[Array, Array] | None) -> None:
    remedy = "Compute both representations from the same inputs in the same order."
    if len(x) != len(y):
        found = f"{len(x)} and {len(y)} rows"
        raise DataError("linear CKA", found, "paired rows", remedy)
    if names is None:
        return
    a, b = np.asarray(names[0]), np.asarray(names[1])
    if a.shape != (len(x),) or b.shape != (len(x),):
        found = f"names of shape {a.shape} and {b.shape}"
        raise DataError("linear CKA", found, f"one per row, ({len(x)},)", remedy)
    different = np.flatnonzero(a != b)
    if different.size:
        row = int(different[0])
        found = f"row {row} describes {a[row]!s} in one and {b[row]!s} in the other"
        raise DataError("linear CKA", found, "paired rows", remedy)


def _linear_cka(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """The value, and its mean over all pairings of the rows."""
    x, y = x - x.mean(0), y - y.mean(0)
    if _is_constant(x) or _is_constant(y):
        return math.nan, math.nan
    if len(x) < max(x.shape[1], y.shape[1]):  # the same from rows' products, which are fewer
        a, b = x @ x.T, y @ y.T
        shared, norms = (a * b).sum(), np.linalg.norm(a) * np.linalg.norm(b)
    else:
        shared = (y.T @ x).ravel() @ (y.T @ x).ravel()
        norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    shuffled = (x**2).sum() * (y**2).sum() / (len(x) - 1)
    return float(shared / norms), float(shuffled / norms)


def _is_constant(centred: FloatArray) -> bool:
    return not bool((np.abs(centred) > 0).any())
