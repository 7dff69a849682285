"""Videos of one object whose gap to :mod:`datasets.synthetic.stills` is known, factor by factor."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bench.registry import register_dataset
from bench.video import RGB, Mask, ObjectInfo, Video
from datasets._files import choose_split
from datasets.synthetic.factors import Factors, degrade
from datasets.synthetic.rendered import RenderedVideos, checked_settings
from datasets.synthetic.scene import Scene
from datasets.synthetic.script import Plan
from datasets.synthetic.stills import (
    CLASSES,
    Framing,
    chances_of,
    planned,
    scene_of,
    start_of,
)


class ClipSettings(BaseModel):
    """The settings of :class:`SyntheticClips`, checked; factors have strengths in [0, 1].

    Attributes:
        seed: draws objects, backgrounds and motions.
        sequences: how many.
        frames: per sequence.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        prior: weight of each class of :data:`CLASSES`; empty for equal ones.
        blur: motion blur along the true motion, and defocus.
        low_light: darkness with sensor noise.
        low_resolution: fewer pixels, enlarged again.
        compression: JPEG artefacts.
        location: offset of the object from the centre.
        truncation: share of the object outside the frame.
        scale: how much smaller the object is.
        redundancy: how much slower everything moves; at 1 all frames show the same.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    seed: int = Field(0, ge=0, lt=2**31)
    sequences: int = Field(20, ge=1, le=10_000)
    frames: int = Field(24, ge=2, le=10_000)
    height: int = Field(192, ge=64, le=1080)
    width: int = Field(336, ge=64, le=1920)
    prior: Annotated[tuple[float, ...], Field(strict=False)] = ()
    blur: float = Field(0.0, ge=0, le=1)
    low_light: float = Field(0.0, ge=0, le=1)
    low_resolution: float = Field(0.0, ge=0, le=1)
    compression: float = Field(0.0, ge=0, le=1)
    location: float = Field(0.0, ge=0, le=1)
    truncation: float = Field(0.0, ge=0, le=1)
    scale: float = Field(0.0, ge=0, le=1)
    redundancy: float = Field(0.0, ge=0, le=1)

    @property
    def degradation(self) -> Factors:
        """The photometric factors among the settings."""
        return Factors(self.blur, self.low_light, self.low_resolution, self.compression)

    @property
    def framing(self) -> Framing:
        """The geometric factors among the settings."""
        return Framing(self.location, self.truncation, self.scale)

    @property
    def pace(self) -> float:
        """Frames of the motions that pass per frame of the clip."""
        return 1 - self.redundancy


@lru_cache(maxsize=8)
def _scene(plan: Plan, size: tuple[int, int], framing: Framing) -> Scene:
    """A clip's scene; the few megabytes of its textures are kept while it is being read."""
    return scene_of(plan, size, framing)


def _scene_at(plan: Plan, settings: ClipSettings, index: int) -> tuple[Scene, float]:
    """A clip's scene, and the instant that is the middle of a frame's exposure."""
    scene = _scene(plan, (settings.height, settings.width), settings.framing)
    return scene, start_of(plan) + settings.pace * index


def render_frame(plan: Plan, settings: ClipSettings, index: int) -> RGB:
    """Frame ``index`` of a clip, uint8 RGB ``(H, W, 3)``."""
    scene, instant = _scene_at(plan, settings, index)
    factors = settings.degradation
    # Noise is seeded by frame, so that it does not depend on what was rendered before.
    rng = np.random.default_rng((*plan.key, 2, index))
    return degrade(scene.image(instant, settings.pace * factors.shutter), factors, rng)


def render_mask(plan: Plan, settings: ClipSettings, index: int) -> Mask:
    """Ids of frame ``index``, uint8 ``(H, W)``: 0 and 1."""
    scene, instant = _scene_at(plan, settings, index)
    return scene.mask(instant)


@register_dataset("synthetic-clips")
class SyntheticClips(RenderedVideos):
    """Clips of one object with a strength for each factor that makes video unlike photographs.

    With all strengths at 0, any frame alone is drawn as an image of
    :class:`datasets.synthetic.stills.SyntheticStills` is.

    Args:
        root: not used.
        split: ``"val"`` or ``"train"``; None for val.
        **settings: fields of :class:`ClipSettings`.

    Raises:
        ConfigError: unknown split or setting, or a value out of range.
    """

    name: ClassVar[str] = "synthetic-clips"
    title: ClassVar[str] = "Synthetic clips"
    splits: ClassVar[tuple[str, ...]] = tuple(CLASSES)

    def __init__(self, root: Path | None = None, split: str | None = None, **settings: Any) -> None:
        self.settings = checked_settings(type(self), ClipSettings, settings)
        self.split = choose_split(type(self), split)
        chances = chances_of(type(self), self.split, self.settings.prior)
        plans = (
            planned(1, self.split, self.settings.seed, index, chances)
            for index in range(self.settings.sequences)
        )
        # Names such as 00003-cat: number and class.
        self.plans = {one.name: one for one in plans}

    def video(self, sequence: str) -> Video:
        """One clip; frames and masks are rendered when asked for.

        Raises:
            DataError: unknown sequence; when rendering, a missing photograph.
        """
        plan = self.plan_of(sequence)
        count = self.settings.frames
        return Video(
            dataset=self.name,
            name=sequence,
            frame_names=tuple(f"{index:05d}" for index in range(count)),
            size=(self.settings.height, self.settings.width),
            load_frame=partial(render_frame, plan, self.settings),
            load_mask=partial(render_mask, plan, self.settings),
            annotated=tuple(range(count)),
            objects={1: ObjectInfo(category=plan.objects[0])},
        )

    def fingerprint(self, sequence: str) -> str:
        """See :meth:`RenderedVideos.hash_of`."""
        return self.hash_of(sequence)
