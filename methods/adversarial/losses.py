"""Domain losses, over all positions or within clusters of them.

Domains are image (0) and video (1). A discriminator's logit is that of "video".

Sources: Ganin et al., Domain-adversarial training of neural networks (DANN), JMLR 2016, for the
loss over all positions; Tsai et al., Learning to adapt structured output space (AdaptSegNet),
CVPR 2018, for least squares; Wang et al., Classes matter: a fine-grained adversarial approach
(FADA), ECCV 2020, for the softmax over domain and class; "Learning from labeled images and
unlabeled videos for video segmentation" (submission to ICLR 2023) for discriminating within
clusters. Its equations are not public: the balance of domains and the weights of clusters are ours.

Where several processes train, masses and accuracies are those of all their tokens, and the mean of
the processes' losses is the loss of all tokens together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import MethodError
from methods.adversarial.processes import mean_over_processes, sum_over_processes

Criterion = Literal["cross_entropy", "least_squares", "joint"]
"""How an output becomes a loss: of one logit, of one raw value, or of a softmax over 2K."""

Weighting = Literal["min", "uniform", "mass", "sqrt"]


class ClusterWeights(NamedTuple):
    """How much each cluster counts in the loss.

    Attributes:
        weights: float ``(K,)``; they sum to 1, or to 0 where no cluster is valid.
        valid: bool ``(K,)``, whether both domains have enough tokens in the cluster.
    """

    weights: Tensor
    valid: Tensor


class DomainLosses(NamedTuple):
    """What it costs to call positions image, and to call them video.

    Attributes:
        image: float32 ``(M, 1)`` or, where the discriminator depends on the cluster, ``(M, K)``.
        video: of the same shape.
    """

    image: Tensor
    video: Tensor

    def mixed(self, video_share: float) -> Tensor:
        """The loss against a soft target, e.g. 0.5 for "could be either"."""
        return (1 - video_share) * self.image + video_share * self.video


@dataclass(frozen=True)
class LossTerm:
    """A discriminator's loss and how well it did. Accuracies are NaN where nothing was judged.

    Attributes:
        value: scalar with gradient; exactly 0, with zero gradient, if ``skipped``.
        image_accuracy: scalar, share of image positions in valid clusters that are called image.
        video_accuracy: scalar, the same for video.
        cluster_accuracy: float ``(K,)``, mean of both domains' accuracies in each cluster that is
            valid.
        skipped: whether no cluster was valid.
    """

    value: Tensor
    image_accuracy: Tensor
    video_accuracy: Tensor
    cluster_accuracy: Tensor
    skipped: bool


def cluster_weights(
    image_mass: Tensor, video_mass: Tensor, weighting: Weighting, fewest: float
) -> ClusterWeights:
    """Weigh the clusters by their shares of both domains.

    A cluster's share of a domain is its mass over the domain's mass in all clusters. ``"min"`` is
    proportional to the smaller share, ``"mass"`` to the mean of both, ``"sqrt"`` to the square
    root of that mean, and ``"uniform"`` is the same for all valid clusters.

    Args:
        image_mass: float ``(K,)``, sum of the assignments of image tokens.
        video_mass: float ``(K,)``, of video tokens.
        weighting: see above.
        fewest: mass that a valid cluster needs in each domain; it is never valid without any.
    """
    valid = torch.minimum(image_mass, video_mass) >= fewest
    valid = valid & (image_mass > 0) & (video_mass > 0)
    image_share = _safe_divide(image_mass, image_mass.sum())
    video_share = _safe_divide(video_mass, video_mass.sum())
    if weighting == "min":
        weights = torch.minimum(image_share, video_share)
    elif weighting == "uniform":
        weights = torch.ones_like(image_share)
    elif weighting == "mass":
        weights = (image_share + video_share) / 2
    else:
        weights = ((image_share + video_share) / 2).sqrt()
    weights = weights * valid
    return ClusterWeights(_safe_divide(weights, weights.sum()), valid)


def domain_losses(logits: Tensor, criterion: Criterion) -> DomainLosses:
    """Losses of both answers at every position.

    Args:
        logits: float ``(M, 1)`` or ``(M, K)``; for ``"joint"`` ``(M, 2K)``, K outputs for "image
            and this cluster", then K for "video and this cluster".
        criterion: ``"cross_entropy"`` takes the sigmoid's, ``"least_squares"`` the squared
            distance of the raw output to 0 (image) or 1 (video), ``"joint"`` the softmax's.
    """
    logits = logits.float()
    if criterion == "cross_entropy":
        return DomainLosses(F.softplus(logits), F.softplus(-logits))
    if criterion == "least_squares":
        return DomainLosses(logits.square(), (logits - 1).square())
    image, video = F.log_softmax(logits, dim=1).chunk(2, dim=1)
    return DomainLosses(-image, -video)


def domain_logits(logits: Tensor, criterion: Criterion) -> Tensor:
    """The logit of "video" at every position, float32 ``(M, 1)`` or ``(M, K)``.

    Args:
        logits: see :func:`domain_losses`; of a softmax over domain and cluster, the logit between
            both domains within each cluster.
        criterion: see :func:`domain_losses`.
    """
    logits = logits.float()
    if criterion != "joint":
        return logits
    image, video = logits.chunk(2, dim=1)
    return video - image


def soften_targets(assignment: Tensor, temperature: float) -> Tensor:
    """Flatten a distribution over clusters as FADA's temperature does.

    Powers of a softmax are softmaxes of its scaled logits, so that no logits are needed. A one-hot
    row stays as it is.

    Args:
        assignment: float ``(M, K)`` or ``(N, K, ...)``; sums over K are 1, or 0 for rejected
            positions, which stay rejected.
        temperature: above 1 flattens.
    """
    powers = assignment.pow(1 / temperature)
    return _safe_divide(powers, powers.sum(1, keepdim=True))


def clustered_mean(
    losses: Tensor, assignment: Tensor, balance: ClusterWeights, clip: float = 1.0
) -> Tensor:
    """Weighted sum over valid clusters of the mean loss of one domain's positions in each.

    Args:
        losses: float ``(M, 1)`` or ``(M, K)``.
        assignment: float ``(M, K)``.
        balance: of the clusters.
        clip: largest entry of the assignment that counts. Entries are not normalised again.

    Returns:
        A scalar, 0 where no cluster is valid.
    """
    # Invalid clusters are divided by 1 and then weighted by 0: neither value nor gradient is NaN.
    mass = torch.where(balance.valid, mean_over_processes(assignment.sum(0)), 1)
    means = (assignment.clamp(max=clip) / mass * losses).sum(0)
    return (balance.weights * means).sum()


def discriminator_loss(
    image_logits: Tensor,
    video_logits: Tensor,
    image_assignment: Tensor | None,
    video_assignment: Tensor | None,
    balance: ClusterWeights | None = None,
    criterion: Criterion = "cross_entropy",
    label_smoothing: float = 0.0,
    clip: float = 1.0,
    video_weight: Tensor | None = None,
) -> LossTerm:
    """Tell image from video: per valid cluster, half the mean over each domain's positions.

    Args:
        image_logits: float ``(M, outputs)``, see :func:`domain_losses`.
        video_logits: float ``(M', outputs)``.
        image_assignment: float ``(M, K)``; None puts all positions into one cluster, which gives
            DANN's loss with both domains counting the same.
        video_assignment: float ``(M', K)`` or None.
        balance: of the clusters. None weighs them by ``"min"``, whatever their masses.
        criterion: see :func:`domain_losses`.
        label_smoothing: share of each target that is given to the wrong domain.
        clip: see :func:`clustered_mean`.
        video_weight: float ``(M', 1)``, times which the losses of video count; None is 1.

    Raises:
        MethodError: if outputs and assignments do not fit together.
    """
    image_share, video_share = _shares(
        image_logits, image_assignment, video_logits, video_assignment
    )
    outputs = image_logits.shape[1] // (2 if criterion == "joint" else 1)
    _check_shapes(image_logits, image_share, outputs)
    _check_shapes(video_logits, video_share, outputs)
    if balance is None:
        masses = sum_over_processes(torch.stack([image_share.sum(0), video_share.sum(0)]))
        balance = cluster_weights(masses[0], masses[1], "min", 0)
    image = domain_losses(image_logits, criterion)
    video = domain_losses(video_logits, criterion)
    value = 0.5 * (
        clustered_mean(image.mixed(label_smoothing), image_share, balance, clip)
        + clustered_mean(
            _weighted(video.mixed(1 - label_smoothing), video_weight), video_share, balance, clip
        )
    )
    with torch.no_grad():
        right_image = _preferred(image.image, image.video) * image_share
        right_video = _preferred(video.video, video.image) * video_share
        counts = [rows.sum(0) for rows in (right_image, right_video, image_share, video_share)]
        # One exchange between processes for all of them.
        right_image, right_video, image_mass, video_mass = (
            sum_over_processes(torch.stack(counts)) * balance.valid
        )
        per_cluster = right_image / image_mass + right_video / video_mass
        return LossTerm(
            value,
            right_image.sum() / image_mass.sum(),
            right_video.sum() / video_mass.sum(),
            per_cluster / 2,
            skipped=not bool(balance.valid.any()),
        )


def confounding_loss(
    logits: Tensor,
    assignment: Tensor | None,
    balance: ClusterWeights,
    target: float,
    criterion: Criterion = "cross_entropy",
    clip: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """What the segmentation network minimises to make one domain's positions look otherwise.

    Args:
        logits: float ``(M, outputs)`` of one domain.
        assignment: float ``(M, K)``, or None for one cluster.
        balance: of the clusters.
        target: 0 to look like images, 1 to look like video, 0.5 to look like either.
        criterion: see :func:`domain_losses`.
        clip: see :func:`clustered_mean`.
        weight: float ``(M, 1)``, times which each position counts; None is 1.

    Returns:
        A scalar.
    """
    share = logits.new_ones((len(logits), 1)) if assignment is None else assignment
    losses = _weighted(domain_losses(logits, criterion).mixed(target), weight)
    return clustered_mean(losses, share, balance, clip)


def _weighted(losses: Tensor, weight: Tensor | None) -> Tensor:
    return losses if weight is None else losses * weight


def _safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, 0 where the denominator is."""
    return numerator / torch.where(denominator > 0, denominator, 1)


def _preferred(loss: Tensor, other: Tensor) -> Tensor:
    """1 where ``loss`` is the smaller, 0 where it is the larger; ties are half right."""
    return 0.5 * (1 + torch.sign(other - loss))


def _shares(
    image_logits: Tensor,
    image_assignment: Tensor | None,
    video_logits: Tensor,
    video_assignment: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Assignments without gradient; one cluster where there are none."""
    if image_assignment is None or video_assignment is None:
        return (
            torch.ones_like(image_logits[:, :1], dtype=torch.float32),
            torch.ones_like(video_logits[:, :1], dtype=torch.float32),
        )
    return image_assignment.detach().float(), video_assignment.detach().float()


def _check_shapes(logits: Tensor, assignment: Tensor, outputs: int) -> None:
    clusters = assignment.shape[1]
    if len(logits) != len(assignment) or outputs not in (1, clusters):
        raise MethodError(
            "adversarial assignment",
            f"shape {tuple(assignment.shape)} for logits {tuple(logits.shape)}",
            "one row per position, and one output or one per cluster",
            "Assign the tokens that are judged, to as many clusters as the discriminator has.",
        )
