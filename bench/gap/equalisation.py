"""The waterfall of :mod:`bench.gap.equalise`, scored by a linear probe on a network's features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from bench.gap.domains import Samples
from bench.gap.equalise import (
    Equaliser,
    equalise_brightness,
    equalise_diversity,
    equalise_framing,
    equalise_sharpness,
    waterfall,
)
from bench.gap.features import Features, extract
from bench.gap.measures import Row, mean_interval
from bench.gap.probe import LinearProbe, foreground_j
from bench.gap.representation import Representation
from bench.gap.statistics import FloatArray, Interval
from bench.video import LabelledImage


@dataclass
class ProbeOnVideo:
    """Trains a probe on images and scores it on video frames; remembers every frame's score.

    Attributes:
        representation: whose features.
        frames: labelled video frames.
        videos: their features, with maps.
        seed: of tokens.
        history: J of every frame, an array ``(N,)`` per call.
    """

    representation: Representation
    frames: Samples
    videos: Features
    seed: int
    history: list[FloatArray] = field(default_factory=list)

    def __call__(self, images: Samples) -> float:
        """Mean J on the frames of a probe trained on these images."""
        tap = self.representation.main_tap
        tokens = extract(self.representation, images, self.seed).taps[tap].tokens
        probe = LinearProbe.trained_on(tokens, self.seed)
        scores = []
        for one, values in zip(self.frames, self.videos.maps, strict=True):
            assert one.mask is not None
            size = (one.mask.shape[0], one.mask.shape[1])
            scores.append(foreground_j(probe.segment(values, size), one.mask))
        self.history.append(np.array(scores))
        return float(np.mean(scores))


def equalisers(representation: Representation) -> Mapping[str, Equaliser]:
    """The factors that can be made equal without training, in a fixed order."""

    def pooled(one: LabelledImage) -> FloatArray:
        maps = representation.features(one.image)[representation.main_tap]
        return np.asarray(maps.reshape(len(maps), -1).mean(1), np.float64)

    return {
        "diversity": equalise_diversity(pooled),
        "sharpness": equalise_sharpness,
        "brightness": equalise_brightness,
        "framing": equalise_framing,
    }


def equalisation_rows(
    representation: Representation, images: Samples, frames: Samples, videos: Features, seed: int
) -> Iterator[Row]:
    """Rows of :func:`bench.gap.equalise.waterfall` with paired intervals of every change.

    Args:
        representation: whose features the probe reads.
        images: labelled.
        frames: one labelled frame per video.
        videos: features of these frames, with maps.
        seed: of what is drawn.
    """
    probe = ProbeOnVideo(representation, frames, videos, seed)
    table = waterfall(images, frames, probe, equalisers(representation), seed)
    # The clean score is computed once and opens both orders.
    calls = iter(range(1, len(probe.history)))
    last = 0
    for row in table.to_dict("records"):
        low = high = math.nan
        if row["step"] == 0:
            last = 0
        else:
            now = next(calls)
            change = probe.history[now] - probe.history[last]
            low, high = mean_interval(change, seed) or Interval(math.nan, math.nan)
            last = now
        yield {**{str(key): value for key, value in row.items()}, "low": low, "high": high}
