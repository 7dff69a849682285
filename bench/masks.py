"""Reading and writing masks as palette PNGs.

PIL is used on purpose: it decodes palette PNGs to object ids, where OpenCV and others expand
the palette to RGB and lose the ids. :mod:`bench.png` decodes plain PNGs to the same ids faster.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from bench.errors import MaskError
from bench.png import decode_png
from bench.video import RGB, Mask

ID_MODES = ("1", "L", "P")
"""PIL modes that hold one id per pixel."""

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
"""What PIL raises for broken files; most are OSError, broken PNG chunks are SyntaxError."""

PNG_COMPRESS_LEVEL = 1
"""Masks are tiny at any level; level 1 writes several times faster than the default 6."""


def davis_palette() -> list[int]:
    """The 256-colour palette used by PASCAL VOC and DAVIS, flat ``[r, g, b, r, g, b, ...]``.

    Colour ``i`` spreads the bits of ``i`` over the high bits of the three channels: bits 0, 1, 2
    of each group of three go to red, green, blue.
    """
    palette = []
    for index in range(256):
        colour = [0, 0, 0]
        for shift in range(3):
            for channel in range(3):
                bit = (index >> (3 * shift + channel)) & 1
                colour[channel] |= bit << (7 - shift)
        palette.extend(colour)
    return palette


PALETTE = davis_palette()


def decode_mask(data: bytes | BinaryIO | Path, name: str | Path) -> Mask:
    """Decode one mask PNG to ids.

    Args:
        data: the file's bytes, an open binary file, or its path.
        name: what to call it in errors.

    Returns:
        uint8 ids ``(H, W)``; palette indices for palette PNGs, grey values for grey ones,
        0/1 for 1-bit ones.

    Raises:
        MaskError: unreadable, truncated, or coloured (RGB and the like hold no ids).
    """
    return decode_mask_and_mode(data, name)[0]


def decode_mask_and_mode(data: bytes | BinaryIO | Path, name: str | Path) -> tuple[Mask, str]:
    """Decode one mask PNG as :func:`decode_mask`, and tell its PIL mode, one of ``ID_MODES``."""
    plain = _decode_plain(data)
    if plain is not None:
        return plain
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with Image.open(source) as image:
            mode = image.mode
            if mode in ID_MODES:
                # A copy, because asarray of a PIL image can be read-only.
                return np.array(image, dtype=np.uint8), mode
    except FileNotFoundError:
        raise MaskError(name, "no such file", "a mask PNG", "Check the path.") from None
    except UNREADABLE as error:
        raise MaskError(
            name,
            f"an unreadable or truncated image ({error})",
            "a PNG with one object id per pixel",
            "Write or download the file again.",
        ) from error
    raise MaskError(
        name,
        f"an image in mode {mode}, whose colours hold no object ids",
        "a palette (P), grey (L) or 1-bit PNG with one object id per pixel",
        "Save the ids themselves, for instance with bench.masks.write_mask.",
    )


def _decode_plain(data: bytes | BinaryIO | Path) -> tuple[Mask, str] | None:
    """Decode a plain PNG faster than PIL does; None for everything that is left to PIL."""
    if isinstance(data, Path):
        try:
            data = data.read_bytes()
        except OSError:
            return None
    return decode_png(data) if isinstance(data, bytes) else None


def read_mask(path: Path) -> Mask:
    """Read one mask PNG to uint8 ids ``(H, W)``; raises :class:`MaskError` as decode_mask does."""
    return decode_mask(path, path)


def encode_mask(mask: Mask) -> bytes:
    """Encode ids ``(H, W)`` uint8 as a palette PNG."""
    image = Image.fromarray(np.ascontiguousarray(mask), mode="P")
    image.putpalette(PALETTE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=PNG_COMPRESS_LEVEL)
    return buffer.getvalue()


def write_mask(path: Path, mask: Mask) -> None:
    """Write ids ``(H, W)`` uint8 as a palette PNG."""
    path.write_bytes(encode_mask(mask))


def overlay(image: RGB, mask: Mask, opacity: float = 0.5) -> RGB:
    """Blend a mask's palette colours over a frame and draw the objects' outlines.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        mask: uint8 ids ``(H, W)``; 0 and 255 are left untouched.
        opacity: 0 shows the frame alone, 1 the colours alone.

    Returns:
        uint8 RGB ``(H, W, 3)``, a new array.
    """
    palette = np.asarray(PALETTE, dtype=np.float32).reshape(256, 3)
    shown = (mask != 0) & (mask != 255)
    out = image.astype(np.float32)
    out[shown] = (1 - opacity) * out[shown] + opacity * palette[mask[shown]]
    edge = np.zeros_like(shown)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    out[edge] = 255
    return out.round().astype(np.uint8)
