"""RPM-Net's update on the first frame."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from bench.config import method_settings
from bench.method import Context
from bench.registry import get_method
from bench.video import Frame, Mask
from methods.correspondence.online import FirstFrame, Networks, OnlineSettings, updated

SIZE = (64, 80)
ONLINE = {"steps": 2, "learning_rate": 1e-3}


def image(number: int, seed: int = 0) -> NDArray[np.uint8]:
    """A patchwork that moves over another one."""
    random = np.random.default_rng(seed)
    still, moving = (random.integers(0, 255, size, np.uint8) for size in ((4, 5, 3), (2, 3, 3)))
    ground = cv2.resize(still, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    patches = cv2.resize(moving, (32, 24), interpolation=cv2.INTER_NEAREST)
    ground[16:40, 16 + number : 48 + number] = patches
    return np.asarray(ground, np.uint8)


def mask() -> Mask:
    found = np.zeros(SIZE, np.uint8)
    found[16:40, 16:48] = 7
    found[50:60, 60:76] = 9
    return found


def rpmnet(**overrides: object) -> Any:
    method = get_method("rpmnet")
    given = {"initial": "random", "encoder": "tiny", "sampling": {"scale": 128**-0.5}}
    settings, _ = method_settings("rpmnet", method, "paper", given | overrides)
    return method(settings, Context())


def scores(method: Any, seed: int = 0) -> Tensor:
    state = method.begin(Frame(0, "0", image(0, seed)), mask())
    for number in (1, 2):
        state, found = method.step(state, Frame(number, str(number), image(number, seed)))
    return found


def first_frame(method: Any) -> FirstFrame:
    numbers = mask()
    numbers[numbers == 7], numbers[numbers == 9] = 1, 2
    return FirstFrame(image(0), numbers, method.prepared, method.settings.policy)


def test_the_loss_on_the_first_frame_falls() -> None:
    method = rpmnet()
    first, settings = first_frame(method), OnlineSettings(steps=15, learning_rate=1e-3)
    networks = Networks(method.encoder, method.sampler, 128**-0.5)
    # On movements that the update does not draw.
    held_out = first.pairs(np.random.default_rng(99), settings)

    def losses(each: Networks) -> list[float]:
        with torch.no_grad():
            return [
                float(each.loss(held_out, settings.model_copy(update=weights)))
                for weights in ({"label_weight": 0.0}, {"colour_weight": 0.0})
            ]

    before = losses(networks)
    after = losses(updated(networks, first, settings, seed=0))
    assert after[0] < 0.97 * before[0]
    assert after[1] < 0.97 * before[1]
    assert losses(networks) == before


def test_each_video_starts_from_the_same_weights() -> None:
    method = rpmnet(online=ONLINE)
    before = {
        name: tensor.clone()
        for module in (method.encoder, method.sampler)
        for name, tensor in module.state_dict().items()
    }
    first = scores(method, seed=0)
    scores(method, seed=1)
    assert torch.equal(scores(method, seed=0), first)
    assert torch.equal(scores(rpmnet(online=ONLINE), seed=0), first)
    after = {
        name: tensor
        for module in (method.encoder, method.sampler)
        for name, tensor in module.state_dict().items()
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert not any(parameter.requires_grad for parameter in method.encoder.parameters())
    assert not torch.equal(scores(rpmnet(), seed=0), first)


def test_two_videos_at_once_do_not_share_what_was_learned() -> None:
    """The harness keeps a state per stream, and one method for all."""
    method = rpmnet(online=ONLINE)
    states = [method.begin(Frame(0, "0", image(0, seed)), mask()) for seed in (0, 1)]
    found = []
    for seed, state in enumerate(states):
        for number in (1, 2):
            state, last = method.step(state, Frame(number, str(number), image(number, seed)))
        found.append(last)
    assert torch.equal(found[0], scores(method, seed=0))
    assert torch.equal(found[1], scores(method, seed=1))


def test_running_statistics_stay() -> None:
    method = rpmnet(online=ONLINE)
    state = method.begin(Frame(0, "0", image(0)), mask())
    learned = state.extra.networks.encoder
    assert learned is not method.encoder
    for name, tensor in learned.state_dict().items():
        same = torch.equal(tensor, method.encoder.state_dict()[name])
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert same, name
    assert not torch.equal(learned.conv1.weight, method.encoder.conv1.weight)


def test_it_also_runs_where_gradients_are_off() -> None:
    with torch.inference_mode():
        inside = scores(rpmnet(online=ONLINE))
    assert torch.equal(inside, scores(rpmnet(online=ONLINE)))


def test_views_move_image_colours_and_mask_alike() -> None:
    """With a shift of whole pixels, all three are shifted copies of the frame's."""
    first = first_frame(rpmnet())
    move = np.array([[1.0, 0, 5], [0, 1, -3]])
    still, moved = first._moved(np.eye(2, 3)), first._moved(move)
    for before, after in zip(still, moved, strict=True):
        assert torch.equal(after[..., : SIZE[0] - 3, 5:], before[..., 3:, : SIZE[1] - 5])
    assert set(still[2].unique().tolist()) == {0, 1, 2}


def test_it_is_off_by_default_and_needs_the_sampler() -> None:
    method = get_method("rpmnet")
    for preset in ("tiny", "paper"):
        settings, _ = method_settings("rpmnet", method, preset, {})
        assert settings.online is None  # type: ignore[attr-defined]
    with pytest.raises(ValidationError, match="needs sampling"):
        method.Settings(online=OnlineSettings())  # type: ignore[call-arg]


def test_results_say_how_it_was_matched_and_updated() -> None:
    assert rpmnet().protocol().extra["online update"] == "no"
    record = rpmnet(online=ONLINE).protocol()
    assert (record.memory, record.radius) == ("1", 2.0)
    assert record.extra["online update"] == "2 steps"
    assert rpmnet(sampling=None).protocol().memory == "first + 20 (padded)"
