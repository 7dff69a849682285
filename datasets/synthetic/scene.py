"""Scenes: layers of cut-outs that move over a photograph under a moving camera.

A scene is a pure function of time. Time ``t`` is counted in frames and may be fractional, which is
what motion blur needs. Nothing is kept between frames, so any frame can be rendered alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB, Mask
from datasets.synthetic.photos import Cutout

Float = NDArray[np.float32]

PERIOD = 24.0
"""Frames in one unit of time of the motions: a second of ordinary film."""

DETAIL = 1.2
"""Textures are kept this much larger than they are shown at scale 1, for when they come nearer."""

SUBFRAMES = 8
"""Instants averaged into one frame while the shutter is open."""

SHADOW_OPACITY = 0.4


@dataclass(frozen=True)
class Wave:
    """A smooth, bounded motion: ``amplitude * (sin(2 pi f t + phase) - sin(phase))``.

    It is 0 at t = 0, so that what a layer's start says holds in the first frame.

    Attributes:
        amplitude: in the unit of what moves.
        frequency: in cycles per :data:`PERIOD` frames.
        phase: in radians.
    """

    amplitude: float = 0.0
    frequency: float = 0.0
    phase: float = 0.0

    def __call__(self, t: float) -> float:
        """Its value at time ``t``, in frames."""
        angle = 2 * np.pi * self.frequency * t / PERIOD + self.phase
        return float(self.amplitude * (np.sin(angle) - np.sin(self.phase)))


STILL = Wave()


@dataclass(frozen=True)
class Pose:
    """Where a layer is at one instant.

    Attributes:
        x: of its pivot, in pixels of the frame.
        y: of its pivot, in pixels of the frame.
        scale: 1 shows it at its reference size.
        angle: in radians, clockwise on screen.
    """

    x: float
    y: float
    scale: float = 1.0
    angle: float = 0.0


@dataclass(frozen=True)
class Ripple:
    """A bending of the texture, smooth in space and time.

    Attributes:
        amplitude: in pixels of the texture.
        waves: wavelengths that fit across the object.
        frequency: in cycles per :data:`PERIOD` frames.
        phase: in radians.
    """

    amplitude: float = 0.0
    waves: float = 1.0
    frequency: float = 1.0
    phase: float = 0.0


@dataclass(frozen=True)
class Layer:
    """One thing in front of the background.

    Attributes:
        texture: float32 ``(h, w, 4)``: RGB in [0, 255] multiplied by alpha, then alpha in [0, 1].
        shadow: float32 ``(h, w)`` in [0, 1], or None for no shadow.
        label: object id, or 0 for a distractor or occluder.
        pose: its pose at any time; includes nothing of the camera.
        pivot: (x, y) of the texture that ``pose`` places, in pixels of the texture.
        ripple: how it bends.
    """

    texture: Float
    shadow: Float | None
    label: int
    pose: Callable[[float], Pose]
    pivot: tuple[float, float]
    ripple: Ripple = Ripple()


@dataclass(frozen=True)
class Camera:
    """How the camera moves; pans move the background, the rest moves everything.

    Attributes:
        pan_x: in pixels.
        pan_y: in pixels.
        zoom: relative, 0 for none.
        roll: in radians.
        shake: hand shake along x and y, in pixels; the sum of incommensurate waves.
    """

    pan_x: Wave = STILL
    pan_y: Wave = STILL
    zoom: Wave = STILL
    roll: Wave = STILL
    shake: tuple[tuple[Wave, ...], tuple[Wave, ...]] = ((), ())

    def matrix(self, t: float, size: tuple[int, int]) -> NDArray[np.float64]:
        """Zoom, roll and shake as a 3 x 3 matrix from unmoved to moved frame pixels."""
        height, width = size
        scale, angle = 1 + self.zoom(t), self.roll(t)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        x, y = width / 2, height / 2
        dx, dy = (sum(wave(t) for wave in axis) for axis in self.shake)
        return np.array(
            [
                [cos, -sin, x - cos * x + sin * y + dx],
                [sin, cos, y - sin * x - cos * y + dy],
                [0, 0, 1],
            ]
        )


@dataclass(frozen=True)
class Light:
    """How the illumination changes.

    Attributes:
        gain: relative brightness of everything.
        warmth: relative gain of red, and its opposite for blue.
        slope: brightness gained from one side of the frame to the other.
        slope_angle: direction of that slope, in radians.
    """

    gain: Wave = STILL
    warmth: Wave = STILL
    slope: Wave = STILL
    slope_angle: Wave = STILL


def resized(cutout: Cutout, size: float) -> Float:
    """A cut-out's texture at :data:`DETAIL` times a reference size.

    Args:
        cutout: what to resize.
        size: square root of its bounding box's area when shown at scale 1, in pixels.

    Returns:
        float32 ``(h, w, 4)``, RGB multiplied by alpha.
    """
    height, width = cutout.alpha.shape
    factor = DETAIL * size / float(np.sqrt(height * width))
    texture = np.dstack([cutout.colour * cutout.alpha[..., None], cutout.alpha])
    # Area averaging where it shrinks, so that fine texture does not flicker when it moves.
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    shape = max(2, round(width * factor)), max(2, round(height * factor))
    return cv2.resize(texture, shape, interpolation=how).astype(np.float32)


def shadow_of(texture: Float) -> Float:
    """A soft shadow for a texture: its blurred alpha, float32 ``(h, w)``."""
    blur = 0.04 * float(np.sqrt(texture.shape[0] * texture.shape[1]))
    return cv2.GaussianBlur(texture[..., 3], (0, 0), blur, borderType=cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class Scene:
    """Everything a sequence shows.

    Attributes:
        size: (H, W) of the frames, in pixels.
        canvas: the background, uint8 RGB, larger than the frame.
        layers: from back to front.
        camera: its motion.
        light: the illumination.
    """

    size: tuple[int, int]
    canvas: RGB
    layers: tuple[Layer, ...]
    camera: Camera
    light: Light

    def image(self, t: float, shutter: float = 0.0) -> Float:
        """The picture around time ``t``.

        Args:
            t: middle of the exposure, in frames.
            shutter: how long it is open, in frames; 0 freezes all motion.

        Returns:
            float32 RGB ``(H, W, 3)`` in [0, 255].
        """
        if shutter <= 0:
            return self._instant(t)
        total = np.zeros((*self.size, 3), np.float32)
        for k in range(SUBFRAMES):
            instant = self._instant(t + shutter * ((k + 0.5) / SUBFRAMES - 0.5))
            # Squares stand for linear light (gamma 2): a sensor adds up light, not code values.
            total += instant * instant
        return np.sqrt(total / SUBFRAMES)

    def mask(self, t: float) -> Mask:
        """The exact ids at time ``t``, uint8 ``(H, W)``; the topmost layer owns a pixel.

        With an open shutter this is the mask at the middle of the exposure.
        """
        mask = np.zeros(self.size, np.uint8)
        for layer in self.layers:
            drawn = self._sample(layer, layer.texture[..., 3], t)
            if drawn is not None:
                window, alpha = drawn
                mask[window][alpha >= 0.5] = layer.label
        return mask

    def _instant(self, t: float) -> Float:
        out = self._background(t)
        for layer in self.layers:
            if layer.shadow is not None:
                offset = 0.03 * self.size[0]
                shade = self._sample(layer, layer.shadow, t, (offset, offset))
                if shade is not None:
                    window, alpha = shade
                    out[window] *= 1 - SHADOW_OPACITY * alpha[..., None]
            drawn = self._sample(layer, layer.texture, t)
            if drawn is not None:
                window, rgba = drawn
                out[window] = out[window] * (1 - rgba[..., 3:]) + rgba[..., :3]
        return self._lit(out, t)

    def _background(self, t: float) -> Float:
        """The canvas under the camera, float32 ``(H, W, 3)``."""
        height, width = self.size
        rows, columns = self.canvas.shape[:2]
        centred = np.eye(3)
        centred[0, 2] = (width - columns) / 2 + self.camera.pan_x(t)
        centred[1, 2] = (height - rows) / 2 + self.camera.pan_y(t)
        matrix = (self.camera.matrix(t, self.size) @ centred)[:2]
        shown = cv2.warpAffine(
            self.canvas,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return shown.astype(np.float32)

    def _sample(
        self,
        layer: Layer,
        texture: Float,
        t: float,
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[tuple[slice, slice], Float] | None:
        """Draw a texture at a layer's pose.

        Returns:
            The window of the frame that it touches and the samples in it, ``(h, w)`` or
            ``(h, w, 4)``; None where it is outside the frame.
        """
        pose = layer.pose(t)
        cos = pose.scale / DETAIL * np.cos(pose.angle)
        sin = pose.scale / DETAIL * np.sin(pose.angle)
        px, py = layer.pivot
        x, y = pose.x + offset[0], pose.y + offset[1]
        placed = np.array(
            [[cos, -sin, x - cos * px + sin * py], [sin, cos, y - sin * px - cos * py], [0, 0, 1]]
        )
        matrix = self.camera.matrix(t, self.size) @ placed

        bend = abs(layer.ripple.amplitude)
        rows, columns = texture.shape[:2]
        corners = np.array(
            [
                [-bend, columns + bend, columns + bend, -bend],
                [-bend, -bend, rows + bend, rows + bend],
                [1, 1, 1, 1],
            ]
        )
        across, down, _ = matrix @ corners
        left, right = max(0, int(across.min()) - 1), min(self.size[1], int(across.max()) + 2)
        top, bottom = max(0, int(down.min()) - 1), min(self.size[0], int(down.max()) + 2)
        if left >= right or top >= bottom:
            return None

        back = np.linalg.inv(matrix)
        xs = np.arange(left, right, dtype=np.float32)[None]
        ys = np.arange(top, bottom, dtype=np.float32)[:, None]
        u = (back[0, 0] * xs + back[0, 1] * ys + back[0, 2]).astype(np.float32)
        v = (back[1, 0] * xs + back[1, 1] * ys + back[1, 2]).astype(np.float32)
        if bend:
            ripple = layer.ripple
            turn = 2 * np.pi * ripple.frequency * t / PERIOD + ripple.phase
            wave = 2 * np.pi * ripple.waves / max(rows, columns)
            bent_u = u + bend * np.sin(wave * v + turn).astype(np.float32)
            v = v + bend * np.sin(wave * u + 1.3 * turn + 1).astype(np.float32)
            u = bent_u
        drawn = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return (slice(top, bottom), slice(left, right)), drawn

    def _lit(self, image: Float, t: float) -> Float:
        """Apply the illumination, in place; float32 ``(H, W, 3)`` clipped to [0, 255]."""
        height, width = self.size
        gain, warmth = 1 + self.light.gain(t), self.light.warmth(t)
        image *= np.float32([gain * (1 + warmth), gain, gain * (1 - warmth)])
        if self.light.slope.amplitude:
            slope, angle = self.light.slope(t), self.light.slope_angle(t)
            xs = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
            ys = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
            image *= (1 + slope * (np.cos(angle) * xs + np.sin(angle) * ys))[..., None].astype(
                np.float32
            )
        return np.clip(image, 0, 255, out=image)
