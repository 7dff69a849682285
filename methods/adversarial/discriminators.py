"""Networks that tell features of images from those of video, on their own or within clusters.

Sources: FADA (Wang et al., ECCV 2020) for the softmax over domain and cluster, MADA (Pei et al.,
AAAI 2018) for one discriminator per class, Miyato and Koyama, cGANs with projection discriminator,
ICLR 2018, for a discriminator that is told the class by an inner product.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import MethodError
from methods.adversarial.adversary_settings import DiscriminatorSettings
from methods.adversarial.discriminator_layers import (
    Layers,
    build_embeddings,
    build_layers,
    take_outputs,
)

PATCH_STRIDE = 32
"""Smallest side of maps that a patch network can judge; its output has one value per so many. Maps
inside the network that are smaller are brought to it."""

_DIMENSIONS = {"token": 2, "pixel": 4, "patch": 4, "patch3d": 5, "pair": 4}

REGIONS: tuple[str, ...] = ("patch", "patch3d", "pair")
"""Networks of patch layers."""

Enlarge = Literal["never", "to_input", "to_patch"]
"""What becomes of maps before they are judged: nothing, the size of the network's input, or, where
they are smaller, :data:`PATCH_STRIDE` at their shorter side."""


class Discriminator(nn.Module, abc.ABC):
    """A domain discriminator. Logits are those of "video"; domains are image (0) and video (1).

    Clusters can be reordered and copied when a clustering is refreshed. Only parameters follow:
    the optimiser's moments (Adam's) stay with the outputs that had them.

    Args:
        network: of :class:`DiscriminatorSettings`.
        enlarge: to what size maps are brought first.
        clusters: K, or None where the outputs do not belong to clusters.
    """

    def __init__(self, network: str, enlarge: Enlarge, clusters: int | None) -> None:
        super().__init__()
        self.network = network
        self.enlarge = enlarge
        self.clusters = clusters

    def forward(
        self,
        features: Tensor,
        assignment: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Judge features.

        Args:
            features: float; tokens ``(M, C)`` for ``"token"``, maps ``(N, C, h, w)`` for
                ``"pixel"`` and ``"patch"``, clips ``(B, C, T, h, w)`` for ``"patch3d"``, pairs
                of frames ``(N, 2C, h, w)`` for ``"pair"``.
            assignment: ``(M, K)`` for tokens. Where it is 0, outputs that cost a pass of their
                own are 0 instead of being computed. None computes all.
            size: height and width in pixels of the network's input, for output taps.

        Returns:
            Logits ``(M, outputs)``, ``(N, outputs, h', w')`` or ``(B, outputs, T, h', w')``. The
            number of outputs is 1, K, or 2K (images' clusters first). The grid is that of the
            features for ``"pixel"``, and 32 times coarser for patch layers.

        Raises:
            MethodError: if the features have the wrong dimensions, or if output maps, and the
                network's input, are smaller than a patch.
        """
        if features.ndim != _DIMENSIONS[self.network]:
            raise MethodError(
                f"{self.network} discriminator",
                f"features of shape {tuple(features.shape)}",
                f"{_DIMENSIONS[self.network]} dimensions",
                "Give tokens (M, C), maps (N, C, h, w), pairs (N, 2C, h, w) or, for patch3d, clips "
                "(B, C, T, h, w).",
            )
        features = self._enlarged(features, size)
        if self.network in REGIONS and min(features.shape[-2:]) < PATCH_STRIDE:
            raise MethodError(
                f"{self.network} discriminator",
                f"maps of {features.shape[-2]} x {features.shape[-1]}",
                f"at least {PATCH_STRIDE} x {PATCH_STRIDE}",
                "Use larger crops, or a pixel or token discriminator.",
            )
        return self._judge(features, assignment)

    def _enlarged(self, features: Tensor, size: tuple[int, int] | None) -> Tensor:
        """Maps at the size at which they are judged."""
        if self.enlarge == "to_input" and size is not None:
            return _upsample(features, size)
        shorter = min(features.shape[-2:])
        if self.enlarge == "to_patch" and 0 < shorter < PATCH_STRIDE:
            height, width = (-(-side * PATCH_STRIDE // shorter) for side in features.shape[-2:])
            return _upsample(features, (height, width))
        return features

    def copy_cluster(self, source: int, target: int) -> None:
        """Let cluster ``target`` be judged as cluster ``source`` is, from here on independently.

        Moves parameters only; the optimiser's state stays.
        """
        if self.clusters is None:
            return
        order = torch.arange(self.clusters)
        order[target] = source
        self._take_clusters(order)

    @abc.abstractmethod
    def _judge(self, features: Tensor, assignment: Tensor | None) -> Tensor: ...

    @abc.abstractmethod
    def _take_clusters(self, order: Tensor) -> None:
        """Let cluster k be judged as cluster ``order[k]``, int64 ``(K,)``, was."""


class SharedTrunk(Discriminator):
    """One network with one output, an output per cluster, or one per domain and cluster."""

    def __init__(
        self, network: str, enlarge: Enlarge, clusters: int | None, layers: Layers
    ) -> None:
        super().__init__(network, enlarge, clusters)
        self.trunk = nn.Sequential(layers.first, layers.hidden)
        self.output = layers.output

    def _judge(self, features: Tensor, assignment: Tensor | None) -> Tensor:
        logits: Tensor = self.output(self.trunk(features))
        return logits

    def _take_clusters(self, order: Tensor) -> None:
        # With an output per domain and cluster, both domains' outputs follow.
        take_outputs(self.output, order)


class SeparateNetworks(Discriminator):
    """A network of its own for every cluster (MADA)."""

    def __init__(self, network: str, enlarge: Enlarge, networks: list[Layers]) -> None:
        super().__init__(network, enlarge, len(networks))
        self.networks = nn.ModuleList(
            nn.Sequential(layers.first, layers.hidden, layers.output) for layers in networks
        )

    def _judge(self, features: Tensor, assignment: Tensor | None) -> Tensor:
        return torch.cat(
            [
                _where_assigned(network, features, assignment, cluster)
                for cluster, network in enumerate(self.networks)
            ],
            dim=1,
        )

    def _take_clusters(self, order: Tensor) -> None:
        states = [
            {name: value.clone() for name, value in network.state_dict().items()}
            for network in self.networks
        ]
        for network, source in zip(self.networks, order.tolist(), strict=True):
            network.load_state_dict(states[source])


class ConditionedNetwork(Discriminator):
    """One network that is told the cluster beside the features.

    A one-hot vector of the cluster beside the features adds, after a linear layer, one column of
    its weights. These columns are the embeddings. Each position is judged once per cluster that it
    has a share in, so that the discriminator never sees the assignments themselves: how they
    spread over clusters or over a map would tell the domains apart.

    Spectral normalisation leaves the embeddings alone: they move the features, and make no slope.
    """

    def __init__(self, network: str, enlarge: Enlarge, clusters: int, layers: Layers) -> None:
        super().__init__(network, enlarge, clusters)
        self.first = layers.first
        self.embeddings = nn.Parameter(torch.empty(clusters, layers.width))
        self.rest = nn.Sequential(layers.hidden, layers.output)
        # As PyTorch initialises the columns of a linear layer.
        fan_in = layers.inputs + clusters
        nn.init.uniform_(self.embeddings, -(fan_in**-0.5), fan_in**-0.5)

    def _judge(self, features: Tensor, assignment: Tensor | None) -> Tensor:
        first = self.first(features)

        def told(embedding: Tensor) -> Callable[[Tensor], Tensor]:
            shape = (-1,) + (1,) * (first.ndim - 2)
            return lambda rows: self.rest(rows + embedding.view(shape))

        return torch.cat(
            [
                _where_assigned(told(embedding), first, assignment, cluster)
                for cluster, embedding in enumerate(self.embeddings)
            ],
            dim=1,
        )

    @torch.no_grad()
    def _take_clusters(self, order: Tensor) -> None:
        self.embeddings.copy_(self.embeddings[order.to(self.embeddings.device)])


class ProjectionNetwork(Discriminator):
    """One network that is told the cluster by an inner product with its last hidden features.

    Of these, phi, the logit of cluster k is ``psi(phi) + <e_k, phi>`` with a linear psi for all
    clusters and an embedding ``e_k`` for each (Miyato and Koyama). Convolutional networks
    take the inner product with the window that their output layer sees. The network up to phi runs
    once, whatever the number of clusters. It can say what K outputs on a shared trunk can; what the
    clusters have in common is learned once, from all of them.
    """

    def __init__(
        self,
        network: str,
        enlarge: Enlarge,
        clusters: int,
        layers: Layers,
        embeddings: nn.Module,
    ) -> None:
        super().__init__(network, enlarge, clusters)
        self.trunk = nn.Sequential(layers.first, layers.hidden)
        self.output = layers.output
        self.embeddings = embeddings

    def _judge(self, features: Tensor, assignment: Tensor | None) -> Tensor:
        hidden = self.trunk(features)
        logits: Tensor = self.output(hidden) + self.embeddings(hidden)
        return logits

    def _take_clusters(self, order: Tensor) -> None:
        take_outputs(self.embeddings, order)


def build_discriminator(
    settings: DiscriminatorSettings, channels: int, clusters: int | None, output_tap: bool
) -> Discriminator:
    """A discriminator with PyTorch's usual initial weights.

    Args:
        settings: network and kind.
        channels: C of the features, of one frame.
        clusters: K; None for a loss over all positions, which has one output whatever the kind.
        output_tap: whether the features are the segmentation network's output, which patch
            networks see at the size of the input. Others they see as they are, or enlarged to
            :data:`PATCH_STRIDE`.
    """
    enlarge: Enlarge = "never"
    if settings.network in REGIONS:
        enlarge = "to_input" if output_tap else "to_patch"
    if clusters is None or settings.kind == "shared_balanced":
        return SharedTrunk(settings.network, enlarge, None, build_layers(settings, channels, 1))
    if settings.kind == "conditioned":
        layers = build_layers(settings, channels, 1)
        if settings.conditioning == "projection":
            embeddings = build_embeddings(settings, clusters)
            return ProjectionNetwork(settings.network, enlarge, clusters, layers, embeddings)
        return ConditionedNetwork(settings.network, enlarge, clusters, layers)
    if settings.kind == "per_cluster" and not settings.shared_trunk:
        networks = [build_layers(settings, channels, 1) for _ in range(clusters)]
        return SeparateNetworks(settings.network, enlarge, networks)
    outputs = 2 * clusters if settings.kind == "joint2K" else clusters
    layers = build_layers(settings, channels, outputs)
    return SharedTrunk(settings.network, enlarge, clusters, layers)


def _where_assigned(
    judge: Callable[[Tensor], Tensor], features: Tensor, assignment: Tensor | None, cluster: int
) -> Tensor:
    """One cluster's logits; of tokens, only those with a share in the cluster are judged."""
    if assignment is None or features.ndim > 2:
        return judge(features)
    rows = assignment[:, cluster].nonzero().squeeze(1)
    judged = judge(features[rows])
    return judged.new_zeros((len(features), 1)).index_copy(0, rows, judged)


def _upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.ndim == 4:
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    frames = maps.shape[2]
    return F.interpolate(maps, size=(frames, *size), mode="trilinear", align_corners=False)
