"""Scoring a folder or archive of masks: the numbers, the files, and every kind of bad input."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from bench.dataset import Problem, VideoDataset
from bench.errors import BenchError, ConfigError, DataError, ProblemsError
from bench.evaluate import _start_method, evaluate
from bench.masks import read_mask, write_mask
from bench.metrics import (
    FOREGROUND,
    SEMI_SUPERVISED,
    UNSUPERVISED,
    YOUTUBE_VOS,
    SequenceScorer,
)
from bench.video import ObjectInfo, Video

REPO = Path(__file__).resolve().parents[1]
SIZE = (40, 52)
FRAMES = 6
HEADER = "sequence,object,J,J_recall,J_decay,F,F_recall,F_decay"


class Boxes(VideoDataset):
    """Masks in ``<root>/<sequence>/%05d.png``; what a test needs otherwise is set on it."""

    name = "boxes"
    title = "Boxes"
    splits = ("val",)
    how_to_get = "It is made by the tests."

    def __init__(self, root, split=None, scorable=True, stride=1, seen=None):
        self.root, self.scorable, self.stride, self.seen = root, scorable, stride, seen or {}

    @classmethod
    def recognises(cls, root):
        return True

    def verify(self) -> list[Problem]:
        return []

    def sequences(self):
        return sorted(path.name for path in self.root.iterdir())

    def video(self, sequence):
        paths = sorted((self.root / sequence).glob("*.png"))
        if not paths:
            raise DataError(self.root / sequence, "nothing", "masks", "Make some.")
        return Video(
            dataset=self.name,
            name=sequence,
            frame_names=tuple(path.stem for path in paths),
            size=SIZE,
            load_frame=partial(np.zeros, (*SIZE, 3), np.uint8),
            load_mask=lambda index: read_mask(paths[index]),
            annotated=tuple(range(0, len(paths), self.stride)),
            objects={i: ObjectInfo("x", s) for i, s in self.seen.get(sequence, {}).items()},
            scorable=self.scorable,
        )

    def fingerprint(self, sequence):
        return sequence


def boxes(ids, frame):
    mask = np.zeros(SIZE, np.uint8)
    for place, number in enumerate(ids):
        y, x = 3 + 12 * place, 2 + 4 * frame + 3 * place
        mask[y : y + 9, x : x + 14] = number
    return mask


CONTENT = {"one": (1,), "gaps": (2, 7), "three": (3,)}


@pytest.fixture
def data(tmp_path) -> Boxes:
    for name, ids in CONTENT.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for frame in range(FRAMES):
            write_mask(tmp_path / "data" / name / f"{frame:05d}.png", boxes(ids, frame))
    return Boxes(tmp_path / "data")


@pytest.fixture
def masks(tmp_path, data) -> Path:
    """Predictions that are a little off."""
    for name, ids in CONTENT.items():
        (tmp_path / "masks" / name).mkdir(parents=True)
        for frame in range(FRAMES):
            moved = np.roll(boxes(ids, frame), (frame // 2, -frame), (0, 1))
            write_mask(tmp_path / "masks" / name / f"{frame:05d}.png", moved)
    return tmp_path / "masks"


@pytest.fixture
def run(tmp_path, data, masks):
    """Evaluate with defaults; gives the result and the files' texts."""

    def call(where=None, dataset=None, **options):
        out, frames = tmp_path / "out" / "scores.csv", tmp_path / "out" / "frames.csv"
        result = evaluate(where or masks, dataset or data, out, frames, **options)
        return result, out.read_text(), frames.read_text()

    return call


@pytest.fixture
def refused(tmp_path, run):
    """Evaluate and expect an error; files that were there stay as they were."""

    def call(kind=ProblemsError, **options):
        out = tmp_path / "out"
        out.mkdir()
        (out / "scores.csv").write_text("old")
        with pytest.raises(kind) as caught:
            run(**options)
        assert {path.name: path.read_text() for path in out.iterdir()} == {"scores.csv": "old"}
        return caught.value

    return call


def save(path, array, mode=None):
    Image.fromarray(array).convert(mode).save(path) if mode else Image.fromarray(array).save(path)


# --- numbers and files ----------------------------------------------------------------------


def test_scores_and_frames(run, data, masks):
    result, scores, frames = run()
    assert scores.splitlines()[0] == HEADER
    rows = list(csv.DictReader(scores.splitlines()))
    assert [(row["sequence"], row["object"]) for row in rows] == [
        ("gaps", "2"), ("gaps", "7"), ("one", "1"), ("three", "3"), ("ALL", ""),
    ]  # fmt: skip
    for column in HEADER.split(",")[2:]:
        mean = np.mean([float(row[column]) for row in rows[:-1]])
        assert float(rows[-1][column]) == pytest.approx(mean, abs=1e-15)
    video = data.video("gaps")
    scorer = SequenceScorer(SEMI_SUPERVISED, FRAMES)
    for index in range(FRAMES):
        predicted = read_mask(masks / "gaps" / f"{index:05d}.png")
        scorer.update(index, predicted, video.load_mask(index))
    expected = scorer.result().objects[7]
    assert float(rows[1]["J"]) == expected.j_statistics.mean
    assert float(rows[1]["F_decay"]) == expected.f_statistics.decay
    assert frames.splitlines()[0] == "sequence,object,frame,J,F"
    frame_rows = [row for row in csv.DictReader(frames.splitlines()) if row["object"] == "7"]
    assert [row["frame"] for row in frame_rows] == ["00001", "00002", "00003", "00004"]
    assert [float(row["J"]) for row in frame_rows] == expected.j.tolist()
    assert [float(row["F"]) for row in frame_rows] == expected.f.tolist()
    assert result.headline["J"] == float(rows[-1]["J"])
    assert result.headline["J&F"] == (result.headline["J"] + result.headline["F"]) / 2
    assert result.warnings == result.notes == []


def test_workers_change_nothing(run, data):
    steps = []
    alone = run(dataset=PicklableBoxes(data.root), progress=lambda *step: steps.append(step))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    together = run(dataset=PicklableBoxes(data.root), workers=2)
    assert together[1:] == alone[1:]


class PicklableBoxes(Boxes):
    """Boxes under a name of their own, to see that nothing but the dataset's class travels."""


class DeadlyBoxes(Boxes):
    """Boxes that end every process they travel to."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.fixture(params=["fork", "spawn"])
def start_method(request, monkeypatch):
    if not hasattr(os, "fork"):
        pytest.skip("Processes cannot be forked on this system.")
    monkeypatch.setattr("bench.evaluate._start_method", lambda: request.param)
    return request.param


def test_forked_and_spawned_workers_change_nothing(run, data, masks, tmp_path, start_method):
    data = PicklableBoxes(data.root)
    alone = run(dataset=data)[1:]
    assert run(dataset=data, workers=3)[1:] == alone
    # Every process must open the archive itself: a shared file has one position for all.
    assert run(pack(masks, tmp_path / "masks.zip"), dataset=data, workers=3)[1:] == alone


def test_forks_outlive_opencvs_threads(run, monkeypatch):
    monkeypatch.setattr("bench.evaluate._start_method", lambda: "fork")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (31, 31), 5)  # starts them
        assert run(workers=3)[1:] == run()[1:]
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


def test_a_worker_that_dies_is_told_of(refused, data, start_method):
    error = refused(BenchError, dataset=DeadlyBoxes(data.root), workers=2)
    assert "worker process died" in str(error)


def test_workers_are_forked_only_where_that_is_safe(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert _start_method() == "fork"
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert _start_method() == "spawn"
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setitem(sys.modules, "torch", object())
    assert _start_method() == "spawn"
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _start_method() == "spawn"


def test_a_dataset_that_cannot_travel_is_named(refused, data):
    data.reader = lambda path: path
    assert "--workers 1" in str(refused(ConfigError, workers=2))


def test_problems_of_workers_are_gathered(refused, masks):
    for name in CONTENT:
        (masks / name / "00002.png").unlink()
    assert len(refused(workers=3).problems) == 3


def pack(masks, target, prefix="", folders=True):
    with zipfile.ZipFile(target, "w") as archive:
        if folders:
            for name in ([prefix] if prefix else []) + [f"{prefix}{n}/" for n in CONTENT]:
                archive.writestr(zipfile.ZipInfo(name), "")
        archive.writestr(f"__MACOSX/{prefix}one/._00000.png", "litter")
        for path in sorted(masks.rglob("*.png")):
            archive.write(path, f"{prefix}{path.relative_to(masks).as_posix()}")
    return target


@pytest.mark.parametrize("prefix", ["", "results/"])
@pytest.mark.parametrize("folders", [True, False])
def test_archives_equal_folders(run, masks, tmp_path, prefix, folders):
    expected = run()[1:]
    archive = pack(masks, tmp_path / "masks.zip", prefix, folders)
    assert run(archive)[1:] == expected
    assert run(archive, workers=2)[1:] == expected


def test_folders_may_be_one_level_down(run, masks, tmp_path):
    expected = run()[1:]
    (tmp_path / "outer").mkdir()
    masks.rename(tmp_path / "outer" / "system")
    assert run(tmp_path / "outer")[1:] == expected


def test_two_systems_in_one_folder(refused, masks, tmp_path):
    shutil.copytree(masks, tmp_path / "outer" / "a")
    shutil.copytree(masks, tmp_path / "outer" / "b")
    message = str(refused(DataError, where=tmp_path / "outer"))
    assert "a, b" in message
    assert str(tmp_path / "outer" / "a") in message


def test_only_some_sequences(run, masks):
    shutil.rmtree(masks / "one")
    result, scores, _ = run(sequences=["three", "gaps"])
    assert list(result.sequences) == ["gaps", "three"]
    assert "one" not in scores


def test_unscored_frames_may_be_absent(run, masks):
    expected = run()[1:]
    for name in CONTENT:
        (masks / name / "00000.png").unlink()
        (masks / name / f"{FRAMES - 1:05d}.png").unlink()
    assert run()[1:] == expected


def test_the_last_frame_is_needed_where_it_is_scored(refused, masks):
    (masks / "one" / f"{FRAMES - 1:05d}.png").unlink()
    (masks / "one" / "00000.png").unlink()
    problems = refused(rule=YOUTUBE_VOS).problems
    assert len(problems) == 1
    assert f"{FRAMES - 1:05d}.png: missing" in problems[0]


def test_frames_without_annotation_are_not_even_opened(run, masks, data):
    data.stride = 2
    (masks / "one" / "00001.png").write_bytes(b"no image")
    result, _, frames = run(rule=YOUTUBE_VOS)
    assert result.sequences["one"].objects[1].frames == (2, 4)
    assert ",00001," not in frames


def test_other_files_are_ignored_with_a_note(run, masks):
    expected = run()[1:]
    (masks / "one" / "readme.txt").write_text("x")
    (masks / "one" / "00077.png").write_bytes(b"x")
    (masks / "one" / ".DS_Store").write_bytes(b"x")
    (masks / "elsewhere").mkdir()
    result, *texts = run()
    assert texts == list(expected)
    assert len(result.notes) == 2
    assert "elsewhere" in result.notes[0]
    assert "2 file(s)" in result.notes[1]


def test_masks_for_the_unsupervised_rules(run, masks):
    for path in masks.rglob("*.png"):
        mask = read_mask(path)
        write_mask(path, np.where(mask == 0, 0, mask + 30).astype(np.uint8))
    result, *_ = run(rule=UNSUPERVISED)
    assert result.warnings == []
    assert result.sequences["gaps"].objects[7].proposal == 37
    assert len(result.sequences["gaps"].objects[7].frames) == FRAMES
    result, *_ = run(rule=FOREGROUND)
    assert list(result.sequences["gaps"].objects) == [1]


def test_binary_masks_for_the_unsupervised_rules(run, masks):
    for path in masks.rglob("*.png"):
        save(path, (read_mask(path) > 0).astype(np.uint8) * 255)
    one = run(rule=UNSUPERVISED, sequences=["one", "three"])
    assert one[1:] == run(rule=SEMI_SUPERVISED_ALL, sequences=["one", "three"])[1:]


SEMI_SUPERVISED_ALL = type(SEMI_SUPERVISED)("all frames", False, False, "ignored")


def test_youtube_vos_figures(run, data):
    data.seen = {"one": {1: True}, "gaps": {2: True, 7: False}, "three": {3: False}}
    headline = run(rule=YOUTUBE_VOS)[0].headline
    four = [headline[name] for name in ("J_seen", "F_seen", "J_unseen", "F_unseen")]
    assert headline["G"] == pytest.approx(np.mean(four))
    data.seen = {"one": {1: True}}
    assert "G" not in run(rule=YOUTUBE_VOS)[0].headline


# --- masks that are understood, or warned about ----------------------------------------------


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_0_255_is_understood_where_there_is_one_object(run, masks, mode):
    expected = run()[1:]
    for name in ("one", "three"):
        for path in (masks / name).iterdir():
            binary = (read_mask(path) > 0).astype(np.uint8) * 255
            write_mask(path, binary) if mode == "P" else save(path, binary, mode)
    result, *texts = run()
    assert texts == list(expected)
    assert result.warnings == []
    assert run(strict=True)[1:] == expected


def test_0_255_for_several_objects_is_warned_about(run, masks):
    for path in (masks / "gaps").iterdir():
        save(path, (read_mask(path) > 0).astype(np.uint8) * 255)
    result, *_ = run()
    assert len(result.warnings) == 1
    assert "255" in result.warnings[0]
    assert "2, 7" in result.warnings[0]
    assert result.sequences["gaps"].objects[2].j_statistics.mean == 0


def test_unknown_ids_are_warned_about_and_count_for_nothing(run, masks):
    expected = run()[1:]
    for name in CONTENT:
        path = masks / name / "00002.png"
        mask = read_mask(path)
        mask[-2:, :5] = 9
        write_mask(path, mask)
    result, *texts = run()
    assert texts == list(expected)
    assert len(result.warnings) == 3
    assert result.warnings[0].startswith("gaps: predicted ids 9 ")
    assert "00002.png" in result.warnings[0]


def test_unknown_ids_are_an_error_if_strict(refused, masks):
    path = masks / "gaps" / "00002.png"
    mask = read_mask(path)
    mask[-2:, :5] = 9
    write_mask(path, mask)
    assert "predicted ids 9" in refused(strict=True).problems[0]


def test_an_object_without_a_scored_frame(run, data):
    path = data.root / "one" / f"{FRAMES - 1:05d}.png"
    mask = read_mask(path)
    mask[-3:] = 4
    write_mask(path, mask)
    before = run(sequences=["gaps", "three"])[0].headline
    result, scores, _ = run(sequences=["gaps", "three", "one"])
    assert "one,4,,,,,," in scores.splitlines()
    assert "object 4 has no scored frame" in result.warnings[0]
    assert set(map(str, before.values())).isdisjoint({"nan"})
    assert not any(np.isnan(value) for value in result.headline.values())


def test_late_objects_are_scored(run, data, masks):
    for frame in range(2, FRAMES):
        for root in (data.root, masks):
            path = root / "one" / f"{frame:05d}.png"
            mask = read_mask(path)
            mask[-3:] = 4
            write_mask(path, mask)
    result, *_ = run()
    assert result.warnings == []
    assert result.sequences["one"].objects[4].frames == (3, 4)


# --- masks that cannot be scored -------------------------------------------------------------


def test_everything_that_is_wrong_is_listed_at_once(refused, masks, tmp_path):
    one, three = masks / "one", masks / "three"
    (one / "00001.png").unlink()
    mask = read_mask(one / "00002.png")
    write_mask(one / "00002.png", mask[:-1])
    (one / "00003.png").write_bytes((one / "00003.png").read_bytes()[:-40])
    save(one / "00004.png", np.stack([mask] * 3, 2))
    soft = Image.fromarray((mask > 0).astype(np.uint8) * 255).resize((26, 20), Image.BILINEAR)
    soft.resize(SIZE[::-1], Image.BILINEAR).save(three / "00002.png")
    (three / "00003.png").write_bytes(b"this is no image")
    (three / "00001.png").write_bytes(b"")
    shutil.rmtree(masks / "gaps")
    error = refused()
    expected = {
        "gaps": "no such folder",
        "one/00001.png": "missing",
        "one/00002.png": "52x39 pixels",
        "one/00003.png": "truncated",
        "one/00004.png": "mode RGB",
        "three/00001.png": "unreadable",
        "three/00002.png": "anti-aliased",
        "three/00003.png": "unreadable",
    }
    assert len(error.problems) == len(expected)
    for file, words in expected.items():
        (line,) = (p for p in error.problems if str(masks / file) in p)
        assert words in line, line
        assert line in str(error)
    assert "8 problems" in str(error)
    assert "nothing was written" in str(error)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_images_without_ids(refused, masks, mode):
    path = masks / "one" / "00002.png"
    if mode == "I;16":
        Image.fromarray(read_mask(path).astype(np.uint16) * 1000).save(path)
    else:
        save(path, read_mask(path), mode)
    assert f"mode {mode}" in refused().problems[0]


def test_anti_aliased_masks_of_every_frame_are_listed(refused, masks):
    """Seven percent J&F without a word is what users met elsewhere."""
    for path in masks.rglob("*.png"):
        grey = Image.fromarray((read_mask(path) > 0).astype(np.uint8) * 255)
        small = grey.resize((SIZE[1] // 2, SIZE[0] // 2), Image.BILINEAR)
        small.resize(SIZE[::-1], Image.BICUBIC).save(path)
    assert len(refused().problems) == 3 * FRAMES


def test_many_unknown_values_in_a_palette_mask(refused, masks):
    path = masks / "one" / "00002.png"
    mask = read_mask(path)
    mask[-1, :11] = range(40, 51)
    write_mask(path, mask)
    assert "11 values" in refused().problems[0]


def test_many_true_objects_are_no_problem(run, data, masks):
    many = np.zeros(SIZE, np.uint8)
    many[5:35:2, 4:40] = np.arange(1, 16)[:, None]
    for root in (data.root, masks):
        for frame in range(FRAMES):
            save(root / "one" / f"{frame:05d}.png", many)
    assert run(sequences=["one"])[0].headline["J&F"] == 1


def test_too_many_proposals(refused, masks):
    path = masks / "one" / "00002.png"
    mask = read_mask(path)
    mask[-1, :21] = range(40, 61)
    write_mask(path, mask)
    (line,) = refused(rule=UNSUPERVISED).problems
    assert "at most 20" in line
    assert str(path) in line


def test_broken_ground_truth(refused, data):
    (data.root / "one" / "00003.png").write_bytes(b"broken")
    (data.root / "three" / "00000.png").write_bytes(b"broken")
    shutil.rmtree(data.root / "gaps")
    (data.root / "gaps").mkdir()
    problems = refused().problems
    assert len(problems) == 3
    assert all(problem.startswith("ground truth: ") for problem in problems)


def test_a_corrupt_archive_member(refused, masks, tmp_path):
    archive = pack(masks, tmp_path / "masks.zip")
    data = bytearray(archive.read_bytes())
    content = (masks / "one" / "00002.png").read_bytes()
    data[data.index(content, data.index(b"one/00002.png")) + 50] ^= 255
    archive.write_bytes(data)
    (line,) = refused(where=archive).problems
    assert "masks.zip/one/00002.png" in line


# --- everything else -------------------------------------------------------------------------


def test_no_such_masks(refused, tmp_path):
    assert "/none" in str(refused(DataError, where=tmp_path / "none"))


def test_neither_folder_nor_archive(refused, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK no archive")
    assert "no readable archive" in str(refused(DataError, where=tmp_path / "x.zip"))


def test_a_folder_without_any_sequence(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(refused(where=tmp_path / "empty").problems) == 3


def test_masks_that_are_not_public(refused, data):
    data.scorable = False
    error = refused(BenchError)
    assert "no public masks" in str(error)
    assert not isinstance(error, ProblemsError)


def test_an_unknown_sequence(refused):
    assert "Did you mean 'three'" in str(refused(ConfigError, sequences=["thre"]))


def test_outputs_that_cannot_be_written(tmp_path, data, masks):
    out = tmp_path / "a.csv"
    with pytest.raises(ConfigError, match="another file"):
        evaluate(masks, data, out, out)
    with pytest.raises(ConfigError, match="a folder"):
        evaluate(masks, data, out, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot be written"):
        evaluate(masks, data, tmp_path / "file" / "out.csv")
    assert not out.exists()


def test_both_files_or_none(tmp_path, data, masks, monkeypatch):
    write = Path.write_text

    def fail_on_frames(self, text, **options):
        if "frames" in self.name:
            write(self, text[:10], **options)
            raise OSError("disk full")
        return write(self, text, **options)

    monkeypatch.setattr(Path, "write_text", fail_on_frames)
    with pytest.raises(OSError, match="disk full"):
        evaluate(masks, data, tmp_path / "o" / "scores.csv", tmp_path / "o" / "frames.csv")
    assert list((tmp_path / "o").iterdir()) == []


# --- real data -------------------------------------------------------------------------------

SCORE = """
import sys
from pathlib import Path
from bench.dataset import find_root
from bench.evaluate import evaluate
from bench.registry import get_dataset
if __name__ == "__main__":
    dataset, _ = get_dataset("davis16")
    opened = dataset(find_root(dataset, Path(sys.argv[1])))
    evaluate(Path(sys.argv[2]), opened, Path(sys.argv[3]), Path(sys.argv[4]),
             workers=int(sys.argv[5]), sequences=sys.argv[6:] or None)
    # Not ru_maxrss: that starts at the peak of the process that started this one.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(int(status["VmHWM"].split()[0]) / 1024)
"""


def score_davis16(shared_dir, masks, folder, workers, *sequences):
    """Evaluate in a process of its own; its peak memory in MB."""
    script = folder / "score.py"
    script.write_text(SCORE)
    done = subprocess.run(
        [sys.executable, script, shared_dir / "data", masks, folder / "scores.csv",
         folder / "frames.csv", str(workers), *sequences],
        capture_output=True, text=True, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize(("system", "workers"), [("osvos", 1), ("stm", 2)])
def test_published_masks_score_what_was_published(shared_dir, tmp_path, system, workers):
    """Every frame of the 20 sequences, to the third decimal that was published."""
    archive = shared_dir / "oracle" / "davis2016_results" / f"{system}.zip"
    if not archive.is_file() or not (shared_dir / "data" / "DAVIS2016").is_dir():
        pytest.skip(f"No published masks ({archive}) or no DAVIS-2016 beside them.")
    assert score_davis16(shared_dir, archive, tmp_path, workers) < 150
    published = json.loads(archive.with_suffix(".json").read_text())
    found = {}
    with (tmp_path / "frames.csv").open() as file:
        for row in csv.DictReader(file):
            for metric in ("J", "F"):
                values = found.setdefault(row["sequence"], {}).setdefault(metric, [])
                values.append(f"{float(row[metric]):.3f}")
    assert len(found) == 20
    assert found == {name: {m: published[name][m] for m in ("J", "F")} for name in found}
