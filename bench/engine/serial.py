"""Jobs one after the other in this process: the simplest engine, and the one to debug with."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.engine.base import Engine, Outcome
from bench.errors import BenchError
from bench.registry import register_engine


def attempt(job_fn: Callable[[Any], Any], job: Any) -> Outcome:
    """Run one job; whatever it raises becomes the outcome's error."""
    try:
        return Outcome(job, value=job_fn(job))
    except BenchError as error:
        return Outcome(job, error=str(error))
    except Exception as error:  # a method may raise anything; it must not take the run with it
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno} in {last.name}"
        return Outcome(job, error=f"{type(error).__name__}: {error} ({place})")


@register_engine("serial")
class Serial(Engine):
    """Runs jobs in this process, in order."""

    name = "serial"
    title = "one job at a time in this process"

    def map(self, job_fn: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Outcome]:
        """See :meth:`bench.engine.base.Engine.map`."""
        for job in jobs:
            yield attempt(job_fn, job)
