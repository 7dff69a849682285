"""One video, frame by frame: what is computed between the networks (sections 3.4 to 3.9, 5).

:class:`Sequence` holds a video's state. Inference and training both drive it: the decoder's
inputs of all objects, of one video or of a batch of them, are gathered, decoded together by
:func:`decode`, and handed back.

Labels are 0 = background and 1 .. K for the objects, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.method import MethodSettings
from methods.shls.memory import MemoryClustering, MemorySettings, Recall
from methods.shls.network import SHLSNetwork
from methods.shls.pooling import (
    majority,
    paint,
    segment_mean,
    shrink_superpixels,
    superpixel_info,
)
from methods.shls.regions import (
    Box,
    Window,
    drop_outliers,
    put_back,
    region_of_interest,
    take,
    take_quarter,
    tight_box,
    window_of,
)

UNASSIGNED = 255
"""In a pre-segmentation: a superpixel whose label was dropped as an outlier."""

FIRST_GROWTH, LATER_GROWTH = 0.5, 0.3
"""How much regions grow around a given mask, and around a pre-segmentation."""

LEAST_PROBABILITY = 1e-7
"""Probabilities are kept this far from 0 and 1, so that their log-odds are finite."""


class SegmentationSettings(MethodSettings):
    """How networks and memory are put together.

    Attributes:
        memory: what is remembered.
        refine: whether the decoder makes the mask. Without it the pre-segmentation is the result.
        window: side in pixels at which every object's region is decoded; None for its own size.
        confidence: with ``variant: fixed``, the mean probability from which a superpixel's label
            is trusted and remembered.
        confidence_ratio: with ``variant: paper``, the same as a share of the class's mean logit.
    """

    memory: MemorySettings = MemorySettings()
    refine: bool = True
    window: int | None = Field(default=None, ge=16, multiple_of=4)
    confidence: float = Field(default=0.8, ge=0, le=1)
    confidence_ratio: float = Field(default=0.4, ge=0)


@dataclass(frozen=True)
class FrameFeatures:
    """What the networks make of one frame before any label comes in.

    Attributes:
        half: ``(width, H/2, W/2)``.
        quarter: ``(4 width + 3, H/4, W/4)``, superpixel info included.
        superpixels: int64 ``(H, W)``, ids 1 .. N.
        info: float ``(N, 3)``, see :func:`methods.shls.pooling.superpixel_info`.
        superfeatures: float ``(N, S)``.
    """

    half: Tensor
    quarter: Tensor
    superpixels: Tensor
    info: Tensor
    superfeatures: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.superpixels.shape[0], self.superpixels.shape[1]

    @property
    def count(self) -> int:
        """Number of superpixels."""
        return self.info.shape[0]

    @cached_property
    def full(self) -> Tensor:
        """``(width + 3, H, W)``: the half-resolution features brought to full size, and info."""
        return full_resolution(self.half, self.superpixels, self.info)

    def release(self) -> None:
        """Forget :attr:`full`; it is computed again when needed."""
        self.__dict__.pop("full", None)


def full_resolution(half: Tensor, superpixels: Tensor, info: Tensor) -> Tensor:
    """The full-resolution map of section 3.2: ``(width + 3, H, W)``."""
    features = F.interpolate(
        half[None], size=superpixels.shape, mode="bilinear", align_corners=False
    )[0]
    return torch.cat([features, paint(info, superpixels).to(features.dtype)])


def encode(network: SHLSNetwork, images: Tensor, superpixels: Rows[Tensor]) -> list[FrameFeatures]:
    """Run the backbone on a batch of frames and embed their superpixels.

    Args:
        network: the networks.
        images: float ``(B, 3, H, W)``, normalised RGB.
        superpixels: per frame int64 ``(H, W)``, ids 1 .. N.
    """
    dtype = network.modulator.gate.weight.dtype
    halves, quarters = network.backbone(images.to(dtype))
    frames = []
    for half, features, ids in zip(halves, quarters, superpixels, strict=True):
        count = int(ids.max())
        info = superpixel_info(ids, count)
        small = shrink_superpixels(ids, (features.shape[1], features.shape[2]))
        small_info = paint(superpixel_info(small, count), small).to(features.dtype)
        quarter = torch.cat([features, small_info])
        full = full_resolution(half, ids, info)
        superfeatures = network.superfeatures(full, quarter, ids, small)
        frame = FrameFeatures(half, quarter, ids, info, superfeatures)
        frame.__dict__["full"] = full
        frames.append(frame)
    return frames


@dataclass(frozen=True)
class View:
    """An object in one frame: the region it is looked for in, and what is known of it there.

    Attributes:
        frame: the frame's features.
        box: the region.
        mask: float ``(H, W)``, the object's mask: 0/1 where it was given, else as predicted.
        attention: float ``(N, 4)`` per superpixel; see :meth:`methods.shls.memory.Recall`.
    """

    frame: FrameFeatures
    box: Box
    mask: Tensor
    attention: Tensor

    def attention_in(self, window: Window) -> Tensor:
        """The attention painted in the region, ``(4, *window.padded)``."""
        painted = paint(self.attention, self.box.cut(self.frame.superpixels))
        return take(painted, Box(0, self.box.height, 0, self.box.width), window)


@dataclass(frozen=True)
class DecoderInputs:
    """What modulator and decoder get for one object; see section 3.6.

    Attributes:
        box: the region in the current frame.
        window: the size of all crops.
        attention: ``(2, 4, h, w)``: previous and current frame.
        full: ``(2, width + 3, h, w)``: the same frames' features.
        quarter: ``(2, 4 width + 3, h/4, w/4)``.
        first_quarter: ``(4 width + 3, h/4, w/4)``.
        skip: ``(2 + width + 3, h, w)``: first mask, previous mask, first frame's features.
    """

    box: Box
    window: Window
    attention: Tensor
    full: Tensor
    quarter: Tensor
    first_quarter: Tensor
    skip: Tensor


def decoder_inputs(
    first: View, previous: View, current: View, side: int | None, aligned: bool
) -> DecoderInputs:
    """Cut out what the decoder sees of one object.

    Args:
        first: the object in the frame where its mask was given.
        previous: the object in the previous frame.
        current: the same in the current frame; its mask is not used.
        side: see :attr:`SegmentationSettings.window`.
        aligned: see :func:`methods.shls.regions.take_quarter`.
    """
    window = window_of(current.box, side)
    views = (previous, current)
    return DecoderInputs(
        current.box,
        window,
        torch.stack([view.attention_in(window) for view in views]),
        torch.stack([take(view.frame.full, view.box, window) for view in views]),
        torch.stack([take_quarter(v.frame.quarter, v.box, window, aligned) for v in views]),
        # The first frame's features are a fixed reference: no gradient goes back through them.
        take_quarter(first.frame.quarter, first.box, window, aligned).detach(),
        torch.cat(
            [
                take(first.mask[None], first.box, window, "nearest"),
                take(previous.mask[None], previous.box, window),
                take(first.frame.full, first.box, window).detach(),
            ]
        ),
    )


def decode(network: SHLSNetwork, inputs: Rows[DecoderInputs]) -> list[Tensor]:
    """Decode objects; those with windows of one size go through the networks together.

    Returns:
        Per object float ``(2, h, w)``, logits of background and object in its padded window.
    """
    dtype = network.modulator.gate.weight.dtype
    groups: dict[tuple[int, int], list[int]] = {}
    for position, item in enumerate(inputs):
        groups.setdefault(item.window.padded, []).append(position)
    found: dict[int, Tensor] = {}
    for positions in groups.values():
        items = [inputs[position] for position in positions]
        attention = torch.stack([item.attention for item in items]).to(dtype)
        full = torch.stack([item.full for item in items]).to(dtype)
        quarter = torch.stack([item.quarter for item in items]).to(dtype)
        modulated = network.modulator(
            attention.flatten(0, 1), full.flatten(0, 1), quarter.flatten(0, 1)
        )
        modulated = modulated.reshape(len(items), -1, *modulated.shape[-2:])
        first = torch.stack([item.first_quarter for item in items]).to(dtype)
        logits = network.decoder(
            torch.cat([first, modulated], dim=1),
            torch.stack([item.skip for item in items]).to(dtype),
            attention[:, 1],
        )
        found.update(zip(positions, logits.float(), strict=True))
    return [found[position] for position in range(len(inputs))]


def aggregate(probabilities: Tensor) -> Tensor:
    """Soft aggregation (section 3.9, after STM): one object's probability against all others'.

    Args:
        probabilities: ``(K, H, W)``, each object's own.

    Returns:
        Logits ``(1 + K, H, W)``, background first; their softmax normalises the odds.
    """
    background = (1 - probabilities).prod(0, keepdim=True)
    everything = torch.cat([background, probabilities])
    everything = everything.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return torch.log(everything / (1 - everything))


@dataclass
class Sequence:
    """The state of one video.

    Attributes:
        settings: how things are put together.
        fixed: whether the networks are of the variant ``fixed``.
        memory: superfeatures with labels.
        first: per object, the view in the frame where its mask was given.
        previous: per object, the view in the previous frame.
        least: per object, height and width below which its region does not shrink.
        labels: uint8 ``(H, W)``, the previous frame's final labels.
    """

    settings: SegmentationSettings
    fixed: bool
    memory: MemoryClustering
    first: list[View]
    previous: list[View]
    least: list[tuple[int, int]]
    labels: NDArray[np.uint8]
    presegmentation: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.presegmentation = self.labels

    @property
    def objects(self) -> int:
        """Number of objects."""
        return len(self.first)

    @classmethod
    def begin(
        cls,
        settings: SegmentationSettings,
        fixed: bool,
        frame: FrameFeatures,
        labels: NDArray[np.uint8],
        objects: int,
    ) -> Sequence:
        """Start with the first frame, whose superpixels were split along its mask.

        Args:
            settings: how things are put together.
            fixed: whether the networks are of the variant ``fixed``.
            frame: features of the first frame.
            labels: uint8 ``(H, W)``, 0 .. ``objects``.
            objects: K.
        """
        on_device = torch.from_numpy(labels).to(frame.superpixels.device).long()
        classes = majority(frame.superpixels, on_device, frame.count, objects + 1)
        memory = MemoryClustering(frame.superfeatures, classes, objects + 1, settings.memory)
        sequence = cls(settings, fixed, memory, [], [], [], labels)
        sequence._enter(frame, labels, range(1, objects + 1))
        return sequence

    def add(self, frame: FrameFeatures, labels: NDArray[np.uint8], objects: int) -> None:
        """Take up objects that enter in the frame that was segmented last.

        Args:
            frame: its features, with superpixels split along ``labels``.
            labels: uint8 ``(H, W)``: the predicted labels with the new objects put in.
            objects: number of objects from now on.
        """
        on_device = torch.from_numpy(labels).to(frame.superpixels.device).long()
        classes = majority(frame.superpixels, on_device, frame.count, objects + 1)
        known = self.objects
        # The frame was remembered before the new objects were known: as background, mostly.
        self.memory.forget_latest()
        self.memory.update(frame.superfeatures, torch.where(classes <= known, classes, -1))
        self.memory.add_classes(frame.superfeatures, classes, objects + 1)
        self.labels = labels
        self._enter(frame, labels, range(known + 1, objects + 1))

    def _enter(self, frame: FrameFeatures, labels: NDArray[np.uint8], new: range) -> None:
        recall = self.memory.query(frame.superfeatures)
        for number in new:
            mask = labels == number
            tight = tight_box(mask)
            # One less than the height in pixels, as the authors measure it.
            self.least.append((tight.height - 1, tight.width - 1) if tight else (0, 0))
            view = View(
                frame,
                region_of_interest(mask, FIRST_GROWTH),
                torch.from_numpy(mask).to(frame.half.device).float(),
                recall.attention(number),
            )
            self.first.append(view)
            self.previous.append(view)

    def look(
        self, frame: FrameFeatures, regions_from: NDArray[np.uint8] | None = None
    ) -> tuple[Recall, list[View]]:
        """Compare a frame with the memory and find the objects' regions.

        Args:
            frame: the current frame.
            regions_from: uint8 ``(H, W)`` labels that regions are taken from (training); None to
                take them from the pre-segmentation.

        Returns:
            What the memory says, and one view per object, without masks.
        """
        recall = self.memory.query(frame.superfeatures)
        painted = paint(recall.labels, frame.superpixels).to(torch.uint8).cpu().numpy()
        self.presegmentation = drop_outliers(painted, self.labels, UNASSIGNED)
        views = []
        for number in range(1, self.objects + 1):
            if regions_from is not None:
                box = region_of_interest(regions_from == number, FIRST_GROWTH)
            else:
                box = region_of_interest(
                    self.presegmentation == number, LATER_GROWTH, self.least[number - 1]
                )
            mask = self.previous[number - 1].mask
            views.append(View(frame, box, mask, recall.attention(number)))
        return recall, views

    def inputs(self, views: Rows[View]) -> list[DecoderInputs]:
        """The decoder's inputs, one per object."""
        return [
            decoder_inputs(first, previous, current, self.settings.window, self.fixed)
            for first, previous, current in zip(self.first, self.previous, views, strict=True)
        ]

    def combine(self, logits: Rows[Tensor], inputs: Rows[DecoderInputs]) -> Tensor:
        """Objects' logits in their windows to aggregated logits ``(1 + K, H, W)``."""
        size = self.first[0].frame.size
        probabilities = [
            put_back(torch.softmax(pair, 0)[1], item.box, item.window, size)
            for pair, item in zip(logits, inputs, strict=True)
        ]
        return aggregate(torch.stack(probabilities))

    def presegmentation_logits(self, recall: Recall, frame: FrameFeatures) -> Tensor:
        """The result without refinement: the pre-segmentation as logits ``(1 + K, H, W)``."""
        labels = torch.from_numpy(self.presegmentation).to(frame.half.device).long()
        objects = [(labels == number).float() for number in range(1, self.objects + 1)]
        return aggregate(torch.stack(objects))

    def advance(self, frame: FrameFeatures, views: Rows[View], logits: Tensor) -> None:
        """Make the current frame the previous one, and remember what is certain of it.

        Args:
            frame: the current frame.
            views: from :meth:`look`.
            logits: aggregated logits ``(1 + K, H, W)``.
        """
        logits = logits.detach()
        labels = logits.argmax(0)
        self.labels = labels.to(torch.uint8).cpu().numpy()
        # The authors hand on logits, in [-16, 16], where frame 0 had a mask of 0 and 1.
        masks = torch.softmax(logits, 0) if self.fixed else logits
        for position, view in enumerate(views):
            self.previous[position] = View(frame, view.box, masks[position + 1], view.attention)
        for view in self.first:
            if view.frame is not frame:
                view.frame.release()
        if self.settings.memory.update:
            if self.fixed:
                classes = self._confident(frame, labels, masks)
            else:
                classes = self._confident_as_published(frame, labels, logits)
            if classes is not None:
                self.memory.update(frame.superfeatures, classes)

    def _confident(self, frame: FrameFeatures, labels: Tensor, probabilities: Tensor) -> Tensor:
        """Labels to remember: the final mask's, where its probability is high on average."""
        count = frame.count
        classes = majority(frame.superpixels, labels, count, self.objects + 1)
        mean, _ = segment_mean(probabilities, frame.superpixels, count)
        certain = mean.gather(1, classes[:, None])[:, 0] >= self.settings.confidence
        return torch.where(certain, classes, -1)

    def _confident_as_published(
        self, frame: FrameFeatures, labels: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Labels to remember: the pre-segmentation's, where any class's logit is high (5.3).

        Defects that the variant ``fixed`` mends: the labels are not the final ones, and a ratio
        of logits says nothing where the class's mean is negative.
        """
        if not (labels == 0).any():
            return None
        count = frame.count
        mean, _ = segment_mean(logits, frame.superpixels, count)
        certain = torch.zeros(count, dtype=torch.bool, device=mean.device)
        for number, channel in enumerate(logits):
            members = labels == number
            if number == 0:
                members &= channel < channel.max()  # the maximum lies outside all regions
            typical = channel[members].mean()
            certain |= mean[:, number] >= self.settings.confidence_ratio * typical
        preseg = torch.from_numpy(self.presegmentation).to(mean.device).long()
        assigned = torch.where(preseg == UNASSIGNED, self.objects + 1, preseg)
        classes = majority(frame.superpixels, assigned, count, self.objects + 2)
        return torch.where(certain & (classes <= self.objects), classes, -1)
