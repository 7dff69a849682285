"""Pseudo-sequences: deterministic, with stable ids, within their limits."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from bench.errors import DataError
from datasets.saliency import Ecssd
from methods.shls.offline import (
    PseudoSequences,
    SaliencyMaps,
    SequenceSettings,
    Source,
    Sources,
)
from methods.shls.offline import __main__ as command
from methods.shls.offline.contact_sheet import contact_sheet
from methods.shls.offline.sequences import Box, Cutout, Scene, Shape, base_motion, jitter

STILL = {
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "hue": 0,
    "affine_chance": 0,
    "crop_scale": (1.0, 1.0),
    "crop_shift": 0,
}
"""Settings under which the base image does not move."""

COLOURS = np.array([[220, 40, 40], [40, 200, 40], [40, 60, 230], [230, 220, 40]])


def made_up(count=8, empty=()):
    """Images with one disc or two, of one colour each, on a dark ramp."""
    sources = []
    for index in range(count):
        random = np.random.default_rng(index)
        height, width = 100 + 5 * index, 150
        y, x = np.mgrid[:height, :width]
        image = np.stack([30 + x // 10] * 3, -1).astype(np.uint8)
        saliency = np.zeros((height, width), np.uint8)
        if index not in empty:
            for middle in (45, 110)[: 1 + index % 2]:
                disc = np.hypot(y - height / 2, x - middle) < random.integers(14, 26)
                image[disc] = COLOURS[index % 4]
                saliency[disc] = random.integers(60, 255, disc.sum())
        sources.append(Source(image, saliency))
    return sources


def made_by_worker(index):
    return PseudoSequences(made_up(), SequenceSettings(size=96), 5)[index]


def same(one, other):
    return (
        one.objects == other.objects
        and one.base == other.base
        and np.array_equal(one.frames, other.frames)
        and np.array_equal(one.labels, other.labels)
    )


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("size", [96, 128, 160])
def test_contract(paper, size):
    make = SequenceSettings.paper if paper else SequenceSettings
    sequences = PseudoSequences(made_up(), make(size=size, length=4), 1)
    assert len(sequences) == 8
    for index in range(30):
        found = sequences[index]
        assert found.frames.shape == (4, size, size, 3)
        assert found.labels.shape == (4, size, size)
        assert found.frames.dtype == found.labels.dtype == np.uint8
        assert 1 <= found.objects <= 3
        # All objects in frame 0, and nothing but these later.
        assert np.unique(found.labels[0]).tolist() == list(range(found.objects + 1))
        assert found.labels.max() == found.objects
        assert found.base == index % 8


def test_equal_numbers_give_equal_sequences_anywhere():
    sequences = PseudoSequences(made_up(), SequenceSettings(size=96), 5)
    numbers = [3, 11, 0, 3, 7]
    np.random.seed(1)  # noqa: NPY002  the global state must not matter
    here = [sequences[number] for number in numbers]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        there = list(pool.map(made_by_worker, numbers))
    assert all(map(same, here, there))
    assert same(here[0], here[3])
    assert not same(sequences[3], sequences[11])  # the same image
    again = PseudoSequences(made_up(), SequenceSettings(size=96), 6)
    assert not same(sequences[3], again[3])


def test_every_image_is_a_base_equally_often():
    sequences = PseudoSequences(made_up(7), SequenceSettings(size=64, length=1), 0)
    bases = [sequences[index].base for index in range(21)]
    assert np.bincount(bases).tolist() == [3] * 7


def test_negative_numbers_and_no_sources_are_refused():
    with pytest.raises(IndexError):
        PseudoSequences(made_up())[-1]
    with pytest.raises(DataError, match="no images"):
        PseudoSequences([])


def test_images_without_an_object_are_passed_over():
    sequences = PseudoSequences(made_up(8, empty={0, 3}), SequenceSettings(size=64), 2)
    for index in range(24):
        found = sequences[index]
        assert found.objects
        assert found.base not in (0, 3)
    assert same(sequences[3], sequences[3])


def test_only_empty_images_are_an_error():
    sequences = PseudoSequences(made_up(4, empty=range(4)), SequenceSettings(size=64))
    with pytest.raises(DataError, match="no salient object in 20 images"):
        sequences[0]


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        SequenceSettings(lenght=3)
    with pytest.raises(ValidationError):
        SequenceSettings(size=64).size = 3


def test_paper_settings_can_be_changed():
    settings = SequenceSettings.paper(size=128, feather=0.5)
    assert settings.rescale is None
    assert settings.feather == 0.5
    assert settings.object_mask == "random"


# --- geometry -------------------------------------------------------------------------------


def test_without_motion_all_frames_are_the_resized_image():
    settings = SequenceSettings(size=64, objects=1, **STILL)
    found = PseudoSequences(made_up(), settings, 0)[0]
    for frame, labels in zip(found.frames, found.labels, strict=True):
        np.testing.assert_array_equal(frame, found.frames[0])
        np.testing.assert_array_equal(labels, found.labels[0])


def test_labels_follow_the_image():
    """A disc's colour and its label move alike, within its edge."""
    still = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0)
    for border in ("reflect", "constant"):
        settings = SequenceSettings(size=128, objects=1, length=8, border=border, **still)
        found = PseudoSequences(made_up()[:1], settings, 3)[0]
        for frame, labels in zip(found.frames, found.labels, strict=True):
            red = frame[..., 0] > 125
            union = (red | (labels == 1)).sum()
            assert (red & (labels == 1)).sum() > 0.9 * union


@pytest.mark.parametrize("later", ["frame", "image"])
@pytest.mark.parametrize("around", ["objects", "image"])
def test_the_window_stays_inside_the_image_without_affine_changes(later, around):
    settings = SequenceSettings(
        size=128, affine_chance=0, later_frames=later, crop_around=around, crop_scale=(0.8, 1.5)
    )
    random = np.random.default_rng(0)
    frame = np.array([[0, 0, 1], [128, 128, 1]], float)
    for _ in range(100):
        matrix = base_motion((300, 400), Box(100, 200, 20, 90), settings, random)
        corners = frame @ np.linalg.inv(matrix).T
        assert corners.min() > -1e-6
        assert (corners[:, :2] <= np.array([400, 300]) + 1e-6).all()


def test_inserted_objects_have_the_size_asked_for():
    cutout = Cutout(np.zeros((30, 60, 3), np.uint8), np.full((30, 60), 255, np.uint8))
    settings = SequenceSettings(perspective=0)
    random = np.random.default_rng(0)
    shorter = []
    for _ in range(400):
        shape = Shape.whole(cutout).changed(True, settings, random)
        width, height = shape.sides
        np.testing.assert_allclose(width, 2 * height)
        assert width <= 256 + 1e-6
        before = height
        shorter.append(before)
        after = shape.changed(False, settings, random).sides[1]
        assert 0.85 - 1e-6 <= after / before <= 1.15 + 1e-6 or after == pytest.approx(25.6)
    assert min(shorter) >= 26 - 1e-6
    assert max(shorter) == pytest.approx(128)  # as long as the frame


def test_objects_stay_near_where_they_were():
    """Boxes grow by 15 % of the frame towards frame 1; overhang and perspective come on top."""
    settings = SequenceSettings(size=256, perspective=0, length=2)
    sequences = PseudoSequences(made_up(), settings, 4)
    checked = 0
    for index in range(40):
        found = sequences[index]
        start = 2 if found.base % 2 == 0 else 3
        for number in range(start, found.objects + 1):
            boxes = [np.argwhere(labels == number) for labels in found.labels]
            if min(map(len, boxes)) == 0:
                continue
            moved = np.abs(boxes[0].min(0) - boxes[1].min(0)).max()
            assert moved <= 0.15 * 256 + 25 + 0.15 * 154 + 60
            checked += 1
    assert checked > 10


# --- pasting --------------------------------------------------------------------------------


def scene_with_square(settings):
    labels = np.zeros((64, 64), np.uint8)
    labels[20:40, 20:40] = 1
    scene = Scene(settings)
    image = np.full((64, 64, 3), 90, np.uint8)
    scene.add_base(image, labels, np.random.default_rng(0))
    return scene


def patch(height, width):
    return Cutout(
        np.full((height, width, 3), 250, np.uint8), np.full((height, width), 255, np.uint8)
    )


def test_half_of_an_earlier_object_must_stay_visible():
    scene = scene_with_square(SequenceSettings(size=64, feather=0, **STILL))
    assert not scene._paste(patch(10, 20), (20, 20), 0, 2)  # exactly half is too much
    assert (scene.frames[0] == 90).all()
    assert scene._paste(patch(9, 20), (20, 20), 0, 2)
    scene.objects = 2
    # Counted from when it entered the frame: little more may go.
    assert not scene._paste(patch(3, 20), (37, 20), 0, 3)
    assert not scene._paste(patch(5, 20), (20, 20), 0, 3)  # hides more than half of 2
    assert not scene._paste(patch(5, 5), (-5, 70), 0, 3)  # out of the frame
    assert scene._paste(patch(5, 20), (50, 0), 0, 3)
    assert np.bincount(scene.labels[0].ravel())[1:].tolist() == [220, 180, 100]


@pytest.mark.parametrize("paper", [False, True])
def test_fifty_per_cent_rule_holds_in_whole_sequences(paper, monkeypatch):
    """Watches all pastes: what each object had when it entered a frame, and what it keeps."""
    scenes = []
    original = Scene.add_base

    def watched(self, *arguments):
        scenes.append(self)
        original(self, *arguments)

    monkeypatch.setattr(Scene, "add_base", watched)
    make = SequenceSettings.paper if paper else SequenceSettings
    sequences = PseudoSequences(made_up(), make(size=96), 9)
    inserted = 0
    for index in range(60):
        sequences[index]
        scene = scenes[-1]
        for frame, labels in enumerate(scene.labels):
            now = np.bincount(labels.ravel(), minlength=256)[1 : scene.objects + 1]
            entered = scene._entered[frame][1 : scene.objects + 1]
            assert ((now > 0.5 * entered) | (entered == 0)).all()
            inserted += (entered > 0).sum() - 1
    assert inserted > 50


def test_ids_stay_where_an_object_is_hidden(monkeypatch):
    """Object 2 is kept out of frame 1; object 3 keeps its number and its pixels' colour."""
    original = Scene._paste

    def without(self, patch, place, index, number):
        return not (index == 1 and number == 2) and original(self, patch, place, index, number)

    monkeypatch.setattr(Scene, "_paste", without)
    still = {**STILL, "feather": 0}
    sources = made_up(4)
    settings = SequenceSettings(size=128, reuse=0, **still)
    sequences = PseudoSequences(sources, settings, 0)
    seen = 0
    for index in range(0, 80, 2):  # bases with one disc
        found = sequences[index]
        if found.objects < 3 or 3 not in found.labels[1]:
            continue
        seen += 1
        assert 2 in found.labels[0]
        assert 2 not in found.labels[1]
        for number in (1, 3):
            hues = []
            for frame, labels in zip(found.frames, found.labels, strict=True):
                if (labels == number).any():
                    hues.append(np.median(frame[labels == number], axis=0))
            assert np.abs(np.diff(hues, axis=0)).max() < 12
    assert seen >= 3


def test_an_object_without_place_in_frame_0_is_cancelled(monkeypatch):
    monkeypatch.setattr(Scene, "_paste", lambda *arguments: False)
    sequences = PseudoSequences(made_up(), SequenceSettings(size=64), 0)
    assert all(sequences[index].objects == 1 + index % 2 for index in range(16))


def test_too_many_base_objects_lose_the_smallest():
    saliency = np.zeros((100, 100), np.uint8)
    for number, side in enumerate((10, 16, 7, 20, 13)):
        saliency[10 : 10 + side, 20 * number : 20 * number + side - 1] = 255
    source = Source(np.zeros((100, 100, 3), np.uint8), saliency)
    found = PseudoSequences([source], SequenceSettings(size=100), 0)[0]
    assert found.objects == 3
    assert found.labels[0, 12, 5] == found.labels[0, 12, 43] == 0


def test_a_single_image_may_be_its_own_donor():
    sequences = PseudoSequences(made_up(1), SequenceSettings(size=64), 0)
    assert max(sequences[index].objects for index in range(20)) == 3


# --- statistics and colours -----------------------------------------------------------------


@pytest.mark.parametrize("paper", [False, True])
def test_numbers_of_objects_are_spread(paper):
    """With one base object, 0, 1 or 2 are inserted alike; few find no place."""
    make = SequenceSettings.paper if paper else SequenceSettings
    sequences = PseudoSequences(made_up()[::2], make(size=96), 0)
    found = [sequences[index] for index in range(300)]
    shares = np.bincount([one.objects for one in found], minlength=4) / len(found)
    assert shares[0] == 0
    assert 0.25 < shares[1] < 0.5
    assert 0.22 < shares[2] < 0.45
    assert 0.18 < shares[3] < 0.42


def test_jitter_changes_colours_within_limits():
    image = np.random.default_rng(0).integers(60, 180, (20, 30, 3)).astype(np.uint8)
    none = SequenceSettings(**STILL)
    np.testing.assert_array_equal(jitter(image, none, np.random.default_rng(0)), image)
    random = np.random.default_rng(1)
    only = none.model_copy(update={"brightness": 0.2})
    ratios = [jitter(image, only, random).mean() / image.mean() for _ in range(100)]
    assert 0.79 < min(ratios) < 0.85
    assert 1.15 < max(ratios) < 1.21
    for name in ("contrast", "saturation", "hue"):
        only = none.model_copy(update={name: 0.2})
        changed = [jitter(image, only, random).astype(float) for _ in range(20)]
        assert max(np.abs(one - image).mean() for one in changed) > 3
        assert max(abs(one.mean() - image.mean()) for one in changed) < 6


def test_grey_stays_grey_under_saturation_and_hue():
    image = np.full((4, 4, 3), 120, np.uint8)
    settings = SequenceSettings(**{**STILL, "saturation": 0.5, "hue": 0.3})
    for seed in range(5):
        np.testing.assert_array_equal(jitter(image, settings, np.random.default_rng(seed)), image)


# --- real images ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ecssd(shared_dir, tmp_path_factory):
    root = shared_dir / "data" / "ECSSD"
    if not root.is_dir():
        pytest.skip(f"No ECSSD at {root}.")
    maps = SaliencyMaps("minimum_barrier", cache=tmp_path_factory.mktemp("saliency"))
    return Sources(Ecssd(root), maps, 256, range(0, 1000, 50))


@pytest.mark.parametrize("paper", [False, True])
def test_sequences_of_real_images(ecssd, paper):
    make = SequenceSettings.paper if paper else SequenceSettings
    sequences = PseudoSequences(ecssd, make(size=128), 0)
    found = [sequences[index] for index in range(40)]
    assert {one.objects for one in found} == {1, 2, 3}
    covered = np.mean([(one.labels > 0).mean() for one in found])
    assert 0.1 < covered < 0.7
    if not paper:
        # No fill: real images are hardly ever black.
        assert np.mean([(one.frames.max(-1) == 0).mean() for one in found]) < 0.02


def test_contact_sheet(ecssd, tmp_path):
    path = tmp_path / "sheet.png"
    contact_sheet(PseudoSequences(ecssd, SequenceSettings(size=64)), 2, path)
    with Image.open(path) as sheet:
        assert sheet.size == (8 * 68, 2 * 68)


def test_command(shared_dir, tmp_path):
    root = shared_dir / "data" / "ECSSD"
    if not root.is_dir():
        pytest.skip(f"No ECSSD at {root}.")
    out = tmp_path / "sheet.png"
    words = ["--data", "ecssd", "--root", str(root), "--out", str(out)]
    words += ["--saliency", "minimum_barrier", "--size", "64", "--count", "1", "--images", "3"]
    result = CliRunner().invoke(command.app, words)
    assert result.exit_code == 0, result.output
    assert out.is_file()


def test_command_refuses_videos_and_unknown_sources(tmp_path, monkeypatch, capsys):
    for words, wanted in (
        (["--data", "davis17"], "still images"),
        (["--saliency", "wishful", "--root", str(tmp_path)], "error: "),
    ):
        monkeypatch.setattr("sys.argv", ["offline", "--out", str(tmp_path / "a.png"), *words])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        assert stopped.value.code == 2
        assert wanted in capsys.readouterr().err
