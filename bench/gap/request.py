"""What the command `gap` is asked to measure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.config import Preset, config_error

FACTORS = ("motion_blur", "low_light", "low_resolution", "compression", "framing")
"""The factors of the curves unless others are asked for."""


class GapRequest(BaseModel):
    """What is measured.

    Attributes:
        methods: registered names.
        images: dataset of labelled images.
        videos: dataset of labelled videos.
        root: where the data lies; see :func:`bench.dataset.find_root`.
        limit: most images, and most videos.
        short_side: images and frames are shrunk to it, so that the domains do not differ in size.
        seed: of all that is drawn.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        preset: of the methods; None for each one's own default.
        factors: of the curves.
        taps: where features are taken; the last one is drawn. None for all that a method has.
        weights: ``[METHOD.]LABEL=FILE``.
        reference: method whose encoder, as it ships, is the fixed one that the Frechet ratio is
            also measured on; ``"none"`` leaves it out.
        video_label_accuracy: boundary F of the videos' masks against manual ones, where they are
            not manual themselves.
        assignments: ``--set`` values by dotted key.
    """

    model_config = ConfigDict(extra="forbid")

    methods: list[str] = Field(min_length=1)
    images: str
    videos: str
    root: Path | None = None
    limit: int = Field(default=50, ge=1)
    short_side: int = Field(default=240, ge=32)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    preset: Preset | None = None
    factors: list[str] = list(FACTORS)
    taps: list[str] | None = None
    weights: list[str] = []
    reference: str = "imagenet"
    video_label_accuracy: float | None = Field(default=None, gt=0, le=1)
    assignments: dict[str, Any] = {}


def gap_request(options: Mapping[str, Any]) -> GapRequest:
    """A request from options; None values keep the defaults.

    Raises:
        ConfigError: names the wrong option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return GapRequest.model_validate(given)
    except ValidationError as error:
        raise config_error("command line", error, GapRequest) from None
