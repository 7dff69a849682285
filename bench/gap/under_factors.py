"""What one factor at a time does to features, to scores, and to the distance between domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.gap.cka import linear_cka
from bench.gap.distance import proxy_a_distance
from bench.gap.domains import ImageSample, Samples, VideoSample
from bench.gap.factors import SEVERITIES, Geometric, get_factor
from bench.gap.features import Features, both_domains, extract
from bench.gap.measures import (
    HEAD,
    IMAGES,
    PROBE,
    VIDEOS,
    Row,
    estimate_row,
    mean_interval,
    segment_scores,
)
from bench.gap.mmd import squared_mmd
from bench.gap.probe import LinearProbe, probe_scores, trained_probes, training_size
from bench.gap.statistics import FloatArray, Interval
from bench.gap.variants import Variant

A_DISTANCE, SQUARED_MMD = "a_distance", "squared_mmd"

GEOMETRIC_WITHOUT_CKA = (
    "it moves the object, so that positions of clean and changed frames show different things"
)


@dataclass(frozen=True)
class Clean:
    """A network's features of the clean samples.

    Attributes:
        variant: the network.
        images: with maps at the main tap.
        videos: likewise.
        seed: of folds.
    """

    variant: Variant
    images: Features
    videos: Features
    seed: int

    @cached_property
    def probes(self) -> Sequence[LinearProbe]:
        """Linear probes trained on clean images."""
        most = training_size(len(self.images), len(self.videos))
        return trained_probes(self.images, self.variant.representation.main_tap, most, self.seed)

    def of(self, domain: str) -> Features:
        """Features of a domain."""
        return self.images if domain == IMAGES else self.videos


def factor_rows(
    networks: Sequence[Clean],
    images: ImageSample,
    videos: VideoSample,
    factors: Sequence[str],
    seed: int,
    advance: Callable[[], None],
) -> Iterator[tuple[str, Row]]:
    """Measure every network under every factor and severity, on images and on video.

    Every changed set is made once and shown to all networks.

    Args:
        networks: with their clean features.
        images: clean.
        videos: clean.
        factors: names.
        seed: of what factors draw.
        advance: called after every changed set.

    Yields:
        ``"cka"`` or ``"curves"``, the table that a row belongs to, and the row.
    """
    clean = {IMAGES: images.items, VIDEOS: videos.frames()}
    for name in factors:
        factor = get_factor(name)
        for domain, sample in ((IMAGES, images), (VIDEOS, videos)):
            for severity in SEVERITIES:
                changed = sample.corrupted(factor, severity, seed) if severity else clean[domain]
                place: Row = {"domain": domain, "factor": name, "severity": severity}
                for one in networks:
                    features = one.of(domain)
                    if severity:
                        features = extract(one.variant.representation, changed, one.seed, True)
                    key = one.variant.key | place
                    if not isinstance(factor, Geometric):
                        yield from (("cka", key | row) for row in _similarity(one, features, place))
                    yield from (("curves", key | row) for row in _scores(one, features, changed))
                    if domain == IMAGES:
                        yield from (("curves", key | row) for row in _distances(one, features))
                advance()


def _similarity(clean: Clean, changed: Features, place: Row) -> Iterator[Row]:
    """CKA of tokens with themselves in the clean samples, tap by tap."""
    before = clean.of(place["domain"])
    for tap, values in changed.taps.items():
        if place["severity"] == 0:
            # By definition; computing it would only show rounding.
            yield {"tap": tap, "value": 1.0, "low": 1.0, "high": 1.0, "chance": math.nan}
            continue
        rows = before.taps[tap].tokens
        estimate = linear_cka(rows.features, values.tokens.features, rows.sample, seed=clean.seed)
        low, high = estimate.interval or Interval(math.nan, math.nan)
        yield {
            "tap": tap,
            "value": estimate.value,
            "low": low,
            "high": high,
            "chance": estimate.chance,
            "note": estimate.note,
        }


def _scores(clean: Clean, features: Features, samples: Samples) -> Iterator[Row]:
    representation = clean.variant.representation
    if representation.segment is not None:
        yield _mean_row(HEAD, segment_scores(representation, samples), clean.seed)
    yield _mean_row(PROBE, probe_scores(clean.probes, features, samples, clean.seed), clean.seed)


def _mean_row(measure: str, values: FloatArray, seed: int) -> Row:
    low, high = mean_interval(values, seed) or Interval(math.nan, math.nan)
    return {"measure": measure, "value": float(values.mean()), "low": low, "high": high}


def _distances(clean: Clean, features: Features) -> Iterator[Row]:
    """A-distance and squared MMD between changed images and clean videos."""
    tap = clean.variant.representation.main_tap
    rows, domains = both_domains(features.taps[tap].pooled, clean.videos.taps[tap].pooled)
    estimates = {
        A_DISTANCE: proxy_a_distance(rows, domains, seed=clean.seed),
        SQUARED_MMD: squared_mmd(rows, domains, seed=clean.seed),
    }
    for measure, estimate in estimates.items():
        row = estimate_row(estimate)
        yield {"measure": measure, **{name: row[name] for name in ("value", "low", "high", "note")}}
