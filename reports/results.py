"""What a report is made of: scores averaged, and count kept of what is missing.

Everything here is numbers; nothing is formatted. Scores are percent from :func:`object_table` on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.method import SECONDS_PER_LABEL, LabelRegime
from reports.costs import CONSUMED, consumed, training_images
from reports.regimes import regime_kind

if TYPE_CHECKING:
    from bench.store import Run
    from reports.comparisons import Comparison

DATASET = ["dataset", "split", "task"]
"""Columns that name one shown table. ``task`` is the run's protocol, e.g. semi-supervised."""

ENTRY = ["method", "variant", *DATASET]
"""Columns that name one line of a shown table."""

ROW = [*ENTRY, "seed"]
"""Columns that name one line of ``table.csv``."""

CELL = [*ROW, "sequence"]
"""Columns that name one job."""

SCORES = ["J", "F", "J&F", "J_recall", "J_decay", "F_recall", "F_decay"]
"""Scores of every dataset, in percent (decay in percentage points)."""

SEEN_SCORES = ["J_seen", "J_unseen", "F_seen", "F_unseen", "G"]
"""Scores of datasets that tell seen from unseen categories (YouTube-VOS)."""

CLASS_COUNTS = [*CELL, "object", "class", "intersection", "union", "true", "coverage"]
"""Columns of pixels by class; see :class:`bench.semantic.ClassCounts`."""

COSTS = [
    "seconds_per_frame",
    "fps",
    "peak_memory_mb",
    "parameters",
    "flops",
    "training_seconds",
    "training_steps",
]

PROTOCOL = ["resolution", "stride", "memory", "top_k", "radius", "temperature", "label_resize"]
"""Fields of :class:`bench.method.ProtocolRecord` that have a column of their own."""

DONE = "done"

MEASURED = "measured here"
AUTHORS_WEIGHTS = "measured with authors' weights"
PUBLISHED = "published"
"""Where a score comes from."""

TASK = "semi-supervised"
"""The protocol that goes without saying."""


@dataclass(frozen=True)
class MethodInfo:
    """What a report says about one method or one variant of it.

    Attributes:
        method: registered name.
        variant: name of the variant, ``""`` for default settings.
        label: what tables and legends call it; unique in a report.
        description: one or two sentences.
        regime: the labels its weights consumed; None while no job of it has finished.
        protocol: the inference settings, by name, without those it does not have.
        paper: citation; empty for baselines, and where nothing was trained.
        origin: whether its weights are the authors'.
        alarms: what the training of its weights raised alarm about, in sentences.
        group: of a suite's rows that do not compare with the others; ``""`` for those that do.
        annotation_hours: estimated, with the report's seconds per label; NaN where the regime is
            unknown.
    """

    method: str
    variant: str
    label: str
    description: str = ""
    regime: LabelRegime | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""
    origin: str = MEASURED
    alarms: tuple[str, ...] = ()
    group: str = ""
    annotation_hours: float = math.nan

    @property
    def regime_kind(self) -> str:
        """The kind of labels its training consumed, one of :data:`reports.regimes.KINDS`."""
        return regime_kind(self.regime)

    @property
    def summary(self) -> str:
        """What it was trained on, in a phrase."""
        return self.regime.summary if self.regime else "unknown"


@dataclass(frozen=True)
class DatasetInfo:
    """What a report says about one split of one dataset under one protocol.

    Attributes:
        dataset: registered name.
        split: name of the split.
        task: the protocol: what methods were given.
        label: what tables call it.
        sequences: every sequence that some run planned, sorted.
        scored: whether any of its sequences has a score; False without public ground truth.
        rule: name of its scoring rule, where the store recorded it.
    """

    dataset: str
    split: str
    task: str
    label: str
    sequences: tuple[str, ...]
    scored: bool
    rule: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Its values of :data:`DATASET`."""
        return self.dataset, self.split, self.task

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that belong to it."""
        keep = pd.Series(True, index=table.index)
        for column, value in zip(DATASET, self.key, strict=True):
            keep &= table[column] == value
        return table[keep]


@dataclass(frozen=True)
class Results:
    """All that tables, figures and pages are made of.

    Attributes:
        runs: the runs, oldest first.
        scores: the store's tidy scores, in [0, 1], after combining; plus ``run_index``.
        cost: one row per job, after combining; plus ``run_index``.
        jobs: one row per planned job, after combining; plus ``run_index``.
        objects: one row per object, see :func:`object_table`.
        table: one row per :data:`ROW`, see :func:`seed_table`.
        methods: by (method, variant), in the order of their labels.
        datasets: by :data:`DATASET`, sorted.
        notes: what a reader must know about how the runs were combined.
        classes: pixels by class, after combining, of runs under the semantic protocol; plus
            ``run_index``.
        groups: of methods, in the order of tables; first ``""``, of those that compare.
        label_seconds: annotation time of one label in seconds, by kind.
    """

    runs: tuple[Run, ...]
    scores: pd.DataFrame
    cost: pd.DataFrame
    jobs: pd.DataFrame
    objects: pd.DataFrame
    table: pd.DataFrame
    methods: Mapping[tuple[str, str], MethodInfo]
    datasets: Mapping[tuple[str, str, str], DatasetInfo]
    notes: tuple[str, ...]
    classes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CLASS_COUNTS))
    groups: tuple[str, ...] = ("",)
    label_seconds: Mapping[str, float] = field(default_factory=lambda: SECONDS_PER_LABEL)

    @property
    def unfinished(self) -> pd.DataFrame:
        """The jobs that failed, were skipped or never ran."""
        return self.jobs[self.jobs["status"] != DONE]

    @property
    def group_of(self) -> Mapping[str, str]:
        """Each method's group, by its label."""
        return {info.label: info.group for info in self.methods.values()}

    @cached_property
    def comparisons(self) -> Mapping[tuple[str, str, str], Comparison]:
        """The methods compared, by :data:`DATASET`, for datasets that have scores."""
        from reports.comparisons import compare_methods

        return {
            key: compare_methods(self, dataset)
            for key, dataset in self.datasets.items()
            if dataset.scored
        }


def object_table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per object: its mean, recall and decay of J and of F, in percent.

    Args:
        scores: tidy scores in [0, 1].

    Returns:
        Columns :data:`CELL`, ``object``, ``seen``, ``frames`` (scored), :data:`SCORES`.
    """
    from bench.metrics import statistics

    rows = []
    ordered = scores.sort_values("frame", kind="stable")
    for key, group in ordered.groupby([*CELL, "object"], sort=True):
        row: dict[str, Any] = dict(zip([*CELL, "object"], key, strict=True))
        row["seen"] = group["seen"].iloc[0] if "seen" in group else None
        row["frames"] = group["frame"].nunique()
        for metric in ("J", "F"):
            values = group.loc[group["metric"] == metric, "value"].to_numpy(dtype=np.float64)
            found = statistics(values) if values.size else (np.nan,) * 3
            names = (metric, f"{metric}_recall", f"{metric}_decay")
            row.update(zip(names, (100 * float(value) for value in found), strict=True))
        row["J&F"] = (row["J"] + row["F"]) / 2
        rows.append(row)
    return pd.DataFrame(rows, columns=[*CELL, "object", "seen", "frames", *SCORES])


def sequence_table(results: Results) -> pd.DataFrame:
    """One row per planned job: means over its objects in percent, its cost, its status.

    Returns:
        Columns :data:`CELL`, ``objects``, :data:`SCORES`, ``fps``, ``peak_memory_mb``,
        ``status``, ``reason``.
    """
    grouped = results.objects.groupby(CELL)
    means = grouped[SCORES].mean()
    means.insert(0, "objects", grouped.size())
    cost = results.cost.copy()
    seconds = clocked(cost)
    cost["fps"] = cost["frames"] / seconds.where(seconds > 0)
    if "peak_memory_mb" not in cost:
        cost["peak_memory_mb"] = np.nan
    table = results.jobs[[*CELL, "status", "reason"]]
    table = table.merge(means.reset_index(), on=CELL, how="left")
    table = table.merge(cost[[*CELL, "fps", "peak_memory_mb"]], on=CELL, how="left")
    table["objects"] = table["objects"].fillna(0).astype(int)
    columns = [*CELL, "objects", *SCORES, "fps", "peak_memory_mb", "status", "reason"]
    return table[columns].sort_values(CELL, ignore_index=True)


def seed_table(
    objects: pd.DataFrame,
    cost: pd.DataFrame,
    jobs: pd.DataFrame,
    methods: Mapping[tuple[str, str], MethodInfo],
    datasets: Mapping[tuple[str, str, str], DatasetInfo],
    protocols: Mapping[tuple[Any, ...], Mapping[str, Any]],
) -> pd.DataFrame:
    """One row per :data:`ROW`, whether or not anything finished.

    Scores are means over objects. ``sequences`` counts the scored ones, ``sequences_done`` the
    finished ones and ``sequences_expected`` those that any method was to run, so that a row is
    partial where ``sequences < sequences_expected`` although the dataset has scores.
    """
    scored = dict(iter(objects.groupby(ROW)))
    costs = dict(iter(cost.groupby(ROW)))
    rows = []
    for key, group in jobs.groupby(ROW, sort=True):
        row: dict[str, Any] = dict(zip(ROW, key, strict=True))
        dataset = datasets[row["dataset"], row["split"], row["task"]]
        info = methods[row["method"], row["variant"]]
        found = scored.get(key)
        row.update(_scores_of(found))
        # Sequences that share no class with a method are none that it should have.
        expected = group["sequence"].isin(["", *dataset.sequences])
        status = group.loc[expected, "status"].value_counts()
        row["sequences"] = 0 if found is None else found["sequence"].nunique()
        row["sequences_done"] = int(status.get(DONE, 0))
        row["sequences_expected"] = len(dataset.sequences)
        row["objects"] = 0 if found is None else len(found)
        row.update({name: int(status.get(name, 0)) for name in ("failed", "skipped", "pending")})
        row["origin"] = info.origin
        row["regime"] = info.regime_kind
        row["group"] = info.group
        row.update(consumed(info.regime))
        row["images_and_frames"] = training_images(info.regime)
        row["annotated_masks"] = info.regime.annotated_masks if info.regime else math.nan
        row["annotation_hours"] = info.annotation_hours
        row.update(_costs_of(costs.get(key)))
        used = protocols.get(key, info.protocol)
        row.update({name: used.get(name) for name in PROTOCOL})
        rows.append(row)
    counts = ["sequences", "sequences_done", "sequences_expected", "objects"]
    states = ["failed", "skipped", "pending"]
    labels = ["origin", "regime", "group", *CONSUMED, "images_and_frames"]
    labels += ["annotated_masks", "annotation_hours"]
    columns = [*ROW, *SCORES, *SEEN_SCORES, *counts, *states, *labels, *COSTS, *PROTOCOL]
    return pd.DataFrame(rows, columns=columns)


def _scores_of(objects: pd.DataFrame | None) -> dict[str, float]:
    """Means over objects; over seen and unseen objects too where the dataset tells them apart."""
    row = dict.fromkeys([*SCORES, *SEEN_SCORES], np.nan)
    if objects is None:
        return row
    row.update({name: float(objects[name].mean()) for name in SCORES})
    # The joint figure is the mean of the two shown ones, whatever NaN objects each of them has.
    row["J&F"] = (row["J"] + row["F"]) / 2
    known = objects[objects["seen"].notna()]
    if len(known):
        seen = known["seen"].astype(bool)
        for metric in ("J", "F"):
            row[f"{metric}_seen"] = float(known.loc[seen, metric].mean())
            row[f"{metric}_unseen"] = float(known.loc[~seen, metric].mean())
        # A plain mean, so that G is missing where one of its four parts is.
        row["G"] = float(np.mean([row[name] for name in SEEN_SCORES[:4]]))
    return row


def clocked(cost: pd.DataFrame) -> pd.Series:
    """The seconds by which jobs are compared: on a CPU those of the processor, else wall time.

    Wall time of a CPU says how many jobs ran at a time and what else did. Runs of earlier versions
    have no other.
    """
    seconds = pd.to_numeric(cost["seconds"])
    if not {"cpu_seconds", "device"} <= set(cost.columns):
        return seconds
    cpu_seconds = pd.to_numeric(cost["cpu_seconds"])
    return cpu_seconds.where((cost["device"] == "cpu") & cpu_seconds.notna(), seconds)


def _costs_of(cost: pd.DataFrame | None) -> dict[str, float]:
    """Cost over all finished sequences: totals for time, the worst for memory."""
    row = dict.fromkeys(COSTS, np.nan)
    if cost is None:
        return row
    clock = clocked(cost)
    timed = clock.notna() & cost["frames"].notna()
    seconds, frames = float(clock[timed].sum()), float(cost.loc[timed, "frames"].sum())
    if seconds > 0 and frames > 0:
        row["fps"] = frames / seconds
        row["seconds_per_frame"] = seconds / frames
    for name in ("peak_memory_mb", "parameters", "training_seconds", "training_steps"):
        if name in cost:
            row[name] = float(pd.to_numeric(cost[name]).max())
    if "flops" in cost:
        row["flops"] = float(pd.to_numeric(cost["flops"]).mean())
    return row
