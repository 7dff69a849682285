"""The gap between images and video: from the tables of a folder to figures and one page.

::

    reports.gap.build(folder)
    reports.gap.print_table(folder, rich.console.Console())
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.gap.command import RECORD, TABLES
from reports.drawing import Drawing
from reports.files import write_bytes, write_text
from reports.gap_curves import (
    cka_figure,
    distance_curve_figure,
    embedding_figures,
    factor_summary,
    score_curve_figures,
    waterfall_figure,
)
from reports.gap_drawing import number, percent
from reports.gap_figures import (
    a_distance_figure,
    closed_figure,
    discrepancy_figure,
    drop_figures,
    factor_title,
    statistics_figure,
)
from reports.gap_results import GapResults, Network

if TYPE_CHECKING:
    from rich.console import Console

TEMPLATES = Path(__file__).parent / "templates"

MEASURES = {
    "a_distance": "proxy A-distance, frames, linear",
    "a_distance_perceptron": "proxy A-distance, frames, two-layer perceptron",
    "a_distance_by_class": "proxy A-distance within classes, mean",
    "a_distance_background": "– within background",
    "a_distance_foreground": "– within foreground",
    "squared_mmd": "squared MMD",
    "frechet_ratio": "Frechet ratio",
    "domain_purity": "domain purity of frames",
    "class_centre_distance": "class centre distance, video",
    "class_silhouette": "class silhouette, video",
}

CONTENTS = {
    "drop": "mean J by head, training and test set, with the drop",
    "scores": "J of every sample",
    "distances": "all distances and class structure by tap",
    "curves": "J and distances under every factor and severity",
    "cka": "similarity of clean and changed features",
    "equalisation": "J on video as factors are made equal",
    "embedding": "points of the plots",
    "embedding_figures": "purity and silhouette under them",
    "gap_closed": "by adapted network",
    "samples": "sharpness, light, noise and framing of every sample",
    "statistics": "these compared between the sets",
    "missing": "what was not measured, and why",
}


TERMINAL_COLUMNS = 5
"""Columns of the summary that the terminal shows."""


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    remark: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    anchor: str


@dataclass(frozen=True)
class GapPage:
    """All that the template prints."""

    title: str
    lede: str
    notes: Sequence[str]
    summary: Table
    figures: Sequence[Drawing]
    tables: Sequence[Table]
    missing: Sequence[tuple[str, str, str]]
    command: str
    facts: Sequence[tuple[str, str]]
    record: str
    files: Sequence[tuple[str, str]]


def build(folder: Path) -> Path:
    """Draw what ``python -m bench gap`` measured, into its folder.

    Returns:
        The HTML page; figures are in ``figures/``, as SVG, PNG and PDF.

    Raises:
        StoreError: not such a folder.
    """
    results = GapResults(folder)
    drawings = draw_all(results)
    for drawing in drawings:
        path = folder / "figures" / drawing.name
        write_text(path.with_name(f"{drawing.name}.svg"), drawing.svg)
        write_bytes(path.with_name(f"{drawing.name}.png"), drawing.png)
        write_bytes(path.with_name(f"{drawing.name}.pdf"), drawing.pdf)
    return write_text(folder / "index.html", render(results, drawings))


def draw_all(results: GapResults) -> list[Drawing]:
    """All figures, in the order of the page."""
    drawings = [*drop_figures(results), closed_figure(results)]
    drawings += [a_distance_figure(results), discrepancy_figure(results)]
    drawings += [statistics_figure(results)]
    if len(results.tables["curves"]):
        drawings += score_curve_figures(results)
        drawings += [distance_curve_figure(results, one) for one in results.networks]
        drawings += [cka_figure(results, one) for one in results.networks]
    drawings += [waterfall_figure(results, one) for one in results.networks]
    drawings += embedding_figures(results)
    return [one for one in drawings if one is not None]


def print_table(folder: Path, console: Console) -> None:
    """Print one line per network."""
    from rich.table import Table as Terminal

    summary = _summary(GapResults(folder))
    table = Terminal()
    # As many as fit into 80 columns; the page has the rest.
    for head in summary.heads[:TERMINAL_COLUMNS]:
        table.add_column(head, no_wrap=True)
    for row in summary.rows:
        table.add_row(*row[:TERMINAL_COLUMNS])
    console.print(table)


def render(results: GapResults, figures: Sequence[Drawing]) -> str:
    """The page as HTML text; nothing in it refers to another host."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    template = environment.get_template("gap.html.jinja")
    return template.render(page=make_page(results, figures), style=style)


def make_page(results: GapResults, figures: Sequence[Drawing]) -> GapPage:
    """Collect what the page prints."""
    images, videos = results.counts
    record = results.record
    missing = results.tables["missing"]
    return GapPage(
        title=f"Domain gap between {results.title}",
        lede=(
            f"{len(results.networks)} network{'s' if len(results.networks) != 1 else ''}, "
            f"{images} images, one frame of each of {videos} videos, shrunk to a short side of "
            f"{record['request']['short_side']} pixels. Nothing was trained on them but "
            "classifiers and probes, cross-validated and thrown away."
        ),
        notes=[*record["remarks"], *_size_notes(images, videos)],
        summary=_summary(results),
        figures=figures,
        tables=[_drop_table(results), _factor_table(results), _distance_table(results)],
        missing=[(row["what"], row["method"], row["reason"]) for _, row in missing.iterrows()],
        command=shlex.join(record["command"]),
        facts=_facts(record),
        record=json.dumps(record, indent=1),
        files=[(f"{name}.csv", CONTENTS[name]) for name in TABLES if len(results.tables[name])],
    )


def _size_notes(images: int, videos: int) -> list[str]:
    if min(images, videos) >= 100:
        return []
    return [
        f"{images} images and {videos} videos are few: read the intervals, not the values. "
        "--limit takes more where a dataset has them."
    ]


def _interval(row: pd.Series, name: str, form: Any) -> str:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    return f"{form(value)} ({form(low)} to {form(high)})"


def _summary(results: GapResults) -> Table:
    heads = [
        "Network", "tap", "J images → video", "A-distance", "within classes", "MMD p",
        "Frechet ratio", "domain purity",
    ]  # fmt: skip
    rows = []
    for network in results.networks:
        at = {
            measure: results.of("distances", network, measure=measure, tap=network.main_tap)
            for measure in MEASURES
        }
        values = {measure: rows_["value"].mean() for measure, rows_ in at.items()}
        rows.append(
            [
                network.title,
                network.main_tap,
                _drop_text(results, network),
                number(values["a_distance"]),
                number(values["a_distance_by_class"]),
                number(at["squared_mmd"]["p_value"].mean(), 3),
                number(values["frechet_ratio"], 1),
                number(values["domain_purity"]),
            ]
        )
    remark = (
        "J in percent, of the network's own foreground, or of a linear probe (p) on its features "
        "trained on images. A-distance: 0 mixed, 2 apart. Frechet ratio: 1 no gap. Purity: 0.5 "
        "mixed, 1 apart."
    )
    return Table("Summary", remark, heads, rows, "summary")


def _drop_text(results: GapResults, network: Network) -> str:
    rows = results.of("drop", network, head="own foreground")
    mark = ""
    if rows.empty:
        rows = results.of("drop", network, head="linear probe", trained_on="images")
        mark = " p"
    values = rows[["J_images", "J_videos"]].mean()
    return f"{percent(values['J_images'])} → {percent(values['J_videos'])}{mark}"


def _drop_table(results: GapResults) -> Table:
    rows = [
        [
            f"{row['method']} {row['weights']}".strip(),
            str(row["seed"]),
            row["head"],
            row["trained_on"],
            _interval(row, "J_images", percent),
            _interval(row, "J_videos", percent),
            _interval(row, "drop", percent),
        ]
        for _, row in results.tables["drop"].iterrows()
    ]
    remark = "J in percent with 95 % intervals over samples; the drop is their difference."
    relative = results.record["relative_to_oracle"]
    for method, value in relative.items():
        remark += (
            f" Of its oracle's J on video, {method} trained on images loses {percent(value)} %, "
            "which does not depend on how hard the two test sets are."
        )
    heads = ["Network", "seed", "head", "trained on", "J images", "J video", "drop"]
    return Table("Performance drop", remark, heads, rows, "drop")


def _factor_table(results: GapResults) -> Table:
    summary = factor_summary(results) if len(results.tables["curves"]) else pd.DataFrame()
    rows = [
        [
            row["method"],
            row["head"],
            row["domain"],
            "all" if row["factor"] == "all" else factor_title(row["factor"]),
            percent(row["clean"]),
            percent(row["mPC"]),
            percent(row["rPC"]),
        ]
        for _, row in summary.iterrows()
    ]
    remark = (
        "Mean J over severities 1 to 5 (mPC), absolute and in percent of the clean J (rPC), "
        "after Michaelis et al., Benchmarking Robustness in Object Detection, 2019."
    )
    heads = ["Network", "head", "set", "factor", "clean", "mPC", "rPC"]
    return Table("Scores under factors", remark, heads, rows, "factors")


def _distance_table(results: GapResults) -> Table:
    rows = []
    for _, row in results.tables["distances"].iterrows():
        interval = ""
        if pd.notna(row["low"]):
            interval = f"{number(row['low'])} to {number(row['high'])}"
        rows.append(
            [
                f"{row['method']} {row['weights']}".strip(),
                str(row["seed"]),
                row["tap"],
                MEASURES.get(row["measure"], row["measure"]),
                number(row["value"], 3),
                interval,
                number(row["p_value"], 3) if pd.notna(row["p_value"]) else "",
                row["note"],
            ]
        )
    remark = "Intervals are 95 %; a dash is a value that the samples do not define."
    heads = ["Network", "seed", "tap", "measure", "value", "interval", "p", "note"]
    return Table("Distances and class structure", remark, heads, rows, "distances")


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [("Measured", record["started"]), ("Seconds", f"{record['seconds']:g}")]
    for domain, data in record["datasets"].items():
        print_ = data["fingerprint"]
        text = f"{data['dataset']}, {len(data['samples'])} of {data['available']}"
        if isinstance(print_, str):
            text += f", fingerprint {print_}"
        facts.append((domain.capitalize(), text))
    for network in record["networks"]:
        origin = network["file"] or "the method's own weights"
        facts.append((f"{network['title']}, seed {network['seed']}", origin))
    commit = record["git"]["commit"] or "unknown"
    modified = ", with changes" if record["git"]["modified"] else ""
    facts.append(("Commit", commit + modified))
    facts.append(("Versions", ", ".join(f"{k} {v}" for k, v in record["versions"].items())))
    facts.append(("Record", RECORD))
    return facts
