"""The metrics written down as their definitions say, without any regard to speed.

Two versions: ``naive_j_and_f`` measures distances between boundary pixels one by one, and is the
reference for exactness; ``volume_scores`` works as the published toolkits do (whole videos as
one-hot volumes of floats, full-frame maps, dilation by a disk), and is the reference for speed.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image
from skimage.morphology import dilation, disk


def naive_boundary(mask):
    mask = np.asarray(mask) != 0
    height, width = mask.shape
    boundary = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            boundary[y, x] = any(
                mask[y, x] != mask[v, u] for v, u in neighbours if v < height and u < width
            )
    return boundary


def naive_radius(shape):
    return math.ceil(0.008 * math.hypot(*shape))


def naive_j(predicted, true, void=None):
    predicted, true = np.asarray(predicted) != 0, np.asarray(true) != 0
    if void is not None:
        predicted, true = predicted & ~void, true & ~void
    union = (predicted | true).sum()
    return float((predicted & true).sum() / union) if union else 1.0


def naive_f(predicted, true, void=None):
    predicted, true = np.asarray(predicted) != 0, np.asarray(true) != 0
    if void is not None:
        predicted, true = predicted & ~void, true & ~void
    squared_radius = naive_radius(true.shape) ** 2
    points = np.argwhere(naive_boundary(predicted))
    true_points = np.argwhere(naive_boundary(true))
    near = ((points[:, None] - true_points[None]) ** 2).sum(2) <= squared_radius
    if not len(points) and not len(true_points):
        precision = recall = 1.0
    elif not len(points):
        precision, recall = 1.0, 0.0
    elif not len(true_points):
        precision, recall = 0.0, 1.0
    else:
        precision = near.any(1).sum() / len(points)
        recall = near.any(0).sum() / len(true_points)
    if precision + recall == 0:
        return 0.0
    return float(2 * precision * recall / (precision + recall))


def naive_statistics(values):
    values = [float(value) for value in values]
    valid = [value for value in values if not math.isnan(value)]
    edges = [round(float(e) + 1e-10) - 1 for e in np.linspace(1, len(values), 5)]

    def mean(part):
        part = [value for value in part if not math.isnan(value)]
        return sum(part) / len(part) if part else math.nan

    return (
        mean(values),
        sum(value > 0.5 for value in valid) / len(valid),
        mean(values[edges[0] : edges[1] + 1]) - mean(values[edges[3] : edges[4] + 1]),
    )


# --- as the toolkits do it ------------------------------------------------------------------


def load_volume(paths):
    """Masks of a video, float64 ``(T, H, W)``."""
    first = np.array(Image.open(paths[0]))
    volume = np.zeros((len(paths), *first.shape))
    for index, path in enumerate(paths):
        volume[index] = np.array(Image.open(path))
    return volume


def one_hot(volume, count):
    """Bool ``(objects, T, H, W)`` from ids 1 .. count."""
    numbers = np.ones((count, *volume.shape)) * np.arange(1, count + 1)[:, None, None, None]
    return numbers == volume[None]


def volume_j(predicted, true):
    """J of every frame of one object, bool ``(T, H, W)`` each."""
    intersection = np.sum(predicted & true, axis=(-2, -1))
    union = np.sum(predicted | true, axis=(-2, -1))
    with np.errstate(invalid="ignore"):
        j = intersection / union
    j[union == 0] = 1
    return j


def shifted_boundary(mask):
    """Full-frame boundary map from three shifted copies."""
    right, below, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    boundary = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    boundary[-1] = mask[-1] ^ right[-1]
    boundary[:, -1] = mask[:, -1] ^ below[:, -1]
    boundary[-1, -1] = False
    return boundary


def opencv_dilation(mask, kernel):
    return cv2.dilate(mask.astype(np.uint8), kernel)


def skimage_dilation(mask, kernel):
    return dilation(mask, kernel)


def frame_f(predicted, true, dilate=opencv_dilation):
    """F of one frame on full-frame maps.

    The first toolkit dilated with scikit-image, the later one with OpenCV.
    """
    radius = naive_radius(true.shape)
    edge, true_edge = shifted_boundary(predicted), shifted_boundary(true)
    kernel = disk(radius).astype(np.uint8)
    reach, true_reach = dilate(edge, kernel), dilate(true_edge, kernel)
    matched, true_matched = edge * true_reach, true_edge * reach
    count, true_count = np.sum(edge), np.sum(true_edge)
    if count == 0 and true_count == 0:
        return 1.0
    if count == 0 or true_count == 0:
        return 0.0
    precision, recall = np.sum(matched) / count, np.sum(true_matched) / true_count
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def volume_scores(predicted, true, dilate=opencv_dilation):
    """J and F of a video's single object, frames 1 .. T - 2, float64 ``(2, T - 2)``.

    Takes volumes of 0/1 or 0/255, float64 ``(T, H, W)``.
    """
    predicted, true = (one_hot((v > 0).astype(float), 1)[0, 1:-1] for v in (predicted, true))
    f = [frame_f(p, g, dilate) for p, g in zip(predicted, true, strict=True)]
    return np.array([volume_j(predicted, true), f])
