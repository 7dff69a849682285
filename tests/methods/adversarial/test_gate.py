"""Shares that gate the discriminator's input instead of weighing its loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from methods.adversarial.adversary_settings import AlignmentSettings
from methods.adversarial.games import Alignment
from tests.methods.adversarial.playing import (
    CLUSTERS,
    KINDS,
    LOSSES,
    assignment,
    build,
    gradients,
    tokens,
)

GATED = [kind for kind in KINDS if kind not in ("global", "joint2K")]


def gated(alignment: Alignment) -> Alignment:
    alignment.settings = alignment.settings.model_copy(update={"gate": "input"})
    return alignment


@pytest.mark.parametrize("kind", GATED)
@pytest.mark.parametrize("loss", LOSSES)
def test_where_tokens_belong_to_one_cluster_both_gates_are_the_same(kind: str, loss: str) -> None:
    results = []
    for change in (lambda one: one, gated):
        alignment = change(build(kind, loss, direction="both"))
        image, video = tokens(2, 20), tokens(3, 30)
        result = alignment(image, video, assignment(0, 20, False), assignment(1, 30, False), 0.3)
        (result.network_loss + result.discriminator_loss).backward()
        values = [result.network_loss, result.discriminator_loss, image.grad, video.grad]
        results.append([*values, *gradients(alignment)])
        assert result.monitors["accuracy_image"] > 0
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", GATED)
def test_soft_gates_by_a_loop(kind: str) -> None:
    """Every cluster's mean over all tokens with a share, of the loss at share times feature."""
    alignment = gated(build(kind))
    image, video = tokens(2, 9), tokens(3, 12)
    a, b = assignment(0, 9, True), assignment(1, 12, True)
    result = alignment(image, video, a, b, 1.0)
    weights, values = [], []
    for k in range(CLUSTERS):
        weights.append(min((a[:, k].sum() / a.sum()).item(), (b[:, k].sum() / b.sum()).item()))
        value = 0.0
        for h, q, sign in ((image, a, 1), (video, b, -1)):
            costs = []
            for token, share in zip(h, q[:, k], strict=True):
                if share > 0:
                    logits = alignment.discriminator((share * token)[None])[0]
                    logit = logits[k] if len(logits) > 1 else logits[0]
                    costs.append(F.softplus(sign * logit).item())
            value += 0.5 * sum(costs) / len(costs)
        values.append(value)
    wanted = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert result.discriminator_loss.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", GATED)
def test_the_gated_gradient_is_reversed(kind: str) -> None:
    def play(loss: str, strength: float) -> tuple[Tensor, list[Tensor | None]]:
        alignment = gated(build(kind, loss))
        image, video = tokens(2, 20), tokens(3, 30)
        shares = assignment(0, 20, True), assignment(1, 30, True)
        alignment(image, video, *shares, strength).discriminator_loss.backward()
        assert (image.grad is not None) == (loss == "reversal")
        return video.grad, gradients(alignment)

    once, own = play("reversal", 1.0)
    half, same = play("reversal", 0.5)
    _, plain = play("non_saturating", 1.0)
    torch.testing.assert_close(half, once / 2)
    for one, other, third in zip(own, same, plain, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, third)


def test_rejected_tokens_and_invalid_clusters_have_no_gradient() -> None:
    alignment = gated(build("per_cluster", fewest=3))
    image, video = tokens(2, 12), tokens(3, 12)
    a, b = torch.zeros(12, CLUSTERS), torch.zeros(12, CLUSTERS)
    a[:6, 0], b[:6, 0] = 0.5, 0.7
    a[6:8, 1], b[6:8, 1] = 0.9, 0.9  # fewer than three
    alignment(image, video, a, b, 1.0).discriminator_loss.backward()
    for side in (image, video):
        moved = side.grad.abs().sum(1) > 0
        assert moved.tolist() == [True] * 6 + [False] * 6


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "global"},
        {"discriminator": {"network": "pixel"}},
        {"discriminator": {"network": "patch"}},
        {"discriminator": {"kind": "joint2K"}},
    ],
)
def test_other_discriminators_would_see_the_gates_outline(changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"tap": "embed", "loss": "clustered", "gate": "input"}
    AlignmentSettings(**given)
    with pytest.raises(ValidationError, match="set gate to loss"):
        AlignmentSettings(**(given | changes))
