"""The command `suite`: named rows of several methods, run under one protocol.

A YAML file lists the rows of a table: which method, with which settings and weights, trained how. A
*controlled* suite changes nothing but the labels from row to row; an *as-published* one takes every
system as its authors used it. The page says which of the two it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.config import (
    Preset,
    Protocol,
    beside,
    config_error,
    flatten,
    known_key,
    read_yaml,
)
from bench.errors import ConfigError
from bench.experiment import Row, RowTraining
from bench.method import Method, Trainable
from bench.registry import get_method
from bench.train import TRAINING

_STRICT = ConfigDict(extra="forbid")


class SuiteTraining(BaseModel):
    """How a row is trained where it is.

    Attributes:
        data: datasets.
        budget: as ``--budget`` takes it.
        config: YAML with settings of the training, beside the suite's file or from the tree's root.
        set: more of them, by dotted key.
        amp: whether networks compute in bfloat16.
    """

    model_config = _STRICT

    data: list[str] = Field(min_length=1)
    budget: str
    config: Path | None = None
    set: dict[str, Any] = {}
    amp: bool = False


class SuiteRow(BaseModel):
    """A row.

    Attributes:
        method: registered name.
        preset: of the method; None for its default.
        set: settings of the method, by dotted key or nested.
        weights: a checkpoint, beside the suite's file or from the working folder; or one for each
            seed, as a mapping, of trainings that were repeated.
        training: how it is trained; None to use weights that exist.
        seeds: of this row; None for the suite's, or those that have a checkpoint.
        group: heading under which tables show it, after rows without one; for rows that differ from
            those in more than what the suite is about. Ranks leave them out.
        description: what its card says; ``""`` for what the method's says.
        paper: citation on its card. Without one, a row cites its method's, unless it has a
            description: what the suite describes may be something else, such as a control.
    """

    model_config = _STRICT

    method: str
    preset: Preset | None = None
    set: dict[str, Any] = {}
    weights: Path | Annotated[dict[int, Path], Field(min_length=1)] | None = None
    training: SuiteTraining | None = None
    seeds: list[int] | None = Field(default=None, min_length=1)
    group: str = ""
    description: str = ""
    paper: str = ""


class SuiteGap(BaseModel):
    """The ends of a gap.

    Attributes:
        source: row trained on labelled images alone.
        oracle: row trained with the labels of the target.
    """

    model_config = _STRICT

    source: str
    oracle: str


class SuiteConfig(BaseModel):
    """A suite.

    Attributes:
        title: what it asks.
        comparison: whether rows differ in their labels alone, or are taken as published.
        data: what is segmented.
        protocols: see :class:`bench.config.RunConfig`. With several, rows run under each, are
            trained once, and share a report.
        classes: of the semantic protocol, beside the suite's file or from the working folder.
        seeds: of all rows that have none of their own.
        rows: by the name that tables show.
        baseline: row that the report takes differences from, corrected for these comparisons alone;
            None for the best one, corrected for all pairs.
        gap: two rows between which the report places the others; None for no such table.
    """

    model_config = _STRICT

    title: str
    comparison: Literal["controlled", "as published"]
    data: list[str] = Field(default=["davis16"], min_length=1)
    protocols: list[Protocol] = Field(default=["semi-supervised"], min_length=1)
    classes: Path | None = None
    seeds: list[int] = Field(default=[0], min_length=1)
    rows: dict[str, SuiteRow] = Field(min_length=1)
    baseline: str | None = None
    gap: SuiteGap | None = None


def load_suite(path: Path) -> SuiteConfig:
    """Read a suite; :class:`ConfigError` names the wrong key."""
    try:
        config = SuiteConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise config_error(str(path), error, SuiteConfig) from None
    named = [("baseline", config.baseline)] if config.baseline is not None else []
    named += [("gap", end) for end in (config.gap.source, config.gap.oracle)] if config.gap else []
    for key, name in named:
        if name not in config.rows:
            raise ConfigError(
                f"{path}: {key}",
                f"{name!r}, no row",
                f"one of {', '.join(config.rows)}",
                "Correct it.",
            )
    if all(row.group for row in config.rows.values()):
        raise ConfigError(
            f"{path}: rows",
            "a group for every row",
            "rows without one, which are ranked",
            "Remove the group of those that the suite is about.",
        )
    if config.classes is not None and "semantic" not in config.protocols:
        raise ConfigError(
            f"{path}: classes",
            f"classes for {', '.join(config.protocols)}",
            "the protocol semantic, which alone knows classes",
            "Add it to protocols, or remove classes.",
        )
    if config.gap and config.gap.source == config.gap.oracle:
        raise ConfigError(f"{path}: gap", "one row as both ends", "two rows", "Correct it.")
    for name, row in config.rows.items():
        method = get_method(row.method)
        _check(f"{path}: rows.{name}.set", method, method.Settings, row.set)
        if isinstance(row.weights, dict) and (row.seeds or row.training):
            raise ConfigError(
                f"{path}: rows.{name}.weights",
                f"a checkpoint for each of the seeds {', '.join(map(str, row.weights))}, and "
                f"{'seeds' if row.seeds else 'training'}",
                "a mapping of seeds to checkpoints alone, which says which seeds there are",
                f"Remove {'seeds' if row.seeds else 'training'}, or name one checkpoint.",
            )
        if row.training is None:
            continue
        if not issubclass(method, Trainable):
            raise ConfigError(
                f"{path}: rows.{name}.training",
                f"{row.method} does not train",
                "a method that does",
                "Remove it.",
            )
        _check(
            f"{path}: rows.{name}.training.set", method, method.TrainingSettings, row.training.set
        )
    folders = [Row(name, row.method).folder() for name, row in config.rows.items()]
    for name, folder in zip(config.rows, folders, strict=True):
        if not folder or folders.count(folder) > 1:
            raise ConfigError(
                f"{path}: rows.{name}",
                f"a name that makes the folder {folder!r}",
                "names that differ in letters and digits",
                "Rename it.",
            )
    return config


def _check(where: str, method: type[Method], model: Any, given: Mapping[str, Any]) -> None:
    for key in flatten(given):
        if not known_key(model, key):
            raise ConfigError(
                f"{where}.{key}",
                f"no setting of {method.card.name}",
                "a key that `python -m bench list methods` shows",
                "Correct it.",
            )


def classes_of(config: SuiteConfig, path: Path) -> Path | None:
    """The file of the suite's classes, beside the suite's own where it is there."""
    return _beside(config.classes, path)


def rows_of(config: SuiteConfig, path: Path) -> list[Row]:
    """The rows of a suite for :func:`bench.experiment.run_rows`.

    Args:
        config: the suite.
        path: its file, which files that it names may lie beside.
    """
    return [
        Row(
            name,
            row.method,
            row.preset,
            flatten(row.set),
            _training(row.training, path) if row.training else None,
            _weights(row.weights, path),
            row.seeds,
            row.group,
            row.description,
            paper=row.paper,
        )
        for name, row in config.rows.items()
    ]


def _training(training: SuiteTraining, path: Path) -> RowTraining:
    given = {key.removeprefix(TRAINING): value for key, value in flatten(training.set).items()}
    config = _beside(training.config, path)
    return RowTraining(training.data, training.budget, given, config, training.amp)


def _weights(weights: Path | dict[int, Path] | None, suite: Path) -> Path | dict[int, Path] | None:
    if isinstance(weights, dict):
        return {seed: beside(file, suite) for seed, file in weights.items()}
    return _beside(weights, suite)


def _beside(file: Path | None, suite: Path) -> Path | None:
    return None if file is None else beside(file, suite)
