"""Training for ``adv``: a recipe, checked, as a task for the harness, and the weights it leaves."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from bench.dataset import Dataset
from bench.training import TrainingRequest, TrainingTask, load_strictly, read_weights
from methods.adversarial.adaptation import Adaptation
from methods.adversarial.checks import check
from methods.adversarial.data import HeldOut, Steps, only
from methods.adversarial.domains import open_domains, reestimated, regime
from methods.adversarial.monitoring import Monitoring
from methods.adversarial.networks import build_network, merge_domains, reestimate
from methods.adversarial.settings import AdaptationSettings, NetworkSettings

REESTIMATED_BATCHES = 32
"""Steps' worth of clips from which statistics of batch normalisation are computed anew."""

DISCRIMINATOR_BETAS = (0.9, 0.99)
"""Of the discriminators' Adam (Tsai et al., AdaptSegNet, CVPR 2018)."""


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
    check(network_settings, settings, started=request.start is not None)
    network = build_network(network_settings, request.seed)
    if request.start is not None:
        load_strictly(network, read_weights(request.start), request.start)
    domains = open_domains(network_settings, settings, data)
    monitoring = Monitoring(request.out if request.first_process else None, request.resume)
    # Initial weights that a package carries are those of the encoder.
    pretrained = network.encoder if request.start is None else None
    model = Adaptation(network, settings, request.seed, monitoring, pretrained)
    steps = Steps(domains.images, domains.targets, settings, domains.counts, request.seed)
    encoder, heads = network.parameter_groups()
    if model.auxiliary is not None:
        heads = [*heads, *model.auxiliary.parameters()]
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
                "optimiser": "adamw",
                "lr": settings.game.discriminator_learning_rate,
                "betas": DISCRIMINATOR_BETAS,
                "weight_decay": 0.0,
            },
        ],
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        optimiser=settings.optimiser,
        # Discriminators until there are clusters, the network while they learn alone, and what
        # a process draws no labels for.
        idle_parameters=bool(settings.alignments) or settings.auxiliary_weight > 0,
        clip_gradient=settings.clip_gradient,
        clip_parameters=encoder + heads,
        validate_every=settings.validate_every,
        score=score_of(settings),
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


def score_of(settings: AdaptationSettings) -> str:
    """Name of the held-out images' score, which says what masks are compared with."""
    return "image_iou" if settings.domains.image_masks == "human" else "pseudo_mask_iou"


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
