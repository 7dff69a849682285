"""Clusters of tokens, within which images and video are aligned.

Two domains with different class frequencies cannot be aligned as wholes without mixing classes;
within clusters they can. What a cluster is, is an axis of the ablation: see
:mod:`methods.adversarial.partition` and :mod:`methods.adversarial.prototypes`. Nothing here passes
a gradient on, and all state is in buffers, so that a resumed training continues with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adversarial.adversary_settings import ClusterSettings
from methods.adversarial.partition import (
    Partition,
    PredictedClasses,
    RandomBins,
    Refresh,
    TokenContext,
    TrueClasses,
)
from methods.adversarial.processes import broadcast_from_first, gather_rows
from methods.adversarial.prototypes import (
    BatchPrototypes,
    MovingPrototypes,
    Prototypes,
    SinkhornPrototypes,
)

__all__ = ["PARTITIONS", "Clusters", "Refresh", "TokenContext"]

PARTITIONS: Mapping[str, Callable[[ClusterSettings, int, int], Partition]] = {
    "kmeans_epoch": Prototypes,
    "ema": MovingPrototypes,
    "batch": BatchPrototypes,
    "prediction": PredictedClasses,
    "sinkhorn": SinkhornPrototypes,
    "random": RandomBins,
    "truth": TrueClasses,
}
"""By :attr:`ClusterSettings.how`; each is made from settings, channels and a seed."""


class Clusters(nn.Module):
    """Assigns tokens to clusters.

    In each step of the training first :meth:`collect`, then :meth:`refresh` if :meth:`due`, then
    :meth:`assign`: clusters that follow the batch have then seen both its domains. Where several
    processes train they see each other's tokens, and all have the same clusters.

    Args:
        settings: of the clusters.
        channels: C, of the tokens.
        seed: of everything that is drawn.

    Raises:
        ConfigError: a bank too small for k-means, or too many clusters for one batch.
    """

    def __init__(self, settings: ClusterSettings, channels: int, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.partition: Partition = PARTITIONS[settings.how](settings, channels, seed)

    @property
    def ready(self) -> bool:
        """Whether clusters exist; until then every token is rejected."""
        return self.partition.ready

    @torch.no_grad()
    def collect(self, image_tokens: Tensor, video_tokens: Tensor) -> None:
        """See a batch: store a few of its tokens, and let moving prototypes follow all of them.

        Args:
            image_tokens: float ``(M, C)``, as many in every process.
            video_tokens: float ``(M', C)``, as many in every process.
        """
        with torch.autocast(image_tokens.device.type, enabled=False):
            self.partition.collect(
                gather_rows(image_tokens.float()), gather_rows(video_tokens.float())
            )

    def due(self, step: int) -> bool:
        """Whether to call :meth:`refresh` in this step of the training.

        It is due when enough tokens for the first clusters were collected, then every
        ``settings.refresh`` steps, and as soon as a moving prototype has died.
        """
        return self.partition.due(step)

    @torch.no_grad()
    def refresh(self) -> Refresh:
        """Make clusters from the collected tokens, or make them anew.

        Raises:
            MethodError: too few tokens; ask :meth:`due` first.
        """
        report = self.partition.refresh()
        # The same everywhere up to how each processor rounds; from here on exactly the same.
        broadcast_from_first(self.buffers())
        return report

    @torch.no_grad()
    def assign(self, tokens: Tensor, context: TokenContext) -> Tensor:
        """Assign tokens to clusters.

        Args:
            tokens: float ``(M, C)``.
            context: their domain, and what ``"prediction"`` and ``"truth"`` need.

        Returns:
            float32 ``(M, K)`` without gradient. Rows sum to 1, to less where soft assignments are
            clipped, and to 0 for rejected tokens.

        Raises:
            ConfigError: a context that lacks what clusters are made of, or another number of
                classes than of clusters.
        """
        count = self.settings.count
        if not self.ready:
            return torch.zeros(len(tokens), count, device=tokens.device)
        with torch.autocast(tokens.device.type, enabled=False):
            similarity, probability, accepted = self.partition.membership(tokens.float(), context)
        if self.settings.assignment == "soft":
            # Clipped without renormalising, as in Wang et al., FADA, ECCV 2020.
            limit = 1.0 if self.settings.clip is None else self.settings.clip
            assignment = probability.clamp(max=limit)
        else:
            assignment = F.one_hot(similarity.argmax(1), count).float()
        if self.settings.assignment == "margin" and count > 1:
            best = similarity.topk(2).values
            accepted = accepted & (best[:, 0] - best[:, 1] >= self.settings.margin)
        return assignment * accepted[:, None]
