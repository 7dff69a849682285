"""Still images as videos: what a wandering camera sees of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.dataset import ImageDataset, Problem
from bench.video import RGB, LabelledImage
from methods.camera_path import camera_path, look
from methods.correspondence.pretext.clips import Clips
from methods.correspondence.pretext.stills import CameraSettings, wander
from methods.correspondence.pretext.vidcolor import VidColorSettings, augment

SIZE = (90, 120)


class Photographs(ImageDataset):
    """A few textured images, which count how often they are decoded."""

    name = "photographs"
    title = "Photographs"
    splits = ("all",)
    how_to_get = "They are drawn."

    def __init__(self, root: Path | None = None, split: str | None = None, **settings: Any) -> None:
        self.decoded: list[int] = []

    @classmethod
    def recognises(cls, root: Path) -> bool:
        return False

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> LabelledImage:
        self.decoded.append(index)
        return LabelledImage(str(index), texture(index), None)

    def verify(self) -> list[Problem]:
        return []


def texture(seed: int) -> RGB:
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (SIZE[0] // 10, SIZE[1] // 10, 3), dtype=np.uint8)
    return np.kron(small, np.ones((10, 10, 1), np.uint8))


def test_every_image_is_a_video_of_its_own_path_which_seed_and_number_decide() -> None:
    camera = CameraSettings(frames=9, leg=4)
    one = wander(Photographs(), camera, 3, None, 0)
    again = wander(Photographs(), camera, 3, None, 10**6)
    other = wander(Photographs(), camera, 4, None, 0)
    assert [len(video) for video in one] == [9] * 5
    for number in (4, 0):
        for frame in (8, 0, 3):
            seen = one[number].load_frame(frame)
            assert seen.shape == (*SIZE, 3)
            assert np.array_equal(seen, again[number].load_frame(frame))
            assert np.array_equal(seen, look(texture(number), one[number].path[frame]))
    assert not np.allclose(one[0].path, one[1].path)
    assert not np.allclose(one[0].path, other[0].path)


def test_a_camera_at_rest_sees_the_image_itself() -> None:
    rest = CameraSettings(frames=3, zoom=(1.0, 1.0), shift=0.0, rotation=0.0)
    video = wander(Photographs(), rest, 0, None, 0)[2]
    assert all(np.array_equal(video.load_frame(frame), texture(2)) for frame in range(3))


def test_an_image_is_decoded_once_while_it_fits_in_memory() -> None:
    photographs = Photographs()
    videos = wander(photographs, CameraSettings(), 0, 60, 10**7)
    assert photographs.decoded == []  # nothing before it is needed
    sizes = {videos[number].load_frame(frame).shape for number in (0, 1) for frame in (0, 5, 9)}
    assert sizes == {(60, 80, 3)}
    assert photographs.decoded == [0, 1]


def test_clips_are_cut_from_stills_as_from_videos() -> None:
    settings = VidColorSettings(crop=64, short_side=80, cells=8)
    videos = wander(Photographs(), CameraSettings(), 0, None, 0)
    clips = Clips(videos, augment, settings, settings.draw_frames, 0)
    sample = clips[7]
    assert sample["images"].shape == (4, 1, 64, 64)
    assert not np.array_equal(sample["images"][0], sample["images"][3])


@pytest.mark.parametrize(("frames", "leg"), [(2, 1), (7, 3), (9, 4), (10, 20)])
def test_the_camera_turns_at_the_end_of_every_leg_alone(frames: int, leg: int) -> None:
    path = camera_path(np.random.default_rng(1), frames, leg=leg)
    assert path.shape == (frames, 4)
    turns = np.abs(np.diff(path, axis=0, n=2)).max(1) > 1e-9
    assert np.flatnonzero(turns).tolist() == list(range(leg - 1, frames - 2, leg))
