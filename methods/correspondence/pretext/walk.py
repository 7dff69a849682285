"""The palindrome random walk over the nodes of a clip.

Source: Jabri, Owens, Efros: Space-time correspondence as a contrastive random walk, NeurIPS 2020,
sections 2.1 (walk), 2.2 (palindromes) and 2.4 (edge dropout).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

DROPPED = -1e20
"""Affinity of an edge that was dropped. Finite, so that a node that lost all its edges walks
anywhere instead of making NaN."""

TINY = 1e-20
"""Keeps the logarithm of a probability finite."""


class Transitions(NamedTuple):
    """Row-stochastic matrices between neighbouring frames.

    Attributes:
        forward: ``(B, T - 1, N, N)``; ``[b, t, i, j]`` steps from node i of frame t to node j of
            frame t + 1.
        backward: the same; ``[b, t, i, j]`` steps from node i of frame t + 1 to node j of frame t.
    """

    forward: Tensor
    backward: Tensor


def dropped_edges(
    affinity: Tensor, probability: float, shared: bool, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw the edges that forward and backward steps lose.

    Args:
        affinity: ``(..., N, M)``; its shape and device count alone.
        probability: of losing an edge, drawn for each direction.
        shared: whether backward steps lose the forward steps' edges besides their own, as in the
            official code, where 19 of 100 are gone at a probability of .1.
        generator: source of randomness, on the affinity's device.

    Returns:
        bool ``(..., N, M)`` for forward and ``(..., M, N)`` for backward steps.
    """

    def draw(shape: torch.Size) -> Tensor:
        return torch.rand(shape, generator=generator, device=affinity.device) < probability

    forward = draw(affinity.shape)
    backward = draw(affinity.mT.shape)
    return forward, backward | forward.mT if shared else backward


def transitions(
    nodes: Tensor,
    temperature: float,
    dropout: float = 0.0,
    shared: bool = True,
    generator: torch.Generator | None = None,
) -> Transitions:
    """Softmax over the affinities of neighbouring frames' nodes, in both directions.

    Args:
        nodes: unit vectors ``(B, T, N, C)``.
        temperature: divides the affinities.
        dropout: probability of an edge to be dropped.
        shared: see :func:`dropped_edges`.
        generator: source of randomness.
    """
    nodes = nodes.float()
    # Sharp softmaxes cannot do with the three digits of bfloat16.
    with torch.autocast(nodes.device.type, enabled=False):
        forward = nodes[:, :-1] @ nodes[:, 1:].mT
    backward = forward.mT
    if dropout > 0:
        lost_forward, lost_backward = dropped_edges(forward, dropout, shared, generator)
        backward = backward.masked_fill(lost_backward, DROPPED)
        forward = forward.masked_fill(lost_forward, DROPPED)
    return Transitions(
        F.softmax(forward / temperature, dim=-1), F.softmax(backward / temperature, dim=-1)
    )


def palindromes(steps: Transitions, first: int = 2) -> list[Tensor]:
    """Probabilities of walking k frames ahead and back again, for k from ``first`` to all.

    Args:
        steps: of T frames.
        first: smallest k; the official code leaves out k = 1.

    Returns:
        One ``(B, N, N)`` per k; ``[b, i, j]`` starts at node i and ends at node j of frame 0.
    """
    count = steps.forward.shape[1]
    ahead, back = steps.forward[:, 0], steps.backward[:, 0]
    found = []
    for k in range(1, count + 1):
        if k > 1:
            ahead = ahead @ steps.forward[:, k - 1]
            back = steps.backward[:, k - 1] @ back
        if k >= first:
            found.append(ahead @ back)
    return found


def cycle_loss(returns: Tensor) -> Tensor:
    """Mean of ``-log`` of the probability that a walk ends where it began.

    Args:
        returns: ``(B, N, N)``, see :func:`palindromes`.

    Returns:
        ``(B,)``.
    """
    return -(returns.diagonal(dim1=1, dim2=2) + TINY).log().mean(1)


def cycle_accuracy(returns: Tensor) -> Tensor:
    """Share of the nodes whose walk most probably ends where it began.

    Args:
        returns: ``(B, N, N)``, see :func:`palindromes`.

    Returns:
        float ``(B,)``.
    """
    home = torch.arange(returns.shape[1], device=returns.device)
    return (returns.argmax(2) == home).float().mean(1)
