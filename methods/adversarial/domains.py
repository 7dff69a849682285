"""Which data a recipe needs, opened, and what labels it consumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import ConcatDataset

from bench.dataset import Dataset, ImageDataset, VideoDataset
from bench.errors import ConfigError
from bench.method import ImageLabels, LabelRegime
from bench.training import TrainingRequest, read_header, regime_from
from bench.video import Video
from methods.adversarial.material import Images, Material, Memory, SharpestFrames, Stills, Videos
from methods.adversarial.pseudo_masks import DETECTOR, PseudoMasked
from methods.adversarial.settings import AdaptationSettings, NetworkSettings
from methods.clips import FRAME_RATE

SALIENCY = ("ecssd", "msra10k")
"""Datasets whose labels are one salient object per image."""


@dataclass(frozen=True)
class Domains:
    """A recipe's data.

    Attributes:
        images: of the source domain.
        held_out: images that nothing is trained on.
        targets: of the target domain.
        counts: of both per step; 0 where a domain is not needed.
        videos: consumed.
        labelled: numbers of the videos whose masks may be read for training.
        second: images of the target domain, where these are images.
    """

    images: Stills
    held_out: Stills
    targets: Material
    counts: tuple[int, int]
    videos: Sequence[Video]
    labelled: Sequence[int]
    second: int


def open_domains(
    network: NetworkSettings, settings: AdaptationSettings, data: Sequence[Dataset]
) -> Domains:
    """Sort datasets into what a recipe needs.

    Raises:
        ConfigError: a kind of data is missing, or there is too little.
    """
    domains = settings.domains
    image_sets = [dataset for dataset in data if isinstance(dataset, ImageDataset)]
    every = [v for dataset in data if isinstance(dataset, VideoDataset) for v in dataset]
    videos = [every[number] for number in used_videos(len(every), settings)]
    second = image_sets.pop() if domains.pairing == "second_images" and image_sets else None
    if not image_sets:
        raise ConfigError(
            "--data",
            "too few datasets of images",
            "two with domains.pairing=second_images" if second else "one, to learn from",
            "Name one, for instance --data ecssd,davis16-train.",
        )
    memory = Memory(settings.short_side, settings.memory << 20)
    frames = domains.clip_frames
    over_time = network.time != "none" or settings.in_pairs
    shown = frames if over_time and domains.images_as != "single" else 1
    pictures: Images = ConcatDataset(image_sets)  # type: ignore[arg-type]
    if domains.image_masks == "saliency":
        pictures = PseudoMasked(pictures, settings.short_side)
    train, held_out = split(len(pictures), settings)
    counts = needed(settings)
    labelled = labelled_videos(len(every), settings) if counts[1] else []
    clips = Videos(videos, labelled, domains, memory, truth=settings.clusters.how == "truth")
    targets: Material = clips
    stills = counts[1] * frames // shown  # as many frames as clips would have
    if second is not None:
        second_memory = Memory(settings.short_side, settings.memory << 20)
        targets = Stills(second, range(len(second)), domains, shown, second_memory, False)
        counts = counts[0], stills
    elif counts[1] and not videos:
        raise ConfigError(
            "--data",
            "no videos",
            "a dataset of videos to adapt to",
            "Name one, for instance --data ecssd,davis16-train.",
        )
    elif domains.pairing == "sharpest":
        targets = SharpestFrames(clips, shown)
        counts = counts[0], stills
    return Domains(
        images=Stills(pictures, train, domains, shown, memory, domains.use_image_labels),
        held_out=Stills(pictures, held_out, domains, 1, Memory(settings.short_side, 0)),
        targets=targets,
        counts=counts,
        videos=videos if second is None and (counts[1] or reestimated(settings)) else [],
        labelled=labelled,
        second=len(second) if second is not None and counts[1] else 0,
    )


def needed(settings: AdaptationSettings) -> tuple[int, int]:
    """Images and clips per step; 0 of what would be looked at without any use."""
    domains = settings.domains
    aligned = bool(settings.alignments)
    images = settings.images if domains.use_image_labels or aligned else 0
    adapts = aligned or settings.entropy_weight > 0 or settings.pseudo_label_weight > 0
    shared_statistics = settings.batch_norm.mode in ("joint", "per_domain")
    clips = settings.clips if adapts or shared_statistics or domains.labelled_videos > 0 else 0
    if domains.pairing == "image_image":
        clips = 0
    return images, clips


def reestimated(settings: AdaptationSettings) -> bool:
    """Whether statistics of batch normalisation are taken anew from videos after training."""
    return settings.batch_norm.evaluation == "reestimated"


def statistics_at_test(settings: AdaptationSettings) -> str:
    """Whose statistics of batch normalisation a recipe's weights have; for the record.

    Returns:
        ``"image"``, ``"video"``, ``"both"`` (of joint batches), ``"moving_average"`` (of both,
        followed one after the other), or ``"reestimated"``. "Video" is the target domain, whatever
        it is. Where some are frozen it is ``"initial where pretrained, ... elsewhere"``.
    """
    images, clips = needed(settings)
    mode, evaluation = settings.batch_norm.mode, settings.batch_norm.evaluation
    followed: str = evaluation
    if evaluation == "reestimated" or mode == "per_domain":
        return followed
    if not (images and clips):
        followed = "video" if clips else "image"
    elif mode == "joint":
        followed = "both"
    return f"initial where pretrained, {followed} elsewhere" if mode == "frozen" else followed


def split(count: int, settings: AdaptationSettings) -> tuple[list[int], list[int]]:
    """Numbers of the images to train on and of those held out.

    Raises:
        ConfigError: nothing would remain to train on.
    """
    if settings.held_out >= count:
        raise ConfigError(
            "training.held_out",
            f"{settings.held_out} of {count} images",
            f"1 to {count - 1}",
            "Hold out fewer images, or name a larger dataset.",
        )
    order = np.random.default_rng(settings.split_seed).permutation(count).tolist()
    return order[settings.held_out :], order[: settings.held_out]


def used_videos(count: int, settings: AdaptationSettings) -> list[int]:
    """Numbers of the videos that are looked at, of all there are; at least one."""
    return sorted(_first(settings.domains.used_videos, count, settings.split_seed))


def labelled_videos(count: int, settings: AdaptationSettings) -> list[int]:
    """Which of the videos that are used have masks that may be trained on; at least one if any.

    Args:
        count: of all videos, used or not; the share is one of these.
        settings: of the training.

    Returns:
        Their numbers among the videos that are used.
    """
    labelled = set(_first(settings.domains.labelled_videos, count, settings.split_seed))
    used = used_videos(count, settings)
    return [place for place, number in enumerate(used) if number in labelled]


def _first(share: float, count: int, seed: int) -> list[int]:
    """Numbers of a share of things; a larger share begins with the smaller one's numbers."""
    order: list[int] = np.random.default_rng(seed).permutation(count).tolist()
    # 0.07 * 100 is a little more than 7.
    return order[: math.ceil(share * count - 1e-9)]


def regime(
    network: NetworkSettings,
    settings: AdaptationSettings,
    domains: Domains,
    data: Sequence[Dataset],
    request: TrainingRequest,
) -> LabelRegime:
    """What labels and data the recipe consumes."""
    readable = domains.labelled
    if settings.clusters.how == "truth" and settings.clustered:
        readable = range(len(domains.videos))
    masks = sum(len(domains.videos[number].annotated) for number in readable)
    frames = sum(len(video) for video in domains.videos)
    notes = [" and ".join(request.data)]
    pseudo = settings.domains.image_masks == "saliency"
    if pseudo:
        notes.append(f"masks of images, held-out ones too, by the saliency detector {DETECTOR}")
    if domains.second:
        notes.append(f"{domains.second:,} more images without labels")
    if request.start is not None:
        before = regime_from(read_header(request.start)) if _is_ours(request) else None
        told = "other weights" if before is None else f"weights from {before.summary}"
        notes.append(f"started from {told}")
    images = len(domains.images) if domains.counts[0] else 0
    labelled = bool(images) and settings.domains.use_image_labels and not pseudo
    return LabelRegime(
        images=images,
        image_labels=_kind(data) if labelled else "none",
        videos=len(domains.videos),
        video_hours=round(frames / FRAME_RATE / 3600, 4),
        video_labels="mask" if masks else "none",
        video_masks=masks,
        pretraining=("ImageNet-1k classes",) if network.initial == "imagenet" else (),
        note="; ".join(notes),
    )


def _is_ours(request: TrainingRequest) -> bool:
    return request.start is not None and request.start.suffix == ".safetensors"


def _kind(data: Sequence[Dataset]) -> ImageLabels:
    """Kind of the images' labels; of several kinds the more expensive one."""
    names = [dataset.name for dataset in data if isinstance(dataset, ImageDataset)]
    return "saliency" if all(name in SALIENCY for name in names) else "mask"
