"""The two samples between which a gap is measured: still images, and one frame of each video."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.dataset import ImageDataset, VideoDataset, find_root
from bench.errors import ConfigError, DataError
from bench.gap.curves import CorruptedImages, CorruptedVideos
from bench.gap.factors import Factor
from bench.registry import get_dataset
from bench.video import RGB, VOID, LabelledImage, Mask, Video, object_ids

Samples = Sequence[LabelledImage]


@dataclass(frozen=True)
class ImageSample:
    """Some images of a dataset, shrunk; a :class:`bench.gap.curves.ImageSet`.

    Attributes:
        dataset: its name, as asked for.
        available: images in the dataset.
        indices: which of them.
        items: decoded, masks 0, 1 and void.
    """

    dataset: str
    available: int
    indices: tuple[int, ...]
    items: tuple[LabelledImage, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> LabelledImage:
        return self.items[index]

    def corrupted(self, factor: Factor, severity: int, seed: int) -> Samples:
        """The images under a factor."""
        return list(CorruptedImages(self, factor, severity, seed))

    def facts(self) -> dict[str, Any]:
        """For provenance; the fingerprint is of the pixels measured on."""
        digest = hashlib.blake2b(digest_size=16)
        for one in self.items:
            digest.update(one.name.encode() + one.image.tobytes())
            digest.update(b"" if one.mask is None else one.mask.tobytes())
        names = [one.name for one in self.items]
        return {
            "dataset": self.dataset,
            "available": self.available,
            "samples": names,
            "fingerprint": digest.hexdigest(),
        }


@dataclass(frozen=True)
class VideoSample:
    """One frame of each of some videos; a :class:`bench.gap.curves.VideoSet` of shrunk videos.

    Attributes:
        dataset: its name, as asked for.
        available: videos in the dataset.
        clips: shrunk when they are loaded.
        chosen: index of the frame of each video.
        fingerprints: of the videos' files.
    """

    dataset: str
    available: int
    clips: tuple[Video, ...]
    chosen: tuple[int, ...]
    fingerprints: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.clips)

    def sequences(self) -> list[str]:
        """Names of the videos."""
        return [video.name for video in self.clips]

    def video(self, sequence: str, /) -> Video:
        """One of the videos."""
        return self.clips[self.sequences().index(sequence)]

    def __iter__(self) -> Iterator[Video]:
        return iter(self.clips)

    def frames(self) -> Samples:
        """The chosen frames as they are."""
        return _frames(self.clips, self.chosen)

    def corrupted(self, factor: Factor, severity: int, seed: int) -> Samples:
        """The chosen frames under a factor."""
        return _frames(list(CorruptedVideos(self, factor, severity, seed)), self.chosen)

    def facts(self) -> dict[str, Any]:
        """For provenance."""
        frames = [video.frame_names[index] for video, index in zip(self, self.chosen, strict=True)]
        return {
            "dataset": self.dataset,
            "available": self.available,
            "samples": dict(zip(self.sequences(), frames, strict=True)),
            "fingerprint": dict(zip(self.sequences(), self.fingerprints, strict=True)),
        }


def _frames(videos: Sequence[Video], chosen: Sequence[int]) -> list[LabelledImage]:
    return [
        LabelledImage(video.name, video.load_frame(index), video.load_mask(index))
        for video, index in zip(videos, chosen, strict=True)
    ]


def shrunk_size(size: tuple[int, ...], short_side: int) -> tuple[int, int]:
    """(H, W) with this short side; smaller images keep theirs."""
    scale = min(1.0, short_side / min(size[:2]))
    return round(size[0] * scale), round(size[1] * scale)


def _shrunk_image(image: RGB, size: tuple[int, int]) -> RGB:
    if image.shape[:2] == size:
        return image
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def _foreground_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """All objects as id 1, void kept, by nearest neighbour."""
    joined = np.where((mask == 0) | (mask == VOID), mask, 1).astype(np.uint8)
    if joined.shape == size:
        return joined
    resized = cv2.resize(joined, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)


def choose_images(
    name: str, root: Path | None, limit: int, short_side: int, seed: int
) -> ImageSample:
    """Labelled images drawn at random, brought to one short side.

    They come from the front of the permutation that training holds images out by, so that with
    equal seeds networks trained on this dataset alone have not seen them.

    Args:
        name: of a dataset of images.
        root: see :func:`bench.dataset.find_root`.
        limit: most images.
        short_side: in pixels.
        seed: of the permutation.

    Raises:
        ConfigError: a dataset of videos.
        DataError: no image with an object.
    """
    dataset, split = get_dataset(name)
    if not issubclass(dataset, ImageDataset):
        raise ConfigError(f"--images {name}", "videos", "a dataset of images", "See `list data`.")
    opened = dataset(find_root(dataset, root), split)
    assert isinstance(opened, ImageDataset)
    indices: list[int] = []
    items: list[LabelledImage] = []
    for index in np.random.default_rng(seed).permutation(len(opened)).tolist():
        if len(items) == limit:
            break
        one = opened[index]
        if one.mask is None or not object_ids(one.mask):
            continue
        size = shrunk_size(one.image.shape, short_side)
        mask = _foreground_mask(one.mask, size)
        items.append(replace(one, image=_shrunk_image(one.image, size), mask=mask, categories={}))
        indices.append(index)
    _need(f"--images {name}", len(items))
    return ImageSample(name, len(opened), tuple(indices), tuple(items))


def choose_videos(
    name: str, root: Path | None, limit: int, short_side: int, seed: int
) -> VideoSample:
    """Videos drawn at random, and a random frame with an object of each.

    Args:
        name: of a dataset of labelled videos.
        root: see :func:`bench.dataset.find_root`.
        limit: most videos.
        short_side: in pixels.
        seed: of both draws.

    Raises:
        ConfigError: a dataset of images.
        DataError: no labelled video.
    """
    dataset, split = get_dataset(name)
    if not issubclass(dataset, VideoDataset):
        raise ConfigError(f"--videos {name}", "images", "a dataset of videos", "See `list data`.")
    opened = dataset(find_root(dataset, root), split)
    assert isinstance(opened, VideoDataset)
    names = opened.sequences()
    clips: list[Video] = []
    chosen: list[int] = []
    for sequence in np.random.default_rng(seed).permutation(names).tolist():
        if len(clips) == limit:
            break
        video = opened.video(sequence)
        index = _frame_with_object(video, seed)
        if index is not None:
            clips.append(_shrunk_video(video, short_side))
            chosen.append(index)
    _need(f"--videos {name}", len(clips))
    fingerprints = tuple(opened.fingerprint(video.name) for video in clips)
    return VideoSample(name, len(names), tuple(clips), tuple(chosen), fingerprints)


def _frame_with_object(video: Video, seed: int) -> int | None:
    generator = np.random.default_rng([seed, zlib.crc32(video.name.encode())])
    for index in generator.permutation(video.annotated).tolist():
        if object_ids(video.load_mask(index)):
            return int(index)
    return None


def _shrunk_video(video: Video, short_side: int) -> Video:
    size = shrunk_size(video.size, short_side)
    return replace(
        video,
        size=size,
        load_frame=lambda index: _shrunk_image(video.load_frame(index), size),
        load_mask=lambda index: _foreground_mask(video.load_mask(index), size),
    )


FEWEST = 6
"""Samples per domain below which nothing can be cross-validated or drawn."""


def _need(option: str, count: int) -> None:
    if count < FEWEST:
        raise DataError(
            option,
            f"{count} samples with a mask that shows an object",
            f"{FEWEST} at least",
            "Name a larger labelled dataset, or raise --limit.",
        )
