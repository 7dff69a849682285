import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.correspondence.pretext.anchors import (
    anchor_logits,
    assignment_loss,
    contrastive_loss,
    draw_zoom,
    grid_cells,
    pick,
    pseudo_labels,
    zoom,
)


def unit(*shape, dim=2, seed=0):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(made, dim=dim)


def naive_cell(theta, row, column, height, width):
    """The cell of view 1 in which the centre of a cell of view 2 lies; -1 .. 1 are edges."""
    x, y = 2 * (column + 0.5) / width - 1, 2 * (row + 0.5) / height - 1
    x, y = (float(theta[axis] @ torch.tensor([x, y, 1.0])) for axis in range(2))
    return math.floor((y + 1) / 2 * height), math.floor((x + 1) / 2 * width)


def test_zoom_equals_loops():
    random = np.random.default_rng(0)
    maps = torch.randn(3, 2, 4, 6, 8)
    theta = torch.stack([draw_zoom(random, (0.5, 0.9), 0.5) for _ in range(3)])
    found = zoom(maps, theta, nearest=True)
    for clip in range(3):
        for row in range(6):
            for column in range(8):
                y, x = naive_cell(theta[clip], row, column, 6, 8)
                assert torch.equal(found[clip, :, :, row, column], maps[clip, :, :, y, x])


def test_zooms_crop_stays_inside_and_is_as_large_as_asked():
    random = np.random.default_rng(0)
    mirrored = 0
    for _ in range(300):
        theta = draw_zoom(random, (0.5, 1.0), 0.5)
        corners = theta @ torch.tensor([[-1.0, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]])
        assert corners.abs().max() <= 1 + 1e-6
        assert 0.5 <= theta[1, 1] <= 1
        assert theta[0, 0].abs() == theta[1, 1]
        mirrored += bool(theta[0, 0] < 0)
    assert 100 < mirrored < 200


def test_mirror_alone_flips():
    maps = torch.randn(1, 2, 3, 4, 4)
    mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    assert torch.allclose(zoom(maps, mirror), maps.flip(4), atol=1e-6)
    assert torch.equal(zoom(maps, mirror, nearest=True), maps.flip(4))


def test_image_and_map_move_alike():
    """Pixels averaged over a cell, then zoomed, are the zoomed image averaged: edges agree."""
    ramp = torch.arange(64.0).expand(64, 64)[None, None, None]
    theta = torch.tensor([[[0.5, 0, 0.25], [0, 0.5, 0]]])
    cells = F.avg_pool2d(ramp[0], 8)[None]
    of_image = F.avg_pool2d(zoom(ramp, theta)[0], 8)[None]
    assert torch.allclose(zoom(cells, theta), of_image, atol=0.5)


def test_grid_cells_are_regular_and_their_offset_reaches_all_cells():
    assert grid_cells((4, 6), 2, (0.0, 0.0)).tolist() == [0, 3, 12, 15]
    assert grid_cells((4, 6), 2, (0.99, 0.99)).tolist() == [8, 11, 20, 23]
    # 32 x 32 cells and 8 x 8 anchors: each cell can be one.
    reached = {
        cell
        for down in np.arange(4) / 4
        for right in np.arange(4) / 4
        for cell in grid_cells((32, 32), 8, (down, right)).tolist()
    }
    assert reached == set(range(32 * 32))
    for share in np.linspace(0, 0.999, 7):
        cells = grid_cells((12, 13), 5, (share, share))
        assert len(set(cells.tolist())) == 25
        assert cells.max() < 12 * 13


def test_pick_takes_the_vectors_at_cells():
    maps = torch.randn(2, 3, 4, 5)
    found = pick(maps, torch.tensor([7, 0]))
    assert torch.equal(found[1, 0], maps[1, :, 1, 2])
    assert torch.equal(found[0, 1], maps[0, :, 0, 0])


def test_logits_labels_and_loss_equal_loops():
    maps, other = unit(2, 2, 4, 3, 3), unit(2, 2, 4, 3, 3, seed=1)
    anchors = unit(2, 5, 4, seed=2)
    logits = anchor_logits(maps, anchors, 0.1)
    labels = pseudo_labels(anchor_logits(other, anchors, 0.1), 2)
    losses = assignment_loss(logits, labels)
    for clip in range(2):
        total = 0.0
        for frame in range(2):
            for row in range(3):
                for column in range(3):
                    cell = other[clip, frame, :, row, column]
                    own = [float(cell @ anchors[clip, m]) for m in range(5)]
                    label = clip * 5 + int(np.argmax(own))
                    assert labels[clip, frame, row, column] == label
                    cell = maps[clip, frame, :, row, column]
                    weights = [math.exp(float(cell @ a) / 0.1) for a in anchors.flatten(0, 1)]
                    total -= math.log(weights[label] / sum(weights)) / 18
        assert losses[clip].item() == pytest.approx(total, rel=1e-4)


def test_labels_are_those_of_the_softmax_over_all_anchors():
    logits = anchor_logits(unit(3, 2, 4, 3, 3), unit(3, 5, 4, seed=2), 0.1)
    probabilities = logits.softmax(2)
    labels = pseudo_labels(logits, 3)
    for clip in range(3):
        own = probabilities[clip, :, 5 * clip : 5 * clip + 5].argmax(1) + 5 * clip
        assert torch.equal(labels[clip], own)


def test_distinct_cells_assigned_to_themselves_reach_the_minimum():
    maps = torch.eye(9).view(1, 1, 9, 3, 3)
    anchors = torch.eye(9)[None]
    logits = anchor_logits(maps, anchors, 0.05)
    labels = pseudo_labels(logits, 1)
    assert labels.flatten().tolist() == list(range(9))
    assert assignment_loss(logits, labels).item() == pytest.approx(0, abs=1e-6)


def test_assignment_is_equivariant_to_the_zoom():
    """Features that move with the image are assigned as they were: the loss is at its minimum."""
    cells = torch.eye(64).view(1, 1, 64, 8, 8)
    theta = torch.tensor([[[-0.5, 0, 0.25], [0, 0.5, -0.5]]])
    anchors = pick(cells[:, 0], torch.arange(64))
    logits = anchor_logits(cells, anchors, 0.05)
    labels = pseudo_labels(anchor_logits(zoom(cells, theta, nearest=True), anchors, 0.05), 1)
    aligned = assignment_loss(zoom(logits, theta, nearest=True), labels)
    assert aligned.item() == pytest.approx(0, abs=1e-5)
    assert assignment_loss(logits, labels).item() > 10


def test_contrastive_loss_equals_loops_and_has_its_minimum():
    first, second = unit(2, 3, 4), unit(2, 3, 4, seed=1)
    found = contrastive_loss(first, second, 0.2)
    everything = second.flatten(0, 1)
    for clip in range(2):
        total = 0.0
        for cell in range(3):
            weights = [math.exp(float(first[clip, cell] @ each) / 0.2) for each in everything]
            total -= math.log(weights[3 * clip + cell] / sum(weights)) / 3
        assert found[clip].item() == pytest.approx(total, rel=1e-4)
    distinct = torch.eye(6).view(2, 3, 6)
    assert contrastive_loss(distinct, distinct, 0.05).max().item() == pytest.approx(0, abs=1e-6)


def test_gradients_are_finite():
    maps = torch.randn(2, 2, 4, 6, 6, requires_grad=True)
    vectors = F.normalize(maps, dim=2)
    cells = grid_cells((6, 6), 2, (0.5, 0.5))
    anchors = pick(vectors[:, 0], cells)
    theta = draw_zoom(np.random.default_rng(0), (0.5, 1.0), 0.5)[None].expand(2, 2, 3)
    logits = zoom(anchor_logits(vectors, anchors, 0.05), theta, nearest=True)
    loss = assignment_loss(logits, torch.zeros(2, 2, 6, 6, dtype=torch.long)).mean()
    (loss + contrastive_loss(anchors, pick(vectors[:, 1], cells), 0.05).mean()).backward()
    assert bool(torch.isfinite(maps.grad).all())
    assert maps.grad.abs().max() > 0
