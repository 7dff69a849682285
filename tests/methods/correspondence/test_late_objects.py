"""Objects that enter in mid-video: as if each group had a memory of its own, at the cost of one."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.config import method_settings
from bench.method import AddsObjects, Context, Method
from bench.propagation import PropagationSettings, Propagator, propagator, screening
from bench.protocol import Clock, Streams
from bench.registry import get_method
from bench.video import Frame, Mask
from methods.correspondence.method import Correspondence

SIZE = (96, 120)

RULES: Mapping[str, Mapping[str, object]] = {
    "joint": {},
    "joint, first frame in a window": {"radius_first": 2.0},
    "joint, first frame again": {"early": "again"},
    "joint, hard labels": {"label_state": "hard", "early": "available"},
    "joint, later anchors": {"anchors": (0, 2), "interval": 2, "early": "available"},
    "joint, no anchor": {"anchors": (), "early": "available"},
    "by frame": {"selection": "softmax_then_top_k", "combine": "mean", "radius": None},
    "by frame, first predicted": {
        "selection": "softmax_then_top_k", "combine": "mean", "radius": None,
        "predict_first": True, "min_max": "memory",
    },
    "attention": {"selection": "softmax", "early": "available"},
    "attention, two steps": {
        "selection": "softmax", "early": "available", "window": "square", "radius_first": 2.0,
        "outside": "zero", "anchors": (0, 1), "distant": 2, "distant_labels": "last",
    },
    "attention, no anchor": {
        "selection": "softmax", "early": "available", "anchors": (), "context": 1,
        "label_state": "hard", "label_down": "truncated_ids",
    },
}  # fmt: skip


def configured(rule: str, **fields: object) -> PropagationSettings:
    defaults = {"context": 3, "radius": 2.0, "top_k": 4, "temperature": 0.1}
    return PropagationSettings(**(defaults | fields | dict(RULES[rule])))  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    rule=st.sampled_from(sorted(RULES)),
    entries=st.lists(st.integers(0, 7), min_size=1, max_size=3).map(sorted),
    tiled=st.booleans(),
)
def test_each_group_gets_the_labels_of_a_memory_of_its_own(
    seed: int, rule: str, entries: list[int], tiled: bool
) -> None:
    """Even groups that enter in the same frame, or in the first one."""
    config = configured(rule)
    generator = torch.Generator().manual_seed(seed)
    grid = (6, 7)
    frames = [torch.randn(5, *grid, generator=generator) for _ in range(9)]
    given_labels = [torch.rand(2 + n, *grid, generator=generator) for n in range(1 + len(entries))]
    walk = Propagator(config, tiled)
    together = walk.begin(frames[0], given_labels[0], grid)
    apart = [walk.begin(frames[0], given_labels[0], grid)]
    for number, frame in enumerate(frames):
        if number:
            found = walk.step(together, frame)
            expected = torch.cat([walk.step(memory, frame) for memory in apart])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        for entry, labels in zip(entries, given_labels[1:], strict=True):
            if entry == number:
                walk.add(together, labels)
                apart.append(walk.begin(frame, labels, grid))
    assert len(together.groups) == 1 + len(entries)


def test_screening_changes_nothing_for_those_who_enter_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configured("joint", radius=5.0)
    found = []
    for enough in (96, 1000):
        monkeypatch.setattr(screening, "ENOUGH_CHANNELS", enough)
        generator = torch.Generator().manual_seed(0)
        frames = [torch.randn(128, 9, 11, generator=generator) for _ in range(6)]
        labels = [torch.rand(2, 9, 11, generator=generator) for _ in range(2)]
        walk = Propagator(config)
        memory = walk.begin(frames[0], labels[0], (9, 11))
        assert (memory.screen is not None) == (enough == 96)
        walk.step(memory, frames[1])
        walk.step(memory, frames[2])
        walk.add(memory, labels[1])
        found.append([walk.step(memory, frame) for frame in frames[3:]])
    for screened, plain in zip(*found, strict=True):
        torch.testing.assert_close(screened, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rule", ["joint", "by frame", "attention"])
def test_every_remembered_frame_is_searched_once(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three groups share what they have in common; each adds its own first frame alone."""
    config = configured(rule, context=6)
    searched: list[int] = []
    for name in ("best_candidates", "copies_by_frame", "attend"):
        original = getattr(propagator, name)

        def counted(*arguments, original=original):  # type: ignore[no-untyped-def]
            searched.extend(arguments[3])
            return original(*arguments)

        monkeypatch.setattr(propagator, name, counted)
    walk = Propagator(config)
    frames = torch.randn(12, 5, 6, 7)
    memory = walk.begin(frames[0], torch.rand(2, 6, 7), (6, 7))
    for number, frame in enumerate(frames[1:], start=1):
        searched.clear()
        walk.step(memory, frame)
        assert sorted(searched) == sorted(set(searched))
        entered = len(memory.groups)
        assert len(searched) <= entered + 6
        if number in (3, 5):
            walk.add(memory, torch.rand(2, 6, 7))
    assert len(searched) == 3 + 6


def test_unknown_is_not_background() -> None:
    """An object seen before it is given is not outvoted by the frames that did not know it."""
    config = PropagationSettings(context=5, radius=None)
    features = torch.eye(12).reshape(12, 3, 4)
    object_mask = torch.zeros(3, 4)
    object_mask[1, 1] = 1
    walk = Propagator(config)
    memory = walk.begin(features, torch.stack([torch.ones(3, 4), torch.zeros(3, 4)]), (3, 4))
    for _ in range(4):
        walk.step(memory, features)
    walk.add(memory, torch.stack([1 - object_mask, object_mask]))
    labels = walk.step(memory, features)
    torch.testing.assert_close(memory.scores(labels)[2] > 0, object_mask > 0)


# ------------------------------------------------------------------ under the harness

SYSTEMS = (
    "vidcolor", "corrflow", "cycletime", "uvc", "rpmnet", "mast", "mug", "crw", "dul", "twiaa",
    "stt", "mamp",
)  # fmt: skip


class Alone(Method):
    """A method that takes up no objects: the harness runs a stream per group."""

    def __init__(self, method: Method) -> None:
        super().__init__(method.settings, method.context)
        self.begin, self.step = method.begin, method.step  # type: ignore[method-assign]

    def begin(self, frame: Frame, mask: Mask) -> object: ...  # type: ignore[empty-body]

    def step(self, state: object, frame: Frame) -> tuple[object, Tensor]: ...  # type: ignore[empty-body]


class Counted(nn.Module):
    """An encoder that counts the frames it saw."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.stride = encoder.stride
        self.channels = encoder.channels
        self.frames = 0

    def forward(self, images: Tensor) -> Tensor:
        self.frames += 1
        found: Tensor = self.encoder(images)
        return found


def video(length: int) -> list[Frame]:
    """A textured square over other texture; another one enters in frame 2."""
    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.integers(0, 255, (*SIZE, 3), np.uint8), (7, 7), 2)
    squares = random.integers(0, 255, (2, 24, 24, 3), np.uint8)
    frames = []
    for number in range(length):
        image = ground.copy()
        image[8:32, 8 + 2 * number : 32 + 2 * number] = squares[0]
        if number >= 2:
            image[56:80, 96 - 2 * number : 120 - 2 * number] = squares[1]
        frames.append(Frame(number, str(number), image))
    return frames


def square(top: int, left: int, number: int) -> Mask:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 24, left : left + 24] = number
    return mask


@pytest.mark.parametrize(
    ("system", "preset", "overrides"),
    [(system, "paper", {}) for system in SYSTEMS]
    + [("crw", "tiny", {}), ("uvc", "paper", {"tracking": {}})],
)
def test_masks_are_those_of_the_harness_streams(
    system: str, preset: str, overrides: dict[str, object]
) -> None:
    """And each frame is encoded once, instead of once per group."""
    overrides = overrides | {"encoder": "tiny"}
    if system == "vidcolor":
        overrides["preparation"] = "rgb_unit"  # its own encoder sees grey
    if system in ("vidcolor", "mast", "mamp"):
        # Features of a random network are so large that all cells copy from one, and so alike
        # that they need a low temperature.
        overrides["propagation"] = {"normalise": True, "temperature": 0.002}
    if system in ("cycletime", "twiaa", "uvc", "mug"):
        overrides["resize_to"] = 64
    settings, _ = method_settings(
        system, get_method(system), preset, {"initial": "random"} | overrides
    )
    method = get_method(system)(settings, Context())
    assert isinstance(method, Correspondence)
    assert isinstance(method, AddsObjects)
    method.encoder = counted = Counted(method.encoder)  # type: ignore[assignment]
    masks, seen = [], []
    frames = video(5)
    for each in (method, Alone(method)):
        counted.frames = 0
        streams = Streams(each, Clock("cpu"))
        streams.give(frames[0], square(8, 8, 3))
        found = []
        for frame in frames[1:]:
            found.append(streams.step(frame))
            if frame.index == 2:
                streams.give(frame, square(56, 92, 1))
        assert streams.ids == (3, 1)
        masks.append(np.stack(found))
        seen.append(counted.frames)
    assert {1, 3} <= set(np.unique(masks[0]).tolist())  # otherwise this shows nothing
    assert (masks[0] != masks[1]).mean() < 1e-3
    once = len(frames) + (system == "rpmnet")  # which looks at the first frame twice
    assert seen[0] == once < seen[1]


def test_flow_is_between_numbers_of_the_whole_video(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Also for objects that enter later."""
    settings, _ = method_settings(
        "mamp", get_method("mamp"), "paper",
        {"initial": "random", "encoder": "tiny", "flow": "precomputed", "flow_folder": tmp_path},
    )  # fmt: skip
    method = get_method("mamp")(settings, Context())
    frames = video(5)
    grid = (12, 15)
    for target in range(1, 5):
        for reference in range(target):
            np.save(tmp_path / f"{target:05d}_{reference:05d}.npy", np.zeros((2, *grid)))
    streams = Streams(method, Clock("cpu"))
    streams.give(frames[0], square(8, 8, 1))
    for frame in frames[1:]:
        streams.step(frame)
        if frame.index == 2:
            streams.give(frame, square(56, 92, 2))
    assert streams.states[0].memory.referenced() == [0, 2, 4]
