"""What the player gets, how it is encoded, and how large a page becomes."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_runs import COPY, FakeJob, FakeMethod, Maker, two, with_frames
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from bench.masks import read_mask
from reports import galleries as galleries_module
from reports.combine import collect
from reports.footage import load_footage, spread
from reports.galleries import galleries
from reports.looks import styles
from reports.overlays import STILLS, blend, webp
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


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 200)), elements=st.integers(0, 2))
)
def test_runs_come_back(mask: np.ndarray) -> None:
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


def test_twenty_sequences_of_six_methods_fit(shared_dir: Path) -> None:
    """On one frame of every DAVIS-2016 sequence: clips fit into the page, the page into 15 MB."""
    frames = sorted((shared_dir / "data/DAVIS2016/JPEGImages/480p").glob("*/00015.jpg"))
    assert len(frames) == 20
    images, masks, stills = [], [], []
    for frame in frames:
        path = shared_dir / "data/DAVIS2016/Annotations/480p" / frame.parent.name / "00015.png"
        image = cv2.resize(np.asarray(Image.open(frame)), (320, 180), interpolation=cv2.INTER_AREA)
        ids = cv2.resize(read_mask(path), (320, 180), interpolation=cv2.INTER_NEAREST)
        images.append(len(webp(image, QUALITY)))
        masks.append(len(encode_runs(ids)))
        stills.append(len(webp(blend(image, ids)[::2, ::2])))
    clips = FRAMES * (sum(images) + 7 * sum(masks))
    assert clips < galleries_module.MOST_CLIP_BYTES
    # A sequence begun within the budget of stills is finished; seven figures take half a megabyte.
    overdraft = 7 * STILLS * 2 * max(stills)
    most = galleries_module.MOST_CLIP_BYTES + galleries_module.MOST_STILL_BYTES + overdraft
    assert most + 1_000_000 < 15_000_000


def test_blend_leaves_background_alone() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 1
    mask[0, 0] = 255
    out = blend(image, mask)
    assert (out[7, 7] == 100).all()
    assert tuple(out[4, 4]) == (177, 157, 50), "half yellow"
    assert (image == 100).all()
