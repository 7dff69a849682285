"""What is asked of a method: features at taps, and foreground where it can tell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
"""As :meth:`bench.method.HasFeatures.features_at`."""


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
    """What can be measured of a method; None without :class:`bench.method.HasFeatures`."""
    if not isinstance(method, HasFeatures):
        return None
    segment = _foreground(method) if isinstance(method, Unprompted) else None
    return Representation(method.feature_taps(), method.features_at, segment)


def _foreground(method: Unprompted) -> Callable[[RGB], NDArray[np.bool_]]:
    @torch.inference_mode()
    def segment(image: RGB) -> NDArray[np.bool_]:
        _, scores = method.begin_unprompted(Frame(0, "0", image))
        return np.asarray((scores.argmax(0) != 0).cpu().numpy(), np.bool_)

    return segment
