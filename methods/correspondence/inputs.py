"""What happens to a frame before the encoder: its size (policies) and its colours (preparations).

Both go by name, because two systems that differ in nothing else do differ here. A frame passes
through :func:`prepare`; a mask through the same policy's ``resize_mask``; scores come back to the
frame's size through ``restore_scores``. Resampling follows the official code of each system, down
to which library's nearest pixel it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.video import RGB, Mask
from methods.clips import IMAGENET_MEAN, IMAGENET_STD

Preparation: TypeAlias = Callable[[RGB], Tensor]
"""From a frame uint8 ``(H, W, 3)`` to float32 ``(3, H, W)`` or ``(1, H, W)``."""

LAB_MEAN = np.array((50, 0, 0), np.float32)
LAB_STD = np.array((50, 127, 127), np.float32)
"""Bring L in 0 .. 100 and a, b in about -127 .. 127 to about -1 .. 1."""


# ------------------------------------------------------------------------------- preparations


def _to_tensor(pixels: NDArray[np.floating]) -> Tensor:
    """Channels last to channels first, float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))


def rgb_unit(frame: RGB) -> Tensor:
    """RGB in 0 .. 1 (CorrFlow, CycleTime's propagation)."""
    return _to_tensor(frame.astype(np.float32) / 255)


def rgb_imagenet(frame: RGB) -> Tensor:
    """RGB in 0 .. 1, less ImageNet's mean, over its deviation (CRW, DUL, CycleTime's training)."""
    return _to_tensor((frame.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD)


def lab(frame: RGB) -> Tensor:
    """CIE Lab, each channel brought to about -1 .. 1 (MAST, MAMP, STT).

    OpenCV's floating-point conversion of RGB / 255, which is finer than its 8-bit one.
    """
    converted = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return _to_tensor((np.asarray(converted, np.float32) - LAB_MEAN) / LAB_STD)


def lab_bytes(frame: RGB) -> Tensor:
    """CIE Lab of OpenCV's 8-bit conversion, ``(x - 128) / 128`` (UVC's and MUG's colour target)."""
    converted = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2Lab))
    return _to_tensor((converted.astype(np.float32) - 128) / 128)


def lightness(frame: RGB) -> Tensor:
    """Lightness alone, three times, normalised as if it were RGB (UVC, MUG).

    L of :func:`lab_bytes` is brought from -1 .. 1 to 0 .. 1; then, per channel, ImageNet's mean is
    taken off and divided by its deviation.
    """
    light = (lab_bytes(frame)[:1] + 1) / 2
    mean, std = (torch.from_numpy(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (light - mean) / std


def grey(frame: RGB) -> Tensor:
    """One channel, ``x / 128 - 1`` with x OpenCV's 8-bit grey (VidColor)."""
    converted = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
    return _to_tensor(converted[..., None].astype(np.float32) / 128 - 1)


PREPARATIONS: Mapping[str, Preparation] = MappingProxyType(
    {
        "rgb_unit": rgb_unit,
        "rgb_imagenet": rgb_imagenet,
        "lab": lab,
        "lab_bytes": lab_bytes,
        "lightness": lightness,
        "grey": grey,
    }
)
"""Colour preparations by name."""


# ----------------------------------------------------------------------------- resize policies


class ResizePolicy:
    """The native size; subclasses change what their system changes.

    The working size is that of the prepared frame that the encoder sees.
    """

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that the encoder sees of a ``height x width`` frame, in pixels."""
        return height, width

    def resize_image(self, frame: RGB) -> RGB:
        """A frame, uint8 ``(H, W, 3)``, as it goes into the preparation of colours."""
        return frame

    def resize_prepared(self, prepared: Tensor) -> Tensor:
        """What is resized after the preparation, without rounding to bytes; ``(C, h, w)``."""
        return prepared

    def pad_image(self, prepared: Tensor) -> Tensor:
        """What is added at the end; ``(C, h, w)`` to ``(C, *working size)``."""
        return prepared

    def resize_mask(self, mask: Mask) -> Mask:
        """Ids, uint8 ``(H, W)``, at the working size."""
        return mask

    def restore_scores(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Scores or ids at the working size, back at the frame's own.

        Args:
            scores: any dtype, ``(..., *working_size(height, width))``.
            height: of the frame.
            width: of the frame.

        Returns:
            ``(..., height, width)``. No policy mixes the scores of different cells, so that the
            arg-max may be taken before or after.
        """
        return scores


@dataclass(frozen=True)
class LongSideToMultiple(ResizePolicy):
    """A given short side, and a long side cut down to a multiple without keeping the aspect (UVC).

    Frames are resized bilinearly (OpenCV), as bytes. Masks take the nearest pixel by corners, as
    OpenCV's; scores come back by centres, as Pillow's.

    Attributes:
        short_side: in pixels.
        multiple: of the long side, in pixels.
    """

    short_side: int = 480
    multiple: int = 64

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """E.g. 480x832 for 480x854."""
        long_side = max(height, width) * self.short_side // min(height, width)
        long_side = max(long_side // self.multiple, 1) * self.multiple
        return (self.short_side, long_side) if height <= width else (long_side, self.short_side)

    def resize_image(self, frame: RGB) -> RGB:
        """Bilinear, of bytes; OpenCV's, which does not smooth before it shrinks."""
        height, width = self.working_size(*frame.shape[:2])
        return np.asarray(cv2.resize(frame, (width, height)), np.uint8)

    def resize_mask(self, mask: Mask) -> Mask:
        """Nearest pixel by corners.

        Every eighth pixel from the fourth on is then the one Pillow's nearest picks when it goes
        from the native size to 1/8 of the working size at once, as UVC does.
        """
        rows, columns = _nearest(mask.shape, self.working_size(*mask.shape))
        return mask[rows[:, None], columns]

    def restore_scores(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Nearest pixel by centres."""
        rows, columns = _nearest_centres(scores.shape[-2:], (height, width))
        return _pick(scores, rows, columns)


@dataclass(frozen=True)
class Square(ResizePolicy):
    """Squashed to a square (CycleTime).

    Frames are resized bilinearly (OpenCV) as floating-point numbers. Masks take the nearest pixel
    by centres, as Pillow's; scores come back by corners, as OpenCV's.

    Attributes:
        side: in pixels; CycleTime's best row has 480.
    """

    side: int = 480

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Always the square."""
        return self.side, self.side

    def resize_prepared(self, prepared: Tensor) -> Tensor:
        """Bilinear."""
        size = (self.side, self.side)
        resized = np.asarray(cv2.resize(prepared.permute(1, 2, 0).numpy(), size), np.float32)
        return _to_tensor(resized.reshape(*size, -1))

    def resize_mask(self, mask: Mask) -> Mask:
        """Nearest pixel by centres."""
        rows, columns = _nearest_centres(mask.shape, (self.side, self.side))
        return mask[rows[:, None], columns]

    def restore_scores(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Nearest pixel by corners."""
        rows, columns = _nearest(scores.shape[-2:], (height, width))
        return _pick(scores, rows, columns)


@dataclass(frozen=True)
class CropToMultiple(ResizePolicy):
    """Right columns and lower rows beyond a multiple cut off (CorrFlow).

    Attributes:
        multiple: in pixels.
        shift: by how many columns the result is moved to the right when it comes back. CorrFlow's
            released results are 3 columns too far right, because its writer pads on both sides
            what was cut off on the right alone.
    """

    multiple: int = 8
    shift: int = 0

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """E.g. 480x848 for 480x854."""
        return height // self.multiple * self.multiple, width // self.multiple * self.multiple

    def resize_image(self, frame: RGB) -> RGB:
        """Cut."""
        height, width = self.working_size(*frame.shape[:2])
        return frame[:height, :width]

    def resize_mask(self, mask: Mask) -> Mask:
        """Cut."""
        height, width = self.working_size(*mask.shape)
        return mask[:height, :width]

    def restore_scores(self, scores: Tensor, height: int, width: int) -> Tensor:
        """The nearest column and row kept stand in for those cut off."""
        kept_rows, kept_columns = scores.shape[-2:]
        left = min(self.shift, width - kept_columns)
        rows = np.arange(height).clip(0, kept_rows - 1)
        columns = (np.arange(width) - left).clip(0, kept_columns - 1)
        return _pick(scores, rows, columns)


@dataclass(frozen=True)
class PadToMultiple(ResizePolicy):
    """Zeros added on the right and below, after the preparation (MAMP).

    In prepared Lab 0 is mid grey, in masks background.

    Attributes:
        multiple: in pixels.
    """

    multiple: int = 4

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """E.g. 480x856 for 480x854."""
        return -(-height // self.multiple) * self.multiple, -(
            -width // self.multiple
        ) * self.multiple

    def pad_image(self, prepared: Tensor) -> Tensor:
        """Zeros."""
        height, width = prepared.shape[-2:]
        padded_height, padded_width = self.working_size(height, width)
        return F.pad(prepared, (0, padded_width - width, 0, padded_height - height))

    def resize_mask(self, mask: Mask) -> Mask:
        """Background."""
        height, width = mask.shape
        padded_height, padded_width = self.working_size(height, width)
        return np.pad(mask, ((0, padded_height - height), (0, padded_width - width)))

    def restore_scores(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Cut."""
        return scores[..., :height, :width]


RESIZE_POLICIES: Mapping[str, ResizePolicy] = MappingProxyType(
    {
        "native": ResizePolicy(),
        "multiple_of_64_short_480": LongSideToMultiple(),
        "square": Square(),
        "crop_8": CropToMultiple(),
        "crop_8_shifted": CropToMultiple(shift=3),
        "pad_4": PadToMultiple(),
    }
)
"""Resize policies by name, at the systems' own sizes; build the classes for other sizes."""


def prepare(frame: RGB, preparation: str, policy: ResizePolicy) -> Tensor:
    """A frame as the encoder wants it.

    Args:
        frame: uint8 ``(H, W, 3)``.
        preparation: a key of :data:`PREPARATIONS`.
        policy: e.g. ``RESIZE_POLICIES["native"]``.

    Returns:
        float32 ``(3 or 1, *policy.working_size(H, W))``.
    """
    prepared = PREPARATIONS[preparation](policy.resize_image(frame))
    return policy.pad_image(policy.resize_prepared(prepared))


Indices: TypeAlias = NDArray[np.intp]


def _nearest(source: Sequence[int], target: Sequence[int]) -> tuple[Indices, Indices]:
    """Rows and columns of the source for those of the target, by corners.

    OpenCV itself says which pixels its nearest picks, so that ties are rounded as it rounds them.
    """
    rows, columns = (
        np.asarray(cv2.resize(_counted(s)[None], (t, 1), interpolation=cv2.INTER_NEAREST))[0]
        for s, t in zip(source, target, strict=True)
    )
    return rows.astype(np.intp), columns.astype(np.intp)


def _nearest_centres(source: Sequence[int], target: Sequence[int]) -> tuple[Indices, Indices]:
    """Rows and columns of the source for those of the target, by centres; Pillow says which."""
    rows, columns = (
        np.asarray(Image.fromarray(_counted(s)[None]).resize((t, 1), Image.Resampling.NEAREST))[0]
        for s, t in zip(source, target, strict=True)
    )
    return rows.astype(np.intp), columns.astype(np.intp)


def _counted(size: int) -> NDArray[np.float32]:
    return np.arange(size, dtype=np.float32)


def _pick(scores: Tensor, rows: Indices, columns: Indices) -> Tensor:
    picked = scores.index_select(-2, torch.from_numpy(rows).to(scores.device))
    return picked.index_select(-1, torch.from_numpy(columns).to(scores.device))
