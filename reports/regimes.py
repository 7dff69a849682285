"""Label regimes: methods sorted by the kind of labels that their training consumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.method import SECONDS_PER_LABEL, LabelRegime

if TYPE_CHECKING:
    from reports.results import MethodInfo

UNKNOWN = "unknown"
UNTRAINED = "no training"

KINDS: Mapping[str, str] = {
    UNTRAINED: (
        "Nothing is learned: the score is what the network's random weights, or no network at "
        "all, reach under the same propagation."
    ),
    "image classes": (
        "People named what each image shows. No outline was drawn, yet features that tell classes "
        "apart also tell parts of objects apart."
    ),
    "still images, no labels": (
        "The method makes sequences out of single images, and masks for them if it needs any. "
        "Nobody labelled the images, and no video is needed."
    ),
    "video, no labels": (
        "The method learns to find the same thing again in another frame of the same video. "
        "Video is long to collect and to train on, but nobody labels it."
    ),
    "labelled images": "People outlined objects in single images; no video is used.",
    "labelled images and video": (
        "Outlines in single images teach what an object is; unlabelled video adapts that to motion."
    ),
    "video masks": (
        "People outlined objects frame by frame in video: the dearest labels, and those closest "
        "to the task."
    ),
    UNKNOWN: "No job of these methods has finished, and the regime is read from loaded weights.",
}
"""Kinds of label regime, cheapest labels first, and what each one means."""

SOURCES: Mapping[str, str] = {
    "class": "Bearman et al., ECCV 2016: class labels of an image",
    "saliency": "Jain and Grauman, ICCV 2013: one tight outline",
    "mask": "Lin et al. (COCO), ECCV 2014: one object, 22 worker hours for 1,000",
}
"""Where the seconds per label come from."""


@dataclass(frozen=True)
class RegimeGroup:
    """A kind of label regime and the methods of a report that belong to it.

    Attributes:
        kind: one of :data:`KINDS`.
        text: what it means.
        methods: the methods, in the order of their labels.
    """

    kind: str
    text: str
    methods: Sequence[MethodInfo]


@dataclass(frozen=True)
class LabelCost:
    """Annotation time of one label.

    Attributes:
        kind: as in :data:`bench.method.SECONDS_PER_LABEL`.
        name: what the page calls it.
        seconds: of one person's work.
        source: where the figure stands.
    """

    kind: str
    name: str
    seconds: float
    source: str

    @property
    def changed(self) -> bool:
        """Whether it is not the default estimate."""
        return self.seconds != SECONDS_PER_LABEL[self.kind]


def regime_kind(regime: LabelRegime | None) -> str:
    """The kind of a regime, one of :data:`KINDS`.

    The dearest label decides; pretraining is listed with a method and does not count here.
    """
    if regime is None:
        return UNKNOWN
    if regime.video_labels == "mask" or regime.video_masks:
        return "video masks"
    video = bool(regime.videos or regime.video_hours)
    if regime.images and regime.image_labels in ("mask", "saliency"):
        return "labelled images and video" if video else "labelled images"
    if regime.images and regime.image_labels == "class":
        return "image classes"
    if video:
        return "video, no labels"
    return "still images, no labels" if regime.images else UNTRAINED


def regime_groups(methods: Sequence[MethodInfo]) -> list[RegimeGroup]:
    """The kinds that occur, in the order of :data:`KINDS`."""
    groups = []
    for kind, text in KINDS.items():
        found = [info for info in methods if regime_kind(info.regime) == kind]
        if found:
            groups.append(RegimeGroup(kind, text, found))
    return groups


def label_costs(seconds: Mapping[str, float]) -> list[LabelCost]:
    """The kinds of label that cost time, by the default estimate the cheapest first.

    Args:
        seconds: per label, by kind.
    """
    names = {"class": "an image's classes", "saliency": "an outline", "mask": "an object's mask"}
    costs = []
    for kind, name in names.items():
        own = SECONDS_PER_LABEL[kind]
        source = SOURCES[kind]
        if seconds[kind] != own:
            source = f"as this report was told; otherwise {own:g} ({source})"
        costs.append(LabelCost(kind, name, seconds[kind], source))
    return costs


def changed_costs(seconds: Mapping[str, float]) -> list[str]:
    """A sentence where seconds per label are not the default ones; else nothing."""
    changed = [
        f"{cost.seconds:g} for {cost.name} (instead of {SECONDS_PER_LABEL[cost.kind]:g})"
        for cost in label_costs(seconds)
        if cost.changed
    ]
    if not changed:
        return []
    return [f"Annotation counts other seconds per label than by default: {', '.join(changed)}."]


def annotation_hours(regime: LabelRegime | None, seconds: Mapping[str, float]) -> float:
    """Estimated hours of human annotation with these seconds per label; NaN without a regime."""
    if regime is None:
        return math.nan
    counts = label_counts(regime)
    return sum(seconds[kind] * count for kind, count in counts.items()) / 3600


def label_counts(regime: LabelRegime | None) -> dict[str, int]:
    """How many labels of each kind training consumed, without kinds that cost nothing.

    With :data:`bench.method.SECONDS_PER_LABEL`, :func:`annotation_hours` of them is the regime's.
    """
    counts: dict[str, int] = {}
    if regime is None:
        return counts
    if SECONDS_PER_LABEL[regime.image_labels] and regime.images:
        counts[regime.image_labels] = regime.images
    if regime.video_masks:
        counts["mask"] = counts.get("mask", 0) + regime.video_masks
    return counts
