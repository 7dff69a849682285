"""The factors that make video look unlike photographs, each at severities 0 to 5.

A factor is a pure function of (image, mask, severity, generator). Severity 0 returns what it was
given. Photometric factors change colours and leave the mask; geometric ones move image and mask
together. The severities of line motion blur, defocus, compression and low resolution are those of
the common corruptions (Hendrycks and Dietterich, ICLR 2019; Michaelis et al., Benchmarking
Robustness in Object Detection, 2019), in pixels of the image as it is.

Random numbers come from the generator alone. A caller that gives every severity a generator of the
same seed gets the same direction at each, so that a curve over severities shows severity alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from bench.errors import ConfigError
from bench.gap.light import encode, linearise
from bench.gap.motion_blur import Float, blur_along_flow, blur_along_line, line_kernel
from bench.gap.placement import Placement, at_height, at_offset, cut_by_frame, placed
from bench.video import RGB, Mask

SEVERITIES = (0, 1, 2, 3, 4, 5)
"""0 is the identity; 5 is the worst."""

FULL_WELL = 1000.0
"""Photons that a white pixel collects in full light; what sets shot noise once light is low."""

READ_NOISE = 2.0
"""Standard deviation of the sensor's own noise, in photons."""

WIDEST_ANGLE = 45.0
"""The line of motion blur lies within this angle of the horizontal, in degrees."""

EXPOSURES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""How long the shutter is open in motion blur along flow, in frames, at severities 1 to 5."""


@dataclass(frozen=True)
class Photometric:
    """A factor that changes colours and leaves the mask as it is.

    Attributes:
        name: in :data:`FACTORS`, tables and settings.
        title: for axes.
        levels: what severities 1 to 5 mean.
        meaning: of a level, with its unit.
        change: makes an image worse: (image, level, generator) to image, all uint8 RGB
            ``(H, W, 3)``.
        per_frame: whether a video draws anew for every frame, as noise does; otherwise all frames
            of a video get the same draw.
    """

    name: str
    title: str
    levels: tuple[Any, ...]
    meaning: str
    change: Callable[[RGB, Any, np.random.Generator], RGB]
    per_frame: bool = False

    def __call__(
        self, image: RGB, mask: Mask | None, severity: int, rng: np.random.Generator
    ) -> tuple[RGB, Mask | None]:
        """Make one image worse.

        Args:
            image: uint8 RGB ``(H, W, 3)``; not written to.
            mask: uint8 ids ``(H, W)`` or None; handed back.
            severity: 0 to 5.
            rng: the only source of random numbers.

        Returns:
            The image, and the mask itself.

        Raises:
            ConfigError: a severity that does not exist.
        """
        if checked_severity(self.name, severity) == 0:
            return image, mask
        return self.change(image, self.levels[severity - 1], rng), mask


@dataclass(frozen=True)
class Geometric:
    """A factor that moves the object in the frame, and the mask with it.

    Attributes:
        name: in :data:`FACTORS`, tables and settings.
        title: for axes.
        levels: what severities 1 to 5 mean.
        meaning: of a level, with its unit.
        place: where the frame goes for an object: (mask, level, generator) to placement.
    """

    name: str
    title: str
    levels: tuple[float, ...]
    meaning: str
    place: Callable[[Mask, float, np.random.Generator], Placement]

    def placement(self, mask: Mask, severity: int, rng: np.random.Generator) -> Placement:
        """Where the frame goes; a video uses the placement of one frame for all.

        Raises:
            ConfigError: a severity that does not exist.
        """
        if checked_severity(self.name, severity) == 0:
            return Placement()
        return self.place(mask, self.levels[severity - 1], rng)

    def __call__(
        self, image: RGB, mask: Mask | None, severity: int, rng: np.random.Generator
    ) -> tuple[RGB, Mask | None]:
        """Move one image and its mask; a mask without an object leaves both as they are.

        Args:
            image: uint8 RGB ``(H, W, 3)``; not written to.
            mask: uint8 ids ``(H, W)``; all ids count as one object.
            severity: 0 to 5.
            rng: the only source of random numbers.

        Returns:
            Image and mask of the same shapes.

        Raises:
            ConfigError: a severity that does not exist, or no mask.
        """
        if checked_severity(self.name, severity) == 0:
            return image, mask
        if mask is None:
            raise ConfigError(
                f"factor {self.name}",
                "an image without a mask",
                "a mask that says where the object is",
                "Use labelled data, or a photometric factor.",
            )
        return placed(image, mask, self.placement(mask, severity, rng))


Factor = Photometric | Geometric


def checked_severity(factor: str, severity: int) -> int:
    """The severity, if it is one of :data:`SEVERITIES`; :class:`ConfigError` otherwise."""
    if severity not in SEVERITIES:
        raise ConfigError(
            f"factor {factor}: severity",
            repr(severity),
            f"one of {', '.join(map(str, SEVERITIES))}",
            "0 leaves the image as it is and 5 is the worst.",
        )
    return severity


def motion_blur_along_flow(image: RGB, flow: Float, severity: int) -> RGB:
    """Motion blur for a frame of a video, where its motion is known.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        flow: float ``(H, W, 2)``, motion of each pixel to the next frame, (x, y) in pixels.
        severity: 0 to 5; the shutter is open for :data:`EXPOSURES` frames around the frame.

    Returns:
        uint8 RGB ``(H, W, 3)``; the frame's mask stays right.

    Raises:
        ConfigError: a severity that does not exist.
    """
    if checked_severity("motion_blur", severity) == 0:
        return image
    return blur_along_flow(image, flow, EXPOSURES[severity - 1])


def _motion_blur(image: RGB, level: tuple[int, float], rng: np.random.Generator) -> RGB:
    angle = np.radians(rng.uniform(-WIDEST_ANGLE, WIDEST_ANGLE))
    return blur_along_line(image, line_kernel(*level, float(angle)))


def _defocus(image: RGB, sigma: float, rng: np.random.Generator) -> RGB:
    return encode(cv2.GaussianBlur(linearise(image), (0, 0), sigma))


def _low_light(image: RGB, gain: float, rng: np.random.Generator) -> RGB:
    photons = rng.poisson(linearise(image) * (gain * FULL_WELL)).astype(np.float32)
    photons += READ_NOISE * rng.standard_normal(image.shape, dtype=np.float32)
    return encode(photons / FULL_WELL)


def _low_resolution(image: RGB, scale: float, rng: np.random.Generator) -> RGB:
    height, width = image.shape[:2]
    small = max(1, round(width * scale)), max(1, round(height * scale))
    # INTER_AREA is the exact box filter when it shrinks.
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def _compression(image: RGB, quality: int, rng: np.random.Generator) -> RGB:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8)


FACTORS: Mapping[str, Factor] = MappingProxyType(
    {
        factor.name: factor
        for factor in (
            Photometric(
                "motion_blur",
                "Motion blur",
                ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
                "radius and standard deviation along a line, in pixels",
                _motion_blur,
            ),
            Photometric(
                "defocus",
                "Defocus",
                (1.0, 2.0, 3.0, 4.0, 6.0),
                "standard deviation, in pixels",
                _defocus,
            ),
            Photometric(
                "low_light",
                "Low light",
                (0.5, 0.3, 0.2, 0.1, 0.05),
                "share of the light that is left",
                _low_light,
                per_frame=True,
            ),
            Photometric(
                "low_resolution",
                "Low resolution",
                (0.6, 0.5, 0.4, 0.3, 0.25),
                "share of the width and height that is left",
                _low_resolution,
            ),
            Photometric(
                "compression",
                "Compression",
                (25, 18, 15, 10, 7),
                "JPEG quality",
                _compression,
            ),
            Geometric(
                "location",
                "Location",
                (0.08, 0.16, 0.24, 0.32, 0.40),
                "offset of the object's centre, as a share of the frame",
                at_offset,
            ),
            Geometric(
                "framing",
                "Framing",
                (0.12, 0.24, 0.36, 0.48, 0.60),
                "share of the object outside the frame",
                cut_by_frame,
            ),
            Geometric(
                "scale",
                "Scale",
                # From 60 % to 8 % in equal ratios.
                (0.60, 0.363, 0.219, 0.132, 0.08),
                "height of the object, as a share of the frame's",
                at_height,
            ),
        )
    }
)
"""Factors by name."""


def get_factor(name: str) -> Factor:
    """The factor of a name; :class:`ConfigError` lists the names there are."""
    if name not in FACTORS:
        raise ConfigError(
            f"factor {name!r}",
            "no such name",
            f"one of {', '.join(FACTORS)}",
            "Choose one of these.",
        )
    return FACTORS[name]
