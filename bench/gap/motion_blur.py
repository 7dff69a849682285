"""Motion blur: along a line for a photograph, along the true motion for video."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.gap.light import encode, linearise
from bench.video import RGB

Float = NDArray[np.float32]

FEWEST_SUBFRAMES, MOST_SUBFRAMES = 9, 33
"""Instants averaged along flow; in between, one for each pixel of the largest displacement."""


def line_kernel(radius: int, sigma: float, angle: float) -> Float:
    """Kernel of a motion along a line, with Gaussian weights.

    The weights are symmetric. One-sided weights, as the common corruptions have, would push the
    object away from its mask.

    Args:
        radius: half of the line's length, in pixels.
        sigma: standard deviation of the Gaussian weights along it, in pixels.
        angle: of the line, in radians; 0 is horizontal.

    Returns:
        float32 ``(2 * radius + 1, 2 * radius + 1)``, sum 1.
    """
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    offset = np.arange(-radius, radius + 1, dtype=np.float64)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    x, y = radius + offset * np.cos(angle), radius + offset * np.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    # Every point is shared between its four pixels, so that lines at any angle are equally thin.
    for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
        for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
            inside = (column <= 2 * radius) & (row <= 2 * radius)
            share = weight * share_x * share_y
            np.add.at(kernel, (row[inside], column[inside]), share[inside])
    return np.asarray(kernel / kernel.sum(), np.float32)


def blur_along_line(image: RGB, kernel: Float) -> RGB:
    """Filter with a kernel of :func:`line_kernel` in linear light, uint8 ``(H, W, 3)``."""
    return encode(cv2.filter2D(linearise(image), -1, kernel, borderType=cv2.BORDER_REFLECT_101))


def dis_flow(source: RGB, target: RGB) -> Float:
    """Optical flow by dense inverse search (Kroeger et al., ECCV 2016), OpenCV's implementation.

    Returns:
        float32 ``(H, W, 2)``: where each pixel of ``source`` goes in ``target``, (x, y) in pixels.
    """
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (source, target)]
    start = np.zeros((*grey[0].shape, 2), np.float32)
    return np.asarray(estimator.calc(grey[0], grey[1], start), np.float32)


def blur_along_flow(image: RGB, flow: Float, exposure: float) -> RGB:
    """Average of sub-frames along a frame's motion, centred on the frame.

    What moves fastest is in front where two things move to one place.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        flow: float ``(H, W, 2)``, motion of each pixel to the next frame, (x, y) in pixels.
        exposure: how long the shutter is open, in frames.

    Returns:
        uint8 RGB ``(H, W, 3)``. The frame's mask stays right: it is that of the middle.
    """
    flow = flow.astype(np.float32)
    speed = np.hypot(flow[..., 0], flow[..., 1])
    count = int(np.clip(np.ceil(exposure * speed.max()), FEWEST_SUBFRAMES, MOST_SUBFRAMES))
    # From slow to fast: where several pixels land on one, the last one written stays.
    order = np.argsort(speed, axis=None, kind="stable")
    light = linearise(image)
    total = np.zeros_like(light)
    for k in range(count):
        total += _moved(light, flow, order, float(exposure * ((k + 0.5) / count - 0.5)))
    return encode(total / count)


def _moved(light: Float, flow: Float, order: NDArray[np.intp], time: float) -> Float:
    """The picture a part of a frame later: float32 ``(H, W, 3)``."""
    height, width = light.shape[:2]
    ys, xs = np.divmod(order, width)
    ordered = flow.reshape(-1, 2)[order]
    to_x = np.rint(xs + time * ordered[:, 0]).astype(np.intp)
    to_y = np.rint(ys + time * ordered[:, 1]).astype(np.intp)
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    # Motion at the new time. Where nothing lands, the background comes into view and the motion
    # of what has left is as good as any.
    motion = flow.copy()
    motion[to_y[inside], to_x[inside]] = ordered[inside]
    grid_y, grid_x = np.mgrid[:height, :width].astype(np.float32)
    from_x, from_y = grid_x - time * motion[..., 0], grid_y - time * motion[..., 1]
    moved = cv2.remap(light, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)
