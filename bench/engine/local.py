"""Jobs in worker processes on this machine.

The standard library's pools lose every job when one worker is killed (out of memory, a crash in
native code). Here each worker has its own pipe: a dead one fails the job it held, is replaced,
and the rest go on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from bench.engine.base import Engine, Outcome
from bench.engine.serial import attempt
from bench.registry import register_engine

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def threads_per_worker(workers: int) -> int:
    """Threads that keep all cores busy without oversubscribing them."""
    return max(1, (os.cpu_count() or 1) // workers)


def limit_threads(threads: int) -> None:
    """Limit the numeric libraries of this process; before they are imported where possible."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _die_with_parent() -> None:
    """End this worker at once if its parent is killed, so that a resumed run has no rival."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _serve(pipe: Connection, job_fn: Callable[[Any], Any], threads: int) -> None:
    """A worker's life: take a job, answer with its outcome, until there is none."""
    # Ctrl-C reaches the whole process group; the parent decides what happens to workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    limit_threads(threads)
    while (job := pipe.recv()) is not None:
        pipe.send(attempt(job_fn, job))


class _Worker:
    """A process, its pipe and the job it holds."""

    def __init__(self, job_fn: Callable[[Any], Any], threads: int) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, job_fn, threads), daemon=True
        )
        self.process.start()
        theirs.close()
        self.job: Any = None

    def give(self, job: Any) -> None:
        self.job = job
        self.pipe.send(job)

    def take(self) -> tuple[Outcome, bool]:
        """The job's outcome, and whether the worker is still alive."""
        try:
            outcome: Outcome = self.pipe.recv()
            return outcome, True
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            reason = f"its worker process died with exit code {code}"
            if code is not None and code < 0:
                reason = f"its worker process was killed by signal {-code}"
                if -code == signal.SIGKILL:
                    reason += " (often: out of memory; try fewer --workers)"
            return Outcome(self.job, error=reason), False

    def end(self) -> None:
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
        self.pipe.close()


@register_engine("local")
class Local(Engine):
    """Runs jobs in ``workers`` processes."""

    name = "local"
    title = "worker processes on this machine"

    def map(self, job_fn: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Outcome]:
        """See :meth:`bench.engine.base.Engine.map`."""
        waiting = list(reversed(jobs))
        count = min(self.workers, len(waiting))
        threads = threads_per_worker(max(1, count))
        workers: list[_Worker] = []
        try:
            for _ in range(count):
                workers.append(_Worker(job_fn, threads))
                workers[-1].give(waiting.pop())
            while workers:
                ready = connection.wait([worker.pipe for worker in workers])
                for worker in [worker for worker in workers if worker.pipe in ready]:
                    outcome, alive = worker.take()
                    if not alive:
                        worker.end()
                        workers.remove(worker)
                        if waiting:
                            worker = _Worker(job_fn, threads)
                            workers.append(worker)
                    if waiting:
                        worker.give(waiting.pop())
                    elif alive:
                        worker.end()
                        workers.remove(worker)
                    yield outcome
        finally:
            for worker in workers:
                worker.end()
