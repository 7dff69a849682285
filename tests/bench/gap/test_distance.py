"""The proxy A-distance where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.errors import DataError
from bench.gap.distance import (
    group_folds,
    proxy_a_distance,
    proxy_a_distance_by_class,
    two_layer_perceptron,
)
from bench.gap.statistics import Groups
from tests.bench.gap.samples import two_gaussians, videos


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60), st.integers(2, 5), st.integers(0, 99))
def test_folds_never_share_a_video(labels: list[int], folds: int, seed: int) -> None:
    names = np.array([*labels, *range(10)])
    groups = Groups.of_rows(len(names), names % 2, names)
    fold = group_folds(groups, folds, seed)
    for name in np.unique(names):
        assert len(np.unique(fold[names == name])) == 1
    for domain in (0, 1):
        of_videos = fold[np.unique(names, return_index=True)[1]]
        dealt = np.bincount(of_videos[np.unique(names) % 2 == domain], minlength=folds)
        assert dealt.max() - dealt.min() <= 1
        assert dealt.min() >= 1


def test_equals_scikit_learn_on_the_same_folds() -> None:
    features, domains = two_gaussians(100, 6, 1.5, 0)
    groups = Groups.of_rows(200, domains, None)
    folds = PredefinedSplit(group_folds(groups, 5, 0))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
    predicted = cross_val_predict(model, features, domains, cv=folds)
    expected = 2 * (1 - 2 * (predicted != domains).mean())
    assert proxy_a_distance(features, domains).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_one_gaussian_is_near_zero_and_apart_ones_near_two(seed: int) -> None:
    same = proxy_a_distance(*two_gaussians(600, 16, 0.0, seed), seed=seed)
    assert abs(same.value) < 0.2
    assert same.interval is not None
    assert same.interval.low < 0.1
    assert same.interval.high > -0.1
    assert same.groups == (600, 600)
    assert same.note == ""
    apart = proxy_a_distance(*two_gaussians(600, 16, 8.0, seed), seed=seed)
    assert apart.value > 1.9


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_equals_the_bayes_error_of_two_gaussians(shift: float) -> None:
    estimate = proxy_a_distance(*two_gaussians(2000, 2, shift, 1))
    expected = 2 * (1 - 2 * norm.cdf(-shift / 2))
    assert estimate.value == pytest.approx(expected, abs=0.08)
    assert estimate.interval is not None
    assert estimate.interval.low < estimate.value < estimate.interval.high


def test_is_not_clipped() -> None:
    values = [proxy_a_distance(*two_gaussians(60, 8, 0.0, seed)).value for seed in range(12)]
    assert min(values) < 0
    assert abs(np.mean(values)) < 0.15


def test_a_split_of_frames_leaks_and_one_of_videos_does_not() -> None:
    leaking, grouped = [], []
    for seed in range(4):
        features, domains, names = videos(20, 12, 48, seed)
        leaking.append(proxy_a_distance(features, domains, seed=seed).value)
        grouped.append(proxy_a_distance(features, domains, names, seed=seed).value)
    assert min(leaking) > 1.9
    assert abs(np.mean(grouped)) < 0.35
    assert max(grouped) < 1


def test_domains_of_unequal_size_weigh_alike() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1100, 4))
    domains = np.repeat([0, 1], [1000, 100])
    # Always answering "image" would be right for 91 % of the rows.
    assert abs(proxy_a_distance(features, domains).value) < 0.3


def test_a_group_counts_once() -> None:
    features, domains = two_gaussians(60, 3, 1.0, 2)
    copies = np.where(np.arange(120) % 7 == 0, 9, 1)
    rows = np.repeat(np.arange(120), copies)
    once = proxy_a_distance(features, domains)
    often = proxy_a_distance(features[rows], domains[rows], rows)
    # Only the standardisation sees copies.
    assert often.value == pytest.approx(once.value, abs=0.1)
    assert often.groups == once.groups


def test_perceptron_sees_what_a_line_cannot() -> None:
    generator = np.random.default_rng(4)
    angle = generator.uniform(0, 2 * np.pi, size=400)
    radius = np.repeat([1.0, 3.0], 200) + 0.1 * generator.normal(size=400)
    rings = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    domains = np.repeat([0, 1], 200)
    assert proxy_a_distance(rings, domains).value < 0.7
    assert proxy_a_distance(rings, domains, classifier=two_layer_perceptron).value > 1.8
    same = two_gaussians(200, 4, 0.0, 5)
    assert abs(proxy_a_distance(*same, classifier=two_layer_perceptron).value) < 0.3


def test_class_frequencies_alone_make_a_gap_that_the_mean_over_classes_does_not_see() -> None:
    generator = np.random.default_rng(6)
    domains = np.repeat([0, 1], 400)
    classes = (generator.random(800) < np.where(domains == 0, 0.9, 0.1)).astype(int)
    features = generator.normal(size=(800, 5)) + 6.0 * classes[:, None]
    assert proxy_a_distance(features, domains).value > 1.2
    within = proxy_a_distance_by_class(features, domains, classes)
    assert abs(within.value) < 0.5
    assert set(within.per_class) == {0, 1}
    assert within.value == pytest.approx(np.mean(list(within.per_class.values())))
    assert within.interval is not None
    assert within.interval.low < within.value < within.interval.high


def test_by_class_of_one_class_is_the_distance_itself() -> None:
    features, domains, names = videos(12, 3, 4, 7)
    marginal = proxy_a_distance(features, domains, names)
    by_class = proxy_a_distance_by_class(features, domains, np.full(72, 3), names)
    assert by_class.per_class == {3: marginal.value}
    assert by_class.interval == marginal.interval


def test_classes_without_enough_videos_are_left_out() -> None:
    features, domains, names = videos(12, 3, 4, 8)
    classes = np.where(np.isin(names, ["video 000", "video 001"]), 7, 1)
    estimate = proxy_a_distance_by_class(features, domains, classes, names)
    assert set(estimate.per_class) == {1}
    assert "[7]" in estimate.note
    rare = proxy_a_distance_by_class(features, domains, np.arange(72), names)
    assert math.isnan(rare.value)
    assert rare.note.startswith("Undefined")


def test_too_few_videos() -> None:
    features, domains, names = videos(4, 30, 4, 9)
    estimate = proxy_a_distance(features, domains, names)
    assert math.isnan(estimate.value)
    assert estimate.interval is None
    assert "4 groups" in estimate.note
    assert estimate.rows == (120, 120)
    assert "500 advised" in proxy_a_distance(features, domains, names, folds=2).note
    with pytest.raises(DataError, match="domains"):
        proxy_a_distance(features, domains[:-1])


def test_the_same_seed_gives_the_same_estimate() -> None:
    features, domains, names = videos(12, 3, 4, 10)
    assert proxy_a_distance(features, domains, names) == proxy_a_distance(features, domains, names)
