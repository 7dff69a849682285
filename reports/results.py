"""Runs -> one set of results: combine, average, and keep count of what is missing.

Everything here is numbers; nothing is formatted. Scores are percent from :func:`object_table` on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.method import LabelRegime

if TYPE_CHECKING:
    from bench.store import Run

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

COSTS = [
    "seconds_per_frame",
    "fps",
    "peak_memory_mb",
    "parameters",
    "flops",
    "training_images",
    "training_seconds",
]

PROTOCOL = ["resolution", "stride", "memory", "top_k", "radius", "temperature", "label_resize"]
"""Fields of :class:`bench.method.ProtocolRecord` that have a column of their own."""

DONE = "done"

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
        paper: citation, empty for baselines.
    """

    method: str
    variant: str
    label: str
    description: str = ""
    regime: LabelRegime | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""

    @property
    def summary(self) -> str:
        """What it was trained on, in a phrase."""
        return self.regime.summary if self.regime else "unknown"

    @property
    def annotation_hours(self) -> float:
        """Estimated hours of annotation; NaN where the regime is unknown."""
        return self.regime.annotation_hours if self.regime else math.nan


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

    @property
    def unfinished(self) -> pd.DataFrame:
        """The jobs that failed, were skipped or never ran."""
        return self.jobs[self.jobs["status"] != DONE]


def collect(runs: Sequence[Run]) -> Results:
    """Combine runs and compute every score a report shows.

    Where two runs hold the same job (all of :data:`CELL`), the newest
    finished one counts; a failed job never hides a finished one of another run.

    Raises:
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    ordered = tuple(sorted(runs, key=_age))
    tables, unread = zip(*(_read(run, index) for index, run in enumerate(ordered)), strict=True)
    jobs = _stack([table["jobs"] for table in tables], [*CELL, "status", "reason"])
    jobs, notes = _newest(jobs, ordered)
    score_columns = [*CELL, "object", "frame", "metric", "value"]
    scores = _keep(_stack([table["scores"] for table in tables], score_columns), jobs)
    cost = _keep(_stack([table["cost"] for table in tables], [*CELL, "seconds", "frames"]), jobs)
    methods, different = _method_infos(ordered, jobs)
    datasets = _dataset_infos(ordered, jobs, scores)
    objects = object_table(scores)
    protocols, mixed = _protocols(scores)
    table = seed_table(objects, cost, jobs, methods, datasets, protocols)
    notes = [note for note in unread if note] + notes + different + mixed
    return Results(ordered, scores, cost, jobs, objects, table, methods, datasets, tuple(notes))


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
    cost["fps"] = cost["frames"] / cost["seconds"].where(cost["seconds"] > 0)
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
        status = group["status"].value_counts()
        row["sequences"] = 0 if found is None else found["sequence"].nunique()
        row["sequences_done"] = int(status.get(DONE, 0))
        row["sequences_expected"] = len(dataset.sequences)
        row["objects"] = 0 if found is None else len(found)
        row.update({name: int(status.get(name, 0)) for name in ("failed", "skipped", "pending")})
        row["annotated_masks"] = info.regime.annotated_masks if info.regime else math.nan
        row["annotation_hours"] = info.annotation_hours
        row.update(_costs_of(costs.get(key)))
        used = protocols.get(key, info.protocol)
        row.update({name: used.get(name) for name in PROTOCOL})
        rows.append(row)
    counts = ["sequences", "sequences_done", "sequences_expected", "objects"]
    states = ["failed", "skipped", "pending"]
    labels = ["annotated_masks", "annotation_hours"]
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


def _costs_of(cost: pd.DataFrame | None) -> dict[str, float]:
    """Cost over all finished sequences: totals for time, the worst for memory."""
    row = dict.fromkeys(COSTS, np.nan)
    if cost is None:
        return row
    timed = cost[cost["seconds"].notna() & cost["frames"].notna()]
    seconds, frames = float(timed["seconds"].sum()), float(timed["frames"].sum())
    if seconds > 0 and frames > 0:
        row["fps"] = frames / seconds
        row["seconds_per_frame"] = seconds / frames
    for name in ("peak_memory_mb", "parameters", "training_images", "training_seconds"):
        if name in cost:
            row[name] = float(pd.to_numeric(cost[name]).max())
    if "flops" in cost:
        row["flops"] = float(pd.to_numeric(cost["flops"]).mean())
    return row


def _age(run: Run) -> tuple[str, str]:
    """Sorts runs from oldest to newest; ISO times sort as text."""
    times = (run.provenance.get(name) for name in ("started", "finished"))
    return next((str(time) for time in times if time), ""), run.name


def _read(run: Run, index: int) -> tuple[dict[str, pd.DataFrame], str]:
    """A run's three tables, each with ``run_index`` and ``task``, and what is wrong with them."""
    from bench.errors import StoreError

    note = ""
    jobs = run.jobs
    try:
        scores, cost = run.scores, run.cost
    except StoreError:
        # Killed before it gathered its tables: its finished jobs have no scores to show yet.
        note = f"{run.name} has not ended, so nothing of it is shown; resume it."
        scores, cost = pd.DataFrame(), pd.DataFrame()
        unread = jobs["status"] == DONE
        jobs = jobs.assign(
            status=jobs["status"].where(~unread, "pending"),
            reason=jobs["reason"].where(~unread, "the run has not ended"),
        )
    task = (run.provenance.get("config") or {}).get("protocol") or TASK
    tables = {"jobs": jobs, "scores": scores, "cost": cost}
    return {name: table.assign(run_index=index, task=task) for name, table in tables.items()}, note


def _stack(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One table of all runs, with text columns that compare and group plainly."""
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=[*columns, "run_index"])
    # Read back from disk, an empty text may be missing and a text column may be categorical;
    # both would drop rows from group-bys.
    texts = ("method", "variant", "dataset", "split", "sequence", "metric", "status", "reason")
    plain = []
    for table in filled:
        values = {name: table[name].astype(object) for name in texts if name in table}
        plain.append(
            table.assign(**{n: v.where(v.notna(), "").astype(str) for n, v in values.items()})
        )
    return pd.concat(plain, ignore_index=True)


def _newest(jobs: pd.DataFrame, runs: Sequence[Run]) -> tuple[pd.DataFrame, list[str]]:
    """Keep one row per job, the newest finished one, and say what was dropped.

    A method that was skipped as a whole is one row without a sequence; it goes where another run
    did have jobs for it.
    """
    planned = set(jobs.loc[jobs["sequence"] != "", ENTRY].itertuples(index=False, name=None))
    ran = [key in planned for key in jobs[ENTRY].itertuples(index=False, name=None)]
    jobs = jobs[(jobs["sequence"] != "") | ~np.array(ran, dtype=bool)]
    ranked = jobs.assign(finished=jobs["status"] == DONE)
    ranked = ranked.sort_values(["finished", "run_index"], kind="stable")
    older = ranked.duplicated(CELL, keep="last")
    kept = ranked[~older].drop(columns="finished").sort_values(CELL, ignore_index=True)
    dropped = ranked[older]
    notes = []
    if len(dropped):
        pairs = dropped.merge(kept, on=CELL, suffixes=("", "_kept"))
        counts = pairs.groupby(["run_index", "run_index_kept"]).size()
        for (old, new), count in counts.items():
            plural = "s" if count != 1 else ""
            winner = "newer" if new > old else "finished"
            notes.append(
                f"{count} job{plural} of {runs[old].name} also in {runs[new].name}: "
                f"the {winner} result, from {runs[new].name}, is shown."
            )
    return kept, notes


def _keep(table: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """The rows that belong to the kept, finished jobs."""
    done = jobs.loc[jobs["status"] == DONE, [*CELL, "run_index"]]
    if not len(table):
        return table
    return table.merge(done, on=[*CELL, "run_index"])


def _method_infos(
    runs: Sequence[Run], jobs: pd.DataFrame
) -> tuple[dict[tuple[str, str], MethodInfo], list[str]]:
    """What the newest run says of each method, and a note where runs disagree."""
    records: dict[tuple[str, str], dict[str, Any]] = {}
    notes = []
    for index, run in enumerate(runs):
        ran = jobs[jobs["run_index"] == index]
        used = set(zip(ran["method"], ran["variant"], strict=True))
        for name, record in (run.provenance.get("methods") or {}).items():
            key = (record.get("method", name), record.get("variant") or "")
            if key not in used:
                continue
            settings = ("regime", "protocol", "parameters")
            if key in records and any(records[key].get(n) != record.get(n) for n in settings):
                notes.append(
                    f"{name}: {run.name} used other settings or weights than an older run; "
                    "its scores mix both, its details are those of the newer run."
                )
            records[key] = record
    keys = sorted(set(zip(jobs["method"], jobs["variant"], strict=True)))
    titles = [records.get(key, {}).get("title") or key[0] for key in keys]
    infos = []
    for (method, variant), title in zip(keys, titles, strict=True):
        record = records.get((method, variant), {})
        same = {key[0] for key, other in zip(keys, titles, strict=True) if other == title}
        label = title if len(same) == 1 else f"{title} ({method})"
        if variant and variant not in title:
            label = f"{label} [{variant}]"
        infos.append(
            MethodInfo(
                method,
                variant,
                label,
                record.get("description") or "",
                _regime(record.get("regime")),
                _protocol(record.get("protocol") or {}),
                record.get("paper") or "",
            )
        )
    infos.sort(key=lambda info: (info.label.lower(), info.method, info.variant))
    return {(info.method, info.variant): info for info in infos}, notes


def _regime(record: Mapping[str, Any] | None) -> LabelRegime | None:
    """Rebuild the regime, so that its derived numbers come from one place."""
    if record is None:
        return None
    known = {item.name for item in fields(LabelRegime)}
    values = {name: value for name, value in record.items() if name in known}
    values["pretraining"] = tuple(values.get("pretraining") or ())
    return LabelRegime(**values)


def _protocol(record: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a protocol record: its own fields, then ``extra``'s, without the empty ones."""
    own = {name: value for name, value in record.items() if name != "extra" and value is not None}
    return {**own, **(record.get("extra") or {})}


def _protocols(
    scores: pd.DataFrame,
) -> tuple[dict[tuple[Any, ...], dict[str, Any]], list[str]]:
    """The protocol record behind each row's scores, and a note where a row has several."""
    records: dict[tuple[Any, ...], dict[str, Any]] = {}
    notes: list[str] = []
    if "protocol" not in scores:
        return records, notes
    pairs = scores[[*ROW, "protocol"]].dropna(subset="protocol").drop_duplicates()
    for key, group in pairs.groupby(ROW):
        found = [_protocol(json.loads(text)) for text in group["protocol"].astype(str)]
        # Settings that vary within the row belong to none of its columns.
        same = {
            name: value
            for name, value in found[0].items()
            if all(other.get(name) == value for other in found)
        }
        records[key] = same
        if len(found) > 1:
            row = dict(zip(ROW, key, strict=True))
            names = sorted({name for one in found for name in one if name not in same})
            notes.append(
                f"{row['method']} on {row['dataset']}, seed {row['seed']}: sequences differ in "
                f"{', '.join(names)}."
            )
    return records, notes


def _dataset_infos(
    runs: Sequence[Run], jobs: pd.DataFrame, scores: pd.DataFrame
) -> dict[tuple[str, str, str], DatasetInfo]:
    """Every planned dataset, with the sequences that some method was to run."""
    scored = set(scores[DATASET].drop_duplicates().itertuples(index=False, name=None))
    infos = {}
    for key, group in jobs.groupby(DATASET, sort=True):
        dataset, split, task = key
        record: dict[str, Any] = {}
        sequences = set(group["sequence"]) - {""}
        for index in sorted(group["run_index"].unique()):
            found = (runs[index].provenance.get("datasets") or {}).get(dataset)
            record = found or record
            sequences |= set((found or {}).get("sequences") or ())
        title = record.get("title") or dataset
        # Settings that differ from the adapter's own stand in brackets behind its name.
        settings = dataset.partition("[")[2].removesuffix("]")
        parts = [title, split, settings, task if task != TASK else ""]
        infos[key] = DatasetInfo(
            dataset=dataset,
            split=split,
            task=task,
            label=", ".join(part for part in parts if part),
            sequences=tuple(sorted(sequences)),
            scored=key in scored,
            rule=record.get("scoring") or "" if task == TASK else task,
        )
    return infos
