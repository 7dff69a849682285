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
from bench.gap.factor_statistics import (
    BRIGHTNESS,
    DIVERSITY,
    FRAMING_FACTOR,
    LABEL_ACCURACY,
    SHARPNESS,
)
from bench.gap.features import Features, extract
from bench.gap.label_accuracy import equalise_label_accuracy
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


def equalisers(
    representation: Representation, video_label_accuracy: float | None
) -> Mapping[str, Equaliser]:
    """The factors that can be made equal without training, in a fixed order.

    Args:
        representation: tells which samples show nearly the same.
        video_label_accuracy: boundary F of the videos' masks; None leaves label accuracy out.
    """

    def pooled(one: LabelledImage) -> FloatArray:
        maps = representation.features(one.image)[representation.main_tap]
        return np.asarray(maps.reshape(len(maps), -1).astype(np.float64).mean(1))

    found: dict[str, Equaliser] = {}
    if video_label_accuracy is not None:
        found[LABEL_ACCURACY] = equalise_label_accuracy(video_label_accuracy)
    return found | {
        DIVERSITY: equalise_diversity(pooled),
        SHARPNESS: equalise_sharpness,
        BRIGHTNESS: equalise_brightness,
        FRAMING_FACTOR: equalise_framing,
    }


def equalisation_rows(
    representation: Representation,
    images: Samples,
    frames: Samples,
    videos: Features,
    seed: int,
    video_label_accuracy: float | None = None,
) -> Iterator[Row]:
    """Rows of :func:`bench.gap.equalise.waterfall` with paired intervals of every change.

    Args:
        representation: whose features the probe reads.
        images: labelled.
        frames: one labelled frame per video.
        videos: features of these frames, with maps.
        seed: of what is drawn.
        video_label_accuracy: boundary F of the videos' masks against manual ones; None where
            theirs are manual, as the images' are.
    """
    probe = ProbeOnVideo(representation, frames, videos, seed)
    table = waterfall(images, frames, probe, equalisers(representation, video_label_accuracy), seed)
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
