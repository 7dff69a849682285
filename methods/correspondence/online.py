"""Online update: RPM-Net's networks learn a video's first frame before they follow it.

Source: Kim et al., RPM-Net, WACV 2020: what the given first frame says is transferred to the
networks. Loss, number of steps and rate are not published; this is our reading: the frame is copied
to moved versions of itself, its mask as well as its colours, and the copies should be right.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from bench.method import MethodSettings
from bench.video import RGB, Mask
from methods.correspondence.deformable import DeformableSampler
from methods.correspondence.inputs import ResizePolicy
from methods.correspondence.pretext.colours import CENTROIDS, ab, drop_channels, quantise
from methods.correspondence.pretext.corrflow import draw_dropped
from methods.correspondence.pretext.rpmnet import class_loss, sampled_affinity


class OnlineSettings(MethodSettings):
    """How the networks are updated. All defaults are ours.

    Attributes:
        steps: of Adam.
        learning_rate: of Adam.
        pairs: of the frame and a moved version of it, per step.
        shift: largest movement along each axis, in pixels.
        scale: smallest and largest factor.
        keep_channels: probability of dropping no colour channel, as in training.
        colour_weight: of the loss of copied colours.
        label_weight: of the loss of the copied mask.
    """

    steps: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    pairs: int = Field(default=2, ge=1)
    shift: float = Field(default=16.0, ge=0)
    scale: tuple[float, float] = (0.9, 1.1)
    keep_channels: float = Field(default=0.3, ge=0, le=1)
    colour_weight: float = Field(default=1.0, ge=0)
    label_weight: float = Field(default=1.0, ge=0)


@dataclass(frozen=True)
class Networks:
    """What RPM-Net matches with.

    Attributes:
        encoder: frames to features.
        sampler: where to look.
        scale: multiplies the dot products before the softmax.
    """

    encoder: nn.Module
    sampler: DeformableSampler
    scale: float

    def loss(self, batch: Pairs, settings: OnlineSettings) -> Tensor:
        """The weighted losses of copied colours and masks, a scalar."""
        found = sampled_affinity(self.encoder, self.sampler, self.scale, batch.images)
        colour = class_loss(*found, batch.colours, len(CENTROIDS)).mean()
        label = class_loss(*found, batch.labels, int(batch.labels.max()) + 1).mean()
        return settings.colour_weight * colour + settings.label_weight * label


@dataclass(frozen=True)
class Pairs:
    """A frame and moved versions of it.

    Attributes:
        images: as the encoder sees them, float32 ``(B, 2, 3, H, W)``, the given frame first.
        colours: numbers of the palette's colours, int64 ``(B, 2, H', W')``.
        labels: numbers of objects, int64 ``(B, 2, H', W')``.
    """

    images: Tensor
    colours: Tensor
    labels: Tensor


class FirstFrame:
    """A video's first frame as training data.

    Args:
        image: uint8 ``(H, W, 3)``.
        mask: numbers of objects, uint8 ``(H, W)``.
        prepare: makes of a frame what the encoder sees, ``(1, 3, H', W')``.
        policy: how masks come to the size that the encoder sees.
    """

    def __init__(
        self, image: RGB, mask: Mask, prepare: Callable[[RGB], Tensor], policy: ResizePolicy
    ) -> None:
        self.image = image
        self.mask = mask
        self.prepare = prepare
        self.policy = policy

    def pairs(self, random: np.random.Generator, settings: OnlineSettings) -> Pairs:
        """Draw ``settings.pairs`` pairs."""
        moves = [self._draw_move(random, settings) for _ in range(settings.pairs)]
        still = np.eye(2, 3)
        parts = [[self._moved(move) for move in (still, moved)] for moved in moves]
        images, colours, labels = (
            torch.stack([torch.stack([view[kind] for view in pair]) for pair in parts])
            for kind in range(3)
        )
        dropped = draw_dropped(random, settings.keep_channels)
        return Pairs(drop_channels(images, dropped), colours, labels)

    def _draw_move(
        self, random: np.random.Generator, settings: OnlineSettings
    ) -> NDArray[np.float64]:
        height, width = self.mask.shape
        scale = random.uniform(*settings.scale)
        move = np.eye(2, 3) * scale
        # About the middle.
        move[:, 2] = (1 - scale) / 2 * np.array((width - 1, height - 1))
        move[:, 2] += random.uniform(-settings.shift, settings.shift, 2)
        return move

    def _moved(self, move: NDArray[np.float64]) -> tuple[Tensor, Tensor, Tensor]:
        """Image ``(3, H', W')``, colours and labels ``(H', W')`` of a moved version."""
        size = (self.mask.shape[1], self.mask.shape[0])
        border = cv2.BORDER_REFLECT_101
        image = np.asarray(cv2.warpAffine(self.image, move, size, borderMode=border), np.uint8)
        mask = np.asarray(
            cv2.warpAffine(self.mask, move, size, flags=cv2.INTER_NEAREST, borderMode=border),
            np.uint8,
        )
        colours = quantise(ab(image), CENTROIDS).numpy().astype(np.uint8)
        prepared = self.prepare(image)[0]
        resized = [
            torch.from_numpy(self.policy.resize_mask(ids)).long().to(prepared.device)
            for ids in (colours, mask)
        ]
        return prepared, resized[0], resized[1]


def updated(networks: Networks, first: FirstFrame, settings: OnlineSettings, seed: int) -> Networks:
    """Networks that have learned a frame; those given stay as they are.

    Running statistics of batch normalisation stay, too: one frame says little about them.

    Args:
        networks: to start from.
        first: the video's first frame.
        settings: of the update.
        seed: of the movements.
    """
    random = np.random.default_rng(seed)
    with torch.inference_mode(False), torch.enable_grad():
        learned = Networks(
            copy.deepcopy(networks.encoder), copy.deepcopy(networks.sampler), networks.scale
        )
        modules = (learned.encoder.eval(), learned.sampler.eval())
        parameters = [p.requires_grad_() for module in modules for p in module.parameters()]
        optimiser = torch.optim.Adam(parameters, settings.learning_rate)
        for _ in range(settings.steps):
            optimiser.zero_grad()
            loss = learned.loss(first.pairs(random, settings), settings)
            torch.autograd.backward(loss)
            optimiser.step()
    for module in modules:
        module.requires_grad_(False)
    return learned
