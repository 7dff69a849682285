"""Generated images and videos of discs: both domains in memory, each with its own look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.dataset import ImageDataset, Problem, VideoDataset
from bench.video import RGB, LabelledImage, Mask, ObjectInfo, Video

HEIGHT, WIDTH = 48, 64
FRAMES = 8


def draw(
    random: np.random.Generator, centre: tuple[float, float], radius: float, light: float
) -> tuple[RGB, Mask]:
    """A coloured disc on noise; in less light, and bluer, where a video camera sees it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2).astype(np.uint8)
    image = random.integers(60, 140, (HEIGHT, WIDTH, 3)).astype(np.float32)
    image[mask > 0] = image[mask > 0] * 0.3 + np.array((200, 120, 40)) * 0.7
    image *= light ** np.array((1.0, 0.75, 0.3))
    return image.astype(np.uint8), mask


class ShapeImages(ImageDataset):
    name = "shapes"
    title = "Shapes"
    splits = ("train",)
    how_to_get = "Made in memory."

    def __init__(
        self, root: Path | None = None, split: str | None = None, count: int = 24, **settings: Any
    ) -> None:
        self.count = count

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return True

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> LabelledImage:
        if not 0 <= index < self.count:
            raise IndexError(index)
        random = np.random.default_rng((1, index))
        centre = random.uniform(16, 32), random.uniform(20, 44)
        image, mask = draw(random, centre, random.uniform(8, 14), light=1.0)
        return LabelledImage(f"{index:04}", image, mask, {1: "disc"})

    def verify(self) -> list[Problem]:
        return []


class ShapeVideos(VideoDataset):
    """Discs that move; counts what was decoded."""

    name = "shape-videos"
    title = "Shape videos"
    splits = ("train",)
    how_to_get = "Made in memory."

    def __init__(
        self,
        root: Path | None = None,
        split: str | None = None,
        count: int = 6,
        light: float = 0.5,
        **settings: Any,
    ) -> None:
        self.count = count
        self.light = light
        self.masks_read: list[tuple[str, int]] = []
        self.frames_read = 0

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return True

    def sequences(self) -> list[str]:
        return [f"clip{number}" for number in range(self.count)]

    def picture(self, sequence: str, frame: int) -> tuple[RGB, Mask]:
        number = int(sequence.removeprefix("clip"))
        path = np.random.default_rng((2, number))
        start, speed = path.uniform((12, 14), (36, 50)), path.uniform(-1, 1, 2)
        centre = start + speed * frame
        random = np.random.default_rng((3, number, frame))
        return draw(random, (centre[0], centre[1]), path.uniform(5, 9), self.light)

    def video(self, sequence: str) -> Video:
        def load_mask(frame: int) -> Mask:
            self.masks_read.append((sequence, frame))
            return self.picture(sequence, frame)[1]

        def load_frame(frame: int) -> RGB:
            self.frames_read += 1
            return self.picture(sequence, frame)[0]

        return Video(
            dataset=self.name,
            name=sequence,
            frame_names=tuple(f"{frame:05}" for frame in range(FRAMES)),
            size=(HEIGHT, WIDTH),
            load_frame=load_frame,
            load_mask=load_mask,
            annotated=tuple(range(FRAMES)),
            objects={1: ObjectInfo("disc")},
        )

    def fingerprint(self, sequence: str) -> str:
        return sequence

    def verify(self) -> list[Problem]:
        return []
