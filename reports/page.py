"""The HTML page: one file that reads offline, in light and dark, on a screen and on a phone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.closed import Gap, gap_table
from reports.drawing import Drawing
from reports.galleries import Gallery, galleries
from reports.gap_part import GapPart
from reports.heat import Heat, heat
from reports.lines import MISSING, hours, lines_of
from reports.looks import Style, styles
from reports.page_tables import (
    Table,
    cost_table,
    difference_table,
    plural,
    result_table,
    training,
)
from reports.provenance import Provenance, provenance
from reports.published import PublishedTable, published_tables
from reports.regimes import (
    LabelCost,
    RegimeGroup,
    changed_costs,
    label_costs,
    label_counts,
    regime_groups,
)
from reports.results import DONE, ENTRY, PROTOCOL, DatasetInfo, MethodInfo, Results
from reports.semantic import semantic_tables

ANNOTATION = "Annotation (est.)"
"""The one fact of a card that readers can change, through the costs of labels."""

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Card:
    """A method and the labels it consumed."""

    label: str
    look: Style
    description: str
    facts: Sequence[tuple[str, str]]
    note: str
    label_counts: str
    alarms: Sequence[str] = ()


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
class Page:
    """All that the template prints."""

    title: str
    lede: str
    notes: Sequence[str]
    tables: Sequence[Table]
    differences: Sequence[Table]
    closed: Sequence[Table]
    classes: Sequence[Table]
    costs: Sequence[Table]
    regimes: Sequence[RegimeGroup]
    published: Sequence[PublishedTable]
    cards: Sequence[Card]
    label_costs: Sequence[LabelCost]
    changed_costs: Sequence[str]
    looks: Mapping[str, Style]
    figures: Sequence[Drawing]
    heats: Sequence[Heat]
    galleries: Sequence[Gallery]
    compared: Mapping[str, tuple[str, str]]
    settings_verdict: str
    setting_names: Sequence[str]
    settings: Sequence[SettingsRow]
    unfinished: Sequence[UnfinishedRow]
    unfinished_summary: str
    provenance: Provenance
    measured: Sequence[GapPart] = ()
    annotation: str = ANNOTATION

    @property
    def worst(self) -> bool:
        """Whether there are worst cases to show."""
        return any(gallery.failures for gallery in self.galleries)


SCRIPTS = ("dom", "tables", "labelcosts", "masks", "curve", "player")
"""Parts of the page's script, in order; together they are one module."""


def render(
    results: Results,
    figures: Sequence[Drawing],
    baseline: str | None = None,
    gaps: Sequence[Gap] = (),
    title: str | None = None,
    measured: Sequence[GapPart] = (),
) -> tuple[str, dict[str, str]]:
    """The page as HTML text, with measured gaps as sections; nothing refers to another host.

    Returns:
        The page, and files it needs beside it, text by relative path: none unless the player's
        clips are too large to be part of the page.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    style = "\n".join(_template(f"{name}.css") for name in ("report", "player"))
    script = "\n".join(_template(f"{name}.js") for name in SCRIPTS)
    template = environment.get_template("report.html.jinja")
    page, files = make_page(results, figures, baseline, gaps, title, measured)
    return template.render(page=page, style=style, script=script), files


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def make_page(
    results: Results,
    figures: Sequence[Drawing],
    baseline: str | None = None,
    gaps: Sequence[Gap] = (),
    title: str | None = None,
    measured: Sequence[GapPart] = (),
) -> tuple[Page, dict[str, str]]:
    """Collect what the page prints, and the files beside it."""
    names = _setting_names(results.methods.values())
    verdict = _settings_verdict(results, names)
    datasets = list(results.datasets.values())
    scored = [dataset for dataset in datasets if dataset.scored]
    shown, files = galleries(results)
    differences = [difference_table(results, dataset, baseline) for dataset in scored]
    page = Page(
        title=title or _title(results),
        lede=_lede(results),
        notes=results.notes,
        tables=[result_table(results, dataset) for dataset in datasets],
        differences=[table for table in differences if table is not None],
        closed=[gap_table(results, each) for each in gaps],
        classes=semantic_tables(results),
        costs=[cost_table(results, dataset) for dataset in datasets],
        regimes=regime_groups(list(results.methods.values())),
        published=published_tables(results.datasets),
        cards=_cards(results),
        label_costs=label_costs(results.label_seconds),
        changed_costs=changed_costs(results.label_seconds),
        looks=styles(results),
        figures=figures,
        heats=[heat(results, dataset) for dataset in scored],
        galleries=shown,
        compared={gallery.anchor: _compared(results, gallery.dataset) for gallery in shown},
        settings_verdict=verdict,
        setting_names=[name.replace("_", " ") for name in names],
        settings=[
            SettingsRow(info.label, [str(info.protocol.get(name, MISSING)) for name in names])
            for info in results.methods.values()
        ],
        unfinished=_unfinished(results),
        unfinished_summary=_unfinished_summary(results),
        provenance=provenance(results.runs),
        measured=measured,
    )
    return page, files


def _compared(results: Results, dataset: DatasetInfo) -> tuple[str, str]:
    """The two methods that a player shows first: the best ones, by name where there are none."""
    best = results.comparisons[dataset.key].complete if dataset.scored else ()
    labels = [*best, *(info.label for info in results.methods.values() if info.label not in best)]
    return labels[0], labels[min(1, len(labels) - 1)]


def _title(results: Results) -> str:
    titles = [dataset.label for dataset in results.datasets.values()]
    if len(titles) > 2:
        return f"Video object segmentation on {len(titles)} datasets"
    if not titles:
        return "Nothing was planned"
    return f"Video object segmentation on {' and '.join(titles)}"


def _lede(results: Results) -> str:
    done = results.jobs[results.jobs["status"] == DONE]
    parts = [
        plural(len(results.methods), "method"),
        plural(sum(len(d.sequences) for d in results.datasets.values()), "sequence"),
        _seeds(results),
        f"{plural(len(done), 'job')} finished",
    ]
    runs = "run " + results.runs[0].name
    if len(results.runs) > 1:
        runs = f"{len(results.runs)} runs combined"
    return ", ".join(parts) + f" ({runs}). Scores in percent."


def _seeds(results: Results) -> str:
    """How many seeds rows have: ``"3 seeds"``, ``"1 to 3 seeds a row"``."""
    lines = [line for d in results.datasets.values() for line in lines_of(results, d)]
    counts = [line.seeds_counted for line in lines] or [1]
    if min(counts) == max(counts):
        return plural(max(counts), "seed")
    return f"{min(counts)} to {max(counts)} seeds a row"


def _cards(results: Results) -> list[Card]:
    looks = styles(results)
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
                (ANNOTATION, hours(info.annotation_hours)),
                ("Pretraining", ", ".join(regime.pretraining) or "none"),
                ("Training", _training(results, info)),
            ]
            if info.paper:
                facts.append(("Paper", info.paper))
        note = regime.note if regime else ""
        counts = json.dumps(label_counts(regime)) if regime else ""
        cards.append(
            Card(info.label, looks[info.label], info.description, facts, note, counts, info.alarms)
        )
    return cards


def _training(results: Results, info: MethodInfo) -> str:
    """How long its weights were trained, a mean over seeds."""
    table = results.table
    rows = table[(table["method"] == info.method) & (table["variant"] == info.variant)]
    # Datasets share weights, but a row without a finished job does not know them.
    of_seeds = rows.groupby("seed")[["training_steps", "training_seconds"]].max().mean()
    return training(of_seeds["training_steps"], of_seeds["training_seconds"])


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
        key = (str(dataset[0]), str(dataset[1]), str(dataset[2]))
        info = results.datasets[key]
        names = sorted(set(group["sequence"]) - {""})
        rows.append(
            UnfinishedRow(
                str(status),
                results.methods[str(method), str(variant)].label,
                info.label,
                ", ".join(names) or f"all {len(info.sequences)}",
                str(reason)
                or ("it has not been run yet" if status == "pending" else "no reason given"),
            )
        )
    return sorted(rows, key=lambda row: (row.status, row.method, row.dataset, row.sequences))


def _unfinished_summary(results: Results) -> str:
    counts = results.unfinished["status"].value_counts()
    parts = []
    for status in ("failed", "pending"):
        if counts.get(status):
            words = "not run" if status == "pending" else status
            parts.append(f"{plural(int(counts[status]), 'job')} {words}")
    skipped = results.unfinished[results.unfinished["status"] == "skipped"]
    if len(skipped):
        labels = {(row.method, row.variant) for row in skipped.itertuples()}
        parts.append(f"{plural(len(labels), 'method')} skipped on some data")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""
