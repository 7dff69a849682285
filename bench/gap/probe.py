"""A linear probe: how well features that were not trained for it tell foreground from background.

It gives every method a segmentation score, whether or not it segments by itself, and it can be
trained on either domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bench.gap.domains import Samples
from bench.gap.features import Features, Tokens
from bench.gap.statistics import FloatArray, IntArray
from bench.metrics.binary import region_j
from bench.video import VOID, Mask

FOLDS = 5


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on the features of single positions.

    Attributes:
        weights: ``(C,)``.
        bias: of the foreground's logit.
    """

    weights: FloatArray
    bias: float

    @classmethod
    def trained_on(cls, tokens: Tokens, seed: int) -> LinearProbe:
        """Train on labelled tokens; every token counts for the positions it stands for.

        Tokens of one class give a probe that always predicts that class.
        """
        if len(np.unique(tokens.classes)) < 2:
            return cls(np.zeros(tokens.features.shape[1]), float(tokens.classes[0]) - 0.5)
        mean, deviation = tokens.features.mean(0), tokens.features.std(0)
        scale = np.where(deviation > 0, deviation, 1.0)
        model = LogisticRegression(C=0.1, max_iter=300, random_state=seed)
        weight = tokens.weight / tokens.weight.mean()
        model.fit((tokens.features - mean) / scale, tokens.classes, sample_weight=weight)
        weights = np.asarray(model.coef_[0] / scale, np.float64)
        return cls(weights, float(model.intercept_[0] - weights @ mean))

    def segment(self, features: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.bool_]:
        """Foreground ``(H, W)`` of a map ``(C, h, w)``: logits made larger bilinearly, above 0."""
        logits = np.tensordot(self.weights, features.astype(np.float64), 1) + self.bias
        grown = cv2.resize(
            logits.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR
        )
        return np.asarray(grown > 0, np.bool_)


def foreground_j(predicted: NDArray[np.bool_], mask: Mask) -> float:
    """Region similarity J of a foreground, bool ``(H, W)``; void does not count."""
    return region_j(predicted, (mask != 0) & (mask != VOID), mask == VOID)


def dealt_folds(count: int, seed: int) -> IntArray:
    """Fold of each of ``count`` samples, in random order and equally many in each."""
    order = np.random.default_rng(seed).permutation(count)
    fold = np.empty(count, np.intp)
    fold[order] = np.arange(count) % FOLDS
    return fold


def trained_probes(features: Features, tap: str, most: int, seed: int) -> list[LinearProbe]:
    """A probe per fold, trained on the samples outside it.

    Args:
        features: of one domain.
        tap: where.
        most: samples that a probe is trained on at most, so that both domains train alike.
        seed: of folds and of what is left out.
    """
    fold = dealt_folds(len(features), seed)
    generator = np.random.default_rng([seed, 1])
    probes = []
    for held_out in range(FOLDS):
        train = np.zeros(len(features), bool)
        train[generator.permutation(np.flatnonzero(fold != held_out))[:most]] = True
        probes.append(LinearProbe.trained_on(features.taps[tap].tokens.of_samples(train), seed))
    return probes


def training_size(images: int, videos: int) -> int:
    """Samples outside the largest fold of the smaller domain."""
    fewer = min(images, videos)
    return fewer - -(-fewer // FOLDS)


def probe_scores(
    probes: Sequence[LinearProbe], features: Features, samples: Samples, seed: int
) -> FloatArray:
    """J of every sample ``(N,)``, by the probe that was trained without its fold.

    Args:
        probes: of :func:`trained_probes`, of either domain and the same seed.
        features: of the samples, with maps.
        samples: with masks.
        seed: of the folds.
    """
    fold = dealt_folds(len(samples), seed)
    return np.array(
        [
            _probe_score(probes[held_out], values, one.mask)
            for held_out, values, one in zip(fold, features.maps, samples, strict=True)
        ]
    )


def _probe_score(probe: LinearProbe, values: NDArray[np.float16], mask: Mask | None) -> float:
    assert mask is not None
    return foreground_j(probe.segment(values, (mask.shape[0], mask.shape[1])), mask)
