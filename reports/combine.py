"""Runs -> one set of results: which job of which run counts, and what was dropped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.method import SECONDS_PER_LABEL, LabelRegime
from reports.regimes import KINDS, annotation_hours, regime_kind
from reports.results import (
    CELL,
    CLASS_COUNTS,
    DATASET,
    DONE,
    ENTRY,
    ROW,
    TASK,
    DatasetInfo,
    MethodInfo,
    Results,
    object_table,
    seed_table,
)
from reports.weights import alarms, loaded_weights, origin

if TYPE_CHECKING:
    from bench.store import Run


def collect(
    runs: Sequence[Run],
    rows: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    label_seconds: Mapping[str, float] = MappingProxyType({}),
) -> Results:
    """Combine runs and compute every score a report shows.

    Where two runs hold the same job (all of :data:`CELL`), the newest
    finished one counts; a failed job never hides a finished one of another run.

    Args:
        runs: in any order.
        rows: what is told of a suite's rows, by name: ``group``, ``description`` and ``paper``, and
            why it is ``unfinished``.
        label_seconds: annotation time of one label, by kind; others than these count as in
            :data:`bench.method.SECONDS_PER_LABEL`.

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
    classes = _keep(_stack([table["classes"] for table in tables], CLASS_COUNTS), jobs)
    seconds = {**SECONDS_PER_LABEL, **label_seconds}
    methods, different = _method_infos(ordered, jobs, rows, seconds)
    datasets = _dataset_infos(ordered, jobs, scores)
    objects = object_table(scores)
    protocols, mixed = _protocols(scores)
    table = seed_table(objects, cost, jobs, methods, datasets, protocols)
    notes = [note for note in unread if note] + notes + different + mixed + _unfinished(rows)
    found = (scores, cost, jobs, objects, table, methods, datasets)
    groups = _groups(methods.values(), rows)
    return Results(ordered, *found, tuple(notes), classes, groups, seconds)


def _unfinished(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [
        f"{name}: not finished: {note['unfinished']}"
        for name, note in rows.items()
        if note.get("unfinished")
    ]


def _groups(
    methods: Iterable[MethodInfo], rows: Mapping[str, Mapping[str, str]]
) -> tuple[str, ...]:
    """Groups that occur, in the order of a suite's rows, after that of rows without one."""
    used = {info.group for info in methods}
    order = dict.fromkeys(note.get("group", "") for note in rows.values())
    return ("", *(group for group in order if group and group in used))


def _age(run: Run) -> tuple[str, str]:
    """Sorts runs from oldest to newest; ISO times sort as text."""
    times = (run.provenance.get(name) for name in ("started", "finished"))
    return next((str(time) for time in times if time), ""), run.name


def _read(run: Run, index: int) -> tuple[dict[str, pd.DataFrame], str]:
    """A run's tables, each with ``run_index`` and ``task``, and what is wrong with them."""
    from bench.errors import StoreError

    note = ""
    jobs = run.jobs
    try:
        scores, cost, classes = run.scores, run.cost, run.classes
    except StoreError:
        # Killed before it gathered its tables: its finished jobs have no scores to show yet.
        note = f"{run.name} has not ended, so nothing of it is shown; resume it."
        scores, cost, classes = pd.DataFrame(), pd.DataFrame(), None
        unread = jobs["status"] == DONE
        jobs = jobs.assign(
            status=jobs["status"].where(~unread, "pending"),
            reason=jobs["reason"].where(~unread, "the run has not ended"),
        )
    task = (run.provenance.get("config") or {}).get("protocol") or TASK
    tables = {"jobs": jobs, "scores": scores, "cost": cost}
    tables["classes"] = pd.DataFrame() if classes is None else classes
    return {name: table.assign(run_index=index, task=task) for name, table in tables.items()}, note


def _stack(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One table of all runs, with text columns that compare and group plainly."""
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=[*columns, "run_index"])
    # Read back from disk, an empty text may be missing and a text column may be categorical;
    # both would drop rows from group-bys.
    texts = (
        *("method", "variant", "dataset", "split", "sequence"),
        *("metric", "class", "status", "reason"),
    )
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
        for (old, new), count in zip(counts.index.tolist(), counts.tolist(), strict=True):
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
    runs: Sequence[Run],
    jobs: pd.DataFrame,
    rows: Mapping[str, Mapping[str, str]],
    label_seconds: Mapping[str, float],
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
    loaded = loaded_weights(runs)
    infos = []
    for (method, variant), title in zip(keys, titles, strict=True):
        record = records.get((method, variant), {})
        same = {key[0] for key, other in zip(keys, titles, strict=True) if other == title}
        label = title if len(same) == 1 else f"{title} ({method})"
        note: Mapping[str, str] = {}
        if variant and variant == record.get("name"):
            label = variant  # a row of a suite or an ablation, whose name says what it is
            note = rows.get(variant, {})
        elif variant and variant not in title:
            label = f"{label} [{variant}]"
        regime = _regime(record.get("regime"))
        weights = loaded.get((method, variant), {})
        infos.append(
            MethodInfo(
                method,
                variant,
                label,
                note.get("description") or _description(record, regime),
                regime,
                _protocol(record.get("protocol") or {}),
                note.get("paper") or _paper(record, regime, bool(note.get("description"))),
                origin(weights, regime),
                alarms(weights),
                note.get("group") or "",
                annotation_hours(regime, label_seconds),
            )
        )
    infos.sort(key=lambda info: (info.label.lower(), info.method, info.variant))
    return {(info.method, info.variant): info for info in infos}, notes


def _description(record: Mapping[str, Any], regime: LabelRegime | None) -> str:
    """What a method's own description says, as far as it is true of this variant of it."""
    own = record.get("description") or ""
    variant = record.get("variant") or ""
    if variant and regime_kind(regime) == "no training":
        # What the method says of itself it says of its trained weights.
        return KINDS["no training"]
    if own and variant and variant == record.get("name"):
        return f"{record.get('title') or record.get('method')}: {own}"
    return own


def _paper(record: Mapping[str, Any], regime: LabelRegime | None, described: bool) -> str:
    """The method's citation, as far as this variant of it is what the paper is about."""
    if described or regime_kind(regime) == "no training":
        return ""
    return record.get("paper") or ""


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
    for names, group in jobs.groupby(DATASET, sort=True):
        dataset, split, task = key = (str(names[0]), str(names[1]), str(names[2]))
        record: dict[str, Any] = {}
        # A sequence is skipped where it shares no class: nothing is missing then.
        sequences = set(group.loc[group["status"] != "skipped", "sequence"]) - {""}
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
