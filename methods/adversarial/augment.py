"""Augmentation: one distribution for images and frames.

Whatever differs between the domains here, be it a resize kernel or a border, is what a
discriminator finds first. All frames of a clip share what is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB
from datasets.synthetic.factors import Factors, degrade
from methods.adversarial.settings import AugmentationSettings

Labels = NDArray[np.uint8]
"""uint8 ``(H, W, 2)``: foreground (0 or 1) and class (0 is background); 255 is ignored."""

SHAPE = (3 / 4, 4 / 3)
"""Smallest and largest width by height of a crop."""

TRIES = 10
"""Crops that are drawn before the whole frame is taken."""

LONGEST_BLUR = 0.12
"""Longest motion blur, as a share of the crop's side."""

GREY = np.array((0.299, 0.587, 0.114), np.float32)


@dataclass(frozen=True)
class Clip:
    """Frames and their labels.

    Attributes:
        frames: uint8 RGB ``(H, W, 3)``, all of one size.
        labels: one for each frame.
        supervised: whether labels may be trained on.
    """

    frames: list[RGB]
    labels: list[Labels]
    supervised: bool


@dataclass(frozen=True)
class VideoLike:
    """What a video camera does to a picture.

    Attributes:
        blur: length of the motion blur in pixels; below 2 there is none.
        angle: its direction in radians.
        factors: darkness with noise, low resolution, compression.
    """

    blur: float
    angle: float
    factors: Factors


def augment(
    clip: Clip, random: np.random.Generator, settings: AugmentationSettings, video_like: float = 0.0
) -> Clip:
    """Crop, resize, flip and recolour a clip.

    Args:
        clip: of any size.
        random: where parameters come from.
        settings: their distribution.
        video_like: probability of each corruption of :class:`VideoLike`.

    Returns:
        A clip of ``settings.crop`` pixels squared.
    """
    rows, columns = draw_crop(random, clip.frames[0].shape[:2], settings.scale)
    step = -1 if random.random() < settings.flip else 1
    factors = random.uniform(1 - settings.colour, 1 + settings.colour, 3)
    frames = [resize(frame[rows, columns], settings.crop)[:, ::step] for frame in clip.frames]
    labels = [
        cv2.resize(
            one[rows, columns], (settings.crop, settings.crop), interpolation=cv2.INTER_NEAREST
        )[:, ::step]
        for one in clip.labels
    ]
    frames = recolour(frames, *factors)
    if video_like > 0:
        drawn = draw_video_like(random, video_like, settings.crop)
        frames = [corrupt(frame, drawn, random) for frame in frames]
    return Clip(frames, [np.asarray(one, np.uint8) for one in labels], clip.supervised)


def draw_crop(
    random: np.random.Generator, size: tuple[int, ...], scale: tuple[float, float]
) -> tuple[slice, slice]:
    """Draw a rectangle of random area, shape and place.

    (Szegedy et al., Going deeper with convolutions, CVPR 2015, section 6.)

    Args:
        random: where it comes from.
        size: (H, W) of the frame.
        scale: smallest and largest area as shares of the frame's.

    Returns:
        Rows and columns.
    """
    height, width = size[:2]
    for _ in range(TRIES):
        area = height * width * random.uniform(*scale)
        shape = np.exp(random.uniform(*np.log(SHAPE)))
        h, w = round((area / shape) ** 0.5), round((area * shape) ** 0.5)
        if 0 < h <= height and 0 < w <= width:
            top, left = random.integers(height - h + 1), random.integers(width - w + 1)
            return slice(int(top), int(top) + h), slice(int(left), int(left) + w)
    return slice(height), slice(width)


def resize(image: RGB, side: int) -> RGB:
    """Resize to a square: area-averaged down, bilinear up."""
    how = cv2.INTER_AREA if min(image.shape[:2]) > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=how), np.uint8)


def recolour(frames: list[RGB], brightness: float, contrast: float, saturation: float) -> list[RGB]:
    """Change brightness, contrast and saturation of all frames alike; 1 changes nothing.

    Contrast is taken about the clip's mean grey, so that frames keep their differences.
    """
    pixels = np.stack(frames).astype(np.float32) * brightness
    grey = pixels @ GREY
    mean = grey.mean()
    pixels = grey[..., None] + (pixels - grey[..., None]) * saturation
    pixels = mean + (pixels - mean) * contrast
    return list(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def draw_video_like(random: np.random.Generator, probability: float, side: int) -> VideoLike:
    """Draw corruptions, each with the given probability and of a random strength."""
    present = random.random(4) < probability
    blur, low_light, low_resolution, compression = random.random(4) * present
    return VideoLike(
        blur=blur * LONGEST_BLUR * side,
        angle=random.uniform(0, np.pi),
        factors=Factors(
            low_light=low_light, low_resolution=low_resolution, compression=compression
        ),
    )


def corrupt(frame: RGB, what: VideoLike, random: np.random.Generator) -> RGB:
    """Blur along a line, then darken, coarsen and compress.

    Args:
        frame: uint8 ``(H, W, 3)``.
        what: the corruptions.
        random: draws the sensor's noise.
    """
    pixels = frame.astype(np.float32)
    if what.blur >= 2:
        kernel = line_kernel(what.blur, what.angle)
        blurred = cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        pixels = np.asarray(blurred, np.float32)
    return degrade(pixels, what.factors, random)


def line_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """The mean along a line through the centre; float32, square, of sum 1.

    Args:
        length: in pixels.
        angle: in radians.
    """
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    # Points at most half a pixel apart, each shared out to the four pixels around it. Both ends are
    # among them, and none is beyond, where the square would end.
    along = np.linspace(-length / 2, length / 2, int(np.ceil(2 * length)) + 1)
    x, y = half + along * np.cos(angle), half + along * np.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - right - (x - left)) * np.abs(1 - below - (y - top))
        inside = weight > 1e-9
        np.add.at(kernel, ((top + below)[inside], (left + right)[inside]), weight[inside])
    return np.asarray(kernel / kernel.sum(), np.float32)
