"""RPM-Net: labels copied from the previous frame at places that deformable sampling proposes.

Source: Kim et al., RPM-Net, WACV 2020. No code is public and the text leaves most open, so this is
a reading, not a reproduction. The paper's online update on the first frame is not part of it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.method import Context, MethodSettings
from bench.registry import register_method
from bench.training import load_strictly, read_header, read_weights, regime_from
from bench.video import Frame, Mask
from methods.correspondence.deformable import DeformableSampler, copy_sampled
from methods.correspondence.method import Correspondence, CorrespondenceSettings, VideoState
from methods.correspondence.systems import READING, make_card
from methods.correspondence.training import training_settings

SAMPLER = "sampler."
"""Beginning of the sampler's names in a file of weights."""


class SamplingSettings(MethodSettings):
    """How places to copy from are proposed; see :class:`DeformableSampler`.

    Attributes:
        samples: samples a side.
        dilation: cells between neighbours on the regular grid.
        scale: multiplies the dot products before the softmax.
    """

    samples: int = Field(default=5, ge=1)
    dilation: int = Field(default=1, ge=1)
    scale: float = Field(default=64**-0.5, gt=0)


class RPMNetSettings(CorrespondenceSettings):
    """Settings of ``rpmnet``.

    Attributes:
        sampling: of the places to copy from; None propagates as other systems do, to compare
            objectives under one propagation.
    """

    sampling: SamplingSettings | None = None


@register_method("rpmnet")
class RPMNet(Correspondence):
    """Copies from deformable samples."""

    Settings = RPMNetSettings
    TrainingSettings = training_settings("rpmnet")
    card = make_card(
        "rpmnet",
        "RPM-Net",
        f"Matches pixels at places that deformable sampling proposes. {READING}",
        "Kim et al.: RPM-Net: Robust Pixel-Level Matching Networks for Self-Supervised Video "
        "Object Segmentation. WACV 2020",
        5.75,
        "DAVIS-2017 and YouTube-VOS",
        released=False,
    )

    def __init__(self, settings: RPMNetSettings, context: Context) -> None:
        self.settings: RPMNetSettings = settings
        self.sampler: DeformableSampler | None = None
        super().__init__(settings, context)
        if self.sampler is None and settings.sampling is not None:
            self.sampler = self._build_sampler(settings.sampling)
        if self.sampler is not None:
            self.sampler.eval().requires_grad_(False).to(context.device)

    def _build_sampler(self, sampling: SamplingSettings) -> DeformableSampler:
        return DeformableSampler(self.encoder.channels, sampling.samples, sampling.dilation)

    def load(self, path: Path) -> None:
        """Load our weights, the sampler's where it is used, strictly."""
        tensors = read_weights(path)
        offsets = {
            name.removeprefix(SAMPLER): tensor
            for name, tensor in tensors.items()
            if name.startswith(SAMPLER)
        }
        rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(SAMPLER)}
        load_strictly(self.encoder, rest, path)
        if self.settings.sampling is not None:
            self.sampler = self._build_sampler(self.settings.sampling)
            load_strictly(self.sampler, offsets, path)
        header = read_header(path) if path.suffix == ".safetensors" else {}
        self.trained_on = regime_from(header)

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> VideoState:
        """As all systems; the previous frame is kept besides."""
        state = super().begin(frame, mask)
        memory = state.memory
        labels = memory.labels[0].T.reshape(1, -1, memory.height, memory.width)
        state.extra = (self.features(frame.image)[None], labels)
        return state

    @torch.inference_mode()
    def step(self, state: VideoState, frame: Frame) -> tuple[VideoState, Tensor]:
        """Copy from the previous frame's samples."""
        if self.sampler is None or self.settings.sampling is None:
            return super().step(state, frame)
        features = self.features(frame.image)[None]
        reference, labels = state.extra
        grid, affinity = self.sampler(features, reference)
        weights = F.softmax(self.settings.sampling.scale * affinity, 1)
        copied = copy_sampled(weights, grid, labels)
        state.extra = (features, copied)
        return state, self.restored(state, copied[0])
