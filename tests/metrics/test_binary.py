"""J and F of binary masks, bit for bit against their definitions written down plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.metrics import boundary_f, boundary_map, boundary_radius, j_and_f, region_j
from bench.metrics.binary import count_matched
from tests.naive_metrics import frame_f, naive_boundary, naive_f, naive_j, shifted_boundary


@st.composite
def masks(draw, count=2):
    """``count`` bool masks of one shape: noise, boxes anywhere, empty, full."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    out = []
    for _ in range(count):
        kind = draw(st.sampled_from(["noise", "box", "box", "empty", "full"]))
        mask = np.zeros((height, width), bool)
        if kind == "noise":
            rng = np.random.default_rng(draw(st.integers(0, 2**32)))
            mask = rng.random((height, width)) < draw(st.floats(0, 1))
        elif kind == "box":
            y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            mask[y0 : y0 + draw(st.integers(1, 24)), x0 : x0 + draw(st.integers(1, 24))] = True
        elif kind == "full":
            mask[:] = True
        out.append(mask)
    return out


@settings(max_examples=250, deadline=None)
@given(masks())
@example([np.ones((1, 1), bool), np.zeros((1, 1), bool)])
@example([np.ones((4, 1), bool), np.ones((4, 1), bool)])
def test_equal_to_the_definition(pair):
    predicted, true = pair
    expected = naive_j(predicted, true), naive_f(predicted, true)
    assert j_and_f(predicted, true) == expected
    assert (region_j(predicted, true), boundary_f(predicted, true)) == expected
    assert j_and_f(predicted.astype(np.uint8) * 255, true.astype(np.uint8)) == expected


@settings(max_examples=100, deadline=None)
@given(masks(3))
def test_void_is_removed_from_both(three):
    predicted, true, void = three
    expected = naive_j(predicted, true, void), naive_f(predicted, true, void)
    assert j_and_f(predicted, true, void) == expected
    assert (region_j(predicted, true, void), boundary_f(predicted, true, void)) == expected


@settings(max_examples=100, deadline=None)
@given(masks(1))
def test_boundary_map(one):
    assert np.array_equal(boundary_map(one[0]), naive_boundary(one[0]))
    assert np.array_equal(shifted_boundary(one[0]), naive_boundary(one[0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(480, 854), (300, 127), (200, 700)]))
def test_equal_to_full_frames_where_the_radius_is_large(seed, shape):
    """Blobs anywhere, also across the borders, at sizes with radii of 3 to 8 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: shape[0], : shape[1]]
    pair = []
    for _ in range(2):
        cy, cx = rng.uniform(-20, shape[0] + 20), rng.uniform(-20, shape[1] + 20)
        blob = (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(1, 120) ** 2
        pair.append(blob & (rng.random(shape) < 0.98))
    predicted, true = pair
    assert j_and_f(predicted, true) == (naive_j(predicted, true), frame_f(predicted, true))
    shifted = np.roll(true, 5, 1)
    assert j_and_f(shifted, true) == (naive_j(shifted, true), frame_f(shifted, true))


def test_empty_and_full():
    empty, full = np.zeros((9, 7), bool), np.ones((9, 7), bool)
    assert j_and_f(empty, empty) == (1.0, 1.0)
    assert j_and_f(full, full) == (1.0, 1.0)
    assert j_and_f(full, empty) == (0.0, 1.0)  # a full frame has no boundary
    dot = empty.copy()
    dot[4, 4] = True
    assert j_and_f(dot, empty) == (0.0, 0.0)
    assert j_and_f(empty, dot) == (0.0, 0.0)


def test_radius():
    assert boundary_radius(480, 854) == 8
    assert boundary_radius(300, 400) == 4  # exactly 0.008 x 500
    assert boundary_radius(1, 1) == 1


def test_the_radius_is_that_of_the_whole_frame():
    """A disk of radius 8 counts: offset (5, 6) is inside of it, (6, 6) is not."""
    true = np.zeros((480, 854), bool)
    true[200, 300] = True
    assert j_and_f(np.roll(true, (5, 6), (0, 1)), true) == (
        0.0,
        frame_f(np.roll(true, (5, 6), (0, 1)), true),
    )
    assert boundary_f(np.roll(true, 8, 1), true) == 1.0
    assert boundary_f(np.roll(true, 11, 1), true) == 0.0


def test_views_and_read_only_arrays_are_fine():
    rng = np.random.default_rng(0)
    big = (rng.random((60, 80)) < 0.3).astype(np.uint8)
    view, true = big[::2, ::2], np.ascontiguousarray(big[1::2, ::2])
    true.setflags(write=False)
    assert j_and_f(view, true) == j_and_f(view.copy(), true.copy())


@pytest.mark.parametrize(
    ("predicted", "true", "void"),
    [
        (np.zeros((3, 4), bool), np.zeros((4, 3), bool), None),
        (np.zeros((3, 4), bool), np.zeros((3, 4), bool), np.zeros((3, 5), bool)),
        (np.zeros((3, 4), np.int64), np.zeros((3, 4), bool), None),
        (np.zeros((3, 4, 1), bool), np.zeros((3, 4, 1), bool), None),
    ],
)
@pytest.mark.parametrize("metric", [j_and_f, region_j, boundary_f])
def test_wrong_arrays_are_refused(metric, predicted, true, void):
    with pytest.raises(ValueError, match="expected"):
        metric(predicted, true, void)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.floats(0.001, 0.2))
def test_matches_within_the_radius_are_all_found(seed, radius, density):
    rng = np.random.default_rng(seed)
    edge, other = ((rng.random((40, 50)) < density).view(np.uint8) for _ in range(2))
    distances = ((np.argwhere(edge)[:, None] - np.argwhere(other)[None]) ** 2).sum(2)
    expected = int((distances <= radius**2).any(1).sum())
    assert count_matched(edge, other, radius) == expected
