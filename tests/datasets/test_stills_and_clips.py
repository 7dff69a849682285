from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from bench.errors import ConfigError, DataError
from bench.gap.equalise import unique_fraction
from bench.gap.samples import compare_statistics, statistics_frame
from bench.registry import get_dataset
from bench.video import LabelledImage
from datasets.synthetic import Synthetic, SyntheticClips, SyntheticStills, photos
from datasets.synthetic.photos import BACKGROUNDS, CUTOUT_PHOTOS
from datasets.synthetic.stills import CLASSES

SMALL = {"height": 96, "width": 168}
MANY = 60


def frames_of(clips: SyntheticClips) -> list[LabelledImage]:
    """One frame of every clip, another one in each."""
    samples = []
    for number, video in enumerate(clips):
        index = number % len(video)
        samples.append(LabelledImage(video.name, video.load_frame(index), video.load_mask(index)))
    return samples


@pytest.fixture(scope="module")
def stills():
    return statistics_frame(SyntheticStills(images=MANY, **SMALL))


# --- the two domains --------------------------------------------------------------------------


def test_without_factors_the_domains_cannot_be_told_apart(stills):
    clips = statistics_frame(frames_of(SyntheticClips(sequences=MANY, **SMALL)))
    found = compare_statistics(stills, clips)
    # Ten tests: with Bonferroni's correction all of them hold at the 5 % level.
    assert found["p_value"].min() > 0.005, found
    # The same test sees an ordinary synthetic video, whose framing differs.
    other = Synthetic(difficulty="easy", sequences=20, **SMALL)
    seen = compare_statistics(stills, statistics_frame(frames_of(other)))
    assert seen["p_value"].min() < 1e-6


def test_stills_are_what_they_are_said_to_be(stills):
    assert stills["height"].between(0.30, 0.60).all(), stills["height"].describe()
    assert stills["height"].max() - stills["height"].min() > 0.15
    assert (stills["truncation"] == 0).all()
    assert stills["offset"].max() < 0.1  # the centre of mass of an odd shape is not its middle's


@pytest.mark.parametrize(
    ("factor", "statistic", "sign"),
    [
        ("blur", "gradient_energy", -1),
        ("low_light", "mean_luma", -1),
        ("low_resolution", "laplacian_variance", -1),
        ("location", "offset", 1),
        ("truncation", "truncation", 1),
        ("scale", "height", -1),
    ],
)
def test_each_factor_moves_its_own_statistic(stills, factor, statistic, sign):
    values = []
    for strength in (0.0, 0.33, 0.67, 1.0):
        clips = SyntheticClips(sequences=8, **SMALL, **{factor: strength})
        values.append(statistics_frame(frames_of(clips)))
    means = [sign * table[statistic].mean() for table in values]
    assert all(a < b for a, b in pairwise(means)), means
    assert compare_statistics(stills, values[-1]).loc[statistic, "p_value"] < 1e-3
    if factor in ("location", "truncation", "scale"):
        return
    for geometric in ("centroid_x", "area", "truncation"):
        np.testing.assert_array_equal(values[0][geometric], values[-1][geometric])


def test_geometric_strengths_have_their_values():
    far = statistics_frame(
        frames_of(SyntheticClips(sequences=10, scale=0.8, location=0.5, **SMALL))
    )
    assert far["offset"].between(0.15, 0.25).all(), far["offset"]
    # Single clips deviate, because the object sways by 2 % of the frame about its place.
    pairs = [SyntheticClips(sequences=30, truncation=strength, **SMALL) for strength in (0.0, 0.5)]
    whole, cut = (statistics_frame(frames_of(clips))["area"] for clips in pairs)
    assert np.mean(1 - cut / whole) == pytest.approx(0.30, abs=0.05)


def test_compression_leaves_blocks():
    def blockiness(one: LabelledImage) -> float:
        jumps = np.abs(np.diff(one.image.mean(2), axis=1)).mean(0)
        border = np.arange(len(jumps)) % 8 == 7
        return float(jumps[border].mean() / jumps[~border].mean())

    means = [
        np.mean(
            [
                blockiness(one)
                for one in frames_of(SyntheticClips(sequences=8, compression=c, **SMALL))
            ]
        )
        for c in (0.0, 0.5, 1.0)
    ]
    assert means[0] < means[1] < means[2]


def test_redundancy_lowers_the_unique_fraction():
    def fraction(redundancy: float) -> float:
        clips = SyntheticClips(sequences=2, frames=12, redundancy=redundancy, **SMALL)
        rows = [frame.image[::6, ::6].ravel().astype(float) for v in clips for frame in v.frames()]
        centred = np.stack(rows) - np.mean(rows, axis=1, keepdims=True)
        return unique_fraction(centred, 0.93)

    fractions = [fraction(strength) for strength in (0.0, 0.8, 1.0)]
    assert fractions[2] == pytest.approx(2 / 24)
    assert fractions[0] > fractions[1] >= fractions[2]
    still = next(iter(SyntheticClips(sequences=1, frames=3, redundancy=1.0, blur=1.0, **SMALL)))
    np.testing.assert_array_equal(still.load_frame(0), still.load_frame(2))


# --- classes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["val", "train"])
def test_priors_of_classes(split):
    names = CLASSES[split]
    uniform = SyntheticStills(split=split, images=400)
    counts = [sum(plan.endswith(name) for plan in names_of(uniform)) for name in names]
    assert chisquare(counts).pvalue > 0.01
    prior = (0.5, 0.3, 0.2, 0.0, 0.0)
    shifted = SyntheticClips(split=split, sequences=400, prior=list(prior))
    found = [sum(name.endswith(one) for name in shifted.sequences()) / 400 for one in names]
    np.testing.assert_allclose(found, prior, atol=0.08)


def names_of(stills: SyntheticStills) -> list[str]:
    return [stills._plan(index).name for index in range(len(stills))]


def test_no_background_shows_a_class():
    for split, names in CLASSES.items():
        shown = {photo for name in names for photo in CUTOUT_PHOTOS[name]}
        data = SyntheticStills(split=split, images=60)
        places = {data._plan(index).background for index in range(60)}
        assert len(places) >= 2
        assert not shown & {BACKGROUNDS[place][0] for place in places}


def test_labels():
    one = SyntheticStills(images=2, **SMALL)[1]
    assert one.mask is not None
    assert set(np.unique(one.mask)) == {0, 1}
    assert one.name.endswith(one.categories[1])
    assert one.image.shape == (96, 168, 3)
    video = next(iter(SyntheticClips(sequences=1, **SMALL)))
    assert video.name.endswith(video.objects[1].category)
    assert set(np.unique(video.load_mask(3))) == {0, 1}


# --- adapters ---------------------------------------------------------------------------------


def test_same_bytes_in_any_order_and_of_any_number():
    many, few = SyntheticStills(images=9, **SMALL), SyntheticStills(images=4, **SMALL)
    np.testing.assert_array_equal(many[3].image, few[3].image)
    assert (many[2].image != SyntheticStills(images=4, seed=1, **SMALL)[2].image).any()
    settings = {"blur": 0.4, "low_light": 0.5, **SMALL}
    first, second = (SyntheticClips(sequences=n, **settings) for n in (2, 5))
    name = first.sequences()[1]
    late = second.video(name).load_frame(7)
    first.video(name).load_frame(2)
    np.testing.assert_array_equal(first.video(name).load_frame(7), late)
    assert first.fingerprint(name) == second.fingerprint(name)
    assert SyntheticClips(sequences=2, scale=0.1, **settings).fingerprint(
        name
    ) != second.fingerprint(name)


@pytest.mark.parametrize(
    ("cls", "settings", "where"),
    [
        (SyntheticStills, {"blur": 0.5}, "synthetic-stills: blur"),
        (SyntheticStills, {"images": 0}, "synthetic-stills: images"),
        (SyntheticStills, {"prior": (1, 2)}, "synthetic-stills: prior"),
        (SyntheticStills, {"prior": (0, 0, 0, 0, 0)}, "synthetic-stills: prior"),
        (SyntheticStills, {"prior": (float("nan"), 1, 1, 1, 1)}, "synthetic-stills: prior"),
        (SyntheticClips, {"location": 1.5}, "synthetic-clips: location"),
        (SyntheticClips, {"split": "test"}, "synthetic-clips: split"),
    ],
)
def test_bad_settings_name_themselves(cls, settings, where):
    with pytest.raises(ConfigError) as caught:
        cls(**settings)
    assert caught.value.where == where


def test_registered_and_verified(monkeypatch):
    assert get_dataset("synthetic-stills") == (SyntheticStills, None)
    assert get_dataset("synthetic-stills-train") == (SyntheticStills, "train")
    assert get_dataset("synthetic-clips-val") == (SyntheticClips, "val")
    assert get_dataset("synthetic-train") == (Synthetic, "train")
    stills, clips = SyntheticStills(images=20), SyntheticClips(sequences=20)
    assert stills.verify() == clips.verify() == []
    with pytest.raises(IndexError):
        stills[20]
    with pytest.raises(DataError, match="no such sequence"):
        clips.video("nobody")
    monkeypatch.setitem(photos.FILES, "brick", ("skimage", "data/gone.png"))
    assert ["gone.png" in str(problem) for problem in stills.verify()] == [True]
    assert ["gone.png" in str(problem) for problem in clips.verify()] == [True]
