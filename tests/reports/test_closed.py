"""The share of a gap that methods close, on scores whose answer is known."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_runs import FakeJob, FakeMethod, Maker

import reports
from bench.errors import ConfigError
from reports.closed import find_gaps, gap_figure, gap_table, gaps_csv
from reports.combine import collect
from reports.results import Results

NAMES = [f"s{number}" for number in range(6)]
LEVELS = np.linspace(0.3, 0.5, 6)
SEEDS = (0, 1, 2)


def trained(name: str, gains: dict[int, float], wobble: float = 0.0) -> FakeMethod:
    """One object per sequence, J = F = level + the seed's gain, +- a wobble from video to video."""
    turns = wobble * np.array([1, -1] * 3)
    jobs = [
        FakeJob(sequence, {1: (float(value), float(value), None)}, seed=seed)
        for seed, gain in gains.items()
        for sequence, value in zip(NAMES, LEVELS + gain + turns, strict=True)
    ]
    return FakeMethod(name, jobs)


@pytest.fixture
def results(make_run: Maker) -> Results:
    """Source at 40, oracle 20 above it; half closes 10 of them, in two seeds 8 and 12."""
    seed_noise = {0: 0.0, 1: 0.05, 2: -0.05}  # the same for all: it must cancel
    methods = [
        trained("source", seed_noise),
        trained("oracle", {seed: 0.2 + noise for seed, noise in seed_noise.items()}),
        trained("half", {0: 0.08, 1: 0.15, 2: 0.07}, wobble=0.02),
        trained("nothing", seed_noise),
    ]
    return collect([make_run("one", methods, sequences=NAMES, masks=False)])


def test_known_shares(results: Results) -> None:
    (gap,), notes = find_gaps(results, "source", "oracle")
    assert notes == []
    assert (gap.source, gap.oracle) == ("Source", "Oracle")
    assert [(end.mean, end.sd) for end in gap.ends] == [pytest.approx((40, 5)), (60, 5)]
    rows = {row.label: row for row in gap.rows}
    assert set(rows) == {"Half", "Nothing"}
    half = rows["Half"]
    assert half.score.mean == pytest.approx(50)
    assert half.seeds == 3
    assert half.over_seeds.value == pytest.approx(0.5)
    assert half.over_sequences.value == pytest.approx(0.5)
    # Gains of 8, 10 and 12 points on a gap of 20 without noise: a t interval with 2 degrees.
    spread = 4.302653 * 2 / 3**0.5 / 20
    assert half.over_seeds.interval == pytest.approx((0.5 - spread, 0.5 + spread), rel=1e-5)
    over_videos = 2.570582 * np.std([2, -2] * 3, ddof=1) / 6**0.5 / 20
    assert half.over_sequences.interval == pytest.approx(
        (0.5 - over_videos, 0.5 + over_videos), rel=1e-5
    )
    assert rows["Nothing"].over_seeds.value == pytest.approx(0, abs=1e-9)


def test_shares_are_those_of_the_means_over_objects(make_run: Maker) -> None:
    """A sequence of nine objects counts nine times, as it does in J&F."""

    def of(name: str, one: float, nine: float) -> FakeMethod:
        jobs = []
        for place, sequence in enumerate(NAMES):
            objects = range(1, 2 if place % 2 else 10)
            value = one if place % 2 else nine
            jobs.append(FakeJob(sequence, dict.fromkeys(objects, (value, value, None))))
        return FakeMethod(name, jobs)

    methods = [of("source", 0.2, 0.2), of("oracle", 0.6, 0.65), of("some", 0.6, 0.3)]
    results = collect([make_run("one", methods, sequences=NAMES, masks=False)])
    (gap,), _ = find_gaps(results, "source", "oracle")
    (row,) = gap.rows
    assert row.score.mean == pytest.approx((60 + 9 * 30) / 10)
    expected = (0.4 + 9 * 0.1) / (0.4 + 9 * 0.45)
    assert row.over_seeds.value == pytest.approx(expected)
    assert row.over_sequences.value == pytest.approx(expected)
    assert row.over_seeds.interval is None


def test_methods_of_other_seeds_or_fewer_sequences(make_run: Maker) -> None:
    source, oracle = trained("source", {0: 0.0}), trained("oracle", {0: 0.2})
    half = trained("half", {1: 0.1})
    results = collect([make_run("one", [source, oracle, half], sequences=NAMES, masks=False)])
    (gap,), _ = find_gaps(results, "source", "oracle")
    table = gap_table(results, gap)
    assert [cell.text for cell in table.rows[2].cells][2:4] == ["50", "–"]
    assert list(table.remarks) == ["Half, over seeds: No seed in all three."]
    short = FakeMethod("oracle", oracle.jobs[:-1])
    results = collect([make_run("two", [source, short, half], sequences=NAMES, masks=False)])
    gaps, notes = find_gaps(results, "source", "oracle")
    assert gaps == []
    assert len(notes) == 1
    assert "Oracle lacks sequences" in notes[0]


def test_table_figure_and_file_show_the_same(results: Results) -> None:
    gaps, _ = find_gaps(results, "source", "oracle")
    table = gap_table(results, gaps[0])
    texts = [[cell.text for cell in row.cells] for row in table.rows]
    assert texts[0][:3] == ["Source", "40.0 ± 5.0", "0"]
    assert texts[1][:3] == ["Oracle", "60.0 ± 5.0", "100"]
    assert texts[2][:4] == ["Half", "50.0 ± 4.4", "50", "25 to 75"]
    frame = pd.read_csv(io.StringIO(gaps_csv(gaps)))
    assert frame["method"].tolist() == ["Half", "Nothing"]
    assert frame["closed_over_seeds"].tolist() == pytest.approx([0.5, 0], abs=1e-9)
    drawing = gap_figure(results, gaps[0])
    assert drawing is not None
    assert "Half" in drawing.svg


def test_seeds_that_agree_count_once(make_run: Maker) -> None:
    """Three runs of one training say nothing about other trainings."""
    still = dict.fromkeys(SEEDS, 0.0)
    source, oracle = trained("source", still), trained("oracle", dict.fromkeys(SEEDS, 0.2))
    half = trained("half", dict.fromkeys(SEEDS, 0.1), wobble=0.02)
    noisy = trained("noisy", {0: 0.08, 1: 0.15, 2: 0.07})
    run = make_run("one", [source, oracle, half, noisy], sequences=NAMES, masks=False)
    results = collect([run])
    (gap,), _ = find_gaps(results, "source", "oracle")
    rows = {row.label: row for row in gap.rows}
    assert (rows["Half"].seeds, rows["Noisy"].seeds) == (1, 3)
    assert np.isnan(rows["Half"].score.sd)
    assert rows["Half"].over_seeds.value == pytest.approx(0.5)
    assert rows["Half"].over_seeds.interval is None
    assert rows["Noisy"].over_seeds.interval is not None
    table = gap_table(results, gap)
    texts = {row.cells[0].text: [cell.text for cell in row.cells[1:4]] for row in table.rows}
    assert texts["Source"] == ["40.0", "0", "–"]
    assert texts["Half"] == ["50.0", "50", "–"]
    assert texts["Noisy"][0] == "50.0 ± 4.4"
    same = "All seeds gave the same scores, which count once: Half, Oracle, Source."
    assert same in table.remarks


def test_rows_stand_in_their_groups(make_run: Maker) -> None:
    """The source has a group of its own; in it, it stands before a method of a lower name."""
    methods = [
        replace(trained(name, {0: gain}), variant=name, row=name)
        for name, gain in {"a": 0.1, "b": 0.05, "source": 0.0, "oracle": 0.2, "z": 0.15}.items()
    ]
    rows = {name: {"group": "Others"} for name in ("a", "source")}
    run = make_run("one", methods, sequences=NAMES, masks=False)
    results = collect([run], rows)
    (gap,), _ = find_gaps(results, "source", "oracle")
    found = [
        (group, [row.cells[0].text for row in members])
        for group, members in gap_table(results, gap).groups
    ]
    assert found == [("", ["oracle", "b", "z"]), ("Others", ["source", "a"])]
    drawing = gap_figure(results, gap)
    assert drawing is not None
    assert "Below the line: “Others”." in drawing.text
    assert [row.label for row in gap.rows] == ["b", "z", "a"]


def test_no_gap_no_share(results: Results) -> None:
    (gap,), _ = find_gaps(results, "source", "nothing")
    assert all(np.isnan(row.over_seeds.value) for row in gap.rows)
    assert gap_figure(results, gap) is None
    table = gap_table(results, gap)
    assert [row.cells[2].text for row in table.rows[2:]] == ["–", "–"]
    assert any("not above the noise" in remark for remark in table.remarks)


def test_ends_must_be_two_methods_of_the_runs(results: Results) -> None:
    with pytest.raises(ConfigError, match="no such method"):
        find_gaps(results, "source", "orakel")
    with pytest.raises(ConfigError, match="another method"):
        find_gaps(results, "source", "source")


def test_the_page_has_the_section_only_where_a_gap_is_asked_for(
    results: Results, tmp_path: pytest.TempPathFactory
) -> None:
    plain = reports.build(results.runs, tmp_path / "plain")
    assert 'id="closed"' not in plain.page.read_text()
    assert plain.gaps is None
    files = reports.build(results.runs, tmp_path / "gap", gap=("source", "oracle"))
    page = files.page.read_text()
    assert 'id="closed"' in page
    assert "25 to 75" in page
    assert files.gaps is not None
    assert files.gaps.name == "gap_closed.csv"
    assert any("gap-closed" in figure.name for figure in files.figures)
