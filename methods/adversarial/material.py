"""What training steps are made of: labelled stills, clips of videos, and videos' sharpest frames.

Masks of videos are read only where a recipe may train on them, or for an analysis.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np

from bench.video import RGB, VOID, LabelledImage, Mask, Video
from methods.adversarial.augment import Clip, Labels
from methods.adversarial.settings import DomainSettings
from methods.camera_path import camera_path, follow
from methods.clips import place, resize_short_side

SHARPNESS_FRAMES = 32
"""Frames of a video, evenly spaced, that its sharpest is looked for among."""


class Material(Protocol):
    """Numbered things that clips are made of."""

    def __len__(self) -> int: ...

    def clip(self, number: int, random: np.random.Generator) -> Clip:
        """Make a clip of one of them."""


Decode = Callable[[], tuple[RGB, Labels | None]]


class Memory:
    """Decoded pictures, the latest used kept so that they are not decoded again.

    Args:
        short_side: pictures are scaled to it as soon as they are decoded; None keeps them.
        limit: in bytes, for each process that loads samples.
    """

    def __init__(self, short_side: int | None, limit: int) -> None:
        self.short_side = short_side
        self.limit = limit
        self._kept: OrderedDict[tuple[str, int, int], tuple[RGB, Labels | None]] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, int, int], decode: Decode) -> tuple[RGB, Labels | None]:
        """A picture and its labels, not to be written to.

        Args:
            key: kind, number and frame.
            decode: is called where the picture is not kept.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image, labels = decode()
        if self.short_side is not None:
            image = resize_short_side(image, self.short_side)
        if labels is not None and labels.shape[:2] != image.shape[:2]:
            size = image.shape[1], image.shape[0]
            labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        self._kept[key] = image, labels
        self._bytes += _size(image, labels)
        while self._bytes > self.limit:
            self._bytes -= _size(*self._kept.popitem(last=False)[1])
        return image, labels


def _size(image: RGB, labels: Labels | None) -> int:
    return image.nbytes + (0 if labels is None else labels.nbytes)


def labels_of(mask: Mask | None, categories: Mapping[int, str], names: Sequence[str]) -> Labels:
    """Foreground and class of every pixel.

    Objects of categories without a name in ``names`` are background to the classes. Where objects
    have no category at all, no class is known anywhere.

    Args:
        mask: uint8 ids ``(H, W)``, 255 void.
        categories: by id.
        names: of the classes; the first is class 1.
    """
    assert mask is not None
    foreground = np.array([0] + [1] * (VOID - 1) + [VOID], np.uint8)
    classes = np.full(VOID + 1, VOID, np.uint8)
    if names and (categories or not mask.any()):
        classes[:VOID] = 0
        for number, category in categories.items():
            classes[number] = names.index(category) + 1 if category in names else 0
    return np.stack([foreground[mask], classes[mask]], axis=-1)


def unknown(image: RGB) -> Labels:
    """Labels of a picture without any."""
    return np.full((*image.shape[:2], 2), VOID, np.uint8)


class Images(Protocol):
    """Labelled images by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledImage: ...


class Stills:
    """Still images; for networks that see several frames at once, as clips.

    Args:
        images: all there are.
        numbers: of those used.
        domains: how images become clips, and the classes' names.
        frames: T of the clips.
        memory: for decoded images.
        labelled: whether labels may be trained on; if not they are not kept.
    """

    def __init__(
        self,
        images: Images,
        numbers: Sequence[int],
        domains: DomainSettings,
        frames: int,
        memory: Memory,
        labelled: bool = True,
    ) -> None:
        self.images = images
        self.numbers = list(numbers)
        self.domains = domains
        self.frames = frames
        self.memory = memory
        self.labelled = labelled

    def __len__(self) -> int:
        return len(self.numbers)

    def picture(self, number: int) -> tuple[RGB, Labels]:
        """Image and labels, of the ``number``-th that is used."""
        index = self.numbers[number]

        def decode() -> tuple[RGB, Labels | None]:
            one = self.images[index]
            if not self.labelled or one.mask is None:
                return one.image, None
            return one.image, labels_of(one.mask, one.categories, self.domains.categories)

        image, labels = self.memory.get((f"image {self.labelled}", index, 0), decode)
        return image, unknown(image) if labels is None else labels

    def clip(self, number: int, random: np.random.Generator) -> Clip:
        """An image as a clip."""
        image, labels = self.picture(number)
        return still_clip(image, labels, self.labelled, self.frames, self.domains, random)


def still_clip(
    image: RGB,
    labels: Labels,
    supervised: bool,
    frames: int,
    domains: DomainSettings,
    random: np.random.Generator,
) -> Clip:
    """A still as a clip of so many frames: along a camera path, or copies."""
    if frames > 1 and domains.images_as == "camera_path":
        return Clip(*follow(image, labels, camera_path(random, frames)), supervised)
    return Clip([image] * frames, [labels] * frames, supervised)


class Videos:
    """Clips of videos.

    Args:
        videos: where they come from.
        labelled: numbers of the videos whose masks may be trained on.
        domains: clips' length and stride, and the classes' names.
        memory: for decoded frames.
        truth: whether masks of the other videos are read too, for analyses; they are never
            trained on.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        labelled: Sequence[int],
        domains: DomainSettings,
        memory: Memory,
        truth: bool = False,
    ) -> None:
        self.videos = list(videos)
        self.labelled = frozenset(labelled)
        self.domains = domains
        self.memory = memory
        self.truth = truth

    def __len__(self) -> int:
        return len(self.videos)

    def frame(self, video: int, number: int) -> tuple[RGB, Labels]:
        """A frame and its labels: all 255 where its mask may not be read or there is none."""
        source = self.videos[video]
        readable = self.truth or video in self.labelled

        def decode() -> tuple[RGB, Labels | None]:
            image = source.load_frame(number)
            if not readable or number not in source.annotated:
                return image, None
            names = {i: info.category or "" for i, info in source.objects.items()}
            return image, labels_of(source.load_mask(number), names, self.domains.categories)

        image, labels = self.memory.get(("frame", video, number), decode)
        return image, unknown(image) if labels is None else labels

    def clip(self, number: int, random: np.random.Generator) -> Clip:
        """A clip at a random place of a video, with a random stride.

        Where masks are trained on and only some frames have one, these are taken.
        """
        video = self.videos[number]
        frames: Sequence[int] = range(len(video))
        stride = int(random.integers(*self.domains.clip_stride, endpoint=True))
        if number in self.labelled and len(video.annotated) >= self.domains.clip_frames:
            stride = max(1, stride * len(video.annotated) // len(video))
            frames = video.annotated
        offsets = [stride * step for step in range(self.domains.clip_frames)]
        chosen = [self.frame(number, frames[i]) for i in place(random, len(frames), offsets)]
        images, labels = zip(*chosen, strict=True)
        return Clip(list(images), list(labels), number in self.labelled)


class SharpestFrames:
    """Each video's sharpest frame: video without motion blur and without redundancy.

    Args:
        videos: where frames come from.
        frames: T of the clips that stills become.
    """

    def __init__(self, videos: Videos, frames: int) -> None:
        self.videos = videos
        self.frames = frames
        self._sharpest: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.videos)

    def clip(self, number: int, random: np.random.Generator) -> Clip:
        """A video's sharpest frame, as images are shown."""
        if number not in self._sharpest:
            length = len(self.videos.videos[number])
            tried = np.unique(np.linspace(0, length - 1, SHARPNESS_FRAMES).round().astype(int))
            self._sharpest[number] = max(
                tried.tolist(), key=lambda frame: sharpness(self.videos.frame(number, frame)[0])
            )
        image, labels = self.videos.frame(number, self._sharpest[number])
        supervised = number in self.videos.labelled
        return still_clip(image, labels, supervised, self.frames, self.videos.domains, random)


def sharpness(image: RGB) -> float:
    """Variance of the Laplacian of an image's grey values."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())
