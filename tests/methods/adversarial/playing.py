"""Alignments to play with in tests, and tokens and assignments to play them on."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    ClusterSettings,
    DiscriminatorSettings,
    GameSettings,
)
from methods.adversarial.games import Alignment

CHANNELS, CLUSTERS = 4, 3
LOSSES = ("reversal", "non_saturating", "least_squares", "confusion")
DIRECTIONS = ("both", "video_to_image")
KINDS: dict[str, dict[str, Any]] = {
    "global": {},
    "per_cluster": {"kind": "per_cluster"},
    "separate": {"kind": "per_cluster", "shared_trunk": False},
    "shared_balanced": {"kind": "shared_balanced"},
    "conditioned": {"kind": "conditioned"},
    "projection": {"kind": "conditioned", "conditioning": "projection"},
    "joint2K": {"kind": "joint2K"},
}

PLAYABLE = [
    (kind, loss)
    for kind, loss in itertools.product(KINDS, LOSSES)
    if (kind, loss) != ("joint2K", "least_squares")
]
"""All but the pair that Alignment refuses."""


def build(
    kind: str = "global",
    loss: str = "reversal",
    network: str = "token",
    weight: float = 1.0,
    direction: str | None = None,
    smoothing: float = 0.0,
    weighting: str = "min",
    fewest: float = 0.0,
    output_tap: bool = False,
) -> Alignment:
    torch.manual_seed(5)
    alignment = AlignmentSettings(
        tap="enc4",
        loss="global" if kind == "global" else "clustered",
        weight=weight,
        discriminator=DiscriminatorSettings(network=network, width=8, dropout=0.0, **KINDS[kind]),
    )
    game = GameSettings(loss=loss, direction=direction, label_smoothing=smoothing)
    clusters = ClusterSettings(count=CLUSTERS, weighting=weighting, fewest=fewest)
    return Alignment(alignment, game, clusters, CHANNELS, output_tap)


def assignment(seed: int, positions: int, soft: bool, rejected: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(positions, CLUSTERS, generator=generator)
    q = scores.softmax(1) if soft else F.one_hot(scores.argmax(1), CLUSTERS).float()
    return q * (torch.rand(positions, 1, generator=generator) >= rejected)


def tokens(seed: int, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, CHANNELS, generator=generator).requires_grad_()


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]
