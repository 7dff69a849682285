"""Still photographs of one object, whose gap to :mod:`datasets.synthetic.clips` is known.

A clip moves one object over a photograph; a still is one instant of a clip without any factor:
sharp, centred, whole, 30 to 60 % of the frame high. Every factor of a clip has a strength of its
own, and with all strengths at 0 and equal priors the two domains differ in nothing but motion. So
what a measure of the gap, or a factor made equal, ought to find is known beforehand.

The photographs, and the rule that splits share none, are those of :mod:`datasets.synthetic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bench.dataset import Dataset, ImageDataset, Problem
from bench.errors import ConfigError
from bench.registry import register_dataset
from bench.video import LabelledImage
from datasets._files import choose_split
from datasets.synthetic.factors import Factors, degrade
from datasets.synthetic.photos import BACKGROUNDS, CUTOUT_PHOTOS, cutout
from datasets.synthetic.rendered import HOW_TO_GET, checked_settings, photo_problems
from datasets.synthetic.scene import DETAIL, Pose, Ripple, Scene, Wave, resized, shadow_of
from datasets.synthetic.script import CAST, SPLIT_CODES, Plan, build

CLASSES: dict[str, tuple[str, ...]] = {
    "val": ("coffee", "motorcycle", "cat", "shuttle", "flag"),
    "train": ("gold-coin", "tissue", "copper-coin", "retina", "silver-coin"),
}
"""Split: its classes, in the order of a prior. Busts are left out: they cannot be whole."""

STILLS_VERSION = 1
"""Raise it whenever the same settings give other pixels: it is part of every fingerprint."""

SHORTEST, TALLEST = 0.32, 0.54
"""Height of an object without turning, as a share of the frame; turning adds a little."""

TURN = 5.0
"""Farthest that an object turns, in degrees."""

SWAY = 0.02
"""Farthest that an object's path leads from its place, as a share of the frame."""

FARTHEST = 0.40
"""Offset from the centre at location 1, as a share of the frame."""

MOST_OUTSIDE = 0.60
"""Share of the object outside the frame at truncation 1."""

SMALLEST_OBJECT = 0.2
"""Relative height at scale 1."""

LATEST_START = 24.0
"""The first frame is an instant drawn up to here, in frames of the motions."""


class StillSettings(BaseModel):
    """The settings of :class:`SyntheticStills`, checked.

    Attributes:
        seed: draws objects, backgrounds and poses.
        images: how many.
        height: of an image, in pixels.
        width: of an image, in pixels.
        prior: weight of each class of :data:`CLASSES`; empty for equal ones.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    seed: int = Field(0, ge=0, lt=2**31)
    images: int = Field(200, ge=1, le=100_000)
    height: int = Field(192, ge=64, le=1080)
    width: int = Field(336, ge=64, le=1920)
    prior: Annotated[tuple[float, ...], Field(strict=False)] = ()


def chances_of(cls: type[Dataset], split: str, prior: Sequence[float]) -> list[float]:
    """Probability of each class of a split.

    Raises:
        ConfigError: a prior of another length, or one that is no weighting.
    """
    classes = CLASSES[split]
    if not prior:
        return [1 / len(classes)] * len(classes)
    total = sum(prior)
    if len(prior) != len(classes) or min(prior) < 0 or not 0 < total < float("inf"):
        raise ConfigError(
            f"{cls.name}: prior",
            repr(tuple(prior)),
            f"{len(classes)} weights of at least 0 and not all 0, for {', '.join(classes)}",
            "Leave it out for equal ones.",
        )
    return [weight / total for weight in prior]


# --- one object over one photograph ----------------------------------------------------------


def planned(domain: int, split: str, seed: int, index: int, chances: Sequence[float]) -> Plan:
    """Plan still or clip ``index``; ``domain`` keeps the draws of stills and clips apart."""
    key = (STILLS_VERSION, seed, SPLIT_CODES[split], 100 + domain, index)
    rng = np.random.default_rng(key)
    category = CLASSES[split][int(rng.choice(len(chances), p=list(chances)))]
    # A background may show no class at all, because there it would be unlabelled.
    used = {photo for name in CLASSES[split] for photo in CUTOUT_PHOTOS[name]}
    places = [place for place in CAST[split][1] if BACKGROUNDS[place][0] not in used]
    return Plan(
        name=f"{index:05d}-{category}",
        level="easy",
        objects=(category,),
        background=str(rng.choice(places)),
        entry=None,
        occluder=False,
        key=key,
    )


@dataclass(frozen=True)
class Framing:
    """Where the frame shows the object; each strength is in [0, 1]."""

    location: float = 0.0
    truncation: float = 0.0
    scale: float = 0.0


def scene_of(plan: Plan, size: tuple[int, int], framing: Framing) -> Scene:
    """A plan's scene: background, camera and light of an easy sequence, the object placed anew."""
    height, width = size
    # All numbers are drawn in one order whatever the strengths, so that a strength alone acts.
    rng = np.random.default_rng((*plan.key, 3))
    tall = rng.uniform(SHORTEST, TALLEST) * height * SMALLEST_OBJECT**framing.scale
    direction = rng.uniform(0, 2 * np.pi)
    side = int(rng.integers(4))
    sways = [
        Wave(SWAY * extent, float(rng.uniform(0.8, 1.6)), float(rng.uniform(0, 2 * np.pi)))
        for extent in (width, height)
    ]
    turn = Wave(np.radians(TURN), float(rng.uniform(0.4, 0.9)), float(rng.uniform(0, 2 * np.pi)))

    source = cutout(plan.objects[0])
    rows = np.flatnonzero((source.alpha >= 0.5).any(1))
    shown = float(rows[-1] - rows[0] + 1)
    texture = resized(source, tall * float(np.sqrt(source.alpha.size)) / shown)
    x = (0.5 + FARTHEST * framing.location * np.cos(direction)) * width
    y = (0.5 + FARTHEST * framing.location * np.sin(direction)) * height
    shape = texture[..., 3] >= 0.5
    if framing.truncation > 0:
        x, y = _cut(shape, side, MOST_OUTSIDE * framing.truncation, size, (x, y))

    def pose(t: float) -> Pose:
        return Pose(x + _about(sways[0], t), y + _about(sways[1], t), 1.0, _about(turn, t))

    scene = build(plan, size)
    layer = replace(
        scene.layers[0],
        texture=texture,
        shadow=shadow_of(texture),
        pose=pose,
        pivot=_box_middle(shape),
        ripple=Ripple(),
    )
    return replace(scene, layers=(layer,))


def start_of(plan: Plan) -> float:
    """Instant that the first frame shows, in frames of the motions."""
    return float(np.random.default_rng((*plan.key, 4)).uniform(0, LATEST_START))


def _about(wave: Wave, t: float) -> float:
    """A wave about 0. Its phase being any, so is its value at any instant: none is special."""
    return wave(t) + wave.amplitude * float(np.sin(wave.phase))


def _box_middle(shape: NDArray[np.bool_]) -> tuple[float, float]:
    """Middle (x, y) of a shape's box, in pixels."""
    columns, rows = np.flatnonzero(shape.any(0)), np.flatnonzero(shape.any(1))
    return float(columns[0] + columns[-1] + 1) / 2, float(rows[0] + rows[-1] + 1) / 2


def _cut(
    shape: NDArray[np.bool_],
    side: int,
    share: float,
    size: tuple[int, int],
    place: tuple[float, float],
) -> tuple[float, float]:
    """Move a place along one axis until a share of the shape is outside the frame.

    Args:
        shape: bool, the texture's inside at :data:`DETAIL` times its size.
        side: of the frame: 0 left, 1 right, 2 top, 3 bottom.
        share: of the area.
        size: (H, W) of the frame.
        place: (x, y) of the middle of the shape's box, in pixels of the frame.
    """
    axis = side // 2
    beyond = np.cumsum(shape.sum(axis)) / shape.sum()
    line = int(np.searchsorted(beyond, 1 - share if side % 2 else share))
    from_middle = (line + 1 - _box_middle(shape)[axis]) / DETAIL
    border = float(size[1 - axis]) if side % 2 else 0.0
    moved = border - from_middle
    return (moved, place[1]) if axis == 0 else (place[0], moved)


# --- the image domain ------------------------------------------------------------------------


@register_dataset("synthetic-stills")
class SyntheticStills(ImageDataset):
    """Photographs of one object, sharp, centred and whole, rendered as they are asked for.

    Args:
        root: not used.
        split: ``"val"`` or ``"train"``; None for val.
        **settings: fields of :class:`StillSettings`.

    Raises:
        ConfigError: unknown split or setting, or a value out of range.
    """

    name: ClassVar[str] = "synthetic-stills"
    title: ClassVar[str] = "Synthetic stills"
    splits: ClassVar[tuple[str, ...]] = tuple(CLASSES)
    how_to_get: ClassVar[str] = HOW_TO_GET

    def __init__(self, root: Path | None = None, split: str | None = None, **settings: Any) -> None:
        self.settings = checked_settings(type(self), StillSettings, settings)
        self.split = choose_split(type(self), split)
        self.chances = chances_of(type(self), self.split, self.settings.prior)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Never: no folder holds it."""
        return False

    def _plan(self, index: int) -> Plan:
        return planned(0, self.split, self.settings.seed, index, self.chances)

    def __len__(self) -> int:
        return self.settings.images

    def __getitem__(self, index: int) -> LabelledImage:
        """Render one image; its mask is 0/1, and 1 is of the class in ``categories``.

        Raises:
            IndexError: outside the set.
            DataError: a missing photograph.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        plan = self._plan(index)
        scene = scene_of(plan, (self.settings.height, self.settings.width), Framing())
        instant = start_of(plan)
        # No factor is on, so nothing is drawn.
        image = degrade(scene.image(instant), Factors(), np.random.default_rng(0))
        return LabelledImage(plan.name, image, scene.mask(instant), {1: plan.objects[0]})

    def verify(self) -> list[Problem]:
        """Check that every photograph of this split is installed and readable."""
        return photo_problems(self._plan(index) for index in range(len(self)))
