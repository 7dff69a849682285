"""TWIAA, our reading of it: a cycle in time with attention over the template. Not reproduced.

Of the paper (Neurocomputing 2021, doi 10.1016/j.neucom.2021.04.090) only this much was known here:
a Siamese network trained by cycle-consistency, with an "integration-augmented attention" module
that is meant to decide which part of a random template to track, and to help with occlusion. No
code was released. This is CycleTime with two additions of our own that serve these two ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.correspondence.pretext.clips import Sample
from methods.correspondence.pretext.cycletime import (
    CycleTimeObjective,
    CycleTimeSettings,
    augment,
)
from methods.correspondence.pretext.transformer import GRID_POINTS

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder

__all__ = ["TWIAAObjective", "TWIAASettings", "TemplateAttention", "TemplateMemory", "augment"]


class TWIAASettings(CycleTimeSettings):
    """How our reading of TWIAA is trained: CycleTime's settings and those of the attention.

    Attributes:
        attention: channels in which template cells are compared.
        uniform_share: part of the weight that all cells share evenly, so that attention cannot
            escape to the few cells that are easily followed.
        history: templates that are aggregated, the latest included; 1 aggregates none.
    """

    attention: int = Field(default=32, ge=1)
    uniform_share: float = Field(default=0.5, ge=0, le=1)
    history: int = Field(default=3, ge=1)


class TemplateAttention(nn.Module):
    """Self-attention over a template's cells: how much each cell counts in the cycle loss.

    A cell's weight is the attention that all cells pay it.

    Args:
        channels: of the template.
        attention: channels in which cells are compared.
        uniform_share: part of the weight that is spread evenly.
    """

    def __init__(self, channels: int, attention: int, uniform_share: float) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, attention, 1)
        self.key = nn.Conv2d(channels, attention, 1)
        self.uniform_share = uniform_share

    def forward(self, template: Tensor) -> Tensor:
        """A template ``(B, C, s, s)`` to weights ``(B, s, s)`` that sum up to 1."""
        query, key = self.query(template).flatten(2), self.key(template).flatten(2)
        paid = F.softmax(query.mT @ key * query.shape[1] ** -0.5, dim=2)
        received = torch.unflatten(paid.mean(1), 1, template.shape[2:])
        even = 1 / received[0].numel()
        return self.uniform_share * even + (1 - self.uniform_share) * received


class TemplateMemory(nn.Module):
    """Aggregates the latest templates, so that one occluded crop does not lose the object.

    Each cell of the latest template attends to all cells of the earlier ones; what it reads is
    added to it.

    Args:
        history: templates that are aggregated, the latest included.
        temperature: of the attention between unit vectors.
    """

    def __init__(self, history: int, temperature: float) -> None:
        super().__init__()
        self.history = history
        self.temperature = temperature

    def forward(self, found: Sequence[Tensor]) -> Tensor:
        """Templates, unit vectors ``(B, C, s, s)`` each, to one of the same shape."""
        *earlier, latest = found[-self.history :]
        if not earlier:
            return latest
        cells = torch.stack(earlier, 2).flatten(2)  # (B, C, earlier * s * s)
        attention = F.softmax(latest.flatten(2).mT @ cells / self.temperature, dim=2)
        read = torch.unflatten(cells @ attention.mT, 2, latest.shape[2:])
        return F.normalize(latest + read, dim=1)


class TWIAAObjective(CycleTimeObjective):
    """CycleTime's losses, weighted by attention over the template, with aggregated templates.

    Args:
        encoder: maps of frames and of patches.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder, settings: TWIAASettings) -> None:
        super().__init__(encoder, settings)
        self.attention = TemplateAttention(
            encoder.channels, settings.attention, settings.uniform_share
        )
        self.memory = TemplateMemory(settings.history, settings.temperature)

    def next_template(self, found: Sequence[Tensor]) -> Tensor:
        """What is looked for next, ``(B, C, s, s)``: an aggregate of the latest templates."""
        aggregated: Tensor = self.memory(found)
        return aggregated

    def point_weights(self, patch: Tensor) -> Tensor:
        """Weights of the grid's points, summing up to 1.

        Args:
            patch: a template, ``(B, C, s, s)``.

        Returns:
            ``(B, GRID_POINTS, GRID_POINTS)``.
        """
        weights = self.attention(patch)[:, None]
        size = (GRID_POINTS, GRID_POINTS)
        points = F.interpolate(weights, size, mode="bilinear", align_corners=True)[:, 0]
        return points / points.sum((1, 2), keepdim=True)

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """CycleTime's weighted losses; see :meth:`CycleTimeObjective.forward`."""
        frames, target, patch = self.encode(batch)
        cycles = self.track(frames, target, patch)
        return self.losses(cycles, batch["theta"], self.point_weights(patch))
