from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bench.dataset import Problem, VideoDataset, find_root
from bench.errors import ConfigError, DataError, MaskError, ProblemsError
from bench.metrics.rules import SEMI_SUPERVISED
from bench.registry import get_dataset
from bench.video import object_ids
from datasets.davis import Davis16, Davis17
from tests.datasets.layouts import picture, square, write_grey, write_jpeg

Spoil = Callable[[Path], None]


def errors(dataset: VideoDataset) -> list[Problem]:
    return [problem for problem in dataset.verify() if problem.severity == "error"]


def test_registered_by_name() -> None:
    assert get_dataset("davis16-train") == (Davis16, "train")
    assert get_dataset("davis17") == (Davis17, None)
    assert Davis16.scoring is SEMI_SUPERVISED


def test_2016_reads_list_order_and_binary_masks(davis16: Path) -> None:
    dataset = Davis16(davis16)
    assert (dataset.resolution, dataset.sequences()) == ("480p", ["b", "a"])
    video = dataset.video("a")
    assert (len(video), video.size, video.annotated) == (4, (24, 32), (0, 1, 2, 3))
    assert video.frame_names[2] == "00002"
    assert_array_equal(video.load_mask(2), square(1, 2))
    assert np.abs(video.frame(2).image.astype(int) - picture(2)).mean() < 10
    assert video.scorable
    assert not errors(dataset)


def test_2016_takes_the_resolution_that_a_split_has(davis16: Path) -> None:
    assert Davis16(davis16, "train").resolution == "240p"
    with pytest.raises(ConfigError, match=r"resolution.*1080p.*240p, 480p"):
        Davis16(davis16, resolution="1080p")
    with pytest.raises(DataError, match=r"480p/train.txt"):
        Davis16(davis16, "train", resolution="480p")


def test_2016_list_of_another_dataset_is_refused(davis16: Path) -> None:
    (davis16 / "ImageSets/480p/val.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"val.txt.*line 1"):
        Davis16(davis16)


def test_2017_keeps_ids_with_gaps_and_notes_a_short_list(davis17: Path) -> None:
    dataset = Davis17(davis17)
    assert dataset.sequences() == ["train", "dogs-jump"]
    assert object_ids(dataset.video("train").load_mask(0)) == (1, 5)
    (note,) = dataset.verify()
    assert (note.severity, note.what) == ("note", "2 of the 30 official sequences")
    assert note.path == davis17 / "ImageSets/2017/val.txt"


def test_test_dev_needs_first_masks_only_and_is_not_scorable(davis17: Path) -> None:
    for i in (1, 2, 3):
        (davis17 / f"Annotations/480p/dogs-jump/{i:05d}.png").unlink()
    dataset = Davis17(davis17, "test-dev")
    video = dataset.video("dogs-jump")
    assert (video.annotated, video.scorable, len(video)) == ((0,), False, 4)
    assert not errors(dataset)


def test_full_resolution(davis17: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (davis17 / kind / "480p").rename(davis17 / kind / "Full-Resolution")
    assert Davis17(davis17).resolution == "Full-Resolution"
    assert not errors(Davis17(davis17, resolution="Full-Resolution"))


@pytest.mark.parametrize("kind", ["text", "symlink"])
def test_linked_frames_are_followed(davis17: Path, tmp_path: Path, kind: str) -> None:
    shutil.move(davis17 / "JPEGImages/480p", tmp_path / "elsewhere")
    link = davis17 / "JPEGImages/480p"
    if kind == "text":
        link.write_text("../../elsewhere")
    else:
        link.symlink_to("../../elsewhere")
    dataset = Davis17(davis17)
    assert dataset.video("train").frame(3).image.shape == (24, 32, 3)
    assert not errors(dataset)


def test_link_to_nowhere_is_named(davis17: Path) -> None:
    shutil.rmtree(davis17 / "JPEGImages/480p")
    link = davis17 / "JPEGImages/480p"
    link.write_text("../../gone")
    dataset = Davis17(davis17)
    with pytest.raises(DataError, match=r"flattened link to '../../gone'"):
        dataset.video("train")
    (problem,) = errors(dataset)
    assert problem.path == link


def test_unknown_names_are_refused_with_the_closest(davis17: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'dogs-jump'"):
        Davis17(davis17).video("dog-jump")
    with pytest.raises(ConfigError, match="Did you mean 'val'"):
        Davis17(davis17, "vall")
    with pytest.raises(ConfigError, match="Did you mean 'resolution'"):
        Davis17(davis17, resolutoin="480p")


def test_missing_root_and_lists(davis16: Path, davis17: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="davischallenge"):
        Davis17(tmp_path / "gone")
    shutil.rmtree(davis16 / "ImageSets")
    with pytest.raises(DataError, match=r"ImageSets/480p/val.txt"):
        Davis16(davis16)
    assert not Davis16.recognises(davis16)
    assert not Davis16.recognises(davis17)
    assert find_root(Davis17, tmp_path) == davis17


def test_missing_frame_with_its_mask_there(davis17: Path) -> None:
    gone = davis17 / "JPEGImages/480p/train/00001.jpg"
    gone.unlink()
    assert errors(Davis17(davis17)) == [Problem(gone, "missing frame")]
    with pytest.raises(ProblemsError, match=r"train/00001.jpg: missing frame"):
        Davis17(davis17).video("train")


def test_missing_frame_and_mask_leave_a_gap(davis17: Path) -> None:
    gone = davis17 / "JPEGImages/480p/train/00002.jpg"
    gone.unlink()
    (davis17 / "Annotations/480p/train/00002.png").unlink()
    assert errors(Davis17(davis17)) == [Problem(gone, "missing frame")]


def test_frame_of_the_official_list_missing(davis16: Path) -> None:
    gone = [davis16 / "JPEGImages/480p/a/00003.jpg", davis16 / "Annotations/480p/a/00003.png"]
    for path in gone:
        path.unlink()
    assert [problem.path for problem in errors(Davis16(davis16))] == gone


def test_missing_mask(davis17: Path) -> None:
    gone = davis17 / "Annotations/480p/train/00001.png"
    gone.unlink()
    assert errors(Davis17(davis17)) == [Problem(gone, "missing mask")]
    with pytest.raises(DataError, match="missing mask"):
        Davis17(davis17).fingerprint("train")


@pytest.mark.parametrize("kind", ["JPEGImages", "Annotations"])
def test_absent_and_empty_folders(davis17: Path, kind: str) -> None:
    folder = davis17 / kind / "480p/train"
    shutil.rmtree(folder)
    (problem,) = errors(Davis17(davis17))
    assert (problem.path, problem.what.startswith("missing folder")) == (folder, True)
    folder.mkdir()
    (problem,) = errors(Davis17(davis17))
    assert (problem.path, problem.what.startswith("empty folder")) == (folder, True)
    with pytest.raises(DataError, match="empty folder"):
        Davis17(davis17).video("train")


def test_truncated_jpeg_never_gives_grey_pixels(davis17: Path, truncate: Spoil) -> None:
    path = davis17 / "JPEGImages/480p/train/00002.jpg"
    truncate(path)
    (problem,) = errors(Davis17(davis17))
    assert problem.path == path
    assert "truncated" in problem.what
    with pytest.raises(DataError, match=r"00002.jpg.*truncated"):
        Davis17(davis17).video("train").load_frame(2)


def test_truncated_png(davis16: Path, truncate: Spoil) -> None:
    path = davis16 / "Annotations/480p/a/00002.png"
    truncate(path)
    (problem,) = errors(Davis16(davis16))
    assert (problem.path, "truncated" in problem.what) == (path, True)
    with pytest.raises(MaskError):
        Davis16(davis16).video("a").load_mask(2)


@pytest.mark.parametrize("year", ["2016", "2017"])
def test_rgb_mask(davis16: Path, davis17: Path, year: str, spoil_rgb: Spoil) -> None:
    dataset = Davis16(davis16) if year == "2016" else Davis17(davis17)
    name = dataset.sequences()[0]
    path = dataset.root / f"Annotations/480p/{name}/00001.png"
    spoil_rgb(path)
    (problem,) = errors(dataset)
    assert (problem.path, "mode RGB" in problem.what) == (path, True)
    with pytest.raises(MaskError, match="RGB"):
        dataset.video(name).load_mask(1)


def test_antialiased_mask(davis16: Path, spoil_antialias: Spoil) -> None:
    path = davis16 / "Annotations/480p/a/00001.png"
    spoil_antialias(path)
    (problem,) = errors(Davis16(davis16))
    assert (problem.path, "other than 0 and 255" in problem.what) == (path, True)
    with pytest.raises(MaskError, match="anti-aliased"):
        Davis16(davis16).video("a").load_mask(1)


def test_antialiased_id_mask(davis17: Path) -> None:
    path = davis17 / "Annotations/480p/train/00001.png"
    write_grey(path, np.arange(24 * 32, dtype=np.uint16).reshape(24, 32).astype(np.uint8))
    (problem,) = errors(Davis17(davis17))
    assert (problem.path, "256 different values" in problem.what) == (path, True)


@pytest.mark.parametrize("index", [0, 2])
def test_one_frame_of_another_size_is_the_one_named(davis17: Path, index: int) -> None:
    path = davis17 / f"JPEGImages/480p/train/{index:05d}.jpg"
    write_jpeg(path, index, (20, 30))
    expected = "30x20 pixels where 32x24 are expected"
    assert errors(Davis17(davis17)) == [Problem(path, expected)]
    video = Davis17(davis17).video("train")
    with pytest.raises(DataError, match="like the sequence's first frame"):
        video.load_frame(2)  # either it is the odd one, or the first frame is


def test_mask_of_another_size(davis16: Path) -> None:
    path = davis16 / "Annotations/480p/b/00003.png"
    write_grey(path, square(255, 1, (20, 30)))
    assert errors(Davis16(davis16)) == [Problem(path, "30x20 pixels where 32x24 are expected")]
    with pytest.raises(DataError, match=r"b/00003.png: found 30x20"):
        Davis16(davis16).video("b").load_mask(3)


def test_every_problem_is_listed_at_once(davis16: Path, truncate: Spoil) -> None:
    truncate(davis16 / "JPEGImages/480p/a/00001.jpg")
    (davis16 / "Annotations/480p/a/00000.png").unlink()
    (davis16 / "Annotations/480p/b/00000.png").unlink()
    assert len(errors(Davis16(davis16))) == 3


def test_fingerprint_follows_masks(davis17: Path) -> None:
    dataset = Davis17(davis17)
    before = dataset.fingerprint("train")
    assert before == Davis17(davis17).fingerprint("train")
    write_grey(davis17 / "Annotations/480p/train/00003.png", square(2))
    assert dataset.fingerprint("train") != before


def test_progress_is_reported(davis16: Path) -> None:
    dataset, seen = Davis16(davis16), []
    dataset.progress = lambda done, total: seen.append((done, total))
    dataset.verify()
    assert seen == [(1, 2), (2, 2)]


def test_real_2016(shared_dir: Path) -> None:
    root = shared_dir / "data/DAVIS2016"
    val, train = Davis16(root), Davis16(root, "train")
    assert (len(val), len(train), train.resolution) == (20, 30, "240p")
    assert sum(len(video) for video in val) == 1376
    assert sum(len(video) for video in train) == 2079
    assert val.video("blackswan").size == (480, 854)


def test_real_2017(shared_dir: Path) -> None:
    dataset = Davis17(find_root(Davis17, shared_dir / "data"))
    assert len(dataset) == 14
    assert object_ids(dataset.video("bmx-trees").load_mask(0)) == (1, 2)


@pytest.mark.parametrize("fault", ["frame", "jpeg", "rgb", "grey", "size"])
def test_real_sequence_with_a_fault(
    shared_dir: Path,
    tmp_path: Path,
    fault: str,
    truncate: Spoil,
    spoil_rgb: Spoil,
    spoil_antialias: Spoil,
) -> None:
    source, root = shared_dir / "data/DAVIS2016", tmp_path / "DAVIS2016"
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(source / kind / "240p/bus", root / kind / "240p/bus")
    (root / "ImageSets/240p").mkdir(parents=True)
    lines = (source / "ImageSets/240p/train.txt").read_text().splitlines()
    chosen = [line for line in lines if "/bus/" in line]
    (root / "ImageSets/240p/train.txt").write_text("\n".join(chosen))
    assert not errors(Davis16(root, "train"))
    jpeg = root / "JPEGImages/240p/bus/00007.jpg"
    png = root / "Annotations/240p/bus/00007.png"
    if fault == "frame":
        jpeg.unlink()
    elif fault == "jpeg":
        truncate(jpeg)
    elif fault == "rgb":
        spoil_rgb(png)
    elif fault == "grey":
        spoil_antialias(png)
    else:
        write_jpeg(jpeg, 0)
    (problem,) = errors(Davis16(root, "train"))
    assert problem.path == (png if fault in ("rgb", "grey") else jpeg)

    def load() -> None:
        video = Davis16(root, "train").video("bus")
        video.load_frame(7)
        video.load_mask(7)

    with pytest.raises(DataError, match=r"bus/00007"):
        load()
