"""How a segmentation network and a discriminator play against each other at one tap.

Sources: Ganin et al., DANN, JMLR 2016 (gradient reversal); Tsai et al., AdaptSegNet, CVPR 2018 (the
non-saturating game and its least-squares variant); Tzeng et al., Simultaneous deep transfer across
domains and tasks, ICCV 2015 (confusion).

All games need one backward pass and one optimiser step for network and discriminator together.
In reversal the network's gradient rides on the discriminator's loss. In the others the network
plays against a discriminator whose parameters are constants, and the discriminator learns on
features without a gradient. Network and discriminator thus move at the same time, each against
the other's parameters of the step before. Where discriminators learn in steps of their own, too,
these are given features without a gradient, and their losses alone are minimised.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import ConfigError, MethodError
from methods.adversarial.adversary_settings import AlignmentSettings, ClusterSettings, GameSettings
from methods.adversarial.discriminators import build_discriminator
from methods.adversarial.judging import Judged, Judgement, judge
from methods.adversarial.losses import (
    ClusterWeights,
    Criterion,
    LossTerm,
    cluster_weights,
    confounding_loss,
    discriminator_loss,
    domain_logits,
    domain_losses,
    soften_targets,
)
from methods.adversarial.penalty import squared_gradient_norm
from methods.adversarial.processes import mean_over_processes, sum_over_processes
from methods.adversarial.readings import drops_out, nothing_dropped, step_monitors
from methods.adversarial.reversal import reverse_gradient
from methods.adversarial.tokens import flatten_positions, unflatten_positions

Direction = Literal["both", "video_to_image"]


def direction_of(game: GameSettings) -> Direction:
    """Whose features are moved: the game's own setting, or else what is usual for it."""
    if game.direction is not None:
        return game.direction
    return "both" if game.loss in ("reversal", "confusion") else "video_to_image"


def discriminators_alone(game: GameSettings, spent: float, step: int) -> bool:
    """Whether it is the discriminators' turn alone.

    Of every ``game.discriminator_steps + 1`` steps, counted from the training's first, the network
    learns in the last one. Before ``game.start`` it learns in all (after Gulrajani and Lopez-Paz,
    In search of lost domain generalization, DomainBed, ICLR 2021, where the two alternate).

    Args:
        game: how it is played.
        spent: share of the training that is over, in [0, 1].
        step: number of steps done.
    """
    count = game.discriminator_steps
    return spent >= game.start and step % (count + 1) < count


class AlignmentResult(NamedTuple):
    """One step of the game. The caller adds both losses to its own and calls backward once.

    Attributes:
        network_loss: scalar, lambda included; without gradient to the discriminator. 0 for
            reversal.
        discriminator_loss: scalar, the penalty on the discriminator's gradient included; without
            gradient to the network, except reversal's.
        monitors: ``discriminator_loss``; ``network_loss``; ``accuracy_image`` and
            ``accuracy_video``; ``accuracy_cluster_0`` and so on for clustered losses; ``skipped``
            (1 where no cluster was valid, else 0); ``feature_norm_image`` and
            ``feature_norm_video``, mean L2 norms; ``gradient_penalty``, weight included, where
            there is one, which ``discriminator_loss`` is without. Accuracies are those without the
            discriminator's dropout, its loss is the one that it learns from. NaN where nothing was
            judged, so that a skipped step is not mistaken for a discriminator that wins. Where
            several processes train, they are those of all processes' tokens, and the same in all.
    """

    network_loss: Tensor
    discriminator_loss: Tensor
    monitors: dict[str, float]


class Alignment(nn.Module):
    """One tap's discriminator and its game against the segmentation network.

    Args:
        settings: of the adversarial loss at this tap.
        game: how it is played.
        clusters: needed for clustered losses, for K, weighting and the fewest tokens.
        channels: of the tap's features.
        output_tap: whether the tap is the network's output, which patch discriminators see at the
            size of the input.

    Attributes:
        discriminator: its parameters are all that is trained here.
        clustered: whether :meth:`forward` needs assignments.

    Raises:
        ConfigError: for a clustered loss without clusters, or least squares on a softmax.
    """

    def __init__(
        self,
        settings: AlignmentSettings,
        game: GameSettings,
        clusters: ClusterSettings | None,
        channels: int,
        output_tap: bool,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.game = game
        self.clustered = settings.loss == "clustered"
        if self.clustered and clusters is None:
            raise ConfigError(
                f"alignments.{settings.tap}.loss",
                "clustered, without clusters",
                "settings of clusters",
                "Give clusters, or use the global loss.",
            )
        self.clusters = clusters if self.clustered else None
        self.joint = self.clustered and settings.discriminator.kind == "joint2K"
        if self.joint and game.loss == "least_squares":
            raise ConfigError(
                "game.loss",
                "least_squares with a joint2K discriminator",
                "a game on probabilities",
                "Use non_saturating, reversal or confusion: joint2K is one softmax.",
            )
        self.direction = direction_of(game)
        self.discriminator = build_discriminator(
            settings.discriminator,
            channels,
            self.clusters.count if self.clusters is not None else None,
            output_tap,
        )
        self._drops_out = drops_out(self.discriminator)

    @property
    def criterion(self) -> Criterion:
        """How the discriminator's outputs become losses."""
        if self.joint:
            return "joint"
        return "least_squares" if self.game.loss == "least_squares" else "cross_entropy"

    def forward(
        self,
        image_features: Tensor,
        video_features: Tensor,
        image_assignment: Tensor | None,
        video_assignment: Tensor | None,
        strength: float,
        size: tuple[int, int] | None = None,
        video_weight: Tensor | None = None,
    ) -> AlignmentResult:
        """Play one step.

        Args:
            image_features: float tokens ``(M, C)`` for a token discriminator, maps
                ``(N, C, h, w)`` for pixel and patch, clips ``(B, C, T, h, w)`` for patch3d, pairs
                of frames ``(N, 2C, h, w)`` for pair.
            video_features: the same of video.
            image_assignment: float ``(M, K)``, one row per position of the features, or maps
                ``(N, K, h'', w'')`` of any size. Rows sum to 1, or to 0 for rejected positions.
                No gradient passes. Ignored by global losses. A clustered loss is skipped while
                it is None, as before the first clustering.
            video_assignment: the same of video.
            strength: the factor of :func:`methods.adversarial.reversal.schedule`, in [0, 1].
                Lambda is this times ``settings.weight``; the multiplication is done here.
            size: height and width of the input in pixels, to which patch discriminators at output
                taps upsample (AdaptSegNet). None leaves the maps as they are.
            video_weight: float, laid out like the features with one channel: times which each
                position of video counts in both losses, as in CLAN. None is 1. The penalty on the
                discriminator's gradient and the accuracies are without it.

        Raises:
            MethodError: if shapes do not fit.
        """
        if self.clustered and (image_assignment is None or video_assignment is None):
            return self._skip(image_features, video_features)
        image = Judged(image_features, self._shares(image_features, image_assignment))
        video = Judged(video_features, self._shares(video_features, video_assignment), video_weight)
        balance = self._balance(image, video)
        strength = strength * self.settings.weight
        term = self._discriminator_term(image, video, balance, strength, size)
        network = self._network_loss(image, video, balance, strength, size)
        value, penalties = term.value, {}
        if self.settings.discriminator.penalty_weight > 0:
            penalty = self._penalty(image, video, balance, size)
            penalties["gradient_penalty"] = mean_over_processes(penalty.detach()).item()
            value = value + penalty
        if self._drops_out:
            # How well it does is told without dropout, which makes it look blinder than it is. Last
            # of all, since autocast keeps what it has cast, here without gradient.
            with nothing_dropped(self.discriminator):
                answers = self._discriminator_term(image, video, balance, 0.0, size)
            term = replace(answers, value=term.value)
        monitors = step_monitors(image, video, term, network, self.clustered)
        return AlignmentResult(network, value, monitors | penalties)

    def _shares(self, features: Tensor, assignment: Tensor | None) -> Tensor:
        """Assignments laid out like the features, or over one cluster for global losses."""
        if self.clusters is None or assignment is None:
            return features.new_ones((features.shape[0], 1, *features.shape[2:]), dtype=torch.float)
        if assignment.ndim < 2 or assignment.shape[1] != self.clusters.count:
            raise MethodError(
                f"alignment at {self.settings.tap}",
                f"assignments of shape {tuple(assignment.shape)}",
                f"{self.clusters.count} clusters in dimension 1",
                "Set clusters.count to the number of clusters that are assigned.",
            )
        shares = assignment.detach().float()
        if shares.ndim == 2:
            shares = unflatten_positions(shares, features)
        if self.joint:
            shares = soften_targets(shares, self.settings.discriminator.temperature)
        return shares

    def _balance(self, image: Judged, video: Judged) -> ClusterWeights:
        """Weights by masses before any pooling: ``fewest`` counts positions of the features."""
        masses = [flatten_positions(one.assignment).sum(0) for one in (image, video)]
        image_mass, video_mass = sum_over_processes(torch.stack(masses))
        if self.clusters is None:
            return cluster_weights(image_mass, video_mass, "uniform", 0)
        return cluster_weights(
            image_mass, video_mass, self.clusters.weighting, self.clusters.fewest
        )

    def _judge(
        self, judged: Judged, size: tuple[int, int] | None, constant: bool = False
    ) -> Judgement:
        """See :func:`methods.adversarial.judging.judge`."""
        return judge(self.discriminator, judged, self.settings.gate, size, constant)

    def _discriminator_term(
        self,
        image: Judged,
        video: Judged,
        balance: ClusterWeights,
        strength: float,
        size: tuple[int, int] | None,
    ) -> LossTerm:
        def seen(judged: Judged, moved: bool) -> Judged:
            if moved and self.game.loss == "reversal":
                return judged._replace(features=reverse_gradient(judged.features, strength))
            return judged._replace(features=judged.features.detach())

        of_image = self._judge(seen(image, self.direction == "both"), size)
        of_video = self._judge(seen(video, True), size)
        return discriminator_loss(
            of_image.logits,
            of_video.logits,
            of_image.share,
            of_video.share,
            balance,
            self.criterion,
            self.game.label_smoothing,
            self._clip,
            of_video.weight,
        )

    def _network_loss(
        self,
        image: Judged,
        video: Judged,
        balance: ClusterWeights,
        strength: float,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """Lambda times: make video look like images and, in both directions, the reverse."""
        if self.game.loss == "reversal" or strength == 0:
            return balance.weights.new_zeros(())
        confused = self.game.loss == "confusion"

        def loss(judged: Judged, target: float) -> Tensor:
            logits, share, weight = self._judge(judged, size, constant=True)
            return confounding_loss(
                logits, share, balance, target, self.criterion, self._clip, weight
            )

        video_loss = loss(video, 0.5 if confused else 0.0)
        if self.direction == "video_to_image":
            return strength * video_loss
        return strength * 0.5 * (video_loss + loss(image, 0.5 if confused else 1.0))

    def _penalty(
        self,
        image: Judged,
        video: Judged,
        balance: ClusterWeights,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """The weighted penalty on the discriminator's gradient, mean of both domains."""
        settings, smoothing = self.settings.discriminator, self.game.label_smoothing

        def penalty(judged: Judged, target: float) -> Tensor:
            def scores(features: Tensor) -> Tensor:
                logits, share, _ = self._judge(judged._replace(features=features), size)
                if settings.penalty == "logit":
                    values = domain_logits(logits, self.criterion)
                else:
                    values = domain_losses(logits, self.criterion).mixed(target)
                return (values * share.clamp(max=self._clip) * balance.valid).sum(1)

            return squared_gradient_norm(scores, judged.features)

        both = penalty(image, smoothing) + penalty(video, 1 - smoothing)
        return settings.penalty_weight * 0.5 * both

    @property
    def _clip(self) -> float:
        return self.settings.discriminator.clip if self.joint else 1.0

    def _skip(self, image_features: Tensor, video_features: Tensor) -> AlignmentResult:
        """Nothing to play for: no assignments yet."""
        zero = image_features.new_zeros((), dtype=torch.float)
        count = 0 if self.clusters is None else self.clusters.count
        unknown = torch.full_like(zero, math.nan)
        term = LossTerm(zero, unknown, unknown, unknown.expand(count), skipped=True)
        image, video = Judged(image_features, zero), Judged(video_features, zero)
        return AlignmentResult(zero, zero, step_monitors(image, video, term, zero, self.clustered))
