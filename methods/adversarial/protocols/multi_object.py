"""Several objects without a mask: components of the first frame's classes, then propagated."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.method import ProtocolRecord
from bench.propagation import labels_from_mask
from bench.video import Frame, Mask
from methods.adversarial.protocols.base import FromNothing
from methods.adversarial.protocols.frames import FrameNetwork, to_native
from methods.adversarial.protocols.propagation import (
    FeaturePropagationProtocol,
    LabelPropagationSettings,
    PropagatedVideo,
    PropagationProtocolSettings,
)


class MultiObjectSettings(LabelPropagationSettings):
    """Settings of :class:`MultiObjectProtocol`.

    Attributes:
        threshold: probability above which a pixel belongs to a class.
        smallest: share of the frame that a component must exceed.
        most: proposals; DAVIS allows 20.
    """

    kind: Literal["multi_object"] = "multi_object"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    smallest: float = Field(default=0.001, ge=0, lt=1)
    most: int = Field(default=20, ge=1, le=20)


class MultiObjectProtocol(FromNothing):
    """Proposes objects in the first frame and copies their labels along features."""

    def __init__(self, frames: FrameNetwork, settings: MultiObjectSettings) -> None:
        self.frames = frames
        self.settings = settings
        shared = settings.model_dump(include=set(LabelPropagationSettings.model_fields))
        self.propagation = FeaturePropagationProtocol(
            frames, PropagationProtocolSettings.model_validate(shared)
        )

    @torch.inference_mode()
    def begin(self, frame: Frame) -> tuple[PropagatedVideo, Tensor]:
        """Propose objects; the first frame's scores are their one-hot labels."""
        sizes = self.frames.geometry(frame.image.shape)
        window = self.frames.clip().push(self.frames.prepare(frame.image))
        classes = to_native(self.frames.classes(self.frames.network(window), sizes), sizes)
        mask = proposals(classes.float().cpu().numpy(), self.settings)
        ids = tuple(range(1, int(mask.max()) + 1))
        scores = labels_from_mask(mask, ids, sizes.native, self.frames.device)
        return self.propagation.begin(frame, mask), scores

    def step(self, state: PropagatedVideo, frame: Frame) -> tuple[PropagatedVideo, Tensor]:
        """Copy labels to the next frame."""
        return self.propagation.step(state, frame)

    def record(self) -> ProtocolRecord:
        """That of the propagation, and how objects are proposed."""
        record = self.propagation.record()
        proposed = f"components above {self.settings.threshold:g}, at most {self.settings.most}"
        return replace(record, extra={**record.extra, "proposals": proposed})


def proposals(classes: NDArray[np.float32], settings: MultiObjectSettings) -> Mask:
    """Connected components of each class, the likeliest first.

    Args:
        classes: probabilities ``(C, H, W)``, background first.
        settings: threshold, smallest area, most proposals.

    Returns:
        uint8 ids ``(H, W)``: 1 for the component with the largest mean probability, and so on.
        Where components of two classes overlap the likelier one has the pixel.
    """
    least = settings.smallest * classes[0].size
    found: list[tuple[float, NDArray[np.bool_]]] = []
    for probability in classes[1:]:
        above = (probability > settings.threshold).astype(np.uint8)
        count, components, statistics, _ = cv2.connectedComponentsWithStats(above)
        for component in range(1, count):
            if statistics[component, cv2.CC_STAT_AREA] > least:
                inside = components == component
                found.append((float(probability[inside].mean()), inside))
    found.sort(key=lambda item: -item[0])
    mask = np.zeros(classes.shape[1:], np.uint8)
    number = 0
    for _, inside in found:
        free = inside & (mask == 0)
        if number < settings.most and free.any():
            number += 1
            mask[free] = number
    return mask
