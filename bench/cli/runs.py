"""Commands that segment and score: run, evaluate, segment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.progress import frames_bar, run_with_bar, training_bar
from bench.cli.shared import RootOption, SetOption, console, errors, names
from bench.errors import ConfigError

if TYPE_CHECKING:
    from bench.plan import Plan


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
        typer.Option(help="semi-supervised (default), unsupervised or semantic."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="YAML that says which classes of methods and data mean the same, for --protocol "
            "semantic. Default: those with the same name."
        ),
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
        "classes": classes,
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
            training_bar,
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
        console.print(f"skipped: {skip}", markup=False)
    console.print(f"{len(plan.jobs)} jobs. Nothing was run.")


def _execute(request: Any, assignments: dict[str, Any], path: Path) -> None:
    from bench.registry import load_reports
    from bench.store import load_run

    result = run_with_bar(request, assignments, path)
    load_reports().print_table([load_run(path)], console)
    console.print(f"\nRun: {path}", soft_wrap=True)
    console.print(f"Page and figures: python -m bench report {path}", soft_wrap=True)
    if result.failures:
        errors.print(f"{len(result.failures)} of {len(result.plan.jobs)} jobs failed.", style="red")
        sys.exit(1)
    if not result.plan.jobs:
        errors.print("Nothing could be run; see the reasons above.", style="red")
        sys.exit(1)


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
        typer.Option(
            help="Scoring rule: semi-supervised, unsupervised, unsupervised-foreground, "
            "youtube-vos or youtube-vos-without-last. Default: the dataset's own."
        ),
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
    with frames_bar(auto_refresh=False) as progress:
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
    with frames_bar() as progress:
        bar = progress.add_task("segmenting", total=len(video))
        write_segmentation(segmenter, video, given, out, lambda: progress.advance(bar))
        if overlay is not None:
            progress.reset(bar, description="drawing", total=len(video))
            write_overlay(video, out, overlay, lambda: progress.advance(bar))
    console.print(f"Masks: {out}" + (f"\nOverlay: {overlay}" if overlay else ""), soft_wrap=True)
