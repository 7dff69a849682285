"""Which factors make the gap between images and video: make each equal, and score again.

After Kalogeiton, Ferrari and Schmid, Analysing domain shift factors between videos and images for
object detection, TPAMI 2016, carried over from boxes to masks. :mod:`bench.gap.samples` measures
the factors.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from bench.errors import DataError
from bench.gap.light import encode, linearise
from bench.gap.samples import FRAMING, gradient_energy, mean_luma, statistics_frame
from bench.video import RGB, LabelledImage

Float = NDArray[np.float64]
Index = NDArray[np.intp]

NEAR_DUPLICATE = 0.95
"""Samples whose features have a larger cosine show the same thing."""

LARGEST_SIGMA = 12.0
"""Widest blur tried to reach a gradient energy, in pixels."""

LOWEST_GAIN = 0.005
"""Least light tried to reach a mean luma, as a share of the image's own."""

BISECTIONS = 14
"""Steps of the search for a blur or gain: below a thousandth of the range."""

LARGEST_WEIGHT = 20.0
"""Importance weights are cut here, times their mean, so that no image fills the whole set."""


# --- appearance diversity --------------------------------------------------------------------


def near_duplicate_groups(features: Float, threshold: float = NEAR_DUPLICATE) -> Index:
    """Group samples that show nearly the same: connected components of similar features.

    Args:
        features: float ``(N, D)``, pooled; rows are normalised here.
        threshold: rows with a larger cosine are joined.

    Returns:
        Group of each row, ``(N,)``, counted from 0.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    pairs = []
    # In blocks, because N x N cosines of a large set do not fit into memory.
    for start in range(0, len(unit), 1024):
        row, column = np.nonzero(unit[start : start + 1024] @ unit.T > threshold)
        pairs.append(np.stack([row + start, column]))
    row, column = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.intp)
    graph = coo_matrix((np.ones(len(row), bool), (row, column)), shape=(len(unit), len(unit)))
    groups: Index = connected_components(graph, directed=False)[1].astype(np.intp)
    return groups


def unique_fraction(features: Float, threshold: float = NEAR_DUPLICATE) -> float:
    """Groups of near-duplicates per sample: 1 where all differ, 1 / N where all are alike.

    Raises:
        DataError: no samples.
    """
    if not len(features):
        raise DataError("features", "no samples", "at least one", "Measure a set that has some.")
    return float((near_duplicate_groups(features, threshold).max() + 1) / len(features))


def effective_sample_size(weights: Float) -> float:
    """Kish's effective size of a weighted sample: ``(sum w)^2 / sum w^2``."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def equal_unique_samples(
    images: Index, videos: Index, rng: np.random.Generator
) -> tuple[Index, Index]:
    """Choose equally many samples that differ, one per group of near-duplicates.

    Args:
        images: group of each image, of :func:`near_duplicate_groups`.
        videos: group of each video frame.
        rng: draws groups, and members within them.

    Returns:
        Indices of the chosen images and of the chosen frames, ascending, equally many.
    """
    count = min(len(np.unique(images)), len(np.unique(videos)))

    def chosen(groups: Index) -> Index:
        # The first member of each group in a random order is a random member.
        order = rng.permutation(len(groups))
        _, first = np.unique(groups[order], return_index=True)
        return np.sort(order[rng.permutation(first)[:count]])

    return chosen(images), chosen(videos)


# --- image quality ---------------------------------------------------------------------------


def match_quantiles(values: Float, reference: Float) -> Float:
    """Give each value the reference's value of the same rank.

    Args:
        values: float ``(N,)``.
        reference: float ``(M,)``.

    Returns:
        float ``(N,)`` with the reference's distribution in the order of ``values``.

    Raises:
        DataError: no reference.
    """
    if not len(reference):
        raise DataError("reference values", "none", "at least one", "Measure some videos first.")
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.quantile(reference, (rank + 0.5) / max(len(values), 1))


def largest_kept(measure: Callable[[float], float], target: float) -> float:
    """Strength in [0, 1] at which a falling measure meets the target, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle) > target else (low, middle)
    return (low + high) / 2


def blurred_to(sample: LabelledImage, energy: float) -> LabelledImage:
    """Blur a sample until its gradient energy in the object's box falls to ``energy``.

    A sample that is not sharper, or shows no object, stays as it is: blur cannot be undone.
    """
    if not gradient_energy(sample.image, sample.mask) > energy:
        return sample
    light = linearise(sample.image)

    def blurred(strength: float) -> RGB:
        return encode(cv2.GaussianBlur(light, (0, 0), max(LARGEST_SIGMA * strength, 1e-3)))

    strength = largest_kept(lambda s: gradient_energy(blurred(s), sample.mask), energy)
    return replace(sample, image=blurred(strength))


def darkened_to(sample: LabelledImage, luma: float) -> LabelledImage:
    """Take light from a sample until its mean luma falls to ``luma``; a darker one stays."""
    if not mean_luma(sample.image) > luma:
        return sample
    light = linearise(sample.image)

    def darkened(strength: float) -> RGB:
        return encode(light * np.float32(LOWEST_GAIN**strength))

    strength = largest_kept(lambda s: mean_luma(darkened(s)), luma)
    return replace(sample, image=darkened(strength))


# --- framing ---------------------------------------------------------------------------------


def importance_weights(images: Float, videos: Float) -> Float:
    """Density ratio p_video / p_image at each image, by a probabilistic classifier.

    Bickel, Brückner and Scheffer, Discriminative Learning Under Covariate Shift, JMLR 2009:
    logistic regression on the values and their products, which is exact for Gaussians.

    Args:
        images: float ``(N, D)`` statistics without NaN.
        videos: float ``(M, D)``.

    Returns:
        float ``(N,)``, mean 1, cut at :data:`LARGEST_WEIGHT`.

    Raises:
        DataError: no samples, or NaN among them.
    """
    both = np.concatenate([images, videos])
    if not len(images) or not len(videos) or not np.isfinite(both).all():
        raise DataError(
            "statistics of framing",
            "NaN, infinity or an empty domain",
            "finite values of both domains",
            "Leave out samples without an object.",
        )
    domain = np.repeat([0, 1], [len(images), len(videos)])
    model = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(C=1.0, max_iter=1000),
    )
    logit = model.fit(both, domain).decision_function(images)
    # The shift by the maximum avoids overflow and cancels in the mean; so do the domains' sizes.
    weights = np.exp(logit - logit.max())
    weights = np.minimum(weights / weights.mean(), LARGEST_WEIGHT)
    return np.asarray(weights / weights.mean(), np.float64)


def resampled(weights: Float, count: int, rng: np.random.Generator) -> Index:
    """Indices drawn in proportion to weights, ``(count,)`` ascending.

    Systematic resampling: every index comes as often as its weight says, up to rounding, which
    adds less noise than independent draws.
    """
    edges = np.cumsum(weights) / np.sum(weights)
    positions = (np.arange(count) + rng.uniform()) / count
    return np.minimum(np.searchsorted(edges, positions), len(weights) - 1).astype(np.intp)


# --- one factor after the other --------------------------------------------------------------

Samples = Sequence[LabelledImage]
Equaliser = Callable[[Samples, Samples, np.random.Generator], Samples]
"""(images, one frame per video, generator) to images that are equal to the frames in one factor."""


def equalise_diversity(features: Callable[[LabelledImage], Float]) -> Equaliser:
    """Equaliser of appearance diversity: as many different images as there are different frames.

    Args:
        features: pooled features of one sample, float ``(D,)``.
    """

    def equalise(images: Samples, frames: Samples, rng: np.random.Generator) -> Samples:
        groups = [
            near_duplicate_groups(np.stack([features(one) for one in samples]))
            for samples in (images, frames)
        ]
        chosen, _ = equal_unique_samples(groups[0], groups[1], rng)
        return [images[index] for index in chosen]

    return equalise


def equalise_sharpness(images: Samples, frames: Samples, rng: np.random.Generator) -> Samples:
    """Blur images until the quantiles of their gradient energy are those of the frames."""
    values = [
        np.array([gradient_energy(one.image, one.mask) for one in samples])
        for samples in (images, frames)
    ]
    shown = np.isfinite(values[0])
    # Infinity leaves a sample without an object as it is.
    targets = np.full(len(images), np.inf)
    targets[shown] = match_quantiles(values[0][shown], values[1][np.isfinite(values[1])])
    return [blurred_to(one, float(to)) for one, to in zip(images, targets, strict=True)]


def equalise_brightness(images: Samples, frames: Samples, rng: np.random.Generator) -> Samples:
    """Darken images until the quantiles of their mean luma are those of the frames."""
    values = [np.array([mean_luma(one.image) for one in samples]) for samples in (images, frames)]
    targets = match_quantiles(values[0], values[1])
    return [darkened_to(one, float(to)) for one, to in zip(images, targets, strict=True)]


def equalise_framing(images: Samples, frames: Samples, rng: np.random.Generator) -> Samples:
    """Resample images by importance, so that :data:`FRAMING` is distributed as in the frames.

    Samples without an object are left out.
    """
    table, other = (
        statistics_frame(samples)[list(FRAMING)].to_numpy() for samples in (images, frames)
    )
    shown = np.flatnonzero(np.isfinite(table).all(1))
    weights = importance_weights(table[shown], other[np.isfinite(other).all(1)])
    return [images[shown[index]] for index in resampled(weights, len(images), rng)]


def factor_generator(seed: int, factor: str) -> np.random.Generator:
    """What a factor's equaliser draws from; it does not depend on the other factors."""
    return np.random.default_rng([seed, zlib.crc32(factor.encode())])


def waterfall(
    images: Samples,
    frames: Samples,
    score: Callable[[Samples], float],
    equalisers: Mapping[str, Equaliser],
    seed: int = 0,
) -> pd.DataFrame:
    """Score as factors are made equal one after the other, in the given order and in reverse.

    The order matters, because factors share what they explain; hence both.

    Args:
        images: the training images.
        frames: one frame per video.
        score: trains on images and scores on video; larger is better.
        equalisers: factor: its equaliser, in order.
        seed: of what the equalisers draw; a factor draws alike in both orders.

    Returns:
        Tidy frame: ``order`` (``"fixed"`` or ``"reverse"``), ``step`` from 0, ``factor`` made equal
        at that step (``"none"`` at 0), ``images`` left, ``value`` and ``change`` since the step
        before.
    """
    clean = float(score(images))
    rows = []
    for order, names in (("fixed", list(equalisers)), ("reverse", list(equalisers)[::-1])):
        rows.append((order, 0, "none", len(images), clean, 0.0))
        equal, value = images, clean
        for step, name in enumerate(names, start=1):
            equal = equalisers[name](equal, frames, factor_generator(seed, name))
            before, value = value, float(score(equal))
            rows.append((order, step, name, len(equal), value, value - before))
    columns = ["order", "step", "factor", "images", "value", "change"]
    return pd.DataFrame(rows, columns=columns)
