"""Ablations and suites: rows that are trained where they need it, run, and continued."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from bench.ablate import load_ablation
from bench.ablate import rows_of as rows_of_ablation
from bench.config import RunConfig
from bench.errors import ConfigError
from bench.experiment import Row, RowTraining, row_notes, run_rows, text
from bench.method import FromCheckpoint, LabelRegime, MethodCard, MethodSettings, Trainable
from bench.registry import register_method
from bench.store import load_run, read_json
from bench.suite import load_suite, rows_of
from bench.training import read_weights
from tests.bench.test_training import Line, task
from tests.fakes import FakeSettings, Scenes, Shifting

TRAINED: list[tuple[int, float]] = []
"""Seed and learning rate of every training that ran."""


class LearnerTraining(MethodSettings):
    learning_rate: float = 0.1


@register_method("learner")
class Learner(Shifting, FromCheckpoint, Trainable):
    """Shifts by what it has learned, which is nothing useful."""

    card = MethodCard("learner", "Learner", "For tests.", LabelRegime(images=1))
    Settings = FakeSettings
    TrainingSettings = LearnerTraining

    def __init__(self, settings, context):
        super().__init__(settings, context)
        assert context.weights is not None
        self.load(context.weights)

    def load(self, path: Path) -> None:
        self.weights = read_weights(path)

    @classmethod
    def why_not(cls, settings, context):
        return None if context.weights else "no weights"

    @classmethod
    def training_task(cls, settings, training, data: Sequence[Any], request):
        TRAINED.append((request.seed, training.learning_rate))
        model = Line()
        torch.nn.init.constant_(model.layer.bias, request.seed)
        return task(model, learning_rate=training.learning_rate)


@contextlib.contextmanager
def watching(name: str) -> Iterator[Any]:
    yield lambda progress: None


@pytest.fixture(autouse=True)
def _fresh() -> None:
    TRAINED.clear()
    assert Scenes.name == "scenes"


SUITE = """
title: What labels buy
comparison: controlled
data: [scenes]
seeds: [0, 1]
rows:
  Stands still:
    method: shifting
    seeds: [0]
  Moves:
    method: shifting
    set: {shift: 2}
    seeds: [0]
  Learns:
    method: learner
    training: {data: [scenes], budget: 3it, set: {learning_rate: 0.05}}
"""


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def run(rows: list[Row], out: Path, **changes: Any) -> Any:
    options = RunConfig(**({"data": ["scenes"], "workers": 1, "engine": "serial"} | changes))
    return run_rows(rows, options, out, watching)


def test_a_suite_trains_and_runs_its_rows_once_per_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "suite.yaml", SUITE)
    rows = rows_of(load_suite(path), path)
    outcomes = run(rows, tmp_path / "out", seeds=[0, 1])
    assert [outcome.reason for outcome in outcomes] == [None, None, None]
    assert TRAINED == [(0, 0.05), (1, 0.05)]
    assert [len(outcome.runs) for outcome in outcomes] == [1, 1, 2]
    scores = pd.concat([load_run(path).scores for o in outcomes for path in o.runs])
    rows_found = scores.groupby(["variant", "seed"], observed=True).size().index.tolist()
    assert rows_found == [("Learns", 0), ("Learns", 1), ("Moves", 0), ("Stands still", 0)]
    weights = [
        read_weights(tmp_path / f"out/weights/Learns{end}.safetensors") for end in ("", ".seed1")
    ]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_trainings_that_were_repeated_are_seeds_of_one_row(tmp_path: Path) -> None:
    path = write(tmp_path / "suite.yaml", SUITE)
    run(rows_of(load_suite(path), path), tmp_path / "out", seeds=[0, 1])
    trained = tmp_path / "out/weights"
    named = "weights: {0: out/weights/Learns.safetensors, 1: out/weights/Learns.seed1.safetensors}"
    training = "training: {data: [scenes], budget: 3it, set: {learning_rate: 0.05}}"
    write(path, SUITE.replace(training, named).replace("seeds: [0, 1]", "seeds: [5]"))
    TRAINED.clear()
    *_, row = rows_of(load_suite(path), path)
    [learns] = run([row], tmp_path / "again", seeds=[5])
    assert TRAINED == []
    assert [folder.name for folder in learns.runs] == ["Learns", "Learns.seed1"]
    for seed, (folder, file) in enumerate(
        zip(learns.runs, ("Learns.safetensors", "Learns.seed1.safetensors"), strict=True)
    ):
        jobs = read_json(folder / "plan.json")["jobs"]
        assert {(job["seed"], job["weights"]) for job in jobs} == {(seed, str(trained / file))}
        assert set(load_run(folder).scores["variant"]) == {"Learns"}


def test_seeds_can_be_added_to_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "suite.yaml", SUITE)
    rows = rows_of(load_suite(path), path)[:2]
    run(rows, tmp_path / "out")
    write(
        path, SUITE.replace("set: {shift: 2}\n    seeds: [0]", "set: {shift: 2}\n    seeds: [0, 1]")
    )
    [stands, moves] = run(rows_of(load_suite(path), path)[:2], tmp_path / "out")
    assert (stands.reason, moves.reason) == (None, None)
    assert set(load_run(moves.runs[0]).scores["seed"]) == {0, 1}


def test_rows_keep_what_is_told_of_them(tmp_path: Path) -> None:
    told = "  Learns:\n    group: Others\n    description: It learns.\n    paper: A. 2020\n"
    path = write(tmp_path / "suite.yaml", SUITE.replace("  Learns:\n", told))
    assert row_notes(rows_of(load_suite(path), path)) == {
        "Stands still": {"group": "", "description": "", "paper": ""},
        "Moves": {"group": "", "description": "", "paper": ""},
        "Learns": {"group": "Others", "description": "It learns.", "paper": "A. 2020"},
    }


def test_the_same_again_computes_nothing_and_a_new_row_only_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "suite.yaml", SUITE)
    out = tmp_path / "out"
    run(rows_of(load_suite(path), path), out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("scores.parquet")}
    assert before
    longer = SUITE + "  Moves more:\n    method: shifting\n    set: {shift: 4}\n"
    path.write_text(longer)
    TRAINED.clear()
    outcomes = run(rows_of(load_suite(path), path), out)
    assert TRAINED == []
    assert len(outcomes) == 4
    jobs = [load_run(outcome.runs[0]).jobs for outcome in outcomes]
    assert all((table["status"] == "done").all() for table in jobs)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("budget: 3it", "budget: 4it", "other budget"),
        ("learning_rate: 0.05", "learning_rate: 0.02", "other training"),
        ("budget: 3it", "budget: 3it, amp: true", "other amp"),
    ],
)
def test_weights_of_another_training_are_not_taken_for_a_rows(
    tmp_path: Path, old: str, new: str, named: str
) -> None:
    path = write(tmp_path / "suite.yaml", SUITE)
    run(rows_of(load_suite(path), path), tmp_path / "out")
    before = [*TRAINED]
    write(path, SUITE.replace(old, new))
    *others, learns = run(rows_of(load_suite(path), path), tmp_path / "out")
    assert [each.reason for each in others] == [None, None]
    assert named in learns.reason
    assert "Learns.json" in learns.reason
    write(path, SUITE)
    outcomes = run(rows_of(load_suite(path), path), tmp_path / "out")
    assert [each.reason for each in outcomes] == [None] * 3
    assert before == TRAINED


def test_a_value_stands_on_one_line() -> None:
    value = {f"key {number}": ["a long value", number] for number in range(30)}
    assert "\n" not in text(value)
    assert yaml.safe_load(text(value)) == value


def test_protocols_share_trainings(tmp_path: Path) -> None:
    protocols = "protocols: [semi-supervised, unsupervised]\n"
    path = write(tmp_path / "suite.yaml", SUITE.replace("seeds: [0, 1]\n", protocols, 1))
    config = load_suite(path)
    assert config.protocols == ["semi-supervised", "unsupervised"]
    for protocol in config.protocols:
        options = RunConfig(data=["scenes"], workers=1, engine="serial", protocol=protocol)
        runs = tmp_path / protocol
        outcomes = run_rows(rows_of(config, path), options, tmp_path, watching, runs_folder=runs)
        assert [len(outcome.runs) for outcome in outcomes] == [1, 1, 1]
        assert {run.parent for outcome in outcomes for run in outcome.runs} == {runs}
    assert TRAINED == [(0, 0.05)]
    assert (tmp_path / "weights/Learns.safetensors").is_file()


def test_a_row_that_cannot_run_says_why_and_stops_no_other(tmp_path: Path) -> None:
    rows = [
        Row("fails", "failing"),
        Row("elsewhere", "elsewhere"),
        Row("no such data", "learner", training=RowTraining(["nothing"], "1it")),
        Row("fine", "shifting"),
    ]
    outcomes = run(rows, tmp_path)
    reasons = [outcome.reason for outcome in outcomes]
    assert reasons[0] == "2 of 4 jobs failed"
    assert reasons[1] == "it needs a machine that is not there"
    assert "nothing" in reasons[2]
    assert reasons[3] is None


def test_an_ablation_trains_only_combinations_that_need_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ablation.yaml",
        """
title: How fast to learn
method: learner
data: [scenes]
grid: {training.learning_rate: [0.1, 0.01]}
training: {data: [scenes], budget: 2it}
""",
    )
    rows = rows_of_ablation(load_ablation(path))
    assert [row.name for row in rows] == [
        "training.learning_rate=0.1",
        "training.learning_rate=0.01",
    ]
    run(rows, tmp_path / "out", seeds=[3])
    assert TRAINED == [(3, 0.1), (3, 0.01)]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("shift: 2", "shft: 2", "rows.Moves.set.shft"),
        ("learning_rate", "lerning_rate", "rows.Learns.training.set.lerning_rate"),
        ("controlled", "fair", "comparison"),
        ("seeds: [0, 1]", "gap: {source: Moves, oracle: Learned}", "gap"),
        ("seeds: [0, 1]", "gap: {source: Moves, oracle: Moves}", "one row as both ends"),
        ("seeds: [0, 1]", "baseline: Learned", "baseline"),
        ("method: ", "group: Others\n    method: ", "a group for every row"),
        ("method: learner", "method: shifting", "rows.Learns.training"),
        ("training: {", "weights: {0: a.safetensors}\n    training: {", "and training"),
        ("set: {shift: 2}", "weights: {0: a.safetensors}", "and seeds"),
        ("set: {shift: 2}", "weights: {}", "rows.Moves.weights"),
        ("  Moves:", "  Stands-still:", None),
        ("  Moves:", "  Stands_still:", "rows.Stands still"),
    ],
)
def test_wrong_suites_name_the_key(tmp_path: Path, old: str, new: str, named: str | None) -> None:
    path = write(tmp_path / "suite.yaml", SUITE.replace(old, new))
    if named is None:
        load_suite(path)
        return
    with pytest.raises(ConfigError, match=named):
        load_suite(path)
