"""Gradient reversal, and how lambda, which it is multiplied by, grows.

Sources: Ganin et al., Domain-adversarial training of neural networks (DANN), JMLR 2016; Luo et al.,
Taking a closer look at domain shift (CLAN), CVPR 2019, for lambda that decays.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

Schedule = Literal["dann", "constant", "linear_decay"]

DANN_STEEPNESS = 10.0


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """The identity, with a gradient that is multiplied by ``-strength`` (DANN, section 2.4)."""
    reversed_: Tensor = _ReverseGradient.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


def schedule(name: Schedule, start: float, spent: float) -> float:
    """Lambda's factor.

    With p the share spent of what follows ``start``: ``"dann"`` is ``2 / (1 + exp(-10 p)) - 1``,
    ``"constant"`` is 1, ``"linear_decay"`` is ``1 - p``. All are 0 before ``start``.

    Args:
        name: of the curve.
        start: share of the training before it, in [0, 1).
        spent: share of the training that is over, in [0, 1].

    Returns:
        A number in [0, 1].
    """
    if spent < start:
        return 0.0
    p = min((spent - start) / (1 - start), 1.0)
    if name == "dann":
        return 2 / (1 + math.exp(-DANN_STEEPNESS * p)) - 1
    return 1.0 if name == "constant" else 1 - p
