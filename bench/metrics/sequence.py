"""Scoring a sequence frame by frame, from label maps, as they are produced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from bench.metrics.binary import score_bits
from bench.metrics.labels import check_labels
from bench.metrics.matching import PairTable, without_void
from bench.metrics.rules import ScoringRule
from bench.metrics.statistics import Statistics, statistics
from bench.video import VOID, Mask, object_ids


@dataclass(frozen=True)
class ObjectScores:
    """Scores of one object over its sequence.

    Attributes:
        frames: indices of the scored frames, ascending; empty where no frame was scored.
        j: region similarity in those frames, float64 ``(frames,)`` in [0, 1].
        f: boundary accuracy in those frames, likewise.
        proposal: id of the matched proposal, where the rule matches and one was left.
    """

    frames: tuple[int, ...]
    j: NDArray[np.float64]
    f: NDArray[np.float64]
    proposal: int | None = None

    @cached_property
    def j_statistics(self) -> Statistics:
        """Mean, recall and decay of J."""
        return statistics(self.j)

    @cached_property
    def f_statistics(self) -> Statistics:
        """Mean, recall and decay of F."""
        return statistics(self.f)

    @property
    def row(self) -> tuple[float, ...]:
        """J mean, recall, decay, then those of F: see :data:`bench.metrics.COLUMNS`."""
        return (*self.j_statistics, *self.f_statistics)


@dataclass(frozen=True)
class SequenceResult:
    """Scores of a sequence.

    Attributes:
        objects: scores by object id, ascending.
    """

    objects: Mapping[int, ObjectScores]


class SequenceScorer:
    """Scores one sequence under a rule; memory does not grow with the frames' size.

    Objects are discovered as their ids appear in the ground truth; ids may have gaps. Only frames
    that are handed in count, so sparsely annotated sequences need nothing special.

    Under a rule that matches, every object and proposal is scored in all frames, also before it
    appears: absent from both masks scores 1, absent from one 0. Objects left without a proposal
    score 0 throughout.

    Args:
        rule: what is scored.
        frame_count: number of frames of the video; tells which one is the last.
    """

    def __init__(self, rule: ScoringRule, frame_count: int) -> None:
        self.rule = rule
        self.frame_count = frame_count
        self._next_index = 0
        # Per object its (frame, J, F). The one merged object is there from the start.
        self._scores: dict[int, list[tuple[int, float, float]]] = {1: []} if rule.foreground else {}
        self._pairs = PairTable()
        self._pair_frames: list[int] = []

    @property
    def objects(self) -> tuple[int, ...]:
        """Ids of the objects seen in the ground truth so far, ascending."""
        return tuple(sorted(self._pairs.objects if self.rule.matched else self._scores))

    def will_score(self, frame_index: int) -> bool:
        """Whether the next update, if it is for this frame, needs a prediction."""
        if self.rule.skip_last and frame_index == self.frame_count - 1:
            return False
        return not self.rule.given_first or bool(self._scores)

    def observe(self, frame_index: int, true: Mask) -> None:
        """Take note of a frame's objects without scoring it."""
        check_labels(true, "ground truth")
        self._advance(frame_index)
        self._discover(true)

    def update(self, frame_index: int, predicted: Mask, true: Mask) -> None:
        """Score one annotated frame, if the rule scores it.

        Args:
            frame_index: its position in the video; frames must come in ascending order.
            predicted: uint8 ids ``(H, W)``; ids without an object count for nothing.
            true: ground truth, uint8 ids ``(H, W)``, 255 = void.

        Raises:
            ValueError: frames out of order, or arrays of wrong type or different shapes.
            DataError: more proposals than the rule allows.
        """
        check_labels(predicted, "prediction")
        check_labels(true, "ground truth")
        if predicted.shape != true.shape:
            raise ValueError(
                f"found a prediction of shape {predicted.shape}; expected {true.shape}, "
                "the shape of the ground truth"
            )
        score = self.will_score(frame_index)
        self._advance(frame_index)
        if not (score and self.rule.given_first):
            self._discover(true)
        if score:
            self._score(frame_index, predicted, true)
            if self.rule.given_first:  # objects that enter here are given here, so only now
                self._discover(true)

    def _advance(self, frame_index: int) -> None:
        if not self._next_index <= frame_index < self.frame_count:
            raise ValueError(
                f"found frame {frame_index}; expected one from {self._next_index} to "
                f"{self.frame_count - 1}, because frames come in order and only once"
            )
        self._next_index = frame_index + 1

    def _discover(self, true: Mask) -> None:
        if self.rule.foreground:
            return
        for number in object_ids(true):
            if self.rule.matched:
                self._pairs.objects.setdefault(number)
            else:
                self._scores.setdefault(number, [])

    def _score(self, frame_index: int, predicted: Mask, true: Mask) -> None:
        if self.rule.void == "ignored":
            predicted = without_void(predicted, true)
        if self.rule.matched:
            self._pairs.add(predicted, true)
            self._pair_frames.append(frame_index)
            if len(self._pairs.proposals) > self.rule.max_proposals:
                raise DataError(
                    f"frame {frame_index}",
                    f"{len(self._pairs.proposals)} different proposals up to here",
                    f"at most {self.rule.max_proposals} in a sequence",
                    "Keep the best ones; ids must stay the same over a sequence.",
                )
            return
        if self.rule.foreground:
            predicted = (predicted != 0).view(np.uint8)
            true = ((true != 0) & (true != VOID)).view(np.uint8)
        for number, values in self._scores.items():
            j, f = score_bits((predicted == number).view(np.uint8), (true == number).view(np.uint8))
            values.append((frame_index, j, f))

    def result(self) -> SequenceResult:
        """Scores of all objects seen so far."""
        if self.rule.matched:
            return self._matched_result()
        objects = {}
        for number in sorted(self._scores):
            rows = self._scores[number]
            values = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, 2)
            frames = tuple(row[0] for row in rows)
            objects[number] = ObjectScores(frames, values[:, 0].copy(), values[:, 1].copy())
        return SequenceResult(objects)

    def _matched_result(self) -> SequenceResult:
        proposals = self._pairs.match()
        frames = tuple(self._pair_frames)
        objects = {}
        for number in self.objects:
            proposal = proposals.get(number)
            if proposal is None:
                j, f = np.zeros(len(frames)), np.zeros(len(frames))
            else:
                j, f = self._pairs.scores(proposal, number)
            objects[number] = ObjectScores(frames, j, f, proposal)
        return SequenceResult(objects)
