"""Run by test_store: kills a run with SIGKILL at every file operation, resumes it, compares.

A process that has imported torch forks one child per kill point, so that each costs little.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

import tests.fakes  # noqa: F401 (registers the dataset and methods)
from bench.config import RunConfig
from bench.run import execute

CONFIG = RunConfig(
    methods=["shifting", "copy"], data=["scenes"], engine="serial", workers=1, device="cpu"
)
EVERY_BEFORE = 8
"""The first operations open the run's folder and differ from one another, so all are tried."""

OPERATIONS = ("rename", "replace", "mkdir", "write_bytes", "write_text")


def kill_at(number: int) -> None:
    """Patch pathlib so that the process dies just before its ``number``-th operation."""
    count = 0

    def wrap(original):
        def operation(*arguments, **options):
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return operation

    for name in OPERATIONS:
        setattr(Path, name, wrap(getattr(Path, name)))


def in_child(work) -> int:
    """Run ``work`` in a forked child; its exit status as ``os.wait`` gives it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:  # an error must not go on in the child with what belongs to the parent
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def run(folder: Path, number: int | None = None) -> int:
    def work():
        torch.set_num_threads(1)
        if number is not None:
            kill_at(number)
        repeated = []
        result = execute(CONFIG, {}, folder, on_outcome=lambda o: repeated.append(o.job.job.id))
        assert not result.failures, result.failures
        (folder.parent / f"{folder.name}.repeated").write_text(json.dumps(repeated))

    return in_child(work)


def snapshot(folder: Path) -> dict[str, bytes]:
    """The files whose content must not depend on interruptions."""
    names = [folder / "scores.parquet", *sorted((folder / "masks").rglob("*"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names if path.is_file()}


def main(base: Path, step: int) -> None:
    assert run(base / "whole") == 0
    whole = snapshot(base / "whole")
    assert len(whole) > 10
    number, killed = 1, 0
    while True:
        folder = base / f"killed-{number}"
        status = run(folder, number)
        if status == 0:
            break
        assert os.WIFSIGNALED(status), status
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
        finished = {path.name for path in folder.glob("jobs/*") if not path.name.startswith(".")}
        assert run(folder) == 0, f"resume after a kill at operation {number}"
        assert snapshot(folder) == whole, f"kill at operation {number}"
        repeated = json.loads((base / f"killed-{number}.repeated").read_text())
        assert not finished & set(repeated), f"kill at operation {number} repeated finished jobs"
        leftovers = [*folder.rglob(".tmp-*"), *folder.rglob(".*.tmp")]
        assert not leftovers, f"leftovers after a kill at operation {number}: {leftovers}"
        number += 1 if number < EVERY_BEFORE else step
    print(f"killed {killed} times")
    assert killed > EVERY_BEFORE


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
