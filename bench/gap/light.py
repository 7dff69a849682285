"""Linear light and back: what a sensor adds up, and what a file stores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.video import RGB

Float = NDArray[np.float32]


def _decoded(code: NDArray[Any]) -> Float:
    """SRGB code values in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


LIGHT_OF_CODE: Float = _decoded(np.arange(256, dtype=np.float32) / 255)
LIGHT_OF_CODE.flags.writeable = False


def linearise(image: RGB) -> Float:
    """Linear light of an sRGB image: float32 ``(H, W, 3)`` in [0, 1]."""
    return LIGHT_OF_CODE[image]


def encode(light: NDArray[Any]) -> RGB:
    """Inverse of :func:`linearise`; clips to [0, 1]. uint8 ``(H, W, 3)``."""
    light = np.clip(light, 0, 1)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    image: RGB = np.rint(255 * code).astype(np.uint8)
    return image
