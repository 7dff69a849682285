"""Commands that turn results into tables, pages and files: report, gap, export."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.progress import steps_bar
from bench.cli.shared import RootOption, SetOption, console, errors, names
from bench.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from bench.store import Run

GAP = "gap.json"
"""What marks a folder of the command gap."""

LABEL_SECONDS = "--label-seconds"

EXPERIMENT = "experiment.json"
"""File in the folder of a suite or an ablation that says what its report shows besides runs."""


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDERS]...",
            help="Folders of runs, suites, ablations or gaps. "
            "Default: the newest one in runs/ that is no gap.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write. Default: report/ in the first folder."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The method others are compared with. Default: the suite's, else --source, "
            "else the best one."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="The lower end of a gap: the method trained on images. Needs --oracle."),
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(help="Its upper end: the method trained with video labels. Needs --source."),
    ] = None,
    label_seconds: Annotated[
        str | None,
        typer.Option(
            help="Annotation time of one label, KIND=SECONDS,... of class, saliency (an outline) "
            "and mask. Default: class=20,saliency=54,mask=79."
        ),
    ] = None,
) -> None:
    """Turn runs, and measured gaps between images and video, into figures and one HTML page.

    A suite is reported under its title, with the baseline and the gap that it names, unless the
    options name others. A folder of the command gap becomes a section.
    """
    from bench.registry import load_gap_page, load_reports
    from bench.store import load_run

    if (source is None) != (oracle is None):
        raise ConfigError("--source and --oracle", "one of them", "both or none", "Name both ends.")
    costs = seconds_per_label(label_seconds)
    folders = folders or [newest_results(Path("runs"))]
    measured = [folder for folder in folders if (folder / GAP).is_file()]
    ran = [folder for folder in folders if folder not in measured]
    loaded = [load_run(path) for folder in ran for path in runs_in(folder)]
    if measured:
        load_gap_page().check(measured)
    console.print(_taken(folders, len(loaded), len(measured)), markup=False, soft_wrap=True)
    out = out or folders[0] / "report"
    if loaded:
        about = experiment_record(ran[0]) if len(ran) == 1 else {}
        gap = (source, oracle) if source and oracle else suite_gap(about, loaded)
        baseline = baseline or suite_baseline(about, loaded) or (gap[0] if gap else None)
        rows = {name: note for folder in ran for name, note in _rows(folder).items()}
        reports = load_reports()
        page = reports.build(
            loaded, out, baseline, gap, about.get("title"), measured, rows, costs
        ).page
        reports.print_table(loaded, console, rows, costs)
    elif baseline or source or costs:
        given = "--baseline" if baseline else "--source and --oracle" if source else LABEL_SECONDS
        raise ConfigError(given, "no run", "runs, which it is about", "Name their folders.")
    else:
        page = load_gap_page().build_report(measured, out)
    for folder in measured:
        load_gap_page().print_table(folder, console)
    console.print(f"\nReport: {page}", soft_wrap=True)


def seconds_per_label(text: str | None) -> dict[str, float]:
    """Annotation time in seconds by kind of label, of ``KIND=SECONDS,...``; empty for None.

    Raises:
        ConfigError: a kind that costs nothing or is none, one named twice, or no time.
    """
    from bench.method import SECONDS_PER_LABEL

    kinds = [kind for kind, own in SECONDS_PER_LABEL.items() if own]
    found: dict[str, float] = {}
    for part in [] if text is None else text.split(","):
        kind, _, number = (word.strip() for word in part.partition("="))
        where = f"{LABEL_SECONDS} {text}"
        if kind not in kinds:
            expected = f"one of {', '.join(kinds)}"
            raise ConfigError(where, f"{kind!r}, no kind of label", expected, "Correct it.")
        if kind in found:
            raise ConfigError(where, f"{kind} twice", "each kind once", "Remove one.")
        try:
            found[kind] = float(number)
        except ValueError:
            found[kind] = math.nan
        if not 0 <= found[kind] < math.inf:
            expected = "seconds, 0 or more"
            raise ConfigError(where, f"{number!r} for {kind}", expected, f"Write {kind}=SECONDS.")
    return found


def _taken(folders: Sequence[Path], runs: int, gaps: int) -> str:
    """What is reported: ``"runs/a, runs/b: 2 runs, 1 gap"``."""
    counts = [(runs, "run"), (gaps, "gap")]
    words = [f"{count} {noun}{'s' if count > 1 else ''}" for count, noun in counts if count]
    return f"{', '.join(str(folder) for folder in folders)}: {', '.join(words)}"


def runs_in(folder: Path) -> list[Path]:
    """The folder of a run itself, or those of the runs in the folder of a suite or an ablation.

    A suite keeps its runs in itself, or in a folder per protocol. Sorted by name.

    Raises:
        StoreError: there are none.
    """
    if (folder / "run.json").is_file():
        return [folder]
    records = [*folder.glob("*/run.json"), *folder.glob("*/*/run.json")]
    if not records:
        raise StoreError(
            folder,
            "no run in it",
            "the folder of a run, a suite, an ablation or a gap",
            "Name another.",
        )
    return sorted(record.parent for record in records)


def newest_results(folder: Path) -> Path:
    """The run, suite or ablation in a folder of which a run was written last.

    Raises:
        StoreError: there are none.
    """
    times: dict[Path, float] = {}
    for pattern in ("*/run.json", "*/*/run.json", "*/*/*/run.json"):
        for record in folder.glob(pattern):
            found = folder / record.relative_to(folder).parts[0]
            times[found] = max(times.get(found, 0.0), record.stat().st_mtime)
    if not times:
        raise StoreError(folder, "no run", "at least one", "Run `python -m bench run` first.")
    return max(times, key=lambda found: times[found])


def experiment_record(folder: Path) -> dict[str, Any]:
    """What the command `suite` or `ablate` wrote of itself; else empty.

    ``title`` and ``gap`` and, of a suite, ``baseline`` and ``rows``: by name, each one's ``group``,
    ``description`` and ``paper``. Earlier versions wrote fewer.
    """
    from bench.store import read_json

    path = folder / EXPERIMENT
    return dict(read_json(path)) if path.is_file() else {}


def _rows(folder: Path) -> dict[str, Any]:
    return experiment_record(folder).get("rows") or {}


def suite_baseline(about: Mapping[str, Any], runs: Sequence[Run]) -> str | None:
    """The row that a suite takes differences from; None, after a word why, where it has no run."""
    name = about.get("baseline")
    if name is None or name in _row_names(runs):
        return name
    errors.print(f"No baseline: {name} did not run.", markup=False)
    return None


def suite_gap(about: Mapping[str, Any], runs: Sequence[Run]) -> tuple[str, str] | None:
    """The ends of a suite's gap, source first; None, after a word why, where one has no run."""
    if not about.get("gap"):
        return None
    source, oracle = about["gap"]
    missing = [end for end in (source, oracle) if end not in _row_names(runs)]
    if missing:
        errors.print(f"No gap: {' and '.join(missing)} did not run.", markup=False)
        return None
    return source, oracle


def _row_names(runs: Sequence[Run]) -> set[str | None]:
    return {record.get("name") for run in runs for record in run.provenance["methods"].values()}


def gap(
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")],
    images: Annotated[str, typer.Option(help="A dataset of labelled images.")],
    videos: Annotated[str, typer.Option(help="A dataset of labelled videos.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write. Default: runs/gap-<date and time>"),
    ] = None,
    root: RootOption = None,
    limit: Annotated[int, typer.Option(min=6, help="Most images, and most videos.")] = 50,
    short_side: Annotated[
        int, typer.Option(min=32, help="Images and frames are shrunk to this short side.")
    ] = 240,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Networks side by side: [METHOD.]LABEL=FILE,... The label source means trained on "
            "images only, oracle with video labels. A label again is another seed."
        ),
    ] = None,
    factors: Annotated[
        str | None,
        typer.Option(
            help="Of the curves, separated by commas. Default: motion_blur,low_light,"
            "low_resolution,compression,framing; also defocus, location, scale."
        ),
    ] = None,
    taps: Annotated[
        str | None,
        typer.Option(help="Where features are taken; the last is drawn. Default: all there are."),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            help="Method whose encoder, as it ships, is the fixed one that the Frechet ratio is "
            "also measured on; none leaves it out."
        ),
    ] = "imagenet",
    video_label_accuracy: Annotated[
        float | None,
        typer.Option(
            help="Boundary F of the videos' masks, above 0 to 1, where they are not manual: masks "
            "of images are made as inexact. Default: both count as manual."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of samples, factors and folds.")] = 0,
    preset: Annotated[str | None, typer.Option(help="tiny or paper, for all methods.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    settings: SetOption = None,
) -> None:
    """Measure and draw the gap between images and videos, as networks and their scores see it."""
    from bench.config import parse_assignments
    from bench.gap.command import fresh_folder, measure_gap
    from bench.gap.request import gap_request
    from bench.registry import load_gap_page
    from bench.run import new_run_name

    chosen = {
        "methods": names(methods),
        "images": images,
        "videos": videos,
        "root": root,
        "limit": limit,
        "short_side": short_side,
        "weights": weights,
        "factors": names(factors),
        "taps": names(taps),
        "reference": reference,
        "video_label_accuracy": video_label_accuracy,
        "seed": seed,
        "preset": preset,
        "device": device,
        "assignments": parse_assignments(settings or []),
    }
    request = gap_request(chosen)
    path = out or Path("runs") / f"gap-{new_run_name()}"
    with fresh_folder(path) as work, steps_bar() as watch:
        missing = measure_gap(request, work, watch)
        page = load_gap_page()
        page.build(work)
    page.print_table(path, console)
    for one in missing:
        errors.print(f"not measured: {one}", markup=False, soft_wrap=True)
    console.print(f"\nPage: {path / 'index.html'}", soft_wrap=True)


def export(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    submission: Annotated[
        str | None,
        typer.Option(help="A server's layout: davis17 or youtube-vos. Needs --out."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The submission: FILE.zip.")] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="FILE.zip of one folder of masks per sequence; `evaluate` reads it."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Whose masks, where the runs hold several methods.")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="Of which settings, or which row of a suite, where there are several; "
            "'' is the method's default."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Of which dataset, where the runs hold several.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of which seed, where the runs hold several.")
    ] = None,
) -> None:
    """Pack a run's masks for a benchmark's server, or for anybody; all or nothing."""
    from bench.export import Choice
    from bench.export import export as write

    for written in write(runs, Choice(method, variant, data, seed), submission, out, masks):
        console.print(
            f"{written.path}: {written.masks} masks of {written.sequences} sequences",
            soft_wrap=True,
        )
