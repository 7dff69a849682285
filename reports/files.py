"""Writing report files so that a reader never sees half of one."""

from __future__ import annotations

import os
from pathlib import Path


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
