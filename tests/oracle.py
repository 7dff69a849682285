"""Weights by the deterministic rule of the reference outputs: numbers drawn per tensor name."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def rule_weights(
    shapes: Mapping[str, Sequence[int]],
    scale: Sequence[tuple[str, float]] | None = None,
    override: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Weights by official names: the rule, then factors by pattern, then replaced values."""
    return {
        name: _tensor(name, tuple(shape), scale or (), override or {})
        for name, shape in shapes.items()
    }


def _tensor(
    name: str,
    shape: tuple[int, ...],
    scale: Sequence[tuple[str, float]],
    override: Mapping[str, Any],
) -> Tensor:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if name.endswith("running_mean"):
        values = 0.1 * random.standard_normal(shape)
    elif name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:
        values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * random.standard_normal(shape)
    single = np.asarray(values, np.float32)
    for pattern, factor in scale:
        if re.search(pattern, name):
            single = single * np.float32(factor)
    if name in override:
        single = np.asarray(override[name], np.float32).reshape(shape)
    return torch.from_numpy(np.array(single))
