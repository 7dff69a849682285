from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.dataset import Problem, find_root
from bench.errors import ConfigError, DataError
from bench.masks import write_mask
from bench.metrics.rules import YOUTUBE_VOS
from bench.registry import get_dataset
from bench.video import ObjectInfo, object_ids
from datasets.youtube_vos import YoutubeVos2018, YoutubeVos2019
from tests.datasets.layouts import square, write_jpeg


def edit_meta(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    meta = json.loads(path.read_text())
    change(meta["videos"])
    path.write_text(json.dumps(meta))


def errors(dataset: YoutubeVos2018) -> list[Problem]:
    return [problem for problem in dataset.verify() if problem.severity == "error"]


def test_registered_with_its_scoring() -> None:
    assert get_dataset("ytvos18-train") == (YoutubeVos2018, "train")
    assert get_dataset("ytvos19") == (YoutubeVos2019, None)
    assert YoutubeVos2018.scoring is YOUTUBE_VOS


def test_valid_introduces_objects_and_is_not_scorable(ytvos: Path) -> None:
    dataset = YoutubeVos2018(ytvos)
    assert dataset.split == "valid"
    video = dataset.video("v0")
    assert video.frame_names == ("00000", "00005", "00010", "00015")
    assert (video.annotated, video.scorable) == ((0, 2), False)
    assert object_ids(video.load_mask(0)) == (1,)
    assert object_ids(video.load_mask(2)) == (1, 2)
    assert video.objects == {1: ObjectInfo("dog", True), 2: ObjectInfo("unicorn", False)}
    with pytest.raises(DataError, match="no mask"):
        video.load_mask(1)


def test_seen_from_settings_or_unknown(ytvos: Path) -> None:
    given = YoutubeVos2018(ytvos, unseen=["dog"]).video("v0").objects
    assert [given[1].seen, given[2].seen] == [False, True]
    shutil.rmtree(ytvos / "train")
    assert YoutubeVos2018(ytvos).video("v0").objects[1] == ObjectInfo("dog", None)
    with pytest.raises(ConfigError, match="unseen"):
        YoutubeVos2018(ytvos, unseen="dog")


def test_train_has_masks_on_all_frames(ytvos: Path) -> None:
    video = YoutubeVos2018(ytvos, "train").video("t0")
    assert (video.annotated, video.scorable) == ((0, 1, 2, 3), True)
    assert video.objects[2] == ObjectInfo("cat", True)


def test_all_frames_are_found_by_name(ytvos: Path) -> None:
    for i in range(20):
        write_jpeg(ytvos / f"valid_all_frames/JPEGImages/v0/{i:05d}.jpg", i)
    sparse, full = YoutubeVos2018(ytvos), YoutubeVos2018(ytvos, all_frames=True)
    assert (len(sparse.video("v0")), len(full.video("v0"))) == (4, 20)
    assert full.video("v0").annotated == (0, 10)
    assert not errors(full)
    shutil.rmtree(ytvos / "valid/JPEGImages")
    assert len(YoutubeVos2018(ytvos).video("v0")) == 20
    with pytest.raises(DataError, match="frames of valid"):
        YoutubeVos2018(ytvos, all_frames=False)


def test_everything_beside_the_full_set_of_frames(ytvos: Path) -> None:
    (ytvos / "valid").rename(ytvos / "valid_all_frames")
    dataset = YoutubeVos2018(ytvos)
    assert dataset.video("v0").annotated == (0, 2)
    assert YoutubeVos2018.recognises(ytvos)


def test_notes(ytvos: Path) -> None:
    assert [str(p.what) for p in YoutubeVos2018(ytvos).verify()] == [
        "1 of the 474 official sequences"
    ]
    path = ytvos / "valid/Annotations/v0/00010.png"
    write_mask(path, square(7))
    what = [p.what for p in YoutubeVos2018(ytvos).verify() if p.path == path]
    assert what == [
        "object 2 is not in this mask, the first that meta.json names for it",
        "object 7 is not in meta.json",
    ]


def test_missing_files_are_named(ytvos: Path) -> None:
    gone = [
        ytvos / "valid/JPEGImages/v0/00015.jpg",
        ytvos / "valid/Annotations/v0/00010.png",
    ]
    for path in gone:
        path.unlink()
    assert [problem.path for problem in errors(YoutubeVos2018(ytvos))] == gone
    with pytest.raises(DataError, match=r"00015.jpg: missing frame"):
        YoutubeVos2018(ytvos).video("v0")
    other = ytvos / "train/Annotations/t0/00005.png"
    other.unlink()
    assert errors(YoutubeVos2018(ytvos, "train")) == [Problem(other, "missing mask")]


def test_sequence_without_a_folder(ytvos: Path) -> None:
    edit_meta(ytvos / "valid/meta.json", lambda videos: videos.update(w0=videos["v0"]))
    assert {problem.path.parent.name for problem in errors(YoutubeVos2018(ytvos))} == {
        "JPEGImages",
        "Annotations",
    }
    with pytest.raises(DataError, match=r"w0: missing folder of frames"):
        YoutubeVos2018(ytvos).video("w0")


def test_meta_faults(ytvos: Path) -> None:
    meta = ytvos / "valid/meta.json"
    edit_meta(meta, lambda videos: videos["v0"]["objects"]["2"].pop("frames"))
    assert errors(YoutubeVos2018(ytvos)) == [Problem(meta, "object 2 of video v0 has no frames")]
    edit_meta(meta, lambda videos: videos["v0"].pop("objects"))
    assert errors(YoutubeVos2018(ytvos)) == [Problem(meta, "video v0 has no objects")]
    meta.write_text("[]")
    with pytest.raises(DataError, match=r"meta.json.*another form"):
        YoutubeVos2018(ytvos)
    meta.unlink()
    with pytest.raises(DataError, match=r"meta.json: found no such file"):
        YoutubeVos2018(ytvos)


def test_missing_category_is_none(ytvos: Path) -> None:
    meta = ytvos / "valid/meta.json"
    edit_meta(meta, lambda videos: videos["v0"]["objects"]["2"].pop("category"))
    assert YoutubeVos2018(ytvos).video("v0").objects[2] == ObjectInfo(None, None)


def test_broken_files(
    ytvos: Path, truncate: Callable[[Path], None], spoil_rgb: Callable[[Path], None]
) -> None:
    jpeg = ytvos / "train/JPEGImages/t0/00005.jpg"
    png = ytvos / "train/Annotations/t0/00010.png"
    truncate(jpeg)
    spoil_rgb(png)
    assert [problem.path for problem in errors(YoutubeVos2018(ytvos, "train"))] == [jpeg, png]
    video = YoutubeVos2018(ytvos, "train").video("t0")
    with pytest.raises(DataError, match=r"00005.jpg"):
        video.load_frame(1)
    with pytest.raises(DataError, match=r"00010.png"):
        video.load_mask(2)


def test_unknown_names(ytvos: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'v0'"):
        YoutubeVos2018(ytvos).video("v1")
    with pytest.raises(ConfigError, match="unknown setting"):
        YoutubeVos2018(ytvos, stride=5)


@pytest.mark.parametrize(("split", "frames", "ids"), [("train", 15, 5), ("valid", 19, 3)])
def test_real_clips(shared_dir: Path, split: str, frames: int, ids: int) -> None:
    dataset = YoutubeVos2018(find_root(YoutubeVos2018, shared_dir / "data"), split)
    assert not errors(dataset)
    (video,) = dataset
    assert (len(video), len(object_ids(video.load_mask(0)))) == (frames, ids)
    assert video.objects[1] == ObjectInfo(None, None)
