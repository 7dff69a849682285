"""Commands that turn results into tables, pages and files: report, gap, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.progress import steps_bar
from bench.cli.shared import RootOption, SetOption, console, errors, names
from bench.errors import ConfigError


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of runs. Default: the newest one in runs/"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write. Default: RUN/report"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The method others are compared with. Default: --source, else the best one."
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
) -> None:
    """Turn runs into tables, figures and one HTML page."""
    from bench.errors import StoreError
    from bench.registry import load_reports
    from bench.store import load_run

    if (source is None) != (oracle is None):
        raise ConfigError("--source and --oracle", "one of them", "both or none", "Name both ends.")
    gap = (source, oracle) if source is not None and oracle is not None else None
    if not runs:
        stored = [folder.parent for folder in Path("runs").glob("*/run.json")]
        if not stored:
            raise StoreError("runs/", "no run", "at least one", "Run `python -m bench run` first.")
        runs = [max(stored, key=lambda folder: (folder / "run.json").stat().st_mtime)]
    reports = load_reports()
    loaded = [load_run(path) for path in runs]
    files = reports.build(loaded, out or runs[0] / "report", baseline or source, gap)
    reports.print_table(loaded, console)
    console.print(f"\nReport: {files.page}", soft_wrap=True)


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
    seed: Annotated[int, typer.Option(min=0, help="Of samples, factors and folds.")] = 0,
    preset: Annotated[str | None, typer.Option(help="tiny or paper, for all methods.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    settings: SetOption = None,
) -> None:
    """Measure and draw the gap between images and videos, as networks and their scores see it."""
    import importlib

    from bench.config import parse_assignments
    from bench.gap.command import fresh_folder, gap_request, measure_gap
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
        "seed": seed,
        "preset": preset,
        "device": device,
        "assignments": parse_assignments(settings or []),
    }
    request = gap_request(chosen)
    path = out or Path("runs") / f"gap-{new_run_name()}"
    with fresh_folder(path) as work, steps_bar() as watch:
        missing = measure_gap(request, work, watch)
        reports = importlib.import_module("reports.gap")
        reports.build(work)
    reports.print_table(path, console)
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
    method: Annotated[str | None, typer.Option(help="Where there are several.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Where there are several; '' is the method's default.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where there are several.")] = None,
    seed: Annotated[int | None, typer.Option(help="Where there are several.")] = None,
) -> None:
    """Pack a run's masks for a benchmark's server, or for anybody; all or nothing."""
    from bench.export import Choice
    from bench.export import export as write

    for written in write(runs, Choice(method, variant, data, seed), submission, out, masks):
        console.print(
            f"{written.path}: {written.masks} masks of {written.sequences} sequences",
            soft_wrap=True,
        )
