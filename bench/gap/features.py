"""Features of a set of samples: pooled over the frame, over the object, and as tokens."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.gap.domains import Samples
from bench.gap.representation import Map, Representation
from bench.gap.statistics import FloatArray, IntArray
from bench.video import VOID, Mask

BACKGROUND, FOREGROUND, NEITHER = 0, 1, -1
CLASSES: Mapping[int, str] = {BACKGROUND: "background", FOREGROUND: "foreground"}

TOKENS_PER_CLASS = 16
"""Positions drawn of each class and sample; neighbours repeat each other, so more add little."""


@dataclass(frozen=True)
class Tokens:
    """Positions of feature maps.

    Attributes:
        features: float ``(R, C)``.
        classes: background 0 or foreground 1, ``(R,)``.
        sample: number of the sample each comes from, ``(R,)``.
        weight: positions of the sample that a token stands for, ``(R,)``.
    """

    features: FloatArray
    classes: IntArray
    sample: IntArray
    weight: FloatArray

    def of_samples(self, chosen: NDArray[np.bool_]) -> Tokens:
        """Those of some samples, bool ``(N,)``."""
        kept = chosen[self.sample]
        return Tokens(self.features[kept], self.classes[kept], self.sample[kept], self.weight[kept])


@dataclass(frozen=True)
class TapFeatures:
    """Features of N samples at one tap.

    Attributes:
        pooled: mean over all positions, float ``(N, C)``.
        objects: mean over background and over foreground, float ``(N, 2, C)``; NaN where a class
            has no position.
        tokens: positions drawn alike for samples of equal names, masks and grids.
    """

    pooled: FloatArray
    objects: FloatArray
    tokens: Tokens


@dataclass(frozen=True)
class Features:
    """Features of N samples.

    Attributes:
        names: of the samples.
        taps: by tap.
        maps: whole maps ``(C, h, w)`` at the main tap, float16; empty where not kept.
    """

    names: tuple[str, ...]
    taps: Mapping[str, TapFeatures]
    maps: tuple[NDArray[np.float16], ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def grid_classes(mask: Mask, grid: tuple[int, int]) -> NDArray[np.int8]:
    """Class of every cell of a grid ``(h, w)``: that of most of its pixels; -1 where void."""
    size = (grid[1], grid[0])
    void = cv2.resize((mask == VOID).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    shown = (mask != 0) & (mask != VOID)
    share = cv2.resize(shown.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    classes = np.where(share > (1 - void) / 2, FOREGROUND, BACKGROUND)
    return np.where(void > 0.5, NEITHER, classes).astype(np.int8)


def extract(
    representation: Representation, samples: Samples, seed: int, keep_maps: bool = False
) -> Features:
    """Features of labelled samples.

    Args:
        representation: computes them.
        samples: with masks.
        seed: of the positions drawn as tokens.
        keep_maps: whether to keep whole maps at the main tap.
    """
    found: dict[str, list[_OfSample]] = {tap: [] for tap in representation.taps}
    maps = []
    for number, one in enumerate(samples):
        assert one.mask is not None  # samples are chosen for their masks
        features = representation.features(one.image)
        generator = np.random.default_rng([seed, zlib.crc32(one.name.encode())])
        for tap, values in features.items():
            found[tap].append(_of_sample(values, one.mask, number, generator))
        if keep_maps:
            maps.append(features[representation.main_tap].astype(np.float16))
    names = tuple(one.name for one in samples)
    return Features(names, {tap: _gather(rows) for tap, rows in found.items()}, tuple(maps))


@dataclass(frozen=True)
class _OfSample:
    pooled: FloatArray
    objects: FloatArray
    tokens: Tokens


def _of_sample(values: Map, mask: Mask, number: int, generator: np.random.Generator) -> _OfSample:
    positions = values.reshape(len(values), -1).T.astype(np.float64)
    classes = grid_classes(mask, (values.shape[1], values.shape[2])).ravel()
    objects = np.full((len(CLASSES), positions.shape[1]), np.nan)
    drawn, weights = [], []
    for label in CLASSES:
        cells = np.flatnonzero(classes == label)
        if not len(cells):
            continue
        objects[label] = positions[cells].mean(0)
        some = generator.permutation(cells)[:TOKENS_PER_CLASS]
        drawn.append(some)
        weights.append(np.full(len(some), len(cells) / len(some)))
    rows = np.concatenate(drawn).astype(np.intp)
    tokens = Tokens(
        positions[rows],
        classes[rows].astype(np.intp),
        np.full(len(rows), number, np.intp),
        np.concatenate(weights),
    )
    return _OfSample(positions.mean(0), objects, tokens)


def _gather(rows: Sequence[_OfSample]) -> TapFeatures:
    tokens = [row.tokens for row in rows]
    return TapFeatures(
        np.stack([row.pooled for row in rows]),
        np.stack([row.objects for row in rows]),
        Tokens(
            np.concatenate([part.features for part in tokens]),
            np.concatenate([part.classes for part in tokens]),
            np.concatenate([part.sample for part in tokens]),
            np.concatenate([part.weight for part in tokens]),
        ),
    )


def both_domains(images: FloatArray, videos: FloatArray) -> tuple[FloatArray, IntArray]:
    """Rows of both domains, and their domains: 0 for images, 1 for videos."""
    domains = np.repeat([0, 1], [len(images), len(videos)])
    return np.concatenate([images, videos]), domains


def group_names(images: Features, videos: Features) -> Iterator[str]:
    """Names of the samples of both domains; a video may be called like an image."""
    yield from (f"image {name}" for name in images.names)
    yield from (f"video {name}" for name in videos.names)
