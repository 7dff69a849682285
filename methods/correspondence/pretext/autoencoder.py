"""UVC's colours: 8-bit Lab, and the auto-encoder that carries them at the feature map's stride.

Source: Li, Liu, De Mello, Wang, Kautz, Yang: Joint-task self-supervised learning for temporal
correspondence, NeurIPS 2019 (UVC), section 3; the released weights' names and shapes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.errors import ConfigError
from bench.method import MethodSettings
from bench.training import load_strictly, read_weights
from bench.video import RGB
from methods.clips import IMAGENET_MEAN, IMAGENET_STD, resize_short_side
from methods.correspondence.inputs import lab_bytes
from methods.correspondence.pretext.clips import Sample, crop_at_random

AB_WEIGHT = 10.0
"""Of the two colour channels beside the lightness, whose range is much larger."""

NOT_COLOUR = ("gray_encoder.", "normalize.")
"""Beginnings of the names of a released UVC checkpoint's other tensors."""


def grey_input(lab: Tensor) -> Tensor:
    """What UVC's encoder sees of a frame: its lightness, three times, as a normalised image.

    For batches what :func:`methods.correspondence.inputs.lightness` is for frames.

    Args:
        lab: float32 ``(..., 3, H, W)`` in [-1, 1], see
            :func:`methods.correspondence.inputs.lab_bytes`.

    Returns:
        float32 ``(..., 3, H, W)``.
    """
    mean = lab.new_tensor(IMAGENET_MEAN.tolist()).view(3, 1, 1)
    std = lab.new_tensor(IMAGENET_STD.tolist()).view(3, 1, 1)
    return ((lab[..., :1, :, :] + 1) / 2 - mean) / std


def colour_distance(found: Tensor, true: Tensor) -> Tensor:
    """Mean absolute difference in lightness plus ten times that in a and in b.

    Args:
        found: Lab in [-1, 1], ``(B, 3, H, W)``.
        true: the same.

    Returns:
        ``(B,)``.
    """
    lightness, a, b = (found - true).abs().mean((2, 3)).unbind(1)
    return lightness + AB_WEIGHT * (a + b)


def _layers(
    channels: int, convolutions: Iterable[tuple[str, int]]
) -> Iterator[tuple[str, nn.Module]]:
    """Named 3 x 3 convolutions that see reflections beyond the border, each with ReLU."""
    for name, out in convolutions:
        yield name, nn.Conv2d(channels, out, 3, padding=1, padding_mode="reflect")
        yield f"{name}_relu", nn.ReLU()
        channels = out


class ColourAutoencoder(nn.Module):
    """A VGG-like encoder to stride 8 and its mirror image. Tensors are named as in UVC's release.

    Encoder: 1x1 3, 3x3 64, 64, pool, 128, 128, pool, 256, pool, 1x1 256. The decoder doubles by
    nearest neighbours where the encoder pools, and ends in tanh. All 3x3 convolutions but the last
    are followed by ReLU; that this is so in the released network too is assumed.

    Args:
        width: channels of the first layers; 64 in the released weights.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.rgb_encoder = nn.Sequential(
            OrderedDict[str, nn.Module](
                [
                    ("conv1", nn.Conv2d(3, 3, 1)),
                    *_layers(3, [("conv2", width), ("conv3", width)]),
                    ("pool1", nn.MaxPool2d(2)),
                    *_layers(width, [("conv4", 2 * width), ("conv5", 2 * width)]),
                    ("pool2", nn.MaxPool2d(2)),
                    *_layers(2 * width, [("conv6", 4 * width)]),
                    (
                        "downsample",
                        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4 * width, 4 * width, 1)),
                    ),
                ]
            )
        )
        self.decoder = nn.Sequential(
            OrderedDict[str, nn.Module](
                [
                    (
                        "upsample",
                        nn.Sequential(
                            nn.Upsample(scale_factor=2), nn.Conv2d(4 * width, 4 * width, 1)
                        ),
                    ),
                    *_layers(4 * width, [("conv7", 2 * width)]),
                    ("double1", nn.Upsample(scale_factor=2)),
                    *_layers(2 * width, [("conv8", 2 * width), ("conv9", width)]),
                    ("double2", nn.Upsample(scale_factor=2)),
                    *_layers(width, [("conv10", width)]),
                    ("conv11", nn.Conv2d(width, 3, 3, padding=1, padding_mode="reflect")),
                    ("tanh", nn.Tanh()),
                ]
            )
        )

    def encode(self, lab: Tensor) -> Tensor:
        """Lab in [-1, 1], ``(B, 3, H, W)``, to ``(B, C, H / 8, W / 8)``."""
        code: Tensor = self.rgb_encoder(lab)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """``(B, C, h, w)`` to Lab in [-1, 1], ``(B, 3, 8 h, 8 w)``."""
        lab: Tensor = self.decoder(code)
        return lab

    def forward(self, lab: Tensor) -> Tensor:
        """Encode and decode."""
        return self.decode(self.encode(lab))


def load_autoencoder(path: Path | None, width: int = 64) -> ColourAutoencoder:
    """A frozen auto-encoder from a released UVC checkpoint, or from one trained here.

    Gradients still pass through it to what it is given.

    Args:
        path: the file, or None for nowhere.
        width: see :class:`ColourAutoencoder`.

    Raises:
        ConfigError: no path.
        MethodError: the file is unreadable or does not fit.
    """
    if path is None:
        raise ConfigError(
            "training.autoencoder",
            "no weights of a colour auto-encoder",
            "a file",
            "Train one first (AutoencoderObjective), or name UVC's checkpoint.",
        )
    tensors = {name.removeprefix("module."): each for name, each in read_weights(path).items()}
    autoencoder = ColourAutoencoder(width)
    load_strictly(
        autoencoder,
        {name: each for name, each in tensors.items() if not name.startswith(NOT_COLOUR)},
        path,
    )
    return autoencoder.requires_grad_(False)


class AutoencoderSettings(MethodSettings):
    """How the colour auto-encoder is trained; the authors only released its weights.

    Attributes:
        width: see :class:`ColourAutoencoder`.
        short_side: frames are scaled to it first, in pixels.
        crop: side of the random crop in pixels, a multiple of 8.
        batch_size: frames per step.
        learning_rate: of Adam.
        weight_decay: of Adam.
    """

    width: int = Field(default=64, ge=1)
    short_side: int = Field(default=256, ge=16)
    crop: int = Field(default=256, ge=16, multiple_of=8)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> AutoencoderSettings:
        if self.crop > self.short_side:
            raise ValueError("crop must not be larger than short_side")
        return self

    def draw_frames(self, random: np.random.Generator, length: int) -> tuple[int, ...]:
        """Any one frame of a video of so many."""
        return (int(random.integers(length)),)


def augment(
    frames: list[RGB], random: np.random.Generator, settings: AutoencoderSettings
) -> Sample:
    """Crop one frame: ``lab``, float32 ``(3, S, S)`` in [-1, 1]."""
    scaled = [resize_short_side(frame, settings.short_side) for frame in frames]
    crops = crop_at_random(scaled, random, settings.crop)
    return {"lab": lab_bytes(np.ascontiguousarray(crops[0]))}


class AutoencoderObjective(nn.Module):
    """Reconstruction of single frames' colours, before UVC itself is trained.

    Args:
        settings: of the training.
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.autoencoder = ColourAutoencoder(settings.width)

    def distance(self, batch: Sample) -> Tensor:
        """See :func:`colour_distance`; ``(B,)``."""
        return colour_distance(self.autoencoder(batch["lab"]), batch["lab"])

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        """The distance between colours and their reconstruction: ``reconstruction``."""
        return {"reconstruction": self.distance(batch).mean()}

    @torch.no_grad()
    def validate(self, batch: Sample) -> list[float]:
        """Minus the distance, per frame."""
        scores: list[float] = (-self.distance(batch)).tolist()
        return scores

    def exported(self) -> dict[str, Tensor]:
        """The auto-encoder's tensors, as :func:`load_autoencoder` reads them."""
        return dict(self.autoencoder.state_dict())
