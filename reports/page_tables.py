"""The page's tables: results, what they cost, differences, scores per sequence."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reports.comparisons import MAIN, SCOPE, TESTED, against, interval, probability, signed
from reports.drawing import slug
from reports.lines import (
    MISSING,
    Line,
    alarms,
    bold_caption,
    has_seen,
    hours,
    lines_of,
    megabytes,
    one_origin,
    remarks,
    seconds,
    several_origins,
)
from reports.looks import Style, styles
from reports.regimes import changed_costs, label_counts
from reports.results import DatasetInfo, Results


@dataclass(frozen=True)
class Head:
    """A column's title."""

    text: str
    number: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell; ``label_counts`` lets readers change what its hours are made of.

    ``look`` is that of the method named in it.
    """

    text: str
    value: float | None = None
    classes: str = "number"
    best: bool = False
    mark: str = ""
    head: bool = False
    look: Style | None = None
    span: int = 1
    label_counts: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table, the label regime it is filtered by, and the group it stands in."""

    cells: list[Cell]
    regime: str = ""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table about one dataset, with what stands below it."""

    anchor: str
    title: str
    caption: str
    heads: Sequence[Head]
    rows: Sequence[Row]
    remarks: Sequence[str] = ()
    alarms: Sequence[str] = ()

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """Neighbours of one group under its name; ``""`` has no heading."""
        groups = itertools.groupby(self.rows, key=lambda row: row.group)
        return [(group, list(rows)) for group, rows in groups]


SOURCE_HINT = "who trained the weights, and who measured"


def result_table(results: Results, dataset: DatasetInfo) -> Table:
    """Scores and what they took, one row per method."""
    lines = lines_of(results, dataset)
    # What the suite is about comes first, so that a phone shows it without scrolling: the score,
    # then the labels it took.
    main, rest = ["J&F", "J", "F"], ["J_recall", "J_decay", "F_recall", "F_decay"]
    if has_seen(lines):
        main, rest = ["G", *main], ["J_seen", "J_unseen", "F_seen", "F_unseen"]
    heads = [Head("Method", number=False), *_score_heads(main)]
    heads.append(Head("Annotation", hint="estimated hours of human annotation"))
    heads.append(Head("Trained on", number=False))
    heads.append(Head("Source", number=False, hint=SOURCE_HINT))
    heads += _score_heads(rest)
    heads += [Head("s / frame", hint="seconds per frame"), Head("peak MB"), Head("params")]
    looks = styles(results)
    rows = [_result_row(line, main, rest, looks[line.info.label]) for line in lines]
    caption = _caption(results, dataset, lines)
    below = [*remarks(lines), *changed_costs(results.label_seconds)]
    return Table(slug(dataset), dataset.label, caption, heads, rows, below, alarms(lines))


def _caption(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> str:
    count = plural(len(dataset.sequences), "sequence")
    if not dataset.scored:
        if not any(line.done for line in lines):
            return f"{count}; nothing has finished."
        return f"{count}; without public ground truth there is nothing to score."
    rule = f", scored by the rule “{dataset.rule}”" if dataset.rule else ""
    return f"{count}{rule}, means over objects. {bold_caption(results, dataset)}"


def plural(count: int, noun: str) -> str:
    """``"1 job"``, ``"1,200 jobs"``."""
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


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
    return Cell(text, sortable(number.mean), classes, number.best, mark)


def _result_row(line: Line, main: Sequence[str], rest: Sequence[str], look: Style) -> Row:
    cells = [Cell(line.info.label, head=True, look=look)]
    if line.remark:
        cells.append(Cell(line.remark, classes="empty", span=len(main)))
    else:
        cells += [_score_cell(line, name, place == 0) for place, name in enumerate(main)]
    cells.append(_hours_cell(line))
    cells.append(Cell(line.info.summary, classes="text"))
    cells.append(Cell(line.origin, classes="text origin"))
    cells += [_score_cell(line, name) for name in rest]
    for name, form in (("seconds_per_frame", seconds), ("peak_memory_mb", megabytes)):
        cells.append(_number(line.numbers[name].mean, form))
    cells.append(_number(line.numbers["parameters"].mean, count_text))
    return Row(cells, line.info.regime_kind, line.info.group)


def cost_table(results: Results, dataset: DatasetInfo) -> Table:
    """What each row consumed: data and labels, then compute."""
    heads = [
        Head("Method", number=False),
        Head("J&F"),
        Head("Label regime", number=False),
        Head("Images"),
        Head("Image labels", number=False),
        Head("Video hours"),
        Head("Video masks"),
        Head("Pretraining", number=False, hint="what the weights started from; not counted"),
        Head("Annotation", hint="estimated hours of human annotation"),
        Head("Training steps", hint="optimiser steps up to these weights; batches differ in size"),
        Head("Training time", hint="up to these weights, without what they started from"),
        Head("Params"),
        Head("FLOPs", hint="of the last frame"),
        Head("FPS", hint="frames per second; of the processor's time on a CPU"),
        Head("peak MB"),
    ]
    looks = styles(results)
    lines = lines_of(results, dataset)
    rows = [_cost_row(line, looks[line.info.label]) for line in lines]
    if several_origins(lines):
        heads.append(Head("Source", number=False, hint=SOURCE_HINT))
        for row, line in zip(rows, lines, strict=True):
            row.cells.append(Cell(line.origin, classes="text origin"))
    caption = (
        "Images, video and labels are those of training; pretraining is listed, not counted. "
        "Steps and time of training are known for weights that were trained here."
    )
    below = [*one_origin(lines), *changed_costs(results.label_seconds)]
    return Table(slug(dataset), dataset.label, caption, heads, rows, below)


def _cost_row(line: Line, look: Style) -> Row:
    regime = line.info.regime
    cells = [Cell(line.info.label, head=True, look=look)]
    cells.append(Cell(MISSING) if line.remark else _score_cell(line, "J&F", main=True))
    cells.append(Cell(line.info.regime_kind, classes="text"))
    if regime is None:
        texts = (False, True, False, False, True)
        blank = [Cell(MISSING, classes="text" if text else "number") for text in texts]
        cells += blank
    else:
        cells.append(_number(regime.images, count_text))
        cells.append(Cell(regime.image_labels if regime.images else MISSING, classes="text"))
        cells.append(_number(regime.video_hours, lambda value: f"{value:,.3g}" if value else "0"))
        cells.append(_number(regime.video_masks, count_text))
        cells.append(Cell(", ".join(regime.pretraining) or "none", classes="text"))
    cells.append(_hours_cell(line))
    cells.append(_number(line.numbers["training_steps"].mean, whole))
    cells.append(_number(line.numbers["training_seconds"].mean, duration))
    cells.append(_number(line.numbers["parameters"].mean, count_text))
    cells.append(_number(line.numbers["flops"].mean, count_text))
    cells.append(_number(line.numbers["fps"].mean, rate))
    cells.append(_number(line.numbers["peak_memory_mb"].mean, megabytes))
    return Row(cells, line.info.regime_kind, line.info.group)


def difference_table(results: Results, dataset: DatasetInfo, baseline: str | None) -> Table | None:
    """Differences of all complete methods from one; None with fewer than two."""
    comparison = results.comparisons[dataset.key]
    label, main = against(results, comparison, baseline)
    if not main:
        return None
    found = {score: against(results, comparison, baseline, score)[1] for score in TESTED}
    seeds = [comparison.over_seeds(each) for each in main]
    repeated = any(math.isfinite(low) for low, _ in seeds)
    heads = [Head("Method", number=False)]
    for score in TESTED:
        heads += [Head(f"{score} minus"), Head("95 % interval"), Head("p (Holm)")]
        if score == MAIN and repeated:
            heads.append(Head("95 %, over seeds", hint="other trainings, on these sequences"))
    heads += [Head("Sequences won", hint="by mean J&F"), Head("lost", hint="by mean J&F")]
    looks = styles(results)
    kinds = {info.label: info.regime_kind for info in results.methods.values()}
    rows = []
    for place, each in enumerate(main):
        cells = [Cell(each.first, head=True, look=looks[each.first])]
        for score in TESTED:
            one = found[score][place]
            cells.append(Cell(signed(one.difference), one.difference, best=one.significant))
            cells.append(Cell(interval(one.low, one.high) or MISSING, sortable(one.low)))
            p_value = probability(one.adjusted, one.at_floor)
            cells.append(Cell(p_value, sortable(one.adjusted)))
            if score == MAIN and repeated:
                low, high = seeds[place]
                cells.append(Cell(interval(low, high) or MISSING, sortable(low)))
        cells += [Cell(str(each.won), each.won), Cell(str(each.lost), each.lost)]
        rows.append(Row(cells, kinds[each.first], results.group_of[each.first]))
    floor = _floor((cell for row in rows for cell in row.cells), main[0].resamples)
    family = "these comparisons" if label == baseline else "all pairs of methods"
    caption = (
        f"Each method minus {label}, in points, on the same objects. Intervals: bootstrap over "
        f"sequences, {SCOPE}. P-values: corrected after Holm over {family}. Bold: significant at "
        f"5 %.{floor}"
    )
    if repeated:
        caption += (
            " Over seeds: Welch's interval for other trainings on these sequences, where both "
            "methods have two seeds at least; each by itself."
        )
    left_out = []
    if comparison.partial:
        names = ", ".join(comparison.partial)
        left_out.append(f"Not compared, because sequences are missing: {names}.")
    return Table(slug(dataset), dataset.label, caption, heads, rows, left_out)


def _floor(cells: Iterable[Cell], resamples: int) -> str:
    """What ≤ means, where some p-value is printed with it."""
    if not any(cell.text.startswith("≤") for cell in cells):
        return ""
    return f" ≤: the least that {resamples:,} resamples can show."


def _hours_cell(line: Line) -> Cell:
    value = line.info.annotation_hours
    counts = json.dumps(label_counts(line.info.regime)) if line.info.regime else ""
    return Cell(hours(value), sortable(value), label_counts=counts)


def _number(value: float, form: Callable[[float], str]) -> Cell:
    return Cell(form(value) if math.isfinite(value) else MISSING, sortable(value))


def sortable(value: float) -> float | None:
    """The value for the page's script; None where there is none."""
    return value if math.isfinite(value) else None


def count_text(count: float) -> str:
    """Three significant digits at most: ``"0"``, ``"950"``, ``"1.3 M"``, ``"2.0 T"``."""
    for unit, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= unit:
            value = count / unit
            return f"{value:.0f}{name}" if value >= 100 else f"{value:.1f}{name}"
    return f"{count:g}"


def whole(count: float) -> str:
    """``"1,200"``."""
    return f"{count:,.0f}"


def rate(value: float) -> str:
    """Frames per second with three significant digits at most."""
    return count_text(value) if value >= 1000 else f"{value:.3g}"


def training(steps: float, seconds: float) -> str:
    """``"1,200 steps, 12 min"``, as far as it is known; ``"none"`` without any."""
    if steps == 0 or seconds == 0:
        return "none"
    parts = [plural(round(steps), "step")] if math.isfinite(steps) else []
    parts += [duration(seconds)] if math.isfinite(seconds) else []
    return ", ".join(parts) or MISSING


def duration(value: float) -> str:
    """Seconds as ``"0"``, ``"45 s"``, ``"12 min"`` or ``"2.0 h"``."""
    if value == 0:
        return "0"
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"
