"""Grids over settings of the data, the preset and the training's budget, beside the method's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.ablate import check_data, combinations, load_ablation, rows_of
from bench.cli import main
from bench.cli.pages import EXPERIMENT
from bench.config import CONFIGS, RunConfig
from bench.experiment import Outcome, run_rows
from bench.store import load_run, read_json, write_json
from reports.combine import collect
from tests.bench.test_experiment import TRAINED, Learner, watching
from tests.fakes import Scenes, Shifting

DATA = """
title: Long and short videos
method: shifting
data: [scenes]
base: {scenes.sequences: 2}
grid:
  scenes.length: [4, 6]
  shift: [0, 2]
"""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    TRAINED.clear()
    assert (Scenes.name, Shifting.card.name, Learner.card.name) == ("scenes", "shifting", "learner")


def ablate(content: str, folder: Path) -> list[Outcome]:
    """Run an ablation in ``folder/out``."""
    path = folder / "ablation.yaml"
    path.write_text(content)
    config = load_ablation(path)
    options = RunConfig(data=config.data, workers=1, engine="serial")
    outcomes = run_rows(rows_of(config), options, folder / "out", watching)
    assert [each.reason for each in outcomes] == [None] * len(outcomes)
    return outcomes


def test_settings_of_the_data_make_tables_of_their_own(tmp_path: Path) -> None:
    outcomes = ablate(DATA, tmp_path)
    assert [each.row.name for each in outcomes] == [
        "scenes.length=4,shift=0",
        "scenes.length=4,shift=2",
        "scenes.length=6,shift=0",
        "scenes.length=6,shift=2",
    ]
    assert [each.runs[0].name for each in outcomes] == [each.row.name for each in outcomes]
    results = collect([load_run(path) for each in outcomes for path in each.runs])
    assert not results.notes
    labels = {info.label for info in results.methods.values()}
    assert labels == {"shift=0", "shift=2"}
    frames = {}
    for key, dataset in results.datasets.items():
        # Differences are taken on the same frames alone.
        (pair,) = results.comparisons[key].pairs["J&F"]
        assert {pair.first, pair.second} == labels
        frames[dataset.label] = set(dataset.rows(results.objects)["frames"])
        assert len(dataset.sequences) == 2
    # The first frame is given and the last is not scored.
    assert frames == {
        "Scenes, val, sequences=2,length=4": {2},
        "Scenes, val, sequences=2,length=6": {4},
    }


def test_settings_of_the_data_are_added_without_running_the_others_again(tmp_path: Path) -> None:
    ablate(DATA, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/jobs/*/*")}
    assert before
    outcomes = ablate(DATA.replace("[4, 6]", "[5, 6, 4]"), tmp_path)
    assert len(outcomes) == 6
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/jobs/*/*")}
    assert before.items() < after.items()


def test_settings_of_the_data_alone_leave_the_method_its_name(tmp_path: Path) -> None:
    outcomes = ablate(DATA.replace("  shift: [0, 2]\n", ""), tmp_path)
    assert [each.row.name for each in outcomes] == ["scenes.length=4", "scenes.length=6"]
    results = collect([load_run(path) for each in outcomes for path in each.runs])
    assert [info.label for info in results.methods.values()] == ["shifting"]
    assert len(results.datasets) == 2


TRAINS = """
title: How long to learn, and how long videos are
method: learner
data: [scenes]
grid:
  scenes.length: [4, 5]
  budget,training.learning_rate: [[2it, 0.1], [3it, 0.2]]
training: {data: [scenes]}
"""


def test_budgets_are_trained_once_for_all_settings_of_the_data(tmp_path: Path) -> None:
    outcomes = ablate(TRAINS, tmp_path)
    assert [each.row.name for each in outcomes] == [
        "scenes.length=4,budget=2it,training.learning_rate=0.1",
        "scenes.length=4,budget=3it,training.learning_rate=0.2",
        "scenes.length=5,budget=2it,training.learning_rate=0.1",
        "scenes.length=5,budget=3it,training.learning_rate=0.2",
    ]
    assert TRAINED == [(0, 0.1), (0, 0.2)]
    asked = sorted((tmp_path / "out/weights").glob("*.json"))
    assert [path.stem for path in asked] == [
        "budget=2it,training.learning_rate=0.1",
        "budget=3it,training.learning_rate=0.2",
    ]
    assert [read_json(path)["budget"] for path in asked] == ["2it", "3it"]
    ablate(TRAINS.replace("[4, 5]", "[4, 5, 6]"), tmp_path)
    assert len(TRAINED) == 2


def test_a_budget_alone_is_trained_although_weights_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "lacks_weights", classmethod(lambda cls, settings: False))
    monkeypatch.setattr(Learner, "find_weights", classmethod(lambda cls, settings: None))
    path = tmp_path / "ablation.yaml"
    both = "budget,training.learning_rate: [[2it, 0.1], [3it, 0.2]]"
    path.write_text(TRAINS.replace(both, "budget: [2it, 3it]"))
    assert [point.trained for point in combinations(load_ablation(path))] == [True] * 4
    fits = TRAINS.replace(both, "shift: [0, 1]").replace("[scenes]}", "[scenes], budget: 2it}")
    path.write_text(fits)
    assert [point.trained for point in combinations(load_ablation(path))] == [False] * 4


def test_presets_are_variants(tmp_path: Path) -> None:
    grid = "  preset,shift: [[tiny, 0], [paper, 2]]\n"
    outcomes = ablate(DATA.replace("  scenes.length: [4, 6]\n  shift: [0, 2]\n", grid), tmp_path)
    used = {
        record["variant"]: record["preset"]
        for each in outcomes
        for record in load_run(each.runs[0]).provenance["methods"].values()
    }
    assert used == {"preset=tiny,shift=0": "tiny", "preset=paper,shift=2": "paper"}


SYNTHETIC = """
title: Blur
method: copy
data: [synthetic]
grid: {synthetic.blur: [0.0, 0.5]}
"""


@pytest.mark.parametrize(
    ("content", "old", "new", "named"),
    [
        (SYNTHETIC, "blur:", "blurr:", ["synthetic: blurr", "Did you mean 'blur'?"]),
        (SYNTHETIC, "0.5]", "5]", ["synthetic: blur", "found 5"]),
        (SYNTHETIC, "grid:", "base: {synthetic.seed: -1}\ngrid:", ["synthetic: seed", "-1"]),
        (SYNTHETIC, "synthetic.blur", "synthetics.blur", ["synthetics.blur", "synthetic.KEY"]),
        (SYNTHETIC, "[synthetic]", "[synthetic, scenes]", ["data", "varies synthetic.blur"]),
        (SYNTHETIC, "synthetic.blur: [0.0, 0.5]", "preset: [tiny, papr]", ["preset", "'papr'"]),
        (SYNTHETIC, "synthetic.blur: [0.0, 0.5]", "preset: [[tiny]]", ["preset", "['tiny']"]),
        (SYNTHETIC, "synthetic.blur: [0.0, 0.5]", "budget: [2it]", ["budget", "does not train"]),
        (SYNTHETIC, "[0.0, 0.5]", "[]", ["grid.synthetic.blur", "found []"]),
        (DATA, "scenes.length:", "scenes.length,preset:", ["length,preset", "2 values"]),
        (SYNTHETIC, "synthetic.blur", "training.blur", ["training.blur", "no setting of copy"]),
        (SYNTHETIC, "grid:", "base: {preset: tiny}\ngrid:", ["preset", "no setting of copy"]),
        (DATA, "  shift: [0, 2]", "  preset: [tiny]\npreset: paper", ["preset", "varies it"]),
        (TRAINS, "3it, 0.2", "3, 0.2", ["budget", "found 3", "20000it"]),
        (TRAINS, "[scenes]}", "[scenes], budget: 2it}", ["training.budget", "varies it"]),
        (TRAINS, "training: {data: [scenes]}", "", ["budget", "no training"]),
        (TRAINS, "budget,training.learning_rate", "shift,scenes.count", ["training.budget"]),
        (SYNTHETIC, "[0.0, 0.5]", "[0.5, 0.5]", ["synthetic.blur", "0.5 twice"]),
        (SYNTHETIC, "grid:", "base: {synthetic.blur: 1}\ngrid:", ["base: synthetic.blur", "once"]),
        (DATA, "grid:", 'grid:\n  "shift,preset": [[3, tiny]]', ["grid: shift", "once"]),
        (SYNTHETIC, "[synthetic]", "[synthetik]", ["synthetik", "Did you mean"]),
        (SYNTHETIC, "method: copy", "method: copi", ["copi", "Did you mean"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_grids_name_file_and_key_and_leave_nothing(
    content: str,
    old: str,
    new: str,
    named: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert old in content
    path = tmp_path / "wrong.yaml"
    path.write_text(content.replace(old, new))
    command: list[Any] = ["vos-bench", "ablate", path, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert f"{path}: " in message
    for each in named:
        assert each in message
    assert not (tmp_path / "out").exists()


def test_a_wrong_value_added_later_leaves_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "ablation.yaml", tmp_path / "out"
    path.write_text(SYNTHETIC.replace("0.5]", "0.5, 2]"))
    out.mkdir()
    write_json(out / EXPERIMENT, {"title": "As it was"})
    monkeypatch.setattr(sys, "argv", ["vos-bench", "ablate", str(path), "--out", str(out)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert [file.name for file in out.iterdir()] == [EXPERIMENT]
    assert read_json(out / EXPERIMENT) == {"title": "As it was"}


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablations").glob("*/*.yaml")), ids=str)
def test_ablations_of_the_tree_can_be_read(path: Path) -> None:
    config = load_ablation(path)
    points = combinations(config)
    assert len({point.name for point in points}) == len(points)
    if config.data == ["synthetic"]:
        check_data(config, path, None)
