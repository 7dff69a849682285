"""Clusters: centring, ways without prototypes, rules of assignment, time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import ConfigError, MethodError
from methods.adversarial import prototypes
from methods.adversarial.clusters import PARTITIONS, Clusters, TokenContext
from methods.adversarial.kmeans import (
    POINTS_PER_CENTROID,
)
from tests.methods.adversarial.planted import (
    CHANNELS,
    IMAGE,
    VIDEO,
    class_nmi,
    fitted,
    planted,
    settings,
)

# --------------------------------------------------------------------------- centring


@pytest.mark.parametrize("dimensions", [None, 3])
def test_only_centring_per_domain_destroys_clusters_under_label_shift(
    dimensions: int | None,
) -> None:
    frequencies = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)
    image, image_labels = planted(1, frequencies[0], 600, noise=0.25)
    video, video_labels = planted(2, frequencies[1], 600, shift=0.3, noise=0.25)
    found = {}
    for center in ("none", "joint", "per_domain"):
        clusters = Clusters(
            settings(center=center, dimensions=dimensions, bank=1200), CHANNELS, seed=0
        )
        clusters.collect(image, video)
        clusters.refresh()
        both = torch.cat([clusters.assign(image, IMAGE), clusters.assign(video, VIDEO)])
        found[center] = class_nmi(both, torch.cat([image_labels, video_labels]))
    assert found["none"] > 0.9
    assert found["joint"] > 0.9
    assert found["per_domain"] < 0.6


def test_pca_and_means_are_fitted_once() -> None:
    clusters = fitted(settings(center="joint", dimensions=4))
    before = {name: value.clone() for name, value in clusters.state_dict().items()}
    clusters.collect(planted(3)[0].roll(1, 1), planted(4)[0].roll(1, 1))
    clusters.refresh()
    after = clusters.state_dict()
    for name in ("partition.projection.means", "partition.projection.directions"):
        assert torch.equal(before[name], after[name])
    assert not torch.equal(before["partition.centroids"], after["partition.centroids"])


def test_one_batch_never_fills_the_bank_of_a_long_interval() -> None:
    clusters = Clusters(settings(refresh=100, bank=6000), CHANNELS, seed=0)
    image, video = planted(1, count=5000)[0], planted(2, count=5000)[0]
    steps = 0
    while not clusters.due(1):
        clusters.collect(image, video)
        steps += 1
    assert steps == 25  # a quarter of the bank is 750 tokens of each domain, 30 a step


# --------------------------------------------------------------------------- without prototypes


def test_random_bins_are_fixed_even_and_meaningless() -> None:
    clusters = Clusters(settings(how="random", count=8), CHANNELS, seed=0)
    tokens, labels = planted(0, count=4000)
    bins = clusters.assign(tokens, IMAGE)
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clusters.assign(tokens[order], VIDEO), bins[order])
    assert not torch.equal(
        Clusters(settings(how="random", count=8), CHANNELS, seed=1).assign(tokens, IMAGE), bins
    )
    assert bins.mean(0).tolist() == pytest.approx([1 / 8] * 8, abs=0.02)
    assert class_nmi(bins, labels) < 0.01
    nearly = clusters.assign(tokens + 1e-4, IMAGE)  # close tokens fall anywhere
    assert float((nearly * bins).sum(1).mean()) == pytest.approx(1 / 8, abs=0.03)


def test_predicted_classes() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9], [0.4, 0.35, 0.25]])
    tokens, labels = torch.zeros(3, CHANNELS), torch.tensor([1, 255, -1])
    context = TokenContext(1, labels, probabilities)
    chosen = settings(how="prediction", confidence=0.5)
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 0]])
    assert torch.equal(Clusters(chosen, CHANNELS, 0).assign(tokens, context), expected)
    soft = Clusters(chosen.model_copy(update={"assignment": "soft"}), CHANNELS, 0)
    expected = probabilities * torch.tensor([[1], [1], [0]])
    assert torch.equal(soft.assign(tokens, context), expected)
    images = TokenContext(0, labels, probabilities)
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 0, 0]])
    assert torch.equal(Clusters(chosen, CHANNELS, 0).assign(tokens, images), expected)
    predicted = Clusters(
        chosen.model_copy(update={"image_source": "predictions"}), CHANNELS, 0
    ).assign(tokens, images)
    assert torch.equal(predicted, Clusters(chosen, CHANNELS, 0).assign(tokens, context))


def test_true_classes() -> None:
    clusters = Clusters(settings(how="truth"), CHANNELS, 0)
    assigned = clusters.assign(
        torch.zeros(4, CHANNELS), TokenContext(1, torch.tensor([2, 0, 255, 3], dtype=torch.uint8))
    )
    assert assigned.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("how", "context"),
    [
        ("truth", TokenContext(1)),
        ("prediction", TokenContext(0)),
        ("prediction", TokenContext(1)),
        ("prediction", TokenContext(1, None, torch.ones(2, 5) / 5)),
    ],
)
def test_what_is_missing_is_named(how: str, context: TokenContext) -> None:
    with pytest.raises(ConfigError, match="clusters"):
        Clusters(settings(how=how), CHANNELS, 0).assign(torch.zeros(2, CHANNELS), context)


# --------------------------------------------------------------------------- assignment


def test_rules_of_assignment() -> None:
    clusters = fitted(settings())
    partition = clusters.partition
    assert isinstance(partition, prototypes.Prototypes)
    partition.centroids.copy_(torch.eye(3, CHANNELS))
    tokens = torch.tensor([[2.0, 0, 0], [1, 1.01, 0], [1, 1.2, 0]])
    tokens = F.pad(tokens, (0, CHANNELS - 3))

    def assign(**changes: Any) -> Tensor:
        clusters.settings = partition.settings = settings(**changes)
        return clusters.assign(tokens, IMAGE)

    hard = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    assert torch.equal(assign(assignment="hard"), hard)
    rejected = hard * torch.tensor([[1], [0], [1]])
    assert torch.equal(assign(assignment="margin", margin=0.05), rejected)
    cosines = F.normalize(tokens, dim=1)[:, :3]
    soft = (cosines / 0.2).exp() / (cosines / 0.2).exp().sum(1, keepdim=True)
    torch.testing.assert_close(assign(assignment="soft", temperature=0.2), soft)
    clipped = assign(assignment="soft", temperature=0.2, clip=0.5)
    torch.testing.assert_close(clipped, soft.clamp(max=0.5))
    assert float(soft.max()) > 0.5


def test_one_cluster_takes_everything() -> None:
    for rule in ("hard", "soft", "margin"):
        clusters = fitted(settings(count=1, assignment=rule))
        assert torch.equal(clusters.assign(planted(3)[0], VIDEO), torch.ones(300, 1))


@pytest.mark.parametrize("how", list(PARTITIONS))
@pytest.mark.parametrize("rule", ["hard", "soft", "margin"])
def test_nothing_passes_a_gradient_and_half_precision_will_do(how: str, rule: str) -> None:
    chosen = settings(how=how, assignment=rule, margin=0.0)
    clusters = Clusters(chosen, CHANNELS, 0)
    image, labels = planted(1)
    video = planted(2)[0]
    probabilities = F.one_hot(labels, 3).float().requires_grad_()
    image.requires_grad_()
    context = TokenContext(0, labels, probabilities)
    with torch.autocast("cpu", torch.bfloat16):
        clusters.collect(image.bfloat16(), video.bfloat16())
        if clusters.due(1):
            clusters.refresh()
        clusters.collect(image.bfloat16(), video.bfloat16())
        assigned = clusters.assign(image.bfloat16(), context)
    assert not assigned.requires_grad
    assert assigned.dtype == torch.float32
    assert assigned.shape == (300, 3)
    torch.testing.assert_close(assigned.sum(1), torch.ones(300))
    assert not any(value.requires_grad for value in clusters.state_dict().values())
    assert not list(clusters.parameters())


# --------------------------------------------------------------------------- time


def test_refreshes_are_due_when_they_should() -> None:
    clusters = Clusters(settings(refresh=4, bank=240), CHANNELS, seed=0)
    assert not clusters.ready
    tokens = planted(1)[0]
    assert torch.equal(clusters.assign(tokens, IMAGE), torch.zeros(300, 3))
    with pytest.raises(MethodError, match="clusters"):
        clusters.refresh()
    due = []
    for step in range(13):
        clusters.collect(tokens, planted(2)[0])
        if clusters.due(step):
            clusters.refresh()
            due.append(step)
    # 117 tokens are 39 per cluster; each step brings 30 of each domain.
    assert due == [1, 4, 8, 12]
    assert clusters.partition.ready
    fixed = Clusters(settings(how="random", refresh=4), CHANNELS, seed=0)
    assert [step for step in range(9) if fixed.due(step)] == [4, 8]
    report = fixed.refresh()
    assert report.copied == ()
    assert math.isnan(report.churn)


@pytest.mark.parametrize("how", list(PARTITIONS))
def test_a_resumed_training_continues_with_its_clusters(how: str) -> None:
    chosen = settings(how=how, dimensions=4, center="per_domain", refresh=3, bank=400)

    def play(clusters: Clusters, steps: range) -> Tensor:
        for step in steps:
            image, labels = planted(step, shift=0.1 * step)
            video = planted(step + 50)[0]
            clusters.collect(image, video)
            if clusters.due(step):
                clusters.refresh()
        probabilities = F.one_hot(labels, 3).float()
        return clusters.assign(video, TokenContext(1, labels, probabilities))

    straight = Clusters(chosen, CHANNELS, 5)
    play(straight, range(8))
    resumed = Clusters(chosen, CHANNELS, 5)
    resumed.load_state_dict({k: v.clone() for k, v in straight.state_dict().items()})
    assert torch.equal(play(straight, range(8, 20)), play(resumed, range(8, 20)))
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"clusters\.bank"):
        Clusters(settings(count=16, bank=16 * POINTS_PER_CENTROID - 1), CHANNELS, 0)
    with pytest.raises(ConfigError, match=r"clusters\.count"):
        Clusters(settings(how="batch", count=9), CHANNELS, 0)
