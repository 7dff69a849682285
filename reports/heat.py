"""The page's heat map: the score of every method and sequence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reports.drawing import slug
from reports.lines import MISSING, Line, lines_of, some
from reports.looks import Style, styles
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
    """A method's scores: over objects with its mark, over sequences, and by sequence."""

    line: Line
    look: Style
    over_objects: str
    over_sequences: HeatCell
    cells: Sequence[HeatCell]


@dataclass(frozen=True)
class Heat:
    """Scores of every method and sequence on one dataset; ``holes`` says why cells are empty."""

    anchor: str
    title: str
    sequences: Sequence[str]
    rows: Sequence[HeatRow]
    over_seeds: str
    holes: Sequence[str]

    @property
    def groups(self) -> list[tuple[str, list[HeatRow]]]:
        """Neighbours of one group under its name; ``""`` has no heading."""
        groups = itertools.groupby(self.rows, key=lambda row: row.line.info.group)
        return [(group, list(rows)) for group, rows in groups]


def heat(results: Results, dataset: DatasetInfo) -> Heat:
    """Scores coloured by height: methods as in the table, sequences from hard to easy."""
    table = dataset.rows(sequence_table(results))
    means = table.groupby("sequence")["J&F"].mean()
    # Sequences without any score come last.
    order = sorted(dataset.sequences, key=lambda name: (_or(means.get(name), math.inf), name))
    looks = styles(results)
    rows = []
    for line in lines_of(results, dataset):
        info = line.info
        mine = table[(table["method"] == info.method) & (table["variant"] == info.variant)]
        # A method skipped as a whole is one row without a sequence.
        cells = [_heat_cell(mine[mine["sequence"].isin([name, ""])]) for name in order]
        mean = mine.groupby("sequence")["J&F"].mean().mean()
        over = HeatCell(MISSING) if math.isnan(mean) else HeatCell(f"{mean:.1f}", float(mean))
        rows.append(HeatRow(line, looks[info.label], line.score(), over, cells))
    seeds = dataset.rows(results.jobs)["seed"].nunique()
    over_seeds = " and over seeds" if seeds > 1 else ""
    return Heat(slug(dataset), dataset.label, order, rows, over_seeds, _holes(order, rows))


def _or(value: float | None, other: float) -> float:
    return other if value is None or math.isnan(value) else value


def _holes(sequences: Sequence[str], rows: Sequence[HeatRow]) -> list[str]:
    """A sentence per method and reason for which cells have no score."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for sequence, cell in zip(sequences, row.cells, strict=True):
            if cell.value is None:
                names.setdefault((row.line.info.label, cell.text, cell.reason), []).append(sequence)
    return [
        f"{label}, {text} ({some(sorted(found))})" + (f": {reason}" if reason else "")
        for (label, text, reason), found in names.items()
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
