"""Pictures of two domains' features in the plane, and the numbers that belong under them.

t-SNE (van der Maaten and Hinton, JMLR 2008) after PCA; UMAP (McInnes, Healy and Melville, 2018)
where its package is installed. A picture is an illustration: the distances between its clusters
mean little, so the numbers under it are measured before the projection.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from bench.errors import ConfigError, DataError
from bench.gap.classes import class_silhouette, domain_purity
from bench.gap.statistics import (
    Array,
    ClassEstimate,
    Estimate,
    FloatArray,
    Groups,
    IntArray,
    as_classes,
    as_features,
)

MOST_POINTS = 3000
FEWEST_POINTS = 6
"""t-SNE needs a perplexity above 1."""

COMPONENTS = 50
PERPLEXITY = 30.0
UMAP_NEIGHBOURS = 15

UMAP_PACKAGE = "umap"
"""What umap-learn is imported as."""


@dataclass(frozen=True)
class Embedding:
    """Points in the plane, and how mixed the domains are.

    Attributes:
        points: one row per point: ``x``, ``y``, ``domain`` (0 image, 1 video), ``class`` and
            ``row``, its row in the features.
        purity: of the domains among nearest neighbours, before the projection.
        silhouette: of the classes there.
    """

    points: pd.DataFrame
    purity: Estimate
    silhouette: ClassEstimate


def chosen_rows(groups: Groups, limit: int, seed: int = 0) -> IntArray:
    """Rows to draw: one per group, equally many per domain, at most ``limit``; ascending.

    Frames of one video lie on a string, which a projection draws as a snake.
    """
    rows = groups.balanced_rows(seed)
    domains = groups.domains[groups.index[rows]]
    generator = np.random.default_rng([seed, 1])
    kept = [
        generator.permutation(rows[domains == domain])[: limit // 2]
        for domain in np.unique(domains)
    ]
    return np.sort(np.concatenate(kept))


def principal_axes(features: FloatArray, seed: int = 0) -> FloatArray:
    """Features on their leading :data:`COMPONENTS` principal axes, ``(N, min(50, N, C))``."""
    components = min(COMPONENTS, *features.shape)
    return np.asarray(PCA(components, random_state=seed).fit_transform(features), np.float64)


def tsne(features: FloatArray, seed: int = 0) -> FloatArray:
    """t-SNE from the principal axes; float ``(N, 2)``. Few points get a smaller perplexity."""
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(features), np.float64)


def umap(features: FloatArray, seed: int = 0) -> FloatArray:
    """UMAP; float ``(N, 2)``.

    Raises:
        ConfigError: its package is not installed.
    """
    if (reason := why_no_umap()) is not None:
        raise ConfigError("projection umap", reason, "the package", "pip install umap-learn")
    module = importlib.import_module(UMAP_PACKAGE)
    neighbours = min(UMAP_NEIGHBOURS, len(features) - 1)
    model = module.UMAP(n_components=2, n_neighbors=neighbours, random_state=seed)
    return np.asarray(model.fit_transform(features), np.float64)


def why_no_umap() -> str | None:
    """Reason why UMAP cannot be drawn here, or None."""
    if importlib.util.find_spec(UMAP_PACKAGE) is None:
        return "the package umap-learn is not installed"
    return None


PROJECTIONS: Mapping[str, Callable[[FloatArray, int], FloatArray]] = MappingProxyType(
    {"tsne": tsne, "umap": umap}
)


def absent_projections() -> dict[str, str]:
    """Projections that cannot be drawn here, each with the reason."""
    reason = why_no_umap()
    return {} if reason is None else {"umap": reason}


def embed(
    features: Array,
    domains: Array,
    classes: Array,
    groups: Array | None = None,
    *,
    projection: str = "tsne",
    seed: int = 0,
    limit: int = MOST_POINTS,
) -> Embedding:
    """Project features of two domains into the plane.

    Args:
        features: float ``(N, C)``, pooled over an object or a frame.
        domains: ``(N,)``, 0 for images and 1 for videos.
        classes: integers ``(N,)``.
        groups: ``(N,)`` labels of videos and images, of which one row each is drawn; None: every
            row is one.
        projection: of :data:`PROJECTIONS`.
        seed: fixes the choice of rows and the projection.
        limit: most points.

    Raises:
        ConfigError: unknown projection, or one whose package is not installed.
        DataError: arrays that do not fit together, or too few groups.
    """
    if projection not in PROJECTIONS:
        raise ConfigError(
            f"projection {projection!r}",
            "no such name",
            f"one of {', '.join(PROJECTIONS)}",
            "Choose one of these.",
        )
    array = as_features(features)
    labels = as_classes(classes, len(array))
    gathered = Groups.of_rows(len(array), domains, groups)
    rows = chosen_rows(gathered, limit, seed)
    if len(rows) < FEWEST_POINTS:
        raise DataError(
            "embedding",
            f"{len(rows)} points with one per video and equally many per domain",
            f"at least {FEWEST_POINTS}",
            "Take more images and videos, or a larger limit.",
        )
    space = principal_axes(array[rows], seed)
    plane = PROJECTIONS[projection](space, seed)
    domain = gathered.domains[gathered.index[rows]]
    points = pd.DataFrame(
        {
            "x": plane[:, 0],
            "y": plane[:, 1],
            "domain": domain,
            "class": labels[rows],
            "row": rows,
        }
    )
    return Embedding(
        points,
        domain_purity(space, domain, seed=seed),
        class_silhouette(space, labels[rows], seed=seed),
    )
