"""Tables: CSV with everything; Markdown, LaTeX and terminal with the essence."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from reports.results import (
    COSTS,
    ENTRY,
    PROTOCOL,
    ROW,
    SCORES,
    SEEN_SCORES,
    DatasetInfo,
    MethodInfo,
    Results,
    sequence_table,
)

if TYPE_CHECKING:
    from rich.console import Console

    from bench.store import Run

MISSING = "–"
"""What a table shows where there is no number."""


@dataclass(frozen=True)
class Number:
    """A figure of a shown table, over the seeds of its row.

    Attributes:
        mean: mean over seeds; NaN where there is none.
        sd: sample standard deviation over seeds; NaN with fewer than two.
        best: whether it is significantly better than that of every other complete row.
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
    """The lines of one dataset's table, in the order of the methods' labels."""
    table = dataset.rows(results.table)
    shown = [*SCORES, *SEEN_SCORES, *COSTS]
    lines = []
    for (method, variant), info in results.methods.items():
        rows = table[(table["method"] == method) & (table["variant"] == variant)]
        if not len(rows):
            continue
        lines.append(
            Line(
                info,
                dataset,
                tuple(sorted(rows["seed"])),
                int(rows["sequences"].sum()),
                int(rows["sequences_done"].sum()),
                int(rows["sequences_expected"].sum()),
                int(rows["failed"].sum()),
                int(rows["skipped"].sum()),
                _reason(dataset.rows(results.jobs), info),
                {name: _over_seeds(rows[name]) for name in shown},
            )
        )
    return _mark_best(results, dataset, lines)


def _reason(jobs: pd.DataFrame, info: MethodInfo) -> str:
    mine = jobs[(jobs["method"] == info.method) & (jobs["variant"] == info.variant)]
    reasons = mine["reason"].unique()
    only_skips = bool((mine["status"] == "skipped").all())
    return str(reasons[0]) if only_skips and len(reasons) == 1 else ""


def _over_seeds(values: pd.Series) -> Number:
    numbers = pd.to_numeric(values)
    return Number(float(numbers.mean()), float(numbers.std(ddof=1)))


def _mark_best(results: Results, dataset: DatasetInfo, lines: list[Line]) -> list[Line]:
    """Mark the numbers whose method is significantly better than every other complete one."""
    if not dataset.scored:
        return lines
    for name, label in results.comparisons[dataset.key].best.items():
        for line in lines:
            if line.info.label == label:
                number = line.numbers[name]
                line.numbers[name] = Number(number.mean, number.sd, best=True)
    return lines


def bold_caption(results: Results, dataset: DatasetInfo) -> str:
    """What bold figures mean in the dataset's tables, or why there are none."""
    comparison = results.comparisons[dataset.key]
    if len(comparison.complete) < 2:
        return "Nothing is bold: a comparison needs two complete methods."
    test = (
        "significantly better than every other complete one at 5 % (paired bootstrap over "
        "sequences, Holm's correction over all pairs of a column; J&F, J and F are tested)"
    )
    if any(comparison.best.values()):
        return f"Bold: {test}."
    return f"Nothing is bold: no method is {test}."


def has_seen(lines: Sequence[Line]) -> bool:
    """Whether a table needs the seen and unseen columns."""
    return any(not math.isnan(line.numbers[n].mean) for line in lines for n in SEEN_SCORES[:4])


def table_csv(results: Results) -> str:
    """Everything per (method, variant, dataset, split, seed), full precision, scores in percent."""
    first = [*ROW, "J", "F", "J&F", "J_recall", "J_decay", "F_recall", "F_decay", "sequences"]
    first += ["objects", "annotated_masks", "annotation_hours", "fps", "peak_memory_mb"]
    first += ["parameters", *PROTOCOL]
    rest = [column for column in results.table.columns if column not in first]
    table = results.table[first + rest]
    # Counts with gaps would otherwise be written as 8.0.
    whole = ["annotated_masks", "parameters", "training_images", "stride", "top_k"]
    whole += ["images", "videos", "video_masks", "images_and_frames"]
    counts = {name: pd.to_numeric(table[name]).astype("Int64") for name in whole}
    return table.assign(**counts).to_csv(index=False, lineterminator="\n")


def per_sequence_csv(results: Results) -> str:
    """One row per job with its means over objects, its cost, its status and the reason."""
    return sequence_table(results).to_csv(index=False, lineterminator="\n")


def per_object_csv(results: Results) -> str:
    """One row per object of every finished job."""
    return results.objects.to_csv(index=False, lineterminator="\n")


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


def _headers(seen: bool) -> tuple[list[str], list[str]]:
    """Column titles and score names of a shown table."""
    names = ["J&F", "J", "J_recall", "J_decay", "F", "F_recall", "F_decay"]
    titles = ["J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay"]
    if seen:
        names = ["G", *SEEN_SCORES[:4], "J&F"]
        titles = ["G", "J seen", "J unseen", "F seen", "F unseen", "J&F"]
    return titles, names


def table_markdown(results: Results) -> str:
    """One GitHub table per dataset; what is significantly best in its column is bold."""
    parts = []
    for dataset in results.datasets.values():
        lines = lines_of(results, dataset)
        titles, names = _headers(has_seen(lines))
        heads = ["Method", "Labels", "Annotation", *titles, "s/frame", "peak MB"]
        parts.append(f"### {_md(dataset.label)} ({_count(dataset)})\n")
        parts.append("| " + " | ".join(heads) + " |")
        parts.append("|" + "|".join([" --- ", " --- ", *[" ---: "] * (len(heads) - 2)]) + "|")
        for line in lines:
            cells = [_md(line.info.label), _md(line.info.summary)]
            cells.append(hours(line.info.annotation_hours))
            if line.remark:
                cells += [line.remark, *[""] * (len(names) - 1)]
            else:
                cells += [_bold_md(line.numbers[name]) for name in names]
                cells[3] = f"{cells[3]} {line.mark}".strip()
            cells.append(seconds(line.numbers["seconds_per_frame"].mean))
            cells.append(megabytes(line.numbers["peak_memory_mb"].mean))
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
        parts += [f"{remark}\n" for remark in [*_captions(results, dataset), *remarks(lines)]]
    return "\n".join(parts)


def remarks(lines: Sequence[Line]) -> list[str]:
    """Sentences below one dataset's table."""
    found = []
    if any(line.partial and line.scored for line in lines):
        found.append(
            "(n/m): only n of m sequences were scored, so the figure does not compare with "
            "complete rows."
        )
    if any(len(line.seeds) > 1 for line in lines):
        found.append("±: standard deviation over seeds.")
    return found


def _captions(results: Results, dataset: DatasetInfo) -> list[str]:
    return [bold_caption(results, dataset)] if dataset.scored else []


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _count(dataset: DatasetInfo) -> str:
    count = len(dataset.sequences)
    return f"{count} sequence{'s' if count != 1 else ''}"


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _bold_md(number: Number) -> str:
    return f"**{number.text()}**" if number.best else number.text()


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "\n": " ",
    "\0": "{}",
}


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    # Two hyphens would become a dash, which no option on a command line starts with.
    apart = re.sub(r"-(?=-)", "-\0", text)
    return "".join(_LATEX.get(character) or _typeset(character) for character in apart)


def _typeset(character: str) -> str:
    """Itself where pdfTeX's standard fonts have it, else its code point, so that files compile."""
    known = ord(character) < 0x100 or character in "“”‘’…"
    return character if known else f"U+{ord(character):04X}"


def table_latex(results: Results) -> str:
    """One booktabs ``tabular`` per dataset, to be input; no float, caption or preamble."""
    parts = ["% Needs \\usepackage{booktabs}. Scores in percent; arrows say which way is better."]
    for dataset in results.datasets.values():
        lines = lines_of(results, dataset)
        seen = has_seen(lines)
        _, names = _headers(seen)
        parts.append(f"% {dataset.label.replace(chr(10), ' ')} ({_count(dataset)})")
        parts.append(r"\begin{tabular}{ll" + "r" * (len(names) + 2) + "}")
        parts.append(r"\toprule")
        if seen:
            heads = [r"$\mathcal{G}\uparrow$"]
            heads += [
                rf"$\mathcal{{{metric}}}_\mathrm{{{which}}}\uparrow$"
                for metric in "JF"
                for which in ("seen", "unseen")
            ]
            heads.append(r"$\mathcal{J}\&\mathcal{F}\uparrow$")
        else:
            parts.append(
                r" & & & & \multicolumn{3}{c}{$\mathcal{J}$} & "
                r"\multicolumn{3}{c}{$\mathcal{F}$} & \\"
            )
            parts.append(r"\cmidrule(lr){5-7} \cmidrule(lr){8-10}")
            three = [r"Mean$\uparrow$", r"Recall$\uparrow$", r"Decay$\downarrow$"]
            heads = [r"$\mathcal{J}\&\mathcal{F}\uparrow$", *three, *three]
        titles = ["Method", "Labels", r"Annotation", *heads, r"s/frame$\downarrow$"]
        parts.append(" & ".join(titles) + r" \\")
        parts.append(r"\midrule")
        parts += [_latex_line(line, names) for line in lines]
        parts += [r"\bottomrule", r"\end{tabular}"]
        parts += [f"% {remark}" for remark in [*_captions(results, dataset), *remarks(lines)]]
        parts.append("")
    return "\n".join(parts)


def _latex_line(line: Line, names: Sequence[str]) -> str:
    cells = [latex_escape(line.info.label), latex_escape(line.info.summary)]
    cells.append(latex_escape(hours(line.info.annotation_hours)))
    if line.remark:
        cells.append(rf"\multicolumn{{{len(names)}}}{{l}}{{{latex_escape(line.remark)}}}")
    else:
        for name in names:
            number = line.numbers[name]
            text = latex_escape(number.text())
            cells.append(rf"\textbf{{{text}}}" if number.best else text)
        if line.mark:
            cells[3] += rf" {{\small {latex_escape(line.mark)}}}"
    cells.append(latex_escape(seconds(line.numbers["seconds_per_frame"].mean)))
    return " & ".join(cells) + r" \\"


def print_table(runs: Sequence[Run], console: Console) -> None:
    """Print the terminal table: labels, J&F, J, F, time and memory of every method and dataset."""
    # rich is not needed to write files.
    from rich import box
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from reports.combine import collect

    results = collect(runs)
    for dataset in results.datasets.values():
        lines = lines_of(results, dataset)
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            title=f"{escape(dataset.label)} ({_count(dataset)}), percent",
            title_justify="left",
            title_style="bold",
        )
        table.add_column("Method")
        table.add_column("Trained on", style="dim")
        names = ["G", "J&F", "J", "F"] if has_seen(lines) else ["J&F", "J", "F"]
        for name in (*names, "s/frame", "peak MB"):
            table.add_column(name, justify="right", no_wrap=True)
        for line in lines:
            cells = [Text(line.info.label), Text(line.info.summary)]
            if line.remark:
                # The reason in full stands below the tables.
                cells.append(Text(line.outcome, style="yellow"))
                cells += [Text(MISSING) for _ in names[1:]]
            else:
                for name in names:
                    number = line.numbers[name]
                    cells.append(Text(number.text(), style="bold" if number.best else ""))
                if line.mark:
                    cells[2].append(f" {line.mark}", style="yellow")
            cells.append(Text(seconds(line.numbers["seconds_per_frame"].mean)))
            cells.append(Text(megabytes(line.numbers["peak_memory_mb"].mean)))
            table.add_row(*cells)
        console.print(table)
        below = [*_captions(results, dataset), *remarks(lines)]
        if not dataset.scored:
            below += [f"{line.info.label}: {line.remark}." for line in lines if line.done]
        for remark in below:
            console.print(Text(remark, style="dim"))
        console.print()
    for note in results.notes:
        console.print(Text(note, style="dim"))
    _print_unfinished(results, console)


def _print_unfinished(results: Results, console: Console) -> None:
    """Say once per reason which jobs have no result."""
    from rich.text import Text

    reasons = results.unfinished.groupby([*ENTRY, "status", "reason"], sort=True)
    for (method, variant, *dataset, status, reason), group in reasons:
        count = len(group)
        head = f"{count} job{'s' if count != 1 else ''} {status}: "
        label = results.methods[str(method), str(variant)].label
        key = (str(dataset[0]), str(dataset[1]), str(dataset[2]))
        where = results.datasets[key].label
        text = Text(head, style="red" if status == "failed" else "yellow")
        text.append(f"{label} on {where}", style="default")
        names = some(sorted(set(group["sequence"]) - {""}))
        text.append(f" ({names})" if names else "", style="default")
        text.append(f": {reason}" if reason else "", style="dim")
        console.print(text)
