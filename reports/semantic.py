"""Semantic protocol: mean IoU in both ways of averaging, IoU by class, and coverage.

J&F, which every other table of the page shows, are means over videos and classes; pooling pixels is
the other usual way, and can say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.semantic import BACKGROUND, ClassCounts, ClassMapping, SemanticScores, semantic_scores
from reports.drawing import slug
from reports.lines import Number, about_seeds, over_seeds, rows_of, seeds_agree
from reports.looks import styles
from reports.page_tables import Cell, Head, Row, Table, sortable
from reports.results import ROW, DatasetInfo, MethodInfo, Results

SEMANTIC = "semantic"
"""The protocol whose runs count classes."""

POOLED, AVERAGED = "mIoU, pixels pooled", "mIoU, videos averaged"

FULL = 1.0 - 1e-9
"""Coverage from which on nothing is left out."""


@dataclass(frozen=True)
class ClassLine:
    """One line of the table: a method on a dataset, over its seeds; all in percent.

    Attributes:
        info: the method.
        pooled: mean IoU over classes, all pixels in one pool.
        averaged: mean IoU, averaged over videos.
        classes: pooled IoU by class, background included.
        coverage: mean over videos of the share of object pixels with a shared class.
        sequences: scored ones, over all seeds.
        expected: as many as there should be.
        seeds: how many have class counts.
        identical: whether they agree, see :func:`reports.lines.seeds_agree`.
    """

    info: MethodInfo
    pooled: Number
    averaged: Number
    classes: Mapping[str, Number]
    coverage: Number
    sequences: int
    expected: int
    seeds: int
    identical: bool

    @property
    def mark(self) -> str:
        """``"(8/11)"`` where sequences are missing, else empty."""
        partial = self.sequences < self.expected
        return f"({self.sequences}/{self.expected})" if partial else ""


def scores_by_row(classes: pd.DataFrame) -> dict[tuple[Any, ...], SemanticScores]:
    """Scores in [0, 1] by :data:`reports.results.ROW`.

    Args:
        classes: pixels by class, as :attr:`reports.results.Results.classes` has them.
    """
    found: dict[tuple[Any, ...], SemanticScores] = {}
    if not len(classes):
        return found
    for key, rows in classes.groupby(ROW, sort=True):
        names: tuple[str, ...] = ()
        videos = {}
        for video, group in rows.groupby("sequence", sort=True):
            ordered = group.sort_values("object")
            names = tuple(ordered["class"])
            videos[str(video)] = ClassCounts(
                ordered["intersection"].to_numpy(np.int64),
                ordered["union"].to_numpy(np.int64),
                ordered["true"].to_numpy(np.int64),
                float(ordered["coverage"].iloc[0]),
            )
        found[key] = semantic_scores(names, videos)
    return found


def class_lines(results: Results, dataset: DatasetInfo) -> list[ClassLine]:
    """The lines of one dataset's table: group after group, in each best pooled mean IoU first.

    None without class counts.
    """
    groups: dict[tuple[str, str], list[SemanticScores]] = {}
    for key, scores in scores_by_row(dataset.rows(results.classes)).items():
        groups.setdefault((str(key[0]), str(key[1])), []).append(scores)
    lines = []
    for method, seeds in groups.items():
        names = dict.fromkeys(name for scores in seeds for name in scores.classes)
        rows = rows_of(results, dataset, results.methods[method])
        identical = seeds_agree(rows)

        def percent(values: Iterable[float], identical: bool = identical) -> Number:
            return over_seeds([100 * value for value in values], identical)

        lines.append(
            ClassLine(
                info=results.methods[method],
                pooled=percent(scores.pooled for scores in seeds),
                averaged=percent(scores.averaged for scores in seeds),
                classes={
                    name: percent(scores.classes.get(name, math.nan) for scores in seeds)
                    for name in names
                },
                coverage=percent(_mean(scores.coverage.values()) for scores in seeds),
                sequences=sum(len(scores.videos) for scores in seeds),
                expected=int(rows["sequences_expected"].sum()),
                seeds=len(seeds),
                identical=identical,
            )
        )
    return sorted(
        lines,
        key=lambda line: (results.groups.index(line.info.group), -_or_low(line.pooled.mean)),
    )


def _mean(values: Any) -> float:
    return float(pd.Series(list(values), dtype="float64").mean())


def _or_low(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _shown_classes(lines: Sequence[ClassLine]) -> list[str]:
    """All lines' classes in the order in which they first come, background last."""
    names = dict.fromkeys(name for line in lines for name in line.classes)
    return [*(name for name in names if name != BACKGROUND), BACKGROUND]


def semantic_table(results: Results, dataset: DatasetInfo) -> Table | None:
    """Mean IoU, IoU by class and coverage, one row per method; None without class counts."""
    lines = class_lines(results, dataset)
    if not lines:
        return None
    names = _shown_classes(lines)
    heads = [
        Head("Method", number=False),
        Head(POOLED, hint="mean over classes of IoU with the pixels of all videos in one pool"),
        Head(AVERAGED, hint="mean over videos of the mean IoU of the classes that a video shows"),
        *(Head(f"IoU {name}", hint=_hint(name)) for name in names),
        Head("Coverage", hint="share of object pixels whose category is shared, mean over videos"),
        Head("Sequences", hint="scored, over all seeds"),
    ]
    looks = styles(results)
    rows = []
    for line in lines:
        numbers = [line.classes.get(name, Number(math.nan)) for name in names]
        rows.append(
            Row(
                [
                    Cell(line.info.label, head=True, look=looks[line.info.label]),
                    _cell(line.pooled, line.mark, "number main"),
                    *map(_cell, [line.averaged, *numbers, line.coverage]),
                    Cell(f"{line.sequences}/{line.expected}", line.sequences),
                ],
                line.info.regime_kind,
                line.info.group,
            )
        )
    caption = (
        "Intersection over union in percent, void left out. Means are over the shared classes "
        "without background. No differences are tested here; those of J&F are."
    )
    return Table(slug(dataset), dataset.label, caption, heads, rows, remarks(results, dataset))


def _hint(name: str) -> str:
    return f"pooled over all videos; {name} counts in no mean" if name == BACKGROUND else ""


def _cell(number: Number, mark: str = "", classes: str = "number") -> Cell:
    return Cell(number.text(), sortable(number.mean), classes, mark=mark)


def remarks(results: Results, dataset: DatasetInfo) -> list[str]:
    """What a reader must know of the table: seeds, sequences left out, coverage, classes."""
    lines = class_lines(results, dataset)
    found = []
    if any(line.mark for line in lines):
        found.append("(n/m): only n of m sequences were scored.")
    counts = {line.info.label: 1 if line.identical else line.seeds for line in lines}
    found += about_seeds(counts, [line.info.label for line in lines if line.identical])
    if len({frozenset(line.classes) for line in lines}) > 1:
        found.append(
            "Methods share different classes with the data, so their means do not compare. "
            "One mapping for all, named with --classes, makes them."
        )
    left_out = _left_out(results, dataset)
    if left_out:
        found.append(
            f"No object of a shared class, so left out: {', '.join(left_out)} "
            f"({len(dataset.sequences)} sequences kept)."
        )
    rows = dataset.rows(results.classes)
    partly = rows[rows["coverage"] < FULL].drop_duplicates("sequence").sort_values("sequence")
    if len(partly):
        names = zip(partly["sequence"], partly["coverage"], strict=True)
        found.append(
            "Coverage below 100 %: "
            + ", ".join(f"{name} {100 * share:.0f}" for name, share in names)
            + "."
        )
    return found


def _left_out(results: Results, dataset: DatasetInfo) -> list[str]:
    """Sequences that no method was scored on because they share no class."""
    jobs = dataset.rows(results.jobs)
    skipped = set(jobs.loc[jobs["status"] == "skipped", "sequence"]) - {""}
    return sorted(skipped - set(dataset.sequences))


def semantic_tables(results: Results) -> list[Table]:
    """The tables of all datasets that have class counts."""
    found = [semantic_table(results, dataset) for dataset in results.datasets.values()]
    return [table for table in found if table is not None]


def sentences(results: Results, dataset: DatasetInfo) -> list[str]:
    """The table in words, for a terminal: a sentence per method."""
    found = []
    for line in class_lines(results, dataset):
        known = [(n, v) for n, v in line.classes.items() if n != BACKGROUND]
        each = ", ".join(f"{name} {number.text()}" for name, number in known)
        found.append(
            f"{line.info.label}: mean IoU {line.pooled.text()} with pixels pooled, "
            f"{line.averaged.text()} averaged over videos ({each}; "
            f"coverage {line.coverage.text()}). {line.mark}".strip()
        )
    return found


def classes_csv(results: Results) -> str | None:
    """One row per :data:`reports.results.ROW`, in percent, full precision; None without counts."""
    rows = []
    for key, scores in scores_by_row(results.classes).items():
        row: dict[str, Any] = dict(zip(ROW, key, strict=True))
        row["mIoU_pooled"] = 100 * scores.pooled
        row["mIoU_averaged"] = 100 * scores.averaged
        row["coverage"] = 100 * _mean(scores.coverage.values())
        row["sequences"] = len(scores.videos)
        row |= {f"IoU_{name}": 100 * value for name, value in scores.classes.items()}
        rows.append(row)
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n") if rows else None


def mapping_facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run's methods and datasets share, for its provenance: titles and texts."""
    file = (provenance.get("config") or {}).get("classes")
    source = f"from {file}" if file else "by name"
    return [
        (f"Classes: {method.rstrip('@')} on {dataset}", f"{_words(record)} ({source})")
        for method, datasets in (provenance.get("classes") or {}).items()
        for dataset, record in datasets.items()
    ]


def _words(record: Mapping[str, Any]) -> str:
    mapping = ClassMapping.model_validate(record)
    parts = [", ".join(mapping.shared)]
    for title, names in (("of the method", mapping.network), ("of the data", mapping.truth)):
        if names:
            renamed = ", ".join(f"{other} as {name}" for other, name in names.items())
            parts.append(f"{title}: {renamed}")
    if mapping.objects:
        each = [
            f"{sequence} {', '.join(categories.values())}"
            for sequence, categories in mapping.objects.items()
        ]
        parts.append(f"categories of objects: {', '.join(each)}")
    return "; ".join(parts)
