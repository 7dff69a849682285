"""Pseudo-sequences: short videos with known masks, made of still images (section 1.3).

A base image moves as a whole. Objects cut out of other images are pasted onto it and move on
their own, the later ones in front. Sequence ``i`` depends on the seed and ``i`` alone, so neither
the number of worker processes nor the order matters.

What differs from the authors' code, always:

- An object keeps its id through the sequence; where it is hidden or out of view it is absent.
  Theirs are numbered frame by frame, so that identities get swapped.
- Every image is a base image equally often, and no sequence is without an object in frame 0.
- Affine changes are composed, so that the base image is sampled once and not up to four times,
  and colours are changed by one affine map, clipped once.
- An object that is absent from a frame does not keep later ones out of it.

Further defects are mended by default and can be had back: see :meth:`SequenceSettings.paper`.

Coordinates are continuous: pixel ``i`` reaches from ``i`` to ``i + 1``. Points are (x, y).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.errors import DataError
from bench.method import MethodSettings
from bench.video import RGB, Mask
from methods.shls.offline.base_labels import Variant, base_labels, largest_objects
from methods.shls.offline.saliency import Saliency
from methods.shls.offline.sources import Source, Sources

__all__ = ["PseudoSequence", "PseudoSequences", "SequenceSettings", "Source", "Sources"]

Homography = NDArray[np.float64]
"""float64 ``(3, 3)``, from a source's points to a target's."""

BASE_TRIES = 20
"""Images that are tried until one has an object."""

REFERENCE_SIZE = 256
"""The size at which settings in pixels are meant."""

SHORTEST_OBJECT = 4
"""In pixels of the source; nothing can be made of smaller objects."""

GREY = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


class SequenceSettings(MethodSettings):
    """How sequences are made. Numbers are the paper's; its defects are mended.

    Attributes:
        length: frames.
        size: height and width of the frames in pixels. Other settings in pixels are for 256 and
            scale with it.
        brightness: factors are drawn from 1 - value to 1 + value.
        contrast: likewise.
        saturation: likewise.
        hue: shift either way, in turns of the colour circle.
        rotation: of the base image, degrees either way.
        shear: of the base image, degrees either way.
        translation: of the base image, pixels either way.
        stretch: height and width of the base image are scaled by 1 - value to 1 + value.
        affine_chance: that each of rotation, shear, translation and stretch happens in a frame.
        crop_scale: range of the base image's scale before a window is cut out. It never gets
            smaller than the window.
        crop_shift: of the window, pixels either way.
        objects: most objects in a sequence.
        reuse: chance that an object comes from the same image as the one inserted before it.
        object_size: range of the shorter side of an inserted object, as a share of ``size``.
        rescale: range of an object's scale from frame to frame, within
            ``object_size``. None draws the size anew in each frame (paper).
        longest: longer side of an inserted object at most, as a share of ``size``; None does
            not limit it (paper).
        perspective: an object's corners move by up to this share of its sides in each frame.
        overhang: by how many pixels at most an object may leave its allowed area.
        growth: the allowed area is the object's box in the frame before, grown by this share of
            the frame in all, ...
        growth_per_frame: ... and by this share more for each frame since the first.
        visible: every earlier object keeps more than this share of the pixels that it had when
            it entered the frame.
        tries: places that are tried for an object in a frame.
        high_levels: range of the upper threshold if ``object_mask`` is ``"random"``.
        low_levels: range of the lower one.
        least_kept: share of an object's pixels that random thresholds must keep.
        base_labels: see :func:`base_labels`.
        object_mask: ``"component"`` cuts out one object whole. ``"random"`` keeps very salient
            and hardly salient pixels of its box, by thresholds drawn at random (paper).
        resample_once: whether an object is always sampled from its source. False warps the
            warped object of the frame before, and blur and colour changes add up (paper).
        feather: standard deviation in pixels by which an object's edge is softened when it is
            mixed with what is behind it; labels stay hard. 0 cuts it out hard (paper).
        border: what lies outside the base image: itself mirrored, labels included so that they
            tell what is seen; or black background (paper).
        crop_around: what the window is placed around: the base image's objects or all of the
            image (paper).
        later_frames: what is moved in frames from the second on: the first frame's square, or
            the image in its own proportions and size, which makes things larger (paper).
    """

    length: int = Field(default=3, ge=1)
    size: int = Field(default=256, ge=32)
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    hue: float = Field(default=0.01, ge=0, le=0.5)
    rotation: float = Field(default=30, ge=0, le=180)
    shear: float = Field(default=15, ge=0, lt=90)
    translation: float = Field(default=15, ge=0)
    stretch: float = Field(default=0.2, ge=0, lt=1)
    affine_chance: float = Field(default=0.5, ge=0, le=1)
    crop_scale: tuple[float, float] = (0.8, 1.1)
    crop_shift: float = Field(default=20, ge=0)
    objects: int = Field(default=3, ge=1, le=254)
    reuse: float = Field(default=1 / 3, ge=0, le=1)
    object_size: tuple[float, float] = (0.1, 0.6)
    rescale: tuple[float, float] | None = (0.85, 1.15)
    longest: float | None = Field(default=1.0, gt=0)
    perspective: float = Field(default=0.1, ge=0, lt=0.5)
    overhang: float = Field(default=25, ge=0)
    growth: float = Field(default=0.2, ge=0)
    growth_per_frame: float = Field(default=0.1, ge=0)
    visible: float = Field(default=0.5, ge=0, lt=1)
    tries: int = Field(default=3, ge=1)
    high_levels: tuple[float, float] = (0.5, 1.0)
    low_levels: tuple[float, float] = (0.1, 0.5)
    least_kept: float = Field(default=0.1, ge=0, le=1)
    base_labels: Variant = "fixed"
    object_mask: Literal["component", "random"] = "component"
    resample_once: bool = True
    feather: float = Field(default=0.7, ge=0)
    border: Literal["reflect", "constant"] = "reflect"
    crop_around: Literal["objects", "image"] = "objects"
    later_frames: Literal["frame", "image"] = "frame"

    @classmethod
    def paper(cls, **changes: Any) -> SequenceSettings:
        """Settings under which sequences are made as the authors make them.

        Args:
            changes: settings that are to be different nevertheless.
        """
        theirs: dict[str, Any] = {
            "rescale": None,
            "longest": None,
            "base_labels": "paper",
            "object_mask": "random",
            "resample_once": False,
            "feather": 0.0,
            "border": "constant",
            "crop_around": "image",
            "later_frames": "image",
        }
        return cls(**{**theirs, **changes})

    @property
    def pixel(self) -> float:
        """How many pixels one of the settings' pixels is."""
        return self.size / REFERENCE_SIZE


@dataclass(frozen=True)
class PseudoSequence:
    """A short video made of still images.

    Attributes:
        frames: uint8 RGB ``(T, S, S, 3)``.
        labels: uint8 ``(T, S, S)``: 0 = background, objects 1 .. ``objects``. Ids never change.
        objects: K. All are in frame 0; any of them may be absent later.
        base: index of the base image in the sources.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: int
    base: int = 0


class PseudoSequences:
    """Pseudo-sequences by number.

    There are as many as sources in one round, which ``len`` counts. Larger numbers go on: number
    ``i`` starts from source ``i`` modulo their number, and is a new sequence.

    Args:
        sources: still images with saliency; any object with ``len`` and ``[index]``.
        settings: how sequences are made.
        seed: of all random choices, not negative.

    Raises:
        DataError: no sources.
    """

    def __init__(
        self, sources: Sequence[Source], settings: SequenceSettings | None = None, seed: int = 0
    ) -> None:
        if len(sources) == 0:
            raise DataError(
                "pseudo-sequences", "no images", "at least one", "Name a dataset of still images."
            )
        self.sources = sources
        self.settings = settings or SequenceSettings()
        self.seed = seed

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> PseudoSequence:
        """Make sequence ``index``.

        Raises:
            IndexError: a negative index.
            DataError: hardly any image has an object.
        """
        if index < 0:
            raise IndexError(f"sequence {index}: numbers start at 0")
        random = np.random.default_rng(np.random.SeedSequence([self.seed, index]))
        base = index % len(self.sources)
        for _ in range(BASE_TRIES):
            source = self.sources[base]
            labels = base_labels(source.saliency, self.settings.base_labels)
            scene = Scene(self.settings)
            scene.add_base(source.image, labels, random)
            if scene.objects:
                self._insert_objects(scene, base, random)
                frames, ids = np.stack(scene.frames), np.stack(scene.labels)
                return PseudoSequence(frames, ids, scene.objects, base)
            base = int(random.integers(len(self.sources)))
        raise DataError(
            "pseudo-sequences",
            f"no salient object in {BASE_TRIES} images drawn at random",
            "images with salient objects",
            "Look at them with `python -m methods.shls.offline`, or choose other saliency maps.",
        )

    def _insert_objects(self, scene: Scene, base: int, random: np.random.Generator) -> None:
        most = self.settings.objects - scene.objects
        if most <= 0:
            return
        donor: int | None = None
        for _ in range(int(random.integers(most + 1))):
            if donor is None or random.random() >= self.settings.reuse:
                donor = self._another(base, random)
            cutout = self._cut_out(donor, random)
            if cutout is not None:
                scene.insert(cutout, random)

    def _another(self, base: int, random: np.random.Generator) -> int:
        """A random source that is not the base, unless there is no other."""
        if len(self.sources) == 1:
            return base
        drawn = int(random.integers(len(self.sources) - 1))
        return drawn + (drawn >= base)

    def _cut_out(self, donor: int, random: np.random.Generator) -> Cutout | None:
        """A random object of a source; None where it has none."""
        source = self.sources[donor]
        labels = base_labels(source.saliency, self.settings.base_labels)
        count = int(labels.max())
        if count == 0:
            return None
        chosen = labels == int(random.integers(1, count + 1))
        box = tight_box(chosen)
        if box is None or min(box.height, box.width) < SHORTEST_OBJECT:
            return None
        mask = chosen[box.slices]
        if self.settings.object_mask == "random":
            mask = self._random_mask(source.saliency[box.slices], random)
        if not mask.any():
            return None
        return Cutout(source.image[box.slices], np.where(mask, 255, 0).astype(np.uint8))

    def _random_mask(self, saliency: Saliency, random: np.random.Generator) -> NDArray[np.bool_]:
        """Very salient and hardly salient pixels, by two thresholds in steps of 0.1."""
        high, low = (
            random.integers(round(10 * least), round(10 * most) + 1) / 10
            for least, most in (self.settings.high_levels, self.settings.low_levels)
        )
        levels = saliency / np.float32(255)
        salient = saliency > 0
        kept = (levels > high) | (salient & (levels < low))
        return kept if kept.sum() >= self.settings.least_kept * salient.sum() else salient


class Box(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index an array with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def tight_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box around a mask ``(H, W)``; None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


# --- one sequence ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Cutout:
    """An object cut out of an image.

    Attributes:
        image: uint8 RGB ``(h, w, 3)``, the object's box.
        mask: uint8 ``(h, w)``, 255 on the object.
    """

    image: RGB
    mask: NDArray[np.uint8]


class Scene:
    """The frames and labels of a sequence while objects are put in.

    Attributes:
        frames: uint8 RGB ``(S, S, 3)`` each.
        labels: uint8 ``(S, S)`` each.
        objects: how many there are so far.
    """

    def __init__(self, settings: SequenceSettings) -> None:
        self.settings = settings
        self.frames: list[RGB] = []
        self.labels: list[Mask] = []
        self.objects = 0
        # Per frame, pixels by id: when the object entered the frame, and now.
        self._entered: list[NDArray[np.int64]] = []
        self._seen: list[NDArray[np.int64]] = []

    def add_base(self, image: RGB, labels: Mask, random: np.random.Generator) -> None:
        """Make the frames of a base image, whole in frame 0 and moved in the others.

        Args:
            image: uint8 RGB ``(H, W, 3)``.
            labels: uint8 ``(H, W)``. Objects of which frame 0 shows nothing are left out, and
                so are the smallest if there are too many.
            random: source of all choices.
        """
        settings = self.settings
        target = (settings.size, settings.size)
        whole = np.diag([settings.size / labels.shape[1], settings.size / labels.shape[0], 1.0])
        labels = largest_objects(labels, settings.objects)
        first = _warp(labels, whole, target, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE)
        present = np.flatnonzero(np.bincount(first.ravel()))
        present = present[present > 0]
        self.objects = len(present)
        if not self.objects:
            return
        table = np.zeros(256, np.uint8)
        table[present] = np.arange(1, self.objects + 1)
        labels = table[labels]
        self.frames.append(_warp(image, whole, target, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE))
        self.labels.append(table[first])
        border = cv2.BORDER_CONSTANT if settings.border == "constant" else cv2.BORDER_REFLECT_101
        box = tight_box(labels > 0)
        assert box is not None
        for _ in range(1, settings.length):
            coloured = jitter(image, settings, random)
            moved = base_motion(labels.shape, box, settings, random)
            self.frames.append(_warp(coloured, moved, target, cv2.INTER_LINEAR, border))
            self.labels.append(_warp(labels, moved, target, cv2.INTER_NEAREST, border))
        for shown in self.labels:
            self._entered.append(np.bincount(shown.ravel(), minlength=256))
            self._seen.append(self._entered[-1].copy())

    def insert(self, cutout: Cutout, random: np.random.Generator) -> bool:
        """Paste an object into all frames, in front of everything.

        It is absent from frames in which every place tried hides too much of another object.

        Returns:
            Whether it is in; it is not if it found no place in frame 0.
        """
        settings = self.settings
        number = self.objects + 1
        shape = Shape.whole(cutout)
        original = (cutout.mask.shape[0], cutout.mask.shape[1])
        seen: Box | None = None
        for index in range(settings.length):
            shape = shape.changed(index == 0, settings, random)
            colours = cutout.image
            if index > 0 and settings.resample_once:
                colours = jitter(colours, settings, random)
            patch = shape.render(Cutout(colours, cutout.mask))
            area = self._allowed_area(index, seen)
            places = [self._place(patch, area, original, random) for _ in range(settings.tries)]
            pasted = any(self._paste(patch, place, index, number) for place in places)
            if pasted:
                seen = tight_box(self.labels[index] == number)
            elif index == 0:
                return False
            if not settings.resample_once:
                cutout = Cutout(jitter(patch.image, settings, random), patch.mask)
                shape = Shape.whole(cutout)
        self.objects = number
        return True

    def _allowed_area(self, index: int, seen: Box | None) -> Box:
        """Where an object may be: all of the frame at first, then near where it was seen last."""
        size = self.settings.size
        if index == 0 or seen is None:
            return Box(0, size, 0, size)
        share = self.settings.growth + index * self.settings.growth_per_frame
        margin = round(min(1.0, share) / 2 * size)
        return Box(
            max(0, seen.top - margin),
            min(size, seen.bottom + margin),
            max(0, seen.left - margin),
            min(size, seen.right + margin),
        )

    def _place(
        self, patch: Cutout, area: Box, original: tuple[int, int], random: np.random.Generator
    ) -> tuple[int, int]:
        """The row and column of a patch's first pixel, drawn at random."""
        most = round(self.settings.overhang * self.settings.pixel)
        starts = []
        for axis, (low, high) in enumerate(((area.top, area.bottom), (area.left, area.right))):
            over = min(original[axis] // 2, most)
            # Where the patch is larger than its area, the ends change places.
            ends = sorted((low - over, high - patch.mask.shape[axis] + over))
            starts.append(int(random.integers(ends[0], ends[1] + 1)))
        return starts[0], starts[1]

    def _paste(self, patch: Cutout, place: tuple[int, int], index: int, number: int) -> bool:
        """Paste a patch into one frame unless it hides too much; say whether it is in."""
        size = self.settings.size
        top, left = place
        height, width = patch.mask.shape
        inside = Box(max(0, top), min(size, top + height), max(0, left), min(size, left + width))
        if inside.height <= 0 or inside.width <= 0:
            return False
        taken = (
            slice(inside.top - top, inside.bottom - top),
            slice(inside.left - left, inside.right - left),
        )
        coverage = patch.mask[taken]
        covered = coverage > 127
        pixels = int(np.count_nonzero(covered))
        labels = self.labels[index][inside.slices]
        hidden = np.bincount(labels[covered], minlength=256)
        left_over, entered = self._seen[index] - hidden, self._entered[index]
        earlier = slice(1, number)
        kept = left_over[earlier] > self.settings.visible * entered[earlier]
        if pixels == 0 or not (kept | (entered[earlier] == 0)).all():
            return False
        frame = self.frames[index][inside.slices]
        if self.settings.feather:
            spread = self.settings.feather * self.settings.pixel
            soft = cv2.GaussianBlur(patch.mask, (0, 0), spread, borderType=cv2.BORDER_CONSTANT)
            opacity = soft[taken][..., None] / np.float32(255)
            frame[:] = np.rint(frame + (patch.image[taken] - frame.astype(np.float32)) * opacity)
        else:
            frame[covered] = patch.image[taken][covered]
        labels[covered] = number
        left_over[number] = entered[number] = pixels
        self._seen[index] = left_over
        return True


@dataclass(frozen=True)
class Shape:
    """How a cutout is deformed so far.

    Attributes:
        matrix: from the cutout's points to those of a patch that just holds it.
        corners: float64 ``(4, 2)``, the cutout's own corners.
    """

    matrix: Homography
    corners: NDArray[np.float64]

    @classmethod
    def whole(cls, cutout: Cutout) -> Shape:
        """Not deformed at all."""
        height, width = cutout.mask.shape
        return cls(np.eye(3), _corners(width, height))

    @property
    def sides(self) -> NDArray[np.float64]:
        """Width and height of the patch in pixels."""
        return np.asarray(_points(self.matrix, self.corners).max(0))

    def changed(
        self, first: bool, settings: SequenceSettings, random: np.random.Generator
    ) -> Shape:
        """Rescale, then move the corners of the patch."""
        sides = self.sides
        least, most = (share * settings.size for share in settings.object_size)
        if first or settings.rescale is None:
            shorter = float(random.integers(math.ceil(least), math.ceil(most) + 1))
        else:
            factor = random.uniform(*settings.rescale)
            shorter = float(np.clip(sides.min() * factor, least, most))
        scale = shorter / sides.min()
        if settings.longest is not None:
            scale = min(scale, settings.longest * settings.size / sides.max())
        before = _corners(*sides)
        shift = random.uniform(-settings.perspective, settings.perspective, (4, 2)) * sides
        after = (before + shift) * scale
        moved = cv2.getPerspectiveTransform(before.astype(np.float32), after.astype(np.float32))
        matrix = np.asarray(moved, np.float64) @ self.matrix
        origin = _points(matrix, self.corners).min(0)
        return Shape(_translation(*-origin) @ matrix, self.corners)

    def render(self, cutout: Cutout) -> Cutout:
        """The deformed object in the smallest patch that holds it."""
        width, height = (max(1, math.ceil(side - 1e-6)) for side in self.sides)
        target = (width, height)
        image = _warp(cutout.image, self.matrix, target, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
        mask = _warp(cutout.mask, self.matrix, target, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
        return Cutout(image, mask)


def base_motion(
    shape: tuple[int, ...], objects: Box, settings: SequenceSettings, random: np.random.Generator
) -> Homography:
    """Draw how the base image lies in a later frame.

    Affine changes about the middle, each by chance and in random order; then a scale and a window.

    Args:
        shape: height and width of the base image in pixels.
        objects: the box around its objects.
        settings: ranges of all changes.
        random: source of all choices.

    Returns:
        From the base image's points to the frame's.
    """
    height, width = shape
    size, pixel = settings.size, settings.pixel
    canvas = np.array([size, size] if settings.later_frames == "frame" else [width, height])
    canvas = canvas if settings.later_frames == "frame" else canvas * pixel
    matrix = np.diag([canvas[0] / width, canvas[1] / height, 1.0])
    to_middle = _translation(*-canvas / 2)
    affine = np.eye(3)
    for change in random.permutation(4):
        if random.random() >= settings.affine_chance:
            continue
        if change == 0:
            angle = math.radians(random.uniform(-settings.rotation, settings.rotation))
            cosine, sine = math.cos(angle), math.sin(angle)
            step = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        elif change == 1:
            angle = math.radians(random.uniform(-settings.shear, settings.shear))
            step = np.array([[1, math.tan(angle), 0], [0, 1, 0], [0, 0, 1]])
        elif change == 2:
            step = _translation(*_steps(settings.translation * pixel, random))
        else:
            factors = random.uniform(1 - settings.stretch, 1 + settings.stretch, 2)
            step = np.diag([*factors, 1.0])
        affine = step @ affine
    matrix = np.linalg.inv(to_middle) @ affine @ to_middle @ matrix

    scaled = np.maximum(size, np.floor(canvas * random.uniform(*settings.crop_scale)))
    matrix = np.diag([*(scaled / canvas), 1.0]) @ matrix
    around = np.array([0, 0, width, height], np.float64)
    if settings.crop_around == "objects":
        around = np.array([objects.left, objects.top, objects.right, objects.bottom], np.float64)
    left, top, right, bottom = around
    points = _points(matrix, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))
    points = np.clip(points, 0, scaled)
    middle = (points.min(0) + points.max(0)) / 2
    window = np.round(middle - size / 2) + _steps(settings.crop_shift * pixel, random)
    return np.asarray(_translation(*-np.clip(window, 0, scaled - size)) @ matrix)


def _steps(reach: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Whole pixels in x and y, up to ``reach`` either way."""
    most = round(reach)
    return random.integers(-most, most + 1, 2).astype(np.float64)


# --- pixels ---------------------------------------------------------------------------------


def jitter(image: RGB, settings: SequenceSettings, random: np.random.Generator) -> RGB:
    """Change brightness, contrast, saturation and hue, in random order.

    Each is an affine map of colour, so they are composed into one. Hue turns about the grey axis.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        settings: ranges of the changes.
        random: source of all choices.

    Returns:
        uint8 RGB ``(H, W, 3)``, a new array.
    """
    matrix, offset = np.eye(3), np.zeros(3)
    mean = np.asarray(cv2.mean(image)[:3])
    for change in random.permutation(4):
        step, shift = np.eye(3), np.zeros(3)
        if change == 0:
            step *= random.uniform(1 - settings.brightness, 1 + settings.brightness)
        elif change == 1:
            factor = random.uniform(1 - settings.contrast, 1 + settings.contrast)
            step *= factor
            shift += (1 - factor) * (GREY @ (matrix @ mean + offset))
        elif change == 2:
            factor = random.uniform(1 - settings.saturation, 1 + settings.saturation)
            step = factor * step + (1 - factor) * np.tile(GREY, (3, 1))
        else:
            turn = 2 * math.pi * random.uniform(-settings.hue, settings.hue)
            axis = np.full(3, turn / math.sqrt(3))
            step = np.asarray(cv2.Rodrigues(axis)[0])
        matrix, offset = step @ matrix, step @ offset + shift
    return np.asarray(cv2.transform(image, np.column_stack([matrix, offset])), np.uint8)


def _warp(
    image: NDArray[np.uint8], matrix: Homography, target: tuple[int, int], how: int, border: int
) -> NDArray[np.uint8]:
    """Warp an image.

    Args:
        image: uint8 ``(H, W)`` or ``(H, W, 3)``.
        matrix: from the image's points to the target's.
        target: width and height in pixels.
        how: OpenCV's interpolation.
        border: OpenCV's border mode; constant is 0.
    """
    height, width = image.shape[:2]
    # Bilinear sampling misses pixels when it shrinks to less than half; averages come first.
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    if how != cv2.INTER_NEAREST and scale < 0.5:
        smaller = (max(1, math.ceil(2 * scale * width)), max(1, math.ceil(2 * scale * height)))
        image = np.asarray(cv2.resize(image, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = matrix @ np.diag([width / smaller[0], height / smaller[1], 1.0])
    # OpenCV counts from the middle of the first pixel.
    centred = _translation(-0.5, -0.5) @ matrix @ _translation(0.5, 0.5)
    if np.abs(centred[2, :2]).max() < 1e-12:
        affine = centred[:2] / centred[2, 2]
        return np.asarray(
            cv2.warpAffine(image, affine, target, flags=how, borderMode=border), np.uint8
        )
    return np.asarray(
        cv2.warpPerspective(image, centred, target, flags=how, borderMode=border), np.uint8
    )


def _translation(x: float, y: float) -> Homography:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _corners(width: float, height: float) -> NDArray[np.float64]:
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _points(matrix: Homography, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where points ``(N, 2)`` go."""
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(moved[:, :2] / moved[:, 2:])
