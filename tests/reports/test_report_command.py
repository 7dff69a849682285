"""The command `report`: which runs a folder holds, which folder is taken, under which title."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import COPY, MASKS, two, write_run
from typer.testing import CliRunner, Result

from bench.cli import app, main
from bench.cli.pages import newest_results, runs_in
from bench.errors import ConfigError, StoreError
from bench.metrics.rules import RULES
from bench.store import write_json

LOW = replace(COPY, variant="Low", row="Low")
HIGH = replace(MASKS, variant="High", row="High")


def aged(folder: Path, seconds: float) -> None:
    """Let all runs in a folder be this old."""
    for record in folder.rglob("run.json"):
        os.utime(record, (1e9 - seconds, 1e9 - seconds))


def test_runs_of_every_kind_of_folder(tmp_path: Path) -> None:
    for place in ("single", "suite/a", "suite/b", "two/semi-supervised/a", "two/unsupervised/a"):
        write_run(tmp_path / place, [COPY], masks=False)
    (tmp_path / "suite/weights").mkdir()
    (tmp_path / "suite/report").mkdir()
    assert runs_in(tmp_path / "single") == [tmp_path / "single"]
    assert runs_in(tmp_path / "suite") == [tmp_path / "suite/a", tmp_path / "suite/b"]
    assert [run.parent.name for run in runs_in(tmp_path / "two")] == [
        "semi-supervised",
        "unsupervised",
    ]
    with pytest.raises(StoreError, match="no run in it"):
        runs_in(tmp_path / "suite/weights")


def test_the_newest_of_runs_and_suites(tmp_path: Path) -> None:
    places = {"single": 30, "suite/a": 40, "suite/b": 20, "two/unsupervised/a": 10}
    for place, age in places.items():
        write_run(tmp_path / place, [COPY], masks=False)
        aged(tmp_path / place, age)
    assert newest_results(tmp_path) == tmp_path / "two"
    aged(tmp_path / "two", 50)
    assert newest_results(tmp_path) == tmp_path / "suite", "its newest row counts"
    aged(tmp_path / "suite/b", 60)
    assert newest_results(tmp_path) == tmp_path / "single"
    with pytest.raises(StoreError, match="no run"):
        newest_results(tmp_path / "nothing")


def test_report_of_a_suite(tmp_path: Path, call: Callable[..., Result]) -> None:
    """A newer suite is taken before an older run, with its rows' names, its title and its gap."""
    write_run(tmp_path / "runs/old", [replace(COPY, title="Unrelated")], masks=False)
    aged(tmp_path / "runs", 1000)
    suite = tmp_path / "runs/suite"
    write_run(suite / "Low", [LOW], masks=False)
    write_run(suite / "High", [HIGH], masks=False)
    about = {"title": "What labels buy (controlled)", "gap": ["Low", "High"]}
    write_json(suite / "experiment.json", about)
    done = call("report")
    assert done.exit_code == 0
    assert "runs/suite: 2 runs" in done.output
    page = (suite / "report/index.html").read_text()
    assert "<h1>What labels buy (controlled)</h1>" in page
    assert "Unrelated" not in page
    closed = (suite / "report/gap_closed.csv").read_text()
    assert closed.startswith("dataset,split,task,source,oracle")
    differences = (suite / "report/differences.csv").read_text().splitlines()
    assert all(",Low," in line for line in differences[1:]), "all are differences from the source"


def families(folder: Path) -> dict[str, set[str]]:
    """The second methods of each family of differences."""
    table = pd.read_csv(folder / "differences.csv")
    return {str(name): set(group["second"]) for name, group in table.groupby("family")}


def test_a_suites_baseline_groups_and_descriptions(
    tmp_path: Path, call: Callable[..., Result]
) -> None:
    suite = tmp_path / "suite"
    middle = replace(MASKS, name="middle", variant="Middle", row="Middle", jobs=two(0.6, 0.6))
    for name, method in {"Low": LOW, "High": HIGH, "Middle": middle}.items():
        write_run(suite / name, [method], masks=False)
    rows = {"Low": {}, "High": {"group": "Of their own"}, "Middle": {"description": "In between."}}
    about = {"title": "T", "gap": ["Low", "High"], "baseline": "Middle", "rows": rows}
    write_json(suite / "experiment.json", about)
    done = call("report", "suite")
    assert done.exit_code == 0
    assert "Of their own" in done.output
    page = (suite / "report/index.html").read_text()
    assert "In between." in page
    assert "<span>Of their own</span>" in page
    found = families(suite / "report")
    assert found["baseline"] == {"Middle"}
    assert found["all pairs"] == {"Middle", "Low"}
    assert call("report", "suite", "--baseline", "Low", "--out", "other").exit_code == 0
    assert families(tmp_path / "other")["baseline"] == {"Low"}
    write_json(suite / "experiment.json", about | {"baseline": "Never ran", "gap": None})
    done = call("report", "suite", "--out", "third")
    assert done.exit_code == 0
    assert "No baseline: Never ran did not run." in done.output
    assert set(families(tmp_path / "third")) == {"all pairs"}


def test_rows_that_could_not_run_are_on_the_page(tmp_path: Path) -> None:
    lacking = "Theirs: {method: crw, preset: paper, weights: nowhere.pth}"
    (tmp_path / "s.yaml").write_text(
        f"title: As Published\ncomparison: as published\ndata: [synthetic]\n"
        f"rows: {{Copy: {{method: copy}}, {lacking}}}\n"
    )
    out = tmp_path / "out"
    command = ["suite", str(tmp_path / "s.yaml"), "--out", str(out), "--sequences", "easy-0-coffee"]
    assert CliRunner().invoke(app, command).exit_code == 1
    page = (out / "report/index.html").read_text()
    assert re.search(r"Theirs: not finished: [^<]*nowhere\.pth: found no such file", page)
    assert "<title>As Published</title>" in page
    notes = json.loads((out / "experiment.json").read_text())["rows"]
    assert "unfinished" in notes["Theirs"]
    assert "unfinished" not in notes["Copy"]


def test_an_end_that_did_not_run(tmp_path: Path, call: Callable[..., Result]) -> None:
    write_run(tmp_path / "suite/Low", [LOW], masks=False)
    write_json(tmp_path / "suite/experiment.json", {"title": "T", "gap": ["Low", "High"]})
    done = call("report", "suite", "--out", "out")
    assert done.exit_code == 0
    assert "No gap: High did not run." in done.output
    assert not (tmp_path / "out/gap_closed.csv").exists()


def test_costs_of_labels_are_told(tmp_path: Path, call: Callable[..., Result]) -> None:
    write_run(tmp_path / "run", [COPY, MASKS], masks=False)
    done = call("report", "run", "--label-seconds", "saliency=27, mask=158")
    assert done.exit_code == 0
    assert "27 for an outline (instead of 54)" in " ".join(done.output.split())
    hours = pd.read_csv(tmp_path / "run/report/table.csv").set_index("method")["annotation_hours"]
    assert hours["masks"] == pytest.approx((3600 * 27 + 100 * 158) / 3600)
    page = (tmp_path / "run/report/index.html").read_text()
    assert re.search(r'value="27" data-label-kind="saliency"', page)
    assert re.search(r'value="20" data-label-kind="class"', page)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("outline=54", "'outline', no kind of label"),
        ("none=5", "'none', no kind of label"),
        ("", "'', no kind of label"),
        ("mask=-1", "'-1' for mask"),
        ("mask=nan", "'nan' for mask"),
        ("mask=inf", "'inf' for mask"),
        ("mask=many", "'many' for mask"),
        ("mask", "'' for mask"),
        ("mask=1,mask=2", "mask twice"),
    ],
)
def test_wrong_costs_of_labels_leave_nothing(
    given: str,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run", [COPY], masks=False)
    command = ["vos-bench", "report", str(tmp_path / "run"), "--label-seconds", given]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run/report").exists()


def test_costs_of_labels_are_about_runs(call: Callable[..., Result], gap_folder: Path) -> None:
    with pytest.raises(ConfigError, match="--label-seconds"):
        call("report", str(gap_folder), "--label-seconds", "mask=5")


def test_a_folder_without_runs_is_an_error(call: Callable[..., Result]) -> None:
    with pytest.raises(StoreError, match="no run"):
        call("report", "nothing")


def test_help_names_every_rule(call: Callable[..., Result]) -> None:
    text = call("evaluate", "--help").output
    # The box that help stands in breaks lines at hyphens.
    plain = "".join(character for character in text if character.isalpha() or character == "-")
    assert all(rule in plain for rule in RULES)


def test_a_suite_is_recorded_when_it_ran_and_wrong_input_leaves_nothing(
    call: Callable[..., Result], tmp_path: Path
) -> None:
    rows = "rows: {Copy: {method: copy, description: Stands still.}}\nbaseline: Copy"
    two = rows.replace("}}", "}, Again: {method: copy}}")
    (tmp_path / "s.yaml").write_text(f"title: T\ncomparison: controlled\n{two}\ndata: [davis16]")
    (tmp_path / "t.yaml").write_text(
        f"title: T\ncomparison: controlled\n{rows}\ndata: [synthetic]\n"
    )
    wrong = CliRunner().invoke(app, ["suite", "s.yaml", "--root", "nowhere", "--out", "wrong"])
    assert wrong.exit_code != 0
    assert wrong.output.count("not finished") == 1
    assert "All rows: not finished: davis16" in wrong.output
    assert not (tmp_path / "wrong").exists()
    ran = call("suite", "t.yaml", "--out", "right", "--sequences", "easy-0-coffee")
    assert ran.exit_code == 0, ran.output
    record = json.loads((tmp_path / "right" / "experiment.json").read_text())
    assert record == {
        "title": "T (controlled)",
        "gap": None,
        "baseline": "Copy",
        "rows": {"Copy": {"group": "", "description": "Stands still.", "paper": ""}},
    }
    assert "Stands still." in (tmp_path / "right/report/index.html").read_text()
    steps = pd.read_csv(tmp_path / "right/report/table.csv")["training_steps"]
    assert steps.tolist() == [0], "known of what was never trained"
