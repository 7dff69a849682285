"""The command `ablate`: one method under every combination of some settings.

A YAML file lists settings and their values. Keys that begin with ``training.`` are settings of the
method's training, and combinations that change them, or the networks, are trained first; the
others use the weights that fit. Every combination is a run of its own in the ablation's folder, so
that a list can be extended later and only what is new is computed.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
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
from bench.method import Trainable
from bench.registry import get_method
from bench.run import RunResult, execute
from bench.train import TRAINING, TrainingChoice, train_method
from bench.training import WEIGHTS, Watcher


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

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return re.sub(r"[^\w.=,-]+", "_", self.name)


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


def text(value: Any) -> str:
    """A value as ``--set`` reads it."""
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("...").strip()


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested dictionaries."""
    from bench.config import assign

    nested: dict[str, Any] = {}
    for key, value in flat.items():
        assign(nested, key, value)
    return nested


def run_ablation(
    config: AblationConfig,
    options: RunConfig,
    out: Path,
    watching: Callable[[str], AbstractContextManager[Watcher]],
    run: Callable[[RunConfig, dict[str, Any], Path], RunResult] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Train and run every combination that is not finished yet.

    Args:
        config: the ablation.
        options: root, sequences, device, workers and seeds of the runs.
        out: the ablation's folder; a run per combination, and their weights.
        watching: opens a progress display for a training.
        run: executes one run; for displays around it.
        say: prints a line.

    Returns:
        The runs' folders.
    """
    folders = []
    points = combinations(config)
    for number, point in enumerate(points, start=1):
        say(f"{number} of {len(points)}: {point.name}")
        request = options.model_copy(
            update={"methods": [config.method], "data": config.data, "preset": config.preset}
        )
        if point.trained:
            weights = _train(config, point, request, out, watching)
            request = request.model_copy(update={"weights": {config.method: weights}})
        assignments = {f"{config.method}.{key}": value for key, value in point.settings.items()}
        (run or execute)(request, assignments, out / point.folder)
        folders.append(out / point.folder)
    return folders


def _train(
    config: AblationConfig,
    point: Combination,
    options: RunConfig,
    out: Path,
    watching: Callable[[str], AbstractContextManager[Watcher]],
) -> Path:
    """Weights of a combination, named after it; trained unless they are there."""
    assert config.training is not None
    path = out / "weights" / f"{point.folder}.safetensors"
    if path.is_file():
        return path
    folder = out / "trainings" / point.folder
    assignments = [f"{key}={text(value)}" for key, value in point.settings.items()]
    assignments += [f"{TRAINING}{key}={text(value)}" for key, value in point.training.items()]
    choice = TrainingChoice(
        config.training.data,
        root=options.root,
        preset=config.preset,
        budget=config.training.budget,
        seed=options.seeds[0],
        device=options.device,
        assignments=assignments,
        out=None if (folder / WEIGHTS).exists() else folder,
        resume=folder if (folder / WEIGHTS).exists() else None,
    )
    with watching(f"{config.method} {point.name}") as watch:
        trained = train_method(config.method, choice, watch)
    assert trained is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    shutil.copyfile(trained, temporary)
    temporary.replace(path)
    return path
