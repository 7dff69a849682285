"""The contract of a method as checks that a plugin's author can run: `python -m bench check`.

Each check segments a small moving scene made here and returns a complaint or None.
"""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.method import HasFeatures, Method, Semantic
from bench.protocol import semantic, semi_supervised
from bench.semantic import BACKGROUND, MOST_CLASSES
from bench.video import RGB, Mask, Video

if TYPE_CHECKING:
    import torch

SIZE = (64, 96)
ODD_SIZES = ((33, 57), (97, 64), (50, 131))
SHORT, LONG = 40, 80
"""Lengths between which a bounded memory must not grow. The memory policies of the field hold at
most a few dozen frames."""

GROWTH_ALLOWED = 1.05

REPEATS_WITHIN = 1e-5
"""How far features may differ the second time, relative to the largest. A GPU adds numbers in any
order; nothing else may differ."""


def scene(
    length: int = 6,
    size: tuple[int, int] = SIZE,
    objects: int = 1,
    enters: int = 0,
    vanishes: range = range(0),
    seed: int = 0,
) -> Video:
    """A textured background with textured rectangles that move over it.

    Args:
        length: number of frames.
        size: (H, W) in pixels.
        objects: number of objects, with the ids 1, 3, 5, ... (gaps are legal).
        enters: frame in which the last object appears.
        vanishes: frames in which the first object is not there.
        seed: for textures and places.
    """
    height, width = size
    generator = np.random.default_rng(seed)
    background = generator.integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8)
    background = background.repeat(4, 0).repeat(4, 1)[:height, :width]
    side = max(4, min(size) // 3)
    patches = generator.integers(0, 256, (objects, side, side, 3), dtype=np.uint8)
    starts = generator.integers(0, [height - side + 1, width - side + 1], (objects, 2))

    def render(index: int) -> tuple[RGB, Mask]:
        image, mask = background.copy(), np.zeros(size, dtype=np.uint8)
        for number in range(objects):
            hidden = number == 0 and index in vanishes
            if hidden or (number == objects - 1 and index < enters):
                continue
            y = (starts[number, 0] + number * index) % (height - side + 1)
            x = (starts[number, 1] + index) % (width - side + 1)
            image[y : y + side, x : x + side] = patches[number]
            mask[y : y + side, x : x + side] = 2 * number + 1
        return image, mask

    return Video(
        dataset="conformance",
        name="scene",
        frame_names=tuple(f"{index:05d}" for index in range(length)),
        size=size,
        load_frame=lambda index: render(index)[0],
        load_mask=lambda index: render(index)[1],
        annotated=tuple(range(length)),
    )


def segment(method: Method, video: Video) -> list[Mask]:
    """All predicted masks of a video."""
    return [prediction.mask for prediction in semi_supervised(method, video)]


@dataclass(frozen=True)
class Check:
    """One clause of the contract.

    Attributes:
        title: what is checked, as a statement that holds for a good method.
        test: returns a complaint, or None.
        skipped: returns why a method is not tested, or None.
    """

    title: str
    test: Callable[[Method], str | None]
    skipped: Callable[[Method], str | None] = lambda method: None

    def complaint(self, method: Method) -> str | None:
        """Run the check, unless it is skipped; whatever the method raises is a complaint too."""
        try:
            return None if self.skipped(method) else self.test(method)
        except BenchError as error:
            return str(error)
        except Exception as error:  # a plugin may raise anything
            return f"{type(error).__name__}: {error}"


def _card(method: Method) -> str | None:
    missing = [name for name in ("name", "title", "description") if not getattr(method.card, name)]
    return f"the card has no {', '.join(missing)}" if missing else None


def _scores(method: Method) -> str | None:
    for objects in (1, 3):
        masks = segment(method, scene(objects=objects))
        allowed = {0, *(2 * number + 1 for number in range(objects))}
        found = {int(i) for mask in masks for i in np.unique(mask)}
        if not found <= allowed:
            return f"ids {sorted(found - allowed)} that were never given"
    return None


def _odd_sizes(method: Method) -> str | None:
    for size in ODD_SIZES:
        for mask in segment(method, scene(3, size)):
            if mask.shape != size:
                return f"a mask of shape {mask.shape} for frames of {size}"
    return None


def _determinism(method: Method) -> str | None:
    video = scene(8, objects=2)
    same = all(map(np.array_equal, segment(method, video), segment(method, video)))
    return None if same else "two runs over one video gave different masks"


def _independence(method: Method) -> str | None:
    first, second = scene(8, objects=2, seed=1), scene(8, objects=2, seed=2)
    alone = segment(method, first)
    interleaved = [
        prediction.mask
        for prediction, _ in zip(
            semi_supervised(method, first), semi_supervised(method, second), strict=True
        )
    ]
    same = all(map(np.array_equal, alone, interleaved))
    return (
        None
        if same
        else "a second video at the same time changed the first one's masks: "
        "something that belongs in the state lives in the method"
    )


def _vanishing(method: Method) -> str | None:
    segment(method, scene(10, objects=2, vanishes=range(3, 7)))
    return None


def _entering(method: Method) -> str | None:
    video = scene(8, objects=2, enters=4)
    for index, mask in enumerate(segment(method, video)):
        if index < 4 and (mask == 3).any():
            return f"frame {index} shows the object that enters in frame 4"
        if index == 4 and not np.array_equal(mask == 3, video.load_mask(4) == 3):
            return "the frame in which an object enters does not show its given mask"
    return None


def _flat(method: Method) -> str | None:
    video = scene(4)
    grey = np.full((*SIZE, 3), 127, dtype=np.uint8)
    flat = Video(**{**vars(video), "load_frame": lambda index: grey})
    segment(method, flat)
    return None


def _inputs_kept(method: Method) -> str | None:
    video = scene(4, objects=2)
    frames = [video.load_frame(index) for index in range(4)]
    kept = Video(**{**vars(video), "load_frame": lambda index: frames[index]})
    segment(method, kept)
    same = all(np.array_equal(frames[index], video.load_frame(index)) for index in range(4))
    return None if same else "the method changed a frame's pixels in place"


def _features(method: Method) -> str | None:
    assert isinstance(method, HasFeatures)
    taps = tuple(method.feature_taps())
    if not taps or len(set(taps)) < len(taps):
        return f"taps {taps}: expected one or more names, each once"
    images = [scene(1, size).load_frame(0) for size in (SIZE, *ODD_SIZES)]
    kept = [image.copy() for image in images]
    found: list[Mapping[str, torch.Tensor]] = []
    for image in images:
        maps = method.features_at(image, taps)
        if complaint := _unlike_maps(maps, taps):
            return f"an image of {image.shape[:2]}: {complaint}"
        found.append({tap: maps[tap].clone() for tap in taps})
    if any(len({len(maps[tap]) for maps in found}) > 1 for tap in taps):
        return "the number of channels depends on the image"
    for image, maps in zip(images, found, strict=True):
        # One tap alone, and after other images: neither may change it.
        again = {tap: method.features_at(image, [tap]) for tap in taps}
        for tap in taps:
            if complaint := _unlike_maps(again[tap], [tap]):
                return f"tap {tap!r} alone: {complaint}"
            if not _repeats(maps[tap], again[tap][tap]):
                return f"tap {tap!r}: the same image again, and no other tap, has other features"
    same = all(map(np.array_equal, images, kept))
    return None if same else "the method changed an image's pixels in place"


def _no_features(method: Method) -> str | None:
    return None if isinstance(method, HasFeatures) else "it has no mix-in HasFeatures"


def _no_classes(method: Method) -> str | None:
    if not isinstance(method, Semantic):
        return "it has no mix-in Semantic"
    return type(method).why_not_semantic(method.settings, method.context)


def _classes(method: Method) -> str | None:
    assert isinstance(method, Semantic)
    names = method.class_names()
    if not 0 < len(names) <= MOST_CLASSES or len({*names, BACKGROUND}) <= len(names):
        return f"classes {names}: expected 1 to {MOST_CLASSES} names, each once, no {BACKGROUND}"
    for size in (SIZE, *ODD_SIZES):
        video, other = scene(3, size, seed=1), scene(3, size, seed=2)
        frames = [video.load_frame(index) for index in range(3)]
        kept = replace(video, load_frame=frames.__getitem__)
        first = [prediction.mask for prediction in semantic(method, kept)]
        if not all(np.array_equal(frames[index], video.load_frame(index)) for index in range(3)):
            return "the method changed a frame's pixels in place"
        both = zip(semantic(method, video), semantic(method, other), strict=True)
        if not all(map(np.array_equal, first, [prediction.mask for prediction, _ in both])):
            return "the same video again, with a second one at the same time, gave other classes"
    return None


def _unlike_maps(maps: Mapping[str, torch.Tensor], taps: Sequence[str]) -> str | None:
    """A complaint about features that are not those asked for, or no finite float32 maps."""
    if set(maps) != set(taps):
        return f"features at {sorted(maps)} where {sorted(taps)} were asked for"
    for tap, values in maps.items():
        if values.ndim != 3 or not values.numel():
            return f"tap {tap!r} has the shape {tuple(values.shape)}, expected (C, h, w)"
        if str(values.dtype) != "torch.float32":
            return f"tap {tap!r} is {values.dtype}, expected torch.float32"
        if not bool(values.isfinite().all()):
            return f"tap {tap!r} has values that are not finite"
    return None


def _repeats(first: torch.Tensor, again: torch.Tensor) -> bool:
    if first.shape != again.shape:
        return False
    return float((first - again).abs().max()) <= REPEATS_WITHIN * float(first.abs().max())


def _streaming(method: Method) -> str | None:
    from bench.protocol import Clock, Streams

    video = scene(LONG)
    streams = Streams(method, Clock(method.context.device))
    streams.give(video.frame(0), video.load_mask(0))
    sizes = {}
    for index in range(1, LONG):
        streams.step(video.frame(index))
        if index + 1 in (SHORT, LONG):
            sizes[index + 1] = reachable_bytes((streams.states, method.__dict__))
    if sizes[LONG] > GROWTH_ALLOWED * sizes[SHORT]:
        return (
            f"arrays held after {SHORT} frames: {sizes[SHORT]:,} bytes, after {LONG}: "
            f"{sizes[LONG]:,}. Memory must be bounded by a policy, not by the video's length"
        )
    return None


def reachable_bytes(root: Any) -> int:
    """Bytes of all distinct tensors and arrays that can be reached from an object."""
    import torch

    seen: set[int] = set()
    storages: dict[int, int] = {}
    waiting: list[Any] = [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, np.ndarray):
            owner = item if item.base is None else item.base
            storages[id(owner)] = int(getattr(owner, "nbytes", item.nbytes))
        else:
            waiting.extend(_children(item))
    return sum(storages.values())


def _children(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        yield from item.values()
        return
    yield from gc.get_referents(item)


CHECKS = (
    Check("the card has a name, a title and a description", _card),
    Check("scores have the right shape and labels come from the given ids", _scores),
    Check("frames of odd sizes", _odd_sizes),
    Check("the same video twice gives the same masks", _determinism),
    Check("two videos at once do not disturb each other", _independence),
    Check("an object that vanishes and comes back", _vanishing),
    Check("an object that enters later", _entering),
    Check("frames without any texture", _flat),
    Check("frames are left as they are", _inputs_kept),
    Check("memory does not grow with the video", _streaming),
    Check(
        "features, where it has some, are finite float32 maps that repeat", _features, _no_features
    ),
    Check("classes, where it tells them apart, have names and repeat", _classes, _no_classes),
)
