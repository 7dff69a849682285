"""Figures of what single factors do, and embeddings; each answers the question it asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from bench.gap.curves import summarise
from reports.drawing import COLOURS, INK, MARKERS, SOFT, Drawing, sheet
from reports.gap_drawing import (
    DOMAIN_COLOURS,
    DOMAIN_DASHES,
    legend_below,
    number,
    over_seeds,
    percent,
)
from reports.gap_figures import factor_title
from reports.gap_results import GapResults, Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEVERITY_NOTE = (
    "Severities are those of the common corruptions, in pixels of the shrunk pictures. Motion blur "
    "runs along a line on images and along the measured motion on video, so its two curves have "
    "scales of their own."
)
COLUMNS = 3


def _panels(figure: Figure, factors: Sequence[str]) -> list[Axes]:
    """One axes per factor, three in a row, with common scales."""
    rows = -(-len(factors) // COLUMNS)
    grid = figure.subplots(
        rows, min(COLUMNS, len(factors)), sharex=True, sharey=True, squeeze=False
    )
    cells = list(grid.ravel())
    for axes in cells[len(factors) :]:
        axes.set_visible(False)
    for place, (axes, name) in enumerate(zip(cells, factors, strict=False)):
        axes.set_title(factor_title(name))
        axes.set_xticks(range(6))
        if place + COLUMNS >= len(factors):
            axes.set_xlabel("severity")
            axes.tick_params(labelbottom=True)
    return cells[: len(factors)]


def _line(
    axes: Axes, rows: pd.DataFrame, colour: str, dash: object, label: str, scale: float
) -> None:
    rows = rows.sort_values("severity")
    axes.plot(
        rows["severity"], scale * rows["value"], color=colour, linestyle=dash, label=label,
        marker="o", markersize=2.5,
    )  # fmt: skip
    if rows["low"].notna().all():
        axes.fill_between(
            rows["severity"], scale * rows["low"], scale * rows["high"], color=colour, alpha=0.12,
            linewidth=0,
        )  # fmt: skip


def _height(factors: Sequence[str], legend_rows: int) -> float:
    return 0.5 + 1.55 * -(-len(factors) // COLUMNS) + 0.2 * legend_rows


# --- scores ----------------------------------------------------------------------------------


def score_curve_figures(results: GapResults) -> list[Drawing]:
    """J against severity, a figure for the methods' own heads and one for probes."""
    table = results.tables["curves"]
    heads = [name for name in dict.fromkeys(table["measure"]) if name in HEADS]
    return [_score_figure(results, head) for head in heads]


HEADS = {"own foreground": "own", "linear probe": "probe"}


def _score_figure(results: GapResults, head: str) -> Drawing:
    networks = [one for one in results.networks if len(results.of("curves", one, measure=head))]
    table = results.tables["curves"]
    factors = list(dict.fromkeys(table["factor"]))

    def draw(figure: Figure) -> None:
        panels = _panels(figure, factors)
        for axes, factor in zip(panels, factors, strict=True):
            for network in networks:
                rows = results.of("curves", network, measure=head, factor=factor)
                rows = over_seeds(rows, ["domain", "severity"])
                for domain, part in rows.groupby("domain", sort=False):
                    colour = COLOURS[results.networks.index(network) % len(COLOURS)]
                    if len(networks) == 1:
                        colour = DOMAIN_COLOURS[str(domain)]
                    label = f"{network.title} on {domain}"
                    _line(axes, part, colour, DOMAIN_DASHES[str(domain)], label, 100)
            axes.set_ylim(0, 100)
        for axes in panels[::COLUMNS]:
            axes.set_ylabel("J, %")
        legend_below(figure, panels[0], 2)

    text = " ".join(_relative_sentence(results, network, head) for network in networks)
    text += f" Bands: 95 % intervals over samples. {SEVERITY_NOTE}"
    question = f"Which factor costs most? ({head})"
    return sheet(f"curves-{HEADS[head]}", question, text, _height(factors, len(networks)), draw)


def factor_summary(results: GapResults) -> pd.DataFrame:
    """Clean J, mean J under corruption (mPC) and their ratio (rPC) by network, domain, factor."""
    table = results.tables["curves"]
    parts = []
    for (head, domain), rows in table[table["measure"].isin(HEADS)].groupby(
        ["measure", "domain"], sort=False
    ):
        named = rows.assign(method=(rows["method"] + " " + rows["weights"]).str.strip())
        summary = summarise(named[["method", "factor", "severity", "seed", "value"]])
        summary.insert(1, "head", str(head))
        summary.insert(2, "domain", str(domain))
        parts.append(summary)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _relative_sentence(results: GapResults, network: Network, head: str) -> str:
    summary = factor_summary(results)
    own = summary[(summary["method"] == network.title) & (summary["head"] == head)]
    parts = []
    for domain, rows in own[own["factor"] != "all"].groupby("domain", sort=False):
        worst = rows.sort_values("rPC").iloc[0]
        parts.append(
            f"on {domain} {factor_title(worst['factor']).lower()} (keeps {percent(worst['rPC'])} % "
            f"of the clean J on average over severities)"
        )
    return f"{network.title} suffers most from: {', '.join(parts)}."


# --- similarity of features ------------------------------------------------------------------


def cka_figure(results: GapResults, network: Network) -> Drawing | None:
    """CKA of clean and changed features by tap; None where no factor allows it."""
    table = results.of("cka", network)
    if table.empty:
        return None
    factors = list(dict.fromkeys(table["factor"]))

    def draw(figure: Figure) -> None:
        panels = _panels(figure, factors)
        for axes, factor in zip(panels, factors, strict=True):
            rows = over_seeds(table[table["factor"] == factor], ["domain", "tap", "severity"])
            for (domain, tap), part in rows.groupby(["domain", "tap"], sort=False):
                colour = COLOURS[network.taps.index(str(tap)) % len(COLOURS)]
                dash = DOMAIN_DASHES[str(domain)]
                _line(axes, part, colour, dash, f"{tap}, {domain}", 1)
            axes.set_ylim(0, 1.02)
        for axes in panels[::COLUMNS]:
            axes.set_ylabel("CKA with clean")
        legend_below(figure, panels[0], 2)

    worst = over_seeds(table[table["severity"] == 5], ["factor"])
    lowest = worst.sort_values("value").iloc[0]
    chance = table["chance"].mean()
    text = (
        f"At severity 5 {factor_title(str(lowest['factor'])).lower()} changes features most (CKA "
        f"{number(lowest['value'])} on average over taps and sets; 1: unchanged). Shuffled pairs "
        f"would get {number(chance)}. Rows are positions of the same picture, clean and changed. "
        f"{SEVERITY_NOTE}"
    )
    question = f"Which factor changes the features of {network.title}, and how deep?"
    height = _height(factors, len(network.taps))
    return sheet(f"cka-{network.slug}", question, text, height, draw)


# --- distance of changed images to clean video -----------------------------------------------

DISTANCES = {"squared_mmd": "squared MMD", "a_distance": "proxy A-distance"}


def distance_curve_figure(results: GapResults, network: Network) -> Drawing:
    """Distance between changed images and clean video, against severity."""
    table = results.of("curves", network, domain="images")
    table = table[table["measure"].isin(DISTANCES)]
    table = over_seeds(table, ["measure", "factor", "severity"])
    factors = list(dict.fromkeys(table["factor"]))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, 2)
        for axes, (measure, title) in zip(grid, DISTANCES.items(), strict=True):
            rows = table[table["measure"] == measure]
            clean = rows[rows["severity"] == 0].iloc[0]
            axes.axhspan(clean["low"], clean["high"], color=SOFT, alpha=0.13, linewidth=0)
            axes.axhline(clean["value"], color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
            for place, factor in enumerate(factors):
                part = rows[rows["factor"] == factor].sort_values("severity")
                axes.plot(
                    part["severity"], part["value"], color=COLOURS[place % len(COLOURS)],
                    marker=MARKERS[place % len(MARKERS)], markersize=4, label=factor_title(factor),
                )  # fmt: skip
            axes.set_title(f"{title} to video")
            axes.set_xticks(range(6))
            axes.set_xlabel("severity on images")
        legend_below(figure, grid[0], 3)

    mmd = table[table["measure"] == "squared_mmd"]
    clean = mmd[mmd["severity"] == 0]["value"].iloc[0]
    best = mmd.sort_values("value", kind="stable").iloc[0]
    text = f"{network.title}: no factor at any severity brings images nearer to video. "
    if best["severity"] > 0 and best["value"] < clean:
        text = (
            f"{network.title}: {factor_title(str(best['factor'])).lower()} at severity "
            f"{best['severity']:.0f} brings images nearest to video (squared MMD "
            f"{number(best['value'], 3)}, clean {number(clean, 3)}). "
        )
    text += (
        "Below the dashed line: nearer than clean images. The grey band is the 95 % interval of "
        "the clean distance; curves inside it say nothing."
    )
    question = f"Which factor makes images look like video to {network.title}?"
    return sheet(f"distance-curves-{network.slug}", question, text, 3.0, draw)


# --- embeddings ------------------------------------------------------------------------------

CLASS_MARKERS = {"foreground": "o", "background": "x"}
MOST_PANELS = 3


def embedding_figures(results: GapResults) -> list[Drawing]:
    """Points in the plane, weights of a method side by side; a figure per method and projection."""
    table = results.tables["embedding"]
    if table.empty:
        return []
    pairs = table[["method", "projection"]].drop_duplicates()
    return [_embedding_figure(results, *pair) for pair in pairs.itertuples(index=False)]


def _embedding_figure(results: GapResults, method: str, projection: str) -> Drawing:
    drawn = [one for one in results.networks if one.method == method]
    drawn = [one for one in drawn if len(results.of("embedding", one))][:MOST_PANELS]
    title = {"tsne": "t-SNE", "umap": "UMAP"}.get(projection, projection)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(drawn), squeeze=False)[0]
        for axes, network in zip(grid, drawn, strict=True):
            rows = results.of("embedding", network, projection=projection)
            rows = rows[rows["seed"] == rows["seed"].iloc[0]]
            for (domain, label), part in rows.groupby(["domain", "class"], sort=True):
                axes.scatter(
                    part["x"], part["y"], s=26, marker=CLASS_MARKERS[str(label)],
                    color=DOMAIN_COLOURS[str(domain)], linewidths=1.1, alpha=0.85,
                    label=f"{label}, {domain}",
                )  # fmt: skip
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.set_title(f"{network.title}\n{network.main_tap}, {title}")
            axes.set_xlabel(_purity_line(results, network), fontsize=8)
        legend_below(figure, grid[0], 2)

    figures = "; ".join(f"{one.title}: {_purity_line(results, one)}" for one in drawn)
    text = (
        f"{figures.replace(chr(10), ', ')}. Purity 0.5: an object's or background's nearest "
        "neighbours come from both sets alike; 1: from its own. Silhouette: foreground apart from "
        "background (1) or not (0). The figures are measured before the projection and decide; "
        "the picture illustrates. Two points per picture: the means over its foreground and over "
        "its background."
    )
    left_out = len({one.title for one in results.networks if one.method == method}) - len(drawn)
    if left_out:
        text += f" {left_out} more networks are in embedding.csv."
    question = f"Do sets mix, and do classes stay apart? ({method}, {title})"
    return sheet(f"embedding-{method}-{projection}", question, text, 3.9, draw)


def _purity_line(results: GapResults, network: Network) -> str:
    values = {
        measure: results.of("embedding_figures", network, measure=measure)["value"].mean()
        for measure in ("domain_purity", "class_silhouette")
    }
    return (
        f"domain purity {number(values['domain_purity'])}\n"
        f"class silhouette {number(values['class_silhouette'])}"
    )
