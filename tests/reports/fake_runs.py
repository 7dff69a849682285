"""Run folders made by code, with the store's own files, and numbers a reader can check by head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.masks import write_mask
from bench.method import LabelRegime, ProtocolRecord
from bench.store import Run, load_run, mask_folder, write_json, write_tables
from bench.video import Video

FRAMES = tuple(range(1, 9))
"""Scored frames of every fake object: 8, so that decay compares frames 1-3 with 6-8."""

SIZE = (45, 80)


@dataclass
class FakeJob:
    """One job; ``scores`` holds (J, F, seen) per object, each constant over all frames."""

    sequence: str
    scores: Mapping[int, tuple[float, float, bool | None]] = field(default_factory=dict)
    status: str = "done"
    reason: str = ""
    seed: int = 0
    seconds: float = 4.0
    cpu_seconds: float | None = None
    """None as in runs of earlier versions."""


@dataclass
class FakeMethod:
    name: str
    jobs: Sequence[FakeJob] = ()
    variant: str = ""
    title: str = ""
    regime: LabelRegime = field(default_factory=LabelRegime)
    protocol: ProtocolRecord = field(default_factory=ProtocolRecord)
    skip: str = ""
    weights: str | None = None
    record: Mapping[str, Any] | None = None
    """What jobs say of the weights; None as runs of earlier versions say nothing."""
    training_seconds: float = float("nan")
    training_steps: float | None = None
    """None as in runs of earlier versions."""
    row: str | None = None
    """Its name in a suite; the variant, too, where it is given."""
    paper: str = ""


Maker = Callable[..., Run]


def write_run(
    path: Path,
    methods: Sequence[FakeMethod],
    *,
    dataset: str = "toy-val",
    title: str = "Toy",
    sequences: Sequence[str] = ("ant", "bee"),
    started: str = "2026-01-01T00:00:00+00:00",
    protocol: str = "semi-supervised",
    tables: bool = True,
    masks: bool = True,
    root: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Write a run folder as the harness leaves it and read it back."""
    path.mkdir(parents=True)
    name, split = dataset.rsplit("-", 1)
    data = {
        "label": dataset,
        "name": name,
        "split": split,
        "root": root,
        "settings": dict(settings or {}),
    }
    plan: dict[str, list[Any]] = {"jobs": [], "skips": []}
    failures = {}
    records = {}
    for method in methods:
        record: dict[str, Any] = {
            "method": method.name,
            "variant": method.variant,
            "name": method.row,
            "title": method.title or method.name.title(),
            "description": f"What {method.name} does.",
            "paper": method.paper,
            "settings": {},
        }
        if any(job.status == "done" for job in method.jobs):
            record["regime"] = asdict(method.regime) | {"summary": method.regime.summary}
            record["protocol"] = asdict(method.protocol)
        records[f"{method.name}@{method.variant}"] = record
        if method.skip:
            skip = (method.name, method.variant, dataset, split, method.skip)
            keys = ("method", "variant", "dataset", "split", "reason")
            plan["skips"].append(dict(zip(keys, skip, strict=True)))
        for job in method.jobs:
            number = f"job{len(plan['jobs'])}"
            plan["jobs"].append(
                {
                    "id": number,
                    "method": method.name,
                    "variant": method.variant,
                    "data": data,
                    "sequence": job.sequence,
                    "seed": job.seed,
                    "weights": method.weights,
                }
            )
            if job.status == "failed":
                failures[number] = job.reason
            if job.status == "done":
                _write_job(path, number, method, job, dataset, masks)
    write_json(path / "plan.json", plan)
    write_json(
        path / "run.json",
        {
            "command": ["vos-bench", "run", "--data", dataset, "--set", "name=with space"],
            "config": {"methods": [method.name for method in methods], "protocol": protocol},
            "started": started,
            "finished": started,
            "versions": {"python": "3.11", "torch": "2.0"},
            "git": {"commit": "0123abcd" * 5, "modified": True},
            "host": {"system": "Linux x86_64", "cores": 2},
            "datasets": {
                dataset: {
                    "title": title,
                    "split": split,
                    "root": root,
                    "scoring": "semi-supervised",
                    "available": 20,
                    "sequences": list(sequences),
                    "frames": 10 * len(sequences),
                }
            },
            "methods": records,
            "failures": failures,
        },
    )
    if tables:
        write_tables(path)
    return load_run(path)


def _write_job(
    path: Path, number: str, method: FakeMethod, job: FakeJob, dataset: str, masks: bool
) -> None:
    folder = path / "jobs" / number
    folder.mkdir(parents=True)
    write_json(
        folder / "scores.json",
        [
            {
                "object": number,
                "seen": seen,
                "frames": list(FRAMES),
                "J": np.broadcast_to(j, len(FRAMES)).tolist(),
                "F": np.broadcast_to(f, len(FRAMES)).tolist(),
            }
            for number, (j, f, seen) in job.scores.items()
        ],
    )
    write_json(
        folder / "cost.json",
        {
            "seconds": job.seconds,
            "frames": 8,
            "fps": 8 / job.seconds,
            "peak_memory_mb": 300.0 + len(job.sequence),
            "parameters": 1_500_000,
            "flops": float("nan"),
            "training_images": method.regime.images,
            "training_seconds": method.training_seconds,
            "device": "cpu",
            "protocol": asdict(method.protocol),
        }
        | ({} if job.cpu_seconds is None else {"cpu_seconds": job.cpu_seconds})
        | ({} if method.training_steps is None else {"training_steps": method.training_steps})
        | ({} if method.record is None else {"weights": dict(method.record)}),
    )
    if masks:
        place = path / mask_folder(method.name, method.variant, dataset, job.sequence, job.seed)
        place.mkdir(parents=True)
        for frame in range(10):
            mask = np.zeros(SIZE, dtype=np.uint8)
            mask[10:30, 10 + 3 * frame : 30 + 3 * frame] = 1
            write_mask(place / f"{frame:05d}.png", mask)


def with_frames(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    annotated: tuple[int, ...] = tuple(range(10)),
    objects: int = 1,
) -> None:
    """Let a run open its videos: 10 frames of noise whose true masks are upright stripes."""

    def frames_of(dataset: str, sequence: str) -> Video:
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        names = tuple(f"{index:05d}" for index in range(10))
        truth = np.zeros(SIZE, dtype=np.uint8)
        for number in range(1, objects + 1):
            truth[:, SIZE[1] * (number - 1) // objects : SIZE[1] * number // objects - 5] = number
        return Video(
            dataset, sequence, names, SIZE, lambda index: noise, lambda index: truth, annotated
        )

    monkeypatch.setattr(run, "frames_of", frames_of)


def two(a: float, b: float, **options: Any) -> list[FakeJob]:
    """Jobs of both sequences: "ant" with one object, J = F = a; "bee" with two, J = b, F = b/2."""
    return [
        FakeJob("ant", {1: (a, a, None)}, **options),
        FakeJob("bee", {1: (b, b / 2, None), 2: (b, b / 2, None)}, **options),
    ]


COPY = FakeMethod("copy", two(0.25, 0.5), title="Copy the first mask")

MASKS = FakeMethod(
    "masks",
    two(0.75, 0.75),
    title="Masks & 100%_more",
    regime=LabelRegime(
        images=3600, image_labels="saliency", video_masks=100, pretraining=("ImageNet-1k",)
    ),
    protocol=ProtocolRecord(resolution="480p", stride=8, top_k=5, extra={"frames kept": "7"}),
    paper="Somebody: Masks. 2020",
)
