from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch

from bench.conformance import scene
from bench.errors import DataError, MethodError
from bench.method import (
    AddsObjects,
    Context,
    LabelRegime,
    Method,
    MethodCard,
    MethodSettings,
    Unprompted,
)
from bench.protocol import Clock, labels_of, semi_supervised, unsupervised
from bench.video import object_ids


class Recorder(Method):
    """Repeats the mask and notes what it was given."""

    card = MethodCard("recorder", "Recorder", "For tests.", LabelRegime())

    def __init__(self):
        super().__init__(MethodSettings(), Context())
        self.calls = []

    def begin(self, frame, mask):
        self.calls.append(("begin", frame.index, object_ids(mask), int(mask.max())))
        return torch.from_numpy(np.stack([mask == i for i in (0, *object_ids(mask))])).float()

    def step(self, state, frame):
        self.calls.append(("step", frame.index))
        return state, state


class Adder(Recorder, AddsObjects):
    def add_objects(self, state, frame, mask):
        self.calls.append(("add", frame.index, object_ids(mask)))
        new = torch.from_numpy(np.stack([mask == i for i in object_ids(mask)])).float()
        return torch.cat([state, new])


def test_one_frame_at_a_time_in_order():
    method = Recorder()
    predictions = list(semi_supervised(method, scene(4)))
    assert method.calls == [("begin", 0, (1,), 1), ("step", 1), ("step", 2), ("step", 3)]
    assert [p.index for p in predictions] == [0, 1, 2, 3]
    assert [p.steps for p in predictions] == [0, 1, 1, 1]


def test_late_objects_get_a_stream_of_their_own():
    method = Recorder()
    masks = [p.mask for p in semi_supervised(method, scene(6, objects=2, enters=3))]
    assert ("begin", 3, (3,), 3) in method.calls
    assert method.calls.count(("step", 4)) == 2
    assert [3 in np.unique(mask) for mask in masks] == [False] * 3 + [True] * 3


def test_late_objects_go_to_methods_that_take_them():
    method = Adder()
    list(semi_supervised(method, scene(6, objects=2, enters=3)))
    assert ("add", 3, (3,)) in method.calls
    assert method.calls.count(("step", 4)) == 1


def test_an_object_that_enters_covers_the_prediction():
    video = scene(6, objects=2, enters=3)
    prediction = list(semi_supervised(Recorder(), video))[3]
    assert np.array_equal(prediction.mask == 3, video.load_mask(3) == 3)


def test_nothing_is_predicted_before_the_first_object():
    video = scene(5, objects=1, enters=2)
    method = Recorder()
    masks = [p.mask for p in semi_supervised(method, video)]
    assert not masks[0].any()
    assert not masks[1].any()
    assert method.calls[0][:2] == ("begin", 2)


def test_void_is_not_given_to_methods():
    video = scene(3)
    with_void = np.where(video.load_mask(0) == 0, 255, video.load_mask(0)).astype(np.uint8)
    method = Recorder()
    list(semi_supervised(method, dataclasses.replace(video, load_mask=lambda index: with_void)))
    assert method.calls[0] == ("begin", 0, (1,), 1)


def test_a_video_without_objects_is_an_error():
    with pytest.raises(DataError, match="no annotated object"):
        list(semi_supervised(Recorder(), dataclasses.replace(scene(3), annotated=())))


def test_labels_are_the_first_of_the_highest():
    scores = torch.randint(0, 4, (5, 30, 40), generator=torch.Generator().manual_seed(0)).float()
    expected = np.array([0, 2, 9, 4, 200], dtype=np.uint8)[scores.numpy().argmax(0)]
    assert np.array_equal(labels_of(scores, (2, 9, 4, 200)), expected)


@pytest.mark.parametrize(
    ("scores", "complaint"),
    [
        (lambda s: s[:, :-1], "shape"),
        (lambda s: s[:1], "shape"),
        (lambda s: s.long(), "dtype"),
        (lambda s: s * float("nan"), "NaN"),
        (lambda s: s.numpy(), "type ndarray"),
    ],
)
def test_broken_scores_name_the_frame(scores, complaint):
    class Broken(Recorder):
        def step(self, state, frame):
            return state, scores(state)

    with pytest.raises(MethodError, match=complaint) as error:
        list(semi_supervised(Broken(), scene(3)))
    assert "frame 00001" in str(error.value)


def test_time_is_that_of_the_method_alone():
    """Decoding is outside the clock: a slow decoder does not slow the method down."""

    video = scene(3)

    def slow(index):
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            pass
        return video.load_frame(index)

    predictions = list(semi_supervised(Recorder(), dataclasses.replace(video, load_frame=slow)))
    assert all(p.seconds < 0.04 for p in predictions)


class Proposer(Recorder, Unprompted):
    def begin_unprompted(self, frame):
        scores = torch.zeros(3, *frame.image.shape[:2])
        scores[1, :10] = 1
        scores[2, -10:] = 1
        return scores, scores


def test_the_processors_time_leaves_out_waiting():
    def wait():
        time.sleep(0.2)

    def work():
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass

    clock = Clock("cpu")
    clock.run(wait)
    waited = clock.take()
    clock.run(work)
    worked = clock.take()
    assert waited.seconds >= 0.2
    assert waited.cpu_seconds < 0.1
    assert 0.2 <= worked.cpu_seconds < 0.4
    assert clock.take() == (0, 0)


def test_unsupervised_needs_no_mask():
    masks = [p.mask for p in unsupervised(Proposer(), scene(3))]
    assert [sorted(np.unique(mask)) for mask in masks] == [[0, 1, 2]] * 3


def test_unsupervised_refuses_methods_that_need_a_mask():
    with pytest.raises(MethodError, match="needs the first mask"):
        list(unsupervised(Recorder(), scene(3)))
