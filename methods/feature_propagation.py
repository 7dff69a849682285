"""A method made of an encoder and the propagator: the shape of most systems in the table."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.method import AddsObjects, Context, HasFeatures, Method, MethodSettings
from bench.propagation import Memory, PropagationSettings, Propagator, labels_from_mask
from bench.video import RGB, Frame, Mask, object_ids

TAP = "features"
"""The tap of methods that name no others: what labels are propagated along."""


@dataclass
class PropagationState:
    """One video: what is remembered of it."""

    memory: Memory


class FeaturePropagation(Method, AddsObjects, HasFeatures):
    """Encodes every frame once and propagates labels along feature affinities.

    A subclass provides :meth:`encode` and calls ``super().__init__`` with its propagation
    settings.
    """

    def __init__(
        self, settings: MethodSettings, context: Context, propagation: PropagationSettings
    ) -> None:
        super().__init__(settings, context)
        self.propagator = Propagator(propagation)

    @abc.abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """Features of one frame.

        Args:
            image: float32 ``(1, 3, H, W)`` RGB in [0, 1], on the method's device.

        Returns:
            float ``(C, h, w)``.
        """

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size (H, W) at which a frame of this native size is encoded."""
        return size

    def _features(self, image: RGB) -> Tensor:
        pixels = torch.from_numpy(image).to(self.context.device).permute(2, 0, 1)[None]
        pixels = pixels.float().div_(255)
        size = self.working_size((image.shape[0], image.shape[1]))
        if size != image.shape[:2]:
            pixels = F.interpolate(
                pixels, size=size, mode="bilinear", align_corners=False, antialias=True
            )
        return self.encode(pixels)

    def feature_taps(self) -> tuple[str, ...]:
        """One tap, ``features``: what labels are propagated along. Subclasses may name more."""
        return (TAP,)

    @torch.inference_mode()
    def features_at(self, image: RGB, taps: Sequence[str]) -> Mapping[str, Tensor]:
        """What :meth:`encode` makes of the image at its working size, as float32."""
        return dict.fromkeys(taps, self._features(image).float())

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> PropagationState:
        """Remember the first frame and its mask; see :meth:`bench.method.Method.begin`."""
        features = self._features(frame.image)
        labels = self._labels(mask, (features.shape[1], features.shape[2]))
        size = (mask.shape[0], mask.shape[1])
        return PropagationState(self.propagator.begin(features, labels, size))

    @torch.inference_mode()
    def step(self, state: PropagationState, frame: Frame) -> tuple[PropagationState, Tensor]:
        """Propagate to the next frame; scores are the labels resized to the frame's size."""
        labels = self.propagator.step(state.memory, self._features(frame.image))
        return state, state.memory.scores(labels)

    @torch.inference_mode()
    def add_objects(self, state: PropagationState, frame: Frame, mask: Mask) -> PropagationState:
        """Propagate new objects from this frame on; see :meth:`Propagator.add`."""
        memory = state.memory
        self.propagator.add(memory, self._labels(mask, (memory.height, memory.width)))
        return state

    def _labels(self, mask: Mask, grid: tuple[int, int]) -> Tensor:
        return labels_from_mask(
            mask,
            object_ids(mask),
            grid,
            self.context.device,
            self.propagator.settings.label_down,
        )


def short_side_size(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Size (H, W) with the given short side and the same aspect; unchanged for None.

    Frames are never enlarged: that would add cost and no detail.
    """
    if short_side is None or min(size) <= short_side:
        return size
    scale = short_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)
