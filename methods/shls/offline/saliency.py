"""Where an image's salient objects are: by detection without labels, from a folder, or given.

Detectors turn an image into a soft map. :func:`clean` makes it what the rest of the offline stage
wants: exact zeros for the background, soft values inside the objects. :class:`SaliencyMaps` hands
out such maps for a dataset's images and keeps detected ones on disk.

Which detector the authors used is not known; they say that it needs no labels. The default here
is the mean of two published ones, since an average of several detectors is on the whole better
than each of them (Borji, Sihite, Itti: Salient object detection: a benchmark, ECCV 2012; Mai, Niu,
Liu: Saliency aggregation, CVPR 2013). It was fixed before any of them was measured: choosing by
scores on labelled images would use those labels.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.errors import ConfigError, DataError
from bench.media import read_image
from bench.method import ImageLabels
from bench.video import RGB, VOID, LabelledImage
from methods.shls.offline.minimum_barrier import SaliencyMap, minimum_barrier
from methods.shls.offline.robust_background import robust_background

log = logging.getLogger(__name__)

Saliency = NDArray[np.uint8]
"""uint8 ``(H, W)``: 0 = background, otherwise how salient, up to 255."""

SaliencySource = Literal[
    "combined", "robust_background", "minimum_barrier", "precomputed", "ground_truth"
]

DEFAULT_SOURCE: SaliencySource = "combined"

VERSION = 1
"""Part of the cache's keys; must grow when a detector or the clean-up changes its results."""

WORKING_SIDE = 300
"""Longer side in pixels at which detectors work; their constants are meant for it."""

SMALLEST_SIDE = 8
"""Images below so many pixels a side are too small for anything to be found in them."""

SMALLEST_PART = 0.1
"""Parts of a mask below this share of the largest part are dropped."""

MAP_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def combined(image: RGB) -> SaliencyMap:
    """The mean of :func:`robust_background` and :func:`minimum_barrier`, float32 ``(H, W)``."""
    return (robust_background(image) + minimum_barrier(image)) / np.float32(2)


DETECTORS: Mapping[str, Callable[[RGB], SaliencyMap]] = {
    "combined": combined,
    "robust_background": robust_background,
    "minimum_barrier": minimum_barrier,
}
"""From uint8 RGB ``(H, W, 3)`` to float32 ``(H, W)`` in [0, 1]."""


def labels_used(source: SaliencySource) -> ImageLabels:
    """The human labels behind a source of maps, for the label regime of trained weights.

    Of precomputed maps only their maker knows; they count as made without labels.
    """
    return "saliency" if source == "ground_truth" else "none"


def detect(image: RGB, detector: str) -> SaliencyMap:
    """Run a detector on an image of any size.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        detector: a key of :data:`DETECTORS`.

    Returns:
        float32 ``(H, W)`` in [0, 1], not cleaned.

    Raises:
        ConfigError: no such detector.
    """
    if detector not in DETECTORS:
        raise ConfigError(
            f"saliency {detector!r}",
            "no such detector",
            f"one of {', '.join(DETECTORS)}",
            "Correct it.",
        )
    height, width = image.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if min(size) < SMALLEST_SIDE:
        return np.zeros((height, width), np.float32)
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    found = cv2.resize(DETECTORS[detector](small), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(found, 0, 1).astype(np.float32)


def clean(saliency: SaliencyMap) -> Saliency:
    """A soft map with exact zeros for the background.

    Otsu's threshold (IEEE Trans. SMC 9(1), 1979) tells both apart, since it adapts to small and
    to large objects. Parts that are small beside the largest one go. Holes are filled with the
    threshold's level, because contrast finds outlines better than what is inside.

    Args:
        saliency: float32 ``(H, W)`` in [0, 1].

    Returns:
        uint8 ``(H, W)``, all zero where the map is flat.
    """
    levels = np.round(np.clip(saliency, 0, 1) * 255).astype(np.uint8)
    if levels.min() == levels.max():
        return np.zeros_like(levels)
    threshold = int(cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0])
    mask = (levels > threshold).astype(np.uint8)
    count, parts, measures, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    areas = measures[:, cv2.CC_STAT_AREA]
    kept = np.zeros(count, np.uint8)
    kept[1:] = areas[1:] >= SMALLEST_PART * areas[1:].max()
    outlines, _ = cv2.findContours(kept[parts], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(levels)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return np.where(filled > 0, np.maximum(levels, threshold + 1), 0).astype(np.uint8)


class SaliencyMaps:
    """Cleaned maps by image, from a detector, a folder, or the dataset's own masks.

    Args:
        source: where maps come from.
        folder: of precomputed maps: grey images named like the dataset's, of the same size.
        cache: folder in which detected maps are kept, found again by the images' content; None
            detects anew each time. Any number of processes may share it.
        clean_precomputed: whether precomputed maps are cleaned as detected ones are. False is
            right for maps that are exactly 0 in the background.

    Raises:
        ConfigError: unknown source, or ``"precomputed"`` without a folder.
    """

    def __init__(
        self,
        source: SaliencySource = DEFAULT_SOURCE,
        folder: Path | None = None,
        cache: Path | None = None,
        clean_precomputed: bool = True,
    ) -> None:
        if source not in get_args(SaliencySource):
            raise ConfigError(
                f"saliency {source!r}",
                "no such source of maps",
                f"one of {', '.join(get_args(SaliencySource))}",
                "Correct it.",
            )
        if source == "precomputed" and folder is None:
            raise ConfigError(
                "saliency 'precomputed'",
                "no folder",
                "the folder that holds the maps",
                "Name the folder, or choose a detector.",
            )
        self.source: SaliencySource = source
        self.folder = folder
        self.cache = cache
        self.clean_precomputed = clean_precomputed
        self._warned = False

    @property
    def labels_used(self) -> ImageLabels:
        """The human labels behind the maps; see :func:`labels_used`."""
        return labels_used(self.source)

    def of(self, image: LabelledImage) -> Saliency:
        """The map of one image.

        Returns:
            uint8 ``(H, W)``, exact zeros for the background.

        Raises:
            DataError: a precomputed map or a mask is missing, unreadable or of another size.
        """
        if self.source == "ground_truth":
            if image.mask is None:
                raise DataError(
                    image.name, "an image without a mask", "a labelled image", "Use a detector."
                )
            salient = (image.mask > 0) & (image.mask != VOID)
            return np.where(salient, 255, 0).astype(np.uint8)
        if self.source == "precomputed":
            return self._read(image)
        return self._detected(image.image)

    def _read(self, image: LabelledImage) -> Saliency:
        assert self.folder is not None
        candidates = [self.folder / f"{image.name}{suffix}" for suffix in MAP_SUFFIXES]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise DataError(
                candidates[0],
                "no such file",
                f"the saliency map of image {image.name}, with one of the suffixes "
                + ", ".join(MAP_SUFFIXES),
                "Make it, correct the folder, or choose a detector.",
            )
        levels = read_image(path)[..., 0]
        if levels.shape != image.image.shape[:2]:
            raise DataError(
                path,
                f"{levels.shape[1]}x{levels.shape[0]} pixels",
                f"{image.image.shape[1]}x{image.image.shape[0]} like its image",
                "Make the map at the image's size.",
            )
        if self.clean_precomputed:
            return clean(levels.astype(np.float32) / np.float32(255))
        return np.ascontiguousarray(levels)

    def cache_path(self, image: RGB) -> Path | None:
        """The file in which an image's map is kept, there or not; None without a cache."""
        if self.cache is None:
            return None
        # Superpixels come from scikit-image, so its version is a part of the detector.
        what = f"{self.source} {VERSION} {version('scikit-image')} {image.dtype.str} {image.shape} "
        digest = hashlib.blake2b(what.encode(), digest_size=16)
        digest.update(np.ascontiguousarray(image).data)
        key = digest.hexdigest()
        return self.cache / key[:2] / f"{key[2:]}.png"

    def _detected(self, image: RGB) -> Saliency:
        path = self.cache_path(image)
        kept = None if path is None else _read_png(path, image.shape[:2])
        if kept is not None:
            return kept
        found = clean(detect(image, self.source))
        if path is not None:
            try:
                _write_png(path, found)
            except OSError as error:
                # The map is right all the same, so a full disk is no reason to stop.
                if not self._warned:
                    log.warning("Saliency is not kept: %s cannot be written (%s).", path, error)
                self._warned = True
        return found


def _read_png(path: Path, size: tuple[int, int]) -> Saliency | None:
    """A kept map, or None where there is none, or a damaged one."""
    try:
        # Complete files only: OpenCV fills what a truncated PNG lacks and says nothing.
        image = read_image(path)
    except DataError:
        return None
    return np.ascontiguousarray(image[..., 0]) if image.shape[:2] == size else None


def _write_png(path: Path, saliency: Saliency) -> None:
    """Write a map so that others see it whole or not at all; raises OSError."""
    encoded = cv2.imencode(".png", saliency)[1].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(encoded)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
