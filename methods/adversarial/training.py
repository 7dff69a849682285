"""Training for ``adv``: a recipe, checked, as a task for the harness, and the weights it leaves."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from bench.dataset import Dataset
from bench.errors import ConfigError
from bench.training import TrainingRequest, TrainingTask, load_strictly, read_weights
from methods.adversarial.adaptation import Adaptation
from methods.adversarial.data import HeldOut, Steps, only
from methods.adversarial.domains import open_domains, reestimated, regime
from methods.adversarial.monitoring import Monitoring
from methods.adversarial.networks import build_network, merge_domains, reestimate
from methods.adversarial.settings import AdaptationSettings, NetworkSettings

REESTIMATED_BATCHES = 32
"""Steps' worth of clips from which statistics of batch normalisation are computed anew."""

DISCRIMINATOR_BETAS = (0.9, 0.99)
"""Of the discriminators' Adam (Tsai et al., AdaptSegNet, CVPR 2018)."""

HALVED = ("shuffled", "image_image", "video_video")
"""Pairings that need two of a kind in every step."""


def training_task(
    network_settings: NetworkSettings,
    settings: AdaptationSettings,
    data: Sequence[Dataset],
    request: TrainingRequest,
) -> TrainingTask:
    """Everything that is needed to train a network by a recipe.

    Args:
        network_settings: of the network.
        settings: the recipe.
        data: labelled images and videos; those of a kind are put together.
        request: seed, device, folder, weights to start from.

    Raises:
        ConfigError: a recipe that does not fit the data, the network, or itself.
        DataError: broken images or videos.
        MethodError: weights to start from that do not fit.
    """
    check(network_settings, settings, request)
    network = build_network(network_settings, request.seed)
    if request.start is not None:
        load_strictly(network, read_weights(request.start), request.start)
    domains = open_domains(network_settings, settings, data)
    monitoring = Monitoring(request.out if request.first_process else None, request.resume)
    model = Adaptation(network, settings, request.seed, monitoring)
    steps = Steps(domains.images, domains.targets, settings, domains.counts, request.seed)
    encoder, heads = network.parameter_groups()
    discriminators = list(model.taps.parameters())

    def weights() -> dict[str, Tensor]:
        return exported(model, steps)

    return TrainingTask(
        model=model,
        samples=steps,
        held_out=HeldOut(domains.held_out, settings.augmentation.crop),
        collate=only,
        batch_size=1,
        parameters=[
            {"params": encoder},
            {"params": heads, "lr": settings.learning_rate * settings.head_factor},
            {
                "params": discriminators,
                "lr": settings.game.discriminator_learning_rate,
                "betas": DISCRIMINATOR_BETAS,
                "weight_decay": 0.0,
            },
        ],
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        clip_gradient=settings.clip_gradient,
        clip_parameters=encoder + heads,
        validate_every=settings.validate_every,
        score="image_iou",
        # Picking a checkpoint by any score would have to look at labels of the target domain.
        keep="last",
        weights=weights,
        settings={
            "network": network_settings.model_dump(mode="json"),
            "training": settings.model_dump(mode="json"),
        },
        regime=regime(network_settings, settings, domains, data, request),
        progress=model.progress,
        notes=model.notes,
    )


def check(network: NetworkSettings, settings: AdaptationSettings, request: TrainingRequest) -> None:
    """Refuse recipes that cannot mean anything.

    Raises:
        ConfigError: says which setting.
    """
    domains = settings.domains
    clips = network.time != "none" and domains.clip_frames > 1
    if request.distributed and settings.alignments:
        raise ConfigError(
            "training.alignments",
            "adversarial losses in several processes",
            "one process",
            "Train without torchrun: clusters are made of one process's tokens.",
        )
    if not domains.use_image_labels and domains.labelled_videos == 0:
        raise ConfigError(
            "training.domains.labelled_videos",
            "0 without image labels",
            "labels of images or of videos",
            "Set it, or use_image_labels.",
        )
    if network.head != "foreground" and len(domains.categories) + 1 != network.classes:
        raise ConfigError(
            "training.domains.categories",
            f"{len(domains.categories)} names",
            f"{network.classes - 1}, one for each of network.classes but the background",
            "Name the classes, or set network.classes.",
        )
    still = clips and domains.images_as == "single"
    if still and settings.batch_norm.mode == "joint":
        raise ConfigError(
            "training.domains.images_as",
            "single frames beside clips in one batch",
            "camera_path or copies with batch_norm.mode=joint",
            "Change either.",
        )
    patch3d = any(one.discriminator.network == "patch3d" for one in settings.alignments)
    if patch3d and (not clips or still):
        raise ConfigError(
            "training.alignments",
            "a patch3d discriminator without clips of images",
            "network.time and clips of both domains",
            "Use another discriminator, or a network over clips.",
        )
    if domains.pairing in HALVED and min(settings.images, settings.clips) < 2:
        raise ConfigError(
            "training.images",
            f"{settings.images} images and {settings.clips} clips per step",
            f"at least 2 of each with domains.pairing={domains.pairing}",
            "Raise them.",
        )


def exported(model: Adaptation, steps: Steps) -> dict[str, Tensor]:
    """The network's weights with the statistics that are used at test."""
    network, settings = model.network, model.settings
    if settings.batch_norm.mode != "per_domain" and not reestimated(settings):
        return network.state_dict()
    network = copy.deepcopy(network)
    wanted: Literal["image", "video", "moving_average"] = "video"
    if settings.batch_norm.evaluation != "reestimated":
        wanted = settings.batch_norm.evaluation
    merge_domains(network, wanted)
    if reestimated(settings):
        device = next(network.parameters()).device
        reestimate(network, target_batches(model, steps, device))
    return network.state_dict()


def target_batches(model: Adaptation, steps: Steps, device: torch.device) -> Iterator[Tensor]:
    """Clips of the target domain as the network sees them, float ``(B, T, 3, H, W)``."""
    only_targets = Steps(
        steps.images,
        steps.targets,
        steps.settings,
        (0, steps.counts[1] or steps.settings.clips),
        steps.seed,
        REESTIMATED_BATCHES,
    )
    for number in range(REESTIMATED_BATCHES):
        yield model.normalise(only_targets[number].clips.frames.to(device))
