"""Pictures of a report, within a budget of bytes: stills, the player's clips, worst cases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reports.drawing import slug
from reports.failures import Case, chosen, drops, lost_objects, of_trained, swapped_ids
from reports.footage import Footage, load_footage, spread
from reports.overlays import STILLS, Strip, Tile, method_tile, strips, truth_tile
from reports.player import FRAMES, as_script, clip_data
from reports.results import DatasetInfo, Results

MOST_MASKS = 12_000
"""Masks read for the player, ground truth included: some minutes at most. 20 sequences of 6
methods with 25 frames each are 3,500."""

FEWEST_FRAMES = 5
"""Frames per sequence below which sequences are left out instead."""

MOST_STILLS = 450
"""20 sequences x 3 frames x (6 methods + ground truth) fit; at about 6 kB each, under 3 MB."""

MOST_STILL_BYTES = 3_500_000
"""Of stills in the page, encoded."""

MOST_CLIP_BYTES = 9_500_000
"""Of clips in the page, encoded; more than that lies in files beside it."""

KINDS: Mapping[str, tuple[str, str]] = {
    "drop": (
        "Largest drops",
        "Each method on the sequence in which it falls furthest behind the method with the best "
        "mean, and the best method where it falls furthest behind another.",
    ),
    "lost": (
        "Objects lost",
        "An object's J was above 50 once, then falls below 10 and stays there to the last frame, "
        "for a tenth of the video at least.",
    ),
    "swapped": (
        "Ids swapped",
        "A mask of one object overlaps another one by more than half (intersection over union), "
        "and its own by less than a tenth; looked for in the shown frames.",
    ),
}
"""Title and definition of each kind of worst case."""


@dataclass(frozen=True)
class Clip:
    """The pictures of one sequence.

    Attributes:
        anchor: id of its element, unique in a page.
        name: the sequence.
        strips: stills, one strip per frame.
        note: what a reader must know of them.
        data: what the player reads, where it is part of the page.
        source: file beside the page that holds it otherwise.
    """

    anchor: str
    name: str
    strips: tuple[Strip, ...]
    note: str = ""
    data: str = ""
    source: str = ""


@dataclass(frozen=True)
class Picture:
    """A worst case with its pictures.

    Attributes:
        case: what went wrong.
        anchor: of the sequence's clip.
        tiles: ground truth, the method it is compared with, the method.
    """

    case: Case
    anchor: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Failures:
    """The worst cases of one kind.

    Attributes:
        title: of the kind.
        text: how it is found.
        counts: in words: how many of each method; empty where all have a case.
        pictures: the worst ones.
    """

    title: str
    text: str
    counts: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Gallery:
    """The pictures of one dataset.

    Attributes:
        dataset: the dataset.
        anchor: its name for ids.
        sequences: those shown, sorted.
        failures: its worst cases, by kind.
        note: what was left out and why, empty where nothing was.
    """

    dataset: DatasetInfo
    anchor: str
    sequences: tuple[Clip, ...]
    failures: tuple[Failures, ...] = ()
    note: str = ""


@dataclass
class _Budget:
    """Bytes of stills that may still be spent, and how many frames there are to a sequence."""

    left: int
    frames: int
    stills: int


@dataclass
class _Found:
    """What a pass over a dataset's sequences gathers."""

    clips: list[Clip] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    swapped: list[Case] = field(default_factory=list)


def galleries(results: Results) -> tuple[list[Gallery], dict[str, str]]:
    """Pictures of every dataset, and the files beside the page that its players need.

    Returns:
        The galleries, and text by path relative to the page; none where all fits into the page.
    """
    columns = len(results.methods) + 1
    total = max(1, sum(len(dataset.sequences) for dataset in results.datasets.values()))
    frames = max(FEWEST_FRAMES, min(FRAMES, MOST_MASKS // (total * columns)))
    stills = max(1, min(STILLS, MOST_STILLS // (total * columns)))
    # Where a few frames each are still too much, sequences are left out, of every dataset alike.
    share = min(1.0, MOST_MASKS / (total * columns * frames))
    budget = _Budget(MOST_STILL_BYTES, frames, stills)
    found = [_gallery(results, each, share, budget) for each in results.datasets.values()]
    clips = [clip for gallery in found for clip in gallery.sequences]
    if sum(len(clip.data) for clip in clips) <= MOST_CLIP_BYTES:
        return found, {}
    return [_beside(gallery) for gallery in found], {
        f"assets/{clip.anchor}.js": chunk(clip.anchor, clip.data) for clip in clips
    }


def chunk(key: str, data: str) -> str:
    """A clip as a script; pages opened from a disk may load scripts, but not other files."""
    return f'window.vosReport.clips["{key}"]={data};\n'


def _beside(gallery: Gallery) -> Gallery:
    moved = [replace(c, data="", source=f"assets/{c.anchor}.js") for c in gallery.sequences]
    return replace(gallery, sequences=tuple(moved))


def _gallery(results: Results, dataset: DatasetInfo, share: float, budget: _Budget) -> Gallery:
    count = max(1, int(len(dataset.sequences) * share))
    names = spread(dataset.sequences, count) if dataset.sequences else ()
    fallen = of_trained(results, drops(results, dataset) if dataset.scored else [])
    lost = of_trained(results, lost_objects(results, dataset) if dataset.scored else [])
    wanted = [*chosen(fallen), *chosen(lost)]
    found = _Found()
    for name in names:
        shown = {case.frame for case in wanted if case.sequence == name}
        footage = load_footage(results, dataset, name, budget.frames, shown)
        _add(results, footage, wanted, budget, found)
    notes = []
    if len(names) < len(dataset.sequences):
        notes.append(
            f"{len(names)} of {len(dataset.sequences)} sequences are shown, so that the page stays "
            "small; all masks lie in the run's folder."
        )
    if any(clip.strips == () and not clip.note for clip in found.clips):
        notes.append("Sequences without stills have a player, which needs scripts.")
    kinds = {"drop": fallen, "lost": lost, "swapped": found.swapped}
    kept = {kind: chosen(cases) for kind, cases in kinds.items()}
    failures = tuple(
        Failures(
            *KINDS[kind],
            _counts(cases) if kind != "drop" else "",
            [picture for case in kept[kind] for picture in found.pictures if picture.case == case],
        )
        for kind, cases in kinds.items()
        if cases
    )
    return Gallery(dataset, slug(dataset), tuple(found.clips), failures, " ".join(notes))


def _add(
    results: Results, footage: Footage, wanted: Sequence[Case], budget: _Budget, found: _Found
) -> None:
    """One sequence's clip, and the pictures of its worst cases."""
    anchor = _anchor(footage)
    stills = strips(footage, budget.stills) if budget.left > 0 else ()
    budget.left -= sum(len(tile.source) for strip in stills for tile in strip.tiles)
    data = as_script(clip_data(results, footage)) if footage.picked else ""
    found.clips.append(Clip(anchor, footage.name, stills, footage.note, data))
    swapped = of_trained(results, swapped_ids(footage))
    found.swapped += swapped
    cases = [case for case in wanted if case.sequence == footage.name] + chosen(swapped)
    found.pictures += [Picture(case, anchor, _tiles(footage, case)) for case in cases]


def _tiles(footage: Footage, case: Case) -> tuple[Tile, ...]:
    """Ground truth, the method compared with, and the method, on the shown frame next to it."""
    if not footage.picked:
        return ()
    distances = [abs(index - case.frame) for index in footage.picked]
    place = distances.index(min(distances))
    tiles = [truth_tile(footage, place)]
    tiles += [method_tile(footage, label, place) for label in (case.other, case.method) if label]
    return tuple(tiles)


def _counts(cases: Sequence[Case]) -> str:
    numbers: dict[str, int] = {}
    for case in cases:
        numbers[case.method] = numbers.get(case.method, 0) + 1
    most_first = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{label}: {number}" for label, number in most_first)


def _anchor(footage: Footage) -> str:
    """An id for the sequence; different names may not become one."""
    plain = re.sub(r"[^A-Za-z0-9_-]", lambda match: f".{ord(match[0]):x}", footage.name)
    return f"clip-{slug(footage.dataset)}-{plain}"
