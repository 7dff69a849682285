"""Any method on anybody's video."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.config import assign, method_settings, parse_assignments
from bench.errors import ConfigError, MaskError, MethodError, StoreError
from bench.masks import overlay, read_mask, write_mask
from bench.media import open_video, write_video
from bench.method import Context, Method
from bench.plan import resolve_device
from bench.protocol import semi_supervised
from bench.registry import get_method
from bench.video import RGB, VOID, Mask, Video, object_ids

OVERLAY_FPS = 24
"""Frames per second of overlay videos; folders of frames do not say theirs."""


def open_with_mask(source: Path, mask: Path) -> tuple[Video, Mask]:
    """Open a video and the mask of its first frame.

    A mask that holds only 0 and 255 is one object with id 255.

    Returns:
        The video, unlabelled, and the mask's ids, uint8 ``(H, W)``.

    Raises:
        DataError: an unreadable video.
        MaskError: a mask that does not fit it.
    """
    video = open_video(source)
    given = read_mask(mask)
    if given.shape != video.size:
        raise MaskError(
            mask,
            f"{given.shape[1]} x {given.shape[0]} pixels",
            f"{video.size[1]} x {video.size[0]}, the size of the frames in {source}",
            "Resize the mask with nearest-neighbour interpolation.",
        )
    if not object_ids(given) and not (given == VOID).any():
        raise MaskError(
            mask, "no object (all pixels are 0)", "at least one object id", "Paint the object's id."
        )
    return video, given


def build_segmenter(
    name: str,
    preset: str | None,
    assignments: Sequence[str],
    device: str,
    seed: int,
    weights: Path | None,
) -> Method:
    """Build a method by name from command-line options.

    Raises:
        ConfigError: a wrong preset, setting or device.
        MethodError: it cannot run here.
    """
    if preset not in (None, "tiny", "paper"):
        raise ConfigError(f"--preset {preset}", "no such preset", "tiny or paper", "Correct it.")
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"--device {device}", "no such device", "auto, cpu or cuda", "Correct it."
        )
    if weights is not None and not weights.is_file():
        raise ConfigError(f"--weights {weights}", "no such file", "a checkpoint", "Check the path.")
    method = get_method(name)
    overrides: dict[str, object] = {}
    for key, value in parse_assignments(assignments).items():
        assign(overrides, key.removeprefix(f"{name}."), value)
    settings, _ = method_settings(name, method, preset, overrides)  # type: ignore[arg-type]
    context = Context(resolve_device(device), seed, weights)
    reason = method.why_not(settings, context)
    if reason is not None:
        raise MethodError(
            name, "a method that cannot run here", "one that can", f"Reason: {reason}."
        )
    return method(settings, context)


def predicted_masks(method: Method, video: Video, given: Mask) -> Iterator[tuple[str, Mask]]:
    """Frame names and masks (ids as in ``given``) of the whole video, one at a time."""
    # 255 means void to the harness; a 0/255 mask is one object, renamed for the method's eyes.
    ids = object_ids(given)
    renamed = not ids
    first = (given == VOID).astype(np.uint8) if renamed else given
    labelled = dataclasses.replace(video, annotated=(0,), load_mask=lambda index: first)
    for prediction in semi_supervised(method, labelled):
        mask = prediction.mask * np.uint8(VOID) if renamed else prediction.mask
        yield prediction.name, mask


def write_segmentation(
    method: Method, video: Video, given: Mask, out: Path, advance: Callable[[], None]
) -> None:
    """Write one palette PNG per frame into ``out``, all or nothing.

    Raises:
        StoreError: ``out`` holds other files.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(out, "a file", "a new or empty folder", "Choose another --out.")
    expected = {f"{name}.png" for name in video.frame_names}
    others = (
        sorted(entry.name for entry in out.iterdir() if entry.name not in expected)
        if out.is_dir()
        else []
    )
    if others:
        raise StoreError(
            out,
            f"other files ({', '.join(others[:3])})",
            "a new or empty folder",
            "Choose another --out.",
        )
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        for name, mask in predicted_masks(method, video, given):
            write_mask(work / f"{name}.png", mask)
            advance()
        shutil.rmtree(out, ignore_errors=True)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_overlay(video: Video, masks: Path, out: Path, advance: Callable[[], None]) -> None:
    """Write a video of the frames with their masks drawn over them."""

    def drawn() -> Iterator[RGB]:
        for frame in video.frames():
            mask = read_mask(masks / f"{frame.name}.png")
            # Id 255 is one object here (see predicted_masks); draw it in the first colour.
            yield overlay(frame.image, np.where(mask == VOID, 1, mask).astype(np.uint8))
            advance()

    write_video(out, drawn(), OVERLAY_FPS)
