"""What trainings on video have in common: places of clips, sizes, colours."""

from collections import Counter

import numpy as np
import pytest
import torch

from methods.clips import IMAGENET_MEAN, IMAGENET_STD, Normalise, place, resize_short_side


def test_place_reaches_every_place_equally_often():
    random = np.random.default_rng(0)
    counts = Counter(place(random, 8, (0, 2, 5)) for _ in range(3000))
    assert set(counts) == {(s, s + 2, s + 5) for s in range(3)}
    assert min(counts.values()) > 900


@pytest.mark.parametrize(
    ("length", "expected"),
    [(6, (0, 2, 5)), (5, (0, 1, 4)), (3, (0, 0, 2)), (2, (0, 0, 1)), (1, (0, 0, 0))],
)
def test_place_shrinks_gaps_in_short_videos(length, expected):
    assert place(np.random.default_rng(0), length, (0, 2, 5)) == expected


def test_place_keeps_the_order_of_offsets():
    assert place(np.random.default_rng(0), 4, (3, 0)) == (3, 0)


@pytest.mark.parametrize(("side", "shape"), [(6, (6, 8)), (12, (12, 16)), (24, (24, 32))])
def test_resize_short_side(side, shape):
    assert resize_short_side(np.zeros((12, 16, 3), np.uint8), side).shape == (*shape, 3)
    assert resize_short_side(np.zeros((16, 12, 3), np.uint8), side).shape == (*shape[::-1], 3)


def test_normalise_matches_the_plain_formula():
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    expected = (image / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    found = Normalise()(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0)
    assert np.allclose(found.numpy(), expected, atol=1e-6)
    assert Normalise().state_dict() == {}
