"""Scores that papers published. They are shown beside measured ones and never mixed with them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("published.csv")

COLUMNS = {("davis16", "val"): "davis16", ("davis17", "val"): "davis17"}
"""Beginning of the columns of a dataset's split."""

TITLES = {"davis16": "DAVIS-2016, val", "davis17": "DAVIS-2017, val"}
"""What tables call them."""

TASK = "semi-supervised"


@dataclass(frozen=True)
class Published:
    """One system's figures on one dataset, in percent, as texts; empty where not published.

    Attributes:
        method: the system.
        year: of publication.
        trained_on: training data.
        j: mean J.
        f: mean F.
        mean: J&F.
        source: where the figures stand.
        images: sets of still images trained on, joined by ``+``.
        video_hours: length of the videos trained on.
    """

    method: str
    year: str
    trained_on: str
    j: str
    f: str
    mean: str
    source: str
    images: str = ""
    video_hours: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """What papers published on one dataset.

    Attributes:
        anchor: for ids.
        title: the dataset.
        rows: best first.
    """

    anchor: str
    title: str
    rows: Sequence[Published]


def published_tables(keys: Iterable[tuple[str, str, str]]) -> list[PublishedTable]:
    """All published figures where one of the datasets is among those published on, else none.

    The same systems stand in all tables, so those without a figure on a report's own dataset are
    seen as well.

    Args:
        keys: dataset, split and task of each dataset of a report.
    """
    if not any(published(*key) for key in keys):
        return []
    return [
        PublishedTable(f"{dataset}-{split}", TITLES[dataset], published(dataset, split, TASK))
        for dataset, split in COLUMNS
    ]


def published(dataset: str, split: str, task: str) -> Sequence[Published]:
    """Published figures on a dataset, best first; none for datasets that nobody published on."""
    prefix = COLUMNS.get((dataset.removesuffix(f"-{split}"), split))
    if prefix is None or task != TASK:
        return []
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row[f"{prefix}_JF"]]
    rows.sort(key=lambda row: -float(row[f"{prefix}_JF"]))
    return [
        Published(
            method=row["method"],
            year=row["year"],
            trained_on=_training(row),
            j=row[f"{prefix}_J"],
            f=row[f"{prefix}_F"],
            mean=row[f"{prefix}_JF"],
            source=row["source"],
            images=row["train_images"],
            video_hours=row["train_video_hours"],
        )
        for row in rows
    ]


def _training(row: dict[str, str]) -> str:
    parts = [f"{row['train_images']} images"] if row["train_images"] else []
    if row["train_videos"]:
        parts.append(f"{row['train_videos']} ({row['train_video_hours']} h of video)")
    return " + ".join(parts)
