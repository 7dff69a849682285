"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder that holds the real samples (``data``) and reference results (``oracle``)."""
    if os.environ.get("BENCH_DATA"):
        folder = Path(os.environ["BENCH_DATA"]).resolve().parent
    else:
        folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"No real samples: {folder / 'data'} is no folder. Set BENCH_DATA to one.")
    return folder
