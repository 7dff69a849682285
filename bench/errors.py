"""The one exception family of the suite.

Every message names the file or setting, what was found, what was expected and what to do.
The command line turns a :class:`BenchError` into one readable block and exit code 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class BenchError(Exception):
    """Something the user can mend.

    Args:
        where: the file, folder, setting or plugin concerned.
        found: what is there.
        expected: what should be there.
        remedy: what to do about it, as a sentence.
    """

    def __init__(self, where: str | Path, found: str, expected: str, remedy: str) -> None:
        # All four go to Exception, so that errors survive pickling between processes.
        super().__init__(str(where), found, expected, remedy)
        self.where = str(where)
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; expected {self.expected}. {self.remedy}"


class ConfigError(BenchError):
    """A wrong setting on the command line or in a YAML file; ``where`` is the path of the key."""


class DataError(BenchError):
    """A dataset, video or image file that is missing, unreadable or not what it should be."""


class MaskError(DataError):
    """A mask that cannot be scored or used: wrong size, wrong colours, missing, truncated."""


class MethodError(BenchError):
    """A method that broke its contract or cannot load what it was given."""


class PluginError(BenchError):
    """An installed plugin that cannot be used."""


class StoreError(BenchError):
    """A run folder that cannot be read, written or resumed."""


class ProblemsError(DataError):
    """Several problems at once: all of them are listed, so that one round mends them.

    Args:
        where: the folder or archive concerned.
        problems: one line per problem, each naming its file.
        remedy: what to do about them.
    """

    def __init__(self, where: str | Path, problems: Sequence[str], remedy: str) -> None:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(where, f"{count}:\n{lines}\n", "none", remedy)
        self.problems = list(problems)
        self.args = (str(where), list(problems), remedy)

    def __str__(self) -> str:
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        plural = "s" if len(self.problems) != 1 else ""
        return f"{self.where}: {len(self.problems)} problem{plural}:\n{lines}\n{self.remedy}"
