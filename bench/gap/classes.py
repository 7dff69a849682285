"""Structure of a feature space: are classes apart, and are domains mixed?"""

from __future__ import annotations

import math

import numpy as np

from bench.errors import DataError
from bench.gap.mmd import squared_distances
from bench.gap.statistics import (
    Array,
    ClassEstimate,
    Estimate,
    FloatArray,
    Groups,
    IntArray,
    as_classes,
    as_features,
    group_jackknife,
)

NEIGHBOURS = 15
_BLOCK = 1024
"""Rows whose distances to all others are in memory at a time."""


def class_centre_distance(
    features: Array,
    classes: Array,
    groups: Array | None = None,
    *,
    blocks: int = 40,
    seed: int = 0,
) -> ClassEstimate:
    """Class centre distance (CCD): spread within classes relative to the distance between them.

    For class i the mean over other classes j of ``mean |x - m_i|^2 over class i / |m_i - m_j|^2``,
    where m are class centres; then the mean over classes. Lower is better: classes are compact and
    apart. It tells whether alignment has mixed classes.

    Args:
        features: float ``(N, C)``, usually of the video domain alone.
        classes: integers ``(N,)``.
        groups: ``(N,)`` labels of independent units (videos, images); None: every row is one.
        blocks: blocks of groups for the jackknife that gives the interval.
        seed: of the jackknife.

    Returns:
        The estimate; infinite where centres coincide. Classes of a single row are left out, which
        the note says; NaN where fewer than two classes are left.

    Raises:
        DataError: arrays that do not fit together.

    Source: Wang et al., Classes matter: a fine-grained adversarial approach to cross-domain
    semantic segmentation, ECCV 2020.
    """
    array = as_features(features)
    labels = as_classes(classes, len(array))
    gathered = Groups.of_sample(len(array), groups)
    everything = np.arange(len(array))
    left_out = np.setdiff1d(labels, labels[_rows_with_company(labels, everything)]).tolist()
    note = f"Left out, of a single row: classes {left_out}." if left_out else ""
    values = _class_centre_distances(array, labels, everything)
    if not values:
        reason = f"Undefined: fewer than two classes of several rows. {note}".strip()
        return ClassEstimate(math.nan, None, (len(array),), gathered.per_domain, reason)

    def of_rows(chosen: IntArray) -> float:
        part = _class_centre_distances(array, labels, chosen)
        return float(np.mean(list(part.values()))) if part else math.nan

    return ClassEstimate(
        value=float(np.mean(list(values.values()))),
        interval=group_jackknife(of_rows, gathered, blocks, seed),
        rows=(len(array),),
        groups=gathered.per_domain,
        note=note,
        per_class=values,
    )


def _rows_with_company(labels: IntArray, chosen: IntArray) -> IntArray:
    """Those of the chosen rows whose class has a second row among them."""
    names, counts = np.unique(labels[chosen], return_counts=True)
    return chosen[np.isin(labels[chosen], names[counts > 1])]


def _class_centre_distances(
    features: FloatArray, labels: IntArray, chosen: IntArray
) -> dict[int, float]:
    """CCD of every class of some rows; empty where fewer than two classes have a spread."""
    chosen = _rows_with_company(labels, chosen)
    features, labels = features[chosen], labels[chosen]
    names, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return {}
    member = np.zeros((len(names), len(labels)))
    member[index, np.arange(len(labels))] = 1
    centres = member @ features / counts[:, None]
    spread = member @ ((features - centres[index]) ** 2).sum(1) / counts
    apart = squared_distances(centres, centres)
    np.fill_diagonal(apart, math.inf)  # a class has no distance to itself
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = spread[:, None] / apart
    values = ratios.sum(1) / (len(names) - 1)
    return dict(zip(names.tolist(), values.tolist(), strict=True))


def class_silhouette(
    features: Array,
    classes: Array,
    groups: Array | None = None,
    *,
    blocks: int = 40,
    seed: int = 0,
) -> ClassEstimate:
    """Mean silhouette of rows with respect to their classes, in [-1, 1]; higher is better.

    For a row, a is the mean distance to the rest of its class and b that to the nearest other
    class; its silhouette is ``(b - a) / max(a, b)``, and 0 where it is alone in its class. Take
    one row per video: frames of one video are near each other whatever the classes do.

    Args:
        features: float ``(N, C)``.
        classes: integers ``(N,)``.
        groups: ``(N,)`` labels of independent units (videos, images); None: every row is one.
        blocks: blocks of groups for the jackknife that gives the interval.
        seed: of the jackknife.

    Returns:
        The estimate, the mean over rows; NaN where there are fewer than two classes, or as many
        as rows. All distances are in memory, N x N float64.

    Raises:
        DataError: arrays that do not fit together.

    Source: Rousseeuw, Silhouettes: a graphical aid to the interpretation and validation of cluster
    analysis, Journal of Computational and Applied Mathematics 20, 1987.
    """
    array = as_features(features)
    labels = as_classes(classes, len(array))
    gathered = Groups.of_sample(len(array), groups)
    names = np.unique(labels)
    if not 2 <= len(names) < len(array):
        reason = f"Undefined: {len(names)} classes in {len(array)} rows."
        return ClassEstimate(math.nan, None, (len(array),), gathered.per_domain, reason)
    distances = np.sqrt(squared_distances(array, array))
    np.fill_diagonal(distances, 0)

    def of_rows(chosen: IntArray) -> float:
        return float(_silhouettes(distances, labels, chosen).mean())

    values = _silhouettes(distances, labels, np.arange(len(array)))
    return ClassEstimate(
        value=float(values.mean()),
        interval=group_jackknife(of_rows, gathered, blocks, seed),
        rows=(len(array),),
        groups=gathered.per_domain,
        per_class={int(name): float(values[labels == name].mean()) for name in names},
    )


def _silhouettes(distances: FloatArray, labels: IntArray, chosen: IntArray) -> FloatArray:
    """Silhouettes of some rows among each other; NaN where they are of one class."""
    names, index = np.unique(labels[chosen], return_inverse=True)
    if len(names) < 2:
        return np.full(len(chosen), np.nan)
    member = np.zeros((len(labels), len(names)))
    member[chosen, index] = 1
    counts = member.sum(0)
    sums = (distances @ member)[chosen]
    own = np.arange(len(chosen)), index
    within = sums[own] / np.maximum(counts[index] - 1, 1)
    means = sums / counts
    means[own] = math.inf
    nearest = means.min(1)
    larger = np.maximum(within, nearest)
    alone = (counts[index] == 1) | (larger == 0)
    return np.where(alone, 0.0, (nearest - within) / np.where(larger > 0, larger, 1.0))


def domain_purity(
    features: Array,
    domains: Array,
    groups: Array | None = None,
    *,
    neighbours: int = NEIGHBOURS,
    blocks: int = 40,
    seed: int = 0,
) -> Estimate:
    """Share of a row's nearest neighbours that come from its own domain.

    0.5: domains are mixed; 1: they are apart. Rows of a row's own group are no neighbours, because
    frames of one video are near each other whatever the domains do. Shares are corrected for
    unequal domains: with s the share found and c the share that chance gives, the purity is
    ``s (1 - c) / (s (1 - c) + (1 - s) c)``, which is s where domains are equally large. The value
    is the mean over both domains, and every group counts once in its own.

    Args:
        features: float ``(N, C)``.
        domains: ``(N,)``, 0 for images and 1 for videos.
        groups: ``(N,)`` labels of independent units (videos, images); None: every row is one.
        neighbours: k.
        blocks: blocks of groups for the jackknife that gives the interval.
        seed: of the jackknife.

    Returns:
        The estimate; its interval is too wide where domains are mixed. NaN where a row has fewer
        than k possible neighbours or a domain has a single group.

    Raises:
        DataError: arrays that do not fit together, or a group in both domains.
    """
    array = as_features(features)
    gathered = Groups.of_rows(len(array), domains, groups)
    if neighbours < 1:
        asked = f"{neighbours} neighbours"
        raise DataError("domain purity", asked, "one at least", "15 are usual.")
    rows, counts = gathered.rows_per_domain, gathered.per_domain
    candidates = len(array) - int(gathered.sizes.max())
    if candidates < neighbours or min(counts) < 2:
        reason = f"Undefined: {counts} groups, {candidates} neighbours at hand for k={neighbours}."
        return Estimate(math.nan, None, rows, counts, reason)
    # So many that k are left when the jackknife leaves out a block.
    spare = _most_rows_in_a_block(gathered, min(blocks, *counts))
    nearest = _nearest_of_other_groups(array, gathered, min(candidates, neighbours + spare))

    def of_rows(chosen: IntArray) -> float:
        return _purity(nearest, gathered, chosen, neighbours)

    value = of_rows(np.arange(len(array)))
    return Estimate(value, group_jackknife(of_rows, gathered, blocks, seed), rows, counts)


def _most_rows_in_a_block(groups: Groups, blocks: int) -> int:
    """An upper bound of the number of rows in a block of groups."""
    most = 0
    for domain in np.unique(groups.domains):
        sizes = np.sort(groups.sizes[groups.domains == domain])[::-1]
        most += int(sizes[: math.ceil(len(sizes) / blocks)].sum())
    return most


def _nearest_of_other_groups(features: FloatArray, groups: Groups, count: int) -> IntArray:
    """Every row's nearest rows of other groups, nearest first, ``(N, count)``."""
    nearest = np.empty((len(features), count), dtype=np.intp)
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        squares = squared_distances(features[block], features)
        squares[groups.index[block, None] == groups.index] = math.inf
        found = np.argpartition(squares, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(squares, found, 1), axis=1)
        nearest[block] = np.take_along_axis(found, order, 1)
    return nearest


def _purity(nearest: IntArray, groups: Groups, chosen: IntArray, neighbours: int) -> float:
    """Purity of some rows, in ascending order, among each other."""
    kept = np.zeros(len(nearest), dtype=bool)
    kept[chosen] = True
    counted = kept[nearest[chosen]]
    counted &= np.cumsum(counted, axis=1) <= neighbours
    domain = groups.domains[groups.index]
    own = domain[nearest[chosen]] == domain[chosen, None]
    part, _ = groups.subset(kept)
    share = part.mean((counted & own).sum(1) / np.maximum(counted.sum(1), 1))
    own_rows = np.asarray(part.rows_per_domain)[part.domains] - part.sizes
    chance = own_rows / (len(chosen) - part.sizes)

    purities = []
    for number in np.unique(part.domains):
        s, c = share[part.domains == number].mean(), chance[part.domains == number].mean()
        purities.append(s * (1 - c) / (s * (1 - c) + (1 - s) * c))
    return float(np.mean(purities))
