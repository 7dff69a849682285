"""CycleTime: track a patch back in time and forward again, and end where it began.

Source: Wang, Jabri, Efros: Learning correspondence from the cycle-consistency of time, CVPR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.video import RGB
from methods.clips import Normalise, place, resize_short_side
from methods.correspondence.pretext.clips import Sample, crop_at_random, to_tensor
from methods.correspondence.pretext.transformer import (
    Localiser,
    Track,
    Tracker,
    crop,
    grid_distance,
    similarity_transform,
)

if TYPE_CHECKING:
    from methods.correspondence.encoder import Encoder

BLOCKS = 9
"""Frames are cut into 9 x 9 blocks; a patch covers 3 x 3 of them."""

LIVELIEST = 10
"""Of the 7 x 7 places, so many with the largest frame difference are chosen among."""


class CycleTimeSettings(MethodSettings):
    """How CycleTime is trained. The defaults are the authors', for videos of 12 frames a second.

    Attributes:
        offsets: of the clip's frames from its start: those tracked through, in order of time, and
            the target, which the patch is taken from, at last.
        short_side: frames are scaled to it first, in pixels.
        crop: side of the random crop in pixels, the same for all frames; a multiple of 3.
        flip: probability of mirroring the clip.
        rotation: largest angle of the patch in degrees.
        jitter: largest shift of the patch from its block, in half sides of the frame.
        temperature: of the correlation.
        localiser_kernel: see :class:`methods.correspondence.pretext.transformer.Localiser`.
        offset_factor: see :func:`methods.correspondence.pretext.transformer.affine_points`.
        cycle_weight: of the distance after the cycles.
        skip_weight: of the distance after the skip cycles.
        similarity_weight: of the inlier score.
        batch_size: clips per step.
        learning_rate: of Adam.
        betas: of Adam.
        weight_decay: of Adam.
        clip_gradient: largest norm of the gradient.
    """

    offsets: tuple[int, ...] = Field(default=(0, 2, 4, 6, 15), min_length=2)
    short_side: int = Field(default=256, ge=8)
    crop: int = Field(default=240, ge=24, multiple_of=3)
    flip: float = Field(default=0.5, ge=0, le=1)
    rotation: float = Field(default=45.0, ge=0)
    jitter: float = Field(default=1 / 12, ge=0)
    temperature: float = Field(default=512**-0.5, gt=0)
    localiser_kernel: int = Field(default=4, ge=1)
    offset_factor: float = Field(default=227 / 210, gt=0)
    cycle_weight: float = Field(default=0.1 * 0.2, ge=0)
    skip_weight: float = Field(default=0.1, ge=0)
    similarity_weight: float = Field(default=1.0, ge=0)
    batch_size: int = Field(default=36, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_gradient: float | None = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> CycleTimeSettings:
        if self.crop > self.short_side:
            raise ValueError("crop must not be larger than short_side")
        return self

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """Frames at ``offsets`` from anywhere in a video of so many."""
        return place(random, length, self.offsets)


def lively_block(target: RGB, other: RGB, random: np.random.Generator) -> NDArray[np.float32]:
    """Centre of one of the 3 x 3 blocks in which two frames differ most.

    Returns:
        x and y in [-1, 1], float32 ``(2,)``.
    """
    difference = np.abs(target.astype(np.float32) - other.astype(np.float32)).mean(2)
    blocks = cv2.resize(difference, (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA)
    sums = np.lib.stride_tricks.sliding_window_view(blocks, (3, 3)).sum((2, 3))
    chosen = int(random.choice(np.argsort(sums, axis=None)[-LIVELIEST:]))
    row, column = np.unravel_index(chosen, sums.shape)
    return ((np.array([column, row]) + 1.5) / BLOCKS * 2 - 1).astype(np.float32)


def augment(frames: list[RGB], random: np.random.Generator, settings: CycleTimeSettings) -> Sample:
    """Crop a clip, and choose the patch of the target that is tracked.

    Returns:
        ``frames``: uint8 ``(T, 3, S, S)``, the target not among them. ``target``: uint8
        ``(3, S, S)``. ``theta``: float32 ``(2, 3)``, where the patch is in the target.
    """
    frames = [resize_short_side(frame, settings.short_side) for frame in frames]
    frames = crop_at_random(frames, random, settings.crop)
    if random.random() < settings.flip:
        frames = [frame[:, ::-1] for frame in frames]
    *base, target = frames
    centre = lively_block(target, base[-1], random)
    centre += random.uniform(-settings.jitter, settings.jitter, 2).astype(np.float32)
    angle = math.radians(random.uniform(-settings.rotation, settings.rotation))
    theta = similarity_transform(torch.from_numpy(centre)[None], torch.tensor([angle]), 1 / 3)
    return {
        "frames": to_tensor(base),
        "target": to_tensor([target])[0],
        "theta": theta[0].float(),
    }


NextTemplate = Callable[[Sequence[Tensor]], Tensor]
"""What is looked for next, from the templates found so far, the oldest first."""


class Cycles(NamedTuple):
    """Everything that was tracked in a clip.

    Attributes:
        ends: thetas in the target after 1, 2, … frames of going back, ``(B, 2, 3)`` each.
        skips: thetas in the target after visiting one frame alone, ``(B, 2, 3)`` each.
        inliers: of finding the patch itself in each frame, ``(T, B)``.
    """

    ends: list[Tensor]
    skips: list[Tensor]
    inliers: Tensor


def track_cycles(
    tracker: Tracker, frames: Tensor, target: Tensor, patch: Tensor, next_template: NextTemplate
) -> Cycles:
    """Track a patch of the target back over 1, 2, … frames and forward to the target again.

    Longer cycles go back as shorter ones do, so the way back is tracked once for all of them; and
    the cycle over one frame is that frame's skip cycle.

    Only where the patch itself is looked for do inliers count, as in the paper's dense similarity.
    All other templates are crops of frames: from the middle of one to the middle of the next, the
    score is perfect for features that say nothing but where in the frame they are.

    Args:
        tracker: finds a template in a frame.
        frames: unit vectors ``(B, T, C, h, w)``.
        target: unit vectors ``(B, C, h, w)``.
        patch: unit vectors ``(B, C, s, s)``.
        next_template: what is looked for next.
    """

    def look(found: list[Tensor], frame: Tensor) -> Track:
        track: Track = tracker(next_template(found), frame)
        return track

    visits = [look([patch], frame) for frame in frames.unbind(1)]
    skips = [look([patch, visit.template], target).theta for visit in reversed(visits)]
    back, ends = [patch, visits[-1].template], [skips[0]]
    for turn in reversed(range(len(visits) - 1)):
        back = [*back, look(back, frames[:, turn]).template]
        found = back
        for number in range(turn + 1, len(visits)):
            found = [*found, look(found, frames[:, number]).template]
        ends.append(look(found, target).theta)
    return Cycles(ends, skips, torch.stack([visit.inliers for visit in visits]))


class CycleTimeObjective(nn.Module):
    """Distances after cycles and skip cycles, and the inlier score of the patch in each frame.

    The patch is cut out of the target's pixels and encoded by itself.

    Args:
        encoder: maps of frames and of patches.
        settings: of the training.
    """

    def __init__(self, encoder: Encoder, settings: CycleTimeSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.normalise = Normalise()
        cells, side = (
            math.ceil(pixels / encoder.stride) for pixels in (settings.crop, settings.crop // 3)
        )
        localiser = Localiser(cells * cells, side, settings.localiser_kernel)
        self.tracker = Tracker(localiser, settings.temperature, settings.offset_factor)

    def features(self, images: Tensor) -> Tensor:
        """Normalised images ``(B, 3, H, W)`` to unit vectors ``(B, C, h, w)``."""
        return F.normalize(self.encoder(images).float(), dim=1)

    def encode(self, batch: Sample) -> tuple[Tensor, Tensor, Tensor]:
        """Features of a batch's frames, targets and patches; see :func:`track_cycles`."""
        target = self.normalise(batch["target"])
        images = torch.cat([self.normalise(batch["frames"]), target[:, None]], 1)
        maps = torch.unflatten(self.features(images.flatten(0, 1)), 0, images.shape[:2])
        patch = crop(target, batch["theta"], self.settings.crop // 3)
        return maps[:, :-1], maps[:, -1], self.features(patch)

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The weighted losses.

        Args:
            batch: see :func:`augment`, with a batch dimension.

        Returns:
            ``cycle``, ``skip`` and ``similarity``; the last is negative.
        """
        encoded = self.encode(batch)
        return self.losses(self.track(*encoded), batch["theta"])

    def next_template(self, found: Sequence[Tensor]) -> Tensor:
        """What is looked for next, ``(B, C, s, s)``: what was found last."""
        return found[-1]

    def track(self, frames: Tensor, target: Tensor, patch: Tensor) -> Cycles:
        """See :func:`track_cycles`."""
        return track_cycles(self.tracker, frames, target, patch, self.next_template)

    def losses(
        self, cycles: Cycles, theta: Tensor, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The weighted losses of what was tracked.

        Args:
            cycles: see :func:`track_cycles`.
            theta: where the patch was, ``(B, 2, 3)``.
            weights: of the patch's points, see
                :func:`methods.correspondence.pretext.transformer.grid_distance`.
        """
        settings = self.settings
        distances = [
            torch.stack([grid_distance(end, theta, weights=weights) for end in ends]).mean()
            for ends in (cycles.ends, cycles.skips)
        ]
        return {
            "cycle": settings.cycle_weight * distances[0],
            "skip": settings.skip_weight * distances[1],
            "similarity": -settings.similarity_weight * cycles.inliers.mean(),
        }

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the mean squared distance after the cycles, per clip."""
        cycles = self.track(*self.encode(batch))
        distances = [grid_distance(end, batch["theta"]) for end in cycles.ends]
        scores: list[float] = (-torch.stack(distances).mean(0)).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The encoder's tensors; the localiser serves training alone."""
        return dict(self.encoder.state_dict())
