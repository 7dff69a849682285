"""A measured gap as a part of a page: its answers, figures, tables and files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.gap.command import RECORD
from reports.drawing import Drawing
from reports.gap_answers import Answer, answers
from reports.gap_curves import (
    cka_figure,
    distance_curve_figure,
    embedding_figures,
    score_curve_figures,
)
from reports.gap_figures import (
    a_distance_figure,
    closed_figure,
    discrepancy_figure,
    drop_figures,
    statistics_figure,
)
from reports.gap_results import GapResults
from reports.gap_tables import (
    distance_table,
    drop_table,
    equalised_table,
    factor_table,
    missing_table,
    summary_table,
)
from reports.gap_waterfall import waterfall_figure
from reports.page_tables import Table

TITLE = "How far images are from video"

MOST_FIGURE_BYTES = 3_000_000
"""Figures of gaps that a page holds itself; pages of more show the files beside them."""

GROUPS = (
    ("lost", "What is lost from images to video", ("drop", "gap-closed"), (drop_table,)),
    (
        "apart",
        "How far apart the features are",
        ("a-distance", "discrepancy", "embedding"),
        (distance_table,),
    ),
    (
        "explained",
        "Which differences explain it",
        ("statistics", "equalisation"),
        (equalised_table,),
    ),
    ("severities", "What single factors do", ("curves", "distance-curves", "cka"), (factor_table,)),
)
"""Anchor and title of each group; what the names of its figures begin with; its tables."""

CONTENTS = {
    "drop": "mean J by head, training and test set, with the drop",
    "scores": "J of every sample",
    "distances": "all distances and class structure by tap",
    "curves": "J and distances under every factor and severity",
    "cka": "similarity of clean and changed features",
    "equalisation": "J on video as factors are made equal",
    "equalised_statistics": "statistics of every factor before and after it is made equal",
    "embedding": "points of the plots",
    "embedding_figures": "purity and silhouette under them",
    "gap_closed": "by adapted network",
    "samples": "sharpness, light, noise and framing of every sample",
    "statistics": "these compared between the sets",
    "missing": "what was not measured, and why",
}


@dataclass(frozen=True)
class GapFigure:
    """A figure in a page.

    Attributes:
        drawing: with a name that no other figure of the page has.
        path: of its files beside the page, without suffix.
        inline: whether the page holds it; otherwise it shows the file.
    """

    drawing: Drawing
    path: str
    inline: bool


@dataclass(frozen=True)
class GapGroup:
    """Figures and tables that answer one question."""

    anchor: str
    title: str
    figures: Sequence[GapFigure]
    tables: Sequence[Table]


@dataclass(frozen=True)
class GapPart:
    """All that the templates print of a gap.

    Attributes:
        anchor: of the part; anchors within it begin with it.
        name: of its folder.
        title: of the part.
        sets: what was compared.
        lede: what was measured.
        notes: reservations.
        answers: what it comes to.
        summary: a row per network.
        groups: figures and tables.
        missing: what was not measured.
        command: to repeat it.
        facts: provenance.
        record: ``gap.json``.
        files: path beside the page, name and content of each table and of the record.
    """

    anchor: str
    name: str
    title: str
    sets: str
    lede: str
    notes: Sequence[str]
    answers: Sequence[Answer]
    summary: Table
    groups: Sequence[GapGroup]
    missing: Table
    command: str
    facts: Sequence[tuple[str, str]]
    record: str
    files: Sequence[tuple[str, str, str]]


def draw_all(results: GapResults) -> list[Drawing]:
    """All figures of a gap."""
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


@dataclass(frozen=True)
class MeasuredGap:
    """A gap, drawn: its part of a page, and the files beside that page, by relative path."""

    part: GapPart
    files: Mapping[str, bytes]


def measured_gaps(folders: Sequence[Path]) -> list[MeasuredGap]:
    """Read and draw measured gaps for one report; their files go into ``gap/NAME/``.

    Raises:
        StoreError: a folder that ``python -m bench gap`` did not write.
    """
    read = [GapResults(folder) for folder in folders]
    names = _names(folders)
    drawn = [draw_all(results) for results in read]
    inline = sum(len(one.svg) for drawings in drawn for one in drawings) <= MOST_FIGURE_BYTES
    found = []
    for results, name, drawings in zip(read, names, drawn, strict=True):
        several = len(folders) > 1
        part = make_part(
            results,
            drawings,
            f"video-gap-{name}" if several else "video-gap",
            name,
            f"gap/{name}/",
            inline,
        )
        if several:
            part = replace(part, title=f"{TITLE}: {name}")
        files = dict(_figure_files(drawings, f"gap/{name}/"))
        files |= {f"gap/{name}/{path.name}": path.read_bytes() for path in results.files}
        found.append(MeasuredGap(part, files))
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of folders for paths and anchors, each one once."""
    names: list[str] = []
    for folder in folders:
        plain = re.sub(r"[^\w.-]+", "-", folder.resolve().name, flags=re.ASCII).strip(".-") or "gap"
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


def _figure_files(drawings: Sequence[Drawing], place: str) -> Iterator[tuple[str, bytes]]:
    for one in drawings:
        path = f"{place}figures/{one.name}"
        yield f"{path}.svg", one.svg.encode("utf-8")
        yield f"{path}.png", one.png
        yield f"{path}.pdf", one.pdf


def figure_files(drawings: Sequence[Drawing]) -> dict[str, bytes]:
    """SVG, PNG and PDF of every figure, by path below the folder of the gap itself."""
    return dict(_figure_files(drawings, ""))


def make_part(
    results: GapResults,
    drawings: Sequence[Drawing],
    anchor: str = "video-gap",
    name: str = "",
    place: str = "",
    inline: bool = True,
) -> GapPart:
    """Collect what a page prints.

    Args:
        results: the measured gap.
        drawings: its figures.
        anchor: of the part.
        name: of the gap, where a page has several.
        place: folder of its files beside the page, ending in a slash; empty for the page's own.
        inline: whether the page holds the figures itself.
    """
    images, videos = results.counts
    record = results.record
    figures = [
        GapFigure(replace(one, name=f"{anchor}-{one.name}"), f"{place}figures/{one.name}", inline)
        for one in drawings
    ]
    by_name = dict(zip((one.name for one in drawings), figures, strict=True))
    groups = []
    for key, title, beginnings, tables in GROUPS:
        shown = [figure for one, figure in by_name.items() if one.startswith(beginnings)]
        filled = [table for make in tables if (table := make(results)).rows]
        if shown or filled:
            groups.append(GapGroup(f"{anchor}-{key}", title, shown, filled))
    files = [(f"{place}{one}.csv", f"{one}.csv", CONTENTS[one]) for one in results.present]
    files.append((f"{place}{RECORD}", RECORD, "command, versions, samples and networks"))
    networks = len(results.networks)
    return GapPart(
        anchor=anchor,
        name=name,
        title=TITLE,
        sets=results.title,
        lede=(
            f"{networks} network{'s' if networks != 1 else ''}, {images} images of "
            f"{results.datasets[0]}, one frame of each of {videos} videos of "
            f"{results.datasets[1]}, shrunk to a short side of "
            f"{record['request']['short_side']} pixels. Nothing was trained on them but "
            "classifiers and probes, cross-validated and thrown away."
        ),
        notes=[*record["remarks"], *_size_notes(images, videos)],
        answers=answers(results),
        summary=summary_table(results),
        groups=groups,
        missing=missing_table(results),
        command=shlex.join(record["command"]),
        facts=_facts(record),
        record=json.dumps(record, indent=1),
        files=files,
    )


def _size_notes(images: int, videos: int) -> list[str]:
    if min(images, videos) >= 100:
        return []
    return [
        f"{images} images and {videos} videos are few: read the intervals, not the values. "
        "--limit takes more where a dataset has them."
    ]


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
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
    return facts
