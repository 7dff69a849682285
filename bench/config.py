"""What a run is asked to do: YAML and command line, checked by typed models.

Configuration is data. A wrong key or value becomes one :class:`bench.errors.ConfigError` that
names the path of the key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import ConfigError
from bench.method import Method, MethodSettings, Trainable

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
"""The folder of the tree's own YAML files."""

Preset = Literal["tiny", "paper"]


Protocol = Literal["semi-supervised", "unsupervised", "semantic"]
"""What methods are given, and asked for; a name in :data:`bench.protocol.PROTOCOLS`."""


class RunConfig(BaseModel):
    """One run, as the command line or a YAML file describes it.

    Attributes:
        methods: names of methods.
        data: names of datasets, each ``NAME`` or ``NAME-SPLIT``.
        root: where the data lies; see :func:`bench.dataset.find_root`.
        sequences: only these sequences, where a dataset has them; None for all.
        seeds: each method runs once per seed.
        preset: ``"tiny"`` or ``"paper"`` for every method; None for each method's own default.
        protocol: ``"semi-supervised"``, ``"unsupervised"`` or ``"semantic"``.
        classes: YAML of a :class:`bench.semantic.ClassMapping`, for the semantic protocol; None
            for the classes that method and dataset call the same.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        workers: jobs at a time; None chooses.
        engine: where jobs run.
        settings: overrides by method or dataset name.
        weights: a checkpoint by method name.
        names: what tables call a method with this run's settings and weights, by method name;
            otherwise it is named by what differs from its default settings.
    """

    model_config = ConfigDict(extra="forbid")

    methods: list[str] = Field(default=["imagenet", "copy"], min_length=1)
    data: list[str] = Field(default=["synthetic"], min_length=1)
    root: Path | None = None
    sequences: list[str] | None = None
    seeds: list[int] = Field(default=[0], min_length=1)
    preset: Preset | None = None
    protocol: Protocol = "semi-supervised"
    classes: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = Field(default=None, ge=1)
    engine: str = "local"
    settings: dict[str, dict[str, Any]] = {}
    weights: dict[str, Path] = {}
    names: dict[str, str] = {}


def config_error(source: str, error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """Turn pydantic's first complaint into one that names the key's path and what is allowed."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    where = f"{source}: {path}" if path else source
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Remove or correct it."
        return ConfigError(where, "an unknown key", f"one of {', '.join(known) or 'none'}", hint)
    return ConfigError(where, repr(first.get("input")), first["msg"], "Correct the value.")


def _keys_at(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the fields of the (nested) model at a path."""
    groups = [model]
    for part in path:
        fields = [group.model_fields.get(str(part)) for group in groups]
        if any(fields):  # else it is the tag of one of a union's groups, and they stay
            groups = [one for field in fields if field for one in _groups_in(field.annotation)[0]]
    return sorted({name for group in groups for name in group.model_fields})


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; :class:`ConfigError` says what is wrong with the file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(path, "no such file", "a YAML file", "Check the path.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(path, f"unreadable YAML: {error}", "a mapping", "Correct it.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            path, type(content).__name__, "a mapping of keys to values", "Correct it."
        )
    return content


def beside(file: Path, config: Path) -> Path:
    """A file named in a YAML file: beside that, where it is there, else as it is named."""
    near = config.parent / file
    return near if near.exists() else file


def load_run_config(file: Path | None, overrides: Mapping[str, Any]) -> RunConfig:
    """Combine a YAML file and the options given on the command line, which win.

    Args:
        file: YAML with the fields of :class:`RunConfig`, or None.
        overrides: fields to set; None values are ignored.
    """
    content = read_yaml(file) if file else {}
    if file and isinstance(content.get("classes"), str):
        content["classes"] = beside(Path(content["classes"]), file)
    content.update({key: value for key, value in overrides.items() if value is not None})
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise config_error(str(file or "command line"), error, RunConfig) from None


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse ``--set key=value`` options; values are read as YAML, keys may have dots."""
    parsed: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"--set {text}",
                "no key=value",
                "for instance --set propagation.top_k=5",
                "Add '='.",
            )
        try:
            parsed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}", str(error), "a YAML value", "Quote it.") from error
    return parsed


def assign(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries, in place."""
    *parents, last = key.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"--set {key}", f"{parent} is a value", "a group", "Shorten the key.")
    settings[last] = value


def known_key(model: type[BaseModel], key: str) -> bool:
    """Whether a dotted key names a setting, or a group of them, of a model."""
    return any(name == key or name.startswith(f"{key}.") for name in setting_names(model))


def setting_names(model: type[BaseModel]) -> list[str]:
    """Names of all settings of a model, nested ones with dots, as ``--set`` takes them."""
    names = []
    for name, field in model.model_fields.items():
        groups, others = _groups_in(field.annotation)
        nested = dict.fromkeys(inner for group in groups for inner in setting_names(group))
        names += [f"{name}.{inner}" for inner in nested]
        if others or not nested:
            names.append(name)
    return names


def _groups_in(annotation: Any) -> tuple[list[type[BaseModel]], bool]:
    """Models among the alternatives of an annotation, and whether there are other alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], False
    if get_origin(annotation) is Annotated:
        return _groups_in(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, UnionType):
        return [], True
    found = [_groups_in(alternative) for alternative in get_args(annotation)]
    return [group for groups, _ in found for group in groups], any(others for _, others in found)


class FirstTraining(BaseModel):
    """Training that is short enough to be done before a run.

    Attributes:
        data: name of the dataset, or names of several.
        budget: as ``--budget`` takes it.
    """

    model_config = ConfigDict(extra="forbid")

    data: str | list[str]
    budget: str

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets, one or several."""
        return [self.data] if isinstance(self.data, str) else self.data


class MethodConfig(BaseModel):
    """A method's YAML file.

    Attributes:
        default_preset: the one used where none is asked for.
        presets: the method's settings.
        training: what its training is told, for methods that train.
        first_training: how `run` trains the tiny preset where no weights fit.
    """

    model_config = ConfigDict(extra="forbid")

    default_preset: Preset = "tiny"
    presets: dict[Preset, dict[str, Any]] = {}
    training: dict[Preset, dict[str, Any]] = {}
    first_training: FirstTraining | None = None


def method_config(name: str, method: type[Method]) -> MethodConfig:
    """The presets of a method: ``configs/methods/<name>.yaml``, or a plugin's own file."""
    path = method.config_file or CONFIGS / "methods" / f"{name}.yaml"
    if not path.is_file():
        return MethodConfig()
    try:
        return MethodConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        raise config_error(str(path), error, MethodConfig) from None


def method_settings(
    name: str, method: type[Method], preset: Preset | None, overrides: Mapping[str, Any]
) -> tuple[MethodSettings, Preset]:
    """A method's settings under a preset with overrides, and the preset used."""
    config = method_config(name, method)
    used = preset or config.default_preset
    merged = merge(config.presets.get(used, {}), overrides)
    try:
        return method.Settings.model_validate(merged), used
    except ValidationError as error:
        raise config_error(name, error, method.Settings) from None


def training_settings(
    name: str, method: type[Trainable], preset: Preset, overrides: Mapping[str, Any]
) -> MethodSettings:
    """A method's training settings under a preset with overrides."""
    assert issubclass(method, Method)
    merged = merge(method_config(name, method).training.get(preset, {}), overrides)
    try:
        return method.TrainingSettings.model_validate(merged)
    except ValidationError as error:
        raise config_error(f"{name} training", error, method.TrainingSettings) from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries combined; ``over`` wins, neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:  # an empty group is a value: its defaults
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
