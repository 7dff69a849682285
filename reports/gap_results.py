"""A measured gap, read back from its folder; see :mod:`bench.gap.command`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import StoreError
from bench.gap.command import RECORD, TABLES
from bench.gap.reference import REFERENCE
from bench.store import read_json

TEXTS = ("weights", "note", "sample", "reason")
"""Columns that may be empty or look like numbers, and are texts."""

KEYS = {
    "command", "request", "started", "seconds", "versions", "git", "datasets", "networks",
    "relative_to_oracle", "remarks",
}  # fmt: skip
"""What a page needs of the record."""

ALWAYS = ("drop", "distances", "equalisation", "statistics")
"""Tables that every measurement has."""


@dataclass(frozen=True)
class Network:
    """One network that was measured, all seeds of its training together.

    Attributes:
        method: registered name.
        weights: label of its weights.
        title: both.
        taps: where features were taken.
        main_tap: the one that is drawn.
    """

    method: str
    weights: str
    title: str
    taps: tuple[str, ...]
    main_tap: str

    @property
    def slug(self) -> str:
        """Its title for file names."""
        return "-".join(self.title.split()).replace("/", "-")


class GapResults:
    """All tables of a folder.

    Args:
        folder: written by ``python -m bench gap``.

    Raises:
        StoreError: another folder, or one that lacks some of it.
    """

    def __init__(self, folder: Path) -> None:
        found = read_json(folder / RECORD)
        lacking = KEYS - set(found) if isinstance(found, dict) else KEYS
        lost = [f"{name}.csv" for name in ALWAYS if not (folder / f"{name}.csv").is_file()]
        if lacking or lost:
            what = ", ".join([*lost, *(f"{key} in {RECORD}" for key in sorted(lacking))])
            raise StoreError(
                folder, f"no {what}", "a folder of `python -m bench gap`", "Measure it again."
            )
        self.folder = folder
        self.record: dict[str, Any] = found
        self.tables = {name: _read(folder / f"{name}.csv") for name in TABLES}

    @property
    def present(self) -> list[str]:
        """Names of the tables that there are."""
        return [name for name in TABLES if (self.folder / f"{name}.csv").is_file()]

    @property
    def files(self) -> list[Path]:
        """Every table and the record."""
        return [*(self.folder / f"{name}.csv" for name in self.present), self.folder / RECORD]

    @cached_property
    def reference(self) -> Network | None:
        """The fixed encoder that was measured besides the networks, if one was."""
        record = self.record.get("reference")
        if not record:
            return None
        name, taps = record["method"], tuple(record["taps"])
        return Network(REFERENCE, name, f"{REFERENCE} ({name})", taps, taps[-1])

    @cached_property
    def networks(self) -> list[Network]:
        """Those measured, in order."""
        found: dict[str, Network] = {}
        for one in self.record["networks"]:
            taps = tuple(one["taps"])
            network = Network(one["method"], one["weights"], one["title"], taps, one["main_tap"])
            found.setdefault(network.title, network)
        return list(found.values())

    def of(self, table: str, network: Network, **where: Any) -> pd.DataFrame:
        """Rows of a network, further columns having these values; empty where there are none."""
        rows = self.tables[table]
        if rows.empty:
            return rows
        chosen = (rows["method"] == network.method) & (rows["weights"] == network.weights)
        for column, value in where.items():
            chosen &= rows[column] == value
        return rows[chosen]

    @property
    def datasets(self) -> tuple[str, str]:
        """Names of the datasets, images first."""
        images, videos = (self.record["datasets"][domain] for domain in ("images", "videos"))
        return images["dataset"], videos["dataset"]

    @property
    def title(self) -> str:
        """Which sets were compared."""
        return f"{self.datasets[0]} (images) and {self.datasets[1]} (videos)"

    @property
    def counts(self) -> tuple[int, int]:
        """Images and videos measured."""
        samples = self.record["datasets"]
        return len(samples["images"]["samples"]), len(samples["videos"]["samples"])


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    head = pd.read_csv(path, nrows=0)
    texts = {name: str for name in TEXTS if name in head}
    table = pd.read_csv(path, dtype=texts)
    return table.fillna(dict.fromkeys(texts, ""))
