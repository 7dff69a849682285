"""How figures are drawn and saved: one look for all of them, the same bytes for the same data.

matplotlib is imported when the first figure is drawn. Neither pyplot nor any global setting is
touched: figures are made with the object API under :func:`matplotlib.rc_context`.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.results import TASK, DatasetInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#006BBB",  # blue
    "#AD4431",  # brick
    "#3D7348",  # green
    "#916083",  # plum
    "#D36E00",  # orange
    "#00799B",  # petrol
    "#AF76D0",  # violet
    "#919191",  # grey
    "#A2BBFF",  # light blue
    "#D99281",  # light brick
    "#7CC077",  # light green
    "#F29FCF",  # light plum
    "#7A5200",  # dark orange
    "#00C9F6",  # light petrol
    "#6C3FBD",  # dark violet
    "#575757",  # dark grey
)
"""Of what is no method of a run: the networks, domains and factors of a measured gap.

Eight hues, then the same hues lighter or darker. The first eight have a contrast of 3 or more to
white and to the dark page, and stay apart for people who see no green; all 16 stay apart for normal
vision. Methods have the colours of :mod:`reports.looks`. tests/reports/test_colours.py has the
distances.
"""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Of the same."""

INK = "#22262b"
"""Text and axes; becomes the page's own text colour where a figure is inlined."""

SOFT = "#5a626c"
"""Remarks; becomes the page's own colour for them."""

RULE = "#d9dce0"
"""Grid lines; becomes the page's own rule colour."""

PAPER = "#ffffff"
"""Background of the files; becomes the page's own background where a figure is inlined."""

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
        pdf: the file's bytes.
    """

    name: str
    title: str
    text: str
    svg: str
    png: bytes
    pdf: bytes

    def inline(self) -> str:
        """The SVG for an HTML page: no prologue, ids of its own, colours of the page."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = re.sub(r"\bid=\"", f'id="{self.name}-', svg)
        svg = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{self.name}-", svg)
        svg = svg.replace(INK, "currentColor").replace(RULE, "var(--rule)")
        svg = svg.replace(SOFT, "var(--soft)").replace(PAPER, "var(--paper)")
        # The size comes from the page; the shape stays in viewBox.
        head, rest = svg.split(">", 1)
        head = re.sub(r"\s(width|height)=\"[^\"]*\"", "", head)
        return f'{head} role="img" aria-labelledby="{self.name}-caption">{rest}'


def divide_groups(axes: Axes, groups: Sequence[str]) -> None:
    """Lines across a figure of one row per method, where a group ends and another begins."""
    for row in range(1, len(groups)):
        if groups[row] != groups[row - 1]:
            axes.axhline(row - 0.5, color=RULE, linewidth=1.5)


def below_the_line(groups: Sequence[str]) -> str:
    """What a caption says of such lines; nothing where there is none."""
    below = [group for group in dict.fromkeys(groups) if group]
    return f" Below the line: {quoted(below)}." if below else ""


def quoted(groups: Sequence[str]) -> str:
    """``"“one”, then “another”"``."""
    return ", then ".join(f"“{group}”" for group in groups)


def score_limits(axes: Axes, lowest: Sequence[float], highest: Sequence[float]) -> None:
    """A readable range of scores that does not blow up small differences and clips no error bar.

    Args:
        axes: where.
        lowest: scores, less what their error bars reach down.
        highest: scores, plus what their error bars reach up.
    """
    finite = [value for value in (*lowest, *highest) if math.isfinite(value)]
    if not finite:
        return
    low, high = min(finite), max(finite)
    middle, span = (low + high) / 2, max(high - low, 10) * 1.2
    axes.set_ylim(
        max(middle - span / 2, min(low, 0) - 1), min(middle + span / 2, max(high, 100) + 1)
    )


def slug(dataset: DatasetInfo) -> str:
    """A dataset's name for files and anchors."""
    words = [dataset.dataset.removesuffix(f"-{dataset.split}"), dataset.split]
    words += [dataset.task] if dataset.task != TASK else []
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def _legend_columns(labels: Sequence[str]) -> int:
    longest = max((len(label) for label in labels), default=1)
    return 3 if longest <= 16 else 2 if longest <= 30 else 1


def legend_rows(labels: Sequence[str]) -> int:
    """Rows that a legend of these labels needs."""
    return -(-len(labels) // _legend_columns(labels))


def draw_figure(
    kind: str,
    dataset: DatasetInfo,
    title: str,
    text: str,
    draw: Callable[[Axes], None],
    height: float,
    legend: Sequence[str] = (),
    name_points: Callable[[Axes], None] | None = None,
) -> Drawing:
    """Draw a figure of one pair of axes on a dataset, as :func:`sheet` does.

    ``name_points`` writes names beside points, for which it has to know the final layout: it is
    called when all that takes room is there.
    """

    def draw_sheet(figure: Figure) -> None:
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
        if name_points is not None:
            name_points(axes)

    return sheet(f"{kind}-{slug(dataset)}", title, text, height, draw_sheet)


def sheet(
    name: str, title: str, text: str, height: float, draw: Callable[[Figure], None]
) -> Drawing:
    """Draw a figure of any number of axes; the same data give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The salt makes ids repeatable and, differing per figure, unique on a page of several.
    settings: Any = {**RC, "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
        figure = Figure(figsize=(WIDTH, height), layout=layout)
        FigureCanvasAgg(figure)
        draw(figure)
        # Laid out once: it takes longer than drawing, and all formats shall look alike.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return Drawing(
            name,
            title,
            text,
            _saved(figure, "svg", "Date", "Creator", "Format", "Type").decode("utf-8"),
            _saved(figure, "png", "Software"),
            _saved(figure, "pdf", "CreationDate", "Creator", "Producer"),
        )


def _saved(figure: Figure, form: str, *left_out: str) -> bytes:
    """A figure as a file without the metadata that would differ from run to run."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, facecolor=PAPER, metadata=dict.fromkeys(left_out))
    return buffer.getvalue()
