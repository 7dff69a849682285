"""Methods that tell classes apart on the scenes of :mod:`tests.fakes`; importing registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.config import RunConfig
from bench.method import LabelRegime, MethodCard, Semantic
from bench.registry import register_method
from bench.run import RunResult, execute
from tests.fakes import Scenes, Shifting

CLASSES = ("dog", "tree", "cat")
"""Of the methods; the scenes have cats, id 1, and dogs, id 3."""

NUMBERS = {"cat": 3, "dog": 1}
"""Of the methods' classes by name."""

CATEGORIES = {1: "cat", 3: "dog"}


@register_method("knowing")
class Knowing(Shifting, Semantic):
    """Knows the scenes by heart; ``shift`` moves its answer aside."""

    card = MethodCard("knowing", "Knowing", "For tests.", LabelRegime())

    def class_names(self) -> tuple[str, ...]:
        return CLASSES

    def begin_semantic(self, frame: Any) -> tuple[int, torch.Tensor]:
        known = [Scenes().video(f"scene-{number}").load_frame(0) for number in range(4)]
        (number,) = [n for n in range(4) if np.array_equal(known[n], frame.image)]
        return self.step(number, frame)

    def step(self, state: Any, frame: Any) -> tuple[Any, torch.Tensor]:
        if isinstance(state, torch.Tensor):  # it was given a mask
            return super().step(state, frame)
        truth = Scenes().video(f"scene-{state}").load_mask(frame.index)
        truth = np.roll(truth, self.settings.shift, 1)
        scores = torch.zeros(1 + len(CLASSES), *truth.shape)
        scores[0] = 0.5
        for number, name in CATEGORIES.items():
            scores[NUMBERS[name]] = torch.from_numpy(truth == number).float()
        return state, scores


@register_method("nameless")
class NamelessClasses(Knowing):
    """Weights that do not say what their classes are."""

    card = MethodCard("nameless", "Nameless", "For tests.", LabelRegime())

    @classmethod
    def why_not_semantic(cls, settings: Any, context: Any) -> str | None:
        return "its weights do not name their classes"


def run_semantic(path: Path, assignments: Any = None, **options: Any) -> RunResult:
    """A run under the semantic protocol on the scenes."""
    config = {"methods": ["knowing"], "data": ["scenes"], "engine": "serial", "device": "cpu"}
    config |= {"protocol": "semantic"} | options
    return execute(RunConfig.model_validate(config), assignments or {}, path)
