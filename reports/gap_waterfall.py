"""The waterfall of a gap: what a score gains as factors are made equal one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from reports.drawing import COLOURS, INK, SOFT, Drawing, sheet
from reports.gap_drawing import over_seeds, percent
from reports.gap_results import GapResults, Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def waterfall_figure(results: GapResults, network: Network) -> Drawing:
    """J on video as factors are made equal, in an order and in its reverse."""
    table = results.of("equalisation", network)
    table = over_seeds(table, ["order", "step", "factor"])
    orders = list(dict.fromkeys(table["order"]))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(orders), sharey=True, squeeze=False)[0]
        for axes, order in zip(grid, orders, strict=True):
            _draw_waterfall(axes, table[table["order"] == order], str(order))
        grid[0].set_ylabel("J on video, %")

    clean = table["value"].iloc[0]
    changes = table[table["step"] > 0]
    sure = changes[(changes["low"] > 0) | (changes["high"] < 0)]
    sure = sure[sure["change"] != 0]
    both = sure["factor"].value_counts()
    always = [str(name) for name, count in both.items() if count == len(orders)]
    verdict = "No factor changes J beyond its interval in both orders"
    if always:
        verdict = f"In both orders J changes beyond its interval with: {', '.join(always)}"
    last = table.groupby("order", sort=False)["value"].last().mean()
    images = results.of("equalisation", network)["images"]
    few = ""
    if images.min() < images.max():
        few = (
            f"Made equal in diversity, {images.min():.0f} of {images.max():.0f} images are left, "
            "the rest being near-duplicates to this network. "
        )
    text = (
        f"{verdict}. From {percent(clean)} to {percent(last)} with all made equal. {few}A linear "
        "probe is trained on images that were thinned out, blurred, darkened and resampled until "
        "they match the video frames; lines are 95 % intervals of the change over videos. Blur and "
        "darkness can only be added: where video is the sharper or brighter one, nothing changes."
    )
    question = f"Which differences explain the loss on video? ({network.title}, linear probe)"
    return sheet(f"equalisation-{network.slug}", question, text, 2.9, draw)


def _draw_waterfall(axes: Axes, rows: pd.DataFrame, order: str) -> None:
    before = 0.0
    names = []
    for x, (_, row) in enumerate(rows.iterrows()):
        value = 100 * row["value"]
        if row["step"] == 0:
            axes.plot([x - 0.35, x + 0.35], [value, value], color=INK, linewidth=2.2)
            names.append("clean")
        else:
            colour = COLOURS[2] if value >= before else COLOURS[1]
            axes.bar(x, value - before, 0.7, bottom=before, color=colour)
            axes.plot([x - 0.35, x + 0.35], [value, value], color=colour, linewidth=2.2)
            low, high = before + 100 * row["low"], before + 100 * row["high"]
            axes.plot([x, x], [low, high], color=INK, linewidth=1)
            axes.annotate(
                _change(row["change"]), (x, max(value, before, high)), (0, 3),
                textcoords="offset points", ha="center", fontsize=7.5,
            )  # fmt: skip
            axes.plot([x - 0.65, x - 0.35], [before, before], color=SOFT, linewidth=0.8)
            names.append(str(row["factor"]))
        before = value
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    title = "one order" if order == "fixed" else "reverse order"
    ends = rows["value"].iloc[0], rows["value"].iloc[-1]
    axes.set_title(f"{title}: {percent(ends[0])} → {percent(ends[1])}")
    axes.margins(y=0.15)
    axes.grid(visible=False, axis="x")


def _change(value: float) -> str:
    """A change in points; one that rounds to nothing has no sign."""
    return "0" if abs(value) < 5e-4 else percent(value, signed=True)
