import cv2
import numpy as np
import pandas as pd
import pytest

from bench.gap.equalise import equalise_diversity, equalise_framing, factor_generator
from bench.gap.factor_statistics import AFTER, BEFORE, BOTH, diversity_rows, picture_rows
from bench.gap.samples import gradient_energy, mean_luma
from bench.video import LabelledImage
from datasets.synthetic.photos import photo

SIZE = (90, 120)
KEYS = ["factor", "statistic", "domain", "stage"]


def sample(name, centre, radius, gain, sigma=0.0) -> LabelledImage:
    image = cv2.resize(photo("chelsea"), SIZE[::-1], interpolation=cv2.INTER_AREA)
    if sigma:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = (np.hypot(xs - centre[0], ys - centre[1]) < radius).astype(np.uint8)
    return LabelledImage(name, np.clip(image * gain, 0, 255).astype(np.uint8), mask)


@pytest.fixture(scope="module")
def domains():
    rng = np.random.default_rng(0)
    images = [
        sample(f"i{i}", rng.uniform((30, 30), (90, 60)), rng.uniform(8, 16), rng.uniform(0.9, 1))
        for i in range(40)
    ]
    frames = [
        sample(f"v{i}", rng.uniform((60, 40), (95, 70)), rng.uniform(11, 18), 0.5 + i / 100, 1.5)
        for i in range(25)
    ]
    return images, frames


@pytest.fixture(scope="module")
def table(domains):
    return pd.DataFrame(picture_rows(*domains, 0.8, 0)).set_index(KEYS).sort_index()["value"]


def test_diversity_counts_what_differs():
    """Features of known groups: sizes 5, 2, 1 of images, 2, 2, 2, 1 of video frames."""
    codes = np.eye(8)
    images, videos = codes[[0] * 5 + [1] * 2 + [2]], codes[[3, 3, 4, 4, 5, 5, 6]]
    rows = pd.DataFrame(diversity_rows(images, videos, 0))
    found = rows.set_index(["statistic", "domain", "stage"])["value"]
    assert found["unique_samples"].to_dict() == {
        ("images", BEFORE): 3, ("images", AFTER): 3, ("videos", BEFORE): 4, ("videos", AFTER): 4,
    }  # fmt: skip
    assert found["unique_fraction", "images", BEFORE] == pytest.approx(3 / 8)
    assert found["unique_fraction", "images", AFTER] == 1
    assert found["unique_fraction", "videos", AFTER] == pytest.approx(4 / 7)
    assert found["effective_sample_size", "images", BEFORE] == pytest.approx(8**2 / (25 + 4 + 1))
    assert found["effective_sample_size", "images", AFTER] == pytest.approx(3)
    assert found["effective_sample_size", "videos", BEFORE] == pytest.approx(49 / 13)
    assert rows.groupby(["domain", "stage"])["samples"].first().tolist() == [3, 8, 7, 7]


def test_diversity_is_that_of_the_waterfall():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(20, 6))[rng.integers(0, 20, 60)]
    images = [LabelledImage(f"{i}", np.zeros((4, 4, 3), np.uint8), None) for i in range(60)]
    code = {one.name: features[i] for i, one in enumerate(images)}
    frames = images[:7]
    equal = equalise_diversity(lambda one: code[one.name])(
        images, frames, factor_generator(0, "diversity")
    )
    rows = pd.DataFrame(diversity_rows(features, features[:7], 0)).set_index(KEYS)
    assert rows.loc[("diversity", "unique_fraction", "images", AFTER), "samples"] == len(equal)


def test_sharpness_and_brightness_become_the_videos(domains, table):
    _, frames = domains
    energies = [np.median([gradient_energy(o.image, o.mask) for o in part]) for part in domains]
    assert table["sharpness", "gradient_energy_median", "images", BEFORE] == pytest.approx(
        energies[0]
    )
    for factor, statistic in (("sharpness", "gradient_energy"), ("brightness", "mean_luma")):
        found = table[factor]
        videos = found[f"{statistic}_median", "videos", BEFORE]
        assert found[f"{statistic}_median", "images", BEFORE] > 1.2 * videos
        assert found[f"{statistic}_median", "images", AFTER] == pytest.approx(videos, rel=0.1)
        assert found[f"{statistic}_distance", BOTH, BEFORE] == 1
        assert found[f"{statistic}_distance", BOTH, AFTER] < 0.25
    lumas = np.median([mean_luma(one.image) for one in frames])
    assert table["brightness", "mean_luma_median", "videos", AFTER] == pytest.approx(lumas)


def test_framing_comes_nearer_and_costs_samples(domains, table):
    images, frames = domains
    found = table["framing"]
    assert found["kl_divergence", BOTH, BEFORE] > 0.5
    assert found["kl_divergence", BOTH, AFTER] < 0.6 * found["kl_divergence", BOTH, BEFORE]
    drawn = equalise_framing(images, frames, factor_generator(0, "framing"))
    _, counts = np.unique([one.name for one in drawn], return_counts=True)
    size = found["effective_sample_size", "images", AFTER]
    assert size == pytest.approx(40**2 / (counts**2).sum())
    assert 1 < size < found["effective_sample_size", "images", BEFORE] == 40
    assert found["effective_sample_size", "videos", AFTER] == 25


def test_label_accuracy_is_reached_or_left_out(domains, table):
    found = table["label accuracy", "boundary_f"]
    assert found["images", BEFORE] == 1
    assert found["images", AFTER] == pytest.approx(0.8, abs=0.05)
    assert found["videos", BEFORE] == found["videos", AFTER] == 0.8
    images, frames = domains
    without = {row["factor"] for row in picture_rows(images[:8], frames[:8], None, 0)}
    assert without == {"sharpness", "brightness", "framing"}


def test_too_few_samples_for_a_divergence_are_said(domains):
    images, frames = domains
    rows = list(picture_rows(images[:5], frames[:8], None, 0))
    (before, after) = [row for row in rows if row["statistic"] == "kl_divergence"]
    assert np.isnan(before["value"])
    assert before["note"].startswith("Undefined: 5 and 8 different samples")
    assert np.isnan(after["value"])
