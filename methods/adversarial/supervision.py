"""Segmentation losses over the frames of both domains whose labels may be trained on.

The auxiliary head is the fully convolutional one that networks with a pooling decoder are usually
trained with (Zhao et al., Pyramid scene parsing network, CVPR 2017). It makes the encoder's stage
before the last tell classes apart, and is left out at test.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.training import FEWEST_CHANNELS
from methods.adversarial.networks import Output, SegmentationNetwork, at_frame_size
from methods.adversarial.networks.decoders import Classifiers
from methods.adversarial.networks.mmseg_parts import convolution
from methods.adversarial.objectives import foreground_loss, segmentation_loss
from methods.adversarial.passes import Seen

AUXILIARY_TAP = "enc3"
"""The encoder's stage before the last."""

NARROWING = 4
"""Channels of the stage to one of the auxiliary head: with a ResNet-50, 1024 to 256."""


class AuxiliaryHead(nn.Module):
    """A convolution and classifiers on the encoder's last stage but one.

    It is no part of the segmentation network, so that the network's weights are the same with and
    without it.

    Args:
        network: whose features it takes; it has a classifier for each of the network's heads.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        channels = network.channels[AUXILIARY_TAP]
        width = max(channels // NARROWING, FEWEST_CHANNELS)
        self.stride = network.strides[AUXILIARY_TAP]
        self.hidden = convolution(channels, width, 3)
        # No dropout: what else is drawn in a step does not depend on this head then.
        self.classifiers = Classifiers(width, network.heads, 0.0)

    def forward(self, features: Tensor, size: tuple[int, int]) -> Output:
        """Segment frames.

        Args:
            features: float ``(N, C, h, w)`` at :data:`AUXILIARY_TAP`.
            size: (H, W) of the frames.
        """
        logits = {
            name: at_frame_size(maps, self.stride, size)
            for name, maps in self.classifiers.stages(self.hidden(features))
        }
        return Output(logits.get("foreground"), logits.get("semantic"), {})


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


def auxiliary_loss(head: AuxiliaryHead, domains: Sequence[Seen | None]) -> Tensor:
    """The same loss of the auxiliary head; 0 where nothing may be trained on.

    Args:
        head: applied to the domains with such frames alone.
        domains: what was seen of each, with the tap :data:`AUXILIARY_TAP`.
    """
    present = [one for one in domains if one is not None]
    seen = [
        one._replace(
            output=head(
                one.output.taps[AUXILIARY_TAP], (one.frames.shape[-2], one.frames.shape[-1])
            )
        )
        for one in present
        if bool(one.part.supervised.any())
    ]
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
