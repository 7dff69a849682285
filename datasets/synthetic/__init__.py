"""A dataset that needs no files: real photographs in motion, rendered as they are asked for.

Objects are cut out of photographs that ship inside scikit-image and matplotlib and move over
other photographs, under a moving camera, with occlusion, scale change, rotation, bending, changing
light and look-alikes. Masks are exact by construction. It is for trying methods and ablations on
any machine and for probing one domain factor at a time; it does not replace real video.

:mod:`photos` cuts out, :mod:`script` decides who moves how, :mod:`scene` renders,
:mod:`factors` degrades. :mod:`stills` and :mod:`clips` are two domains made of the same, whose
gap is known.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bench.registry import register_dataset
from bench.video import RGB, Mask, ObjectInfo, Video
from datasets._files import choose_split
from datasets.synthetic.clips import SyntheticClips as SyntheticClips
from datasets.synthetic.factors import Factors, degrade
from datasets.synthetic.rendered import RenderedVideos, checked_settings
from datasets.synthetic.scene import Scene
from datasets.synthetic.script import CAST, LEVELS, VERSION, Plan, build, plan
from datasets.synthetic.stills import SyntheticStills as SyntheticStills

DIFFICULTIES = ("mixed", *LEVELS)


class Settings(BaseModel):
    """The settings of :class:`Synthetic`, checked.

    Attributes:
        seed: draws objects, backgrounds and motions.
        sequences: how many.
        frames: per sequence.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        difficulty: one level for all, or ``"mixed"`` for easy, medium, hard in turn.
        blur: motion blur and defocus, in [0, 1].
        low_light: darkness with sensor noise, in [0, 1].
        low_resolution: in [0, 1].
        compression: JPEG artefacts, in [0, 1].
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    seed: int = Field(0, ge=0, lt=2**31)
    sequences: int = Field(6, ge=1, le=1000)
    frames: int = Field(24, ge=2, le=10_000)
    height: int = Field(192, ge=64, le=1080)
    width: int = Field(336, ge=64, le=1920)
    difficulty: str = Field("mixed", pattern=f"^({'|'.join(DIFFICULTIES)})$")
    blur: float = Field(0.0, ge=0, le=1)
    low_light: float = Field(0.0, ge=0, le=1)
    low_resolution: float = Field(0.0, ge=0, le=1)
    compression: float = Field(0.0, ge=0, le=1)

    @property
    def factors(self) -> Factors:
        """The domain factors among the settings."""
        return Factors(self.blur, self.low_light, self.low_resolution, self.compression)


EXPECTED = {
    "seed": "an integer from 0 to 2147483647",
    "sequences": "an integer from 1 to 1000",
    "frames": "an integer from 2 to 10000",
    "height": "an integer from 64 to 1080 (pixels)",
    "width": "an integer from 64 to 1920 (pixels)",
    "difficulty": f"one of {', '.join(DIFFICULTIES)}",
    "blur": "a number from 0 (off) to 1",
    "low_light": "a number from 0 (off) to 1",
    "low_resolution": "a number from 0 (off) to 1",
    "compression": "a number from 0 (off) to 1",
}


@lru_cache(maxsize=8)
def _scene(planned: Plan, size: tuple[int, int]) -> Scene:
    """A sequence's scene; the few megabytes of its textures are kept while it is being read."""
    return build(planned, size)


def render_frame(planned: Plan, settings: Settings, index: int) -> RGB:
    """Frame ``index`` of a planned sequence, uint8 RGB ``(H, W, 3)``."""
    scene = _scene(planned, (settings.height, settings.width))
    factors = settings.factors
    # Noise is seeded by frame, so that it does not depend on what was rendered before.
    rng = np.random.default_rng((*planned.key, 2, index))
    return degrade(scene.image(float(index), factors.shutter), factors, rng)


def render_mask(planned: Plan, settings: Settings, index: int) -> Mask:
    """Ids of frame ``index``, uint8 ``(H, W)``: at the middle of the exposure, factors or not."""
    return _scene(planned, (settings.height, settings.width)).mask(float(index))


@register_dataset("synthetic")
class Synthetic(RenderedVideos):
    """Photographs in motion, generated; see the module's text.

    Splits share no photograph, so what is learned on train cannot be memorised content of val.
    Rendering is deterministic: the same settings give the same bytes in any order and process.
    In every second hard sequence the last object enters late; in the other ones something passes
    close to the camera and hides object 1 around frame 11.

    Args:
        root: not used.
        split: ``"val"`` or ``"train"``; None for val.
        **settings: fields of :class:`Settings`.

    Raises:
        ConfigError: unknown split or setting, or a value out of range.
    """

    name: ClassVar[str] = "synthetic"
    title: ClassVar[str] = "Synthetic"
    splits: ClassVar[tuple[str, ...]] = tuple(CAST)

    def __init__(self, root: Path | None = None, split: str | None = None, **settings: Any) -> None:
        self.settings = checked_settings(type(self), Settings, settings, EXPECTED)
        self.split = choose_split(type(self), split)
        planned = (
            plan(
                self.split,
                self.settings.seed,
                index,
                self.settings.difficulty,
                self.settings.frames,
            )
            for index in range(self.settings.sequences)
        )
        # Names such as hard-2-motorcycle-cat: level, number, objects in the order of ids.
        self.plans = {one.name: one for one in planned}

    def video(self, sequence: str) -> Video:
        """One video; frames and masks are rendered when asked for.

        Raises:
            DataError: unknown sequence; when rendering, a missing photograph.
        """
        planned = self.plan_of(sequence)
        count = self.settings.frames
        return Video(
            dataset=self.name,
            name=sequence,
            frame_names=tuple(f"{index:05d}" for index in range(count)),
            size=(self.settings.height, self.settings.width),
            load_frame=partial(render_frame, planned, self.settings),
            load_mask=partial(render_mask, planned, self.settings),
            annotated=tuple(range(count)),
            objects={
                number: ObjectInfo(category=name)
                for number, name in enumerate(planned.objects, start=1)
            },
        )

    def fingerprint(self, sequence: str) -> str:
        """See :meth:`RenderedVideos.hash_of`; the version of the scripts is part of it."""
        return self.hash_of(sequence, VERSION)
