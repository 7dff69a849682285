"""K-means, matching, Sinkhorn, PCA and the bank against naive versions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from methods.adversarial.bank import TokenBank
from methods.adversarial.kmeans import (
    POINTS_PER_CENTROID,
    SINKHORN_EPSILON,
    lloyd,
    match_centroids,
    principal_directions,
    sinkhorn_offsets,
    spherical_kmeans,
)
from tests.methods.adversarial.planted import (
    class_nmi,
    naive_sinkhorn,
    planted,
)


def test_kmeans_finds_planted_clusters_without_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    priors, fewest = (0.5, 0.3, 0.2), 3 * POINTS_PER_CENTROID
    points, labels = planted(0, priors, count=fewest)
    points = F.normalize(points, dim=1)
    found = spherical_kmeans(points, 3, seed=0)
    assignment = F.one_hot((points @ found.centroids.T).argmax(1), 3).float()
    assert class_nmi(assignment, labels) == pytest.approx(1)
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(3))
    shares = np.bincount(labels.numpy()) / fewest
    assert found.imbalance == pytest.approx(3 * (shares**2).sum(), rel=1e-5)
    assert found.splits == 0
    assert torch.equal(spherical_kmeans(points, 3, seed=0).centroids, found.centroids)
    assert capfd.readouterr() == ("", "")


def test_kmeans_counts_the_clusters_that_were_split() -> None:
    points = torch.eye(4)[torch.arange(200) % 2]  # two different points, four clusters
    assert spherical_kmeans(points, 4, seed=0).splits > 0


@pytest.mark.parametrize("count", [1, 3, 8, 32])
def test_matching_recovers_a_permutation(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    old = F.normalize(torch.randn(count, 16, generator=generator), dim=1)
    shuffled = torch.randperm(count, generator=generator)
    new = F.normalize(old[shuffled] + 0.02 * torch.randn(count, 16, generator=generator), dim=1)
    order = match_centroids(new, old)
    assert torch.equal(shuffled[order], torch.arange(count))


def test_matching_is_the_best_of_all_permutations() -> None:
    generator = torch.Generator().manual_seed(0)
    new, old = F.normalize(torch.randn(2, 5, 4, generator=generator), dim=2)
    best = max(
        itertools.permutations(range(5)), key=lambda rows: float((new[list(rows)] * old).sum())
    )
    assert match_centroids(new, old).tolist() == list(best)


def test_lloyd_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    points = F.normalize(torch.randn(50, 5, generator=generator), dim=1)
    centroids = F.normalize(torch.randn(4, 5, generator=generator), dim=1)
    centroids[3] = -points.mean(0) / points.mean(0).norm()
    expected = centroids.clone()
    for _ in range(2):
        owners = [int(np.argmax([float(p @ centroid) for centroid in expected])) for p in points]
        for k in range(4):
            members = [p for p, owner in zip(points, owners, strict=True) if owner == k]
            if members:
                mean = sum(members, torch.zeros(5)) / len(members)
                expected[k] = mean / mean.norm()
    torch.testing.assert_close(lloyd(points, centroids, 2), expected)


def test_principal_directions_are_those_of_pca() -> None:
    points, _ = planted(0, (0.5, 0.3, 0.2))
    found = principal_directions(points - points.mean(0), 2)
    expected = torch.from_numpy(PCA(2).fit(points.numpy()).components_.T)
    torch.testing.assert_close((found * expected).sum(0).abs(), torch.ones(2))
    torch.testing.assert_close(found.T @ found, torch.eye(2))


def test_a_batch_adds_its_share_of_both_domains_and_no_more() -> None:
    bank = TokenBank(capacity=10, share=4, channels=2, seed=0)
    marks = [torch.full((1, 2), value) for value in (1.0, -1.0)]
    for images, videos, expected in ((1000, 7, 4), (3, 1000, 7), (50, 50, 10), (50, 50, 10)):
        bank.add(marks[0].repeat(images, 1), marks[1].repeat(videos, 1))
        image, video = bank.tokens()
        assert len(bank) == 2 * expected
        assert len(image) == len(video) == expected
        assert (image > 0).all()
        assert (video < 0).all()


def test_the_bank_keeps_the_last_batches_and_draws_evenly() -> None:
    bank = TokenBank(capacity=30, share=10, channels=3, seed=0)
    for batch in range(7):
        # The batch is written in the angle, the token's place in the third entry.
        angle = 0.2 * batch
        tokens = torch.tensor([math.cos(angle), math.sin(angle), 0.0]).repeat(500, 1)
        tokens[:, 2] = torch.linspace(0, 1, 500)
        bank.add(tokens, tokens)
    image, _ = bank.tokens()
    batches = (torch.atan2(image[:, 1], image[:, 0]) / 0.2).round().int()
    assert torch.bincount(batches).tolist() == [0, 0, 0, 0, 10, 10, 10]
    places = image[:, 2] / image[:, :2].norm(dim=1)
    assert len(places.unique()) > 20
    assert 0.3 < float(places.mean()) < 0.7


def test_sinkhorn_offsets_give_the_naive_balanced_assignment() -> None:
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(200, 6, generator=generator) * 2 - 1
    cosines[:, 0] += 0.3
    balanced = ((cosines + sinkhorn_offsets(cosines)) / SINKHORN_EPSILON).softmax(1)
    torch.testing.assert_close(balanced.double(), naive_sinkhorn(cosines), rtol=1e-4, atol=1e-6)
    hard = F.one_hot(cosines.argmax(1), 6).float().mean(0)
    assert float(hard.max()) > 0.3
    assert balanced.mean(0).tolist() == pytest.approx([1 / 6] * 6, abs=0.04)
