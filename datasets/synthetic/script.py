"""Who plays in a sequence, and how everybody moves: difficulty is made here.

Every choice is drawn from a generator seeded by (version, seed, split, sequence), so a sequence
depends neither on the others nor on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from bench.video import RGB
from datasets.synthetic.photos import (
    BACKGROUNDS,
    CUTOUT_PHOTOS,
    background,
    cutout,
)
from datasets.synthetic.scene import (
    DETAIL,
    Camera,
    Float,
    Layer,
    Light,
    Pose,
    Ripple,
    Scene,
    Wave,
    resized,
    shadow_of,
)

VERSION = 1
"""Raise it whenever the same settings give other pixels: it is part of every fingerprint."""

LEVELS = ("easy", "medium", "hard")

CAST: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "val": (
        ("coffee", "astronaut", "motorcycle", "cat", "shuttle", "flag"),
        ("grass", "brick", "garage", "table"),
    ),
    "train": (
        ("admiral", "gold-coin", "tissue", "copper-coin", "retina", "silver-coin"),
        ("gravel", "launchpad", "field"),
    ),
}
"""Split: its objects and backgrounds. The splits share no photograph."""

SPLIT_CODES = {"val": 0, "train": 1}


@dataclass(frozen=True)
class Level:
    """What makes a sequence harder.

    Attributes:
        objects: fewest and most labelled objects.
        size: of an object, as a share of the frame's height (root of its box's area).
        travel: along x, as a share of the frame's width.
        scale: relative change of size.
        turn: in degrees.
        bend: amplitude of the non-rigid deformation, as a share of the object's size.
        light: relative change of brightness.
        pan: of the camera, as a share of the room that the background leaves.
        shake: of the camera, as a share of the frame's height.
    """

    objects: tuple[int, int]
    size: float
    travel: float
    scale: float
    turn: float
    bend: float
    light: float
    pan: float
    shake: float


DIFFICULTY = {
    "easy": Level((1, 1), 0.58, 0.16, 0.10, 5, 0.0, 0.05, 0.4, 0.0),
    "medium": Level((2, 2), 0.52, 0.20, 0.20, 16, 0.015, 0.12, 0.8, 0.003),
    "hard": Level((2, 3), 0.46, 0.25, 0.32, 28, 0.028, 0.25, 1.0, 0.008),
}


@dataclass(frozen=True)
class Plan:
    """A sequence on paper: cheap to make, all that its name and checks need.

    Attributes:
        name: e.g. ``"hard-2-coffee-cat"``.
        level: one of :data:`LEVELS`.
        objects: cut-outs by id: the first is object 1.
        background: one of :data:`BACKGROUNDS`.
        entry: frame in which the last object enters, or None if all are there from the start.
        occluder: whether something passes close to the camera and hides object 1.
        key: seeds the generator of the motions.
    """

    name: str
    level: str
    objects: tuple[str, ...]
    background: str
    entry: int | None
    occluder: bool
    key: tuple[int, ...]

    @property
    def photos(self) -> tuple[str, ...]:
        """Photographs of :data:`datasets.synthetic.photos.FILES` that its pixels come from."""
        names = {photo for name in self.objects for photo in CUTOUT_PHOTOS[name]}
        return tuple(sorted(names | {BACKGROUNDS[self.background][0]}))


def plan(split: str, seed: int, index: int, difficulty: str, frames: int) -> Plan:
    """Plan sequence ``index`` of a split; ``frames`` only decides when a late object enters."""
    mixed = difficulty == "mixed"
    level = LEVELS[index % 3] if mixed else difficulty
    key = (VERSION, seed, SPLIT_CODES[split], LEVELS.index(level), index)
    rng = np.random.default_rng(key)
    cast, places = CAST[split]

    lead = cast[(index + seed) % len(cast)]
    fewest, most = DIFFICULTY[level].objects
    late = level == "hard" and (index // 3 if mixed else index) % 2 == 1 and frames >= 6
    # A late object joins two that are there from the start.
    count = most if late else int(rng.integers(fewest, most + 1))
    others = [name for name in cast if name != lead]
    objects = (lead, *(str(name) for name in rng.permutation(others)[: count - 1]))

    used = {photo for name in objects for photo in CUTOUT_PHOTOS[name]}
    free = [place for place in places if BACKGROUNDS[place][0] not in used]
    return Plan(
        name=f"{level}-{index}-{'-'.join(objects)}",
        level=level,
        objects=objects,
        background=str(rng.choice(free)),
        entry=max(2, frames // 3) if late else None,
        occluder=level == "hard" and not late,
        key=key,
    )


def build(plan: Plan, size: tuple[int, int]) -> Scene:
    """Make a plan's textures and motions for frames of ``size`` (H, W)."""
    rng = np.random.default_rng((*plan.key, 1))
    level = DIFFICULTY[plan.level]
    canvas = _canvas(background(plan.background), size)
    actors = [_actor(plan, number, size, level, rng) for number in range(1, len(plan.objects) + 1)]
    order = rng.permutation(len(actors))
    layers = [actors[i] for i in order]
    if plan.level == "hard":
        layers.insert(0, _distractor(actors[0], size, rng))
    if plan.occluder:
        layers.append(_occluder(actors[0], canvas, size))
    return Scene(size, canvas, tuple(layers), _camera(canvas, size, level, rng), _light(level, rng))


def _wave(rng: np.random.Generator, amplitude: float, low: float, high: float) -> Wave:
    """A wave of random frequency in [low, high] cycles per second, and any phase."""
    return Wave(amplitude, float(rng.uniform(low, high)), float(rng.uniform(0, 2 * np.pi)))


def _canvas(image: RGB, size: tuple[int, int]) -> RGB:
    """A background with room for the camera to pan, uint8 RGB."""
    room = 1.4
    factor = max(room * size[0] / image.shape[0], room * size[1] / image.shape[1])
    shape = round(image.shape[1] * factor), round(image.shape[0] * factor)
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, shape, interpolation=how).astype(np.uint8)


def _actor(
    plan: Plan, number: int, size: tuple[int, int], level: Level, rng: np.random.Generator
) -> Layer:
    """Labelled object ``number`` (from 1) with its motion."""
    height, width = size
    source = cutout(plan.objects[number - 1])
    # Busts reach below the frame, so they have to be larger to show as much.
    extent = level.size * height * (1.45 if source.standing else 1.0)
    texture = resized(source, extent)

    # Objects start side by side; the outer ones move inwards first, so that they meet.
    count = len(plan.objects)
    slot = (number - 0.5) / count + rng.uniform(-0.04, 0.04)
    inwards = 1.0 if slot < 0.5 else -1.0
    travel = inwards * level.travel * width * rng.uniform(0.85, 1.15)
    along = Wave(travel, float(rng.uniform(0.3, 0.5)), float(rng.uniform(-0.5, 0.3)))
    bob = _wave(rng, 0.25 * level.travel * height, 0.4, 0.9)
    grow = _wave(rng, 0.6 * level.scale, 0.3, 0.6)
    # A bust turns little, because it leans on something below the frame.
    turn = _wave(rng, np.radians(level.turn) * (0.25 if source.standing else 0.6), 0.3, 0.7)
    if source.standing:
        pivot = texture.shape[1] / 2, float(texture.shape[0])
        start_y = 1.10 * height
        bob = replace(bob, amplitude=0.02 * height)
        grow = replace(grow, amplitude=grow.amplitude / 3)
    else:
        pivot = texture.shape[1] / 2, texture.shape[0] / 2
        start_y = rng.uniform(0.42, 0.60) * height
    start_x = slot * width

    def pose(t: float) -> Pose:
        return Pose(start_x + along(t), start_y + bob(t), float(np.exp(grow(t))), turn(t))

    entry = plan.entry if number == count else None
    if entry is not None:
        pose = _entering(pose, entry, texture, size)
    ripple = Ripple(
        level.bend * extent * DETAIL,
        float(rng.uniform(0.8, 1.3)),
        float(rng.uniform(0.8, 1.4)),
        float(rng.uniform(0, 2 * np.pi)),
    )
    return Layer(texture, shadow_of(texture), number, pose, pivot, ripple)


def _entering(
    pose: Callable[[float], Pose], entry: int, texture: Float, size: tuple[int, int]
) -> Callable[[float], Pose]:
    """Keep an object right of the frame until ``entry - 1``; it then darts in and slows down.

    The dart is quick on purpose: the first frame with a mask is the one given to methods, and
    should show most of the object.
    """
    last_outside = entry - 1
    reach = float(np.hypot(*texture.shape[:2])) / DETAIL
    away = size[1] + reach - pose(last_outside).x

    def late(t: float) -> Pose:
        since = t - last_outside
        share = np.exp(-1.8 * since) if since > 0 else 1 - 1.8 * since
        now = pose(t)
        return replace(now, x=now.x + float(away * share))

    return late


def _distractor(actor: Layer, size: tuple[int, int], rng: np.random.Generator) -> Layer:
    """An unlabelled look-alike of an object behind all others: mirrored, paler, on its own path."""
    texture = np.ascontiguousarray(actor.texture[:, ::-1])
    texture[..., :3] *= np.float32([0.94, 0.98, 1.02])
    height, width = size
    standing = actor.pivot[1] == texture.shape[0]
    start_x = rng.uniform(0.6, 0.8) * width
    start_y = actor.pose(0).y if standing else rng.uniform(0.3, 0.45) * height
    along = _wave(rng, 0.15 * width, 0.3, 0.5)
    turn = _wave(rng, 0.1 if standing else 0.3, 0.3, 0.6)

    def pose(t: float) -> Pose:
        return Pose(start_x + along(t), start_y, 0.8 if not standing else 1.0, turn(t))

    # A label of 0 makes it background; a bust may not shrink off the frame's lower edge.
    return Layer(texture, shadow_of(texture), 0, pose, actor.pivot, actor.ripple)


def _occluder(actor: Layer, canvas: RGB, size: tuple[int, int]) -> Layer:
    """A post close to the camera that passes from right to left and hides an object entirely.

    It is out of focus, as things near the lens are, and darker than the scene.
    """
    height, width = size
    middle = 11.0
    speed = width / 10
    at = actor.pose(middle)
    tall, wide = (at.scale * length / DETAIL for length in actor.texture.shape[:2])
    span = wide * abs(np.cos(at.angle)) + tall * abs(np.sin(at.angle))
    # A little wider than the object, so that it is gone for a frame or two.
    shape = round(DETAIL * min(1.25 * span, 0.5 * width)), round(DETAIL * 2.2 * height)
    skin = cv2.resize(canvas[: canvas.shape[0] // 2, : canvas.shape[1] // 3], shape)
    skin = cv2.GaussianBlur(skin, (0, 0), 0.03 * height).astype(np.float32)
    # Shaded like a round post: darker towards its sides.
    side = np.linspace(-1, 1, shape[0], dtype=np.float32)[None, :, None]
    skin = skin * (0.75 - 0.45 * side**2)
    alpha = np.zeros(skin.shape[:2], np.float32)
    pad = max(2, round(0.02 * height))
    alpha[:, pad:-pad] = 1
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.4 * pad)
    texture = np.dstack([skin * alpha[..., None], alpha]).astype(np.float32)

    def pose(t: float) -> Pose:
        return Pose(at.x + speed * (middle - t), height / 2, 1.0, 0.04)

    return Layer(texture, None, 0, pose, (shape[0] / 2, shape[1] / 2))


def _camera(canvas: RGB, size: tuple[int, int], level: Level, rng: np.random.Generator) -> Camera:
    room_x = (canvas.shape[1] - size[1]) / 2
    room_y = (canvas.shape[0] - size[0]) / 2
    # A wave starts at 0 and may swing to one side by twice its amplitude.
    pans = [
        _wave(rng, 0.45 * level.pan * min(room, 0.3 * size[1]), 0.25, 0.45)
        for room in (room_x, room_y)
    ]
    shake = tuple(
        tuple(_wave(rng, level.shake * size[0] / k, 2.0 * k, 3.0 * k) for k in (1, 2))
        for _ in range(2)
    )
    return Camera(
        pans[0],
        pans[1],
        _wave(rng, 0.15 * level.scale, 0.3, 0.5),
        _wave(rng, np.radians(level.turn) * 0.06, 0.3, 0.6),
        (shake[0], shake[1]),
    )


def _light(level: Level, rng: np.random.Generator) -> Light:
    return Light(
        _wave(rng, level.light / 2, 0.4, 0.8),
        _wave(rng, level.light / 8, 0.3, 0.6),
        _wave(rng, level.light if level.bend else 0.0, 0.3, 0.6),
        _wave(rng, np.pi / 2, 0.2, 0.4),
    )
