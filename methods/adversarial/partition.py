"""What defines clusters: the common interface, and partitions that need no prototypes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import ConfigError
from methods.adversarial.adversary_settings import ClusterSettings


@dataclass(frozen=True)
class TokenContext:
    """What is known of tokens besides their features.

    Attributes:
        domain: 0 for images, 1 for video.
        labels: int64 ``(M,)``, true classes; those outside 0 to K-1 are unknown.
        probabilities: float ``(M, K)``, of the classes by the network or its moving average.
    """

    domain: int
    labels: Tensor | None = None
    probabilities: Tensor | None = None


@dataclass(frozen=True)
class Refresh:
    """What a refresh did. Clusters keep their numbers, so discriminators stay where they are.

    Attributes:
        copied: pairs (source, target): the cluster ``target`` died and is now one half of
            ``source``, whose discriminator it needs.
        churn: share of the bank's tokens whose cluster changed since the last refresh; NaN at the
            first and for partitions without prototypes.
        imbalance: faiss' imbalance factor, 1 at best and K at worst; NaN where k-means did not run.
        splits: empty clusters that faiss filled by splitting others.
    """

    copied: tuple[tuple[int, int], ...] = ()
    churn: float = math.nan
    imbalance: float = math.nan
    splits: int = 0


class Membership(NamedTuple):
    """How tokens stand to clusters, before a rule of assignment is applied.

    Attributes:
        similarity: float ``(M, K)``, the larger the closer.
        probability: float ``(M, K)``, rows sum to 1; what soft assignment uses.
        accepted: bool ``(M,)``, False for tokens that belong nowhere.
    """

    similarity: Tensor
    probability: Tensor
    accepted: Tensor


class Partition(Protocol):
    """A way to define clusters. All are modules with their state in buffers."""

    @property
    def ready(self) -> bool:
        """Whether clusters exist."""

    def collect(self, image_tokens: Tensor, video_tokens: Tensor) -> None:
        """See a batch: float ``(M, C)`` and ``(M', C)``."""

    def due(self, step: int) -> bool:
        """Whether to call ``refresh`` in this step."""

    def refresh(self) -> Refresh:
        """Make clusters, or make them anew."""

    def membership(self, tokens: Tensor, context: TokenContext) -> Membership:
        """Compare tokens ``(M, C)`` with clusters."""


class Stateless(nn.Module):
    """Base of partitions that never change."""

    def __init__(self, settings: ClusterSettings, channels: int, seed: int) -> None:
        super().__init__()
        self.settings = settings

    @property
    def ready(self) -> bool:
        """Always."""
        return True

    def collect(self, image_tokens: Tensor, video_tokens: Tensor) -> None:
        """Nothing is learned from a batch."""

    def due(self, step: int) -> bool:
        """As often as others, so that the clusters' health is measured as often."""
        return step > 0 and step % self.settings.refresh == 0

    def refresh(self) -> Refresh:
        """Nothing changes."""
        return Refresh()


class TrueClasses(Stateless):
    """Clusters are the true classes in both domains: an analysis, never a method."""

    def membership(self, tokens: Tensor, context: TokenContext) -> Membership:
        """Take the labels for clusters.

        Raises:
            ConfigError: there are none.
        """
        return by_label(_labels(context), self.settings.count)


class PredictedClasses(Stateless):
    """Clusters are predicted classes where the prediction is confident; images may use labels.

    Source: after the class-wise discriminators of Wang et al., FADA, ECCV 2020, and the confident
    teacher of Deng et al., CAT, ICCV 2019.
    """

    def membership(self, tokens: Tensor, context: TokenContext) -> Membership:
        """Take the predictions for clusters, or the labels of images.

        Raises:
            ConfigError: there are none, or of another number of classes than clusters.
        """
        if context.domain == 0 and self.settings.image_source == "labels":
            return by_label(_labels(context), self.settings.count)
        probability = context.probabilities
        if probability is None or probability.shape[1] != self.settings.count:
            raise ConfigError(
                "clusters.count",
                "no predictions" if probability is None else f"{probability.shape[1]} classes",
                f"predictions of {self.settings.count} classes",
                "With clusters of predicted classes, set it to the number of classes.",
            )
        accepted = probability.amax(1) >= self.settings.confidence
        return Membership(probability.float(), probability.float(), accepted)


class RandomBins(Stateless):
    """Clusters are the bins of a hash of the token's bits: a control without any meaning.

    The same token always falls into the same bin, and similar tokens into unrelated ones.
    """

    def __init__(self, settings: ClusterSettings, channels: int, seed: int) -> None:
        super().__init__(settings, channels, seed)
        generator = torch.Generator().manual_seed(seed)
        factors = torch.randint(2**62, (channels,), generator=generator) * 2 + 1
        self.factors: Tensor
        self.register_buffer("factors", factors)

    def membership(self, tokens: Tensor, context: TokenContext) -> Membership:
        """Hash float32 tokens ``(M, C)``."""
        bits = tokens.contiguous().view(torch.int32).long()
        mixed = (bits * self.factors).sum(1)  # int64 arithmetic wraps, as in any such hash
        mixed = (mixed ^ ((mixed >> 33) & 0x7FFFFFFF)) * 0x7F51AFD7ED558CCD
        return by_label(((mixed >> 33) & 0x7FFFFFFF) % self.settings.count, self.settings.count)


def by_label(labels: Tensor, count: int) -> Membership:
    """Every token in the cluster of its label.

    Args:
        labels: int64 ``(M,)``; those outside 0 to ``count - 1`` are rejected.
        count: K.
    """
    accepted = (labels >= 0) & (labels < count)
    one_hot = F.one_hot(labels.where(accepted, 0), count).float()
    return Membership(one_hot, one_hot, accepted)


def _labels(context: TokenContext) -> Tensor:
    if context.labels is None:
        raise ConfigError(
            "clusters.how",
            f"no labels of the {'video' if context.domain else 'image'} tokens",
            "true classes",
            "Use data with labels, or clusters that need none.",
        )
    return context.labels.long()
