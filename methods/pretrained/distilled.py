"""ImageNet's classes on the encoder that all regimes share, by way of a teacher.

To train the small ResNet of the controlled comparison on ImageNet's classes takes ImageNet. What
those labels taught a larger network can be handed on without it: the small encoder learns, on
unlabelled images, to find the same parts of an image alike as the teacher does. Matching is what
propagation reads, so it is handed on which cells a cell resembles, and not the features themselves.

Source: Koohpayegani, Tejankar, Pirsiavash: CompRess: self-supervised learning by compressing
representations, NeurIPS 2020. There a student learns which of many anchor images the teacher finds
similar to an image; here the anchors of a cell are all other cells of the crop, as in propagation.
The teacher is :mod:`methods.pretrained.imagenet`. With a teacher of random weights the same
training is the control: what the distillation does without any label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.dataset import Dataset, ImageDataset, VideoDataset
from bench.errors import ConfigError
from bench.method import Context, LabelRegime, MethodCard, MethodSettings
from bench.registry import register_method
from bench.training import ENDLESS, TrainingRequest, TrainingTask
from bench.video import RGB
from methods.clips import IMAGENET_MEAN, IMAGENET_STD
from methods.correspondence.encoder import Encoder
from methods.correspondence.method import (
    Correspondence,
    CorrespondenceSettings,
    trainable_resnet,
)
from methods.correspondence.pretext.clips import (
    Clips,
    Footage,
    Sample,
    collate,
    resized_crop,
    split_videos,
    to_tensor,
)
from methods.correspondence.training import consumed
from methods.pretrained.imagenet import IMAGENET_IMAGES, ImageNet, ImageNetSettings

PREPARATION = "rgb_imagenet"
"""The colours that the encoder is trained on."""

NEVER = -1e4
"""A logit whose softmax is zero; minus infinity would make zero times infinity in the loss."""

NEIGHBOURS = 10
"""Of each cell, by which validation compares student and teacher: CRW's top k."""


class DistillationTraining(MethodSettings):
    """How the teacher's affinities are learned.

    Attributes:
        teacher: ``"imagenet"``, or ``"random"`` for the control without labels.
        temperature: divides cosine similarities; the default is that of CRW's propagation.
        size: side in pixels to which crops are resized.
        crop_scale: a crop's area as a share of the image's.
        crop_ratio: its width by height.
        flip: probability of mirroring.
        held_out: images that the validation crops come from, a video counting as one; never
            trained on.
        split_seed: which these are.
        validation_crops: how many.
        validate_every: steps between validations.
        batch_size: crops per step and process.
        learning_rate: of Adam.
        clip_gradient: largest norm of the gradient; None for no limit.
        short_side: images are scaled to this short side as soon as they are decoded, in pixels;
            None keeps their size.
        memory: megabytes of decoded images that each process keeps.
    """

    teacher: Literal["imagenet", "random"] = "imagenet"
    temperature: float = Field(default=0.05, gt=0)
    size: int = Field(default=192, ge=32, multiple_of=32)
    crop_scale: tuple[float, float] = (0.4, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(default=0.5, ge=0, le=1)
    held_out: int = Field(default=3, ge=1)
    split_seed: int = 0
    validation_crops: int = Field(default=48, ge=1)
    validate_every: int = Field(default=200, ge=1)
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    clip_gradient: float | None = Field(default=10.0, gt=0)
    short_side: int | None = Field(default=None, ge=16)
    memory: int = Field(default=1024, ge=0)

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """One frame, all being equally likely."""
        return (int(random.integers(length)),)


class StillImage:
    """An image as a video of one frame."""

    def __init__(self, images: ImageDataset, number: int) -> None:
        self.images = images
        self.number = number

    def __len__(self) -> int:
        return 1

    def load_frame(self, index: int) -> RGB:
        """The image, uint8 RGB ``(H, W, 3)``; its mask is not looked at."""
        return self.images[self.number].image


def all_images(datasets: Sequence[Dataset]) -> list[Footage]:
    """Images, and videos whose frames are images; no mask is looked at.

    Raises:
        ConfigError: none at all.
    """
    found: list[Footage] = []
    for dataset in datasets:
        if isinstance(dataset, VideoDataset):
            found += list(dataset)
        elif isinstance(dataset, ImageDataset):
            found += [StillImage(dataset, number) for number in range(len(dataset))]
    if not found:
        raise ConfigError("--data", "nothing", "a dataset of images or of videos", "Name one.")
    return found


def taught(train: Sequence[Footage], teacher: str, data: Sequence[str]) -> LabelRegime:
    """What a distillation consumed: what its teacher did, and images without labels."""
    stills = [one for one in train if isinstance(one, StillImage)]
    videos = consumed([one for one in train if not isinstance(one, StillImage)], "", ())
    named = f"{' and '.join(data)}, without labels"
    if teacher == "random":
        note = f"{named}; affinities of an encoder with random weights"
        return replace(videos, images=len(stills), note=note)
    seen = replace(videos, images=len(stills)).summary
    return replace(
        videos,
        images=IMAGENET_IMAGES,
        image_labels="class",
        note=f"ImageNet-1k, classes only, by way of a teacher; distilled on {seen}: {named}",
    )


def augment(
    frames: Sequence[RGB], random: np.random.Generator, settings: DistillationTraining
) -> Sample:
    """A crop of one image, uint8 ``(3, size, size)`` as ``image``."""
    (image,) = frames
    crop = resized_crop(image, random, settings.size, settings.crop_scale, settings.crop_ratio)
    if random.random() < settings.flip:
        crop = np.ascontiguousarray(crop[:, ::-1])
    return {"image": to_tensor([crop])[0]}


def affinity(features: Tensor) -> Tensor:
    """Cosine similarity of all pairs of cells: ``(B, C, h, w)`` to float32 ``(B, h w, h w)``."""
    # In bfloat16 similarities near 1 are .004 apart, which the temperature would make .08.
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float().flatten(2), dim=1)
        return unit.transpose(1, 2) @ unit


def neighbours(affinity: Tensor, temperature: float) -> Tensor:
    """How each cell's similarity is shared out among all others.

    Args:
        affinity: cosine similarities, ``(B, N, N)``.
        temperature: divides them.

    Returns:
        Logarithms of a softmax over the last axis, ``(B, N, N)``; no cell is its own neighbour.
    """
    itself = torch.eye(affinity.shape[-1], dtype=torch.bool, device=affinity.device)
    return (affinity / temperature).masked_fill(itself, NEVER).log_softmax(-1)


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's neighbours from the teacher's, by image.

    Args:
        student: cosine similarities, ``(B, N, N)``.
        teacher: the same; gets no gradient.
        temperature: divides both.

    Returns:
        ``(B,)``, mean over cells.
    """
    wanted = neighbours(teacher.detach(), temperature)
    found = neighbours(student, temperature)
    return (wanted.exp() * (wanted - found)).sum(-1).mean(-1)


def agreement(student: Tensor, teacher: Tensor, count: int) -> Tensor:
    """Share of the teacher's nearest neighbours that are among the student's, by image.

    Args:
        student: cosine similarities, ``(B, N, N)``.
        teacher: the same.
        count: neighbours of each cell that are looked at.

    Returns:
        ``(B,)``, mean over cells.
    """
    sets = []
    for affinity in (student, teacher):
        nearest = neighbours(affinity, 1.0).topk(count, -1).indices
        sets.append(torch.zeros_like(affinity, dtype=torch.bool).scatter_(-1, nearest, True))
    return (sets[0] & sets[1]).sum((1, 2)) / (count * student.shape[1])


class DistillationObjective(nn.Module):
    """The encoder, its teacher, and how their neighbours differ.

    Args:
        encoder: the student.
        teacher: frozen, and no part of the parameters.
        temperature: of both.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, teacher: ImageNet, temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self._teacher = teacher
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.from_numpy(values).view(1, 3, 1, 1), persistent=False)

    def affinities(self, batch: Sample) -> tuple[Tensor, Tensor]:
        """Student's and teacher's, ``(B, N, N)`` each, on the student's grid."""
        images = batch["image"].to(self.mean.device).float() / 255
        normalised = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features = self.encoder(normalised)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            seen = torch.stack([self._teacher.encode(image[None]) for image in images])
            if seen.shape[2:] != features.shape[2:]:
                seen = F.interpolate(seen, features.shape[2:], mode="bilinear")
        return affinity(features), affinity(seen)

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The loss, ``neighbour_loss``."""
        student, teacher = self.affinities(batch)
        return {"neighbour_loss": distillation(student, teacher, self.temperature).mean()}

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """:func:`agreement` for each image."""
        return [float(value) for value in agreement(*self.affinities(batch), NEIGHBOURS)]


@register_method("imagenet_distilled")
class DistilledImageNet(Correspondence):
    """What ImageNet's classes taught a larger network, on the small encoder of the other rows."""

    TrainingSettings = DistillationTraining
    packaged = Path(__file__).parent / "weights"
    card = MethodCard(
        name="imagenet_distilled",
        title="ImageNet features, distilled",
        description=(
            "The small encoder of the correspondence systems, which learned on unlabelled images "
            "to have the affinities of EfficientNet-Lite0 trained on ImageNet classes; labels are "
            "propagated along its features."
        ),
        regime=LabelRegime(
            images=IMAGENET_IMAGES,
            image_labels="class",
            note="ImageNet-1k, classes only, by way of a teacher; distilled on 900 images of ECSSD",
        ),
        paper=(
            "The distillation: Koohpayegani, Tejankar, Pirsiavash: CompRess: Self-Supervised "
            "Learning by Compressing Representations. NeurIPS 2020"
        ),
    )

    @classmethod
    def training_task(
        cls,
        settings: MethodSettings,
        training: MethodSettings,
        data: Sequence[Dataset],
        request: TrainingRequest,
    ) -> TrainingTask:
        """Encoder, teacher and crops of images.

        Raises:
            ConfigError: another encoder or preparation than can be trained, too few images.
            DataError: broken images.
        """
        assert isinstance(settings, CorrespondenceSettings)
        assert isinstance(training, DistillationTraining)
        encoder = trainable_resnet(cls.card.name, settings, PREPARATION, request)
        teacher = ImageNet(
            ImageNetSettings(initial=training.teacher), Context(request.device, request.seed)
        )
        train, held_out = split_videos(all_images(data), training.held_out, training.split_seed)
        memory = training.memory << 20
        torch.manual_seed(request.seed)
        model = DistillationObjective(encoder, teacher, training.temperature)

        def crops(
            images: list[Footage], seed: int, memory: int, length: int = ENDLESS
        ) -> Clips[DistillationTraining]:
            return Clips(
                images,
                augment,
                training,
                training.draw_frames,
                seed,
                length=length,
                shortest=1,
                short_side=training.short_side,
                memory=memory,
            )

        return TrainingTask(
            model=model,
            samples=crops(train, request.seed, memory),
            held_out=crops(held_out, training.split_seed, 0, training.validation_crops),
            collate=collate,
            batch_size=training.batch_size,
            parameters=list(model.parameters()),
            learning_rate=training.learning_rate,
            clip_gradient=training.clip_gradient,
            validate_every=training.validate_every,
            score="agreement",
            weights=encoder.state_dict,
            settings={
                "encoder": settings.encoder,
                "preparation": settings.preparation,
                "training": training.model_dump(mode="json"),
            },
            regime=taught(train, training.teacher, request.data),
        )
