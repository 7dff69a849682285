"""Proxy A-distance: how well a fresh classifier tells features of images from those of videos.

Source: Ben-David et al., Analysis of representations for domain adaptation, NIPS 2006, and
Ben-David et al., A theory of learning from different domains, Machine Learning 79, 2010.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from bench.errors import DataError
from bench.gap.statistics import (
    Array,
    ClassEstimate,
    Estimate,
    FloatArray,
    Groups,
    IntArray,
    Interval,
    as_classes,
    as_features,
    percentile_interval,
)

ADVISED = 500
"""Groups per domain below which a note reminds of the sample's size."""


class Classifier(Protocol):
    """The part of scikit-learn's classifiers that is used."""

    def fit(self, X: FloatArray, y: IntArray, sample_weight: FloatArray) -> object:
        """Learn to predict ``y`` from ``X``."""

    def predict(self, X: FloatArray) -> IntArray:
        """Predicted labels of ``X``."""


def logistic_regression(seed: int) -> Classifier:
    """Linear classifier with L2 penalty, C = 1."""
    model: Classifier = LogisticRegression(C=1.0, max_iter=1000, random_state=seed)
    return model


def two_layer_perceptron(seed: int) -> Classifier:
    """Two-layer perceptron (64 hidden units, ReLU), trained with Adam.

    An encoder trained against a discriminator can fool that one and not this one.
    """
    model: Classifier = MLPClassifier(hidden_layer_sizes=(64,), alpha=1e-2, random_state=seed)
    return model


def group_folds(groups: Groups, folds: int, seed: int = 0) -> IntArray:
    """Fold of every row ``(N,)``; a group is never split, and each fold has all domains.

    The groups of a domain are dealt out in random order, so their numbers differ by one at most.

    Raises:
        DataError: fewer groups than folds in a domain.
    """
    if folds < 2 or min(groups.per_domain) < folds:
        raise DataError(
            "folds",
            f"{folds} folds for {groups.per_domain} groups per domain",
            "2 folds at least, and no more than there are groups in each domain",
            "Use fewer folds or more videos.",
        )
    return groups.dealt(folds, np.random.default_rng(seed))[groups.index]


def proxy_a_distance(
    features: Array,
    domains: Array,
    groups: Array | None = None,
    *,
    classifier: Callable[[int], Classifier] = logistic_regression,
    folds: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Proxy A-distance ``2 (1 - 2 err)`` from the cross-validated error of a domain classifier.

    2: domains are separable; 0: the classifier is at chance. It is not clipped, so it can be
    below 0. Folds keep groups whole: where frames of one video are on both sides of a split, a
    classifier that merely recognises videos looks like a gap between domains. Features are
    standardised by the training part. The error is the mean of both domains' errors, and each
    group counts once in its domain.

    It depends on class frequencies, so it is no measure of success by itself; see
    :func:`proxy_a_distance_by_class`.

    Args:
        features: float ``(N, C)``.
        domains: ``(N,)``, 0 for images and 1 for videos.
        groups: ``(N,)`` labels of independent units (videos, images); None: every row is one.
        classifier: makes an untrained classifier from a seed.
        folds: parts of the cross-validation.
        resamples: bootstrap samples of groups for the interval. The classifiers are not trained
            anew: it tells the noise of the test, not that of training, and is somewhat narrow.
        seed: of folds, classifier and bootstrap.

    Returns:
        The estimate; NaN where a domain has fewer groups than there are folds.

    Raises:
        DataError: arrays that do not fit together, or a group in both domains.

    Source: Ben-David et al. 2006; Ganin et al., Domain-adversarial training of neural
    networks, JMLR 17, 2016.
    """
    array = as_features(features)
    gathered = Groups.of_rows(len(array), domains, groups)
    rows, counts = gathered.rows_per_domain, gathered.per_domain
    if min(counts) < folds:
        reason = f"Undefined: {min(counts)} groups in the smaller domain for {folds} folds."
        return Estimate(math.nan, None, rows, counts, reason)
    errors = _held_out_errors(array, gathered, classifier, folds, seed)[None]
    value = float(_distances(errors, gathered.domains, np.ones((1, len(gathered))))[0, 0])
    interval = _interval(errors, gathered, resamples, seed)
    return Estimate(value, interval, rows, counts, _size_note(counts))


def proxy_a_distance_by_class(
    features: Array,
    domains: Array,
    classes: Array,
    groups: Array | None = None,
    *,
    classifier: Callable[[int], Classifier] = logistic_regression,
    folds: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> ClassEstimate:
    """Mean over classes of the proxy A-distance within each class.

    Different class frequencies alone separate the domains; within a class they cannot.

    Args:
        features: float ``(N, C)``.
        domains: ``(N,)``, 0 for images and 1 for videos.
        classes: integers ``(N,)``, annotated or predicted.
        groups: as in :func:`proxy_a_distance`; a group may hold several classes.
        classifier: as there.
        folds: as there.
        resamples: as there; a group is drawn with all its classes.
        seed: as there.

    Returns:
        The estimate. Classes with fewer groups than folds in a domain are left out, which the
        note says; NaN where none is left.

    Raises:
        DataError: arrays that do not fit together, or a group in both domains.
    """
    array = as_features(features)
    gathered = Groups.of_rows(len(array), domains, groups)
    labels = as_classes(classes, len(array))
    measured: dict[int, FloatArray] = {}
    left_out = []
    for number in np.unique(labels).tolist():
        chosen = labels == number
        part, kept = gathered.subset(chosen)
        if len(part.per_domain) < 2 or min(part.per_domain) < folds:
            left_out.append(number)
            continue
        measured[number] = np.full(len(gathered), np.nan)
        measured[number][kept] = _held_out_errors(array[chosen], part, classifier, folds, seed)
    rows, counts = gathered.rows_per_domain, gathered.per_domain
    note = f"Left out, fewer than {folds} groups in a domain: classes {left_out}."
    note = note if left_out else ""
    if not measured:
        return ClassEstimate(math.nan, None, rows, counts, f"Undefined. {note}")
    errors = np.stack(list(measured.values()))
    values = _distances(errors, gathered.domains, np.ones((1, len(gathered))))[0]
    return ClassEstimate(
        value=float(values.mean()),
        interval=_interval(errors, gathered, resamples, seed),
        rows=rows,
        groups=counts,
        note=note,
        per_class=dict(zip(measured, values.tolist(), strict=True)),
    )


def _held_out_errors(
    features: FloatArray,
    groups: Groups,
    classifier: Callable[[int], Classifier],
    folds: int,
    seed: int,
) -> FloatArray:
    """Share of every group's rows ``(G,)`` that a classifier trained without it gets wrong."""
    labels, weights = groups.domains[groups.index], groups.weights()
    fold = group_folds(groups, folds, seed)
    wrong = np.empty(len(features))
    for held_out in range(folds):
        test = fold == held_out
        train = ~test
        mean, deviation = features[train].mean(0), features[train].std(0)
        standard = (features - mean) / np.where(deviation > 0, deviation, 1.0)
        model = classifier(seed)
        with warnings.catch_warnings():
            # Held-out error is what counts, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(standard[train], labels[train], sample_weight=weights[train])
        wrong[test] = model.predict(standard[test]) != labels[test]
    return groups.mean(wrong)


def _distances(errors: FloatArray, domains: IntArray, counts: Array) -> FloatArray:
    """A-distances ``(R, K)`` in R weightings of the groups.

    Args:
        errors: ``(K, G)``, error of every group in each class, NaN where it has no such rows.
        domains: ``(G,)``.
        counts: ``(R, G)``, weights of the groups.
    """
    present = np.isfinite(errors)
    known = np.where(present, errors, 0.0)
    error = np.zeros((len(counts), len(errors)))
    with np.errstate(invalid="ignore"):  # a class can be missing from a resample
        for domain in np.unique(domains):
            weights = counts[:, domains == domain].astype(np.float64)
            wrong, total = known[:, domains == domain], present[:, domains == domain]
            error += weights @ wrong.T / (weights @ total.T.astype(np.float64))
    return 2 * (1 - error)  # the mean of two domains' errors is half their sum


def _interval(errors: FloatArray, groups: Groups, resamples: int, seed: int) -> Interval | None:
    counts = groups.multiplicities(resamples, np.random.default_rng(seed))
    values = _distances(errors, groups.domains, counts)
    present = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means = np.where(present, values, 0.0).sum(1) / present.sum(1)
    return percentile_interval(means)


def _size_note(counts: tuple[int, ...]) -> str:
    if min(counts) >= ADVISED:
        return ""
    return f"{min(counts)} groups in the smaller domain; {ADVISED} advised."
