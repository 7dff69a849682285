"""The types that flow through everything: frames, masks, videos, labelled images.

Conventions: frames are uint8 RGB ``(H, W, 3)``; masks are uint8 object ids ``(H, W)`` with
0 = background and 255 = void where a dataset has it. Object ids never change inside a video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
"""uint8 ``(H, W, 3)``, channels red, green, blue."""

Mask = NDArray[np.uint8]
"""uint8 ``(H, W)`` object ids; 0 background, 255 void."""

VOID = 255


SAMPLE_STRIDE = 16
"""In pixels, for the quick look at which values a mask has."""

FEW_VALUES = 8
"""Up to this many values, counting each is quicker than a histogram."""


def present_values(mask: Mask) -> tuple[int, ...]:
    """The values in a label map, ascending, background and void included.

    A sample of the pixels mostly has all values. Counting these over the whole map proves it, at
    a third of the time of a histogram where values are few; otherwise the histogram decides.
    """
    sample = mask[::SAMPLE_STRIDE, ::SAMPLE_STRIDE].ravel()
    found = np.flatnonzero(np.bincount(sample, minlength=256)).tolist()
    if len(found) <= FEW_VALUES:
        counted = sum(cv2.countNonZero((mask == value).view(np.uint8)) for value in found)
        if counted == mask.size:
            return tuple(found)
    # OpenCV reads bytes as they are, where np.bincount would convert all to 8-byte integers.
    histogram = cv2.calcHist([mask], [0], None, [256], [0, 256])
    return tuple(np.flatnonzero(histogram).tolist())


def object_ids(mask: Mask) -> tuple[int, ...]:
    """The object ids in a mask ``(H, W)``, ascending, without background (0) and void (255)."""
    return tuple(value for value in present_values(mask) if value not in (0, VOID))


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        index: position in the video, from 0.
        name: the frame's name without suffix, e.g. ``"00000"``; written masks carry it.
        image: uint8 RGB ``(H, W, 3)``.
    """

    index: int
    name: str
    image: RGB


@dataclass(frozen=True)
class ObjectInfo:
    """What a dataset knows of one object beyond its pixels.

    Attributes:
        category: the category's name, or None where the dataset has none.
        seen: whether the category occurs in the dataset's training set (YouTube-VOS), or None.
    """

    category: str | None = None
    seen: bool | None = None


@dataclass(frozen=True)
class Video:
    """A video whose frames and masks are decoded only when asked for.

    Attributes:
        dataset: name of the dataset it comes from.
        name: the sequence's name, unique in its dataset.
        frame_names: one name per frame, in order.
        size: (H, W) of every frame and mask, in pixels.
        load_frame: decodes frame ``i``; uint8 RGB ``(H, W, 3)``.
        load_mask: decodes the mask of an annotated frame ``i``; uint8 ids ``(H, W)``.
        annotated: indices of the frames that have a mask, ascending. May be empty (unlabelled).
        objects: what is known of objects by id; an id may be absent.
        scorable: False where masks only introduce objects (YouTube-VOS valid), so that
            predictions can be exported but not scored.
    """

    dataset: str
    name: str
    frame_names: tuple[str, ...]
    size: tuple[int, int]
    load_frame: Callable[[int], RGB]
    load_mask: Callable[[int], Mask]
    annotated: tuple[int, ...]
    objects: Mapping[int, ObjectInfo] = field(default_factory=dict)
    scorable: bool = True

    def __len__(self) -> int:
        return len(self.frame_names)

    def frame(self, index: int) -> Frame:
        """Decode one frame."""
        return Frame(index, self.frame_names[index], self.load_frame(index))

    def frames(self) -> Iterator[Frame]:
        """Decode the frames in order, one at a time."""
        for index in range(len(self)):
            yield self.frame(index)


@dataclass(frozen=True)
class LabelledImage:
    """A still image with whatever labels its dataset carries.

    Attributes:
        name: unique in its dataset.
        image: uint8 RGB ``(H, W, 3)``.
        mask: uint8 ids ``(H, W)``; for saliency 0/1, for instances 1..N in the dataset's order,
            255 = crowd or ignore. None for unlabelled images.
        categories: category name of each id in ``mask``.
    """

    name: str
    image: RGB
    mask: Mask | None
    categories: Mapping[int, str] = field(default_factory=dict)
