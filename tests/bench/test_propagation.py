"""The propagator against reference outputs and against a plain dense implementation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.propagation import (
    PropagationSettings,
    Propagator,
    labels_from_mask,
    resize,
)


def naive_propagation(
    features: list[Tensor], labels: Tensor, config: PropagationSettings
) -> Tensor:
    """Labels (L, h, w) of the last frame; every candidate and every padded copy written out."""
    height, width = features[0].shape[1:]
    grid = [(y, x) for y in range(height) for x in range(width)]
    if config.normalise:
        features = [f / f.norm(dim=0, keepdim=True).clamp(min=1e-12) for f in features]
    stored = [labels]
    for t in range(1, len(features)):
        context = list(range(t - config.context, t))
        if config.pad_first:
            context = [max(0, i) for i in context]
        else:
            context = [i for i in context if i > 0]
        memory = [(0, config.radius_first)] + [(i, config.radius) for i in context]
        new = torch.zeros_like(labels)
        for y, x in grid:
            candidates = []
            for i, radius in memory:
                for v, u in grid:
                    if radius is None or math.hypot(v - y, u - x) < radius:
                        score = float(features[t][:, y, x] @ features[i][:, v, u])
                        candidates.append((score, i, v, u))
            candidates.sort(key=lambda c: -c[0])
            best = candidates[: config.top_k]
            scores = torch.tensor([c[0] for c in best], dtype=torch.float64)
            weights = torch.softmax(scores / config.temperature, 0)
            for weight, (_, i, v, u) in zip(weights, best, strict=True):
                new[:, y, x] += weight.float() * stored[i][:, v, u]
        stored.append(new)
    return stored[-1]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    frames=st.integers(2, 5),
    top_k=st.integers(1, 6),
    radius=st.sampled_from([None, 1.0, 1.5, 2.0, 3.5]),
    radius_first=st.sampled_from([None, 2.0]),
    context=st.integers(1, 4),
    pad_first=st.booleans(),
    tiled=st.booleans(),
)
def test_equals_the_plain_implementation(
    seed, height, width, frames, top_k, radius, radius_first, context, pad_first, tiled
):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(5, height, width, generator=generator) for _ in range(frames)]
    labels = torch.rand(3, height, width, generator=generator)
    config = PropagationSettings(
        top_k=top_k, radius=radius, radius_first=radius_first, context=context, pad_first=pad_first
    )
    propagator = Propagator(config, tiled)
    memory = propagator.begin(features[0], labels)
    for frame in features[1:]:
        found = propagator.step(memory, frame)
    expected = naive_propagation(features, labels, config)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("case", ["a", "b"])
def test_reference_masks(shared_dir: Path, case: str, tiled: bool):
    folder = shared_dir / "oracle" / "propagation_small"
    given, wanted = np.load(folder / "input.npz"), np.load(folder / f"output_{case}.npz")
    reference = json.loads(str(wanted["settings"]))
    config = PropagationSettings(
        top_k=reference["topk"],
        radius=reference["radius"],
        context=reference["context"],
        temperature=reference["temperature"],
    )
    features = torch.from_numpy(given["feats"])
    ids = wanted["label_ids"]
    propagator = Propagator(config, tiled)
    labels = labels_from_mask(given["mask"], tuple(map(int, ids[1:])), features.shape[2:], "cpu")
    memory = propagator.begin(features[0], labels)
    for t in range(len(features)):
        if t:
            labels = propagator.step(memory, features[t])
        mask = ids[resize(labels, given["mask"].shape).argmax(0).numpy()]
        assert np.array_equal(mask, wanted["masks"][t])
        difference = np.abs(labels.permute(1, 2, 0).numpy() - wanted["probs"][t]).max(-1)
        # Two candidates that tie for the last top-k place may swap.
        assert (difference > 1e-4).sum() <= 2


def test_memory_is_bounded_by_the_context():
    config = PropagationSettings(context=3, radius=2.0)
    propagator = Propagator(config)
    memory = propagator.begin(torch.randn(4, 8, 9), torch.rand(2, 8, 9))
    before = memory.keys.numel(), memory.labels.numel()
    for _ in range(10):
        propagator.step(memory, torch.randn(4, 8, 9))
    assert (memory.keys.numel(), memory.labels.numel()) == before
    assert memory.filled == 3


def test_identical_frames_keep_the_labels():
    """With unique features and one candidate, every cell finds itself."""
    features = torch.eye(12).reshape(12, 3, 4)
    labels = torch.rand(2, 3, 4)
    propagator = Propagator(PropagationSettings(top_k=1))
    memory = propagator.begin(features, labels)
    torch.testing.assert_close(propagator.step(memory, features), labels)


def test_labels_do_not_change_affinities():
    features = torch.randn(6, 5, 5)
    propagator = Propagator(PropagationSettings())
    few = propagator.begin(features, torch.rand(2, 5, 5))
    many = propagator.begin(features, torch.rand(9, 5, 5))
    query = torch.nn.functional.normalize(torch.randn(6, 5, 5), dim=0)
    one, two = propagator.affinity(few, query), propagator.affinity(many, query)
    assert torch.equal(one.cell, two.cell)
    assert torch.equal(one.weight, two.weight)
