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
from methods.adversarial.disagreement import position_weight
from methods.adversarial.games import Alignment, AlignmentResult
from methods.adversarial.monitoring import Monitoring
from methods.adversarial.monitors import (
    CLUSTER_PATIENCE,
    PATIENCE,
    ClusterHealth,
    DiscriminatorHealth,
    alarms,
    cluster_health,
    participation_ratio,
)
from methods.adversarial.objectives import cell_labels
from methods.adversarial.partition import Refresh, TokenContext
from methods.adversarial.processes import gather_rows
from methods.adversarial.settings import AdaptationSettings
from methods.adversarial.taps import is_output
from methods.adversarial.tokens import (
    adjacent_pairs,
    flatten_positions,
    sample_tokens,
    unfold_clips,
)
from methods.adversarial.watches import AccuracyWatch, IdleWatch, LossWatch


class Side(NamedTuple):
    """What an alignment is given of one domain, all maps in the same order.

    Attributes:
        features: float ``(N, C, h, w)`` of the tap.
        clustered: float ``(N, C', h', w')``, what clusters are made of; None for global losses.
        labels: integers ``(N, H, W)``: classes, 255 unknown.
        probabilities: float ``(N, classes, H, W)`` of the classes; None where nothing needs them.
        disagreement: float ``(N, 1, H, W)`` of two classifiers; None where nothing needs it.
    """

    features: Tensor
    clustered: Tensor | None
    labels: Tensor
    probabilities: Tensor | None
    disagreement: Tensor | None = None


class Moment(NamedTuple):
    """What the last step showed of the game.

    Attributes:
        monitors: of the step.
        features: this process's tokens or maps of images and of video, without gradient.
    """

    monitors: dict[str, float]
    features: list[Tensor]


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
        self.accuracy = AccuracyWatch()
        self.idleness = IdleWatch()
        self.moment: Moment | None = None
        self.skipped: Tensor
        self.first: Tensor
        self.churn: Tensor
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        # Norm and participation ratio of the features before the game has changed them: in the
        # first step in which it may, not in the training's first. What supervision alone does to
        # them is nothing that the adversary is to blame for.
        self.register_buffer("first", torch.full((2,), math.nan))
        self.register_buffer("churn", torch.tensor(math.nan))

    def forward(
        self,
        sides: tuple[Side, Side],
        strength: float,
        step: int,
        size: tuple[int, int],
        monitoring: Monitoring,
        spent: float = 0.0,
    ) -> AlignmentResult:
        """Play one step.

        Args:
            sides: what is taken for images, and for video; without a gradient where the
                discriminator alone learns.
            strength: lambda's factor.
            step: of the training, from 0.
            size: height and width of the input.
            monitoring: is told monitors and alarms.
            spent: share of the training that is over.
        """
        rows = [self._rows(side) for side in sides]
        judged = [
            self._laid_out(side.features, chosen) for side, chosen in zip(sides, rows, strict=True)
        ]
        refreshed = self._renew_clusters(sides, rows, step)
        shares = [
            self._assign(side, chosen, domain)
            for domain, (side, chosen) in enumerate(zip(sides, rows, strict=True))
        ]
        weight = self._video_weight(sides[1], rows[1])
        result: AlignmentResult = self.alignment(*judged, *shares, strength, size, weight)
        self.skipped += int(result.monitors["skipped"])
        self.watch.update(result.monitors["discriminator_loss"])
        accuracies = result.monitors["accuracy_image"], result.monitors["accuracy_video"]
        patient = self._patient
        self.accuracy.update(sum(accuracies) / 2, spent)
        has_clusters = self.clusters is None or self.clusters.ready
        start = self.training_settings.game.start
        self.idleness.update(bool(result.monitors["skipped"]), has_clusters, start, spent)
        self.moment = Moment(result.monitors, _detached(sides, judged, rows))
        begins = strength > 0 and math.isnan(float(self.first[0]))
        overdue = self._patient != patient
        periodic = step % self.training_settings.clusters.refresh == 0
        if begins or overdue or periodic or refreshed is not None:
            health = self._cluster_health(sides[0], rows[0], shares)
            found = self._examine(self.moment, begins, health, refreshed, step, monitoring)
            # Before the game starts there is nothing to worry about yet.
            for sentence in found if strength > 0 else []:
                monitoring.alarm(step, self.name, sentence)
        return result

    @property
    def collapsed(self) -> bool:
        """Whether the game was over in the last step; False before the first.

        Features are this process's alone here: the first process asks, and no other.
        """
        return self.moment is not None and self._opponent(self.moment).collapsed

    @property
    def idle(self) -> bool:
        """Whether the loss was skipped in more than half of the game's steps."""
        return self.idleness.idle

    @property
    def _patient(self) -> tuple[bool, bool]:
        """Whether it is too early to expect of the discriminator, and of clusters, anything."""
        told_apart = self.accuracy.learned_for < PATIENCE
        return told_apart, bool(self.idleness.unclustered < CLUSTER_PATIENCE)

    def _rows(self, side: Side) -> Tensor | None:
        """Positions that a token discriminator judges; None for all."""
        if self.settings.discriminator.network != "token":
            return None
        _, rows = sample_tokens(side.features.detach(), self.training_settings.tokens)
        return rows

    def _laid_out(self, maps: Tensor, rows: Tensor | None) -> Tensor:
        """Maps on the grid of the features, as the discriminator takes features."""
        if rows is not None:
            return flatten_positions(maps)[rows]
        frames = self.training_settings.domains.clip_frames
        if self.settings.discriminator.network == "patch3d":
            return unfold_clips(maps, frames)
        if self.settings.discriminator.network == "pair":
            return adjacent_pairs(maps, frames)
        return maps

    def _video_weight(self, video: Side, rows: Tensor | None) -> Tensor | None:
        """How much each position judged counts; a pair of frames as much as their mean."""
        if self.settings.disagreement is None:
            return None
        assert video.disagreement is not None
        distance = F.adaptive_avg_pool2d(video.disagreement, grid_of(video))
        weight = self._laid_out(position_weight(distance, self.settings.disagreement), rows)
        return weight.mean(1, keepdim=True)

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
    ) -> Refresh | None:
        """Let clusters see the step's tokens; what changed, if anything."""
        if self.clusters is None:
            return None
        image, video = (
            self._clustered_tokens(side, chosen) for side, chosen in zip(sides, rows, strict=True)
        )
        self.clusters.collect(image, video)
        if not self.clusters.due(step):
            return None
        report = self.clusters.refresh()
        for source, target in report.copied:
            self.alignment.discriminator.copy_cluster(source, target)
        self.churn.fill_(report.churn)
        return report

    @torch.no_grad()
    def _assign(self, side: Side, rows: Tensor | None, domain: int) -> Tensor | None:
        if self.clusters is None or not self.clusters.ready:
            return None
        tokens = self._clustered_tokens(side, rows)
        return self.clusters.assign(tokens, self._context(side, rows, domain))

    @torch.no_grad()
    def _cluster_health(
        self, images: Side, rows: Tensor | None, shares: list[Tensor | None]
    ) -> ClusterHealth | None:
        """How the step's clusters lie to all processes' tokens; None without any."""
        image_share, video_share = shares
        if image_share is None or video_share is None:
            return None
        labels = gather_rows(self._labels(images, rows))
        return cluster_health(
            gather_rows(image_share),
            gather_rows(video_share),
            self.training_settings.clusters.fewest,
            labels if bool((labels != VOID).any()) else None,
            float(self.churn),
        )

    @torch.no_grad()
    def _opponent(self, moment: Moment) -> DiscriminatorHealth:
        """How discriminator and features stood in a step."""
        monitors = moment.monitors
        return DiscriminatorHealth(
            accuracy_image=monitors["accuracy_image"],
            accuracy_video=monitors["accuracy_video"],
            won_steps=int(self.watch.steps),
            feature_norm=(monitors["feature_norm_image"] + monitors["feature_norm_video"]) / 2,
            first_feature_norm=float(self.first[0]),
            participation=participation_ratio(
                torch.cat([flatten_positions(maps.float()) for maps in moment.features])
            ),
            first_participation=float(self.first[1]),
            learned_for=self.accuracy.learned_for,
            best_accuracy=float(self.accuracy.best),
        )

    @torch.no_grad()
    def _examine(
        self,
        moment: Moment,
        begins: bool,
        health: ClusterHealth | None,
        refreshed: Refresh | None,
        step: int,
        monitoring: Monitoring,
    ) -> list[str]:
        """Record how the game stands, and how it stood when it began; returns alarms."""
        everyones = [gather_rows(maps) for maps in moment.features]
        opponent = self._opponent(moment._replace(features=everyones))
        if begins:
            self.first.copy_(torch.tensor([opponent.feature_norm, opponent.participation]))
        monitors = dict(moment.monitors)
        if health is not None:
            monitors |= health.monitors()
        if refreshed is not None and not math.isnan(refreshed.imbalance):  # k-means has run
            monitors |= {
                "clusters_imbalance": refreshed.imbalance,
                "clusters_splits": float(refreshed.splits),
            }
        monitors |= {
            "participation_ratio": opponent.participation,
            "skipped_steps": float(self.skipped),
            "accuracy_average": float(self.accuracy.average),
        }
        monitoring.record(step, self.name, monitors)
        return alarms(health, opponent, float(self.idleness.unclustered))


def _detached(
    sides: tuple[Side, Side], judged: list[Tensor], rows: list[Tensor | None]
) -> list[Tensor]:
    """Each domain's tokens where these are sampled, else its maps, without gradient."""
    return [
        (side.features if chosen is None else tokens).detach()
        for side, tokens, chosen in zip(sides, judged, rows, strict=True)
    ]
