import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from methods.correspondence.pretext.copying import (
    copy_global,
    copy_local,
    global_affinity,
    inside_map,
    likelihood_loss,
    local_affinity,
    local_reconstruction,
    local_weights,
    reconstruction_loss,
    subsample,
    upsample,
)


def random_maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_local_affinity(target, reference, radius, scale, outside):
    """One window cell at a time."""
    batch, _, height, width = target.shape
    side = 2 * radius + 1
    found = torch.zeros(batch, side * side, height, width)
    places = itertools.product(range(batch), range(side), range(side), range(height), range(width))
    for b, row, column, y, x in places:
        there_y, there_x = y + row - radius, x + column - radius
        if 0 <= there_y < height and 0 <= there_x < width:
            dot = float(target[b, :, y, x] @ reference[b, :, there_y, there_x])
            found[b, row * side + column, y, x] = scale * dot
        elif outside == "exclude":
            found[b, row * side + column, y, x] = -math.inf
    return found


def naive_copy_local(weights, values):
    batch, candidates, height, width = weights.shape
    side = math.isqrt(candidates)
    copied = torch.zeros(batch, values.shape[1], height, width)
    places = itertools.product(range(batch), range(side), range(side), range(height), range(width))
    for b, row, column, y, x in places:
        there_y, there_x = y + row - side // 2, x + column - side // 2
        if 0 <= there_y < height and 0 <= there_x < width:
            weight = weights[b, row * side + column, y, x]
            copied[b, :, y, x] += weight * values[b, :, there_y, there_x]
    return copied


@pytest.mark.parametrize("outside", ["exclude", "zero"])
@pytest.mark.parametrize(("size", "radius"), [((5, 7), 1), ((4, 3), 2), ((2, 2), 4), ((1, 1), 1)])
def test_local_affinity_equals_loops(size, radius, outside):
    target, reference = (random_maps(2, 3, *size, seed=seed) for seed in (0, 1))
    found = local_affinity(target, reference, radius, 0.5, outside)
    assert_close(found, naive_local_affinity(target, reference, radius, 0.5, outside))


@pytest.mark.parametrize(("size", "radius"), [((5, 7), 1), ((4, 3), 2), ((2, 2), 4)])
def test_copy_local_equals_loops(size, radius):
    weights = F.softmax(random_maps(2, (2 * radius + 1) ** 2, *size), 1)
    values = random_maps(2, 4, *size, seed=1)
    assert_close(copy_local(weights, values), naive_copy_local(weights, values))


def test_window_over_the_whole_map_equals_global():
    target, reference = (random_maps(2, 5, 4, 3, seed=seed) for seed in (0, 1))
    values = random_maps(2, 2, 4, 3, seed=2)
    near = copy_local(local_weights(target, reference, 3, 0.7, "exclude"), values)
    everywhere = F.softmax(global_affinity(target, reference, 0.7), 1)
    assert_close(near, copy_global(everywhere, values))


def test_global_affinity_and_copy_equal_loops_over_several_frames():
    target, reference = random_maps(1, 3, 2, 3), random_maps(1, 3, 2, 2, 3, seed=1)
    values = random_maps(1, 2, 2, 2, 3, seed=2)
    affinity = global_affinity(target, reference, 2.0)
    assert affinity.shape == (1, 12, 2, 3)
    weights = F.softmax(affinity, 1)
    copied = copy_global(weights, values)
    for y, x in itertools.product(range(2), range(3)):
        each = [
            math.exp(2 * float(target[0, :, y, x] @ reference[0, :, t, i, j]))
            for t, i, j in itertools.product(range(2), range(2), range(3))
        ]
        colours = [
            values[0, :, t, i, j] for t, i, j in itertools.product(range(2), range(2), range(3))
        ]
        expected = sum(w / sum(each) * c for w, c in zip(each, colours, strict=True))
        assert_close(copied[0, :, y, x], expected)


def test_candidates_outside_the_map_are_excluded_or_take_weight_away():
    same = torch.zeros(1, 1, 3, 3)
    ones = torch.ones(1, 1, 3, 3)
    excluded = copy_local(local_weights(same, same, 1, 1.0, "exclude"), ones)
    assert_close(excluded, ones)
    zero = copy_local(local_weights(same, same, 1, 1.0, "zero"), ones)[0, 0]
    counts = torch.tensor([[4.0, 6, 4], [6, 9, 6], [4, 6, 4]])
    assert_close(zero, counts / 9)
    assert_close(inside_map(3, 3, 1, torch.device("cpu")).sum(0).float(), counts)


@pytest.mark.parametrize("outside", ["exclude", "zero"])
def test_gradients_equal_finite_differences(outside):
    def copied(target, reference, values):
        # The kernels compute in single precision, so differences are taken in coarse steps.
        return copy_local(local_weights(target, reference, 1, 1.0, outside), values).double()

    inputs = [random_maps(1, 2, 3, 4, seed=seed).double().requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(copied, inputs, eps=1e-2, atol=2e-3, rtol=1e-2)


def test_autocast_does_not_coarsen_affinities():
    target, reference = (random_maps(1, 16, 4, 4, seed=seed) for seed in (0, 1))
    values = random_maps(1, 3, 4, 4, seed=2)
    exact = local_affinity(target, reference, 1)
    copied = copy_local(F.softmax(exact, 1), values)
    everywhere = global_affinity(target, reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(local_affinity(target, reference, 1), exact, rtol=0, atol=0)
        assert_close(copy_local(F.softmax(exact, 1), values), copied, rtol=0, atol=0)
        assert_close(global_affinity(target, reference), everywhere, rtol=0, atol=0)


def test_a_moved_frame_is_reconstructed_where_its_content_came_from():
    features = F.one_hot(torch.arange(64).view(1, 8, 8)).permute(0, 3, 1, 2).float()
    colours = random_maps(1, 1, 8, 8)
    moved = [torch.roll(each, (1, -2), (2, 3)) for each in (features, colours)]
    weights = local_weights(moved[0], features, 2, 50.0, "exclude")
    copied = local_reconstruction(weights, colours)
    inside = (slice(None), slice(None), slice(1, None), slice(0, 6))
    assert_close(copied[inside], moved[1][inside])
    assert reconstruction_loss(copied[inside], moved[1][inside]).item() < 1e-6


def test_subsample_takes_every_sth_and_fits_the_map():
    values = random_maps(1, 2, 16, 24)
    assert torch.equal(subsample(values, (4, 6)), values[..., ::4, ::4])
    for length, stride in itertools.product(range(1, 40), (1, 2, 4, 8)):
        cells = -(-length // stride)
        assert subsample(torch.zeros(length, length), (cells, cells)).shape == (cells, cells)


def test_upsample_reads_at_pixel_centres():
    row = upsample(torch.tensor([[[[0.0, 8.0]]]]), (1, 8))[0, 0, 0]
    assert row.tolist() == [0, 0, 1, 3, 5, 7, 8, 8]


def test_reconstruction_loss_is_twenty_times_sharper_huber():
    copied, true = torch.tensor([[[[0.0, 0.01, 0.5]]]]), torch.zeros(1, 1, 1, 3)
    expected = (0 + 0.5 * 0.2**2 + (10 - 0.5)) / 3
    assert reconstruction_loss(copied, true).item() == pytest.approx(expected, rel=1e-5)


def test_likelihood_loss_equals_loops_and_reaches_zero():
    probabilities = F.softmax(random_maps(2, 4, 3, 5), 1)
    ids = torch.randint(4, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    for b in range(2):
        logs = [
            -math.log(float(probabilities[b, int(ids[b, y, x]), y, x]))
            for y, x in itertools.product(range(3), range(5))
        ]
        found = likelihood_loss(probabilities, ids)[b].item()
        assert found == pytest.approx(sum(logs) / 15, rel=1e-5)
    certain = F.one_hot(ids, 4).movedim(3, 1).float()
    assert_close(likelihood_loss(certain, ids), torch.zeros(2))
    never = likelihood_loss(1 - certain, ids)
    assert_close(never, torch.full((2,), -math.log(1e-8)))
