"""Monitors against scikit-learn and naive versions; alarms at their thresholds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from methods.adversarial import monitors
from methods.adversarial.monitors import (
    ClusterHealth,
    DiscriminatorHealth,
    MonitorLog,
    alarms,
    cluster_health,
    normalised_mutual_information,
    participation_ratio,
)
from methods.adversarial.watches import AVERAGED_STEPS, AccuracyWatch, IdleWatch, LossWatch

COUNT = 5


def random_assignments(seed: int) -> tuple[Tensor, Tensor]:
    """One-hot rows of images (60) and videos (90); the fifth cluster has no video, one row in ten
    is rejected."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for count, clusters in ((60, COUNT), (90, COUNT - 1)):
        owners = torch.randint(clusters, (count,), generator=generator)
        accepted = torch.rand(count, generator=generator) > 0.1
        parts.append(F.one_hot(owners, COUNT).float() * accepted[:, None])
    return parts[0], parts[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40))
def test_nmi_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    first, second = (torch.tensor(row) for row in zip(*pairs, strict=True))
    contingency = F.one_hot(first, 4).double().T @ F.one_hot(second, 3).double()
    expected = normalized_mutual_info_score(first.numpy(), second.numpy())
    if len(set(first.tolist())) == 1 or len(set(second.tolist())) == 1:
        expected = 0.0  # nothing can be told; scikit-learn calls two single groups the same
    assert normalised_mutual_information(contingency) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_cluster_health_equals_naive_counting(seed: int) -> None:
    image, video = random_assignments(seed)
    labels = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(seed))
    labels[:5] = 255
    fewest = 13
    health = cluster_health(image, video, fewest, labels, churn=0.25)

    pairs = [(d, int(row.argmax())) for d, q in enumerate((image, video)) for row in q if row.any()]
    counts = np.zeros((2, COUNT))
    for domain, cluster in pairs:
        counts[domain, cluster] += 1
    np.testing.assert_allclose(health.occupancy, counts / counts.sum(1, keepdims=True))
    shares = (counts / counts.sum(1, keepdims=True)).mean(0)
    assert health.entropy == pytest.approx(-sum(p * math.log(p) for p in shares if p > 0))
    rows = counts / counts.sum(1, keepdims=True)  # of 60 images and 90 videos, each as a whole
    np.testing.assert_allclose(health.balance, rows.min(0) / rows.max(0))
    assert health.balance[4] == 0
    assert health.purity == pytest.approx(rows.max(0).sum() / 2)
    domains, clusters = zip(*pairs, strict=True)
    assert health.nmi_domain == pytest.approx(normalized_mutual_info_score(domains, clusters))
    known = [k for k in range(60) if labels[k] != 255 and image[k].any()]
    expected = normalized_mutual_info_score(labels[known], image[known].argmax(1))
    assert health.nmi_class == pytest.approx(expected)
    used = sum(counts[:, k].sum() for k in range(COUNT) if counts[:, k].min() >= fewest)
    assert 0 < used < len(pairs)
    assert health.skipped_share == pytest.approx(1 - used / 150)
    assert health.churn == 0.25

    named = health.monitors()
    assert named["clusters_occupancy_video_3"] == pytest.approx(counts[1, 3] / counts[1].sum())
    assert named["clusters_nmi_class"] == health.nmi_class
    assert len(named) == 6 + 3 * COUNT


def test_more_tokens_of_one_domain_are_no_impurity() -> None:
    """Clusters that both domains fill alike are mixed, whatever the domains' sizes."""
    image = torch.eye(2)[[0] * 20 + [1] * 10]
    health = cluster_health(image, image.repeat(5, 1), fewest=1)
    assert health.purity == pytest.approx(0.5)
    assert health.balance.tolist() == pytest.approx([1, 1])
    assert health.nmi_domain == pytest.approx(0, abs=1e-9)
    # Half of the videos in a cluster of their own: (1/2 + 1/2 + 1) / 2 of the tokens at most.
    video = torch.eye(3)[[0] * 50 + [2] * 50]
    apart = cluster_health(torch.eye(3)[[0] * 10 + [1] * 10], video, fewest=1)
    assert apart.purity == pytest.approx(0.75)
    assert apart.balance.tolist() == pytest.approx([1, 0, 0])


def test_soft_and_empty_assignments() -> None:
    half = torch.full((40, 2), 0.5)
    health = cluster_health(half, half, fewest=20)
    assert health.skipped_share == pytest.approx(0)
    assert health.nmi_domain == pytest.approx(0, abs=1e-9)
    assert health.purity == pytest.approx(0.5)
    assert health.entropy == pytest.approx(math.log(2))
    assert health.nmi_class is None
    # Clipped rows sum to less than 1, but their tokens still count as one each.
    clipped = cluster_health(half * 0.8, half * 0.8, fewest=16)
    assert clipped.skipped_share == pytest.approx(0)
    nothing = cluster_health(half * 0, half * 0, fewest=1)
    assert nothing.skipped_share == 1
    assert nothing.nmi_domain == 0
    assert torch.equal(nothing.occupancy, torch.zeros(2, 2).double())


# --------------------------------------------------------------------------- alarms

WELL = ClusterHealth(
    occupancy=torch.full((2, 2), 0.5),
    entropy=math.log(2),
    balance=torch.ones(2),
    purity=0.5,
    nmi_domain=monitors.LARGEST_DOMAIN_NMI,
    nmi_class=0.8,
    skipped_share=monitors.LARGEST_SKIPPED_SHARE,
    churn=monitors.LARGEST_CHURN,
)
OPPONENT = DiscriminatorHealth(0.7, 0.7, 999, 10.0, 10.0, 8.0, 8.0, 0.9, 0.7)
LOST = dataclasses.replace(OPPONENT, accuracy_image=0.54, accuracy_video=0.46)


def test_no_alarm_at_the_limits() -> None:
    assert alarms(WELL, OPPONENT) == []
    assert alarms(dataclasses.replace(WELL, churn=math.nan)) == []
    assert alarms() == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nmi_domain": 0.301}, "follow the domain"),
        ({"skipped_share": 0.51}, "51% of the tokens are rejected"),
        ({"churn": 0.51}, "51% of the tokens changed cluster"),
    ],
)
def test_cluster_alarms(change: dict[str, float], sentence: str) -> None:
    found = alarms(dataclasses.replace(WELL, **change))  # type: ignore[arg-type]
    assert len(found) == 1
    assert sentence in found[0]


@pytest.mark.parametrize(
    ("health", "sentence"),
    [
        (dataclasses.replace(OPPONENT, won_steps=1000), "has won"),
        (dataclasses.replace(LOST, feature_norm=0.9), "norm fell from 10 to 0.9"),
        (dataclasses.replace(LOST, participation=0.7), "participation ratio fell from 8 to 0.7"),
        # A discriminator that guesses is what one wants, unless features collapsed.
        (LOST, None),
        (dataclasses.replace(LOST, feature_norm=1.0, participation=0.8), None),
        # It may guess in the end, but not all the time.
        (
            dataclasses.replace(LOST, best_accuracy=0.54, learned_for=0.5),
            "never told the domains apart",
        ),
        (dataclasses.replace(LOST, best_accuracy=0.54, learned_for=0.49), None),
        (dataclasses.replace(LOST, best_accuracy=0.56, learned_for=0.5), None),
        # Features that shrink while it still sees the domains are no collapse of its game.
        (dataclasses.replace(OPPONENT, feature_norm=0.5), None),
        (dataclasses.replace(LOST, accuracy_video=0.6, feature_norm=0.5), None),
        (dataclasses.replace(LOST, accuracy_video=math.nan, feature_norm=0.5), None),
    ],
)
def test_discriminator_alarms(health: DiscriminatorHealth, sentence: str | None) -> None:
    found = alarms(discriminator=health)
    assert len(found) == (sentence is not None)
    assert sentence is None or sentence in found[0]


def test_every_alarm_that_holds_is_given() -> None:
    """None of a discriminator's three hides another."""
    blind = dataclasses.replace(LOST, participation=0.7, best_accuracy=0.54)
    found = alarms(discriminator=blind)
    assert len(found) == 2
    assert "collapsed since the adversarial loss set in" in found[0]
    assert "never told the domains apart" in found[1]
    assert len(alarms(discriminator=dataclasses.replace(blind, won_steps=1000))) == 3


@pytest.mark.parametrize(
    ("health", "collapsed"),
    [
        (OPPONENT, False),
        (LOST, False),
        (dataclasses.replace(OPPONENT, won_steps=1000), True),
        (dataclasses.replace(LOST, participation=0.7), True),
        (dataclasses.replace(OPPONENT, participation=0.7), False),
        # Before the adversarial loss sets in there is nothing to compare with.
        (dataclasses.replace(LOST, participation=0.7, first_participation=math.nan), False),
    ],
)
def test_what_has_collapsed(health: DiscriminatorHealth, collapsed: bool) -> None:
    assert health.collapsed == collapsed


def test_clusters_that_never_come_raise_one() -> None:
    assert alarms(unclustered=monitors.CLUSTER_PATIENCE - 0.01) == []
    (found,) = alarms(unclustered=monitors.CLUSTER_PATIENCE)
    assert found.startswith("There are still no clusters after 50% of the game")


def test_idle_steps_are_counted_from_the_games_start() -> None:
    watch = IdleWatch()
    for number in range(10):
        # No clusters before the seventh step, and one step without a valid one after that.
        watch.update(number < 6 or number == 8, number >= 6, start=0.2, spent=number / 10)
        waited = max(0.0, (number / 10 - 0.2) / 0.8) if number < 6 else 0.0
        assert float(watch.unclustered) == pytest.approx(waited)
        if number < 2:
            assert int(watch.steps) == 0
            assert not watch.idle
    assert (int(watch.steps), int(watch.skipped)) == (8, 5)
    assert watch.idle
    watch.update(False, True, 0.2, 0.95)
    assert watch.idle, "five of nine"
    resumed = IdleWatch()
    resumed.load_state_dict(watch.state_dict())
    resumed.update(False, True, 0.2, 0.97)
    assert not resumed.idle, "five of ten is half, not more"


def test_domain_pure_clusters_raise_both_alarms_from_the_start() -> None:
    image, video = torch.eye(2)[[0] * 50], torch.eye(2)[[1] * 50]
    health = cluster_health(image, video, fewest=4)
    assert health.nmi_domain == pytest.approx(1)
    assert health.purity == 1
    assert len(alarms(health)) == 2


def test_the_watch_counts_steps_in_a_row() -> None:
    watch = LossWatch()
    assert [watch.update(loss) for loss in (0.5, 0.019, 0.0, math.nan, 0.01)] == [0, 1, 2, 2, 3]
    resumed = LossWatch()
    resumed.load_state_dict(watch.state_dict())
    assert resumed.update(0.0) == 4
    assert resumed.update(0.02) == 0


def test_the_average_accuracy_forgets_and_its_best_does_not() -> None:
    watch = AccuracyWatch()
    assert watch.learned_for == 0
    naive, best = 0.5, 0.5
    for number, accuracy in enumerate([math.nan, *[0.8] * 30, *[0.4] * 60]):
        watch.update(accuracy, number / 100)
        if not math.isnan(accuracy):
            naive = 0.95 * naive + 0.05 * accuracy
            best = max(best, naive)
        learned = 0.0 if number < AVERAGED_STEPS else number / 100 - 0.01
        assert watch.learned_for == pytest.approx(learned)
    assert float(watch.average) == pytest.approx(naive, rel=1e-4)
    assert float(watch.best) == pytest.approx(best, rel=1e-4)
    assert naive < 0.45
    assert best > 0.7
    resumed = AccuracyWatch()
    resumed.load_state_dict(watch.state_dict())
    assert resumed.learned_for == watch.learned_for


@pytest.mark.parametrize("seed", range(5))
def test_the_noise_of_batches_tells_nothing_apart(seed: int) -> None:
    """Of 400 guesses that scatter as those on 128 tokens of each domain do, some are above 0.55."""
    accuracies = np.random.default_rng(seed).normal(0.5, 0.03, 400)
    watch = AccuracyWatch()
    for number, accuracy in enumerate(accuracies.tolist()):
        watch.update(accuracy, number / 400)
    assert accuracies.max() > 0.55
    assert float(watch.best) < 0.53


# --------------------------------------------------------------------------- features


def test_participation_ratio() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 20, generator=generator) * torch.linspace(0.1, 2, 20) + 7
    variances = np.linalg.eigvalsh(np.cov(features.double().numpy().T))
    expected = variances.sum() ** 2 / (variances**2).sum()
    assert participation_ratio(features) == pytest.approx(expected)
    wide = features.T.contiguous()
    variances = np.linalg.eigvalsh(np.cov(wide.double().numpy().T))
    assert participation_ratio(wide) == pytest.approx(
        variances.sum() ** 2 / (variances**2).sum(), rel=1e-6
    )
    assert participation_ratio(torch.randn(5000, 8, generator=generator)) == pytest.approx(8, 0.02)
    line = torch.randn(50, 1, generator=generator) @ torch.randn(1, 8, generator=generator)
    assert participation_ratio(line) == pytest.approx(1, rel=1e-4)
    assert participation_ratio(torch.ones(9, 4)) == 0


# --------------------------------------------------------------------------- the log


def test_the_log_appends_and_resumes(tmp_path: Path) -> None:
    path = tmp_path / "monitors.csv"
    log = MonitorLog(path)
    log.write(0, {"loss": 0.5, "accuracy": math.nan}, tap="embed")
    log.write(10, {"loss": 0.25}, tap="embed")
    log.write(20, {"loss": 0.125, "spent": 1.0})
    rows = pd.read_csv(path, keep_default_na=False)
    assert list(rows.columns) == ["iteration", "tap", "monitor", "value"]
    assert rows.to_numpy().tolist() == [
        [0, "embed", "loss", 0.5],
        [10, "embed", "loss", 0.25],
        [20, "", "loss", 0.125],
        [20, "", "spent", 1.0],
    ]
    with path.open("a") as file:
        file.write("30,embed,lo")  # killed while writing
    resumed = MonitorLog(path, resumed_at=10)
    resumed.write(20, {"loss": 0.2}, tap="embed")
    values = pd.read_csv(path, keep_default_na=False)["value"].tolist()
    assert values == [0.5, 0.25, 0.2]
    MonitorLog(path)
    assert len(pd.read_csv(path)) == 0
