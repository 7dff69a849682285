"""Fixtures of the report tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_runs import FakeMethod, Maker, write_run

from bench.store import Run


@pytest.fixture
def make_run(tmp_path: Path) -> Maker:
    """Call with a name, methods and :func:`write_run`'s options."""

    def make(name: str, methods: Sequence[FakeMethod], **options: Any) -> Run:
        return write_run(tmp_path / "runs" / name, methods, **options)

    return make
