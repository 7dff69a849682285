"""Decoding the common kinds of mask PNG with less CPU time than PIL needs.

Most of the time in reading a mask goes into inflating it, and libdeflate inflates the long runs of
masks about eight times as fast as zlib. Only well-formed files of plain kinds are decoded here;
everything else, broken files above all, is left to PIL, whose errors are the ones that users see.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import deflate
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.video import Mask

SIGNATURE = b"\x89PNG\r\n\x1a\n"

GREY, PALETTE = 0, 3
"""The colour types that hold one value per pixel."""

BIT_DEPTHS = (1, 2, 4, 8)

SKIPPED = (b"tIME",)
"""Chunks before the image data that say nothing about it, and that PIL skips as well."""

MOST_BYTES = 1 << 25
"""Images of more bytes are left to PIL, which guards against decompression bombs."""

MOST_STORED = 0xFFFF
"""The longest block that a zlib stream can hold uncompressed."""

LAST_FILTER = 4
"""Filter types of rows are 0 (none), 1 (left), 2 (above), 3 (average) and 4 (Paeth)."""


@dataclass(frozen=True)
class _Header:
    """Size and kind of an image.

    Attributes:
        width: in pixels.
        height: in pixels.
        depth: bits per pixel.
        colour: ``GREY`` or ``PALETTE``.
    """

    width: int
    height: int
    depth: int
    colour: int

    @property
    def stride(self) -> int:
        """Bytes per row, without its filter type."""
        return (self.width * self.depth + 7) // 8

    @property
    def mode(self) -> str:
        """The mode that PIL gives such an image."""
        if self.colour == PALETTE:
            return "P"
        return "1" if self.depth == 1 else "L"


def decode_png(data: bytes) -> tuple[Mask, str] | None:
    """Decode a plain grey or palette PNG to the values that PIL gives.

    Args:
        data: the file's bytes.

    Returns:
        uint8 values ``(H, W)``, a new array, and PIL's mode; None for anything that is broken or
        unusual, for PIL to decode or to reject.
    """
    parsed = _parse(data)
    if parsed is None:
        return None
    header, compressed = parsed
    size = header.height * (1 + header.stride)
    try:
        # Checks the stream's checksum, and that it is not longer than this.
        raw = deflate.zlib_decompress(compressed, size)
    except deflate.DeflateError:
        return None
    if len(raw) != size:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(header.height, 1 + header.stride)
    highest = rows[:, 0].max()
    if highest > LAST_FILTER:
        return None
    values = _unfilter(raw, compressed[-4:], header) if highest else rows[:, 1:]
    return _unpack(values, header), header.mode


def _parse(data: bytes) -> tuple[_Header, bytes] | None:
    """The header and the zlib stream of a plain PNG with correct checksums; None for others."""
    if not data.startswith(SIGNATURE):
        return None
    header: _Header | None = None
    palette = False
    parts: list[bytes] = []
    offset = len(SIGNATURE)
    while offset + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if end > len(data):
            return None
        checksum: int = struct.unpack_from(">I", data, end - 4)[0]
        if zlib.crc32(data[offset + 4 : end - 4]) != checksum:
            return None
        content = data[offset + 8 : end - 4]
        if header is None:
            header = _parse_header(content) if kind == b"IHDR" else None
            if header is None:
                return None
        elif kind == b"IDAT":
            parts.append(content)
        elif kind == b"IEND":
            # The longest window, which is what writers declare, asks nothing of the decoder.
            compressed = b"".join(parts)
            plain = not content and end == len(data) and compressed[:1] == b"\x78"
            return (header, compressed) if plain and palette == (header.colour == PALETTE) else None
        elif parts:
            return None
        elif kind == b"PLTE" and not palette:
            palette = 0 < length <= 768 and length % 3 == 0
            if not palette:
                return None
        elif kind not in SKIPPED:
            return None
        offset = end
    return None


def _parse_header(content: bytes) -> _Header | None:
    """The header of a plain image; None for others."""
    if len(content) != 13:
        return None
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", content)
    header = _Header(width, height, depth, colour)
    plain = (
        width > 0
        and height > 0
        and depth in BIT_DEPTHS
        and colour in (GREY, PALETTE)
        and not any(methods)  # compression, filters, interlacing
        and header.height * (1 + header.width) <= MOST_BYTES
    )
    return header if plain else None


def _unfilter(raw: bytearray, checksum: bytes, header: _Header) -> NDArray[np.uint8]:
    """Undo the filters of rows, by letting PIL decode the inflated bytes as a PNG of bytes.

    Args:
        raw: every row's filter type and its bytes.
        checksum: of the zlib stream that ``raw`` comes from; it holds for the new one too.
        header: the image's.

    Returns:
        uint8 bytes of the rows ``(H, stride)``.
    """
    # PIL checks the checksums of the stream and of the header, not that of the image data.
    parts: list[bytes | bytearray] = [b"\x78\x01"]
    for start in range(0, len(raw), MOST_STORED):
        block = raw[start : start + MOST_STORED]
        last = start + len(block) == len(raw)
        parts += (struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block)
    parts.append(checksum)
    size = struct.pack(">IIBBBBB", header.stride, header.height, 8, GREY, 0, 0, 0)
    stream = b"".join(parts)
    png = b"".join(
        (
            SIGNATURE,
            _chunk(b"IHDR", size),
            struct.pack(">I", len(stream)),
            b"IDAT",
            stream,
            bytes(4),
            _chunk(b"IEND", b""),
        )
    )
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.array(image)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _unpack(rows: NDArray[np.uint8], header: _Header) -> Mask:
    """Values ``(H, W)`` from the bytes of rows ``(H, stride)``, a new array."""
    if header.depth == 8:
        return rows.copy()
    if header.depth == 1:
        return np.unpackbits(rows, axis=1, count=header.width)
    shifts = np.arange(8 - header.depth, -1, -header.depth, dtype=np.uint8)
    highest = (1 << header.depth) - 1
    values = (rows[:, :, None] >> shifts & np.uint8(highest)).reshape(header.height, -1)
    values = values[:, : header.width].copy()
    # PIL spreads grey values over 0 .. 255, except those of one bit.
    return values if header.colour == PALETTE else values * np.uint8(255 // highest)
