import hashlib
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.errors import ConfigError, DataError
from bench.registry import get_dataset
from bench.video import Video, object_ids
from datasets.synthetic import Synthetic, photos
from datasets.synthetic.scene import Scene
from datasets.synthetic.script import CAST, CUTOUT_PHOTOS, build, plan

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"height": 96, "width": 168}


def video(number: int = 0, split: str = "val", **settings) -> Video:
    data = Synthetic(split=split, **settings)
    return data.video(data.sequences()[number])


def digest(videos, order) -> str:
    """Hash of two frames and masks per video, read in the given order of videos."""
    parts = {}
    for number in order:
        one = videos[number]
        for index in (7, 3):
            parts[number, index] = one.load_frame(index).tobytes() + one.load_mask(index).tobytes()
    return hashlib.sha256(b"".join(parts[key] for key in sorted(parts))).hexdigest()


HARD = {"difficulty": "hard", "sequences": 3, "blur": 0.3, "low_light": 0.5, **SMALL}


def first_masks_copied(one: Video) -> float:
    """Mean J of repeating each object's first mask, over the frames that are scored."""
    masks = [one.load_mask(index) for index in range(len(one))]
    scores = []
    for number in one.objects:
        first = next(i for i, mask in enumerate(masks) if (mask == number).any())
        given = masks[first] == number
        overlaps = []
        for mask in masks[first + 1 : -1]:
            union = (given | (mask == number)).sum()
            overlaps.append((given & (mask == number)).sum() / union)
        scores.append(np.mean(overlaps))
    return float(np.mean(scores))


@cache
def masks_of(split: str, seed: int, difficulty: str) -> dict[str, list[np.ndarray]]:
    data = Synthetic(split=split, seed=seed, difficulty=difficulty, **SMALL)
    return {one.name: [one.load_mask(i) for i in range(len(one))] for one in data}


# --- determinism ------------------------------------------------------------------------------


def test_same_bytes_whatever_the_order_and_process():
    here = digest(list(Synthetic(**HARD)), [0, 1, 2])
    assert here == digest(list(Synthetic(**HARD)), [2, 0, 1])
    code = (
        "import sys; sys.path.insert(0, '.'); sys.path.insert(0, 'tests/datasets')\n"
        "from test_synthetic import HARD, Synthetic, digest\n"
        "print(digest(list(Synthetic(**HARD)), [1, 2, 0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == here


def test_a_sequence_does_not_depend_on_how_many_there_are():
    few, many = Synthetic(sequences=2, **SMALL), Synthetic(sequences=9, **SMALL)
    assert many.sequences()[:2] == few.sequences()
    name = few.sequences()[1]
    assert few.fingerprint(name) == many.fingerprint(name)
    np.testing.assert_array_equal(few.video(name).load_frame(5), many.video(name).load_frame(5))


def test_seeds_and_splits_differ():
    frames = [video(split=split, seed=seed).load_frame(3) for split in CAST for seed in range(3)]
    assert len({frame.tobytes() for frame in frames}) == 6


def test_splits_share_no_photograph():
    used = {}
    for split, (cast, places) in CAST.items():
        used[split] = {name for one in cast for name in CUTOUT_PHOTOS[one]}
        used[split] |= {photos.BACKGROUNDS[place][0] for place in places}
    assert not used["val"] & used["train"]


def test_fingerprint_follows_the_settings():
    base = Synthetic()
    name = base.sequences()[0]
    assert base.fingerprint(name) == Synthetic().fingerprint(name)
    for change in ({"blur": 0.5}, {"height": 128}, {"compression": 0.1}, {"frames": 25}):
        assert Synthetic(**change).fingerprint(name) != base.fingerprint(name)


# --- what is shown ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["val", "train"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("difficulty", ["mixed", "hard"])
def test_ids_are_exact_and_first_masks_worth_giving(split, seed, difficulty):
    data = Synthetic(split=split, seed=seed, difficulty=difficulty, **SMALL)
    for name, masks in masks_of(split, seed, difficulty).items():
        one = data.video(name)
        assert list(one.objects) == list(range(1, len(one.objects) + 1))
        entries = []
        for number in one.objects:
            areas = [int((mask == number).sum()) for mask in masks]
            entries.append(next(i for i, area in enumerate(areas) if area))
            # 1.5 % of the frame, and most of what the object ever shows.
            assert areas[entries[-1]] > 0.015 * masks[0].size, (name, number)
            assert areas[entries[-1]] > 0.35 * max(areas), (name, number)
        assert entries[:-1] == [0] * (len(entries) - 1)
        assert all(mask.dtype == np.uint8 and mask.shape == (96, 168) for mask in masks)
        assert all(set(object_ids(mask)) <= set(one.objects) for mask in masks)
        assert not any((mask == 255).any() for mask in masks)


def test_hard_has_a_late_entry_and_a_full_occlusion():
    data = Synthetic(difficulty="hard")
    seen = [[object_ids(one.load_mask(i)) for i in range(len(one))] for one in data]
    for number, (one, ids) in enumerate(zip(data, seen, strict=True)):
        last = len(one.objects)
        if number % 2:
            assert not any(last in present for present in ids[:8])
            assert last in ids[8]
        else:
            assert any(1 not in present for present in ids[9:14]), one.name
            assert 1 in ids[0], one.name
            assert 1 in ids[-1], one.name


def test_frames_are_uint8_rgb_and_move():
    one = video(2)
    first, second = one.load_frame(0), one.load_frame(1)
    assert first.dtype == np.uint8
    assert first.shape == (192, 336, 3) == (*one.size, 3)
    assert np.abs(first.astype(int) - second).mean() > 1
    assert one.frame(4).name == one.frame_names[4] == "00004"


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
def test_mask_is_where_the_object_is(level):
    """Recolouring one object's texture changes the picture inside its mask and nowhere else."""
    planned = plan("val", 3, 4, level, 24)
    scene = build(planned, (192, 336))
    for layer in scene.layers:
        painted = layer.texture.copy()
        painted[..., :3] = 255 * painted[..., 3:] - painted[..., :3]
        layers = tuple(replace(o, texture=painted) if o is layer else o for o in scene.layers)
        other = Scene(scene.size, scene.canvas, layers, scene.camera, scene.light)
        for t in (0.0, 9.0, 20.0):
            if layer.label == 0:
                continue
            changed = np.abs(scene.image(t) - other.image(t)).max(-1) > 3
            inside = (scene.mask(t) == layer.label).astype(np.uint8)
            # Soft edges, the object's own and those of what hides it, reach three pixels out.
            core = cv2.erode(inside, np.ones((3, 3), np.uint8)) > 0
            reach = cv2.dilate(inside, np.ones((7, 7), np.uint8)) > 0
            # A mid-grey pixel is its own negative, so that a few inside do not change.
            assert changed[core].mean() > 0.93 if core.sum() > 50 else True
            assert not (changed & ~reach).any()


def test_background_moves_as_the_camera_says():
    """Where no object is, a frame is the background of its own camera and light, and moves."""
    scene = build(plan("val", 0, 1, "medium", 24), (192, 336))
    bare = Scene(scene.size, scene.canvas, (), scene.camera, scene.light)
    for t in (0.0, 12.0):
        free = scene.mask(t) == 0
        far = cv2.erode(free.astype(np.uint8), np.ones((61, 61), np.uint8)) > 0
        assert far.mean() > 0.1
        np.testing.assert_array_equal(scene.image(t)[far], bare.image(t)[far])
    start, end = bare.image(0.0), bare.image(12.0)
    flow, _ = cv2.phaseCorrelate(start.mean(-1), end.mean(-1))
    expected = scene.camera.pan_x(12.0), scene.camera.pan_y(12.0)
    assert np.hypot(*expected) > 5
    np.testing.assert_allclose(flow, expected, atol=4)


def test_copying_the_first_mask_is_neither_hopeless_nor_enough():
    """Averages over levels: methods have room above, and easy is easier than hard."""
    means = {}
    for level in ("easy", "medium", "hard"):
        data = Synthetic(difficulty=level, **SMALL)
        means[level] = np.mean([first_masks_copied(one) for one in data])
    assert means["easy"] > means["medium"] > means["hard"] > 0.05
    assert 0.15 < np.mean([first_masks_copied(one) for one in Synthetic(**SMALL)]) < 0.45
    assert means["easy"] < 0.65


# --- factors ----------------------------------------------------------------------------------


def sharpness(image) -> float:
    return cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()


def high_frequencies(image) -> float:
    """Energy beyond a quarter of the sampling rate, per pixel."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    spectrum = np.abs(np.fft.fft2(grey)) ** 2
    fy, fx = np.fft.fftfreq(grey.shape[0])[:, None], np.fft.fftfreq(grey.shape[1])[None]
    return spectrum[np.hypot(fy, fx) > 0.25].sum() / grey.size


def blockiness(image) -> float:
    """Jumps across the borders of 8 x 8 blocks against jumps elsewhere."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    jumps = np.abs(np.diff(grey, axis=1)).mean(0)
    border = np.arange(len(jumps)) % 8 == 7
    return jumps[border].mean() / jumps[~border].mean()


@pytest.mark.parametrize("factor", ["blur", "low_light", "low_resolution", "compression"])
def test_factors_degrade_frames_and_leave_masks(factor):
    plain = video(2)
    np.testing.assert_array_equal(plain.load_frame(5), video(2, **{factor: 0.0}).load_frame(5))
    np.testing.assert_array_equal(plain.load_frame(5), video(2, **{factor: 0}).load_frame(5))
    measure, sign = {
        "blur": (sharpness, -1),
        "low_light": (np.mean, -1),
        "low_resolution": (high_frequencies, -1),
        "compression": (blockiness, 1),
    }[factor]
    values = [measure(video(2, **{factor: strength}).load_frame(5)) for strength in (0.0, 0.5, 1.0)]
    assert sign * values[0] < sign * values[1] < sign * values[2], values
    assert max(values[0], values[2]) > 1.5 * min(values[0], values[2]), values
    for index in (0, 5, 11):
        np.testing.assert_array_equal(
            plain.load_mask(index), video(2, **{factor: 1.0}).load_mask(index)
        )


def test_low_light_is_noisy_and_noise_changes_by_frame():
    """Against the noise-free picture of the same darkness, noise is there and not frozen."""
    one = video(0, low_light=1.0)
    residues = []
    for index in (3, 4):
        frame = one.load_frame(index).astype(np.float32)
        residues.append(frame - cv2.medianBlur(frame, 5))
    assert min(residue.std() for residue in residues) > 2
    a, b = (residue.ravel() for residue in residues)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.5


def test_motion_blur_follows_the_motion():
    """Blur of a moving scene smears it, and the blurred picture is centred on the sharp one."""
    scene = build(plan("val", 0, 2, "hard", 24), (192, 336))
    sharp, blurred = scene.image(4.0), scene.image(4.0, shutter=1.0)
    early, late = scene.image(3.5), scene.image(4.5)
    assert np.abs(sharp - blurred).mean() > 1
    # Averaged instants lie nearer to the middle of the exposure than to its ends.
    distance = [np.abs(blurred - other).mean() for other in (early, sharp, late)]
    assert distance[1] < min(distance[0], distance[2])


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("blur", 1.5),
        ("low_light", -0.1),
        ("low_resolution", "much"),
        ("compression", float("nan")),
        ("frames", 1),
        ("sequences", 0),
        ("seed", -1),
        ("seed", 1.5),
        ("height", 8),
        ("width", "336"),
        ("difficulty", "insane"),
        ("split", "test"),
        ("noise", 1),
    ],
)
def test_bad_settings_name_themselves(setting, value):
    with pytest.raises(ConfigError) as caught:
        Synthetic(**{setting: value})
    assert caught.value.where == f"synthetic: {setting}"


def test_unknown_sequence_and_near_miss():
    with pytest.raises(DataError, match="Did you mean 'easy-0-coffee'"):
        Synthetic().video("easy-0-cofee")
    with pytest.raises(ConfigError, match="Did you mean 'frames'"):
        Synthetic(frame=3)


def test_other_sizes_and_lengths():
    one = video(2, height=120, width=120, frames=3, sequences=3)
    assert one.load_frame(2).shape == (120, 120, 3)
    assert one.load_mask(2).shape == (120, 120)
    assert len(video(0, frames=100).frame_names) == 100


def test_registered_and_verified():
    found, split = get_dataset("synthetic-train")
    assert (found, split) == (Synthetic, "train")
    assert Synthetic().verify() == []
    assert not Synthetic.recognises(Path())


def test_missing_photograph_is_named(monkeypatch):
    monkeypatch.setitem(photos.FILES, "coffee", ("skimage", "data/gone.png"))
    problems = Synthetic(sequences=1).verify()
    assert len(problems) == 1
    assert "gone.png" in str(problems[0])
    monkeypatch.setitem(photos.FILES, "coffee", ("no_such_package", "data/coffee.png"))
    with pytest.raises(DataError, match="no_such_package"):
        photos.photo_path("coffee")
