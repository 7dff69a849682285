"""Measured gaps in the report: beside runs, alone, several, and wrong ones."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_runs import COPY, MASKS, Maker, write_run
from typer.testing import Result

from bench.errors import ConfigError, StoreError
from reports import build, gap_part
from reports.drawing import Drawing
from reports.files import MARK, listed_files
from reports.gap import build_report
from reports.gap_figures import discrepancy_figure
from reports.gap_results import GapResults


@pytest.fixture(autouse=True)
def drawn_once(gap_drawings: list[Drawing], monkeypatch: pytest.MonkeyPatch) -> None:
    """All folders here are copies of one, so that their figures need not be drawn again."""
    monkeypatch.setattr(gap_part, "draw_all", lambda results: gap_drawings)


def whole(page: Path) -> str:
    """The page's text, once its links, ids and references are seen to be right."""
    text = page.read_text(encoding="utf-8")
    ids = Counter(re.findall(r'\bid="([^"]*)"', text))
    assert max(ids.values()) == 1, ids.most_common(3)
    for name in ("href", "src", "aria-labelledby", "aria-describedby"):
        for value in re.findall(rf'\s{name}="([^"]*)"', text):
            if name.startswith("aria"):
                assert value in ids, value
            elif value.startswith("#"):
                assert value[1:] in ids, value
            elif not value.startswith("data:"):
                assert (page.parent / value).is_file(), value
    return text


def navigation(text: str) -> list[str]:
    nav = text[text.index("<nav") : text.index("</nav>")]
    return re.findall(r'<a href="[^"]*">([^<]*)</a>', nav)


def test_a_gap_beside_a_run(make_run: Maker, gap_folder: Path, tmp_path: Path) -> None:
    files = build([make_run("one", [COPY, MASKS])], tmp_path / "out", gap_folders=[gap_folder])
    text = whole(files.page)
    assert "How far images are from video" in navigation(text)
    section = text[text.index('<section id="video-gap"') :].partition("</section>")[0]
    assert "bright source loses" in section
    assert len(re.findall("<svg", section)) > 10
    for table in re.findall("<table[^>]*>", section):
        assert "sortable" in table
    # Every table of the gap lies beside the page as it is, and every figure in three formats.
    copied = files.folder / "gap" / "small-gap"
    for path in (*gap_folder.glob("*.csv"), gap_folder / "gap.json"):
        assert (copied / path.name).read_bytes() == path.read_bytes()
        assert f'href="gap/small-gap/{path.name}"' in section
    for path in (gap_folder / "figures").iterdir():
        assert (copied / "figures" / path.name).read_bytes() == path.read_bytes()
    assert set(files.measured) == {path for path in copied.rglob("*") if path.is_file()}


def test_a_gap_alone(gap_folder: Path, tmp_path: Path) -> None:
    text = whole(build_report([gap_folder], tmp_path / "out"))
    assert re.findall(r'<section id="([^"]*)"', text) == ["video-gap"]
    assert MARK in text
    assert MARK not in (gap_folder / "index.html").read_text(), "no report may tidy it up"


def test_the_page_of_the_command_is_the_same_part(gap_folder: Path, tmp_path: Path) -> None:
    own = whole(gap_folder / "index.html")
    reported = build_report([gap_folder], tmp_path / "out").read_text()
    start, end = '<section id="video-gap"', "</section>"
    sections = [text[text.index(start) : text.index(end)] for text in (own, reported)]
    assert sections[0] == sections[1].replace("gap/small-gap/", "")


def test_several_gaps_are_titled(gap_folder: Path, tmp_path: Path) -> None:
    for place in ("a/other", "b/other"):
        shutil.copytree(gap_folder, tmp_path / place)
    folders = [gap_folder, tmp_path / "a/other", tmp_path / "b/other"]
    text = whole(build_report(folders, tmp_path / "out"))
    beginning = "How far images are from video: "
    titles = [beginning + name for name in ("small-gap", "other", "other-2")]
    assert navigation(text) == titles
    assert re.findall("<h2>(.*?)</h2>", text) == titles
    assert (tmp_path / "out/gap/other-2/figures/drop-own.pdf").is_file()


def test_large_figures_stay_beside_the_page(
    gap_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gap_part, "MOST_FIGURE_BYTES", 1000)
    text = whole(build_report([gap_folder], tmp_path / "out"))
    assert "<svg" not in text
    shown = re.findall(r'<img src="gap/small-gap/figures/[\w-]+\.svg"[^>]* loading="lazy"', text)
    assert len(shown) == len(list((gap_folder / "figures").glob("*.svg")))


def test_what_an_earlier_report_had_goes(make_run: Maker, gap_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_report([gap_folder], out)
    assert len(listed_files(out)) > 20
    (out / "gap/mine").mkdir()
    (out / "gap/mine/notes.txt").write_text("mine")
    build([make_run("one", [COPY])], out)
    assert [path.name for path in (out / "gap").iterdir()] == ["mine"]
    (out / "gap/mine/notes.txt").unlink()


def test_a_folder_of_an_earlier_version(gap_folder: Path, tmp_path: Path) -> None:
    """Without what later versions added the rest is shown."""
    old = tmp_path / "old"
    shutil.copytree(gap_folder, old)
    (old / "equalised_statistics.csv").unlink()
    record = re.sub(r'"reference": \{[^}]*\},', "", (old / "gap.json").read_text())
    (old / "gap.json").write_text(record)
    assert "reference" not in discrepancy_figure(GapResults(old)).text
    text = whole(build_report([old], tmp_path / "out"))
    assert "What making factors equal changes" not in text
    assert "bright source loses" in text


# --- the command -----------------------------------------------------------------------------


def test_the_command_takes_both(call: Callable[..., Result], gap_folder: Path) -> None:
    write_run(Path("run"), [COPY], masks=False)
    done = call("report", str(gap_folder), "run", "--out", "out")
    assert done.exit_code == 0, done.output
    assert f"{gap_folder}, run: 1 run, 1 gap" in done.output
    assert "bright adapted" in done.output
    text = whole(Path("out/index.html"))
    assert '<section id="results">' in text
    assert '<section id="video-gap"' in text
    alone = call("report", str(gap_folder), "--out", "alone")
    assert alone.exit_code == 0, alone.output
    assert '<section id="results">' not in whole(Path("alone/index.html"))


def test_wrong_folders_leave_nothing(
    call: Callable[..., Result], gap_folder: Path, tmp_path: Path
) -> None:
    write_run(Path("run"), [COPY], masks=False)
    Path("nothing").mkdir()
    for name, change in (
        ("empty", lambda folder: (folder / "gap.json").write_text("{}")),
        ("cut", lambda folder: (folder / "gap.json").write_text('{"command": [')),
        ("lost", lambda folder: (folder / "drop.csv").unlink()),
    ):
        shutil.copytree(gap_folder, tmp_path / name)
        change(tmp_path / name)
    for folder, words in (
        ("nothing", "no run in it"),
        ("absent", "no run in it"),
        ("empty", "command in gap.json"),
        ("cut", "no readable JSON"),
        ("lost", "no drop.csv"),
    ):
        for folders in ([folder], [str(gap_folder), folder], ["run", folder]):
            with pytest.raises(StoreError, match=re.escape(words)) as error:
                call("report", *folders, "--out", "out")
            assert "\n" not in str(error.value)
            assert not Path("out").exists()


def test_ends_and_baselines_need_runs(call: Callable[..., Result], gap_folder: Path) -> None:
    for options in (["--baseline", "copy"], ["--source", "a", "--oracle", "b"]):
        with pytest.raises(ConfigError, match=options[0]):
            call("report", str(gap_folder), *options, "--out", "out")
        assert not Path("out").exists()
