import numpy as np
import pytest
from scipy.stats import norm

from bench.errors import DataError
from bench.gap.divergence import framing_plane, kl_divergence


def plain_divergence(samples, reference, neighbours):
    """The estimator as the paper writes it, in loops."""
    total = 0.0
    for i, one in enumerate(samples):
        own = sorted(np.linalg.norm(one - other) for j, other in enumerate(samples) if j != i)
        others = sorted(np.linalg.norm(one - other) for other in reference)
        total += np.log(others[neighbours - 1] / own[neighbours - 1])
    ratio = samples.shape[1] * total / len(samples)
    return ratio + np.log(len(reference) / (len(samples) - 1))


@pytest.mark.parametrize("weights", [None, np.full(40, 3)])
def test_equal_weights_give_the_estimator_of_the_paper(weights):
    rng = np.random.default_rng(0)
    samples, reference = rng.normal(0, 1, (40, 3)), rng.normal(0.5, 2, (30, 3))
    found = kl_divergence(samples, reference, 4, weights)
    assert found == pytest.approx(plain_divergence(samples, reference, 4))


def test_gaussians():
    rng = np.random.default_rng(0)
    samples, reference = rng.normal(0, 1, (3000, 2)), rng.normal(1, 1, (3000, 2))
    assert kl_divergence(samples, reference) == pytest.approx(1.0, abs=0.12)  # |1|^2 / 2 twice
    assert abs(kl_divergence(samples, rng.normal(0, 1, (3000, 2)))) < 0.08
    with pytest.raises(DataError, match="5 and 3000"):
        kl_divergence(samples[:5], reference)


def test_weights_move_the_samples_to_the_reference():
    """Gaussians whose density ratio is known; so are the divergences with it and without."""
    rng = np.random.default_rng(0)
    samples, reference = rng.normal(0, 1, (4000, 1)), rng.normal(1, 0.8, (4000, 1))
    ratio = (norm.pdf(samples, 1, 0.8) / norm.pdf(samples, 0, 1))[:, 0]
    exact = np.log(0.8) + (1 + 1) / (2 * 0.8**2) - 0.5
    assert kl_divergence(samples, reference) == pytest.approx(exact, abs=0.1)
    assert abs(kl_divergence(samples, reference, weights=ratio)) < 0.06
    # Weighted samples of one Gaussian stand for the other, of which the divergence is known too.
    back = -np.log(0.8) + (0.8**2 + 1) / 2 - 0.5
    third = rng.normal(0, 1, (4000, 1))
    assert kl_divergence(samples, third, weights=ratio) == pytest.approx(back, abs=0.1)


def test_samples_without_weight_are_not_there():
    rng = np.random.default_rng(1)
    samples, reference = rng.normal(0, 1, (60, 2)), rng.normal(0, 1, (60, 2))
    weights = np.arange(60) % 3
    kept = weights > 0
    found = kl_divergence(samples, reference, weights=weights)
    assert found == kl_divergence(samples[kept], reference, weights=weights[kept])
    with pytest.raises(DataError, match="5 and 60"):
        kl_divergence(samples, reference, weights=np.arange(60) < 5)


def test_the_plane_does_not_know_units_and_weighs_domains_alike():
    rng = np.random.default_rng(0)
    images, videos = rng.normal(0, 1, (300, 4)), rng.normal(0, 1, (30, 4))
    images[:, 3] = videos[:, 3] = 1.0  # a statistic that never changes says nothing
    images[:, 0] += 3
    one, other = framing_plane(images, videos)
    assert (one.shape, other.shape) == ((300, 2), (30, 2))
    units = np.array([100, 1, 1e-3, 7])
    scaled, _ = framing_plane(images * units, videos * units)
    np.testing.assert_allclose(np.abs(scaled), np.abs(one), rtol=1e-6, atol=1e-9)
    # The plane's centre lies in the middle of both, however many samples each has.
    np.testing.assert_allclose(one.mean(0), -other.mean(0), atol=1e-9)
    assert abs(one.mean(0)[0] - other.mean(0)[0]) > 1
