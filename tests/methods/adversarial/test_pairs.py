"""The discriminator of adjacent frames, from settings to steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bench.errors import ConfigError, MethodError
from methods.adversarial.adversary_settings import AlignmentSettings, DiscriminatorSettings
from methods.adversarial.discriminators import build_discriminator
from methods.adversarial.settings import NetworkSettings
from methods.adversarial.tokens import adjacent_pairs
from tests.methods.adversarial.shapes import ShapeImages, ShapeVideos
from tests.methods.adversarial.test_training import asked, task_of

PAIR = {"tap": "prob", "weight": 0.5, "discriminator": {"network": "pair", "width": 16}}


def test_every_frame_stands_beside_the_next_of_its_clip() -> None:
    features = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 3, 4)
    pairs = adjacent_pairs(features, 3)
    assert pairs.shape == (4, 4, 3, 4)
    numbers = pairs[:, :, 0, 0].tolist()
    assert numbers == [[0, 0, 1, 1], [1, 1, 2, 2], [3, 3, 4, 4], [4, 4, 5, 5]]


def test_pairs_are_seen_by_patch_layers_of_twice_the_channels() -> None:
    pair = build_discriminator(DiscriminatorSettings(network="pair"), 3, None, True)
    patch = build_discriminator(DiscriminatorSettings(network="patch"), 6, None, True)
    assert [p.shape for p in pair.parameters()] == [p.shape for p in patch.parameters()]
    pair.load_state_dict(patch.state_dict())
    frames = torch.randn(2, 6, 20, 24)
    assert torch.equal(pair(frames, None, (64, 96)), patch(frames, None, (64, 96)))
    assert pair(frames, None, (64, 96)).shape == (2, 1, 2, 3)
    with pytest.raises(MethodError, match="at least 32"):
        pair(frames)


@pytest.mark.parametrize("time", ["none", "attention"])
def test_a_step_in_pairs(tmp_path: Path, time: Any) -> None:
    """Images are clips along a camera path, of 2D networks too, and no pair crosses clips."""
    task = task_of(
        asked(tmp_path),
        NetworkSettings(time=time),
        alignments=(PAIR,),
        domains={"clip_frames": 3},
        game={"loss": "non_saturating", "start": 0.0},
    )
    step = task.samples[0]
    for part in step:
        assert part.frames.shape[:2] == (2, 3)
        assert not torch.equal(part.frames[:, 0], part.frames[:, 1])
    model: Any = task.model.eval()
    tap = model.taps[0]
    judged: list[torch.Tensor] = []
    tap.alignment.discriminator.register_forward_pre_hook(
        lambda _, arguments: judged.append(arguments[0].detach())
    )
    model.progress(0.9, 0)
    losses = model(step)
    sum(losses.values()).backward()
    assert losses["network_prob_global"].item() > 0
    assert any(p.grad is not None for p in model.network.parameters())
    with torch.no_grad():
        for part, pairs in zip(step, judged[:2], strict=True):
            maps = model.network(model.normalise(part.frames), ["prob"]).taps["prob"]
            expected = [
                torch.cat([maps[3 * clip + time], maps[3 * clip + time + 1]])
                for clip in range(2)
                for time in range(2)
            ]
            torch.testing.assert_close(pairs, torch.stack(expected))


@pytest.mark.parametrize(
    ("pairing", "data"),
    [
        ("sharpest", [ShapeImages(), ShapeVideos()]),
        ("second_images", [ShapeImages(), ShapeImages(count=9)]),
        ("image_image", [ShapeImages(), ShapeVideos()]),
    ],
)
def test_controls_in_pairs(tmp_path: Path, pairing: str, data: list[Any]) -> None:
    """Stills of the target domain become clips as images do."""
    task = task_of(asked(tmp_path), data=data, alignments=(PAIR,), domains={"pairing": pairing})
    step = task.samples[0]
    assert step.images.frames.shape[:2] == (2, 2)
    if pairing != "image_image":
        assert step.clips.frames.shape[:2] == (2, 2)
    losses = task.model(step)
    assert torch.isfinite(losses["discriminator_prob_global"])


@pytest.mark.parametrize("changes", [{"tap": "enc4"}, {"tap": "prob", "loss": "clustered"}])
def test_pairs_are_of_output_maps_and_global(changes: dict[str, Any]) -> None:
    for tap in ("logits", "prob", "ent"):
        AlignmentSettings(**(PAIR | {"tap": tap}))
    with pytest.raises(ValidationError, match="to token, pixel or patch"):
        AlignmentSettings(**(PAIR | changes))


@pytest.mark.parametrize(
    "domains", [{"clip_frames": 1}, {"images_as": "copies"}, {"images_as": "single"}]
)
def test_pairs_need_clips_of_both_domains(tmp_path: Path, domains: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="camera_path"):
        task_of(asked(tmp_path), alignments=(PAIR,), domains=domains)
