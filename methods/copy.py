"""``copy``: repeats the first mask. The floor that every table needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bench.method import AddsObjects, LabelRegime, Method, MethodCard, ProtocolRecord
from bench.registry import register_method
from bench.video import Frame, Mask, object_ids


@dataclass(frozen=True)
class CopyState:
    """One-hot scores ``(1 + objects, H, W)``, the same for every frame."""

    scores: torch.Tensor


@register_method("copy")
class Copy(Method, AddsObjects):
    """Predicts the given mask for every later frame."""

    card = MethodCard(
        name="copy",
        title="Copy first mask",
        description="Repeats the first mask on every frame: what a method scores without looking.",
        regime=LabelRegime(),
    )

    def protocol(self) -> ProtocolRecord:
        """Nothing but the first mask is remembered."""
        return ProtocolRecord(resolution="native", memory="first")

    def training_seconds(self) -> float:
        """Nothing is trained."""
        return 0.0

    def begin(self, frame: Frame, mask: Mask) -> CopyState:
        """Turn the mask into one-hot scores."""
        return CopyState(_one_hot(mask))

    def step(self, state: CopyState, frame: Frame) -> tuple[CopyState, torch.Tensor]:
        """The same scores again."""
        return state, state.scores

    def add_objects(self, state: CopyState, frame: Frame, mask: Mask) -> CopyState:
        """New objects cover what was there before."""
        new = _one_hot(mask)
        kept = state.scores * new[:1]
        return CopyState(torch.cat([kept, new[1:]]))


def _one_hot(mask: Mask) -> Any:
    pixels = torch.from_numpy(mask)
    return torch.stack([pixels == i for i in (0, *object_ids(mask))]).float()
