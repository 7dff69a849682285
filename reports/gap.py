"""The gap between images and video: from the tables of a folder to figures and one page.

::

    reports.gap.build(folder)
    reports.gap.build_report([folder, another], out)
    reports.gap.print_table(folder, rich.console.Console())
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.drawing import Drawing
from reports.files import MARK, listed_files, remove_files, write_bytes, write_text
from reports.gap_part import (
    TITLE,
    GapPart,
    draw_all,
    figure_files,
    make_part,
    measured_gaps,
)
from reports.gap_results import GapResults
from reports.gap_tables import summary_table

if TYPE_CHECKING:
    from rich.console import Console

TEMPLATES = Path(__file__).parent / "templates"

SCRIPTS = ("dom", "tables")
"""Parts of the page's script, in order; together they are one module."""

TERMINAL_COLUMNS = 5
"""Columns of the summary that the terminal shows."""


@dataclass(frozen=True)
class GapPage:
    """All that the template of a page of gaps alone prints."""

    title: str
    gaps: Sequence[GapPart]


def build(folder: Path) -> Path:
    """Draw what ``python -m bench gap`` measured, into its folder.

    Returns:
        The HTML page; figures are in ``figures/``, as SVG, PNG and PDF.

    Raises:
        StoreError: not such a folder.
    """
    results = GapResults(folder)
    drawings = draw_all(results)
    for path, data in figure_files(drawings).items():
        write_bytes(folder / path, data)
    return write_text(folder / "index.html", render(results, drawings))


def build_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the report of measured gaps alone; :func:`reports.build` also takes runs.

    Args:
        folders: of ``python -m bench gap``.
        out: folder, made where it is missing. Files of an earlier report are replaced, and what
            only that one had is removed; other files stay.

    Returns:
        The HTML page.

    Raises:
        StoreError: a folder of another kind; nothing has been written then.
    """
    gaps = measured_gaps(folders)
    title = f"Domain gap between {gaps[0].part.sets}" if len(gaps) == 1 else TITLE
    # The mark lets the next report know which files are its own.
    text = _render(GapPage(title, [gap.part for gap in gaps]), f"{MARK} = {{ clips: {{}} }};")
    for gap in gaps:
        for path, data in gap.files.items():
            write_bytes(out / path, data)
    earlier = listed_files(out)
    page = write_text(out / "index.html", text)
    remove_files(earlier - listed_files(out), out)
    return page


def check(folders: Sequence[Path]) -> None:
    """Raise :class:`bench.errors.StoreError` for a folder that is no whole measured gap."""
    for folder in folders:
        GapResults(folder)


def print_table(folder: Path, console: Console) -> None:
    """Print one line per network."""
    from rich.table import Table as Terminal

    results = GapResults(folder)
    summary = summary_table(results)
    table = Terminal()
    # As many as fit into 80 columns; the page has the rest, and what is no network.
    for head in summary.heads[:TERMINAL_COLUMNS]:
        table.add_column(head.text, no_wrap=True)
    for row in summary.rows[: len(results.networks)]:
        table.add_row(*(cell.text for cell in row.cells[:TERMINAL_COLUMNS]))
    console.print(table)


def render(results: GapResults, figures: Sequence[Drawing]) -> str:
    """The page of one gap as HTML text; nothing in it refers to another host."""
    page = GapPage(f"Domain gap between {results.title}", [make_part(results, figures)])
    return _render(page)


def _render(page: GapPage, mark: str = "") -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    style = "\n".join(_template(f"{name}.css") for name in ("report", "player"))
    script = "\n".join([*(_template(f"{name}.js") for name in SCRIPTS), mark])
    template = environment.get_template("gap.html.jinja")
    return template.render(page=page, style=style, script=script)


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
