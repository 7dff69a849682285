"""Peak memory of a piece of work inside a process that has done other work before."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak_memory(device: str) -> None:
    """Start measuring: forget the process's earlier peak (on Linux) and the GPU's."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    # Writing 5 resets VmHWM, the peak resident size. Elsewhere than on Linux the peak stays that
    # of the whole process so far.
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")


def peak_memory_mb(device: str) -> float:
    """Peak since :func:`reset_peak_memory` in MiB: allocated on the GPU, resident on the CPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
