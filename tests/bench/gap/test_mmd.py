"""Squared MMD where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kstest

from bench.gap.mmd import (
    gaussian_kernels,
    group_kernel,
    squared_distances,
    squared_mmd,
    unbiased_squared_mmd,
)
from bench.gap.statistics import Groups
from tests.bench.gap.samples import two_gaussians, videos


def naive_squared_mmd(features: np.ndarray, domains: np.ndarray, names: np.ndarray) -> float:
    """Gretton's equation 3 in loops, over pairs of videos instead of pairs of rows."""
    distances = [
        float(((features[i] - features[j]) ** 2).sum())
        for i in range(len(features))
        for j in range(i)
        if names[i] != names[j]
    ]
    median = float(np.median(distances))

    def kernel(one: str, other: str) -> float:
        values = []
        for x in features[names == one]:
            for y in features[names == other]:
                square = float(((x - y) ** 2).sum())
                values.append(
                    sum(math.exp(-square / (2 * scale * median)) for scale in (0.5, 1.0, 2.0))
                )
        return float(np.mean(values))

    images, films = np.unique(names[domains == 0]), np.unique(names[domains == 1])
    within_images = np.mean([kernel(a, b) for a in images for b in images if a != b])
    within_films = np.mean([kernel(a, b) for a in films for b in films if a != b])
    return float(
        within_images + within_films - 2 * np.mean([kernel(a, b) for a in images for b in films])
    )


def test_equals_the_definition_in_loops() -> None:
    generator = np.random.default_rng(0)
    names = np.array(["a", "b", "c", "a", "d", "e", "f", "f", "b", "g"])
    domains = np.isin(names, ["d", "e", "f"]).astype(int)
    features = generator.normal(size=(10, 3)) + domains[:, None]
    for labels in (names, np.arange(10).astype(str)):
        expected = naive_squared_mmd(features, domains, labels)
        assert squared_mmd(features, domains, labels).value == pytest.approx(expected, rel=1e-10)


def test_squared_distances() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(1000, 1, size=(7, 5)), generator.normal(1000, 1, size=(4, 5))
    expected = ((a[:, None] - b) ** 2).sum(2)
    np.testing.assert_allclose(squared_distances(a, b), expected, rtol=1e-9)
    assert squared_distances(a, a).min() >= 0


def test_equals_its_expectation_for_gaussians() -> None:
    # For unit Gaussians, E k = (s / (s + 2))^(C / 2) exp(-shift^2 / (2 (s + 2))), s = sigma^2.
    channels, shift, squared_bandwidth = 3, 1.2, 4.0
    decay = 1 - math.exp(-(shift**2) / (2 * (squared_bandwidth + 2)))
    scale = (squared_bandwidth / (squared_bandwidth + 2)) ** (channels / 2)
    values = []
    for seed in range(40):
        features, domains = two_gaussians(100, channels, shift, seed)
        groups = Groups.of_rows(200, domains, None)
        kernel = gaussian_kernels(squared_distances(features, features), [squared_bandwidth])
        images = (groups.domains == 0)[None]
        values.append(unbiased_squared_mmd(group_kernel(kernel, groups), images, ~images)[0])
    error = np.std(values) / math.sqrt(len(values))
    assert np.mean(values) == pytest.approx(2 * scale * decay, abs=3 * error)
    assert error < 0.1 * 2 * scale * decay


def test_has_mean_zero_and_uniform_p_values_without_a_gap() -> None:
    results = [
        squared_mmd(*two_gaussians(25, 5, 0.0, seed), resamples=2, seed=seed) for seed in range(300)
    ]
    values = np.array([result.value for result in results])
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    # The biased estimate, with every row paired with itself, is above 0 by 3 kernels' worth:
    # (3 - mean kernel) (1 / 25 + 1 / 25), which the bound above would not let pass.
    assert 3 * error < 0.02
    p_values = np.array([result.p_value for result in results])
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert (p_values <= 0.05).mean() < 0.09


def test_videos_need_groups() -> None:
    grouped, by_frame = [], []
    for seed in range(100):
        features, domains, names = videos(10, 4, 5, seed)
        grouped.append(squared_mmd(features, domains, names, resamples=2, seed=seed))
        by_frame.append(squared_mmd(features, domains, resamples=2, seed=seed))
    values = np.array([result.value for result in grouped])
    assert abs(values.mean()) < 3 * values.std() / 10
    assert kstest([result.p_value for result in grouped], "uniform").pvalue > 0.01
    # Frames as if they were independent: a gap is seen nearly always where none is.
    frames = np.array([result.value for result in by_frame])
    assert frames.mean() > 5 * frames.std() / 10
    assert np.mean([result.p_value <= 0.05 for result in by_frame]) > 0.7


def test_finds_a_gap() -> None:
    found = squared_mmd(*two_gaussians(100, 5, 1.0, 0))
    assert found.p_value == pytest.approx(1 / 201)
    assert found.interval is not None
    assert 0 < found.interval.low < found.value < found.interval.high
    # Equal means, other variance: what no comparison of means can see.
    generator = np.random.default_rng(1)
    features = generator.normal(size=(200, 5)) * np.repeat([1.0, 1.6], 100)[:, None]
    assert squared_mmd(features, np.repeat([0, 1], 100)).p_value < 0.02
    features, domains, names = videos(20, 4, 5, 2)
    features[domains == 1] += 0.8
    assert squared_mmd(features, domains, names).p_value < 0.02


def test_interval_covers_the_value() -> None:
    # The truth by a large sample; its bandwidth is that of the small ones but for noise.
    truth = squared_mmd(*two_gaussians(1500, 3, 1.0, 99), permutations=1, resamples=2).value
    hits = 0
    for seed in range(60):
        estimate = squared_mmd(*two_gaussians(40, 3, 1.0, seed), permutations=1, resamples=200)
        assert estimate.interval is not None
        hits += estimate.interval.low <= truth <= estimate.interval.high
    assert hits >= 53


def test_does_not_depend_on_the_unit_of_features() -> None:
    features, domains = two_gaussians(30, 4, 0.5, 3)
    one, other = squared_mmd(features, domains), squared_mmd(1000 * features + 5, domains)
    assert other.value == pytest.approx(one.value, rel=1e-9)
    assert other.p_value == one.p_value


def test_undefined_and_approximate() -> None:
    one = squared_mmd(np.eye(3), np.array([0, 0, 1]))
    assert math.isnan(one.value)
    assert math.isnan(one.p_value)
    assert "single group" in one.note
    coincide = squared_mmd(np.ones((6, 2)), np.repeat([0, 1], 3))
    assert math.isnan(coincide.value)
    assert "coincide" in coincide.note
    features, domains, names = videos(6, 4, 3, 4)
    images = np.where(domains == 0, np.arange(48).astype(str), names)
    assert "approximate" in squared_mmd(features, domains, images).note
    assert squared_mmd(features, domains, names).note == ""
