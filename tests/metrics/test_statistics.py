"""Mean, recall and decay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics import statistics
from tests.naive_metrics import naive_statistics


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=400), st.data())
def test_equal_to_the_definition(values, data):
    if len(values) > 1 and data.draw(st.booleans()):
        values[data.draw(st.integers(0, len(values) - 2))] = math.nan
        if math.isnan(values[-1]):
            values[-1] = 0.25
    found, expected = statistics(values), naive_statistics(values)
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_edges_are_shared_by_neighbouring_bins():
    assert statistics([1, 0.5, 0.5, 0]).decay == pytest.approx(0.75 - 0.25)
    assert statistics([0.4]) == (0.4, 0.0, 0.0)


def test_exactly_one_half_is_not_recalled():
    assert statistics([0.5, 0.5, 0.6, 0.7]).recall == 0.5


def test_more_than_256_frames():
    """Indices kept in 8 bits would wrap around and take the wrong frames."""
    values = np.linspace(1, 0, 1000)
    assert statistics(values).decay == pytest.approx(0.75, abs=2e-3)
    assert statistics(values) == pytest.approx(naive_statistics(values), abs=1e-12)


def test_nan_frames_are_ignored():
    found = statistics([math.nan, 1.0, 0.2, math.nan])
    assert found.mean == pytest.approx(0.6)
    assert found.recall == 0.5
    assert found.decay == pytest.approx(0.8)


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_to_take_statistics_of(values):
    assert all(map(math.isnan, statistics(values)))
