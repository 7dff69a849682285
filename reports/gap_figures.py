"""Figures of the gap between clean images and clean video; each answers the question it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from bench.gap.factors import FACTORS
from reports.drawing import COLOURS, INK, MARKERS, PAPER, RULE, SOFT, Drawing, sheet
from reports.gap_drawing import (
    DOMAIN_COLOURS,
    IMAGE_COLOUR,
    VIDEO_COLOUR,
    legend_below,
    number,
    over_seeds,
    percent,
    whiskers,
)
from reports.gap_results import GapResults, Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIGNIFICANT = 0.05

STATISTIC_TITLES = {
    "gradient_energy": "sharpness in the object's box",
    "laplacian_variance": "sharpness of the frame",
    "mean_luma": "brightness",
    "noise_sigma": "noise and fine texture",
    "centroid_x": "object's centre, across",
    "centroid_y": "object's centre, down",
    "offset": "object's distance from the centre",
    "area": "object's area",
    "height": "object's height",
    "truncation": "object cut by the frame",
}


def factor_title(name: str) -> str:
    """A factor's name on axes."""
    return FACTORS[name].title if name in FACTORS else name.replace("_", " ").capitalize()


# --- performance drop ------------------------------------------------------------------------


def drop_figures(results: GapResults) -> list[Drawing]:
    """J by training and test domain, a figure for the methods' own heads and one for probes."""
    table = results.tables["drop"]
    heads = list(dict.fromkeys(table["head"])) if len(table) else []
    return [_drop_figure(results, head, table[table["head"] == head]) for head in heads]


def _drop_figure(results: GapResults, head: str, table: pd.DataFrame) -> Drawing:
    methods = list(dict.fromkeys(table["method"]))
    trained = list(dict.fromkeys(table["trained_on"]))
    colours = _training_colours(trained)
    # A method's own weights all belong to one panel; a probe has one for each network.
    keys = ["method"] if head != "linear probe" else ["method", "weights"]
    panels = list(table.groupby(keys, sort=False))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (key, part) in zip(grid, panels, strict=True):
            _draw_drop(axes, part, trained, colours)
            title = " ".join(str(name) for name in key).strip()
            # Titles of several panels would run into each other on one line.
            axes.set_title(f"{title}{_lost(part, alone=len(panels) == 1)}")
        grid[0].set_ylabel("J of the foreground, %")
        legend_below(figure, grid[0], 2)

    told = table if head != "linear probe" else table[table["trained_on"] == "images"]
    text = "; ".join(_drop_sentence(row) for _, row in told.iterrows())
    text = f"{text}. Bars are means over samples, lines 95 % intervals over samples. "
    if head == "linear probe":
        text += (
            "A probe is a logistic regression on single positions of the features, trained on "
            "equally many images or frames and tested on others. "
        )
    text += "The two test sets are not equally hard: compare differences within one set, too."
    name = f"drop-{'probe' if head == 'linear probe' else 'own'}"
    question = f"How much is lost from images to video? ({head})"
    return sheet(name, question, text, 3.1 if len(methods) < 4 else 3.6, draw)


def _lost(part: pd.DataFrame, alone: bool) -> str:
    """What training on images loses on video, for the title of a panel alone or of several."""
    rows = part[part["trained_on"] == "images"]
    if rows.empty:
        return "" if alone else "\n"
    lost = percent(-rows["drop"].mean(), signed=True)
    return f": {lost} from images to video" if alone else f"\n{lost} on video"


def _training_colours(trained: list[str]) -> dict[str, str]:
    others = [name for name in trained if name not in DOMAIN_COLOURS]
    return DOMAIN_COLOURS | {
        name: COLOURS[2 + index % (len(COLOURS) - 2)] for index, name in enumerate(others)
    }


def _drop_sentence(row: pd.Series) -> str:
    who = f"{row['method']} {row['weights']}".strip()
    return (
        f"{who} trained on {row['trained_on']}: {percent(row['J_images'])} on images, "
        f"{percent(row['J_videos'])} on video, a drop of {percent(row['drop'])} points "
        f"({percent(row['drop_low'])} to {percent(row['drop_high'])})"
    )


def _draw_drop(axes: Axes, part: pd.DataFrame, trained: list[str], colours: dict[str, str]) -> None:
    width = 0.8 / len(trained)
    for place, name in enumerate(trained):
        rows = part[part["trained_on"] == name]
        for x, tested in enumerate(("images", "videos")):
            centre = x + (place - (len(trained) - 1) / 2) * width
            label = f"trained on {name}" if x == 0 else None
            if rows.empty:
                axes.bar(centre, 0, width * 0.92, color=colours[name], label=label)
                axes.text(centre, 1, "none", ha="center", fontsize=7, color=SOFT)
                continue
            means = 100 * rows[[f"J_{tested}", f"J_{tested}_low", f"J_{tested}_high"]].mean()
            value, low, high = (float(mean) for mean in means)
            axes.bar(centre, value, width * 0.92, color=colours[name], label=label)
            axes.plot([centre, centre], [low, high], color=INK, linewidth=1)
            text = f"{value:.1f}"
            axes.text(centre, high + 1.5, text, ha="center", fontsize=8)
    axes.set_xticks([0, 1], ["images", "video"])
    axes.set_xlabel("tested on")
    # Room for the figure above a full bar.
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(visible=False, axis="x")


# --- distances -------------------------------------------------------------------------------

A_DISTANCES = {
    "a_distance": "frame, linear classifier",
    "a_distance_perceptron": "frame, two-layer perceptron",
    "a_distance_by_class": "within classes, linear",
}


def a_distance_figure(results: GapResults) -> Drawing:
    """Proxy A-distance by tap: marginal with two classifiers, and within classes."""
    networks = results.networks

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(networks), 1, sharex=False, squeeze=False)[:, 0]
        for axes, network in zip(grid, networks, strict=True):
            for place, (measure, label) in enumerate(A_DISTANCES.items()):
                rows = over_seeds(results.of("distances", network, measure=measure), ["tap"])
                for x, (_, row) in enumerate(rows.iterrows()):
                    at = x + (place - 1) * 0.2
                    whiskers(axes, at, row, COLOURS[place])
                    axes.plot(
                        at, row["value"], MARKERS[place], color=COLOURS[place], linestyle="none",
                        label=label if x == 0 else None,
                    )  # fmt: skip
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.axhline(2, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
            axes.set_ylim(-1, 2.25)
            axes.set_xlim(-0.6, len(network.taps) - 0.4)
            axes.set_xticks(range(len(network.taps)), list(network.taps))
            axes.set_yticks([-1, 0, 1, 2], ["−1", "0: mixed", "1", "2: apart"])
            axes.set_title(f"{network.title}: proxy A-distance by tap")
        legend_below(figure, grid[0], 1)

    text = "; ".join(_a_distance_sentence(results, network) for network in networks) + ". "
    text += (
        "Cross-validated with videos and images kept whole; lines are 95 % intervals. Frame-wise "
        "distances also see that objects are larger or rarer in one set; within foreground and "
        "background they cannot. No measure of success by itself."
    )
    question = "Can a classifier tell features of images from those of video?"
    return sheet("a-distance", question, text, 0.9 + 2.0 * len(networks), draw)


def _a_distance_sentence(results: GapResults, network: Network) -> str:
    at = network.main_tap
    values = {
        measure: results.of("distances", network, measure=measure, tap=at)["value"].mean()
        for measure in A_DISTANCES
    }
    return (
        f"{network.title} at {at}: {number(values['a_distance'])} from whole frames, "
        f"{number(values['a_distance_by_class'])} within classes"
    )


def discrepancy_figure(results: GapResults) -> Drawing:
    """Squared MMD with its permutation test, and the Frechet ratio, by tap."""
    networks = results.networks
    places = [(network, tap) for network in networks for tap in network.taps]
    reference = results.reference
    if reference is not None:
        places += [(reference, tap) for tap in reference.taps]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for y, (network, tap) in enumerate(places):
            colour = (
                SOFT if network is reference else COLOURS[networks.index(network) % len(COLOURS)]
            )
            for axes, measure in ((left, "squared_mmd"), (right, "frechet_ratio")):
                rows = results.of("distances", network, measure=measure, tap=tap)
                undefined = rows.empty or bool(rows["value"].isna().all())
                row = None if undefined else over_seeds(rows, ["tap"]).iloc[0]
                if row is None:
                    why = "the ratio alone" if rows.empty else "too few samples"
                    axes.text(
                        0.5, y, why, transform=axes.get_yaxis_transform(),
                        va="center", ha="center", fontsize=7.5, color=SOFT, backgroundcolor=PAPER,
                    )  # fmt: skip
                    continue
                axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.4)
                sure = measure != "squared_mmd" or row["p_value"] < SIGNIFICANT
                face = colour if sure else PAPER
                axes.plot(row["value"], y, "o", color=colour, markerfacecolor=face)
                if measure == "squared_mmd":
                    label = f"p = {row['p_value']:.3f}"
                    axes.annotate(
                        label, (row["value"], y), (0, 6), textcoords="offset points",
                        ha="center", fontsize=7.5,
                    )  # fmt: skip
        left.axvline(0, color=INK, linewidth=0.8)
        right.axvline(1, color=INK, linewidth=0.8)
        right.set_xscale("log")
        right.xaxis.set_major_locator(_ratio_ticks(right.get_xlim()[1]))
        right.xaxis.set_major_formatter("{x:g}")
        right.xaxis.minorticks_off()
        left.set_title("Squared MMD (0: no gap)")
        right.set_title("Frechet ratio (1: no gap)")
        names = [_place_name(results, *place) for place in places]
        left.set_yticks(range(len(places)), names)
        if reference is not None:
            for axes in (left, right):
                axes.axhline(len(places) - len(reference.taps) - 0.5, color=RULE, linewidth=0.8)
        left.set_ylim(len(places) - 0.4, -0.6)

    text = "".join(_mmd_sentence(results, network) for network in networks)
    text += (
        "Filled: p below 0.05 by permuting whole images and videos. The Frechet ratio divides by "
        "the distance between random halves of the images. Lines: 95 % intervals over resampled "
        "samples for MMD, over random draws for the ratio."
    )
    if reference is not None:
        text += (
            " Below the line: the fixed reference encoder, which is the same whatever is measured; "
            "it tells of the data, the networks above of what they see in it."
        )
    question = "Are both sets drawn from one distribution of features?"
    return sheet("discrepancy", question, text, 1.1 + 0.45 * len(places), draw)


def _place_name(results: GapResults, network: Network, tap: str) -> str:
    if network is results.reference:
        return f"reference {tap}"
    return f"{network.title} {tap}" if len(results.networks) > 1 else tap


def _ratio_ticks(highest: float) -> object:
    """Ticks of a ratio's axis; powers of ten alone where more would not find room."""
    from matplotlib.ticker import FixedLocator

    powers = [10.0**power for power in range(7)]
    between = [0.5, *(2 * one for one in powers), *(5 * one for one in powers)]
    return FixedLocator(powers if highest > 100 else sorted(powers + between))


def _mmd_sentence(results: GapResults, network: Network) -> str:
    row = results.of("distances", network, measure="squared_mmd", tap=network.main_tap).iloc[0]
    verdict = "differ" if row["p_value"] < SIGNIFICANT else "cannot be told apart"
    return (
        f"For {network.title} at {network.main_tap} the sets {verdict} (p = {row['p_value']:.3f}). "
    )


def statistics_figure(results: GapResults) -> Drawing:
    """Kolmogorov-Smirnov distance of every statistic between the samples."""
    table = results.tables["statistics"].sort_values("distance")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, (_, row) in enumerate(table.iterrows()):
            sure = row["p_value"] < SIGNIFICANT
            axes.plot([0, row["distance"]], [y, y], color=COLOURS[0] if sure else RULE, zorder=2)
            face = COLOURS[0] if sure else PAPER
            axes.plot(row["distance"], y, "o", color=COLOURS[0], markerfacecolor=face, zorder=3)
            medians = f"{row['images']:.2g} → {row['videos']:.2g}"
            axes.text(1.03, y, medians, va="center", fontsize=7.5, clip_on=False)
        axes.text(
            1.03, len(table) - 0.2, "medians:\nimages → videos", fontsize=7.5, color=SOFT,
            va="bottom", clip_on=False,
        )  # fmt: skip
        titles = [STATISTIC_TITLES.get(name, name) for name in table["statistic"]]
        axes.set_yticks(range(len(table)), titles)
        axes.set_xlim(0, 1)
        axes.set_xlabel("Kolmogorov-Smirnov distance")
        axes.grid(visible=False, axis="y")

    sure = table[table["p_value"] < SIGNIFICANT]["statistic"].tolist()[::-1]
    names = ", ".join(STATISTIC_TITLES.get(name, name) for name in sure) or "nothing"
    side = results.record["request"]["short_side"]
    text = (
        f"Significantly different (filled, p < 0.05 each): {names}. Measured after both were "
        f"shrunk to a short side of {side} pixels, so that sharpness also tells from what size."
    )
    return sheet("statistics", "In what do the pictures themselves differ?", text, 3.2, draw)


# --- gap closed ------------------------------------------------------------------------------


def closed_figure(results: GapResults) -> Drawing | None:
    """Share of the gap that adapted networks close; None where nothing can be said."""
    table = results.tables["gap_closed"]
    if table.empty or table["value"].isna().all():
        return None
    table = table[table["value"].notna()]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, (_, row) in enumerate(table.iterrows()):
            axes.barh(y, 100 * row["value"], 0.55, color=COLOURS[2])
            if pd.notna(row["low"]):
                axes.plot([100 * row["low"], 100 * row["high"]], [y, y], color=INK, linewidth=1)
            axes.text(max(100 * row["value"], 0) + 1.5, y + 0.34, percent(row["value"]), fontsize=8)
        names = [f"{row.method} {row.weights}" for row in table.itertuples()]
        axes.set_yticks(range(len(table)), names)
        axes.axvline(0, color=IMAGE_COLOUR, linewidth=1.4, label="source: images only")
        axes.axvline(100, color=VIDEO_COLOUR, linewidth=1.4, label="oracle: video labels")
        axes.set_xlabel("gap closed, %")
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        legend_below(figure, axes, 2)

    parts = [
        f"{row['method']} {row['weights']} closes {percent(row['value'])} %"
        for _, row in table.iterrows()
    ]
    text = "; ".join(parts) + ". J on video; lines are Fieller's 95 % intervals over seeds."
    height = 1.3 + 0.5 * len(table)
    return sheet("gap-closed", "How much of the gap does adaptation close?", text, height, draw)
