"""What discriminators are made of: their layers, and what is done to all of these alike.

Sources: AdaptSegNet (Tsai et al., CVPR 2018) for the patch network, DA-VSN (Guan et al., Domain
adaptive video segmentation via temporal consistency regularization, ICCV 2021) for pairs of frames,
FADA (Wang et al., ECCV 2020) for the pixel network, MADA (Pei et al., AAAI 2018) for a token
network with dropout; Miyato et al., Spectral normalization for generative adversarial networks,
ICLR 2018. None has batch normalisation: its statistics would tell the domains apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from methods.adversarial.adversary_settings import DiscriminatorSettings

SLOPE = 0.2
"""Of all LeakyReLUs."""

POWER_ITERATIONS = 15
"""After weights were moved; as many as PyTorch takes when it meets a weight first."""


class Layers(NamedTuple):
    """A discriminator in three parts, the last of which is linear.

    Attributes:
        first: layer. Where the cluster is an input, it enters between it and its activation.
        hidden: from there up to the last activation.
        output: layer.
        inputs: numbers that one output of the first layer is a sum of.
        width: channels of the first layer.
    """

    first: nn.Module
    hidden: nn.Sequential
    output: nn.Module
    inputs: int
    width: int


class SpectralNorm(nn.Module):
    """A linear or convolutional layer whose weights, as a matrix, have 1 as largest singular value.

    Miyato et al., ICLR 2018; a kernel's matrix is ``(outputs, inputs * window)``. In
    training every pass takes a step of the power method that follows the singular value. All is
    computed in float32: in bfloat16 the value would be off by a percent.

    Args:
        layer: is changed in place.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = spectral_norm(layer)

    @property
    def weight(self) -> Tensor:
        """As it is applied. In training every look takes a step of the power method."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, features: Tensor) -> Tensor:
        """Apply the layer; float32."""
        with torch.autocast(features.device.type, enabled=False):
            outputs: Tensor = self.layer(features.float())
        return outputs

    @torch.no_grad()
    def settle(self) -> None:
        """Find the largest singular value of weights that were moved."""
        training = self.training
        self.train()
        for _ in range(POWER_ITERATIONS):
            _ = self.weight
        self.train(training)


def build_layers(settings: DiscriminatorSettings, channels: int, outputs: int) -> Layers:
    """All layers, with PyTorch's usual initial weights.

    Args:
        settings: of the discriminator.
        channels: C of the features, of one frame.
        outputs: of the last layer.
    """
    own = {"token": _token_layers, "pixel": _pixel_layers}.get(settings.network, _patch_layers)
    first, hidden = own(settings, channels)
    weight = next(first.parameters())
    output = _output_layer(settings, outputs)
    if settings.spectral_norm:
        first, output = SpectralNorm(first), SpectralNorm(output)
        hidden = nn.Sequential(*(_normalised(layer) for layer in hidden))
    return Layers(first, hidden, output, weight[0].numel(), len(weight))


def build_embeddings(settings: DiscriminatorSettings, clusters: int) -> nn.Module:
    """A layer that sees what the output layer sees, with one output per cluster and no bias."""
    layer = _output_layer(settings, clusters, bias=False)
    return _normalised(layer) if settings.spectral_norm else layer


@torch.no_grad()
def take_outputs(layer: nn.Module, order: Tensor) -> None:
    """Let output k of a layer be what output ``order[k]`` was.

    Under spectral normalisation the largest singular value is found anew: where a row of the
    weights now comes twice it may be larger, and all rows are then divided by what it has grown by.

    Args:
        layer: of K outputs, or of several blocks of K outputs, which are all treated alike.
        order: int64 ``(K,)``.
    """
    for parameter in layer.parameters():
        blocks = parameter.reshape(-1, len(order), *parameter.shape[1:])
        parameter.copy_(blocks[:, order.to(parameter.device)].flatten(0, 1))
    if isinstance(layer, SpectralNorm):
        layer.settle()


def _token_layers(
    settings: DiscriminatorSettings, channels: int
) -> tuple[nn.Module, nn.Sequential]:
    hidden = nn.Sequential(
        nn.LeakyReLU(SLOPE),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.width, settings.width),
        nn.LeakyReLU(SLOPE),
        nn.Dropout(settings.dropout),
    )
    return nn.Linear(channels, settings.width), hidden


def _pixel_layers(
    settings: DiscriminatorSettings, channels: int
) -> tuple[nn.Module, nn.Sequential]:
    width = settings.width
    hidden = nn.Sequential(
        nn.LeakyReLU(SLOPE), nn.Conv2d(width, _half(width), 3, padding=1), nn.LeakyReLU(SLOPE)
    )
    return nn.Conv2d(channels, width, 3, padding=1), hidden


def _patch_layers(
    settings: DiscriminatorSettings, channels: int
) -> tuple[nn.Module, nn.Sequential]:
    """All but the last convolution; the default width gives AdaptSegNet's 64, 128, 256, 512."""
    narrow = _quarter(settings.width)
    hidden = nn.Sequential(nn.LeakyReLU(SLOPE))
    for factor in (1, 2, 4):
        hidden.append(_halving(settings, narrow * factor, narrow * factor * 2))
        hidden.append(nn.LeakyReLU(SLOPE))
    channels *= 2 if settings.network == "pair" else 1
    return _halving(settings, channels, narrow), hidden


def _normalised(layer: nn.Module) -> nn.Module:
    """A layer under spectral normalisation; activations and dropout as they are."""
    return SpectralNorm(layer) if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d) else layer


def _output_layer(settings: DiscriminatorSettings, outputs: int, bias: bool = True) -> nn.Module:
    """A layer on the last hidden maps."""
    if settings.network == "token":
        return nn.Linear(settings.width, outputs, bias)
    if settings.network == "pixel":
        return nn.Conv2d(_half(settings.width), outputs, 3, padding=1, bias=bias)
    return _halving(settings, _quarter(settings.width) * 8, outputs, bias)


def _halving(
    settings: DiscriminatorSettings, inputs: int, outputs: int, bias: bool = True
) -> nn.Module:
    """A convolution of stride 2 in the plane."""
    if settings.network == "patch3d":
        return nn.Conv3d(inputs, outputs, (3, 4, 4), (1, 2, 2), 1, bias=bias)
    return nn.Conv2d(inputs, outputs, 4, 2, 1, bias=bias)


def _half(width: int) -> int:
    return max(1, width // 2)


def _quarter(width: int) -> int:
    return max(1, width // 4)
