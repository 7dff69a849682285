"""A limit on how steep a discriminator may be: the penalty on its gradient in the features.

Sources: Mescheder et al., Which training methods for GANs do actually converge?, ICML 2018 (R1, the
squared norm of the logit's gradient; there of real data alone, while neither domain is the real one
here); Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021 (DomainBed, whose
adversarial baselines penalise the gradient of the discriminator's loss).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def squared_gradient_norm(scores: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Squared norm of the scores' gradient, for each score, to be minimised.

    Of a discriminator whose scores depend on one position each it is the mean squared norm. Where
    several see the same position, their gradients there add up before they are squared: one
    backward pass gives no more.

    The gradient of what is returned reaches what the scores are computed with, the discriminator,
    and not the features, nor the network that they come from.

    Args:
        scores: from features of the given shape to what is to be flat, ``(M,)``.
        features: tokens ``(M, C)``, maps ``(N, C, h, w)`` or clips ``(B, C, T, h, w)``.

    Returns:
        A float32 scalar.
    """
    with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
        constant = features.detach().float().requires_grad_()
        values = scores(constant)
        (gradient,) = torch.autograd.grad(values.sum(), constant, create_graph=True)
        norm: Tensor = gradient.square().sum() / len(values)
        return norm
