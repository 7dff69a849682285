"""What a step of the game shows of itself, as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from methods.adversarial.judging import Judged
from methods.adversarial.losses import LossTerm
from methods.adversarial.processes import mean_over_processes


def drops_out(module: nn.Module) -> bool:
    """Whether a module answers otherwise in training, because of dropout, than in evaluation."""
    return any(isinstance(one, nn.Dropout) and one.p > 0 for one in module.modules())


@contextmanager
def nothing_dropped(module: nn.Module) -> Iterator[None]:
    """A module in evaluation and without gradient; it draws nothing and stays as it was."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


@torch.no_grad()
def step_monitors(
    image: Judged, video: Judged, term: LossTerm, network: Tensor, clustered: bool
) -> dict[str, float]:
    """The monitors of :class:`methods.adversarial.games.AlignmentResult`, without the penalty.

    Args:
        image: what was judged of images; the features count.
        video: of video.
        term: what the discriminator said.
        network: scalar, the segmentation network's loss.
        clustered: whether accuracies within clusters are told, too.
    """
    values = {
        "discriminator_loss": math.nan * term.value if term.skipped else term.value,
        "network_loss": math.nan * network if term.skipped else network,
        "accuracy_image": term.image_accuracy,
        "accuracy_video": term.video_accuracy,
        "feature_norm_image": _mean_norm(image.features),
        "feature_norm_video": _mean_norm(video.features),
    }
    if clustered:
        for cluster, accuracy in enumerate(term.cluster_accuracy):
            values[f"accuracy_cluster_{cluster}"] = accuracy
    # One transfer from the device for all of them.
    shared = mean_over_processes(torch.stack([value.float() for value in values.values()]))
    return dict(zip(values, shared.tolist(), strict=True)) | {"skipped": float(term.skipped)}


def _mean_norm(features: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(features.float(), dim=1)
    return norms.mean()
