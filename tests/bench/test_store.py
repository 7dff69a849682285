from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tests.fakes  # noqa: F401 (registers the dataset and methods)
from bench.config import RunConfig
from bench.errors import StoreError
from bench.masks import read_mask
from bench.run import execute
from bench.store import load_run, locked

REPO = Path(__file__).resolve().parents[2]


def run(path: Path, assignments=None, **options):
    config = {"methods": ["shifting"], "data": ["scenes"], "engine": "serial", "device": "cpu"}
    return execute(RunConfig(**(config | options)), assignments or {}, path)


def test_what_a_run_leaves(tmp_path):
    result = run(
        tmp_path / "one", {"shifting.shift": 1}, methods=["shifting", "copy"], seeds=[0, 1]
    )
    assert not result.failures
    stored = load_run(tmp_path / "one")
    assert stored.name == "one"
    assert set(stored.scores.columns) >= {"run", "method", "variant", "frame", "metric", "value"}
    # 4 sequences of 5 frames, of which 1 .. 3 are scored; 6 objects; 2 metrics, 2 seeds, 2 methods.
    assert len(stored.scores) == 6 * 3 * 2 * 2 * 2
    assert set(stored.scores.variant) == {"", "shift=1"}
    assert sorted(stored.scores.frame.unique()) == [1, 2, 3]
    assert stored.scores[stored.scores.object == 3].seen.eq(False).all()
    assert len(stored.cost) == 4 * 2 * 2
    assert (stored.cost.seconds > 0).all()
    assert (stored.cost.peak_memory_mb > 1).all()
    assert set(stored.jobs.status) == {"done"}
    masks = stored.masks("shifting", "shift=1", "scenes", "scene-1", 1)
    assert sorted(path.name for path in masks.iterdir()) == [f"{i:05d}.png" for i in range(5)]
    video = stored.frames_of("scenes", "scene-1")
    expected = np.roll(video.load_mask(0), 2, axis=1)
    assert np.array_equal(read_mask(masks / "00002.png"), expected)
    record = stored.provenance["methods"]["shifting@shift=1"]
    assert record["regime"]["annotated_masks"] == 3
    assert stored.provenance["datasets"]["scenes"]["frames"] == 20


def test_running_again_repeats_nothing(tmp_path):
    run(tmp_path / "one")
    before = (tmp_path / "one/scores.parquet").read_bytes()
    result = run(tmp_path / "one")
    assert result.reused == len(result.plan.jobs) == 4
    assert (tmp_path / "one/scores.parquet").read_bytes() == before


def test_another_configuration_needs_another_folder(tmp_path):
    run(tmp_path / "one")
    with pytest.raises(StoreError, match="another configuration"):
        run(tmp_path / "one", methods=["copy"])
    with pytest.raises(StoreError, match="another configuration"):
        run(tmp_path / "one", {"shifting.shift": 2})


def test_a_run_can_be_extended(tmp_path):
    run(tmp_path / "one", seeds=[0], sequences=["scene-0"])
    before = load_run(tmp_path / "one").scores
    result = run(tmp_path / "one", seeds=[0, 1])
    assert (result.reused, len(result.plan.jobs)) == (1, 8)
    after = load_run(tmp_path / "one").scores
    assert set(after.seed) == {0, 1}
    assert after.sequence.nunique() == 4
    kept = after[(after.seed == 0) & (after.sequence == "scene-0")]
    assert kept.value.tolist() == before.value.tolist()
    # Back again would leave jobs out.
    with pytest.raises(StoreError, match="all jobs of that run"):
        run(tmp_path / "one", seeds=[1])


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(StoreError, match=r"thesis\.txt"):
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) in (
        ["thesis.txt"],
        [".lock", "thesis.txt"],
    )


def test_a_failed_job_fails_itself(tmp_path):
    result = run(tmp_path / "one", methods=["failing", "elsewhere", "copy"])
    assert [job.sequence for job, _ in result.failures] == ["scene-1", "scene-3"]
    jobs = load_run(tmp_path / "one").jobs
    failed = jobs[jobs.status == "failed"]
    assert list(failed.sequence) == ["scene-1", "scene-3"]
    assert failed.reason.str.contains("cannot do two objects").all()
    skipped = jobs[jobs.status == "skipped"]
    assert list(skipped.reason) == ["it needs a machine that is not there"]
    assert (jobs[jobs.method == "copy"].status == "done").all()


def test_one_process_at_a_time(tmp_path):
    with locked(tmp_path / "one"), pytest.raises(StoreError, match="another process"):
        run(tmp_path / "one")


def test_not_a_run(tmp_path):
    with pytest.raises(StoreError, match=r"run\.json"):
        load_run(tmp_path)


def test_tables_do_not_depend_on_the_number_of_workers(tmp_path):
    """Real methods in worker processes, which import nothing from the tests."""
    small = {"synthetic.frames": 4, "synthetic.sequences": 3}
    options = {"methods": ["copy"], "data": ["synthetic"], "engine": "local"}
    for workers in (1, 2):
        run(tmp_path / str(workers), small, workers=workers, **options)
    one, two = (load_run(tmp_path / name) for name in "12")
    assert (one.path / "scores.parquet").read_bytes() == (two.path / "scores.parquet").read_bytes()


def test_kill_at_any_moment_then_resume(tmp_path):
    # Some file operations here; `python -m tests.bench.kill_and_resume DIR 1` tries all.
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.kill_and_resume", str(tmp_path), "13"],
        capture_output=True,
        text=True,
        cwd=REPO,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout


def test_json_is_never_half_written(tmp_path, monkeypatch):
    from bench.store import write_json

    path = tmp_path / "file.json"
    write_json(path, {"a": 1})

    def broken(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
