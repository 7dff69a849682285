import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from bench.errors import MethodError
from methods.correspondence.pretext.copying import local_affinity, local_weights
from methods.correspondence.pretext.distillation import (
    above_quantile,
    global_distillation,
    local_distillation,
    pool_affinity,
    sharpness,
)


def random_maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(weights):
    """A local affinity as a matrix ``(B, h * w, h * w)``, target cells first."""
    batch, candidates, height, width = weights.shape
    side = math.isqrt(candidates)
    found = torch.zeros(batch, height, width, height, width)
    for row in range(side):
        for column in range(side):
            for y in range(height):
                for x in range(width):
                    to_y, to_x = y + row - side // 2, x + column - side // 2
                    if 0 <= to_y < height and 0 <= to_x < width:
                        found[:, y, x, to_y, to_x] = weights[:, row * side + column, y, x]
    return found.view(batch, height * width, height * width)


def pool_dense(matrix, height, width):
    """Average pooling over 2x2 reference cells, then over 2x2 target cells."""
    batch = len(matrix)
    over_reference = F.avg_pool2d(matrix.view(batch, -1, height, width), 2)
    count = over_reference.shape[2] * over_reference.shape[3]
    by_reference = over_reference.flatten(2).mT.reshape(batch, count, height, width)
    return F.avg_pool2d(by_reference, 2).flatten(2).mT


@pytest.mark.parametrize(("size", "radius"), [((6, 8), 2), ((8, 6), 4), ((4, 4), 6)])
def test_pool_affinity_equals_pooling_the_dense_matrix(size, radius):
    target, reference = (random_maps(2, 3, *size, seed=seed) for seed in (0, 1))
    weights = local_weights(target, reference, radius, 1.0, "exclude")
    pooled = pool_affinity(weights)
    assert pooled.shape == (2, (radius + 1) ** 2, size[0] // 2, size[1] // 2)
    expected = pool_dense(dense(weights), *size)
    assert_close(dense(pooled), expected)
    # All that was pooled is inside the smaller window.
    assert_close(pooled.sum(), expected.sum())


@pytest.mark.parametrize(("radius", "size"), [(3, (4, 4)), (2, (5, 4)), (2, (4, 5))])
def test_pool_affinity_wants_even_numbers(radius, size):
    with pytest.raises(MethodError):
        pool_affinity(torch.zeros(1, (2 * radius + 1) ** 2, *size))


def test_sharpness_equals_loops_and_counts_what_is_outside():
    target, reference = (random_maps(1, 2, 3, 4, seed=seed) for seed in (0, 1))
    found = sharpness(local_affinity(target, reference, 1))
    zero = local_affinity(target, reference, 1, outside="zero")
    assert_close(sharpness(zero), found)
    for y in range(3):
        for x in range(4):
            logits = zero[0, :, y, x].tolist()
            total = sum(math.exp(logit) for logit in logits)
            expected = -sum(math.log(math.exp(logit) / total) for logit in logits)
            assert found[0, y, x].item() == pytest.approx(expected, rel=1e-5)


def test_sharpness_is_least_where_all_candidates_are_alike():
    flat, sharp = torch.zeros(1, 9, 1, 1), torch.zeros(1, 9, 1, 1)
    sharp[0, 4] = 5
    assert sharpness(flat).item() == pytest.approx(9 * math.log(9))
    assert sharpness(sharp).item() > sharpness(flat).item()


def test_above_quantile_leaves_out_that_share_of_each_map():
    scores = random_maps(3, 10, 10) * torch.tensor([1.0, 10, 100]).view(3, 1, 1)
    selected = above_quantile(scores, 0.7)
    assert selected.flatten(1).sum(1).tolist() == [30, 30, 30]
    for each, chosen in zip(scores, selected, strict=True):
        assert float(each[chosen].min()) > float(each[~chosen].max())
    assert bool(above_quantile(scores, 0.0).all())
    assert above_quantile(scores, 1.0).flatten(1).sum(1).tolist() == [1, 1, 1]


def test_local_distillation_equals_the_dense_mean():
    student, teacher = (
        local_weights(random_maps(2, 3, 4, 5, seed=s), random_maps(2, 3, 4, 5), 1, 1.0, "exclude")
        for s in (1, 2)
    )
    selected = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    squares = (dense(student) - dense(teacher)).square().mean(2)
    expected = [squares[b][selected[b].flatten()].mean() for b in range(2)]
    assert_close(local_distillation(student, teacher, selected), torch.stack(expected))


def test_distillation_is_zero_where_the_student_agrees_and_teaches_the_student_alone():
    weights = F.softmax(random_maps(2, 9, 4, 4), 1)
    everywhere = torch.ones(2, 4, 4, dtype=torch.bool)
    assert_close(local_distillation(weights, weights, everywhere), torch.zeros(2))
    assert_close(global_distillation(weights, weights), torch.zeros(2))
    student = random_maps(2, 9, 4, 4, seed=1).requires_grad_()
    teacher = random_maps(2, 9, 4, 4, seed=2).requires_grad_()
    losses = local_distillation(student.softmax(1), teacher.softmax(1), everywhere)
    losses = losses + global_distillation(student.softmax(1), teacher.softmax(1))
    losses.sum().backward()
    assert teacher.grad is None
    assert bool(torch.isfinite(student.grad).all())
    assert float(student.grad.abs().max()) > 0


def test_nothing_selected_is_no_loss():
    weights, other = (F.softmax(random_maps(1, 9, 4, 4, seed=s), 1) for s in (0, 1))
    nowhere = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert local_distillation(weights, other, nowhere).item() == 0


def test_global_distillation_is_the_mean_over_all_pairs():
    student, teacher = (F.softmax(random_maps(2, 6, 2, 3, seed=s), 1) for s in (0, 1))
    for b in range(2):
        expected = F.mse_loss(student[b], teacher[b]).item()
        assert global_distillation(student, teacher)[b].item() == pytest.approx(expected)
