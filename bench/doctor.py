"""What is installed, what was found, and what will not work and why."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.config import method_settings
from bench.dataset import find_root
from bench.engine.local import threads_per_worker
from bench.errors import BenchError
from bench.method import Context
from bench.provenance import git_state, host, versions
from bench.registry import DATASETS, ENGINES, FAILURES, METHODS, discover

IMPORTS = (
    "torch", "torchvision", "timm", "mmengine", "mmcv", "mmseg", "faiss", "cv2", "PIL", "skimage",
    "scipy", "pandas", "pyarrow", "seaborn", "jinja2", "av", "pycocotools",
)  # fmt: skip

LOW_DISK_GB = 2.0
"""Below this much free space, runs with many masks may not fit."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        text: what was found, and what to do where it is not well.
        ok: whether it is well.
        needed: whether the suite cannot work without it.
    """

    text: str
    ok: bool = True
    needed: bool = False


def examine() -> Iterator[tuple[str, list[Finding]]]:
    """Sections with their findings, in the order in which they are made."""
    yield "Packages", list(_packages())
    yield "Machine", list(_machine())
    yield "Methods", list(_methods())
    yield "Data", list(_data())
    yield "Engines", list(_engines())


def _packages() -> Iterator[Finding]:
    found = versions()
    yield Finding(", ".join(f"{name} {number}" for name, number in found.items()))
    for name in IMPORTS:
        try:
            importlib.import_module(name)
        except Exception as error:  # native packages fail in many ways
            yield Finding(
                f"{name} cannot be imported: {type(error).__name__}: {error}. "
                "Install the versions of constraints.txt (`make .venv`).",
                ok=False,
                needed=True,
            )
    git = git_state()
    state = "with uncommitted changes" if git["modified"] else "clean"
    yield Finding(f"commit {git['commit']}, {state}" if git["commit"] else "not a git checkout")


def _machine() -> Iterator[Finding]:
    facts = host()
    yield Finding(
        f"{facts['system']}, {facts['processor']}, {facts['cores']} cores; "
        f"one worker per core gives each {threads_per_worker(os.cpu_count() or 1)} thread"
    )
    import psutil

    memory = psutil.virtual_memory()
    yield Finding(
        f"memory {memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} available"
    )
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding(
        f"disk {free:.1f} GiB free in {Path.cwd()}"
        + ("" if free > LOW_DISK_GB else "; runs with many masks may not fit"),
        ok=free > LOW_DISK_GB,
    )
    if "gpu" in facts:
        yield Finding(f"GPU {facts['gpu']}")
    else:
        yield Finding("no CUDA device: `paper` presets that train need one", ok=False)


def _failed(group: str) -> Iterator[Finding]:
    for failure in FAILURES:
        if failure.group == f"bench.{group}":
            yield Finding(f"{failure.name} is not loaded: {failure.reason}", ok=False)


def _methods() -> Iterator[Finding]:
    discover("methods")
    for name, method in sorted(METHODS.module_dict.items()):
        try:
            settings, preset = method_settings(name, method, None, {})
            reason = method.why_not(settings, Context())
        except BenchError as error:
            reason, preset = str(error), "tiny"
        yield Finding(f"{name} ({preset})" + (f": {reason}" if reason else ""), ok=reason is None)
    yield from _failed("methods")


def _data() -> Iterator[Finding]:
    discover("datasets")
    home = os.environ.get("BENCH_DATA")
    yield Finding(f"BENCH_DATA is {home}" if home else "BENCH_DATA is not set", ok=bool(home))
    for name, dataset in sorted(DATASETS.module_dict.items()):
        if not dataset.folders:
            yield Finding(f"{name}: needs no files")
            continue
        try:
            yield Finding(f"{name}: {find_root(dataset, None)}")
        except BenchError:
            yield Finding(f"{name}: not found. {dataset.how_to_get}", ok=False)
    yield from _failed("datasets")


def _engines() -> Iterator[Finding]:
    discover("engines")
    for name, engine in sorted(ENGINES.module_dict.items()):
        reason = engine.why_not()
        yield Finding(f"{name}: {reason or engine.title}", ok=reason is None)
    yield from _failed("engines")
