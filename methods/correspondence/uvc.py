"""UVC: objects are tracked as boxes, and labels copied inside them, where this is asked for.

Source: Li et al., Joint-task Self-supervised Learning for Temporal Correspondence, NeurIPS 2019.
The better row of its tables is with tracking. The released script for it does not run as it is, so
no reference outputs exist; see :mod:`methods.correspondence.tracking`.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from bench.method import Context, ProtocolRecord
from bench.registry import register_method
from bench.video import Frame, Mask, object_ids
from methods.correspondence.method import Correspondence, CorrespondenceSettings, VideoState
from methods.correspondence.systems import make_card
from methods.correspondence.tracking import Tracker, TrackingSettings, object_labels
from methods.correspondence.training import UVCTraining


class UVCSettings(CorrespondenceSettings):
    """Settings of ``uvc``.

    Attributes:
        tracking: of objects as boxes; None copies from whole frames.
    """

    tracking: TrackingSettings | None = None

    @model_validator(mode="after")
    def _trackable(self) -> UVCSettings:
        propagation = self.propagation
        if self.tracking is not None and not (
            propagation.selection == "softmax_then_top_k"
            and propagation.radius is propagation.radius_first is None
            and propagation.early == "available"
            and propagation.interval == 1
        ):
            raise ValueError(
                "tracking needs propagation.selection 'softmax_then_top_k', radius null, "
                "early 'available' and interval 1, as the preset paper has them"
            )
        return self


@register_method("uvc")
class UVC(Correspondence):
    """Localises a region, then copies its colours."""

    Settings = UVCSettings
    TrainingSettings = UVCTraining
    card = make_card(
        "uvc",
        "UVC",
        "Joint-task: a region is localised in the other frame and its colours are copied there.",
        "Li et al.: Joint-task Self-supervised Learning for Temporal Correspondence. NeurIPS 2019",
        833,
        "Kinetics",
    )

    def __init__(self, settings: UVCSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.settings: UVCSettings = settings

    def protocol(self) -> ProtocolRecord:
        """As all systems, and whether there are boxes."""
        record = super().protocol()
        if self.settings.tracking is None:
            return record
        return ProtocolRecord(**{**record.__dict__, "extra": {**record.extra, "tracking": "boxes"}})

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> VideoState:
        """As all systems; with tracking, the objects' boxes are found besides."""
        state = super().begin(frame, mask)
        if self.settings.tracking is not None:
            state.extra = Tracker(self.settings.tracking)
            state.extra.remember(state.memory, self._numbers(mask, 1))
        return state

    @torch.inference_mode()
    def step(self, state: VideoState, frame: Frame) -> tuple[VideoState, Tensor]:
        """Propagate to the next frame, inside the boxes where there are some."""
        if self.settings.tracking is None:
            return super().step(state, frame)
        tracker: Tracker = state.extra
        features = self.features(frame.image)
        labels = self.propagator.step(state.memory, features, locate=tracker.locate)
        scores = state.memory.scores(labels)
        tracker.remember(state.memory, scores.argmax(0).to(torch.uint8))
        return state, self.settings.policy.restore_scores(scores, *state.size)

    @torch.inference_mode()
    def add_objects(self, state: VideoState, frame: Frame, mask: Mask) -> VideoState:
        """As all systems; with tracking, the new objects' boxes are found besides."""
        known = len(object_labels(state.memory))
        state = super().add_objects(state, frame, mask)
        if self.settings.tracking is not None:
            state.extra.add(state.memory, self._numbers(mask, known + 1))
        return state

    def _numbers(self, mask: Mask, first: int) -> Tensor:
        """Objects of a mask, counted from ``first`` on, at the size that the encoder sees."""
        ids = object_ids(mask)
        number = np.zeros(256, np.uint8)
        number[list(ids)] = range(first, first + len(ids))
        return torch.from_numpy(number[self.settings.policy.resize_mask(mask)]).to(
            self.context.device
        )
