"""Which values are in a label map."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.video import object_ids, present_values


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 70), st.integers(1, 70), st.integers(1, 256))
def test_every_value_is_found(seed, height, width, count):
    """Values common and rare: the rarest sit in one pixel that no sample need hit."""
    rng = np.random.default_rng(seed)
    mask = (rng.geometric(0.6, (height, width)).clip(1, count) - 1).astype(np.uint8)
    mask[rng.integers(height), rng.integers(width)] = 255
    expected = np.unique(mask).tolist()
    assert list(present_values(mask)) == expected
    assert present_values(mask[::-1, ::2]) == tuple(np.unique(mask[:, ::2]).tolist())
    assert list(object_ids(mask)) == [value for value in expected if value not in (0, 255)]
