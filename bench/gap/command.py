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
from typing import Any

import pandas as pd

from bench.errors import DataError, MethodError, StoreError
from bench.gap.domains import ImageSample, VideoSample, choose_images, choose_videos
from bench.gap.embedding import absent_projections
from bench.gap.equalisation import equalisation_rows
from bench.gap.factor_statistics import diversity_rows, picture_rows
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
from bench.gap.reference import (
    NO_REFERENCE,
    REFERENCE,
    measured_anyway,
    reference_encoder,
    reference_rows,
)
from bench.gap.representation import Representation
from bench.gap.request import GapRequest
from bench.gap.samples import compare_statistics, statistics_frame
from bench.gap.under_factors import GEOMETRIC_WITHOUT_CKA, Clean, factor_rows
from bench.gap.variants import Missing, Variant, build_variants, parse_weights, trained_on
from bench.provenance import git_state, host, versions
from bench.store import write_json

RECORD = "gap.json"
"""What marks a folder as one of this command."""

TABLES = (
    "samples", "statistics", "scores", "drop", "gap_closed", "distances", "cka", "curves",
    "equalisation", "equalised_statistics", "embedding", "embedding_figures", "missing",
)  # fmt: skip
"""Names of the CSV files, without suffix. Tables without rows are not written."""

MANUAL_LABELS = (
    "the masks of both sets count as manual; where those of the videos are not, "
    "--video-label-accuracy gives their boundary F"
)

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
        why = "; ".join(f"{one.method}: {one.reason}" for one in missing)
        raise MethodError("--methods", why, "a method whose features can be taken", "Add one.")
    reference, reasons = _reference(request, variants, device)
    missing += reasons
    size = (request.root, request.limit, request.short_side, request.seed)
    images, videos = choose_images(request.images, *size), choose_videos(request.videos, *size)
    tables = _Tables()
    measurement = _Measurement(request, images, videos, variants, reference, tables, watch)
    measurement.run()
    missing += measurement.missing()
    tables.extend("missing", (vars(one) for one in missing))
    tables.write(folder)
    write_json(folder / RECORD, _record(request, measurement, started))
    return missing


def _reference(
    request: GapRequest, variants: Sequence[Variant], device: str
) -> tuple[Representation | None, list[Missing]]:
    """The fixed reference encoder where it is to be measured besides the networks."""
    name = request.reference
    known = measured_anyway(name, request.methods, variants, request.preset, request.assignments)
    if name == NO_REFERENCE or known:
        return None, []
    found = reference_encoder(name, device, request.seed)
    return (None, [found]) if isinstance(found, Missing) else (found, [])


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
        reference: Representation | None,
        tables: _Tables,
        watch: Watch,
    ) -> None:
        self.request, self.images, self.videos = request, images, videos
        self.variants, self.reference = variants, reference
        self.tables, self.watch = tables, watch
        self.frames = videos.frames()
        changed = len(request.factors) * 2 * len(SEVERITIES)
        self.steps = 4 * len(variants) + changed + (reference is not None)
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
        self._of_reference()
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
        equalised = picture_rows(
            self.images.items, self.frames, self.request.video_label_accuracy, self.request.seed
        )
        key = {"method": "all", "weights": "", "seed": self.request.seed}
        self.tables.extend("equalised_statistics", [key | row for row in equalised])

    def _of_reference(self) -> None:
        if self.reference is None:
            return
        self._advance(f"Frechet ratio on the {REFERENCE}")
        name, seed = self.request.reference, self.request.seed
        rows = reference_rows(self.reference, name, self.images.items, self.frames, seed)
        self.tables.extend("distances", list(rows))

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
        equal = equalisation_rows(
            looked, *samples, clean.videos, seed, self.request.video_label_accuracy
        )
        self.tables.extend("equalisation", [key | row for row in equal])
        ours, theirs = (part.taps[looked.main_tap].pooled for part in features)
        diversity = diversity_rows(ours, theirs, seed)
        self.tables.extend("equalised_statistics", [key | row for row in diversity])
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
        if self.request.video_label_accuracy is None:
            found.append(Missing("label accuracy made equal", "all", MANUAL_LABELS))
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
        "reference": _reference_record(measurement),
        "relative_to_oracle": measurement.relative,
        "remarks": measurement.remarks,
    }


def _reference_record(measurement: _Measurement) -> dict[str, Any] | None:
    if measurement.reference is None:
        return None
    return {"method": measurement.request.reference, "taps": list(measurement.reference.taps)}


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
