"""Still pictures of masks on frames, small enough to embed; they need no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from PIL import Image

from bench.video import RGB, VOID, Mask
from reports.footage import Footage

STILLS = 3
"""Frames shown per sequence where the page has room."""

STILL_SIDE = 224
"""Longer side of a still in pixels."""

QUALITY = 55
"""Of WebP: outlines stay clean. A still takes about 7 kB as text."""

EMPTY = (64, 64, 64)
"""Background of masks whose frames are not at hand."""

OBJECT_COLOURS = (
    (255, 214, 0),  # yellow
    (64, 196, 255),  # sky
    (255, 105, 180),  # pink
    (120, 235, 150),  # light green
    (255, 140, 40),  # orange
    (190, 150, 255),  # lavender
    (255, 255, 255),  # white
    (0, 150, 136),  # teal
)
"""Of objects 1, 2, ...; brighter than photographs, so that no one takes them for methods."""

OPACITY = 0.5
"""Of a mask inside its outline."""

OUTLINE = (16, 16, 16)
"""Dark rim around every object, so that it is seen on bright frames too."""


@dataclass(frozen=True)
class Tile:
    """One picture, or the reason why there is none.

    Attributes:
        column: what is shown: "Ground truth" or a method's label.
        source: ``data:`` URI, empty where there is none.
        alt: text for people who do not see it.
        width: in pixels.
        height: in pixels.
        reason: why there is no picture.
    """

    column: str
    source: str
    alt: str
    width: int = 16
    height: int = 9
    reason: str = ""


@dataclass(frozen=True)
class Strip:
    """One frame of a sequence: its tiles in the order of the columns."""

    frame: str
    tiles: tuple[Tile, ...]


def strips(footage: Footage, stills: int = STILLS) -> tuple[Strip, ...]:
    """Ground truth and every method on a few frames, late ones, where errors have built up."""
    found = []
    for place in _late(len(footage.picked), stills):
        tiles = [truth_tile(footage, place)]
        tiles += [method_tile(footage, track.info.label, place) for track in footage.tracks]
        found.append(Strip(footage.names[footage.picked[place]], tuple(tiles)))
    return tuple(found)


def truth_tile(footage: Footage, place: int) -> Tile:
    """The ground truth on a shown frame, or the frame alone."""
    frame = footage.names[footage.picked[place]]
    image, mask = footage.images[place], footage.truth[place]
    alt = f"Ground truth of {footage.name}, frame {frame}"
    if mask is not None:
        return _tile("Ground truth", alt, image, mask)
    if image is not None:
        alt = f"Frame {frame} of {footage.name}; it has no ground truth"
        return _tile("Frame only", alt, image, np.zeros(footage.size, np.uint8))
    return Tile("Ground truth", "", alt, reason="dataset not here")


def method_tile(footage: Footage, label: str, place: int) -> Tile:
    """A method's mask on a shown frame."""
    track = next(track for track in footage.tracks if track.info.label == label)
    alt = f"Mask of {label} on {footage.name}, frame {footage.names[footage.picked[place]]}"
    mask = track.masks[place]
    if mask is None:
        return Tile(label, "", alt, reason=track.reason or "no mask file")
    return _tile(label, alt, footage.images[place], mask)


def blend(image: RGB, mask: Mask) -> RGB:
    """A frame with its objects tinted and outlined.

    Args:
        image: uint8 RGB ``(h, w, 3)``.
        mask: uint8 ids ``(h, w)``; background and void are left untouched.

    Returns:
        uint8 RGB ``(h, w, 3)``, a new array.
    """
    colours = np.asarray(OBJECT_COLOURS, np.float32)
    shown = (mask != 0) & (mask != VOID)
    out = image.astype(np.float32)
    tint = colours[(mask[shown].astype(int) - 1) % len(colours)]
    out[shown] = (1 - OPACITY) * out[shown] + OPACITY * tint
    edge = np.zeros_like(shown)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    out[edge] = OUTLINE
    # Inside the rim the object's own colour, opaque.
    inner = edge[:, :-1] & shown[:, 1:]
    out[:, 1:][inner] = colours[(mask[:, 1:][inner].astype(int) - 1) % len(colours)]
    return out.astype(np.uint8)


def webp(image: RGB, quality: int = QUALITY) -> str:
    """An image as a ``data:`` URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _tile(column: str, alt: str, image: RGB | None, mask: Mask) -> Tile:
    """Blend at the still's size, so that outlines stay one pixel wide, and encode."""
    scale = min(1.0, STILL_SIDE / max(mask.shape))
    height, width = (max(1, round(side * scale)) for side in mask.shape)
    if image is None:
        image = np.full((*mask.shape, 3), EMPTY, dtype=np.uint8)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    ids = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    return Tile(column, webp(blend(cast(RGB, small), cast(Mask, ids))), alt, width, height)


def _late(count: int, stills: int) -> Sequence[int]:
    """Places among the shown frames, evenly from the first third to the last."""
    if not count:
        return []
    places = np.linspace(count / (stills + 1), count - 1, stills)
    return sorted({int(place) for place in places.tolist()})
