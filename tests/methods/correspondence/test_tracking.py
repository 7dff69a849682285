"""UVC's boxes: how they are found, and that labels stay inside them."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.cluster import MeanShift
from torch import Tensor, nn

from bench.config import method_settings
from bench.method import Context, Method
from bench.propagation import Memory, PropagationSettings, Propagator, Regions
from bench.registry import get_method
from bench.video import Frame, Mask
from methods.correspondence.tracking import (
    Box,
    Tracker,
    TrackingSettings,
    coordinates,
    expected_places,
    mean_shift,
    regions,
)

BY_FRAME = PropagationSettings(
    normalise=False,
    temperature=1.0,
    selection="softmax_then_top_k",
    top_k=3,
    combine="mean",
    radius=None,
    context=3,
    early="available",
)


@pytest.mark.parametrize("seed", range(5))
def test_mean_shift_finds_what_scikit_learn_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    dense = random.normal((20, 30), 1.5, (60, 2))
    points = np.concatenate([dense, random.normal((5, 8), 1.5, (25, 2))])
    expected = MeanShift(bandwidth=5.0).fit(points).cluster_centers_[0]
    found = mean_shift(torch.from_numpy(points), torch.ones(len(points)).double(), 5.0)
    assert np.abs(found.numpy() - expected).max() < 0.3
    assert np.abs(points.mean(0) - expected).max() > 2  # the mean would be elsewhere


def test_weights_are_repetitions() -> None:
    generator = torch.Generator().manual_seed(0)
    points = 12 * torch.rand(30, 2, generator=generator)
    weights = torch.randint(1, 5, (30,), generator=generator)
    repeated = points.repeat_interleave(weights, 0)
    found = [Box.around(points, weights.float(), 3.0, 0.5)]
    found.append(Box.around(repeated, torch.ones(len(repeated)), 3.0, 0.5))
    torch.testing.assert_close(found[0].centre, found[1].centre)
    torch.testing.assert_close(found[0].half, found[1].half)


@pytest.mark.parametrize("size", [(3, 3), (4, 7), (1, 9)])
def test_without_a_margin_a_box_is_its_rectangle(size: tuple[int, int]) -> None:
    inside = torch.zeros(12, 15, dtype=torch.bool)
    inside[2 : 2 + size[0], 4 : 4 + size[1]] = True
    points = coordinates(12, 15, inside.device)[inside.flatten()]
    # A bandwidth that reaches everything puts the centre in the middle.
    box = Box.around(points, torch.ones(len(points)), 100.0, 0.0)
    assert torch.equal(box.cells(12, 15), inside.flatten())
    larger = Box.around(points, torch.ones(len(points)), 100.0, 0.6)
    torch.testing.assert_close(larger.half, 1.6 * box.half)


def test_places_are_expected_by_a_softmax_over_the_whole_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    sources, features = (torch.randn(n, 4, generator=generator) for n in (5, 6))
    found = expected_places(sources, features, 0.7, (2, 3))
    for source, place in zip(sources, found, strict=True):
        weights = [math.exp(float(source @ feature) / 0.7) for feature in features]
        row = sum(w * (n // 3) for n, w in enumerate(weights)) / sum(weights)
        column = sum(w * (n % 3) for n, w in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(place, torch.tensor([row, column]))


# ------------------------------------------------------------------ copying inside regions


def naive_copy_within(memory: Memory, features: Tensor, within: Regions) -> Tensor:
    """Every label, cell, reference and candidate written out; one group of objects."""
    settings = memory.settings
    slots = memory.anchor_slots() + memory.recent_slots()
    copied = torch.zeros(memory.cells, memory.labels.shape[2])
    for label in range(memory.labels.shape[2]):
        for cell in range(memory.cells):
            if not within.target[label, cell]:
                continue
            for slot in slots:
                keys = memory.keys[slot].reshape(memory.cells, -1)
                scores = [float(features[cell] @ key) / settings.temperature for key in keys]
                total = sum(math.exp(score) for score in scores)
                allowed = within.references[memory.frames[slot]][label]
                best = sorted(
                    (n for n in range(memory.cells) if allowed[n]), key=lambda n: -scores[n]
                )
                for n in best[: settings.top_k]:
                    share = math.exp(scores[n]) / total / len(slots)
                    copied[cell, label] += share * float(memory.labels[slot, n, label])
    return copied


def small_memory(config: PropagationSettings, labels: int = 3) -> tuple[Propagator, Memory]:
    generator = torch.Generator().manual_seed(0)
    walk = Propagator(config)
    memory = walk.begin(
        torch.randn(4, 3, 5, generator=generator), torch.rand(labels, 3, 5, generator=generator),
        (3, 5),
    )  # fmt: skip
    for _ in range(2):
        walk.step(memory, torch.randn(4, 3, 5, generator=generator))
    return walk, memory


def random_regions(memory: Memory, seed: int) -> Regions:
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return torch.rand(memory.labels.shape[2], memory.cells, generator=generator) < 0.5

    return Regions(drawn(), {frame: drawn() for frame in memory.referenced()})


def given_regions(within: Regions, memory: Memory, features: Tensor) -> Regions:
    return within


@pytest.mark.parametrize("seed", range(3))
def test_copying_within_regions_equals_loops(seed: int) -> None:
    walk, memory = small_memory(BY_FRAME)
    features = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(9))
    within = random_regions(memory, seed)
    expected = naive_copy_within(memory, features.flatten(1).T, within)
    found = walk.step(memory, features, locate=functools.partial(given_regions, within))
    torch.testing.assert_close(found, expected.T.reshape(-1, 3, 5))


def test_regions_that_are_the_whole_frame_change_nothing() -> None:
    features = torch.randn(4, 3, 5)
    found = []
    for bounded in (False, True):
        walk, memory = small_memory(BY_FRAME)
        walk.add(memory, torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(2)))
        whole = torch.ones(5, 15, dtype=torch.bool)
        within = Regions(whole, dict.fromkeys(range(4), whole))
        locate = functools.partial(given_regions, within) if bounded else None
        walk.step(memory, features, locate=locate)
        found.append(walk.step(memory, features, locate=locate))
    torch.testing.assert_close(*found)


# ------------------------------------------------------------------ the system


class Colours(nn.Module):
    """A stand-in for an encoder: cells are told apart by their colour."""

    stride = 8
    channels = 3

    def forward(self, images: Tensor) -> Tensor:
        return 10 * F.avg_pool2d(images, 8)


RED, SIMILAR, GREEN = (255, 0, 0), (230, 0, 153), (0, 255, 0)


def scene(number: int) -> NDArray[np.uint8]:
    """A red square that moves to the right; from frame 3 on there is a similar one below."""
    image = np.full((96, 128, 3), GREEN, np.uint8)
    if number >= 3:
        image[64:88, 88:112] = SIMILAR
    image[truth(number) == 1] = RED
    return image


def truth(number: int) -> Mask:
    mask = np.zeros((96, 128), np.uint8)
    mask[8:32, 8 + 8 * number : 32 + 8 * number] = 1
    return mask


def uvc(**overrides: object) -> Method:
    method = get_method("uvc")
    given = {"initial": "random", "encoder": "tiny", "preparation": "rgb_unit", "resize": "native"}
    settings, _ = method_settings("uvc", method, "paper", given | overrides)
    built = method(settings, Context())
    built.encoder = Colours()  # type: ignore[attr-defined]
    return built


def masks(method: Method, length: int) -> list[Mask]:
    state = method.begin(Frame(0, "0", scene(0)), truth(0))
    found = []
    for number in range(1, length):
        state, scores = method.step(state, Frame(number, str(number), scene(number)))
        found.append(scores.argmax(0).numpy())
    return found


def overlap(found: Mask, wanted: Mask) -> float:
    return float(((found == 1) & (wanted == 1)).sum() / ((found == 1) | (wanted == 1)).sum())


def test_a_similar_object_is_kept_out() -> None:
    length = 7
    plain, tracked = masks(uvc(), length), masks(uvc(tracking={}), length)
    for number in range(1, length):
        wanted = truth(number)
        assert overlap(tracked[number - 1], wanted) > 0.8
        similar = tracked[number - 1][64:88, 88:112]
        assert not similar.any()
        if number >= 3:
            assert plain[number - 1][64:88, 88:112].mean() > 0.8
    assert overlap(plain[-1], truth(length - 1)) < 0.6


def test_what_is_too_small_is_copied_without_a_box() -> None:
    method = uvc(tracking={"smallest": 100.0})
    for found, plain in zip(masks(method, 4), masks(uvc(), 4), strict=True):
        assert np.array_equal(found, plain)


def test_boxes_are_dropped_with_the_frames_that_are_forgotten() -> None:
    method = uvc(tracking={}, propagation={"context": 2})
    state = method.begin(Frame(0, "0", scene(0)), truth(0))
    for number in range(1, 6):
        state, _ = method.step(state, Frame(number, str(number), scene(number)))
    tracker = state.extra
    assert isinstance(tracker, Tracker)
    assert {0, 4, 5} <= set(tracker.boxes) <= {0, 3, 4, 5}
    (box,) = tracker.boxes[5]
    assert box is not None
    # In cells: rows 1 to 3, columns 6 to 8; half of 3 cells, 0.6 larger, less the half cell.
    torch.testing.assert_close(box.centre, torch.tensor([2.0, 7.0]), atol=0.2, rtol=0)


def test_later_objects_get_boxes_too() -> None:
    method = uvc(tracking={})
    state = method.begin(Frame(0, "0", scene(0)), truth(0))
    for number in (1, 2, 3):
        state, _ = method.step(state, Frame(number, str(number), scene(number)))
    late = np.zeros((96, 128), np.uint8)
    late[64:88, 88:112] = 4
    state = method.add_objects(state, Frame(3, "3", scene(3)), late)  # type: ignore[attr-defined]
    boxes = state.extra.boxes[3]
    torch.testing.assert_close(boxes[1].centre, torch.tensor([9.0, 12.0]), atol=0.2, rtol=0)
    inside = regions(state.memory, boxes)
    assert [bool(each.all()) for each in inside] == [True, False, True, False]
    for number in (4, 5):
        state, scores = method.step(state, Frame(number, str(number), scene(number)))
        found = scores.argmax(0).numpy()
        # Half a cell may be added all around: a lone object outweighs a uniform background.
        assert (found[late == 4] == 2).mean() > 0.9
        assert not (found[:56] == 2).any()
        assert overlap(found, truth(number)) > 0.8


def test_tracking_needs_the_propagation_of_whole_frames() -> None:
    with pytest.raises(ValidationError, match="tracking needs"):
        get_method("uvc").Settings(tracking=TrackingSettings())  # type: ignore[call-arg]


def test_results_say_that_there_were_boxes() -> None:
    assert uvc(tracking={}).protocol().extra["tracking"] == "boxes"
    assert "tracking" not in uvc().protocol().extra
