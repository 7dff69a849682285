"""The command `ablate`: one method under every combination of some settings.

A YAML file lists settings and their values: the method's own, those of its training (keys that
begin with ``training.``) and of the data (keys that begin with a dataset's name), its preset and
the training's budget. Combinations that change a training, or the networks, are trained first; the
others use the weights that fit. Every combination is a run of its own in the ablation's folder, so
that a list can be extended later and only what is new is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.config import (
    Preset,
    RunConfig,
    config_error,
    known_key,
    method_settings,
    read_yaml,
)
from bench.errors import ConfigError
from bench.experiment import Row, RowTraining, text
from bench.method import Trainable
from bench.plan import base_name, choose_data, distribute
from bench.registry import get_method
from bench.train import TRAINING
from bench.training import Budget

Part = Literal["settings", "training", "data", "preset", "budget"]
"""What a key belongs to; a field of :class:`Combination`."""


class AblationTraining(BaseModel):
    """How combinations that need it are trained.

    Attributes:
        data: datasets.
        budget: as ``--budget`` takes it; the same for all, so that they can be compared. None where
            the grid has it.
    """

    model_config = ConfigDict(extra="forbid")

    data: list[str] = Field(min_length=1)
    budget: str | None = None


class AblationConfig(BaseModel):
    """An ablation.

    Attributes:
        title: what it asks.
        method: registered name.
        preset: of the method; None for its default, or where the grid has it.
        data: what is segmented.
        grid: values by setting of the method, ``training.KEY``, ``DATASET.KEY``, ``preset`` or
            ``budget``; every combination is tried. Values of a key that holds several of these,
            joined by commas, are lists of the same length.
        base: settings that all combinations share.
        training: needed where a combination has to be trained.
    """

    model_config = ConfigDict(extra="forbid")

    title: str
    method: str
    preset: Preset | None = None
    data: list[str] = Field(default=["davis16"], min_length=1)
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    base: dict[str, Any] = {}
    training: AblationTraining | None = None

    @property
    def varied(self) -> list[str]:
        """Every key of the grid alone, in order."""
        return [key for keys in self.grid for key in keys.split(",")]


@dataclass(frozen=True)
class Combination:
    """One point of the grid.

    Attributes:
        name: what differs, ``key=value`` joined by commas.
        variant: the same without settings of the data, which tables name by the dataset; the
            method's name where nothing else differs.
        preset: of the method; None for its default.
        settings: of the method, by dotted key.
        training: of its training, by dotted key without ``training.``.
        budget: of its training; None where none is described.
        data: settings of the data, by dotted key.
        trained: whether it needs weights of its own.
    """

    name: str
    variant: str
    preset: Preset | None
    settings: Mapping[str, Any]
    training: Mapping[str, Any]
    budget: str | None
    data: Mapping[str, Any]
    trained: bool


def load_ablation(path: Path) -> AblationConfig:
    """Read an ablation; :class:`ConfigError` names the file and the wrong key.

    Values of settings are left to the method, and to :func:`check_data`.
    """
    try:
        config = AblationConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise config_error(str(path), error, AblationConfig) from None
    try:
        get_method(config.method)
        _datasets(config)
    except ConfigError as error:
        raise ConfigError(
            f"{path}: {error.where}", error.found, error.expected, error.remedy
        ) from None
    for key in [*config.base, *config.varied]:
        part = _part(config, key)
        if part is None or (key in config.base and part in ("preset", "budget")):
            datasets = " or ".join(f"{name}.KEY" for name in _datasets(config))
            raise ConfigError(
                f"{path}: {key}",
                f"no setting of {config.method}",
                f"a key that `python -m bench list methods` shows, {datasets} for a setting of the "
                "data, or, in the grid alone, preset or budget",
                "Correct it.",
            )
    for keys, values in config.grid.items():
        names = keys.split(",")
        for value in values:
            given = value if len(names) > 1 else [value]
            if not isinstance(given, list) or len(given) != len(names):
                raise ConfigError(
                    f"{path}: grid: {keys}",
                    repr(value),
                    f"a list of {len(names)} values",
                    "Correct it.",
                )
            for key, one in zip(names, given, strict=True):
                _check_value(f"{path}: grid: {key}", key, one)
    _check_given_once(config, path)
    _check_datasets(config, path)
    return config


def _datasets(config: AblationConfig) -> list[str]:
    """Registered names of what is segmented, without splits."""
    return sorted({base_name(name) for name in config.data})


def _part(config: AblationConfig, key: str) -> Part | None:
    """What a key belongs to; None for an unknown one.

    Settings of the data are known to the data alone, see :func:`check_data`.
    """
    method = get_method(config.method)
    dataset, _, setting = key.partition(".")
    if key == "preset":
        return "preset"
    if key == "budget":
        return "budget"
    if setting and dataset in _datasets(config):
        return "data"
    if key.startswith(TRAINING) and issubclass(method, Trainable):
        inner = key.removeprefix(TRAINING)
        return "training" if known_key(method.TrainingSettings, inner) else None
    return "settings" if known_key(method.Settings, key) else None


def _check_value(where: str, key: str, value: Any) -> None:
    """Refuse a preset or a budget that is none; other values are checked by what they belong to."""
    if key == "preset" and value not in get_args(Preset):
        raise ConfigError(where, repr(value), " or ".join(get_args(Preset)), "Correct it.")
    if key == "budget":
        try:
            Budget.parse(str(value))
        except ConfigError as error:
            raise ConfigError(where, repr(value), error.expected, error.remedy) from None


def _check_given_once(config: AblationConfig, path: Path) -> None:
    """Refuse what is given twice, a preset or budget beside the grid's, a training without one."""
    for key in config.varied:
        place = "base" if key in config.base else "grid" if config.varied.count(key) > 1 else None
        if place is not None:
            raise ConfigError(
                f"{path}: {place}: {key}",
                "a key that the grid has already",
                "every key once",
                "Remove it from one of the two places.",
            )
    for keys, values in config.grid.items():
        for number, value in enumerate(values):
            if text(value) in map(text, values[:number]):
                raise ConfigError(
                    f"{path}: grid: {keys}",
                    f"{value!r} twice",
                    "every value once",
                    "Remove one of the two.",
                )
    training = config.training
    beside: dict[str, tuple[str, Any]] = {
        "preset": ("preset", config.preset),
        "budget": ("training.budget", training.budget if training else None),
    }
    for key, (place, value) in beside.items():
        if key in config.varied and value is not None:
            raise ConfigError(
                f"{path}: {place}",
                f"{value!r}, and the grid varies it",
                "one of the two",
                f"Remove it, or {key} from the grid.",
            )
    if "budget" in config.varied:
        trains = issubclass(get_method(config.method), Trainable)
        if not trains or training is None:
            raise ConfigError(
                f"{path}: grid: budget",
                "no training" if trains else f"{config.method}, which does not train",
                "`training:` with data" if trains else "a method that trains",
                "Add it to the ablation." if trains else "Remove it.",
            )
    elif training is not None:
        _check_value(f"{path}: training.budget", "budget", training.budget)


def _check_datasets(config: AblationConfig, path: Path) -> None:
    """Refuse a second dataset beside one whose settings the grid varies."""
    varied = [key for key in config.varied if _part(config, key) == "data"]
    if varied and len(_datasets(config)) > 1:
        raise ConfigError(
            f"{path}: data",
            f"{', '.join(config.data)}, and the grid varies {', '.join(varied)}",
            "one dataset, since any other would be segmented again for each value",
            "Give the others a file of their own; `python -m bench report` takes several folders.",
        )


def check_data(config: AblationConfig, path: Path, root: Path | None) -> None:
    """Open the data under all settings that an ablation gives it, before anything runs.

    Where it gives none, nothing is opened.

    Args:
        config: the ablation.
        path: its file, for messages.
        root: where the data lies; see :func:`bench.dataset.find_root`.

    Raises:
        ConfigError: a setting that the data does not have, or a value that it does not take.
        DataError: data that is not there.
    """
    request = RunConfig(methods=[config.method], data=config.data, root=root)
    for settings in {text(dict(each.data)): each.data for each in combinations(config)}.values():
        if not settings:
            continue
        overrides = distribute(request, settings)
        try:
            for name in config.data:
                choose_data(name, request, overrides).open()
        except ConfigError as error:
            raise ConfigError(
                f"{path}: {error.where}", error.found, error.expected, error.remedy
            ) from None


def combinations(config: AblationConfig) -> list[Combination]:
    """All combinations of an ablation's values, the first key changing slowest.

    Raises:
        ConfigError: a combination that must be trained, and no training is described.
    """
    parts = {key: _part(config, key) for key in [*config.base, *config.varied]}
    found = []
    for values in itertools.product(*config.grid.values()):
        point = dict(config.base)
        for keys, value in zip(config.grid, values, strict=True):
            names = keys.split(",")
            point.update(zip(names, value if len(names) > 1 else [value], strict=True))
        differs = {key: f"{key}={text(point[key])}" for key in config.varied}
        variant = ",".join(each for key, each in differs.items() if parts[key] != "data")
        of: dict[Part, dict[str, Any]] = {
            part: {key: value for key, value in point.items() if parts[key] == part}
            for part in get_args(Part)
        }
        name = ",".join(differs.values())
        preset = point.get("preset", config.preset)
        trained = bool(of["training"] or of["budget"]) or _lacks_weights(
            config.method, preset, of["settings"]
        )
        if trained and config.training is None:
            raise ConfigError(
                name,
                "no weights that fit, and no training",
                "`training:` with data and budget",
                "Add it to the ablation.",
            )
        found.append(
            Combination(
                name=name,
                variant=variant or config.method,
                preset=preset,
                settings=of["settings"],
                training={key.removeprefix(TRAINING): each for key, each in of["training"].items()},
                budget=point.get("budget", config.training.budget if config.training else None),
                data=of["data"],
                trained=trained,
            )
        )
    return found


def _lacks_weights(name: str, preset: Preset | None, settings: Mapping[str, Any]) -> bool:
    """Whether no weights fit settings of a method, or other weights than without them."""
    method = get_method(name)
    if not issubclass(method, Trainable):
        return False
    base, _ = method_settings(name, method, preset, {})
    wanted, _ = method_settings(name, method, preset, nest(settings))
    return method.lacks_weights(wanted) or method.find_weights(wanted) != method.find_weights(base)


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
            assert point.budget is not None
            training = RowTraining(config.training.data, point.budget, point.training)
        rows.append(
            Row(
                point.name,
                config.method,
                point.preset,
                point.settings,
                training,
                variant=point.variant,
                data=point.data,
            )
        )
    return rows
