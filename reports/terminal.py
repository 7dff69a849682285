"""The table that commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reports.lines import (
    MISSING,
    Line,
    below,
    count,
    has_seen,
    in_groups,
    lines_of,
    megabytes,
    seconds,
    some,
)
from reports.results import ENTRY, Results

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from bench.store import Run


def print_table(
    runs: Sequence[Run],
    console: Console,
    rows: Mapping[str, Mapping[str, str]],
    label_seconds: Mapping[str, float],
) -> None:
    """Print the terminal table; see :func:`reports.print_table`."""
    # rich is not needed to write files.
    from rich import box
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from reports import semantic
    from reports.combine import collect

    results = collect(runs, rows, label_seconds)
    for dataset in results.datasets.values():
        lines = lines_of(results, dataset)
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            title=f"{escape(dataset.label)} ({count(dataset)}), percent",
            title_justify="left",
            title_style="bold",
        )
        table.add_column("Method")
        table.add_column("Trained on", style="dim")
        names = ["G", "J&F", "J", "F"] if has_seen(lines) else ["J&F", "J", "F"]
        for name in (*names, "s/frame", "peak MB"):
            table.add_column(name, justify="right", no_wrap=True)
        for group, members in in_groups(lines):
            if group:
                table.add_section()
                table.add_row(Text(group, style="italic"))
            for line in members:
                table.add_row(*_cells(line, names))
        console.print(table)
        sentences = below(results, dataset, lines)
        if not dataset.scored:
            sentences += [f"{line.info.label}: {line.remark}." for line in lines if line.done]
        for sentence in semantic.sentences(results, dataset):
            console.print(Text(sentence))
        for remark in sentences:
            console.print(Text(remark, style="dim"))
        console.print()
    for note in results.notes:
        console.print(Text(note, style="dim"))
    _print_unfinished(results, console)


def _cells(line: Line, names: Sequence[str]) -> list[Text]:
    """A line's cells: method, labels, the scores of these names, time, memory."""
    from rich.text import Text

    cells = [Text(line.info.label), Text(line.info.summary)]
    if line.remark:
        # The reason in full stands below the tables.
        cells.append(Text(line.outcome, style="yellow"))
        cells += [Text(MISSING) for _ in names[1:]]
    else:
        for name in names:
            number = line.numbers[name]
            cells.append(Text(number.text(), style="bold" if number.best else ""))
        if line.mark:
            cells[2].append(f" {line.mark}", style="yellow")
    cells.append(Text(seconds(line.numbers["seconds_per_frame"].mean)))
    cells.append(Text(megabytes(line.numbers["peak_memory_mb"].mean)))
    return cells


def _print_unfinished(results: Results, console: Console) -> None:
    """Say once per reason which jobs have no result."""
    from rich.text import Text

    reasons = results.unfinished.groupby([*ENTRY, "status", "reason"], sort=True)
    for (method, variant, *dataset, status, reason), group in reasons:
        jobs = len(group)
        head = f"{jobs} job{'s' if jobs != 1 else ''} {status}: "
        label = results.methods[str(method), str(variant)].label
        key = (str(dataset[0]), str(dataset[1]), str(dataset[2]))
        where = results.datasets[key].label
        text = Text(head, style="red" if status == "failed" else "yellow")
        text.append(f"{label} on {where}", style="default")
        names = some(sorted(set(group["sequence"]) - {""}))
        text.append(f" ({names})" if names else "", style="default")
        text.append(f": {reason}" if reason else "", style="dim")
        console.print(text)
