"""Pseudo-sequences: short videos with known masks, made of still images (section 1.3).

A base image moves as a whole; up to three objects, cut from other images or its own salient
ones, move over it. Object ids are global: an object that leaves a frame is missing there, and no
other one takes its id. Every geometric change is composed into one homography per frame, so that
each pixel is resampled once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.errors import DataError
from bench.method import MethodSettings
from bench.video import RGB, LabelledImage
from methods.shls.offline.base_labels import base_labels
from methods.shls.offline.saliency import Saliency, SaliencyMaps

Homography = NDArray[np.float64]
Random = np.random.Generator

BASE_TRIES = 20
"""Base images tried until one has an object."""


class SequenceSettings(MethodSettings):
    """How pseudo-sequences look; lengths in pixels are for 256 and scale with ``size``.

    Attributes:
        length: frames.
        size: side of the square frames in pixels.
        brightness, contrast, saturation: factors are drawn from 1 - value to 1 + value.
        hue: shift in turns of the colour circle, up to so much either way.
        rotation, shear: of the base image, in degrees either way.
        translation: of the base image, in pixels either way.
        stretch: factors of height and width are drawn from 1 - value to 1 + value.
        affine_chance: that each of rotation, shear, translation and stretch happens.
        zoom: the window that is cut out of the base image is so many times smaller than it.
        objects: most objects in a sequence.
        reuse: chance that an object comes from the same image as the one before it.
        object_size: shorter side of an inserted object when it enters, as a share of ``size``.
        rescale: factor of an object's size from frame to frame; None draws it anew from
            ``object_size`` each time, as the authors do.
        perspective: corners of an object move by up to this share of its sides.
        stroll: how far an object moves between frames, as a share of ``size`` on either side.
        overhang: pixels by which an object may leave the frame.
        visible: an object stays out of a frame where it would hide more of another one.
        tries: places tried for an object in a frame.
        feather: softness of an inserted object's border, in pixels; 0 pastes hard.
    """

    length: int = Field(default=3, ge=2)
    size: int = Field(default=256, ge=32, multiple_of=4)
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.01
    rotation: float = 30
    shear: float = 15
    translation: float = 15
    stretch: float = 0.2
    affine_chance: float = 0.5
    zoom: tuple[float, float] = (1.0, 1.4)
    objects: int = Field(default=3, ge=1, le=20)
    reuse: float = 1 / 3
    object_size: tuple[float, float] = (0.1, 0.6)
    rescale: tuple[float, float] | None = (0.85, 1.15)
    perspective: float = 0.1
    stroll: float = 0.15
    overhang: float = 25
    visible: float = 0.5
    tries: int = 3
    feather: float = 0.7


@dataclass(frozen=True)
class Source:
    """A still image and where it is salient.

    Attributes:
        image: uint8 RGB ``(H, W, 3)``.
        saliency: uint8 ``(H, W)``, zero = background.
    """

    image: RGB
    saliency: Saliency


@dataclass(frozen=True)
class PseudoSequence:
    """A synthetic video.

    Attributes:
        frames: uint8 RGB ``(T, S, S, 3)``.
        labels: uint8 ``(T, S, S)``: 0 = background, 1 .. ``objects``; an id never changes.
        objects: K; every object is visible in frame 0.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: int


class Images(Protocol):
    """Still images by number, as :class:`bench.dataset.ImageDataset` has them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> LabelledImage: ...


class Sources(Sequence[Source]):
    """Images of a dataset with their saliency, shrunk and kept in memory.

    Args:
        dataset: still images.
        maps: where saliency comes from.
        side: shorter side in pixels to which images are shrunk.
        indices: which images; None for all.
        workers: threads that detect saliency.
        progress: called with the number of images done and their total.
    """

    def __init__(
        self,
        dataset: Images,
        maps: SaliencyMaps,
        side: int,
        indices: Sequence[int] | None = None,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        chosen = range(len(dataset)) if indices is None else indices
        self._sources: list[Source] = []

        def read(index: int) -> Source:
            image = dataset[index]
            return shrink(Source(image.image, maps.of(image)), side)

        with ThreadPoolExecutor(workers) as pool:
            for done, source in enumerate(pool.map(read, chosen), start=1):
                self._sources.append(source)
                if progress is not None:
                    progress(done, len(chosen))

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> Source:  # type: ignore[override]
        return self._sources[index]


def shrink(source: Source, side: int) -> Source:
    """A source whose shorter side is at most ``side`` pixels."""
    height, width = source.saliency.shape
    scale = side / min(height, width)
    if scale >= 1:
        return source
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Source(
        np.asarray(cv2.resize(source.image, size, interpolation=cv2.INTER_AREA), np.uint8),
        np.asarray(cv2.resize(source.saliency, size, interpolation=cv2.INTER_NEAREST), np.uint8),
    )


class PseudoSequences:
    """Endless pseudo-sequences; number ``i`` depends on the seed and ``i`` alone.

    Args:
        sources: images to take scenes and objects from.
        settings: see :class:`SequenceSettings`.
        seed: of all random choices.

    Raises:
        DataError: no source at all.
    """

    def __init__(self, sources: Sequence[Source], settings: SequenceSettings, seed: int) -> None:
        if len(sources) == 0:
            raise DataError("pseudo-sequences", "no image", "one at least", "Name a dataset.")
        self.sources = sources
        self.settings = settings
        self.seed = seed

    def __getitem__(self, index: int) -> PseudoSequence:
        """Make one sequence.

        Raises:
            DataError: hardly any image has a salient object.
        """
        random = np.random.default_rng([self.seed, index])
        for _ in range(BASE_TRIES):
            source = self.sources[int(random.integers(len(self.sources)))]
            sequence = self._make(source, random)
            if sequence.objects:
                return sequence
        raise DataError(
            "pseudo-sequences",
            f"no salient object in {BASE_TRIES} images drawn at random",
            "images with salient objects",
            "Look at their maps with `python -m methods.shls.offline`, or choose another detector.",
        )

    def _make(self, source: Source, random: Random) -> PseudoSequence:
        settings, size = self.settings, self.settings.size
        labels = base_labels(source.saliency)
        labels[labels > settings.objects] = 0
        canvas = Canvas(settings)
        height, width = labels.shape
        whole = np.diag([size / width, size / height, 1.0])
        for number in range(settings.length):
            matrix = whole if number == 0 else base_motion(labels, settings, random)
            canvas.base(source.image, labels, matrix)
        canvas.keep_those_in_first_frame()
        known = canvas.objects
        most = settings.objects - known
        if most > 0:
            wanted = int(random.integers(max(0, 1 - known), most + 1))
            donor = source
            for number in range(wanted):
                if number == 0 or random.random() >= settings.reuse:
                    donor = self.sources[int(random.integers(len(self.sources)))]
                cut = cut_object(donor, random)
                if cut is not None:
                    canvas.insert(cut, random)
        frames = np.stack(
            [
                frame if number == 0 else jitter(frame, settings, random)
                for number, frame in enumerate(canvas.frames)
            ]
        )
        return PseudoSequence(frames, np.stack(canvas.labels), canvas.objects)


class Canvas:
    """Frames and labels of a sequence while objects are put in."""

    def __init__(self, settings: SequenceSettings) -> None:
        self.settings = settings
        self.frames: list[RGB] = []
        self.labels: list[NDArray[np.uint8]] = []
        self.objects = 0
        self.entered: list[dict[int, int]] = []

    def base(self, image: RGB, labels: NDArray[np.uint8], matrix: Homography) -> None:
        """Add a frame: the base image under a homography. What lies outside it is mirrored."""
        size = (self.settings.size, self.settings.size)
        frame = warp(image, matrix, size, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
        self.frames.append(np.asarray(frame, np.uint8))
        moved = warp(labels, matrix, size, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
        self.labels.append(np.asarray(moved, np.uint8))

    def keep_those_in_first_frame(self) -> None:
        """Number the base image's objects that frame 0 shows from 1 on, in all frames alike."""
        present = [number for number in np.unique(self.labels[0]) if number]
        table = np.zeros(256, np.uint8)
        table[present] = np.arange(1, len(present) + 1)
        self.labels = [table[labels] for labels in self.labels]
        self.objects = len(present)
        self.entered = [_areas(labels, self.objects) for labels in self.labels]

    def insert(self, cut: Cut, random: Random) -> None:
        """Move an object over all frames; it is dropped if it finds no place in frame 0."""
        settings = self.settings
        number = self.objects + 1
        low, high = settings.object_size
        share = random.uniform(low, high)
        center: NDArray[np.float64] | None = None
        for index in range(settings.length):
            if index and settings.rescale is None:
                share = random.uniform(low, high)
            elif index and settings.rescale is not None:
                share = float(np.clip(share * random.uniform(*settings.rescale), low, high))
            placed = self._try(cut, index, number, share, center, random)
            if placed is not None:
                center = placed
            elif index == 0:
                return
        self.objects = number

    def _try(
        self,
        cut: Cut,
        index: int,
        number: int,
        share: float,
        near: NDArray[np.float64] | None,
        random: Random,
    ) -> NDArray[np.float64] | None:
        """Paste the object into one frame; its centre, or None where no try was acceptable."""
        settings, size = self.settings, self.settings.size
        height, width = cut.mask.shape
        scale = share * size / min(height, width)
        half = np.array([width, height]) * scale / 2
        overhang = np.minimum(half / 2, settings.overhang * size / 256)
        for _ in range(settings.tries):
            if near is None:
                low, high = half - overhang, size - half + overhang
                place = random.uniform(np.minimum(low, high), np.maximum(low, high))
            else:
                reach = settings.stroll * size * (1 + 0.25 * (index - 1))
                place = near + random.uniform(-reach, reach, 2)
                place = np.clip(place, 0, size - 1)
            matrix = object_motion(width, height, scale, place, settings.perspective, random)
            mask = warp(cut.mask, matrix, (size, size), cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
            covered = np.asarray(mask) > 127
            if not covered.any() or not self._visible(index, covered):
                continue
            self._paste(cut, index, number, matrix, covered)
            return np.asarray(place)
        return None

    def _visible(self, index: int, covered: NDArray[np.bool_]) -> bool:
        """Whether earlier objects keep enough of the area with which they entered the frame."""
        left = _areas(np.where(covered, 0, self.labels[index]), self.objects)
        return all(
            left.get(number, 0) > self.settings.visible * area
            for number, area in self.entered[index].items()
        )

    def _paste(
        self, cut: Cut, index: int, number: int, matrix: Homography, covered: NDArray[np.bool_]
    ) -> None:
        size = (self.settings.size, self.settings.size)
        colours = warp(cut.image, matrix, size, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
        opacity = covered.astype(np.float32)
        if self.settings.feather:
            opacity = np.asarray(cv2.GaussianBlur(opacity, (0, 0), self.settings.feather))
        opacity = opacity[..., None]
        mixed = self.frames[index] * (1 - opacity) + np.asarray(colours) * opacity
        self.frames[index] = (mixed + 0.5).astype(np.uint8)
        self.labels[index] = np.where(covered, number, self.labels[index]).astype(np.uint8)
        self.entered[index][number] = int(covered.sum())


def _areas(labels: NDArray[np.integer], objects: int) -> dict[int, int]:
    """Pixels of each object that a frame shows."""
    counts = np.bincount(labels.ravel(), minlength=objects + 1)
    return {number: int(counts[number]) for number in range(1, objects + 1) if counts[number]}


@dataclass(frozen=True)
class Cut:
    """An object cut from an image.

    Attributes:
        image: uint8 RGB ``(h, w, 3)``, its bounding box.
        mask: uint8 ``(h, w)``, 255 on the object.
    """

    image: RGB
    mask: NDArray[np.uint8]


def cut_object(source: Source, random: Random) -> Cut | None:
    """Cut one of an image's objects, chosen at random; None where it has none."""
    labels = base_labels(source.saliency)
    count = int(labels.max())
    if count == 0:
        return None
    mask = labels == int(random.integers(1, count + 1))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    if min(mask[box].shape) < 4:
        return None
    return Cut(source.image[box], np.where(mask[box], 255, 0).astype(np.uint8))


def base_motion(
    labels: NDArray[np.uint8], settings: SequenceSettings, random: Random
) -> Homography:
    """A homography from the base image to a later frame.

    Affine changes around the image's centre, then a window of the frame's size. The window keeps
    the middle of the image's objects inside, so that they stay in view.
    """
    size = settings.size
    height, width = labels.shape
    # The frame's pixels, before the window is cut: the image without its aspect, as in frame 0.
    fit = np.diag([size / width, size / height, 1.0])
    motion = np.eye(3)

    def happens() -> bool:
        return bool(random.random() < settings.affine_chance)

    if happens():
        angle = math.radians(random.uniform(-settings.rotation, settings.rotation))
        cosine, sine = math.cos(angle), math.sin(angle)
        motion = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ motion
    if happens():
        angle = math.radians(random.uniform(-settings.shear, settings.shear))
        motion = np.array([[1, math.tan(angle), 0], [0, 1, 0], [0, 0, 1]]) @ motion
    if happens():
        factors = random.uniform(1 - settings.stretch, 1 + settings.stretch, 2)
        motion = np.diag([*factors, 1.0]) @ motion
    zoom = random.uniform(*settings.zoom)
    motion = np.diag([zoom, zoom, 1.0]) @ motion
    middle = _shift(-size / 2, -size / 2)
    moved = np.linalg.inv(middle) @ motion @ middle @ fit
    reach = settings.translation * size / 256 if happens() else 0.0
    offset = random.uniform(-reach, reach, 2)
    rows, columns = np.nonzero(labels)
    if len(rows):
        x, y, w = moved @ [columns.mean(), rows.mean(), 1.0]
        # Bring the objects' middle to a place inside the central part of the frame.
        place = np.array([x / w, y / w])
        offset = np.clip(place + offset, 0.3 * size, 0.7 * size) - place
    return _shift(*offset) @ moved


def object_motion(
    width: int,
    height: int,
    scale: float,
    center: NDArray[np.float64],
    perspective: float,
    random: Random,
) -> Homography:
    """A homography from an object's box to the frame: scale, place, and corners that move."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    sides = np.array([width, height], np.float32) * scale
    moved = corners * scale + (center - sides / 2).astype(np.float32)
    moved += random.uniform(-perspective, perspective, (4, 2)).astype(np.float32) * sides
    return np.asarray(cv2.getPerspectiveTransform(corners, moved.astype(np.float32)))


def warp(
    image: NDArray[np.uint8], matrix: Homography, size: tuple[int, int], how: int, border: int
) -> NDArray[np.uint8]:
    """Warp by a homography; strong shrinking is done by area first, so that nothing flickers."""
    strength = math.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    if strength < 0.5 and min(image.shape[:2]) > 8:
        height, width = image.shape[:2]
        small = (max(4, round(width * 2 * strength)), max(4, round(height * 2 * strength)))
        if small[0] < width and small[1] < height:
            area = cv2.INTER_NEAREST if how == cv2.INTER_NEAREST else cv2.INTER_AREA
            image = np.asarray(cv2.resize(image, small, interpolation=area), np.uint8)
            matrix = matrix @ np.diag([width / small[0], height / small[1], 1.0])
    warped = cv2.warpPerspective(image, matrix, size, flags=how, borderMode=border)
    return np.asarray(warped, np.uint8)


def _shift(x: float, y: float) -> Homography:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def jitter(frame: RGB, settings: SequenceSettings, random: Random) -> RGB:
    """Change brightness, contrast, saturation and hue, in random order."""
    pixels = frame.astype(np.float32)
    for change in random.permutation(4):
        if change == 0:
            pixels *= random.uniform(1 - settings.brightness, 1 + settings.brightness)
        elif change == 1:
            factor = random.uniform(1 - settings.contrast, 1 + settings.contrast)
            mean = float(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean())
            pixels = (pixels - mean) * np.float32(factor) + np.float32(mean)
        elif change == 2:
            factor = random.uniform(1 - settings.saturation, 1 + settings.saturation)
            grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[..., None]
            pixels = (pixels - grey) * np.float32(factor) + grey
        else:
            shift = random.uniform(-settings.hue, settings.hue)
            hsv = cv2.cvtColor(np.clip(pixels, 0, 255) / 255, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0] + 360 * shift) % 360
            pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
        pixels = np.clip(pixels, 0, 255)
    return (pixels + 0.5).astype(np.uint8)
