"""What the processes of one training share: sums, means and rows over all of them.

With one process everything is what it was given. With several, all of them have to come to the same
calls in the same order, since each waits for the others; so whether to call may depend on settings,
on the step, and on what is shared already, and never on one process's own samples.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum of all processes' values, of the same shape; no gradient passes where there are several.

    Args:
        values: of any type, of the same shape in all processes.
    """
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of all processes' values; see :func:`sum_over_processes`."""
    return values if world_size() == 1 else sum_over_processes(values) / world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """All processes' rows, the first process's first; no gradient passes where there are several.

    Args:
        rows: ``(M, ...)``, of the same shape in all processes.

    Returns:
        ``(world size * M, ...)``.
    """
    if world_size() == 1:
        return rows
    own = rows.detach().contiguous()
    gathered = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(gathered, own)
    return torch.cat(gathered)


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
