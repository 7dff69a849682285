"""Thumbnails of masks on frames, ground truth and methods alike, small enough to embed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.errors import BenchError
from bench.masks import overlay, read_mask
from bench.video import RGB, Mask
from reports.results import DONE, DatasetInfo, Results

if TYPE_CHECKING:
    from bench.store import Run
    from bench.video import Video

FRAMES = 3
"""Frames shown per sequence where the page has room."""

MOST_IMAGES = 450
"""20 sequences x 3 frames x (6 methods + ground truth) fit; at about 12 kB each, under 6 MB."""

MOST_BYTES = 10_000_000
"""Encoded images per page; base64 makes a third more of it, so the page stays under 15 MB."""

THUMBNAIL = 320
"""Longer side in pixels."""

QUALITY = 62
"""Of WebP: outlines stay clean, a thumbnail takes about 10 kB."""

EMPTY = (64, 64, 64)
"""Background of masks whose frames are not at hand."""


@dataclass(frozen=True)
class Tile:
    """One picture, or the reason why there is none.

    Attributes:
        column: what is shown: "Ground truth" or a method's label.
        source: ``data:`` URI, empty where there is none.
        alt: text for people who do not see it.
        width: in pixels.
        height: in pixels.
        reason: why there is no picture.
    """

    column: str
    source: str
    alt: str
    width: int = 16
    height: int = 9
    reason: str = ""


@dataclass(frozen=True)
class Strip:
    """One frame of a sequence: its tiles in the order of the columns."""

    frame: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Clip:
    """The pictures of one sequence.

    Attributes:
        name: the sequence.
        strips: one per shown frame.
        note: what a reader must know of them.
    """

    name: str
    strips: tuple[Strip, ...]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """The pictures of one dataset.

    Attributes:
        dataset: the dataset.
        columns: titles of the columns.
        sequences: those shown, sorted.
        note: which were left out and why, empty where none was.
    """

    dataset: DatasetInfo
    columns: tuple[str, ...]
    sequences: tuple[Clip, ...]
    note: str = ""


@dataclass
class _Budget:
    """Bytes that may still be spent."""

    left: int = MOST_BYTES


@dataclass(frozen=True)
class _Source:
    """Where one method's masks of one sequence lie, or why they do not."""

    label: str
    folder: Path | None = None
    run: Run | None = None
    reason: str = ""


@dataclass
class _Shown:
    """A video as far as it can be read here."""

    video: Video | None
    names: tuple[str, ...] = ()
    picked: tuple[int, ...] = ()
    note: str = ""
    truth: frozenset[int] = field(default_factory=frozenset)


def galleries(results: Results) -> list[Gallery]:
    """Pictures of every dataset, within the page's budget; the lowest seed is shown."""
    budget = _Budget()
    columns = len(results.methods) + 1
    total = sum(len(dataset.sequences) for dataset in results.datasets.values())
    per_sequence = max(1, min(FRAMES, MOST_IMAGES // max(1, total * columns)))
    # Where one frame each is still too much, sequences are left out, from every dataset alike.
    share = min(1.0, MOST_IMAGES / max(1, total * columns * per_sequence))
    found = []
    for dataset in results.datasets.values():
        count = max(1, int(len(dataset.sequences) * share))
        places = np.linspace(0, len(dataset.sequences) - 1, count).round().astype(int)
        chosen = [dataset.sequences[place] for place in sorted(set(places.tolist()))]
        sequences = []
        for name in chosen:
            if budget.left <= 0:
                break
            sequences.append(_sequence(results, dataset, name, per_sequence, budget))
        note = ""
        if len(sequences) < len(dataset.sequences):
            note = (
                f"{len(sequences)} of {len(dataset.sequences)} sequences are shown, so that the "
                "page stays small; all masks lie in the run's folder."
            )
        labels = ("Ground truth", *(info.label for info in results.methods.values()))
        found.append(Gallery(dataset, labels, tuple(sequences), note))
    return found


def _sequence(
    results: Results, dataset: DatasetInfo, name: str, frames: int, budget: _Budget
) -> Clip:
    sources = [
        _source(results, dataset, name, key, info.label) for key, info in results.methods.items()
    ]
    shown = _open(sources, dataset, name, frames)
    strips = []
    for index in shown.picked:
        image = _image(shown, index)
        tiles = [_truth_tile(shown, index, image, name, budget)]
        tiles += [_tile(source, shown.names[index], image, name, budget) for source in sources]
        strips.append(Strip(shown.names[index], tuple(tiles)))
    return Clip(name, tuple(strips), shown.note)


def _source(
    results: Results, dataset: DatasetInfo, sequence: str, key: tuple[str, str], label: str
) -> _Source:
    """The masks of the lowest finished seed of a method on a sequence."""
    jobs = dataset.rows(results.jobs)
    jobs = jobs[(jobs["method"] == key[0]) & (jobs["variant"] == key[1])]
    # A method skipped as a whole has one row without a sequence.
    mine = jobs[jobs["sequence"].isin([sequence, ""])].sort_values("seed")
    if not len(mine):
        return _Source(label, reason="not run")
    done = mine[mine["status"] == DONE]
    if not len(done):
        return _Source(label, reason=str(mine["status"].iloc[0]))
    first = done.iloc[0]
    run = results.runs[int(first["run_index"])]
    folder = run.masks(*key, dataset.dataset, sequence, int(first["seed"]))
    return _Source(label, Path(folder), run)


def _open(sources: Sequence[_Source], dataset: DatasetInfo, name: str, frames: int) -> _Shown:
    """Open the video through any of the runs; without it, the masks alone tell the frames."""
    for run in dict.fromkeys(source.run for source in sources if source.run is not None):
        video = run.frames_of(dataset.dataset, name)
        if video is not None:
            # Where only first masks are public, later frames show more than the annotated ones.
            later = [index for index in video.annotated if index > 0]
            candidates = later if len(later) >= frames else list(range(1, len(video)))
            return _Shown(
                video,
                video.frame_names,
                _spread(candidates or [0], frames),
                truth=frozenset(video.annotated),
            )
    for source in sources:
        if source.folder is not None and source.folder.is_dir():
            names = tuple(sorted(path.stem for path in source.folder.glob("*.png")))
            if names:
                picked = _spread(list(range(len(names))), frames)
                note = "The dataset is not on this machine: masks are shown without their frames."
                return _Shown(None, names, picked, note)
    return _Shown(None, note="Neither frames nor masks of this sequence are at hand.")


def _spread(candidates: Sequence[int], count: int) -> tuple[int, ...]:
    """``count`` entries, evenly from the first third to the end, where errors have built up."""
    places = np.linspace(len(candidates) / (count + 1), len(candidates) - 1, count)
    return tuple(sorted({candidates[int(place)] for place in places}))


def _image(shown: _Shown, index: int) -> RGB | None:
    """The frame at thumbnail size; None where it cannot be read."""
    if shown.video is None:
        return None
    try:
        frame = shown.video.load_frame(index)
    except (BenchError, OSError):
        return None
    height, width = _thumbnail_size(frame.shape[0], frame.shape[1])
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))


def _thumbnail_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _truth_tile(
    shown: _Shown, index: int, image: RGB | None, sequence: str, budget: _Budget
) -> Tile:
    alt = f"Ground truth of {sequence}, frame {shown.names[index]}"
    if shown.video is None:
        return Tile("Ground truth", "", alt, reason="dataset not here")
    if index not in shown.truth:
        if image is None:
            return Tile("Ground truth", "", alt, reason="no ground truth")
        blank = np.zeros(image.shape[:2], dtype=np.uint8)
        alt = f"Frame {shown.names[index]} of {sequence}; it has no ground truth"
        return _picture("Frame only", alt, image, blank, budget)
    try:
        mask = shown.video.load_mask(index)
    except (BenchError, OSError):
        return Tile("Ground truth", "", alt, reason="unreadable")
    return _picture("Ground truth", alt, image, mask, budget)


def _tile(source: _Source, frame: str, image: RGB | None, sequence: str, budget: _Budget) -> Tile:
    alt = f"Mask of {source.label} on {sequence}, frame {frame}"
    if source.folder is None:
        return Tile(source.label, "", alt, reason=source.reason)
    try:
        mask = read_mask(source.folder / f"{frame}.png")
    except BenchError:
        return Tile(source.label, "", alt, reason="no mask file")
    return _picture(source.label, alt, image, mask, budget)


def _picture(column: str, alt: str, image: RGB | None, mask: Mask, budget: _Budget) -> Tile:
    """Blend at thumbnail size, so that outlines stay one pixel wide, and encode."""
    if image is None:
        size = _thumbnail_size(mask.shape[0], mask.shape[1])
        image = np.full((*size, 3), EMPTY, dtype=np.uint8)
    height, width = image.shape[:2]
    small = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    blended = overlay(image, np.asarray(small), opacity=0.55)
    buffer = io.BytesIO()
    Image.fromarray(blended).save(buffer, format="WEBP", quality=QUALITY, method=4)
    data = buffer.getvalue()
    budget.left -= len(data)
    text = base64.b64encode(data).decode("ascii")
    return Tile(column, f"data:image/webp;base64,{text}", alt, width, height)
