import numpy as np
import pytest
import torch

from bench.errors import ConfigError, DataError
from bench.method import MethodSettings
from bench.video import Video
from methods.clips import place
from methods.correspondence.pretext.clips import (
    Clips,
    FrameStore,
    collate,
    crop_at_random,
    resized_crop,
    split_videos,
    to_tensor,
)


def video(number, length, loads=None, size=(12, 16)):
    """Frame t is filled with the values number and t."""

    def load(index):
        if loads is not None:
            loads.append((number, index))
        frame = np.zeros((*size, 3), np.uint8)
        frame[..., 0], frame[..., 1] = number, index
        return frame

    def no_mask(index):
        raise AssertionError("masks are not read")

    names = tuple(str(index) for index in range(length))
    return Video("made", f"v{number}", names, size, load, no_mask, ())


def loader(*videos):
    return lambda number, frame: videos[number].load_frame(frame)


def numbers(frames, random, settings):
    """Which video and frames a clip has, and one random number."""
    return {
        "clip": torch.tensor([frame[0, 0, :2].tolist() for frame in frames]),
        "random": torch.tensor(random.random()),
    }


def clips(videos, draw, seed=0, **options):
    return Clips(videos, numbers, MethodSettings(), draw, seed, **options)


def gap_2(random, length):
    return place(random, length, (0, 2, 4))


def test_sample_depends_on_seed_and_index_alone():
    videos = [video(number, 9 + number) for number in range(5)]
    one, other = clips(videos, gap_2), clips(videos, gap_2, memory=10**6)
    backwards = [other[index] for index in reversed(range(20))][::-1]
    for index in range(20):
        sample = one[index]
        assert torch.equal(sample["clip"], backwards[index]["clip"])
        assert sample["random"] == backwards[index]["random"]
        video_numbers, frames = sample["clip"].unbind(1)
        assert len(set(video_numbers.tolist())) == 1
        assert frames.diff().tolist() == [2, 2]
    assert any(
        not torch.equal(one[index]["clip"], clips(videos, gap_2, seed=1)[index]["clip"])
        for index in range(20)
    )


def test_weighting_by_length_or_uniform():
    videos = [video(0, 10), video(1, 40)]

    def share(weighting):
        drawn = clips(videos, gap_2, weighting=weighting)
        return np.mean([drawn[index]["clip"][0, 0].item() for index in range(600)])

    assert share("uniform") == pytest.approx(0.5, abs=0.08)
    assert share("length") == pytest.approx(0.8, abs=0.08)


def test_short_videos_are_left_out():
    drawn = clips([video(0, 2), video(1, 3)], gap_2, shortest=3)
    assert {drawn[index]["clip"][0, 0].item() for index in range(20)} == {1}
    with pytest.raises(DataError, match="none with 4 frames"):
        clips([video(0, 2), video(1, 3)], gap_2, shortest=4)


def test_length_bounds_the_samples():
    drawn = clips([video(0, 6)], gap_2, length=3)
    assert len(drawn) == 3
    assert len([sample for sample in drawn]) == 3  # noqa: C416 - iterates by index
    with pytest.raises(IndexError):
        drawn[3]


def test_store_keeps_the_latest_used_frames_within_its_memory():
    loads = []
    frame_bytes = 12 * 16 * 3
    store = FrameStore(loader(video(0, 5, loads)), None, 2 * frame_bytes)
    for index in (0, 1, 0, 2, 0, 1):
        assert store.frame(0, index)[0, 0, 1] == index
    # 1 was used longest ago when 2 came.
    assert loads == [(0, 0), (0, 1), (0, 2), (0, 1)]


def test_store_without_memory_decodes_each_time():
    loads = []
    store = FrameStore(loader(video(0, 5, loads)), None, 0)
    store.frame(0, 1)
    store.frame(0, 1)
    assert loads == [(0, 1), (0, 1)]


def test_store_resizes_to_the_short_side():
    store = FrameStore(loader(video(3, 5)), 6, 10**6)
    assert store.frame(0, 2).shape == (6, 8, 3)
    assert store.frame(0, 2).dtype == np.uint8


def test_crop_at_random_is_the_same_for_all_frames_and_reaches_the_borders():
    rows, columns = np.mgrid[:6, :7]
    frame = np.stack([rows, columns, rows], 2).astype(np.uint8)
    random = np.random.default_rng(0)
    corners = set()
    for _ in range(200):
        first, second = crop_at_random([frame, frame], random, 5)
        assert first.shape == (5, 5, 3)
        assert np.array_equal(first, second)
        corners.add(tuple(first[0, 0, :2].tolist()))
    assert corners == {(top, left) for top in range(2) for left in range(3)}


def test_resized_crop_has_the_area_and_shape_asked_for():
    """On a ramp, the range of the values inside a crop says how wide and high it was."""
    rows, columns = np.mgrid[:200, :200]
    frame = np.stack([rows, columns, rows], 2).astype(np.uint8)
    random = np.random.default_rng(0)
    for _ in range(30):
        cut = resized_crop(frame, random, 50, (0.25, 0.25), (1.0, 1.0)).astype(float)
        assert cut.shape == (50, 50, 3)
        assert np.ptp(cut[..., 0]) == pytest.approx(99, abs=2)
        assert np.ptp(cut[..., 1]) == pytest.approx(99, abs=2)
    wide = resized_crop(frame, random, 50, (0.25, 0.25), (4.0, 4.0)).astype(float)
    assert np.ptp(wide[..., 1]) == pytest.approx(199, abs=4)
    assert np.ptp(wide[..., 0]) == pytest.approx(49, abs=2)


def test_resized_crop_takes_the_whole_image_where_nothing_fits():
    frame = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    cut = resized_crop(frame, np.random.default_rng(0), 4, (1.0, 1.0), (8.0, 8.0))
    assert cut.shape == (4, 4, 3)


def test_to_tensor_puts_channels_first():
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8))
    found = to_tensor(frames)
    assert found.shape == (2, 3, 5, 4)
    assert found[1, 2, 3, 0] == frames[1][3, 0, 2]


def test_collate_stacks_by_name():
    batch = collate([{"a": torch.tensor([1, 2]), "b": torch.tensor(3.0)}] * 4)
    assert {name: tuple(each.shape) for name, each in batch.items()} == {"a": (4, 2), "b": (4,)}


def test_split_is_disjoint_complete_by_seed_and_nested():
    videos = [video(number, 5) for number in range(10)]
    train, held_out = split_videos(videos, 3, seed=0)
    assert len(held_out) == 3
    assert {v.name for v in train} | {v.name for v in held_out} == {v.name for v in videos}
    assert len(train) == 7
    again = split_videos(videos, 3, seed=0)[1]
    assert [v.name for v in again] == [v.name for v in held_out]
    larger = {v.name for v in split_videos(videos, 5, seed=0)[1]}
    assert {v.name for v in held_out} < larger
    assert any(
        {v.name for v in split_videos(videos, 3, seed=seed)[1]} != {v.name for v in held_out}
        for seed in range(1, 4)
    )


@pytest.mark.parametrize("held_out", [0, 10, 11])
def test_split_leaves_something_on_both_sides(held_out):
    with pytest.raises(ConfigError, match="held_out"):
        split_videos([video(number, 5) for number in range(10)], held_out, seed=0)
