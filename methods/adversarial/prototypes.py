"""Clusters around prototypes: k-means on a bank of tokens, and three ways to follow each batch."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import ConfigError, MethodError
from methods.adversarial.adversary_settings import ClusterSettings
from methods.adversarial.bank import Projection, TokenBank
from methods.adversarial.kmeans import (
    POINTS_PER_CENTROID,
    SINKHORN_EPSILON,
    assigned_means,
    lloyd,
    match_centroids,
    nearest,
    sinkhorn_offsets,
    spherical_kmeans,
)
from methods.adversarial.partition import Membership, Refresh, TokenContext

FIRST_SHARE = 0.25
"""How full the bank is when clusters are first made."""

DEAD_MASS = 0.1
"""Times 1/K: a moving prototype with a smaller share of the tokens starves."""

DEAD_STEPS = 200
"""Steps of starving after which a prototype is replaced by one half of the largest."""

SPLIT_PERTURBATION = 1e-3
"""How far the two halves of a split prototype are moved apart, each."""

LARGEST_BATCH_COUNT = 8
"""Clusters that Lloyd's iterations can tell apart in one batch."""


class Prototypes(nn.Module):
    """Clusters are those of k-means on a bank of tokens, run again at every refresh.

    The subclasses run k-means only once; from then on their prototypes follow every batch, and a
    refresh only replaces those that died.
    """

    def __init__(self, settings: ClusterSettings, channels: int, seed: int) -> None:
        super().__init__()
        fewest = POINTS_PER_CENTROID * settings.count
        if settings.bank < fewest:
            raise ConfigError(
                "clusters.bank",
                f"{settings.bank} tokens for {settings.count} clusters",
                f"at least {POINTS_PER_CENTROID} per cluster",
                f"Set it to {fewest} or more, or use fewer clusters.",
            )
        self.settings = settings
        self.seed = seed
        self.enough = max(fewest, math.ceil(FIRST_SHARE * settings.bank))
        # The bank holds what one interval between refreshes brings: a batch adds its share and no
        # more, so that no clip dominates.
        capacity = settings.bank // 2
        self.bank = TokenBank(capacity, math.ceil(capacity / settings.refresh), channels, seed)
        self.projection = Projection(channels, settings.dimensions, settings.center)
        size = (settings.count, self.projection.dimensions)
        self.centroids: Tensor
        self.previous: Tensor
        self.refreshes: Tensor
        self.register_buffer("centroids", torch.zeros(size))
        self.register_buffer("previous", torch.zeros(size))
        self.register_buffer("refreshes", torch.zeros((), dtype=torch.int64))

    @property
    def ready(self) -> bool:
        """Whether k-means has run."""
        return bool(self.refreshes > 0)

    def collect(self, image_tokens: Tensor, video_tokens: Tensor) -> None:
        """Fill the bank, and follow the batch once there are prototypes."""
        self.bank.add(image_tokens, video_tokens)
        if self.ready:
            self.follow(self._points(image_tokens, video_tokens))

    def due(self, step: int) -> bool:
        """When enough tokens were collected, then every ``settings.refresh`` steps."""
        if not self.ready:
            return len(self.bank) >= self.enough
        return step % self.settings.refresh == 0

    def refresh(self) -> Refresh:
        """Start or renew prototypes from the bank; measure the churn.

        Raises:
            MethodError: too few tokens were collected.
        """
        if len(self.bank) < self.enough:
            raise MethodError(
                "clusters", f"{len(self.bank)} tokens", f"{self.enough}", "Collect more before."
            )
        image, video = self.bank.tokens()
        if self.ready:
            points = self._points(image, video)
            report = self.renew(points)
            before, after = (points @ c.T for c in (self.previous, self.centroids))
            churn = (before.argmax(1) != after.argmax(1)).float().mean()
            report = dataclasses.replace(report, churn=float(churn))
        else:
            self.projection.fit(image, video)
            report = self.start(self._points(image, video))
        self.previous.copy_(self.centroids)
        self.refreshes += 1
        return report

    def membership(self, tokens: Tensor, context: TokenContext) -> Membership:
        """Compare tokens with prototypes, in the space where these were found."""
        similarity = self.similarity(self.projection(tokens, context.domain))
        probability = (similarity / self.temperature).softmax(1)
        return Membership(similarity, probability, torch.ones_like(similarity[:, 0]).bool())

    # ------------------------------------------------------------------ what differs

    @property
    def temperature(self) -> float:
        """Of soft assignments."""
        return self.settings.temperature

    def similarity(self, points: Tensor) -> Tensor:
        """Cosines ``(N, K)`` of unit vectors ``(N, D)`` with the prototypes."""
        return points @ self.centroids.T

    def follow(self, points: Tensor) -> None:
        """Let prototypes follow a batch ``(N, D)`` of both domains; these do not."""

    def start(self, points: Tensor) -> Refresh:
        """Run k-means from random centroids; every time from others."""
        found = spherical_kmeans(points, self.settings.count, self.seed + int(self.refreshes))
        self.centroids.copy_(found.centroids)
        return Refresh(imbalance=found.imbalance, splits=found.splits)

    def renew(self, points: Tensor) -> Refresh:
        """Run k-means again: from the last centroids and numbered like them, or independently."""
        if not self.settings.match:
            return self.start(points)
        found = spherical_kmeans(points, self.settings.count, self.seed, self.centroids)
        self.centroids.copy_(found.centroids[match_centroids(found.centroids, self.centroids)])
        return Refresh(imbalance=found.imbalance, splits=found.splits)

    def _points(self, image_tokens: Tensor, video_tokens: Tensor) -> Tensor:
        return torch.cat([self.projection(image_tokens, 0), self.projection(video_tokens, 1)])


class MovingPrototypes(Prototypes):
    """Prototypes are moving averages of the tokens assigned to them."""

    def __init__(self, settings: ClusterSettings, channels: int, seed: int) -> None:
        super().__init__(settings, channels, seed)
        self.mass: Tensor
        self.starving: Tensor
        self.register_buffer("mass", torch.full((settings.count,), 1 / settings.count))
        self.register_buffer("starving", torch.zeros(settings.count, dtype=torch.int64))

    def due(self, step: int) -> bool:
        """Also as soon as a prototype has died."""
        return super().due(step) or bool((self.starving >= DEAD_STEPS).any())

    def follow(self, points: Tensor) -> None:
        """Move prototypes towards the tokens nearest to them."""
        self.move(points, nearest(points, self.centroids))

    def move(self, points: Tensor, assignment: Tensor) -> None:
        """Move prototypes towards the means of the points assigned to them; keep unit length.

        Args:
            points: float ``(N, D)``.
            assignment: float ``(N, K)``.
        """
        decay = self.settings.decay
        means = assigned_means(points, assignment, otherwise=self.centroids)
        self.centroids.copy_(F.normalize(decay * self.centroids + (1 - decay) * means, dim=1))
        self.mass.mul_(decay).add_((1 - decay) * assignment.mean(0))
        starves = self.mass < DEAD_MASS / self.settings.count
        self.starving.copy_((self.starving + 1).where(starves, 0))

    def start(self, points: Tensor) -> Refresh:
        """Run k-means; its clusters' sizes are the first masses."""
        report = super().start(points)
        self.mass.copy_(nearest(points, self.centroids).mean(0))
        return report

    def renew(self, points: Tensor) -> Refresh:
        """Replace each prototype that died by one half of the largest."""
        generator = torch.Generator().manual_seed(self.seed + int(self.bank.batches))
        copied = []
        for target in (self.starving >= DEAD_STEPS).nonzero().flatten().tolist():
            source = int(self.mass.argmax())
            direction = torch.randn(self.centroids.shape[1], generator=generator)
            step = SPLIT_PERTURBATION * F.normalize(direction, dim=0).to(self.centroids)
            parent = self.centroids[source].clone()
            self.centroids[target] = F.normalize(parent + step, dim=0)
            self.centroids[source] = F.normalize(parent - step, dim=0)
            self.mass[[source, target]] = self.mass[source] / 2
            self.starving[target] = 0
            copied.append((source, target))
        return Refresh(copied=tuple(copied))


class BatchPrototypes(MovingPrototypes):
    """Clusters are those of the batch, by Lloyd's iterations from moving prototypes.

    Raises:
        ConfigError: more clusters than a batch can tell apart.
    """

    def __init__(self, settings: ClusterSettings, channels: int, seed: int) -> None:
        if settings.count > LARGEST_BATCH_COUNT:
            raise ConfigError(
                "clusters.count",
                f"{settings.count} within a batch",
                f"at most {LARGEST_BATCH_COUNT}",
                'Use fewer, or another "how".',
            )
        super().__init__(settings, channels, seed)
        self.local: Tensor
        self.register_buffer("local", torch.zeros_like(self.centroids))

    def follow(self, points: Tensor) -> None:
        """Run Lloyd's iterations in the batch; move prototypes towards what they assign."""
        self.local.copy_(lloyd(points, self.centroids))
        self.move(points, nearest(points, self.local))

    def similarity(self, points: Tensor) -> Tensor:
        """Cosines ``(N, K)`` with the batch's own centroids."""
        return points @ self.local.T

    def start(self, points: Tensor) -> Refresh:
        """Run k-means; until the next batch its centroids are the batch's."""
        report = super().start(points)
        self.local.copy_(self.centroids)
        return report


class SinkhornPrototypes(MovingPrototypes):
    """Clusters are equally large in each batch of both domains together, not in each domain.

    Source: the online clustering of Caron et al., SwAV, NeurIPS 2020; prototypes are moving
    averages here, since no gradient may reach them.
    """

    def __init__(self, settings: ClusterSettings, channels: int, seed: int) -> None:
        super().__init__(settings, channels, seed)
        self.offsets: Tensor
        self.register_buffer("offsets", torch.zeros(settings.count))

    @property
    def temperature(self) -> float:
        """Sinkhorn's epsilon."""
        return SINKHORN_EPSILON

    def follow(self, points: Tensor) -> None:
        """Balance the batch; move prototypes towards their tokens' weighted means."""
        self.offsets.copy_(sinkhorn_offsets(points @ self.centroids.T))
        self.move(points, (self.similarity(points) / SINKHORN_EPSILON).softmax(1))

    def similarity(self, points: Tensor) -> Tensor:
        """Cosines ``(N, K)``, raised or lowered so that clusters are equally large."""
        return points @ self.centroids.T + self.offsets
