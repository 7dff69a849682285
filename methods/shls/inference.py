"""Networks made ready to segment: nothing learned changes, only how fast it is computed."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods.shls.network import SHLSNetwork

Precision = Literal["float32", "bfloat16", "auto"]


def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 matrices faster than float32 ones."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    # torch has no public word for it; without the instructions bfloat16 is emulated, and slow.
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(known and known())


def dtype_of(precision: Precision, device: str) -> torch.dtype:
    """The type networks compute in."""
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def ready(network: SHLSNetwork, device: str, dtype: torch.dtype) -> SHLSNetwork:
    """A copy of trained networks for inference.

    Batch normalisation is folded into the convolution before it, memory is laid out channels
    last, and all but the superfeature embedding, which costs next to nothing, computes in
    ``dtype``.

    Args:
        network: is left as it is.
        device: where the copy goes.
        dtype: of backbone, modulator and decoder.
    """
    made = copy.deepcopy(network).eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, nn.Sequential):
            _fold(module)
    made.to(device, memory_format=torch.channels_last)
    for part in (made.backbone, made.modulator, made.decoder):
        part.to(dtype)
    return made


def _fold(layers: nn.Sequential) -> None:
    for position in range(len(layers) - 1):
        convolution, norm = layers[position], layers[position + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[position] = fuse_conv_bn_eval(convolution, norm)
            layers[position + 1] = nn.Identity()
