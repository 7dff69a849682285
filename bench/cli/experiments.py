"""Commands that train, and that run many rows: train, ablate, suite."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.pages import EXPERIMENT, experiment_record, suite_baseline, suite_gap
from bench.cli.progress import run_with_bar, training_bar
from bench.cli.shared import (
    DeviceOption,
    OutOption,
    RootOption,
    RowsDryRunOption,
    SeedsOption,
    SequencesOption,
    SetOption,
    WorkersOption,
    console,
    errors,
    names,
)
from bench.errors import ConfigError

if TYPE_CHECKING:
    from bench.experiment import Outcome


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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
        with training_bar(method) as watch:
            result = train_method(method, choice, watch)
        if result is not None:
            console.print(f"Weights: {result}", soft_wrap=True)
            console.print(f"Curve: {result.with_name('curve.csv')}", soft_wrap=True)


def ablate(
    file: Annotated[Path, typer.Argument(help="YAML, such as configs/ablations/shls/memory.yaml")],
    out: OutOption = None,
    root: RootOption = None,
    sequences: SequencesOption = None,
    seeds: SeedsOption = None,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    dry_run: RowsDryRunOption = False,
) -> None:
    """Run one method under every combination of some settings, trained where that needs it.

    Settings are the method's, its training's and the data's, its preset and the training's budget.

    The same command again continues; values added to the file are computed beside the others.
    With several --seeds, combinations that are trained are trained once for each.
    """
    from bench.ablate import check_data, load_ablation, rows_of

    config = load_ablation(file)
    check_data(config, file, root)
    rows = rows_of(config)
    places: dict[str, Any] = {"root": root, "sequences": names(sequences), "seeds": names(seeds)}
    places |= {"device": device, "workers": workers, "data": config.data}
    folder = out or Path("runs", file.stem)
    record: dict[str, Any] = {"title": config.title, "gap": None}
    with nullcontext() if dry_run else _recorded(folder, record):
        outcomes = _run_rows(config.title, rows, places, folder, dry_run)
        _tell_unfinished(record, outcomes)
    if any(outcome.reason for outcome in outcomes):
        sys.exit(1)


def suite(
    file: Annotated[Path, typer.Argument(help="YAML, such as configs/suites/label_regimes.yaml")],
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
    from bench.experiment import row_notes
    from bench.suite import classes_of, load_suite, rows_of

    config = load_suite(file)
    rows = rows_of(config, file)
    places: dict[str, Any] = {
        "root": root,
        "sequences": names(sequences),
        "seeds": names(seeds) or config.seeds,
    }
    places |= {"device": device, "workers": workers, "data": config.data}
    folder = out or Path("runs", file.stem)
    ends = (config.gap.source, config.gap.oracle) if config.gap else None
    outcomes: list[Outcome] = []
    named = config.comparison in config.title.lower()
    record: dict[str, Any] = {
        "title": config.title if named else f"{config.title} ({config.comparison})",
        "gap": ends,
        "baseline": config.baseline,
        "rows": row_notes(rows),
    }
    with nullcontext() if dry_run else _recorded(folder, record):
        for protocol in config.protocols[:1] if dry_run else config.protocols:
            title = f"{config.title} ({config.comparison}, {protocol})"
            places["protocol"] = protocol
            places["classes"] = classes_of(config, file) if protocol == "semantic" else None
            # Trainings serve all protocols and stay in the suite's folder.
            where = folder / protocol if len(config.protocols) > 1 else folder
            outcomes += _run_rows(title, rows, places, folder, dry_run, where)
            _tell_unfinished(record, outcomes)
    _write_report(outcomes, folder)
    if any(outcome.reason for outcome in outcomes):
        sys.exit(1)


@contextmanager
def _recorded(folder: Path, record: Mapping[str, Any]) -> Iterator[None]:
    """Leave what `report` needs to show the folder as the experiment itself does.

    It is written at the end, also where the experiment was stopped. Where nothing came of it,
    because of wrong input, nothing is left.
    """
    from bench.store import write_json

    try:
        yield
    finally:
        if folder.is_dir() and any(folder.iterdir()):
            write_json(folder / EXPERIMENT, record)
        elif folder.is_dir():
            folder.rmdir()


def _tell_unfinished(record: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Note why rows are missing, so that no table has a silent hole."""
    for outcome in outcomes:
        if outcome.reason:
            rows = record.setdefault("rows", {})
            rows.setdefault(outcome.row.label, {})["unfinished"] = outcome.reason


def _write_report(outcomes: list[Outcome], folder: Path) -> None:
    """The report of all rows that have runs, with the gap if both of its ends have."""
    from bench.registry import load_reports
    from bench.store import load_run

    runs = [load_run(path) for outcome in outcomes for path in outcome.runs]
    if not runs:
        return
    about = experiment_record(folder)
    ends = suite_gap(about, runs)
    baseline = suite_baseline(about, runs) or (ends[0] if ends else None)
    files = load_reports().build(
        runs, folder / "report", baseline, ends, about["title"], rows=about.get("rows") or {}
    )
    console.print(f"Report: {files.page}", soft_wrap=True)


def _run_rows(
    title: str,
    rows: list[Any],
    places: dict[str, Any],
    folder: Path,
    dry_run: bool,
    runs_folder: Path | None = None,
) -> list[Outcome]:
    """Run an experiment's rows and print their table; what became of them, nothing if dry."""
    from bench.config import load_run_config
    from bench.experiment import row_notes, run_rows
    from bench.registry import load_reports
    from bench.store import load_run

    if dry_run:
        for row in rows:
            console.print(f"{row.name}{'  (trained)' if row.training else ''}", markup=False)
        return []
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = run_rows(
        rows,
        load_run_config(None, places),
        folder,
        training_bar,
        run_with_bar,
        lambda line: errors.print(line, markup=False, highlight=False),
        runs_folder,
    )
    runs = [path for outcome in outcomes for path in outcome.runs]
    console.print(title, style="bold", markup=False)
    if runs:
        load_reports().print_table([load_run(path) for path in runs], console, row_notes(rows))
        where = shlex.quote(str(folder))
        console.print(f"\nPage and figures: python -m bench report {where}", soft_wrap=True)
    missing: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.reason:
            missing.setdefault(outcome.reason, []).append(outcome.row.name)
    # What all rows lack, such as their data, is said once.
    for reason, lacking in missing.items():
        rows_named = "All rows" if len(lacking) == len(rows) > 1 else ", ".join(lacking)
        errors.print(f"{rows_named}: not finished: {reason}", markup=False)
    return outcomes
