"""Frames and masks of a sequence, read once, at the size that a page shows them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import cv2

from bench.errors import BenchError
from bench.masks import read_mask
from bench.video import RGB, Mask
from reports.results import DONE, DatasetInfo, MethodInfo, Results

if TYPE_CHECKING:
    from bench.store import Run
    from bench.video import Video

T = TypeVar("T")

THUMBNAIL = 320
"""Longer side in pixels."""

LATER_MASKS = 2
"""With fewer annotated frames than this after the first, all frames are shown instead of those."""


@dataclass(frozen=True)
class Track:
    """One method's masks on the shown frames.

    Attributes:
        info: the method.
        seed: of the job that is shown; 0 where there is none.
        masks: uint8 ids ``(h, w)`` per shown frame; None where there is no file.
        reason: why there are none at all, else empty.
    """

    info: MethodInfo
    seed: int
    masks: tuple[Mask | None, ...]
    reason: str = ""


@dataclass(frozen=True)
class Footage:
    """What is shown of one sequence.

    Attributes:
        dataset: the dataset.
        name: the sequence.
        names: of all frames.
        picked: indices of the shown frames, ascending.
        size: (h, w) of the thumbnails.
        images: uint8 RGB ``(h, w, 3)`` per shown frame; None where it cannot be read.
        truth: uint8 ids ``(h, w)`` per shown frame; None without ground truth.
        tracks: one per method, in the order of the labels.
        note: what a reader must know of them.
    """

    dataset: DatasetInfo
    name: str
    names: tuple[str, ...]
    picked: tuple[int, ...]
    size: tuple[int, int]
    images: tuple[RGB | None, ...]
    truth: tuple[Mask | None, ...]
    tracks: tuple[Track, ...]
    note: str = ""


@dataclass(frozen=True)
class _Source:
    """Where one method's masks of one sequence lie, or why they do not."""

    info: MethodInfo
    folder: Path | None = None
    run: Run | None = None
    seed: int = 0
    reason: str = ""


def load_footage(
    results: Results,
    dataset: DatasetInfo,
    name: str,
    frames: int,
    wanted: Collection[int] = (),
) -> Footage:
    """Read evenly spread frames of a sequence and every method's masks; the lowest seed counts.

    Args:
        results: the report's results.
        dataset: the dataset.
        name: the sequence.
        frames: how many, at most.
        wanted: indices of frames that are shown besides these.
    """
    sources = [_source(results, dataset, name, key, info) for key, info in results.methods.items()]
    video = _video(sources, dataset, name)
    if video is None:
        return _without_video(sources, dataset, name, frames, wanted)
    candidates = list(video.annotated)
    # Where only first masks are public, other frames show more than the annotated ones.
    if len(candidates) <= LATER_MASKS:
        candidates = list(range(len(video)))
    picked = _with(spread(candidates, frames), wanted, len(video))
    size = _thumbnail_size(*video.size)
    annotated = set(video.annotated)
    return Footage(
        dataset,
        name,
        tuple(video.frame_names),
        picked,
        size,
        tuple(_image(video, index, size) for index in picked),
        tuple(_truth(video, index, size) if index in annotated else None for index in picked),
        tuple(_track(source, video.frame_names, picked, size) for source in sources),
    )


def spread(candidates: Sequence[T], count: int) -> tuple[T, ...]:
    """At most ``count`` entries, evenly from the first to the last."""
    last, steps = len(candidates) - 1, min(count, len(candidates)) - 1
    if steps < 1:
        return tuple(candidates[: steps + 1])
    return tuple(candidates[round(step * last / steps)] for step in range(steps + 1))


def _with(picked: Sequence[int], wanted: Collection[int], length: int) -> tuple[int, ...]:
    """Indices of both, ascending, without those that a video does not have."""
    return tuple(sorted({*picked, *(index for index in wanted if 0 <= index < length)}))


def _source(
    results: Results, dataset: DatasetInfo, sequence: str, key: tuple[str, str], info: MethodInfo
) -> _Source:
    """The masks of the lowest finished seed of a method on a sequence."""
    jobs = dataset.rows(results.jobs)
    jobs = jobs[(jobs["method"] == key[0]) & (jobs["variant"] == key[1])]
    # A method skipped as a whole has one row without a sequence.
    mine = jobs[jobs["sequence"].isin([sequence, ""])].sort_values("seed")
    if not len(mine):
        return _Source(info, reason="not run")
    done = mine[mine["status"] == DONE]
    if not len(done):
        return _Source(info, reason=str(mine["status"].iloc[0]))
    first = done.iloc[0]
    run, seed = results.runs[int(first["run_index"])], int(first["seed"])
    return _Source(info, Path(run.masks(*key, dataset.dataset, sequence, seed)), run, seed)


def _video(sources: Sequence[_Source], dataset: DatasetInfo, name: str) -> Video | None:
    """The video through any of the runs."""
    for run in dict.fromkeys(source.run for source in sources if source.run is not None):
        video = run.frames_of(dataset.dataset, name)
        if video is not None:
            return video
    return None


def _without_video(
    sources: Sequence[_Source],
    dataset: DatasetInfo,
    name: str,
    frames: int,
    wanted: Collection[int],
) -> Footage:
    """Masks alone: they tell the frames and the size."""
    for source in sources:
        files = sorted(source.folder.glob("*.png")) if source.folder is not None else []
        if not files:
            continue
        names = tuple(path.stem for path in files)
        picked = _with(spread(range(len(names)), frames), wanted, len(names))
        try:
            size = _thumbnail_size(*read_mask(files[0]).shape)
        except BenchError:
            continue
        tracks = tuple(_track(each, names, picked, size) for each in sources)
        nothing = (None,) * len(picked)
        note = "The dataset is not on this machine: masks are shown without their frames."
        return Footage(dataset, name, names, picked, size, nothing, nothing, tracks, note)
    note = "Neither frames nor masks of this sequence are at hand."
    tracks = tuple(Track(each.info, each.seed, (), each.reason) for each in sources)
    return Footage(dataset, name, (), (), (9, 16), (), (), tracks, note)


def _track(
    source: _Source, names: Sequence[str], picked: Sequence[int], size: tuple[int, int]
) -> Track:
    if source.folder is None:
        return Track(source.info, source.seed, (None,) * len(picked), source.reason)
    masks: list[Mask | None] = []
    for index in picked:
        try:
            masks.append(_shrink(read_mask(source.folder / f"{names[index]}.png"), size))
        except BenchError:
            masks.append(None)
    reason = "" if any(mask is not None for mask in masks) else "no mask file"
    return Track(source.info, source.seed, tuple(masks), reason)


def _image(video: Video, index: int, size: tuple[int, int]) -> RGB | None:
    try:
        frame = video.load_frame(index)
    except (BenchError, OSError):
        return None
    # OpenCV names the width first. Averaging over areas keeps thin structures from flickering.
    return cast(RGB, cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA))


def _truth(video: Video, index: int, size: tuple[int, int]) -> Mask | None:
    try:
        return _shrink(video.load_mask(index), size)
    except (BenchError, OSError):
        return None


def _shrink(mask: Mask, size: tuple[int, int]) -> Mask:
    return cast(Mask, cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST))


def _thumbnail_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
