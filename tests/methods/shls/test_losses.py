"""NT-Xent against pytorch-metric-learning, and the triplets it is taken over."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss

from methods.shls.losses import TEMPERATURE, Triplets, nt_xent, sample_triplets

quick = settings(max_examples=60, deadline=None)

some_labels = st.lists(st.integers(0, 4), max_size=40).map(
    lambda values: torch.tensor(values, dtype=torch.int64)
)


def vectors(rows: int, seed: int = 0, size: int = 8) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


@quick
@given(labels=some_labels, count=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_triplets(labels: torch.Tensor, count: int, seed: int) -> None:
    found = sample_triplets(labels, count, torch.Generator().manual_seed(seed))
    rows = labels.tolist()
    wanted = [row for row, label in enumerate(rows) if rows.count(label) > 1 and len(set(rows)) > 1]
    assert sorted(found.anchors.tolist()) == wanted
    assert found.positives.shape == found.negatives.shape == (len(wanted), count)
    of_anchor = labels[found.anchors][:, None]
    assert (labels[found.positives] == of_anchor).all()
    assert (found.positives != found.anchors[:, None]).all()
    assert (labels[found.negatives] != of_anchor).all()


def test_all_positives_and_negatives_are_drawn_equally_often() -> None:
    labels = torch.tensor([1, 0, 1, 2, 0, 1, 1])
    count = 6000
    found = sample_triplets(labels, count, torch.Generator().manual_seed(0))
    for anchor, positives, negatives in zip(*found, strict=True):
        others = [row for row in range(7) if labels[row] == labels[anchor] and row != int(anchor)]
        strangers = [row for row in range(7) if labels[row] != labels[anchor]]
        for drawn, wanted in ((positives, others), (negatives, strangers)):
            shares = torch.bincount(drawn, minlength=7) / count
            assert shares.nonzero()[:, 0].tolist() == wanted
            # Six standard deviations of a share of 1/2 are 0.04.
            assert (shares[wanted] - 1 / len(wanted)).abs().max() < 0.04


def test_triplets_depend_on_the_generator_alone() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1] * 5)
    once, again, other = (
        sample_triplets(labels, 16, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert all(one.equal(two) for one, two in zip(once, again, strict=True))
    assert not once.positives.equal(other.positives)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [TEMPERATURE, 0.5])
def test_loss_and_gradient_equal_pytorch_metric_learning(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (25,), generator=generator)
    triplets = sample_triplets(labels, 6, generator)
    ours = vectors(25, seed).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    found = nt_xent(ours, triplets, temperature)
    flat = (
        triplets.anchors.repeat_interleave(6),
        triplets.positives.flatten(),
        triplets.negatives.flatten(),
    )
    expected = NTXentLoss(temperature=temperature)(theirs, labels, flat)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_loss_of_one_triplet_by_hand() -> None:
    rows = torch.tensor([[2.0, 0.0], [3.0, 3.0], [0.0, -0.5], [-1.0, 0.0]])
    triplets = Triplets(torch.tensor([0]), torch.tensor([[1, 1]]), torch.tensor([[2, 3]]))
    positive = math.exp(math.sqrt(0.5) / 0.5)
    expected = -math.log(positive / (positive + math.exp(0) + math.exp(-1 / 0.5)))
    assert nt_xent(rows, triplets, 0.5).item() == pytest.approx(expected, rel=1e-6)


def test_loss_does_not_depend_on_lengths() -> None:
    labels = torch.arange(12) % 3
    triplets = sample_triplets(labels, 4, torch.Generator().manual_seed(0))
    rows = vectors(12)
    lengths = torch.linspace(0.1, 50, 12)[:, None]
    torch.testing.assert_close(nt_xent(rows * lengths, triplets), nt_xent(rows, triplets))


def test_loss_of_separated_and_of_mixed_up_data() -> None:
    labels = torch.arange(30) % 3
    triplets = sample_triplets(labels, 16, torch.Generator().manual_seed(0))
    separated = torch.eye(3)[labels]
    assert nt_xent(separated, triplets).item() < 2e-5  # 16 exp(-1 / 0.07)
    # Where everything is alike, the positive is one of 17.
    assert nt_xent(torch.ones(30, 3), triplets).item() == pytest.approx(math.log(17), rel=1e-5)


def test_loss_falls_to_nothing_when_vectors_are_moved_along_its_gradient() -> None:
    labels = torch.arange(24) % 3
    rows = vectors(24).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([rows], lr=0.1)
    losses = []
    for _ in range(60):
        loss = nt_xent(rows, sample_triplets(labels, 16, generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 3
    assert losses[-1] < 0.01


@pytest.mark.parametrize(
    "rows",
    [
        torch.zeros(6, 4),
        1e-20 * torch.ones(6, 4),
        1e6 * torch.ones(6, 4),
        torch.tensor([[1.0, 0, 0, 0]] * 3 + [[-1.0, 0, 0, 0]] * 3),
    ],
    ids=["zero", "tiny", "large", "opposite"],
)
def test_gradients_are_finite(rows: torch.Tensor) -> None:
    rows = rows.clone().requires_grad_()
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    loss = nt_xent(rows, sample_triplets(labels, 4, torch.Generator().manual_seed(0)))
    loss.backward()
    assert loss.isfinite()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("labels", [[], [0], [2, 2, 2], [0, 1, 2]], ids=str)
def test_without_triplets_the_loss_is_zero_and_has_a_gradient(labels: list[int]) -> None:
    rows = vectors(len(labels)).requires_grad_()
    triplets = sample_triplets(torch.tensor(labels, dtype=torch.int64))
    loss = nt_xent(rows, triplets)
    assert loss.item() == 0
    loss.backward()
    assert rows.grad is not None
    assert not rows.grad.any()
