"""Differences, bold cells and ranks, on scores whose answer is known."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import FakeJob, FakeMethod, Maker
from scipy import stats

from bench.errors import ConfigError
from reports import build
from reports.combine import collect
from reports.comparison_figures import differences, ranks
from reports.comparisons import (
    against,
    baseline_label,
    differences_csv,
    interval,
    object_scores,
    probability,
    signed,
)
from reports.lines import lines_of
from reports.page_tables import cost_table, difference_table, result_table
from reports.results import Results
from reports.tables import table_markdown

NAMES = [f"s{number}" for number in range(8)]
LEVELS = np.linspace(0.2, 0.6, 8)


def method(name: str, scores: np.ndarray, seed: int = 0, names: list[str] = NAMES) -> FakeMethod:
    """One object per sequence, J = F."""
    jobs = [
        FakeJob(sequence, {1: (float(value), float(value), None)}, seed=seed)
        for sequence, value in zip(names, scores, strict=True)
    ]
    return FakeMethod(name, jobs)


def results_of(make_run: Maker, methods: Mapping[str, np.ndarray]) -> Results:
    fakes = [method(name, scores) for name, scores in methods.items()]
    return collect([make_run("one", fakes, sequences=NAMES, masks=False)])


@pytest.fixture
def clear(make_run: Maker) -> Results:
    """A is 20 points better than B everywhere; C is now better, now worse than B by as much."""
    wobble = np.array([0.03, -0.03] * 4)
    return results_of(make_run, {"a": LEVELS + 0.2, "b": LEVELS, "c": LEVELS + wobble})


def test_known_differences(clear: Results) -> None:
    (comparison,) = clear.comparisons.values()
    assert comparison.complete[0] == "A"
    assert comparison.best == dict.fromkeys(["J&F", "J", "F"], ("A",))
    top, found = against(clear, comparison)
    assert top == "A"
    by_name = {each.first: each for each in found}
    b = by_name["B"]
    assert (b.difference, b.low, b.high) == pytest.approx((-20, -20, -20))
    assert (b.won, b.lost, b.sequences, b.significant) == (0, 8, 8, True)
    assert by_name["C"].difference == pytest.approx(-20)
    assert by_name["C"].low < -20 < by_name["C"].high
    assert comparison.ranking is not None
    assert comparison.ranking.ranks == {"A": 1.0, "B": 2.5, "C": 2.5}
    assert comparison.ranking.groups == (("B", "C"),)


def test_bold_only_where_significantly_best(clear: Results, make_run: Maker) -> None:
    (dataset,) = clear.datasets.values()
    bold = {
        (line.info.label, name)
        for line in lines_of(clear, dataset)
        for name, number in line.numbers.items()
        if number.best
    }
    assert bold == {("A", "J&F"), ("A", "J"), ("A", "F")}
    assert "Bold: significantly better" in result_table(clear, dataset).caption
    assert table_markdown(clear).count("**") == 6


def test_nothing_is_bold_without_a_winner(make_run: Maker) -> None:
    wobble = np.array([0.05, -0.04] * 4)
    results = results_of(make_run, {"b": LEVELS, "c": LEVELS + wobble})
    (dataset,) = results.datasets.values()
    (comparison,) = results.comparisons.values()
    # C has the better mean, which proves nothing.
    assert comparison.complete[0] == "C"
    assert comparison.best == dict.fromkeys(["J&F", "J", "F"], ())
    assert not any(n.best for line in lines_of(results, dataset) for n in line.numbers.values())
    assert "Nothing is bold" in result_table(results, dataset).caption
    assert "**" not in table_markdown(results)


def test_partial_methods_are_not_compared(make_run: Maker) -> None:
    fakes = [method("a", LEVELS), method("b", LEVELS[:4] + 0.3, names=NAMES[:4])]
    results = collect([make_run("one", fakes, sequences=NAMES, masks=False)])
    (comparison,) = results.comparisons.values()
    (dataset,) = results.datasets.values()
    assert (comparison.complete, comparison.partial) == (("A",), ("B",))
    assert comparison.ranking is None
    assert difference_table(results, dataset, None) is None


def test_a_partial_method_alone_is_reported_all_the_same(make_run: Maker, tmp_path: Path) -> None:
    run = make_run("one", [method("a", LEVELS[:4], names=NAMES[:4])], sequences=NAMES, masks=False)
    (comparison,) = collect([run]).comparisons.values()
    assert (comparison.complete, comparison.partial) == ((), ("A",))
    assert comparison.best == dict.fromkeys(["J&F", "J", "F"], ())
    assert build([run], tmp_path / "report").page.is_file()


def test_seeds_are_averaged_before_comparing(make_run: Maker) -> None:
    jobs = [*method("a", LEVELS + 0.1).jobs, *method("a", LEVELS - 0.1, seed=1).jobs]
    fakes = [FakeMethod("a", jobs), method("b", LEVELS)]
    results = collect([make_run("one", fakes, sequences=NAMES, masks=False)])
    (comparison,) = results.comparisons.values()
    (each,) = comparison.pairs["J&F"]
    assert each.difference == pytest.approx(0, abs=1e-9)
    assert each.objects == 8


def repeated(name: str, *shifts: float) -> FakeMethod:
    """A method whose seeds differ by a shift of all scores."""
    jobs = [job for seed, by in enumerate(shifts) for job in method(name, LEVELS + by, seed).jobs]
    return FakeMethod(name, jobs)


def test_intervals_over_seeds(make_run: Maker) -> None:
    fakes = [repeated("a", 0.1, 0.12, 0.14), repeated("b", 0.0, 0.04), method("c", LEVELS)]
    fakes.append(repeated("d", 0.05, 0.05))  # one file of weights, run twice
    results = collect([make_run("one", fakes, sequences=NAMES, masks=False)])
    (dataset,) = results.datasets.values()
    (comparison,) = results.comparisons.values()
    by_names = {(each.first, each.second): each for each in comparison.pairs["J&F"]}
    low, high = comparison.over_seeds(by_names["A", "B"])
    # By hand, in points: variances of the means of 3 and 2 seeds.
    a, b = 4 / 3, 8 / 2
    freedom = (a + b) ** 2 / (a**2 / 2 + b**2 / 1)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(a + b)
    assert (low, high) == pytest.approx((10 - half, 10 + half))
    assert all(np.isnan(comparison.over_seeds(by_names["A", name])).all() for name in "CD")
    assert [len(comparison.of_seeds["J"][name]) for name in "ABCD"] == [3, 2, 1, 1]

    table = pd.read_csv(io.StringIO(differences_csv(results)))
    row = table[(table["first"] == "A") & (table["second"] == "B")].iloc[0]
    assert (row["over_seeds_low"], row["over_seeds_high"]) == pytest.approx((low, high))
    assert (row["first_seeds"], row["second_seeds"]) == (3, 2)
    shown = difference_table(results, dataset, "B")
    assert shown is not None
    place = [head.text for head in shown.heads].index("95 %, over seeds")
    # In the figure, three small marks of A and none of the others, each minus the mean of B.
    drawing = differences(results, comparison, "B")
    assert "Small triangles: single seeds" in drawing.text
    triangle = re.search(r'id="(\w+)" d="M 0 -1\.73', drawing.svg)
    assert triangle is not None
    assert drawing.svg.count(f'"#{triangle[1]}"') == 3
    cells = {row.cells[0].text: row.cells[place].text for row in shown.rows}
    assert cells == {"A": interval(low, high), "C": "–", "D": "–"}


def test_without_repeated_trainings_there_is_no_column_of_seeds(clear: Results) -> None:
    (dataset,) = clear.datasets.values()
    table = difference_table(clear, dataset, None)
    assert table is not None
    assert not any("seeds" in head.text for head in table.heads)


def test_object_scores_against_a_plain_loop(clear: Results) -> None:
    (dataset,) = clear.datasets.values()
    scores, sequences = object_scores(clear, dataset, "J")
    assert sequences.tolist() == NAMES
    for label, values in scores.items():
        rows = clear.scores[clear.scores["method"] == label.lower()]
        for name, value in zip(NAMES, values, strict=True):
            mine = rows[(rows["sequence"] == name) & (rows["metric"] == "J")]
            assert value == pytest.approx(100 * mine["value"].mean())


def test_a_chosen_baseline_is_tested_alone(clear: Results) -> None:
    (comparison,) = clear.comparisons.values()
    label = baseline_label(clear, "b")
    assert label == "B"
    name, found = against(clear, comparison, label)
    assert (name, [each.first for each in found]) == ("B", ["A", "C"])
    assert found[0].difference == pytest.approx(20)
    # Two comparisons instead of three are corrected for.
    assert found[0].adjusted == pytest.approx(2 * found[0].p_value)
    table = difference_table(clear, comparison.dataset, label)
    assert table is not None
    assert table.caption.startswith("Each method minus B")
    with pytest.raises(ConfigError, match="no such method"):
        baseline_label(clear, "nobody")


@pytest.fixture
def grouped(make_run: Maker) -> Results:
    """Rows of a suite: A far above B above C, and X far above Y in a group of their own."""
    wobble = np.array([0.02, -0.02, 0.01, -0.01] * 2)
    scores = {"C": LEVELS - 0.15, "A": LEVELS + 0.1, "Y": LEVELS + 0.15, "B": LEVELS + wobble}
    scores["X"] = LEVELS + 0.3
    fakes = [
        replace(method(name.lower(), each), row=name, variant=name) for name, each in scores.items()
    ]
    rows = {name: {"group": "Encoders of their own" if name in "XY" else ""} for name in scores}
    return collect([make_run("one", fakes, sequences=NAMES, masks=False)], rows)


def test_groups_stand_apart_and_are_ranked_and_marked_apart(grouped: Results) -> None:
    (comparison,) = grouped.comparisons.values()
    (dataset,) = grouped.datasets.values()
    assert grouped.groups == ("", "Encoders of their own")
    assert comparison.complete == ("X", "Y", "A", "B", "C"), "the best of all first"
    lines = lines_of(grouped, dataset)
    assert [line.info.label for line in lines] == ["A", "B", "C", "X", "Y"]
    assert {line.info.label for line in lines if line.numbers["J&F"].best} == {"A", "X"}
    assert comparison.ranking is not None
    assert comparison.ranking.ranks == {"A": 1.0, "B": 2.0, "C": 3.0}
    assert "of its group" in result_table(grouped, dataset).caption
    assert "Not ranked: “Encoders of their own”." in ranks(grouped, comparison).text
    for table in (result_table(grouped, dataset), cost_table(grouped, dataset)):
        shown = [(group, [row.cells[0].text for row in rows]) for group, rows in table.groups]
        assert shown == [("", ["A", "B", "C"]), ("Encoders of their own", ["X", "Y"])]


def test_differences_of_groups(grouped: Results) -> None:
    (comparison,) = grouped.comparisons.values()
    top, found = against(grouped, comparison)
    assert (top, [each.first for each in found]) == ("A", ["B", "C", "X", "Y"])
    drawing = differences(grouped, comparison)
    assert "which has the best mean of the rows without a group" in drawing.text
    assert "for these trainings; of other trainings they say nothing" in drawing.text
    assert "Below the line: “Encoders of their own”." in drawing.text
    table = difference_table(grouped, comparison.dataset, "C")
    assert table is not None
    assert [group for group, _ in table.groups] == ["", "Encoders of their own"]
    assert [row.cells[0].text for row in table.rows] == ["A", "B", "X", "Y"]


def test_differences_csv(clear: Results) -> None:
    table = pd.read_csv(io.StringIO(differences_csv(clear)))
    assert len(table) == 3 * 3, "three pairs in three scores"
    assert set(table["score"]) == {"J&F", "J", "F"}
    row = table[(table["first"] == "A") & (table["second"] == "B")].iloc[0]
    assert row["difference"] == pytest.approx(20)
    assert bool(row["significant"])
    assert row["adjusted"] >= row["p_value"]
    assert set(table["family"]) == {"all pairs"}
    both = pd.read_csv(io.StringIO(differences_csv(clear, "B")))
    baseline = both[both["family"] == "baseline"]
    assert set(baseline["second"]) == {"B"}
    assert set(baseline["compared"]) == {2}
    rest = both[both["family"] == "all pairs"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, table)
    # The same test told the other way round, and corrected for fewer.
    chosen = baseline[(baseline["first"] == "A") & (baseline["score"] == "J&F")].iloc[0]
    assert chosen["p_value"] == row["p_value"]
    assert chosen["adjusted"] < row["adjusted"]


def test_words(clear: Results) -> None:
    assert [signed(value) for value in (1.25, -0.41, -0.01, np.nan)] == ["+1.2", "−0.4", "0.0", "–"]
    assert [probability(v) for v in (0.0311, 1e-5, np.nan)] == ["0.031", "< 0.001", "–"]
    bounds = [probability(v, at_most=True) for v in (0.0041, 0.005, 0.0002, np.nan)]
    assert bounds == ["≤ 0.005", "≤ 0.005", "< 0.001", "–"]
    (comparison,) = clear.comparisons.values()
    b = next(each for each in against(clear, comparison)[1] if each.first == "B")
    assert interval(b.low, b.high) == "−20.0 to −20.0"
    assert interval(np.nan, np.nan) == ""
