"""Segmentation losses over the frames of both domains whose labels may be trained on.

The auxiliary head is the fully convolutional one that networks with a pooling decoder are usually
trained with (Zhao et al., Pyramid scene parsing network, CVPR 2017). It makes the encoder's stage
before the last tell classes apart, and is left out at test. Its output, too, can be aligned (Tsai
et al., AdaptSegNet, CVPR 2018: adaptation at several levels).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.training import FEWEST_CHANNELS
from methods.adversarial.networks import (
    Output,
    SegmentationNetwork,
    at_frame_size,
    output_maps,
)
from methods.adversarial.networks.decoders import Classifiers
from methods.adversarial.networks.mmseg_parts import convolution
from methods.adversarial.objectives import foreground_loss, segmentation_loss
from methods.adversarial.passes import Seen
from methods.adversarial.taps import AUXILIARY_PREFIX

AUXILIARY_TAP = "enc3"
"""The encoder's stage before the last."""

NARROWING = 4
"""Channels of the stage to one of the auxiliary head: with a ResNet-50, 1024 to 256."""


class AuxiliaryHead(nn.Module):
    """A convolution and classifiers on the encoder's last stage but one.

    It is no part of the segmentation network, so that the network's weights are the same with and
    without it. Each domain is normalised by its own batch, whatever the network does: a head that
    begins with random weights has no statistics to keep.

    Args:
        network: whose features it takes; it has a classifier for each of the network's heads.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        channels = network.channels[AUXILIARY_TAP]
        width = max(channels // NARROWING, FEWEST_CHANNELS)
        self.stride = network.strides[AUXILIARY_TAP]
        self.main = network.main
        self.hidden = convolution(channels, width, 3)
        # No dropout: what else is drawn in a step does not depend on this head then.
        self.classifiers = Classifiers(width, network.heads, 0.0)

    def forward(self, features: Tensor, size: tuple[int, int], taps: Sequence[str] = ()) -> Output:
        """Segment frames.

        Args:
            features: float ``(N, C, h, w)`` at :data:`AUXILIARY_TAP`.
            size: (H, W) of the frames.
            taps: among :data:`methods.adversarial.taps.AUXILIARY_TAPS`, to hand back on the grid
                of the features. They are of the head that the network's own output taps are of.
        """
        coarse = dict(self.classifiers.stages(self.hidden(features)))
        logits = {name: at_frame_size(maps, self.stride, size) for name, maps in coarse.items()}
        return Output(
            logits.get("foreground"),
            logits.get("semantic"),
            {
                tap: output_maps(coarse[self.main], tap.removeprefix(AUXILIARY_PREFIX))
                for tap in taps
            },
        )


def with_auxiliary(
    head: AuxiliaryHead, seen: Seen | None, taps: Sequence[str], wanted: bool = False
) -> Seen | None:
    """A domain with the auxiliary head's output, where that is needed; else as it was.

    It is where labels may be trained on, where a tap of the head is asked for, or in any case.

    Args:
        head: applied once.
        seen: what was seen of the domain, with the tap :data:`AUXILIARY_TAP`.
        taps: of the head.
        wanted: whether in any case.
    """
    if seen is None or not (taps or wanted or bool(seen.part.supervised.any())):
        return seen
    size = (seen.frames.shape[-2], seen.frames.shape[-1])
    return seen._replace(auxiliary=head(seen.output.taps[AUXILIARY_TAP], size, taps))


def supervised_loss(domains: Sequence[Seen | None]) -> Tensor:
    """Sum over heads of the loss over all frames whose labels may be trained on.

    Args:
        domains: what was seen of each; at least one of something.
    """
    seen = [domain for domain in domains if domain is not None]
    total = torch.zeros((), device=seen[0].frames.device)
    if seen[0].output.foreground is not None:
        total = total + foreground_loss(*_labelled(seen, "foreground", "foreground"))
    if seen[0].output.semantic is not None:
        total = total + segmentation_loss(*_labelled(seen, "semantic", "classes"))
    return total


def auxiliary_loss(domains: Sequence[Seen | None]) -> Tensor:
    """The same loss of the auxiliary head; 0 where nothing may be trained on.

    Args:
        domains: what was seen of each, from :func:`with_auxiliary`; at least one of something.
    """
    present = [one for one in domains if one is not None]
    seen = [one._replace(output=one.auxiliary) for one in present if one.auxiliary is not None]
    return supervised_loss(seen) if seen else present[0].frames.new_zeros(())


def _labelled(seen: Sequence[Seen], head: str, labels: str) -> tuple[Tensor, Tensor]:
    """Logits ``(N, C, H, W)`` and labels ``(N, H, W)`` of the frames with labels to train on."""
    rows = [one.per_frame(one.part.supervised) for one in seen]
    logits = [getattr(one.output, head)[chosen] for one, chosen in zip(seen, rows, strict=True)]
    targets = [
        getattr(one.part, labels).flatten(0, 1)[chosen]
        for one, chosen in zip(seen, rows, strict=True)
    ]
    return torch.cat(logits), torch.cat(targets)
