"""The propagator against reference outputs and against a plain dense implementation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.propagation import (
    PropagationSettings,
    Propagator,
    labels_from_mask,
    matching,
    resize,
    screening,
)
from bench.propagation.matching import best_candidates


def naive_references(config: PropagationSettings, t: int) -> list[tuple[int, float | None]]:
    """Numbers of the frames that frame t is compared with, each with its radius."""
    anchors = [i for i in config.anchors if i < t]
    recent = [t - 1 - i * config.interval for i in range(config.context)]
    if config.early == "copies":
        recent = [max(0, i) for i in recent]
    elif config.early == "again":
        recent = sorted({max(0, i) for i in recent})
    else:
        recent = [i for i in recent if i >= (1 if 0 in anchors else 0)]
    recent = [i for i in recent if i == 0 or i not in anchors]
    radius_first = config.radius_first
    return [(i, radius_first if i == 0 else config.radius) for i in anchors] + [
        (i, config.radius) for i in recent
    ]


def naive_candidates(
    config: PropagationSettings, query: Tensor, keys: Tensor, y: int, x: int, radius: float | None
) -> list[tuple[float, int | None]]:
    """Scores and cells (None outside the map) of one frame's candidates."""
    height, width = keys.shape[1:]
    found: list[tuple[float, int | None]] = []
    for v in range(-10, height + 10):
        for u in range(-10, width + 10):
            inside = 0 <= v < height and 0 <= u < width
            if config.window == "disc":
                near = radius is None or math.hypot(v - y, u - x) < radius
            else:
                near = radius is None or max(abs(v - y), abs(u - x)) <= radius
            if inside and near:
                found.append((float(query @ keys[:, v, u]), v * width + u))
            elif near and radius is not None and config.outside == "zero":
                found.append((0.0, None))
    return found


def naive_copy(
    config: PropagationSettings, candidates: list[list[tuple[float, Tensor | None]]]
) -> Tensor:
    """One cell's labels from its candidates, by remembered frame: scores and their labels."""

    def weighted(chosen, weights):
        return sum(
            weight.float() * label
            for weight, (_, label) in zip(weights, chosen, strict=True)
            if label is not None
        )

    def softmax(chosen):
        scores = torch.tensor([score for score, _ in chosen], dtype=torch.float64)
        return torch.softmax(scores / config.temperature, 0)

    def best(chosen):
        return sorted(chosen, key=lambda candidate: -candidate[0])[: config.top_k]

    if config.selection == "softmax_then_top_k":
        copies = []
        for frame in candidates:
            order = best(frame)
            weights = softmax(sorted(frame, key=lambda candidate: -candidate[0]))
            copies.append(weighted(order, weights[: len(order)]))
        return sum(copies) / len(copies)
    together = [candidate for frame in candidates for candidate in frame]
    chosen = together if config.selection == "softmax" else best(together)
    return weighted(chosen, softmax(chosen))


def naive_propagation(
    features: list[Tensor], labels: Tensor, config: PropagationSettings
) -> Tensor:
    """Labels (L, h, w) of the last frame; every candidate and every padded copy written out."""
    height, width = features[0].shape[1:]
    if config.normalise:
        features = [f / f.norm(dim=0, keepdim=True).clamp(min=1e-12) for f in features]
    stored = [labels]
    for t in range(1, len(features)):
        new = torch.zeros_like(labels)
        for y in range(height):
            for x in range(width):
                candidates = []
                for i, radius in naive_references(config, t):
                    found = naive_candidates(
                        config, features[t][:, y, x], features[i], y, x, radius
                    )
                    flat = stored[i].flatten(1)
                    candidates.append(
                        [(score, None if cell is None else flat[:, cell]) for score, cell in found]
                    )
                new[:, y, x] = naive_copy(config, candidates)
        stored.append(new)
    return stored[-1]


RULES = {
    "joint": {"selection": "top_k_then_softmax"},
    "attention": {"selection": "softmax", "early": "available"},
    "by frame": {"selection": "softmax_then_top_k", "combine": "mean"},
    "zero border": {"outside": "zero", "early": "available"},
    "attention, zero border": {"selection": "softmax", "outside": "zero", "early": "available"},
    "spread memory": {"anchors": (0, 2), "interval": 2, "early": "available"},
    "no anchor": {"anchors": (), "early": "available"},
}


@settings(max_examples=60, deadline=None)
@example(
    seed=0, height=2, width=2, frames=3, rule="zero border", radius=3.5, radius_first=2.0,
    early="available", tiled=True, window="square", top_k=3, context=2,
)  # fmt: skip
@given(
    seed=st.integers(0, 2**16),
    height=st.integers(2, 6),
    width=st.integers(2, 6),
    frames=st.integers(2, 5),
    rule=st.sampled_from(sorted(RULES)),
    window=st.sampled_from(["disc", "square"]),
    top_k=st.integers(1, 6),
    radius=st.sampled_from([None, 1.0, 1.5, 2.0, 3.5]),
    radius_first=st.sampled_from([None, 2.0]),
    context=st.integers(1, 4),
    early=st.sampled_from(["copies", "again", "available"]),
    tiled=st.booleans(),
)
def test_equals_the_plain_implementation(
    seed, height, width, frames, rule, radius, radius_first, early, tiled, **fields
):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(5, height, width, generator=generator) for _ in range(frames)]
    labels = torch.rand(3, height, width, generator=generator)
    fields |= {"radius": radius, "radius_first": radius_first, "early": early} | RULES[rule]
    if "outside" in fields:
        fields |= {"radius": radius or 2.0, "radius_first": radius_first or 2.0}
    if rule == "by frame":
        fields["radius_first"] = radius
    config = PropagationSettings(**fields)
    propagator = Propagator(config, tiled)
    memory = propagator.begin(features[0], labels, (height, width))
    for frame in features[1:]:
        found = propagator.step(memory, frame)
    expected = naive_propagation(features, labels, config)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_searching_fewer_frames_at_once_changes_nothing(monkeypatch, rule):
    fields = {"context": 5, "radius": 3.0, "radius_first": 3.0, "top_k": 4} | RULES[rule]
    config = PropagationSettings(**fields)
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(5, 7, 8, generator=generator) for _ in range(7)]
    found = []
    for most in (32_000_000, 2 * 12 * 12 * 5, 1):
        monkeypatch.setattr(matching, "WINDOW_ELEMENTS", most)
        propagator = Propagator(config, tiled=True)
        labels = torch.rand(2, 7, 8, generator=torch.Generator().manual_seed(1))
        memory = propagator.begin(features[0], labels, (7, 8))
        for frame in features[1:]:
            found_labels = propagator.step(memory, frame)
        found.append((found_labels, len(propagator._groups(memory))))
    for labels, groups in found[1:]:
        torch.testing.assert_close(labels, found[0][0])
        assert groups > found[0][1]


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("similar", [0.0, 0.9, 0.9999])
@pytest.mark.parametrize("tiled", [False, True])
def test_screening_changes_nothing(monkeypatch, similar, tiled, scale):
    """Also where features hardly differ, so that bfloat16 tells them apart badly."""
    generator = torch.Generator().manual_seed(1)
    common = torch.rand(128, 1, 1, generator=generator)
    features = [
        scale * (similar * common + (1 - similar) * torch.rand(128, 14, 17, generator=generator))
        for _ in range(4)
    ]
    config = PropagationSettings(context=3, radius=5.0, normalise=scale == 1)
    labels = torch.rand(2, 14, 17, generator=generator)
    found = []
    for channels in (96, 1000):
        monkeypatch.setattr(screening, "ENOUGH_CHANNELS", channels)
        memory = (propagator := Propagator(config, tiled)).begin(features[0], labels, (14, 17))
        assert (memory.screen is not None) == (channels == 96)
        for frame in features[1:3]:
            propagator.step(memory, frame)
        queries = propagator._prepare(features[3]).flatten(1).T.contiguous()
        slots = memory.recent_slots()
        found.append(best_candidates(config, memory, queries, slots, config.radius, tiled))
    (score, slot, cell), (plain, _, _) = found
    torch.testing.assert_close(score, plain, rtol=1e-5, atol=1e-6)
    # The candidates are those that the scores are of, and each is there once.
    keys = memory.keys[slot, cell // 17, cell % 17]
    torch.testing.assert_close(torch.einsum("nc,nkc->nk", queries, keys), score)
    assert all(len(set(row)) == config.top_k for row in (slot * 14 * 17 + cell).tolist())


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
    memory = propagator.begin(features[0], labels, given["mask"].shape)
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
    memory = propagator.begin(torch.randn(4, 8, 9), torch.rand(2, 8, 9), (8, 9))
    before = memory.keys.numel(), memory.labels.numel()
    for _ in range(10):
        propagator.step(memory, torch.randn(4, 8, 9))
    assert (memory.keys.numel(), memory.labels.numel()) == before
    assert len(memory.recent_slots()) == 3


def test_identical_frames_keep_the_labels():
    """With unique features and one candidate, every cell finds itself."""
    features = torch.eye(12).reshape(12, 3, 4)
    labels = torch.rand(2, 3, 4)
    propagator = Propagator(PropagationSettings(top_k=1))
    memory = propagator.begin(features, labels, (3, 4))
    torch.testing.assert_close(propagator.step(memory, features), labels)


def test_labels_do_not_change_affinities():
    features = torch.randn(6, 5, 5)
    propagator = Propagator(PropagationSettings())
    few = propagator.begin(features, torch.rand(2, 5, 5), (5, 5))
    many = propagator.begin(features, torch.rand(9, 5, 5), (5, 5))
    query = torch.nn.functional.normalize(torch.randn(25, 6), dim=1)
    one, two = propagator.affinity(few, query), propagator.affinity(many, query)
    assert torch.equal(one.cell, two.cell)
    assert torch.equal(one.weight, two.weight)
