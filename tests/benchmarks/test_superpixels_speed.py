"""CPU time of superpixels, as ratios of runs side by side, so that the machine cancels.

Run with ``pytest tests/benchmarks --benchmark-only``.
"""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from PIL import Image

from methods.shls.superpixels import SuperpixelCache, SuperpixelSettings, isec, split_by_mask
from tests.methods.shls.test_superpixels_plain import plain_isec

SEQUENCES = ("blackswan", "drift-chicane", "goat", "soapbox")
"""Between the fewest and the most superpixels among the 20 sequences."""


@pytest.fixture(scope="module")
def davis(shared_dir):
    """First frames and masks at 480p."""
    folder = shared_dir / "data" / "DAVIS2016"
    if not folder.is_dir():
        pytest.skip(f"No DAVIS-2016 frames: {folder} is no folder.")
    found = []
    for name in SEQUENCES:
        with Image.open(folder / "JPEGImages" / "480p" / name / "00000.jpg") as image:
            frame = np.array(image)
        with Image.open(folder / "Annotations" / "480p" / name / "00000.png") as image:
            found.append((frame, (np.array(image) > 0).astype(np.uint8)))
    return found


@pytest.fixture(autouse=True)
def one_thread():
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def cpu_seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def test_isec_against_the_plain_formulation(benchmark, davis):
    """The same labels from SciPy and scikit-image; they differ in time only."""
    frames = [frame for frame, _ in davis]
    isec(frames[0])

    def fast():
        return cpu_seconds(lambda: [isec(frame) for frame in frames])

    def plain():
        for frame in frames:
            plain_isec(frame.astype(np.float32) / np.float32(255))

    spent = benchmark.pedantic(fast, rounds=1, iterations=1)
    ratio = cpu_seconds(plain) / spent
    benchmark.extra_info["isec, milliseconds a frame"] = round(1000 * spent / len(frames), 1)
    benchmark.extra_info["plain / isec"] = round(ratio, 1)
    assert ratio >= 4


def test_split_and_cached_frames_against_isec(benchmark, davis, tmp_path):
    """Cutting along a mask and reading from disk are small beside computing."""
    cache, settings = SuperpixelCache(tmp_path), SuperpixelSettings()
    maps = [cache.get(frame, settings) for frame, _ in davis]
    split_by_mask(maps[0], davis[0][1])

    def split():
        pairs = zip(maps, davis, strict=True)
        return cpu_seconds(lambda: [split_by_mask(spx, mask) for spx, (_, mask) in pairs])

    spent = benchmark.pedantic(split, rounds=1, iterations=1)
    read = cpu_seconds(lambda: [cache.get(frame, settings) for frame, _ in davis])
    computed = cpu_seconds(lambda: [isec(frame) for frame, _ in davis])
    benchmark.extra_info["isec / split"] = round(computed / spent, 1)
    benchmark.extra_info["isec / cached"] = round(computed / read, 1)
    assert computed >= 3 * spent
    assert computed >= 4 * read
