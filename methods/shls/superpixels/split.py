"""Superpixels and object masks: each superpixel's label, and superpixels cut along a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.shls.superpixels.components import label_components
from methods.shls.superpixels.isec import SuperpixelMap


def _histogram(
    superpixels: SuperpixelMap, labels: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    """Pixels of each label in each superpixel: ``(N, classes)``; raises as its users tell."""
    if superpixels.shape != labels.shape or superpixels.size == 0:
        raise ValueError(f"superpixels {superpixels.shape} and labels {labels.shape} do not match")
    if int(superpixels.min()) < 1:
        raise ValueError("superpixel ids must start from 1")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"labels must be in 0 .. {classes - 1}, not {labels.max()}")
    count = int(superpixels.max())
    cells = (superpixels.astype(np.int64) - 1) * classes + labels
    return np.bincount(cells.ravel(), minlength=count * classes).reshape(count, classes)


def majority_labels(
    superpixels: SuperpixelMap, labels: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.integer[Any]]:
    """The most frequent label in each superpixel; the lowest of equally frequent ones.

    Args:
        superpixels: int32 ``(H, W)``, ids 1 .. N.
        labels: integers ``(H, W)`` in 0 .. ``classes`` - 1; 0 = background.
        classes: number of labels, background included.

    Returns:
        ``(N,)`` in the type of ``labels``; entry ``i`` belongs to superpixel ``i + 1``.

    Raises:
        ValueError: sizes that differ, superpixel ids below 1, labels out of range.
    """
    return _histogram(superpixels, labels, classes).argmax(1).astype(labels.dtype)


def split_by_mask(
    superpixels: SuperpixelMap, labels: NDArray[np.integer[Any]]
) -> tuple[SuperpixelMap, NDArray[np.integer[Any]]]:
    """Cut superpixels along label borders, so that every one has a single label.

    Pixels with their superpixel's majority label stay together under its id, even where they
    fall apart. The others are regrouped, across superpixels, into 4-connected components of one
    label, which get ids behind the old ones: by label, then in raster order.

    Args:
        superpixels: int32 ``(H, W)``, ids from 1; unused ids are closed up.
        labels: integers ``(H, W)``, 0 = background, otherwise object ids; a void value counts
            as one more label.

    Returns:
        int32 ``(H, W)`` superpixels 1 .. N, and the label of each, ``(N,)`` in the type of
        ``labels``; entry ``i`` belongs to superpixel ``i + 1``.

    Raises:
        ValueError: sizes that differ, superpixel ids below 1, negative labels.
    """
    histogram = _histogram(superpixels, labels, int(labels.max(initial=0)) + 1)
    majority = histogram.argmax(1).astype(labels.dtype)
    present = histogram.any(1)
    new_ids = np.concatenate([[0], np.cumsum(present)]).astype(np.int32)
    kept = labels == majority[superpixels - 1]
    # One value per label, none of them 0, which stands for pixels that stay.
    strangers = np.where(kept, 0, labels.astype(np.int32) + 1)
    parts, count = label_components(strangers, left_out=0)
    part_labels = np.zeros(count, labels.dtype)
    part_labels[parts[~kept] - 1] = labels[~kept]
    order = np.argsort(part_labels, kind="stable")
    part_ids = np.empty(count, np.int32)
    part_ids[order] = np.arange(1, count + 1) + new_ids[-1]
    split = new_ids[superpixels]
    split[~kept] = part_ids[parts[~kept] - 1]
    return split, np.concatenate([majority[present], part_labels[order]])
