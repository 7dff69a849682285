"""Regions of interest, outliers, and what is cut out for the decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import convex_hull_image
from torchvision.ops import roi_align

from methods.shls.regions import (
    KEPT_OVERLAP,
    Box,
    convex_hull,
    drop_outliers,
    put_back,
    region_of_interest,
    take,
    take_quarter,
    tight_box,
    window_of,
)

quick = settings(max_examples=60, deadline=None)

Mask = NDArray[np.bool_]

masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 16), st.integers(1, 16)))

UNASSIGNED = 255


def rectangle(size: tuple[int, int], box: Box) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[box.top : box.bottom, box.left : box.right] = True
    return mask


@st.composite
def boxes(draw: st.DrawFn, height: int, width: int) -> Box:
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Box(top, draw(st.integers(top + 1, height)), left, draw(st.integers(left + 1, width)))


# --- region of interest ---------------------------------------------------------------------


@quick
@given(mask=masks)
def test_tight_box_equals_a_loop(mask: Mask) -> None:
    places = [(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    found = tight_box(mask)
    if not places:
        assert found is None
        return
    rows, columns = zip(*places, strict=True)
    assert found == (min(rows), max(rows) + 1, min(columns), max(columns) + 1)
    assert (found.height, found.width) == (found.bottom - found.top, found.right - found.left)


def test_region_grows_by_half_of_its_share_on_each_side() -> None:
    mask = rectangle((200, 300), Box(50, 90, 100, 181))
    assert region_of_interest(mask, 0.5) == (40, 100, 80, 201)
    assert region_of_interest(mask, 0) == (50, 90, 100, 181)


def test_region_ends_at_the_frame() -> None:
    mask = rectangle((200, 300), Box(2, 102, 195, 299))
    assert region_of_interest(mask, 0.5) == (0, 127, 169, 300)


def test_region_of_nothing_is_the_frame() -> None:
    assert region_of_interest(np.zeros((20, 30), np.bool_), 0.5, (3, 3)) == (0, 20, 0, 30)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(10, 14, 50, 70), (0, 100, 50, 70)),
        (Box(10, 15, 50, 70), (10, 15, 50, 70)),
        (Box(10, 30, 50, 59), (10, 30, 0, 200)),
        (Box(10, 30, 50, 60), (10, 30, 50, 60)),
        (Box(10, 11, 50, 51), (0, 100, 0, 200)),
    ],
)
def test_a_side_below_five_per_cent_becomes_the_whole(box: Box, expected: tuple[int, ...]) -> None:
    """5 rows and 10 columns are 5 % of this frame; each axis on its own."""
    assert region_of_interest(rectangle((100, 200), box), 0) == expected


def test_least_size_is_added_on_both_sides_alike() -> None:
    mask = rectangle((100, 200), Box(40, 50, 60, 80))
    assert region_of_interest(mask, 0, (20, 10)) == (35, 55, 60, 80)
    assert region_of_interest(mask, 0, (21, 10)) == (34, 56, 60, 80)  # an odd rest is rounded up
    # Growth comes first.
    assert region_of_interest(mask, 0.4, (16, 30)) == (37, 53, 55, 85)
    # What would lie outside of the frame is not made up for.
    at_corner = rectangle((100, 200), Box(0, 10, 180, 200))
    assert region_of_interest(at_corner, 0, (20, 40)) == (0, 15, 170, 200)


@quick
@given(data=st.data(), growth=st.sampled_from([0, 0.3, 0.5]), least=st.integers(0, 40))
def test_region_holds_the_object_and_lies_in_the_frame(
    data: st.DataObject, growth: float, least: int
) -> None:
    size = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    mask = rectangle(size, data.draw(boxes(*size)))
    box = region_of_interest(mask, growth, (least, least))
    assert 0 <= box.top < box.bottom <= size[0]
    assert 0 <= box.left < box.right <= size[1]
    assert box.cut(torch.from_numpy(mask)).sum() == mask.sum()
    assert box.height >= 0.05 * size[0]
    assert box.width >= 0.05 * size[1]


# --- outliers -------------------------------------------------------------------------------


def naive_hull(mask: Mask, around: float = 0.0) -> Mask:
    """Pixels whose centres lie in the hull of the mask's pixel centres, by all directions.

    The hull may be widened by ``around`` pixels in rows and columns.
    """
    points = np.argwhere(mask)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside = np.ones(mask.shape, np.bool_)
    # Edges of a hull of grid points are differences of grid points.
    reach = max(mask.shape)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            farthest = (points @ np.array([dy, dx])).max() + around * (abs(dy) + abs(dx))
            inside &= dy * y + dx * x <= farthest
    return inside


@quick
@given(mask=arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_hull_is_the_exact_one_and_half_a_pixel_around_at_most(mask: Mask) -> None:
    found = convex_hull(mask)
    if not mask.any():
        assert not found.any()
        return
    assert (found | ~naive_hull(mask)).all()
    # A drawn outline takes the pixels nearest to a slanted edge, also from outside.
    assert (naive_hull(mask, 0.5) | ~found).all()


@pytest.mark.parametrize("seed", range(6))
def test_hull_is_nearly_that_of_scikit_image(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(random.random((60, 80)), 3) > 0.53
    assert mask.sum() > 50
    found = convex_hull(mask)
    exact = convex_hull_image(mask, offset_coordinates=False)
    assert (found | ~exact).all()
    assert (found ^ exact).sum() < 0.03 * exact.sum()


def naive_outliers(labels: NDArray[np.uint8], previous: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Section 3.4, component by component."""
    kept = labels.copy()
    for number in set(labels.ravel().tolist()) - {0, UNASSIGNED}:
        components, count = ndimage.label(labels == number)
        before = previous == number
        near = np.zeros(labels.shape, np.bool_)
        for component in range(1, count + 1):
            part = components == component
            if (part & before).sum() > KEPT_OVERLAP * before.sum():
                near |= part
        kept[(labels == number) & ~convex_hull(near)] = UNASSIGNED
    return kept


@pytest.mark.parametrize("seed", range(10))
def test_outliers_equal_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)

    def blobs() -> NDArray[np.uint8]:
        noise = ndimage.gaussian_filter(random.random((4, 40, 50)), (0, 2, 2))
        return noise.argmax(0).astype(np.uint8)

    labels, previous = blobs(), blobs()
    labels[random.random(labels.shape) < 0.02] = UNASSIGNED
    before = labels.copy()
    found = drop_outliers(labels, previous, UNASSIGNED)
    np.testing.assert_array_equal(found, naive_outliers(labels, previous))
    np.testing.assert_array_equal(labels, before)
    assert (found != labels).any()


def two_squares() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An object that was on the left, and is found there and far away on the right."""
    previous, labels = np.zeros((2, 40, 100), np.uint8)
    previous[10:30, 10:30] = 1
    labels[12:32, 12:32] = 1
    labels[5:10, 80:90] = 1
    return labels, previous


def test_a_component_far_away_is_removed() -> None:
    labels, previous = two_squares()
    found = drop_outliers(labels, previous, UNASSIGNED)
    assert (found[5:10, 80:90] == UNASSIGNED).all()
    found[5:10, 80:90] = 1
    np.testing.assert_array_equal(found, labels)


def test_a_component_inside_the_hull_of_others_stays() -> None:
    previous = np.zeros((40, 60), np.uint8)
    previous[5:35, 5:55] = 1
    labels = np.zeros_like(previous)
    labels[5:35, 5:15] = labels[5:35, 45:55] = 1
    labels[20:22, 29:31] = 1  # 4 of 1500 pixels overlap
    np.testing.assert_array_equal(drop_outliers(labels, previous, UNASSIGNED), labels)


@pytest.mark.parametrize(("rows", "stays"), [(10, False), (11, True)])
def test_overlap_is_more_than_five_per_cent_of_the_previous_mask(rows: int, stays: bool) -> None:
    previous = np.zeros((40, 40), np.uint8)
    previous[0:20, 0:10] = 1
    labels = np.zeros_like(previous)
    labels[20 - rows : 30, 0:1] = 1
    found = drop_outliers(labels, previous, UNASSIGNED)
    assert (found == 1).any() == stays


def test_an_object_that_overlaps_nothing_is_removed_whole() -> None:
    labels, previous = two_squares()
    for before in (np.zeros_like(previous), np.roll(previous, 45, 1)):
        found = drop_outliers(labels, before, UNASSIGNED)
        assert (found[labels == 1] == UNASSIGNED).all()
        assert not found[labels == 0].any()


def test_components_that_touch_at_a_corner_are_two() -> None:
    previous, labels = np.zeros((2, 20, 20), np.uint8)
    labels[0:10, 0:10] = labels[10:20, 10:20] = 1
    previous[0:10, 0:10] = 1
    found = drop_outliers(labels, previous, UNASSIGNED)
    assert (found[:10, :10] == 1).all()
    assert (found[10:, 10:] == UNASSIGNED).all()


# --- windows --------------------------------------------------------------------------------


@quick
@given(data=st.data())
def test_cutting_out_and_putting_back_is_the_identity_in_the_box(data: st.DataObject) -> None:
    size = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    box = data.draw(boxes(*size))
    window = window_of(box, None)
    height, width = window.padded
    assert (height % 4, width % 4) == (0, 0)
    assert 0 <= height - box.height < 4
    assert 0 <= width - box.width < 4
    left, right, top, bottom = window.padding
    assert 0 <= right - left <= 1
    assert 0 <= bottom - top <= 1
    maps = torch.rand(2, *size) + 1
    cut = take(maps, box, window)
    assert cut.shape == (2, height, width)
    assert (cut > 0).sum() == 2 * box.height * box.width  # padded with zeros
    back = torch.stack([put_back(channel, box, window, size) for channel in cut])
    inside = torch.from_numpy(rectangle(size, box))
    assert back.equal(torch.where(inside, maps, 0))


def test_a_fixed_window_is_square_and_put_back_at_the_regions_size() -> None:
    box = Box(10, 34, 5, 61)
    window = window_of(box, 32)
    assert window.padded == window.size == (32, 32)
    ramp = torch.linspace(0, 1, 80).expand(50, 80)
    cut = take(ramp[None], box, window)[0]
    assert cut.shape == (32, 32)
    back = put_back(cut, box, window, (50, 80))
    assert back.shape == (50, 80)
    # Linear both ways, so a ramp comes back but for the box's edge.
    torch.testing.assert_close(back[10:34, 8:58], ramp[10:34, 8:58], rtol=0, atol=1e-5)
    outside = ~torch.from_numpy(rectangle((50, 80), box))
    assert not back[outside].any()


def test_masks_are_cut_out_by_nearest_neighbour() -> None:
    mask = (torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    cut = take(mask, Box(3, 30, 4, 25), window_of(Box(0, 1, 0, 1), 16), "nearest")
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    rows = [3 + row * 27 // 16 for row in range(16)]
    columns = [4 + column * 21 // 16 for column in range(16)]
    assert cut[0].equal(mask[0, rows][:, columns])


@pytest.mark.parametrize("side", [None, 16])
def test_other_boxes_are_brought_to_the_window_of_the_current_one(side: int | None) -> None:
    window = window_of(Box(0, 13, 0, 22), side)
    for box in (Box(0, 5, 3, 40), Box(2, 40, 8, 9)):
        assert take(torch.rand(3, 40, 40), box, window).shape == (3, *window.padded)


def test_quarter_map_is_sampled_at_pixel_centres() -> None:
    """A ramp over the frame, seen at stride 4; the authors' variant is half a pixel off."""
    columns = (torch.arange(32.0) + 0.5) * 4
    maps = columns.expand(1, 24, 32)
    box = Box(16, 48, 24, 88)
    window = window_of(box, None)
    aligned = take_quarter(maps, box, window, True)
    assert aligned.shape == (1, 8, 16)
    expected = 24 + (torch.arange(16.0) + 0.5) * 4
    torch.testing.assert_close(aligned[0], expected.expand(8, 16))
    theirs = take_quarter(maps, box, window, False)
    torch.testing.assert_close(theirs[0], (expected + 2).expand(8, 16))


def test_quarter_map_equals_torchvision() -> None:
    maps = torch.rand(3, 12, 17)
    box = Box(5, 40, 9, 60)
    window = window_of(box, None)
    rois = [torch.tensor([[9.0, 5.0, 60.0, 40.0]])]
    for aligned in (True, False):
        expected = roi_align(maps[None], rois, (9, 13), 0.25, -1, aligned)[0]
        torch.testing.assert_close(take_quarter(maps, box, window, aligned), expected)
        low = take_quarter(maps.bfloat16(), box, window, aligned)
        torch.testing.assert_close(low, expected, rtol=0, atol=0.01)
