"""The HTML page: one file that reads offline, in light and dark, on a screen and on a phone."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.method import SECONDS_PER_LABEL
from reports.figures import Drawing, slug, styles
from reports.overlays import Gallery, galleries
from reports.published import Published, published
from reports.results import (
    DONE,
    ENTRY,
    PROTOCOL,
    DatasetInfo,
    MethodInfo,
    Results,
    sequence_table,
)
from reports.tables import (
    MISSING,
    Line,
    has_seen,
    hours,
    lines_of,
    megabytes,
    remarks,
    seconds,
)

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Head:
    """A column's title."""

    text: str
    number: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of the results table."""

    text: str
    value: float | None = None
    classes: str = "number"
    best: bool = False
    mark: str = ""
    head: bool = False
    colour: str = ""
    span: int = 1


@dataclass(frozen=True)
class ResultTable:
    """The results on one dataset."""

    anchor: str
    title: str
    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    remarks: Sequence[str]


@dataclass(frozen=True)
class PublishedTable:
    """What papers published on one dataset."""

    anchor: str
    title: str
    rows: Sequence[Published]
    sources: Sequence[str]


@dataclass(frozen=True)
class Card:
    """A method and the labels it consumed."""

    label: str
    colour: str
    description: str
    facts: Sequence[tuple[str, str]]
    note: str


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
    """Scores of every sequence and method on one dataset."""

    anchor: str
    title: str
    columns: Sequence[str]
    rows: Sequence[HeatRow]
    foot: Sequence[str]
    foot_sequences: Sequence[str]
    over_seeds: str


@dataclass(frozen=True)
class SettingsRow:
    """A method's inference settings."""

    label: str
    texts: Sequence[str]


@dataclass(frozen=True)
class UnfinishedRow:
    """Jobs without a result that share a reason."""

    status: str
    method: str
    dataset: str
    sequences: str
    reason: str


@dataclass(frozen=True)
class RunFacts:
    """Where a run came from."""

    name: str
    command: str
    facts: Sequence[tuple[str, str]]
    config: str


@dataclass(frozen=True)
class Page:
    """All that the template prints."""

    title: str
    lede: str
    notes: Sequence[str]
    tables: Sequence[ResultTable]
    published: Sequence[PublishedTable]
    cards: Sequence[Card]
    label_costs: str
    figures: Sequence[Drawing]
    heats: Sequence[Heat]
    galleries: Sequence[Gallery]
    settings_verdict: str
    setting_names: Sequence[str]
    settings: Sequence[SettingsRow]
    unfinished: Sequence[UnfinishedRow]
    unfinished_summary: str
    runs: Sequence[RunFacts]


def render(results: Results, figures: Sequence[Drawing]) -> str:
    """The page as HTML text; nothing in it refers to another host."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    template = environment.get_template("report.html.jinja")
    return template.render(page=make_page(results, figures), style=style, script=script)


def make_page(results: Results, figures: Sequence[Drawing]) -> Page:
    """Collect what the page prints."""
    names = _setting_names(results.methods.values())
    verdict = _settings_verdict(results, names)
    return Page(
        title=_title(results),
        lede=_lede(results),
        notes=results.notes,
        tables=[_result_table(results, dataset) for dataset in results.datasets.values()],
        published=_published_tables(results),
        cards=_cards(results),
        label_costs=", ".join(
            f"{cost:g} s per {'object mask' if kind == 'mask' else f'image ({kind})'}"
            for kind, cost in SECONDS_PER_LABEL.items()
            if cost
        ),
        figures=figures,
        heats=[_heat(results, dataset) for dataset in results.datasets.values() if dataset.scored],
        galleries=galleries(results),
        settings_verdict=verdict,
        setting_names=[name.replace("_", " ") for name in names],
        settings=[
            SettingsRow(info.label, [str(info.protocol.get(name, MISSING)) for name in names])
            for info in results.methods.values()
        ],
        unfinished=_unfinished(results),
        unfinished_summary=_unfinished_summary(results),
        runs=[_run_facts(run.name, run.provenance) for run in results.runs],
    )


def _published_tables(results: Results) -> list[PublishedTable]:
    tables = []
    for dataset in results.datasets.values():
        rows = published(*dataset.key)
        if rows:
            sources = sorted({row.source for row in rows})
            tables.append(PublishedTable(slug(dataset), dataset.label, rows, sources))
    return tables


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def _title(results: Results) -> str:
    titles = [dataset.label for dataset in results.datasets.values()]
    if len(titles) > 2:
        return f"Video object segmentation on {len(titles)} datasets"
    if not titles:
        return "Nothing was planned"
    return f"Video object segmentation on {' and '.join(titles)}"


def _lede(results: Results) -> str:
    done = results.jobs[results.jobs["status"] == DONE]
    seeds = results.jobs.loc[results.jobs["sequence"] != "", "seed"].nunique()
    parts = [
        _plural(len(results.methods), "method"),
        _plural(sum(len(d.sequences) for d in results.datasets.values()), "sequence"),
        _plural(max(seeds, 1), "seed"),
        f"{_plural(len(done), 'job')} finished",
    ]
    runs = "run " + results.runs[0].name
    if len(results.runs) > 1:
        runs = f"{len(results.runs)} runs combined"
    return ", ".join(parts) + f" ({runs}). Scores in percent."


def _result_table(results: Results, dataset: DatasetInfo) -> ResultTable:
    lines = lines_of(results, dataset)
    # What the suite is about comes first, so that a phone shows it without scrolling: the score,
    # then the labels it took.
    main, rest = ["J&F", "J", "F"], ["J_recall", "J_decay", "F_recall", "F_decay"]
    if has_seen(lines):
        main, rest = ["G", *main], ["J_seen", "J_unseen", "F_seen", "F_unseen"]
    heads = [Head("Method", number=False), *_score_heads(main)]
    heads.append(Head("Annotation", hint="estimated hours of human annotation"))
    heads.append(Head("Trained on", number=False))
    heads += _score_heads(rest)
    heads += [Head("s / frame", hint="seconds per frame"), Head("peak MB"), Head("params")]
    colours = styles(results)
    rows = [_result_row(line, main, rest, colours[line.info.label].colour) for line in lines]
    count = _plural(len(dataset.sequences), "sequence")
    caption = f"{count}, means over objects. Bold: best complete figure of its column."
    if dataset.rule:
        caption = f"{count}, scored by the rule “{dataset.rule}”, means over objects. "
        caption += "Bold: best complete figure of its column."
    if not dataset.scored:
        caption = f"{count}; without public ground truth there is nothing to score."
        if not any(line.done for line in lines):
            caption = f"{count}; nothing has finished."
    return ResultTable(slug(dataset), dataset.label, caption, heads, rows, remarks(lines))


_HINTS = {
    "J&F": "mean of J and F",
    "J": "region similarity, intersection over union",
    "F": "boundary accuracy",
    "J recall": "share of frames with J above 50",
    "F recall": "share of frames with F above 50",
    "J decay": "first quarter minus last quarter; lower is better",
    "F decay": "first quarter minus last quarter; lower is better",
    "G": "mean of J and F over seen and unseen categories",
}


def _score_heads(names: Sequence[str]) -> list[Head]:
    titles = [name.replace("_", " ") for name in names]
    return [Head(title, hint=_HINTS.get(title, "")) for title in titles]


def _score_cell(line: Line, name: str, main: bool = False) -> Cell:
    number = line.numbers[name]
    text = number.text().replace("-", "−")
    classes = "number main" if main else "number"
    mark = line.mark if main else ""
    return Cell(text, _sortable(number.mean), classes, number.best, mark)


def _result_row(line: Line, main: Sequence[str], rest: Sequence[str], colour: str) -> list[Cell]:
    annotation = line.info.annotation_hours
    cells = [Cell(line.info.label, head=True, colour=colour)]
    if line.remark:
        cells.append(Cell(line.remark, classes="empty", span=len(main)))
    else:
        cells += [_score_cell(line, name, place == 0) for place, name in enumerate(main)]
    cells.append(Cell(hours(annotation), _sortable(annotation)))
    cells.append(Cell(line.info.summary, classes="text"))
    cells += [_score_cell(line, name) for name in rest]
    for name, form in (("seconds_per_frame", seconds), ("peak_memory_mb", megabytes)):
        mean = line.numbers[name].mean
        cells.append(Cell(form(mean), _sortable(mean)))
    count = line.numbers["parameters"].mean
    cells.append(Cell(_millions(count), _sortable(count)))
    return cells


def _sortable(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _millions(count: float) -> str:
    if not math.isfinite(count):
        return MISSING
    if count == 0:
        return "0"
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def _cards(results: Results) -> list[Card]:
    colours = styles(results)
    cards = []
    for info in results.methods.values():
        regime = info.regime
        facts: list[tuple[str, str]] = []
        if regime is not None:
            images = MISSING
            if regime.images:
                images = f"{regime.images:,}, labels: {regime.image_labels}"
            videos = MISSING
            if regime.videos:
                length = f" ({regime.video_hours:g} h)" if regime.video_hours else ""
                videos = f"{regime.videos:,}{length}, labels: {regime.video_labels}"
            facts = [
                ("Still images", images),
                ("Videos", videos),
                ("Human-drawn masks", f"{regime.annotated_masks:,}"),
                ("Annotation (est.)", hours(regime.annotation_hours)),
                ("Pretraining", ", ".join(regime.pretraining) or "none"),
            ]
            if info.paper:
                facts.append(("Paper", info.paper))
        colour = colours[info.label].colour
        note = regime.note if regime else ""
        cards.append(Card(info.label, colour, info.description, facts, note))
    return cards


def _heat(results: Results, dataset: DatasetInfo) -> Heat:
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
    )


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


def _setting_names(infos: Any) -> list[str]:
    """The settings that at least one method has: the common ones first, then the rest."""
    infos = list(infos)
    rest = sorted({name for info in infos for name in info.protocol if name not in PROTOCOL})
    return [name for name in [*PROTOCOL, *rest] if any(name in i.protocol for i in infos)]


def _settings_verdict(results: Results, names: Sequence[str]) -> str:
    """Whether methods were compared under equal settings."""
    infos: list[MethodInfo] = [info for info in results.methods.values() if info.protocol]
    if len(infos) < 2:
        return ""
    different = [
        name.replace("_", " ")
        for name in names
        if len({str(info.protocol[name]) for info in infos if name in info.protocol}) > 1
    ]
    if different:
        return f"Here methods differ in: {', '.join(different)}."
    return "Here all methods that have a setting share its value."


def _unfinished(results: Results) -> list[UnfinishedRow]:
    rows = []
    groups = results.unfinished.groupby([*ENTRY, "status", "reason"], sort=True)
    for (method, variant, *dataset, status, reason), group in groups:
        info = results.datasets[dataset[0], dataset[1], dataset[2]]
        names = sorted(set(group["sequence"]) - {""})
        rows.append(
            UnfinishedRow(
                status,
                results.methods[method, variant].label,
                info.label,
                ", ".join(names) or f"all {len(info.sequences)}",
                reason or ("it has not been run yet" if status == "pending" else "no reason given"),
            )
        )
    return sorted(rows, key=lambda row: (row.status, row.method, row.dataset, row.sequences))


def _unfinished_summary(results: Results) -> str:
    counts = results.unfinished["status"].value_counts()
    parts = []
    for status in ("failed", "pending"):
        if counts.get(status):
            words = "not run" if status == "pending" else status
            parts.append(f"{_plural(int(counts[status]), 'job')} {words}")
    skipped = results.unfinished[results.unfinished["status"] == "skipped"]
    if len(skipped):
        labels = {(row.method, row.variant) for row in skipped.itertuples()}
        parts.append(f"{_plural(len(labels), 'method')} skipped on some data")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def _run_facts(name: str, provenance: Mapping[str, Any]) -> RunFacts:
    command = provenance.get("command") or []
    git = provenance.get("git") or {}
    commit = git.get("commit") or "unknown"
    if git.get("modified"):
        commit += ", with uncommitted changes"
    host = ", ".join(f"{key}: {value}" for key, value in (provenance.get("host") or {}).items())
    versions = provenance.get("versions") or {}
    facts = [
        ("Started", str(provenance.get("started") or "unknown")),
        ("Finished", str(provenance.get("finished") or "not finished")),
        ("Commit", commit),
        ("Host", host or "unknown"),
        ("Versions", ", ".join(f"{key} {value}" for key, value in versions.items())),
    ]
    for label, record in (provenance.get("datasets") or {}).items():
        count = len(record.get("sequences") or ())
        about = f"{_plural(count, 'sequence')}, {_plural(record.get('frames') or 0, 'frame')}"
        available = record.get("available")
        if available and available != count:
            about += f" (of {_plural(available, 'sequence')} in the split)"
        facts.append((f"Data: {label}", about))
    return RunFacts(
        name,
        command if isinstance(command, str) else shlex.join(command),
        facts,
        json.dumps(provenance.get("config") or {}, indent=2),
    )
