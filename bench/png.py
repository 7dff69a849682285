"""Decoding the common kinds of mask PNG with less CPU time than PIL needs.

Most of the time in reading a mask goes into inflating it, and libdeflate inflates the long runs of
masks about eight times as fast as zlib. Only well-formed files of plain kinds are decoded here;
everything else, broken files above all, is left to PIL, whose errors are the ones that users see.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import deflate
import numpy as np
from numpy.typing import NDArray

from bench.video import Mask

SIGNATURE = b"\x89PNG\r\n\x1a\n"

GREY, PALETTE = 0, 3
"""The colour types that hold one value per pixel."""

BIT_DEPTHS = (1, 2, 4, 8)

SKIPPED = (b"tIME",)
"""Chunks before the image data that say nothing about it, and that PIL skips as well."""

MOST_BYTES = 1 << 25
"""Images of more bytes are left to PIL, which guards against decompression bombs."""

NONE, LEFT, ABOVE, PAETH = 0, 1, 2, 4
"""How rows are filtered: by what their bytes are predicted from."""

FILTERS = frozenset((NONE, LEFT, ABOVE, PAETH))
"""Those undone here. Averages are left to PIL: they predict edges of masks badly, and are rare."""

FIRST_ROW = {ABOVE: NONE, PAETH: LEFT}
"""What filters amount to in the first row, above which everything is 0."""

MOST_RESIDUALS = 16
"""With more bytes per row that are not what is predicted, PIL is faster. Masks have one or two."""

VALUES = [bytes((value,)) for value in range(256)]


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
        uint8 values ``(H, W)``, writable and nobody else's, whose rows may lie apart in memory,
        and PIL's mode; None for anything broken or unusual, for PIL to decode or to reject.
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
    filters = rows[:, 0].copy()
    if filters.any():
        rows[:, 0] = 0
        filters[0] = FIRST_ROW.get(int(filters[0]), filters[0])
        if not FILTERS.issuperset(filters.tolist()):
            return None
        if not _unfilter(raw, 1 + header.stride, filters):
            return None
    return _unpack(rows[:, 1:], header), header.mode


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


def _find(raw: bytearray) -> NDArray[np.intp]:
    """Places of the bytes other than 0, ascending; eight bytes at a time, because they are few."""
    count = len(raw) // 8
    words = np.frombuffer(raw, np.uint64, count)
    hits = np.flatnonzero(words != 0)
    word, byte = np.nonzero(words[hits].view(np.uint8).reshape(-1, 8) != 0)
    rest = np.flatnonzero(np.frombuffer(raw, np.uint8, offset=8 * count)) + 8 * count
    return np.concatenate((8 * hits[word] + byte, rest))


def _unfilter(raw: bytearray, width: int, filters: NDArray[np.uint8]) -> bool:
    """Undo the filters of rows in place, at a cost by the bytes that are not what is predicted.

    Args:
        raw: the rows, each after a byte 0 that stands for what is left of it.
        width: bytes per row, that one included.
        filters: of rows; no averages, and nothing that looks above the first row.

    Returns:
        Whether there were few enough such bytes; if not, nothing was done.
    """
    found = _find(raw)
    bounds = np.searchsorted(found, np.arange(len(filters) + 1) * width)
    if np.diff(bounds)[filters != NONE].sum() > MOST_RESIDUALS * len(filters):
        return False
    places = found.tolist()
    residuals = np.frombuffer(raw, np.uint8)[found].tolist()
    limits = bounds.tolist()
    for row, kind in enumerate(filters.tolist()):
        if kind == NONE:
            continue
        end = (row + 1) * width
        here = places[limits[row] : limits[row + 1]]
        extra = residuals[limits[row] : limits[row + 1]]
        if kind == LEFT:
            here.append(end)
            value = 0
            for index, residual in enumerate(extra):
                value = (value + residual) & 255
                place, following = here[index], here[index + 1]
                if value:
                    raw[place:following] = VALUES[value] * (following - place)
                else:
                    raw[place] = 0
            continue
        start = end - width
        raw[start:end] = raw[start - width : start]
        if kind == ABOVE:
            for place, residual in zip(here, extra, strict=True):
                raw[place] = (raw[place] + residual) & 255
        else:
            _unfilter_paeth(raw, width, here, extra, end)
    return True


def _unfilter_paeth(
    raw: bytearray, width: int, places: list[int], residuals: list[int], end: int
) -> None:
    """Undo filter ``PAETH`` in a row that starts as a copy of the row above and ends at ``end``.

    Without a residual, a byte repeats the one above where the bytes left and above left are equal,
    and the one to the left where those above and above left are equal. So the copy is right up to
    the first residual, and wherever the row has come to equal the one above again.
    """
    places.append(end)
    for index, residual in enumerate(residuals):
        column, following = places[index], places[index + 1]
        while column < following:
            left, above, corner = raw[column - 1], raw[column - width], raw[column - width - 1]
            if left == corner:
                value = above
            elif above in (corner, left):
                value = left
            else:  # whichever is nearest to left + above - corner
                to_left, to_above = abs(above - corner), abs(left - corner)
                to_corner = abs(left + above - 2 * corner)
                if to_left <= to_above and to_left <= to_corner:
                    value = left
                else:
                    value = above if to_above <= to_corner else corner
            raw[column] = value = (value + residual) & 255
            residual = 0
            column += 1
            if value == above:
                break
            ahead = raw[column - width : following - width]
            length = len(ahead) - len(ahead.lstrip(VALUES[above]))
            raw[column : column + length] = VALUES[value] * length
            column += length


def _unpack(rows: NDArray[np.uint8], header: _Header) -> Mask:
    """Values ``(H, W)`` from the bytes of rows ``(H, stride)``."""
    if header.depth == 8:
        return rows
    if header.depth == 1:
        return np.unpackbits(rows, axis=1, count=header.width)
    shifts = np.arange(8 - header.depth, -1, -header.depth, dtype=np.uint8)
    highest = (1 << header.depth) - 1
    values = (rows[:, :, None] >> shifts & np.uint8(highest)).reshape(header.height, -1)
    values = values[:, : header.width].copy()
    # PIL spreads grey values over 0 .. 255, except those of one bit.
    return values if header.colour == PALETTE else values * np.uint8(255 // highest)
