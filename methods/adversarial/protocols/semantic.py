"""Semantic video segmentation: the class of every pixel, frame by frame, and how right it is.

Images and videos rarely have the same classes, so what is compared with what is an explicit
:class:`ClassMapping` that goes with the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from bench.errors import ConfigError
from bench.video import VOID, Frame, Mask
from methods.adversarial.protocols.frames import FrameNetwork, to_native

BACKGROUND = "background"


def semantic_labels(frames: FrameNetwork, video: Iterable[Frame]) -> Iterator[Mask]:
    """The likeliest class of every pixel, one frame at a time.

    Args:
        frames: the network; one with a foreground head alone knows background and foreground.
        video: frames of one video in order, all of one size.

    Yields:
        uint8 class ids ``(H, W)`` of the network's head, 0 background.
    """
    clip = frames.clip()
    for frame in video:
        sizes = frames.geometry(frame.image.shape)
        with torch.inference_mode():
            window = clip.push(frames.prepare(frame.image))
            classes = to_native(frames.classes(frames.network(window), sizes), sizes)
            labels: Mask = classes.argmax(0).to(torch.uint8).cpu().numpy()
        yield labels


@dataclass(frozen=True)
class ClassMapping:
    """Which classes of a network and which categories of a dataset mean the same.

    Attributes:
        shared: names of the classes that are scored, without background; class ``i`` of
            :meth:`of_network` and :meth:`of_truth` is ``shared[i - 1]``.
        network: shared name of each of the network's class ids; ids that are not named count as
            background.
        truth: shared name of each category of the dataset. Objects of other categories are void:
            a network cannot know them, and :meth:`coverage` says how much that leaves out.
    """

    shared: tuple[str, ...]
    network: Mapping[int, str]
    truth: Mapping[str, str]

    def __post_init__(self) -> None:
        named = {*self.network.values(), *self.truth.values()}
        unknown = sorted(named - set(self.shared))
        if unknown or len(set(self.shared)) != len(self.shared) or not self.shared:
            raise ConfigError(
                "class mapping",
                f"shared classes {list(self.shared)}, others named: {unknown or 'none'}",
                "at least one shared class, each listed once, and no others",
                "Correct the mapping.",
            )

    @classmethod
    def by_name(cls, network: Sequence[str], dataset: Iterable[str]) -> ClassMapping:
        """Classes that are called the same.

        Args:
            network: names of its classes 1, 2, ... in order, without background.
            dataset: names of its categories.

        Raises:
            ConfigError: they share none.
        """
        known = set(dataset)
        shared = tuple(name for name in network if name in known)
        numbers = {number: name for number, name in enumerate(network, start=1) if name in shared}
        return cls(shared, numbers, {name: name for name in shared})

    @classmethod
    def read(cls, path: Path) -> ClassMapping:
        """Read a YAML file with the keys ``shared``, ``network`` and ``truth``.

        Raises:
            ConfigError: unreadable, or not such a mapping.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            network = {int(number): str(name) for number, name in content["network"].items()}
            truth = {str(category): str(name) for category, name in content["truth"].items()}
            shared = tuple(str(name) for name in content["shared"])
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                path,
                f"{type(error).__name__}: {error}",
                "YAML with shared: [names], network: {id: name}, truth: {category: name}",
                "Correct the mapping.",
            ) from error
        return cls(shared, network, truth)

    def of_network(self, labels: Mask) -> Mask:
        """Shared classes ``(H, W)`` of the network's class ids."""
        table = np.zeros(256, np.uint8)
        for number, name in self.network.items():
            table[number] = 1 + self.shared.index(name)
        return table[labels]

    def of_truth(self, mask: Mask, categories: Mapping[int, str | None]) -> Mask:
        """Shared classes ``(H, W)`` of an annotation; void stays, unshared objects become it.

        Args:
            mask: uint8 object ids ``(H, W)``.
            categories: of the objects by id.
        """
        table = np.full(256, VOID, np.uint8)
        table[0] = 0
        for number, category in categories.items():
            if category is not None and category in self.truth:
                table[number] = 1 + self.shared.index(self.truth[category])
        return table[mask]

    def coverage(self, mask: Mask, categories: Mapping[int, str | None]) -> float:
        """Share of an annotation's object pixels whose category is shared; 1 without objects."""
        objects = (mask != 0) & (mask != VOID)
        covered = objects & (self.of_truth(mask, categories) != VOID)
        return float(covered.sum() / objects.sum()) if objects.any() else 1.0


@dataclass(frozen=True)
class SemanticScores:
    """Intersection over union of shared classes, in [0, 1].

    Attributes:
        pooled: mean over the classes that occur, of IoU with all videos' pixels in one pool.
        averaged: mean over videos, of the mean IoU of the classes that a video's truth contains.
        classes: pooled IoU by name, background included; NaN where a class is neither true nor
            predicted.
        videos: mean IoU by video, NaN where it shows no shared class.
        coverage: by video, share of object pixels that could be scored.
    """

    pooled: float
    averaged: float
    classes: Mapping[str, float]
    videos: Mapping[str, float]
    coverage: Mapping[str, float]


class SemanticScorer:
    """Mean IoU over shared classes, in the two ways that the literature averages.

    Pooling pixels lets long videos and large objects decide; averaging over videos does not. Void
    pixels do not count. Background is counted, but is not among the classes that are averaged.

    Args:
        mapping: what means the same.
    """

    def __init__(self, mapping: ClassMapping) -> None:
        self.mapping = mapping
        self.confusion: dict[str, NDArray[np.int64]] = {}
        self.covered: dict[str, list[float]] = {}

    def add(
        self, video: str, predicted: Mask, truth: Mask, categories: Mapping[int, str | None]
    ) -> None:
        """Count one annotated frame.

        Args:
            video: its name.
            predicted: uint8 class ids ``(H, W)`` of the network.
            truth: uint8 object ids ``(H, W)``.
            categories: of the objects by id.
        """
        found = self.mapping.of_network(predicted)
        wanted = self.mapping.of_truth(truth, categories)
        count = 1 + len(self.mapping.shared)
        valid = wanted != VOID
        pairs = wanted[valid].astype(np.int64) * count + found[valid]
        table = np.bincount(pairs, minlength=count**2).reshape(count, count)
        before = self.confusion.get(video, np.zeros((count, count), np.int64))
        self.confusion[video] = before + table
        self.covered.setdefault(video, []).append(self.mapping.coverage(truth, categories))

    def result(self) -> SemanticScores:
        """Scores of all frames so far.

        Raises:
            ConfigError: none was added.
        """
        if not self.confusion:
            raise ConfigError(
                "semantic scores", "no annotated frame", "one at least", "Add videos with masks."
            )
        pooled = intersection_over_union(np.stack(list(self.confusion.values())).sum(0))
        videos = {}
        for name, confusion in self.confusion.items():
            present = confusion[1:].sum(1) > 0
            videos[name] = mean(intersection_over_union(confusion)[1:][present])
        names = (BACKGROUND, *self.mapping.shared)
        return SemanticScores(
            pooled=mean(pooled[1:]),
            averaged=mean(list(videos.values())),
            classes=dict(zip(names, pooled.tolist(), strict=True)),
            videos=videos,
            coverage={name: mean(shares) for name, shares in self.covered.items()},
        )


def intersection_over_union(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU ``(C,)`` of a confusion matrix ``(C, C)``, truth by prediction; NaN for 0 over 0."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    found: NDArray[np.float64] = np.full(len(union), np.nan)
    np.divide(intersection, union, out=found, where=union > 0)
    return found


def mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Mean of the values that are numbers; NaN where there are none."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")
