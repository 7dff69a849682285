"""Proposals that carry ids of their own, scored against objects and matched to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.metrics.binary import Bits, boundary_radius, crop_of, dilated, f_measure, outline
from bench.video import VOID, Mask, object_ids, present_values


@dataclass(frozen=True)
class _Shape:
    """One region of a frame, with what pairs need of it.

    Attributes:
        area: number of pixels.
        edge: flat indices of its boundary pixels.
        reach: flat bool ``(H * W,)``: pixels within the tolerance of its boundary.
    """

    area: int
    edge: NDArray[np.intp]
    reach: NDArray[np.bool_]


def _shape(mask: Bits) -> _Shape:
    radius = boundary_radius(*mask.shape)
    edge = np.zeros_like(mask)
    crop = crop_of(mask)
    edge[crop] = outline(mask[crop])
    reach = np.zeros_like(mask)
    crop = crop_of(mask, 1 + radius)
    reach[crop] = dilated(edge[crop], radius)
    return _Shape(cv2.countNonZero(mask), np.flatnonzero(edge), reach.view(np.bool_).ravel())


@dataclass
class _Frame:
    """What one frame contributes; ids that are not in it are empty there.

    Attributes:
        pairs: J and F of every (proposal, object) that are both in the frame.
        proposals: F of every proposal in the frame against an empty object; J is 0.
        objects: F of every object in the frame against an empty proposal; J is 0.
    """

    pairs: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    proposals: dict[int, float] = field(default_factory=dict)
    objects: dict[int, float] = field(default_factory=dict)


def _count(hits: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(hits))


def _score_pairs(predicted: Mask, true: Mask) -> _Frame:
    """Score all proposals in a frame against all objects in it."""
    proposals = {
        number: _shape((predicted == number).view(np.uint8))
        for number in present_values(predicted)
        if number != 0
    }
    objects = {number: _shape((true == number).view(np.uint8)) for number in object_ids(true)}
    frame = _Frame(
        proposals={n: f_measure(0, len(shape.edge), 0, 0) for n, shape in proposals.items()},
        objects={n: f_measure(0, 0, 0, len(shape.edge)) for n, shape in objects.items()},
    )
    joint = np.bincount(predicted.ravel().astype(np.intp) * 256 + true.ravel(), minlength=65536)
    for p, proposal in proposals.items():
        for o, thing in objects.items():
            intersection = int(joint[p * 256 + o])
            union = proposal.area + thing.area - intersection
            f = f_measure(
                _count(thing.reach[proposal.edge]),
                len(proposal.edge),
                _count(proposal.reach[thing.edge]),
                len(thing.edge),
            )
            frame.pairs[p, o] = (intersection / union, f)
    return frame


class PairTable:
    """J and F of all proposals against all objects, gathered frame by frame.

    Frames keep only what is in them, so memory follows the pairs that meet, and ids that turn up
    late need no second look at earlier frames.

    Attributes:
        proposals: ids of all proposals so far, in order of appearance.
        objects: ids of all objects so far, likewise.
    """

    def __init__(self) -> None:
        self.proposals: dict[int, None] = {}
        self.objects: dict[int, None] = {}
        self._frames: list[_Frame] = []

    def add(self, predicted: Mask, true: Mask) -> None:
        """Score one frame; label maps uint8 ``(H, W)``, void already removed from ``predicted``."""
        frame = _score_pairs(predicted, true)
        self.proposals.update(dict.fromkeys(frame.proposals))
        self.objects.update(dict.fromkeys(frame.objects))
        self._frames.append(frame)

    def scores(self, proposal: int, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """J and F of one pair, float64 ``(frames,)`` each."""
        values = np.ones((2, len(self._frames)))  # both absent: both empty, which scores 1
        for column, frame in enumerate(self._frames):
            if (proposal, number) in frame.pairs:
                values[:, column] = frame.pairs[proposal, number]
            elif proposal in frame.proposals:
                values[:, column] = 0.0, frame.proposals[proposal]
            elif number in frame.objects:
                values[:, column] = 0.0, frame.objects[number]
        return values[0], values[1]

    def match(self) -> dict[int, int]:
        """Assign proposals to objects so that the sum of mean (J + F) / 2 is largest.

        Returns:
            Proposal by object; objects that got none are left out.
        """
        # Imported here because scipy costs memory that other protocols need not pay.
        from scipy.optimize import linear_sum_assignment

        proposals, objects = list(self.proposals), sorted(self.objects)
        gain = np.zeros((len(proposals), len(objects)))
        for row, proposal in enumerate(proposals):
            for column, number in enumerate(objects):
                j, f = self.scores(proposal, number)
                gain[row, column] = ((j + f) / 2).mean()
        rows, columns = linear_sum_assignment(gain, maximize=True)
        return {objects[c]: proposals[r] for r, c in zip(rows, columns, strict=True)}


def without_void(predicted: Mask, true: Mask) -> Mask:
    """``predicted`` with background where the ground truth is void; unchanged if nothing is."""
    void = true == VOID
    if not void.any():
        return predicted
    return np.where(void, np.uint8(0), predicted)
