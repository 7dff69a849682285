"""A toy adaptation with a known answer, played with the suite's own clusters and games.

Three classes lie on a circle in two dimensions that tell them apart, beside some that do not. The
target is the source moved in all of them: a classifier of the source errs there, and a network
that undoes the movement, which it can see in the other dimensions, does not. Whether an adversary
finds this depends on the classes' frequencies: where they differ between the domains, features
that agree as wholes must mix classes, and features that agree within clusters need not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    ClusterSettings,
    DiscriminatorSettings,
    GameSettings,
)
from methods.adversarial.clusters import Clusters, TokenContext
from methods.adversarial.games import Alignment
from methods.adversarial.reversal import schedule

ToyMethod = Literal["source", "global", "clustered"]
Priors = tuple[float, float, float]

EQUAL: tuple[Priors, Priors] = ((1 / 3, 1 / 3, 1 / 3), (1 / 3, 1 / 3, 1 / 3))
LABEL_SHIFT: tuple[Priors, Priors] = ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8))
"""Frequencies of the classes in source and target."""

GAP = 1.0
"""How far the target is moved, in the classes' two dimensions, and twice as far in the others."""

RADIUS = 1.3
NOISE = 0.2
"""A movement of 1 costs the source about as much as in the toy that is known (accuracy .93, there
.91): the border between two classes is 1.13 from their centres. Of several such worlds this one was
chosen for its narrow classes, which clusters need, by seeds 0 to 4; on seeds 5 to 9 the order of
the methods is the same (source .89, global .70, clustered .92)."""

NUISANCE = 4
"""Dimensions that tell nothing about the class."""

CHANNELS = 16
BATCH = 128
STEPS = 1500
LEARNING_RATE = 1e-3
TEST = 3000
"""Points of the target, equally many of each class."""

ALIGNMENT = AlignmentSettings(
    tap="neck", weight=1.0, discriminator=DiscriminatorSettings(width=32, dropout=0.0)
)
GAME = GameSettings(loss="reversal", schedule="dann")

CLUSTERS = ClusterSettings(
    features="self", count=8, refresh=100, bank=2048, fewest=4, center="joint"
)
"""More clusters than classes, and their mean subtracted: with three, k-means sometimes puts two
classes into one cluster, and aligning within it mixes them (mean accuracy .74 over five seeds)."""


@dataclass(frozen=True)
class World:
    """Where points come from.

    Attributes:
        rotation: ``(2 + NUISANCE,) * 2``, hides which dimensions matter.
        shift: ``(2 + NUISANCE,)``, of the target.
    """

    rotation: Tensor
    shift: Tensor

    @staticmethod
    def draw(gap: float, generator: torch.Generator) -> World:
        """A random one whose target is moved by ``gap`` in the dimensions that matter."""
        dimensions = 2 + NUISANCE
        rotation, _ = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator))
        content = F.normalize(torch.randn(2, generator=generator), dim=0) * gap
        nuisance = F.normalize(torch.randn(NUISANCE, generator=generator), dim=0) * 2 * gap
        return World(rotation, torch.cat([content, nuisance]))

    def sample(
        self, priors: Priors, domain: int, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Points ``(count, 2 + NUISANCE)`` and classes ``(count,)``."""
        labels = torch.multinomial(torch.tensor(priors), count, True, generator=generator)
        angles = labels * (2 * torch.pi / 3)
        centres = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
        content = centres + NOISE * torch.randn(count, 2, generator=generator)
        nuisance = torch.randn(count, NUISANCE, generator=generator)
        points = torch.cat([content, nuisance], dim=1) + domain * self.shift
        return points @ self.rotation.T, labels


def target_accuracy(
    method: ToyMethod,
    priors: tuple[Priors, Priors],
    seed: int,
    gap: float = GAP,
    steps: int = STEPS,
    batch: int = BATCH,
) -> float:
    """Train by a method and test on a target with equally frequent classes.

    Args:
        method: source only, or with a global or a clustered adversary.
        priors: frequencies of the classes in source and target.
        seed: of the world, the points and the networks.
        gap: how far the target is moved.
        steps: of Adam.
        batch: points of each domain per step.

    Returns:
        Share of the target's test points that are classified correctly.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    world = World.draw(gap, generator)
    encoder = nn.Sequential(
        nn.Linear(2 + NUISANCE, 64), nn.ReLU(), nn.Linear(64, CHANNELS), nn.ReLU()
    )
    classifier = nn.Linear(CHANNELS, 3)
    modules = nn.ModuleList([encoder, classifier])
    adversary = None
    if method != "source":
        adversary = Adversary(method, seed)
        modules.append(adversary)
    optimiser = torch.optim.Adam(modules.parameters(), LEARNING_RATE)
    for step in range(steps):
        images, labels = world.sample(priors[0], 0, batch, generator)
        frames, _ = world.sample(priors[1], 1, batch, generator)
        features = encoder(torch.cat([images, frames]))
        loss = F.cross_entropy(classifier(features[:batch]), labels)
        if adversary is not None:
            loss = loss + adversary(features[:batch], features[batch:], step, step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        points, labels = world.sample(EQUAL[1], 1, TEST, generator)
        return float((classifier(encoder(points)).argmax(1) == labels).float().mean())


class Adversary(nn.Module):
    """A discriminator of the features, over all of them or within clusters."""

    def __init__(self, method: ToyMethod, seed: int) -> None:
        super().__init__()
        clustered = method == "clustered"
        settings = ALIGNMENT.model_copy(update={"loss": "clustered" if clustered else "global"})
        self.clusters = Clusters(CLUSTERS, CHANNELS, seed) if clustered else None
        self.alignment = Alignment(
            settings, GAME, CLUSTERS if clustered else None, CHANNELS, output_tap=False
        )

    def forward(self, images: Tensor, frames: Tensor, step: int, spent: float) -> Tensor:
        assignments: list[Tensor | None] = [None, None]
        if self.clusters is not None:
            self.clusters.collect(images.detach(), frames.detach())
            if self.clusters.due(step):
                self.clusters.refresh()
            assignments = [
                self.clusters.assign(tokens.detach(), TokenContext(domain))
                for domain, tokens in enumerate((images, frames))
            ]
        strength = schedule(GAME.schedule, GAME.start, spent)
        result = self.alignment(images, frames, assignments[0], assignments[1], strength)
        loss: Tensor = result.network_loss + result.discriminator_loss
        return loss
