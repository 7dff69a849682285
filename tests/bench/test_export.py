"""Archives for servers and for `evaluate`: their layout, their bytes, and everything refused."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench import cli
from bench.config import RunConfig
from bench.errors import ConfigError, ProblemsError
from bench.evaluate import evaluate
from bench.export import Archive, Choice, annotated_frames, export
from bench.masks import decode_mask_and_mode, write_mask
from bench.plan import DataChoice, Job, Plan
from bench.run import execute
from bench.store import job_workspace, load_run, write_json, write_plan
from bench.video import Video
from datasets.davis import Davis17
from datasets.youtube_vos import YoutubeVos2018
from reports.combine import collect
from reports.tables import table_latex
from tests.datasets.layouts import SIZE, picture, square, write_grey, write_jpeg

FRAMES = 4
SEQUENCES = ("boat", "car")


@pytest.fixture
def davis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataChoice:
    """DAVIS-2017's test-dev in little: two sequences of four frames, ids 1 and 2 in the first."""
    root = tmp_path / "DAVIS2017"
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/test-dev.txt").write_text("\n".join(SEQUENCES) + "\n")
    for sequence in SEQUENCES:
        for index in range(FRAMES):
            write_jpeg(root / f"JPEGImages/480p/{sequence}/{index:05d}.jpg", index)
        given = root / f"Annotations/480p/{sequence}/00000.png"
        given.parent.mkdir(parents=True)
        write_mask(given, np.maximum(square(1), square(2, at=20)))
    monkeypatch.setattr(Davis17, "official", {"test-dev": 2})
    return DataChoice("davis17-test-dev", "davis17", "test-dev", root, {})


@pytest.fixture
def youtube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataChoice:
    """YouTube-VOS's valid in little, all frames: object 2 enters in frame 5."""
    root = tmp_path / "YouTubeVOS"
    frames = [f"{index:05d}" for index in range(11)]
    for name in frames:
        write_jpeg(root / f"valid_all_frames/JPEGImages/x1/{name}.jpg")
    objects = {"1": {"frames": ["00000", "00005"]}, "2": {"frames": ["00005", "00010"]}}
    (root / "valid").mkdir()
    write_json(root / "valid/meta.json", {"videos": {"x1": {"objects": objects}}})
    for name, value in (("00000", 1), ("00005", 2)):
        given = root / f"valid/Annotations/x1/{name}.png"
        given.parent.mkdir(parents=True, exist_ok=True)
        write_mask(given, square(value))
    monkeypatch.setattr(YoutubeVos2018, "official", {"valid": 1})
    return DataChoice("ytvos18", "ytvos18", "valid", root, {"all_frames": True})


def make_run(
    path: Path,
    data: DataChoice,
    sequences: Sequence[str] = SEQUENCES,
    done: Sequence[str] | None = None,
    **fields: Any,
) -> Path:
    """A run whose masks hold ids 1 and 2, without any method being run."""
    base: dict[str, Any] = {
        "method": "copy",
        "variant": "",
        "settings": {},
        "weights": None,
        "seed": 0,
    }
    base |= {"device": "cpu", "protocol": "semi-supervised"} | fields
    assert data.root is not None
    names = [file.stem for file in sorted(data.root.glob("*/JPEGImages/x1/*.jpg"))]
    names = names or [f"{index:05d}" for index in range(FRAMES)]
    jobs = [
        Job(
            id=f"{base['method']}-{base['variant']}-{base['seed']}-{sequence}",
            data=data,
            sequence=sequence,
            frames=len(names),
            **base,
        )
        for sequence in sequences
    ]
    path.mkdir()
    write_json(path / "run.json", {})
    write_plan(path, Plan(jobs, [], {}))
    for job in jobs:
        if done is not None and job.sequence not in done:
            continue
        with job_workspace(path, job) as (_, masks):
            for number, name in enumerate(names):
                both = np.maximum(square(1, at=4 + number), square(2, at=20))
                write_mask(masks / f"{name}.png", both)
    return path


def submit(
    runs: Sequence[Path], out: Path, submission: str = "davis17", **choice: Any
) -> list[Archive]:
    return export(runs, Choice(**choice), submission, out)


def test_davis_archive_has_every_frame_of_every_sequence_at_its_root(
    tmp_path: Path, davis: DataChoice
) -> None:
    run = make_run(tmp_path / "run", davis)
    (written,) = submit([run], tmp_path / "out.zip")
    assert (written.sequences, written.masks) == (2, 8)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        expected = [f"{s}/{index:05d}.png" for s in SEQUENCES for index in range(FRAMES)]
        assert archive.namelist() == expected
        for name in expected:
            mask, mode = decode_mask_and_mode(archive.read(name), name)
            assert mode == "P"
            assert mask.shape == SIZE
            assert set(np.unique(mask)) == {0, 1, 2}


def test_youtube_vos_archive_has_every_fifth_frame_alone(
    tmp_path: Path, youtube: DataChoice
) -> None:
    run = make_run(tmp_path / "run", youtube, ["x1"])
    submit([run], tmp_path / "out.zip", "youtube-vos")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [
            f"Annotations/x1/{n}.png" for n in ("00000", "00005", "00010")
        ]


def test_annotated_frames_count_from_the_first_mask() -> None:
    def numbered(names: tuple[str, ...], annotated: tuple[int, ...]) -> Video:
        return Video("d", "v", names, SIZE, lambda _: picture(0), lambda _: square(), annotated)

    sparse = numbered(("00003", "00008", "00013"), (0,))
    assert annotated_frames(sparse) == [0, 1, 2]
    every = numbered(tuple(f"{number:05d}" for number in range(3, 14)), (0, 7))
    assert annotated_frames(every) == [0, 5, 7, 10]


def test_equal_masks_give_equal_bytes(tmp_path: Path, davis: DataChoice) -> None:
    first, second = (make_run(tmp_path / name, davis) for name in ("a", "b"))
    for path in (second / "masks").rglob("*.png"):
        path.touch()
    submit([first], tmp_path / "a.zip")
    submit([second], tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_submission_may_be_spread_over_runs(tmp_path: Path, davis: DataChoice) -> None:
    runs = [make_run(tmp_path / name, davis, [name]) for name in SEQUENCES]
    whole = make_run(tmp_path / "whole", davis)
    submit(runs, tmp_path / "spread.zip")
    submit([whole], tmp_path / "whole.zip")
    assert (tmp_path / "spread.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_every_fault_is_named_and_nothing_is_written(tmp_path: Path, davis: DataChoice) -> None:
    run = make_run(tmp_path / "run", davis)
    boat, car = (run / "masks/copy/davis17-test-dev" / name for name in SEQUENCES)
    (boat / "00001.png").unlink()
    write_mask(boat / "00002.png", np.zeros((5, 7), np.uint8))
    (boat / "00003.png").write_bytes(b"no picture")
    write_grey(car / "00000.png", square(1))
    write_mask(car / "00001.png", square(3))
    write_mask(car / "00002.png", square(255))
    with pytest.raises(ProblemsError) as caught:
        submit([run], tmp_path / "out.zip")
    problems = {tuple(p.partition(": ")[0].split("/")[-2:]): p for p in caught.value.problems}
    expected = {
        ("boat", "00001.png"): "no such file",
        ("boat", "00002.png"): "7x5 pixels, but the frames have 32x24",
        ("boat", "00003.png"): "unreadable",
        ("car", "00000.png"): "mode L",
        ("car", "00001.png"): "ids [3], but the given masks have [1, 2]",
        ("car", "00002.png"): "255",
    }
    assert set(problems) == set(expected)
    for key, words in expected.items():
        assert words in problems[key]
    assert not list(tmp_path.glob("*.zip*"))
    assert not list(tmp_path.glob(".*"))


def test_sequences_that_lack_or_have_not_finished_are_named(
    tmp_path: Path, davis: DataChoice
) -> None:
    part = make_run(tmp_path / "part", davis, ["boat"])
    with pytest.raises(ProblemsError, match="car: not in these runs"):
        submit([part], tmp_path / "out.zip")
    begun = make_run(tmp_path / "begun", davis, done=["boat"])
    with pytest.raises(ProblemsError, match=r"car: not finished; continue with .*--resume"):
        submit([begun], tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_data_with_fewer_sequences_than_the_benchmark_is_no_submission(
    tmp_path: Path, davis: DataChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", davis)
    monkeypatch.setattr(Davis17, "official", {"test-dev": 30})
    with pytest.raises(ProblemsError, match="2 of 30 sequences"):
        submit([run], tmp_path / "out.zip")


def test_a_run_without_jobs(tmp_path: Path, davis: DataChoice) -> None:
    empty = make_run(tmp_path / "empty", davis, [])
    with pytest.raises(ConfigError, match="found no such result; expected a run with jobs"):
        export([empty], Choice(), masks=tmp_path / "masks.zip")


def test_two_results_for_one_sequence_are_refused(tmp_path: Path, davis: DataChoice) -> None:
    one = make_run(tmp_path / "one", davis)
    other = make_run(tmp_path / "other", davis)
    plan = json.loads((other / "plan.json").read_text())
    for job in plan["jobs"]:
        job["id"] += "-of-other-code"
    write_json(other / "plan.json", plan)
    with pytest.raises(ConfigError, match="another result for boat"):
        submit([one, other], tmp_path / "out.zip")


def test_an_older_archive_survives_a_refusal(tmp_path: Path, davis: DataChoice) -> None:
    run = make_run(tmp_path / "run", davis, ["boat"])
    (tmp_path / "out.zip").write_text("older")
    with pytest.raises(ProblemsError):
        submit([run], tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_text() == "older"


def test_several_results_need_a_choice(tmp_path: Path, davis: DataChoice) -> None:
    runs = [
        make_run(tmp_path / "default", davis),
        make_run(tmp_path / "variant", davis, variant="short_side=240", settings={"x": 1}),
    ]
    with pytest.raises(ConfigError, match="--variant: found several: '', 'short_side=240'"):
        submit(runs, tmp_path / "out.zip")
    with pytest.raises(ConfigError, match="--variant none: found no such result"):
        submit(runs, tmp_path / "out.zip", variant="none")
    assert submit(runs, tmp_path / "out.zip", variant="")[0].masks == 8


def test_masks_of_different_systems_are_not_mixed(tmp_path: Path, davis: DataChoice) -> None:
    runs = [
        make_run(tmp_path / "boat", davis, ["boat"], weights=Path("a.pth")),
        make_run(tmp_path / "car", davis, ["car"], weights=Path("b.pth")),
    ]
    with pytest.raises(ConfigError, match="other weights"):
        submit(runs, tmp_path / "out.zip")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"submission": "davis18", "out": Path("x.zip")}, "davis17, youtube-vos"),
        ({"submission": "davis17"}, "no --out"),
        ({"out": Path("x.zip")}, "no --submission"),
        ({}, "nothing to write"),
        ({"submission": "davis17", "out": Path("x.tar")}, "FILE.zip"),
        ({"submission": "davis17", "out": Path("x.zip"), "masks": Path("x.zip")}, "another file"),
        ({"submission": "youtube-vos", "out": Path("x.zip")}, "runs on davis17-test-dev"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path,
    davis: DataChoice,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    words: str,
) -> None:
    run = make_run(tmp_path / "run", davis)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        export([run], Choice(), **options)


def test_unsupervised_runs_are_no_submission(tmp_path: Path, davis: DataChoice) -> None:
    run = make_run(tmp_path / "run", davis, protocol="unsupervised")
    with pytest.raises(ConfigError, match="unsupervised"):
        submit([run], tmp_path / "out.zip")


def test_the_command_says_what_it_wrote_and_exits_with_2_where_it_refuses(
    tmp_path: Path,
    davis: DataChoice,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(tmp_path / "run", davis)
    options = ["--submission", "davis17", "--out", str(tmp_path / "out.zip")]
    monkeypatch.setattr(sys, "argv", ["bench", "export", str(run), *options])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert "8 masks of 2 sequences" in capsys.readouterr().out
    (tmp_path / "out.zip").unlink()
    next((run / "masks").rglob("boat/00002.png")).unlink()
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "00002.png: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out.zip").exists()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with scores, under a name that LaTeX would not take as it stands."""
    run = tmp_path_factory.mktemp("runs") / "run"
    settings = {"synthetic.frames": 4, "synthetic.sequences": 2}
    name = r"50 % of A_B & C #1 {x} ~ ^ \ $ < > | é ± – × --set"
    execute(RunConfig(methods=["copy"], engine="serial", names={"copy": name}), settings, run)
    return run


def test_evaluate_reads_an_archive_back_with_the_scores_of_the_run(
    measured: Path, tmp_path: Path
) -> None:
    (written,) = export([measured], Choice(), masks=tmp_path / "masks.zip")
    assert written.masks == 8
    data = json.loads((measured / "plan.json").read_text())["jobs"][0]["data"]
    choice = DataChoice(data["label"], data["name"], data["split"], None, data["settings"])
    evaluate(tmp_path / "masks.zip", choice.open(), tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        found = {(r["sequence"], r["object"]): r for r in csv.DictReader(file)}
    scores = load_run(measured).scores
    means = scores.groupby(["sequence", "object", "metric"], observed=True)["value"].mean()
    assert len(means) >= 4
    for key, value in means.items():
        sequence, number, metric = cast("tuple[str, int, str]", key)
        assert float(found[sequence, str(number)][metric]) == pytest.approx(value, abs=1e-12)


def test_the_latex_table_compiles(measured: Path, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("No pdflatex: install texlive-latex-base and texlive-latex-recommended.")
    (tmp_path / "table.tex").write_text(table_latex(collect([load_run(measured)])))
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\n"
        "\\begin{document}\n\\input{table.tex}\n\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 10_000


def test_a_plain_archive_misses_no_frame(tmp_path: Path, davis: DataChoice) -> None:
    run = make_run(tmp_path / "run", davis)
    next((run / "masks").rglob("car/00001.png")).unlink()
    with pytest.raises(ProblemsError, match="car: 3 masks of 4 frames"):
        export([run], Choice(), masks=tmp_path / "masks.zip")
