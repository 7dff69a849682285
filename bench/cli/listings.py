"""Commands that look around: list, check, data check, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.shared import RootOption, SetOption, console, errors
from bench.errors import BenchError, ConfigError


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
    failed = skipped = 0
    for test in CHECKS:
        if reason := test.skipped(segmenter):
            skipped += 1
            console.print(f"[yellow]skip[/] {test.title}: {reason}")
            continue
        with errors.status(test.title):
            complaint = test.complaint(segmenter)
        failed += complaint is not None
        console.print(
            f"[green]pass[/] {test.title}" if complaint is None else f"[red]FAIL[/] {test.title}"
        )
        if complaint is not None:
            console.print(f"     {complaint}", markup=False, soft_wrap=True)
    passed = len(CHECKS) - failed - skipped
    more = f", {skipped} skipped" if skipped else ""
    console.print(f"{passed} passed, {failed} failed{more}")
    if failed:
        sys.exit(1)


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
