"""Prototypes over time: numbering, churn, moving averages, deaths, balance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from methods.adversarial import prototypes
from methods.adversarial.adversary_settings import DiscriminatorSettings
from methods.adversarial.discriminators import build_discriminator
from methods.adversarial.kmeans import (
    lloyd,
)
from tests.methods.adversarial.planted import (
    CHANNELS,
    IMAGE,
    VIDEO,
    class_nmi,
    fitted,
    naive_sinkhorn,
    planted,
    settings,
)


def test_matched_clusters_keep_their_numbers_when_features_drift() -> None:
    clusters = fitted(settings())
    before = clusters.assign(planted(1)[0], IMAGE)
    churns = []
    for step in range(1, 6):
        turn = torch.eye(CHANNELS)
        turn[0, CHANNELS - 2] = 0.1 * step  # the first direction wanders off
        clusters.collect(planted(1)[0] @ turn, planted(2)[0] @ turn)
        churns.append(clusters.refresh().churn)
    assert churns == [0.0] * 5
    assert torch.equal(clusters.assign(planted(1)[0] @ turn, IMAGE), before)


def test_unmatched_clusters_do_not() -> None:
    clusters = fitted(settings(match=False))
    assert max(clusters.refresh().churn for _ in range(6)) > 0.5


def test_churn_counts_tokens_that_changed_cluster() -> None:
    clusters = fitted(settings())
    partition = clusters.partition
    assert isinstance(partition, prototypes.Prototypes)
    image, video = partition.bank.tokens()
    points = torch.cat([image, video])
    partition.previous.copy_(partition.centroids[[1, 0, 2]])
    before = [int((partition.previous @ point).argmax()) for point in points]
    churn = clusters.refresh().churn
    after = [int((partition.centroids @ point).argmax()) for point in points]
    naive = sum(a != b for a, b in zip(before, after, strict=True)) / len(points)
    assert 0.5 < churn < 0.9
    assert churn == pytest.approx(naive)


def test_moving_prototypes_equal_a_loop_and_keep_unit_length() -> None:
    clusters = fitted(settings(how="ema", decay=0.9))
    partition = clusters.partition
    assert isinstance(partition, prototypes.MovingPrototypes)
    expected = partition.centroids.clone()
    for seed in range(3):
        image, video = planted(seed, shift=0.5)[0], planted(seed + 9, shift=0.5)[0]
        clusters.collect(image, video)
        points = F.normalize(torch.cat([image, video]), dim=1)
        owners = (points @ expected.T).argmax(1)
        means = torch.stack([F.normalize(points[owners == k].mean(0), dim=0) for k in range(3)])
        expected = F.normalize(0.9 * expected + 0.1 * means, dim=1)
    torch.testing.assert_close(partition.centroids, expected)
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(3))


def test_a_dead_prototype_becomes_half_of_the_largest_with_its_discriminator() -> None:
    clusters = fitted(settings(how="ema", refresh=2, decay=0.5))
    partition = clusters.partition
    assert isinstance(partition, prototypes.MovingPrototypes)
    image, video = planted(1, (0.7, 0.3, 0.0))[0], planted(2, (0.7, 0.3, 0.0))[0]
    of_class = [
        int(clusters.assign(3 * torch.eye(CHANNELS)[[c]], IMAGE).argmax()) for c in range(3)
    ]
    steps = 0
    while not clusters.due(1):
        clusters.collect(image, video)
        steps += 1
    # The share of the third falls below 0.1 / 3 in four halvings; the fourth step starves first.
    assert steps == 3 + prototypes.DEAD_STEPS
    report = clusters.refresh()
    assert report.copied == ((of_class[0], of_class[2]),)
    assert not clusters.due(1)
    source, target = report.copied[0]
    torch.testing.assert_close(partition.centroids.norm(dim=1), torch.ones(3))
    parted = float((partition.centroids[source] - partition.centroids[target]).norm())
    assert parted == pytest.approx(2 * prototypes.SPLIT_PERTURBATION, rel=1e-2)
    assert float(partition.mass.sum()) == pytest.approx(1, abs=1e-3)
    occupied = clusters.assign(torch.cat([image, video]), IMAGE).sum(0)
    assert (occupied > 0).all()

    discriminator = build_discriminator(
        DiscriminatorSettings(shared_trunk=False, dropout=0), CHANNELS, 3, output_tap=False
    )
    before = discriminator(image)
    discriminator.copy_cluster(source, target)
    after = discriminator(image)
    torch.testing.assert_close(after[:, target], before[:, source])
    untouched = [k for k in range(3) if k != target]
    torch.testing.assert_close(after[:, untouched], before[:, untouched])


def test_batch_clusters_are_lloyds_from_the_moving_prototypes() -> None:
    clusters = fitted(settings(how="batch", decay=0.99))
    partition = clusters.partition
    assert isinstance(partition, prototypes.BatchPrototypes)
    start = partition.centroids.clone()
    image, video = (planted(seed, shift=1.0)[0].roll(1, 1) for seed in (5, 6))
    clusters.collect(image, video)
    local = lloyd(F.normalize(torch.cat([image, video]), dim=1), start)
    torch.testing.assert_close(partition.local, local)
    expected = (F.normalize(image, dim=1) @ local.T).argmax(1)
    assert torch.equal(clusters.assign(image, IMAGE).argmax(1), expected)
    assert not torch.equal(expected, (F.normalize(image, dim=1) @ start.T).argmax(1))


def test_sinkhorn_balances_both_domains_together_not_each() -> None:
    clusters = fitted(settings(how="sinkhorn", assignment="soft"))
    partition = clusters.partition
    assert isinstance(partition, prototypes.SinkhornPrototypes)
    before = partition.centroids.clone()
    frequencies = (0.6, 0.3, 0.1), (0.1, 0.3, 0.6)
    image, video = planted(5, frequencies[0])[0], planted(6, frequencies[1])[0]
    clusters.collect(image, video)
    partition.centroids.copy_(before)  # as they were when the batch was balanced
    both = torch.cat([clusters.assign(image, IMAGE), clusters.assign(video, VIDEO)])
    points = F.normalize(torch.cat([image, video]), dim=1)
    expected = naive_sinkhorn(points @ before.T)
    torch.testing.assert_close(both.double(), expected, rtol=1e-3, atol=1e-5)
    assert both[:300].mean(0).max() > 0.5  # images alone are not balanced


@pytest.mark.parametrize("how", ["kmeans_epoch", "ema", "batch", "sinkhorn"])
def test_all_prototypes_find_planted_clusters(how: str) -> None:
    clusters = fitted(settings(how=how))
    for seed in range(5):
        clusters.collect(planted(seed)[0], planted(seed + 10)[0])
    tokens, labels = planted(99)
    assert class_nmi(clusters.assign(tokens, VIDEO), labels) > 0.99
