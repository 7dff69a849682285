"""Whose weights a method loaded, and what their training raised alarm about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.method import LabelRegime
from bench.store import is_done, job_folder, read_json
from reports.results import AUTHORS_WEIGHTS, MEASURED

if TYPE_CHECKING:
    from bench.store import Run


@dataclass(frozen=True)
class Loaded:
    """The weights of one method and seed, as the newest run with a finished job recorded them.

    Attributes:
        file: whether a file was loaded.
        trained_here: whether this suite trained it, which its header tells.
        alarms: sentences.
    """

    file: bool
    trained_here: bool
    alarms: tuple[str, ...] = ()


LoadedBySeed = Mapping[int, Loaded]


def loaded_weights(runs: Sequence[Run]) -> dict[tuple[str, str], LoadedBySeed]:
    """What every (method, variant) loaded, by seed; without those of which no job has finished.

    Args:
        runs: oldest first.
    """
    found: dict[tuple[str, str], dict[int, Loaded]] = {}
    for run in runs:
        seen = set()
        for job in read_json(run.path / "plan.json")["jobs"]:
            key = (job["method"], job["variant"])
            if (*key, job["seed"]) in seen or not is_done(run.path, job["id"]):
                continue
            seen.add((*key, job["seed"]))
            cost = read_json(job_folder(run.path, job["id"]) / "cost.json")
            found.setdefault(key, {})[job["seed"]] = _loaded(job, cost)
    return {key: dict(sorted(by_seed.items())) for key, by_seed in found.items()}


def _loaded(job: Mapping[str, Any], cost: Mapping[str, Any]) -> Loaded:
    if not job.get("weights"):
        return Loaded(file=False, trained_here=False)
    record = cost.get("weights")
    if record is None:
        # Runs of earlier versions say it by the training's length, which only headers hold.
        known = cost.get("training_seconds")
        return Loaded(file=True, trained_here=known is not None and math.isfinite(known))
    alarms = [_sentence(alarm) for alarm in record["notes"].get("alarms", ())]
    shared = record.get("transductive", ())
    if shared:
        names = " and ".join(shared)
        alarms.insert(0, f"it saw {names}, which may hold videos that are tested on (transductive)")
    return Loaded(True, bool(record["trained_here"]), tuple(alarms))


def _sentence(alarm: Mapping[str, Any]) -> str:
    """An alarm in words: where, when, how often, what."""
    first, last, times = (alarm.get(name) for name in ("first", "last", "times"))
    steps = f"step {first}" if first == last else f"steps {first} to {last}, {times} times"
    where = [str(alarm["tap"])] if alarm.get("tap") else []
    where += [steps] if first is not None else []
    text = " ".join(str(alarm.get("alarm", "")).split()).rstrip(".")
    return f"{text} ({', '.join(where)})" if where else text


def origin(loaded: LoadedBySeed, regime: LabelRegime | None) -> str:
    """Whose weights a score was measured with.

    A file without this suite's header is the authors', and so is what a package carries: weights
    that consumed something, though no file was named. Where nothing was trained, nobody else's
    work is measured.
    """
    files = [each for each in loaded.values() if each.file]
    if files:
        return MEASURED if all(each.trained_here for each in files) else AUTHORS_WEIGHTS
    if regime is None:
        return MEASURED
    consumed = regime.images or regime.videos or regime.video_hours or regime.video_masks
    return AUTHORS_WEIGHTS if consumed or regime.pretraining else MEASURED


def alarms(loaded: LoadedBySeed) -> tuple[str, ...]:
    """The alarms of a method's trainings; each names its seed where there are several."""
    several = len(loaded) > 1
    return tuple(
        f"seed {seed}: {sentence}" if several else sentence
        for seed, each in loaded.items()
        for sentence in each.alarms
    )
