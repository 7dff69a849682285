"""What goes wrong in adversarial training, measured: clusters, discriminators, features.

A clustered loss fails silently. If clusters hold one domain each, or too few tokens, nothing is
aligned; if they change their meaning, discriminators play against the wrong tokens. A
discriminator that always wins gives no useful gradient, and one that always loses may face
features that have collapsed rather than ones that agree.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adversarial.watches import WON_LOSS, WON_STEPS

LARGEST_DOMAIN_NMI = 0.3
LARGEST_SKIPPED_SHARE = 0.5
LARGEST_CHURN = 0.5
"""Above any of these three, a clustered loss does little of what it should."""

CHANCE = 0.05
"""Furthest from 0.5 that both domains' accuracies are with a discriminator that guesses."""

PATIENCE = 0.5
"""Share of the training after which a discriminator should once have told the domains apart. It is
examined then, however far apart examinations are otherwise."""

CLUSTER_PATIENCE = 0.5
"""Share of what follows the game's start after which there should be clusters. It is examined then,
too. As a rule the bank has tokens enough after a quarter of ``clusters.refresh`` steps."""

COLLAPSED_SHARE = 0.1
"""Features have collapsed where their norm or participation ratio fell to this share."""

COLUMNS = ("iteration", "tap", "monitor", "value")


@dataclass(frozen=True)
class ClusterHealth:
    """How clusters lie to domains and classes, and what of them can be used.

    Attributes:
        occupancy: float ``(2, K)``, share of each domain's assigned tokens (images first) in every
            cluster; rows sum to 1, or to 0 without any token.
        entropy: of the mean of both rows in nats; ln K where clusters are equally large.
        balance: float ``(K,)``, the smaller of the two domains' occupancies by the larger; 1 where
            domains are mixed, 0 in clusters of one domain, NaN in empty ones.
        purity: share of tokens that belong to the more frequent domain of their cluster, where
            both domains count alike however many tokens they have; 0.5 at best, and 1 where every
            cluster has one domain.
        nmi_domain: normalised mutual information of cluster and domain; near 0 where all is well.
        nmi_class: of cluster and true class on labelled images, or None without labels.
        skipped_share: share of tokens that get no gradient: rejected, or in a cluster with too few
            tokens of a domain.
        churn: share of tokens that changed cluster at the last refresh; NaN if unknown.
    """

    occupancy: Tensor
    entropy: float
    balance: Tensor
    purity: float
    nmi_domain: float
    nmi_class: float | None
    skipped_share: float
    churn: float

    def monitors(self) -> dict[str, float]:
        """All of it by name, with numbers of clusters at the end, for :class:`MonitorLog`."""
        values = {
            "clusters_entropy": self.entropy,
            "clusters_purity": self.purity,
            "clusters_nmi_domain": self.nmi_domain,
            "clusters_skipped_share": self.skipped_share,
            "clusters_churn": self.churn,
        }
        if self.nmi_class is not None:
            values["clusters_nmi_class"] = self.nmi_class
        for name, row in (
            ("occupancy_image", self.occupancy[0]),
            ("occupancy_video", self.occupancy[1]),
            ("balance", self.balance),
        ):
            values |= {f"clusters_{name}_{k}": value for k, value in enumerate(row.tolist())}
        return values


@dataclass(frozen=True)
class DiscriminatorHealth:
    """How a discriminator and the features it sees are doing.

    Attributes:
        accuracy_image: share of image tokens that it calls image.
        accuracy_video: share of video tokens that it calls video.
        won_steps: of :class:`methods.adversarial.watches.LossWatch`.
        feature_norm: mean L2 norm of the features now.
        first_feature_norm: the same before the adversarial loss set in; NaN until it has.
        participation: :func:`participation_ratio` of the features now.
        first_participation: the same before the adversarial loss set in; NaN until it has.
        learned_for: share of the training since it first judged, and
        best_accuracy: the highest average of its accuracy meanwhile, mean of both domains; see
            :class:`methods.adversarial.watches.AccuracyWatch`.
    """

    accuracy_image: float
    accuracy_video: float
    won_steps: int
    feature_norm: float
    first_feature_norm: float
    participation: float
    first_participation: float
    learned_for: float
    best_accuracy: float

    @property
    def won(self) -> bool:
        """Whether its loss has been next to nothing for long."""
        return self.won_steps >= WON_STEPS

    @property
    def guesses(self) -> bool:
        """Whether it tells neither domain better than chance."""
        accuracies = (self.accuracy_image, self.accuracy_video)
        return all(abs(accuracy - 0.5) <= CHANCE for accuracy in accuracies)

    @property
    def lost(self) -> list[str]:
        """What the features have lost almost all of since the game began, as phrases."""
        return [
            f"{name} fell from {first:.3g} to {now:.3g}"
            for name, now, first in (
                ("norm", self.feature_norm, self.first_feature_norm),
                ("participation ratio", self.participation, self.first_participation),
            )
            if now < COLLAPSED_SHARE * first
        ]

    @property
    def collapsed(self) -> bool:
        """Whether the game is over: the discriminator has won, or has nothing left to see."""
        return self.won or (self.guesses and bool(self.lost))


def cluster_health(
    image_assignment: Tensor,
    video_assignment: Tensor,
    fewest: float,
    image_labels: Tensor | None = None,
    churn: float = math.nan,
) -> ClusterHealth:
    """Examine a batch's assignments.

    Args:
        image_assignment: float ``(M, K)``; rows of zeros are rejected tokens.
        video_assignment: float ``(M', K)``.
        fewest: tokens of each domain that a cluster needs to count.
        image_labels: int64 ``(M,)``; negative ones and 255 are unknown.
        churn: of the last refresh.
    """
    assignments = [image_assignment.double(), video_assignment.double()]
    mass = torch.stack([assignment.sum(0) for assignment in assignments])
    occupancy = mass / mass.sum(1, keepdim=True).clamp_min(1e-12)
    shares = occupancy.mean(0)
    valid = (mass >= fewest).all(0)
    used = sum(_rows_to_one(assignment)[:, valid].sum() for assignment in assignments)
    tokens = sum(len(assignment) for assignment in assignments)
    nmi_class = None
    if image_labels is not None:
        known = (image_labels >= 0) & (image_labels != 255)
        classes = F.one_hot(image_labels[known].long()).double()
        nmi_class = normalised_mutual_information(assignments[0][known].T @ classes)
    return ClusterHealth(
        occupancy=occupancy,
        entropy=float(torch.special.entr(shares).sum()),
        balance=occupancy.amin(0) / occupancy.amax(0),  # 0 / 0 is NaN for empty clusters
        purity=float(occupancy.amax(0).sum() / occupancy.sum()),
        nmi_domain=normalised_mutual_information(mass.T),
        nmi_class=nmi_class,
        skipped_share=1 - float(used) / max(tokens, 1),
        churn=churn,
    )


def normalised_mutual_information(contingency: Tensor) -> float:
    """Mutual information of two partitions by the mean of their entropies.

    Args:
        contingency: float ``(A, B)``, mass of tokens in each pair of groups.

    Returns:
        Between 0, independent, and 1, the same groups; 0 where either has but one group, or
        there is no token at all.
    """
    total = contingency.sum()
    if total <= 0:
        return 0.0
    joint = contingency.double() / total
    entropies = [float(torch.special.entr(joint.sum(axis)).sum()) for axis in (0, 1)]
    if min(entropies) <= 0:
        return 0.0
    information = sum(entropies) - float(torch.special.entr(joint).sum())
    return max(0.0, information / (sum(entropies) / 2))


def participation_ratio(features: Tensor) -> float:
    """How many directions features spread over: ``(sum of variances)^2 / sum of their squares``.

    The variances are those along the principal directions.

    Args:
        features: float ``(M, C)``.

    Returns:
        Between 1, all on a line, and min(C, M - 1); 0 where all are the same.
    """
    centred = features.detach().double() - features.detach().double().mean(0)
    gram = centred.T @ centred if len(centred) > centred.shape[1] else centred @ centred.T
    squares = float(gram.square().sum())
    return float(gram.trace()) ** 2 / squares if squares > 0 else 0.0


def alarms(
    clusters: ClusterHealth | None = None,
    discriminator: DiscriminatorHealth | None = None,
    unclustered: float = 0.0,
) -> list[str]:
    """What should worry, each as a sentence; nothing where all is well or unknown.

    Args:
        clusters: of a tap with a clustered loss.
        discriminator: of any tap.
        unclustered: of :class:`methods.adversarial.watches.IdleWatch`.
    """
    found = []
    if unclustered >= CLUSTER_PATIENCE:
        found.append(
            f"There are still no clusters after {unclustered:.0%} of the game, so the clustered "
            "loss does nothing: too few tokens have been collected. Lower clusters.refresh, so "
            "that each step adds more of them, or clusters.bank, or train longer."
        )
    if clusters is not None:
        found += _cluster_alarms(clusters)
    if discriminator is not None:
        found += _discriminator_alarms(discriminator)
    return found


def _cluster_alarms(health: ClusterHealth) -> list[str]:
    found = []
    if health.nmi_domain > LARGEST_DOMAIN_NMI:
        found.append(
            f"Clusters follow the domain (NMI {health.nmi_domain:.2f}), so the clustered loss does "
            "almost nothing; cluster teacher or frozen features, or change the number of clusters."
        )
    if health.skipped_share > LARGEST_SKIPPED_SHARE:
        found.append(
            f"{health.skipped_share:.0%} of the tokens are rejected or in clusters with too few "
            "tokens of a domain, so the clustered loss does almost nothing; use fewer clusters, "
            "more tokens, or a lower limit."
        )
    if health.churn > LARGEST_CHURN:
        found.append(
            f"{health.churn:.0%} of the tokens changed cluster at the last refresh, so "
            "discriminators are out of date; refresh more often, or cluster teacher features."
        )
    return found


def _discriminator_alarms(health: DiscriminatorHealth) -> list[str]:
    found = []
    if health.won:
        found.append(
            f"The discriminator has won: its loss was below {WON_LOSS} for {health.won_steps} "
            "steps in a row. Training has collapsed; lower the discriminator's learning rate, make "
            "it smaller, use dropout or label smoothing, or start later."
        )
    if health.guesses and health.lost:
        found.append(
            "The discriminator guesses because features have collapsed since the adversarial loss "
            f"set in: their {health.lost[0]}; lower the weight of the adversarial loss."
        )
    if health.learned_for >= PATIENCE and health.best_accuracy <= 0.5 + CHANCE:
        found.append(
            "The discriminator has never told the domains apart (accuracy "
            f"{health.best_accuracy:.2f} at best, in {health.learned_for:.0%} of the training), so "
            "the adversarial loss does almost nothing; raise the discriminator's learning rate, "
            "use less dropout, or train longer."
        )
    return found


def _rows_to_one(assignment: Tensor) -> Tensor:
    """Rows scaled to sum to 1; those of zeros stay."""
    return assignment / assignment.sum(1, keepdim=True).clamp_min(1e-12)


class MonitorLog:
    """``monitors.csv``: one row per measured number, in columns ``iteration, tap, monitor, value``.

    Args:
        path: of the file. It is begun anew, or continued where training resumes.
        resumed_at: last iteration whose rows stay; None for a new training.
    """

    def __init__(self, path: Path, resumed_at: int | None = None) -> None:
        self.path = path
        kept: list[list[str]] = []
        if resumed_at is not None and path.is_file():
            with path.open(newline="") as file:
                rows = list(csv.reader(file))[1:]
            # A row that was cut short when the process was killed is of a later iteration.
            kept = [row for row in rows if len(row) == len(COLUMNS) and int(row[0]) <= resumed_at]
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *kept])
        temporary.replace(path)

    def write(self, iteration: int, monitors: Mapping[str, float], tap: str = "") -> None:
        """Append numbers measured in an iteration; NaN, which was not measured, is left out."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(
                (iteration, tap, name, f"{value:.6g}")
                for name, value in monitors.items()
                if not math.isnan(value)
            )
