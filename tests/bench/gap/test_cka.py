"""Linear CKA: its invariances and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.errors import DataError
from bench.gap.cka import linear_cka


def naive_cka(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC of linear kernels with the centring matrix, normalised; Kornblith et al., section 3."""
    centring = np.eye(len(x)) - 1 / len(x)
    k, m = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring
    return float(np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m)))


@pytest.mark.parametrize("shapes", [(200, 5, 8), (10, 30, 20), (15, 4, 40)])
def test_equals_the_definition(shapes: tuple[int, int, int]) -> None:
    rows, c, d = shapes
    generator = np.random.default_rng(0)
    x = generator.normal(2, 1, size=(rows, c))
    y = np.tanh(x @ generator.normal(size=(c, d))) + 0.3 * generator.normal(size=(rows, d))
    assert linear_cka(x, y, blocks=2).value == pytest.approx(naive_cka(x, y), rel=1e-10)


def test_rotation_scale_and_shift_do_not_matter_but_a_linear_map_does() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(300, 6)) * np.arange(1, 7)
    rotation = np.linalg.qr(generator.normal(size=(6, 6)))[0]
    assert linear_cka(x, x, blocks=2).value == pytest.approx(1)
    assert linear_cka(x, 3 * x @ rotation + 5, blocks=2).value == pytest.approx(1)
    y = generator.normal(size=(300, 4)) + x[:, :4]
    one = linear_cka(x, y, blocks=2).value
    assert linear_cka(y, x, blocks=2).value == pytest.approx(one)
    assert linear_cka(x @ rotation, -7 * y, blocks=2).value == pytest.approx(one)
    assert linear_cka(x / np.arange(1, 7), x, blocks=2).value < 0.9


def test_known_value_of_a_shared_part() -> None:
    # Y keeps p of X's c independent unit channels: |Y'X|^2 = p, |X'X| = sqrt(c), |Y'Y| = sqrt(p).
    x = np.random.default_rng(2).normal(size=(20000, 9))
    estimate = linear_cka(x, x[:, :4], blocks=20)
    assert estimate.value == pytest.approx(math.sqrt(4 / 9), abs=0.02)
    assert estimate.interval is not None
    assert estimate.interval.low < math.sqrt(4 / 9) < estimate.interval.high
    unrelated = linear_cka(x, np.random.default_rng(3).normal(size=(20000, 9)), blocks=2)
    assert unrelated.value < 0.01


@pytest.mark.parametrize("shape", [(400, 6), (30, 60)])
def test_shuffled_pairs_are_at_chance(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(4)
    x = generator.normal(size=shape)
    y = x + generator.normal(size=shape)
    estimate = linear_cka(x, y, blocks=2)
    shuffled = [linear_cka(x, generator.permutation(y), blocks=2).value for _ in range(100)]
    error = np.std(shuffled) / 10
    assert estimate.chance == pytest.approx(np.mean(shuffled), abs=3 * error)
    assert estimate.value > max(shuffled)


def test_interval_covers_the_mean_of_samples() -> None:
    generator = np.random.default_rng(9)
    estimates = []
    for _ in range(100):
        x = generator.normal(size=(150, 12))
        y = x + 1.5 * generator.normal(size=(150, 12))
        estimates.append(linear_cka(x, y))
    mean = np.mean([estimate.value for estimate in estimates])
    hits = [e.interval is not None and e.interval.low <= mean <= e.interval.high for e in estimates]
    assert 0.88 < np.mean(hits) < 0.99


def test_rows_must_be_paired() -> None:
    x = np.random.default_rng(5).normal(size=(6, 2))
    names = np.array(["a", "b", "c", "d", "e", "f"])
    with pytest.raises(DataError, match="paired rows"):
        linear_cka(x, x[:5])
    with pytest.raises(DataError, match="row 0 describes a in one and f in the other"):
        linear_cka(x, x, names=(names, names[::-1]))
    with pytest.raises(DataError, match="one per row"):
        linear_cka(x, x, names=(names[:5], names[:5]))
    assert linear_cka(x, x, names=(names, names.copy()), blocks=2).value == pytest.approx(1)


def test_videos_widen_the_interval() -> None:
    generator = np.random.default_rng(6)
    x = np.repeat(generator.normal(size=(20, 4)), 10, axis=0)
    y = np.repeat(generator.normal(size=(20, 4)), 10, axis=0) + x
    names = np.repeat(np.arange(20), 10)
    by_video, by_row = linear_cka(x, y, names).interval, linear_cka(x, y).interval
    assert by_video is not None
    assert by_row is not None
    assert np.diff(by_video)[0] > 1.5 * np.diff(by_row)[0]
    assert linear_cka(x, y, names).groups == (20,)


def test_undefined_and_doubtful() -> None:
    x = np.random.default_rng(7).normal(size=(10, 3))
    constant = linear_cka(x, np.ones((10, 3)))
    assert math.isnan(constant.value)
    assert "equal" in constant.note
    wide = linear_cka(x, np.random.default_rng(8).normal(size=(10, 500)), blocks=2)
    assert wide.value > 0.3  # although nothing is shared
    assert "10 rows are few" in wide.note
