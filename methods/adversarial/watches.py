"""What is followed over a training's steps: a discriminator's loss, its accuracy, idle steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WON_LOSS = 0.02
WON_STEPS = 1000
"""A discriminator's loss below the first for so many steps in a row: it has won. The loss of one
that guesses is ln 2 = 0.69; between 0.2 and 0.5 is usual."""

ACCURACY_DECAY = 0.95
"""Of the moving average of accuracies per step. Those of single batches scatter by some hundredths,
so that the best of many would look like one that tells the domains apart."""

AVERAGED_STEPS = 20
"""Steps that this average needs, about what it looks back on."""

IDLE_SHARE = 0.5
"""Of the game's steps. A loss that was skipped in more of them has done next to nothing."""


class LossWatch(nn.Module):
    """Counts for how many steps in a row a discriminator's loss has been next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, loss: float) -> int:
        """See a step's loss; NaN, of a step without any, changes nothing.

        Returns:
            Steps in a row, this one included.
        """
        if not math.isnan(loss):
            self.steps.copy_(self.steps + 1 if loss < WON_LOSS else torch.zeros_like(self.steps))
        return int(self.steps)


class AccuracyWatch(nn.Module):
    """Follows how well a discriminator tells the domains apart.

    Attributes:
        steps: in which it judged anything.
        began: share of the training that was over at the first of these; NaN before.
        spent: the same at the last of these.
        average: moving average of its accuracy, 0.5 at first.
        best: highest value of this average.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: Tensor
        self.began: Tensor
        self.spent: Tensor
        self.average: Tensor
        self.best: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("began", torch.tensor(math.nan))
        self.register_buffer("spent", torch.tensor(math.nan))
        self.register_buffer("average", torch.tensor(0.5))
        self.register_buffer("best", torch.tensor(0.5))

    def update(self, accuracy: float, spent: float) -> None:
        """See a step's accuracy, mean of both domains; NaN, of a step without any, changes nothing.

        Args:
            accuracy: in [0, 1].
            spent: share of the training that is over.
        """
        if math.isnan(accuracy):
            return
        if self.steps == 0:
            self.began.fill_(spent)
        self.spent.fill_(spent)
        self.steps += 1
        self.average.mul_(ACCURACY_DECAY).add_((1 - ACCURACY_DECAY) * accuracy)
        self.best.clamp_(min=self.average)

    @property
    def learned_for(self) -> float:
        """Share of the training since the first judgement; 0 until the average means something."""
        return float(self.spent - self.began) if self.steps >= AVERAGED_STEPS else 0.0


class IdleWatch(nn.Module):
    """Follows how much of the game passes without anything to play for.

    Attributes:
        steps: since the game's start.
        skipped: of these, in which nothing was judged.
        unclustered: share of what follows the game's start that has passed without any clusters; 0
            from the first clusters on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: Tensor
        self.skipped: Tensor
        self.unclustered: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("unclustered", torch.zeros(()))

    def update(self, skipped: bool, has_clusters: bool, start: float, spent: float) -> None:
        """See a step; one before the game's start changes nothing.

        Args:
            skipped: whether nothing was judged.
            has_clusters: whether there are clusters, or the loss needs none.
            start: share of the training before the game.
            spent: share of the training that is over.
        """
        if spent < start:
            return
        self.steps += 1
        self.skipped += int(skipped)
        self.unclustered.fill_(0.0 if has_clusters else (spent - start) / (1 - start))

    @property
    def idle(self) -> bool:
        """Whether there was nothing to play for in more than half of the game's steps."""
        return bool(self.skipped > IDLE_SHARE * self.steps)
