from __future__ import annotations

import os
import signal

import pytest

from bench.engine.local import Local, threads_per_worker
from bench.engine.serial import Serial
from bench.errors import ConfigError, DataError


def work(job):
    """Squares; some jobs misbehave."""
    if job == "raise":
        raise ValueError("a bad job")
    if job == "mend":
        raise DataError("file.png", "nothing", "something", "Do something.")
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return job * job


@pytest.mark.parametrize("engine", [Serial(), Local(1), Local(2)])
def test_failures_stay_where_they_are(engine):
    outcomes = {outcome.job: outcome for outcome in engine.map(work, [2, "raise", 3, "mend"])}
    assert outcomes[2].value == 4
    assert outcomes[3].value == 9
    assert "ValueError: a bad job" in outcomes["raise"].error
    assert "test_engine.py" in outcomes["raise"].error
    assert outcomes["mend"].error == str(
        DataError("file.png", "nothing", "something", "Do something.")
    )


def test_a_killed_worker_fails_only_its_job():
    outcomes = {outcome.job: outcome for outcome in Local(2).map(work, [1, "die", 2, 3, 4])}
    assert "signal 9" in outcomes["die"].error
    assert [outcomes[job].value for job in (1, 2, 3, 4)] == [1, 4, 9, 16]


def test_closing_the_iterator_ends_the_workers():
    iterator = Local(2).map(work, [1, 2, 3, 4])
    next(iterator)
    iterator.close()
    with pytest.raises(StopIteration):
        next(iterator)


def test_no_jobs():
    assert list(Local(2).map(work, [])) == []


def test_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [threads_per_worker(workers) for workers in (1, 2, 8, 20)] == [8, 4, 1, 1]


def test_errors_survive_the_way_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(ConfigError("a", "b", "c", "d.")))
    assert (error.where, str(error)) == ("a", "a: found b; expected c. d.")
