"""Data whose gap is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.gap.statistics import FloatArray, IntArray


def two_gaussians(
    count: int, channels: int, shift: float, seed: int
) -> tuple[FloatArray, IntArray]:
    """Features and domains: unit Gaussians whose means are ``shift`` apart along one axis."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(2 * count, channels))
    domains = np.repeat([0, 1], count)
    features[domains == 1, 0] += shift
    return features, domains


def videos(
    count: int, frames: int, channels: int, seed: int, jitter: float = 0.1
) -> tuple[FloatArray, IntArray, NDArray[np.str_]]:
    """Features, domains and names: two sets of videos of one distribution, frames alike."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(2 * count, channels))
    features = np.repeat(centres, frames, axis=0)
    features = features + jitter * generator.normal(size=features.shape)
    names = np.repeat([f"video {number:03d}" for number in range(2 * count)], frames)
    return features, np.repeat([0, 1], count * frames), names
