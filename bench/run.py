"""Running a plan: jobs to an engine, results to the store, progress to whoever watches."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config import RunConfig
from bench.engine.base import Outcome
from bench.errors import StoreError
from bench.jobs import Task, run_job
from bench.plan import Job, Plan, make_plan
from bench.provenance import git_state, host, versions
from bench.registry import get_engine
from bench.store import is_done, locked, read_json, sweep, write_json, write_plan, write_tables

MEMORY_PER_WORKER_GB = 2.5
"""What a worker with torch and a small network needs; bounds the default number of workers."""


@dataclass
class RunResult:
    """What became of a run.

    Attributes:
        path: its folder.
        plan: what was planned.
        reused: number of jobs that were finished before.
        failures: the jobs that failed, each with its reason.
    """

    path: Path
    plan: Plan
    reused: int = 0
    failures: list[tuple[Job, str]] = field(default_factory=list)


def default_workers(device: str, jobs: int) -> int:
    """One worker per core as far as memory goes; one on a GPU, which jobs would fight for."""
    if device == "cuda":
        return 1
    import psutil

    memory = psutil.virtual_memory().available / 2**30
    return max(1, min(os.cpu_count() or 1, int(memory // MEMORY_PER_WORKER_GB), jobs))


def new_run_name() -> str:
    """A name that sorts by time."""
    return datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def stored_request(run: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Configuration and ``--set`` values of an earlier run, to resume it."""
    provenance = read_json(run / "run.json")
    return RunConfig.model_validate(provenance["config"]), provenance["assignments"]


def execute(
    config: RunConfig,
    assignments: Mapping[str, Any],
    path: Path,
    on_start: Callable[[Plan, int], None] = lambda plan, reused: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> RunResult:
    """Run everything that is not finished yet in a run's folder.

    Args:
        config: what to run.
        assignments: ``--set`` values by dotted key.
        path: the run's folder, new or of an earlier run of the same configuration, or of one that
            this one extends: by seeds, sequences, datasets or methods.
        on_start: called with the plan and the number of jobs that were finished before.
        on_outcome: called with each job's outcome as it finishes.

    Raises:
        BenchError: wrong configuration, missing data, a folder that holds something else.
    """
    if path.exists() and not path.is_dir():
        raise StoreError(path, "a file", "a folder for the run", "Choose another --out.")
    plan = make_plan(config, assignments)
    with locked(path):
        started = _open_folder(path, config, assignments, plan)
        sweep(path)
        todo = [Task(job, path) for job in plan.jobs if not is_done(path, job.id)]
        result = RunResult(path, plan, reused=len(plan.jobs) - len(todo))
        provenance = _provenance(config, assignments, plan, started)
        write_json(path / "run.json", provenance)
        write_plan(path, plan)
        on_start(plan, result.reused)
        if todo:
            device = todo[0].job.device
            engine = get_engine(config.engine)(config.workers or default_workers(device, len(todo)))
            for outcome in engine.map(run_job, todo):
                if outcome.error is not None:
                    result.failures.append((outcome.job.job, outcome.error))
                on_outcome(outcome)
        _describe_methods(path, plan, provenance)
        provenance["failures"] = {job.id: reason for job, reason in result.failures}
        provenance["finished"] = _now()
        write_tables(path)
        write_json(path / "run.json", provenance)
    return result


def _open_folder(path: Path, config: RunConfig, assignments: Mapping[str, Any], plan: Plan) -> str:
    """When the run in this folder was first started; refuses folders that hold something else."""
    record = path / "run.json"
    if not record.exists():
        others = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        if others:
            raise StoreError(
                path,
                f"a folder with other things in it ({', '.join(sorted(others)[:3])})",
                "a new folder or that of an earlier run",
                "Choose another --out.",
            )
        return _now()
    earlier, earlier_assignments = stored_request(path)
    # How many workers compute a run, and where, does not change what it is.
    free = {"workers", "engine", "root"}
    other = (
        earlier.model_dump(exclude=free) != config.model_dump(exclude=free)
        or dict(assignments) != earlier_assignments
    )
    if other and not _extends(plan, path):
        raise StoreError(
            path,
            "a run of another configuration",
            "a new folder, the same configuration, or one that has all jobs of that run and more",
            f"Choose another --out, or continue it with --resume {path}.",
        )
    started: str = read_json(record)["started"]
    return started


def _extends(plan: Plan, run: Path) -> bool:
    """Whether a plan has all jobs of a run, so that nothing in its folder is lost or mixed up."""
    record = run / "plan.json"
    earlier = read_json(record)["jobs"] if record.is_file() else []
    kept = {(job["id"], job["variant"]) for job in earlier}
    return bool(kept) and kept <= {(job.id, job.variant) for job in plan.jobs}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _provenance(
    config: RunConfig, assignments: Mapping[str, Any], plan: Plan, started: str
) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    for label, choice in plan.data.items():
        dataset = choice.open()
        lengths = {job.sequence: job.frames for job in plan.jobs if job.data.label == label}
        datasets[label] = {
            "title": dataset.title,
            "split": choice.split,
            "root": str(choice.root) if choice.root else None,
            "settings": dict(choice.settings),
            "scoring": dataset.scoring.name,
            "available": len(dataset),
            "sequences": list(lengths) or dataset.sequences(),
            "frames": sum(lengths.values()),
        }
    return {
        "command": ["python", "-m", "bench", *sys.argv[1:]],
        "config": config.model_dump(mode="json"),
        "assignments": dict(assignments),
        "started": started,
        "finished": None,
        "versions": versions(),
        "git": git_state(),
        "host": host(),
        "datasets": datasets,
        "classes": _classes(plan),
        "methods": plan.methods,
        "failures": {},
    }


def _classes(plan: Plan) -> dict[str, Any]:
    """Shared classes by ``"method@variant"`` and dataset; none unless the protocol is semantic."""
    found: dict[str, Any] = {}
    for job in plan.jobs:
        if job.classes is not None:
            of_method = found.setdefault(f"{job.method}@{job.variant}", {})
            of_method[job.data.label] = dict(job.classes)
    return found


def _describe_methods(path: Path, plan: Plan, provenance: dict[str, Any]) -> None:
    """Add what only a built method knows (regime, protocol, size), from its first finished job."""
    for job in plan.jobs:
        record = provenance["methods"][f"{job.method}@{job.variant}"]
        cost = path / "jobs" / job.id / "cost.json"
        if "regime" not in record and cost.is_file():
            found = read_json(cost)
            record |= {key: found[key] for key in ("regime", "protocol", "parameters")}
