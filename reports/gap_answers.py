"""What a measured gap comes to, in a sentence per question: the first thing that a reader sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.gap_curves import HEADS, factor_summary
from reports.gap_drawing import number, percent, ratio
from reports.gap_figures import SIGNIFICANT, factor_title
from reports.gap_results import GapResults, Network


@dataclass(frozen=True)
class Answer:
    """A statement, and the figures it rests on."""

    statement: str
    detail: str


def answers(results: GapResults) -> list[Answer]:
    """What is lost, whether features differ, what the data alone say, what costs most."""
    first = _first_networks(results)
    found = [*_lost(results, first), *_apart(results, first), *_of_the_data(results)]
    return found + _closed(results) + _dearest_factor(results)


def _first_networks(results: GapResults) -> list[Network]:
    """Of each method the network trained on images where there is one, else its first one."""
    found: dict[str, Network] = {}
    for network in results.networks:
        if network.method not in found or network.weights == "source":
            found[network.method] = network
    return list(found.values())


def _lost(results: GapResults, networks: Sequence[Network]) -> Iterator[Answer]:
    for network in networks:
        rows = results.of("drop", network, head="own foreground")
        who = network.title
        if rows.empty:
            rows = results.of("drop", network, head="linear probe", trained_on="images")
            who = f"A linear probe on {network.title}, trained on images,"
        mean = rows[["J_images", "J_videos", "drop", "drop_low", "drop_high"]].mean()
        low, high = mean["drop_low"], mean["drop_high"]
        statement = f"{who} loses nothing from images to video that is beyond chance."
        if low > 0:
            statement = f"{who} loses {percent(mean['drop'])} points from images to video."
        if high < 0:
            statement = f"{who} is {percent(-mean['drop'])} points better on video than on images."
        yield Answer(
            statement,
            f"J {percent(mean['J_images'])} on images, {percent(mean['J_videos'])} on video; drop "
            f"{percent(mean['drop'])}, 95 % interval {percent(low)} to {percent(high)}",
        )


def _apart(results: GapResults, networks: Sequence[Network]) -> Iterator[Answer]:
    for network in networks:
        at = {
            measure: results.of("distances", network, measure=measure, tap=network.main_tap)
            for measure in ("a_distance", "squared_mmd")
        }
        p_value = at["squared_mmd"]["p_value"].mean()
        if math.isnan(p_value):
            continue
        verdict = "differ" if p_value < SIGNIFICANT else "cannot be told apart"
        yield Answer(
            f"Features of images and of video {verdict} in {network.title}.",
            f"MMD at {network.main_tap}, p = {number(p_value, 3)}; A-distance "
            f"{number(at['a_distance']['value'].mean())}: 0 mixed, 2 apart",
        )


def _of_the_data(results: GapResults) -> Iterator[Answer]:
    reference = results.reference
    if reference is None:
        return
    rows = results.of("distances", reference, measure="frechet_ratio", tap=reference.main_tap)
    value = rows["value"].mean()
    if math.isnan(value):
        return
    ends = rows[["low", "high"]].mean()
    yield Answer(
        f"In the fixed {reference.title} the sets lie {ratio(value)} times as far apart as "
        "halves of the images.",
        f"Frechet ratio at {reference.main_tap}, {ratio(ends['low'])} to "
        f"{ratio(ends['high'])} over draws; 1: no gap in the data",
    )


def _closed(results: GapResults) -> list[Answer]:
    table = results.tables["gap_closed"]
    if table.empty:
        return []
    return [
        Answer(
            f"{row['method']} {row['weights']} closes {percent(row['value'])} % of the gap between "
            "source and oracle.",
            row["note"]
            if pd.isna(row["low"])
            else f"95 % interval {percent(row['low'])} to {percent(row['high'])} over seeds",
        )
        for _, row in table[table["value"].notna()].iterrows()
    ]


def _dearest_factor(results: GapResults) -> list[Answer]:
    if results.tables["curves"].empty:
        return []
    summary = factor_summary(results)
    single = summary[(summary["factor"] != "all") & (summary["domain"] == "videos")]
    head = next((one for one in HEADS if one in set(single["head"])), None)
    means = single[single["head"] == head].groupby("factor", sort=False)["rPC"].mean()
    if means.isna().all() or len(means) < 2:
        return []
    worst = str(means.idxmin())
    tried = ", ".join(factor_title(str(name)).lower() for name in means.index)
    return [
        Answer(
            f"Of the factors tried, {factor_title(worst).lower()} costs most on video.",
            f"{percent(means.min())} % of J are kept ({head}, mean over severities and networks); "
            f"tried: {tried}",
        )
    ]
