"""Tables as files: CSV and Parquet with everything; Markdown and LaTeX with the essence."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pandas as pd

from reports.lines import (
    Line,
    Number,
    below,
    count,
    has_seen,
    hours,
    in_groups,
    lines_of,
    megabytes,
    seconds,
    several_origins,
)
from reports.regimes import label_costs
from reports.results import PROTOCOL, ROW, SEEN_SCORES, Results, sequence_table


def full_table(results: Results) -> pd.DataFrame:
    """Everything per (method, variant, dataset, split, seed), full precision, scores in percent."""
    first = [*ROW, "J", "F", "J&F", "J_recall", "J_decay", "F_recall", "F_decay", "sequences"]
    first += ["objects", "annotated_masks", "annotation_hours", "fps", "peak_memory_mb"]
    first += ["parameters", *PROTOCOL]
    rest = [column for column in results.table.columns if column not in first]
    table = results.table[first + rest]
    # Counts with gaps would otherwise be written as 8.0.
    whole = ["annotated_masks", "parameters", "stride", "top_k", "training_steps"]
    whole += ["images", "videos", "video_masks", "images_and_frames"]
    counts = {name: pd.to_numeric(table[name]).astype("Int64") for name in whole}
    costs = ", ".join(f"{c.kind} {c.seconds:g}" for c in label_costs(results.label_seconds))
    return table.assign(**counts, label_seconds=costs)


def table_csv(results: Results) -> str:
    """:func:`full_table` as CSV."""
    return full_table(results).to_csv(index=False, lineterminator="\n")


def table_parquet(results: Results) -> bytes:
    """:func:`full_table` as Parquet; columns that hold numbers and words hold words."""
    table = full_table(results)
    mixed = [str(name) for name in table if table[name].dtype == object]
    words = {name: table[name].map(str, na_action="ignore").astype("string") for name in mixed}
    buffer = io.BytesIO()
    table.assign(**words).to_parquet(buffer, index=False)
    return buffer.getvalue()


def per_sequence_csv(results: Results) -> str:
    """One row per job with its means over objects, its cost, its status and the reason."""
    return sequence_table(results).to_csv(index=False, lineterminator="\n")


def per_object_csv(results: Results) -> str:
    """One row per object of every finished job."""
    return results.objects.to_csv(index=False, lineterminator="\n")


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
        heads += ["Source"] if several_origins(lines) else []
        parts.append(f"### {_md(dataset.label)} ({count(dataset)})\n")
        parts.append("| " + " | ".join(heads) + " |")
        left = ("Method", "Labels", "Source")
        rule = "|".join(" --- " if head in left else " ---: " for head in heads)
        parts.append(f"|{rule}|")
        for group, members in in_groups(lines):
            if group:
                parts.append(f"| *{_md(group)}* |" + " |" * (len(heads) - 1))
            parts += [_markdown_line(line, names, several_origins(lines)) for line in members]
        parts.append("")
        parts += [f"{_md(remark)}\n" for remark in below(results, dataset, lines)]
    return "\n".join(parts)


def _markdown_line(line: Line, names: Sequence[str], origins: bool) -> str:
    cells = [_md(line.info.label), _md(line.info.summary)]
    cells.append(hours(line.info.annotation_hours))
    if line.remark:
        cells += [line.remark, *[""] * (len(names) - 1)]
    else:
        cells += [_bold_md(line.numbers[name]) for name in names]
        cells[3] = f"{cells[3]} {line.mark}".strip()
    cells.append(seconds(line.numbers["seconds_per_frame"].mean))
    cells.append(megabytes(line.numbers["peak_memory_mb"].mean))
    cells += [line.origin] if origins else []
    return "| " + " | ".join(cells) + " |"


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
        origins = several_origins(lines)
        _, names = _headers(seen)
        parts.append(f"% {dataset.label.replace(chr(10), ' ')} ({count(dataset)})")
        columns = "ll" + "r" * (len(names) + 2) + ("l" if origins else "")
        parts.append(rf"\begin{{tabular}}{{{columns}}}")
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
                r"\multicolumn{3}{c}{$\mathcal{F}$} & " + (r"& \\" if origins else r"\\")
            )
            parts.append(r"\cmidrule(lr){5-7} \cmidrule(lr){8-10}")
            three = [r"Mean$\uparrow$", r"Recall$\uparrow$", r"Decay$\downarrow$"]
            heads = [r"$\mathcal{J}\&\mathcal{F}\uparrow$", *three, *three]
        titles = ["Method", "Labels", r"Annotation", *heads, r"s/frame$\downarrow$"]
        titles += ["Source"] if origins else []
        parts.append(" & ".join(titles) + r" \\")
        parts.append(r"\midrule")
        for group, members in in_groups(lines):
            if group:
                heading = rf"\textit{{{latex_escape(group)}}}"
                parts.append(rf"\midrule \multicolumn{{{len(columns)}}}{{l}}{{{heading}}} \\")
            parts += [_latex_line(line, names, origins) for line in members]
        parts += [r"\bottomrule", r"\end{tabular}"]
        parts += [f"% {remark}" for remark in below(results, dataset, lines)]
        parts.append("")
    return "\n".join(parts)


def _latex_line(line: Line, names: Sequence[str], origins: bool) -> str:
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
    cells += [latex_escape(line.origin)] if origins else []
    return " & ".join(cells) + r" \\"
