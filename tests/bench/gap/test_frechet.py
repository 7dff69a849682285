"""The Frechet distance where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from bench.errors import DataError
from bench.gap.frechet import (
    frechet_between_gaussians,
    frechet_distance,
    frechet_ratio,
    principal_components,
)
from tests.bench.gap.samples import two_gaussians, videos


def naive_distance(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray
) -> float:
    """The formula as it stands in Dowson and Landau."""
    root = np.real(sqrtm(cov_a @ cov_b))
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root))


def random_covariance(generator: np.random.Generator, size: int) -> np.ndarray:
    factor = generator.normal(size=(size, 2 * size))
    return factor @ factor.T / size


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_formula_with_a_matrix_root(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = random_covariance(generator, 6), random_covariance(generator, 6)
    mean_a, mean_b = generator.normal(size=(2, 6))
    expected = naive_distance(mean_a, a, mean_b, b)
    assert frechet_between_gaussians(mean_a, a, mean_b, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_between_gaussians(mean_b, b, mean_a, a) == pytest.approx(expected, rel=1e-9)


def test_known_values() -> None:
    zero, shifted = np.zeros(3), np.array([1.0, 2.0, 2.0])
    assert frechet_between_gaussians(zero, np.eye(3), shifted, np.eye(3)) == pytest.approx(9)
    # Commuting covariances: the sum of squared differences of standard deviations.
    wide = np.diag([4.0, 9.0, 1.0])
    assert frechet_between_gaussians(zero, np.eye(3), zero, wide) == pytest.approx(1 + 4 + 0)
    flat = np.diag([1.0, 0.0, 0.0])  # singular
    assert frechet_between_gaussians(zero, flat, zero, flat) == pytest.approx(0, abs=1e-12)
    assert frechet_between_gaussians(zero, np.eye(3), zero, flat) == pytest.approx(2)


def test_of_samples_approaches_that_of_gaussians() -> None:
    generator = np.random.default_rng(0)
    cov_a, cov_b = random_covariance(generator, 4), random_covariance(generator, 4)
    mean_b = np.array([1.0, 0.0, -1.0, 0.5])
    expected = frechet_between_gaussians(np.zeros(4), cov_a, mean_b, cov_b)
    a = generator.multivariate_normal(np.zeros(4), cov_a, size=20000)
    b = generator.multivariate_normal(mean_b, cov_b, size=20000)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=0.03)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_principal_components_keep_the_axes_of_largest_variance() -> None:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(500, 4)) * np.array([0.1, 5.0, 1.0, 2.0]) + 7
    weights = generator.uniform(0.5, 1.5, size=500)
    reduced = principal_components(features, weights, 2)
    covariance = np.cov(features, rowvar=False, aweights=weights, ddof=0)
    expected = np.sort(np.linalg.eigvalsh(covariance))[::-1][:2]
    found = np.cov(reduced, rowvar=False, aweights=weights, ddof=0)
    np.testing.assert_allclose(found, np.diag(expected), atol=1e-9)


def test_no_gap_is_one_also_for_domains_of_unequal_size() -> None:
    ratios = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        features = generator.normal(size=(1400, 40))
        domains = np.repeat([0, 1], [1000, 400])
        estimate = frechet_ratio(features, domains, components=16, draws=10, seed=seed)
        ratios.append(estimate.value)
        # Small samples alone make both distances clearly larger than their true value, 0.
        assert estimate.between_halves > 0.1
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)


def test_a_gap_is_its_distance_in_units_of_halves() -> None:
    features, domains = two_gaussians(1600, 16, 2.0, 3)
    estimate = frechet_ratio(features, domains, components=16)
    # Sampling adds the distance between halves to the true one, 2^2.
    assert estimate.distance == pytest.approx(4 + estimate.between_halves, rel=0.1)
    assert estimate.value == pytest.approx(estimate.distance / estimate.between_halves)
    assert estimate.value > 20
    assert estimate.interval is not None
    assert estimate.interval.low < estimate.value < estimate.interval.high


def test_frames_do_not_pass_for_videos() -> None:
    features, domains, names = videos(60, 12, 30, 4)
    refused = frechet_ratio(features, domains, names, components=8)
    assert math.isnan(refused.value)
    assert "60 groups" in refused.note
    assert "need 80" in refused.note
    assert "allow 6 components" in refused.note
    few = [
        frechet_ratio(*videos(60, 12, 30, seed), components=6, seed=seed).value for seed in range(8)
    ]
    assert np.mean(few) == pytest.approx(1, abs=0.3)
    # Against halves of independent images, frames of few videos look like a gap.
    generator = np.random.default_rng(5)
    images = generator.normal(size=(720, 30))
    rows = np.concatenate([images, features[domains == 1]])
    assert frechet_ratio(rows, domains, components=6).value > 3


def test_wrong_and_degenerate_inputs() -> None:
    with pytest.raises(DataError, match="one encoder"):
        frechet_distance(np.ones((5, 2)), np.ones((5, 3)))
    with pytest.raises(DataError, match="components"):
        frechet_ratio(np.ones((4, 2)), np.array([0, 0, 1, 1]), components=0)
    flat = frechet_ratio(np.ones((40, 1)), np.repeat([0, 1], 20))
    assert math.isnan(flat.value)
    assert "do not differ" in flat.note
