"""Reports on runs under the semantic protocol: mean IoU, coverage, what was left out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.store import Run, load_run
from reports import print_table
from reports.combine import collect
from reports.files import LISTED
from reports.page import make_page
from reports.results import Results
from reports.semantic import AVERAGED, POOLED, class_lines, classes_csv, semantic_table
from tests.semantic_fakes import run_semantic

MAPPING = """
shared: [cat, dog]
objects: {scene-0: {1: bird, 3: bird}, scene-3: {1: cat, 3: bird}}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A run that knows all, with a second one of two seeds that is a little off."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "classes.yaml").write_text(MAPPING)
    for shift, seeds in ((0, [0]), (3, [0, 1])):
        path = folder / f"shift{shift}"
        run_semantic(
            path,
            {"knowing.shift": shift},
            classes=folder / "classes.yaml",
            names={"knowing": f"Shift {shift}"},
            seeds=seeds,
        )
    return [load_run(folder / name) for name in ("shift0", "shift3")]


@pytest.fixture(scope="module")
def results(runs: list[Run]) -> Results:
    return collect(runs)


def counted(run: Run) -> pd.DataFrame:
    table = run.classes
    assert table is not None
    return table[table["seed"] == 0]


def test_figures_are_those_of_the_counts(runs: list[Run], results: Results) -> None:
    (dataset,) = results.datasets.values()
    best, second = class_lines(results, dataset)
    assert (best.info.label, second.info.label) == ("Shift 0", "Shift 3")
    assert (best.pooled.mean, best.averaged.mean) == (100, 100)
    table = counted(runs[1])
    ious = []
    for name in ("cat", "dog"):
        rows = table[table["class"] == name]
        ious.append(100 * rows["intersection"].sum() / rows["union"].sum())
        assert second.classes[name].mean == pytest.approx(ious[-1])
    assert second.pooled.mean == pytest.approx(np.mean(ious))
    assert math.isnan(second.pooled.sd), "both seeds agree"
    assert math.isnan(best.pooled.sd)
    videos = []
    for _, rows in table[table["object"] > 0].groupby("sequence", observed=True):
        shown = rows[rows["true"] > 0]
        videos.append(100 * float((shown["intersection"] / shown["union"]).mean()))
    assert second.averaged.mean == pytest.approx(np.mean(videos))
    assert 0 < second.averaged.mean < 100
    coverage = table.drop_duplicates("sequence")["coverage"].mean()
    assert second.coverage.mean == pytest.approx(100 * coverage)
    assert (second.sequences, second.expected, second.mark) == (6, 6, "")


def test_sequences_that_share_no_class_are_not_missing(results: Results) -> None:
    (dataset,) = results.datasets.values()
    assert dataset.sequences == ("scene-1", "scene-2", "scene-3")
    assert (results.table["sequences"] == 3).all()
    assert (results.table["sequences_expected"] == 3).all()
    assert (results.table["skipped"] == 0).all()
    assert set(results.comparisons[dataset.key].complete) == {"Shift 0", "Shift 3"}


def test_the_table_says_what_was_left_out(results: Results) -> None:
    (dataset,) = results.datasets.values()
    table = semantic_table(results, dataset)
    assert table is not None
    heads = [head.text for head in table.heads]
    assert heads[:3] == ["Method", POOLED, AVERAGED]
    assert heads[3:] == ["IoU cat", "IoU dog", "IoU background", "Coverage", "Sequences"]
    assert all(len(row.cells) == len(heads) for row in table.rows)
    assert table.rows[0].cells[1].text == "100.0"
    words = " ".join(table.remarks)
    assert "left out: scene-0 (3 sequences kept)" in words
    assert "Coverage below 100 %: scene-3 " in words
    assert "All seeds gave the same scores, which count once: Shift 3." in words
    assert "±" not in " ".join([words, *(cell.text for row in table.rows for cell in row.cells)])


def test_seeds_that_differ_have_a_deviation(results: Results) -> None:
    """As the main table's, the rule looks at scores, so those of one seed are changed as well."""
    (dataset,) = results.datasets.values()
    classes, rows = results.classes.copy(), results.table.copy()
    second = classes["seed"] == 1
    classes.loc[second & (classes["class"] == "cat"), "intersection"] = 0
    rows.loc[rows["seed"] == 1, "J"] -= 5
    other = replace(results, classes=classes, table=rows)
    line = class_lines(other, dataset)[1]
    assert line.info.label == "Shift 3"
    assert line.classes["cat"].sd > 1
    assert line.classes["dog"].sd == 0, "of a row whose seeds differ"
    table = semantic_table(other, dataset)
    assert table is not None
    assert "±: standard deviation over 2 seeds." in table.remarks


def test_rows_stand_in_their_groups(runs: list[Run]) -> None:
    results = collect(runs, {"Shift 0": {"group": "Others"}})
    (dataset,) = results.datasets.values()
    table = semantic_table(results, dataset)
    assert table is not None
    found = [(group, [row.cells[0].text for row in rows]) for group, rows in table.groups]
    assert found == [("", ["Shift 3"]), ("Others", ["Shift 0"])]


def test_the_page_and_the_files(runs: list[Run], results: Results) -> None:
    page, _ = make_page(results, [])
    assert [table.title for table in page.classes] == ["Scenes, val, semantic"]
    facts = page.provenance.facts[0].facts
    (fact,) = (value for name, value in facts if name.startswith("Classes"))
    assert fact.startswith("cat, dog; categories of objects: scene-0 bird, bird")
    assert "classes.yaml" in fact
    reasons = [row for row in page.unfinished if row.sequences == "scene-0"]
    assert {row.status for row in reasons} == {"skipped"}
    text = classes_csv(results)
    assert text is not None
    rows = text.splitlines()
    assert rows[0].startswith("method,variant,dataset,split,task,seed,mIoU_pooled,mIoU_averaged")
    assert len(rows) == 4
    assert LISTED.findall('<a href="classes.csv">') == ["classes.csv"]


def test_the_terminal_has_a_sentence(runs: list[Run]) -> None:
    from rich.console import Console

    console = Console(record=True, width=160)
    print_table(runs[:1], console)
    words = " ".join(console.export_text().split())
    assert "Shift 0: mean IoU 100.0 with pixels pooled, 100.0 averaged over videos" in words


def test_other_protocols_have_none_of_it(tmp_path: Path) -> None:
    run_semantic(tmp_path / "one", protocol="semi-supervised", methods=["shifting"])
    results = collect([load_run(tmp_path / "one")])
    (dataset,) = results.datasets.values()
    assert semantic_table(results, dataset) is None
    assert classes_csv(results) is None
    assert make_page(results, [])[0].classes == []


def test_methods_that_share_other_classes_do_not_compare(tmp_path: Path) -> None:
    for name, text in (("cats", "shared: [cat]\n"), ("dogs", "shared: [dog]\n")):
        (tmp_path / f"{name}.yaml").write_text(text)
        run_semantic(
            tmp_path / name, classes=tmp_path / f"{name}.yaml", names={"knowing": name.title()}
        )
    results = collect([load_run(tmp_path / name) for name in ("cats", "dogs")])
    (dataset,) = results.datasets.values()
    table = semantic_table(results, dataset)
    assert table is not None
    assert "do not compare" in " ".join(table.remarks)
    assert [head.text for head in table.heads][3:6] == ["IoU cat", "IoU dog", "IoU background"]
