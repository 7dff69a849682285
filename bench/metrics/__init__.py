"""Exact and fast metrics of video object segmentation, usable alone.

::

    from bench.metrics import SEMI_SUPERVISED, SequenceScorer, j_and_f

    j, f = j_and_f(predicted_mask, true_mask)           # one object in one frame

    scorer = SequenceScorer(SEMI_SUPERVISED, frame_count)
    for index in range(frame_count):                    # label maps, as they are produced
        scorer.update(index, predicted_ids, true_ids)
    for number, scores in scorer.result().objects.items():
        print(number, scores.j_statistics.mean, scores.f_statistics.mean)
"""

from bench.metrics.aggregate import (
    COLUMNS,
    DatasetFigures,
    YoutubeVosFigures,
    dataset_figures,
)
from bench.metrics.binary import boundary_f, boundary_map, boundary_radius, j_and_f, region_j
from bench.metrics.rules import (
    FOREGROUND,
    RULES,
    SEMANTIC,
    SEMI_SUPERVISED,
    UNSUPERVISED,
    YOUTUBE_VOS,
    YOUTUBE_VOS_WITHOUT_LAST,
    ScoringRule,
)
from bench.metrics.sequence import ObjectScores, SequenceResult, SequenceScorer
from bench.metrics.statistics import Statistics, statistics

__all__ = [
    "COLUMNS",
    "FOREGROUND",
    "RULES",
    "SEMANTIC",
    "SEMI_SUPERVISED",
    "UNSUPERVISED",
    "YOUTUBE_VOS",
    "YOUTUBE_VOS_WITHOUT_LAST",
    "DatasetFigures",
    "ObjectScores",
    "ScoringRule",
    "SequenceResult",
    "SequenceScorer",
    "Statistics",
    "YoutubeVosFigures",
    "boundary_f",
    "boundary_map",
    "boundary_radius",
    "dataset_figures",
    "j_and_f",
    "region_j",
    "statistics",
]
