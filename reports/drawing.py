"""How figures are drawn and saved: one look for all of them, the same bytes for the same data.

matplotlib is imported when the first figure is drawn. Neither pyplot nor any global setting is
touched: figures are made with the object API under :func:`matplotlib.rc_context`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reports.results import TASK, DatasetInfo, Results

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


def score_limits(axes: Axes, values: pd.Series) -> None:
    """A readable range of scores that does not blow up small differences."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low):
        return
    middle, span = (low + high) / 2, max(high - low, 10) * 1.2
    axes.set_ylim(max(middle - span / 2, -1), min(middle + span / 2, 101))


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
) -> Drawing:
    """Draw into a fresh figure and save it in all formats; the same data give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    name = f"{kind}-{slug(dataset)}"
    # The salt makes ids repeatable and, differing per figure, unique on a page of several.
    settings: Any = {**RC, "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
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
        # Laid out once: it takes longer than drawing, and all formats shall look alike.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return Drawing(name, title, text, _svg(figure), _png(figure), _pdf(figure))


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", facecolor=PAPER, metadata=nothing)
    return buffer.getvalue().decode("utf-8")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def _pdf(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    nothing = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(buffer, format="pdf", facecolor=PAPER, metadata=nothing)
    return buffer.getvalue()
