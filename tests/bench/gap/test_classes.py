"""Class centre distance, silhouette and domain purity where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student_t
from sklearn.metrics import silhouette_score

from bench.errors import DataError
from bench.gap.classes import class_centre_distance, class_silhouette, domain_purity
from bench.gap.statistics import Groups
from tests.bench.gap.samples import two_gaussians, videos


def naive_ccd(features: np.ndarray, classes: np.ndarray) -> dict[int, float]:
    """Class centre distances in loops."""
    centres = {c: features[classes == c].mean(0) for c in np.unique(classes).tolist()}
    values = {}
    for i, centre in centres.items():
        spread = np.mean([((x - centre) ** 2).sum() for x in features[classes == i]])
        ratios = [spread / ((centre - centres[j]) ** 2).sum() for j in centres if j != i]
        values[i] = float(np.mean(ratios))
    return values


def naive_purity(
    features: np.ndarray, domains: np.ndarray, names: np.ndarray, neighbours: int
) -> float:
    """Purity of equally large domains and groups, in loops."""
    shares = np.empty(len(features))
    for i in range(len(features)):
        others = [j for j in range(len(features)) if names[j] != names[i]]
        others.sort(key=lambda j: float(((features[i] - features[j]) ** 2).sum()))
        shares[i] = np.mean([domains[j] == domains[i] for j in others[:neighbours]])
    own = (domains == 0).sum() - (names == names[0]).sum()
    c = own / (len(features) - (names == names[0]).sum())
    means = [shares[domains == domain].mean() for domain in (0, 1)]
    return float(np.mean([s * (1 - c) / (s * (1 - c) + (1 - s) * c) for s in means]))


def test_ccd_equals_the_definition_in_loops() -> None:
    generator = np.random.default_rng(0)
    classes = generator.choice([2, 5, 9], size=60)
    features = generator.normal(size=(60, 4)) + classes[:, None]
    expected = naive_ccd(features, classes)
    estimate = class_centre_distance(features, classes)
    assert estimate.per_class == pytest.approx(expected)
    assert estimate.value == pytest.approx(np.mean(list(expected.values())))
    assert estimate.interval is not None
    assert estimate.interval.low < estimate.value < estimate.interval.high


def test_ccd_of_gaussians() -> None:
    # Spread of a unit Gaussian: its number of channels; centres are 4 apart.
    generator = np.random.default_rng(1)
    classes = np.repeat([0, 1], 3000)
    features = generator.normal(size=(6000, 8))
    features[classes == 1, 0] += 4
    assert class_centre_distance(features, classes, blocks=2).value == pytest.approx(
        8 / 16, rel=0.05
    )
    scaled = class_centre_distance(10 * features + 3, classes, blocks=2).value
    assert scaled == pytest.approx(class_centre_distance(features, classes, blocks=2).value)


def test_ccd_interval_covers_the_mean_of_samples() -> None:
    generator = np.random.default_rng(10)
    estimates = []
    for _ in range(100):
        classes = generator.integers(0, 3, size=90)
        features = generator.normal(size=(90, 6)) + 2.5 * np.eye(6)[classes]
        estimates.append(class_centre_distance(features, classes))
    mean = np.mean([estimate.value for estimate in estimates])
    hits = [e.interval is not None and e.interval.low <= mean <= e.interval.high for e in estimates]
    assert 0.88 < np.mean(hits) < 0.99


def test_ccd_without_enough_classes() -> None:
    features = np.random.default_rng(2).normal(size=(9, 2))
    left_out = class_centre_distance(features, np.array([0, 0, 0, 0, 1, 1, 1, 1, 6]))
    assert set(left_out.per_class) == {0, 1}
    assert "[6]" in left_out.note
    one = class_centre_distance(features, np.array([0] * 8 + [1]))
    assert math.isnan(one.value)
    assert one.note.startswith("Undefined")
    with pytest.raises(DataError, match="classes"):
        class_centre_distance(features, np.zeros(8, int))


def test_silhouette() -> None:
    generator = np.random.default_rng(3)
    classes = np.repeat([1, 4, 6], 40)
    features = generator.normal(size=(120, 3)) + 2.0 * classes[:, None]
    estimate = class_silhouette(features, classes)
    assert estimate.value == pytest.approx(silhouette_score(features, classes))
    assert set(estimate.per_class) == {1, 4, 6}
    assert np.mean(list(estimate.per_class.values())) == pytest.approx(estimate.value)
    assert estimate.interval is not None
    assert estimate.interval.low < estimate.value < estimate.interval.high
    mixed = class_silhouette(generator.normal(size=(300, 3)), generator.integers(0, 2, size=300))
    assert abs(mixed.value) < 0.05
    # Two pairs of points, 2 apart inside, at least 10 between: by hand.
    four = class_silhouette(np.array([[0.0], [2.0], [12.0], [14.0]]), np.array([0, 0, 1, 1]))
    assert four.value == pytest.approx(np.mean([1 - 2 / 13, 1 - 2 / 11]))
    assert math.isnan(class_silhouette(features, np.zeros(120, int)).value)
    assert math.isnan(class_silhouette(features, np.arange(120)).value)


def test_silhouette_interval_covers_the_mean_of_samples() -> None:
    generator = np.random.default_rng(11)
    estimates = []
    for _ in range(100):
        classes = generator.integers(0, 3, size=100)
        features = generator.normal(size=(100, 4)) + 2.5 * np.eye(4)[classes]
        estimates.append(class_silhouette(features, classes))
    mean = np.mean([estimate.value for estimate in estimates])
    hits = [e.interval is not None and e.interval.low <= mean <= e.interval.high for e in estimates]
    assert 0.88 < np.mean(hits) < 0.99


def test_a_row_alone_in_its_class_has_silhouette_zero() -> None:
    features = np.random.default_rng(12).normal(size=(20, 3))
    classes = np.array([0] * 10 + [1] * 9 + [5])
    estimate = class_silhouette(features, classes)
    assert estimate.per_class[5] == 0
    assert estimate.value == pytest.approx(silhouette_score(features, classes))


@pytest.mark.parametrize("frames", [1, 4])
def test_purity_without_a_block_is_that_of_the_remaining_rows(frames: int) -> None:
    # The jackknife strikes rows from lists of neighbours; here they are found anew.
    features, domains, names = videos(12, frames, 3, 13, jitter=0.5)
    features[domains == 1] += 0.4
    groups = Groups.of_rows(len(features), domains, names)
    block = groups.dealt(6, np.random.default_rng(3))[groups.index]
    without = []
    for left in range(6):
        rows = np.flatnonzero(block != left)
        part = domain_purity(features[rows], domains[rows], names[rows], neighbours=7)
        without.append(part.value)
    error = np.sqrt(5 / 6 * ((without - np.mean(without)) ** 2).sum())
    interval = domain_purity(features, domains, names, neighbours=7, blocks=6, seed=3).interval
    assert interval is not None
    assert np.diff(interval)[0] == pytest.approx(2 * student_t.ppf(0.975, 5) * error)


@pytest.mark.parametrize(("shift", "widest"), [(0.0, 4.0), (1.5, 3.0)])
def test_purity_interval_covers_the_mean_of_samples(shift: float, widest: float) -> None:
    estimates = [domain_purity(*two_gaussians(60, 4, shift, seed)) for seed in range(80)]
    mean = np.mean([estimate.value for estimate in estimates])
    hits = [e.interval is not None and e.interval.low <= mean <= e.interval.high for e in estimates]
    assert np.mean(hits) > 0.9
    reach = np.mean([np.diff(e.interval)[0] / 2 for e in estimates if e.interval is not None])
    assert reach < widest * np.std([estimate.value for estimate in estimates])


@pytest.mark.parametrize("frames", [1, 4])
def test_purity_equals_the_definition_in_loops(frames: int) -> None:
    features, domains, names = videos(12, frames, 3, 4, jitter=0.5)
    features[domains == 1] += 0.4
    expected = naive_purity(features, domains, names, 7)
    estimate = domain_purity(features, domains, names, neighbours=7)
    assert estimate.value == pytest.approx(expected)


def test_purity_of_mixed_and_separate_domains() -> None:
    mixed = domain_purity(*two_gaussians(700, 4, 0.0, 5))
    assert mixed.value == pytest.approx(0.5, abs=0.03)
    assert mixed.interval is not None
    assert mixed.interval.low < 0.5 < mixed.interval.high
    apart = domain_purity(*two_gaussians(700, 4, 30.0, 5))
    assert apart.value == pytest.approx(1.0)


def test_purity_of_unequal_domains() -> None:
    values = []
    for seed in range(10):
        features = np.random.default_rng(seed).normal(size=(660, 4))
        values.append(domain_purity(features, np.repeat([0, 1], [600, 60]), blocks=2).value)
    # The plain share would be about (0.91 + 0.09) / 2 only by luck of averaging; by row it is 0.83.
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
    assert np.std(values) < 0.1


def test_frames_of_one_video_are_no_neighbours() -> None:
    by_frame, by_video = [], []
    for seed in range(5):
        features, domains, names = videos(30, 16, 6, seed)
        by_frame.append(domain_purity(features, domains, blocks=2).value)
        by_video.append(domain_purity(features, domains, names, blocks=2).value)
    assert min(by_frame) > 0.95
    assert np.mean(by_video) == pytest.approx(0.5, abs=0.08)


def test_purity_that_is_undefined() -> None:
    features, domains, names = videos(2, 10, 3, 6)
    few = domain_purity(features, domains, names, neighbours=31)
    assert math.isnan(few.value)
    assert "30 neighbours at hand for k=31" in few.note
    assert not math.isnan(domain_purity(features, domains, names, neighbours=30).value)
    with pytest.raises(DataError, match="neighbours"):
        domain_purity(features, domains, neighbours=0)
