"""The page's heat map: the score of every sequence and method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reports.drawing import slug
from reports.lines import MISSING, lines_of, some
from reports.results import DONE, DatasetInfo, Results, sequence_table


@dataclass(frozen=True)
class HeatCell:
    """A sequence's score; ``value`` is None where there is none, for ``reason``."""

    text: str
    value: float | None = None
    depth: str = "0"
    reason: str = ""


@dataclass(frozen=True)
class HeatRow:
    """A sequence's scores by method."""

    name: str
    cells: Sequence[HeatCell]


@dataclass(frozen=True)
class Heat:
    """Scores of every sequence and method on one dataset; ``holes`` says why cells are empty."""

    anchor: str
    title: str
    columns: Sequence[str]
    rows: Sequence[HeatRow]
    foot: Sequence[str]
    foot_sequences: Sequence[str]
    over_seeds: str
    holes: Sequence[str]


def heat(results: Results, dataset: DatasetInfo) -> Heat:
    """Scores of every sequence and method, coloured by height."""
    table = dataset.rows(sequence_table(results))
    rows = []
    columns = []
    for key, info in results.methods.items():
        mine = table[(table["method"] == key[0]) & (table["variant"] == key[1])]
        if len(mine):
            columns.append((info, mine))
    for name in dataset.sequences:
        cells = []
        for _, mine in columns:
            # A method skipped as a whole is one row without a sequence.
            found = mine[mine["sequence"].isin([name, ""])]
            cells.append(_heat_cell(found))
        rows.append(HeatRow(name, cells))
    lines = {line.info.label: line for line in lines_of(results, dataset)}
    seeds = dataset.rows(results.jobs)["seed"].nunique()
    means = [mine.groupby("sequence")["J&F"].mean().mean() for _, mine in columns]
    return Heat(
        slug(dataset),
        dataset.label,
        [info.label for info, _ in columns],
        rows,
        [lines[info.label].score() for info, _ in columns],
        [MISSING if math.isnan(mean) else f"{mean:.1f}" for mean in means],
        " and over seeds" if seeds > 1 else "",
        _holes([info.label for info, _ in columns], rows),
    )


def _holes(columns: Sequence[str], rows: Sequence[HeatRow]) -> list[str]:
    """A sentence per method and reason for which cells have no score."""
    sequences: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for label, cell in zip(columns, row.cells, strict=True):
            if cell.value is None:
                sequences.setdefault((label, cell.text, cell.reason), []).append(row.name)
    return [
        f"{label}, {text} ({some(names)})" + (f": {reason}" if reason else "")
        for (label, text, reason), names in sequences.items()
    ]


def _heat_cell(jobs: pd.DataFrame) -> HeatCell:
    mean = jobs["J&F"].mean() if len(jobs) else math.nan
    missing = jobs[jobs["status"] != DONE]
    if not math.isnan(mean):
        # An asterisk says that a seed is missing from the mean.
        text = f"{mean:.1f}" + ("*" if len(missing) else "")
        return HeatCell(text, mean, f"{max(mean, 0) / 100:.2f}")
    if len(missing):
        return HeatCell(str(missing["status"].iloc[0]), reason=str(missing["reason"].iloc[0]))
    if len(jobs):
        return HeatCell("no score", reason="finished, but nothing in it could be scored")
    return HeatCell("not run", reason="not planned in any of the runs")
