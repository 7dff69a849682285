"""Groups, the bootstrap over them, and gap closed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t

from bench.errors import DataError
from bench.gap.closing import gap_closed
from bench.gap.statistics import (
    Groups,
    as_classes,
    as_features,
    group_bootstrap,
    group_jackknife,
    percentile_interval,
)


def test_groups_of_named_videos() -> None:
    names = np.array(["b", "a", "b", "c", "a", "b"])
    domains = np.array([1, 0, 1, 0, 0, 1])
    groups = Groups.of_rows(6, domains, names)
    assert groups.domains.tolist() == [0, 1, 0]  # a, b, c
    assert groups.index.tolist() == [1, 0, 1, 2, 0, 1]
    assert groups.sizes.tolist() == [2, 3, 1]
    assert groups.per_domain == (2, 1)
    assert groups.rows_per_domain == (3, 3)
    assert groups.mean(np.arange(6.0)).tolist() == [2.5, 7 / 3, 3.0]
    part, kept = groups.subset(np.array([True, False, True, True, False, False]))
    assert kept.tolist() == [1, 2]
    assert part.index.tolist() == [0, 0, 1]
    assert part.domains.tolist() == [1, 0]


def test_weights_are_fair_to_domains_and_groups() -> None:
    names = np.array([0, 0, 0, 1, 2, 3, 4])
    domains = np.array([0, 0, 0, 0, 1, 1, 1])
    weights = Groups.of_rows(7, domains, names).weights()
    assert weights.sum() == pytest.approx(7)
    assert weights[domains == 0].sum() == pytest.approx(weights[domains == 1].sum())
    assert weights[:3].sum() == pytest.approx(weights[3])


@pytest.mark.parametrize(
    ("domains", "names", "words"),
    [
        (np.array([0, 0, 1]), np.array(["a", "b", "b"]), "group b with rows of both domains"),
        (np.array([0, 0, 0]), None, "domains"),
        (np.array([0, 1, 2]), None, "domains"),
        (np.array([0, 1]), None, "(2,)"),
        (np.array([0, 1, 1]), np.array(["a", "b"]), "groups"),
    ],
)
def test_wrong_groups_are_refused(
    domains: np.ndarray, names: np.ndarray | None, words: str
) -> None:
    with pytest.raises(DataError) as caught:
        Groups.of_rows(3, domains, names)
    assert words in str(caught.value)


def test_wrong_features_and_classes_are_refused() -> None:
    with pytest.raises(DataError, match="rows, channels"):
        as_features(np.zeros(3))
    with pytest.raises(DataError, match="1 of 2 rows"):
        as_features(np.array([[0.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(DataError, match="integers"):
        as_classes(np.array([0.5, 1.0]), 2)
    assert as_features(np.ones((2, 3), np.float16)).dtype == np.float64


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=40), st.integers(0, 1000))
def test_resampling_keeps_groups_whole_and_domains_full(labels: list[int], seed: int) -> None:
    names = np.array([*labels, 0, 1])
    groups = Groups.of_rows(len(names), names % 2, names)
    generator = np.random.default_rng(seed)
    counts = groups.multiplicities(20, generator)
    for domain in (0, 1):
        members = groups.domains == domain
        assert (counts[:, members].sum(1) == members.sum()).all()
    rows = groups.one_row_each(generator)
    assert groups.index[rows].tolist() == list(range(len(groups)))
    balanced = groups.balanced_rows(seed)
    assert len(np.unique(groups.index[balanced])) == len(balanced)
    assert np.bincount(names[balanced] % 2).tolist() == [min(groups.per_domain)] * 2


def test_bootstrap_of_groups_covers_where_that_of_rows_does_not() -> None:
    covered, covered_by_rows, trials = 0, 0, 100
    names = np.repeat(np.arange(25), 8)
    groups, rows = Groups.of_sample(200, names), Groups.of_sample(200, None)
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        values = np.repeat(generator.normal(size=25), 8) + 0.2 * generator.normal(size=200)
        for gathered in (groups, rows):
            interval = group_bootstrap(lambda r, v=values: float(v[r].mean()), gathered, 200, seed)
            assert interval is not None
            hit = interval.low <= 0 <= interval.high
            covered += hit and gathered is groups
            covered_by_rows += hit and gathered is rows
    assert 0.87 < covered / trials < 0.99
    assert covered_by_rows / trials < 0.7


def test_intervals_that_do_not_exist() -> None:
    assert percentile_interval(np.full(10, np.nan)) is None
    assert percentile_interval(np.array([1.0, np.nan, np.nan])) is None
    one = Groups.of_sample(5, np.zeros(5, int))
    assert group_bootstrap(lambda rows: float(rows.mean()), one) is None
    assert group_jackknife(lambda rows: float(rows.mean()), one) is None
    many = Groups.of_sample(5, None)
    assert group_jackknife(lambda rows: float("nan"), many) is None


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=30)
    interval = group_jackknife(lambda rows: float(values[rows].mean()), Groups.of_sample(30, None))
    assert interval is not None
    reach = student_t.ppf(0.975, 29) * values.std(ddof=1) / math.sqrt(30)
    assert interval == pytest.approx((values.mean() - reach, values.mean() + reach))
    doubled = Groups.of_sample(60, np.tile(np.arange(30), 2))
    of_groups = group_jackknife(lambda rows: float(np.tile(values, 2)[rows].mean()), doubled)
    assert of_groups == pytest.approx(interval)


def test_gap_closed_of_exact_scores() -> None:
    source = {0: 0.30, 1: 0.34, 2: 0.32}
    adapted = {seed: value + 0.05 for seed, value in source.items()}
    oracle = {seed: value + 0.20 for seed, value in source.items()}
    estimate = gap_closed(adapted, source, oracle)
    # Seeds move all three alike, which pairing cancels altogether.
    assert estimate.value == pytest.approx(0.25)
    assert estimate.interval == pytest.approx((0.25, 0.25), abs=1e-6)
    assert estimate.groups == (3,)
    assert estimate.note == ""


def test_gap_closed_pairs_by_seed() -> None:
    generator = np.random.default_rng(0)
    common = dict(enumerate(generator.normal(0.4, 0.05, size=6)))
    noise = generator.normal(0, 0.005, size=(2, 6))
    adapted = {seed: value + 0.1 + noise[0, seed] for seed, value in common.items()}
    oracle = {seed: value + 0.2 + noise[1, seed] for seed, value in common.items()}
    paired = gap_closed(adapted, common, oracle)
    turned = gap_closed({seed: adapted[(seed + 1) % 6] for seed in common}, common, oracle)
    assert paired.interval is not None
    assert turned.interval is not None
    assert turned.value == pytest.approx(paired.value)
    assert np.diff(paired.interval)[0] < 0.2 * np.diff(turned.interval)[0]


def test_gap_closed_is_undefined_within_noise() -> None:
    source = {0: 0.30, 1: 0.34, 2: 0.32}
    near = {0: 0.33, 1: 0.33, 2: 0.33}
    estimate = gap_closed(near, source, near)
    assert math.isnan(estimate.value)
    assert estimate.interval is None
    assert "not above the noise" in estimate.note
    below = {seed: value - 0.1 for seed, value in source.items()}
    assert "Undefined: oracle - source = -0.1" in gap_closed(near, source, below).note
    single = gap_closed({0: 0.4}, {0: 0.3}, {0: 0.5})
    assert single.value == pytest.approx(0.5)
    assert single.interval is None
    assert "1 seed; 3 advised" in single.note


def test_gap_closed_leaves_unpaired_seeds_out() -> None:
    estimate = gap_closed({0: 2.0, 1: 2.1, 5: 99.0}, {0: 1.0, 1: 1.1}, {0: 3.0, 1: 3.2, 4: 99.0})
    assert estimate.groups == (2,)
    assert estimate.value == pytest.approx(1 / 2.05)
    assert "2 seeds are not in all three" in estimate.note
    with pytest.raises(DataError, match="no seed"):
        gap_closed({0: 1.0}, {1: 1.0}, {2: 1.0})


def test_gap_closed_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    trials, defined, covered = 2000, 0, 0
    for _ in range(trials):
        common = generator.normal(0.4, 0.05, size=4)
        source = dict(enumerate(common + generator.normal(0, 0.01, size=4)))
        adapted = dict(enumerate(common + 0.06 + generator.normal(0, 0.01, size=4)))
        oracle = dict(enumerate(common + 0.2 + generator.normal(0, 0.01, size=4)))
        interval = gap_closed(adapted, source, oracle).interval
        if interval is not None:
            defined += 1
            covered += interval.low <= 0.3 <= interval.high
    assert defined == trials
    assert 0.935 < covered / trials < 0.965
