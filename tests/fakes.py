"""A dataset and methods for tests of the harness; importing registers them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import torch

from bench.conformance import scene
from bench.dataset import Problem, VideoDataset
from bench.method import LabelRegime, Method, MethodCard, MethodSettings
from bench.registry import register_dataset, register_method
from bench.video import ObjectInfo, object_ids


@register_dataset("scenes")
class Scenes(VideoDataset):
    """Small moving scenes in four sequences."""

    name = "scenes"
    title = "Scenes"
    splits = ("val",)
    how_to_get = "It is made by the tests."

    def __init__(self, root=None, split=None, length=5, sequences=4):
        self.length, self.count = length, sequences

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return False

    def verify(self) -> list[Problem]:
        return []

    def sequences(self):
        return [f"scene-{number}" for number in range(self.count)]

    def video(self, sequence):
        number = int(sequence.rpartition("-")[2])
        video = scene(self.length, (24, 32), objects=1 + number % 2, seed=number)
        seen = {1: ObjectInfo("cat", True), 3: ObjectInfo("dog", False)}
        return type(video)(
            **{**vars(video), "dataset": "scenes", "name": sequence, "objects": seen}
        )

    def fingerprint(self, sequence):
        return f"{sequence} {self.length}"


class FakeSettings(MethodSettings):
    shift: int = 0


@register_method("shifting")
class Shifting(Method):
    """Repeats the first mask, moved a little further every frame."""

    card = MethodCard(
        "shifting", "Shifting", "For tests.", LabelRegime(images=3, image_labels="mask")
    )
    Settings = FakeSettings

    def begin(self, frame, mask):
        return torch.from_numpy(np.stack([mask == i for i in (0, *object_ids(mask))])).float()

    def step(self, state, frame):
        state = state.roll(self.settings.shift, 2)
        return state, state


@register_method("failing")
class Failing(Shifting):
    """Fails on one sequence."""

    card = MethodCard("failing", "Failing", "For tests.", LabelRegime())

    def step(self, state, frame):
        if state.shape[0] == 3 and frame.index == 2:
            raise ValueError("cannot do two objects")
        return state, state


@register_method("elsewhere")
class Elsewhere(Shifting):
    """Cannot run here."""

    card = MethodCard("elsewhere", "Elsewhere", "For tests.", LabelRegime())

    @classmethod
    def why_not(cls, settings, context):
        return "it needs a machine that is not there"


@register_method("interrupted")
class Interrupted(Shifting):
    """Presses Ctrl-C on the sequence that the environment names."""

    card = MethodCard("interrupted", "Interrupted", "For tests.", LabelRegime())

    def begin(self, frame, mask):
        number = os.environ.get("INTERRUPT", "").rpartition("-")[2]
        if number and np.array_equal(frame.image, Scenes().video(f"scene-{number}").load_frame(0)):
            os.kill(os.getpid(), signal.SIGINT)
        return super().begin(frame, mask)
