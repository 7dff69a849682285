"""Figures of a report, drawn from :class:`reports.results.Results`; one look for all of them.

matplotlib and seaborn are imported when the first figure is drawn. Neither pyplot nor any global
setting is touched: figures are made with the object API under :func:`matplotlib.rc_context`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reports.results import TASK, DatasetInfo, MethodInfo, Results
from reports.tables import Line, lines_of, remarks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # green
    "#CC79A7",  # pink
    "#B07D00",  # ochre, a darker take on the orange of Okabe and Ito
    "#3D9BD1",  # sky blue, darkened for contrast on white
    "#7A5BB5",  # violet
    "#7F7F7F",  # grey
)
"""After Okabe and Ito's set for all kinds of colour vision; each reads on white and on black."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Seven markers against eight colours: the pair repeats only after 56 methods."""

DASHES = ("", (4, 1.5), (1, 1), (5, 1, 1, 1), (7, 2), (2, 2))

INK = "#22262b"
"""Text and axes; becomes the page's own text colour where a figure is inlined."""

RULE = "#d9dce0"
"""Grid lines; becomes the page's own rule colour."""

PAPER = "#ffffff"
"""Background of the files; left out where a figure is inlined."""

BINS = 10
"""Parts of a video in the figure over time: tenths, so that short videos fill every part."""

MOST_NAMED = 40
"""With more sequences than this, names would not be legible: a distribution is drawn instead."""

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "savefig.dpi": 200,
}

WIDTH = 5.0
"""Inches. Narrow on purpose: shrunk to a phone's width, 9 pt text stays legible."""


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: file name without suffix.
        title: heading.
        text: what it shows, for people who do not see it and as a caption.
        svg: the file's text.
        png: the file's bytes.
    """

    name: str
    title: str
    text: str
    svg: str
    png: bytes

    def inline(self) -> str:
        """The SVG for an HTML page: no prologue, ids of its own, colours of the page."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = re.sub(r"\bid=\"", f'id="{self.name}-', svg)
        svg = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{self.name}-", svg)
        svg = svg.replace(INK, "currentColor").replace(RULE, "var(--rule)")
        svg = svg.replace(f"fill: {PAPER}", "fill: none")
        # The size comes from the page; the shape stays in viewBox.
        head, rest = svg.split(">", 1)
        head = re.sub(r"\s(width|height)=\"[^\"]*\"", "", head)
        return f'{head} role="img" aria-labelledby="{self.name}-caption">{rest}'


@dataclass(frozen=True)
class Style:
    """How one method looks in every figure."""

    colour: str
    marker: str
    dash: Any


def styles(results: Results) -> dict[str, Style]:
    """A look per method label, by its place among the sorted labels."""
    return {
        info.label: Style(
            COLOURS[index % len(COLOURS)],
            MARKERS[index % len(MARKERS)],
            DASHES[index % len(DASHES)],
        )
        for index, info in enumerate(results.methods.values())
    }


def draw_all(results: Results) -> list[Drawing]:
    """Every figure of every dataset that has scores."""
    drawings = []
    for dataset in results.datasets.values():
        if not dataset.scored:
            continue
        lines = [line for line in lines_of(results, dataset) if line.scored]
        drawings.append(per_sequence(results, dataset))
        drawings.append(over_time(results, dataset, lines))
        drawings.append(against_labels(results, dataset, lines))
        if any(np.isfinite(line.numbers["seconds_per_frame"].mean) for line in lines):
            drawings.append(against_cost(results, dataset, lines))
    return drawings


def per_sequence(results: Results, dataset: DatasetInfo) -> Drawing:
    """J&F of every sequence and method; a distribution where there are too many to name."""
    scores = dataset.rows(results.objects).copy()
    scores["label"] = _labels(scores, results)
    per_method = scores.groupby(["sequence", "label"], as_index=False)["J&F"].mean()
    order = per_method.groupby("sequence")["J&F"].mean().sort_values(ascending=False).index
    named = len(order) <= MOST_NAMED
    looks = styles(results)
    present = [label for label in looks if label in set(per_method["label"])]

    def dots(axes: Axes) -> None:
        import seaborn

        rows = {name: place for place, name in enumerate(order)}
        ends = per_method.groupby("sequence")["J&F"].agg(["min", "max"]).reindex(order)
        axes.hlines(range(len(order)), ends["min"], ends["max"], color=RULE, linewidth=2.5)
        for label in present:
            mine = per_method[per_method["label"] == label]
            seaborn.scatterplot(
                x=mine["J&F"],
                y=mine["sequence"].map(rows),
                ax=axes,
                color=looks[label].colour,
                marker=looks[label].marker,
                s=34,
                linewidth=0,
                alpha=0.9,
                label=label,
                legend=False,
                zorder=3,
            )
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel="J&F (%)", ylabel="", xlim=(-2, 102))

    def distribution(axes: Axes) -> None:
        import seaborn

        for label in present:
            mine = per_method[per_method["label"] == label]
            seaborn.ecdfplot(
                x=mine["J&F"],
                ax=axes,
                color=looks[label].colour,
                dashes=looks[label].dash or (None, None),
                label=label,
                complementary=True,
                stat="percent",
            )
        axes.set(xlabel="J&F (%)", ylabel="sequences above it (%)", xlim=(0, 100), ylim=(0, 100))

    if named:
        height = 1.0 + 0.2 * len(order) + 0.2 * _legend_rows(present)
        text = (
            f"J&F of each sequence of {dataset.label}, easiest on top (mean over its objects); "
            "the grey bar spans the methods."
        )
    else:
        height = 3.4 + 0.2 * _legend_rows(present)
        text = (
            f"Share of the {len(order)} sequences of {dataset.label} whose J&F (mean over its "
            "objects) is above the value on the horizontal axis."
        )
    title = f"Score per sequence, {dataset.label}"
    draw = dots if named else distribution
    return _drawing("per-sequence", dataset, title, text, draw, height, legend=present)


def over_time(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """Mean J&F per tenth of the video, per method."""
    means = time_table(results, dataset)
    looks = styles(results)
    names = {}
    for line in lines:
        decay = (line.numbers["J_decay"].mean + line.numbers["F_decay"].mean) / 2
        minus = "−" if decay <= -0.05 else ""
        names[line.info.label] = f"{line.info.label} (decay {minus}{abs(decay):.1f})"

    def draw(axes: Axes) -> None:
        import seaborn

        for label, name in names.items():
            mine = means[means["label"] == label]
            seaborn.lineplot(
                x=mine["position"],
                y=mine["J&F"],
                ax=axes,
                color=looks[label].colour,
                marker=looks[label].marker,
                markeredgewidth=0,
                markersize=5,
                linewidth=1.6,
                label=name,
                legend=False,
                errorbar=None,
            )
            axes.lines[-1].set_dashes(looks[label].dash or (None, None))
        axes.set(xlabel="position in the video (%)", ylabel="J&F (%)", xlim=(0, 100))
        axes.set_xticks(range(0, 101, 20))
        _score_limits(axes, means["J&F"])

    text = (
        f"Mean J&F over the objects of {dataset.label} in each tenth of the video. Decay is the "
        "first quarter's mean minus the last quarter's, averaged over J and F."
    )
    title = f"Score over time, {dataset.label}"
    shown = list(names.values())
    height = 3.2 + 0.2 * _legend_rows(shown)
    return _drawing("over-time", dataset, title, text, draw, height, legend=shown)


def time_table(results: Results, dataset: DatasetInfo) -> pd.DataFrame:
    """Mean J&F in percent per method label and tenth of the video.

    The position of a frame is its index over the last scored index of its sequence. Each object
    counts alike in every tenth it has frames in.

    Returns:
        Columns ``label``, ``position`` (middle of the tenth, in percent), ``J&F``.
    """
    scores = dataset.rows(results.scores)
    last = scores.groupby("sequence")["frame"].transform("max").clip(lower=1)
    part = (scores["frame"] / last * BINS).astype(int).clip(upper=BINS - 1)
    scores = scores.assign(label=_labels(scores, results), position=(part + 0.5) * 100 / BINS)
    keys = ["label", "seed", "sequence", "object", "position"]
    # First over the frames of each metric, then J with F, then over objects.
    means = scores.groupby([*keys, "metric"])["value"].mean().groupby(keys).mean()
    means = 100 * means.groupby(["label", "position"]).mean()
    return means.rename("J&F").reset_index()


def against_cost(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """J&F against seconds per frame."""
    points = [(line, line.numbers["seconds_per_frame"].mean) for line in lines]

    def scale(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_xscale("log")
        values = [x for _, x in points if np.isfinite(x)]
        low, high = min(values), max(values)
        axes.set_xlim(low / 2, high * 2)
        # Over a short range, powers of ten alone would leave the axis with a label or none.
        steps = (1,) if high / low > 100 else (1, 2, 5)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds per frame (log scale)")

    text = f"J&F on {dataset.label} against inference time per frame; up and left is better."
    title = f"Score against time, {dataset.label}"
    return _points("against-cost", dataset, title, text, points, scale, styles(results))


def against_labels(results: Results, dataset: DatasetInfo, lines: Sequence[Line]) -> Drawing:
    """J&F against the estimated hours of annotation that training consumed."""
    points = [(line, line.info.annotation_hours) for line in lines]

    def scale(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axes.set_xscale("symlog", linthresh=1, linscale=0.6)
        high = max(x for _, x in points)
        axes.set_xlim(-0.25, max(high * 3, 10))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("hours of annotation (estimate; log scale from 1 h)")

    text = (
        f"J&F on {dataset.label} against the estimated hours of human annotation behind each "
        "method's weights, pretraining excluded; up and left is better."
    )
    title = f"What labels bought, {dataset.label}"
    return _points("against-labels", dataset, title, text, points, scale, styles(results))


def _points(
    kind: str,
    dataset: DatasetInfo,
    title: str,
    text: str,
    points: Sequence[tuple[Line, float]],
    scale: Callable[[Axes], None],
    looks: dict[str, Style],
) -> Drawing:
    """A scatter plot with one named point per method."""
    shown = [(line, x) for line, x in points if np.isfinite(x)]
    partial = any(line.partial for line, _ in shown)

    def draw(axes: Axes) -> None:
        import seaborn

        for line, x in shown:
            number = line.numbers["J&F"]
            look = looks[line.info.label]
            seaborn.scatterplot(
                x=[x],
                y=[number.mean],
                ax=axes,
                marker=look.marker,
                s=60,
                legend=False,
                zorder=3,
                # A hollow marker says that sequences are missing.
                facecolor="none" if line.partial else look.colour,
                edgecolor=look.colour,
                linewidth=1.5,
                clip_on=False,
                label=f"{line.info.label} {line.mark}".strip(),
            )
            if np.isfinite(number.sd):
                axes.errorbar(x, number.mean, yerr=number.sd, color=look.colour, capsize=3)
        axes.set_ylabel("J&F (%)")
        _score_limits(axes, pd.Series([line.numbers["J&F"].mean for line, _ in shown]))
        scale(axes)

    if partial:
        text += f" Hollow: partial. {remarks([line for line, _ in shown])[0]}"
    labels = [f"{line.info.label} {line.mark}".strip() for line, _ in shown]
    height = 3.0 + 0.2 * _legend_rows(labels)
    return _drawing(kind, dataset, title, text, draw, height, legend=labels)


def _score_limits(axes: Axes, values: pd.Series) -> None:
    """A readable range of scores that does not blow up small differences."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low):
        return
    middle, span = (low + high) / 2, max(high - low, 10) * 1.2
    axes.set_ylim(max(middle - span / 2, -1), min(middle + span / 2, 101))


def _labels(table: pd.DataFrame, results: Results) -> list[str]:
    methods: dict[tuple[str, str], MethodInfo] = dict(results.methods)
    pairs = zip(table["method"], table["variant"], strict=True)
    return [methods[method, variant].label for method, variant in pairs]


def slug(dataset: DatasetInfo) -> str:
    """A dataset's name for files and anchors."""
    words = [dataset.dataset.removesuffix(f"-{dataset.split}"), dataset.split]
    words += [dataset.task] if dataset.task != TASK else []
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def _legend_columns(labels: Sequence[str]) -> int:
    longest = max((len(label) for label in labels), default=1)
    return 3 if longest <= 16 else 2 if longest <= 30 else 1


def _legend_rows(labels: Sequence[str]) -> int:
    return -(-len(labels) // _legend_columns(labels))


def _drawing(
    kind: str,
    dataset: DatasetInfo,
    title: str,
    text: str,
    draw: Callable[[Axes], None],
    height: float,
    legend: Sequence[str] = (),
) -> Drawing:
    """Draw into a fresh figure and save it as SVG and PNG; the same data give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    name = f"{kind}-{slug(dataset)}"
    # The salt makes ids repeatable and, differing per figure, unique on a page of several.
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure = Figure(
            figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
        )
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        # A figure that travels alone must still say what it was measured on.
        axes.set_title(dataset.label)
        if legend:
            figure.legend(
                *axes.get_legend_handles_labels(),
                loc="outside lower left",
                ncols=_legend_columns(legend),
                handlelength=2.2,
                columnspacing=1.4,
            )
        return Drawing(name, title, text, _svg(figure), _png(figure))


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", facecolor=PAPER, metadata=nothing)
    return buffer.getvalue().decode("utf-8")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()
