"""Clips of unlabelled videos: which frames a sample is made of, and where they come from.

A system's settings say which frames it wants (:func:`methods.clips.place`), its ``augment`` what
becomes of them. :class:`Clips` joins both with videos; sample ``i`` depends on the seed and ``i``
alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, Literal, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from bench.errors import ConfigError, DataError
from bench.method import MethodSettings
from bench.training import ENDLESS
from bench.video import RGB
from methods.clips import resize_short_side

Sample = dict[str, Tensor]
"""One clip as the tensors that an objective takes, without the batch dimension."""

SettingsT = TypeVar("SettingsT", bound=MethodSettings)

Augment = Callable[[list[RGB], np.random.Generator, SettingsT], Sample]
"""A clip's frames, uint8 RGB ``(H, W, 3)``, to one sample."""

DrawFrames = Callable[[np.random.Generator, int], Sequence[int]]
"""Draws the numbers of a clip's frames in a video of so many frames."""

Weighting = Literal["uniform", "length"]


class Footage(Protocol):
    """What clips are cut from: a :class:`bench.video.Video`, or what is seen of a still image."""

    def __len__(self) -> int: ...

    @property
    def load_frame(self) -> Callable[[int], RGB]:
        """Decodes a frame by number; uint8 RGB ``(H, W, 3)``."""
        ...


FootageT = TypeVar("FootageT", bound=Footage)


def crop_at_random(frames: Sequence[RGB], random: np.random.Generator, side: int) -> list[RGB]:
    """Cut the same square out of all frames, anywhere.

    Args:
        frames: uint8 RGB of one size, at least ``side`` high and wide.
        random: where the place comes from.
        side: of the square in pixels.
    """
    height, width = frames[0].shape[:2]
    top = int(random.integers(height - side + 1))
    left = int(random.integers(width - side + 1))
    return [frame[top : top + side, left : left + side] for frame in frames]


def resized_crop(
    image: RGB,
    random: np.random.Generator,
    side: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> RGB:
    """Cut out a rectangle of random area and shape and resize it to a square, bilinearly.

    The shape is drawn anew while the rectangle does not fit; after ten times the whole image is
    taken. (Szegedy et al., Going deeper with convolutions, CVPR 2015, section 6.)

    Args:
        image: uint8 ``(H, W, 3)``.
        random: where the rectangle comes from.
        side: of the result in pixels.
        scale: smallest and largest area as shares of the image's.
        ratio: smallest and largest width by height; drawn uniformly in the logarithm.
    """
    height, width = image.shape[:2]
    cut = image
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        shape = np.exp(random.uniform(*np.log(ratio)))
        w, h = round((area * shape) ** 0.5), round((area / shape) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top = int(random.integers(height - h + 1))
            left = int(random.integers(width - w + 1))
            cut = image[top : top + h, left : left + w]
            break
    return np.asarray(cv2.resize(cut, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def to_tensor(frames: Sequence[RGB]) -> Tensor:
    """Frames of one size, uint8 ``(H, W, 3)``, as uint8 ``(T, 3, H, W)``."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def collate(samples: Sequence[Sample]) -> Sample:
    """Samples to a batch: every tensor gets a leading batch dimension.

    Args:
        samples: dictionaries with the same names and shapes.
    """
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def split_videos(
    videos: Sequence[FootageT], held_out: int, seed: int
) -> tuple[list[FootageT], list[FootageT]]:
    """Divide videos into those to train on and those held out, by seed.

    Whole videos are held out, since frames of one video are nearly alike. A larger ``held_out``
    holds out the smaller one's videos too.

    Returns:
        Videos to train on and videos held out, each in the given order.

    Raises:
        ConfigError: nothing would remain to train on, or nothing is held out.
    """
    if not 0 < held_out < len(videos):
        raise ConfigError(
            "training.held_out",
            f"{held_out} of {len(videos)} videos",
            f"1 to {len(videos) - 1}",
            "Hold out another number of videos, or name a larger dataset.",
        )
    order = np.random.default_rng(seed).permutation(len(videos)).tolist()
    chosen = set(order[:held_out])
    train = [video for number, video in enumerate(videos) if number not in chosen]
    return train, [videos[number] for number in sorted(chosen)]


class FrameStore:
    """Decoded frames, the latest used kept in memory so that they are not decoded again.

    Each process that loads samples has its own store; ``memory`` counts for each of them.

    Args:
        load: decodes a frame by the numbers of its video and its own; uint8 RGB ``(H, W, 3)``.
        short_side: frames are scaled to it as soon as they are decoded, in pixels; None keeps
            their size. Small frames make many of them fit: 2,000 frames of 240 x 427 need
            0.6 GB.
        memory: limit in bytes; 0 keeps nothing.
    """

    def __init__(
        self, load: Callable[[int, int], RGB], short_side: int | None, memory: int
    ) -> None:
        self.load = load
        self.short_side = short_side
        self.memory = memory
        self._kept: OrderedDict[tuple[int, int], RGB] = OrderedDict()
        self._bytes = 0

    def frame(self, video: int, number: int) -> RGB:
        """One frame, uint8 RGB ``(H, W, 3)``; not to be written to."""
        key = (video, number)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = self.load(video, number)
        if self.short_side is not None:
            image = resize_short_side(image, self.short_side)
        self._keep(key, image)
        return image

    def _keep(self, key: tuple[int, int], image: RGB) -> None:
        if image.nbytes > self.memory:
            return
        self._kept[key] = image
        self._bytes += image.nbytes
        while self._bytes > self.memory:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


class Clips(Generic[SettingsT]):
    """Samples made of clips; sample ``i`` depends on the seed and ``i`` alone.

    Videos with fewer frames than ``shortest`` are left out. In one that is shorter than a clip's
    span, ``draw_frames`` is expected to shrink the gaps, as :func:`methods.clips.place` does.

    Args:
        videos: unlabelled; masks are never read.
        augment: makes a sample of a clip's frames.
        settings: handed to ``augment``.
        draw_frames: which frames make a clip; mostly the settings' own method of that name.
        seed: of everything that is drawn.
        length: number of samples.
        weighting: ``"uniform"`` draws each video equally often, as the official trainings do;
            ``"length"`` draws each in proportion to its number of frames.
        shortest: frames a video must have.
        short_side: see :class:`FrameStore`.
        memory: see :class:`FrameStore`; in bytes.

    Raises:
        DataError: no video is long enough.
    """

    def __init__(
        self,
        videos: Sequence[Footage],
        augment: Augment[SettingsT],
        settings: SettingsT,
        draw_frames: DrawFrames,
        seed: int,
        *,
        length: int = ENDLESS,
        weighting: Weighting = "uniform",
        shortest: int = 2,
        short_side: int | None = None,
        memory: int = 0,
    ) -> None:
        self.videos = [video for video in videos if len(video) >= shortest]
        if not self.videos:
            raise DataError(
                "videos to train on",
                f"{len(videos)}, none with {shortest} frames or more",
                "some",
                "Name a dataset of longer videos.",
            )
        self.augment = augment
        self.settings = settings
        self.draw_frames = draw_frames
        self.seed = seed
        self.length = length
        self.store = FrameStore(self._load, short_side, memory)
        lengths = np.array([len(video) for video in self.videos], np.float64)
        weights = lengths if weighting == "length" else np.ones_like(lengths)
        self._probabilities = weights / weights.sum()

    def _load(self, video: int, number: int) -> RGB:
        return self.videos[video].load_frame(number)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Make one sample; raises IndexError past the end."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        random = np.random.default_rng((self.seed, index))
        video = int(random.choice(len(self.videos), p=self._probabilities))
        numbers = self.draw_frames(random, len(self.videos[video]))
        frames = [self.store.frame(video, number) for number in numbers]
        # A number, so that objectives across a batch can tell clips of one video from others'.
        return self.augment(frames, random, self.settings) | {"video": torch.tensor(video)}
