"""The penalty on a discriminator's gradient: known by hand, or taken one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    ClusterSettings,
    DiscriminatorSettings,
    GameSettings,
)
from methods.adversarial.games import Alignment
from tests.methods.adversarial.playing import CHANNELS, CLUSTERS, KINDS, assignment, tokens

WEIGHT = 0.7


class Linear(nn.Module):
    """A discriminator whose gradient is its weights, of tokens and of maps."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(torch.randn(outputs, CHANNELS))

    def forward(self, features: Tensor, share: Tensor | None = None, size: Any = None) -> Tensor:
        return torch.einsum("kc,nc...->nk...", self.weight, features)


def penalised(
    kind: str = "global",
    penalty: str = "logit",
    weight: float = WEIGHT,
    network: str = "token",
    loss: str = "non_saturating",
    smoothing: float = 0.0,
    output_tap: bool = False,
) -> Alignment:
    torch.manual_seed(5)
    discriminator = DiscriminatorSettings(
        network=network,
        width=8,
        dropout=0.0,
        penalty=penalty,
        penalty_weight=weight,
        **KINDS[kind],
    )
    settings = AlignmentSettings(
        tap="prob" if output_tap else "enc4",
        loss="global" if kind == "global" else "clustered",
        weight=1.0,
        discriminator=discriminator,
    )
    game = GameSettings(loss=loss, label_smoothing=smoothing)
    clusters = ClusterSettings(count=CLUSTERS, fewest=0)
    return Alignment(settings, game, clusters, CHANNELS, output_tap)


def linear(alignment: Alignment, outputs: int = 1) -> Linear:
    discriminator = Linear(outputs)
    alignment.discriminator = discriminator
    return discriminator


@pytest.mark.parametrize("shape", [(20, CHANNELS), (2, CHANNELS, 3, 5)])
def test_the_logits_penalty_of_a_linear_discriminator_is_its_squared_norm(
    shape: tuple[int, ...],
) -> None:
    network = "token" if len(shape) == 2 else "pixel"
    alignment = penalised(network=network)
    w = linear(alignment).weight
    image, video = torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)
    result = alignment(image, video, None, None, 1.0)
    wanted = WEIGHT * w.square().sum()
    assert result.monitors["gradient_penalty"] == pytest.approx(wanted.item(), rel=1e-6)
    without = penalised(network=network, weight=0.0)
    linear(without)
    plain = without(image, video, None, None, 1.0)
    assert "gradient_penalty" not in plain.monitors
    assert plain.monitors["discriminator_loss"] == result.monitors["discriminator_loss"]
    added = result.discriminator_loss - plain.discriminator_loss
    assert added.item() == pytest.approx(wanted.item(), rel=1e-5)
    # Its gradient is that of weight |w|^2, for the discriminator alone.
    (gradient,) = torch.autograd.grad(result.discriminator_loss, w, retain_graph=True)
    (other,) = torch.autograd.grad(plain.discriminator_loss, without.discriminator.weight)
    torch.testing.assert_close(gradient - other, 2 * WEIGHT * w.detach())
    result.discriminator_loss.backward()
    assert image.grad is None
    assert video.grad is None


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_losss_penalty_of_a_linear_discriminator(smoothing: float) -> None:
    alignment = penalised(penalty="loss", smoothing=smoothing)
    w = linear(alignment).weight[0]
    image, video = tokens(2, 20), tokens(3, 30)
    result = alignment(image, video, None, None, 1.0)
    # The loss' slope in the logit is the error of the probability.
    errors = (image @ w).sigmoid() - smoothing, (video @ w).sigmoid() - (1 - smoothing)
    wanted = WEIGHT * w.square().sum() * sum(e.square().mean() for e in errors) / 2
    assert result.monitors["gradient_penalty"] == pytest.approx(wanted.item(), rel=1e-5)


def test_least_squares() -> None:
    alignment = penalised(penalty="loss", loss="least_squares")
    w = linear(alignment).weight[0]
    image, video = tokens(2, 20), tokens(3, 30)
    errors = 2 * (image @ w), 2 * (video @ w - 1)
    wanted = WEIGHT * w.square().sum() * sum(e.square().mean() for e in errors) / 2
    found = alignment(image, video, None, None, 1.0).monitors["gradient_penalty"]
    assert found == pytest.approx(wanted.item(), rel=1e-5)


def test_within_clusters_shares_weigh_the_gradients() -> None:
    alignment = penalised("per_cluster")
    w = linear(alignment, CLUSTERS).weight
    a, b = assignment(0, 20, True), assignment(1, 30, True)
    found = alignment(tokens(2, 20), tokens(3, 30), a, b, 1.0).monitors["gradient_penalty"]
    norms = [(q @ w).square().sum(1).mean() for q in (a, b)]
    assert found == pytest.approx(WEIGHT * sum(norms).item() / 2, rel=1e-5)


def test_the_logit_of_a_joint_softmax_is_that_between_domains() -> None:
    alignment = penalised("joint2K")
    w = linear(alignment, 2 * CLUSTERS).weight
    between = w[CLUSTERS:] - w[:CLUSTERS]
    a, b = assignment(0, 20, False, rejected=0), assignment(1, 30, False, rejected=0)
    found = alignment(tokens(2, 20), tokens(3, 30), a, b, 1.0).monitors["gradient_penalty"]
    clip = alignment.settings.discriminator.clip
    norms = [((clip * q) @ between).square().sum(1).mean() for q in (a, b)]
    assert found == pytest.approx(WEIGHT * sum(norms).item() / 2, rel=1e-5)


@pytest.mark.parametrize("penalty", ["loss", "logit"])
@pytest.mark.parametrize("kind", ["global", "per_cluster", "separate", "conditioned", "projection"])
def test_token_by_token(kind: str, penalty: str) -> None:
    """The same by a loop over tokens, one gradient each."""
    alignment = penalised(kind, penalty)
    a, b = assignment(0, 9, True), assignment(1, 12, True)
    image, video = tokens(2, 9), tokens(3, 12)
    found = alignment(image, video, a, b, 1.0).monitors["gradient_penalty"]
    means = []
    for h, q, sign in ((image, a, 1), (video, b, -1)):
        total = 0.0
        for token, share in zip(h, q, strict=True):
            one = token.detach().clone().requires_grad_()
            logits = alignment.discriminator(one[None])[0]
            values = logits if penalty == "logit" else nn.functional.softplus(sign * logits)
            score = values.sum() if kind == "global" else (share * values).sum()
            (gradient,) = torch.autograd.grad(score, one)
            total += gradient.square().sum().item()
        means.append(total / len(h))
    assert found == pytest.approx(WEIGHT * sum(means) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        ("pixel", (2, CHANNELS, 4, 4)),
        ("patch", (2, CHANNELS, 8, 8)),
        ("pair", (2, 2 * CHANNELS, 8, 8)),
        ("patch3d", (2, CHANNELS, 3, 8, 8)),
    ],
)
def test_all_networks_can_be_penalised(network: str, shape: tuple[int, ...]) -> None:
    """Second derivatives exist for every layer and for upsampling, and reach every weight."""
    alignment = penalised(network=network, output_tap=True)
    size = (32, 32)
    image, video = torch.randn(shape), torch.randn(shape)
    result = alignment(image, video, None, None, 0.0, size)
    found = result.monitors["gradient_penalty"]
    assert found > 0
    # By finite differences: how the sum of all logits changes with one feature.
    place = (0, 1, *(1 for _ in shape[2:]))
    moved = image.clone()
    moved[place] += 1e-2
    sums = [alignment.discriminator(one, None, size).sum() for one in (image, moved)]
    constant = image.clone().requires_grad_()
    logits = alignment.discriminator(constant, None, size)
    logits.sum().backward()
    assert constant.grad is not None
    assert ((sums[1] - sums[0]) / 1e-2).item() == pytest.approx(
        constant.grad[place].item(), rel=0.05, abs=1e-4
    )
    video_constant = video.clone().requires_grad_()
    alignment.discriminator(video_constant, None, size).sum().backward()
    norms = [one.grad.square().sum().item() / logits.numel() for one in (constant, video_constant)]
    assert found == pytest.approx(WEIGHT * sum(norms) / 2, rel=1e-4)
    alignment.zero_grad()
    (result.discriminator_loss).backward()
    weights = [p for p in alignment.parameters() if p.ndim > 1]
    assert all(p.grad is not None and p.grad.any() for p in weights)


def test_the_penalty_flattens_a_discriminator() -> None:
    """Trained on separable domains, a steep penalty keeps the logit's slope small."""
    slopes = []
    for weight in (0.0, 10.0):
        alignment = penalised(weight=weight)
        w = linear(alignment).weight
        optimiser = torch.optim.Adam([w], 0.05)
        for number in range(60):
            image, video = tokens(number, 32) - 1, tokens(number + 999, 32) + 1
            optimiser.zero_grad()
            alignment(image, video, None, None, 0.0).discriminator_loss.backward()
            optimiser.step()
        slopes.append(w.detach().norm().item())
    # With logits near 0 the loss falls by 1/2 per unit of each weight, and 10 w^2 grows by 20 w.
    assert slopes[0] > 1
    assert slopes[1] == pytest.approx(CHANNELS**0.5 / 2 / 20, rel=0.25)
