"""The two shapes that a way of using the network has: with a first mask, and without."""

from __future__ import annotations

import abc

from torch import Tensor

from bench.method import ProtocolRecord, State
from bench.video import Frame, Mask


class Stepping(abc.ABC):
    """What a video goes through after its first frame."""

    @abc.abstractmethod
    def step(self, state: State, frame: Frame) -> tuple[State, Tensor]:
        """Segment the next frame; see :meth:`bench.method.Method.step`."""

    @abc.abstractmethod
    def record(self) -> ProtocolRecord:
        """The settings that move scores without touching weights."""


class Prompted(Stepping):
    """Segments the objects that the first frame's mask shows."""

    @abc.abstractmethod
    def begin(self, frame: Frame, mask: Mask) -> State:
        """Start on a video; see :meth:`bench.method.Method.begin`."""


class FromNothing(Stepping):
    """Segments what the network takes for an object."""

    @abc.abstractmethod
    def begin(self, frame: Frame) -> tuple[State, Tensor]:
        """Start on a video; see :meth:`bench.method.Unprompted.begin_unprompted`."""
