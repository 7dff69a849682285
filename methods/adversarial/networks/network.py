"""The segmentation network: encoder, what lets frames see each other, decoder, heads, and taps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F

from bench.errors import MethodError
from methods.adversarial.networks.architectures import build_parts
from methods.adversarial.networks.encoders import STAGES
from methods.adversarial.networks.temporal import (
    ClipLength,
    TemporalAttention,
    TemporalShift,
    inflate,
)
from methods.adversarial.settings import NetworkSettings
from methods.adversarial.taps import OUTPUT_TAPS

FOREGROUND_CLASSES = 2


@dataclass(frozen=True)
class Output:
    """What a network says about clips; N = B T frames, clip-major (index ``b T + t``).

    Attributes:
        foreground: logits ``(N, 2, H, W)`` of background and foreground at the frames' size, or
            None without that head.
        semantic: logits ``(N, classes, H, W)``, or None without that head.
        taps: the features asked for, ``(N, C, h, w)``. They are not copied.
    """

    foreground: Tensor | None
    semantic: Tensor | None
    taps: Mapping[str, Tensor]


def weighted_self_information(probabilities: Tensor) -> Tensor:
    """Per class ``-p log2(p) / log2(C)``; its sum over classes is the entropy, between 0 and 1.

    Vu et al., ADVENT: adversarial entropy minimization for domain adaptation in semantic
    segmentation, CVPR 2019.

    Args:
        probabilities: float ``(N, C, h, w)``, C >= 2.
    """
    # The logarithm's gradient at 0 is infinite; p log p itself vanishes there.
    logarithm = torch.log(probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny))
    return -probabilities * logarithm / math.log(probabilities.shape[1])


def output_maps(logits: Tensor, tap: str) -> Tensor:
    """What a head's logits are at one of the taps ``logits``, ``prob`` and ``ent``; same shape.

    Args:
        logits: float ``(N, C, h, w)``, C >= 2.
        tap: which.
    """
    if tap == "logits":
        return logits
    probabilities = logits.softmax(dim=1)
    return probabilities if tap == "prob" else weighted_self_information(probabilities)


class SegmentationNetwork(nn.Module):
    """A segmentation network whose features can be taken at places named alike.

    Attributes:
        settings: what it was built from.
        channels: of each tap the network has.
        strides: of each tap, in pixels of the frame; sizes are rounded up.
        heads: number of classes by name of the head.
        main: the head that ``logits``, ``prob`` and ``ent`` come from: ``"semantic"`` where there
            is one, else ``"foreground"``.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        self.heads: Mapping[str, int] = _heads(settings)
        self.main = "semantic" if "semantic" in self.heads else "foreground"
        encoder, decoder = build_parts(settings, self.heads)
        self.encoder: Any = encoder
        self.decoder: Any = decoder
        self.clip = ClipLength()
        self.temporal = _temporal_module(settings, encoder, self.clip)
        self.channels: Mapping[str, int] = self._per_tap("channels", self.heads[self.main])
        self.strides: Mapping[str, int] = self._per_tap("strides", decoder.strides[1])
        if settings.time == "inflate":
            inflate(self, self.clip, settings.inflation)

    def _per_tap(self, attribute: str, output: int) -> dict[str, int]:
        inside, outside = getattr(self.encoder, attribute), getattr(self.decoder, attribute)
        values = dict(zip(STAGES, inside, strict=True))
        if self.temporal is not None:
            values["temporal"] = inside[-1]
        values.update(zip(("neck", "dec"), outside, strict=True))
        return values | dict.fromkeys(OUTPUT_TAPS, output)

    def forward(self, frames: Tensor, taps: Sequence[str] = ()) -> Output:
        """Segment clips.

        In training, DeepLabV3 and Swin need two frames or more in a batch, since they normalise
        maps pooled to a single position over it.

        Args:
            frames: float32 ``(B, T, 3, H, W)``, RGB normalised with ImageNet's mean and deviation.
            taps: features to hand back.

        Raises:
            MethodError: the network has no such tap.
        """
        self._check(taps)
        found = dict(self._run(frames))
        size = (frames.shape[-2], frames.shape[-1])
        return Output(
            foreground=self._at_frame_size(found.get("foreground"), size),
            semantic=self._at_frame_size(found.get("semantic"), size),
            taps={tap: self._tap(tap, found) for tap in taps},
        )

    def features(self, frames: Tensor, tap: str) -> Tensor:
        """The features at one tap; what lies behind it is not computed.

        Args:
            frames: as in :meth:`forward`.
            tap: where.

        Returns:
            ``(B T, C, h, w)``, equal to what :meth:`forward` hands back.

        Raises:
            MethodError: the network has no such tap.
        """
        self._check([tap])
        wanted = self.main if tap in OUTPUT_TAPS else tap
        found = {}
        for name, maps in self._run(frames):
            if name == wanted:
                found[name] = maps
                break
        return self._tap(tap, found)

    def parameter_groups(self) -> tuple[list[Parameter], list[Parameter]]:
        """Trainable parameters: the encoder's, then those of temporal modules, decoder and heads.

        Call it after batch normalisation is prepared, since frozen parameters are left out.
        """
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        inside = {id(parameter) for parameter in encoder}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in inside]
        return encoder, rest

    def _run(self, frames: Tensor) -> Iterator[tuple[str, Tensor]]:
        """All maps by name in the order of computation, up to the logits of each head."""
        self.clip.frames = frames.shape[1]
        maps: list[Tensor] = []
        for name, stage in zip(STAGES, self.encoder.stages(frames.flatten(0, 1)), strict=True):
            maps.append(stage)
            yield name, stage
        if self.temporal is not None:
            maps[-1] = self.temporal(maps[-1])
            yield "temporal", maps[-1]
        yield from self.decoder.stages(maps[1:])

    def _tap(self, tap: str, found: Mapping[str, Tensor]) -> Tensor:
        if tap not in OUTPUT_TAPS:
            return found[tap]
        return output_maps(found[self.main], tap)

    def _at_frame_size(self, logits: Tensor | None, size: tuple[int, int]) -> Tensor | None:
        """A head's logits at the size of the frame; None without that head."""
        return None if logits is None else at_frame_size(logits, self.strides["logits"], size)

    def _check(self, taps: Sequence[str]) -> None:
        unknown = [tap for tap in taps if tap not in self.channels]
        if unknown:
            remedy = "Choose another tap."
            if "temporal" in unknown:
                remedy = "Set network.time to 'attention' or 'shift', or choose another tap."
            raise MethodError(
                "tap",
                ", ".join(unknown),
                f"taps among {', '.join(self.channels)}",
                remedy,
            )


def at_frame_size(logits: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Bilinear to the frame's size; maps whose size was rounded up overhang and are cut.

    Args:
        logits: float ``(N, C, h, w)``.
        stride: of their grid, in pixels of the frame.
        size: (H, W) of the frame.

    Returns:
        ``(N, C, H, W)``.
    """
    finer = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
    return finer[..., : size[0], : size[1]]


def _heads(settings: NetworkSettings) -> dict[str, int]:
    """Number of classes by head."""
    heads = {"foreground": FOREGROUND_CLASSES, "semantic": settings.classes}
    return heads if settings.head == "both" else {settings.head: heads[settings.head]}


def _temporal_module(settings: NetworkSettings, encoder: Any, clip: ClipLength) -> Any:
    """What stands between encoder and decoder, if anything does."""
    if settings.time == "attention":
        return TemporalAttention(encoder.channels[-1], clip)
    if settings.time == "shift":
        return TemporalShift(encoder.channels[-1], clip)
    return None


def build_network(settings: NetworkSettings, seed: int) -> SegmentationNetwork:
    """A new network in training mode; the same seed gives the same weights.

    A clip network (``settings.time``) has the weights of the frame network of the same seed.

    Args:
        settings: of the network.
        seed: for all weights that are drawn; torch's global random state stays as it is.

    Raises:
        MethodError: unknown size or encoder, or initial weights that no package carries.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SegmentationNetwork(settings)
