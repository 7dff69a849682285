"""Encoders under the propagator: objects that enter later, as the harness's streams take them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.conformance import CHECKS, Check, scene
from bench.method import AddsObjects, Context, LabelRegime, Method, MethodCard, MethodSettings
from bench.propagation import PropagationSettings
from bench.protocol import Clock, Streams
from bench.registry import get_method
from bench.video import Frame, Mask, Video
from methods.feature_propagation import FeaturePropagation

WALK = {"context": 3, "radius": 4.0, "top_k": 5, "temperature": 0.01}

RULES: dict[str, dict[str, object]] = {
    "joint": {},
    "hard labels": {"label_state": "hard", "early": "available"},
    "by frame": {"selection": "softmax_then_top_k", "combine": "mean", "radius": None},
    "attention": {"selection": "softmax", "early": "available", "anchors": (0, 1)},
    "stretched": {"min_max": "output"},
}


class Colours(FeaturePropagation):
    """Features are the colours of 4 x 4 pixels; it counts the frames it saw."""

    card = MethodCard("colours", "Colours", "For tests.", LabelRegime())

    def __init__(self, propagation: PropagationSettings) -> None:
        super().__init__(MethodSettings(), Context(), propagation)
        self.frames = 0

    def encode(self, image: Tensor) -> Tensor:
        self.frames += 1
        height, width = (-side % 4 for side in image.shape[-2:])
        padded = F.pad(image - 0.5, (0, width, 0, height), mode="replicate")
        return F.normalize(F.pixel_unshuffle(padded, 4)[0], dim=0)

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size if min(size) < 72 else (size[0] * 3 // 4, size[1] * 3 // 4)


class Alone(Method):
    """A method that takes up no objects: the harness runs a stream per group."""

    def __init__(self, method: Method) -> None:
        super().__init__(method.settings, method.context)
        self.method = method

    def begin(self, frame: Frame, mask: Mask) -> object:
        return self.method.begin(frame, mask)

    def step(self, state: object, frame: Frame) -> tuple[object, Tensor]:
        return self.method.step(state, frame)


def masks(method: Method, video: Video, entries: dict[int, tuple[int, ...]]) -> np.ndarray:
    """Predicted masks, where objects are given in the frames that ``entries`` names."""
    streams = Streams(method, Clock("cpu"))
    found = []
    for frame in video.frames():
        if streams.groups:
            found.append(streams.step(frame))
        if frame.index in entries:
            truth = video.load_mask(frame.index)
            given = np.where(np.isin(truth, entries[frame.index]), truth, 0)
            streams.give(frame, given.astype(np.uint8))
    assert streams.ids == tuple(number for group in entries.values() for number in group)
    return np.stack(found)


def as_the_streams(method: Method, video: Video, entries: dict[int, tuple[int, ...]]) -> None:
    together, apart = masks(method, video, entries), masks(Alone(method), video, entries)
    given = {number for group in entries.values() for number in group}
    assert given <= set(np.unique(together).tolist())  # otherwise this shows nothing
    assert (together != apart).mean() < 1e-3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(61, 90), (96, 120)], ids=["native", "shrunk"])
def test_masks_are_those_of_the_harness_streams(rule: str, size: tuple[int, int]) -> None:
    """And each frame is encoded once, instead of once per group."""
    propagation = PropagationSettings.model_validate(WALK | RULES[rule])
    method = Colours(propagation)
    assert isinstance(method, AddsObjects)
    video = scene(6, size, objects=3, enters=2, seed=5)
    entries = {0: (1,), 2: (5,), 3: (3,)}
    as_the_streams(method, video, entries)
    once, per_group = 6, 6 + 4 + 3
    assert method.frames == once + per_group


@pytest.mark.parametrize("initial", ["imagenet", "random"])
def test_imagenet_takes_up_objects_as_the_streams_do(initial: str) -> None:
    cls = get_method("imagenet")
    method = cls(cls.Settings(initial=initial, short_side=64), Context())  # type: ignore[call-arg]
    assert isinstance(method, AddsObjects)
    as_the_streams(method, scene(5, (96, 128), objects=3, enters=2, seed=3), {0: (1, 3), 2: (5,)})


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_contract(check: Check) -> None:
    torch.manual_seed(0)
    assert check.complaint(Colours(PropagationSettings.model_validate(WALK))) is None
