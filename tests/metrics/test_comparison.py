"""Statistics of differences, against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.metrics.bootstrap import cluster_bootstrap, cluster_bootstraps
from bench.metrics.comparison import (
    best,
    compare,
    corrected,
    critical_difference,
    holm,
    over_seeds,
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


def test_many_samples_at_once_are_as_one_by_one() -> None:
    random = np.random.default_rng(6)
    samples = []
    for clusters in (8, 8, 5, 1, 12):
        where = np.repeat(np.arange(clusters), random.integers(1, 4, clusters))
        samples.append((random.normal(0.5, 1, len(where)), where))
    for (values, where), found in zip(samples, cluster_bootstraps(samples, 7, 500), strict=True):
        names = np.unique(where)
        assert found.mean == pytest.approx(values.mean())
        if len(names) < 2:
            assert np.isnan(found.p_value)
            continue
        generator, n = np.random.default_rng(7), len(names)
        tail = stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975) * np.sqrt(n / (n - 1))
        means = []
        for times in generator.multinomial(n, np.full(n, 1 / n), size=500):
            drawn = [
                np.tile(values[where == name], t) for name, t in zip(names, times, strict=True)
            ]
            means.append(values.mean() + tail * (np.concatenate(drawn).mean() - values.mean()))
        assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]))
        opposed = min(sum(mean <= 0 for mean in means), sum(mean >= 0 for mean in means))
        assert found.p_value == pytest.approx(min(1, 2 * (opposed + 1) / 501))


@pytest.mark.parametrize("methods", [2, 25])
def test_what_never_fails_is_significant_however_many_are_compared(methods: int) -> None:
    hard = np.random.default_rng(8).normal(60, 20, 20)
    scores = {f"m{place}": hard - place for place in range(methods)}
    differences = compare(scores, np.arange(20))
    pairs = methods * (methods - 1) // 2
    assert {each.compared for each in differences} == {pairs}
    assert all(each.significant and each.at_floor for each in differences)
    assert max(each.adjusted for each in differences) <= 0.005
    assert {round(each.difference, 6) for each in differences} == set(range(1, methods))
    assert best(differences) == "m0"


def test_a_family_of_its_own_is_corrected_for_itself_alone() -> None:
    random = np.random.default_rng(9)
    scores = {
        name: random.normal(shift, 1, 20) for name, shift in zip("abcd", range(4), strict=True)
    }
    every = compare(scores, np.arange(20))
    family = [each for each in every if "a" in (each.first, each.second)]
    alone = corrected(family)
    expected = holm([each.p_value for each in family])
    assert [each.adjusted for each in alone] == pytest.approx(expected)
    assert [each.compared for each in alone] == [3, 3, 3]
    assert all(mine.low == each.low for mine, each in zip(alone, family, strict=True))
    assert any(mine.adjusted < each.adjusted for mine, each in zip(alone, family, strict=True))


def test_a_p_value_above_the_floor_is_no_bound() -> None:
    values = np.random.default_rng(10).normal(0.4, 1, 20)
    (found,) = compare({"a": values, "b": np.zeros(20)}, np.arange(20))
    assert 0.01 < found.p_value < 0.9
    assert not found.at_floor


def test_intervals_over_seeds_cover_as_often_as_they_say() -> None:
    # Three trainings each, of methods whose trainings spread unlike.
    random = np.random.default_rng(11)
    trials = 1500
    ends = np.array(
        [over_seeds(random.normal(3, 1, 3), random.normal(2, 2, 3)) for _ in range(trials)]
    )
    covered = np.mean((ends[:, 0] <= 1) & (ends[:, 1] >= 1))
    assert 0.93 <= covered <= 0.98


def test_without_two_seeds_of_both_nothing_is_said_of_others() -> None:
    assert np.isnan(over_seeds([1.0, 2.0], [3.0])).all()
    assert np.isnan(over_seeds([], [3.0, 4.0])).all()
    assert over_seeds([3.0, 3.0], [1.0, 1.0, 1.0]) == (2.0, 2.0)
    low, high = over_seeds([3.0, 3.0], [1.0, 1.2])
    assert low < 1.9 < high


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1000))
def test_intervals_over_seeds_are_scipys(first: int, second: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    samples = random.normal(50, 2, first), random.normal(45, 5, second)
    expected = stats.ttest_ind(*samples, equal_var=False).confidence_interval(0.95)
    assert over_seeds(*samples) == pytest.approx((expected.low, expected.high))


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
