"""The lines of the tables that people read: a method's figures over its seeds, and remarks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from reports.regimes import changed_costs
from reports.results import COSTS, SCORES, SEEN_SCORES, DatasetInfo, MethodInfo, Results

MISSING = "–"
"""What a table shows where there is no number."""


@dataclass(frozen=True)
class Number:
    """A figure of a shown table, over the seeds of its row.

    Attributes:
        mean: mean over seeds; NaN where there is none.
        sd: sample standard deviation over seeds; NaN with fewer than two.
        best: whether it is significantly better than that of every other complete row of its group.
    """

    mean: float
    sd: float = math.nan
    best: bool = False

    def text(self, decimals: int = 1) -> str:
        """``"55.2"`` or ``"55.2 ± 0.4"``."""
        if math.isnan(self.mean):
            return MISSING
        if math.isnan(self.sd):
            return f"{self.mean:.{decimals}f}"
        return f"{self.mean:.{decimals}f} ± {self.sd:.{decimals}f}"


@dataclass(frozen=True)
class Line:
    """One line of a shown table: a method (variant) on a dataset, over its seeds.

    Attributes:
        info: the method.
        dataset: the dataset.
        seeds: the seeds, ascending.
        seeds_scored: how many of them have scores.
        identical: whether several have, all the same, as of a deterministic method with one file of
            weights; then they count once.
        scored: scored sequences, summed over seeds.
        done: finished sequences, summed over seeds.
        expected: sequences there should be, summed over seeds.
        failed: failed jobs.
        skipped: skipped jobs; a method skipped as a whole counts as one.
        reason: why it was skipped, where there is one reason and nothing else.
        numbers: by column name.
    """

    info: MethodInfo
    dataset: DatasetInfo
    seeds: tuple[int, ...]
    seeds_scored: int
    identical: bool
    scored: int
    done: int
    expected: int
    failed: int
    skipped: int
    reason: str = ""
    numbers: dict[str, Number] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Whether its scores leave out sequences that they should hold."""
        return self.dataset.scored and self.scored < self.expected

    @property
    def seeds_counted(self) -> int:
        """Over how many seeds its figures are means; without scores, how many were planned."""
        return 1 if self.identical else self.seeds_scored or len(self.seeds)

    @property
    def mark(self) -> str:
        """``"(18/20)"`` where partial, else empty."""
        return f"({self.scored}/{self.expected})" if self.partial else ""

    @property
    def remark(self) -> str:
        """What stands in place of a score where there is none."""
        if not self.dataset.scored and self.done:
            plural = "s" if self.done != 1 else ""
            return f"no public ground truth: {self.done} sequence{plural} segmented"
        if self.scored:
            return ""
        if self.reason:
            return f"skipped: {self.reason}"
        parts = [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        rest = self.expected - self.failed - self.skipped - self.done
        parts += [f"{rest} not run"] if rest > 0 else []
        parts += [f"{self.done} without scores"] if self.done else []
        return "no result: " + ", ".join(parts)

    @property
    def origin(self) -> str:
        """Where its figures come from; a dash where there are none."""
        return self.info.origin if self.done else MISSING

    @property
    def outcome(self) -> str:
        """A word or two for a narrow column where there is no score."""
        if not self.dataset.scored and self.done:
            return "not scored"
        if self.skipped:
            return "skipped"
        return "failed" if self.failed else "no result"

    def score(self, name: str = "J&F") -> str:
        """A score with its mark: ``"55.2 (18/20)"``."""
        if self.remark:
            return MISSING
        return f"{self.numbers[name].text()} {self.mark}".strip()


def lines_of(results: Results, dataset: DatasetInfo) -> list[Line]:
    """The lines of one dataset's table: group after group, in each best J&F first.

    Lines without a score come last in their group.
    """
    shown = [*SCORES, *SEEN_SCORES, *COSTS]
    lines = []
    for info in results.methods.values():
        rows = rows_of(results, dataset, info)
        if not len(rows):
            continue
        identical = seeds_agree(rows)
        lines.append(
            Line(
                info,
                dataset,
                tuple(sorted(rows["seed"])),
                int((rows["sequences"] > 0).sum()),
                identical,
                int(rows["sequences"].sum()),
                int(rows["sequences_done"].sum()),
                int(rows["sequences_expected"].sum()),
                int(rows["failed"].sum()),
                int(rows["skipped"].sum()),
                _reason(dataset.rows(results.jobs), info),
                {name: over_seeds(rows[name], identical) for name in shown},
            )
        )
    lines.sort(key=lambda line: (results.groups.index(line.info.group), _worst_last(line)))
    return _mark_best(results, dataset, lines)


def _worst_last(line: Line) -> float:
    mean = line.numbers["J&F"].mean
    return -mean if math.isfinite(mean) else math.inf


def _reason(jobs: pd.DataFrame, info: MethodInfo) -> str:
    mine = jobs[(jobs["method"] == info.method) & (jobs["variant"] == info.variant)]
    reasons = mine["reason"].unique()
    only_skips = bool((mine["status"] == "skipped").all())
    return str(reasons[0]) if only_skips and len(reasons) == 1 else ""


def rows_of(results: Results, dataset: DatasetInfo, info: MethodInfo) -> pd.DataFrame:
    """A method's rows of ``results.table`` on a dataset, one per seed."""
    table = dataset.rows(results.table)
    return table[(table["method"] == info.method) & (table["variant"] == info.variant)]


def seeds_agree(rows: pd.DataFrame) -> bool:
    """Whether several seeds of one method on one dataset have scores, and all of them the same.

    So it is with a deterministic method and one file of weights. Every table counts such seeds
    once, and shows no deviation.

    Args:
        rows: of ``results.table``, one per seed.
    """
    scored = rows[rows["sequences"] > 0]
    return len(scored) > 1 and len(scored[SCORES].drop_duplicates()) == 1


def over_seeds(values: Sequence[float] | pd.Series, identical: bool) -> Number:
    """A figure over seeds; without a deviation where they agree, see :func:`seeds_agree`."""
    numbers = pd.to_numeric(pd.Series(values))
    deviation = math.nan if identical else float(numbers.std(ddof=1))
    return Number(float(numbers.mean()), deviation)


def _mark_best(results: Results, dataset: DatasetInfo, lines: list[Line]) -> list[Line]:
    """Mark numbers significantly better than those of every other complete line of the group."""
    if not dataset.scored:
        return lines
    for name, labels in results.comparisons[dataset.key].best.items():
        for line in lines:
            if line.info.label in labels:
                number = line.numbers[name]
                line.numbers[name] = Number(number.mean, number.sd, best=True)
    return lines


def in_groups(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """A table's lines by group, in their order; ``""`` has no heading."""
    groups = itertools.groupby(lines, key=lambda line: line.info.group)
    return [(group, list(members)) for group, members in groups]


def has_seen(lines: Sequence[Line]) -> bool:
    """Whether a table needs the seen and unseen columns."""
    return any(not math.isnan(line.numbers[n].mean) for line in lines for n in SEEN_SCORES[:4])


def bold_caption(results: Results, dataset: DatasetInfo) -> str:
    """What bold figures mean in the dataset's tables, or why there are none."""
    comparison = results.comparisons[dataset.key]
    if len(comparison.complete) < 2:
        return "Nothing is bold: a comparison needs two complete methods."
    others = "every other complete one" + (" of its group" if len(results.groups) > 1 else "")
    test = (
        f"significantly better than {others} at 5 % (paired bootstrap over sequences, so for these "
        "trainings; Holm's correction over all pairs of a column; J&F, J and F are tested)"
    )
    if any(comparison.best.values()):
        return f"Bold: {test}."
    return f"Nothing is bold: no method is {test}."


def remarks(lines: Sequence[Line]) -> list[str]:
    """Sentences below one dataset's table."""
    found = []
    if any(line.partial and line.scored for line in lines):
        found.append(
            "(n/m): only n of m sequences were scored, so the figure does not compare with "
            "complete rows."
        )
    counts = {line.info.label: line.seeds_counted for line in lines}
    return found + about_seeds(counts, [line.info.label for line in lines if line.identical])


def about_seeds(counts: Mapping[str, int], same: Sequence[str]) -> list[str]:
    """Over how many seeds figures are means, where it is several or was to be.

    Args:
        counts: how many seeds count, by a method's label.
        same: labels of the methods whose seeds all agree.
    """
    by_count: dict[int, list[str]] = {}
    for label, number in counts.items():
        by_count.setdefault(number, []).append(label)
    several = {count: by_count[count] for count in sorted(by_count) if count > 1}
    found = []
    if len(several) == 1:
        found.append(f"±: standard deviation over {next(iter(several))} seeds.")
    elif several:
        each = "; ".join(f"{count} of {', '.join(labels)}" for count, labels in several.items())
        found.append(f"±: standard deviation over seeds, {each}.")
    if same:
        found.append(f"All seeds gave the same scores, which count once: {', '.join(same)}.")
    return found


def several_origins(lines: Sequence[Line]) -> bool:
    """Whether a table needs a column for where its rows come from."""
    return len(_origins(lines)) > 1


def one_origin(lines: Sequence[Line]) -> list[str]:
    """The sentence that stands for such a column where all rows have one origin."""
    origins = _origins(lines)
    return [f"Source of all rows: {origins.pop()}."] if len(origins) == 1 else []


def _origins(lines: Sequence[Line]) -> set[str]:
    return {line.info.origin for line in lines if line.done}


def alarms(lines: Sequence[Line]) -> list[str]:
    """What trainings of a table's rows raised alarm about, a sentence per row."""
    found = []
    for line in lines:
        if line.info.alarms:
            first, *more = line.info.alarms
            rest = f" And {len(more)} more." if more else ""
            found.append(f"ALARM of the training of {line.info.label}: {first}.{rest}")
    return found


def below(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> list[str]:
    """All sentences below a dataset's table in a file or a terminal."""
    bold = [bold_caption(results, dataset)] if dataset.scored else []
    costs = changed_costs(results.label_seconds)
    return [*bold, *remarks(lines), *costs, *one_origin(lines), *alarms(lines)]


def hours(value: float) -> str:
    """Annotation hours for a table: ``"0"``, ``"0.4 h"``, ``"55.6 h"``, ``"1,317 h"``."""
    if math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    return f"{value:,.0f} h" if value >= 100 else f"{value:.1f} h"


def seconds(value: float) -> str:
    """Seconds per frame with three significant digits, down to a millisecond."""
    if 0 < value < 0.001:
        return "< 0.001"
    return MISSING if math.isnan(value) else f"{value:.3g}"


def megabytes(value: float) -> str:
    """Whole megabytes with thousands separators."""
    return MISSING if math.isnan(value) else f"{value:,.0f}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def count(dataset: DatasetInfo) -> str:
    """How many sequences a dataset has, in words."""
    number = len(dataset.sequences)
    return f"{number} sequence{'s' if number != 1 else ''}"
