"""Discriminators under spectral normalisation: their weights, clusters, copies and gradients."""

from __future__ import annotations

import copy
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
from methods.adversarial.discriminator_layers import SpectralNorm
from methods.adversarial.discriminators import Discriminator, build_discriminator
from methods.adversarial.games import Alignment
from tests.methods.adversarial.playing import (
    CHANNELS,
    CLUSTERS,
    KINDS,
    LOSSES,
    assignment,
    tokens,
)

SHAPES = {
    "token": (7, CHANNELS),
    "pixel": (2, CHANNELS, 4, 5),
    "patch": (2, CHANNELS, 32, 64),
    "patch3d": (1, CHANNELS, 3, 32, 32),
    "pair": (2, 2 * CHANNELS, 32, 32),
}
CLUSTERED = ["per_cluster", "separate", "conditioned", "projection", "joint2K"]


def settings(kind: str = "global", network: str = "token", **more: Any) -> DiscriminatorSettings:
    given: dict[str, Any] = {"width": 8, "dropout": 0.0, "spectral_norm": True}
    return DiscriminatorSettings(network=network, **(given | KINDS[kind] | more))


def build(kind: str = "global", network: str = "token", **more: Any) -> Discriminator:
    torch.manual_seed(3)
    clusters = None if kind == "global" else CLUSTERS
    return build_discriminator(settings(kind, network, **more), CHANNELS, clusters, False)


def alignment(kind: str, loss: str, **more: Any) -> Alignment:
    torch.manual_seed(5)
    return Alignment(
        AlignmentSettings(
            tap="enc4",
            loss="global" if kind == "global" else "clustered",
            weight=1.0,
            discriminator=settings(kind, **more),
        ),
        GameSettings(loss=loss),
        ClusterSettings(count=CLUSTERS, fewest=0),
        CHANNELS,
        False,
    )


def normalised(module: nn.Module) -> list[SpectralNorm]:
    return [one for one in module.modules() if isinstance(one, SpectralNorm)]


def settled(discriminator: Discriminator) -> Discriminator:
    """In evaluation, with singular values that another step would not change."""
    for layer in normalised(discriminator):
        for _ in range(20):
            layer.settle()
    return discriminator.eval()


def largest(weight: Tensor) -> float:
    """Largest singular value of a weight as a matrix."""
    return float(torch.linalg.svdvals(weight.detach().flatten(1))[0])


def raw(layer: SpectralNorm) -> Tensor:
    return dict(layer.named_parameters())["layer.parametrizations.weight.original"]


@pytest.mark.parametrize("network", SHAPES)
def test_every_layer_is_normalised_and_none_without_the_setting(network: str) -> None:
    discriminator = build(network=network)
    linear = nn.Linear | nn.Conv2d | nn.Conv3d
    layers = [one for one in discriminator.modules() if isinstance(one, linear)]
    assert len(normalised(discriminator)) == len(layers) >= 3
    assert discriminator(torch.randn(SHAPES[network])).isfinite().all()
    plain = build(network=network, spectral_norm=False)
    assert not normalised(plain)
    # The same weights are drawn.
    first = next(one for one in plain.modules() if isinstance(one, linear))
    assert torch.equal(raw(normalised(discriminator)[0]), first.weight)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["global", "per_cluster", "separate", "conditioned", "projection"])
def test_the_largest_singular_value_stays_one_while_weights_grow(kind: str, loss: str) -> None:
    """In games that use a discriminator several times before one backward pass."""
    one = alignment(kind, loss)
    optimiser = torch.optim.Adam(one.parameters(), 0.01)
    for number in range(40):
        image, video = tokens(number, 20), tokens(number + 999, 30)
        shares = assignment(number, 20, True), assignment(number + 1, 30, True)
        result = one(image, video, *shares, 1.0)
        optimiser.zero_grad()
        (result.network_loss + result.discriminator_loss).backward()
        optimiser.step()
    one.eval()
    values = [largest(layer.weight) for layer in normalised(one)]
    assert values == pytest.approx([1.0] * len(values), abs=0.03)
    assert any(abs(largest(raw(layer)) - 1) > 0.1 for layer in normalised(one))


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_the_networks_loss_leaves_the_discriminator_alone(loss: str) -> None:
    one = alignment("projection", loss)
    image, video = tokens(2, 20), tokens(3, 30)
    q, r = assignment(0, 20, True), assignment(1, 30, True)
    result = one(image, video, q, r, 1.0)
    result.network_loss.backward()
    assert all(parameter.grad is None for parameter in one.parameters())
    assert video.grad is not None
    assert video.grad.any()
    before = video.grad.clone()
    result.discriminator_loss.backward()
    assert torch.equal(video.grad, before)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in one.parameters())


@pytest.mark.parametrize("kind", CLUSTERED)
@pytest.mark.parametrize("network", ["token", "pixel"])
def test_a_copied_clusters_effective_row_is_the_sources(kind: str, network: str) -> None:
    discriminator = settled(build(kind, network))
    features = torch.randn(SHAPES[network])
    before = discriminator(features)
    assert not torch.allclose(before[:, 0], before[:, 2])
    discriminator.copy_cluster(source=2, target=0)
    after = discriminator(features)
    assert torch.equal(after[:, 0], after[:, 2])
    assert not torch.allclose(after[:, 0], after[:, 1])
    if kind == "joint2K":
        assert torch.equal(after[:, CLUSTERS], after[:, CLUSTERS + 2])
    values = [largest(layer.weight) for layer in normalised(discriminator)]
    assert values == pytest.approx([1.0] * len(values), abs=0.02)
    # In training, too, where the next pass takes a step of the power method.
    again = discriminator.train()(features)
    torch.testing.assert_close(again[:, 0], again[:, 2])


def test_copied_rows_shrink_by_what_the_singular_value_has_grown_by() -> None:
    discriminator: Any = settled(build("per_cluster"))
    before = discriminator.output.weight.detach().clone()
    discriminator.copy_cluster(source=2, target=0)
    wanted = before[[2, 1, 2]]
    assert largest(wanted) > 1.01, "there is something to shrink"
    settled(discriminator)
    torch.testing.assert_close(discriminator.output.weight, wanted / largest(wanted))


@pytest.mark.parametrize("kind", CLUSTERED)
def test_permuting_clusters_permutes_the_outputs(kind: str) -> None:
    discriminator = settled(build(kind))
    features = torch.randn(SHAPES["token"])
    before = discriminator(features)
    order = torch.tensor([2, 0, 1])
    discriminator._take_clusters(order)
    columns = torch.cat([order, order + CLUSTERS]) if kind == "joint2K" else order
    torch.testing.assert_close(discriminator(features), before[:, columns])


def test_copies_and_stored_states_go_on_alike() -> None:
    original = build("projection")
    features = torch.randn(SHAPES["token"])
    for _ in range(3):
        original(features)
    copied = copy.deepcopy(original)
    torch.manual_seed(8)
    stored = build_discriminator(settings("projection"), CHANNELS, CLUSTERS, False)
    stored.load_state_dict(original.state_dict())
    for other in (copied, stored):
        assert not {id(p) for p in other.parameters()} & {id(p) for p in original.parameters()}
    for _ in range(2):  # the second pass depends on the step of the power method in the first
        outputs = [one(features) for one in (original, copied, stored)]
        assert torch.equal(outputs[0], outputs[1])
        assert torch.equal(outputs[0], outputs[2])
    evaluated = original.eval()(features)
    assert torch.equal(evaluated, original(features)), "evaluation follows nothing"


@pytest.mark.parametrize("penalty", ["loss", "logit"])
def test_the_gradients_penalty_has_a_gradient(penalty: str) -> None:
    """Second derivatives through the normalisation, against finite differences."""
    one = alignment("global", "non_saturating", penalty=penalty, penalty_weight=1.0).eval()
    image, video = tokens(2, 20), tokens(3, 30)
    weight = raw(normalised(one)[0])

    plain = alignment("global", "non_saturating").eval()
    (with_penalty,) = torch.autograd.grad(
        one(image, video, None, None, 0.0).discriminator_loss, weight
    )
    (without,) = torch.autograd.grad(
        plain(image, video, None, None, 0.0).discriminator_loss, raw(normalised(plain)[0])
    )
    slope = with_penalty - without
    place = divmod(int(slope.abs().argmax()), slope.shape[1])
    values = []
    for change in (5e-4, -5e-4):  # the slope jumps at the kinks of the activations
        with torch.no_grad():
            weight[place] += change
        values.append(one(image, video, None, None, 0.0).monitors["gradient_penalty"])
        with torch.no_grad():
            weight[place] -= change
    assert (values[0] - values[1]) / 1e-3 == pytest.approx(slope[place].item(), rel=0.05)


def test_full_precision_where_the_rest_is_in_bfloat16() -> None:
    discriminator: Any = build("per_cluster")
    features = torch.randn(SHAPES["token"])
    wanted = copy.deepcopy(discriminator)(features)
    with torch.autocast("cpu", torch.bfloat16):
        logits = discriminator(features.bfloat16().float())
    assert logits.dtype == torch.float32
    rounded = copy.deepcopy(build("per_cluster"))(features.bfloat16().float())
    assert torch.equal(logits, rounded)
    assert not torch.equal(logits, wanted)


def test_dropout_stays_as_it_is_set() -> None:
    assert [m.p for m in build(dropout=0.3).modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]
