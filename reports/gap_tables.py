"""The tables of a measured gap, as a page prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from bench.gap.factor_statistics import AFTER, BEFORE, BOTH
from reports.gap_curves import factor_summary
from reports.gap_drawing import number, percent, ratio
from reports.gap_figures import factor_title
from reports.gap_results import GapResults, Network
from reports.lines import MISSING
from reports.page_tables import Cell, Head, Row, Table, sortable

MEASURES = {
    "a_distance": "proxy A-distance, frames, linear",
    "a_distance_perceptron": "proxy A-distance, frames, two-layer perceptron",
    "a_distance_by_class": "proxy A-distance within classes, mean",
    "a_distance_background": "– within background",
    "a_distance_foreground": "– within foreground",
    "squared_mmd": "squared MMD",
    "frechet_ratio": "Frechet ratio",
    "domain_purity": "domain purity of frames",
    "class_centre_distance": "class centre distance, video",
    "class_silhouette": "class silhouette, video",
}

STATISTICS = {
    "boundary_f": "boundary F of masks",
    "unique_samples": "samples that differ",
    "unique_fraction": "unique fraction",
    "effective_sample_size": "effective sample size",
    "gradient_energy_median": "gradient energy in the object's box, median",
    "gradient_energy_distance": "gradient energy, distance between the sets",
    "mean_luma_median": "mean luma, median",
    "mean_luma_distance": "mean luma, distance between the sets",
    "kl_divergence": "KL(images || video), nats",
}


def _named(row: pd.Series) -> str:
    return f"{row['method']} {row['weights']}".strip()


def _name(text: str) -> Cell:
    return Cell(text, head=True)


def _text(text: str) -> Cell:
    return Cell(text, classes="text" if len(text) > 45 else "")


def _number(value: Any, form: Callable[[float], str] = number) -> Cell:
    return Cell(form(value), sortable(float(value)))


def _interval(row: pd.Series, name: str) -> Cell:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    text = f"{percent(value)} ({percent(low)} to {percent(high)})"
    return Cell(text, sortable(float(value)))


# --- summary ---------------------------------------------------------------------------------


def summary_table(results: GapResults) -> Table:
    """One row per network, and one of the reference encoder."""
    heads = [
        Head("Network", number=False),
        Head("tap", number=False, hint="where features were taken: the last one asked for"),
        Head("J images", hint="percent, of the own foreground, or of a linear probe (p)"),
        Head("J video", hint="the same on one frame of each video"),
        Head("A-distance", hint="0: a classifier cannot tell the sets apart; 2: it always can"),
        Head("within classes", hint="A-distance within foreground and within background, mean"),
        Head("MMD p", hint="below 0.05: features of the sets differ"),
        Head("Frechet ratio", hint="distance of the sets, in distances of halves of the images"),
        Head("domain purity", hint="share of neighbours from the own set; 0.5 mixed, 1 apart"),
    ]
    rows = [Row(list(_summary_cells(results, network))) for network in results.networks]
    if results.reference is not None:
        rows.append(Row(list(_reference_cells(results, results.reference))))
    caption = (
        "The tap is the last one, nearest to the output. Of the reference encoder, which is the "
        "same whatever is measured, only the Frechet ratio is taken: it tells of the data."
    )
    if results.reference is None:
        caption = "The tap is the last one, nearest to the output."
    return Table("summary", "Summary", caption, heads, rows)


def _summary_cells(results: GapResults, network: Network) -> Iterator[Cell]:
    at = {
        measure: results.of("distances", network, measure=measure, tap=network.main_tap)
        for measure in MEASURES
    }
    yield _name(network.title)
    yield _text(network.main_tap)
    scores, mark = score_pair(results, network)
    for name in ("J_images", "J_videos"):
        yield Cell(f"{percent(scores[name])}{mark}", sortable(float(scores[name])))
    yield _number(at["a_distance"]["value"].mean())
    yield _number(at["a_distance_by_class"]["value"].mean())
    yield _number(at["squared_mmd"]["p_value"].mean(), lambda value: number(value, 3))
    yield _number(at["frechet_ratio"]["value"].mean(), ratio)
    yield _number(at["domain_purity"]["value"].mean())


def _reference_cells(results: GapResults, reference: Network) -> Iterator[Cell]:
    rows = results.of("distances", reference, measure="frechet_ratio", tap=reference.main_tap)
    yield _name(reference.title)
    yield _text(reference.main_tap)
    yield from (Cell(MISSING) for _ in range(5))
    yield _number(rows["value"].mean(), ratio)
    yield Cell(MISSING)


def score_pair(results: GapResults, network: Network) -> tuple[pd.Series, str]:
    """J on images and on video of a network's foreground, and " p" where a probe stands in."""
    rows = results.of("drop", network, head="own foreground")
    mark = ""
    if rows.empty:
        rows = results.of("drop", network, head="linear probe", trained_on="images")
        mark = " p"
    return rows[["J_images", "J_videos"]].mean(), mark


# --- the others ------------------------------------------------------------------------------


def drop_table(results: GapResults) -> Table:
    """Scores on both sets by head and training, and their difference."""
    rows = [
        Row(
            [
                _name(_named(row)),
                Cell(str(row["seed"]), float(row["seed"])),
                _text(row["head"]),
                _text(row["trained_on"]),
                _interval(row, "J_images"),
                _interval(row, "J_videos"),
                _interval(row, "drop"),
            ]
        )
        for _, row in results.tables["drop"].iterrows()
    ]
    caption = "J in percent with 95 % intervals over samples; the drop is their difference."
    for method, value in results.record["relative_to_oracle"].items():
        caption += (
            f" Of its oracle's J on video, {method} trained on images loses {percent(value)} %, "
            "which does not depend on how hard the two test sets are."
        )
    heads = [
        Head("Network", number=False), Head("seed"), Head("head", number=False),
        Head("trained on", number=False), Head("J images"), Head("J video"), Head("drop"),
    ]  # fmt: skip
    return Table("drop", "Performance drop", caption, heads, rows)


def factor_table(results: GapResults) -> Table:
    """Mean scores over severities."""
    summary = factor_summary(results) if len(results.tables["curves"]) else pd.DataFrame()
    rows = []
    for _, row in summary.iterrows():
        factor = "all" if row["factor"] == "all" else factor_title(row["factor"])
        cells = [_name(row["method"]), _text(row["head"]), _text(row["domain"]), _text(factor)]
        rows.append(Row(cells + [_number(row[name], percent) for name in ("clean", "mPC", "rPC")]))
    caption = (
        "J in percent. Mean over severities 1 to 5 (mPC), absolute and in percent of the clean J "
        "(rPC), after Michaelis et al., Benchmarking Robustness in Object Detection, 2019."
    )
    names = ("Network", "head", "set", "factor")
    heads = [Head(name, number=False) for name in names]
    heads += [Head(name) for name in ("clean", "mPC", "rPC")]
    return Table("factors", "Scores under factors", caption, heads, rows)


def distance_table(results: GapResults) -> Table:
    """Every measure at every tap."""
    rows = []
    for _, row in results.tables["distances"].iterrows():
        interval = MISSING
        if pd.notna(row["low"]):
            interval = f"{number(row['low'])} to {number(row['high'])}"
        p_value = row["p_value"] if "p_value" in row else float("nan")
        rows.append(
            Row(
                [
                    _name(_named(row)),
                    Cell(str(row["seed"]), float(row["seed"])),
                    _text(row["tap"]),
                    _text(MEASURES.get(row["measure"], row["measure"])),
                    _number(row["value"], lambda value: number(value, 3)),
                    Cell(interval, sortable(float(row["low"]))),
                    _number(p_value, lambda value: number(value, 3)),
                    _text(row["note"]),
                ]
            )
        )
    heads = [
        Head("Network", number=False), Head("seed"), Head("tap", number=False),
        Head("measure", number=False), Head("value"), Head("95 % interval"), Head("p"),
        Head("note", number=False),
    ]  # fmt: skip
    caption = "A dash is a value that the samples do not define, or that there is none of."
    return Table("distances", "Distances and class structure", caption, heads, rows)


def equalised_table(results: GapResults) -> Table:
    """What each factor's equaliser changes: statistics of both sets before and after."""
    table = results.tables["equalised_statistics"]
    rows = []
    if len(table):
        keys = ["method", "weights", "factor", "statistic"]
        rows = [_equalised_row(key, part) for key, part in table.groupby(keys, sort=False)]
    heads = [
        Head("Factor", number=False),
        Head("statistic", number=False),
        Head("network", number=False, hint="whose features tell what is alike; else all"),
        Head("images", hint="as they are"),
        Head("made equal", hint="images after this factor alone was made equal"),
        Head("video", hint="one frame of each video, which stays as it is"),
        Head("note", number=False),
    ]
    caption = (
        "Each factor made equal by itself. It worked where “made equal” is near to “video”, or a "
        "distance between the sets near to 0. Effective sample size: how many samples count, if "
        "near-duplicates, or an image drawn several times, count as one. KL compares centre, area "
        "and truncation of objects in the plane of largest variance, from nearest neighbours: "
        "0 alike, slightly below by chance."
    )
    title = "What making factors equal changes"
    return Table("equalised", title, caption, heads, rows)


def _equalised_row(key: tuple[Any, ...], part: pd.DataFrame) -> Row:
    method, weights, factor, statistic = key
    means = part.groupby(["domain", "stage"])["value"].mean()
    domain = BOTH if BOTH in set(part["domain"]) else "images"
    video = means.get(("videos", BEFORE), float("nan"))
    notes = dict.fromkeys(note for note in part["note"] if note)
    return Row(
        [
            _name(str(factor)),
            _text(STATISTICS.get(statistic, str(statistic))),
            _text(f"{method} {weights}".strip()),
            *(_number(means[domain, stage], short) for stage in (BEFORE, AFTER)),
            _number(video, short),
            _text("; ".join(notes)),
        ]
    )


def short(value: float) -> str:
    """Three significant digits; a dash where there is no number."""
    return MISSING if pd.isna(value) else f"{value:.3g}".replace("-", "−")


def missing_table(results: GapResults) -> Table:
    """What was not measured, and why."""
    rows = [
        Row([_name(row["what"]), _text(row["method"]), Cell(row["reason"], classes="text reason")])
        for _, row in results.tables["missing"].iterrows()
    ]
    heads: Sequence[Head] = [Head(name, number=False) for name in ("What", "of", "reason")]
    return Table("missing", "Not measured, and why", "", heads, rows)
