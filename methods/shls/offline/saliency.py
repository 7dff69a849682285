"""Where an image's salient object is, found without any label.

Two classical detectors, pluggable through :data:`DETECTORS`:

- ``robust_background``: Zhu et al., Saliency optimization from robust background detection,
  CVPR 2014. Superpixels that are well connected to the image border are background; contrast to
  them makes foreground; a quadratic energy combines both smoothly.
- ``minimum_barrier``: Zhang et al., Minimum barrier salient object detection at 80 FPS, ICCV
  2015. A pixel is salient if every path to the border crosses a large range of grey levels.

The default is ``combined``, the mean of both: their errors differ, and averaging needs no labels
to justify it.
Masks that somebody else made (``precomputed``) and human ones (``ground_truth``) are accepted
too; the label regime of the weights says which were used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import shortest_path
from skimage.segmentation import slic

from bench.errors import DataError
from bench.masks import read_mask
from bench.method import ImageLabels
from bench.video import RGB, LabelledImage

Saliency = NDArray[np.uint8]
"""uint8 ``(H, W)``: 0 = background, otherwise how salient, up to 255."""

SaliencySource = Literal[
    "combined", "robust_background", "minimum_barrier", "precomputed", "ground_truth"
]

VERSION = "1"
"""Part of the cache's keys; changes when a detector's result does."""

WORKING_SIDE = 320
"""Longer side in pixels at which detectors work."""


def labels_used(source: SaliencySource) -> ImageLabels:
    """The human labels behind a source of masks; precomputed maps count as unlabelled."""
    return "saliency" if source == "ground_truth" else "none"


# ------------------------------------------------------- robust background detection

SUPERPIXELS = 250
COLOUR_SIGMA = 10.0
"""In Lab units: how alike superpixels must be to belong together."""
SPACE_SIGMA = 0.25
"""As a share of the image's longer side: how far contrast reaches."""
BOUNDARY_SIGMA = 1.0
SMALLEST_EDGE = 0.1


def robust_background(image: RGB) -> NDArray[np.float32]:
    """Saliency by robust background detection.

    Args:
        image: uint8 RGB ``(H, W, 3)``.

    Returns:
        float32 ``(H, W)`` in [0, 1].
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    ids = slic(image, SUPERPIXELS, compactness=20, sigma=1, start_label=0)
    count = int(ids.max()) + 1
    if count < 3:
        return np.zeros(ids.shape, np.float32)
    flat = ids.ravel()
    area = np.bincount(flat, minlength=count).astype(float)
    colour = np.stack(
        [np.bincount(flat, lab[..., c].ravel(), count) / area for c in range(3)], axis=1
    )
    rows, columns = np.indices(ids.shape)
    longer = max(ids.shape)
    place = np.stack(
        [np.bincount(flat, axis.ravel(), count) / area / longer for axis in (rows, columns)], axis=1
    )
    contrast = np.linalg.norm(colour[:, None] - colour[None], axis=2)
    near = _neighbours(ids, count)
    border = np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
    on_border = np.zeros(count, bool)
    on_border[border] = True
    # Borders are joined to one another, so that a background cut in two stays one.
    linked = near | (on_border[:, None] & on_border[None])
    np.fill_diagonal(linked, False)

    # Steps below the typical smallest one are texture, not distance.
    smallest = np.where(near, contrast, np.inf).min(1)
    texture = float(smallest[near.any(1)].mean())
    steps = np.maximum(contrast - texture, 0) + 1e-6
    geodesic = shortest_path(coo_matrix(np.where(linked, steps, 0)), directed=False)
    belongs = np.exp(-(geodesic**2) / (2 * COLOUR_SIGMA**2))
    spanned = belongs.sum(1)
    connectivity = belongs[:, on_border].sum(1) / np.sqrt(spanned)
    background = 1 - np.exp(-(connectivity**2) / (2 * BOUNDARY_SIGMA**2))

    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    nearness = np.exp(-(distance**2) / (2 * SPACE_SIGMA**2))
    foreground = (contrast * nearness * background[None]).sum(1)
    foreground = _stretch(foreground)
    foreground[foreground < foreground.mean()] = 0
    background_weight = np.where(background > 0.95, 1000.0, background)  # certain background

    # min Σ b s² + Σ f (s - 1)² + Σ w (s_i - s_j)² over neighbours and their neighbours.
    reach = linked | ((near.astype(np.int32) @ near.astype(np.int32)) > 0)
    np.fill_diagonal(reach, False)
    weight = np.exp(-(contrast**2) / (2 * COLOUR_SIGMA**2)) + SMALLEST_EDGE
    weight = np.where(reach, weight, 0)
    laplacian = np.diag(weight.sum(1)) - weight
    system = np.diag(background_weight + foreground) + laplacian + 1e-9 * np.eye(count)
    solved = np.linalg.solve(system, foreground)
    found: NDArray[np.float32] = _stretch(solved).astype(np.float32)[ids]
    return found


def _neighbours(ids: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    near = np.zeros((count, count), bool)
    for first, second in ((ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])):
        near[first.ravel(), second.ravel()] = True
    near |= near.T
    np.fill_diagonal(near, False)
    return near


def _stretch(values: NDArray[np.floating]) -> NDArray[np.floating]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


# ------------------------------------------------------- minimum barrier distance


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _barrier_pass(
    image: NDArray[np.float32],
    distance: NDArray[np.float32],
    highest: NDArray[np.float32],
    lowest: NDArray[np.float32],
    step: int,
) -> None:
    """One raster scan: forward for step 1, backward for -1; each looks at two neighbours."""
    height, width = image.shape
    for i in range(height):
        y = i if step == 1 else height - 1 - i
        for j in range(width):
            x = j if step == 1 else width - 1 - j
            value = image[y, x]
            for k in range(2):
                v = y - step if k == 0 else y
                u = x if k == 0 else x - step
                if v < 0 or v >= height or u < 0 or u >= width:
                    continue
                high = max(highest[v, u], value)
                low = min(lowest[v, u], value)
                if high - low < distance[y, x]:
                    distance[y, x] = high - low
                    highest[y, x] = high
                    lowest[y, x] = low


def barrier_distance(channel: NDArray[np.float32], passes: int = 3) -> NDArray[np.float32]:
    """Minimum barrier distance to the image border, approximated by raster scans.

    Args:
        channel: float32 ``(H, W)``.
        passes: alternating scans.

    Returns:
        float32 ``(H, W)``: the smallest range of values on any path found to the border.
    """
    distance = np.full(channel.shape, np.inf, np.float32)
    distance[0] = distance[-1] = 0
    distance[:, 0] = distance[:, -1] = 0
    highest, lowest = channel.copy(), channel.copy()
    for number in range(passes):
        _barrier_pass(channel, distance, highest, lowest, 1 if number % 2 == 0 else -1)
    return distance


def minimum_barrier(image: RGB) -> NDArray[np.float32]:
    """Saliency by minimum barrier distance and the border's colour statistics.

    Args:
        image: uint8 RGB ``(H, W, 3)``.

    Returns:
        float32 ``(H, W)`` in [0, 1].
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    channels = [np.ascontiguousarray(lab[..., number]) for number in range(3)]
    distance = _stretch(np.sum([barrier_distance(channel) for channel in channels], axis=0))
    unlike = _stretch(_unlike_border(lab))
    combined = _stretch((distance + unlike).astype(np.float32)).astype(np.float32)
    # Opening by reconstruction's cheap cousin: small bright specks are not objects.
    side = max(3, round(min(image.shape[:2]) / 40) | 1)
    smooth = cv2.medianBlur((combined * 255).astype(np.uint8), min(side, 31))
    return _centred(smooth.astype(np.float32) / 255)


def _unlike_border(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mahalanobis distance to the colours of each border strip; the nearest strip is left out."""
    height, width = lab.shape[:2]
    edge = max(1, round(0.1 * min(height, width)))
    strips = (lab[:edge], lab[-edge:], lab[:, :edge], lab[:, -edge:])
    distances = []
    for strip in strips:
        colours = strip.reshape(-1, 3).astype(np.float64)
        covariance = np.cov(colours.T) + 1e-2 * np.eye(3)
        centred = lab.reshape(-1, 3) - colours.mean(0)
        squared = np.einsum("nc,cd,nd->n", centred, np.linalg.inv(covariance), centred)
        distance = np.sqrt(np.maximum(squared, 0)).reshape(height, width)
        distances.append(distance / max(distance.max(), 1e-9))
    found: NDArray[np.float32] = (np.sum(distances, axis=0) - np.max(distances, axis=0)).astype(
        np.float32
    )
    return found


def _centred(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """Objects are photographed in the middle: a mild prior on distance to it."""
    height, width = saliency.shape
    y = np.linspace(-1, 1, height)[:, None]
    x = np.linspace(-1, 1, width)[None]
    return (saliency * np.exp(-(x**2 + y**2) / 2)).astype(np.float32)


def combined(image: RGB) -> NDArray[np.float32]:
    """Mean of both detectors, each stretched to [0, 1]; float32 ``(H, W)``."""
    mean = (_stretch(robust_background(image)) + _stretch(minimum_barrier(image))) / 2
    return mean.astype(np.float32)


DETECTORS: Mapping[str, Callable[[RGB], NDArray[np.float32]]] = {
    "combined": combined,
    "robust_background": robust_background,
    "minimum_barrier": minimum_barrier,
}


# ------------------------------------------------------- maps for the offline stage

SMALLEST_PART = 0.1
"""Parts smaller than this share of the largest one are dropped."""


def clean(saliency: NDArray[np.float32]) -> Saliency:
    """A soft map with exact zeros for the background.

    The border between both is Otsu's threshold (Otsu, IEEE SMC 1979). Small parts go, and holes
    are filled with the threshold's level.

    Args:
        saliency: float32 ``(H, W)`` in [0, 1].

    Returns:
        uint8 ``(H, W)``; all zero where nothing stands out.
    """
    levels = (np.clip(saliency, 0, 1) * 255).astype(np.uint8)
    if levels.max() == levels.min():
        return np.zeros_like(levels)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    mask = (levels > threshold).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count == 1:
        return np.zeros_like(levels)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    kept = np.isin(parts, np.flatnonzero(areas >= SMALLEST_PART * areas.max()))
    contours, _ = cv2.findContours(kept.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(levels)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return np.where(filled > 0, np.maximum(levels, int(threshold) + 1), 0).astype(np.uint8)


def detect(image: RGB, detector: str) -> Saliency:
    """Run a detector on a shrunk image and bring its cleaned map back to the image's size."""
    height, width = image.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    found = DETECTORS[detector](small) if min(size) >= 8 else np.zeros(small.shape[:2], np.float32)
    found = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    return clean(found)


class SaliencyMaps:
    """Maps by image, from a detector, a folder, or the dataset's own masks.

    Args:
        source: where maps come from.
        folder: of precomputed maps, ``<image name>.png``, grey, same size as the image.
        cache: folder in which detected maps are kept by the images' content; None keeps none.

    Raises:
        DataError: ``precomputed`` without a folder.
    """

    def __init__(
        self, source: SaliencySource, folder: Path | None = None, cache: Path | None = None
    ) -> None:
        if source == "precomputed" and folder is None:
            raise DataError(
                "training.saliency_folder",
                "nothing",
                "the folder of the precomputed maps",
                "Name it, or choose a detector.",
            )
        self.source = source
        self.folder = folder
        self.cache = cache

    def of(self, image: LabelledImage) -> Saliency:
        """The map of one image, uint8 ``(H, W)``.

        Raises:
            DataError: a precomputed map or a mask that is missing or of the wrong size.
        """
        if self.source == "ground_truth":
            if image.mask is None:
                raise DataError(image.name, "no mask", "a labelled image", "Use a detector.")
            return np.where((image.mask > 0) & (image.mask < 255), 255, 0).astype(np.uint8)
        if self.source == "precomputed":
            return self._read(image)
        return self._detected(image.image)

    def _read(self, image: LabelledImage) -> Saliency:
        assert self.folder is not None
        path = self.folder / f"{image.name}.png"
        if not path.is_file():
            raise DataError(
                path, "no such file", "a grey saliency map", "Make it or correct the folder."
            )
        found = read_mask(path)
        if found.shape != image.image.shape[:2]:
            raise DataError(
                path,
                f"{found.shape[1]}x{found.shape[0]} pixels",
                f"{image.image.shape[1]}x{image.image.shape[0]} like its image",
                "Make it again.",
            )
        return found

    def _detected(self, image: RGB) -> Saliency:
        if self.cache is None:
            return detect(image, self.source)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.source} {VERSION} {image.shape}".encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        path = self.cache / f"{digest.hexdigest()}.png"
        stored = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if stored is not None and stored.shape == image.shape[:2]:
            return np.asarray(stored, np.uint8)
        found = detect(image, self.source)
        self.cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.png")
        cv2.imwrite(str(temporary), found)
        temporary.replace(path)
        return found
