"""What an alignment within clusters computes, and which positions it leaves alone."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.errors import MethodError
from methods.adversarial.games import Alignment
from methods.adversarial.tokens import flatten_positions, sample_tokens
from tests.methods.adversarial.playing import (
    CHANNELS,
    CLUSTERS,
    KINDS,
    LOSSES,
    PLAYABLE,
    assignment,
    build,
    tokens,
)

# -- what is computed ----------------------------------------------------------------------------


def naive_loss(
    alignment: Alignment, domains: list[tuple[Tensor, Tensor]], smoothing: float
) -> float:
    """The discriminator's loss by a loop over clusters, domains and positions."""
    assert alignment.clusters is not None
    weighting, fewest = alignment.clusters.weighting, alignment.clusters.fewest
    kind = alignment.settings.discriminator.kind
    if alignment.joint:
        domains = [
            (h, torch.nan_to_num(q ** (1 / 1.8) / (q ** (1 / 1.8)).sum(1, keepdim=True)))
            for h, q in domains
        ]
    total_image, total_video = (q.sum().item() for _, q in domains)
    weights, values = [], []
    for k in range(CLUSTERS):
        n_image, n_video = (q[:, k].sum().item() for _, q in domains)
        if min(n_image, n_video) < fewest or min(n_image, n_video) == 0:
            continue
        mean = (n_image / total_image + n_video / total_video) / 2
        smallest = min(n_image / total_image, n_video / total_video)
        weights.append({"min": smallest, "uniform": 1, "mass": mean, "sqrt": mean**0.5}[weighting])
        value = 0.0
        for domain, (h, q) in enumerate(domains):
            cluster_sum = 0.0
            for token, share in zip(h, q[:, k].tolist(), strict=True):
                logits = alignment.discriminator(token[None])[0]
                if alignment.joint:
                    p = logits.softmax(0)
                    costs = (-p[k].log().item(), -p[CLUSTERS + k].log().item())
                    share = min(share, 0.9)
                else:
                    u = logits[0 if kind == "shared_balanced" else k].item()
                    costs = (math.log1p(math.exp(u)), math.log1p(math.exp(-u)))
                right, wrong = costs[domain], costs[1 - domain]
                cluster_sum += share * ((1 - smoothing) * right + smoothing * wrong)
            value += 0.5 * cluster_sum / (n_image, n_video)[domain]
        values.append(value)
    return sum(w * v for w, v in zip(weights, values, strict=True)) / max(sum(weights), 1e-12)


@given(
    st.sampled_from([kind for kind in KINDS if kind != "global"]),
    st.sampled_from(["min", "uniform", "mass", "sqrt"]),
    st.booleans(),
    st.sampled_from([0.0, 2.0, 4.0]),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_clustered_loss_is_the_loop_over_clusters(
    kind: str, weighting: str, soft: bool, fewest: float, smoothing: float, seed: int
) -> None:
    alignment = build(kind, weighting=weighting, fewest=fewest, smoothing=smoothing)
    domains = [
        (tokens(seed, 9).detach(), assignment(seed + 1, 9, soft)),
        (tokens(seed + 2, 12).detach(), assignment(seed + 3, 12, soft)),
    ]
    (image, a), (video, b) = domains
    result = alignment(image, video, a, b, 1.0)
    with torch.no_grad():
        expected = naive_loss(alignment, domains, smoothing)
    assert result.discriminator_loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "global"])
@pytest.mark.parametrize("soft", [False, True])
def test_pixel_discriminators_follow_the_same_loop(kind: str, soft: bool) -> None:
    alignment = build(kind, network="pixel")
    image, video = torch.randn(2, CHANNELS, 4, 5), torch.randn(3, CHANNELS, 4, 5)
    a, b = assignment(0, 40, soft), assignment(1, 60, soft)
    result = alignment(image, video, a, b, 1.0)
    share = alignment.settings.discriminator
    weights = []
    values = []
    with torch.no_grad():
        u, v = alignment.discriminator(image), alignment.discriminator(video)
    if kind == "joint2K":
        a, b = (torch.nan_to_num(q ** (1 / 1.8) / (q ** (1 / 1.8)).sum(1)[:, None]) for q in (a, b))
        u, v = u.log_softmax(1), v.log_softmax(1)
    for k in range(CLUSTERS):
        mass = a[:, k].sum() / a.sum(), b[:, k].sum() / b.sum()
        weights.append(min(mass).item())
        value = 0.0
        for logits, q, video_side in ((u, a, False), (v, b, True)):
            cluster_sum = 0.0
            for n, y, x in itertools.product(range(len(logits)), range(4), range(5)):
                at = q[(n * 4 + y) * 5 + x, k].item()
                if kind == "joint2K":
                    cost = -logits[n, k + CLUSTERS * video_side, y, x].item()
                    at = min(at, share.clip)
                else:
                    logit = logits[n, 0 if kind == "shared_balanced" else k, y, x].item()
                    cost = math.log1p(math.exp(-logit if video_side else logit))
                cluster_sum += at * cost
            value += 0.5 * cluster_sum / q[:, k].sum().item()
        values.append(value)
    expected = sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)
    assert result.discriminator_loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["per_cluster", "separate", "shared_balanced", "conditioned"])
@pytest.mark.parametrize("loss", ["reversal", "non_saturating"])
def test_patches_are_weighted_by_the_area_of_clusters_in_their_cell(kind: str, loss: str) -> None:
    alignment = build(kind, loss, network="patch", output_tap=True, fewest=100.0)
    size = (64, 96)
    image = torch.rand(2, CHANNELS, 16, 24, requires_grad=True)
    video = torch.rand(3, CHANNELS, 16, 24, requires_grad=True)
    a, b = assignment(0, 2 * 16 * 24, False), assignment(1, 3 * 16 * 24, False)
    result = alignment(image, video, a, b, 1.0, size)
    cells = []
    for maps, q in ((image, a), (video, b)):
        with torch.no_grad():
            large = F.interpolate(maps, size, mode="bilinear", align_corners=False)
            logits = alignment.discriminator(large).expand(-1, CLUSTERS, -1, -1)
        n = len(maps)
        assert logits.shape == (n, CLUSTERS, 2, 3)
        # A cell of the output grid covers 8 x 8 positions of the features.
        areas = q.reshape(n, 2, 8, 3, 8, CLUSTERS).mean((2, 4))
        cells.append((logits.movedim(1, -1).reshape(-1, CLUSTERS), areas.reshape(-1, CLUSTERS)))
    (u, q), (v, r) = cells
    weight = torch.minimum(a.sum(0) / a.sum(), b.sum(0) / b.sum())
    value = 0.5 * ((q * F.softplus(u)).sum(0) / q.sum(0) + (r * F.softplus(-v)).sum(0) / r.sum(0))
    expected = (weight / weight.sum() * value).sum()
    torch.testing.assert_close(result.discriminator_loss, expected)
    (result.network_loss + result.discriminator_loss).backward()
    assert video.grad is not None
    assert (video.grad != 0).any()
    # ``fewest`` counts positions of the features, not the few cells of the output.
    assert result.monitors["skipped"] == 0


def test_maps_of_assignments_may_have_another_resolution() -> None:
    alignment = build("per_cluster", network="pixel")
    image, video = torch.randn(1, CHANNELS, 4, 4), torch.randn(1, CHANNELS, 4, 4)
    fine = assignment(0, 64, False).reshape(1, 8, 8, CLUSTERS).movedim(-1, 1)
    coarse = F.avg_pool2d(fine, 2)
    one = alignment(image, video, fine, fine, 1.0).discriminator_loss
    torch.testing.assert_close(one, alignment(image, video, coarse, coarse, 1.0).discriminator_loss)


def test_clips_are_judged_by_patch3d() -> None:
    alignment = build("per_cluster", network="patch3d")
    image, video = torch.randn(1, CHANNELS, 2, 32, 32), torch.randn(2, CHANNELS, 2, 32, 32)
    a, b = assignment(0, 2 * 32 * 32, False), assignment(1, 4 * 32 * 32, False)
    result = alignment(image, video, a, b, 1.0)
    result.discriminator_loss.backward()
    assert result.discriminator_loss.isfinite()
    assert result.monitors["skipped"] == 0


# -- invariances (the paper's clusters carry no order and no size) --------------------------------


@pytest.mark.parametrize("kind", ["per_cluster", "separate", "shared_balanced", "conditioned"])
def test_everything_in_one_cluster_is_the_global_loss(kind: str) -> None:
    image, video = tokens(0, 20), tokens(1, 33)
    clustered = build(kind)
    everyone = torch.eye(CLUSTERS)[0]
    a, b = everyone.expand(20, CLUSTERS), everyone.expand(33, CLUSTERS)
    value = clustered(image, video, a, b, 1.0).discriminator_loss
    u = clustered.discriminator(image)[:, :1]
    v = clustered.discriminator(video)[:, :1]
    torch.testing.assert_close(value, 0.5 * (F.softplus(u).mean() + F.softplus(-v).mean()))
    same = build("global")
    shared = build("shared_balanced")
    same.load_state_dict(shared.state_dict())
    torch.testing.assert_close(
        same(image, video, None, None, 1.0).discriminator_loss,
        shared(image, video, a, b, 1.0).discriminator_loss,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("soft", [False, True])
def test_renaming_clusters_and_repeating_a_domain_change_nothing(kind: str, soft: bool) -> None:
    alignment = build(kind)
    image, video = tokens(0, 20), tokens(1, 30)
    a, b = assignment(2, 20, soft), assignment(3, 30, soft)
    value = alignment(image, video, a, b, 1.0).discriminator_loss
    repeated = alignment(image, torch.cat([video] * 2), a, torch.cat([b] * 2), 1.0)
    torch.testing.assert_close(repeated.discriminator_loss, value)
    order = torch.tensor([1, 2, 0])
    if alignment.discriminator.clusters is not None:  # one for all knows none
        alignment.discriminator._take_clusters(order)
    renamed = alignment(image, video, a[:, order], b[:, order], 1.0).discriminator_loss
    torch.testing.assert_close(renamed, value)


# -- clusters that do not count ------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "loss"), [pair for pair in PLAYABLE if pair[0] != "global"])
@pytest.mark.parametrize("network", ["token", "pixel"])
def test_without_a_valid_cluster_nothing_moves(kind: str, loss: str, network: str) -> None:
    alignment = build(kind, loss, network, direction="both")
    shape = (12, CHANNELS) if network == "token" else (1, CHANNELS, 3, 4)
    image = torch.randn(shape, requires_grad=True)
    video = torch.randn(shape, requires_grad=True)
    a, b = torch.eye(CLUSTERS)[0].expand(12, -1), torch.eye(CLUSTERS)[1].expand(12, -1)
    result = alignment(image, video, a, b, 1.0)
    assert result.monitors["skipped"] == 1
    assert result.network_loss.item() == 0
    assert result.discriminator_loss.item() == 0
    (result.network_loss + result.discriminator_loss).backward()
    for tensor in (image, video, *alignment.parameters()):
        assert tensor.grad is None or (tensor.grad == 0).all()
    assert math.isnan(result.monitors["discriminator_loss"])


@pytest.mark.parametrize("loss", LOSSES)
def test_tokens_of_invalid_clusters_get_no_gradient(loss: str) -> None:
    alignment = build("conditioned", loss, direction="both", fewest=3)
    image, video = tokens(0, 8), tokens(1, 8)
    # Cluster 1 has 2 video tokens, fewer than 3; cluster 2 has no image.
    a = torch.eye(CLUSTERS)[torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])]
    b = torch.eye(CLUSTERS)[torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])]
    result = alignment(image, video, a, b, 1.0)
    (result.network_loss + result.discriminator_loss).backward()
    assert image.grad is not None
    assert video.grad is not None
    assert (image.grad[4:] == 0).all()
    assert (video.grad[3:] == 0).all()
    assert (image.grad[:4] != 0).any()
    assert (video.grad[:3] != 0).any()
    assert result.monitors["skipped"] == 0
    assert math.isfinite(result.monitors["accuracy_cluster_0"])
    assert math.isnan(result.monitors["accuracy_cluster_1"])


@pytest.mark.parametrize("kind", ["global", "conditioned", "separate"])
@pytest.mark.parametrize("network", ["token", "pixel", "patch"])
def test_a_batch_without_one_of_the_domains_is_skipped(kind: str, network: str) -> None:
    """As happens where domain labels are shuffled, a control."""
    alignment = build(kind, "non_saturating", network, direction="both", output_tap=True)
    image, video = torch.randn(0, CHANNELS, 8, 8), torch.randn(2, CHANNELS, 8, 8)
    video.requires_grad_()
    a, b = torch.zeros(0, CLUSTERS), assignment(0, 128, True)
    if network == "token":
        image, rows = sample_tokens(image, 10)
        assert (len(image), len(rows)) == (0, 0)
        result = alignment(image, flatten_positions(video), a, b, 1.0, (32, 32))
    else:
        result = alignment(image, video, a, b, 1.0, (32, 32))
    (result.network_loss + result.discriminator_loss).backward()
    assert result.monitors["skipped"] == 1
    assert (result.network_loss.item(), result.discriminator_loss.item()) == (0, 0)
    assert video.grad is None or (video.grad == 0).all()


def test_before_the_first_clustering_a_clustered_loss_is_skipped() -> None:
    alignment = build("per_cluster")
    image, video = tokens(0, 8), tokens(1, 8)
    result = alignment(image, video, None, None, 1.0)
    assert (result.network_loss.item(), result.discriminator_loss.item()) == (0, 0)
    assert result.monitors["skipped"] == 1
    later = alignment(image, video, assignment(0, 8, False), assignment(1, 8, False), 1.0)
    assert set(later.monitors) == set(result.monitors)


def test_assignments_to_another_number_of_clusters_are_refused() -> None:
    alignment = build("shared_balanced")
    q = torch.eye(5)
    with pytest.raises(MethodError, match="3 clusters"):
        alignment(tokens(0, 5), tokens(1, 5), q, q, 1.0)
