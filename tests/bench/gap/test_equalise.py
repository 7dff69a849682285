import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from bench.errors import DataError
from bench.gap.equalise import (
    blurred_to,
    darkened_to,
    effective_sample_size,
    equal_unique_samples,
    equalise_brightness,
    equalise_diversity,
    equalise_framing,
    equalise_sharpness,
    importance_weights,
    match_quantiles,
    near_duplicate_groups,
    resampled,
    unique_fraction,
    waterfall,
)
from bench.gap.samples import (
    STATISTICS,
    compare_statistics,
    gradient_energy,
    mean_luma,
    noise_sigma,
    sample_statistics,
    statistics_frame,
    truncation,
)
from bench.video import LabelledImage
from datasets.synthetic.photos import photo


def disc(size=(120, 200), centre=(100, 60), radius=20) -> np.ndarray:
    ys, xs = np.mgrid[: size[0], : size[1]]
    return (np.hypot(xs - centre[0], ys - centre[1]) <= radius).astype(np.uint8)


def sample(name="one", radius=20, centre=(100, 60), sigma=0.0, gain=1.0) -> LabelledImage:
    image = cv2.resize(photo("chelsea"), (200, 120), interpolation=cv2.INTER_AREA)
    if sigma:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image = np.clip(image * gain, 0, 255).astype(np.uint8)
    return LabelledImage(name, image, disc(centre=centre, radius=radius), {1: "cat"})


# --- statistics -------------------------------------------------------------------------------


def test_gradient_energy_against_a_naive_one():
    one = sample()
    luma = cv2.cvtColor(one.image, cv2.COLOR_RGB2GRAY) / 255.0
    total = count = 0.0
    for y in range(40, 81):
        for x in range(80, 121):
            down, across = luma[y + 1, x] - luma[y - 1, x], luma[y, x + 1] - luma[y, x - 1]
            total += (down / 2) ** 2 + (across / 2) ** 2
            count += 1
    assert gradient_energy(one.image, one.mask) == pytest.approx(total / count)
    sharper = [gradient_energy(sample(sigma=s).image, one.mask) for s in (0, 1, 2, 4)]
    assert sharper == sorted(sharper, reverse=True)


def test_noise_is_measured():
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 180, 300)[None, :, None] * np.ones((200, 1, 3))
    for sigma in (2.0, 6.0, 12.0):
        noisy = ramp + rng.normal(0, sigma, (200, 300, 1))
        found = 255 * noise_sigma(np.rint(noisy).astype(np.uint8))
        assert found == pytest.approx(sigma, rel=0.08)


def test_framing_statistics_by_hand():
    image = np.zeros((100, 200, 3), np.uint8)
    mask = np.zeros((100, 200), np.uint8)
    mask[20:40, 100:150] = 3
    found = sample_statistics(image, mask)
    assert (found.centroid_x, found.centroid_y) == pytest.approx((0.625, 0.30))
    assert found.offset == pytest.approx(np.hypot(0.125, 0.2))
    assert (found.area, found.height, found.truncation) == pytest.approx((0.05, 0.2, 0))
    mask[:] = 0
    mask[90:, :30] = 1  # 10 x 30 in the lower left corner
    mask[0, 0] = 255  # void is no object
    assert sample_statistics(image, mask).truncation == pytest.approx(40 / 80)
    assert truncation(np.ones((4, 6), bool)) == 1
    for empty in (None, np.zeros_like(mask)):
        none = sample_statistics(image, empty)
        assert np.isnan([none.gradient_energy, none.offset, none.area, none.truncation]).all()
        assert none.mean_luma == 0


def test_frame_and_comparison():
    some = [sample(f"{i}", radius=10 + i % 9) for i in range(30)]
    table = statistics_frame([*some, some[0]])
    assert list(table.columns) == list(STATISTICS)
    assert len(table) == 31  # a resampled set repeats names
    larger = statistics_frame([sample(f"{i}", radius=25 + i % 9) for i in range(30)])
    found = compare_statistics(table, larger)
    assert found.loc["area", "distance"] == 1
    assert found.loc["area", "p_value"] < 1e-10
    assert found.loc["mean_luma", "p_value"] > 0.99
    assert found.loc["area", "images"] < found.loc["area", "videos"]


# --- diversity --------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.floats(0.3, 0.99))
@settings(max_examples=30, deadline=None)
def test_groups_are_the_connected_components(seed, threshold):
    """Against a flood fill over all pairs."""
    features = np.random.default_rng(seed).normal(size=(25, 3)) * 4
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    alike = unit @ unit.T > threshold
    labels = [-1] * 25
    for start in range(25):
        stack = [start] if labels[start] < 0 else []
        while stack:
            one = stack.pop()
            if labels[one] < 0:
                labels[one] = start
                stack += np.flatnonzero(alike[one]).tolist()
    found = near_duplicate_groups(features, threshold)
    same = np.equal.outer(labels, labels)
    np.testing.assert_array_equal(np.equal.outer(found, found), same)
    assert unique_fraction(features, threshold) == pytest.approx(len(set(labels)) / 25)


def test_large_sets_are_compared_in_blocks():
    directions = np.random.default_rng(0).normal(size=(40, 64))
    features = np.repeat(directions, 60, 0)[np.random.default_rng(1).permutation(2400)]
    assert unique_fraction(features) == pytest.approx(40 / 2400)
    with pytest.raises(DataError):
        unique_fraction(np.zeros((0, 4)))


def test_equal_unique_samples():
    images, videos = np.array([0, 0, 1, 2, 2, 3, 4]), np.array([0, 1, 1, 2])
    chosen, frames = equal_unique_samples(images, videos, np.random.default_rng(0))
    assert len(chosen) == len(frames) == 3
    assert len(set(images[chosen])) == len(set(videos[frames])) == 3
    seen = {
        tuple(equal_unique_samples(images, videos, np.random.default_rng(s))[0]) for s in range(60)
    }
    assert {index for one in seen for index in one} == set(range(7))
    assert effective_sample_size(np.ones(9)) == pytest.approx(9)
    assert effective_sample_size(np.array([1.0, 0, 0])) == pytest.approx(1)


# --- quality ----------------------------------------------------------------------------------


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_matched_quantiles_keep_the_order_and_take_the_values(values, count):
    values = np.array(values)
    reference = np.random.default_rng(count).normal(10, 2, count)
    targets = match_quantiles(values, reference)
    order = np.argsort(values, kind="stable")
    assert (np.diff(targets[order]) >= 0).all()
    assert reference.min() <= targets.min()
    assert targets.max() <= reference.max()


def test_matched_quantiles_have_the_reference_distribution():
    rng = np.random.default_rng(0)
    reference = rng.gamma(2, 1, 500)
    assert ks_2samp(match_quantiles(rng.normal(size=500), reference), reference).pvalue > 0.99
    with pytest.raises(DataError):
        match_quantiles(np.ones(3), np.zeros(0))


def test_blur_and_darkness_reach_their_targets():
    one = sample()
    energy, luma = gradient_energy(one.image, one.mask), mean_luma(one.image)
    for share in (0.7, 0.3, 0.05):
        blurred = blurred_to(one, share * energy)
        assert gradient_energy(blurred.image, one.mask) == pytest.approx(share * energy, rel=0.03)
        dark = darkened_to(one, share * luma)
        assert mean_luma(dark.image) == pytest.approx(share * luma, abs=0.004)
        assert blurred.mask is dark.mask is one.mask
    assert blurred_to(one, 2 * energy) is one
    assert darkened_to(one, 2 * luma) is one


def test_equalised_quality_is_the_videos():
    rng = np.random.default_rng(0)
    images = [sample(f"i{i}", radius=12 + i % 12) for i in range(16)]
    frames = [
        sample(f"v{i}", radius=12 + i % 12, sigma=rng.uniform(1, 3), gain=rng.uniform(0.3, 0.7))
        for i in range(16)
    ]
    before = compare_statistics(statistics_frame(images), statistics_frame(frames))
    # The darkened video has less energy for its darkness too, so light comes first.
    equal = equalise_sharpness(equalise_brightness(images, frames, rng), frames, rng)
    after = compare_statistics(statistics_frame(equal), statistics_frame(frames))
    for name in ("gradient_energy", "mean_luma"):
        assert before.loc[name, "distance"] > 0.9
        assert after.loc[name, "distance"] < 0.2
    without = LabelledImage("no object", images[0].image, None)
    found = equalise_sharpness([without, *images], frames, rng)
    assert found[0] is without


# --- framing ----------------------------------------------------------------------------------


def test_importance_weights_are_the_density_ratio():
    """Two Gaussians of which the ratio is known."""
    rng = np.random.default_rng(0)
    images, videos = rng.normal(0, 1, (4000, 1)), rng.normal(0.7, 0.8, (4000, 1))
    exact = np.exp(-0.5 * ((images - 0.7) / 0.8) ** 2 + 0.5 * images**2)[:, 0]
    found = importance_weights(images, videos)
    assert found.mean() == pytest.approx(1)
    assert np.corrcoef(found, exact / exact.mean())[0, 1] > 0.99
    drawn = images[resampled(found, 4000, rng), 0]
    assert drawn.mean() == pytest.approx(0.7, abs=0.08)
    assert drawn.std() == pytest.approx(0.8, abs=0.08)
    assert ks_2samp(images[:, 0], videos[:, 0]).statistic > 0.25
    assert ks_2samp(drawn, videos[:, 0]).statistic < 0.06
    with pytest.raises(DataError):
        importance_weights(np.array([[np.nan]]), videos)


def test_resampling_is_systematic():
    weights = np.array([0.5, 2.0, 0.0, 1.5])
    counts = np.bincount(resampled(weights, 40, np.random.default_rng(3)), minlength=4)
    assert np.abs(counts - 10 * weights).max() <= 1
    assert counts[2] == 0


def test_equalised_framing_is_the_videos():
    rng = np.random.default_rng(1)
    images = [
        sample(f"i{i}", centre=(rng.integers(60, 140), rng.integers(40, 80))) for i in range(90)
    ]
    frames = [
        sample(f"v{i}", centre=(rng.integers(110, 140), rng.integers(40, 80))) for i in range(60)
    ]
    nothing = LabelledImage("empty", images[0].image, np.zeros_like(images[0].mask))
    equal = equalise_framing([nothing, *images], frames, rng)
    before, after = (
        compare_statistics(statistics_frame(one), statistics_frame(frames))["distance"][
            "centroid_x"
        ]
        for one in (images, equal)
    )
    assert len(equal) == 91
    assert all(one is not nothing for one in equal)
    assert before > 0.5
    assert after < 0.25


# --- waterfall --------------------------------------------------------------------------------


def test_waterfall_in_both_orders():
    """With scores that can be worked out: factors overlap, so the order decides who gets credit."""
    images, frames = [sample(f"{i}") for i in range(6)], [sample("v")]

    def halve(images, frames, rng):
        return images[: len(images) // 2]

    def drop(images, frames, rng):
        return images[: max(len(images) - 2, 1)]

    table = waterfall(images, frames, lambda some: 10.0 - len(some), {"halve": halve, "drop": drop})
    assert list(table["order"]) == ["fixed"] * 3 + ["reverse"] * 3
    assert list(table["factor"]) == ["none", "halve", "drop", "none", "drop", "halve"]
    assert list(table["images"]) == [6, 3, 1, 6, 4, 2]
    assert list(table["value"]) == [4, 7, 9, 4, 6, 8]
    assert list(table["change"]) == [0, 3, 2, 0, 2, 2]


def test_waterfall_is_seeded_and_counts_unique_images():
    images = [sample(f"{i}", gain=0.5 + 0.1 * (i // 3)) for i in range(12)]
    frames = [sample(f"v{i}", gain=0.5) for i in range(3)] + [sample("w", gain=1.0)]

    def features(one: LabelledImage) -> np.ndarray:
        code = np.zeros(40)
        code[round(float(one.image.mean()) / 5)] = 1
        return code

    diversity = equalise_diversity(features)
    equal = diversity(images, frames, np.random.default_rng(0))
    assert len(equal) == len({features(one).argmax() for one in equal}) == 2
    tables = [
        waterfall(
            images, frames, lambda some: sum(hash_of(one) for one in some), {"d": diversity}, s
        )
        for s in (0, 0, 1, 2, 3)
    ]
    assert tables[0].equals(tables[1])
    assert any(not tables[0].equals(other) for other in tables[2:])


def hash_of(one: LabelledImage) -> float:
    return float(one.name) ** 2
