"""Still images in the place of videos: what a camera wandering over each would have seen.

The control of what *video* adds to an objective: nothing in such a clip moves on its own, nothing
changes its look, and everything that is seen in two frames is the same. No labels are read.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from bench.dataset import ImageDataset
from bench.method import MethodSettings
from bench.video import RGB
from methods.camera_path import Extent, camera_path, look
from methods.correspondence.pretext.clips import FrameStore


class CameraSettings(MethodSettings):
    """How the camera wanders. Poses are drawn evenly, between two of them its speed is constant.

    Attributes:
        frames: that are made of each image.
        leg: frames from one pose to the next.
        zoom: smallest and largest magnification.
        shift: largest shift either way, as a share of the image's sides.
        rotation: largest rotation either way, in degrees.
    """

    frames: int = Field(default=24, ge=2)
    leg: int = Field(default=6, ge=1)
    zoom: tuple[float, float] = (0.8, 1.25)
    shift: float = Field(default=0.15, ge=0, le=0.5)
    rotation: float = Field(default=10.0, ge=0, le=180)


class StillFootage:
    """One image as a video.

    Args:
        store: of the images.
        number: the image's.
        camera: how it wanders.
        seed: its path depends on it and on ``number`` alone.
    """

    def __init__(self, store: FrameStore, number: int, camera: CameraSettings, seed: int) -> None:
        self.store = store
        self.number = number
        extent = Extent(camera.zoom, camera.shift, camera.rotation)
        random = np.random.default_rng((seed, number))
        self.path = camera_path(random, camera.frames, extent, camera.leg)

    def __len__(self) -> int:
        return len(self.path)

    def load_frame(self, index: int) -> RGB:
        """What the camera sees in frame ``index``; uint8 RGB of the image's size."""
        return look(self.store.frame(self.number, 0), self.path[index])


class _OneFrameEach:
    """Images as the store asks for them."""

    def __init__(self, images: ImageDataset) -> None:
        self.images = images

    def load(self, number: int, _frame: int) -> RGB:
        return self.images[number].image


def wander(
    images: ImageDataset, camera: CameraSettings, seed: int, short_side: int | None, memory: int
) -> list[StillFootage]:
    """Every image as a video.

    Args:
        images: their masks are not looked at.
        camera: how it wanders.
        seed: of the paths.
        short_side: images are scaled to it before the camera looks at them, in pixels; None keeps
            their size.
        memory: bytes of decoded images that each process keeps.
    """
    store = FrameStore(_OneFrameEach(images).load, short_side, memory)
    return [StillFootage(store, number, camera, seed) for number in range(len(images))]
