"""Plain PNGs decoded without PIL: the same values as PIL's, and the same errors."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import bench.masks
from bench.errors import MaskError
from bench.masks import decode_mask_and_mode
from bench.png import GREY, PALETTE, SIGNATURE, decode_png

PLAIN_FILTERS = (0, 1, 2, 4)


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def write_png(stream, width, height, depth, colour, *, methods=(0, 0, 0), parts=1, extra=b""):
    """A PNG around a zlib stream."""
    size = -(-len(stream) // parts)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, *methods)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if colour == PALETTE else b""
    data = b"".join(chunk(b"IDAT", stream[i : i + size]) for i in range(0, len(stream), size))
    return SIGNATURE + chunk(b"IHDR", header) + palette + extra + data + chunk(b"IEND", b"")


def pack(values, depth):
    """Bytes of rows ``(H, stride)``."""
    bits = np.unpackbits(values[:, :, None], axis=2)[:, :, 8 - depth :]
    return np.packbits(bits.reshape(len(values), -1), axis=1)


def filtered(rows, filters):
    """The rows with their filter types before them, as the specification puts it."""
    out = bytearray()
    above = [0] * (rows.shape[1] + 1)
    for kind, row in zip(filters, rows.tolist(), strict=True):
        row = [0, *row]
        out.append(kind)
        for x in range(1, len(row)):
            a, b, c = row[x - 1], above[x], above[x - 1]
            nearest = min((a, b, c), key=lambda value: abs(a + b - c - value))
            out.append((row[x] - (0, a, b, (a + b) // 2, nearest)[kind]) & 255)
        above = row
    return bytes(out)


def by_pil(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image, dtype=np.uint8), image.mode


def same(found, expected):
    return np.array_equal(found[0], expected[0]) and found[1] == expected[1]


@st.composite
def images(draw, kinds=PLAIN_FILTERS):
    """Values like a mask's (boxes over a background) or, one in four, noise; filters at random."""
    depth, colour = draw(st.sampled_from((1, 2, 4, 8))), draw(st.sampled_from((GREY, PALETTE)))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = np.full((height, width), random.integers(1 << depth) if draw(st.booleans()) else 0)
    for _ in range(draw(st.integers(0, 5))):
        y, x = random.integers(height), random.integers(width)
        values[y : y + random.integers(20), x : x + random.integers(30)] = random.integers(
            1 << depth
        )
    if draw(st.integers(0, 3)) == 0:
        values = random.integers(1 << depth, size=(height, width))
    filters = random.choice(draw(st.sampled_from([kinds, *((k,) for k in kinds)])), height)
    rows = pack(values.astype(np.uint8), depth)
    stream = zlib.compress(filtered(rows, filters), draw(st.sampled_from((0, 1, 9))))
    parts = draw(st.integers(1, 3))
    return values, depth, write_png(stream, width, height, depth, colour, parts=parts)


@given(images())
@settings(max_examples=200, deadline=None)
def test_values_and_mode_are_those_of_pil(image):
    values, depth, data = image
    expected = by_pil(data)
    if expected[1] == "P" or depth in (1, 8):
        assert np.array_equal(expected[0], values)
    assert same(decode_mask_and_mode(data, "x"), expected)
    found = decode_png(data)
    assert found is None or same(found, expected)


@given(images((0, 1, 2, 3, 4)))
@settings(max_examples=100, deadline=None)
def test_rows_predicted_from_averages_are_left_to_pil(image):
    _, _, data = image
    assert same(decode_mask_and_mode(data, "x"), by_pil(data))


@pytest.mark.parametrize("colour", [GREY, PALETTE])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", PLAIN_FILTERS)
def test_masks_are_not_left_to_pil(kind, depth, colour):
    values = np.zeros((60, 90), np.uint8)
    values[20:40, 30:50] = 1
    values[30:35, 45:60] = (1 << depth) - 1
    kinds = [kind] * 60 if kind else [0] * 60
    stream = zlib.compress(filtered(pack(values, depth), kinds))
    extra = chunk(b"tIME", bytes(7))
    data = write_png(stream, 90, 60, depth, colour, extra=extra)
    found = decode_png(data)
    assert found is not None
    assert same(found, by_pil(data))
    assert found[0].flags.writeable


def test_pils_own_masks_are_not_left_to_pil():
    mask = np.zeros((60, 90), np.uint8)
    mask[20:40, 30:50] = 7
    found = decode_png(bench.masks.encode_mask(mask))
    assert found is not None
    assert same(found, (mask, "P"))


@pytest.mark.parametrize("size", range(1, 12))
def test_every_length_modulo_eight(size):
    """Bytes are searched eight at a time; the rest must not be forgotten."""
    rows = np.full((3, size), 9, np.uint8)
    data = write_png(zlib.compress(filtered(rows, (1, 2, 1))), size, 3, 8, GREY)
    found = decode_png(data)
    assert found is not None
    assert np.array_equal(found[0], rows)


def outcome(data):
    """What the mask module makes of a file: values and mode, or an error's text."""
    try:
        return decode_mask_and_mode(data, "x")
    except MaskError as error:
        return re.sub(r"0x[0-9a-f]+", "", str(error))  # PIL prints addresses


def agree(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bench.masks, "decode_png", lambda data: None)
        expected = outcome(data)
    found = outcome(data)
    if isinstance(expected, str) or isinstance(found, str):
        return found == expected
    return same(found, expected)


@given(images(), st.data())
@settings(max_examples=200, deadline=None)
def test_corrupt_files_are_what_pil_makes_of_them(image, data):
    _, _, png = image
    broken = bytearray(png)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(png) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(png))))
    with pytest.MonkeyPatch.context() as patch:
        assert agree(bytes(broken[:cut]), patch)


@given(images(), st.data())
@settings(max_examples=200, deadline=None)
def test_corrupt_streams_with_right_chunk_checksums(image, data):
    """Chunks are sound, so that only the zlib stream tells."""
    rows = np.zeros((8, 20), np.uint8)
    rows[3:6, 4:12] = image[0].flat[0] + 1
    stream = bytearray(zlib.compress(filtered(rows, [4, 1, 2, 0] * 2)))
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    stream = stream[: data.draw(st.one_of(st.none(), st.integers(1, len(stream))))]
    with pytest.MonkeyPatch.context() as patch:
        assert agree(write_png(bytes(stream), 20, 8, 8, GREY), patch)


def unusual():
    rows = np.zeros((4, 8), np.uint8)
    rows[1:3, 2:5] = 3
    raw = filtered(rows, [0] * 4)
    stream = zlib.compress(raw)
    good = write_png(stream, 8, 4, 8, GREY)
    for name, arguments in {
        "interlaced": (stream, 8, 4, 8, GREY, (0, 0, 1)),
        "compression method": (stream, 8, 4, 8, GREY, (1, 0, 0)),
        "filter method": (stream, 8, 4, 8, GREY, (0, 1, 0)),
        "16 bits": (stream, 4, 4, 16, GREY),
        "RGB": (stream, 8, 4, 8, 2),
        "grey and alpha": (stream, 4, 4, 8, 4),
        "RGB and alpha": (stream, 2, 4, 8, 6),
        "depth 3": (stream, 8, 4, 3, GREY),
        "no pixels": (stream, 0, 4, 8, GREY),
        "too short": (stream, 8, 5, 8, GREY),
        "too long": (stream, 8, 3, 8, GREY),
        "huge": (stream, 60_000, 60_000, 8, GREY),
        "unknown filter": (zlib.compress(b"\x05" + raw[1:]), 8, 4, 8, GREY),
        "no stream": (b"\x78", 8, 4, 8, GREY),
    }.items():
        methods = arguments[5] if len(arguments) > 5 else (0, 0, 0)
        yield pytest.param(write_png(*arguments[:5], methods=methods), id=name)
    yield pytest.param(good[:-20], id="truncated")
    yield pytest.param(good[:-12], id="no end")
    yield pytest.param(good + b"more", id="more after the end")
    yield pytest.param(b"", id="empty")
    yield pytest.param(SIGNATURE, id="signature alone")
    yield pytest.param(good.replace(b"IHDR", b"JHDR"), id="no header")
    yield pytest.param(SIGNATURE + good[33:], id="data before header")
    yield pytest.param(write_png(stream, 8, 4, 8, PALETTE).replace(b"PLTE", b"PLTF"), id="no PLTE")
    for kind in (b"tEXt", b"iCCP", b"acTL", b"tRNS", b"PLTE", b"ABCD"):
        extra = chunk(kind, b"\0")
        yield pytest.param(write_png(stream, 8, 4, 8, GREY, extra=extra), id=kind.decode())
    wrong = chunk(b"tIME", bytes(7))[:-1] + b"?"
    yield pytest.param(write_png(stream, 8, 4, 8, GREY, extra=wrong), id="checksum of a chunk")
    wrong = stream[:-1] + bytes([stream[-1] ^ 1])
    yield pytest.param(write_png(wrong, 8, 4, 8, GREY), id="checksum of the stream")


@pytest.mark.parametrize("data", list(unusual()))
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusual_files_are_left_to_pil(data, monkeypatch):
    assert decode_png(data) is None
    assert agree(data, monkeypatch)


def test_missing_files_and_files_by_path(tmp_path):
    with pytest.raises(MaskError, match="no such file"):
        decode_mask_and_mode(tmp_path / "none.png", "none.png")
    mask = np.eye(30, dtype=np.uint8)
    bench.masks.write_mask(tmp_path / "one.png", mask)
    assert np.array_equal(bench.masks.read_mask(tmp_path / "one.png"), mask)
