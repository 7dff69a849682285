"""Training steps of both domains, and of the controls that must show no effect.

Step ``i`` depends on the seed and ``i`` alone. Images and clips are drawn from separate streams of
random numbers, so that trainings that differ in one domain see the same samples of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.training import ENDLESS
from methods.adversarial.augment import Clip, augment, resize
from methods.adversarial.material import Material, Stills, Videos
from methods.adversarial.settings import AdaptationSettings

IMAGE, VIDEO, NEITHER = 0, 1, -1
"""Domains. What belongs to neither is not aligned."""

VALIDATION_BATCH = 8
"""Held-out images per validation batch."""


class Part(NamedTuple):
    """One domain's share of a step.

    Attributes:
        frames: uint8 RGB ``(B, T, 3, H, W)``.
        foreground: uint8 ``(B, T, H, W)``: 0, 1, or 255 where nothing is known.
        classes: uint8 ``(B, T, H, W)``: classes of a semantic head; 255 where nothing is known.
        supervised: bool ``(B,)``, whether labels may be trained on.
        domains: int64 ``(B,)`` of :data:`IMAGE`, :data:`VIDEO`, :data:`NEITHER`.
    """

    frames: Tensor
    foreground: Tensor
    classes: Tensor
    supervised: Tensor
    domains: Tensor


class Step(NamedTuple):
    """What one training step sees."""

    images: Part
    clips: Part


class Steps:
    """Training steps of both domains; step ``i`` depends on the seed and ``i`` alone.

    Args:
        images: the source domain.
        targets: the target domain.
        settings: of the training.
        counts: images and clips per step; 0 leaves a domain out.
        seed: of everything that is drawn.
        length: number of steps.
    """

    def __init__(
        self,
        images: Material,
        targets: Material,
        settings: AdaptationSettings,
        counts: tuple[int, int],
        seed: int,
        length: int = ENDLESS,
    ) -> None:
        self.images = images
        self.targets = targets
        self.settings = settings
        self.counts = counts
        self.seed = seed
        self.length = length
        self._frequencies: NDArray[np.float64] | None = None
        if settings.domains.video_sampling == "length" and isinstance(targets, Videos):
            self._frequencies = np.array([len(video) for video in targets.videos], np.float64)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Step:
        """Make one step; raises IndexError past the end."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        of_images, of_targets, of_domains = (
            np.random.default_rng((self.seed, index, stream)) for stream in range(3)
        )
        image_domains, target_domains = draw_domains(
            self.settings.domains.pairing, self.counts, of_domains
        )
        split = self.settings.split_seed
        pairing = self.settings.domains.pairing
        images = draw(self.images, image_domains, pairing == "image_image", split, of_images)
        targets = draw(
            self.targets,
            target_domains,
            pairing == "video_video",
            split,
            of_targets,
            self._frequencies,
        )
        augmentation = self.settings.augmentation
        return Step(
            self._part(images, image_domains, of_images, augmentation.video_like),
            self._part(targets, target_domains, of_targets, 0.0),
        )

    def _part(
        self,
        clips: Sequence[Clip],
        domains: Sequence[int],
        random: np.random.Generator,
        video_like: float,
    ) -> Part:
        augmentation = self.settings.augmentation
        return as_part(
            [augment(clip, random, augmentation, video_like) for clip in clips],
            domains,
            augmentation.crop,
        )


def draw_domains(
    pairing: str, counts: tuple[int, int], random: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Domains of a step's images and clips.

    Shuffled labels are drawn anew for every step, half of the images and of the clips being of
    either domain, so that nothing can be learned from them.
    """
    images, clips = counts
    halves = [[number % 2 for number in range(count)] for count in counts]
    if pairing == "shuffled":
        return random.permutation(halves[0]).tolist(), random.permutation(halves[1]).tolist()
    if pairing == "image_image":
        return halves[0], [NEITHER] * clips
    if pairing == "video_video":
        return [NEITHER] * images, halves[1]
    return [IMAGE] * images, [VIDEO] * clips


def draw(
    material: Material,
    domains: Sequence[int],
    halved: bool,
    split_seed: int,
    random: np.random.Generator,
    frequencies: NDArray[np.float64] | None = None,
) -> list[Clip]:
    """Clips of different items, as far as there are enough.

    Args:
        material: that is drawn from.
        domains: of the clips.
        halved: whether the two domains are halves of the material.
        split_seed: which halves.
        random: where the draw comes from.
        frequencies: of the items, in proportion; None draws all alike.
    """
    if not domains:
        return []
    order = np.random.default_rng(split_seed).permutation(len(material))
    half = len(order) // 2
    pools = [order[:half], order[half:]] if halved else [order]
    streams = []
    for pool in pools:
        shares = None if frequencies is None else frequencies[pool] / frequencies[pool].sum()
        repeated = len(pool) < len(domains)
        streams.append(iter(random.choice(pool, len(domains), repeated, shares).tolist()))
    return [material.clip(next(streams[domain if halved else 0]), random) for domain in domains]


def as_part(clips: Sequence[Clip], domains: Sequence[int], side: int) -> Part:
    """Clips of squares as tensors; without any the batch dimension is 0."""
    if not clips:
        empty = torch.zeros(0, 1, side, side, dtype=torch.uint8)
        return Part(
            torch.zeros(0, 1, 3, side, side, dtype=torch.uint8),
            empty,
            empty,
            torch.zeros(0, dtype=torch.bool),
            torch.zeros(0, dtype=torch.long),
        )
    frames = torch.from_numpy(np.stack([np.stack(clip.frames) for clip in clips]))
    labels = torch.from_numpy(np.stack([np.stack(clip.labels) for clip in clips]))
    return Part(
        frames.permute(0, 1, 4, 2, 3).contiguous(),
        labels[..., 0].contiguous(),
        labels[..., 1].contiguous(),
        torch.tensor([clip.supervised for clip in clips]),
        torch.tensor(list(domains)),
    )


class HeldOut:
    """Whole held-out images, resized to the crop's side, in batches.

    Args:
        images: labelled.
        side: of the squares in pixels.
    """

    def __init__(self, images: Stills, side: int) -> None:
        self.images = images
        self.side = side

    def __len__(self) -> int:
        return -(-len(self.images) // VALIDATION_BATCH)

    def __getitem__(self, index: int) -> Part:
        """One batch; raises IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * VALIDATION_BATCH
        clips = []
        for number in range(start, min(start + VALIDATION_BATCH, len(self.images))):
            image, labels = self.images.picture(number)
            size = (self.side, self.side)
            small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            clips.append(Clip([resize(image, self.side)], [np.asarray(small, np.uint8)], True))
        return as_part(clips, [IMAGE] * len(clips), self.side)


def only(samples: Sequence[Step | Part]) -> Step | Part:
    """The collation of samples that are whole batches already."""
    (sample,) = samples
    return sample
