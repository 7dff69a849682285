"""Training the systems: each one's objective on clips of unlabelled video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, create_model
from torch import nn

from bench.dataset import Dataset, ImageDataset, VideoDataset
from bench.errors import ConfigError
from bench.method import LabelRegime, MethodSettings
from bench.training import TrainingRequest, TrainingTask, read_header, regime_from
from methods.clips import FRAME_RATE
from methods.correspondence.checkpoint import load_encoder
from methods.correspondence.encoder import Encoder, EncoderSettings
from methods.correspondence.preactivation import PreactivationEncoder
from methods.correspondence.pretext import autoencoder as colour_autoencoder
from methods.correspondence.pretext import (
    corrflow,
    crw,
    cycletime,
    dul,
    mamp,
    mast,
    mug,
    rpmnet,
    stt,
    twiaa,
    uvc,
    vidcolor,
)
from methods.correspondence.pretext.clips import Clips, Footage, collate, split_videos
from methods.correspondence.pretext.stills import CameraSettings, StillFootage, wander

AnyEncoder = Encoder | PreactivationEncoder


class ClipTraining(MethodSettings):
    """What all trainings on clips can be told; each system adds its ``objective``.

    Attributes:
        held_out: videos that validation clips come from, and images, each one counting as a
            video; never trained on.
        split_seed: which videos these are.
        validation_clips: how many.
        validate_every: steps between validations.
        clip_gradient: largest norm of the gradient; None for no limit.
        short_side: frames are scaled to this short side as soon as they are decoded, in pixels;
            None keeps their size.
        memory: megabytes of decoded frames that each process keeps, and as many of still images.
        camera: how a camera wanders over still images, where there are any in the place of videos.
    """

    held_out: int = Field(default=3, ge=1)
    split_seed: int = 0
    validation_clips: int = Field(default=48, ge=1)
    validate_every: int = Field(default=200, ge=1)
    clip_gradient: float | None = Field(default=10.0, gt=0)
    short_side: int | None = Field(default=None, ge=16)
    memory: int = Field(default=1024, ge=0)
    camera: CameraSettings = CameraSettings()


@dataclass(frozen=True)
class Pretext:
    """A system's objective.

    Attributes:
        settings: of the objective.
        augment: makes a sample of a clip.
        build: the model, from encoder and settings.
        layout: the encoder's layout in training, where it differs from that at test.
    """

    settings: type[MethodSettings]
    augment: Callable[..., Any]
    build: Callable[..., nn.Module]
    layout: Callable[[EncoderSettings], EncoderSettings] = lambda settings: settings


def _with_fourth_stage(settings: EncoderSettings) -> EncoderSettings:
    return settings.model_copy(update={"last_stage": 4})


def _stt_layout(settings: EncoderSettings) -> EncoderSettings:
    return stt.student_layout(settings)


PRETEXTS: Mapping[str, Pretext] = {
    "vidcolor": Pretext(vidcolor.VidColorSettings, vidcolor.augment, vidcolor.VidColorObjective),
    "corrflow": Pretext(corrflow.CorrFlowSettings, corrflow.augment, corrflow.CorrFlowObjective),
    "cycletime": Pretext(
        cycletime.CycleTimeSettings, cycletime.augment, cycletime.CycleTimeObjective
    ),
    "uvc": Pretext(uvc.UVCSettings, uvc.augment, uvc.UVCObjective),
    "rpmnet": Pretext(rpmnet.RPMNetSettings, rpmnet.augment, rpmnet.RPMNetObjective),
    "mast": Pretext(mast.MASTSettings, mast.augment, mast.MASTObjective),
    "mug": Pretext(mug.MUGSettings, mug.augment, mug.MUGObjective, _with_fourth_stage),
    "crw": Pretext(crw.CRWSettings, crw.augment, crw.CRWObjective),
    "dul": Pretext(dul.DULSettings, dul.augment, dul.DULObjective),
    "twiaa": Pretext(twiaa.TWIAASettings, twiaa.augment, twiaa.TWIAAObjective),
    "stt": Pretext(stt.STTSettings, stt.augment, stt.STTObjective, _stt_layout),
    "mamp": Pretext(mamp.MAMPSettings, mamp.augment, mamp.MAMPObjective),
    "uvc_autoencoder": Pretext(
        colour_autoencoder.AutoencoderSettings,
        colour_autoencoder.augment,
        lambda encoder, settings: colour_autoencoder.AutoencoderObjective(settings),
    ),
}
"""Objectives by system. UVC's colour auto-encoder is trained before UVC."""


def training_settings(system: str) -> type[ClipTraining]:
    """The model of a system's training settings: the common ones and its ``objective``."""
    settings = PRETEXTS[system].settings
    return create_model(
        f"{settings.__name__.removesuffix('Settings')}Training",
        __base__=ClipTraining,
        objective=(settings, settings()),
    )


class UVCTraining(ClipTraining):
    """How UVC is trained.

    Attributes:
        objective: of the encoder.
        part: what is trained. UVC's encoder needs a colour auto-encoder that is trained before and
            named by ``objective.autoencoder``.
        autoencoder: of the auto-encoder.
    """

    objective: uvc.UVCSettings = uvc.UVCSettings()
    part: Literal["encoder", "autoencoder"] = "encoder"
    autoencoder: colour_autoencoder.AutoencoderSettings = colour_autoencoder.AutoencoderSettings()


def all_footage(datasets: Sequence[Dataset], training: ClipTraining) -> list[Footage]:
    """Videos of several datasets, and images as videos; no mask is looked at.

    Raises:
        ConfigError: none at all.
    """
    footage: list[Footage] = []
    for dataset in datasets:
        if isinstance(dataset, VideoDataset):
            footage += list(dataset)
        elif isinstance(dataset, ImageDataset):
            footage += wander(
                dataset,
                training.camera,
                training.split_seed,
                training.short_side,
                training.memory << 20,
            )
    if not footage:
        raise ConfigError("--data", "nothing", "a dataset of videos or of images", "Name one.")
    return footage


def consumed(train: Sequence[Footage], note: str, pretraining: tuple[str, ...]) -> LabelRegime:
    """The regime of a training on videos and images without labels."""
    videos = [one for one in train if not isinstance(one, StillFootage)]
    frames = sum(len(video) for video in videos)
    return LabelRegime(
        images=len(train) - len(videos),
        videos=len(videos),
        video_hours=round(frames / FRAME_RATE / 3600, 4),
        pretraining=pretraining,
        note=note,
    )


def pretraining(start: Path | None, teacher: Path | None) -> tuple[str, ...]:
    """What a training builds on: weights that it starts from, and those of a teacher.

    Args:
        start: a weights file, or None.
        teacher: the same.

    Returns:
        A phrase for each, from what is recorded with the weights.
    """
    return tuple(
        f"{role}: {_consumed(path)}"
        for role, path in (("start", start), ("teacher", teacher))
        if path is not None
    )


def _consumed(path: Path) -> str:
    regime = regime_from(read_header(path)) if path.suffix == ".safetensors" else None
    return f"{path.name}, of unknown origin" if regime is None else regime.summary


def training_task(
    system: str,
    build: Callable[[Callable[[EncoderSettings], EncoderSettings]], AnyEncoder],
    recorded: Mapping[str, Any],
    training: ClipTraining,
    data: Sequence[Dataset],
    request: TrainingRequest,
) -> TrainingTask:
    """Everything that is needed to train a system.

    Args:
        system: a name in :data:`PRETEXTS`.
        build: makes an encoder with random weights from a change to its layout.
        recorded: settings that weights must fit, recorded with them.
        training: settings of the training.
        data: of videos and of images, which are put together.
        request: seed, device, folder.

    Raises:
        ConfigError: too few videos.
        DataError: broken videos.
    """
    objective: Any = training.objective  # type: ignore[attr-defined]
    if isinstance(training, UVCTraining) and training.part == "autoencoder":
        system, objective = "uvc_autoencoder", training.autoencoder
        recorded = {"encoder": system}  # so that nobody takes them for an encoder's weights
    pretext = PRETEXTS[system]
    encoder = build(pretext.layout)
    if request.start is not None:
        load_encoder(encoder, request.start, system)
    train, held_out = split_videos(
        all_footage(data, training), training.held_out, training.split_seed
    )
    torch.manual_seed(request.seed)
    model = pretext.build(encoder, objective)
    memory = training.memory << 20

    def clips(videos: list[Footage], seed: int, memory: int, **options: Any) -> Clips[Any]:
        return Clips(
            videos,
            pretext.augment,
            objective,
            objective.draw_frames,
            seed,
            short_side=training.short_side,
            memory=memory,
            **options,
        )

    groups = getattr(model, "parameter_groups", None)
    return TrainingTask(
        model=model,
        samples=clips(train, request.seed, memory),
        held_out=clips(held_out, training.split_seed, 0, length=training.validation_clips),
        collate=collate,
        batch_size=objective.batch_size,
        parameters=groups() if groups else [p for p in model.parameters() if p.requires_grad],
        learning_rate=objective.learning_rate,
        weight_decay=objective.weight_decay,
        betas=getattr(objective, "betas", (0.9, 0.999)),
        clip_gradient=training.clip_gradient,
        validate_every=training.validate_every,
        score="pretext_score",
        weights=model.exported,  # type: ignore[arg-type]
        settings={**recorded, "training": training.model_dump(mode="json")},
        regime=consumed(
            train,
            f"{' and '.join(request.data)}, without labels",
            pretraining(request.start, getattr(objective, "teacher", None)),
        ),
    )
