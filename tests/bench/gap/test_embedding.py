import numpy as np
import pytest

from bench.errors import ConfigError, DataError
from bench.gap import embedding
from bench.gap.embedding import absent_projections, chosen_rows, embed, principal_axes
from bench.gap.statistics import Groups


def features(shift: float, images=60, videos=40, frames=3, seed=0):
    """Two domains, two classes; frames of a video are near-duplicates."""
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.arange(images) % 2, np.repeat(np.arange(videos) % 2, frames)])
    domains = np.repeat([0, 1], [images, videos * frames])
    groups = np.array(
        [f"i{k}" for k in range(images)] + [f"v{k}" for k in range(videos) for _ in range(frames)]
    )
    noise = rng.normal(size=(images + videos, 60))
    noise = np.concatenate([noise[:images], np.repeat(noise[images:], frames, 0)])
    noise = noise + 0.01 * rng.normal(size=noise.shape)
    noise[:, 0] += 12 * classes
    noise[:, 1] += shift * domains
    return noise, domains, classes, groups


def test_one_row_per_video_balanced_limited_and_seeded():
    _, domains, _, groups = features(0)
    gathered = Groups.of_rows(len(domains), domains, groups)
    rows = chosen_rows(gathered, 3000)
    assert len(rows) == 80
    assert len(set(groups[rows])) == 80
    assert domains[rows].sum() == 40
    few = chosen_rows(gathered, 20)
    assert (len(few), domains[few].sum()) == (20, 10)
    np.testing.assert_array_equal(few, chosen_rows(gathered, 20))
    assert not np.array_equal(few, chosen_rows(gathered, 20, seed=1))


def test_principal_axes_against_the_eigenvectors():
    array = np.random.default_rng(0).normal(size=(80, 60)) * np.linspace(1, 5, 60)
    found = principal_axes(array)
    assert found.shape == (80, 50)
    variance = np.sort(np.linalg.eigvalsh(np.cov(array.T)))[::-1][:50]
    np.testing.assert_allclose(found.var(0, ddof=1), variance, rtol=1e-6)
    assert principal_axes(array[:8]).shape == (8, 8)


def test_embedding_shows_classes_and_counts_domains():
    mixed, apart = embed(*features(0.0)), embed(*features(30.0))
    points = mixed.points
    assert list(points.columns) == ["x", "y", "domain", "class", "row"]
    assert len(points) == 80
    assert mixed.purity.value == pytest.approx(0.5, abs=0.12)
    assert apart.purity.value > 0.98
    assert mixed.silhouette.value > 0.3
    plane = points[["x", "y"]].to_numpy()
    nearest = np.square(plane[:, None] - plane[None]).sum(-1)
    np.fill_diagonal(nearest, np.inf)
    classes = points["class"].to_numpy()
    assert (classes[nearest.argmin(1)] == classes).mean() > 0.95
    again = embed(*features(0.0))
    assert again.points.equals(points)
    _, domains, labels, _ = features(0.0)
    np.testing.assert_array_equal(domains[points["row"]], points["domain"])
    np.testing.assert_array_equal(labels[points["row"]], points["class"])


def test_a_missing_package_is_a_reason_and_not_a_crash(monkeypatch):
    monkeypatch.setattr(embedding, "UMAP_PACKAGE", "no_such_package")
    assert "not installed" in absent_projections()["umap"]
    with pytest.raises(ConfigError, match="not installed"):
        embed(*features(0.0), projection="umap")
    monkeypatch.setattr(embedding, "UMAP_PACKAGE", "numpy")
    assert absent_projections() == {}


def test_errors_name_what_is_wrong():
    array, domains, classes, groups = features(0.0)
    with pytest.raises(ConfigError, match="one of tsne, umap"):
        embed(array, domains, classes, groups, projection="pca")
    with pytest.raises(DataError):
        embed(array, domains[:-1], classes, groups)
    with pytest.raises(DataError, match="at least 6"):
        embed(array, domains, classes, groups, limit=4)
