"""Domain losses against loops over clusters and positions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import MethodError
from methods.adversarial.losses import (
    ClusterWeights,
    Criterion,
    Weighting,
    cluster_weights,
    clustered_mean,
    confounding_loss,
    discriminator_loss,
    domain_losses,
    soften_targets,
)

WEIGHTINGS: tuple[Weighting, ...] = ("min", "uniform", "mass", "sqrt")
CRITERIA: tuple[Criterion, ...] = ("cross_entropy", "least_squares", "joint")


def random_assignment(
    generator: np.random.Generator, tokens: int, clusters: int, soft: bool, rejected: float = 0.2
) -> Tensor:
    scores = generator.normal(size=(tokens, clusters)) * 3
    if soft:
        q = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    else:
        q = np.eye(clusters)[scores.argmax(1)]
    q[generator.random(tokens) < rejected] = 0
    return torch.from_numpy(q).float()


def naive_losses(
    row: NDArray[np.float64], cluster: int, criterion: Criterion
) -> tuple[float, float]:
    """Cost of calling one position image, and video, as seen from one cluster."""
    if criterion == "joint":
        clusters = len(row) // 2
        total = math.log(sum(math.exp(u) for u in row))
        return total - row[cluster], total - row[clusters + cluster]
    u = row[cluster] if len(row) > 1 else row[0]
    if criterion == "least_squares":
        return u**2, (u - 1) ** 2
    return math.log1p(math.exp(u)), math.log1p(math.exp(-u))


def naive_weights(
    image: NDArray[np.float64], video: NDArray[np.float64], weighting: Weighting, fewest: float
) -> list[float]:
    raw = []
    for k in range(image.shape[1]):
        n_image, n_video = image[:, k].sum(), video[:, k].sum()
        if min(n_image, n_video) < fewest or min(n_image, n_video) == 0:
            raw.append(0.0)
            continue
        s_image, s_video = n_image / image.sum(), n_video / video.sum()
        mean = (s_image + s_video) / 2
        raw.append(
            {"min": min(s_image, s_video), "uniform": 1.0, "mass": mean, "sqrt": mean**0.5}[
                weighting
            ]
        )
    return [w / sum(raw) if sum(raw) else 0.0 for w in raw]


def naive_domain_mean(
    logits: NDArray[np.float64],
    assignment: NDArray[np.float64],
    weights: list[float],
    target: float,
    criterion: Criterion,
    clip: float,
) -> float:
    total = 0.0
    for k, weight in enumerate(weights):
        if weight == 0:
            continue
        cluster_sum = 0.0
        for row, q in zip(logits, assignment[:, k], strict=True):
            as_image, as_video = naive_losses(row, k, criterion)
            cluster_sum += min(q, clip) * ((1 - target) * as_image + target * as_video)
        total += weight * cluster_sum / assignment[:, k].sum()
    return total


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    return {
        "seed": draw(st.integers(0, 10_000)),
        "clusters": draw(st.integers(1, 5)),
        "image_tokens": draw(st.integers(1, 12)),
        "video_tokens": draw(st.integers(1, 12)),
        "criterion": draw(st.sampled_from(CRITERIA)),
        "weighting": draw(st.sampled_from(WEIGHTINGS)),
        "soft": draw(st.booleans()),
        "per_cluster": draw(st.booleans()),
        "fewest": draw(st.sampled_from([0.0, 1.0, 2.5])),
        "smoothing": draw(st.sampled_from([0.0, 0.1])),
        "clip": draw(st.sampled_from([1.0, 0.9])),
    }


@given(cases())
@settings(max_examples=120, deadline=None)
def test_discriminator_loss_is_the_loop_over_clusters(case: dict[str, object]) -> None:
    generator = np.random.default_rng(case["seed"])
    clusters, criterion = case["clusters"], case["criterion"]
    outputs = 2 * clusters if criterion == "joint" else clusters if case["per_cluster"] else 1
    logits = [
        torch.from_numpy(generator.normal(size=(case[f"{d}_tokens"], outputs))).float()
        for d in ("image", "video")
    ]
    shares = [
        random_assignment(generator, case[f"{d}_tokens"], clusters, case["soft"])
        for d in ("image", "video")
    ]
    balance = cluster_weights(shares[0].sum(0), shares[1].sum(0), case["weighting"], case["fewest"])
    term = discriminator_loss(*logits, *shares, balance, criterion, case["smoothing"], case["clip"])

    u = [x.double().numpy() for x in logits]
    q = [x.double().numpy() for x in shares]
    weights = naive_weights(q[0], q[1], case["weighting"], case["fewest"])
    assert balance.weights.tolist() == pytest.approx(weights, abs=1e-6)
    smoothing = case["smoothing"]
    halves = [
        naive_domain_mean(u[d], q[d], weights, target, criterion, case["clip"])
        for d, target in ((0, smoothing), (1, 1 - smoothing))
    ]
    assert term.value.item() == pytest.approx(sum(halves) / 2, rel=1e-4, abs=1e-6)
    assert term.skipped == (sum(weights) == 0)
    for domain, target in ((0, 1.0), (1, 0.0), (1, 0.5)):
        value = confounding_loss(
            logits[domain], shares[domain], balance, target, criterion, case["clip"]
        )
        expected = naive_domain_mean(u[domain], q[domain], weights, target, criterion, case["clip"])
        assert value.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)

    for domain, accuracy in ((0, term.image_accuracy), (1, term.video_accuracy)):
        right = judged = 0.0
        for k, weight in enumerate(weights):
            for row, share in zip(u[domain], q[domain][:, k], strict=True):
                losses = naive_losses(row, k, criterion)
                right += share * (losses[domain] < losses[1 - domain]) * (weight > 0)
                judged += share * (weight > 0)
        expected = right / judged if judged else math.nan
        assert accuracy.item() == pytest.approx(expected, abs=1e-5, nan_ok=True)
    for k, weight in enumerate(weights):
        assert math.isnan(term.cluster_accuracy[k]) == (weight == 0)


def test_one_cluster_is_the_balanced_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    image, video = torch.randn(7, 1), torch.randn(31, 1)
    expected = 0.5 * (
        F.binary_cross_entropy_with_logits(image, torch.zeros(7, 1))
        + F.binary_cross_entropy_with_logits(video, torch.ones(31, 1))
    )
    for weighting in WEIGHTINGS:
        first = torch.eye(3)[0]
        shares = first.expand(7, 3), first.expand(31, 3)
        balance = cluster_weights(shares[0].sum(0), shares[1].sum(0), weighting, 2)
        term = discriminator_loss(image, video, *shares, balance)
        torch.testing.assert_close(term.value, expected)
    torch.testing.assert_close(discriminator_loss(image, video, None, None).value, expected)


def test_least_squares_is_the_squared_distance_to_the_domains_numbers() -> None:
    torch.manual_seed(0)
    image, video = torch.randn(5, 1), torch.randn(9, 1)
    expected = 0.5 * (image.square().mean() + F.mse_loss(video, torch.ones(9, 1)))
    term = discriminator_loss(image, video, None, None, criterion="least_squares")
    torch.testing.assert_close(term.value, expected)
    # Called video from the middle between both targets on.
    term = discriminator_loss(
        torch.tensor([[0.4], [0.6]]), torch.tensor([[0.7]]), None, None, criterion="least_squares"
    )
    assert (term.image_accuracy, term.video_accuracy) == (0.5, 1.0)


def test_a_blind_discriminator_scores_ln_2_and_is_half_right() -> None:
    shares = torch.eye(2)[torch.tensor([0, 1, 1, 0])]
    term = discriminator_loss(torch.zeros(4, 2), torch.zeros(4, 2), shares, shares)
    assert term.value.item() == pytest.approx(math.log(2))
    assert (term.image_accuracy, term.video_accuracy) == (0.5, 0.5)
    assert term.cluster_accuracy.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("soft", [False, True])
def test_duplicating_a_domain_and_renaming_clusters_change_nothing(
    weighting: Weighting, soft: bool
) -> None:
    generator = np.random.default_rng(1)
    torch.manual_seed(1)
    image, video = torch.randn(40, 4), torch.randn(30, 4)
    a = random_assignment(generator, 40, 4, soft)
    b = random_assignment(generator, 30, 4, soft)

    def value(image: Tensor, video: Tensor, a: Tensor, b: Tensor) -> Tensor:
        balance = cluster_weights(a.sum(0), b.sum(0), weighting, 1)
        return discriminator_loss(image, video, a, b, balance).value

    reference = value(image, video, a, b)
    doubled = value(image, torch.cat([video] * 3), a, torch.cat([b] * 3))
    torch.testing.assert_close(doubled, reference)
    order = torch.tensor([2, 0, 3, 1])
    renamed = value(image[:, order], video[:, order], a[:, order], b[:, order])
    torch.testing.assert_close(renamed, reference)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_an_invalid_cluster_has_no_loss_and_no_gradient(criterion: Criterion) -> None:
    torch.manual_seed(0)
    outputs = 6 if criterion == "joint" else 3
    image = torch.randn(6, outputs, requires_grad=True)
    video = torch.randn(8, outputs, requires_grad=True)
    # Cluster 1 has images only, cluster 2 nobody.
    a = torch.eye(3)[torch.tensor([0, 0, 0, 1, 1, 1])]
    b = torch.eye(3)[torch.zeros(8, dtype=torch.long)]
    term = discriminator_loss(image, video, a, b, criterion=criterion)
    term.value.backward()
    assert image.grad is not None
    assert (image.grad[3:] == 0).all()
    assert (image.grad[:3] != 0).any()
    rest = discriminator_loss(image[:3], video, a[:3], b, criterion=criterion)
    torch.testing.assert_close(rest.value, term.value)
    assert not term.skipped
    assert torch.isnan(term.cluster_accuracy).tolist() == [False, True, True]


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("rejected", [False, True])
def test_without_a_valid_cluster_all_is_exactly_zero(criterion: Criterion, rejected: bool) -> None:
    outputs = 4 if criterion == "joint" else 2
    image = (100 * torch.randn(5, outputs)).requires_grad_()
    video = (100 * torch.randn(5, outputs)).requires_grad_()
    a = torch.tensor([[1.0, 0.0]]).expand(5, 2) * (not rejected)
    b = torch.tensor([[0.0, 1.0]]).expand(5, 2) * (not rejected)
    term = discriminator_loss(image, video, a, b, criterion=criterion)
    balance = cluster_weights(a.sum(0), b.sum(0), "sqrt", 0)
    moved = confounding_loss(video, b, balance, 0.0, criterion)
    (term.value + moved).backward()
    assert term.skipped
    assert term.value.item() == 0
    assert moved.item() == 0
    for logits in (image, video):
        assert logits.grad is not None
        assert (logits.grad == 0).all()


def test_weights_of_clusters_by_hand() -> None:
    image, video = torch.tensor([60.0, 30.0, 10.0, 0.0]), torch.tensor([20.0, 10.0, 5.0, 15.0])
    # Shares .6 .3 .1 0 and .4 .2 .1 .3; the third has too few video tokens at 8.
    for weighting, raw in (
        ("min", [0.4, 0.2]),
        ("uniform", [1.0, 1.0]),
        ("mass", [0.5, 0.25]),
        ("sqrt", [0.5**0.5, 0.5]),
    ):
        weights, valid = cluster_weights(image, video, weighting, 8)
        assert valid.tolist() == [True, True, False, False]
        expected = [*(w / sum(raw) for w in raw), 0.0, 0.0]
        assert weights.tolist() == pytest.approx(expected)


def test_no_gradient_through_assignments() -> None:
    scores = torch.randn(6, 3, requires_grad=True)
    logits = torch.randn(6, 3, requires_grad=True)
    q = scores.softmax(1)
    discriminator_loss(logits, logits, q, q).value.backward()
    assert scores.grad is None
    assert logits.grad is not None
    assert (logits.grad != 0).all()


def test_softened_targets_are_the_softmax_at_a_higher_temperature() -> None:
    scores = torch.randn(10, 5) * 4
    softened = soften_targets(scores.softmax(1), 1.8)
    torch.testing.assert_close(softened, (scores / 1.8).softmax(1))
    assert soften_targets(torch.eye(3), 1.8).equal(torch.eye(3))
    assert soften_targets(torch.zeros(2, 3), 1.8).equal(torch.zeros(2, 3))
    maps = scores.softmax(1).reshape(2, 5, 5).movedim(2, 1)
    torch.testing.assert_close(soften_targets(maps, 1.8).movedim(1, 2).reshape(10, 5), softened)


def test_joint_loss_with_one_hot_targets_is_a_cross_entropy_over_2k() -> None:
    torch.manual_seed(0)
    logits = torch.randn(12, 6)
    labels = torch.tensor([0, 1, 2] * 4)
    q = torch.eye(3)[labels]
    balance = cluster_weights(q.sum(0), q.sum(0), "mass", 0)
    for target, offset in ((0.0, 0), (1.0, 3)):
        value = confounding_loss(logits, q, balance, target, "joint", clip=0.9)
        # FADA's clipped targets scale the loss, since they are not normalised again.
        torch.testing.assert_close(value, 0.9 * F.cross_entropy(logits, labels + offset))


def test_half_precision_logits_give_single_precision_losses() -> None:
    losses = domain_losses(torch.tensor([[90.0]], dtype=torch.bfloat16), "cross_entropy")
    assert losses.image.dtype == torch.float32
    assert losses.image.item() == 90


def test_assignments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MethodError, match="one row per position"):
        discriminator_loss(torch.zeros(4, 1), torch.zeros(4, 1), torch.eye(3), torch.eye(3))
    with pytest.raises(MethodError, match="one output or one per cluster"):
        discriminator_loss(torch.zeros(3, 2), torch.zeros(3, 2), torch.eye(3), torch.eye(3))


def test_clustered_mean_by_hand() -> None:
    losses = torch.tensor([[1.0], [3.0], [10.0]])
    q = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    balance = ClusterWeights(torch.tensor([0.25, 0.75]), torch.tensor([True, True]))
    first, second = (1 + 1.5) / 1.5, (1.5 + 10) / 1.5
    expected = 0.25 * first + 0.75 * second
    assert clustered_mean(losses, q, balance).item() == pytest.approx(expected)
