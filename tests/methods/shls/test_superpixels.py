"""Superpixels: reference results, naive formulations, odd sizes, masks, the cache."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pydantic import ValidationError
from scipy import ndimage
from skimage import morphology

from methods.shls.superpixels import (
    SuperpixelCache,
    SuperpixelSettings,
    grid,
    isec,
    isec_float,
    majority_labels,
    slic,
    split_by_mask,
    superpixels_parallel,
)
from methods.shls.superpixels.compiled import compiled
from methods.shls.superpixels.components import (
    fill_small_holes,
    label_components,
    remove_small_parts,
)
from methods.shls.superpixels.edges import (
    _gradients,
    _hysteresis,
    _smooth,
    edges,
    gaussian_weights,
)
from methods.shls.superpixels.thinning import thin
from tests.methods.shls.test_superpixels_plain import (
    SQUARE,
    plain_hysteresis,
    plain_isec,
    plain_ridges,
    plain_smooth,
)

OFFICIAL_COUNTS = {
    "blackswan": 1317,
    "bmx-trees": 973,
    "breakdance": 1405,
    "camel": 1087,
    "car-roundabout": 1057,
    "car-shadow": 716,
    "cows": 1225,
    "dance-twirl": 1039,
    "dog": 1298,
    "drift-chicane": 434,
    "drift-straight": 1153,
    "goat": 1482,
    "horsejump-high": 825,
    "kite-surf": 661,
    "libby": 1191,
    "motocross-jump": 678,
    "paragliding-launch": 798,
    "parkour": 717,
    "scooter-black": 924,
    "soapbox": 712,
}
"""Superpixels of DAVIS sequences' first frames at 480p."""

slow = settings(max_examples=60, deadline=None)

masks = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    elements=st.integers(0, 1),
)


@st.composite
def images(draw, largest=48):
    """One colour, noise, or blocks of noise, of any small size."""
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    block = draw(st.sampled_from([1, 2, 5, 8, 64]))
    coarse = rng.integers(0, 256, (-(-height // block), -(-width // block), 3), np.uint8)
    return coarse.repeat(block, 0).repeat(block, 1)[:height, :width]


@st.composite
def labelled(draw, most=9):
    """A map of compact ids 1 .. N and labels 0 .. 3 of the same size."""
    size = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    raw = draw(arrays.arrays(np.int64, size, elements=st.integers(1, most)))
    superpixels = np.unique(raw, return_inverse=True)[1].reshape(size).astype(np.int32) + 1
    return superpixels, draw(arrays.arrays(np.uint8, size, elements=st.integers(0, 3)))


def load(path):
    if not path.is_file():
        pytest.skip(f"No reference results: {path} is no file.")
    return np.load(path)


def frame(shared_dir, sequence):
    path = shared_dir / "data" / "DAVIS2016" / "JPEGImages" / "480p" / sequence / "00000.jpg"
    if not path.is_file():
        pytest.skip(f"No DAVIS-2016 frames: {path} is no file.")
    with Image.open(path) as image:
        return np.array(image)


def is_compact(superpixels):
    return superpixels.dtype == np.int32 and np.array_equal(
        np.unique(superpixels), np.arange(1, superpixels.max() + 1)
    )


def connected_parts(superpixels):
    """Number of 8-connected parts of all superpixels together; N if each is in one piece."""
    return sum(
        ndimage.label(superpixels[box] == i, SQUARE)[1]
        for i, box in enumerate(ndimage.find_objects(superpixels), start=1)
    )


# ISEC


def test_isec_of_recorded_frames(shared_dir):
    recorded = load(shared_dir / "oracle" / "shls" / "isec.npz")
    for image, labels in zip(recorded["frames"], recorded["labels"], strict=True):
        np.testing.assert_array_equal(isec(image), labels)


def test_isec_numbers_of_superpixels_on_real_frames(shared_dir):
    found = {name: int(isec(frame(shared_dir, name)).max()) for name in OFFICIAL_COUNTS}
    # Another JPEG decoder may move a number by a few.
    assert found == pytest.approx(OFFICIAL_COUNTS, abs=5)


def test_isec_equals_the_plain_formulation_on_a_real_frame(shared_dir):
    image = frame(shared_dir, "soapbox")
    expected = plain_isec(image.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(isec(image), expected)


@slow
@given(images(), st.sampled_from([3, 5, 11, 15]), st.integers(1, 5), st.integers(0, 40))
def test_isec_equals_the_plain_formulation(image, filter_order, iterations, area):
    expected = plain_isec(
        image.astype(np.float32) / np.float32(255), filter_order, iterations, area
    )
    np.testing.assert_array_equal(isec(image, filter_order, iterations, area), expected)


@slow
@given(images())
def test_isec_is_compact_connected_and_repeatable(image):
    labels = isec(image)
    assert labels.shape == image.shape[:2]
    assert is_compact(labels)
    assert connected_parts(labels) == labels.max()
    np.testing.assert_array_equal(isec(image), labels)
    # Views with odd strides are the same image.
    np.testing.assert_array_equal(isec(np.asfortranarray(image)), labels)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (1, 300), (300, 1), (2, 50), (40, 3)])
def test_isec_of_thin_images(size):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for image in (np.zeros_like(noise), np.full_like(noise, 255), noise):
        assert is_compact(isec(image))


def test_isec_of_a_black_frame_is_one_superpixel():
    assert isec(np.zeros((50, 70, 3), np.uint8)).max() == 1


def test_isec_of_a_4k_frame():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (90, 160, 3), np.uint8).repeat(24, 0).repeat(24, 1)
    labels = isec(image)
    assert labels.shape == (2160, 3840)
    assert is_compact(labels)


@pytest.mark.parametrize(
    ("image", "order"),
    [
        (np.zeros((4, 4, 3), np.float32), 11),
        (np.zeros((4, 4), np.uint8), 11),
        (np.zeros((4, 0, 3), np.uint8), 11),
        (np.zeros((4, 4, 3), np.uint8), 4),
        (np.zeros((4, 4, 3), np.uint8), 1),
    ],
)
def test_isec_refuses(image, order):
    with pytest.raises(ValueError, match=r"needed|odd"):
        isec(image, order)


def test_isec_float_refuses_bytes():
    with pytest.raises(ValueError, match="float32"):
        isec_float(np.zeros((4, 4, 3), np.uint8))


# Kernels beside naive ones


@slow
@given(images(), st.sampled_from([1.0, 2.0, 3.5]))
def test_filters_equal_scipy_to_the_last_bit(image, sigma):
    grey = image[..., 0] / np.float32(255)
    smooth = _smooth(grey, gaussian_weights(sigma))
    expected = plain_smooth(grey, sigma)
    np.testing.assert_array_equal(smooth, np.pad(expected, 1, mode="edge"))
    down, right, magnitude = _gradients(smooth)
    np.testing.assert_array_equal(down, ndimage.sobel(expected, axis=0))
    np.testing.assert_array_equal(right, ndimage.sobel(expected, axis=1))
    np.testing.assert_array_equal(magnitude, np.hypot(down, right))


@slow
@given(images(), st.sampled_from([0.01, 0.1, 0.5]))
def test_edges_equal_the_plain_ones(image, high):
    grey = image[..., 0] / np.float32(255)
    expected = plain_hysteresis(plain_ridges(plain_smooth(grey, 1.0), 0.1 * high, high))
    np.testing.assert_array_equal(edges(grey, 1.0, 0.1 * high, high), expected)


@slow
@given(arrays.arrays(np.uint8, (17, 23), elements=st.integers(0, 2)))
def test_hysteresis_equals_reconstruction(ridges):
    strong = np.where(ridges == 2, 1, 0)
    expected = morphology.reconstruction(strong, np.minimum(ridges, 1), footprint=SQUARE)
    kept = ridges.copy()
    _hysteresis(kept)
    np.testing.assert_array_equal(kept, expected)


@settings(max_examples=300, deadline=None)
@given(masks, st.sampled_from([1, 2, 3, 5, None]))
def test_thinning_equals_scikit_image(mask, iterations):
    expected = morphology.thin(mask.astype(bool), max_num_iter=iterations)
    np.testing.assert_array_equal(thin(mask, iterations), expected)


def test_thinning_where_only_the_second_subiteration_removes_something():
    mask = np.array([[0, 1, 1, 0], [0, 1, 0, 0]], np.uint8)
    assert thin(mask, 1).tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("iterations", [1, 3, 5, None])
def test_thinning_of_thick_shapes_equals_scikit_image(iterations):
    rng = np.random.default_rng(2)
    mask = ndimage.gaussian_filter(rng.normal(size=(150, 131)), 3) > -0.02
    expected = morphology.thin(mask, max_num_iter=iterations)
    np.testing.assert_array_equal(thin(mask.astype(np.uint8), iterations), expected)


@slow
@given(masks, st.integers(0, 12))
def test_small_components_equal_scipy(mask, area):
    parts, _ = ndimage.label(1 - mask)
    areas = np.bincount(parts.ravel())
    filled = mask.copy()
    fill_small_holes(filled, area)
    np.testing.assert_array_equal(filled, mask | ((parts > 0) & (areas[parts] < area)))
    parts, _ = ndimage.label(mask, SQUARE)
    areas = np.bincount(parts.ravel())
    cleared = mask.copy()
    remove_small_parts(cleared, area)
    np.testing.assert_array_equal(cleared, mask & (areas[parts] >= area))


@slow
@given(arrays.arrays(np.uint8, (11, 14), elements=st.integers(0, 3)))
def test_components_equal_scikit_image(values):
    labels, count = label_components(values, left_out=0)
    expected, number = morphology.label(values, background=0, connectivity=1, return_num=True)
    assert count == number
    np.testing.assert_array_equal(labels, expected)


def test_kernels_compile_where_no_folder_can_hold_them(monkeypatch):
    original = numba.njit

    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return original(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled(lambda value: 1.0 / value)(0.0) == np.inf


# SLIC and grid


@settings(max_examples=25, deadline=None)
@given(images(), st.integers(1, 400))
def test_slic_and_grid_are_compact(image, segments):
    for labels in (slic(image, segments), grid(image.shape[:2], segments)):
        assert labels.shape == image.shape[:2]
        assert is_compact(labels)


def test_slic_at_the_training_size(shared_dir):
    image = frame(shared_dir, "dog")[:256, :256]
    assert 240 <= slic(image).max() <= 300
    assert slic(image, segments=100).max() < slic(image).max()


@pytest.mark.parametrize("size", [(480, 854), (64, 64), (100, 7), (1, 50), (2, 2)])
@pytest.mark.parametrize("segments", [1, 12, 1024])
def test_grid_has_rectangles_of_about_the_number(size, segments):
    labels = grid(size, segments)
    count = labels.max()
    assert count == min(segments, size[0] * size[1]) or abs(count - segments) <= 0.2 * segments
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        assert (labels[box] == i).all()


# Masks


def naive_majority(superpixels, labels):
    found = []
    for i in range(1, superpixels.max() + 1):
        values, counts = np.unique(labels[superpixels == i], return_counts=True)
        found.append(values[counts.argmax()])
    return np.array(found)


def naive_split(superpixels, labels):
    majority = naive_majority(superpixels, labels)
    out = superpixels.copy()
    classes = list(majority)
    for value in np.unique(labels):
        strangers = (labels == value) & (majority[superpixels - 1] != value)
        parts, count = ndimage.label(strangers)
        for part in range(1, count + 1):
            classes.append(value)
            out[parts == part] = len(classes)
    return out, np.array(classes)


@slow
@given(labelled())
def test_majority_equals_a_loop(case):
    superpixels, labels = case
    found = majority_labels(superpixels, labels, 4)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, naive_majority(superpixels, labels))


def test_majority_ties_go_to_the_lowest_label():
    superpixels = np.array([[1, 1, 2, 2, 2, 2]], np.int32)
    labels = np.array([[2, 1, 3, 0, 3, 0]], np.uint8)
    assert majority_labels(superpixels, labels, 4).tolist() == [1, 0]


@slow
@given(labelled())
def test_split_equals_a_loop(case):
    superpixels, labels = case
    split, classes = split_by_mask(superpixels, labels)
    expected, expected_classes = naive_split(superpixels, labels)
    np.testing.assert_array_equal(split, expected)
    np.testing.assert_array_equal(classes, expected_classes)
    assert is_compact(split)
    # Every superpixel is pure, and of the class that is told.
    np.testing.assert_array_equal(classes[split - 1], labels)


def test_split_without_colliding_ids():
    """A new id must not fall on one that comes later: numbering from a running maximum would."""
    superpixels = np.arange(1, 11, dtype=np.int32)[None].repeat(3, 0).repeat(3, 1)
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 2, 2, 2], np.uint8)[None].repeat(3, 0).repeat(3, 1)
    labels[1, 1] = 1
    split, classes = split_by_mask(superpixels, labels)
    assert classes.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 1]
    assert split[1, 1] == 11
    np.testing.assert_array_equal(classes[split - 1], labels)


def test_split_joins_strangers_across_superpixels_and_closes_up_ids():
    superpixels = np.array([[2, 2, 2, 5, 5, 5, 5]], np.int32)
    labels = np.array([[0, 0, 255, 255, 0, 0, 0]], np.uint8)
    split, classes = split_by_mask(superpixels, labels)
    assert split.tolist() == [[1, 1, 3, 3, 2, 2, 2]]
    assert classes.tolist() == [0, 0, 255]
    assert classes.dtype == np.uint8


def test_split_equals_the_official_one(shared_dir):
    folder = shared_dir / "oracle" / "shls"
    stages = load(folder / "stages.npz")
    split, classes = split_by_mask(stages["superpixels"][0], stages["mask0"])
    np.testing.assert_array_equal(split, stages["f0_spx0"])
    # The official labels begin with 1 for the background.
    np.testing.assert_array_equal(classes + 1, stages["f0_pools0"])
    for name in ("propagate_one", "propagate_one_plain", "propagate_two_plain"):
        run = load(folder / f"{name}.npz")
        split, classes = split_by_mask(run["superpixels"][0].astype(np.int32), run["ids"][0])
        np.testing.assert_array_equal(split, run["merged_superpixels0"])
        np.testing.assert_array_equal(classes + 1, run["superpixel_class0"])


def test_labels_that_do_not_fit_are_refused():
    superpixels = np.ones((2, 2), np.int32)
    with pytest.raises(ValueError, match="match"):
        split_by_mask(superpixels, np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="start from 1"):
        split_by_mask(superpixels - 1, np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"0 \.\. 1"):
        majority_labels(superpixels, np.full((2, 2), 2, np.uint8), 2)


# Settings


def test_settings_compute_and_are_checked():
    image = np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8)
    for chosen, expected in (
        (SuperpixelSettings(), isec(image)),
        (SuperpixelSettings(filter_order=5, iterations=2), isec(image, 5, 2)),
        (SuperpixelSettings(method="slic", segments=50), slic(image, 50)),
        (SuperpixelSettings(method="grid", segments=9), grid((40, 60), 9)),
    ):
        np.testing.assert_array_equal(chosen.compute(image), expected)
    for wrong in ({"filter_order": 4}, {"method": "felzenszwalb"}, {"segment": 9}):
        with pytest.raises(ValidationError):
            SuperpixelSettings(**wrong)


def test_identity_has_what_matters_and_nothing_else():
    plain = SuperpixelSettings()
    assert plain.identity() == SuperpixelSettings(compactness=3, segments=9).identity()
    variants = [
        plain,
        SuperpixelSettings(filter_order=9),
        SuperpixelSettings(area_threshold=21),
        SuperpixelSettings(method="slic"),
        SuperpixelSettings(method="slic", sigma=2),
        SuperpixelSettings(method="grid"),
        SuperpixelSettings(method="grid", segments=301),
    ]
    assert len({settings.identity() for settings in variants}) == len(variants)


# Cache


class Counting(SuperpixelSettings):
    """Settings that tell how often they computed."""

    def compute(self, image):
        calls.append(image.shape)
        return super().compute(image)


calls: list[tuple[int, ...]] = []


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


@pytest.fixture
def image():
    return np.random.default_rng(4).integers(0, 256, (30, 40, 3), np.uint8)


def test_cache_computes_once_per_content_and_settings(tmp_path, image):
    chosen, expected = Counting(), isec(image)
    for _ in range(2):
        # A new cache and a new array: only content counts.
        found = SuperpixelCache(tmp_path / "new" / "folder").get(image.copy(), chosen)
        assert found.dtype == np.int32
        assert found.flags.writeable
        np.testing.assert_array_equal(found, expected)
    assert len(calls) == 1
    cache = SuperpixelCache(tmp_path / "new" / "folder")
    changed = image.copy()
    changed[5, 5, 0] ^= 1
    cache.get(changed, chosen)
    cache.get(image.reshape(40, 30, 3), chosen)
    cache.get(image, Counting(filter_order=9))
    assert len(calls) == 4


def test_cache_without_folder_computes_every_time(image):
    cache = SuperpixelCache(None)
    assert cache.path(image, Counting()) is None
    for _ in range(2):
        np.testing.assert_array_equal(cache.get(image, Counting()), isec(image))
    assert len(calls) == 2


def test_cache_holds_more_ids_than_16_bits(tmp_path):
    image = np.zeros((300, 300, 3), np.uint8)
    chosen, cache = Counting(method="grid", segments=90_000), SuperpixelCache(tmp_path)
    first = cache.get(image, chosen)
    assert first.max() == 90_000
    np.testing.assert_array_equal(cache.get(image, chosen), first)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: b"not superpixels at all, but long enough to hold a digest",
    ],
)
def test_cache_repairs_damaged_files(tmp_path, image, damage):
    cache, chosen = SuperpixelCache(tmp_path), Counting()
    expected = cache.get(image, chosen)
    path = cache.path(image, chosen)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    np.testing.assert_array_equal(cache.get(image, chosen), expected)
    assert len(calls) == 2
    assert path.read_bytes() == whole
    cache.get(image, chosen)
    assert len(calls) == 2


def test_cache_does_not_take_one_file_for_another(tmp_path, image):
    cache, chosen = SuperpixelCache(tmp_path), Counting()
    other = image[::-1].copy()
    cache.get(other, chosen)
    path = cache.path(image, chosen)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cache.path(other, chosen).read_bytes())
    np.testing.assert_array_equal(cache.get(image, chosen), isec(image))


def test_cache_that_cannot_be_written_warns_once(tmp_path, image, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = SuperpixelCache(tmp_path / "file")
    for _ in range(2):
        np.testing.assert_array_equal(cache.get(image, Counting()), isec(image))
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text


def test_cache_with_many_writers(tmp_path, image):
    chosen, expected = SuperpixelSettings(), isec(image)
    start = threading.Barrier(8)

    def work(_):
        start.wait()
        cache = SuperpixelCache(tmp_path)
        return [cache.get(image, chosen) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(work, range(8)):
            for found in results:
                np.testing.assert_array_equal(found, expected)
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".ids"]


# Several frames at once


@pytest.mark.parametrize("workers", [1, 2, 5, None])
def test_parallel_keeps_the_order(workers):
    rng = np.random.default_rng(5)
    frames = [rng.integers(0, 256, (20, 20 + i, 3), np.uint8) for i in range(12)]
    expected = [isec(frame) for frame in frames]
    given_frames = [f if i % 2 else (lambda f=f: f) for i, f in enumerate(frames)]
    found = list(superpixels_parallel(given_frames, isec, workers))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_parallel_reads_only_a_few_frames_ahead():
    taken = []

    def frames():
        for i in range(50):
            taken.append(i)
            yield np.zeros((4, 4, 3), np.uint8)

    for done, _ in enumerate(superpixels_parallel(frames(), isec, 2), start=1):
        assert len(taken) <= done + 4
        if done == 10:
            break
    assert len(taken) < 20
    assert all(one < other for one, other in pairwise(taken))


def test_parallel_raises_what_a_frame_raised():
    def broken():
        raise OSError("unreadable frame")

    good = np.zeros((4, 4, 3), np.uint8)
    results = superpixels_parallel([good, broken, good], isec, 2)
    assert next(results).max() == 1
    with pytest.raises(OSError, match="unreadable frame"):
        next(results)
    with pytest.raises(ValueError, match="at least 1"):
        superpixels_parallel([good], isec, 0)
