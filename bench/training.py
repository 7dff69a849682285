"""Training shared by all methods that train: an mmengine Runner around a method's model and data.

A method says *what* is trained (:class:`TrainingTask`: model, samples, learning rate); this
module owns how: iteration budget or time budget, learning-rate schedule over that budget,
bfloat16, several processes, resuming, validation, the curve, and the weights file that comes out.

A training's folder::

    checkpoints/<method>/<name>/
      weights.safetensors   the best weights so far by validation score, or the last where a
                            method asks for them; half precision; the header says what they were
                            trained on and how
      training.json         the same as text, written when training ends
      options.json          what the command was given, for --resume
      curve.csv             losses, learning rate and validation score over time
      state/                the last full state, to resume from, and mmengine's own notes
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bench.errors import ConfigError, MethodError
from bench.method import LabelRegime, MethodSettings

if TYPE_CHECKING:
    import torch
    from mmengine.runner import Runner
    from torch import Tensor, nn

WEIGHTS = "weights.safetensors"
CURVE = "curve.csv"
OPTIONS = "options.json"
STATE = "state"

FEWEST_CHANNELS = 16
"""Networks that are trained have no narrower maps than this before a 1x1 convolution of stride 2.
On CPUs with more than one thread, oneDNN (in torch 2.12) writes beyond its memory in the backward
pass of such a convolution, which ends the process sooner or later."""

ENDLESS = 10**9
"""Iterations where only time ends a training, and samples of a dataset that never repeats."""

WARM_UP = 0.02
DECAY_FROM = 0.6
"""Shares of the budget: by default the learning rate rises up to the first, stays, and falls to
zero from the second on."""


@dataclass(frozen=True)
class Budget:
    """How long to train: by time or by iterations.

    Attributes:
        seconds: training time, validation included; None if iterations decide.
        iterations: optimiser steps; None if time decides.
    """

    seconds: float | None = None
    iterations: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``90s``, ``30m``, ``2h`` or ``20000it``.

        Raises:
            ConfigError: anything else, or nothing to do.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)|(\d+)it", text.strip())
        if match and match[3] and int(match[3]) > 0:
            return cls(iterations=int(match[3]))
        if match and match[1] and float(match[1]) > 0:
            return cls(seconds=float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]])
        raise ConfigError(
            f"--budget {text}",
            "not a length of training",
            "a time (90s, 30m, 2h) or a number of iterations (20000it)",
            "Correct it.",
        )

    def spent(self, seconds: float, iterations: int) -> float:
        """Share of the budget that is used up; 1 and more is all of it."""
        if self.seconds is not None:
            return seconds / self.seconds
        assert self.iterations is not None
        return iterations / self.iterations


class OptimiserSettings(MethodSettings):
    """How parameters are updated, and how the learning rate falls.

    Attributes:
        name: AdamW, or stochastic gradient descent with momentum. The latter's weight decay is
            part of the gradient, and so of the momentum.
        momentum: of ``"sgd"``.
        schedule: ``"linear"`` stays and then falls to zero in a line, ``"poly"`` falls from the
            start as a power of what is left (Chen et al., DeepLab, TPAMI 2018).
        power: of ``"poly"``.
        warm_up: share of the budget in which the rate rises from zero, linearly.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Literal["linear", "poly"] = "linear"
    power: float = Field(default=0.9, gt=0)
    warm_up: float = Field(default=WARM_UP, ge=0, lt=1)


USUAL = OptimiserSettings()


def schedule(spent: float, settings: OptimiserSettings = USUAL) -> float:
    """The learning rate's factor: linear warm-up times the schedule's curve, which ends at zero.

    Args:
        spent: share of the budget used up.
        settings: which curve.
    """
    left = max(0.0, 1 - spent)
    curve = left**settings.power if settings.schedule == "poly" else left / (1 - DECAY_FROM)
    return min(1.0, curve) * (spent / settings.warm_up if spent < settings.warm_up else 1.0)


@dataclass(frozen=True)
class TrainingRequest:
    """What a training is asked for besides the method's own settings.

    Attributes:
        method: registered name.
        out: the training's folder.
        budget: how long.
        seed: of weights and samples.
        device: ``"cpu"`` or ``"cuda"``.
        workers: processes that make samples; 0 makes them in the training process.
        amp: whether networks compute in bfloat16.
        resume: continue from the folder's last full state.
        distributed: whether torchrun started this process.
        command: recorded with the weights.
        data: names of the datasets, recorded with the weights.
        start: a checkpoint to start from, or None for random weights.
        options: what to ask for again when resuming; JSON's types. Stored, not read, here.
    """

    method: str
    out: Path
    budget: Budget
    seed: int = 0
    device: str = "cpu"
    workers: int = 1
    amp: bool = False
    resume: bool = False
    distributed: bool = False
    command: str = ""
    data: tuple[str, ...] = ()
    start: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first_process(self) -> bool:
        """Whether this is the only process, or torchrun's first."""
        return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class TrainingTask:
    """What a method gives the harness to train.

    Attributes:
        model: takes a collated batch; ``model(batch)`` returns a dictionary of scalar losses,
            whose sum is minimised; ``model.validate(batch)`` returns a list of scores, one per
            sample, larger is better.
        samples: map-style dataset; sample ``i`` depends on its index and the seed alone. It may
            be endless.
        held_out: samples for validation, never trained on.
        collate: list of samples to a batch.
        batch_size: samples per step and process.
        parameters: what the optimiser gets: parameters or groups of them. The key ``"optimiser"``
            of a group names another optimiser for it than ``optimiser.name``.
        learning_rate: peak learning rate.
        validate_every: iterations between validations.
        score: name of the validation score.
        weights: what is exported.
        settings: what weights must fit, and how they were trained; recorded with them.
        regime: the labels that the weights consumed.
        weight_decay: with AdamW and 0 the optimiser is plain Adam.
        clip_gradient: largest norm of the gradient; None for no limit.
        betas: of AdamW.
        optimiser: how parameters are updated, and how all learning rates fall.
        keep: which weights are exported: the best by validation score, or the last.
        clip_parameters: whose gradient is clipped; None for all that the optimiser gets.
        progress: called before every step with the share of the budget that is spent and the
            number of steps done, for schedules of the model's own.
        notes: called when weights are exported; what it returns is recorded with them. JSON's
            types.
        idle_parameters: whether a step may leave parameters without a gradient. Several processes
            have to be told.
    """

    model: nn.Module
    samples: Any
    held_out: Any
    collate: Callable[[list[Any]], Any]
    batch_size: int
    parameters: Any
    learning_rate: float
    validate_every: int
    score: str
    weights: Callable[[], Mapping[str, Tensor]]
    settings: Mapping[str, Any]
    regime: LabelRegime
    weight_decay: float = 0.0
    clip_gradient: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    keep: Literal["best", "last"] = "best"
    clip_parameters: Sequence[nn.Parameter] | None = None
    progress: Callable[[float, int], None] | None = None
    notes: Callable[[], Mapping[str, Any]] | None = None
    optimiser: OptimiserSettings = USUAL
    idle_parameters: bool = False


class EndlessSampler:
    """0, 1, 2, … without end, shared out between processes; can be put forward to resume."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank = rank
        self.world = world
        self.start = 0

    def skip(self, count: int) -> None:
        """Leave out this process's next ``count`` samples."""
        self.start += count

    def __iter__(self) -> Iterator[int]:
        number = self.start
        while True:
            yield number * self.world + self.rank
            number += 1

    def __len__(self) -> int:
        return ENDLESS


@dataclass
class Progress:
    """What a training tells whoever watches it.

    Attributes:
        spent: share of the budget used up.
        iteration: optimiser steps done.
        losses: latest losses by name, smoothed.
        score: best validation score so far, or the last where the last weights are kept.
    """

    spent: float = 0.0
    iteration: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    score: float = math.nan


Watcher = Callable[[Progress], None]


def train(task: TrainingTask, request: TrainingRequest, watch: Watcher | None = None) -> Path:
    """Train until the budget is spent.

    Returns:
        The weights file.

    Raises:
        MethodError: the losses became infinite or NaN, or there is nothing to resume from.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    if request.resume and not (request.out / STATE / "last_checkpoint").is_file():
        raise MethodError(
            request.out,
            "no state of an interrupted training",
            f"{STATE}/last_checkpoint and the file it names",
            "Start without --resume.",
        )
    if not request.resume and (request.out / WEIGHTS).exists():
        raise ConfigError(
            f"--out {request.out}",
            "a finished or interrupted training",
            "a new folder, or --resume",
            "Name another folder, or continue that one with --resume.",
        )
    if not request.resume and request.first_process:
        from bench.store import write_json

        request.out.mkdir(parents=True, exist_ok=True)
        write_json(request.out / OPTIONS, request.options)
    runner = build_runner(task, request, watch)
    runner.train()
    return request.out / WEIGHTS


def build_runner(
    task: TrainingTask, request: TrainingRequest, watch: Watcher | None = None
) -> Runner:
    """The mmengine Runner for a task."""
    import cv2
    import mmengine.device.utils
    from mmengine.dist import get_dist_info
    from mmengine.evaluator import Evaluator
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader

    from bench._runner import (
        AutocastOptimWrapper,
        BudgetHook,
        ScoreMetric,
        TrainedModel,
        build_optimiser,
    )

    # Workers are forked from this process. OpenCV's threads do not survive that: a worker that
    # calls on them waits for ever. So there are none.
    cv2.setNumThreads(0)
    mmengine.device.utils.DEVICE = request.device  # mmengine would take a GPU wherever it sees one
    take_own_gpu(request)
    if request.distributed:
        _join_processes(request.device)
    rank, world = get_dist_info()
    loader = DataLoader(
        task.samples,
        task.batch_size,
        sampler=EndlessSampler(rank, world),
        collate_fn=_as_arguments(task.collate),
        num_workers=request.workers,
        persistent_workers=request.workers > 0,
        worker_init_fn=_quiet_worker,
    )
    held_out = DataLoader(
        task.held_out,
        task.batch_size,
        collate_fn=_as_arguments(task.collate),
        sampler=range(rank, len(task.held_out), world),
    )
    optimiser = build_optimiser(task)
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]  # the schedule starts from it, also after resuming
    model = TrainedModel(task.model).to(request.device)
    clip = {"max_norm": task.clip_gradient} if task.clip_gradient else None
    iterations = request.budget.iterations or ENDLESS
    return Runner(
        model=_shared(model, task.idle_parameters) if request.distributed else model,
        work_dir=str(request.out / STATE),
        train_dataloader=loader,
        val_dataloader=held_out,
        train_cfg={
            "by_epoch": False,
            "max_iters": iterations,
            "val_interval": min(task.validate_every, iterations),
        },
        val_cfg={},
        val_evaluator=Evaluator(ScoreMetric(task.score)),
        optim_wrapper=AutocastOptimWrapper(
            device=request.device,
            enabled=request.amp,
            clipped=task.clip_parameters,
            optimizer=optimiser,
            clip_grad=clip,
        ),
        default_hooks={
            "logger": None,
            "param_scheduler": None,
            "sampler_seed": None,
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": min(task.validate_every, iterations),
                "by_epoch": False,
                "max_keep_ckpts": 1,
            },
        },
        custom_hooks=[BudgetHook(task, request, watch)],
        launcher="pytorch" if request.distributed else "none",
        randomness={"seed": request.seed},
        resume=request.resume,
        log_level="ERROR",
        # mmengine keeps its message hubs by this name for as long as the process lives.
        experiment_name=f"{request.out.name}-{time.time_ns()}",
        default_scope="mmengine",
    )


def take_own_gpu(request: TrainingRequest) -> None:
    """Let ``"cuda"`` mean this process's GPU under torchrun, for whatever is built from now on."""
    import torch

    if request.distributed and request.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _join_processes(device: str) -> None:
    """Join torchrun's other processes; mmengine's own way needs a GPU."""
    import torch

    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")


def _shared(model: nn.Module, idle_parameters: bool) -> nn.Module:
    """A model whose gradients are averaged over all processes.

    Wrapped here because mmengine would name a GPU for each process, also on a CPU. Parameters that
    no process has a gradient for keep none.
    """
    from mmengine.model import MMDistributedDataParallel

    wrapped: nn.Module = MMDistributedDataParallel(model, find_unused_parameters=idle_parameters)
    return wrapped


class _as_arguments:  # noqa: N801 - a function that can be sent to worker processes
    """Wraps a batch in a list, which mmengine spreads into the model's arguments."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> list[Any]:
        return [self.collate(samples)]


def _quiet_worker(_: int) -> None:
    """One thread per worker: they share the cores with the training process."""
    import torch

    torch.set_num_threads(1)


# --------------------------------------------------------------------------- weights


def save_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors as half-precision safetensors with a header, atomically.

    Args:
        path: ends in ``.safetensors``.
        tensors: floating-point ones are stored as float16, others as they are.
        header: JSON-able; read back by :func:`read_header`.
    """
    import torch
    from safetensors.torch import save_file

    stored = {
        name: (tensor.detach().to("cpu", torch.float16) if tensor.is_floating_point() else tensor)
        .contiguous()
        .cpu()
        for name, tensor in tensors.items()
    }
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(stored, temporary, {"training": json.dumps(header, default=str, sort_keys=True)})
    temporary.replace(path)


def read_header(path: Path) -> dict[str, Any]:
    """What :func:`save_weights` wrote beside the tensors; empty for files of others.

    Raises:
        MethodError: not a readable safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        header = json.loads(metadata.get("training", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise MethodError(
            path, f"unreadable: {error}", "a safetensors file", "Train or download it again."
        ) from error
    return header if isinstance(header, dict) else {}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` or a torch file, floating-point ones as float32.

    Raises:
        MethodError: missing or unreadable.
    """
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise MethodError(path, "no such file", "a checkpoint", "Check --weights.")
    try:
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise several families of errors
        raise MethodError(
            path,
            f"unreadable: {str(error).splitlines()[0]}",
            "a .safetensors file, or a torch file that holds tensors alone",
            "Check the file; files with pickled code are not opened.",
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(
        isinstance(t, torch.Tensor) for t in loaded.values()
    ):
        raise MethodError(path, "no state dict", "tensors by name", "Check the file.")
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in loaded.items()
    }


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict whose names and shapes must be exactly the module's.

    Raises:
        MethodError: names every missing and unknown tensor, or the first wrong shape.
    """
    expected = module.state_dict()
    missing, unknown = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or unknown:
        raise MethodError(
            path,
            f"missing tensors {missing or 'none'}; unknown tensors {unknown or 'none'}",
            f"exactly the {len(expected)} tensors of {type(module).__name__}",
            "Use the preset and settings that the file was trained with.",
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise MethodError(
                path,
                f"{name} of shape {tuple(tensor.shape)}",
                f"shape {tuple(expected[name].shape)}",
                "Use the preset and settings that the file was trained with.",
            )
    module.load_state_dict(tensors, strict=True)


def newest_weights(
    method: str, packaged: Path, fits: Callable[[Mapping[str, Any]], bool]
) -> Path | None:
    """The newest weights of a method that fit: trained here, else shipped with the package.

    Args:
        method: registered name; trainings lie in ``checkpoints/<method>/``.
        packaged: folder of shipped ``.safetensors`` files, of this method or of several.
        fits: decides by a file's header.
    """
    trained = sorted(
        Path("checkpoints", method).glob(f"*/{WEIGHTS}"),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    for path in [*trained, *sorted(packaged.glob("*.safetensors"))]:
        header = read_header(path)
        if header.get("method", method) == method and fits(header):
            return path
    return None


def regime_from(header: Mapping[str, Any]) -> LabelRegime | None:
    """The label regime recorded in a weights file's header."""
    if "regime" not in header:
        return None
    fields = dict(header["regime"])
    fields["pretraining"] = tuple(fields.get("pretraining", ()))
    return LabelRegime(**fields)


def header_of(
    task: TrainingTask, request: TrainingRequest, iteration: int, seconds: float, score: float
) -> dict[str, Any]:
    """What is recorded with weights."""
    from bench.provenance import versions

    return {
        "method": request.method,
        "settings": task.settings,
        "regime": asdict(task.regime),
        "data": request.data,
        "seed": request.seed,
        "command": request.command,
        "iterations": iteration,
        "batch_size": task.batch_size,
        "seconds": round(seconds, 1),
        "device": request.device,
        task.score: round(score, 5),
        "versions": versions(),
        **({"notes": task.notes()} if task.notes else {}),
    }


class CurveWriter:
    """``curve.csv``: one row per report. A value that is new gets a column, empty before.

    Args:
        path: of the file, which is begun anew, or continued where training resumes.
        resumed_at: last iteration whose rows stay; None for a new training.
    """

    def __init__(self, path: Path, resumed_at: int | None) -> None:
        self.path = path
        self.columns: list[str] = []
        if resumed_at is None:
            path.unlink(missing_ok=True)
        elif path.is_file():
            # Rows after the state that training resumes from will be written again.
            self._keep([row for row in self._rows() if int(row["iteration"]) <= resumed_at])

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        new = [name for name in row if name not in self.columns]
        if new:
            rows = self._rows() if self.columns else []
            self.columns += new
            self._keep(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _rows(self) -> list[dict[str, str]]:
        """All rows so far; sets the columns where the file has more than are known."""
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            self.columns = self.columns or list(reader.fieldnames or ())
            return list(reader)

    def _keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the file anew with these rows, whole even if the process is killed meanwhile."""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.path)


def parameter_count(module: torch.nn.Module) -> int:
    """Number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def new_training_name() -> str:
    """A folder name from the current time."""
    return time.strftime("%Y%m%d-%H%M%S")
