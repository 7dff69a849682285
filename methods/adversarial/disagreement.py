"""Where two classifiers disagree about the class of a position.

Luo et al., Taking a closer look at domain shift: category-level adversaries for semantics
consistent domain adaptation (CLAN), CVPR 2019. Where the classifiers agree, a position of the
target is taken to be aligned with its class already, and the adversary should leave it alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adversarial.adversary_settings import DisagreementSettings


@torch.no_grad()
def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """One minus the cosine of two classifiers' class probabilities, without gradient.

    Args:
        first: float logits ``(N, C, H, W)``.
        second: the other classifier's, of the same shape.

    Returns:
        float32 ``(N, 1, H, W)``, between 0, the same probabilities, and 1, no class in common.
    """
    with torch.autocast(first.device.type, enabled=False):
        cosine = F.cosine_similarity(first.float().softmax(1), second.float().softmax(1), dim=1)
        return (1 - cosine).clamp(0, 1)[:, None]


def position_weight(distance: Tensor, settings: DisagreementSettings) -> Tensor:
    """How much each position counts in the adversarial loss: least where classifiers agree.

    Args:
        distance: from :func:`disagreement`, of any shape.
        settings: of the alignment.
    """
    return settings.epsilon + settings.factor * distance
