"""From pixels to superpixels and back, against loops over superpixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from torch import Tensor

from methods.shls.pooling import (
    majority,
    paint,
    segment_mean,
    segment_sum,
    shrink_superpixels,
    superpixel_info,
    superpixel_sizes,
)

quick = settings(max_examples=50, deadline=None)

MOST = 9


@st.composite
def superpixel_maps(draw: st.DrawFn) -> Tensor:
    """Ids 1 .. 9 of any small map; some of them may be without a pixel."""
    size = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    ids = draw(arrays.arrays(np.int64, size, elements=st.integers(1, MOST)))
    return torch.from_numpy(ids)


def vanishing() -> Tensor:
    """16 x 16 pixels; superpixel 3 is a square between the samples taken at a quarter."""
    ids = torch.ones(16, 16, dtype=torch.int64)
    ids[:, 8:] = 2
    ids[1:4, 1:4] = 3
    return ids


def naive_mean(maps: Tensor, ids: Tensor, count: int) -> tuple[NDArray[np.float64], list[int]]:
    means, sizes = np.zeros((count, maps.shape[0])), []
    for number in range(1, count + 1):
        inside = ids == number
        sizes.append(int(inside.sum()))
        for channel in range(maps.shape[0]):
            if sizes[-1]:
                means[number - 1, channel] = maps[channel].double()[inside].mean()
    return means, sizes


@quick
@given(ids=superpixel_maps(), channels=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_means_and_sums_equal_a_loop(ids: Tensor, channels: int, seed: int) -> None:
    maps = torch.randn(channels, *ids.shape, generator=torch.Generator().manual_seed(seed))
    expected, expected_sizes = naive_mean(maps, ids, MOST)
    means, sizes = segment_mean(maps, ids, MOST)
    assert sizes.tolist() == superpixel_sizes(ids, MOST).tolist() == expected_sizes
    np.testing.assert_allclose(means, expected, atol=1e-5)
    sums = segment_sum(maps, ids, MOST)
    np.testing.assert_allclose(sums, expected * np.array(expected_sizes)[:, None], atol=1e-4)


def test_mean_of_bfloat16_is_summed_in_float32() -> None:
    """In bfloat16, 256 + 1 is 256."""
    maps = torch.ones(1, 40, 40, dtype=torch.bfloat16)
    sums = segment_sum(maps, torch.ones(40, 40, dtype=torch.int64), 1)
    assert sums.dtype == torch.float32
    assert sums.item() == 1600


def test_gradient_of_a_mean_is_shared_by_its_pixels() -> None:
    maps = torch.rand(1, 16, 16, requires_grad=True)
    ids = vanishing()
    (segment_mean(maps, ids, 3)[0][2, 0] * 18).backward()
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad[0], (ids == 3) * 2.0)


@quick
@given(ids=superpixel_maps())
def test_info_equals_a_loop(ids: Tensor) -> None:
    height, width = ids.shape
    expected = np.zeros((MOST, 3))
    for number in range(1, MOST + 1):
        places = (ids == number).nonzero().double()
        if len(places):
            rows, columns = places.mean(0).tolist()
            expected[number - 1] = (
                len(places) / (height * width),
                rows / max(height - 1, 1),
                columns / max(width - 1, 1),
            )
    np.testing.assert_allclose(superpixel_info(ids, MOST), expected, atol=1e-6)


def test_info_of_a_large_frame_keeps_its_digits() -> None:
    """A sum of 400 000 positions in float32 alone would be off by more."""
    info = superpixel_info(torch.ones(480, 854, dtype=torch.int64), 1)
    torch.testing.assert_close(info, torch.tensor([[1.0, 0.5, 0.5]]), rtol=0, atol=1e-6)


@quick
@given(ids=superpixel_maps(), channels=st.integers(1, 3))
def test_paint_equals_a_loop(ids: Tensor, channels: int) -> None:
    values = torch.randn(MOST, channels)
    painted, single = paint(values, ids), paint(values[:, 0], ids)
    assert painted.shape == (channels, *ids.shape)
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            expected = values[ids[row, column] - 1]
            assert painted[:, row, column].equal(expected)
            assert single[row, column] == expected[0]


@quick
@given(ids=superpixel_maps(), seed=st.integers(0, 2**31), classes=st.integers(1, 4))
def test_majority_equals_a_loop_and_ties_go_to_the_lowest(
    ids: Tensor, seed: int, classes: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, ids.shape, generator=generator)
    found = majority(ids, labels, MOST, classes)
    for number in range(1, MOST + 1):
        inside = labels[ids == number].tolist()
        counts = [inside.count(label) for label in range(classes)]
        assert found[number - 1] == counts.index(max(counts))


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((16, 16), (4, 4)),
        ((480, 854), (120, 214)),
        ((481, 853), (121, 214)),
        ((5, 7), (2, 2)),
        ((1, 3), (1, 1)),
    ],
)
def test_shrinking_takes_the_pixel_at_the_upper_left(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    ids = torch.arange(1, size[0] * size[1] + 1).view(size)
    found = shrink_superpixels(ids, small)
    rows = [row * size[0] // small[0] for row in range(small[0])]
    columns = [column * size[1] // small[1] for column in range(small[1])]
    assert found.dtype == torch.int64
    assert found.equal(ids[rows][:, columns])


def test_shrinking_keeps_ids_beyond_float32() -> None:
    ids = torch.full((8, 8), 2**24 + 1)
    assert shrink_superpixels(ids, (2, 2)).unique().tolist() == [2**24 + 1]


def test_a_superpixel_that_vanishes_has_zeros_and_leaves_the_others_alone() -> None:
    small = shrink_superpixels(vanishing(), (4, 4))
    assert 3 not in small
    maps = torch.arange(16.0).view(1, 4, 4) + 1
    means, sizes = segment_mean(maps, small, 3)
    assert sizes.tolist() == [8, 8, 0]
    assert means[:, 0].tolist() == [maps[0, :, :2].mean(), maps[0, :, 2:].mean(), 0]
    info = superpixel_info(small, 3)
    assert info.shape == (3, 3)
    assert info[2].tolist() == [0, 0, 0]
    assert majority(small, torch.ones_like(small), 3, 2).tolist() == [1, 1, 0]
