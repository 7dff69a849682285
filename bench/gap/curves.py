"""How much a score suffers from one factor at a time: curves over severity, and their summaries.

Data is corrupted as it is loaded, so that a curve needs no disk. Everything drawn at random depends
on (seed, factor, image or video) and not on the severity or on the order of loading.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd

from bench.errors import DataError
from bench.gap.factors import (
    SEVERITIES,
    Factor,
    Geometric,
    checked_severity,
    motion_blur_along_flow,
)
from bench.gap.motion_blur import Float, dis_flow
from bench.gap.placement import IN_PLACE, Placement, placed, placed_mask
from bench.video import RGB, LabelledImage, Mask, Video, object_ids

COLUMNS = ("method", "factor", "severity", "seed", "value")
"""Of a tidy frame of curves."""


class ImageSet(Protocol):
    """Labelled images by index; every :class:`bench.dataset.ImageDataset` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> LabelledImage: ...


class VideoSet(Protocol):
    """Videos by name; every :class:`bench.dataset.VideoDataset` is one."""

    def sequences(self) -> list[str]:
        """Names, in order."""
        ...

    def video(self, sequence: str, /) -> Video:
        """One video."""
        ...

    def __iter__(self) -> Iterator[Video]: ...

    def __len__(self) -> int: ...


def _generator(seed: int, factor: Factor, *item: str | int) -> np.random.Generator:
    """A generator of its own for each item; names are hashed alike in every process."""
    codes = [zlib.crc32(repr(part).encode()) for part in (factor.name, *item)]
    return np.random.default_rng([seed, *codes])


# --- data that is corrupted as it is loaded --------------------------------------------------


@dataclass(frozen=True)
class CorruptedImages:
    """Images under one factor at one severity.

    Attributes:
        images: the clean ones.
        factor: what is done to them.
        severity: 0 to 5.
        seed: of what the factor draws.
    """

    images: ImageSet
    factor: Factor
    severity: int
    seed: int = 0

    def __post_init__(self) -> None:
        checked_severity(self.factor.name, self.severity)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> LabelledImage:
        """Load and corrupt one image; raises what the clean set raises."""
        one = self.images[index]
        rng = _generator(self.seed, self.factor, one.name)
        image, mask = self.factor(one.image, one.mask, self.severity, rng)
        return replace(one, image=image, mask=mask)

    def __iter__(self) -> Iterator[LabelledImage]:
        for index in range(len(self)):
            yield self[index]


@dataclass(frozen=True)
class _Corruption:
    """Loads the frames and masks of one video under one factor."""

    clean: Video
    factor: Factor
    severity: int
    seed: int

    @cached_property
    def placement(self) -> Placement:
        """Where a geometric factor puts the frames: one place for all, or the video would jump."""
        if not isinstance(self.factor, Geometric):
            return IN_PLACE
        for index in self.clean.annotated:
            mask = self.clean.load_mask(index)
            if object_ids(mask):
                rng = _generator(self.seed, self.factor, self.clean.name)
                return self.factor.placement(mask, self.severity, rng)
        raise DataError(
            f"{self.clean.dataset}/{self.clean.name}",
            "no mask with an object",
            f"one, because the factor {self.factor.name} moves the object",
            "Use labelled videos, or a photometric factor.",
        )

    def frame(self, index: int) -> RGB:
        image = self.clean.load_frame(index)
        if isinstance(self.factor, Geometric):
            mask = self.clean.load_mask(index) if index in self.clean.annotated else None
            return placed(image, mask, self.placement)[0]
        if self.factor.name == "motion_blur" and len(self.clean) > 1:
            return motion_blur_along_flow(image, self._flow(index, image), self.severity)
        draw = (self.clean.name, index) if self.factor.per_frame else (self.clean.name,)
        rng = _generator(self.seed, self.factor, *draw)
        return self.factor(image, None, self.severity, rng)[0]

    def mask(self, index: int) -> Mask:
        mask = self.clean.load_mask(index)
        return placed_mask(mask, self.placement)

    def _flow(self, index: int, image: RGB) -> Float:
        """Motion towards the next frame; at the last one, away from the frame before."""
        if index + 1 < len(self.clean):
            return dis_flow(image, self.clean.load_frame(index + 1))
        return -dis_flow(image, self.clean.load_frame(index - 1))


def corrupted_video(video: Video, factor: Factor, severity: int, seed: int = 0) -> Video:
    """A video under one factor; frames are corrupted when they are loaded.

    Motion blur follows the flow between neighbouring frames. Geometric factors place the object of
    the first mask that has one, and move all frames alike.

    Args:
        video: the clean video.
        factor: what is done to it.
        severity: 0 to 5; 0 returns the video itself.
        seed: of what the factor draws.

    Raises:
        ConfigError: a severity that does not exist.
        DataError: when loading, a geometric factor on a video without a mask.
    """
    if checked_severity(factor.name, severity) == 0:
        return video
    corruption = _Corruption(video, factor, severity, seed)
    return replace(video, load_frame=corruption.frame, load_mask=corruption.mask)


@dataclass(frozen=True)
class CorruptedVideos:
    """Videos under one factor at one severity; see :func:`corrupted_video`.

    Attributes:
        videos: the clean ones.
        factor: what is done to them.
        severity: 0 to 5.
        seed: of what the factor draws.
    """

    videos: VideoSet
    factor: Factor
    severity: int
    seed: int = 0

    def __post_init__(self) -> None:
        checked_severity(self.factor.name, self.severity)

    def sequences(self) -> list[str]:
        """Names of the clean videos."""
        return self.videos.sequences()

    def video(self, sequence: str, /) -> Video:
        """One corrupted video."""
        return corrupted_video(self.videos.video(sequence), self.factor, self.severity, self.seed)

    def __iter__(self) -> Iterator[Video]:
        for sequence in self.sequences():
            yield self.video(sequence)

    def __len__(self) -> int:
        return len(self.videos)


# --- curves ----------------------------------------------------------------------------------


def summarise(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean performance under corruption, absolute and relative to clean data.

    After Michaelis et al., Benchmarking Robustness in Object Detection, 2019: mPC is the mean over
    severities 1 to 5 (and over factors), rPC is mPC divided by the clean performance.

    Args:
        curves: with :data:`COLUMNS`; seeds are averaged.

    Returns:
        Columns ``method``, ``factor``, ``clean``, ``mPC``, ``rPC``: one row per method and factor,
        then one per method with factor ``"all"``. rPC is NaN where the clean score is 0.

    Raises:
        DataError: a factor lacks a severity, which would make means incomparable.
    """
    means = curves.groupby(["method", "factor", "severity"], sort=False)["value"].mean().unstack()
    missing = means.reindex(columns=list(SEVERITIES)).isna()
    if missing.any(axis=None):
        method, factor = means.index[int(np.argmax(missing.any(axis=1)))]
        severity = SEVERITIES[int(np.argmax(missing.loc[(method, factor)]))]
        raise DataError(
            f"curve of {method} under {factor}",
            f"no value at severity {severity}",
            f"one at each of {', '.join(map(str, SEVERITIES))}",
            "Score the missing severities first.",
        )
    table = pd.DataFrame({"clean": means[0], "mPC": means[list(SEVERITIES[1:])].mean(axis=1)})
    overall = table.groupby("method", sort=False).mean()
    overall.index = pd.MultiIndex.from_product([overall.index, ["all"]], names=table.index.names)
    table = pd.concat([table, overall])
    table["rPC"] = table["mPC"] / table["clean"].where(table["clean"] != 0)
    return table.reset_index()
