"""What a discriminator says of one domain's features, and how much each answer counts.

A position's share of a cluster weighs that cluster's loss, or it gates the features that the
cluster's discriminator sees (Pei et al., Multi-adversarial domain adaptation, MADA, AAAI 2018).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from methods.adversarial.discriminators import Discriminator
from methods.adversarial.tokens import flatten_positions, pool_to_grid

Gate = Literal["loss", "input"]


class Judged(NamedTuple):
    """One domain: its features, and for each position the share of every cluster.

    Attributes:
        features: tokens ``(M, C)``, maps ``(N, C, h, w)`` or clips ``(B, C, T, h, w)``.
        assignment: of the same positions, or of another grid: ``(M, K)``, ``(N, K, h', w')``, ....
        weight: times which each position's loss counts, laid out like ``assignment`` with one
            channel; None is 1.
    """

    features: Tensor
    assignment: Tensor
    weight: Tensor | None = None


class Judgement(NamedTuple):
    """What is said of one domain, position by position of the discriminator's output.

    Attributes:
        logits: float ``(M, outputs)``.
        share: float ``(M, K)``, of each cluster.
        weight: float ``(M, 1)``, times which the loss counts; None is 1.
    """

    logits: Tensor
    share: Tensor
    weight: Tensor | None


def judge(
    discriminator: Discriminator,
    judged: Judged,
    gate: Gate,
    size: tuple[int, int] | None,
    constant: bool = False,
) -> Judgement:
    """Logits and what they weigh in each cluster, on the discriminator's output grid.

    Args:
        discriminator: see :class:`Discriminator`.
        judged: one domain.
        gate: where assignments enter.
        size: of the network's input, for output taps.
        constant: whether the discriminator's parameters are constants.
    """
    if gate == "input":
        return _judge_gated(discriminator, judged, constant)
    logits = _logits(discriminator, judged, size, constant)

    def on_grid(maps: Tensor) -> Tensor:
        return flatten_positions(pool_to_grid(maps, logits.shape[2:]))

    weight = None if judged.weight is None else on_grid(judged.weight)
    return Judgement(flatten_positions(logits), on_grid(judged.assignment), weight)


def _judge_gated(discriminator: Discriminator, judged: Judged, constant: bool) -> Judgement:
    """Each cluster's logits of tokens times their share of it.

    The share is no weight of the loss then. Tokens without any are left out: zeros tell nothing.
    Where every token belongs to one cluster, this is the gate at the loss.
    """
    columns = []
    for cluster in range(judged.assignment.shape[1]):
        share = judged.assignment[:, cluster : cluster + 1]
        alone = torch.zeros_like(judged.assignment)
        alone[:, cluster : cluster + 1] = share
        logits = _logits(discriminator, Judged(judged.features * share, alone), None, constant)
        # One discriminator for all clusters has one output.
        columns.append(logits[:, min(cluster, logits.shape[1] - 1)])
    return Judgement(torch.stack(columns, 1), (judged.assignment > 0).float(), judged.weight)


def _logits(
    discriminator: Discriminator, judged: Judged, size: tuple[int, int] | None, constant: bool
) -> Tensor:
    """What the discriminator says, with or without a gradient to its parameters."""
    arguments = (judged.features, judged.assignment, size)
    if not constant:
        logits: Tensor = discriminator(*arguments)
        return logits
    parameters = {name: p.detach() for name, p in discriminator.named_parameters()}
    against_constants: Tensor = functional_call(discriminator, parameters, arguments)
    return against_constants
