"""Fixtures of the report tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_runs import FakeMethod, Maker, write_run
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.store import Run
from reports.drawing import Drawing


@pytest.fixture(scope="session")
def measured_gap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measured gap of two small domains and three networks, one of them adapted; not drawn."""
    from bench.gap.command import measure_gap
    from bench.gap.request import gap_request
    from tests.bench.gap.small_domains import COUNT

    out = tmp_path_factory.mktemp("measured") / "small gap"
    out.mkdir()
    weights = []
    for label, threshold in (("source", 0.5), ("oracle", 0.3), ("adapted", 0.41)):
        file = out.with_name(f"{label}.txt")
        file.write_text(str(threshold))
        weights.append(f"{label}={file}")
    options = {
        "methods": ["bright"], "images": "small-pictures", "videos": "small-clips",
        "short_side": 48, "limit": COUNT, "factors": ["low_light", "framing"],
        "weights": weights, "reference": "prompted-only", "video_label_accuracy": 0.8,
    }  # fmt: skip
    measure_gap(gap_request(options), out)
    return out


@pytest.fixture(scope="session")
def gap_drawings(measured_gap: Path) -> list[Drawing]:
    """Its figures, drawn once for all tests."""
    from reports.gap_part import draw_all
    from reports.gap_results import GapResults

    return draw_all(GapResults(measured_gap))


@pytest.fixture(scope="session")
def gap_folder(measured_gap: Path, gap_drawings: list[Drawing]) -> Path:
    """The measured gap with its page."""
    from reports import gap

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gap, "draw_all", lambda results: gap_drawings)
        gap.build(measured_gap)
    return measured_gap


@pytest.fixture
def make_run(tmp_path: Path) -> Maker:
    """Call with a name, methods and :func:`write_run`'s options."""

    def make(name: str, methods: Sequence[FakeMethod], **options: Any) -> Run:
        return write_run(tmp_path / "runs" / name, methods, **options)

    return make


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return run
