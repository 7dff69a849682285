import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.errors import ConfigError
from methods.correspondence.pretext.transformer import (
    Localiser,
    Tracker,
    affine_points,
    correlation,
    crop,
    grid_distance,
    inlier_score,
    similarity_transform,
)

IDENTITY = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])


def unit(*shape, seed=0):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(made, dim=1)


def transform(x=0.2, y=-0.1, degrees=30.0, scale=1 / 3):
    return similarity_transform(
        torch.tensor([[x, y]]), torch.tensor([math.radians(degrees)]), scale
    )


def naive_point(theta, u, v, factor):
    """Divide by the offset factor, map, multiply."""
    x, y = u / factor, v / factor
    return [
        factor * float(theta[0, row, 0] * x + theta[0, row, 1] * y + theta[0, row, 2])
        for row in range(2)
    ]


def naive_read(image, x, y):
    """Bilinear value at a point in [-1, 1] between the corner pixels' centres; zero outside."""
    height, width = image.shape
    column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    total = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < height and 0 <= c < width:
                total += float(image[r, c]) * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


@pytest.mark.parametrize("factor", [1.0, 227 / 210])
def test_crop_equals_loops(factor):
    maps, theta = torch.randn(1, 2, 6, 7), transform(x=0.6)
    found = crop(maps, theta, 4, factor)
    line = np.linspace(-1, 1, 4)
    for row in range(4):
        for column in range(4):
            point = naive_point(theta, line[column], line[row], factor)
            assert affine_points(theta, 4, factor)[0, row, column].tolist() == pytest.approx(
                point, abs=1e-6
            )
            for channel in range(2):
                expected = naive_read(maps[0, channel], *point)
                assert found[0, channel, row, column].item() == pytest.approx(expected, abs=1e-5)


def test_identity_crop_is_the_image():
    maps = torch.randn(1, 3, 5, 5)
    assert torch.allclose(crop(maps, IDENTITY, 5), maps, atol=1e-6)


def test_rotation_by_90_degrees_turns_the_image():
    maps = torch.randn(1, 3, 5, 5)
    quarter = similarity_transform(torch.zeros(1, 2), torch.tensor([math.pi / 2]), 1.0)
    # A positive angle takes x to y: the crop's right is the frame's bottom.
    assert torch.allclose(crop(maps, quarter, 5), maps.flip(3).mT, atol=1e-5)


def test_correlation_equals_loops():
    frame, template = unit(1, 4, 3, 5), unit(1, 4, 2, 2, seed=1)
    found = correlation(frame, template, 0.1)
    assert found.shape == (1, 15, 2, 2)
    for row in range(2):
        for column in range(2):
            weights = [
                math.exp(float(frame[0, :, r, c] @ template[0, :, row, column]) / 0.1)
                for r in range(3)
                for c in range(5)
            ]
            expected = [weight / sum(weights) for weight in weights]
            assert found[0, :, row, column].tolist() == pytest.approx(expected, rel=1e-4)


def test_grid_distance_equals_loops_and_is_zero_for_equal_transforms():
    one, other = transform(), transform(x=-0.3, degrees=-10)
    line = np.linspace(-1, 1, 20)
    distances = [
        sum(
            (a - b) ** 2
            for a, b in zip(naive_point(one, u, v, 1), naive_point(other, u, v, 1), strict=True)
        )
        for u in line
        for v in line
    ]
    assert grid_distance(one, other).item() == pytest.approx(np.mean(distances), rel=1e-5)
    assert grid_distance(one, one).item() == 0


def test_grid_distance_of_a_shift_is_its_squared_length():
    one, other = transform(x=0.1, y=0.2), transform(x=0.4, y=-0.2)
    assert grid_distance(one, other).item() == pytest.approx(0.25, rel=1e-4)


def test_weights_choose_points():
    one, other = transform(), transform(x=-0.3, degrees=-10)
    weights = torch.zeros(1, 20, 20)
    weights[0, 3, 7] = 1
    squared = (affine_points(one, 20) - affine_points(other, 20))[0, 3, 7].square().sum()
    assert grid_distance(one, other, weights=weights).item() == pytest.approx(
        squared.item(), rel=1e-5
    )
    even = torch.full((1, 20, 20), 1 / 400)
    assert grid_distance(one, other, weights=even).item() == pytest.approx(
        grid_distance(one, other).item(), rel=1e-5
    )


@pytest.mark.parametrize("x", [0.2, 0.9])
def test_inlier_score_equals_the_warped_identity_match(x):
    theta = torch.cat([transform(x=x), transform(x=-0.5, degrees=-80)])
    correlated = torch.rand(2, 30, 3, 3).softmax(1)
    match = torch.eye(30).view(1, 30, 5, 6).expand(2, 30, 5, 6)
    warped = crop(match, theta, 3, 1.1)
    warped = warped / warped.sum((1, 2, 3), keepdim=True)
    expected = (warped * correlated).sum((1, 2, 3))
    assert torch.allclose(inlier_score(correlated, theta, (5, 6), 1.1), expected, atol=1e-6)


def test_inlier_score_is_one_where_the_correlation_agrees():
    correlated = torch.eye(9).view(1, 9, 3, 3)
    assert inlier_score(correlated, IDENTITY, (3, 3)).item() == pytest.approx(1, abs=1e-5)
    shuffled = correlated.flip(1)
    assert inlier_score(shuffled, IDENTITY, (3, 3)).item() == pytest.approx(1 / 9, abs=1e-5)


def test_gradients_reach_features_and_localiser_and_are_finite():
    frame = torch.randn(2, 8, 9, 9, requires_grad=True)
    tracker = Tracker(Localiser(81, 4, kernel=2), 0.1, 227 / 210)
    track = tracker(unit(2, 8, 4, 4), F.normalize(frame, dim=1))
    true = torch.cat([transform(), transform(x=-0.4)])
    (grid_distance(track.theta, true) - track.inliers + track.template.sum()).sum().backward()
    assert track.template.norm(dim=1).max().item() == pytest.approx(1, abs=1e-4)
    for tensor in (frame, *tracker.parameters()):
        assert bool(torch.isfinite(tensor.grad).all())
        assert tensor.grad.abs().max() > 0


def test_localiser_has_the_official_shapes():
    shapes = [tuple(each.shape) for each in Localiser(900, 10).parameters()]
    assert shapes == [(128, 900, 4, 4), (64, 128, 4, 4), (3, 1024), (3,)]


def test_localiser_says_which_kernel_fits():
    with pytest.raises(ConfigError, match="at most 2"):
        Localiser(144, 4)
    assert Localiser(144, 4, kernel=2)(torch.rand(1, 144, 4, 4)).shape == (1, 2, 3)


def test_localiser_learns_where_a_patch_is():
    """A known minimum: with distinct cells the correlation tells the place, which is regressed."""
    torch.manual_seed(0)
    frame = unit(1, 64, 9, 9).expand(16, 64, 9, 9)
    tracker = Tracker(Localiser(81, 4, kernel=2), 0.02, 1.0)
    shift = torch.rand(16, 2) - 0.5
    true = similarity_transform(shift, torch.zeros(16), 1 / 3)
    template = F.normalize(crop(frame, true, 4), dim=1)
    optimiser = torch.optim.Adam(tracker.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = grid_distance(tracker(template, frame).theta, true).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
