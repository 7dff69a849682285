"""What SHLS is trained on and how: data, pseudo-sequences, superpixels, losses (section 4)."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from bench.dataset import Dataset, ImageDataset
from bench.errors import ConfigError
from bench.method import LabelRegime, MethodSettings
from bench.training import ENDLESS, TrainingRequest, TrainingTask, load_strictly, read_weights
from bench.video import LabelledImage
from methods.shls.checkpoint import from_official, is_official
from methods.shls.model import Part, Sample, SHLSModel, collate
from methods.shls.network import NetworkSettings, SHLSNetwork
from methods.shls.offline import (
    PseudoSequences,
    SaliencySource,
    SequenceSettings,
    Sources,
    labels_used,
)
from methods.shls.offline.saliency import SaliencyMaps
from methods.shls.segmentation import SegmentationSettings
from methods.shls.superpixels import SuperpixelSettings, split_by_mask

CACHE = Path("checkpoints", "cache", "saliency")
"""Detected saliency, by image content, below the current folder."""


class PseudoSequenceTraining(MethodSettings):
    """How superfeatures are learned from pseudo-sequences.

    Attributes:
        images: how many images are trained on, drawn by ``split_seed``; None for all but those
            held out.
        held_out: images that validation sequences are made of; never trained on.
        validation_sequences: how many of them.
        split_seed: which images are held out, and which are drawn.
        saliency: where pseudo-masks come from.
        saliency_folder: of precomputed maps.
        sequences: how pseudo-sequences look.
        superpixels: of training frames.
        across_frames: whether the metric loss compares superpixels of different frames.
        batch_size: sequences per step and process.
        learning_rate: peak, of AdamW.
        weight_decay: of AdamW.
        clip_gradient: largest norm of the gradient; None for no limit.
        validate_every: steps between validations.
    """

    images: int | None = Field(default=None, ge=1)
    held_out: int = Field(default=50, ge=1)
    validation_sequences: int = Field(default=40, ge=1)
    split_seed: int = 0
    saliency: SaliencySource = "combined"
    saliency_folder: Path | None = None
    sequences: SequenceSettings = SequenceSettings()
    superpixels: SuperpixelSettings = SuperpixelSettings()
    across_frames: bool = True
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip_gradient: float | None = Field(default=5.0, gt=0)
    validate_every: int = Field(default=200, ge=1)


class SHLSTrainingSettings(PseudoSequenceTraining):
    """How SHLS is trained. The defaults are ours; ``configs/methods/shls.yaml`` has the authors'.

    Attributes:
        window: side at which regions are decoded in training, see
            :attr:`methods.shls.segmentation.SegmentationSettings.window`; one size for all
            objects, so that they form a batch.
        metric_weight: of NT-Xent; 0 trains without.
        segmentation_weight: of the cross-entropy; 0 trains the superfeatures alone.
        teacher_forcing: share of regions taken from the true masks.
        freeze: parts that keep their weights, for training in stages.
    """

    window: int | None = Field(default=128, ge=16, multiple_of=4)
    metric_weight: float = Field(default=1.0, ge=0)
    segmentation_weight: float = Field(default=1.0, ge=0)
    teacher_forcing: float = Field(default=0.5, ge=0, le=1)
    freeze: tuple[Part, ...] = ()


class Samples:
    """Pseudo-sequences with their superpixels; sample ``i`` depends on the seed and ``i`` alone.

    Args:
        sequences: where they come from.
        superpixels: how frames are cut up.
        length: number of samples.
    """

    def __init__(
        self, sequences: PseudoSequences, superpixels: SuperpixelSettings, length: int = ENDLESS
    ) -> None:
        self.sequences = sequences
        self.superpixels = superpixels
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Make one sample."""
        made = self.sequences[index]
        maps = [self.superpixels.compute(frame) for frame in made.frames]
        maps[0], _ = split_by_mask(maps[0], made.labels[0])
        return Sample(made.frames, made.labels, np.stack(maps), made.objects)


def split_images(count: int, settings: PseudoSequenceTraining) -> tuple[list[int], list[int]]:
    """Numbers of the images to train on and of those held out.

    A smaller ``images`` draws a subset of the larger one's, so that ablations are nested.

    Raises:
        ConfigError: more images asked for than there are.
    """
    order = np.random.default_rng(settings.split_seed).permutation(count).tolist()
    held_out, rest = order[: settings.held_out], order[settings.held_out :]
    wanted = len(rest) if settings.images is None else settings.images
    if not 0 < wanted <= len(rest):
        raise ConfigError(
            "training.images",
            f"{wanted} with {count} images, {settings.held_out} of them held out",
            f"1 to {len(rest)}",
            "Name a larger dataset, or set training.images and training.held_out.",
        )
    return rest[:wanted], held_out


@dataclass(frozen=True)
class Material:
    """What a training sees.

    Attributes:
        samples: endless, for training.
        held_out: for validation, made of other images.
        regime: the labels that this consumes.
    """

    samples: Samples
    held_out: Samples
    regime: LabelRegime


def material(
    settings: PseudoSequenceTraining, data: Rows[Dataset], request: TrainingRequest
) -> Material:
    """Pseudo-sequences made of datasets of still images, which are put together.

    Raises:
        ConfigError: videos instead of images, too few images.
        DataError: broken images, missing maps.
    """
    images = Images(data)
    train, held_out = split_images(len(images), settings)
    maps = SaliencyMaps(settings.saliency, settings.saliency_folder, CACHE)
    side = 2 * settings.sequences.size

    def samples(numbers: list[int], seed: int, length: int) -> Samples:
        sources = Sources(images, maps, side, numbers)
        return Samples(
            PseudoSequences(sources, settings.sequences, seed), settings.superpixels, length
        )

    return Material(
        samples(train, request.seed, ENDLESS),
        samples(held_out, settings.split_seed, settings.validation_sequences),
        LabelRegime(
            images=len(train),
            image_labels=labels_used(settings.saliency),
            note=f"{' and '.join(request.data)}, masks: {settings.saliency.replace('_', ' ')}",
        ),
    )


def training_task(
    network: SHLSNetwork,
    segmentation: SegmentationSettings,
    normalisation: tuple[Rows[float], Rows[float]],
    settings: SHLSTrainingSettings,
    data: Rows[Dataset],
    request: TrainingRequest,
) -> TrainingTask:
    """Everything that is needed to train networks on datasets of still images.

    Args:
        network: gets the start weights, if the request names any.
        segmentation: how networks and memory are put together.
        normalisation: mean and standard deviation of RGB in [0, 1].
        settings: of the training.
        data: image datasets; their images are put together.
        request: seed, device, folder.

    Raises:
        ConfigError: videos instead of images, too few images.
        DataError: broken images, missing maps.
    """
    if request.start is not None:
        tensors = read_weights(request.start)
        if is_official(tensors):
            tensors = from_official(tensors, request.start)
        load_strictly(network, tensors, request.start)
    seen = material(settings, data, request)
    model = SHLSModel(
        network,
        segmentation.model_copy(update={"window": settings.window}),
        *normalisation,
        metric_weight=settings.metric_weight,
        segmentation_weight=settings.segmentation_weight,
        across_frames=settings.across_frames,
        teacher_forcing=settings.teacher_forcing,
        frozen=settings.freeze,
        seed=request.seed,
    )
    return TrainingTask(
        model=model,
        samples=seen.samples,
        held_out=seen.held_out,
        collate=collate,
        batch_size=settings.batch_size,
        parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        clip_gradient=settings.clip_gradient,
        validate_every=settings.validate_every,
        score="J",
        weights=network.state_dict,
        settings={
            "network": network.settings.model_dump(mode="json"),
            "training": settings.model_dump(mode="json"),
        },
        regime=seen.regime,
    )


class Images:
    """Several image datasets as one.

    Raises:
        ConfigError: a dataset of videos, or none at all.
    """

    def __init__(self, datasets: Rows[Dataset]) -> None:
        self.parts: list[ImageDataset] = []
        for dataset in datasets:
            if not isinstance(dataset, ImageDataset):
                raise ConfigError(
                    f"--data {dataset.name}",
                    "videos",
                    "datasets of still images",
                    "SHLS is trained on images, for instance ecssd or msra10k.",
                )
            self.parts.append(dataset)
        if not self.parts:
            raise ConfigError("--data", "nothing", "a dataset of still images", "Name one.")

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> LabelledImage:
        """One image; see :class:`bench.dataset.ImageDataset`."""
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


def build_network(settings: NetworkSettings, seed: int) -> SHLSNetwork:
    """Networks with random weights drawn from a seed."""
    torch.manual_seed(seed)
    return SHLSNetwork(settings)
