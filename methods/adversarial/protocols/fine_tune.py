"""A copy of the network is trained on the first frame and its mask, then segments the rest.

After Caelles et al., One-Shot Video Object Segmentation, CVPR 2017, with Adam and far fewer steps.
Training hides how good the features were, so a table that shows this shows propagation beside it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.method import MethodSettings, ProtocolRecord
from bench.propagation import labels_from_mask
from bench.video import Frame, Mask, object_ids
from methods.adversarial.networks import SegmentationNetwork, freeze_batch_norm
from methods.adversarial.protocols.base import Prompted
from methods.adversarial.protocols.frames import (
    FrameNetwork,
    Geometry,
    SlidingClip,
    object_scores,
    to_native,
)
from methods.adversarial.taps import Tap


class FineTuneSettings(MethodSettings):
    """Settings of :class:`FineTuneProtocol`.

    Attributes:
        classifier: ``"linear"`` gives each object a new 1x1 convolution on the features at
            ``tap``; ``"foreground_head"`` trains a copy of the whole network for each object.
        tap: of the linear classifiers.
        steps: of Adam; each sees one augmented view.
        head_learning_rate: of classifiers and of the network's own heads.
        encoder_learning_rate: of the encoder.
        rotation: largest, in degrees.
        scale: smallest and largest.
        flip: probability.
    """

    kind: Literal["fine_tune"] = "fine_tune"
    classifier: Literal["linear", "foreground_head"] = "linear"
    tap: Tap = "dec"
    steps: int = Field(default=300, ge=0)
    head_learning_rate: float = Field(default=1e-4, gt=0)
    encoder_learning_rate: float = Field(default=1e-5, gt=0)
    rotation: float = Field(default=30.0, ge=0)
    scale: tuple[float, float] = (0.75, 1.25)
    flip: float = Field(default=0.5, ge=0, le=1)


class LinearClassifiers(nn.Module):
    """One copy of the network and a 1x1 convolution per object on its features."""

    def __init__(self, network: SegmentationNetwork, tap: str, objects: int) -> None:
        super().__init__()
        self.network = trainable_copy(network)
        self.tap = tap
        self.classifier = nn.Conv2d(network.channels[tap], objects, 1)
        for parameter in self.classifier.parameters():  # no object is likelier than another
            nn.init.zeros_(parameter)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(K, H, W)`` of the centre frame of a clip ``(1, T, 3, H, W)``."""
        centre = self.network.features(clip, self.tap)[clip.shape[1] // 2, None]
        maps = self.classifier(centre)
        return F.interpolate(maps, size=clip.shape[-2:], mode="bilinear", align_corners=False)[0]

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Encoder, and all else."""
        encoder, heads = self.network.parameter_groups()
        return encoder, [*heads, *self.classifier.parameters()]


class ForegroundHeads(nn.Module):
    """A copy of the network for each object, whose main head learns to see only that object."""

    def __init__(self, network: SegmentationNetwork, objects: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(trainable_copy(network) for _ in range(objects))

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(K, H, W)`` of the centre frame of a clip ``(1, T, 3, H, W)``."""
        maps = []
        for network in self.networks:
            output = network(clip)
            logits = output.semantic if output.foreground is None else output.foreground
            centre = logits[clip.shape[1] // 2]
            maps.append(centre[1:].logsumexp(0) - centre[0])
        return torch.stack(maps)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Encoders, and all else."""
        encoders: list[nn.Parameter] = []
        heads: list[nn.Parameter] = []
        for network in self.networks:
            encoder, head = network.parameter_groups()  # type: ignore[operator]
            encoders += encoder
            heads += head
        return encoders, heads


Classifiers = LinearClassifiers | ForegroundHeads


def trainable_copy(network: SegmentationNetwork) -> SegmentationNetwork:
    """A copy that learns, with batch normalisation as it is."""
    copied = copy.deepcopy(network).requires_grad_(True).eval()
    freeze_batch_norm(copied)
    return copied


@dataclass
class TunedVideo:
    """One video: what was trained on its first frame, its last frames, and sizes."""

    classifiers: Classifiers
    clip: SlidingClip
    sizes: Geometry


class FineTuneProtocol(Prompted):
    """Trains on the first frame, then segments each frame on its own."""

    def __init__(self, frames: FrameNetwork, settings: FineTuneSettings, seed: int) -> None:
        self.frames = frames
        self.settings = settings
        self.stride = frames.stride(settings.tap) if settings.classifier == "linear" else 1
        self.seed = seed

    def begin(self, frame: Frame, mask: Mask) -> TunedVideo:
        """Train on the first frame."""
        sizes = self.frames.geometry(mask.shape)
        image = self.frames.prepare(frame.image)
        ids = object_ids(mask)
        labels = labels_from_mask(mask, ids, sizes.native, self.frames.device)[1:]
        # By area, so that an object of any size keeps its share of the loss.
        share = F.interpolate(labels[None], size=sizes.working, mode="area")[0]
        classifiers = self._classifiers(len(ids)).to(self.frames.device)
        with torch.enable_grad():
            self._train(classifiers, image, framed(share, sizes))
        classifiers.requires_grad_(False)
        clip = self.frames.clip()
        clip.push(image)
        return TunedVideo(classifiers, clip, sizes)

    @torch.inference_mode()
    def step(self, state: TunedVideo, frame: Frame) -> tuple[TunedVideo, Tensor]:
        """Segment the next frame; background is one minus the likeliest object."""
        logits = state.classifiers(state.clip.push(self.frames.prepare(frame.image)))
        height, width = state.sizes.working
        probabilities = logits[:, :height, :width].sigmoid()
        return state, object_scores(to_native(probabilities, state.sizes))

    def _classifiers(self, objects: int) -> Classifiers:
        network = self.frames.network
        if self.settings.classifier == "linear":
            return LinearClassifiers(network, self.settings.tap, objects)
        return ForegroundHeads(network, objects)

    def _train(self, classifiers: Classifiers, image: Tensor, targets: Tensor) -> None:
        """Minimise over augmented views; ``targets`` ``(K + 1, H, W)`` as :func:`framed` says."""
        settings = self.settings
        encoder, heads = classifiers.parameter_groups()
        optimiser = torch.optim.Adam(
            [
                {"params": encoder, "lr": settings.encoder_learning_rate},
                {"params": heads, "lr": settings.head_learning_rate},
            ]
        )
        views = augmented(torch.cat([image, targets]), settings, self.seed)
        for _, view in zip(range(settings.steps), views, strict=False):
            clip = view[None, None, :3].expand(-1, self.frames.clip_frames, -1, -1, -1)
            loss = balanced_cross_entropy(classifiers(clip), view[3:-1], view[-1])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()

    def record(self) -> ProtocolRecord:
        """Classifier, resolution, and how long it is trained."""
        settings = self.settings
        extra = {"classifier": settings.classifier.replace("_", " ")}
        if settings.classifier == "linear":
            extra["tap"] = settings.tap
        return ProtocolRecord(
            resolution=self.frames.resolution,
            stride=self.stride,
            memory="first (trained on)",
            label_resize="area / bilinear",
            extra=extra
            | {
                "steps": str(settings.steps),
                "learning rates": (
                    f"{settings.head_learning_rate:g}, encoder {settings.encoder_learning_rate:g}"
                ),
                "batch norm while fine-tuning": "frozen",
            },
        )


def framed(share: Tensor, sizes: Geometry) -> Tensor:
    """Targets ``(K, H, W)`` at the padded size, with one more map that is 1 on the frame."""
    height, width = sizes.padded
    margin = (0, width - share.shape[2], 0, height - share.shape[1])
    return F.pad(torch.cat([share, torch.ones_like(share[:1])]), margin)


def augmented(maps: Tensor, settings: FineTuneSettings, seed: int) -> Iterator[Tensor]:
    """Randomly flipped, rotated and scaled views of maps ``(C, H, W)``, without end.

    What comes from outside is 0. The first view is the maps themselves.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = maps.shape[1:]
    yield maps
    while True:
        draw = torch.rand(3, generator=generator).tolist()
        angle = math.radians(settings.rotation) * (2 * draw[0] - 1)
        low, high = settings.scale
        scale = low + (high - low) * draw[1]
        mirror = -1.0 if draw[2] < settings.flip else 1.0
        cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
        # From output to input, in coordinates from -1 to 1 along both sides.
        matrix = torch.tensor(
            [
                [mirror * cosine, -mirror * sine * height / width, 0.0],
                [sine * width / height, cosine, 0.0],
            ],
            device=maps.device,
        )
        grid = F.affine_grid(matrix[None], [1, *maps.shape], align_corners=False)
        yield F.grid_sample(maps[None], grid, align_corners=False)[0]


def balanced_cross_entropy(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy in which an object and all else weigh the same, whatever their areas.

    Args:
        logits: float ``(K, H, W)``.
        targets: float ``(K, H, W)``, shares in [0, 1].
        weight: float ``(H, W)``; 0 where there is no frame.

    Returns:
        Mean over objects, scalar.
    """
    inside, outside = targets * weight, (1 - targets) * weight
    positive = (inside * F.softplus(-logits)).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1e-6)
    negative = (outside * F.softplus(logits)).sum((1, 2)) / outside.sum((1, 2)).clamp(min=1e-6)
    return (positive + negative).mean() / 2
