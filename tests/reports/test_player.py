"""What the player gets, how it is encoded, and how large a page becomes."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import cv2
import fake_runs
import numpy as np
import pytest
from fake_runs import COPY, FakeJob, FakeMethod, Maker, two, with_frames, write_run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.masks import read_mask, write_mask
from bench.store import Run
from bench.video import Video
from datasets.synthetic.photos import photo
from reports import build
from reports import galleries as galleries_module
from reports.combine import collect
from reports.footage import load_footage, spread
from reports.galleries import galleries
from reports.looks import styles
from reports.overlays import blend, webp
from reports.player import FRAMES, QUALITY, as_script, clip_data, encode_runs, frame_scores


def decode_runs(text: str, size: int) -> np.ndarray:
    """Plain reading of the format that encode_runs documents."""
    data = list(base64.b64decode(text))
    ids: list[int] = []
    while data:
        value, length, shift = data.pop(0), 0, 0
        while True:
            byte = data.pop(0)
            length += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        ids += [value] * length
    assert len(ids) == size
    return np.array(ids, np.uint8)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 300)), min_size=1, max_size=8))
def test_runs_come_back(runs: list[tuple[int, int]]) -> None:
    values, lengths = zip(*runs, strict=True)
    mask = np.repeat(np.array(values, np.uint8), lengths)[None]
    assert np.array_equal(decode_runs(encode_runs(mask), mask.size), mask.reshape(-1))


def test_long_runs_come_back() -> None:
    mask = np.zeros((180, 320), np.uint8)
    mask[90, 160:] = 255
    text = encode_runs(mask)
    assert np.array_equal(decode_runs(text, mask.size), mask.reshape(-1))
    assert len(base64.b64decode(text)) == (1 + 3) + (1 + 2) + (1 + 3)


def test_spread_is_even_and_keeps_both_ends() -> None:
    assert spread(range(10), 4) == (0, 3, 6, 9)
    assert spread(range(3), 25) == (0, 1, 2)
    assert spread("abc", 1) == ("a",)
    assert spread((), 5) == ()


def test_clip_data(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    jobs = [FakeJob("ant", {1: (ramp, 0.5, None), 2: (0.9, 0.5, None)})]
    skipped = FakeMethod("gpu", skip="needs a CUDA device")
    run = make_run("one", [FakeMethod("a", jobs), skipped], sequences=["ant"])
    with_frames(run, monkeypatch)
    results = collect([run])
    (dataset,) = results.datasets.values()
    footage = load_footage(results, dataset, "ant", 4)
    data = json.loads(as_script(clip_data(results, footage)))
    assert [frame["index"] for frame in data["frames"]] == [0, 3, 6, 9]
    assert (data["length"], data["width"], data["height"]) == (10, 80, 45)
    assert all(frame["image"].startswith("data:image/webp") for frame in data["frames"])
    assert data["scored"] == list(range(1, 9)), "the curve has all scored frames"
    a, gpu = data["methods"]
    look = styles(results)["A"]
    assert (a["kind"], a["colour"], a["outline"]) == (look.kind, look.colour, look.outline)
    assert a["J"] == [round(500 * (value + 0.9)) for value in ramp], "mean over objects"
    assert a["F"] == [500] * 8
    assert (gpu["masks"], gpu["reason"], gpu["J"]) == ([None] * 4, "skipped", [])
    mask = decode_runs(a["masks"][1], 80 * 45).reshape(45, 80)
    assert mask[10:30, 19:39].all()
    assert mask.sum() == 20 * 20


def test_frames_of_worst_cases_are_shown(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few frames fit, but the one in which a method has lost its object is among them."""
    falling = (0.9, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0)
    jobs = [FakeJob("ant", {1: (falling, falling, None)})]
    run = make_run("one", [FakeMethod("a", jobs)], sequences=["ant"])
    with_frames(run, monkeypatch)
    results = collect([run])
    (dataset,) = results.datasets.values()
    assert load_footage(results, dataset, "ant", 3).picked == (0, 4, 9)
    assert load_footage(results, dataset, "ant", 3, {7, 4, 99}).picked == (0, 4, 7, 9)
    monkeypatch.setattr(galleries_module, "FEWEST_FRAMES", 3)
    monkeypatch.setattr(galleries_module, "FRAMES", 3)
    (gallery,), _ = galleries(results)
    (picture,) = gallery.failures[0].pictures
    assert picture.case.frame == 7
    frames = json.loads(gallery.sequences[0].data)["frames"]
    assert [frame["index"] for frame in frames] == [0, 4, 7, 9]


def test_scores_are_those_of_the_shown_seed(
    make_run: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("one", [FakeMethod("a", [*two(0.7, 0.7, seed=3), *two(0.5, 0.5, seed=1)])])
    with_frames(run, monkeypatch)
    results = collect([run])
    (dataset,) = results.datasets.values()
    footage = load_footage(results, dataset, "ant", 3)
    assert footage.tracks[0].seed == 1
    assert frame_scores(results, footage)[1]["A"]["J"] == [500] * 8


def test_scripts_cannot_be_broken_out_of() -> None:
    text = as_script({"name": "</script><b>\u2028"})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"name": "</script><b>\u2028"}


def test_large_clips_lie_beside_the_page(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("one", [COPY])
    with_frames(run, monkeypatch)
    results = collect([run])
    monkeypatch.setattr(galleries_module, "MOST_CLIP_BYTES", 1000)
    (gallery,), files = galleries(results)
    assert [clip.source for clip in gallery.sequences] == list(files)
    assert all(clip.data == "" for clip in gallery.sequences)
    text = files["assets/clip-toy-val-ant.js"]
    start, end = 'window.vosReport.clips["clip-toy-val-ant"]=', ";\n"
    assert text.startswith(start)
    assert json.loads(text.removeprefix(start).removesuffix(end))["name"] == "ant"


def test_names_that_differ_have_anchors_that_differ(make_run: Maker) -> None:
    names = ["a b", "a.b", "a-b", "a_b"]
    jobs = [FakeJob(name, {1: (0.5, 0.5, None)}) for name in names]
    run = make_run("one", [replace(COPY, jobs=jobs)], sequences=names)
    (gallery,), _ = galleries(collect([run]))
    assert len({clip.anchor for clip in gallery.sequences}) == 4


PHOTOGRAPHS = ("astronaut", "coffee", "motorcycle", "ihc", "gravel")
"""Of a person, things, clutter and of nothing but texture."""

LENGTH = 40
"""Frames of a sequence; few enough that all masks are quick to write, more than are shown."""


def photograph(sequence: int, index: int) -> np.ndarray:
    """A frame at DAVIS's size: a camera that moves over a photograph."""
    whole = photo(PHOTOGRAPHS[sequence % len(PHOTOGRAPHS)])
    height = 216 + 8 * (sequence // len(PHOTOGRAPHS))
    width = height * 16 // 9
    room = np.array(whole.shape[:2]) - (height, width)
    turn = np.array([np.sin(sequence + index / 9), np.cos(sequence + index / 13)])
    top, left = ((1 + turn) / 2 * room).astype(int)
    view = whole[top : top + height, left : left + width]
    return cv2.resize(view, (854, 480), interpolation=cv2.INTER_CUBIC)


def blobs(sequence: int, index: int) -> np.ndarray:
    """Ids at DAVIS's size: two objects with bays, which move."""
    ids = np.zeros((480, 854), np.uint8)
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    for number in (1, 2):
        waves = 1 + 0.2 * np.sin(5 * turn + index / 5) + 0.1 * np.sin(13 * turn + sequence)
        middle = (300 * number - 20 + 3 * index, 240 + 60 * np.sin(index / 8 + number))
        outline = middle + 97 * waves[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        cv2.fillPoly(ids, [outline.round().astype(np.int32)], number)
    return ids


def large_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Six methods on 20 videos of 480 x 854, each late by as many frames as its number.

    On every third video, each loses its objects.
    """
    monkeypatch.setattr(fake_runs, "FRAMES", tuple(range(1, LENGTH - 1)))
    names = [f"video-{place:02}" for place in range(20)]
    rng = np.random.default_rng(0)

    def job(name: str, late: int) -> FakeJob:
        scores = np.clip(0.9 - 0.1 * late + rng.normal(0, 0.08, (2, LENGTH - 2)), 0, 1)
        scores[:, 20 if names.index(name) % 3 == late % 3 else LENGTH :] = 0.02
        j, f = (tuple(each.tolist()) for each in scores)
        return FakeJob(name, dict.fromkeys((1, 2), (j, f, None)))

    methods = [
        FakeMethod(f"late-{late}", [job(name, late) for name in names]) for late in range(1, 7)
    ]
    run = write_run(folder, methods, sequences=names, masks=False)
    for place, name in enumerate(names):
        drawn = folder / "drawn" / name
        drawn.mkdir(parents=True)
        for index in range(LENGTH):
            write_mask(drawn / f"{index:05d}.png", blobs(place, index))
        for late, method in enumerate(methods, start=1):
            masks = run.masks(method.name, "", "toy-val", name, 0)
            masks.mkdir(parents=True)
            for index in range(LENGTH):
                source = drawn / f"{max(0, index - late):05d}.png"
                (masks / f"{index:05d}.png").hardlink_to(source)

    def frames_of(dataset: str, sequence: str) -> Video:
        place = names.index(sequence)
        frames = tuple(f"{index:05d}" for index in range(LENGTH))
        return Video(
            dataset, sequence, frames, (480, 854),
            lambda index: photograph(place, index), lambda index: blobs(place, index),
            tuple(range(LENGTH)),
        )  # fmt: skip

    monkeypatch.setattr(run, "frames_of", frames_of)
    return run


def test_twenty_sequences_of_six_methods_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is in one page of less than 15 MB: clips, stills, worst cases, figures, tables."""
    files = build([large_run(tmp_path / "run", monkeypatch)], tmp_path / "report")
    assert files.assets == ()
    size = files.page.stat().st_size
    assert 6_000_000 < size < 15_000_000
    text = files.page.read_text(encoding="utf-8")
    assert text.count('class="player"') == 20
    assert text.count('class="case"') >= 8
    assert text.count('"image":"data:image/webp') >= 20 * FRAMES


def test_that_page_is_as_hard_to_encode_as_davis(shared_dir: Path) -> None:
    """On one frame of every DAVIS-2016 sequence."""
    frames = sorted((shared_dir / "data/DAVIS2016/JPEGImages/480p").glob("*/00015.jpg"))
    assert len(frames) == 20

    def sizes(image: np.ndarray, ids: np.ndarray) -> tuple[int, int]:
        small = cv2.resize(image, (320, 180), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(ids, (320, 180), interpolation=cv2.INTER_NEAREST)
        return len(webp(small, QUALITY)), len(encode_runs(mask))

    theirs = []
    for frame in frames:
        path = shared_dir / "data/DAVIS2016/Annotations/480p" / frame.parent.name / "00015.png"
        theirs.append(sizes(np.asarray(Image.open(frame)), read_mask(path)))
    places = [(place, index) for place in range(20) for index in (0, 15, 30)]
    ours = [sizes(photograph(*place), blobs(*place)) for place in places]
    assert (np.mean(ours, axis=0) > np.mean(theirs, axis=0)).all()


def test_blend_leaves_background_alone() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 1
    mask[0, 0] = 255
    out = blend(image, mask)
    assert (out[7, 7] == 100).all()
    assert tuple(out[4, 4]) == (177, 157, 50), "half yellow"
    assert (image == 100).all()
