"""Discriminators: shapes, clusters that move, and tokens."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.errors import MethodError
from methods.adversarial.adversary_settings import DiscriminatorSettings
from methods.adversarial.discriminators import (
    ConditionedNetwork,
    Discriminator,
    ProjectionNetwork,
    SeparateNetworks,
    SharedTrunk,
    build_discriminator,
)
from methods.adversarial.tokens import (
    flatten_positions,
    pool_to_grid,
    sample_tokens,
    unflatten_positions,
    unfold_clips,
)

CHANNELS, CLUSTERS = 5, 3

KINDS: dict[str, dict[str, Any]] = {
    "per_cluster": {"kind": "per_cluster"},
    "separate": {"kind": "per_cluster", "shared_trunk": False},
    "shared_balanced": {"kind": "shared_balanced"},
    "conditioned": {"kind": "conditioned"},
    "projection": {"kind": "conditioned", "conditioning": "projection"},
    "joint2K": {"kind": "joint2K"},
}
OUTPUTS = {
    "per_cluster": 3,
    "separate": 3,
    "shared_balanced": 1,
    "conditioned": 3,
    "projection": 3,
    "joint2K": 6,
}
INPUTS = {
    "token": (7, CHANNELS),
    "pixel": (2, CHANNELS, 6, 4),
    "patch": (2, CHANNELS, 64, 96),
    "patch3d": (2, CHANNELS, 3, 64, 32),
    "pair": (2, 2 * CHANNELS, 64, 96),
}
GRIDS: dict[str, tuple[int, ...]] = {
    "token": (),
    "pixel": (6, 4),
    "patch": (2, 3),
    "patch3d": (3, 2, 1),
    "pair": (2, 3),
}


def build(kind: str, network: str = "token", **more: Any) -> Discriminator:
    torch.manual_seed(3)
    settings = DiscriminatorSettings(network=network, width=16, dropout=0.0, **KINDS[kind], **more)
    return build_discriminator(settings, CHANNELS, CLUSTERS, False)


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        (kind, network)
        for kind, network in itertools.product(KINDS, INPUTS)
        if not (kind == "joint2K" and network.startswith("patch"))
        and not (kind != "shared_balanced" and network == "pair")
    ],
)
def test_shapes_for_every_kind_and_network(kind: str, network: str) -> None:
    discriminator = build(kind, network)
    features = torch.randn(INPUTS[network])
    logits = discriminator(features)
    assert logits.shape == (INPUTS[network][0], OUTPUTS[kind], *GRIDS[network])
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in discriminator.modules())


@pytest.mark.parametrize("network", INPUTS)
def test_a_global_loss_has_one_output_whatever_the_kind(network: str) -> None:
    for kind in KINDS.values():
        settings = DiscriminatorSettings(network=network, width=8, **kind)
        discriminator = build_discriminator(settings, CHANNELS, None, False)
        assert discriminator(torch.randn(INPUTS[network])).shape[1] == 1


def test_default_widths_are_those_of_the_literature() -> None:
    def widths(network: str) -> list[tuple[int, ...]]:
        settings = DiscriminatorSettings(network=network)
        discriminator = build_discriminator(settings, 19, None, False)
        return [tuple(p.shape) for p in discriminator.parameters() if p.ndim > 1]

    assert widths("token") == [(256, 19), (256, 256), (1, 256)]
    assert widths("pixel") == [(256, 19, 3, 3), (128, 256, 3, 3), (1, 128, 3, 3)]
    channels = (19, 64, 128, 256, 512, 1)
    assert widths("patch") == [(b, a, 4, 4) for a, b in itertools.pairwise(channels)]
    assert widths("patch3d") == [(b, a, 3, 4, 4) for a, b in itertools.pairwise(channels)]


def test_dropout_lies_between_the_token_networks_layers_only_in_training() -> None:
    discriminator = build_discriminator(DiscriminatorSettings(), CHANNELS, None, False)
    features = torch.randn(6, CHANNELS)
    assert not discriminator(features).equal(discriminator(features))
    discriminator.eval()
    assert discriminator(features).equal(discriminator(features))


def test_conditioned_is_a_network_on_features_beside_the_one_hot_cluster() -> None:
    discriminator = build("conditioned")
    assert isinstance(discriminator, ConditionedNetwork)
    features = torch.randn(9, CHANNELS)
    assert isinstance(discriminator.first, nn.Linear)
    weight = torch.cat([discriminator.first.weight, discriminator.embeddings.T], 1)
    for cluster in range(CLUSTERS):
        one_hot = torch.eye(CLUSTERS)[cluster].expand(9, CLUSTERS)
        told = torch.cat([features, one_hot], 1)
        expected = discriminator.rest(F.linear(told, weight, discriminator.first.bias))
        torch.testing.assert_close(discriminator(features)[:, cluster : cluster + 1], expected)


@pytest.mark.parametrize("kind", ["separate", "conditioned"])
def test_tokens_are_judged_only_where_they_have_a_share(kind: str) -> None:
    discriminator = build(kind)
    features = torch.randn(8, CHANNELS, requires_grad=True)
    assignment = torch.zeros(8, CLUSTERS)
    assignment[:3, 0] = 1
    assignment[3:5] = torch.tensor([0.0, 0.3, 0.7])
    logits = discriminator(features, assignment)
    full = discriminator(features)
    torch.testing.assert_close(logits, full * (assignment > 0))
    logits.sum().backward()
    assert features.grad is not None
    assert (features.grad[5:] == 0).all()
    # A cluster without any token is no special case, and its gradient is zero, not NaN.
    discriminator(features, torch.eye(CLUSTERS)[torch.zeros(8, dtype=torch.long)]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in discriminator.parameters())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "shared_balanced"])
@pytest.mark.parametrize("network", ["token", "pixel"])
def test_permuting_clusters_permutes_the_outputs(kind: str, network: str) -> None:
    discriminator = build(kind, network)
    features = torch.randn(INPUTS[network])
    before = discriminator(features)
    order = torch.tensor([2, 0, 1])
    discriminator._take_clusters(order)
    columns = torch.cat([order, order + CLUSTERS]) if kind == "joint2K" else order
    torch.testing.assert_close(discriminator(features), before[:, columns])
    discriminator._take_clusters(torch.argsort(order))
    torch.testing.assert_close(discriminator(features), before)


@pytest.mark.parametrize(
    "kind", ["per_cluster", "separate", "conditioned", "projection", "joint2K"]
)
def test_a_copied_cluster_is_judged_alike_and_then_learns_on_its_own(kind: str) -> None:
    discriminator = build(kind)
    features = torch.randn(INPUTS["token"])
    before = discriminator(features).detach()
    discriminator.copy_cluster(source=2, target=0)
    after = discriminator(features).detach()
    expected = before.clone()
    expected[:, 0] = before[:, 2]
    if kind == "joint2K":
        expected[:, CLUSTERS] = before[:, CLUSTERS + 2]
    torch.testing.assert_close(after, expected)
    optimiser = torch.optim.SGD(discriminator.parameters(), 0.1)
    discriminator(features)[:, 0].sum().backward()
    optimiser.step()
    learnt = discriminator(features)
    assert not torch.allclose(learnt[:, 0], learnt[:, 2])


def test_kinds_have_their_parameters() -> None:
    def count(kind: str) -> int:
        return sum(p.numel() for p in build(kind).parameters())

    trunk = CHANNELS * 16 + 16 + 16 * 16 + 16
    assert count("shared_balanced") == trunk + 17
    assert count("per_cluster") == trunk + 3 * 17
    assert count("separate") == 3 * (trunk + 17)
    assert count("conditioned") == trunk + 17 + 3 * 16
    assert count("projection") == trunk + 17 + 3 * 16
    assert count("joint2K") == trunk + 6 * 17
    assert isinstance(build("per_cluster"), SharedTrunk)
    assert isinstance(build("separate"), SeparateNetworks)
    assert isinstance(build("projection"), ProjectionNetwork)


def test_patches_of_output_taps_are_judged_at_the_size_of_the_input() -> None:
    settings = DiscriminatorSettings(network="patch", width=8)
    output = build_discriminator(settings, 2, None, True)
    maps = torch.rand(3, 2, 16, 24)
    logits = output(maps, None, (64, 96))
    assert logits.shape == (3, 1, 2, 3)
    large = F.interpolate(maps, (64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, output(large))
    with pytest.raises(MethodError, match="at least 32 x 32"):
        output(maps)
    clips = build_discriminator(DiscriminatorSettings(network="patch3d", width=8), 2, None, True)
    assert clips(torch.rand(1, 2, 4, 8, 8), None, (32, 32)).shape == (1, 1, 4, 1, 1)


def test_patches_of_other_maps_are_as_large_as_can_be_judged() -> None:
    """Small maps are enlarged to one patch at their shorter side; others stay as they are."""
    inner = build_discriminator(DiscriminatorSettings(network="patch", width=8), 2, None, False)
    small = torch.rand(3, 2, 16, 23)
    large = F.interpolate(small, (32, 46), mode="bilinear", align_corners=False)
    for size in (None, (64, 92)):
        torch.testing.assert_close(inner(small, None, size), inner(large))
    assert torch.equal(inner._enlarged(large, (64, 92)), large)
    settings = DiscriminatorSettings(network="patch3d", width=8)
    clips = build_discriminator(settings, 2, None, False)
    clip = torch.rand(1, 2, 4, 2, 3)
    enlarged = [F.interpolate(clip[:, :, t], (32, 48), mode="bilinear") for t in range(4)]
    torch.testing.assert_close(clips(clip, None, (64, 96)), clips(torch.stack(enlarged, 2)))
    assert clips(clip).shape == (1, 1, 4, 1, 1)
    pixel = build_discriminator(DiscriminatorSettings(network="pixel", width=8), 2, None, False)
    assert pixel(small).shape == (3, 1, 16, 23)


def test_the_wrong_number_of_dimensions_is_refused() -> None:
    with pytest.raises(MethodError, match="tokens"):
        build("per_cluster", "token")(torch.zeros(INPUTS["pixel"]))
    with pytest.raises(MethodError, match="clips"):
        build("per_cluster", "patch3d")(torch.zeros(INPUTS["patch"]))


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 60))
@hypothesis_settings(max_examples=60, deadline=None)
def test_tokens_are_drawn_equally_from_every_map(
    number: int, height: int, width: int, count: int
) -> None:
    features = torch.arange(number * 2 * height * width).float()
    features = features.reshape(number, 2, height, width)
    tokens, rows = sample_tokens(features, count, torch.Generator().manual_seed(count))
    each = min(max(1, count // number), height * width)
    assert torch.bincount(rows // (height * width), minlength=number).tolist() == [each] * number
    assert len(set(rows.tolist())) == len(rows)
    for token, row in zip(tokens, rows.tolist(), strict=True):
        n, position = divmod(row, height * width)
        y, x = divmod(position, width)
        assert token.equal(features[n, :, y, x])


def test_tokens_are_drawn_uniformly_and_repeatably_and_carry_gradients() -> None:
    features = torch.randn(2, 3, 4, 5, requires_grad=True)
    draws = [sample_tokens(features, 8, torch.Generator().manual_seed(s))[1] for s in range(1000)]
    assert sample_tokens(features, 8, torch.Generator().manual_seed(0))[1].equal(draws[0])
    counts = torch.bincount(torch.cat(draws), minlength=40)
    # 200 expected for each of the 40 positions, standard deviation 12.6.
    assert (counts - 200).abs().max() < 60
    tokens, rows = sample_tokens(features, 8)
    tokens.sum().backward()
    assert features.grad is not None
    touched = flatten_positions(features.grad).sum(1) != 0
    assert touched.nonzero().squeeze(1).equal(rows)


@pytest.mark.parametrize("shape", [(7, 4), (2, 4, 3, 5), (2, 4, 3, 5, 6)])
def test_positions_flatten_in_one_order_and_back(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape)
    rows = flatten_positions(maps)
    assert rows.shape == (maps.numel() // 4, 4)
    assert unflatten_positions(rows, maps).equal(maps)
    with pytest.raises(MethodError, match="one row per position"):
        unflatten_positions(rows[1:], maps)


def test_clips_unfold_in_the_order_of_folded_frames() -> None:
    folded = torch.randn(6, 4, 2, 3)
    clips = unfold_clips(folded, 3)
    assert clips.shape == (2, 4, 3, 2, 3)
    assert clips[1, :, 2].equal(folded[5])
    assert flatten_positions(clips).equal(flatten_positions(folded))


def test_assignments_are_pooled_by_area() -> None:
    assignment = torch.rand(2, 3, 6, 8)
    pooled = pool_to_grid(assignment, torch.Size((3, 2)))
    expected = torch.empty(2, 3, 3, 2)
    for y, x in itertools.product(range(3), range(2)):
        cell: Tensor = assignment[:, :, 2 * y : 2 * y + 2, 4 * x : 4 * x + 4]
        expected[:, :, y, x] = cell.mean((2, 3))
    torch.testing.assert_close(pooled, expected)
    clip = torch.rand(2, 3, 4, 6, 8)
    torch.testing.assert_close(
        pool_to_grid(clip, torch.Size((4, 3, 2)))[:, :, 1],
        pool_to_grid(clip[:, :, 1], torch.Size((3, 2))),
    )
