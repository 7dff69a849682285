"""Experiments: rows of one table, each a method with settings and weights of its own.

A row is trained first where it needs that, once per seed, and then runs. Every row is a run in the
experiment's folder, so the same command again continues, and rows added later are computed beside
the others::

    OUT/<row>/                        a run; OUT/<row>.seed1/ for other seeds that have weights of
                                      their own
    OUT/weights/<row>.safetensors     weights of rows that were trained; beside them, as JSON, what
                                      was asked for
    OUT/trainings/<row>/              their trainings

Rows that differ in their data alone share weights, which their label names.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.config import Preset, RunConfig
from bench.errors import BenchError, ConfigError
from bench.run import RunResult, execute
from bench.store import read_json, write_json
from bench.train import TRAINING, TrainingChoice, train_method
from bench.training import WEIGHTS, Watcher

Runner = Callable[[RunConfig, dict[str, Any], Path], RunResult]


@dataclass(frozen=True)
class RowTraining:
    """How a row's weights are trained.

    Attributes:
        data: datasets.
        budget: as ``--budget`` takes it.
        settings: of the training, by dotted key without ``training.``.
        config: YAML with more of them, as ``train --config`` takes it.
        amp: whether networks compute in bfloat16.
    """

    data: Sequence[str]
    budget: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None
    amp: bool = False


@dataclass(frozen=True)
class Row:
    """One line of an experiment's table.

    Attributes:
        name: unique in an experiment; names its runs' folders.
        method: registered name.
        preset: of the method; None for its default.
        settings: of the method, by dotted key.
        training: how it is trained; None where weights exist or none are needed.
        weights: a checkpoint, or one for each seed; None for the method's own.
        seeds: of the row; None for the experiment's, or those that have a checkpoint.
        group: of rows that do not compare with the others; ``""`` for those that do.
        description: what reports say of it; ``""`` for what they say of its method.
        variant: what tables call it; ``""`` for its name. Rows that differ in their data alone
            share it, and their weights.
        data: settings of the datasets that are segmented, by dotted key, ``DATASET.KEY``.
        paper: what reports cite for it; ``""`` for its method's, or for nothing where it has a
            description of its own.
    """

    name: str
    method: str
    preset: Preset | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: RowTraining | None = None
    weights: Path | Mapping[int, Path] | None = None
    seeds: Sequence[int] | None = None
    group: str = ""
    description: str = ""
    variant: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.variant or self.name

    def folder(self, seed: int = 0) -> str:
        """Its name as a folder's."""
        return _folder(self.name, seed)

    def training_folder(self, seed: int = 0) -> str:
        """The same of what tables call it, for its training and weights."""
        return _folder(self.label, seed)


def _folder(name: str, seed: int) -> str:
    name = re.sub(r"[^\w.=,+-]+", "_", name).strip("_")
    return f"{name}.seed{seed}" if seed else name


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Attributes:
        row: which.
        runs: its runs' folders.
        reason: why some are missing; None where none are.
    """

    row: Row
    runs: tuple[Path, ...]
    reason: str | None = None


def row_notes(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """What reports are told of rows besides their results, by label, in their order."""
    names = ("group", "description", "paper")
    return {row.label: {name: getattr(row, name) for name in names} for row in rows}


def text(value: Any) -> str:
    """A value as ``--set`` reads it, on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return dumped.strip().removesuffix("...").strip()


def run_rows(
    rows: Sequence[Row],
    options: RunConfig,
    out: Path,
    watching: Callable[[str], AbstractContextManager[Watcher]],
    run: Runner = execute,
    say: Callable[[str], None] = lambda line: None,
    runs_folder: Path | None = None,
) -> list[Outcome]:
    """Train and run every row that is not finished yet; one that fails does not stop the others.

    Args:
        rows: in the order in which they run.
        options: data, root, sequences, protocol, seeds, device and workers of all runs.
        out: the experiment's folder.
        watching: opens a progress display for a training.
        run: executes one run; for displays around it.
        say: prints a line.
        runs_folder: where runs are kept; None for beside the trainings, in ``out``.
    """
    outcomes = []
    for number, row in enumerate(rows, start=1):
        say(f"{number} of {len(rows)}: {row.name}")
        assignments = {f"{row.method}.{key}": item for key, item in row.settings.items()}
        assignments |= row.data
        runs: list[Path] = []
        reason = None
        try:
            for request, folder in _requests(row, options, out, runs_folder or out, watching):
                result = run(request, assignments, folder)
                runs.append(folder)
                reason = reason or _incomplete(result)
        except BenchError as error:
            reason = str(error)
        outcomes.append(Outcome(row, tuple(runs), reason))
    return outcomes


def _incomplete(result: RunResult) -> str | None:
    if result.failures:
        return f"{len(result.failures)} of {len(result.plan.jobs)} jobs failed"
    # Sequences without a shared class are no part of what a row is scored on.
    return next((skip.reason for skip in result.plan.skips if not skip.sequences), None)


def _requests(
    row: Row,
    options: RunConfig,
    out: Path,
    runs: Path,
    watching: Callable[[str], AbstractContextManager[Watcher]],
) -> Any:
    """A row's runs and their folders: one per seed where each has weights of its own, else one."""
    seeds = list(row.seeds or options.seeds)
    common: dict[str, Any] = {
        "methods": [row.method],
        "preset": row.preset,
        "names": {row.method: row.label},
    }
    if isinstance(row.weights, Mapping):
        for seed, file in row.weights.items():
            update = common | {"seeds": [seed], "weights": {row.method: file}}
            yield options.model_copy(update=update), runs / row.folder(seed)
    elif row.training is None:
        weights = {row.method: row.weights} if row.weights else {}
        update = common | {"seeds": seeds, "weights": weights}
        yield options.model_copy(update=update), runs / row.folder()
    else:
        for seed in seeds:
            file = trained_weights(row, row.training, row.weights, seed, options, out, watching)
            update = common | {"seeds": [seed], "weights": {row.method: file}}
            yield options.model_copy(update=update), runs / row.folder(seed)


def trained_weights(
    row: Row,
    training: RowTraining,
    start: Path | None,
    seed: int,
    options: RunConfig,
    out: Path,
    watching: Callable[[str], AbstractContextManager[Watcher]],
) -> Path:
    """Weights of a row and seed; trained, or trained further, unless they are finished.

    Args:
        row: whose weights.
        training: how they are trained.
        start: a checkpoint that the training starts from; None for what the method starts from.
        seed: of the training.
        options: root and device.
        out: the experiment's folder.
        watching: opens a progress display.

    Raises:
        ConfigError: weights of that label exist, finished or not, and were asked for otherwise.
    """
    path = out / "weights" / f"{row.training_folder(seed)}.safetensors"
    folder = out / "trainings" / row.training_folder(seed)
    begun = (folder / WEIGHTS).exists()
    request, asked = path.with_suffix(".json"), _asked(row, training, start)
    if request.is_file() and (begun or path.is_file()):
        _refuse_another(request, row, asked)
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(request, asked)
    assignments = [f"{key}={text(value)}" for key, value in row.settings.items()]
    assignments += [f"{TRAINING}{key}={text(value)}" for key, value in training.settings.items()]
    choice = TrainingChoice(
        list(training.data),
        root=options.root,
        preset=row.preset,
        budget=training.budget,
        seed=seed,
        device=options.device,
        amp=training.amp,
        weights=start,
        config=training.config,
        assignments=assignments,
        out=None if begun else folder,
        resume=folder if begun else None,
    )
    with watching(row.label) as watch:
        trained = train_method(row.method, choice, watch)
    assert trained is not None
    temporary = path.with_suffix(".tmp")
    shutil.copyfile(trained, temporary)
    temporary.replace(path)
    return path


def _asked(row: Row, training: RowTraining, start: Path | None) -> dict[str, Any]:
    """What decides a row's weights besides seed and data."""
    return {
        "method": row.method,
        "preset": row.preset,
        "settings": {key: text(value) for key, value in row.settings.items()},
        "start": start.name if start else None,
        "data": list(training.data),
        "budget": training.budget,
        "training": {key: text(value) for key, value in training.settings.items()},
        "config": training.config.read_text() if training.config else None,
        "amp": training.amp,
    }


def _refuse_another(path: Path, row: Row, asked: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` if another training was asked for under this name before."""
    kept = read_json(path)
    differ = [key for key, value in asked.items() if kept.get(key) != value]
    if differ:
        raise ConfigError(
            path,
            f"another training of the row {row.label!r}: other {' and '.join(differ)}",
            "what the row asks for now",
            "Give the row another name, the experiment another --out, or delete this file with the "
            "row's weights and training.",
        )
