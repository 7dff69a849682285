"""The interface between a run and the place its jobs are computed."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        job: the job as it was handed in.
        value: what ``job_fn`` returned; None if it failed.
        error: the reason of the failure in a few lines; None if it succeeded.
    """

    job: Any
    value: Any = None
    error: str | None = None


class Engine(abc.ABC):
    """Maps a function over jobs. A failed job fails itself, not the run.

    Args:
        workers: how many jobs may run at once.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    @classmethod
    def why_not(cls) -> str | None:
        """Reason why this engine cannot be used here, or None."""
        return None

    @abc.abstractmethod
    def map(self, job_fn: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Outcome]:
        """Run ``job_fn`` on every job and yield outcomes as they finish, in any order.

        ``job_fn`` must be importable by name and jobs must survive pickling. On
        ``KeyboardInterrupt`` or when the iterator is closed, running jobs are ended.
        """
