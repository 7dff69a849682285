"""Semantic segmentation: which classes mean the same, and how right the class of every pixel is.

A method and a dataset rarely have the same classes, so what is compared with what is an explicit
:class:`ClassMapping` that goes with the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bench.config import config_error, read_yaml
from bench.errors import ConfigError
from bench.video import VOID, Mask, ObjectInfo, Video

BACKGROUND = "background"

MOST_CLASSES = VOID - 1
"""A mask has room for so many beside background and void."""

Counts = NDArray[np.int64]


class ClassMapping(BaseModel):
    """Which classes of a method and which categories of a dataset mean the same.

    Attributes:
        shared: names of the classes that are scored, without background; shared class ``i`` is
            ``shared[i - 1]``. What is called so in the method or in the dataset is meant by it.
        network: shared name of classes that the method calls otherwise. A class of the method
            without a shared name counts as background.
        truth: shared name of categories that the dataset calls otherwise. An object whose category
            has no shared name is void: a method cannot know it, and coverage says how much that
            leaves out.
        objects: category of objects by sequence and id, for datasets that know none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shared: tuple[str, ...] = Field(min_length=1, max_length=MOST_CLASSES)
    network: dict[str, str] = {}
    truth: dict[str, str] = {}
    objects: dict[str, dict[Annotated[int, Field(ge=1, lt=VOID)], str]] = {}

    @field_validator("shared")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names) or BACKGROUND in names:
            raise ValueError(
                f"expected each class once, and no {BACKGROUND}, which is always there"
            )
        return names

    @field_validator("network", "truth")
    @classmethod
    def _to_shared(cls, names: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        shared = info.data.get("shared", ())
        unknown = sorted(set(names.values()) - set(shared))
        if unknown and shared:  # otherwise the complaint is about the shared classes themselves
            raise ValueError(
                f"{', '.join(unknown)}: not among the shared classes ({', '.join(shared)})"
            )
        return names

    @classmethod
    def by_name(cls, network: Sequence[str], dataset: Iterable[str]) -> ClassMapping:
        """Classes that are called the same, in the method's order.

        Args:
            network: names of the method's classes, without background.
            dataset: names of the dataset's categories.

        Raises:
            ConfigError: they share none.
        """
        known = set(dataset)
        shared = tuple(name for name in network if name in known)
        if not shared:
            raise ConfigError(
                "class mapping",
                f"no class that both have: {_some(network)} and {_some(sorted(known))}",
                "at least one name in common",
                "Name a mapping with --classes FILE.",
            )
        return cls(shared=shared)

    @classmethod
    def read(cls, path: Path) -> ClassMapping:
        """Read a mapping from a YAML file with its attributes as keys.

        Raises:
            ConfigError: unreadable, or not such a mapping; names the wrong key.
        """
        try:
            return cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise config_error(str(path), error, cls) from None

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """The shared classes that a method with classes of these names does not have."""
        return tuple(name for name in self.shared if name not in map(self._of_class, names))

    def _of_class(self, name: str) -> str | None:
        return self.network.get(name, name if name in self.shared else None)

    def _of_category(self, name: str | None) -> str | None:
        if name is None:
            return None
        return self.truth.get(name, name if name in self.shared else None)

    def categories(self, video: Video) -> dict[int, str | None]:
        """Category of each of a video's objects: that given here, else the dataset's own."""
        known = {number: info.category for number, info in video.objects.items()}
        return known | self.objects.get(video.name, {})

    def shows(self, video: Video) -> bool:
        """Whether any object of a video has a shared class."""
        return any(map(self._of_category, self.categories(video).values()))

    def of_network(self, labels: Mask, names: Sequence[str]) -> Mask:
        """Shared classes, uint8 ``(H, W)``, of a method's classes.

        Args:
            labels: uint8 ``(H, W)``: 0 background, then the method's classes.
            names: of the method's classes 1, 2, ...
        """
        table = np.zeros(VOID + 1, np.uint8)
        for number, name in enumerate(map(self._of_class, names), start=1):
            table[number] = 0 if name is None else 1 + self.shared.index(name)
        return table[labels]

    def of_truth(self, mask: Mask, categories: Mapping[int, str | None]) -> Mask:
        """Shared classes, uint8 ``(H, W)``, of an annotation; unshared objects become void (255).

        Args:
            mask: uint8 object ids ``(H, W)``; 255, void, stays.
            categories: of the objects by id, as :meth:`categories` gives them.
        """
        table = np.full(VOID + 1, VOID, np.uint8)
        table[0] = 0
        for number, category in categories.items():
            if (name := self._of_category(category)) is not None:
                table[number] = 1 + self.shared.index(name)
        return table[mask]

    def of_video(self, video: Video) -> Video:
        """The same video with shared classes in the place of objects."""
        categories = self.categories(video)
        return replace(
            video,
            load_mask=lambda index: self.of_truth(video.load_mask(index), categories),
            objects={i: ObjectInfo(name) for i, name in enumerate(self.shared, start=1)},
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


@dataclass(frozen=True)
class ClassCounts:
    """Pixels of one video by shared class, background first; void pixels are left out.

    Attributes:
        intersection: both true and predicted, int64 ``(1 + classes,)``.
        union: true or predicted, likewise.
        true: true, likewise.
        coverage: share of the objects' pixels whose category is shared, in [0, 1]; NaN where no
            annotated frame shows an object.
    """

    intersection: Counts
    union: Counts
    true: Counts
    coverage: float

    @classmethod
    def of_confusion(cls, confusion: Counts, coverage: float) -> ClassCounts:
        """From a confusion matrix, truth by prediction, int64 ``(1 + classes, 1 + classes)``."""
        both, true = np.diag(confusion), confusion.sum(1)
        return cls(both, true + confusion.sum(0) - both, true, coverage)


@dataclass(frozen=True)
class SemanticScores:
    """Intersection over union of shared classes, in [0, 1].

    Background is among ``classes`` only; the means are over the others.

    Attributes:
        pooled: mean over the classes that occur, in truth or prediction, of IoU with all videos'
            pixels in one pool.
        averaged: mean over videos of the mean IoU of the classes that a video's truth contains.
        classes: pooled IoU by name, background first; NaN where a class does not occur.
        videos: mean IoU by video; NaN where its truth contains no shared class.
        coverage: by video; see :class:`ClassCounts`.
    """

    pooled: float
    averaged: float
    classes: Mapping[str, float]
    videos: Mapping[str, float]
    coverage: Mapping[str, float]


def semantic_scores(names: Sequence[str], videos: Mapping[str, ClassCounts]) -> SemanticScores:
    """Mean IoU in the two ways that the literature averages.

    Pooling pixels lets long videos and large objects decide; averaging over videos does not.

    Args:
        names: of the counted classes, background first.
        videos: counts by video; one at least.
    """
    pooled = _ratio(
        np.sum([counts.intersection for counts in videos.values()], 0),
        np.sum([counts.union for counts in videos.values()], 0),
    )
    each = {
        video: _mean(_ratio(counts.intersection, counts.union)[1:][counts.true[1:] > 0])
        for video, counts in videos.items()
    }
    return SemanticScores(
        pooled=_mean(pooled[1:]),
        averaged=_mean(np.array(list(each.values()))),
        classes=dict(zip(names, pooled.tolist(), strict=True)),
        videos=each,
        coverage={video: counts.coverage for video, counts in videos.items()},
    )


class SemanticScorer:
    """Counts pixels by true and predicted class; of one video or of many, frame by frame.

    Args:
        mapping: what means the same.
        names: of the method's classes 1, 2, ...
    """

    def __init__(self, mapping: ClassMapping, names: Sequence[str]) -> None:
        self.mapping = mapping
        self.names = tuple(names)
        self.classes = (BACKGROUND, *mapping.shared)
        self.confusion: dict[str, Counts] = {}
        self.objects: dict[str, int] = {}
        self.covered: dict[str, int] = {}

    def add(self, video: Video, predicted: Mask, truth: Mask | None) -> tuple[Mask, Mask | None]:
        """Count one frame.

        Args:
            video: where it comes from.
            predicted: uint8 ``(H, W)``: 0 background, then the method's classes.
            truth: uint8 object ids ``(H, W)``, 255 void; None where there is no annotation, and
                nothing to count.

        Returns:
            Shared classes of prediction and truth.
        """
        found = self.mapping.of_network(predicted, self.names)
        if truth is None:
            return found, None
        wanted = self.mapping.of_truth(truth, self.mapping.categories(video))
        count = len(self.classes)
        valid = wanted != VOID
        pairs = wanted[valid].astype(np.int64) * count + found[valid]
        table = np.bincount(pairs, minlength=count**2).reshape(count, count)
        objects = (truth != 0) & (truth != VOID)
        name = video.name
        self.confusion[name] = self.confusion.get(name, np.zeros_like(table)) + table
        self.objects[name] = self.objects.get(name, 0) + int(objects.sum())
        self.covered[name] = self.covered.get(name, 0) + int((objects & valid).sum())
        return found, wanted

    def counts(self) -> dict[str, ClassCounts]:
        """What was counted, by video."""
        return {
            name: ClassCounts.of_confusion(
                confusion,
                self.covered[name] / self.objects[name] if self.objects[name] else math.nan,
            )
            for name, confusion in self.confusion.items()
        }

    def record(self, video: Video) -> dict[str, Any]:
        """What was counted in one video, as plain data.

        Returns:
            ``classes``: their names, background first; ``confusion``: pixels by true and by
            predicted class, None where no frame was counted; ``coverage``: see
            :class:`ClassCounts`, None where it is NaN.
        """
        confusion = self.confusion.get(video.name)
        counts = self.counts().get(video.name)
        known = counts is not None and not math.isnan(counts.coverage)
        return {
            "classes": list(self.classes),
            "confusion": None if confusion is None else confusion.tolist(),
            "coverage": counts.coverage if counts is not None and known else None,
        }

    def result(self) -> SemanticScores:
        """Scores of all frames so far.

        Raises:
            ConfigError: none was added.
        """
        if not self.confusion:
            raise ConfigError(
                "semantic scores", "no annotated frame", "one at least", "Add videos with masks."
            )
        return semantic_scores(self.classes, self.counts())


def _ratio(intersection: Counts, union: Counts) -> NDArray[np.float64]:
    """Intersection over union; NaN for 0 over 0."""
    found: NDArray[np.float64] = np.full(len(union), np.nan)
    np.divide(intersection, union, out=found, where=union > 0)
    return found


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the values that are numbers; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
