"""Statistics of differences, against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.metrics.comparison import (
    best,
    cluster_bootstrap,
    compare,
    critical_difference,
    holm,
    rank,
)


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    # 20 sequences with 1 to 3 objects that share their sequence's difficulty.
    random = np.random.default_rng(10)
    covered, rejected, trials = 0, 0, 800
    for trial in range(trials):
        clusters = np.repeat(np.arange(20), random.integers(1, 4, 20))
        values = random.normal(0, 1, 20)[clusters] + random.normal(0, 0.5, len(clusters))
        result = cluster_bootstrap(values, clusters, seed=trial, resamples=1000)
        covered += result.low <= 0 <= result.high
        rejected += result.p_value < 0.05
    # Three standard errors of a share of 0.95 among 800 are 0.023.
    assert 0.927 <= covered / trials <= 0.973
    assert 0.027 <= rejected / trials <= 0.073


def test_resampling_objects_instead_of_sequences_would_be_too_sure() -> None:
    random = np.random.default_rng(1)
    clusters = np.repeat(np.arange(10), 20)
    values = random.normal(0, 1, 10)[clusters] + random.normal(0, 0.1, 200)
    right = cluster_bootstrap(values, clusters)
    wrong = cluster_bootstrap(values, np.arange(200))
    assert right.high - right.low > 3 * (wrong.high - wrong.low)


def test_one_value_per_cluster_gives_nearly_the_t_interval() -> None:
    values = np.random.default_rng(2).normal(3, 2, 40)
    result = cluster_bootstrap(values, np.arange(40), resamples=40_000)
    exact = stats.ttest_1samp(values, 0).confidence_interval()
    assert result.mean == pytest.approx(values.mean())
    assert result.low == pytest.approx(exact.low, abs=0.1)
    assert result.high == pytest.approx(exact.high, abs=0.1)


def test_one_sequence_says_nothing_about_others() -> None:
    result = cluster_bootstrap([1.0, 2.0], [0, 0])
    assert result.mean == 1.5
    assert np.isnan([result.low, result.high, result.p_value]).all()
    assert np.isnan(cluster_bootstrap([], []).mean)


def test_holm_on_a_case_done_by_hand() -> None:
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, np.nan, 0.9]) == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_order(
    values: list[float],
) -> None:
    given_values = np.array(values)
    adjusted = holm(values)
    assert (adjusted >= given_values).all()
    assert (adjusted <= np.minimum(1, given_values * len(values)) + 1e-12).all()
    order = np.argsort(given_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_compare_pairs_by_object_and_counts_sequences() -> None:
    sequences = np.repeat([f"s{i}" for i in range(20)], 2)
    random = np.random.default_rng(3)
    hard = random.normal(60, 20, 40)  # objects differ by far more than methods do
    scores = {
        "good": hard + 3 + random.normal(0, 1, 40),
        "plain": hard,
        "same": hard + random.normal(0, 1, 40),
    }
    scores["plain"][5] = np.nan
    differences = {(each.first, each.second): each for each in compare(scores, sequences)}
    found = differences["good", "plain"]
    assert found.low < 3 < found.high
    assert found.significant
    assert found.p_value <= found.adjusted
    assert (found.sequences, found.objects) == (20, 39)
    assert found.won + found.lost == 20
    assert not differences["plain", "same"].significant
    assert best(list(differences.values())) == "good"
    only = compare(scores, sequences, against="plain")
    assert [(each.first, each.second) for each in only] == [("good", "plain"), ("same", "plain")]


def test_nobody_is_best_among_equals() -> None:
    scores = {name: np.random.default_rng(4).normal(0, 1, 20) for name in "abc"}
    assert best(compare(scores, np.arange(20))) is None
    assert best(compare({"a": [1.0, 2.0]}, [0, 1])) is None


def test_no_objects_in_common_is_no_difference() -> None:
    (found,) = compare({"a": [1.0, np.nan], "b": [np.nan, 1.0]}, ["s", "t"])
    assert np.isnan(found.difference)
    assert not found.significant
    assert found.objects == 0


# Two-tailed Nemenyi values q(0.05) of Demšar 2006, table 5a.
@pytest.mark.parametrize(
    ("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)]
)
def test_critical_difference_has_the_published_constants(methods: int, q: float) -> None:
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, rel=1e-3)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(3, 12), st.integers(0, 10**6))
def test_ranking_agrees_with_scipys_friedman_test(methods: int, sequences: int, seed: int) -> None:
    table = np.random.default_rng(seed).normal(size=(methods, sequences))
    ranking = rank({f"m{i}": row for i, row in enumerate(table)})
    assert ranking is not None
    assert sum(ranking.ranks.values()) == pytest.approx(methods * (methods + 1) / 2)
    if methods > 2:
        chi = stats.friedmanchisquare(*table).statistic
        f = (sequences - 1) * chi / max(sequences * (methods - 1) - chi, 1e-300)
        expected = stats.f.sf(f, methods - 1, (methods - 1) * (sequences - 1))
        assert ranking.p_value == pytest.approx(expected, abs=1e-9)


def test_groups_hold_what_cannot_be_told_apart() -> None:
    random = np.random.default_rng(5)
    bases = {"a": 9, "b": 9, "c": 0, "d": 0}
    scores = {name: base + random.normal(0, 0.5, 30) for name, base in bases.items()}
    ranking = rank(scores)
    assert ranking is not None
    assert [set(group) for group in ranking.groups] == [{"a", "b"}, {"c", "d"}]
    assert ranking.p_value < 1e-6
    assert rank({"a": [1.0]}) is None
    assert rank({"a": [1.0, np.nan], "b": [1.0, 2.0]}) is None
