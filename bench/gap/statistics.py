"""What all measures share: groups of dependent rows, and intervals by resampling whole groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from bench.errors import DataError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
Array = NDArray[Any]

IMAGE, VIDEO = 0, 1
"""The two domains, as every ``domains`` array writes them."""

CONFIDENCE = 0.95
"""Level of all intervals."""


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """One measured value.

    Attributes:
        value: NaN where the data do not define it; ``note`` then says why.
        interval: None where there is none.
        rows: number of rows per domain, images first; one number for a measure of one sample.
        groups: number of groups (independent units: images, videos), likewise.
        note: reservations, as sentences; empty where there are none.
    """

    value: float
    interval: Interval | None
    rows: tuple[int, ...]
    groups: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class ClassEstimate(Estimate):
    """A mean over classes.

    Attributes:
        per_class: value of every class that has one.
    """

    per_class: Mapping[int, float] = field(default_factory=dict)


def as_features(features: Array, where: str = "features") -> FloatArray:
    """Features as float64 ``(N, C)``.

    Raises:
        DataError: another number of axes, no rows, or values that are not finite.
    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(
            where, f"an array of shape {array.shape}", "(rows, channels)", "Pool features first."
        )
    if not np.isfinite(array).all():
        broken = int((~np.isfinite(array)).any(axis=1).sum())
        raise DataError(
            where,
            f"NaN or infinity in {broken} of {len(array)} rows",
            "finite numbers",
            "Drop these rows or mend the network that made them.",
        )
    return array


def _as_labels(labels: Array, rows: int, where: str) -> Array:
    array = np.asarray(labels)
    if array.shape != (rows,):
        raise DataError(
            where, f"an array of shape {array.shape}", f"({rows},)", "Give every row one label."
        )
    return array


def as_classes(classes: Array, rows: int) -> IntArray:
    """Classes as integers ``(N,)``.

    Raises:
        DataError: another shape, or labels that are not integers.
    """
    array = _as_labels(classes, rows, "classes")
    if array.dtype.kind not in "iu":
        raise DataError("classes", f"dtype {array.dtype}", "integers", "Number the classes.")
    return array.astype(np.intp)


@dataclass(frozen=True)
class Groups:
    """Rows gathered into groups; groups are independent of each other, rows of one are not.

    A group is a video with its frames, or an image with its tokens. Everything that resamples,
    permutes or splits does so by whole groups: neighbouring frames are near-duplicates, and the
    effective sample size is the number of videos.

    Attributes:
        index: intp ``(N,)``, number of every row's group, in [0, G).
        domains: intp ``(G,)``, domain of every group.
    """

    index: IntArray
    domains: IntArray

    @classmethod
    def of_rows(cls, rows: int, domains: Array, groups: Array | None) -> Groups:
        """Groups of rows from two domains.

        Args:
            rows: N, number of rows.
            domains: ``(N,)``, 0 for images and 1 for videos.
            groups: ``(N,)``, any labels, e.g. file names; None makes every row a group.

        Raises:
            DataError: wrong lengths, other domains, only one domain, or a group in both domains.
        """
        domains = _as_labels(domains, rows, "domains")
        if set(np.unique(domains).tolist()) != {IMAGE, VIDEO}:
            raise DataError(
                "domains",
                f"values {np.unique(domains).tolist()[:5]}",
                "0 (image) and 1 (video), both present",
                "Mark every row's domain.",
            )
        gathered = cls._gather(domains.astype(np.intp), groups)
        mixed = np.flatnonzero(gathered.domains[gathered.index] != domains)
        if mixed.size:
            label = mixed[0] if groups is None else np.asarray(groups)[mixed[0]]
            raise DataError(
                "groups",
                f"group {label!s} with rows of both domains",
                "groups within one domain",
                "Give images and videos names of their own.",
            )
        return gathered

    @classmethod
    def of_sample(cls, rows: int, groups: Array | None) -> Groups:
        """Groups of one sample of that many rows; their domain is 0."""
        return cls._gather(np.zeros(rows, dtype=np.intp), groups)

    @classmethod
    def _gather(cls, domains: IntArray, groups: Array | None) -> Groups:
        if groups is None:
            return cls(np.arange(len(domains)), domains)
        labels = _as_labels(groups, len(domains), "groups")
        _, first, index = np.unique(labels, return_index=True, return_inverse=True)
        return cls(index.astype(np.intp), domains[first])

    def __len__(self) -> int:
        return len(self.domains)

    @property
    def sizes(self) -> IntArray:
        """Number of rows of every group, intp ``(G,)``."""
        return np.bincount(self.index, minlength=len(self)).astype(np.intp)

    @property
    def per_domain(self) -> tuple[int, ...]:
        """Number of groups in each domain."""
        return tuple(np.bincount(self.domains).tolist())

    @property
    def rows_per_domain(self) -> tuple[int, ...]:
        """Number of rows in each domain."""
        return tuple(np.bincount(self.domains[self.index]).tolist())

    def mean(self, values: FloatArray) -> FloatArray:
        """Mean of a row-wise value ``(N,)`` in every group, ``(G,)``."""
        return np.bincount(self.index, values, minlength=len(self)) / self.sizes

    def weights(self) -> FloatArray:
        """Row weights ``(N,)`` of mean 1: domains weigh alike, and groups within a domain too."""
        count = np.bincount(self.domains).astype(np.float64)
        share = 1 / (np.count_nonzero(count) * count[self.domains] * self.sizes)
        return np.asarray(len(self.index) * share[self.index])

    def subset(self, chosen: NDArray[np.bool_]) -> tuple[Groups, IntArray]:
        """Groups of some rows, bool ``(N,)``, and which of these groups they are."""
        kept, index = np.unique(self.index[chosen], return_inverse=True)
        return Groups(index.astype(np.intp), self.domains[kept]), kept

    def one_row_each(self, generator: np.random.Generator) -> IntArray:
        """A random row of every group, ``(G,)``."""
        order = generator.permutation(len(self.index))
        _, first = np.unique(self.index[order], return_index=True)
        return np.asarray(order[first], dtype=np.intp)

    def balanced_rows(self, seed: int = 0) -> IntArray:
        """Rows with one random row per group and as many groups from one domain as the other."""
        generator = np.random.default_rng(seed)
        rows = self.one_row_each(generator)
        count = min(self.per_domain)
        chosen = [
            generator.permutation(rows[self.domains == domain])[:count]
            for domain in range(len(self.per_domain))
        ]
        return np.sort(np.concatenate(chosen))

    def dealt(self, parts: int, generator: np.random.Generator) -> IntArray:
        """Part of every group ``(G,)``: each domain is dealt out to the parts in random order."""
        part = np.empty(len(self), dtype=np.intp)
        for domain in np.unique(self.domains):
            members = generator.permutation(np.flatnonzero(self.domains == domain))
            part[members] = np.arange(len(members)) % parts
        return part

    def multiplicities(self, resamples: int, generator: np.random.Generator) -> IntArray:
        """How often bootstrap samples contain every group, ``(resamples, G)``.

        Groups are drawn with replacement within their domain.
        """
        counts = np.zeros((resamples, len(self)), dtype=np.intp)
        for domain in np.unique(self.domains):
            members = np.flatnonzero(self.domains == domain)
            even = np.full(len(members), 1 / len(members))
            counts[:, members] = generator.multinomial(len(members), even, size=resamples)
        return counts


def percentile_interval(values: FloatArray) -> Interval | None:
    """The central 95 % of resampled values; None if fewer than half of them are finite.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values) or not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def group_bootstrap(
    statistic: Callable[[IntArray], float], groups: Groups, resamples: int = 200, seed: int = 0
) -> Interval | None:
    """Percentile interval of any statistic, resampling whole groups within their domain.

    Args:
        statistic: takes row numbers, with repetitions, and returns a value or NaN.
        groups: of the rows that the statistic was computed on.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        The interval; None where one group is all there is or most samples have no value.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
    """
    if min(groups.per_domain) < 2:
        return None
    drawn = groups.multiplicities(resamples, np.random.default_rng(seed))
    rows = np.arange(len(groups.index))
    values = [statistic(np.repeat(rows, counts[groups.index])) for counts in drawn]
    return percentile_interval(np.array(values))


def group_jackknife(
    statistic: Callable[[IntArray], float], groups: Groups, blocks: int = 40, seed: int = 0
) -> Interval | None:
    """Interval of a statistic that the repetitions in bootstrap samples would bias.

    The groups of a domain are dealt out to blocks at random. The statistic without one block at a
    time gives its standard error, and Student's t the interval, which is symmetric about the
    statistic of all rows.

    Args:
        statistic: takes distinct row numbers and returns a value.
        groups: of the rows that the statistic was computed on.
        blocks: number of blocks; no more than there are groups in the smallest domain are used.
        seed: of the dealing.

    Returns:
        The interval; None where there are fewer than three blocks or a value is not finite.

    Source: Kott, The delete-a-group jackknife, Journal of Official Statistics 17, 2001.
    """
    blocks = min(blocks, *groups.per_domain)
    if blocks < 3:
        return None
    block = groups.dealt(blocks, np.random.default_rng(seed))[groups.index]
    value = statistic(np.arange(len(groups.index)))
    without = np.array([statistic(np.flatnonzero(block != left)) for left in range(blocks)])
    if not np.isfinite([value, *without]).all():
        return None
    error = math.sqrt((blocks - 1) / blocks * ((without - without.mean()) ** 2).sum())
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, blocks - 1)) * error
    return Interval(value - reach, value + reach)
