"""Forward passes of a network over both domains, as the mode of batch normalisation says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from methods.adversarial.data import IMAGE, VIDEO, Part, Step
from methods.adversarial.networks import Output, SegmentationNetwork, set_domain
from methods.adversarial.networks.batch_norm import batch_norms
from methods.adversarial.settings import BatchNormSettings


class Seen(NamedTuple):
    """One domain's share of a step after the network: maps of B T frames, clip-major.

    Attributes:
        frames: float ``(B, T, 3, H, W)``, normalised.
        part: where they come from.
        output: of the network.
        auxiliary: output of the auxiliary head; None where it has not been asked.
    """

    frames: Tensor
    part: Part
    output: Output
    auxiliary: Output | None = None

    @property
    def taps(self) -> Mapping[str, Tensor]:
        """Features of the network, and of the auxiliary head."""
        return {**self.output.taps, **(self.auxiliary.taps if self.auxiliary else {})}

    def per_frame(self, values: Tensor) -> Tensor:
        """Values ``(B,)`` of clips as those of their frames ``(B T,)``."""
        return values.repeat_interleave(self.frames.shape[1])


def see(
    network: SegmentationNetwork,
    step: Step,
    normalise: Callable[[Tensor], Tensor],
    batch_norm: BatchNormSettings,
    taps: Sequence[str],
) -> tuple[Seen | None, Seen | None]:
    """Run a network on images and on clips.

    Args:
        network: that is trained.
        step: what it sees.
        normalise: from uint8 frames ``(B, T, 3, H, W)`` to what the network takes.
        batch_norm: whether both domains share a batch, and whose statistics are followed.
        taps: features to keep.

    Returns:
        Images and clips; None of a domain that is not in the step.
    """
    parts = [part if len(part.frames) else None for part in step]
    frames = [None if part is None else normalise(part.frames) for part in parts]
    image, video = frames
    if batch_norm.mode == "joint" and image is not None and video is not None:
        outputs = _joint(network, image, video, taps)
    else:
        alone = image is None or video is None
        outputs = [
            None if one is None else _apart(network, one, domain, alone, batch_norm, taps)
            for domain, one in enumerate(frames)
        ]
    seen = [
        None if f is None or part is None or output is None else Seen(f, part, output)
        for f, part, output in zip(frames, parts, outputs, strict=True)
    ]
    return seen[IMAGE], seen[VIDEO]


def _apart(
    network: SegmentationNetwork,
    frames: Tensor,
    domain: int,
    alone: bool,
    batch_norm: BatchNormSettings,
    taps: Sequence[str],
) -> Output:
    """Run the network on one domain; statistics follow it if they are wanted at test.

    Where a recipe has one domain alone, they follow that one.
    """
    set_domain(network, domain)
    unwanted = {"image": VIDEO, "video": IMAGE}.get(batch_norm.evaluation)
    ignored = domain == unwanted and not alone
    with still_statistics(network, ignored):
        output: Output = network(frames, taps)
    return output


def _joint(
    network: SegmentationNetwork, image: Tensor, video: Tensor, taps: Sequence[str]
) -> list[Output | None]:
    """Both domains in one batch. Frames of a network that sees one at a time are clips of 1."""
    if network.settings.time == "none":
        image, video = image.flatten(0, 1)[:, None], video.flatten(0, 1)[:, None]
    output: Output = network(torch.cat([image, video]), taps)
    count = image.shape[0] * image.shape[1]
    return [take(output, slice(count)), take(output, slice(count, None))]


def take(output: Output, rows: slice) -> Output:
    """An output's frames from one number to another."""
    return Output(
        None if output.foreground is None else output.foreground[rows],
        None if output.semantic is None else output.semantic[rows],
        {name: maps[rows] for name, maps in output.taps.items()},
    )


@contextmanager
def still_statistics(network: nn.Module, still: bool) -> Iterator[None]:
    """Keep running statistics of batch normalisation where they are, during forward passes.

    Args:
        network: whose batches are normalised as ever.
        still: False does nothing.
    """
    norms = batch_norms(network) if still else []
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def left_unchanged(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Forward passes without a gradient, after which all buffers are what they were before.

    Batches are normalised as in training; running statistics and their counters do not follow.
    """
    buffers = [buffer for module in modules for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    with torch.no_grad():
        try:
            yield
        finally:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
