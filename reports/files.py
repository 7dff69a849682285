"""Writing report files so that a reader never sees half of one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

LISTED = re.compile(
    r'(?:href|data-source)="'
    r"(gap/[\w.-]+/(?:[\w-]+\.csv|gap\.json|figures/[\w.-]+\.(?:svg|png|pdf))"
    r'|figures/[\w.-]+\.(?:svg|png|pdf)|assets/clip-[\w.-]+\.js|(?:gap_closed|classes)\.csv)"'
)
"""How a report's page refers to the files that not every report has."""

MARK = "window.vosReport"
"""What every page of a report holds."""


def listed_files(folder: Path) -> set[Path]:
    """Files that the report in a folder names as its own; none where there is no report.

    What to remove is read from the page, so that nothing is removed that no report wrote.
    """
    page = folder / "index.html"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return {folder / name for name in LISTED.findall(text)} if MARK in text else set()


def remove_files(files: Iterable[Path], folder: Path) -> None:
    """Remove files of an earlier report in a folder, and folders of gaps that this empties."""
    for path in files:
        path.unlink(missing_ok=True)
        for parent in path.relative_to(folder).parents:
            place = folder / parent
            if parent.parts[:1] == ("gap",) and place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file under a temporary name and rename it into place; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text as :func:`write_bytes` does."""
    return write_bytes(path, text.encode("utf-8"))
