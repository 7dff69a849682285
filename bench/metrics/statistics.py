"""Mean, recall and decay of an object's frame-wise values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RECALL_THRESHOLD = 0.5

BINS = 4
"""Number of consecutive parts of a sequence that decay looks at."""


class Statistics(NamedTuple):
    """The three statistics that DAVIS reports; all NaN where there is no value.

    Attributes:
        mean: mean over frames.
        recall: share of frames above 0.5.
        decay: mean of the first quarter minus mean of the last; positive = performance is lost.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: NDArray[np.float64] | Sequence[float]) -> Statistics:
    """Statistics of frame-wise J or F.

    Args:
        values: float ``(frames,)`` in [0, 1], in order. NaN frames are ignored; they keep their
            place when frames are divided into bins for the decay.
    """
    array = np.asarray(values, dtype=np.float64)
    valid = array[~np.isnan(array)]
    if not valid.size:
        return Statistics(float("nan"), float("nan"), float("nan"))
    # Edges are shared by neighbouring bins, as in the DAVIS toolkits; those keep them in 8 bits,
    # which overflow beyond 256 frames.
    edges = np.round(np.linspace(1, len(array), BINS + 1) + 1e-10).astype(np.int64) - 1
    first, last = array[edges[0] : edges[1] + 1], array[edges[-2] : edges[-1] + 1]
    return Statistics(
        mean=float(valid.mean()),
        recall=float((valid > RECALL_THRESHOLD).mean()),
        decay=_mean(first) - _mean(last),
    )


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
