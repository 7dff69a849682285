"""From sequences to the figures of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.metrics.sequence import SequenceResult

COLUMNS = ("J", "J_recall", "J_decay", "F", "F_recall", "F_decay")
"""Names of an object's six statistics, in the order of ``ObjectScores.row``."""


@dataclass(frozen=True)
class YoutubeVosFigures:
    """The figures of YouTube-VOS, in [0, 1]; NaN for a group without objects.

    Attributes:
        j_seen: mean J over objects whose category occurs in the training set.
        f_seen: mean F over them.
        j_unseen: mean J over the other objects.
        f_unseen: mean F over them.
    """

    j_seen: float
    f_seen: float
    j_unseen: float
    f_unseen: float

    @property
    def g(self) -> float:
        """Mean of the four; NaN where a group is empty."""
        return (self.j_seen + self.f_seen + self.j_unseen + self.f_unseen) / 4


@dataclass(frozen=True)
class DatasetFigures:
    """The figures of a dataset, by the names in :data:`COLUMNS`; NaN where nothing was scored.

    Attributes:
        object_mean: mean over objects: the headline.
        sequence_mean: mean over sequences of their mean over objects; another aggregation, which
            gives sequences with few objects more weight.
        youtube_vos: figures by seen and unseen categories, where these are known.
    """

    object_mean: Mapping[str, float]
    sequence_mean: Mapping[str, float]
    youtube_vos: YoutubeVosFigures | None = None

    @property
    def j_and_f(self) -> float:
        """Mean of J and F over objects."""
        return (self.object_mean["J"] + self.object_mean["F"]) / 2

    @property
    def headline(self) -> dict[str, float]:
        """What a table shows, in [0, 1]."""
        shown = {}
        if self.youtube_vos is not None:
            shown = {
                "G": self.youtube_vos.g,
                "J_seen": self.youtube_vos.j_seen,
                "F_seen": self.youtube_vos.f_seen,
                "J_unseen": self.youtube_vos.j_unseen,
                "F_unseen": self.youtube_vos.f_unseen,
            }
        return {**shown, "J&F": self.j_and_f, **self.object_mean}


def dataset_figures(
    results: Mapping[str, SequenceResult],
    seen: Mapping[tuple[str, int], bool | None] | None = None,
) -> DatasetFigures:
    """Aggregate a dataset's sequences.

    Args:
        results: results by sequence. Objects without a scored frame are left out.
        seen: whether the category of (sequence, object) occurs in the training set. The figures
            of YouTube-VOS are computed if it is known of every scored object.
    """
    rows = {
        (name, number): scores.row
        for name, result in results.items()
        for number, scores in result.objects.items()
        if scores.frames
    }
    by_sequence: dict[str, list[tuple[float, ...]]] = {}
    for (name, _), row in rows.items():
        by_sequence.setdefault(name, []).append(row)
    return DatasetFigures(
        object_mean=dict(zip(COLUMNS, _column_means(rows.values()), strict=True)),
        sequence_mean=dict(
            zip(COLUMNS, _column_means(map(_column_means, by_sequence.values())), strict=True)
        ),
        youtube_vos=_youtube_vos(rows, seen or {}),
    )


def _youtube_vos(
    rows: Mapping[tuple[str, int], tuple[float, ...]],
    seen: Mapping[tuple[str, int], bool | None],
) -> YoutubeVosFigures | None:
    if not rows or any(seen.get(key) is None for key in rows):
        return None
    j, f = COLUMNS.index("J"), COLUMNS.index("F")
    known = _column_means(row for key, row in rows.items() if seen[key])
    new = _column_means(row for key, row in rows.items() if not seen[key])
    return YoutubeVosFigures(known[j], known[f], new[j], new[f])


def _column_means(rows: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    table = list(rows)
    if not table:
        return (float("nan"),) * len(COLUMNS)
    return tuple(float(np.mean(column)) for column in zip(*table, strict=True))
