"""Copies of a network that are not trained: its moving average, or itself as it was at first."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Copy(nn.Module):
    """A network as it is now, in evaluation for good and without gradients.

    Args:
        network: is copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Copy:
        """Stay in evaluation, whatever the mode of what holds this."""
        super().train(False)
        return self


class MovingAverage(Copy):
    """The exponential moving average of a network's parameters.

    (Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017.) Buffers, such as
    batch statistics, are the network's own. At first the average is short, since it would
    otherwise remember random weights for 1/(1 - decay) steps.

    Args:
        network: that is followed.
        decay: per step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self.decay = decay
        self.updates: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Take a step towards the network."""
        steps = int(self.updates)
        decay = min(self.decay, steps / (steps + 1))
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for own, new in zip(self.network.buffers(), network.buffers(), strict=True):
            own.copy_(new)
        self.updates += 1
