"""Still images with their saliency, ready to be made into sequences."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.video import RGB, LabelledImage
from methods.shls.offline.saliency import Saliency, SaliencyMaps

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""

CHUNK = 4
"""Images that a worker process takes at a time."""


class Images(Protocol):
    """Still images by number, as :class:`bench.dataset.ImageDataset` has them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> LabelledImage: ...


@dataclass(frozen=True)
class Source:
    """A still image and where it is salient.

    Attributes:
        image: uint8 RGB ``(H, W, 3)``.
        saliency: uint8 ``(H, W)``, 0 = background.
    """

    image: RGB
    saliency: Saliency


class Sources(Sequence[Source]):
    """Images of a dataset with their saliency, shrunk.

    1000 images of 400 x 300 take about 0.5 GB in memory.

    Args:
        dataset: still images; their masks are not looked at, unless ``maps`` says so.
        maps: where saliency comes from.
        side: longer side in pixels to which larger images are shrunk. Twice the size of the
            sequences loses nothing that can be seen.
        indices: which images, in this order; None for all.
        workers: processes that detect saliency; 1 does it in this process.
        progress: called after each image.
        in_memory: False decodes an image whenever it is asked for. Saliency is then still
            detected beforehand where ``maps`` keeps it on disk.

    Raises:
        DataError: a broken or missing file.
    """

    def __init__(
        self,
        dataset: Images,
        maps: SaliencyMaps,
        side: int,
        indices: Sequence[int] | None = None,
        workers: int = 1,
        progress: Progress | None = None,
        in_memory: bool = True,
    ) -> None:
        self._reader = _Reader(dataset, maps, side)
        self._indices = list(range(len(dataset)) if indices is None else indices)
        self._kept: list[Source] | None = [] if in_memory else None
        if not in_memory and maps.cache is None:
            return
        for done, source in enumerate(self._read_all(workers), start=1):
            if self._kept is not None:
                self._kept.append(source)
            if progress is not None:
                progress(done, len(self._indices))

    def _read_all(self, workers: int) -> Iterator[Source]:
        if workers <= 1:
            yield from map(self._reader, self._indices)
            return
        # Processes are spawned, not forked: a fork copies locks that other threads hold.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _start_worker, (self._reader,))
        try:
            yield from pool.map(_work, self._indices, chunksize=CHUNK)
        finally:
            # After a broken file the rest would be read in vain.
            pool.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Source:  # type: ignore[override]
        """One image; raises IndexError past the end and DataError for a broken file."""
        return self._reader(self._indices[index]) if self._kept is None else self._kept[index]


@dataclass(frozen=True)
class _Reader:
    """Reads one image; travels to worker processes."""

    dataset: Images
    maps: SaliencyMaps
    side: int

    def __call__(self, index: int) -> Source:
        image = self.dataset[index]
        return shrink(Source(image.image, self.maps.of(image)), self.side)


_reader: _Reader | None = None
"""Of this worker process."""


def _start_worker(reader: _Reader) -> None:
    global _reader
    cv2.setNumThreads(1)
    _reader = reader


def _work(index: int) -> Source:
    assert _reader is not None
    return _reader(index)


def shrink(source: Source, side: int) -> Source:
    """A source whose longer side is at most ``side`` pixels."""
    height, width = source.saliency.shape
    scale = side / max(height, width)
    if scale >= 1:
        return source
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def resized(pixels: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))

    # Averages are those of salient pixels; with others the outline would be no longer sharp.
    share = resized((source.saliency > 0).astype(np.float32))
    levels = resized(source.saliency.astype(np.float32)) / np.maximum(share, 0.5)
    saliency = np.where(share >= 0.5, np.clip(np.rint(levels), 1, 255), 0)
    return Source(resized(source.image), saliency.astype(np.uint8))
