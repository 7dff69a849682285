"""The adversary's part of the recipe: discriminators, where they look, clusters, and the game.

Names follow the literature. The paper's own hyper-parameters are not public; the defaults are ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bench.method import MethodSettings
from methods.adversarial.taps import AUXILIARY_TAPS, OUTPUT_TAPS, AlignmentTap, is_output


class DiscriminatorSettings(MethodSettings):
    """The network that tells images from video.

    Attributes:
        network: ``"token"`` judges positions on their own, ``"pixel"`` with their neighbours,
            ``"patch"`` regions of maps, ``"patch3d"`` those of clips, ``"pair"`` those of two
            adjacent frames' output maps (after DA-VSN; images need ``images_as`` camera paths).
            Regions are 32 pixels of output maps, which are brought to the input's size, and 32
            positions of others, which are enlarged where they have fewer.
        kind: ``"per_cluster"`` (one output per cluster), ``"shared_balanced"`` (one discriminator,
            domains balanced within clusters), ``"conditioned"`` (one, told the cluster),
            ``"joint2K"`` (one softmax over domain and cluster). Ignored by global losses.
        conditioning: how ``"conditioned"`` is told: ``"concatenated"`` to the features, or by
            ``"projection"`` of the last hidden ones on the cluster's embedding (Miyato and Koyama).
        shared_trunk: whether ``"per_cluster"`` shares all but the output layer.
        width: of hidden layers.
        dropout: between hidden layers of ``"token"``.
        spectral_norm: whether every layer's largest singular value is kept at 1 (Miyato et al.).
            Dropout stays as it is set; the two are usually alternatives.
        temperature: of the soft targets of ``"joint2K"``.
        clip: largest entry of these targets.
        penalty_weight: of the squared norm of its gradient in the features, for each position that
            it judges; 0 for none.
        penalty: whose gradient: ``"loss"``, the discriminator's (DomainBed), or ``"logit"``, that
            of its logit (R1).
    """

    network: Literal["token", "pixel", "patch", "patch3d", "pair"] = "token"
    kind: Literal["per_cluster", "shared_balanced", "conditioned", "joint2K"] = "per_cluster"
    conditioning: Literal["concatenated", "projection"] = "concatenated"
    shared_trunk: bool = True
    width: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    spectral_norm: bool = False
    temperature: float = Field(default=1.8, gt=0)
    clip: float = Field(default=0.9, gt=0, le=1)
    penalty_weight: float = Field(default=0.0, ge=0)
    penalty: Literal["loss", "logit"] = "loss"


class DisagreementSettings(MethodSettings):
    """Weights of positions by how much two classifiers disagree there (CLAN).

    The classifiers are the main head and the auxiliary one. Those of the paper take the same
    features, and a further loss keeps their weights apart; these differ in what they take.

    Attributes:
        epsilon: the weight where they agree.
        factor: beta, of one minus the cosine of their class probabilities.
    """

    epsilon: float = Field(default=0.4, ge=0)
    factor: float = Field(default=40.0, ge=0)


class AlignmentSettings(MethodSettings):
    """An adversarial loss at one tap.

    Attributes:
        tap: where. The outputs of the auxiliary head need ``training.auxiliary_weight``; with
            those of the main one they are AdaptSegNet's two levels.
        loss: over all positions at once, or within clusters of them.
        weight: lambda's largest value.
        gate: where a position's share of a cluster enters: the ``"loss"`` of that cluster, which
            it weighs, or the ``"input"`` of that cluster's discriminator (MADA), for ``"token"``
            networks alone: in a map, the gates' outline would tell the domains apart.
        disagreement: how much each position of video counts, where two classifiers tell its class;
            for the global loss. None counts all alike. It needs ``training.auxiliary_weight``.
        discriminator: the opponent.
    """

    tap: AlignmentTap
    loss: Literal["global", "clustered"] = "global"
    weight: float = Field(default=0.01, ge=0)
    gate: Literal["loss", "input"] = "loss"
    disagreement: DisagreementSettings | None = None
    discriminator: DiscriminatorSettings = DiscriminatorSettings()

    @model_validator(mode="after")
    def _fits(self) -> AlignmentSettings:
        network, joint = self.discriminator.network, self.discriminator.kind == "joint2K"
        if self.loss == "clustered" and network in ("patch", "patch3d") and joint:
            raise ValueError(
                f"joint2K needs a token or pixel discriminator, not {network}; set "
                "discriminator.network to one of them, or discriminator.kind to per_cluster"
            )
        if network == "pair" and (self.loss == "clustered" or not is_output(self.tap)):
            outputs = ", ".join(OUTPUT_TAPS + AUXILIARY_TAPS)
            raise ValueError(
                f"a pair discriminator needs the global loss and a tap among {outputs}; set "
                "discriminator.network to token, pixel or patch for clusters and for features"
            )
        if self.disagreement is not None and self.loss == "clustered":
            raise ValueError(
                "disagreement needs the global loss; leave it out, or set loss to global"
            )
        if self.gate == "input" and (self.loss == "global" or network != "token" or joint):
            raise ValueError(
                "gate=input needs the clustered loss and a token discriminator of another kind "
                "than joint2K; set gate to loss with others"
            )
        return self


class GameSettings(MethodSettings):
    """How network and discriminators play.

    Attributes:
        loss: ``"reversal"`` (DANN), ``"non_saturating"`` (AdaptSegNet), ``"least_squares"``, or
            ``"confusion"``.
        direction: which domain's features are moved: ``"both"``, or ``"video_to_image"``. None is
            the usual one: both for reversal and confusion, video to image for the others.
        schedule: of lambda over the training: DANN's, constant, or linear decay.
        start: share of the training before which lambda is 0.
        discriminator_steps: optimiser steps in which the discriminators alone learn, before each
            step in which the network and they learn together (DomainBed alternates so, and searches
            1 to 7). They are steps of the budget: with n of them the network learns in one of
            ``n + 1`` steps, and lambda grows over the whole budget as ever. Before ``start`` the
            network learns in every step, since there is no game to lose them to.
        discriminator_learning_rate: of their Adam.
        label_smoothing: of the discriminators' domain targets.
    """

    loss: Literal["reversal", "non_saturating", "least_squares", "confusion"] = "reversal"
    direction: Literal["both", "video_to_image"] | None = None
    schedule: Literal["dann", "constant", "linear_decay"] = "dann"
    start: float = Field(default=0.1, ge=0, lt=1)
    discriminator_steps: int = Field(default=0, ge=0)
    discriminator_learning_rate: float = Field(default=1e-4, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)


class ClusterSettings(MethodSettings):
    """What a cluster of features is.

    Attributes:
        features: that are clustered: the tap's own, those of a moving average of the network, of
            the network as it was at first, or of its embedding.
        how: ``"kmeans_epoch"`` (faiss on a bank of tokens at every refresh), ``"ema"`` (prototypes
            followed per step), ``"batch"`` (Lloyd steps inside a batch), ``"prediction"`` (the
            predicted class), ``"sinkhorn"``, ``"random"`` (control), ``"truth"`` (classes of both
            domains, an analysis, never a method).
        count: K.
        refresh: steps between k-means runs.
        bank: tokens that k-means sees, half of each domain.
        dimensions: of the PCA fitted once before clustering; None keeps all.
        center: subtract no mean, a joint one, or one per domain before k-means.
        assignment: ``"hard"``, ``"soft"``, or ``"margin"`` (hard, tokens near a border rejected).
        temperature: of soft assignments to prototypes; ``"sinkhorn"`` has an epsilon of its own
            instead.
        margin: least difference of the two best cosines.
        clip: largest soft assignment; None for no limit.
        match: whether clusters keep their identity over a refresh (Hungarian matching). It concerns
            ``"kmeans_epoch"`` alone: the clusters of all others are never found anew.
        weighting: of clusters in the loss.
        fewest: tokens of each domain that a cluster needs in a batch to count, those of all
            processes together.
        decay: of ``"ema"`` prototypes per step.
        teacher_decay: of the network's moving average per step.
        confidence: least probability of a ``"prediction"`` that counts.
        image_source: clusters of image tokens with ``"prediction"``: their labels or predictions.
    """

    features: Literal["self", "teacher", "frozen", "embed"] = "teacher"
    how: Literal["kmeans_epoch", "ema", "batch", "prediction", "sinkhorn", "random", "truth"] = (
        "kmeans_epoch"
    )
    count: int = Field(default=8, ge=1)
    refresh: int = Field(default=500, ge=1)
    bank: int = Field(default=32768, ge=64)
    dimensions: int | None = Field(default=64, ge=1)
    center: Literal["none", "joint", "per_domain"] = "none"
    assignment: Literal["hard", "soft", "margin"] = "hard"
    temperature: float = Field(default=0.1, gt=0)
    margin: float = Field(default=0.02, ge=0)
    clip: float | None = Field(default=None, gt=0, le=1)
    match: bool = True
    weighting: Literal["min", "uniform", "mass", "sqrt"] = "min"
    fewest: float = Field(default=32, ge=0)
    decay: float = Field(default=0.99, ge=0, lt=1)
    teacher_decay: float = Field(default=0.999, ge=0, lt=1)
    confidence: float = Field(default=0.0, ge=0, le=1)
    image_source: Literal["labels", "predictions"] = "labels"
