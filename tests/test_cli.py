"""The command line end to end, as a user meets it: exit codes, files, messages."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.conformance import scene
from bench.masks import read_mask, write_mask

REPO = Path(__file__).resolve().parents[1]
SMALL = ["--set", "synthetic.frames=4", "--set", "synthetic.sequences=2"]


def bench(*arguments: str | Path, cwd: Path = REPO, **environment: str):
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A small finished run."""
    out = tmp_path_factory.mktemp("runs") / "small"
    done = bench("run", "--methods", "copy,imagenet", "--out", out, "--workers", 1, *SMALL)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert "imagenet" in done.stdout.lower()
    return out


def test_run_leaves_scores_and_masks(finished):
    assert (finished / "scores.parquet").is_file()
    assert len(list((finished / "masks").rglob("*.png"))) == 2 * 2 * 4


def test_report_writes_everything(finished, tmp_path):
    done = bench("report", finished, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "index.html" in done.stdout
    with (tmp_path / "report/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"copy", "imagenet"}
    for row in rows:
        mean = (float(row["J"]) + float(row["F"])) / 2
        assert float(row["J&F"]) == pytest.approx(mean)
    page = (tmp_path / "report/index.html").read_text()
    assert "<script src" not in page
    assert "<link" not in page or 'href="http' not in page


def test_dry_run_runs_nothing(tmp_path):
    done = bench("run", "--methods", "copy", "--out", tmp_path / "x", "--dry-run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "2 jobs" in done.stdout
    assert not (tmp_path / "x").exists()


def test_resume_repeats_nothing(finished):
    done = bench("run", "--resume", finished)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 jobs were finished before" in done.stdout + done.stderr


def test_resume_refuses_other_options(finished):
    done = bench("run", "--resume", finished, "--methods", "copy")
    assert done.returncode == 2
    assert "--methods" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--methods", "imagnet"], ["Did you mean 'imagenet'"]),
        (["run", "--data", "davis99"], ["no such name", "davis16"]),
        (["run", "--data", "davis16", "--root", "/no/such/folder"], ["/no/such/folder", "--root"]),
        (["run", "--methods", "copy", "--set", "nokey=1"], ["nokey"]),
        (["run", "--set", "imagenet.propagation.topk=1"], ["topk", "Did you mean 'top_k'"]),
        (["run", "--preset", "huge"], ["preset", "huge"]),
        (["run", "--config", "/no/file.yaml"], ["/no/file.yaml"]),
        (["run", "--sequences", "nosuch"], ["nosuch"]),
        (["run", "--resume", "/no/run"], ["/no/run"]),
        (["run", "--weights", "imagenet=/no/file"], ["/no/file"]),
        (["run", "--methods", "copy", "--out", "/dev/null"], ["/dev/null"]),
        (["run", "--methods", "copy", "--out", "/proc/nowhere"], ["/proc/nowhere"]),
        (["report", "/no/run"], ["/no/run"]),
        (["list", "things"], ["methods, data, engines"]),
        (["check", "nosuch"], ["nosuch"]),
        (["evaluate", "/no/masks", "--data", "synthetic", "--out", "x.csv"], ["/no/masks"]),
        (
            ["segment", "/no/video.mp4", "--mask", "m.png", "--method", "copy", "--out", "o"],
            ["/no/video.mp4"],
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, words, tmp_path):
    done = bench(*arguments, cwd=tmp_path, PYTHONPATH=str(REPO))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["report"], ["evaluate"], ["segment"], ["list"], ["data"], ["data", "check"],
     ["check"], ["doctor"]],
)  # fmt: skip
def test_help(command):
    done = bench(*command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_help_is_quick():
    """No heavy import: CPU time of the best of three, which noise can only raise."""

    def cpu_seconds() -> float:
        before = os.times()
        bench("--help")
        after = os.times()
        return after.children_user + after.children_system - before[2] - before[3]

    assert min(cpu_seconds() for _ in range(3)) < 0.5


def test_help_imports_nothing_heavy():
    code = (
        "import sys, bench.cli; "
        "print([m for m in ('torch', 'pandas', 'numpy', 'mmengine', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.stdout.strip() == "[]"


def test_evaluate_does_not_import_torch():
    code = (
        "import sys, bench.evaluate, bench.registry as r; r.discover('datasets'); "
        "print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules], r.FAILURES)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.stdout.strip() == "[] []", done.stderr


@pytest.mark.parametrize("what", ["methods", "data", "engines"])
def test_list(what):
    done = bench("list", what)
    assert done.returncode == 0, done.stderr
    expected = {"methods": "imagenet", "data": "davis17", "engines": "local"}[what]
    assert expected in done.stdout


def test_data_check_of_the_default():
    done = bench("data", "check", "synthetic")
    assert done.returncode == 0, done.stderr
    assert "sequences" in done.stdout


def test_check_passes_for_copy():
    done = bench("check", "copy")
    assert done.returncode == 0, done.stdout
    assert "0 failed" in done.stdout


def test_doctor():
    done = bench("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch" in done.stdout
    assert "imagenet" in done.stdout


@pytest.fixture
def clip(tmp_path) -> Path:
    """Frames named as a camera would, and masks with gaps in their ids."""
    video = scene(4, (40, 56), objects=2)
    (tmp_path / "frames").mkdir()
    for index in range(4):
        Image.fromarray(video.load_frame(index)).save(tmp_path / f"frames/shot_{index + 7:03d}.png")
    write_mask(tmp_path / "first.png", video.load_mask(0))
    return tmp_path


def segment(clip: Path, *more: str | Path, mask: str = "first.png"):
    return bench(
        "segment",
        clip / "frames",
        "--mask",
        clip / mask,
        "--method",
        "copy",
        "--out",
        clip / "out",
        *more,
    )


def test_segment_writes_masks_named_like_the_frames(clip):
    done = segment(clip, "--overlay", clip / "overlay.mp4")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (clip / "out").iterdir())
    assert names == [f"shot_{index + 7:03d}.png" for index in range(4)]
    first = read_mask(clip / "first.png")
    assert np.array_equal(read_mask(clip / "out/shot_009.png"), first)
    with Image.open(clip / "out/shot_009.png") as image:
        assert image.mode == "P"
    assert (clip / "overlay.mp4").stat().st_size > 500


def test_segment_understands_a_0_255_mask(clip):
    binary = (read_mask(clip / "first.png") > 0).astype(np.uint8) * 255
    Image.fromarray(binary).save(clip / "binary.png")
    done = segment(clip, mask="binary.png")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(read_mask(clip / "out/shot_010.png"), binary)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m[:-2], ["56 x 38", "56 x 40"]),
        (lambda m: m * 0, ["no object"]),
        (lambda m: np.stack([m] * 3, 2), ["RGB"]),
    ],
)
def test_segment_refuses_a_bad_mask(clip, change, words):
    Image.fromarray(change(read_mask(clip / "first.png"))).save(clip / "bad.png")
    done = segment(clip, mask="bad.png")
    assert done.returncode == 2
    assert all(word in done.stderr for word in words)
    assert not (clip / "out").exists()


def test_segment_leaves_a_folder_with_other_files_alone(clip):
    (clip / "out").mkdir()
    (clip / "out/notes.txt").write_text("mine")
    done = segment(clip)
    assert done.returncode == 2
    assert "notes.txt" in done.stderr
    assert [path.name for path in (clip / "out").iterdir()] == ["notes.txt"]


def test_segment_reads_video_files(clip):
    from bench.media import write_video

    video = scene(5, (48, 64))
    write_video(clip / "clip.mp4", (video.load_frame(index) for index in range(5)), 24)
    write_mask(clip / "first.png", video.load_mask(0))
    done = bench(
        "segment", clip / "clip.mp4", "--mask", clip / "first.png", "--method", "imagenet",
        "--preset", "tiny", "--set", "propagation.top_k=5", "--out", clip / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (clip / "out").iterdir()) == [f"{i:05d}.png" for i in range(5)]


def test_failed_jobs_are_exit_code_1(tmp_path):
    """The table is printed all the same, and what succeeded is stored."""
    code = (
        "import tests.fakes, sys; sys.argv = ['bench', 'run', '--methods', 'failing,copy', "
        f"'--data', 'scenes', '--engine', 'serial', '--out', {str(tmp_path / 'x')!r}]; "
        "from bench.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 1
    assert "cannot do two objects" in done.stderr
    assert "2 of 8 jobs failed" in done.stderr
    assert "copy" in done.stdout.lower()


def test_interrupt_keeps_what_finished(tmp_path):
    """Ctrl-C in the third job: exit code 130, and resume goes on from there."""
    code = (
        "import tests.fakes, signal, sys; sys.argv = ['bench', 'run', *sys.argv[1:]]; "
        # Where the tests run in the background, Ctrl-C is ignored, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from bench.cli import main; main()"
    )

    def run(*arguments: str, **environment: str):
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=REPO,
            env={**os.environ, **environment},
        )

    out = str(tmp_path / "run")
    options = ["--methods", "interrupted", "--data", "scenes", "--engine", "serial", "--out", out]
    stopped = run(*options, INTERRUPT="scene-2")
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert len(list(Path(out).glob("jobs/[!.]*"))) == 2
    done = run("--resume", out)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 jobs were finished before" in done.stdout + done.stderr
