"""The loops over a video. The harness owns the loop and the clock; a method only sees frames.

Semi-supervised: every object's mask is given in its first annotated frame, and the method
segments the frames after it. Unsupervised: nothing is given, and the method proposes objects.
Semantic: nothing is given, and the method tells the class of every pixel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.errors import DataError, MethodError
from bench.method import AddsObjects, Method, Semantic, State, Unprompted
from bench.video import Frame, Mask, Video, object_ids

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Prediction:
    """What a method made of one frame.

    Attributes:
        index: the frame's position in the video.
        name: the frame's name.
        mask: predicted ids, uint8 ``(H, W)``; given objects stand as given.
        truth: the frame's annotation as the dataset has it, or None; saves decoding it twice.
        seconds: time spent inside the method for this frame. Decoding and scoring are outside.
        cpu_seconds: the processor's time for it, of all threads; work beside it hardly counts.
        steps: 1 where the method segmented the frame, 0 where the frame was only given.
    """

    index: int
    name: str
    mask: Mask
    truth: Mask | None
    seconds: float
    cpu_seconds: float
    steps: int


class Spent(NamedTuple):
    """Wall time and the processor's time, of all threads of this process, in seconds."""

    seconds: float
    cpu_seconds: float


class Clock:
    """Adds up the time spent inside a method, GPU work included."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._spent = Spent(0.0, 0.0)

    def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call and time."""
        start = Spent(time.perf_counter(), time.process_time())
        result = call(*arguments)
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
        seconds, cpu_seconds = self._spent
        seconds += time.perf_counter() - start.seconds
        self._spent = Spent(seconds, cpu_seconds + time.process_time() - start.cpu_seconds)
        return result

    def take(self) -> Spent:
        """Time since the last call of ``take``."""
        spent, self._spent = self._spent, Spent(0.0, 0.0)
        return spent


class Streams:
    """One video under one method, with objects that may enter at any frame.

    Methods that take up objects themselves (:class:`bench.method.AddsObjects`) run as one stream.
    For the others, objects that enter together form a stream of their own, and a pixel goes to
    the object that exceeds its own stream's background by most, or to background if none does.

    Attributes:
        ids: ids of all objects so far, in the order of the merged scores' channels.
    """

    def __init__(self, method: Method, clock: Clock) -> None:
        self.method = method
        self.clock = clock
        self.states: list[State] = []
        self.groups: list[tuple[int, ...]] = []

    @property
    def ids(self) -> tuple[int, ...]:
        """All object ids, in channel order."""
        return tuple(i for group in self.groups for i in group)

    def give(self, frame: Frame, mask: Mask) -> None:
        """Introduce the objects of ``mask`` (ids not seen before, no void) in this frame."""
        new = object_ids(mask)
        if self.states and isinstance(self.method, AddsObjects):
            self.states[0] = self.clock.run(self.method.add_objects, self.states[0], frame, mask)
            self.groups[0] += new
            return
        self.states.append(self.clock.run(self.method.begin, frame, mask))
        self.groups.append(new)

    def step(self, frame: Frame) -> Mask:
        """Segment the next frame: uint8 ids ``(H, W)``."""
        scores = []
        for number, group in enumerate(self.groups):
            state, found = self.clock.run(self.method.step, self.states[number], frame)
            self.states[number] = state
            check_scores(found, len(group), frame, self.method)
            scores.append(found)
        if len(scores) > 1:
            import torch

            margins = [found[1:] - found[:1] for found in scores]
            merged = torch.cat([torch.zeros_like(scores[0][:1]), *margins])
        else:
            merged = scores[0]
        return labels_of(merged, self.ids)


def check_scores(scores: Any, objects: int, frame: Frame, method: Method) -> None:
    """Raise :class:`MethodError` unless scores keep the contract of ``Method.step``."""
    import torch

    expected = (1 + objects, *frame.image.shape[:2])
    if not isinstance(scores, torch.Tensor):
        found = f"scores of type {type(scores).__name__}"
    elif not scores.is_floating_point():
        found = f"scores of dtype {scores.dtype}"
    elif tuple(scores.shape) != expected:
        found = f"scores of shape {tuple(scores.shape)}"
    elif not bool(torch.isfinite(scores).all()):
        found = "scores with NaN or infinite values"
    else:
        return
    raise MethodError(
        f"method {type(method).__name__}, frame {frame.name}",
        found,
        f"a finite float tensor of shape {expected}: background and {objects} object(s)",
        "Mend Method.step; `python -m bench check` runs the whole contract.",
    )


def labels_of(scores: torch.Tensor, ids: tuple[int, ...]) -> Mask:
    """Arg-max of scores ``(1 + objects, H, W)`` as uint8 ids ``(H, W)``; ties go to the first.

    Channel by channel: arg-max over the outermost dimension is over ten times slower on a CPU.
    """
    import torch

    best = scores[0]
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for channel, number in enumerate(ids, start=1):
        labels.masked_fill_(scores[channel] > best, number)
        best = torch.maximum(best, scores[channel])
    found: Mask = labels.cpu().numpy()
    return found


def semi_supervised(method: Method, video: Video) -> Iterator[Prediction]:
    """Segment a video whose objects are given in their first annotated frames.

    Yields one prediction per frame, as soon as it is made.

    Raises:
        DataError: the video has no annotated object.
        MethodError: the method broke its contract.
    """
    clock = Clock(method.context.device)
    streams = Streams(method, clock)
    annotated = frozenset(video.annotated)
    for frame in video.frames():
        truth = video.load_mask(frame.index) if frame.index in annotated else None
        steps = 0
        mask = np.zeros(video.size, dtype=np.uint8)
        if streams.groups:
            mask, steps = streams.step(frame), 1
        new = set(object_ids(truth)) - set(streams.ids) if truth is not None else set()
        if truth is not None and new:
            given = np.where(np.isin(truth, list(new)), truth, 0).astype(np.uint8)
            streams.give(frame, given)
            mask = np.where(given != 0, given, mask)
        yield Prediction(frame.index, frame.name, mask, truth, *clock.take(), steps)
    if not streams.groups:
        raise DataError(
            f"{video.dataset}/{video.name}",
            "no annotated object in any frame",
            "a mask with at least one object",
            "Check the sequence with `python -m bench data check`.",
        )


def unsupervised(method: Method, video: Video) -> Iterator[Prediction]:
    """Segment a video without any given mask; ids 1 .. n are the method's own proposals.

    Raises:
        MethodError: the method needs a mask, or broke its contract.
    """
    if not isinstance(method, Unprompted):
        raise MethodError(
            f"method {type(method).__name__}",
            "a method that needs the first mask",
            "one with the mix-in bench.method.Unprompted",
            "Run it under the semi-supervised protocol.",
        )
    yield from _from_nothing(method, method.begin_unprompted, video)


def semantic(method: Method, video: Video) -> Iterator[Prediction]:
    """Tell the class of every pixel; ids 1 .. n are the method's classes in their order.

    Raises:
        MethodError: the method knows no classes, or broke its contract.
    """
    if not isinstance(method, Semantic):
        raise MethodError(
            f"method {type(method).__name__}",
            "a method that does not tell classes apart",
            "one with the mix-in bench.method.Semantic",
            "Run it under another protocol.",
        )
    yield from _from_nothing(method, method.begin_semantic, video, len(method.class_names()))


def _from_nothing(
    method: Method,
    begin: Callable[[Frame], tuple[State, torch.Tensor]],
    video: Video,
    count: int | None = None,
) -> Iterator[Prediction]:
    """Segment a video of which nothing is given.

    Args:
        method: whose ``step`` follows ``begin``.
        begin: segments the first frame.
        video: what is segmented.
        count: of the ids that may be predicted; None for as many as the method likes.
    """
    clock = Clock(method.context.device)
    annotated = frozenset(video.annotated)
    state: State = None
    for frame in video.frames():
        if frame.index == 0:
            state, scores = clock.run(begin, frame)
        else:
            state, scores = clock.run(method.step, state, frame)
        check_scores(scores, scores.shape[0] - 1 if count is None else count, frame, method)
        mask = labels_of(scores, tuple(range(1, scores.shape[0])))
        truth = video.load_mask(frame.index) if frame.index in annotated else None
        yield Prediction(frame.index, frame.name, mask, truth, *clock.take(), 1)


PROTOCOLS: dict[str, Callable[[Method, Video], Iterator[Prediction]]] = {
    "semi-supervised": semi_supervised,
    "unsupervised": unsupervised,
    "semantic": semantic,
}
