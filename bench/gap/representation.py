"""What is asked of a method: features at taps, and foreground where it can tell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import ConfigError
from bench.method import HasFeatures, Method, Unprompted
from bench.video import RGB, Frame

Map = NDArray[np.float32]
"""float32 ``(C, h, w)``."""

FeatureFunction = Callable[[RGB, Sequence[str]], Mapping[str, Tensor]]

ONLY_TAP = "encoder"
"""Name of the tap of methods that have a single one."""

OUTPUTS = ("logits", "prob", "ent")
"""Taps that are a segmentation, not features of it; only measured where asked for."""


class Representation:
    """A method as the measures see it.

    Attributes:
        taps: where features are taken, from the input towards the output.

    Args:
        taps: names.
        features: computes features ``(C, h, w)`` of one image at some taps.
        segment: foreground bool ``(H, W)`` of one image, or None where a method needs a mask.
    """

    def __init__(
        self,
        taps: Sequence[str],
        features: FeatureFunction,
        segment: Callable[[RGB], NDArray[np.bool_]] | None,
    ) -> None:
        self.taps = tuple(taps)
        self._features = features
        self.segment = segment

    @property
    def main_tap(self) -> str:
        """The tap that pictures, curves and the linear probe use: the last one."""
        return self.taps[-1]

    @torch.inference_mode()
    def features(self, image: RGB) -> dict[str, Map]:
        """Features of one image, uint8 RGB ``(H, W, 3)``, at every tap."""
        found = self._features(image, self.taps)
        return {tap: found[tap].detach().float().cpu().numpy() for tap in self.taps}

    def restricted(self, taps: Sequence[str]) -> Representation:
        """The same at some taps; :class:`ConfigError` where there is no such tap."""
        unknown = [tap for tap in taps if tap not in self.taps]
        if unknown:
            raise ConfigError(
                f"--taps {','.join(unknown)}",
                "no such tap",
                f"some of {', '.join(self.taps)}",
                "Correct it, or leave --taps out.",
            )
        return Representation(taps, self._features, self.segment)


def representation_of(method: Method) -> Representation | None:
    """What can be measured of a method; None where it offers no features.

    A method offers them by the mix-in :class:`bench.method.HasFeatures`, by a method
    ``features(image)`` that returns one map, or by an attribute ``frames``, a network with named
    taps and its way of looking at frames.
    """
    segment = _foreground(method) if isinstance(method, Unprompted) else None
    if isinstance(method, HasFeatures):
        taps = [tap for tap in method.feature_taps() if tap not in OUTPUTS]
        return Representation(taps, method.features_at, segment)
    frames: Any = getattr(method, "frames", None)
    if hasattr(frames, "network") and hasattr(frames, "on_frame"):
        names = [tap for tap in frames.network.channels if tap not in OUTPUTS]
        return Representation(names, _of_frame_network(frames), segment)
    single = getattr(method, "features", None)
    if callable(single):
        return Representation([ONLY_TAP], lambda image, taps: {ONLY_TAP: single(image)}, segment)
    return None


def _of_frame_network(frames: Any) -> FeatureFunction:
    """Features of a network that sees clips: the image is a clip that stands still."""

    def features(image: RGB, taps: Sequence[str]) -> Mapping[str, Tensor]:
        sizes = frames.geometry(image.shape)
        output = frames.network(frames.clip().push(frames.prepare(image)), taps)
        return {tap: frames.on_frame(output.taps[tap], tap, sizes) for tap in taps}

    return features


def _foreground(method: Method) -> Callable[[RGB], NDArray[np.bool_]]:
    unprompted = cast("Unprompted", method)

    @torch.inference_mode()
    def segment(image: RGB) -> NDArray[np.bool_]:
        _, scores = unprompted.begin_unprompted(Frame(0, "0", image))
        return np.asarray((scores.argmax(0) != 0).cpu().numpy(), np.bool_)

    return segment
