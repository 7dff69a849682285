"""The command `ablate`: one method under every combination of some settings.

A YAML file lists settings and their values. Keys that begin with ``training.`` are settings of the
method's training, and combinations that change them, or the networks, are trained first; the
others use the weights that fit. Every combination is a run of its own in the ablation's folder, so
that a list can be extended later and only what is new is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.config import (
    Preset,
    config_error,
    known_key,
    method_settings,
    read_yaml,
)
from bench.errors import ConfigError
from bench.experiment import Row, RowTraining, text
from bench.method import Trainable
from bench.registry import get_method
from bench.train import TRAINING


class AblationTraining(BaseModel):
    """How combinations that need it are trained.

    Attributes:
        data: datasets.
        budget: as ``--budget`` takes it; the same for all, so that they can be compared.
    """

    model_config = ConfigDict(extra="forbid")

    data: list[str] = Field(min_length=1)
    budget: str


class AblationConfig(BaseModel):
    """An ablation.

    Attributes:
        title: what it asks.
        method: registered name.
        preset: of the method.
        data: what is segmented.
        grid: values by setting; every combination is tried. Values of a key that holds several
            settings, joined by commas, are lists of the same length.
        base: settings that all combinations share.
        training: needed where a combination has to be trained.
    """

    model_config = ConfigDict(extra="forbid")

    title: str
    method: str
    preset: Preset | None = None
    data: list[str] = Field(default=["davis16"], min_length=1)
    grid: dict[str, list[Any]] = Field(min_length=1)
    base: dict[str, Any] = {}
    training: AblationTraining | None = None


@dataclass(frozen=True)
class Combination:
    """One point of the grid.

    Attributes:
        name: what differs, ``key=value`` joined by commas.
        settings: of the method, by dotted key.
        training: of its training, by dotted key without ``training.``.
        trained: whether it needs weights of its own.
    """

    name: str
    settings: Mapping[str, Any]
    training: Mapping[str, Any]
    trained: bool


def load_ablation(path: Path) -> AblationConfig:
    """Read an ablation; :class:`ConfigError` names the wrong key."""
    try:
        config = AblationConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise config_error(str(path), error, AblationConfig) from None
    method = get_method(config.method)
    for key in [*config.base, *(part for keys in config.grid for part in keys.split(","))]:
        trains = issubclass(method, Trainable) and key.startswith(TRAINING)
        model = method.TrainingSettings if trains else method.Settings  # type: ignore[attr-defined]
        if not known_key(model, key.removeprefix(TRAINING)):
            raise ConfigError(
                f"{path}: {key}",
                f"no setting of {config.method}",
                "a key that `python -m bench list methods` shows",
                "Correct it.",
            )
    return config


def combinations(config: AblationConfig) -> list[Combination]:
    """All combinations of an ablation's values, the first key changing slowest.

    Raises:
        ConfigError: a joined key whose values are not lists of its length, or a combination that
            must be trained and no training is described.
    """
    method = get_method(config.method)
    base, _ = method_settings(config.method, method, config.preset, {})
    found = []
    for values in itertools.product(*config.grid.values()):
        point = dict(config.base)
        names = []
        for keys, value in zip(config.grid, values, strict=True):
            parts = keys.split(",")
            given = value if len(parts) > 1 else [value]
            if not isinstance(given, list) or len(given) != len(parts):
                raise ConfigError(
                    f"grid: {keys}", repr(value), f"a list of {len(parts)} values", "Correct it."
                )
            point.update(zip(parts, given, strict=True))
            names += [f"{key}={text(item)}" for key, item in zip(parts, given, strict=True)]
        training = {
            key.removeprefix(TRAINING): value
            for key, value in point.items()
            if key.startswith(TRAINING)
        }
        settings = {key: value for key, value in point.items() if not key.startswith(TRAINING)}
        trained = bool(training)
        if issubclass(method, Trainable) and not trained:
            nested = nest(settings)
            wanted, _ = method_settings(config.method, method, config.preset, nested)
            trained = method.lacks_weights(wanted) or method.find_weights(
                wanted
            ) != method.find_weights(base)
        if trained and config.training is None:
            raise ConfigError(
                ",".join(names),
                "no weights that fit, and no training",
                "`training:` with data and budget",
                "Add it to the ablation.",
            )
        found.append(Combination(",".join(names), settings, training, trained))
    return found


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested dictionaries."""
    from bench.config import assign

    nested: dict[str, Any] = {}
    for key, value in flat.items():
        assign(nested, key, value)
    return nested


def rows_of(config: AblationConfig) -> list[Row]:
    """The combinations as rows of an experiment; see :func:`bench.experiment.run_rows`."""
    rows = []
    for point in combinations(config):
        training = None
        if point.trained:
            assert config.training is not None
            training = RowTraining(config.training.data, config.training.budget, point.training)
        rows.append(Row(point.name, config.method, config.preset, point.settings, training))
    return rows
