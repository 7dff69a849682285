"""Runs -> tables, figures and one HTML page. Reads the store only.

::

    reports.build([load_run(path)], path / "report")
    reports.print_table([load_run(path)], rich.console.Console())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from bench.store import Run

__all__ = ["ReportFiles", "build", "print_table"]


@dataclass(frozen=True)
class ReportFiles:
    """What a report consists of.

    Attributes:
        folder: where it lies.
        page: the HTML page.
        table: ``table.csv``.
        parquet: ``table.parquet``, the same rows.
        per_sequence: ``per_sequence.csv``.
        per_object: ``per_object.csv``.
        markdown: ``table.md``.
        latex: ``table.tex``.
        differences: ``differences.csv``.
        gaps: ``gap_closed.csv``; None where no gap was asked for.
        classes: ``classes.csv``; None unless some protocol is semantic.
        figures: every SVG, PDF and PNG, sorted.
        assets: files that the page loads when a sequence is opened; none where all fits into it.
        notes: what a reader must know about how the runs were combined.
        measured: files of measured gaps between images and video.
    """

    folder: Path
    page: Path
    table: Path
    parquet: Path
    per_sequence: Path
    per_object: Path
    markdown: Path
    latex: Path
    differences: Path
    gaps: Path | None
    classes: Path | None
    figures: tuple[Path, ...]
    assets: tuple[Path, ...]
    notes: tuple[str, ...]
    measured: tuple[Path, ...] = ()


def build(
    runs: Sequence[Run],
    out: Path,
    baseline: str | None = None,
    gap: tuple[str, str] | None = None,
    title: str | None = None,
    gap_folders: Sequence[Path] = (),
    rows: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    label_seconds: Mapping[str, float] = MappingProxyType({}),
) -> ReportFiles:
    """Write the report of one or several runs; each file appears whole or not at all.

    Args:
        runs: finished or partly finished runs. Where two hold the same job, the newest finished
            one counts, and a note says so.
        out: folder, made where it is missing. Files of an earlier report are replaced, and what
            only that one had is removed; other files stay.
        baseline: method that differences are taken from, by name or label; otherwise the one with
            the best mean, on each dataset.
        gap: methods trained on labelled images alone and with the target's labels, by name or
            label, between which the other methods are placed.
        title: of the page; by default it names the datasets.
        gap_folders: of ``python -m bench gap``, sections of the page;
            :func:`reports.gap.build_report` writes a page of them alone.
        rows: what is told of a suite's rows, by name: the ``group`` under whose heading tables show
            a row, the ``description`` and ``paper`` on its card, and why it is ``unfinished``.
        label_seconds: annotation time of one label, by kind; others than these count as in
            :data:`bench.method.SECONDS_PER_LABEL`.

    Raises:
        ConfigError: the baseline or an end of the gap is no method of these runs.
        StoreError: a folder of ``gap_folders`` is none; nothing has been written then.
    """
    # Drawing needs seconds of imports that `print_table` should not cost.
    from reports import tables
    from reports.closed import find_gaps, gap_figure, gaps_csv
    from reports.combine import collect
    from reports.comparisons import baseline_label, differences_csv
    from reports.figures import draw_all
    from reports.files import listed_files, remove_files, write_bytes, write_text
    from reports.gap_part import measured_gaps
    from reports.page import render
    from reports.semantic import classes_csv

    measured = measured_gaps(gap_folders)
    results = collect(runs, rows, label_seconds)
    baseline = baseline_label(results, baseline)
    gaps, unclosed = find_gaps(results, *gap) if gap else ([], [])
    if unclosed:
        results = replace(results, notes=(*results.notes, *unclosed))
    drawings = draw_all(results, baseline)
    drawings += [figure for each in gaps if (figure := gap_figure(results, each)) is not None]
    figures = []
    for drawing in drawings:
        figures.append(write_text(out / "figures" / f"{drawing.name}.svg", drawing.svg))
        figures.append(write_bytes(out / "figures" / f"{drawing.name}.png", drawing.png))
        figures.append(write_bytes(out / "figures" / f"{drawing.name}.pdf", drawing.pdf))
    parts = [each.part for each in measured]
    page, files = render(results, drawings, baseline, gaps, title, parts)
    assets = [write_text(out / path, text) for path, text in files.items()]
    beside = [write_bytes(out / p, data) for each in measured for p, data in each.files.items()]
    earlier = listed_files(out)
    classes = classes_csv(results)
    written = ReportFiles(
        folder=out,
        table=write_text(out / "table.csv", tables.table_csv(results)),
        parquet=write_bytes(out / "table.parquet", tables.table_parquet(results)),
        per_sequence=write_text(out / "per_sequence.csv", tables.per_sequence_csv(results)),
        per_object=write_text(out / "per_object.csv", tables.per_object_csv(results)),
        markdown=write_text(out / "table.md", tables.table_markdown(results)),
        latex=write_text(out / "table.tex", tables.table_latex(results)),
        differences=write_text(out / "differences.csv", differences_csv(results, baseline)),
        gaps=write_text(out / "gap_closed.csv", gaps_csv(gaps)) if gaps else None,
        classes=write_text(out / "classes.csv", classes) if classes else None,
        # The page comes last: where it is, what it links to is too.
        page=write_text(out / "index.html", page),
        figures=tuple(sorted(figures)),
        assets=tuple(sorted(assets)),
        notes=results.notes,
        measured=tuple(sorted(beside)),
    )
    remove_files(earlier - listed_files(out), out)
    return written


def print_table(
    runs: Sequence[Run],
    console: Console,
    rows: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    label_seconds: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Print the terminal table: labels, J&F, J, F, time and memory of every method and dataset.

    ``rows`` and ``label_seconds`` are as :func:`build` takes them.
    """
    from reports import terminal

    terminal.print_table(runs, console, rows, label_seconds)
