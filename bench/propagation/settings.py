"""How labels are propagated: every point on which systems differ, as a named setting."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from bench.method import MethodSettings, ProtocolRecord

Window = Literal["disc", "square"]
"""Shape of the window: Euclidean distance strictly below the radius, or at most the radius along
both axes."""

Outside = Literal["exclude", "zero"]
"""Window cells outside the map: no candidates, or candidates with score 0 and label 0 (the effect
of zero padding in a correlation layer, which takes weight away near the border)."""

Selection = Literal["top_k_then_softmax", "softmax_then_top_k", "softmax"]
"""Softmax over the best candidates; or over all candidates, of which the best are kept without
renormalising; or over all candidates."""

Combination = Literal["joint", "mean"]
"""Candidates of all remembered frames compete with each other; or each frame gives a copy of its
own, and the mean counts."""

Early = Literal["copies", "again", "available"]
"""While the video is younger than the context: fill it with copies of the first frame, which then
compete like any other frame; count the first frame once as a recent one too; or remember just
what there is."""

LabelState = Literal["soft", "hard"]
"""What is remembered of a frame: label probabilities on the feature grid, or the ids of its mask
at full resolution, brought to the grid again."""

LabelDown = Literal["bilinear", "bilinear_aligned", "nearest", "stride", "truncated_ids"]
"""How a mask comes to the feature grid: bilinear at pixel centres (OpenCV's), bilinear with aligned
corners, nearest (Pillow's), every s-th pixel, or channel numbers resized bilinearly as if they were
quantities and truncated (CorrFlow's, which makes up labels at edges between objects)."""

LabelUp = Literal["bilinear", "bilinear_aligned"]
"""How labels come to the frame's size."""

MinMax = Literal["no", "output", "memory"]
"""Whether each label's map is stretched to [0, 1]: not, in the output only, or in memory too."""


class PropagationSettings(MethodSettings):
    """How labels are propagated. The defaults are those of CRW (Jabri et al., NeurIPS 2020).

    Attributes:
        normalise: divide features by their L2 norm, so that the affinity is the cosine.
        temperature: divides the affinity before the softmax.
        selection: which candidates count, and where the softmax is.
        top_k: candidates kept per cell; meaningless where ``selection`` is ``softmax``.
        combine: over remembered frames.
        window: shape of the window of candidates around a cell.
        radius: of the window, in cells; None compares with the whole map.
        radius_first: the same for the first frame; None is the whole map.
        outside: what window cells outside the map are.
        anchors: numbers of the frames that stay in memory for good.
        context: how many recent frames are remembered besides the anchors.
        interval: recent frames are those 1, 1 + interval, 1 + 2 interval, … before the target.
        early: what stands in for recent frames before the video's start.
        predict_first: the first frame is also predicted from its own mask, and this prediction
            is the first of the recent frames (CycleTime).
        distant: references older than this many frames are searched in two steps, coarse and
            fine (MAST's long-term memory); None treats all alike.
        distant_labels: labels of a distant reference are sampled where its features were found
            (``own``), or where those of the latest distant reference were (``last``: MAST's
            released code, by a slip that is part of its published results).
        label_state: what is remembered.
        label_down: how masks come to the feature grid.
        label_up: how labels come to the frame.
        min_max: stretching of each label's map.
    """

    normalise: bool = True
    temperature: float = Field(default=0.05, gt=0)
    selection: Selection = "top_k_then_softmax"
    top_k: int = Field(default=10, ge=1)
    combine: Combination = "joint"
    window: Window = "disc"
    radius: float | None = Field(default=12.0, gt=0)
    radius_first: float | None = Field(default=None, gt=0)
    outside: Outside = "exclude"
    anchors: tuple[int, ...] = (0,)
    context: int = Field(default=20, ge=1)
    interval: int = Field(default=1, ge=1)
    early: Early = "copies"
    predict_first: bool = False
    distant: int | None = Field(default=None, ge=1)
    distant_labels: Literal["own", "last"] = "own"
    label_state: LabelState = "soft"
    label_down: LabelDown = "bilinear"
    label_up: LabelUp = "bilinear"
    min_max: MinMax = "no"

    @model_validator(mode="after")
    def _consistent(self) -> PropagationSettings:
        if list(self.anchors) != sorted(set(self.anchors)) or min(self.anchors, default=0) < 0:
            raise ValueError(f"anchors {self.anchors}: expected ascending frame numbers")
        if self.early != "available" and (0 not in self.anchors or self.interval != 1):
            raise ValueError(
                f"early {self.early!r} needs frame 0 among the anchors and an interval of 1"
            )
        if self.selection == "softmax" and self.early != "available":
            raise ValueError("selection 'softmax' knows no copies: set early to 'available'")
        if self.selection == "softmax" and self.combine == "mean":
            raise ValueError("combine 'mean' needs a selection of top_k candidates")
        if self.selection == "softmax_then_top_k" and self.combine == "joint":
            raise ValueError("selection 'softmax_then_top_k' is one frame's: set combine to 'mean'")
        if self.selection == "top_k_then_softmax" and self.combine == "mean":
            raise ValueError("combine 'mean' needs selection 'softmax_then_top_k'")
        if (
            self.combine == "mean"
            and self.early != "available"
            and self.radius_first != self.radius
        ):
            raise ValueError(
                "combine 'mean' with copies of the first frame needs radius_first equal to radius"
            )
        if self.outside == "zero" and (self.radius is None or self.early != "available"):
            raise ValueError("outside 'zero' needs a radius, and early 'available'")
        if self.distant is not None and (self.selection != "softmax" or self.window != "square"):
            raise ValueError("distant needs selection 'softmax' and a square window")
        return self

    def reach(self, radius: float | None) -> int:
        """The largest offset inside a window along one axis, in cells; 0 for the whole map."""
        if radius is None:
            return 0
        return math.floor(radius) if self.window == "square" else max(0, math.ceil(radius) - 1)

    def record(self, stride: int, resolution: str) -> ProtocolRecord:
        """The record that goes with every result."""
        return ProtocolRecord(
            resolution=resolution,
            stride=stride,
            memory=self._memory_text(),
            top_k=None if self.selection == "softmax" else self.top_k,
            radius=self.radius,
            temperature=self.temperature,
            label_resize=f"{self.label_down} / {self.label_up}".replace("_", " "),
            extra={
                "radius_first": "map" if self.radius_first is None else str(self.radius_first),
                "window": self.window,
                "selection": self.selection.replace("_", " "),
                "labels": self.label_state,
            },
        )

    def _memory_text(self) -> str:
        recent = f"{self.context}" + (f" every {self.interval}" if self.interval > 1 else "")
        anchors = {(): "", (0,): "first + "}.get(
            self.anchors, "{" + ", ".join(map(str, self.anchors)) + "} + "
        )
        suffix = {"copies": " (padded)", "again": " (first again)", "available": ""}[self.early]
        return anchors + recent + suffix
