"""Batch normalisation with two domains: frozen, shared, or with statistics of its own for each.

Images and frames differ in the statistics that batch normalisation follows, so what it does is a
part of the adaptation. Modes (:class:`~methods.adversarial.settings.BatchNormSettings`):

- ``frozen``: running statistics, scale and shift stay as they are, where they are pretrained. The
  rest of the network, which has never seen data, does as in ``separate``.
- ``separate``: each domain has a forward of its own and is normalised by its own batch; the running
  statistics follow both, the last forward most.
- ``joint``: images and frames go through the network in one batch.
- ``per_domain``: as ``separate``, with running statistics for each domain, after Chang et al.,
  Domain-specific batch normalization for unsupervised domain adaptation, CVPR 2019 (there the scale
  and shift are separate too; here they are shared).

``separate`` and ``joint`` differ in how the training calls the network, not in its modules.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import MethodError

Mode = Literal["frozen", "separate", "joint", "per_domain"]

DOMAINS = 2
"""Images (0) and video (1)."""


class PerDomainBatchNorm(nn.Module):
    """One batch normalisation per domain, with one scale and shift.

    Attributes:
        norms: the normalisation of each domain. ``weight`` and ``bias`` are the same parameters.
        domain: the one whose batches come now, 0 or 1; see :func:`set_domain`.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm, copy.deepcopy(norm)])
        for other in self.norms[1:]:
            other.weight, other.bias = norm.weight, norm.bias
        self.domain = 0

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise a batch of the current domain; same shape."""
        normalised: Tensor = self.norms[self.domain](maps)
        return normalised


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """All batch normalisations of a network; with domains of their own, one for each domain."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def _stay_frozen(module: nn.Module, _: Any) -> None:
    if getattr(module, "frozen", False):
        module.eval()


def freeze_batch_norm(network: nn.Module) -> None:
    """Fix running statistics, scale and shift of all batch normalisations of a module for good.

    ``requires_grad = False`` alone leaves the running statistics moving, and ``network.train()``
    undoes ``eval()``. Each module therefore returns to evaluation before every forward.
    """
    for norm in batch_norms(network):
        already = getattr(norm, "frozen", None) is not None
        setattr(norm, "frozen", True)  # noqa: B010 - not an attribute that nn.Module declares
        if not already:
            norm.register_forward_pre_hook(_stay_frozen)
        norm.eval()
        for parameter in norm.parameters(recurse=False):
            parameter.requires_grad_(False)


def set_domain(network: nn.Module, domain: int) -> None:
    """Say which domain the next batches belong to: 0 images, 1 video.

    Without effect on networks whose statistics are shared.
    """
    if domain not in range(DOMAINS):
        raise MethodError(
            "domain", f"{domain}", "0 (images) or 1 (video)", "Pass one of the two domains."
        )
    for module in network.modules():
        if isinstance(module, PerDomainBatchNorm):
            module.domain = domain


def apply_mode(network: nn.Module, mode: Mode, pretrained: nn.Module | None = None) -> None:
    """Prepare a network's batch normalisations for a mode; call it once, before the optimiser.

    Networks without batch normalisation (the Transformer encoders) are left as they are.

    Args:
        network: that is trained.
        mode: what its batch normalisations do.
        pretrained: the part of it that ``"frozen"`` concerns; None is all of it.
    """
    if mode == "frozen":
        freeze_batch_norm(network if pretrained is None else pretrained)
    elif mode == "per_domain":
        _replace(
            network,
            lambda module: PerDomainBatchNorm(module) if isinstance(module, _BatchNorm) else None,
        )


def merge_domains(
    network: nn.Module, evaluation: Literal["image", "video", "moving_average"]
) -> None:
    """Turn :class:`PerDomainBatchNorm` back into plain batch normalisation, for the test.

    Args:
        network: changed in place; afterwards its state dict has the names of a network that was
            never prepared. Without effect where there is no :class:`PerDomainBatchNorm`.
        evaluation: whose statistics stay: those of images, of video, or of both mixed in equal
            parts. The mixture's variance is the mean of the variances plus the variance of the
            means.
    """

    def merged(module: nn.Module) -> nn.Module | None:
        if not isinstance(module, PerDomainBatchNorm):
            return None
        first, second = module.norms
        assert isinstance(first, _BatchNorm)
        assert isinstance(second, _BatchNorm)
        if evaluation == "moving_average":
            _mix_statistics(first, second)
        return second if evaluation == "video" else first

    _replace(network, merged)


def _mix_statistics(first: _BatchNorm, second: _BatchNorm) -> None:
    """Give ``first`` the statistics of a mixture of both in equal parts."""
    assert first.running_mean is not None
    assert second.running_mean is not None
    assert first.running_var is not None
    assert second.running_var is not None
    between = (first.running_mean - second.running_mean).square() / 4
    first.running_mean.add_(second.running_mean).div_(2)
    first.running_var.add_(second.running_var).div_(2).add_(between)


def _replace(network: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace descendants where ``replacement`` returns a module; new ones are not entered."""
    for name, child in list(network.named_children()):
        new = replacement(child)
        if new is None:
            _replace(child, replacement)
        else:
            setattr(network, name, new)


@torch.no_grad()
def reestimate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Compute the running statistics anew; nothing else of the network changes.

    The free baseline of adaptation: statistics of the target domain, no training (Li et al.,
    Revisiting batch normalization for practical domain adaptation, 2016). Frozen statistics are
    computed anew, too, and frozen again. With statistics per domain those of the current domain
    are concerned (:func:`set_domain`).

    Args:
        network: called with each batch; dropout and stochastic depth are off meanwhile.
        batches: what the network takes, on its device. Each counts alike.

    Raises:
        MethodError: there is no batch, so that there would be no statistics.
    """
    norms = _in_use(network)
    if not norms:
        return
    with _collecting(network, norms):
        count = 0
        for batch in batches:
            network(batch)
            count += 1
    if count == 0:
        raise MethodError(
            "batch normalisation",
            "no batch to take statistics from",
            "at least one batch of frames",
            "Give more unlabelled videos, or another batch_norm.evaluation.",
        )


def _in_use(network: nn.Module) -> list[_BatchNorm]:
    """All batch normalisations but those of domains whose turn it is not."""
    idle = {
        id(norm)
        for module in network.modules()
        if isinstance(module, PerDomainBatchNorm)
        for domain, norm in enumerate(module.norms)
        if domain != module.domain
    }
    return [norm for norm in batch_norms(network) if id(norm) not in idle]


@contextmanager
def _collecting(network: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """All in evaluation, except these normalisations, which average over all batches to come."""
    training = {module: module.training for module in network.modules()}
    before = [(norm.momentum, getattr(norm, "frozen", None)) for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
        if getattr(norm, "frozen", None) is not None:
            setattr(norm, "frozen", False)  # noqa: B010
        norm.train()
    try:
        yield
    finally:
        for norm, (momentum, frozen) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if frozen is not None:
                setattr(norm, "frozen", frozen)  # noqa: B010
        for module, mode in training.items():
            module.training = mode
