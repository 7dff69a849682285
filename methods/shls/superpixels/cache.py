"""Superpixels that were computed before are read from disk; several frames at once are computed.

A cached map is found by the content of its image and the settings, so neither renamed files nor
changed settings can give a wrong one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench.video import RGB
from methods.shls.superpixels.isec import SuperpixelMap
from methods.shls.superpixels.settings import SuperpixelSettings

DIGEST_SIZE = 16

COMPRESS_LEVEL = 1
"""Superpixel maps shrink to a tenth or less at any level; level 1 is the quickest."""

log = logging.getLogger(__name__)


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    for part in parts:
        digest.update(part)
    return digest.digest()


class SuperpixelCache:
    """Superpixel maps on disk, one small file each; safe for any number of processes at once.

    A file holds a digest of its name and content, then the compressed ids. Files appear whole or
    not at all; one that is damaged nevertheless, or unreadable, is computed and written again.

    Args:
        folder: where the files go, created when needed; None computes everything every time.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._warned = False

    def path(self, image: RGB, settings: SuperpixelSettings) -> Path | None:
        """The file for an image and settings, there or not; None without a folder."""
        if self.folder is None:
            return None
        what = f"{settings.identity()} {image.dtype.str} {image.shape} "
        key = _digest(what.encode(), np.ascontiguousarray(image).data).hex()
        # Folders of up to 256, so that none gets hundreds of thousands of files.
        return self.folder / key[:2] / f"{key[2:]}.ids"

    def get(self, image: RGB, settings: SuperpixelSettings) -> SuperpixelMap:
        """Superpixels of an image, from disk if they are there.

        Args:
            image: uint8 RGB ``(H, W, 3)``.
            settings: which superpixels.

        Returns:
            int32 ``(H, W)``, ids 1 .. N.
        """
        path = self.path(image, settings)
        if path is None:
            return settings.compute(image)
        found = _read(path, image.shape[:2])
        if found is not None:
            return found
        superpixels = settings.compute(image)
        try:
            _write(path, superpixels)
        except OSError as error:
            # The result is right all the same, so a full disk is no reason to stop.
            if not self._warned:
                log.warning("Superpixels are not kept: %s cannot be written (%s).", path, error)
            self._warned = True
        return superpixels


def _read(path: Path, size: tuple[int, int]) -> SuperpixelMap | None:
    """The map in a file, or None where there is none or a damaged one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, packed = data[:DIGEST_SIZE], data[DIGEST_SIZE:]
    if digest != _digest(path.name.encode(), packed):
        return None
    ids = zlib.decompress(packed)
    height, width = size
    kind = np.uint16 if len(ids) == height * width * 2 else np.uint32
    return np.frombuffer(ids, np.dtype(kind).newbyteorder("<")).reshape(size).astype(np.int32)


def _write(path: Path, superpixels: SuperpixelMap) -> None:
    """Write a map so that others see it whole or not at all; raises OSError."""
    kind = "<u2" if int(superpixels.max()) < 2**16 else "<u4"
    packed = zlib.compress(superpixels.astype(kind).tobytes(), COMPRESS_LEVEL)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(_digest(path.name.encode(), packed) + packed)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def available_cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def superpixels_parallel(
    images: Iterable[RGB | Callable[[], RGB]],
    function: Callable[[RGB], SuperpixelMap],
    workers: int | None = None,
) -> Iterator[SuperpixelMap]:
    """Superpixels of many frames, several at a time, in the frames' order.

    Threads do the work, since nearly all of it runs without Python's lock. Only twice as many
    frames as workers are held at once, so videos may be of any length.

    Args:
        images: uint8 RGB ``(H, W, 3)``, or functions that decode one, called by the workers.
        function: from an image to its superpixels, for instance ``settings.compute`` or a
            cache's ``get``.
        workers: frames worked on at once; None is one per CPU. 1 uses no threads.

    Yields:
        What the function returned; what it raised is raised at the frame's turn.

    Raises:
        ValueError: fewer workers than 1.
    """
    workers = available_cpus() if workers is None else workers
    if workers < 1:
        raise ValueError(f"at least 1 worker is needed, not {workers}")
    return _in_order(images, function, workers)


def _in_order(
    images: Iterable[RGB | Callable[[], RGB]],
    function: Callable[[RGB], SuperpixelMap],
    workers: int,
) -> Iterator[SuperpixelMap]:
    def compute(image: RGB | Callable[[], RGB]) -> SuperpixelMap:
        return function(image() if callable(image) else image)

    if workers == 1:
        yield from map(compute, images)
        return
    waiting: deque[Future[SuperpixelMap]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for image in images:
                waiting.append(pool.submit(compute, image))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # When the reader stops early or a frame fails, the rest is not computed in vain.
            for future in waiting:
                future.cancel()
