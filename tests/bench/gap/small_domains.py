"""Two tiny domains with a known gap, and a method that sees it; importing registers them.

Objects are bright squares on dark, textured ground. The method calls foreground what is brighter
than half. All images are bright; videos are darker, and in every second one the light is so
low that its foreground is missed whole.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import avg_pool2d

from bench.dataset import ImageDataset, VideoDataset
from bench.method import (
    FromCheckpoint,
    HasFeatures,
    LabelRegime,
    Method,
    MethodCard,
    MethodSettings,
    Trainable,
    Unprompted,
)
from bench.registry import register_dataset, register_method
from bench.video import LabelledImage, Video

COUNT = 12
SIZE = (48, 64)


def _scene(number: int, time: int, light: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(number)
    image = generator.integers(20, 70, (*SIZE, 3))
    top, left = generator.integers(4, 20), generator.integers(4, 30) + time
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 20, left : left + 20] = 1
    image[mask > 0] = generator.integers(190, 250, (int(mask.sum()), 3))
    return (image * light).astype(np.uint8), mask


@register_dataset("small-pictures")
class SmallPictures(ImageDataset):
    name = "small-pictures"
    title = "Small pictures"
    splits = ("all",)
    how_to_get = "It is made by the tests."

    def __init__(self, root: Path | None = None, split: str | None = None) -> None:
        pass

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return False

    def verify(self):
        return []

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> LabelledImage:
        return LabelledImage(f"{index:04d}", *_scene(index, 0, 1.0))


@register_dataset("small-clips")
class SmallClips(VideoDataset):
    name = "small-clips"
    title = "Small clips"
    splits = ("val",)
    how_to_get = "It is made by the tests."

    def __init__(self, root: Path | None = None, split: str | None = None) -> None:
        pass

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return False

    def verify(self):
        return []

    def sequences(self) -> list[str]:
        return [f"clip-{number}" for number in range(COUNT)]

    def video(self, sequence: str) -> Video:
        number = int(sequence.rpartition("-")[2])
        light = 0.8 if number % 2 else 0.5
        return Video(
            "small-clips",
            sequence,
            ("0", "1", "2"),
            SIZE,
            lambda index: _scene(100 + number, index, light)[0],
            lambda index: _scene(100 + number, index, light)[1],
            (0, 1, 2),
        )

    def fingerprint(self, sequence: str) -> str:
        return f"fingerprint of {sequence}"


class BrightSettings(MethodSettings):
    threshold: float = Field(default=0.5)


@register_method("prompted-only")
class PromptedOnly(Method, HasFeatures, FromCheckpoint, Trainable):
    """Has features and segments only with a mask; a weights file holds a threshold."""

    card = MethodCard("prompted-only", "Prompted", "For tests.", LabelRegime())
    Settings = BrightSettings
    TrainingSettings = MethodSettings

    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.threshold = settings.threshold
        if context.weights is not None:
            self.load(context.weights)

    @classmethod
    def training_task(cls, settings, training, data, request):
        raise NotImplementedError

    def load(self, path):
        self.threshold = float(path.read_text())

    def begin(self, frame, mask):
        raise NotImplementedError

    def step(self, state, frame):
        raise NotImplementedError

    def feature_taps(self):
        return "fine", "coarse"

    def features_at(self, image, taps):
        pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        moments = torch.cat([pixels, pixels**2])
        cells = {"fine": 4, "coarse": 8}
        return {tap: avg_pool2d(moments[None], cells[tap])[0] for tap in taps}


@register_method("bright")
class Bright(PromptedOnly, Unprompted):
    """Foreground is what is brighter than the threshold."""

    card = MethodCard("bright", "Bright", "For tests.", LabelRegime())

    def begin_unprompted(self, frame):
        grey = torch.from_numpy(frame.image).float().mean(2) / 255
        return None, torch.stack([torch.full_like(grey, self.threshold), grey])


@register_method("featureless")
class Featureless(Method):
    """Has no features."""

    card = MethodCard("featureless", "Featureless", "For tests.", LabelRegime())

    def begin(self, frame, mask):
        raise NotImplementedError

    def step(self, state, frame):
        raise NotImplementedError
