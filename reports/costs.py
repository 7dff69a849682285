"""What training consumed, in numbers that measured and published systems share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.method import LabelRegime
from reports.published import Published, published

if TYPE_CHECKING:
    from reports.results import DatasetInfo

FRAMES_PER_HOUR = 24 * 3600
"""Video counts as images at 24 frames a second, which DAVIS and most web video have."""

IMAGES_IN: Mapping[str, int] = {"MSRA10K": 10_000, "ImageNet": 1_281_167}
"""Images of the datasets that published systems name.

MSRA10K: Cheng et al., Global Contrast Based Salient Region Detection, TPAMI 2015. ImageNet, the
1,000 classes of its challenge: Russakovsky et al., IJCV 2015.
"""

CONSUMED = [
    "images",
    "image_labels",
    "videos",
    "video_hours",
    "video_labels",
    "video_masks",
    "pretraining",
]
"""Columns of ``table.csv`` that are fields of :class:`bench.method.LabelRegime`."""


@dataclass(frozen=True)
class PublishedPoint:
    """A published score with the images behind it.

    Attributes:
        method: the system.
        images: training images, frames of video included.
        score: J&F in percent.
        source: where the score stands.
    """

    method: str
    images: float
    score: float
    source: str


def training_images(regime: LabelRegime | None) -> float:
    """Images that training saw at least once, frames of video included; pretraining is not.

    NaN where the regime is unknown. Videos whose length is unknown count their annotated frames.
    """
    if regime is None:
        return math.nan
    frames = regime.video_hours * FRAMES_PER_HOUR or regime.video_masks
    return regime.images + round(frames)


def consumed(regime: LabelRegime | None) -> dict[str, Any]:
    """A row's values of :data:`CONSUMED`; all None where the regime is unknown."""
    if regime is None:
        return dict.fromkeys(CONSUMED)
    values = {name: getattr(regime, name) for name in CONSUMED}
    return {**values, "pretraining": "; ".join(regime.pretraining)}


def published_points(dataset: DatasetInfo) -> list[PublishedPoint]:
    """Published scores on a dataset whose training images can be counted, fewest images first."""
    points = []
    for row in published(*dataset.key):
        images = _images_of(row)
        if images:
            points.append(PublishedPoint(row.method, images, float(row.mean), row.source))
    return sorted(points, key=lambda point: (point.images, point.method))


def _images_of(row: Published) -> float:
    """Images behind a published row; NaN where one of its image sets is not in the table."""
    hours = float(row.video_hours) if row.video_hours else 0.0
    names = row.images.split("+") if row.images else []
    return sum(IMAGES_IN.get(name, math.nan) for name in names) + hours * FRAMES_PER_HOUR


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other one beats, cheapest first.

    One point beats another with no more cost and no lower score, and one of both better.

    Args:
        points: by name: cost (less is better) and score (more is better).
    """
    front = []
    highest = -math.inf
    for name, (_, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if score > highest:
            front.append(name)
            highest = score
    return front
