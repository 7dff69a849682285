"""Computing one job: segment a sequence, score it, measure what it cost, store all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.dataset import VideoDataset
from bench.errors import ConfigError
from bench.masks import write_mask
from bench.memory import peak_memory_mb, reset_peak_memory
from bench.method import Context, Method, Semantic
from bench.metrics import SEMANTIC, SequenceScorer
from bench.metrics.rules import ScoringRule
from bench.plan import DataChoice, Job
from bench.protocol import PROTOCOLS
from bench.registry import get_dataset, get_method
from bench.semantic import ClassMapping, SemanticScorer
from bench.store import job_workspace, write_json
from bench.weights import header_of_file


@dataclass(frozen=True)
class Task:
    """A job and the run it belongs to: what travels to a worker."""

    job: Job
    run: Path


@lru_cache(maxsize=1)
def _method(name: str, settings: str, device: str, seed: int, weights: Path | None) -> Method:
    """The method of the last job, kept because neighbouring jobs mostly share it."""
    method = get_method(name)
    return method(
        method.Settings.model_validate(json.loads(settings)), Context(device, seed, weights)
    )


@lru_cache(maxsize=1)
def _dataset(choice: str) -> Any:
    fields = json.loads(choice)
    root = Path(fields["root"]) if fields["root"] else None
    return DataChoice(
        fields["label"], fields["name"], fields["split"], root, fields["settings"]
    ).open()


def build_method(job: Job) -> Method:
    """The job's method, built or taken from the previous job."""
    settings = json.dumps(job.settings, sort_keys=True)
    return _method(job.method, settings, job.device, job.seed, job.weights)


def weights_record(weights: Path | None, data: DataChoice) -> dict[str, Any] | None:
    """What a job's weights say of themselves; None where it loads no file.

    Args:
        weights: the file.
        data: what the job tests on.

    Returns:
        ``trained_here``: whether this suite trained them, which their header tells; ``notes``: what
        their training noted, as :class:`bench.training.TrainingTask` describes it;
        ``transductive``: the datasets that they were trained on and that may hold videos which are
        tested on, with or without labels.
    """
    if weights is None:
        return None
    header = header_of_file(weights)
    trained_on = header.get("data", ())
    return {
        "trained_here": bool(header),
        "notes": header.get("notes", {}),
        "transductive": [name for name in trained_on if shares_videos(name, data)],
    }


def shares_videos(name: str, data: DataChoice) -> bool:
    """Whether a dataset ``NAME`` or ``NAME-SPLIT`` may hold videos of another, by names alone."""
    try:
        (one, split), (other, _) = get_dataset(name), get_dataset(data.name)
    except ConfigError:  # a plugin's dataset that is not installed here
        return False
    if not issubclass(one, VideoDataset) or not issubclass(other, VideoDataset):
        return False
    if (split or one.splits[0]) != data.split:
        return False
    return one is other or bool(one.collection and one.collection == other.collection)


def rule_of(protocol: str, dataset: VideoDataset) -> ScoringRule:
    """The rule by which a protocol's masks of a dataset are scored."""
    if protocol == "semantic":
        return SEMANTIC
    return dataset.scoring if protocol == "semi-supervised" else dataset.unsupervised_scoring


def _class_scorer(job: Job, method: Method) -> SemanticScorer | None:
    """Maps and counts classes; None where the job knows objects only."""
    if job.classes is None:
        return None
    assert isinstance(method, Semantic)
    return SemanticScorer(ClassMapping.model_validate(job.classes), method.class_names())


def run_job(task: Task) -> Mapping[str, Any]:
    """Compute a job and store it.

    Returns:
        The stored cost record.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    job = task.job
    dataset = _dataset(json.dumps(asdict(job.data), default=str, sort_keys=True))
    video = dataset.video(job.sequence)
    method = build_method(job)
    reset_peak_memory(job.device)
    torch.manual_seed(job.seed)
    scorer = None
    if video.scorable:
        scorer = SequenceScorer(rule_of(job.protocol, dataset), len(video))
    classes = _class_scorer(job, method)
    seconds, cpu_seconds, steps, flops = 0.0, 0.0, 0, math.nan
    with job_workspace(task.run, job) as (folder, masks):
        predictions = PROTOCOLS[job.protocol](method, video)
        for index in range(len(video)):
            # Operations are counted on the last frame, when the memory is fullest. Counting
            # slows the method down, so that frame's time is left out where there are others.
            counter = FlopCounterMode(display=False) if index == len(video) - 1 else nullcontext()
            with counter:
                prediction = next(predictions)
            if isinstance(counter, FlopCounterMode):
                flops = float(counter.get_total_flops())
            mask, truth = prediction.mask, prediction.truth
            if not video.scorable:
                truth = None
            if classes is not None:
                mask, truth = classes.add(video, mask, truth)
            write_mask(masks / f"{prediction.name}.png", mask)
            if scorer is not None and truth is not None:
                scorer.update(prediction.index, mask, truth)
            if prediction.steps and (index < len(video) - 1 or not steps):
                seconds += prediction.seconds
                cpu_seconds += prediction.cpu_seconds
                steps += prediction.steps
        next(predictions, None)  # lets the protocol complain about a video without objects
        found = scorer.result().objects if scorer is not None else {}
        write_json(
            folder / "scores.json",
            [
                {
                    "object": number,
                    "seen": video.objects[number].seen if number in video.objects else None,
                    "frames": [int(frame) for frame in scores.frames],
                    "J": [float(value) for value in scores.j],
                    "F": [float(value) for value in scores.f],
                }
                for number, scores in found.items()
            ],
        )
        if classes is not None:
            write_json(folder / "classes.json", classes.record(video))
        regime = method.regime()
        cost = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "frames": steps,
            "fps": steps / seconds if seconds else math.nan,
            "peak_memory_mb": peak_memory_mb(job.device),
            "parameters": method.parameters_count(),
            "flops": flops,
            "training_images": regime.images,
            "training_seconds": method.training_seconds(),
            "training_steps": method.training_steps(),
            "device": job.device,
            "protocol": asdict(method.protocol()),
            "regime": {
                **asdict(regime),
                "summary": regime.summary,
                "annotated_masks": regime.annotated_masks,
                "annotation_hours": regime.annotation_hours,
            },
            "weights": weights_record(job.weights, job.data),
        }
        write_json(folder / "cost.json", cost)
    return cost
