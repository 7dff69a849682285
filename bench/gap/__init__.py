"""Measures of the gap between images and videos in a feature space, usable alone.

::

    from bench.gap import proxy_a_distance, squared_mmd

    estimate = proxy_a_distance(features, domains, videos)   # (N, C), 0 or 1, names of videos
    print(estimate.value, estimate.interval, estimate.groups, estimate.note)

Rows come in groups, the frames of a video or the tokens of an image, and everything that splits,
permutes or resamples does so by whole groups. Measures between domains count every group once.
Where the data cannot tell, the value is NaN and the note says why.
"""

from bench.gap.cka import CkaEstimate, linear_cka
from bench.gap.classes import class_centre_distance, class_silhouette, domain_purity
from bench.gap.closing import gap_closed
from bench.gap.distance import (
    group_folds,
    logistic_regression,
    proxy_a_distance,
    proxy_a_distance_by_class,
    two_layer_perceptron,
)
from bench.gap.frechet import FrechetEstimate, frechet_distance, frechet_ratio
from bench.gap.mmd import MmdEstimate, squared_mmd
from bench.gap.statistics import (
    IMAGE,
    VIDEO,
    ClassEstimate,
    Estimate,
    Groups,
    Interval,
    group_bootstrap,
    group_jackknife,
)

__all__ = [
    "IMAGE",
    "VIDEO",
    "CkaEstimate",
    "ClassEstimate",
    "Estimate",
    "FrechetEstimate",
    "Groups",
    "Interval",
    "MmdEstimate",
    "class_centre_distance",
    "class_silhouette",
    "domain_purity",
    "frechet_distance",
    "frechet_ratio",
    "gap_closed",
    "group_bootstrap",
    "group_folds",
    "group_jackknife",
    "linear_cka",
    "logistic_regression",
    "proxy_a_distance",
    "proxy_a_distance_by_class",
    "squared_mmd",
    "two_layer_perceptron",
]
