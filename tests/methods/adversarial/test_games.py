"""Games between a network and a discriminator: who gets which gradient, and when."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import ConfigError
from methods.adversarial.adversary_settings import AlignmentSettings, GameSettings
from methods.adversarial.games import Alignment, direction_of
from methods.adversarial.losses import discriminator_loss
from methods.adversarial.reversal import reverse_gradient, schedule
from tests.methods.adversarial.playing import (
    CHANNELS,
    DIRECTIONS,
    KINDS,
    LOSSES,
    PLAYABLE,
    assignment,
    build,
    gradients,
    tokens,
)

# -- gradient reversal ---------------------------------------------------------------------------


def test_reversal_is_the_identity_with_a_negative_gradient() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert reverse_gradient(x, 0.3).equal(x)
    gradient = torch.randn(3, 4, dtype=torch.float64)
    reverse_gradient(x, 0.3).backward(gradient)
    assert x.grad is not None
    assert x.grad.equal(-0.3 * gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_reversal_scales_the_networks_gradient_and_not_the_discriminators(kind: str) -> None:
    a, b = assignment(0, 20, False), assignment(1, 30, False)

    def play(weight: float, strength: float) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        alignment = build(kind, weight=weight)
        image, video = tokens(2, 20), tokens(3, 30)
        result = alignment(image, video, a, b, strength)
        assert result.network_loss.item() == 0
        (result.network_loss + result.discriminator_loss).backward()
        assert image.grad is not None
        assert video.grad is not None
        return image.grad, video.grad, gradients(alignment)

    # The plain gradient of the discriminator's loss, without any reversal.
    alignment = build(kind, loss="non_saturating")
    image, video = tokens(2, 20), tokens(3, 30)
    image_logits = alignment.discriminator(image, a)
    video_logits = alignment.discriminator(video, b)
    one_cluster = kind == "global"
    criterion = "joint" if kind == "joint2K" else "cross_entropy"
    term = discriminator_loss(
        image_logits,
        video_logits,
        None if one_cluster else a,
        None if one_cluster else b,
        criterion=criterion,
        clip=0.9 if kind == "joint2K" else 1.0,
    )
    term.value.backward()
    assert image.grad is not None
    assert video.grad is not None
    plain = gradients(alignment)

    for weight, strength in ((1.0, 1.0), (0.1, 0.5), (2.0, 0.0)):
        of_image, of_video, of_discriminator = play(weight, strength)
        torch.testing.assert_close(of_image, -weight * strength * image.grad)
        torch.testing.assert_close(of_video, -weight * strength * video.grad)
        for mine, expected in zip(of_discriminator, plain, strict=True):
            torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_at_lambda_zero_the_network_trains_as_on_the_source_alone(
    loss: str, strength: float
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, CHANNELS), nn.LayerNorm(CHANNELS))
    head = nn.Linear(CHANNELS, 2)
    image, video = torch.randn(16, 6), torch.randn(16, 6)
    labels = torch.randint(2, (16,))

    def source() -> Tensor:
        return F.cross_entropy(head(network(image)), labels)

    source().backward()
    alone = [*gradients(network), *gradients(head)]
    network.zero_grad()
    head.zero_grad()
    alignment = build("per_cluster", loss)
    q = assignment(0, 16, False)
    result = alignment(network(image), network(video), q, q, strength)
    (source() + result.network_loss + result.discriminator_loss).backward()
    same = [a.equal(b) for a, b in zip(alone, [*gradients(network), *gradients(head)], strict=True)]
    assert all(same) == (strength == 0)
    assert all(p.grad is not None for p in alignment.parameters())


# -- the other games -----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "loss"), [pair for pair in PLAYABLE if pair[1] != "reversal"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_each_loss_moves_only_its_own_side(loss: str, kind: str, direction: str) -> None:
    alignment = build(kind, loss, direction=direction)
    image, video = tokens(2, 20), tokens(3, 30)
    result = alignment(image, video, assignment(0, 20, True), assignment(1, 30, True), 1.0)
    result.network_loss.backward()
    assert all(p.grad is None for p in alignment.parameters())
    assert video.grad is not None
    assert (video.grad != 0).any()
    assert (image.grad is not None) == (direction == "both")
    before = video.grad.clone()
    result.discriminator_loss.backward()
    assert video.grad.equal(before)
    assert any(p.grad is not None and (p.grad != 0).any() for p in alignment.parameters())


def test_reversal_from_video_to_image_leaves_images_alone() -> None:
    alignment = build("per_cluster", "reversal", direction="video_to_image")
    image, video = tokens(2, 20), tokens(3, 30)
    q, r = assignment(0, 20, False), assignment(1, 30, False)
    alignment(image, video, q, r, 1.0).discriminator_loss.backward()
    assert image.grad is None
    assert video.grad is not None
    both = build("per_cluster", "reversal")
    other = tokens(3, 30)
    both(tokens(2, 20), other, q, r, 1.0).discriminator_loss.backward()
    torch.testing.assert_close(video.grad, other.grad)


def test_usual_directions() -> None:
    usual = {loss: direction_of(GameSettings(loss=loss)) for loss in LOSSES}
    assert usual == {
        "reversal": "both",
        "non_saturating": "video_to_image",
        "least_squares": "video_to_image",
        "confusion": "both",
    }
    assert direction_of(GameSettings(loss="reversal", direction="video_to_image")) != "both"


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_network_losses_by_formula(direction: str) -> None:
    image, video = tokens(2, 20), tokens(3, 30)
    for loss in LOSSES[1:]:
        alignment = build("global", loss, weight=0.01, direction=direction)
        u, v = alignment.discriminator(image), alignment.discriminator(video)
        to_image = {
            "non_saturating": F.softplus(v).mean(),
            "least_squares": v.square().mean(),
            "confusion": F.binary_cross_entropy_with_logits(v, torch.full_like(v, 0.5)),
        }[loss]
        to_video = {
            "non_saturating": F.softplus(-u).mean(),
            "least_squares": (u - 1).square().mean(),
            "confusion": F.binary_cross_entropy_with_logits(u, torch.full_like(u, 0.5)),
        }[loss]
        expected = to_image if direction == "video_to_image" else (to_image + to_video) / 2
        result = alignment(image, video, None, None, 0.5)
        torch.testing.assert_close(result.network_loss, 0.005 * expected)


@pytest.mark.parametrize(
    ("kind", "loss", "direction"),
    [
        *(
            ("per_cluster", loss, direction)
            for loss, direction in itertools.product(LOSSES, DIRECTIONS)
        ),
        *(("joint2K", loss, "both") for loss in ("reversal", "non_saturating", "confusion")),
    ],
)
def test_playing_brings_the_domains_together(loss: str, direction: str, kind: str) -> None:
    """A shift of all video features, the only thing that can be learnt, must shrink."""
    alignment = build(kind, loss, direction=direction)
    shift = torch.full((CHANNELS,), 1.0, requires_grad=True)
    learnable = [
        {"params": [shift], "lr": 0.03},
        {"params": list(alignment.parameters()), "lr": 0.03},
    ]
    optimiser = torch.optim.Adam(learnable, betas=(0.5, 0.9))
    generator = torch.Generator().manual_seed(0)
    q = assignment(0, 64, False)
    for _ in range(60):
        image = torch.randn(64, CHANNELS, generator=generator)
        video = torch.randn(64, CHANNELS, generator=generator) + shift
        result = alignment(image, video, q, q, 1.0)
        optimiser.zero_grad()
        (result.network_loss + result.discriminator_loss).backward()
        optimiser.step()
    assert shift.detach().norm() < 0.5 * 2


# -- monitors ------------------------------------------------------------------------------------


def test_monitors_say_what_they_should() -> None:
    alignment = build("global", weight=0.5, loss="non_saturating")
    image = torch.tensor([[3.0, 4.0, 0, 0], [0, 0, 0, 1]])
    video = -image[:1]
    result = alignment(image, video, None, None, 1.0)
    u, v = alignment.discriminator(image), alignment.discriminator(video)
    monitors = result.monitors
    assert monitors["feature_norm_image"] == pytest.approx(3)
    assert monitors["feature_norm_video"] == pytest.approx(5)
    assert monitors["accuracy_image"] == pytest.approx((u < 0).float().mean().item())
    assert monitors["accuracy_video"] == pytest.approx((v > 0).float().mean().item())
    assert monitors["discriminator_loss"] == pytest.approx(result.discriminator_loss.item())
    assert monitors["network_loss"] == pytest.approx(result.network_loss.item())
    assert monitors["skipped"] == 0
    assert not any(name.startswith("accuracy_cluster") for name in monitors)


# -- lambda --------------------------------------------------------------------------------------


def test_lambda_grows_as_in_dann() -> None:
    values = [schedule("dann", 0.1, spent / 1000) for spent in range(1001)]
    assert all(value == 0 for value in values[:101])
    assert all(a < b for a, b in itertools.pairwise(values[100:]))
    assert values[-1] == pytest.approx(0.99991, abs=1e-5)
    assert schedule("dann", 0.1, 0.55) == pytest.approx(2 / (1 + math.exp(-5)) - 1)


def test_lambda_constant_and_decaying() -> None:
    assert [schedule("constant", 0.5, s) for s in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 1, 1]
    assert [schedule("constant", 0.0, s) for s in (0.0, 1.0)] == [1, 1]
    decay = [schedule("linear_decay", 0.2, s) for s in (0.1, 0.2, 0.6, 1.0)]
    assert decay == pytest.approx([0, 1, 0.5, 0])


# -- refusals ------------------------------------------------------------------------------------


def test_settings_that_cannot_be_played_are_refused() -> None:
    with pytest.raises(ConfigError, match="joint2K is one softmax"):
        build("joint2K", "least_squares")
    clustered = AlignmentSettings(tap="embed", loss="clustered")
    with pytest.raises(ConfigError, match=r"alignments\.embed\.loss"):
        Alignment(clustered, GameSettings(), None, CHANNELS, False)
