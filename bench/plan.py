"""From a configuration to a list of independent jobs.

A job is one method on one sequence with one seed. Its id is a hash of everything its result
depends on: settings, weights, data, seed and code. So a finished job never has to be repeated,
and a job whose inputs changed is never mistaken for a finished one.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.classes import given_classes, share
from bench.config import (
    RunConfig,
    assign,
    flatten,
    known_key,
    merge,
    method_settings,
    setting_names,
)
from bench.dataset import VideoDataset, find_root
from bench.errors import ConfigError
from bench.method import Context, Method, MethodSettings, Semantic, Trainable, Unprompted
from bench.registry import get_dataset, get_method


@dataclass(frozen=True)
class DataChoice:
    """One dataset of a run, opened only where it is needed.

    Attributes:
        label: what tables call it: the name asked for, with settings that differ.
        name: registered name.
        split: split name.
        root: folder, or None.
        settings: the adapter's settings.
    """

    label: str
    name: str
    split: str
    root: Path | None
    settings: Mapping[str, Any]

    def open(self) -> VideoDataset:
        """Open the dataset."""
        dataset, _ = get_dataset(self.name)
        opened = dataset(self.root, self.split, **self.settings)
        assert isinstance(opened, VideoDataset)
        return opened


@dataclass(frozen=True)
class Job:
    """One method on one sequence with one seed.

    Attributes:
        id: hash of everything the result depends on.
        method: registered name.
        variant: what differs from the method's default settings, empty for the default; or the
            name that the run gives it.
        settings: the method's settings as plain data.
        weights: checkpoint named by the user, or None.
        data: where the sequence comes from.
        sequence: its name.
        frames: its length.
        seed: handed to the method.
        device: ``"cpu"`` or ``"cuda"``.
        protocol: name in :data:`bench.protocol.PROTOCOLS`.
        classes: a :class:`bench.semantic.ClassMapping` as plain data, under the semantic protocol.
    """

    id: str
    method: str
    variant: str
    settings: Mapping[str, Any]
    weights: Path | None
    data: DataChoice
    sequence: str
    frames: int
    seed: int
    device: str
    protocol: str
    classes: Mapping[str, Any] | None = None

    @property
    def masks(self) -> Path:
        """Where its masks lie inside the run's folder."""
        return mask_folder(self.method, self.variant, self.data.label, self.sequence, self.seed)

    def __str__(self) -> str:
        variant = f" [{self.variant}]" if self.variant else ""
        return f"{self.method}{variant} on {self.data.label}/{self.sequence}, seed {self.seed}"


def mask_folder(method: str, variant: str, dataset: str, sequence: str, seed: int) -> Path:
    """``masks/<method>/<dataset>/<sequence>``; variants and seeds other than 0 are told apart."""
    label = method + (f"@{variant}" if variant else "") + (f"#{seed}" if seed else "")
    return Path("masks", label.replace("/", "_"), dataset, sequence)


@dataclass(frozen=True)
class Skip:
    """A method that cannot run on a dataset, with the reason; never a silent hole in a table.

    Attributes:
        method: registered name.
        variant: as in :class:`Job`.
        dataset: label of the dataset.
        split: its split.
        reason: why, as a clause.
        sequences: those it cannot run on, in order; empty for all.
        seeds: of the jobs that are left out with these sequences.
    """

    method: str
    variant: str
    dataset: str
    split: str
    reason: str
    sequences: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        names = f" ({', '.join(self.sequences)})" if self.sequences else ""
        return f"{self.method} on {self.dataset}{names}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        jobs: in the order in which tables list them.
        skips: what it will not do, and why.
        data: the datasets by label.
        methods: facts about each (method, variant) for the store, by ``"method@variant"``.
    """

    jobs: list[Job]
    skips: list[Skip]
    data: dict[str, DataChoice]
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)


def resolve_device(wanted: str) -> str:
    """``"cuda"`` or ``"cpu"`` for ``"auto"``; :class:`ConfigError` for a GPU that is not there."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise ConfigError(
            "--device cuda", "no CUDA device", "a GPU that torch can use", "Use --device cpu."
        )
    return "cpu"


def make_plan(config: RunConfig, assignments: Mapping[str, Any] | None = None) -> Plan:
    """Turn a configuration into jobs.

    Args:
        config: what is asked for.
        assignments: ``--set`` values by dotted key; see :func:`distribute`.

    Raises:
        ConfigError: unknown names, keys or values; no readable file of classes.
        DataError: data that is not there.
    """
    mapping = given_classes(config)
    device = resolve_device(config.device)
    overrides = distribute(config, assignments or {})
    choices = [choose_data(name, config, overrides) for name in config.data]
    data = {choice.label: choice for choice in choices}
    plan = Plan([], [], data)
    opened = {label: _selected(choice, config) for label, choice in data.items()}
    for name in config.methods:
        method = get_method(name)
        settings, preset = method_settings(name, method, config.preset, overrides.get(name, {}))
        default, _ = method_settings(name, method, None, {})
        plain = settings.model_dump(mode="json")
        variant = describe_difference(plain, default.model_dump(mode="json"))
        weights = config.weights.get(name)
        if weights is not None:
            weights = weights.resolve()
            variant = ",".join(filter(None, [f"weights={weights.stem}", variant]))
        elif issubclass(method, Trainable):
            # Named in the plan and hashed, so that a newer training makes new jobs.
            weights = method.find_weights(settings)
        named = config.names.get(name)
        variant = named or variant
        context = Context(device, config.seeds[0], weights)
        plan.methods[f"{name}@{variant}"] = {
            "method": name,
            "variant": variant,
            "name": named,
            "preset": preset,
            "title": method.card.title,
            "description": method.card.description,
            "paper": method.card.paper,
            "settings": plain,
        }
        reason = method.why_not(settings, context)
        reason = reason or _lacks_protocol(method, config.protocol, settings, context)
        code = code_version(method.__module__)
        weights_hash = _file_hash(weights) if weights else ""
        built = method(settings, context) if config.protocol == "semantic" and not reason else None
        for label, (dataset, sequences) in opened.items():
            choice = data[label]
            if reason:
                plan.skips.append(Skip(name, variant, label, choice.split, reason))
                continue
            classes: dict[str, Any] | None = None
            left_out: set[str] = set()
            if built is not None:
                shared = share(mapping, built, dataset, [each for each, _, _ in sequences])
                if shared.reason:
                    names = shared.left_out
                    seeds = tuple(config.seeds) if names else (0,)
                    plan.skips.append(
                        Skip(name, variant, label, choice.split, shared.reason, names, seeds)
                    )
                if shared.mapping is None:
                    continue
                classes, left_out = shared.mapping.model_dump(mode="json"), set(shared.left_out)
            for sequence, frames, fingerprint in sequences:
                if sequence in left_out:
                    continue
                for seed in config.seeds:
                    content = [
                        name, plain, weights_hash, choice.name, choice.split,
                        dict(choice.settings), sequence, fingerprint, seed, device,
                        config.protocol, dataset.scoring.name, code, classes,
                    ]  # fmt: skip
                    plan.jobs.append(
                        Job(
                            id=_hash(content),
                            method=name,
                            variant=variant,
                            settings=plain,
                            weights=weights,
                            data=choice,
                            sequence=sequence,
                            frames=frames,
                            seed=seed,
                            device=device,
                            protocol=config.protocol,
                            classes=classes,
                        )
                    )
    return plan


def distribute(config: RunConfig, assignments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each ``--set`` value to the methods or datasets it belongs to.

    ``imagenet.strides=[8]`` names its owner. ``propagation.top_k=5`` goes to every method of the
    run that has such a setting.

    Returns:
        Nested settings by method or dataset name, the configuration's own included.

    Raises:
        ConfigError: a name that the run does not have, or a key that nothing in it knows.
    """
    names = {*config.methods, *(base_name(name) for name in config.data)}
    for owner in config.settings:
        if owner not in names:
            raise ConfigError(
                f"settings.{owner}",
                "settings for something that does not run",
                f"one of {', '.join(sorted(names))}",
                "Add it to methods or data, or remove its settings.",
            )
    overrides = {name: merge({}, given) for name, given in config.settings.items()}
    for key, value in assignments.items():
        head, _, rest = key.partition(".")
        if head in names and rest:
            owners, inner = [head], rest
        else:
            inner = key
            owners = [n for n in config.methods if known_key(get_method(n).Settings, key)]
            if not owners:
                known = sorted(
                    {
                        f"{n}.{field}"
                        for n in config.methods
                        for field in setting_names(get_method(n).Settings)
                    }
                )
                raise ConfigError(
                    f"--set {key}",
                    "a key that none of the run's methods has",
                    f"METHOD.KEY or DATASET.KEY, for instance {', '.join(known[:8]) or 'none'}",
                    "Check the spelling with `python -m bench list methods`.",
                )
        for owner in owners:
            assign(overrides.setdefault(owner, {}), inner, value)
    return overrides


def describe_difference(settings: Mapping[str, Any], default: Mapping[str, Any]) -> str:
    """Name a variant by the settings that differ from the default, e.g. ``short_side=240``."""
    here, there = flatten(settings), flatten(default)
    changed = {key: value for key, value in here.items() if there.get(key) != value}
    # The last part of a dotted key names it, unless two changed keys share it.
    last = [key.rpartition(".")[2] for key in changed]
    names = [
        key if last.count(short) > 1 else short for key, short in zip(changed, last, strict=True)
    ]
    values = (json.dumps(value).replace(" ", "").replace('"', "") for value in changed.values())
    return ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def base_name(name: str) -> str:
    """``NAME`` of ``NAME-SPLIT``; :class:`ConfigError` for no dataset."""
    _, split = get_dataset(name)
    return name.removesuffix(f"-{split}") if split else name


def choose_data(
    name: str, config: RunConfig, overrides: Mapping[str, dict[str, Any]]
) -> DataChoice:
    """A dataset of a run, with its settings of :func:`distribute`; it is not opened.

    Raises:
        ConfigError: no such dataset, or one of still images.
        DataError: its folder is not found.
    """
    dataset, split = get_dataset(name)
    if not issubclass(dataset, VideoDataset):
        raise ConfigError(
            f"--data {name}", "a dataset of still images", "a video dataset",
            "Still images serve for training; `python -m bench list data` says which is which.",
        )  # fmt: skip
    base = base_name(name)
    settings = overrides.get(base, {})
    changed = describe_difference(settings, {})
    label = f"{name}[{changed}]" if changed else name
    root = find_root(dataset, config.root)
    # Absolute, so that a report finds the frames from whatever folder it is made in.
    root = root.resolve() if root is not None else None
    return DataChoice(label, base, split or dataset.splits[0], root, settings)


def _selected(
    choice: DataChoice, config: RunConfig
) -> tuple[VideoDataset, list[tuple[str, int, str]]]:
    """The opened dataset, and name, length and fingerprint of the sequences to run."""
    dataset = choice.open()
    names = dataset.sequences()
    if config.sequences is not None:
        unknown = [name for name in config.sequences if name not in names]
        # With several datasets a sequence need only be in one of them.
        if unknown and (len(config.data) == 1 or len(unknown) == len(config.sequences)):
            raise ConfigError(
                "--sequences",
                ", ".join(unknown),
                f"sequences of {choice.label}: {', '.join(names)}",
                "Check the spelling.",
            )
        names = [name for name in config.sequences if name in names]
    return dataset, [(name, len(dataset.video(name)), dataset.fingerprint(name)) for name in names]


def _lacks_protocol(
    method: type[Method], protocol: str, settings: MethodSettings, context: Context
) -> str | None:
    if protocol == "unsupervised" and not issubclass(method, Unprompted):
        return "it needs the first mask, which the unsupervised protocol does not give"
    if protocol == "semantic":
        if not issubclass(method, Semantic):
            return "it tells objects from background, not the classes that the protocol asks for"
        return method.why_not_semantic(settings, context)
    return None


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _file_hash(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"--weights {path}", "no such file", "a checkpoint", "Check the path.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache
def code_version(module: str) -> str:
    """Hash of the source that computes scores: the harness, and the method's own package."""
    digest = hashlib.blake2b(digest_size=10)
    for path in _sources("bench", module.partition(".")[0]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _sources(*packages: str) -> Iterable[Path]:
    for package in packages:
        source = Path(inspect.getfile(importlib.import_module(package)))
        if source.name == "__init__.py":
            yield from sorted(source.parent.rglob("*.py"))
        else:
            yield source


def job_record(job: Job) -> dict[str, Any]:
    """A job as plain data for JSON."""
    record = asdict(job)
    record["weights"] = str(job.weights) if job.weights else None
    record["data"]["root"] = str(job.data.root) if job.data.root else None
    return record
