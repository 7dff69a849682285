"""The command `gap`: measures the gap between a set of images and a set of videos.

What is measured goes into one folder: tidy CSV tables and ``gap.json`` with the command, the
versions and the samples. :mod:`reports.gap` draws it.
"""

from __future__ import annotations

import datetime
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.config import Preset, config_error
from bench.errors import DataError, MethodError, StoreError
from bench.gap.domains import ImageSample, VideoSample, choose_images, choose_videos
from bench.gap.embedding import absent_projections
from bench.gap.equalisation import equalisation_rows
from bench.gap.factors import SEVERITIES, Geometric, get_factor
from bench.gap.features import extract
from bench.gap.measures import (
    Row,
    closed_rows,
    distance_rows,
    missing_reasons,
    performance_drop,
    relative_to_oracle,
    score_rows,
)
from bench.gap.pictures import embedding_rows
from bench.gap.samples import compare_statistics, statistics_frame
from bench.gap.under_factors import GEOMETRIC_WITHOUT_CKA, Clean, factor_rows
from bench.gap.variants import Missing, Variant, build_variants, parse_weights, trained_on
from bench.provenance import git_state, host, versions
from bench.store import write_json

RECORD = "gap.json"
"""What marks a folder as one of this command."""

TABLES = (
    "samples", "statistics", "scores", "drop", "gap_closed", "distances", "cka", "curves",
    "equalisation", "embedding", "embedding_figures", "missing",
)  # fmt: skip
"""Names of the CSV files, without suffix. Tables without rows are not written."""

FACTORS = ("motion_blur", "low_light", "low_resolution", "compression", "framing")
"""The factors of the curves unless others are asked for."""


class GapRequest(BaseModel):
    """What is measured.

    Attributes:
        methods: registered names.
        images: dataset of labelled images.
        videos: dataset of labelled videos.
        root: where the data lies; see :func:`bench.dataset.find_root`.
        limit: most images, and most videos.
        short_side: images and frames are shrunk to it, so that the domains do not differ in size.
        seed: of all that is drawn.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        preset: of the methods; None for each one's own default.
        factors: of the curves.
        taps: where features are taken; the last one is drawn. None for all that a method has.
        weights: ``[METHOD.]LABEL=FILE``.
        assignments: ``--set`` values by dotted key.
    """

    model_config = ConfigDict(extra="forbid")

    methods: list[str] = Field(min_length=1)
    images: str
    videos: str
    root: Path | None = None
    limit: int = Field(default=50, ge=1)
    short_side: int = Field(default=240, ge=32)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    preset: Preset | None = None
    factors: list[str] = list(FACTORS)
    taps: list[str] | None = None
    weights: list[str] = []
    assignments: dict[str, Any] = {}


def gap_request(options: Mapping[str, Any]) -> GapRequest:
    """A request from options; None values keep the defaults.

    Raises:
        ConfigError: names the wrong option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return GapRequest.model_validate(given)
    except ValidationError as error:
        raise config_error("command line", error, GapRequest) from None


Watch = Callable[[str, int, int], None]
"""Told what is being done, steps done and all steps."""


def _unwatched(what: str, done: int, total: int) -> None:
    pass


def measure_gap(request: GapRequest, folder: Path, watch: Watch = _unwatched) -> list[Missing]:
    """Measure everything that the methods, their weights and the data allow.

    Args:
        request: what.
        folder: an existing folder that the tables go into; see :func:`fresh_folder`.
        watch: progress.

    Returns:
        What could not be measured, and why.

    Raises:
        ConfigError: wrong names or settings.
        DataError: too few samples.
        MethodError: none of the methods can be measured.
    """
    from bench.plan import resolve_device

    started = datetime.datetime.now(datetime.UTC)
    for name in request.factors:
        get_factor(name)
    device = resolve_device(request.device)
    files = parse_weights(request.weights, request.methods)
    variants, missing = build_variants(
        request.methods, files, request.preset, request.assignments, device,
        request.seed, request.taps,
    )  # fmt: skip
    if not variants:
        reasons = "; ".join(f"{one.method}: {one.reason}" for one in missing)
        raise MethodError("--methods", reasons, "a method whose features can be taken", "Add one.")
    size = (request.root, request.limit, request.short_side, request.seed)
    images, videos = choose_images(request.images, *size), choose_videos(request.videos, *size)
    tables = _Tables()
    measurement = _Measurement(request, images, videos, variants, tables, watch)
    measurement.run()
    missing += measurement.missing()
    tables.extend("missing", (vars(one) for one in missing))
    tables.write(folder)
    write_json(folder / RECORD, _record(request, measurement, started))
    return missing


class _Tables:
    """Rows by table, in the order they came."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)

    def extend(self, table: str, rows: Iterator[Any] | Sequence[Any]) -> None:
        self.rows[table] += rows

    def sort_in(self, rows: Iterator[tuple[str, Row]], key: Row) -> None:
        for table, row in rows:
            self.rows[table].append(key | row)

    def frame(self, table: str) -> pd.DataFrame:
        return pd.DataFrame(self.rows[table])

    def write(self, folder: Path) -> None:
        for table in TABLES:
            if self.rows[table]:
                self.frame(table).to_csv(folder / f"{table}.csv", index=False)


class _Measurement:
    """One run of the command; every step fills tables."""

    def __init__(
        self,
        request: GapRequest,
        images: ImageSample,
        videos: VideoSample,
        variants: Sequence[Variant],
        tables: _Tables,
        watch: Watch,
    ) -> None:
        self.request, self.images, self.videos = request, images, videos
        self.variants, self.tables, self.watch = variants, tables, watch
        self.frames = videos.frames()
        changed = len(request.factors) * 2 * len(SEVERITIES)
        self.steps = 4 * len(variants) + changed
        self.done = 0
        self.remarks: list[str] = []
        self.relative: dict[str, float] = {}
        self.undone: list[Missing] = []

    def _advance(self, what: str) -> None:
        self.done += 1
        self.watch(what, self.done, self.steps)

    def run(self) -> None:
        seed = self.request.seed
        self._sample_statistics()
        networks = []
        for variant in self.variants:
            self.watch(f"features of {variant.title}", self.done, self.steps)
            looked = variant.representation
            clean = Clean(
                variant,
                extract(looked, self.images.items, seed, keep_maps=True),
                extract(looked, self.frames, seed, keep_maps=True),
                seed,
            )
            networks.append(clean)
            self._advance(f"distances of {variant.title}")
            self._of_network(clean)
        self._drop()
        rows = factor_rows(
            networks, self.images, self.videos, self.request.factors, seed,
            lambda: self._advance("factors"),
        )  # fmt: skip
        self.tables.sort_in(rows, {})

    def _sample_statistics(self) -> None:
        tables = {"images": statistics_frame(self.images.items)}
        tables["videos"] = statistics_frame(self.frames)
        for domain, table in tables.items():
            named = table.reset_index(names="sample")
            named.insert(0, "domain", domain)
            self.tables.extend("samples", named.to_dict("records"))
        compared = compare_statistics(tables["images"], tables["videos"])
        self.tables.extend("statistics", compared.reset_index(names="statistic").to_dict("records"))

    def _of_network(self, clean: Clean) -> None:
        seed, key = self.request.seed, clean.variant.key
        looked = clean.variant.representation
        rows = distance_rows(clean.images, clean.videos, seed)
        self.tables.extend("distances", [key | row for row in rows])
        self._advance(f"scores of {clean.variant.title}")
        features, samples = (clean.images, clean.videos), (self.images.items, self.frames)
        scored = score_rows(clean.variant, features, samples, seed)
        self.tables.extend("scores", [key | row for row in scored])
        self._advance(f"factors made equal for {clean.variant.title}")
        equal = equalisation_rows(looked, self.images.items, self.frames, clean.videos, seed)
        self.tables.extend("equalisation", [key | row for row in equal])
        self._advance(f"embedding of {clean.variant.title}")
        try:
            points = list(embedding_rows(clean.images, clean.videos, looked.main_tap, seed))
        except DataError as error:
            reason = f"{error.found}; {error.remedy}"
            self.undone.append(Missing("embedding plot", clean.variant.title, reason))
        else:
            self.tables.sort_in(iter(points), key)
        if remark := trained_on(clean.variant, self.images):
            self.remarks.append(remark)

    def _drop(self) -> None:
        drop = performance_drop(self.tables.frame("scores"), self.request.seed)
        self.tables.extend("drop", drop.to_dict("records"))
        self.tables.extend("gap_closed", closed_rows(drop))
        self.relative = relative_to_oracle(drop)

    def missing(self) -> list[Missing]:
        found = [*self.undone, *(Missing(*reason) for reason in missing_reasons(self.variants))]
        found += [
            Missing(f"{name} plot", "all", reason) for name, reason in absent_projections().items()
        ]
        found += [
            Missing(f"CKA under {name}", "all", GEOMETRIC_WITHOUT_CKA)
            for name in self.request.factors
            if isinstance(get_factor(name), Geometric)
        ]
        return found


def _record(
    request: GapRequest, measurement: _Measurement, started: datetime.datetime
) -> dict[str, Any]:
    """Provenance, and what a page needs besides tables."""
    finished = datetime.datetime.now(datetime.UTC)
    return {
        "command": ["python", "-m", "bench", *sys.argv[1:]],
        "request": request.model_dump(mode="json"),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((finished - started).total_seconds(), 1),
        "versions": versions(),
        "git": git_state(),
        "host": host(),
        "datasets": {
            "images": measurement.images.facts(),
            "videos": measurement.videos.facts(),
        },
        "networks": [
            variant.key
            | {
                "title": variant.title,
                "file": str(variant.file) if variant.file else None,
                "taps": list(variant.representation.taps),
                "main_tap": variant.representation.main_tap,
                "trained_with": variant.header.get("command"),
            }
            for variant in measurement.variants
        ],
        "relative_to_oracle": measurement.relative,
        "remarks": measurement.remarks,
    }


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``out`` when the block succeeds.

    Raises:
        StoreError: ``out`` is a file or holds something else than an earlier measurement.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(out, "a file", "a new or empty folder", "Choose another --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise StoreError(
            out, "other files", "a new folder or an earlier measurement", "Choose another --out."
        )
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        shutil.rmtree(out, ignore_errors=True)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
