"""Gap closed: what adaptation recovers of the difference between source-only and oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from bench.errors import DataError
from bench.gap.statistics import CONFIDENCE, Estimate, FloatArray, Interval


def gap_closed(
    adapted: Mapping[Any, float],
    source: Mapping[Any, float],
    oracle: Mapping[Any, float],
    unit: str = "seed",
) -> Estimate:
    """Share of the gap between source-only training and an oracle that adaptation closes.

    ``(adapted - source) / (oracle - source)`` of the means over seeds, or over other units such as
    sequences. The scores of one unit belong together: whatever a seed does to all three, or how
    hard a sequence is, cancels. The interval is Fieller's, which holds for a ratio of normal means
    with few of them.

    Args:
        adapted: score of the adapted network by unit.
        source: score of the network trained on images only, by unit.
        oracle: score of the network trained with video labels, by unit.
        unit: what the scores are by, for notes.

    Returns:
        The estimate; ``rows`` and ``groups`` hold the number of units in all three. The value is
        NaN where the oracle is not above the source by more than the noise among units. One unit
        has no interval.

    Raises:
        DataError: no unit in all three, or scores that are not finite.

    Source: Fieller, Some problems in interval estimation, JRSS B 16, 1954.
    """
    units = [one for one in adapted if one in source and one in oracle]
    if not units:
        raise DataError(
            "gap closed", f"no {unit} in all three", "one at least", f"Run the same {unit}s."
        )
    base = np.array([source[one] for one in units])
    gain = np.array([adapted[one] for one in units]) - base
    gap = np.array([oracle[one] for one in units]) - base
    if not np.isfinite([gain, gap]).all():
        raise DataError("gap closed", "scores not finite", "numbers", f"Drop {unit}s that failed.")
    unpaired = len(set(adapted) | set(source) | set(oracle)) - len(units)
    verb = " is" if unpaired == 1 else "s are"
    notes = [f"{unpaired} {unit}{verb} not in all three and left out."] if unpaired else []
    if len(units) < 3:
        notes.append(f"{len(units)} {unit}{'s' if len(units) > 1 else ''}; 3 advised.")
    value, interval, reason = _paired_ratio(gain, gap)
    note = " ".join([reason, *notes] if reason else notes)
    return Estimate(value, interval, (len(units),), (len(units),), note)


def _paired_ratio(gain: FloatArray, gap: FloatArray) -> tuple[float, Interval | None, str]:
    """Ratio of means, Fieller's interval, and the reason where there is no ratio."""
    count = len(gain)
    a, b = float(gain.mean()), float(gap.mean())
    quantile, cov = 0.0, np.zeros((2, 2))
    if count > 1:
        quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, count - 1))
        cov = np.cov(gain, gap) / count
    # The interval is the set of ratios r at which a - r b does not differ from 0:
    # (a - r b)^2 <= q^2 var(a - r b), a quadratic in r; bounded if b itself differs from 0.
    noise = quantile * math.sqrt(cov[1, 1])
    if b <= noise:
        reason = f"Undefined: oracle - source = {b:.4g} is not above the noise, {noise:.4g}."
        return math.nan, None, reason
    if count == 1:
        return a / b, None, "The noise is unknown."
    leading = b * b - noise * noise
    middle = a * b - quantile**2 * cov[0, 1]
    last = a * a - quantile**2 * cov[0, 0]
    root = math.sqrt(max(middle * middle - leading * last, 0.0))
    return a / b, Interval((middle - root) / leading, (middle + root) / leading), ""
