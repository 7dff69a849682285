"""Positions that count as much as two classifiers disagree about them (CLAN)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    DisagreementSettings,
    GameSettings,
)
from methods.adversarial.disagreement import disagreement, position_weight
from methods.adversarial.settings import BatchNormSettings
from tests.methods.adversarial.playing import LOSSES, build, tokens
from tests.methods.adversarial.test_adaptation import adaptation, step

SETTINGS = DisagreementSettings(epsilon=0.4, factor=40.0)


def cosine(first: Tensor, second: Tensor) -> float:
    """Of the softmax of two vectors of logits, by their definitions."""
    p, q = ([math.exp(float(v)) for v in logits] for logits in (first, second))
    p, q = ([value / sum(values) for value in values] for values in (p, q))
    norms = math.sqrt(sum(v * v for v in p)) * math.sqrt(sum(v * v for v in q))
    return sum(a * b for a, b in zip(p, q, strict=True)) / norms


def test_weights_against_a_loop_over_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (3 * torch.randn(2, 4, 3, 5, generator=generator) for _ in range(2))
    found = position_weight(disagreement(first, second), SETTINGS)
    assert found.shape == (2, 1, 3, 5)
    for n in range(2):
        for y in range(3):
            for x in range(5):
                wanted = 0.4 + 40 * (1 - cosine(first[n, :, y, x], second[n, :, y, x]))
                assert found[n, 0, y, x].item() == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_equal_predictions_give_the_least_weight() -> None:
    """Epsilon, exactly up to rounding; other predictions give more, opposite ones the most."""
    logits = torch.tensor([[4.0, 0.0], [9.0, -9.0], [0.0, 0.0]]).view(3, 2, 1, 1)
    # A constant added to all logits changes no probability.
    equal = position_weight(disagreement(logits, logits + 3), SETTINGS)
    assert equal.flatten().tolist() == pytest.approx([0.4] * 3, abs=1e-4)
    other = position_weight(disagreement(logits, logits.flip(1)), SETTINGS).flatten().tolist()
    assert other[0] > 0.5
    assert other[1] == pytest.approx(40.4, rel=1e-4)
    assert other[2] == pytest.approx(0.4, abs=1e-4)
    random = torch.randn(50, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert (disagreement(random, random.roll(1, 0)) >= 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_against_a_loop_over_positions(loss: str) -> None:
    """Video's positions are weighted in both losses; images' are not."""
    alignment = build(loss=loss, weight=0.5)
    image, video = tokens(1, 7), tokens(2, 9)
    weight = torch.rand(9, 1, generator=torch.Generator().manual_seed(3)) * 5
    result = alignment(image, video, None, None, 0.6, None, weight)
    with torch.no_grad():
        u = alignment.discriminator(image)[:, 0].tolist()
        v = alignment.discriminator(video)[:, 0].tolist()
    w = weight[:, 0].tolist()

    def as_image(x: float) -> float:
        return x * x if loss == "least_squares" else math.log1p(math.exp(x))

    def as_video(x: float) -> float:
        return (x - 1) ** 2 if loss == "least_squares" else math.log1p(math.exp(-x))

    own = sum(map(as_image, u)) / 7 + sum(a * as_video(b) for a, b in zip(w, v, strict=True)) / 9
    assert result.discriminator_loss.item() == pytest.approx(own / 2, rel=1e-5)
    moved = {
        "reversal": 0.0,
        "confusion": 0.5
        * (
            sum(as_image(x) + as_video(x) for x in u) / 14
            + sum(a * (as_image(b) + as_video(b)) for a, b in zip(w, v, strict=True)) / 18
        ),
    }.get(loss, sum(a * as_image(b) for a, b in zip(w, v, strict=True)) / 9)
    assert result.network_loss.item() == pytest.approx(0.5 * 0.6 * moved, rel=1e-5)


@pytest.mark.parametrize("network", ["token", "pixel", "patch"])
def test_weights_of_ones_change_nothing(network: str) -> None:
    results = []
    for weight in (None, 1.0):
        alignment = build(loss="non_saturating", network=network)
        shape = (6, 4) if network == "token" else (2, 4, 64, 64)
        image, video = (
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
        )
        ones = None if weight is None else torch.ones(shape[0], 1, *shape[2:])
        results.append(alignment(image, video, None, None, 1.0, None, ones))
    assert torch.equal(results[0].discriminator_loss, results[1].discriminator_loss)
    assert torch.equal(results[0].network_loss, results[1].network_loss)


def recipe(network: str, **changes: Any) -> Any:
    alignment = AlignmentSettings(
        tap="prob",
        weight=0.001,
        disagreement=SETTINGS,
        discriminator={"network": network, "width": 8, "dropout": 0.0},
    )
    given: dict[str, Any] = {
        "alignments": (alignment,),
        "auxiliary_weight": 0.1,
        "game": GameSettings(loss="non_saturating", schedule="constant", start=0.0),
        "batch_norm": BatchNormSettings(mode="frozen"),
        "tokens": 4096,
    }
    return adaptation(**(given | changes))


@pytest.mark.parametrize("network", ["token", "pixel", "patch", "pair"])
def test_in_a_training_it_is_the_heads_that_disagree(network: str) -> None:
    """The whole step by hand: both heads' probabilities, averaged over what is judged."""
    model = recipe(network).eval()
    batch = step()
    if network == "pair":  # images become clips
        batch = batch._replace(
            images=step(clips=2, seed=5).clips._replace(
                supervised=torch.ones(2, dtype=torch.bool), domains=torch.zeros(2, dtype=torch.long)
            )
        )
    model.progress(0.5, 0)
    with torch.no_grad():
        model.auxiliary.classifiers.linear["foreground"].weight.mul_(300)  # sure, so that it tells
        losses = model(batch)
        shown = model.normalise(batch.clips.frames)
        output = model.network(shown, ["prob", "enc3"])
        second = model.auxiliary(output.taps["enc3"], shown.shape[-2:]).foreground
        maps = output.taps["prob"]
        first = output.foreground.softmax(1)
        other = second.softmax(1)
        distance = 1 - (first * other).sum(1) / (first.norm(dim=1) * other.norm(dim=1))
        assert distance.std() > 0.01
        weight = 0.4 + 40 * F.avg_pool2d(distance[:, None], 32 // maps.shape[-1])
        judge = model.taps[0].alignment.discriminator
        if network == "token":
            logits = judge(maps.movedim(1, -1).flatten(0, -2))
            weight = weight.flatten()[:, None]
        elif network == "pair":
            logits = judge(maps.reshape(1, -1, *maps.shape[2:]), size=(32, 32))
            weight = weight.mean((0, 2, 3), keepdim=True)
        else:
            logits = judge(maps, size=(32, 32))
            if network == "patch":
                weight = weight.mean((2, 3), keepdim=True)
        assert weight.shape == logits.shape
        wanted = 0.001 * (weight * F.softplus(logits)).mean()
    assert losses["network_prob_global"].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_no_gradient_passes_through_the_weights() -> None:
    """Else the classifiers would agree for the adversary's sake."""
    model = recipe("pixel")
    model.progress(0.5, 0)
    model(step())["network_prob_global"].backward()
    assert all(p.grad is None for p in model.auxiliary.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.network.parameters())


def test_discriminators_that_learn_alone_see_the_same_weights() -> None:
    losses = []
    for count in (0, 1):
        model = recipe("pixel", game=GameSettings(start=0.0, discriminator_steps=count))
        model.progress(0.5, 0)
        losses.append(model(step())["discriminator_prob_global"])
    assert torch.equal(losses[0], losses[1])


def test_clusters_and_disagreement_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="global loss"):
        AlignmentSettings(tap="enc4", loss="clustered", disagreement=SETTINGS)
