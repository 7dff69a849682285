"""Saliency, its cache and sources, and the objects made of it."""

from __future__ import annotations

import heapq

import cv2
import numpy as np
import pytest
from scipy import ndimage

from bench.errors import ConfigError, DataError
from bench.video import LabelledImage
from datasets.saliency import Ecssd
from methods.shls.offline import (
    PseudoSequences,
    SaliencyMaps,
    SequenceSettings,
    Sources,
    base_labels,
    labels_used,
)
from methods.shls.offline.base_labels import SMALLEST, largest_objects
from methods.shls.offline.minimum_barrier import _reconstruct, barrier_distance
from methods.shls.offline.robust_background import background_probability
from methods.shls.offline.saliency import DETECTORS, clean, detect
from methods.shls.offline.sources import Source, shrink


def picture(height=90, width=120):
    """A red disc on noisy green, and the disc's mask."""
    random = np.random.default_rng(0)
    image = np.full((height, width, 3), (60, 120, 60), np.float32)
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - height / 2, x - width * 0.45) < height / 4
    image[disc] = (200, 40, 40)
    image += random.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), disc


class Pictures:
    """A data set of a few discs; defined here so that worker processes can import it."""

    def __init__(self, count=6, broken=None):
        self.count, self.broken = count, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise DataError("picture", "a broken file", "an image", "Mend it.")
        image, disc = picture(90 + index)
        return LabelledImage(f"{index:03}", image, disc.astype(np.uint8))


# --- minimum barrier distance ---------------------------------------------------------------


def exact_barrier(values):
    """For each lowest value allowed: the smallest possible maximum on a path, by Dijkstra."""
    height, width = values.shape
    best = np.full(values.shape, np.inf)
    for lowest in np.unique(values):
        highest = np.full(values.shape, np.inf)
        queue = []
        for y in range(height):
            for x in range(width):
                edge = y in (0, height - 1) or x in (0, width - 1)
                if edge and values[y, x] >= lowest:
                    highest[y, x] = values[y, x]
                    heapq.heappush(queue, (values[y, x], y, x))
        while queue:
            high, y, x = heapq.heappop(queue)
            if high > highest[y, x]:
                continue
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width and values[v, u] >= lowest:
                    through = max(high, values[v, u])
                    if through < highest[v, u]:
                        highest[v, u] = through
                        heapq.heappush(queue, (through, v, u))
        best = np.minimum(best, highest - lowest)
    return best


def naive_scans(values, passes):
    """FastMBD as its description reads."""
    height, width = values.shape
    distance = np.full(values.shape, np.inf)
    distance[[0, -1]] = 0
    distance[:, [0, -1]] = 0
    high, low = values.copy(), values.copy()
    for number in range(passes):
        step = 1 if number % 2 == 0 else -1
        for y in range(height)[::step]:
            for x in range(width)[::step]:
                for v, u in ((y - step, x), (y, x - step)):
                    if not (0 <= v < height and 0 <= u < width):
                        continue
                    top, bottom = max(high[v, u], values[y, x]), min(low[v, u], values[y, x])
                    if top - bottom < distance[y, x]:
                        distance[y, x], high[y, x], low[y, x] = top - bottom, top, bottom
    return distance


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("passes", [1, 2, 3, 6])
def test_barrier_distance_equals_its_description(seed, passes):
    values = np.random.default_rng(seed).integers(0, 12, (13, 17)).astype(np.float32)
    np.testing.assert_array_equal(barrier_distance(values, passes), naive_scans(values, passes))


@pytest.mark.parametrize("seed", range(4))
def test_barrier_distance_is_never_below_the_exact_one_and_mostly_equal(seed):
    values = np.random.default_rng(seed).integers(0, 12, (16, 16)).astype(np.float32)
    values = np.rint(cv2.GaussianBlur(values, (0, 0), 1.0))
    exact, found = exact_barrier(values), barrier_distance(values, 8)
    assert (found >= exact).all()
    assert (found == exact).mean() > 0.9


def test_barrier_distance_of_a_walled_square():
    values = np.zeros((9, 9), np.float32)
    values[2:7, 2:7] = 5
    values[4, 4] = 1
    found = barrier_distance(values)
    assert found[0].max() == 0
    assert found[3, 3] == 5
    assert found[4, 4] == 5


def test_reconstruction_equals_scikit_image():
    from skimage.morphology import reconstruction

    mask = np.random.default_rng(1).random((30, 40)).astype(np.float32)
    marker = cv2.erode(mask, np.ones((5, 5), np.uint8))
    wanted = reconstruction(marker, mask, footprint=ndimage.generate_binary_structure(2, 1))
    _reconstruct(marker, mask)
    np.testing.assert_array_equal(marker, wanted.astype(np.float32))


# --- robust background ----------------------------------------------------------------------


def test_background_probability_of_a_row():
    """Three like superpixels at the border and one unlike inside, by hand."""
    colours = np.array([0.0, 0.0, 0.0, 100.0])
    contrast = np.abs(colours[:, None] - colours)
    near = np.ones((4, 4), bool) & ~np.eye(4, dtype=bool)
    found = background_probability(contrast, near, np.array([True, True, True, False]))
    connectivity = 3 / np.sqrt(3)
    np.testing.assert_allclose(found[:3], 1 - np.exp(-(connectivity**2) / 2), rtol=1e-6)
    assert found[3] < 1e-6


# --- all detectors --------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_detectors_find_a_disc(name):
    image, disc = picture()
    found = detect(image, name)
    assert found.dtype == np.float32
    assert found.shape == disc.shape
    assert found.min() >= 0
    assert found.max() <= 1
    mask = clean(found) > 0
    assert (mask & disc).sum() / (mask | disc).sum() > 0.8


@pytest.mark.parametrize("name", sorted(DETECTORS))
@pytest.mark.parametrize("shape", [(60, 80), (400, 20), (7, 9), (1, 1), (12, 12)])
@pytest.mark.parametrize("colour", [0, 137, 255])
def test_nothing_is_salient_in_one_colour(name, shape, colour):
    found = detect(np.full((*shape, 3), colour, np.uint8), name)
    assert found.shape == shape
    assert not clean(found).any()


def test_unknown_detector_is_named():
    with pytest.raises(ConfigError, match="wishful"):
        detect(picture()[0], "wishful")
    with pytest.raises(ConfigError, match="wishful"):
        SaliencyMaps("wishful")


def test_clean_has_exact_zeros_fills_holes_and_drops_specks():
    soft = np.full((50, 60), 0.1, np.float32)
    soft[10:40, 10:40] = 0.8
    soft[20:25, 20:25] = 0.1
    soft[45:47, 50:52] = 0.9
    found = clean(soft)
    wanted = np.zeros((50, 60), bool)
    wanted[10:40, 10:40] = True
    np.testing.assert_array_equal(found > 0, wanted)
    assert found[15, 15] == 204
    assert 0 < found[22, 22] < 204


@pytest.mark.parametrize(
    ("source", "labels"),
    [
        ("combined", "none"),
        ("robust_background", "none"),
        ("minimum_barrier", "none"),
        ("precomputed", "none"),
        ("ground_truth", "saliency"),
    ],
)
def test_labels_used(source, labels, tmp_path):
    assert labels_used(source) == labels
    assert SaliencyMaps(source, tmp_path).labels_used == labels


# --- maps, cache, sources -------------------------------------------------------------------


def test_ground_truth_ignores_void():
    mask = np.array([[0, 1, 7, 255]], np.uint8)
    image = LabelledImage("a", np.zeros((1, 4, 3), np.uint8), mask)
    assert SaliencyMaps("ground_truth").of(image).tolist() == [[0, 255, 255, 0]]
    with pytest.raises(DataError, match="without a mask"):
        SaliencyMaps("ground_truth").of(LabelledImage("a", image.image, None))


def test_precomputed_maps(tmp_path):
    image = Pictures()[0]
    with pytest.raises(ConfigError, match="no folder"):
        SaliencyMaps("precomputed")
    with pytest.raises(DataError, match=r"000\.png: found no such file"):
        SaliencyMaps("precomputed", tmp_path).of(image)
    levels = np.where(image.mask > 0, 200, 3).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "000.png"), levels)
    found = SaliencyMaps("precomputed", tmp_path).of(image)
    np.testing.assert_array_equal(found, np.where(image.mask > 0, 200, 0))
    raw = SaliencyMaps("precomputed", tmp_path, clean_precomputed=False).of(image)
    np.testing.assert_array_equal(raw, levels)
    cv2.imwrite(str(tmp_path / "000.png"), levels[:50])
    with pytest.raises(DataError, match="120x50 pixels"):
        SaliencyMaps("precomputed", tmp_path).of(image)


def test_cache_is_by_content(tmp_path, monkeypatch):
    maps = SaliencyMaps("minimum_barrier", cache=tmp_path)
    first = Pictures()[0]
    found = maps.of(first)
    path = maps.cache_path(first.image)
    assert path.is_file()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]

    def fail(image, detector):
        raise AssertionError("detected anew")

    monkeypatch.setattr("methods.shls.offline.saliency.detect", fail)
    renamed = LabelledImage("another name", first.image.copy(), None)
    np.testing.assert_array_equal(maps.of(renamed), found)
    with pytest.raises(AssertionError):
        maps.of(Pictures()[1])
    with pytest.raises(AssertionError):
        SaliencyMaps("robust_background", cache=tmp_path).of(first)


@pytest.mark.parametrize("damage", ["truncated", "empty", "other size"])
def test_damaged_cache_files_are_made_again(tmp_path, damage):
    maps = SaliencyMaps("minimum_barrier", cache=tmp_path)
    image = Pictures()[0]
    found = maps.of(image)
    path = maps.cache_path(image.image)
    whole = path.read_bytes()
    if damage == "other size":
        cv2.imwrite(str(path), np.zeros((5, 5), np.uint8))
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
    np.testing.assert_array_equal(maps.of(image), found)
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    maps = SaliencyMaps("minimum_barrier", cache=tmp_path / "file")
    image = Pictures()[0]
    found = maps.of(image)
    maps.of(image)
    assert found.any()
    assert caplog.text.count("Saliency is not kept") == 1


def test_sources_are_the_same_for_any_number_of_workers(tmp_path):
    told = []
    maps = SaliencyMaps("minimum_barrier", cache=tmp_path)
    here = Sources(Pictures(), maps, 64, [4, 0, 2], progress=lambda *done: told.append(done))
    there = Sources(Pictures(), SaliencyMaps("minimum_barrier"), 64, [4, 0, 2], workers=2)
    lazy = Sources(Pictures(), maps, 64, [4, 0, 2], in_memory=False)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert len(here) == len(there) == len(lazy) == 3
    for one, other, third in zip(here, there, lazy, strict=True):
        assert max(one.saliency.shape) == 64
        for again in (other, third):
            np.testing.assert_array_equal(one.image, again.image)
            np.testing.assert_array_equal(one.saliency, again.saliency)


def test_sources_pass_on_errors_of_workers():
    with pytest.raises(DataError, match="a broken file"):
        Sources(Pictures(broken=3), SaliencyMaps("minimum_barrier"), 64, workers=2)


def test_shrinking_keeps_exact_zeros():
    saliency = np.zeros((100, 200), np.uint8)
    saliency[20:60, 50:150] = 90
    small = shrink(Source(np.zeros((100, 200, 3), np.uint8), saliency), 50)
    assert small.image.shape == (25, 50, 3)
    assert np.unique(small.saliency).tolist() == [0, 90]
    assert abs((small.saliency > 0).mean() - 0.2) < 0.01


def test_sources_from_ecssd(shared_dir, tmp_path):
    root = shared_dir / "data" / "ECSSD"
    if not root.is_dir():
        pytest.skip(f"No ECSSD at {root}.")
    sources = Sources(Ecssd(root), SaliencyMaps(cache=tmp_path), 128, range(0, 40, 10))
    for source in sources:
        assert max(source.image.shape) == 128
        share = (source.saliency > 0).mean()
        assert 0.02 < share < 0.8


# --- base labels ----------------------------------------------------------------------------


def naive_labels(saliency, variant):
    """Section 1.2 step by step, pixel by pixel."""
    mask = saliency > 0
    height, width = mask.shape

    def around(y, x):
        return [
            (v, u)
            for v in range(max(0, y - 1), min(height, y + 2))
            for u in range(max(0, x - 1), min(width, x + 2))
        ]

    kernel = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            kernel[y, x] = all(mask[v, u] for v, u in around(y, x))
    shell = mask & ~kernel
    parts, count = ndimage.label(kernel if variant == "fixed" else ~shell)
    whole = parts.copy()
    for y, x in zip(*np.nonzero(shell), strict=True):
        whole[y, x] = max(parts[v, u] for v, u in around(y, x))
    small = [n for n in range(1, count + 1) if 0 < (whole == n).sum() < SMALLEST * mask.size]
    for number in small:
        shape = whole == number
        ring = ndimage.binary_dilation(shape, np.ones((3, 3))) & ~shape
        values, counts = np.unique(whole[ring], return_counts=True)
        whole[shape] = values[counts.argmax()]
    if variant == "paper":
        whole = np.maximum(whole - 1, 0)
    values = [value for value in np.unique(whole) if value]
    result = np.zeros(mask.shape, np.uint8)
    for new, value in enumerate(values, 1):
        result[whole == value] = new
    return result


@pytest.mark.parametrize("variant", ["fixed", "paper"])
@pytest.mark.parametrize("seed", range(12))
def test_base_labels_equal_their_description(seed, variant):
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(20, 70, 2))
    noise = cv2.GaussianBlur(random.random((height, width)), (0, 0), random.uniform(0.8, 4))
    saliency = np.where(noise > np.quantile(noise, random.uniform(0.2, 0.8)), noise, 0)
    np.testing.assert_array_equal(base_labels(saliency, variant), naive_labels(saliency, variant))


def test_objects_that_touch_are_told_apart_and_keep_their_contours():
    saliency = np.zeros((40, 60), np.uint8)
    saliency[10:30, 5:25] = 200
    saliency[10:30, 27:50] = 200
    saliency[20, 25:27] = 200  # a bridge, one pixel wide
    labels = base_labels(saliency)
    assert labels.max() == 2
    assert (labels[10:30, 5:25] == 1).all()
    assert (labels[10:30, 27:50] == 2).all()


def ring_and_bar():
    saliency = np.zeros((100, 100), np.uint8)
    saliency[10:50, 10:50] = 255
    saliency[22:38, 22:38] = 0  # a hole
    saliency[60:70] = 255  # a bar that cuts off the background below
    return saliency


def test_holes_and_cut_off_background_are_no_objects():
    saliency = ring_and_bar()
    labels = base_labels(saliency)
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, saliency > 0)
    assert base_labels(saliency, "paper").max() == 4


def test_an_object_at_the_first_pixel_is_an_object():
    saliency = np.zeros((50, 50), np.uint8)
    saliency[:20, :20] = 255
    np.testing.assert_array_equal(base_labels(saliency) == 1, saliency > 0)
    assert base_labels(saliency, "paper")[0, 0] == 0


@pytest.mark.parametrize("variant", ["fixed", "paper"])
def test_dropping_a_small_object_fuses_no_others(variant):
    saliency = np.zeros((100, 100), np.uint8)
    saliency[5:15, 5:15] = 255
    saliency[20:23, 5:8] = 255  # 9 pixels; 10 are 0.1 %
    saliency[40:60, 5:25] = 255
    saliency[70:95, 5:30] = 255
    labels = base_labels(saliency, variant)
    found = [int(labels[row, 10]) for row in (10, 50, 80)]
    assert found == [1, 2, 3]
    assert labels[21, 6] == 0


@pytest.mark.parametrize("variant", ["fixed", "paper"])
def test_empty_and_full_maps(variant):
    assert not base_labels(np.zeros((30, 30), np.uint8), variant).any()
    full = base_labels(np.full((30, 30), 9, np.uint8), variant)
    assert full.min() == full.max() == (1 if variant == "fixed" else 0)


def test_largest_objects():
    labels = np.repeat(np.array([0, 1, 2, 3, 4], np.uint8), [5, 2, 4, 1, 3])[None]
    assert largest_objects(labels, 2).tolist() == [[0] * 5 + [0] * 2 + [1] * 4 + [0] + [2] * 3]
    assert largest_objects(labels, 4) is labels


# --- identities -----------------------------------------------------------------------------


@pytest.mark.parametrize("paper", [False, True])
def test_an_id_never_changes_its_object(paper):
    """Every image and every object has one colour of its own; much is hidden or left out."""
    colours = [(40 * index + 25, 255 - 40 * index, (index % 2) * 200 + 30) for index in range(6)]
    sources = []
    for index, colour in enumerate(colours):
        image = np.full((120, 120, 3), (10 * index, 10 * index, 10 * index), np.uint8)
        saliency = np.zeros((120, 120), np.uint8)
        cv2.circle(saliency, (60, 60), 35, 200, cv2.FILLED)
        image[saliency > 0] = colour
        sources.append(Source(image, saliency))
    still = dict.fromkeys(("brightness", "contrast", "saturation", "hue", "feather"), 0)
    make = SequenceSettings.paper if paper else SequenceSettings
    # One try each in a crowd, so that objects find no place in some frames; and some leave.
    crowded = {"object_size": (0.4, 0.7), "tries": 1, "visible": 0.3, "translation": 300}
    leaving = {"border": "constant", "affine_chance": 0.8, "length": 4}
    changed = {**still, **crowded, **leaving}
    sequences = PseudoSequences(sources, make(size=128, reuse=0, **changed), 0)
    compared = gaps = 0
    for index in range(60):
        made = sequences[index]
        first = {}
        for frame, labels in zip(made.frames, made.labels, strict=True):
            present = set(np.unique(labels).tolist())
            gaps += any(n not in present and n + 1 in present for n in range(1, made.objects))
            for number in present - {0}:
                # Towards its edge an object is mixed with what is beside it.
                inner = ndimage.binary_erosion(labels == number, np.ones((9, 9)))
                found = np.unique(frame[inner].astype(int), axis=0)
                if len(found):
                    assert np.abs(found - found[0]).max() <= 2
                    owner = [np.abs(found[0] - colour).max() <= 2 for colour in colours].index(True)
                    assert first.setdefault(number, owner) == owner
                    compared += 1
        assert first.get(1, index % 6) == index % 6
    assert compared > 200
    assert gaps >= 5
