from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from bench.dataset import Problem, find_root
from bench.errors import ConfigError, DataError
from bench.media import natural_key, open_video, read_image, write_video
from bench.registry import get_dataset
from bench.video import RGB
from datasets.folder import Frames
from tests.datasets.layouts import picture, write_jpeg


def clip(count: int = 30, size: tuple[int, int] = (48, 64)) -> list[RGB]:
    return [picture(i, size) for i in range(count)]


@pytest.fixture
def mp4(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    assert write_video(path, clip()) == 30
    return path


# --- images ---------------------------------------------------------------------------------


def test_natural_order() -> None:
    names = ["a10", "a2", "b1", "a1b3", "a1b20", "7", "10"]
    expected = ["7", "10", "a1b3", "a1b20", "a2", "a10", "b1"]
    assert sorted(names, key=natural_key) == expected


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_truncated_images_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(picture(1, (200, 300))).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"x.{suffix}: found an unreadable or truncated image"):
        read_image(path)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(picture(1)).convert(mode).save(path)
    with Image.open(path) as image:
        assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


def test_orientation_tags_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(1)).save(path, exif=exif)
    assert read_image(path).shape == (24, 32, 3)


def test_bytes_after_the_end_of_a_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    write_jpeg(path)
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + b"\0" * 10 + b"comment")
    assert_array_equal(read_image(path), expected)


def test_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_text("hello")
    with pytest.raises(DataError, match="not an image"):
        read_image(tmp_path / "x.jpg")


# --- folders of frames ----------------------------------------------------------------------


def test_folder_in_natural_order(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        write_jpeg(tmp_path / f"shot{i}.jpg", i)
    (tmp_path / "notes.txt").write_text("x")
    video = open_video(tmp_path)
    assert video.frame_names == ("shot1", "shot2", "shot10")
    assert (video.size, video.annotated, video.dataset) == ((24, 32), (), "frames")
    assert_array_equal(video.frame(2).image, read_image(tmp_path / "shot10.jpg"))
    with pytest.raises(DataError, match="unlabelled"):
        video.load_mask(0)


def test_folder_faults_are_named(tmp_path: Path, truncate: Callable[[Path], None]) -> None:
    with pytest.raises(DataError, match="no JPEG or PNG"):
        open_video(tmp_path)
    with pytest.raises(DataError, match="found nothing"):
        open_video(tmp_path / "gone")
    for i in range(4):
        write_jpeg(tmp_path / f"{i}.jpg", i)
    write_jpeg(tmp_path / "0.jpg", 0, (20, 30))
    with pytest.raises(DataError, match=r"0.jpg: 30x20 pixels where most frames have 32x24"):
        open_video(tmp_path)
    write_jpeg(tmp_path / "0.jpg", 0)
    Image.fromarray(picture(0)).save(tmp_path / "3.png")
    with pytest.raises(DataError, match="the same name as"):
        open_video(tmp_path)
    (tmp_path / "3.png").unlink()
    truncate(tmp_path / "2.jpg")
    with pytest.raises(DataError, match=r"(?is)2\.jpg.*truncated"):
        open_video(tmp_path)


def test_frame_cut_short_is_refused_when_it_is_read(tmp_path: Path) -> None:
    for i in range(3):
        write_jpeg(tmp_path / f"{i}.jpg", i, (200, 300))
    path = tmp_path / "1.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    video = open_video(tmp_path)
    with pytest.raises(DataError, match=r"1\.jpg.*truncated"):
        video.load_frame(1)


# --- video files ----------------------------------------------------------------------------


def test_random_access_equals_sequential(mp4: Path) -> None:
    video = open_video(mp4)
    assert (len(video), video.size, video.name) == (30, (48, 64), "film")
    assert video.frame_names[:2] == ("00000", "00001")
    images = [frame.image for frame in video.frames()]
    for index in (17, 3, 3, 4, 29, 0, 29, 28):
        assert_array_equal(video.load_frame(index), images[index])
    for image, original in zip(images, clip(), strict=True):
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - original).mean() < 25  # colour is stored at half size
    with pytest.raises(IndexError):
        video.load_frame(30)


def test_writing_into_a_frame_does_not_spoil_the_next_read(mp4: Path) -> None:
    video = open_video(mp4)
    first = video.load_frame(5)
    expected = first.copy()
    first[:] = 0
    assert_array_equal(video.load_frame(5), expected)


def test_sequential_reading_decodes_each_frame_once(
    mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import media

    opened = 0
    decode = media.VideoFile._decode

    def counted(self: media.VideoFile) -> Iterator[object]:
        nonlocal opened
        opened += 1
        return decode(self)

    monkeypatch.setattr(media.VideoFile, "_decode", counted)
    video = open_video(mp4)
    for index in range(30):
        video.load_frame(index)
    assert opened == 2  # once to count, once to read
    video.load_frame(10)
    video.load_frame(12)
    assert opened == 3
    video.load_frame(11)
    assert opened == 4


def test_odd_sizes_are_padded(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    write_video(path, clip(3, (35, 51)), fps=29.97)
    assert open_video(path).size == (36, 52)


def test_write_video_faults_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with pytest.raises(DataError, match="no frames"):
        write_video(path, [])
    with pytest.raises(DataError, match="frame 1 of 30x20"):
        write_video(path, [picture(0), picture(1, (20, 30))])
    assert list(tmp_path.iterdir()) == []


def test_upright_recordings_are_turned(mp4: Path) -> None:
    """Phones store an upright film on its side, with a matrix in the track header."""
    before = open_video(mp4).load_frame(4)
    data = bytearray(mp4.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    clockwise = (0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *clockwise)
    mp4.write_bytes(data)
    video = open_video(mp4)
    assert video.size == (64, 48)
    assert_array_equal(video.load_frame(4), np.rot90(before, -1))


@pytest.mark.parametrize("content", [b"", b"not a film" * 100])
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x.mp4: found a file that cannot be decoded"):
        open_video(path)


def test_truncated_file(mp4: Path) -> None:
    mp4.write_bytes(mp4.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"film.mp4"):
        open_video(mp4)


# --- the dataset ----------------------------------------------------------------------------


def test_registered_by_name() -> None:
    assert get_dataset("frames")[0] is Frames


def test_one_folder_of_frames(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "shot/1.jpg")
    dataset = Frames(tmp_path / "shot")
    assert dataset.sequences() == ["shot"]
    assert dataset.video("shot").dataset == "frames"
    assert dataset.verify() == []
    assert find_root(Frames, tmp_path / "shot") == tmp_path / "shot"


def test_one_file(mp4: Path) -> None:
    dataset = Frames(mp4)
    assert dataset.sequences() == ["film"]
    assert len(dataset.video("film")) == 30


def test_folders_and_files_together(tmp_path: Path, mp4: Path) -> None:
    root = tmp_path / "all"
    for name in ("take10", "take2", "film", ".hidden", "__MACOSX"):
        write_jpeg(root / name / "1.jpg")
    shutil.copy(mp4, root / "film.mp4")
    shutil.copy(mp4, root / "other.mp4")
    dataset = Frames(root)
    assert dataset.sequences() == ["film", "film.mp4", "other", "take2", "take10"]
    assert [len(video) for video in dataset] == [1, 30, 30, 1, 1]
    assert dataset.verify() == []
    assert dataset.video("film.mp4").name == "film.mp4"


def test_dataset_faults(tmp_path: Path, truncate: Callable[[Path], None]) -> None:
    for i in range(3):
        write_jpeg(tmp_path / f"good/{i}.jpg", i)
        write_jpeg(tmp_path / f"bad/{i}.jpg", i)
    truncate(tmp_path / "bad/1.jpg")
    write_jpeg(tmp_path / "bad/0.jpg", 0, (20, 30))
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.mp4").write_bytes(b"zero")
    write_jpeg(tmp_path / "bad/3.jpg", 3)
    write_jpeg(tmp_path / "bad/4.jpg", 4)
    dataset = Frames(tmp_path)
    problems = dataset.verify()
    assert [problem.path for problem in problems] == [
        tmp_path / "bad/1.jpg",
        tmp_path / "bad/0.jpg",
        tmp_path / "empty",
        tmp_path / "x.mp4",
    ]
    assert Problem(tmp_path / "empty", "empty folder of frames") in problems
    with pytest.raises(DataError, match="empty"):
        dataset.video("empty")
    with pytest.raises(DataError, match="Did you mean 'good'"):
        dataset.video("goood")
    with pytest.raises(ConfigError, match="unknown setting"):
        Frames(tmp_path, fps=3)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no frames and no video"):
        Frames(tmp_path)
    with pytest.raises(DataError, match="found nothing"):
        Frames(tmp_path / "gone")
    assert not Frames.recognises(tmp_path)


def test_fingerprints(tmp_path: Path, mp4: Path) -> None:
    dataset = Frames(mp4)
    before = dataset.fingerprint("film")
    mp4.write_bytes(mp4.read_bytes() + b"\0")
    assert dataset.fingerprint("film") != before
    write_jpeg(tmp_path / "shot/1.jpg", 1)
    shot = Frames(tmp_path / "shot")
    before = shot.fingerprint("shot")
    write_jpeg(tmp_path / "shot/2.jpg", 2)
    assert shot.fingerprint("shot") != before


def test_videos_beside_other_datasets_are_found_by_their_folders_name(tmp_path: Path) -> None:
    for name in ("ECSSD/images", "frames/walk"):
        write_jpeg(tmp_path / name / "0.jpg")
    assert find_root(Frames, tmp_path) == tmp_path / "frames"
    assert find_root(Frames, tmp_path / "frames") == tmp_path / "frames"
    assert find_root(Frames, tmp_path / "frames" / "walk") == tmp_path / "frames" / "walk"
