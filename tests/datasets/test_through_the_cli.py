"""Datasets as the command line shows them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store import load_run

REPO = Path(__file__).resolve().parents[2]


def bench(*arguments: str | Path):
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=REPO,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


def test_check_of_a_whole_dataset(davis16):
    done = bench("data", "check", "davis16-val", "--root", davis16)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 sequences, 8 frames, 8 with masks" in done.stdout


def test_check_names_what_is_broken_and_how_to_get_it(davis16, truncate):
    (davis16 / "JPEGImages/480p/a/00002.jpg").unlink()
    truncate(davis16 / "JPEGImages/480p/b/00001.jpg")
    done = bench("data", "check", "davis16-val", "--root", davis16)
    assert done.returncode == 2
    assert "a/00002.jpg" in done.stdout
    assert "b/00001.jpg" in done.stdout
    assert "b/00002.jpg" not in done.stdout
    assert "davischallenge.org" in done.stdout


def test_a_split_that_is_not_there_is_said(davis17):
    done = bench("data", "check", "davis17", "--root", davis17)
    assert "train: not there" in done.stdout


def test_a_broken_frame_fails_its_sequence_only(davis16, truncate, tmp_path):
    truncate(davis16 / "JPEGImages/480p/b/00001.jpg")
    out = tmp_path / "run"
    done = bench("run", "--methods", "copy", "--data", "davis16", "--root", davis16, "--out", out)
    assert done.returncode == 1
    assert "b/00001.jpg" in done.stderr
    jobs = load_run(out).jobs
    assert dict(zip(jobs.sequence, jobs.status, strict=True)) == {"b": "failed", "a": "done"}


def test_several_datasets_under_one_root(davis16, davis17, tmp_path):
    out = tmp_path / "run"
    done = bench(
        "run", "--methods", "copy", "--data", "davis16,davis17", "--root", tmp_path, "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert set(load_run(out).scores.dataset) == {"davis16", "davis17"}


def test_youtube_vos_from_late_objects_to_g(ytvos, tmp_path):
    """Train has masks and is scored by seen and unseen; valid has none and is segmented."""
    out, report = tmp_path / "run", tmp_path / "report"
    done = bench(
        "run", "--methods", "copy", "--data", "ytvos18,ytvos18-train", "--root", ytvos, "--out", out
    )
    assert done.returncode == 0, done.stderr
    scores = load_run(out).scores
    assert set(scores.dataset) == {"ytvos18-train"}
    # Object 2 enters in frame 2 of 4, which is given, so only frame 3 is scored.
    assert sorted(scores[scores.object == 2].frame.unique()) == [3]
    assert sorted(scores[scores.object == 1].frame.unique()) == [1, 2, 3]
    assert len(list((out / "masks/copy/ytvos18/v0").glob("*.png"))) == 4
    assert bench("report", out, "--out", report).returncode == 0
    with (report / "table.csv").open() as file:
        rows = {row["dataset"]: row for row in csv.DictReader(file)}
    assert rows["ytvos18"]["J&F"] == ""
    assert float(rows["ytvos18-train"]["J&F"]) > 0
    assert "no public ground truth" in (report / "index.html").read_text()


@pytest.mark.parametrize("protocol", ["youtube-vos", "youtube-vos-without-last"])
def test_what_youtube_vos_skips_is_an_option(ytvos, tmp_path, protocol):
    frames = tmp_path / "frames.csv"
    done = bench(
        "evaluate", ytvos / "train/Annotations", "--data", "ytvos18-train", "--root", ytvos,
        "--out", tmp_path / "scores.csv", "--frames", frames, "--protocol", protocol,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with frames.open() as file:
        scored = [row["frame"] for row in csv.DictReader(file) if row["object"] == "1"]
    expected = ["00005", "00010", "00015"]
    assert scored == (expected if protocol == "youtube-vos" else expected[:-1])
