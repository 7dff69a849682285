"""The numbers of a gap, as tidy rows: distances, class structure, scores, what is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import DataError
from bench.gap.classes import NEIGHBOURS, class_centre_distance, class_silhouette, domain_purity
from bench.gap.closing import gap_closed
from bench.gap.distance import (
    proxy_a_distance,
    proxy_a_distance_by_class,
    two_layer_perceptron,
)
from bench.gap.domains import Samples
from bench.gap.features import CLASSES, Features, both_domains, group_names
from bench.gap.frechet import COMPONENTS, GROUPS_PER_COMPONENT, frechet_ratio
from bench.gap.mmd import squared_mmd
from bench.gap.probe import foreground_j, probe_scores, trained_probes, training_size
from bench.gap.representation import Representation
from bench.gap.statistics import (
    Estimate,
    FloatArray,
    Groups,
    IntArray,
    Interval,
    percentile_interval,
)
from bench.gap.variants import ORACLE, SOURCE, Variant

Row = dict[str, Any]

IMAGES, VIDEOS = "images", "videos"
"""The domains, as tables write them."""

HEAD, PROBE = "own foreground", "linear probe"
"""What segments: the method without a mask, or a probe on its features."""

FRECHET_RATIO = "frechet_ratio"

RESAMPLES = 1000


def estimate_row(estimate: Estimate) -> Row:
    """Columns that every estimate has."""
    low, high = estimate.interval or Interval(math.nan, math.nan)
    return {
        "value": estimate.value,
        "low": low,
        "high": high,
        "images": estimate.groups[0],
        "videos": estimate.groups[1] if len(estimate.groups) > 1 else math.nan,
        "note": estimate.note,
    }


# --- distances between the domains -----------------------------------------------------------


def distance_rows(images: Features, videos: Features, seed: int) -> Iterator[Row]:
    """All measures of the gap, tap by tap.

    Marginal measures take one pooled vector per sample; those by class take tokens, whose class
    the ground truth gives.
    """
    names = np.array(list(group_names(images, videos)))
    for tap in images.taps:
        ours, theirs = images.taps[tap], videos.taps[tap]
        pooled, domains = both_domains(ours.pooled, theirs.pooled)
        tokens, token_domains = both_domains(ours.tokens.features, theirs.tokens.features)
        classes = np.concatenate([ours.tokens.classes, theirs.tokens.classes])
        sample = np.concatenate([ours.tokens.sample, theirs.tokens.sample + len(images)])
        groups = names[sample]

        def row(measure: str, estimate: Estimate, tap: str = tap, **more: Any) -> Row:
            return {"tap": tap, "measure": measure, **estimate_row(estimate), **more}

        yield row("a_distance", proxy_a_distance(pooled, domains, seed=seed))
        fresh = proxy_a_distance(pooled, domains, classifier=two_layer_perceptron, seed=seed)
        yield row("a_distance_perceptron", fresh)
        by_class = proxy_a_distance_by_class(tokens, token_domains, classes, groups, seed=seed)
        yield row("a_distance_by_class", by_class)
        for number, value in by_class.per_class.items():
            single = Estimate(value, None, by_class.rows, by_class.groups)
            yield row(f"a_distance_{CLASSES[number]}", single)
        mmd = squared_mmd(pooled, domains, seed=seed)
        yield row("squared_mmd", mmd, p_value=mmd.p_value)
        yield row(FRECHET_RATIO, frechet_estimate(pooled, domains, seed))
        yield row("domain_purity", purity(pooled, domains, None, seed))
        of_video = videos.taps[tap].tokens
        for measure, function in _CLASS_STRUCTURE.items():
            structure = function(of_video.features, of_video.classes, of_video.sample, seed=seed)
            yield row(measure, Estimate(*_of_videos(structure)))


def purity(features: FloatArray, domains: IntArray, groups: Any, seed: int) -> Estimate:
    """Domain purity among 15 neighbours, or as many as half a small domain has samples."""
    counts = Groups.of_rows(len(features), domains, groups).per_domain
    neighbours = max(1, min(NEIGHBOURS, min(counts) // 2))
    estimate = domain_purity(features, domains, groups, neighbours=neighbours, seed=seed)
    if neighbours == NEIGHBOURS or estimate.note:
        return estimate
    return replace(estimate, note=f"Among {neighbours} neighbours: the samples are few.")


_CLASS_STRUCTURE: Mapping[str, Callable[..., Estimate]] = {
    "class_centre_distance": class_centre_distance,
    "class_silhouette": class_silhouette,
}


def _of_videos(estimate: Estimate) -> tuple[Any, ...]:
    """Fields of an estimate of video alone, its counts in the second place."""
    rows, groups = (0, *estimate.rows), (0, *estimate.groups)
    return estimate.value, estimate.interval, rows, groups, estimate.note


def frechet_estimate(pooled: FloatArray, domains: IntArray, seed: int) -> Estimate:
    """The ratio in as many components as the samples allow, which the note tells."""
    allowed = int(np.bincount(domains).min()) // GROUPS_PER_COMPONENT
    estimate = frechet_ratio(
        pooled, domains, components=max(1, min(COMPONENTS, allowed)), seed=seed
    )
    note = estimate.note
    if not note and estimate.components < COMPONENTS:
        note = f"In {estimate.components} principal components: the samples allow no more."
    return replace(estimate, note=note)


# --- scores ----------------------------------------------------------------------------------


def segment_scores(representation: Representation, samples: Samples) -> FloatArray:
    """J of the method's own foreground on every sample ``(N,)``."""
    assert representation.segment is not None
    found = []
    for one in samples:
        assert one.mask is not None
        found.append(foreground_j(representation.segment(one.image), one.mask))
    return np.array(found)


def training_domain(variant: Variant) -> str:
    """What a network's labels came from, by the label of its weights."""
    return {SOURCE: IMAGES, ORACLE: VIDEOS}.get(variant.weights, variant.weights or "as shipped")


def score_rows(
    variant: Variant,
    features: tuple[Features, Features],
    samples: tuple[Samples, Samples],
    seed: int,
) -> Iterator[Row]:
    """J of every sample: one row per head, training domain, test domain and sample."""
    places = (IMAGES, VIDEOS)
    representation = variant.representation
    for place, one in zip(places, samples, strict=True):
        if representation.segment is not None:
            values = segment_scores(representation, one)
            yield from _of_samples(HEAD, training_domain(variant), place, one, values)
    most = training_size(len(samples[0]), len(samples[1]))
    for trained, source in zip(places, features, strict=True):
        probes = trained_probes(source, representation.main_tap, most, seed)
        for place, looked, one in zip(places, features, samples, strict=True):
            values = probe_scores(probes, looked, one, seed)
            yield from _of_samples(PROBE, trained, place, one, values)


def _of_samples(
    head: str, trained: str, tested: str, samples: Samples, values: FloatArray
) -> Iterator[Row]:
    for one, value in zip(samples, values, strict=True):
        yield {
            "head": head,
            "trained_on": trained,
            "tested_on": tested,
            "sample": one.name,
            "J": float(value),
        }


def mean_interval(values: FloatArray, seed: int) -> Interval | None:
    """Bootstrap interval of the mean of independent samples."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return percentile_interval(values[drawn].mean(1))


def performance_drop(per_sample: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean J by head, training domain and test domain, and what is lost from images to videos.

    Args:
        per_sample: of :func:`score_rows`, with the variant's columns.
        seed: of the bootstrap.

    Returns:
        One row per variant, head and training domain: ``J_images`` and ``J_videos`` with
        ``_low`` and ``_high``, and ``drop = J_images - J_videos`` likewise. Intervals resample
        samples, so they do not tell the noise of training.
    """
    keys = ["method", "weights", "seed", "head", "trained_on"]
    rows = []
    for key, part in per_sample.groupby(keys, sort=False):
        row: Row = dict(zip(keys, key, strict=True))
        resampled: list[FloatArray] = []
        for place in (IMAGES, VIDEOS):
            values = part.loc[part["tested_on"] == place, "J"].to_numpy()
            generator = np.random.default_rng([seed, len(resampled)])
            drawn = values[generator.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
            resampled.append(drawn)
            row |= _with_interval(f"J_{place}", float(values.mean()), drawn)
            row[f"samples_{place}"] = len(values)
        drop = row["J_images"] - row["J_videos"]
        row |= _with_interval("drop", drop, resampled[0] - resampled[1])
        rows.append(row)
    return pd.DataFrame(rows)


def _with_interval(name: str, value: float, resampled: FloatArray) -> Row:
    low, high = percentile_interval(resampled) or (math.nan, math.nan)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def closed_rows(drop: pd.DataFrame) -> Iterator[Row]:
    """Gap closed on video by every adapted network of a method that also has both ends."""
    own = drop[drop["head"] == HEAD]
    for method, part in own.groupby("method", sort=False):
        by_label: dict[str, dict[int, float]] = {
            str(label): dict(zip(rows["seed"], rows["J_videos"], strict=True))
            for label, rows in part.groupby("weights", sort=False)
        }
        if not {SOURCE, ORACLE} <= set(by_label):
            continue
        for label, scores in by_label.items():
            if label in (SOURCE, ORACLE):
                continue
            try:
                estimate = gap_closed(scores, by_label[SOURCE], by_label[ORACLE])
            except DataError as error:
                estimate = Estimate(math.nan, None, (0,), (0,), f"{error.found}. {error.remedy}")
            interval = estimate.interval or Interval(math.nan, math.nan)
            yield {
                "method": method,
                "weights": label,
                "value": estimate.value,
                "low": interval.low,
                "high": interval.high,
                "seeds": estimate.groups[0],
                "note": estimate.note,
            }


def relative_to_oracle(drop: pd.DataFrame) -> dict[str, float]:
    """``(J_oracle - J_source) / J_oracle`` on video by method, where there are both."""
    own = drop[drop["head"] == HEAD]
    found = {}
    for method, part in own.groupby("method", sort=False):
        means: Mapping[Any, float] = part.groupby("weights")["J_videos"].mean().to_dict()
        if SOURCE in means and means.get(ORACLE, 0) > 0:
            found[str(method)] = (means[ORACLE] - means[SOURCE]) / means[ORACLE]
    return found


def missing_reasons(variants: Sequence[Variant]) -> Iterator[tuple[str, str, str]]:
    """(what, method, why) of the parts of the table that have no row."""
    for method in dict.fromkeys(one.method for one in variants):
        own = [one for one in variants if one.method == method]
        labels = {one.weights for one in own}
        if all(one.representation.segment is None for one in own):
            yield (
                "J of its own foreground, gap closed",
                method,
                "it segments only with a first mask; a linear probe of its features stands in",
            )
            continue
        for label, meaning in ((SOURCE, "images"), (ORACLE, "videos")):
            if label not in labels:
                yield (
                    f"own foreground trained on {meaning}",
                    method,
                    f"no weights labelled {label} were given; add --weights {label}=FILE",
                )
        if {SOURCE, ORACLE} <= labels == {SOURCE, ORACLE}:
            yield "gap closed", method, "no adapted weights were given; add --weights LABEL=FILE"
        elif not {SOURCE, ORACLE} <= labels:
            yield "gap closed", method, "it needs weights labelled source and oracle"
