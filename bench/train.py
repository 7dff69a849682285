"""The command `train`: from names and options to a method's training."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config import (
    RunConfig,
    assign,
    flatten,
    known_key,
    method_config,
    method_settings,
    parse_assignments,
    read_yaml,
    setting_names,
    training_settings,
)
from bench.dataset import Dataset, find_root
from bench.errors import BenchError, ConfigError
from bench.method import Method, MethodSettings, Trainable
from bench.plan import distribute, resolve_device
from bench.registry import get_dataset, get_method
from bench.training import (
    OPTIONS,
    Budget,
    TrainingRequest,
    Watcher,
    new_training_name,
    take_own_gpu,
    train,
)

TRAINING = "training."
"""Beginning of keys of ``--set`` that are meant for the training."""


CHANGEABLE = ("root", "budget", "device", "workers")
"""Options of `train` that may change when resuming: they do not say what is trained."""


@dataclass(frozen=True)
class TrainingChoice:
    """The options of `train`; see its ``--help``."""

    data: list[str]
    methods: list[str] = field(default_factory=list)
    root: Path | None = None
    preset: Any = None
    budget: str = "30m"
    seed: int = 0
    device: str = "auto"
    workers: int = 1
    amp: bool = False
    weights: Path | None = None
    config: Path | None = None
    assignments: list[str] = field(default_factory=list)
    out: Path | None = None
    resume: Path | None = None


def resumed_choice(folder: Path, given: Mapping[str, Any]) -> TrainingChoice:
    """The options that a training was started with.

    Args:
        folder: the training's.
        given: options given beside ``--resume``; only some may be, because the others say what
            is trained.

    Raises:
        ConfigError: one of the others, or a folder of no training.
        StoreError: the folder's options cannot be read.
    """
    from bench.store import read_json

    if not (folder / OPTIONS).is_file():
        raise ConfigError(
            f"--resume {folder}",
            f"no {OPTIONS} in it",
            "the folder of a training",
            "Name one, or start without --resume.",
        )
    for name in given:
        if name not in CHANGEABLE:
            raise ConfigError(
                f"--resume {folder}",
                f"--{name} beside it",
                "the options that the training was started with, which it has stored; only "
                + ", ".join(f"--{changeable}" for changeable in CHANGEABLE)
                + " can change",
                f"Leave out --{name}, or start a new training.",
            )
    stored = read_json(folder / OPTIONS)
    for name in ("root", "weights"):
        stored[name] = Path(stored[name]) if stored[name] else None
    return TrainingChoice(**(stored | given | {"resume": folder}))


def _stored_options(name: str, choice: TrainingChoice, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options in JSON's types, from which :func:`resumed_choice` makes the choice again."""
    return {
        "methods": [name],
        "data": choice.data,
        "root": str(choice.root.absolute()) if choice.root else None,
        "preset": choice.preset,
        "budget": choice.budget,
        "seed": choice.seed,
        "device": choice.device,
        "workers": choice.workers,
        "amp": choice.amp,
        "weights": str(choice.weights.absolute()) if choice.weights else None,
        "assignments": [f"{key}={json.dumps(value)}" for key, value in given.items()],
    }


def train_method(name: str, choice: TrainingChoice, watch: Watcher | None = None) -> Path | None:
    """Train one method.

    Returns:
        The weights file; None in processes other than torchrun's first.

    Raises:
        ConfigError: a method that does not train, unknown settings or data.
        DataError: data missing or broken.
    """
    method = get_method(name)
    if not issubclass(method, Trainable):
        raise ConfigError(
            f"--methods {name}",
            "a method without training",
            "one that trains",
            "`python -m bench list methods` says which do.",
        )
    if choice.preset not in (None, "tiny", "paper"):
        raise ConfigError(
            f"--preset {choice.preset}", "no such preset", "tiny or paper", "Correct it."
        )
    given = flatten(read_yaml(choice.config)) if choice.config else {}
    given |= parse_assignments(choice.assignments)
    overrides, training_overrides = _split(name, method, given)
    settings, preset = method_settings(name, method, choice.preset, overrides)
    training = training_settings(name, method, preset, training_overrides)
    out = choice.resume or choice.out or Path("checkpoints", name, new_training_name())
    request = TrainingRequest(
        method=name,
        out=out,
        budget=Budget.parse(choice.budget),
        seed=choice.seed,
        device=resolve_device(choice.device),
        workers=choice.workers,
        amp=choice.amp,
        resume=choice.resume is not None,
        distributed=int(os.environ.get("WORLD_SIZE", "1")) > 1,
        command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        data=tuple(choice.data),
        start=choice.weights,
        options=_stored_options(name, choice, given),
    )
    opened = [_open(label, choice.root) for label in choice.data]
    take_own_gpu(request)
    task = method.training_task(settings, training, opened, request)
    weights = train(task, request, watch)
    return weights if request.first_process else None


def train_missing(
    config: RunConfig,
    assignments: Mapping[str, Any],
    watching: Callable[[str], AbstractContextManager[Watcher]],
    say: Callable[[str], None],
) -> None:
    """Before a run: train methods of the tiny preset that lack weights, and say so.

    A method whose training data is not found is left to be skipped with its reason.

    Args:
        config: the run.
        assignments: its ``--set`` options.
        watching: opens a progress display for a method.
        say: prints a line.
    """
    overrides = distribute(config, assignments)
    for name in config.methods:
        method = get_method(name)
        if not issubclass(method, Trainable) or name in config.weights:
            continue
        settings, preset = method_settings(name, method, config.preset, overrides.get(name, {}))
        first = method_config(name, method).first_training
        if preset != "tiny" or first is None or not method.lacks_weights(settings):
            continue
        try:
            opened = [_open(label, config.root) for label in first.datasets]
        except BenchError as error:
            say(f"{name}: no weights fit, and it cannot be trained first: {error}")
            continue
        names = " and ".join(first.datasets)
        say(f"{name}: no weights fit its settings. Training on {names} for {first.budget}.")
        request = TrainingRequest(
            method=name,
            out=Path("checkpoints", name, new_training_name()),
            budget=Budget.parse(first.budget),
            seed=config.seeds[0],
            device=resolve_device(config.device),
            command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
            data=tuple(first.datasets),
        )
        training = training_settings(name, method, preset, {})
        with watching(name) as watch:
            weights = train(
                method.training_task(settings, training, opened, request), request, watch
            )
        say(f"{name}: weights in {weights}")


def _split(
    name: str, method: type[Method], assignments: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort ``--set`` into the method's settings and its training's."""
    assert issubclass(method, Trainable)
    groups: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for key, value in assignments.items():
        bare = key.removeprefix(f"{name}.")
        of_training = bare.startswith(TRAINING)
        bare = bare.removeprefix(TRAINING)
        model: type[MethodSettings] = method.TrainingSettings if of_training else method.Settings
        if not known_key(model, bare):
            raise ConfigError(
                f"--set {key}",
                "an unknown key",
                f"one of {', '.join(setting_names(model))}",
                "Settings of the training begin with `training.`",
            )
        assign(groups[of_training], bare, value)
    return groups


def _open(label: str, root: Path | None) -> Dataset:
    found, split = get_dataset(label)
    return found(find_root(found, root), split)
