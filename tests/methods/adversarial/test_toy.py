"""What adversarial alignment is known to do, on a toy: see :mod:`tests.methods.adversarial.toy`.

The numbers are those of the known toy (gap 1, lambda up to 1, 1,500 steps of Adam, clusters made
anew every 100 steps). Only the order of the methods is asserted, not their accuracies.
"""

from __future__ import annotations

import statistics

from tests.methods.adversarial.toy import EQUAL, LABEL_SHIFT, Priors, ToyMethod, target_accuracy

SEEDS = (0, 1, 2)


def mean_accuracy(method: ToyMethod, priors: tuple[Priors, Priors]) -> float:
    return statistics.mean(target_accuracy(method, priors, seed) for seed in SEEDS)


def test_under_label_shift_only_clusters_help_and_a_global_adversary_harms() -> None:
    source = mean_accuracy("source", LABEL_SHIFT)
    assert mean_accuracy("global", LABEL_SHIFT) < source
    assert source < mean_accuracy("clustered", LABEL_SHIFT)


def test_with_equal_class_frequencies_a_global_adversary_helps() -> None:
    assert mean_accuracy("global", EQUAL) >= mean_accuracy("source", EQUAL) + 0.05
