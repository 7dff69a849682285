"""An adversarial loss in a training: a tap's tokens, their clusters, the game, and its health."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.video import VOID
from methods.adversarial.adversary_settings import AlignmentSettings
from methods.adversarial.clusters import Clusters
from methods.adversarial.games import Alignment, AlignmentResult
from methods.adversarial.monitoring import Monitoring
from methods.adversarial.monitors import (
    DiscriminatorHealth,
    LossWatch,
    alarms,
    cluster_health,
    participation_ratio,
)
from methods.adversarial.objectives import cell_labels
from methods.adversarial.partition import TokenContext
from methods.adversarial.settings import AdaptationSettings
from methods.adversarial.taps import is_output
from methods.adversarial.tokens import (
    adjacent_pairs,
    flatten_positions,
    sample_tokens,
    unfold_clips,
)


class Side(NamedTuple):
    """What an alignment is given of one domain, all maps in the same order.

    Attributes:
        features: float ``(N, C, h, w)`` of the tap.
        clustered: float ``(N, C', h', w')``, what clusters are made of; None for global losses.
        labels: integers ``(N, H, W)``: classes, 255 unknown.
        probabilities: float ``(N, classes, H, W)`` of the classes; None where nothing needs them.
    """

    features: Tensor
    clustered: Tensor | None
    labels: Tensor
    probabilities: Tensor | None


def grid_of(side: Side) -> tuple[int, int]:
    """Height and width of the tap's features."""
    return side.features.shape[-2], side.features.shape[-1]


class AlignedTap(nn.Module):
    """One alignment of a training, with its clusters and counters.

    Args:
        settings: of the alignment.
        training: the whole recipe.
        channels: of the tap's features.
        clustered_channels: of the features that clusters are made of.
        classes: of the network's main head.
        seed: of whatever is drawn.

    Attributes:
        skipped: steps in which no cluster had enough tokens of both domains, or there was none.
    """

    def __init__(
        self,
        settings: AlignmentSettings,
        training: AdaptationSettings,
        channels: int,
        clustered_channels: int,
        classes: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.training_settings = training
        self.classes = classes
        self.name = f"{settings.tap}_{settings.loss}"
        clustered = settings.loss == "clustered"
        self.alignment = Alignment(
            settings,
            training.game,
            training.clusters if clustered else None,
            channels,
            is_output(settings.tap),
        )
        self.clusters = Clusters(training.clusters, clustered_channels, seed) if clustered else None
        self.watch = LossWatch()
        self.skipped: Tensor
        self.first: Tensor
        self.examined: Tensor
        self.best_accuracy: Tensor
        self.churn: Tensor
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        # Norm and participation ratio of the features before the game has changed them.
        self.register_buffer("first", torch.full((2,), math.nan))
        self.register_buffer("examined", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best_accuracy", torch.zeros(()))
        self.register_buffer("churn", torch.tensor(math.nan))

    def forward(
        self,
        sides: tuple[Side, Side],
        strength: float,
        step: int,
        size: tuple[int, int],
        monitoring: Monitoring,
    ) -> AlignmentResult:
        """Play one step.

        Args:
            sides: what is taken for images, and for video; without a gradient where the
                discriminator alone learns.
            strength: lambda's factor.
            step: of the training, from 0.
            size: height and width of the input.
            monitoring: is told monitors and alarms.
        """
        rows = [self._rows(side) for side in sides]
        judged = [self._judged(side, chosen) for side, chosen in zip(sides, rows, strict=True)]
        refreshed = self._renew_clusters(sides, rows, step)
        shares = [
            self._assign(side, chosen, domain)
            for domain, (side, chosen) in enumerate(zip(sides, rows, strict=True))
        ]
        result: AlignmentResult = self.alignment(*judged, *shares, strength, size)
        self.skipped += int(result.monitors["skipped"])
        self.watch.update(result.monitors["discriminator_loss"])
        if refreshed or step % self.training_settings.clusters.refresh == 0:
            found = self._examine(result, sides, rows, shares, step, monitoring)
            # Before the game starts there is nothing to worry about yet.
            for sentence in found if strength > 0 else []:
                monitoring.alarm(step, self.name, sentence)
        return result

    def _rows(self, side: Side) -> Tensor | None:
        """Positions that a token discriminator judges; None for all."""
        if self.settings.discriminator.network != "token":
            return None
        _, rows = sample_tokens(side.features.detach(), self.training_settings.tokens)
        return rows

    def _judged(self, side: Side, rows: Tensor | None) -> Tensor:
        """Features as the discriminator takes them."""
        if rows is not None:
            return flatten_positions(side.features)[rows]
        frames = self.training_settings.domains.clip_frames
        if self.settings.discriminator.network == "patch3d":
            return unfold_clips(side.features, frames)
        if self.settings.discriminator.network == "pair":
            return adjacent_pairs(side.features, frames)
        return side.features

    def _clustered_tokens(self, side: Side, rows: Tensor | None) -> Tensor:
        """What clusters see at the positions judged."""
        assert side.clustered is not None
        maps = F.adaptive_avg_pool2d(side.clustered, grid_of(side))
        tokens = flatten_positions(maps)
        return tokens if rows is None else tokens[rows]

    def _labels(self, side: Side, rows: Tensor | None) -> Tensor:
        """Classes at the positions judged; 255 unknown."""
        labels = cell_labels(side.labels, grid_of(side), self.classes).flatten()
        return labels if rows is None else labels[rows]

    def _context(self, side: Side, rows: Tensor | None, domain: int) -> TokenContext:
        labels = probabilities = None
        if self.training_settings.clusters.how in ("prediction", "truth"):
            labels = self._labels(side, rows)
        if side.probabilities is not None:
            pooled = flatten_positions(F.adaptive_avg_pool2d(side.probabilities, grid_of(side)))
            probabilities = pooled if rows is None else pooled[rows]
        return TokenContext(domain, labels, probabilities)

    @torch.no_grad()
    def _renew_clusters(
        self, sides: tuple[Side, Side], rows: list[Tensor | None], step: int
    ) -> bool:
        """Let clusters see the step's tokens; whether they changed."""
        if self.clusters is None:
            return False
        image, video = (
            self._clustered_tokens(side, chosen) for side, chosen in zip(sides, rows, strict=True)
        )
        self.clusters.collect(image, video)
        if not self.clusters.due(step):
            return False
        report = self.clusters.refresh()
        for source, target in report.copied:
            self.alignment.discriminator.copy_cluster(source, target)
        self.churn.fill_(report.churn)
        return True

    @torch.no_grad()
    def _assign(self, side: Side, rows: Tensor | None, domain: int) -> Tensor | None:
        if self.clusters is None or not self.clusters.ready:
            return None
        tokens = self._clustered_tokens(side, rows)
        return self.clusters.assign(tokens, self._context(side, rows, domain))

    @torch.no_grad()
    def _examine(
        self,
        result: AlignmentResult,
        sides: tuple[Side, Side],
        rows: list[Tensor | None],
        shares: list[Tensor | None],
        step: int,
        monitoring: Monitoring,
    ) -> list[str]:
        """Record how the game stands; returns alarms."""
        monitors = dict(result.monitors)
        tokens = [flatten_positions(side.features.detach().float()) for side in sides]
        sampled = torch.cat(
            [t if chosen is None else t[chosen] for t, chosen in zip(tokens, rows, strict=True)]
        )
        norm = (monitors["feature_norm_image"] + monitors["feature_norm_video"]) / 2
        spread = participation_ratio(sampled)
        if math.isnan(float(self.first[0])):
            self.first.copy_(torch.tensor([norm, spread]))
        health = None
        image_share, video_share = shares
        if image_share is not None and video_share is not None:
            labels = self._labels(sides[0], rows[0])
            health = cluster_health(
                image_share,
                video_share,
                self.training_settings.clusters.fewest,
                labels if bool((labels != VOID).any()) else None,
                float(self.churn),
            )
            monitors |= health.monitors()
        monitors |= {"participation_ratio": spread, "skipped_steps": float(self.skipped)}
        accuracy = (monitors["accuracy_image"] + monitors["accuracy_video"]) / 2
        if not math.isnan(accuracy):
            self.examined += 1
            self.best_accuracy.clamp_(min=accuracy)
        opponent = DiscriminatorHealth(
            result.monitors["accuracy_image"],
            result.monitors["accuracy_video"],
            int(self.watch.steps),
            norm,
            float(self.first[0]),
            spread,
            float(self.first[1]),
            int(self.examined),
            float(self.best_accuracy),
        )
        monitoring.record(step, self.name, monitors)
        return alarms(health, opponent)
