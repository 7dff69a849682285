"""Domain factors: what a worse camera, light or codec does to a frame.

Each has a strength in [0, 1]; 0 leaves the frame exactly as it is. They follow the order of a real
camera: optics, sensor, scaling, codec. Motion blur comes before all of them and is made by the
scene, because it needs the true motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB

Float = NDArray[np.float32]

LONGEST_SHUTTER = 1.0
"""Frames for which the shutter is open at blur 1: all the time (360 degrees)."""

WIDEST_DEFOCUS = 0.008
"""Standard deviation of the defocus at blur 1, as a share of the frame's height."""

DARKEST = 0.04
"""Light that is left at low_light 1, as a share of the full light (about 4.6 stops down)."""

FULL_WELL = 350.0
"""Photons of a white pixel in full light; what sets shot noise once light is low."""

READ_NOISE = 0.004
"""Standard deviation of the sensor's own noise at low_light 1, as a share of white."""

SMALLEST = 0.2
"""Scale at low_resolution 1."""

BEST_QUALITY, WORST_QUALITY = 92, 6
"""JPEG qualities just above compression 0 and at 1."""


@dataclass(frozen=True)
class Factors:
    """Strengths in [0, 1]; 0 is off.

    Attributes:
        blur: motion blur along the true motion and some defocus.
        low_light: less light with shot and read noise, in linear light.
        low_resolution: fewer pixels, shown enlarged again.
        compression: JPEG artefacts.
    """

    blur: float = 0.0
    low_light: float = 0.0
    low_resolution: float = 0.0
    compression: float = 0.0

    @property
    def shutter(self) -> float:
        """How long the shutter is open, in frames."""
        return LONGEST_SHUTTER * self.blur


def degrade(image: Float, factors: Factors, rng: np.random.Generator) -> RGB:
    """Apply defocus, low light, low resolution and compression.

    Args:
        image: float32 RGB ``(H, W, 3)`` in [0, 255], already motion-blurred.
        factors: strengths.
        rng: draws the sensor's noise; used only where ``low_light`` is on.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    height, width = image.shape[:2]
    if factors.blur > 0:
        image = cv2.GaussianBlur(image, (0, 0), WIDEST_DEFOCUS * height * factors.blur)
    if factors.low_light > 0:
        image = _darken(image, factors.low_light, rng)
    if factors.low_resolution > 0:
        scale = SMALLEST**factors.low_resolution
        small = max(2, round(width * scale)), max(2, round(height * scale))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    out = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if factors.compression > 0:
        # Geometric, because qualities above 50 are hard to tell apart.
        quality = BEST_QUALITY * (WORST_QUALITY / BEST_QUALITY) ** factors.compression
        bgr = cv2.cvtColor(out, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
        out = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8)
    return out


def _darken(image: Float, strength: float, rng: np.random.Generator) -> Float:
    """Less light and the noise that comes with it; float32 ``(H, W, 3)`` in [0, 255]."""
    light = (image / 255) ** 2 * DARKEST**strength
    # Shot noise has the variance of the photon count; fewer photons, more noise against signal.
    # It fades in with the strength, so that a tiny strength changes little.
    shot = np.sqrt(light / FULL_WELL * strength)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    light = light + noise * np.sqrt(shot**2 + (READ_NOISE * strength) ** 2)
    # The camera's gain makes up for a third of the lost stops, noise included.
    light = light * DARKEST ** (-strength / 3)
    return (255 * np.sqrt(np.clip(light, 0, 1))).astype(np.float32)
