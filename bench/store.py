"""What a run leaves on disk, and how it is read back.

::

    runs/<run>/
      run.json                   provenance: command, configuration, versions, host, data, methods
      plan.json                  every planned job and every skip
      jobs/<job-id>/             one folder per finished job: job.json, scores.json, cost.json;
                                 under the semantic protocol classes.json
      masks/<method>/<dataset>/<sequence>/<frame>.png
      scores.parquet             tidy: one row per object, frame and metric
      cost.parquet               one row per job
      classes.parquet            one row per job and class; under the semantic protocol only

A job works in a temporary folder and renames it when it is done, its masks first. So whatever
moment a run is killed at, a job is either finished or will be done again from the start, and
``--resume`` is nothing but running the plan's unfinished jobs.

The column ``run`` of the tidy tables is the folder's name and is added on reading: moving or
copying a folder cannot make it wrong, and equal runs have equal files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, StoreError
from bench.plan import DataChoice, Job, Plan, job_record, mask_folder
from bench.semantic import ClassCounts, ClassMapping
from bench.video import Video

if TYPE_CHECKING:
    import pandas as pd

SCORE_COLUMNS = (
    "method", "variant", "dataset", "split", "sequence", "object", "frame", "seed", "metric",
    "value", "seen", "protocol",
)  # fmt: skip

COST_COLUMNS = (
    "method", "variant", "dataset", "split", "sequence", "seed", "seconds", "cpu_seconds",
    "frames", "fps", "peak_memory_mb", "parameters", "flops", "training_images", "training_seconds",
    "training_steps", "device",
)  # fmt: skip

CLASS_COLUMNS = (
    "method", "variant", "dataset", "split", "sequence", "seed", "object", "class",
    "intersection", "union", "true", "coverage",
)  # fmt: skip

JOB_COLUMNS = ("method", "variant", "dataset", "split", "sequence", "seed", "status", "reason")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON; :class:`StoreError` says what is wrong with the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            path,
            f"no readable JSON ({error})",
            "a file written by `python -m bench run`",
            "Name the folder of a run, or run again.",
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder; a second process that wants it gets a :class:`StoreError`.

    The lock goes with the process, so a killed run leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                folder,
                "another process working on this run",
                "one process per run",
                "Wait for it, or choose another --out.",
            ) from None
        yield


def sweep(folder: Path) -> None:
    """Remove what a killed run left behind; call only while holding the lock."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()
    for place in (folder / "jobs", folder / "masks"):
        for leftover in place.rglob(".tmp-*") if place.is_dir() else ():
            shutil.rmtree(leftover, ignore_errors=True)


def job_folder(run: Path, job_id: str) -> Path:
    """Where a finished job's files lie."""
    return run / "jobs" / job_id


def is_done(run: Path, job_id: str) -> bool:
    """Whether a job has finished: its folder bears its final name only then."""
    return job_folder(run, job_id).is_dir()


@contextlib.contextmanager
def job_workspace(run: Path, job: Job) -> Iterator[tuple[Path, Path]]:
    """Temporary folders for a job's files and masks, put in place when the block succeeds.

    Yields:
        The folder for ``scores.json`` and ``cost.json``, and the folder for masks.
    """
    final, masks = job_folder(run, job.id), run / job.masks
    work = final.with_name(f".tmp-{job.id}-{os.getpid()}")
    work_masks = masks.with_name(f".tmp-{job.id}-{os.getpid()}")
    for folder in (work, work_masks):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        yield work, work_masks
        write_json(work / "job.json", job_record(job))
        shutil.rmtree(masks, ignore_errors=True)
        work_masks.rename(masks)
        # The job's own folder is its finished-marker, so it is renamed last.
        work.rename(final)
    finally:
        for folder in (work, work_masks):
            shutil.rmtree(folder, ignore_errors=True)


def write_plan(run: Path, plan: Plan) -> None:
    """Record what the run is going to do."""
    write_json(
        run / "plan.json",
        {
            "jobs": [job_record(job) for job in plan.jobs],
            "skips": [vars(skip) for skip in plan.skips],
        },
    )


def write_tables(run: Path) -> None:
    """Gather the finished jobs into ``scores.parquet`` and ``cost.parquet``, in plan order.

    Where the protocol is semantic, also into ``classes.parquet``.
    """
    import pandas as pd

    planned = read_json(run / "plan.json")["jobs"]
    scores: list[tuple[Any, ...]] = []
    costs: list[tuple[Any, ...]] = []
    for job in planned:
        folder = job_folder(run, job["id"])
        if not folder.is_dir():
            continue
        data = job["data"]
        method = (job["method"], job["variant"], data["label"], data["split"], job["sequence"])
        cost = read_json(folder / "cost.json")
        protocol = json.dumps(cost["protocol"], sort_keys=True)
        for found in read_json(folder / "scores.json"):
            for metric in ("J", "F"):
                scores += [
                    (
                        *method, found["object"], frame, job["seed"], metric, value,
                        found["seen"], protocol,
                    )
                    for frame, value in zip(found["frames"], found[metric], strict=True)
                ]  # fmt: skip
        costs.append((*method, job["seed"], *(cost.get(key, math.nan) for key in COST_COLUMNS[6:])))
    score_table = pd.DataFrame(scores, columns=list(SCORE_COLUMNS))
    score_table = score_table.astype(
        {"object": "int64", "frame": "int64", "seed": "int64", "value": "float64"}
        | {"seen": "boolean"}
        | dict.fromkeys(("method", "variant", "dataset", "split", "sequence"), "category")
        | {"metric": "category", "protocol": "category"}
    )
    cost_table = pd.DataFrame(costs, columns=list(COST_COLUMNS))
    tables = {"scores": score_table, "cost": cost_table}
    if any(job.get("classes") for job in planned):
        tables["classes"] = _class_table(run, planned)
    for name, table in tables.items():
        temporary = run / f".{name}.{os.getpid()}.tmp"
        table.to_parquet(temporary, index=False)
        temporary.replace(run / f"{name}.parquet")


def _class_table(run: Path, planned: list[dict[str, Any]]) -> pd.DataFrame:
    """Pixels by shared class of every finished job, in plan order: :data:`CLASS_COLUMNS`."""
    import numpy as np
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for job in planned:
        file = job_folder(run, job["id"]) / "classes.json"
        found: dict[str, Any] = read_json(file) if file.is_file() else {}
        if found.get("confusion") is None:
            continue
        coverage = math.nan if found["coverage"] is None else found["coverage"]
        counts = ClassCounts.of_confusion(np.array(found["confusion"], np.int64), coverage)
        data = job["data"]
        cell = (job["method"], job["variant"], data["label"], data["split"], job["sequence"])
        rows += [
            (
                *cell, job["seed"], number, name, int(counts.intersection[number]),
                int(counts.union[number]), int(counts.true[number]), coverage,
            )
            for number, name in enumerate(found["classes"])
        ]  # fmt: skip
    table = pd.DataFrame(rows, columns=list(CLASS_COLUMNS))
    whole = ("seed", "object", "intersection", "union", "true")
    words = ("method", "variant", "dataset", "split", "sequence", "class")
    return table.astype(
        dict.fromkeys(whole, "int64") | dict.fromkeys(words, "category") | {"coverage": "float64"}
    )


class Run:
    """A finished or partly finished run, read back.

    Args:
        path: the run's folder.

    Raises:
        StoreError: not a run's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name
        self.provenance: dict[str, Any] = read_json(path / "run.json")
        self._plan: dict[str, Any] = read_json(path / "plan.json")

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        file = self.path / f"{name}.parquet"
        if not file.is_file():
            raise StoreError(
                file, "no such file", "the tables of a run that ended",
                f"Finish it with `python -m bench run --resume {self.path}`.",
            )  # fmt: skip
        table = pd.read_parquet(file)
        table.insert(0, "run", self.name)
        return table

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Tidy scores: ``run``, then :data:`SCORE_COLUMNS`; values in [0, 1]."""
        return self._table("scores")

    @cached_property
    def cost(self) -> pd.DataFrame:
        """One row per finished job: ``run``, then :data:`COST_COLUMNS`."""
        return self._table("cost")

    @cached_property
    def classes(self) -> pd.DataFrame | None:
        """Pixels by class: ``run``, then :data:`CLASS_COLUMNS`; None unless semantic."""
        if not any(job.get("classes") for job in self._plan["jobs"]):
            return None
        return self._table("classes")

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """One row per planned job and per skip, with its status and the reason if not done.

        A method skipped on a whole dataset is one row without a sequence.
        """
        import pandas as pd

        failures = self.provenance.get("failures", {})
        rows = []
        for job in self._plan["jobs"]:
            reason = failures.get(job["id"], "")
            status = (
                "done" if is_done(self.path, job["id"]) else ("failed" if reason else "pending")
            )
            if status == "done":
                reason = ""
            data = job["data"]
            rows.append(
                (
                    job["method"], job["variant"], data["label"], data["split"], job["sequence"],
                    job["seed"], status, reason,
                )
            )  # fmt: skip
        rows += [
            (
                skip["method"], skip["variant"], skip["dataset"], skip["split"], sequence, seed,
                "skipped", skip["reason"],
            )
            for skip in self._plan["skips"]
            for sequence in skip.get("sequences") or ("",)
            for seed in skip.get("seeds") or (0,)
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=list(JOB_COLUMNS))
        table.insert(0, "run", self.name)
        return table

    def masks(self, method: str, variant: str, dataset: str, sequence: str, seed: int) -> Path:
        """Folder of a job's palette PNGs, named by frame."""
        return self.path / mask_folder(method, variant, dataset, sequence, seed)

    def frames_of(self, dataset: str, sequence: str) -> Video | None:
        """The video a job ran on, or None where its data is no longer there.

        Under the semantic protocol its masks show shared classes, as the job's masks do.
        """
        for job in self._plan["jobs"]:
            data = job["data"]
            if data["label"] == dataset and job["sequence"] == sequence:
                root = Path(data["root"]) if data["root"] else None
                choice = DataChoice(
                    data["label"], data["name"], data["split"], root, data["settings"]
                )
                try:
                    video = choice.open().video(sequence)
                except BenchError:
                    return None
                classes = job.get("classes")
                return ClassMapping.model_validate(classes).of_video(video) if classes else video
        return None


def load_run(path: Path) -> Run:
    """Read a run's folder; :class:`StoreError` if it is not one."""
    return Run(path)
