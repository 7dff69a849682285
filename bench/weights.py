"""Methods that run with weights of their own: which file fits, and what it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from bench.config import method_config
from bench.method import (
    Context,
    FromCheckpoint,
    LabelRegime,
    Method,
    MethodCard,
    MethodSettings,
    Trainable,
)
from bench.training import newest_weights, read_header


class TrainedSettings(MethodSettings):
    """Base of the settings of methods with :class:`OwnWeights`.

    Attributes:
        initial: ``"trained"``, or ``"random"`` for the untrained control.
    """

    initial: Literal["trained", "random"] = "trained"


class OwnWeights(FromCheckpoint, Trainable):
    """Mix-in of methods whose weights are trained here, shipped, or named by the user.

    It answers for :class:`bench.method.Method` whether the method can run and what it consumed, so
    it stands before ``Method`` among the bases. ``Settings`` derives from :class:`TrainedSettings`.

    Class attributes:
        packaged: folder of the ``.safetensors`` files that ship with the method; need not exist.
        fitted: settings that weights belong to. They are recorded with weights, and weights fit a
            method that has the same; with none named, any fit.

    Attributes:
        trained_on: what the loaded weights consumed, set by ``load``; None where nothing says it.
        trained_for: seconds up to the loaded weights, without what they started from; 0 until
            some are loaded, NaN where nothing says it.
        steps_taken: optimiser steps up to them, likewise.
    """

    packaged: ClassVar[Path]
    fitted: ClassVar[tuple[str, ...]] = ()
    card: ClassVar[MethodCard]
    settings: MethodSettings
    context: Context
    trained_on: LabelRegime | None = None
    trained_for: float = 0.0
    steps_taken: float = 0.0

    @classmethod
    def fits(cls, settings: MethodSettings, header: Mapping[str, Any]) -> bool:
        """Whether weights with this header can be loaded with these settings.

        Args:
            settings: an instance of ``Settings``.
            header: as :func:`bench.training.read_header` gives it.
        """
        recorded = header.get("settings", {})
        given = settings.model_dump(mode="json", include=set(cls.fitted))
        return all(name in recorded and recorded[name] == given[name] for name in cls.fitted)

    @classmethod
    def find_weights(cls, settings: MethodSettings) -> Path | None:
        """The newest weights that fit, trained here or shipped; None for the untrained control."""
        if _untrained(settings):
            return None
        return newest_weights(
            cls.card.name, cls.packaged, lambda header: cls.fits(settings, header)
        )

    @classmethod
    def lacks_weights(cls, settings: MethodSettings) -> bool:
        """Whether trained weights are wanted and there are none."""
        return not _untrained(settings) and cls.find_weights(settings) is None

    @classmethod
    def why_not(cls, settings: MethodSettings, context: Context) -> str | None:
        """No weights fit these settings."""
        if context.weights or not cls.lacks_weights(settings):
            return None
        assert issubclass(cls, Method)
        file = "the authors' file" if cls.card.paper_checkpoint else "a file"
        first = method_config(cls.card.name, cls).first_training
        data = ",".join(first.datasets) if first else "NAME"
        return (
            f"no weights fit its settings; name {file} with --weights, or train with "
            f"`python -m bench train --methods {cls.card.name} --data {data}` "
            "and the same --preset and --set"
        )

    def load_chosen(self) -> None:
        """Load the weights that the user named, or else the newest that fit, if any do.

        Raises:
            MethodError: weights that do not fit.
        """
        weights = self.context.weights or self.find_weights(self.settings)
        if weights is not None:
            self.load(weights)
            header = header_of_file(weights)
            self.trained_for = float(header.get("seconds", math.nan))
            self.steps_taken = float(header.get("iterations", math.nan))

    def training_seconds(self) -> float:
        """As recorded with the loaded weights; 0 for random ones."""
        return self.trained_for

    def training_steps(self) -> float:
        """As recorded with the loaded weights; 0 for random ones."""
        return self.steps_taken

    def regime(self) -> LabelRegime:
        """As recorded with the loaded weights."""
        if _untrained(self.settings) and self.context.weights is None:
            return LabelRegime(note="random weights")
        return self.trained_on or LabelRegime(note="weights of unknown origin, given by the user")


def header_of_file(path: Path) -> dict[str, Any]:
    """A weights file's header; empty for torch files, which have none.

    Raises:
        MethodError: not a readable safetensors file.
    """
    return read_header(path) if path.suffix == ".safetensors" else {}


def _untrained(settings: MethodSettings) -> bool:
    assert isinstance(settings, TrainedSettings)
    return settings.initial == "random"
