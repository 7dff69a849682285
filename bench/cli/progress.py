"""Bars for long work; lines in their place where nobody watches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.shared import errors

if TYPE_CHECKING:
    from bench.engine.base import Outcome
    from bench.plan import Plan
    from bench.run import RunResult


def frames_bar(*, auto_refresh: bool = True) -> Any:
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
        disable=not errors.is_terminal,
    )


def run_with_bar(request: Any, assignments: dict[str, Any], path: Path) -> RunResult:
    """Execute a run with a bar over its frames; see :func:`bench.run.execute`."""
    from bench.run import execute

    with frames_bar() as progress:
        bar = progress.add_task("planning", total=None)

        def on_start(plan: Plan, reused: int) -> None:
            frames = sum(job.frames for job in plan.jobs)
            progress.update(bar, description="segmenting", total=frames)
            if reused:
                progress.console.print(f"{reused} of {len(plan.jobs)} jobs were finished before.")
                done = sum(j.frames for j in plan.jobs if (path / "jobs" / j.id).is_dir())
                progress.update(bar, completed=done)
            for skip in plan.skips:
                progress.console.print(f"skipped: {skip}", markup=False)

        def on_outcome(outcome: Outcome) -> None:
            job = outcome.job.job
            progress.advance(bar, job.frames)
            if outcome.error is not None:
                progress.console.print(f"failed: {job}: {outcome.error}", style="red", markup=False)
            elif not progress.console.is_terminal:  # a log file gets lines instead of a bar
                progress.console.print(f"done: {job}", markup=False, highlight=False)

        return execute(request, assignments, path, on_start, on_outcome)


@contextlib.contextmanager
def training_bar(method: str) -> Iterator[Any]:
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
        disable=not errors.is_terminal,
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


@contextlib.contextmanager
def steps_bar() -> Iterator[Any]:
    """A bar over the steps of a measurement; a line for each kind where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    ) as progress:
        bar = progress.add_task("samples", total=None)
        said = [""]

        def watch(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total)
            if not progress.console.is_terminal and what != said[0]:
                said[0] = what
                progress.console.print(f"{done} of {total}: {what}", markup=False, highlight=False)

        yield watch
