"""What making a factor equal changes: its statistics in both sets, before and after.

Each factor is made equal by itself, from the clean images, with the draws that
:func:`bench.gap.equalise.waterfall` takes. Video frames are what is scored on: they stay.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from bench.errors import DataError
from bench.gap.divergence import framing_plane, kl_divergence
from bench.gap.domains import Samples
from bench.gap.equalise import (
    effective_sample_size,
    equal_unique_samples,
    equalise_brightness,
    equalise_framing,
    equalise_sharpness,
    factor_generator,
    near_duplicate_groups,
    unique_fraction,
)
from bench.gap.label_accuracy import equalise_label_accuracy, label_accuracy
from bench.gap.measures import IMAGES, VIDEOS, Row
from bench.gap.samples import FRAMING, compare_statistics, statistics_frame
from bench.gap.statistics import FloatArray, IntArray

BOTH = "images || videos"
"""The domain of values that compare both: 0 where they are alike."""

BEFORE, AFTER = "before", "after"

LABEL_ACCURACY, DIVERSITY, FRAMING_FACTOR = "label accuracy", "diversity", "framing"
SHARPNESS, BRIGHTNESS = "sharpness", "brightness"

BY_QUANTILES = {
    SHARPNESS: ("gradient_energy", equalise_sharpness),
    BRIGHTNESS: ("mean_luma", equalise_brightness),
}
"""Factors whose statistic gets the quantiles of the video frames, and what changes it."""


def _row(
    factor: str, statistic: str, domain: str, stage: str, samples: int, value: float, note: str = ""
) -> Row:
    return {
        "factor": factor,
        "statistic": statistic,
        "domain": domain,
        "stage": stage,
        "samples": samples,
        "value": value,
        "note": note,
    }


# --- diversity -------------------------------------------------------------------------------


def diversity_rows(images: FloatArray, videos: FloatArray, seed: int) -> Iterator[Row]:
    """Unique samples, their fraction, and the effective sample size.

    Samples that show nearly the same form a group. The effective size weighs groups by their
    members (Kish, Survey Sampling, 1965): N where all samples differ, 1 where all are alike.

    Args:
        images: pooled features, float ``(N, C)``.
        videos: of one frame per video, ``(M, C)``.
        seed: of what is drawn.
    """
    groups = near_duplicate_groups(images), near_duplicate_groups(videos)
    chosen, _ = equal_unique_samples(*groups, factor_generator(seed, DIVERSITY))
    for domain, stage, features in (
        (IMAGES, BEFORE, images),
        (IMAGES, AFTER, images[chosen]),
        (VIDEOS, BEFORE, videos),
        (VIDEOS, AFTER, videos),
    ):
        sizes = np.bincount(near_duplicate_groups(features)).astype(np.float64)
        values = {
            "unique_samples": len(sizes),
            "unique_fraction": unique_fraction(features),
            "effective_sample_size": effective_sample_size(sizes),
        }
        for statistic, value in values.items():
            yield _row(DIVERSITY, statistic, domain, stage, len(features), float(value))


# --- factors that do not depend on a network -------------------------------------------------


def picture_rows(
    images: Samples, frames: Samples, video_label_accuracy: float | None, seed: int
) -> Iterator[Row]:
    """Statistics of label accuracy, sharpness, brightness and framing.

    Args:
        images: labelled.
        frames: one labelled frame per video.
        video_label_accuracy: boundary F of the videos' masks against manual ones; None where
            theirs are manual.
        seed: of what equalisers draw.
    """
    if video_label_accuracy is not None:
        yield from _label_rows(images, frames, video_label_accuracy, seed)
    for factor in BY_QUANTILES:
        yield from _quantile_rows(factor, images, frames, seed)
    yield from _framing_rows(images, frames, seed)


def _label_rows(images: Samples, frames: Samples, accuracy: float, seed: int) -> Iterator[Row]:
    equalise = equalise_label_accuracy(accuracy)
    equal = equalise(images, frames, factor_generator(seed, LABEL_ACCURACY))
    pairs = [(one.mask, other.mask) for one, other in zip(equal, images, strict=True)]
    masks = [(mask, manual) for mask, manual in pairs if mask is not None and manual is not None]
    reached = label_accuracy([mask for mask, _ in masks], [manual for _, manual in masks])
    for domain, stage, samples, value, note in (
        (IMAGES, BEFORE, images, 1.0, "manual masks"),
        (IMAGES, AFTER, images, reached, ""),
        (VIDEOS, BEFORE, frames, accuracy, "as given"),
        (VIDEOS, AFTER, frames, accuracy, "as given"),
    ):
        yield _row(LABEL_ACCURACY, "boundary_f", domain, stage, len(samples), value, note)


def _quantile_rows(factor: str, images: Samples, frames: Samples, seed: int) -> Iterator[Row]:
    """Medians, and the Kolmogorov-Smirnov distance between the sets."""
    statistic, equalise = BY_QUANTILES[factor]
    equal = equalise(images, frames, factor_generator(seed, factor))
    of_video = statistics_frame(frames)[[statistic]]
    for stage, samples in ((BEFORE, images), (AFTER, equal)):
        table = compare_statistics(statistics_frame(samples)[[statistic]], of_video)
        values = table[["images", "videos", "distance"]].to_numpy(np.float64)[0].tolist()
        counts = (len(samples), len(frames), len(samples))
        for domain, count, value in zip((IMAGES, VIDEOS, BOTH), counts, values, strict=True):
            name = f"{statistic}_median" if domain != BOTH else f"{statistic}_distance"
            yield _row(factor, name, domain, stage, count, value)


def _framing_rows(images: Samples, frames: Samples, seed: int) -> Iterator[Row]:
    """KL divergence of the images' framing from the videos', and what resampling leaves."""
    equal = equalise_framing(images, frames, factor_generator(seed, FRAMING_FACTOR))
    times = Counter(id(one) for one in equal)
    table, other = (statistics_frame(part)[list(FRAMING)].to_numpy() for part in (images, frames))
    shown = np.flatnonzero(np.isfinite(table).all(1))
    ours, theirs = framing_plane(table[shown], other[np.isfinite(other).all(1)])
    drawn = np.array([times[id(images[index])] for index in shown.tolist()])
    once = np.ones(len(shown), np.intp)
    for stage, weights in ((BEFORE, once), (AFTER, drawn)):
        size = effective_sample_size(weights.astype(np.float64))
        statistic = "effective_sample_size"
        yield _row(FRAMING_FACTOR, statistic, IMAGES, stage, len(shown), size)
        yield _row(FRAMING_FACTOR, statistic, VIDEOS, stage, len(theirs), float(len(theirs)))
        value, note = _divergence(ours, theirs, weights)
        yield _row(FRAMING_FACTOR, "kl_divergence", BOTH, stage, len(shown), value, note)


def _divergence(ours: FloatArray, theirs: FloatArray, weights: IntArray) -> tuple[float, str]:
    try:
        return kl_divergence(ours, theirs, weights=weights), ""
    except DataError as error:
        note = f"Undefined: {error.found} different samples; {error.expected} are needed."
        return math.nan, note
