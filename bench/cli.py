"""The command line: parse, call, print. All work is done elsewhere, and imported only when used."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from bench.errors import BenchError, ConfigError

if TYPE_CHECKING:
    from bench.engine.base import Outcome
    from bench.plan import Plan
    from bench.run import RunResult

app = typer.Typer(
    help="What labels buy in video object segmentation: run, score and compare methods.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look after datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

console = Console()
errors = Console(stderr=True)

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting: KEY=VALUE or METHOD.KEY=VALUE. Repeatable."),
]
RootOption = Annotated[
    Path | None,
    typer.Option(help="The data's folder. Otherwise $BENCH_DATA/NAME, then ./data/NAME."),
]


def main() -> None:
    """Run a command; errors a user can mend become one message and exit code 2."""
    try:
        app()
    except BenchError as error:
        fail(str(error))
    except BrokenPipeError:
        # The reader went away, as `| head` does; nothing more can be said on standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # Places that cannot be read or written: full disks, missing rights, files as folders.
        fail(f"{error.filename or 'the file system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        errors.print("Stopped. What had finished is kept.")
        sys.exit(130)


def fail(message: str) -> NoReturn:
    """Print an error and leave with exit code 2."""
    errors.print("[bold red]error:[/] ", end="")
    errors.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


def names(text: str | None) -> list[str] | None:
    """``"a,b"`` as a list; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


@app.command()
def run(
    methods: Annotated[
        str | None,
        typer.Option(help="Methods, separated by commas. Default: imagenet,copy"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Datasets, separated by commas; NAME or NAME-SPLIT. Default: synthetic"),
    ] = None,
    root: RootOption = None,
    sequences: Annotated[
        str | None,
        typer.Option(help="Only these sequences, separated by commas."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds, separated by commas. Default: 0"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="tiny or paper, for all methods. Default: each method's own."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="semi-supervised (default) or unsupervised."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto (default), cpu or cuda."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Jobs at a time. Default: as many as cores and memory allow."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Where jobs run; see `list engines`. Default: local"),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="A checkpoint: METHOD=FILE. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder. Default: runs/<date and time>"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML with any of these options; the command line wins."),
    ] = None,
    settings: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, and run nothing.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue an interrupted run's folder; finished jobs are not repeated."),
    ] = None,
) -> None:
    """Run methods on datasets and print the table of scores."""
    from bench.config import load_run_config, parse_assignments
    from bench.run import new_run_name, stored_request

    chosen: dict[str, Any] = {
        "methods": names(methods),
        "data": names(data),
        "root": root,
        "sequences": names(sequences),
        "seeds": names(seeds),
        "preset": preset,
        "protocol": protocol,
        "device": device,
        "weights": _weights(weights),
    }
    places = {"workers": workers, "engine": engine}
    if resume is not None:
        clash = [key for key, value in chosen.items() if value is not None]
        clash += [
            key for key, value in (("config", config), ("set", settings), ("out", out)) if value
        ]
        if clash:
            raise ConfigError(
                "--resume",
                f"--{clash[0]} beside it",
                "a run's folder alone (with --workers or --engine at most)",
                "A resumed run keeps its configuration; start a new run to change it.",
            )
        request, assignments = stored_request(resume)
        request = request.model_copy(update={k: v for k, v in places.items() if v is not None})
        path = resume
    else:
        request = load_run_config(config, chosen | places)
        assignments = parse_assignments(settings or [])
        path = out or Path("runs") / new_run_name()
    if dry_run:
        from bench.plan import make_plan

        _print_plan(make_plan(request, assignments))
        return
    if resume is None:
        from bench.train import train_missing

        train_missing(
            request,
            assignments,
            _training_progress,
            lambda line: errors.print(line, markup=False, soft_wrap=True),
        )
    _execute(request, assignments, path)


def _weights(options: list[str] | None) -> dict[str, Path] | None:

    if not options:
        return None
    found = {}
    for option in options:
        method, equals, file = option.partition("=")
        if not equals:
            raise ConfigError(
                f"--weights {option}",
                "no METHOD=FILE",
                "for instance crw=crw.pth",
                "Name the method.",
            )
        found[method] = Path(file)
    return found


def _print_plan(plan: Plan) -> None:
    from collections import Counter

    from rich.table import Table

    table = Table("method", "variant", "dataset", "split", "jobs", "frames")
    jobs: Counter[tuple[str, str, str, str]] = Counter()
    frames: Counter[tuple[str, str, str, str]] = Counter()
    for job in plan.jobs:
        key = (job.method, job.variant, job.data.label, job.data.split)
        jobs[key] += 1
        frames[key] += job.frames
    for key, count in jobs.items():
        table.add_row(*key, str(count), str(frames[key]))
    console.print(table)
    for skip in plan.skips:
        console.print(f"skipped: {skip.method} on {skip.dataset}: {skip.reason}", markup=False)
    console.print(f"{len(plan.jobs)} jobs. Nothing was run.")


def _execute(request: Any, assignments: dict[str, Any], path: Path) -> None:
    from bench.registry import load_reports
    from bench.store import load_run

    result = _run_with_bar(request, assignments, path)
    load_reports().print_table([load_run(path)], console)
    console.print(f"\nRun: {path}", soft_wrap=True)
    console.print(f"Page and figures: python -m bench report {path}", soft_wrap=True)
    if result.failures:
        errors.print(f"{len(result.failures)} of {len(result.plan.jobs)} jobs failed.", style="red")
        sys.exit(1)
    if not result.plan.jobs:
        errors.print("Nothing could be run; see the reasons above.", style="red")
        sys.exit(1)


def _run_with_bar(request: Any, assignments: dict[str, Any], path: Path) -> RunResult:
    from bench.run import execute

    with _progress() as progress:
        bar = progress.add_task("planning", total=None)

        def on_start(plan: Plan, reused: int) -> None:
            frames = sum(job.frames for job in plan.jobs)
            progress.update(bar, description="segmenting", total=frames)
            if reused:
                progress.console.print(f"{reused} of {len(plan.jobs)} jobs were finished before.")
                done = sum(j.frames for j in plan.jobs if (path / "jobs" / j.id).is_dir())
                progress.update(bar, completed=done)
            for skip in plan.skips:
                progress.console.print(
                    f"skipped: {skip.method} on {skip.dataset}: {skip.reason}", markup=False
                )

        def on_outcome(outcome: Outcome) -> None:
            job = outcome.job.job
            progress.advance(bar, job.frames)
            if outcome.error is not None:
                progress.console.print(f"failed: {job}: {outcome.error}", style="red", markup=False)
            elif not progress.console.is_terminal:  # a log file gets lines instead of a bar
                progress.console.print(f"done: {job}", markup=False, highlight=False)

        return execute(request, assignments, path, on_start, on_outcome)


def _progress(*, auto_refresh: bool = True) -> Any:
    """A bar over frames or sequences, kept moving by a thread unless ``auto_refresh`` is off."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        auto_refresh=auto_refresh,
    )


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
def train(
    context: typer.Context,
    methods: Annotated[
        str | None, typer.Option(help="Methods, separated by commas. Required.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Training datasets, separated by commas. Required.")
    ] = None,
    root: RootOption = None,
    preset: Annotated[
        str | None,
        typer.Option(help="tiny or paper. Default: each method's own."),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="How long: 90s, 30m, 2h, or iterations as 20000it.")
    ] = "30m",
    seed: Annotated[int, typer.Option(help="Of weights and samples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that make samples.")] = 1,
    amp: Annotated[bool, typer.Option("--amp", help="Compute in bfloat16.")] = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Start from this checkpoint instead of random weights."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML with settings as --set takes them; --set wins."),
    ] = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The training's folder. Default: checkpoints/METHOD/<date and time>"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue in this training's folder, with its options; "
            "only --root, --budget, --device and --workers can change."
        ),
    ] = None,
) -> None:
    """Train methods and store their weights. For several processes, start it with torchrun.

    --set reaches the method's settings and, after `training.`, those of its training.
    """
    from bench.train import TrainingChoice, resumed_choice, train_method

    for name, value in {"--methods": methods, "--data": data}.items():
        if resume is None and not names(value):
            raise ConfigError(name, "nothing", "one name or several", f"Add {name} NAME.")
    choice = TrainingChoice(
        methods=names(methods) or [],
        data=names(data) or [],
        root=root,
        preset=preset,
        budget=budget,
        seed=seed,
        device=device,
        workers=workers,
        amp=amp,
        weights=weights,
        config=config,
        assignments=settings or [],
        out=out,
    )
    if resume is not None:
        given = {
            "set" if name == "settings" else name: value
            for name, value in context.params.items()
            if name != "resume" and _was_given(context, name)
        }
        choice = resumed_choice(resume, given)
    for method in choice.methods:
        with _training_progress(method) as watch:
            result = train_method(method, choice, watch)
        if result is not None:
            console.print(f"Weights: {result}", soft_wrap=True)
            console.print(f"Curve: {result.with_name('curve.csv')}", soft_wrap=True)


OutOption = Annotated[
    Path | None, typer.Option(help="The folder of all runs. Default: runs/<file's name>")
]
SequencesOption = Annotated[
    str | None, typer.Option(help="Only these sequences, separated by commas.")
]
SeedsOption = Annotated[str | None, typer.Option(help="Seeds, separated by commas.")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
WorkersOption = Annotated[int | None, typer.Option(help="Jobs at a time.")]
RowsDryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the rows, and run nothing.")
]


@app.command()
def ablate(
    file: Annotated[Path, typer.Argument(help="YAML, for instance configs/ablations/shls/*.yaml.")],
    out: OutOption = None,
    root: RootOption = None,
    sequences: SequencesOption = None,
    seeds: SeedsOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    dry_run: RowsDryRunOption = False,
) -> None:
    """Run one method under every combination of some settings, trained where that needs it.

    The same command again continues; values added to the file are computed beside the others.
    With several --seeds, combinations that are trained are trained once for each.
    """
    from bench.ablate import load_ablation, rows_of

    config = load_ablation(file)
    places: dict[str, Any] = {"root": root, "sequences": names(sequences), "seeds": names(seeds)}
    places |= {"device": device, "workers": workers, "data": config.data}
    folder = out or Path("runs", file.stem)
    _, complete = _run_rows(config.title, rows_of(config), places, folder, dry_run)
    if not complete:
        sys.exit(1)


@app.command()
def suite(
    file: Annotated[Path, typer.Argument(help="YAML, for instance configs/suites/*.yaml.")],
    out: OutOption = None,
    root: RootOption = None,
    sequences: SequencesOption = None,
    seeds: SeedsOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    dry_run: RowsDryRunOption = False,
) -> None:
    """Run the rows of a suite, trained where they need it, and write the report.

    The same command again continues; rows added to the file are computed beside the others.
    """
    from bench.registry import load_reports
    from bench.store import load_run
    from bench.suite import load_suite, rows_of

    config = load_suite(file)
    places: dict[str, Any] = {
        "root": root,
        "sequences": names(sequences),
        "seeds": names(seeds) or config.seeds,
    }
    places |= {"device": device, "workers": workers}
    places |= {"data": config.data, "protocol": config.protocol}
    folder = out or Path("runs", file.stem)
    title = f"{config.title} ({config.comparison})"
    runs, complete = _run_rows(title, rows_of(config, file), places, folder, dry_run)
    if runs:
        files = load_reports().build([load_run(path) for path in runs], folder / "report")
        console.print(f"Report: {files.page}", soft_wrap=True)
    if not complete:
        sys.exit(1)


def _run_rows(
    title: str, rows: list[Any], places: dict[str, Any], folder: Path, dry_run: bool
) -> tuple[list[Path], bool]:
    """Run an experiment's rows and print their table; their runs, and whether all finished."""
    from bench.config import load_run_config
    from bench.experiment import run_rows
    from bench.registry import load_reports
    from bench.store import load_run

    if dry_run:
        for row in rows:
            console.print(f"{row.name}{'  (trained)' if row.training else ''}", markup=False)
        return [], True
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = run_rows(
        rows,
        load_run_config(None, places),
        folder,
        _training_progress,
        _run_with_bar,
        lambda line: errors.print(line, markup=False, highlight=False),
    )
    runs = [path for outcome in outcomes for path in outcome.runs]
    console.print(title, style="bold", markup=False)
    if runs:
        load_reports().print_table([load_run(path) for path in runs], console)
        listed = " ".join(shlex.quote(str(path)) for path in runs)
        console.print(f"\nPage and figures: python -m bench report {listed}", soft_wrap=True)
    missing = [outcome for outcome in outcomes if outcome.reason]
    for outcome in missing:
        errors.print(f"{outcome.row.name}: not finished: {outcome.reason}", markup=False)
    return runs, not missing


@contextlib.contextmanager
def _training_progress(method: str) -> Iterator[Any]:
    """A bar over the budget, with losses; lines every few percent where nobody watches."""
    import math

    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    ) as progress:
        bar = progress.add_task(f"training {method}", total=1.0)
        said = [0.0]

        def watch(state: Any) -> None:
            losses = " ".join(f"{name} {value:.3f}" for name, value in state.losses.items())
            best = "" if math.isnan(state.score) else f" best score {state.score:.3f}"
            text = f"{method} {state.iteration} it {losses}{best}"
            progress.update(bar, completed=min(1.0, state.spent), description=text)
            if not progress.console.is_terminal and state.spent - said[0] >= 0.05:
                said[0] = state.spent
                progress.console.print(f"{state.spent:.0%} {text}", highlight=False)

        yield watch


@app.command()
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
    with fresh_folder(path) as work, _steps() as watch:
        missing = measure_gap(request, work, watch)
        reports = importlib.import_module("reports.gap")
        reports.build(work)
    reports.print_table(path, console)
    for one in missing:
        errors.print(f"not measured: {one}", markup=False, soft_wrap=True)
    console.print(f"\nPage: {path / 'index.html'}", soft_wrap=True)


@contextlib.contextmanager
def _steps() -> Iterator[Any]:
    """A bar over the steps of a measurement; a line for each kind where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=errors, transient=True) as progress:
        bar = progress.add_task("samples", total=None)
        said = [""]

        def watch(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total)
            if not progress.console.is_terminal and what != said[0]:
                said[0] = what
                progress.console.print(f"{done} of {total}: {what}", markup=False, highlight=False)

        yield watch


@app.command()
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
        typer.Option(help="The method others are compared with. Default: the best one."),
    ] = None,
) -> None:
    """Turn runs into tables, figures and one HTML page."""
    from bench.errors import StoreError
    from bench.registry import load_reports
    from bench.store import load_run

    if not runs:
        stored = [folder.parent for folder in Path("runs").glob("*/run.json")]
        if not stored:
            raise StoreError("runs/", "no run", "at least one", "Run `python -m bench run` first.")
        runs = [max(stored, key=lambda folder: (folder / "run.json").stat().st_mtime)]
    reports = load_reports()
    loaded = [load_run(path) for path in runs]
    files = reports.build(loaded, out or runs[0] / "report", baseline)
    reports.print_table(loaded, console)
    console.print(f"\nReport: {files.page}", soft_wrap=True)


@app.command()
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


@app.command()
def evaluate(
    masks: Annotated[
        Path, typer.Argument(metavar="MASK_DIR", help="Folder or .zip: one folder per sequence.")
    ],
    data: Annotated[str, typer.Option(help="The dataset that was segmented.")],
    out: Annotated[Path, typer.Option(help="CSV with one row per object and a last row ALL.")],
    root: RootOption = None,
    frames: Annotated[
        Path | None,
        typer.Option(help="CSV with one row per object and frame."),
    ] = None,
    sequences: Annotated[
        str | None,
        typer.Option(help="Only these sequences, separated by commas."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Scoring rule. Default: the dataset's own."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Object ids that the data does not have are errors.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Score masks that anybody made; no method is involved."""
    from bench.dataset import VideoDataset, find_root
    from bench.evaluate import evaluate as score
    from bench.metrics.rules import RULES
    from bench.registry import get_dataset

    dataset, split = get_dataset(data)
    if not issubclass(dataset, VideoDataset):
        raise ConfigError(f"--data {data}", "still images", "a video dataset", "Name another one.")
    if protocol is not None and protocol not in RULES:
        raise ConfigError(
            f"--protocol {protocol}", "no such rule", f"one of {', '.join(RULES)}", "Correct it."
        )
    opened = dataset(find_root(dataset, root), split)
    assert isinstance(opened, VideoDataset)
    # A thread that refreshes the bar would keep workers from being forked.
    with _progress(auto_refresh=False) as progress:
        bar = progress.add_task("scoring", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total, refresh=True)

        result = score(
            masks,
            opened,
            out,
            frames,
            strict=strict,
            workers=workers,
            sequences=names(sequences),
            rule=RULES[protocol] if protocol else None,
            progress=advance,
        )
    for warning in result.warnings:
        errors.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    for note in result.notes:
        errors.print(f"note: {note}", markup=False, soft_wrap=True)
    _print_evaluation(result)
    console.print(f"Scores: {out}" + (f"\nFrames: {frames}" if frames else ""), soft_wrap=True)


def _print_evaluation(result: Any) -> None:
    from rich.table import Table

    table = Table(*result.headline)
    table.add_row(*(f"{100 * value:.1f}" for value in result.headline.values()))
    console.print(table)


@app.command()
def segment(
    source: Annotated[
        Path, typer.Argument(metavar="VIDEO_OR_FRAMES", help="A video file or a folder of frames.")
    ],
    mask: Annotated[Path, typer.Option(help="PNG with the object ids of the first frame.")],
    method: Annotated[str, typer.Option(help="See `list methods`.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks; nothing else is written there.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="A checkpoint for the method."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="tiny or paper. Default: the method's own."),
    ] = None,
    settings: SetOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="For methods that draw at random.")] = 0,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Also write a video with the masks over the frames."),
    ] = None,
) -> None:
    """Segment a video of your own, given the mask of its first frame."""
    from bench.segment import build_segmenter, open_with_mask, write_overlay, write_segmentation

    video, given = open_with_mask(source, mask)
    segmenter = build_segmenter(method, preset, settings or [], device, seed, weights)
    with _progress() as progress:
        bar = progress.add_task("segmenting", total=len(video))
        write_segmentation(segmenter, video, given, out, lambda: progress.advance(bar))
        if overlay is not None:
            progress.reset(bar, description="drawing", total=len(video))
            write_overlay(video, out, overlay, lambda: progress.advance(bar))
    console.print(f"Masks: {out}" + (f"\nOverlay: {overlay}" if overlay else ""), soft_wrap=True)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, data or engines.")],
) -> None:
    """List what is registered, from the tree and from installed packages."""
    from bench.listing import TABLES

    if what not in TABLES:
        raise ConfigError(
            f"list {what}", "no such list", f"one of {', '.join(TABLES)}", "Correct it."
        )
    table, failures = TABLES[what]()
    console.print(table)
    for failure in failures:
        errors.print(f"not loaded: {failure.name}: {failure.reason}", style="yellow", markup=False)


@data_app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="A dataset; see `list data`.")],
    root: RootOption = None,
) -> None:
    """Read a dataset once and say what is there, what is missing or broken, and how to get it."""
    from bench.dataset import find_root
    from bench.listing import describe_contents
    from bench.registry import get_dataset

    dataset, split = get_dataset(name)
    folder = find_root(dataset, root)
    broken = False
    for part in [split] if split else dataset.splits:
        try:
            opened = dataset(folder, part)
        except BenchError as error:
            console.print(
                f"{part}: not there ({error.where}: {error.found})", markup=False, soft_wrap=True
            )
            broken = broken or split is not None
            continue
        with console.status(f"reading {name} {part}"):
            problems = opened.verify()
        console.print(f"{part}: {describe_contents(opened)}", markup=False, soft_wrap=True)
        for problem in problems:
            style = "red" if problem.severity == "error" else "yellow"
            console.print(f"  {problem}", style=style, markup=False, soft_wrap=True)
        broken = broken or any(problem.severity == "error" for problem in problems)
    if folder is not None:
        console.print(f"Folder: {folder}", soft_wrap=True)
    if broken:
        console.print(f"How to get it: {dataset.how_to_get}", soft_wrap=True)
        sys.exit(2)


@app.command()
def check(
    method: Annotated[str, typer.Argument(help="A method; see `list methods`.")],
    preset: Annotated[
        str | None,
        typer.Option(help="tiny or paper. Default: the method's own."),
    ] = None,
    settings: SetOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    weights: Annotated[
        Path | None,
        typer.Option(help="A checkpoint for the method."),
    ] = None,
) -> None:
    """Test whether a method keeps the contract; for authors of plugins."""
    from bench.conformance import CHECKS
    from bench.segment import build_segmenter

    segmenter = build_segmenter(method, preset, settings or [], device, 0, weights)
    failed = 0
    for test in CHECKS:
        with errors.status(test.title):
            complaint = test.complaint(segmenter)
        failed += complaint is not None
        console.print(
            f"[green]pass[/] {test.title}" if complaint is None else f"[red]FAIL[/] {test.title}"
        )
        if complaint is not None:
            console.print(f"     {complaint}", markup=False, soft_wrap=True)
    console.print(f"{len(CHECKS) - failed} passed, {failed} failed")
    if failed:
        sys.exit(1)


@app.command()
def doctor() -> None:
    """Say what is installed, what was found, and what will not work and why."""
    from bench.doctor import examine

    broken = False
    for section, findings in examine():
        console.print(f"\n[bold]{section}[/]")
        for finding in findings:
            mark = (
                "[green]ok[/] "
                if finding.ok
                else ("[red]NO[/] " if finding.needed else "[yellow]--[/] ")
            )
            console.print(mark, end=" ")
            console.print(finding.text, markup=False, highlight=False, soft_wrap=True)
            broken = broken or (finding.needed and not finding.ok)
    if broken:
        sys.exit(1)
