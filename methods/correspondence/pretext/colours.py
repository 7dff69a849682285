"""Colours as targets: ab values, their palette, and what the encoder is not shown of them.

A copy is only worth learning if the target's colour cannot be read off the target itself. So the
encoder sees frames whose colour channels are partly dropped, and colours are what is copied.

Sources: Vondrick et al., Tracking emerges by colorizing videos, ECCV 2018, section 3.2 (palette of
16 colours); Lai and Xie, Self-supervised learning for video correspondence flow, BMVC 2019
(dropout of RGB channels, jitter); Lai, Lu, Xie, MAST, CVPR 2020 (dropout in Lab).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import cv2
import faiss
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import ConfigError, DataError
from bench.video import RGB
from methods.correspondence.inputs import LAB_STD, lab

Centroids = tuple[tuple[float, float], ...]
"""The a and b of each colour of a palette, in Lab's own units (about -110 to 110)."""

CENTROIDS: Centroids = (
    (-18.2, 46.1),
    (-15.6, -16.7),
    (-13.8, 32.2),
    (-12.5, 18.9),
    (-6.7, 7.4),
    (-4.7, -4.3),
    (0.1, -16.8),
    (0.7, 15.1),
    (1.0, 27.4),
    (1.3, 1.4),
    (1.3, -7.0),
    (4.3, 7.3),
    (5.8, -3.7),
    (6.7, -35.7),
    (15.9, 14.4),
    (30.5, 31.8),
)
"""Sixteen colours fitted with :func:`fit_centroids` on the 2,079 training frames of DAVIS-2016."""

RELEASED_CENTROIDS: Centroids = (
    (10.2, -25.5),
    (9.2, -5.5),
    (38.1, -55.2),
    (13.8, 29.9),
    (-22.9, 4.3),
    (0.4, -7.3),
    (-5.3, -13.5),
    (-9.1, 43.4),
    (2.8, -18.0),
    (-1.2, 21.7),
    (-8.0, -0.3),
    (34.0, 15.1),
    (22.4, -38.8),
    (5.7, 8.6),
    (54.3, -73.9),
    (0.2, 0.0),
)
"""The palette released with VidColor's public re-implementation and with CorrFlow.

It was fitted on frames whose red and blue were swapped, but is used on frames in the right order:
it has four strong blues and hardly an orange. It serves to train as the authors did.
"""

PALETTE_SIDE = 32
"""Frames are resized to squares of this side before a palette is fitted, in pixels."""


def ab(frame: RGB) -> Tensor:
    """The colour channels of CIE Lab, in their own units.

    Args:
        frame: uint8 RGB ``(H, W, 3)``.

    Returns:
        float32 ``(2, H, W)``, about -110 to 110.
    """
    return lab(frame)[1:] * float(LAB_STD[1])


def resize_frame(frame: RGB, side: int) -> RGB:
    """Resize a frame to a square, bilinearly and without regard to its shape.

    Args:
        frame: uint8 ``(H, W, 3)``.
        side: of the result, in pixels.
    """
    return np.asarray(cv2.resize(frame, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def quantise(colours: Tensor, centroids: Sequence[tuple[float, float]]) -> Tensor:
    """The nearest colour of a palette (VidColor, section 3.2).

    Args:
        colours: a and b, float ``(..., 2, H, W)``.
        centroids: the palette, in the same units.

    Returns:
        Its number, int64 ``(..., H, W)``; the first of equally near ones.
    """
    palette = colours.new_tensor(centroids)
    pixels = colours.movedim(-3, -1)
    # |x - c|^2 less |x|^2, which is the same for all c.
    distances = palette.square().sum(1) - 2 * (pixels @ palette.T)
    return distances.argmin(-1)


def one_hot(ids: Tensor, count: int) -> Tensor:
    """Numbers of colours ``(B, H, W)`` as maps of 0 and 1, float32 ``(B, count, H, W)``."""
    return F.one_hot(ids, count).movedim(-1, 1).float()


def fit_centroids(frames: Iterable[RGB], count: int = 16, seed: int = 0) -> Centroids:
    """Fit a palette: k-means on the ab values of frames resized to 32x32 (VidColor, section 3.2).

    Args:
        frames: uint8 RGB ``(H, W, 3)``, with red first. The released palette took blue first.
        count: number of colours.
        seed: of the first centroids.

    Returns:
        ``count`` pairs, by ascending a.

    Raises:
        ConfigError: fewer than one colour asked for.
        DataError: fewer pixels than colours.
    """
    if count < 1:
        raise ConfigError("fit_centroids", f"{count} colours", "1 or more", "Ask for more.")
    pixels = [ab(resize_frame(frame, PALETTE_SIDE)).flatten(1).T.numpy() for frame in frames]
    if not pixels:
        raise DataError("frames to fit a palette on", "none", "some", "Name a dataset of videos.")
    points: NDArray[np.float32] = np.ascontiguousarray(np.concatenate(pixels))
    means = faiss.Kmeans(
        2,
        count,
        niter=100,
        nredo=5,
        seed=seed,
        # By default only 256 points are used per centroid, and too few are warned of.
        max_points_per_centroid=len(points),
        min_points_per_centroid=1,
    )
    means.train(points)
    return tuple(sorted((float(a), float(b)) for a, b in np.asarray(means.centroids)))


def drop_channels(images: Tensor, dropped: Collection[int]) -> Tensor:
    """Set channels to zero and scale the others up to keep the sum's expectation, as dropout does.

    With three channels, one dropped scales the others by 3/2 and two by 3. MAST drops a or b of
    normalised Lab, CorrFlow one or two of RGB.

    Args:
        images: float ``(..., C, H, W)``; left as they are.
        dropped: numbers of the channels, fewer than C.

    Returns:
        New images of the same shape.

    Raises:
        ConfigError: all channels are dropped, or one that does not exist.
    """
    channels = images.shape[-3]
    if len(set(dropped)) >= channels or not set(dropped) <= set(range(channels)):
        raise ConfigError(
            "drop_channels",
            f"channels {sorted(dropped)} of {channels}",
            f"some, but not all, of 0 to {channels - 1}",
            "Drop fewer.",
        )
    factors = images.new_full((channels, 1, 1), channels / (channels - len(set(dropped))))
    factors[list(dropped)] = 0
    return images * factors


def lab_targets(frames: Sequence[RGB], channel: int) -> tuple[Tensor, Tensor]:
    """What MAST, MAMP and STT train on: Lab without one colour channel, and that channel.

    Args:
        frames: uint8 RGB ``(H, W, 3)`` of one size.
        channel: 1 drops a, 2 drops b.

    Returns:
        Images float32 ``(T, 3, H, W)`` for the encoder, and the dropped channel as it was before,
        float32 ``(T, 1, H, W)`` in about [-1, 1], to be copied.
    """
    # Both are made from the same clean tensor; drop_channels does not write into it.
    clean = torch.stack([lab(frame) for frame in frames])
    return drop_channels(clean, (channel,)), clean[:, channel : channel + 1]


def jitter(image: Tensor, random: np.random.Generator, strength: float) -> Tensor:
    """Change brightness, contrast, saturation and hue at random, in random order.

    Args:
        image: RGB in [0, 1], float32 ``(3, H, W)``; left as it is.
        random: where the changes come from.
        strength: the first three are multiplied by 1 +- ``strength`` at most; the hue turns by
            ``strength`` of a full circle at most.

    Returns:
        RGB in [0, 1], float32 ``(3, H, W)``.
    """
    changes = [_change_brightness, _change_contrast, _change_saturation, _change_hue]
    for index in random.permutation(len(changes)):
        image = changes[index](image, random.uniform(-strength, strength))
    return image


GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601)."""


def _grey(image: Tensor) -> Tensor:
    return (image * image.new_tensor(GREY_WEIGHTS).view(3, 1, 1)).sum(0, keepdim=True)


def _change_brightness(image: Tensor, amount: float) -> Tensor:
    return (image * (1 + amount)).clamp(0, 1)


def _change_contrast(image: Tensor, amount: float) -> Tensor:
    return torch.lerp(_grey(image).mean().expand_as(image), image, 1 + amount).clamp(0, 1)


def _change_saturation(image: Tensor, amount: float) -> Tensor:
    return torch.lerp(_grey(image).expand_as(image), image, 1 + amount).clamp(0, 1)


def _change_hue(image: Tensor, amount: float) -> Tensor:
    hsv = np.asarray(cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2HSV))
    hsv[..., 0] = (hsv[..., 0] + 360 * amount) % 360
    turned = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1))).clamp(0, 1)
