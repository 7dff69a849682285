"""mmengine's parts for :mod:`bench.training`; imported only when something is trained."""

from __future__ import annotations

import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn

from bench.errors import MethodError
from bench.training import (
    CURVE,
    WEIGHTS,
    CurveWriter,
    Progress,
    TrainingRequest,
    TrainingTask,
    Watcher,
    header_of,
    read_header,
    save_weights,
    schedule,
)

VALIDATION = "validation"

REPORT_EVERY = 20
"""Iterations between rows of the curve."""


class TrainedModel(BaseModel):  # type: ignore[misc]
    """A task's model under mmengine's interface."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any, mode: str = "loss") -> Any:
        """Losses of a batch, or validation scores of its samples."""
        if mode != "loss":
            return self.model.validate(batch)  # type: ignore[operator]
        # mmengine adds up only what has "loss" in its name.
        losses = self.model(batch)
        return {name if "loss" in name else f"{name}_loss": loss for name, loss in losses.items()}

    def parse_losses(self, losses: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Sum of the losses, which must be finite, and what is logged of them."""
        total, logged = super().parse_losses(losses)
        if not bool(torch.isfinite(total)):
            raise MethodError(
                "training",
                f"losses { ({name: value.item() for name, value in losses.items()}) }",
                "finite losses",
                "Lower the learning rate, or train without --amp.",
            )
        return total, dict(logged)


class AutocastOptimWrapper(OptimWrapper):  # type: ignore[misc]
    """bfloat16 on any device; unlike float16 it needs no loss scaling.

    Args:
        device: where networks compute.
        enabled: whether in bfloat16.
        clipped: parameters whose gradient is clipped; None for all.
        arguments: mmengine's.
    """

    def __init__(
        self,
        device: str,
        enabled: bool,
        clipped: Sequence[nn.Parameter] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.device = device
        self.enabled = enabled
        self.clipped = clipped

    def _clip_grad(self) -> None:
        """Limit the gradient's norm; mmengine would take all parameters together."""
        if self.clipped is None:
            super()._clip_grad()
        else:
            self.clip_func(self.clipped, **self.clip_grad_kwargs)

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Forward passes happen in here."""
        with (
            super().optim_context(model),
            torch.autocast(self.device, torch.bfloat16, enabled=self.enabled),
        ):
            yield


def build_optimiser(task: TrainingTask) -> torch.optim.Optimizer:
    """The optimiser of a task's parameters, or one made of two where groups name different ones."""
    given = list(task.parameters)
    groups = [dict(one) if isinstance(one, dict) else {"params": one} for one in given]
    if given and not isinstance(given[0], dict):
        groups = [{"params": given}]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_name.setdefault(group.pop("optimiser", task.optimiser.name), []).append(group)
    parts: list[torch.optim.Optimizer] = []
    for name, own in by_name.items():
        if name == "sgd":
            momentum = task.optimiser.momentum
            parts.append(
                torch.optim.SGD(own, task.learning_rate, momentum, weight_decay=task.weight_decay)
            )
        else:
            parts.append(
                torch.optim.AdamW(
                    own, task.learning_rate, task.betas, weight_decay=task.weight_decay
                )
            )
    return parts[0] if len(parts) == 1 else JointOptimiser(parts)


class JointOptimiser(torch.optim.Optimizer):
    """Several optimisers that step together, each with groups of parameters of its own.

    Groups and state are theirs and are stored in one, as those of a single optimiser.

    Args:
        parts: at least one, whose parameters differ.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        first = {"lr": parts[0].defaults["lr"]}
        super().__init__([group for part in parts for group in part.param_groups], first)
        self._share()

    def _share(self) -> None:
        """Let all parts work on the same state, and on their own of the groups."""
        first = 0
        for part in self.parts:
            count = len(part.param_groups)
            part.param_groups = self.param_groups[first : first + count]
            part.state = self.state
            first += count

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Let every part take a step; no closure is taken."""
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load groups and state of all parts."""
        super().load_state_dict(state_dict)
        self._share()


class ScoreMetric(BaseMetric):  # type: ignore[misc]
    """Mean validation score over all held-out samples and processes."""

    def __init__(self, score: str) -> None:
        super().__init__(prefix=VALIDATION)
        self.score = score

    def process(self, data_batch: Any, data_samples: Sequence[float]) -> None:
        """Collect."""
        self.results.extend(data_samples)

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Average."""
        return {self.score: sum(results) / max(len(results), 1)}


class BudgetHook(Hook):  # type: ignore[misc]
    """Spends the budget: learning rate, end, curve, weights to keep, and the word to a watcher."""

    priority = "LOW"

    def __init__(self, task: TrainingTask, request: TrainingRequest, watch: Watcher | None) -> None:
        self.task = task
        self.request = request
        self.watch = watch or (lambda progress: None)
        self.progress = Progress()
        self.recent: dict[str, deque[float]] = {}
        self.validated = -1

    def before_train(self, runner: Any) -> None:
        """Take up the clock, and the curve, where a resumed state left them."""
        info = runner.message_hub.runtime_info
        self.before = float(info.get("training_seconds", 0.0))
        # The state of an iteration is stored before its weights are validated.
        best = self.request.out / WEIGHTS
        if self.request.resume and best.is_file():
            self.progress.score = float(read_header(best).get(self.task.score, math.nan))
        self.started = time.monotonic()
        self.progress.iteration = runner.iter
        if is_main_process():
            resumed = runner.iter if self.request.resume else None
            self.curve = CurveWriter(self.request.out / CURVE, resumed)

    @property
    def seconds(self) -> float:
        """Training time, earlier sessions included."""
        return self.before + time.monotonic() - self.started

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the learning rate, and tell the model how far training is."""
        # Clocks differ, and all processes must do the same: the first one's counts.
        shared = [self.request.budget.spent(self.seconds, runner.iter)]
        broadcast_object_list(shared)
        spent = shared[0]
        for group in runner.optim_wrapper.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule(spent, self.task.optimiser)
        if self.task.progress is not None:
            self.task.progress(spent, runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count, report, and stop when the budget is spent."""
        iteration = runner.iter + 1
        for name, value in (outputs or {}).items():
            values = self.recent.setdefault(name, deque(maxlen=REPORT_EVERY))
            values.append(float(value.detach() if isinstance(value, torch.Tensor) else value))
        seconds = self.seconds
        runner.message_hub.update_info("training_seconds", seconds)
        self.progress.iteration = iteration
        self.progress.spent = self.request.budget.spent(seconds, iteration)
        self.progress.losses = {
            name: sum(values) / len(values) for name, values in self.recent.items()
        }
        self.watch(self.progress)
        if iteration % REPORT_EVERY == 0:
            self._report(runner, iteration)
        # All processes must stop at the same step, so the first one decides.
        stop = [self.progress.spent >= 1]
        broadcast_object_list(stop)
        if stop[0]:
            runner.train_loop.stop_training = True

    def _report(self, runner: Any, iteration: int, score: float | None = None) -> None:
        """Write a row: mean losses since the row before, as a resumed training has them too."""
        self.recent.clear()
        if not is_main_process():
            return
        rate = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        row = {"iteration": iteration, "seconds": round(self.seconds, 1), "learning_rate": rate}
        row |= {name: round(value, 5) for name, value in self.progress.losses.items()}
        self.curve.write(row | {self.task.score: "" if score is None else round(score, 5)})

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Leave out mmengine's log buffers: only code could read them back.

        What remains is tensors and plain values, which torch reads without unpickling code. Our
        curve has what the buffers had.
        """
        hub = checkpoint["message_hub"]
        hub["log_scalars"] = OrderedDict()
        hub["runtime_info"] = OrderedDict(
            (key, float(value) if isinstance(value, float) else value)  # NumPy's are floats too
            for key, value in hub["runtime_info"].items()
            if isinstance(value, int | float | str)
        )

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Keep the best weights, or the last."""
        score = (metrics or {})[f"{VALIDATION}/{self.task.score}"]
        self.validated = runner.iter
        self._report(runner, runner.iter, score)
        last = self.task.keep == "last"
        if last or math.isnan(self.progress.score) or score > self.progress.score:
            self.progress.score = score
            if is_main_process():
                save_weights(
                    self.request.out / WEIGHTS,
                    self.task.weights(),
                    header_of(self.task, self.request, runner.iter, self.seconds, score),
                )
        self.watch(self.progress)

    def after_train(self, runner: Any) -> None:
        """Validate and store the last state, and say what came out."""
        from bench.store import write_json

        if self.validated != runner.iter:
            runner.val_loop.run()
        if is_main_process():
            name = f"iter_{runner.iter}.pth"
            # mmengine saves in mid-iteration and so stores the number plus one; here it is over.
            runner.train_loop._iter -= 1
            runner.save_checkpoint(runner.work_dir, name, by_epoch=False)
            runner.train_loop._iter += 1
            Path(runner.work_dir, "last_checkpoint").write_text(str(Path(runner.work_dir, name)))
            write_json(self.request.out / "training.json", read_header(self.request.out / WEIGHTS))
