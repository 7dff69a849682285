from itertools import pairwise

import cv2
import numpy as np
import pytest

from bench.errors import DataError
from bench.gap.label_accuracy import (
    boundary_accuracy,
    degraded_to,
    equalise_label_accuracy,
    label_accuracy,
    partly_dilated,
    polygonised,
)
from bench.metrics.binary import boundary_radius
from bench.video import VOID, LabelledImage

SIZE = (120, 200)


def blob(seed=0) -> np.ndarray:
    """A smooth, irregular object that covers about a third of the frame."""
    field = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    field = cv2.GaussianBlur(field, (0, 0), 9)
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = 1 - np.hypot((ys - 60) / 45, (xs - 100) / 70)
    return ((field / field.std() * 0.25 + inside) > 0).astype(np.uint8)


def square(shift=0) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[30:90, 50 + shift : 110 + shift] = 1
    return mask


def sample(mask) -> LabelledImage:
    return LabelledImage("one", np.zeros((*SIZE, 3), np.uint8), mask)


def test_accuracy_is_the_boundary_f_of_joined_objects():
    two = square()
    two[:, 80:] *= 2  # the inner border between objects is no outline
    assert boundary_accuracy(two, square()) == 1.0
    # Two of four sides of a shifted square lie where they were, but for the corners.
    found = boundary_accuracy(square(12), square())
    assert found == pytest.approx(0.5 * (1 - 12 / 60 + 12 / 60), abs=0.1)
    unsure = square()
    unsure[:, :60] = VOID
    unsure[:, 100:] = VOID
    assert boundary_accuracy(square(12), unsure) > found
    assert label_accuracy([square(), square(12)], [square()] * 2) == pytest.approx((1 + found) / 2)
    with pytest.raises(DataError, match="1 automatic and 0 manual"):
        label_accuracy([square()], [])


def test_polygons_keep_what_they_may_not_leave():
    mask = blob() > 0
    mask[55:65, 90:120] = False  # a hole
    np.testing.assert_array_equal(polygonised(mask, 0), mask)
    # Beyond the frame there is no object.
    padded = np.pad(mask, 1).astype(np.uint8)
    inner, outer = (
        cv2.distanceTransform(m, cv2.DIST_L2, 5)[1:-1, 1:-1] for m in (padded, 1 - padded)
    )
    changed = []
    for tolerance in (2, 4, 8):
        found = polygonised(mask, tolerance)
        changed.append((found != mask).sum())
        assert np.maximum(inner, outer)[found != mask].max() <= tolerance + 1.5
    assert 0 < changed[0] < changed[1] < changed[2]


def test_growth_is_of_a_share_of_the_outline():
    mask = square() > 0
    # Lowest on the left, and nowhere the same.
    where = np.add.outer(np.arange(SIZE[0]) / 1000, np.arange(SIZE[1])).astype(np.float32)
    half = partly_dilated(mask, 0.5, 10, where)
    assert half[60, 45]
    assert not half[60, 115]
    np.testing.assert_array_equal(partly_dilated(mask, 0, 10, where), mask)
    grown = [partly_dilated(mask, share, 10, where) for share in (0.25, 0.5, 0.75, 1)]
    for smaller, larger in pairwise(grown):
        assert (smaller <= larger).all()
        assert larger.sum() > smaller.sum()


@pytest.mark.parametrize("accuracy", [0.95, 0.8, 0.6, 0.3])
def test_masks_reach_the_accuracy_asked_for(accuracy):
    for number in range(4):
        one = sample(blob(number))
        found = degraded_to(one, accuracy, np.random.default_rng(number))
        assert boundary_accuracy(found.mask, one.mask) == pytest.approx(accuracy, abs=0.03)
        assert found.image is one.image
    boxes = degraded_to(sample(square()), accuracy, np.random.default_rng(0))
    # A square is a polygon already: it grows.
    assert boundary_accuracy(boxes.mask, square()) == pytest.approx(accuracy, abs=0.05)


def test_exact_and_empty_masks_stay_and_void_is_kept():
    rng = np.random.default_rng(0)
    one = sample(blob())
    assert degraded_to(one, 1.0, rng) is one
    for nothing in (None, np.zeros(SIZE, np.uint8), np.full(SIZE, VOID, np.uint8)):
        empty = sample(nothing)
        assert degraded_to(empty, 0.5, rng) is empty
    mask = blob()
    mask[:, :80] = VOID
    found = degraded_to(sample(mask), 0.7, rng).mask
    np.testing.assert_array_equal(found == VOID, mask == VOID)
    assert set(np.unique(found)) == {0, 1, VOID}
    assert boundary_accuracy(found, mask) == pytest.approx(0.7, abs=0.03)


def test_growth_beyond_the_tolerance_is_what_counts():
    """As the doc of partly_dilated says: a whole outline falls from 1 to 0 at once."""
    mask, field = square() > 0, np.zeros(SIZE, np.float32)
    radius = boundary_radius(*SIZE)
    found = [
        boundary_accuracy(partly_dilated(mask, 1, grown, field).astype(np.uint8), square())
        for grown in (radius, radius + 2)
    ]
    assert found[0] > 0.95
    assert found[1] < 0.05


def test_the_equaliser_draws_for_every_image():
    images = [sample(blob())] * 3
    equalise = equalise_label_accuracy(0.7)
    first, again = (equalise(images, [], np.random.default_rng(5)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
    assert (first[0].mask != first[1].mask).any()
