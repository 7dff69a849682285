"""Which networks are measured: methods, and several weights of one method side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.config import Preset, assign, method_settings
from bench.errors import ConfigError
from bench.gap.domains import ImageSample
from bench.gap.representation import Representation, representation_of
from bench.method import Context, FromCheckpoint, Trainable
from bench.registry import get_method

SOURCE, ORACLE = "source", "oracle"
"""Labels of weights with a meaning: trained on labelled images only, and with video labels."""


@dataclass(frozen=True)
class WeightsFile:
    """Weights named on the command line.

    Attributes:
        method: that loads them.
        label: what tables call them; several files of one label are seeds of one training.
        file: where they lie.
    """

    method: str
    label: str
    file: Path


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        method: registered name.
        weights: label of its weights; empty for the method's own.
        seed: of its training as the weights say, else its place among files of the label.
        representation: what is measured of it.
        file: weights named by the user, or None.
        header: recorded with these weights, empty where unknown.
    """

    method: str
    weights: str
    seed: int
    representation: Representation
    file: Path | None
    header: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Method and weights; the seed is not told."""
        return f"{self.method} {self.weights}".strip()

    @property
    def key(self) -> dict[str, Any]:
        """First columns of its rows."""
        return {"method": self.method, "weights": self.weights, "seed": self.seed}


@dataclass(frozen=True)
class Missing:
    """Something that was not measured, and why; part of every result."""

    what: str
    method: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what} of {self.method}: {self.reason}"


def parse_weights(options: Sequence[str], methods: Sequence[str]) -> list[WeightsFile]:
    """Read ``[METHOD.]LABEL=FILE`` options, several of which may be joined by commas.

    Without METHOD the weights belong to the only method asked for that trains; a LABEL that is a
    method's name gives that method its weights without a label.

    Raises:
        ConfigError: another form, no such file, or a method that is not clear or loads none.
    """
    found = []
    for option in (part.strip() for text in options for part in text.split(",") if part.strip()):
        name, equals, file = option.partition("=")
        if not equals or not name or not file:
            raise ConfigError(
                f"--weights {option}",
                "no LABEL=FILE",
                "for instance source=source.safetensors,oracle=oracle.safetensors",
                "Name each file.",
            )
        head, dot, label = name.partition(".")
        if name in methods:
            method, label = name, ""
        elif dot and head in methods:
            method = head
        else:
            method, label = _only_trainable(option, methods), name
        if not issubclass(get_method(method), FromCheckpoint):
            raise ConfigError(
                f"--weights {option}", f"{method}, which loads none", "a method that does", "Drop."
            )
        if not Path(file).is_file():
            raise ConfigError(
                f"--weights {option}", "no such file", "a checkpoint", "Check the path."
            )
        found.append(WeightsFile(method, label, Path(file)))
    return found


def _only_trainable(option: str, methods: Sequence[str]) -> str:
    able = [name for name in methods if issubclass(get_method(name), Trainable)]
    if len(able) != 1:
        raise ConfigError(
            f"--weights {option}",
            f"{len(able)} methods that they may belong to ({', '.join(able) or 'none trains'})",
            "one",
            "Write METHOD.LABEL=FILE.",
        )
    return able[0]


def overrides_of(
    methods: Sequence[str], assignments: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """``--set`` values by method; a key without a method's name is for the only method.

    Raises:
        ConfigError: a key that names none of several methods.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in methods}
    for key, value in assignments.items():
        head, dot, rest = key.partition(".")
        if dot and head in found:
            assign(found[head], rest, value)
        elif len(methods) == 1:
            assign(found[methods[0]], key, value)
        else:
            raise ConfigError(
                f"--set {key}", "no method's name", f"{methods[0]}.{key}", "Say which method."
            )
    return found


def build_variants(
    methods: Sequence[str],
    files: Sequence[WeightsFile],
    preset: Preset | None,
    assignments: Mapping[str, Any],
    device: str,
    seed: int,
    taps: Sequence[str] | None,
) -> tuple[list[Variant], list[Missing]]:
    """Build every method with its own weights or with each of the files given for it.

    Returns:
        The networks, and methods that cannot be measured.

    Raises:
        ConfigError: wrong names or settings.
        MethodError: weights that do not fit.
    """
    overrides = overrides_of(methods, assignments)
    found: list[Variant] = []
    missing: list[Missing] = []
    for name in methods:
        method = get_method(name)
        settings, _ = method_settings(name, method, preset, overrides[name])
        own = [one for one in files if one.method == name]
        places: dict[str, int] = {}
        for given in own or [WeightsFile(name, "", Path())]:
            file = given.file if own else None
            context = Context(device, seed, file)
            if (reason := method.why_not(settings, context)) is not None:
                missing.append(Missing("everything", name, reason))
                continue
            built = method(settings, context)
            representation = representation_of(built)
            if representation is None:
                missing.append(Missing("everything", name, "it offers no features"))
                continue
            if taps is not None:
                representation = representation.restricted(taps)
            header = _header(file) or getattr(built, "header", {})
            place = places[given.label] = places.get(given.label, -1) + 1
            number = int(header.get("seed", place))
            found.append(Variant(name, given.label, number, representation, file, header))
    _check_seeds(found)
    return found, missing


def _header(file: Path | None) -> Mapping[str, Any]:
    if file is None or file.suffix != ".safetensors":
        return {}
    from bench.training import read_header

    return read_header(file)


def _check_seeds(variants: Sequence[Variant]) -> None:
    seen: dict[tuple[Any, ...], Variant] = {}
    for one in variants:
        other = seen.setdefault(tuple(one.key.values()), one)
        if other is not one:
            raise ConfigError(
                "--weights",
                f"{other.file} and {one.file}, both {one.title} with seed {one.seed}",
                "seeds that differ under one label",
                "Give them labels of their own.",
            )


def trained_on(variant: Variant, images: ImageSample) -> str:
    """A sentence where the network may have been trained on sampled images; else empty."""
    header = variant.header
    if images.dataset not in header.get("data", ()):
        return ""
    training = header.get("settings", {}).get("training", {})
    seen = len(images)
    if {"held_out", "split_seed"} <= set(training):
        order = np.random.default_rng(training["split_seed"]).permutation(images.available)
        held_out = set(order[: training["held_out"]].tolist())
        seen = len(set(images.indices) - held_out)
    if not seen:
        return ""
    return (
        f"{variant.title} was trained on {images.dataset}: {seen} of the {len(images)} images "
        "measured may be among its training images, which flatters its scores on images."
    )
