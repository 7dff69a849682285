import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from methods.correspondence.pretext.walk import (
    Transitions,
    cycle_accuracy,
    cycle_loss,
    dropped_edges,
    palindromes,
    transitions,
)


def nodes(batch=2, frames=4, count=5, channels=3, seed=0):
    made = torch.randn(
        batch, frames, count, channels, generator=torch.Generator().manual_seed(seed)
    )
    return F.normalize(made, dim=3)


def naive_walk(one, first, temperature):
    """Losses per cycle length of one clip, ``(T, N, C)``, walked with loops."""
    frames, count, _ = one.shape

    def step(a, b):
        table = [[0.0] * count for _ in range(count)]
        for i in range(count):
            weights = [math.exp(float(a[i] @ b[j]) / temperature) for j in range(count)]
            for j in range(count):
                table[i][j] = weights[j] / sum(weights)
        return table

    losses, accuracies = [], []
    for k in range(first, frames):
        path = list(range(k + 1)) + list(range(k - 1, -1, -1))
        home = 0.0
        right = 0
        for start in range(count):
            at = [float(i == start) for i in range(count)]
            for here, there in itertools.pairwise(path):
                table = step(one[here], one[there])
                at = [sum(at[i] * table[i][j] for i in range(count)) for j in range(count)]
            home -= math.log(at[start]) / count
            right += max(range(count), key=lambda j: at[j]) == start
        losses.append(home)
        accuracies.append(right / count)
    return losses, accuracies


@pytest.mark.parametrize("first", [1, 2])
def test_walk_equals_loops(first):
    made = nodes().double()
    found = palindromes(transitions(made, 0.3), first)
    for number, one in enumerate(made):
        losses, accuracies = naive_walk(one, first, 0.3)
        assert [cycle_loss(each)[number].item() for each in found] == pytest.approx(losses, 1e-5)
        assert [cycle_accuracy(each)[number].item() for each in found] == pytest.approx(accuracies)


def test_loss_is_the_cross_entropy_of_the_log_of_the_product():
    found = palindromes(transitions(nodes(), 0.3))[-1]
    logits = (found + 1e-20).log().flatten(0, 1)
    expected = F.cross_entropy(logits, torch.arange(5).repeat(2))
    assert cycle_loss(found).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_transitions_are_stochastic_with_and_without_dropout():
    generator = torch.Generator().manual_seed(0)
    for dropout in (0.0, 0.4):
        steps = transitions(nodes(), 0.05, dropout, generator=generator)
        for each in steps:
            assert torch.allclose(each.sum(3), torch.ones(2, 3, 5), atol=1e-5)


def test_identical_distinct_frames_reach_the_minimum():
    same = torch.eye(6)[None, None].expand(1, 4, 6, 6)
    for found in palindromes(transitions(same, 0.02)):
        assert cycle_loss(found).item() == pytest.approx(0, abs=1e-5)
        assert cycle_accuracy(found).item() == 1


def test_equal_nodes_walk_anywhere():
    same = F.normalize(torch.ones(1, 3, 7, 4), dim=3)
    (found,) = palindromes(transitions(same, 0.05))
    assert cycle_loss(found).item() == pytest.approx(math.log(7), rel=1e-5)


def test_dropped_edges_have_no_probability():
    generator = torch.Generator().manual_seed(3)
    made = nodes(1, 2, 50)
    lost = dropped_edges(made[:, :-1] @ made[:, 1:].mT, 0.1, True, generator)
    generator.manual_seed(3)
    steps = transitions(made, 0.3, 0.1, True, generator)
    for each, gone in zip(steps, lost, strict=True):
        assert torch.equal(each == 0, gone)


def test_backward_steps_lose_the_forward_steps_edges_if_shared():
    affinity = torch.zeros(20, 49, 49)
    generator = torch.Generator().manual_seed(0)
    forward, backward = dropped_edges(affinity, 0.1, True, generator)
    assert bool(backward[forward.mT].all())
    assert forward.float().mean().item() == pytest.approx(0.1, abs=0.005)
    assert backward.float().mean().item() == pytest.approx(0.19, abs=0.005)
    forward, backward = dropped_edges(affinity, 0.1, False, generator)
    assert backward.float().mean().item() == pytest.approx(0.1, abs=0.005)
    assert backward[forward.mT].float().mean().item() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.97])
def test_gradients_are_finite_even_where_all_edges_are_gone(dropout):
    made = nodes(count=9).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    steps = transitions(made, 0.05, dropout, generator=generator)
    torch.stack([cycle_loss(each).mean() for each in palindromes(steps)]).sum().backward()
    assert bool(torch.isfinite(made.grad).all())
    assert made.grad.abs().max() > 0 or dropout > 0.9


def test_palindromes_multiply_in_the_right_order():
    generator = torch.Generator().manual_seed(0)
    ahead, back = (torch.rand(1, 3, 4, 4, generator=generator) for _ in range(2))
    found = palindromes(Transitions(ahead, back), first=1)
    assert len(found) == 3
    expected = ahead[:, 0] @ ahead[:, 1] @ ahead[:, 2] @ back[:, 2] @ back[:, 1] @ back[:, 0]
    assert torch.allclose(found[2], expected, rtol=1e-5)
