"""RPM-Net: labels copied from the previous frame at places that deformable sampling proposes.

Source: Kim et al., RPM-Net, WACV 2020. No code is public and the text leaves most open, so this is
a reading, not a reproduction. The paper's update on the first frame is
:mod:`methods.correspondence.online`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from bench.method import Context, MethodSettings, ProtocolRecord
from bench.registry import register_method
from bench.training import load_strictly, read_header, read_weights, regime_from
from bench.video import Frame, Mask, object_ids
from methods.correspondence.deformable import DeformableSampler, copy_sampled
from methods.correspondence.method import Correspondence, CorrespondenceSettings, VideoState
from methods.correspondence.online import FirstFrame, Networks, OnlineSettings, updated
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
        online: update of the networks on each video's first frame; None for none. It takes a
            second copy of the networks and a few training steps per video.
    """

    sampling: SamplingSettings | None = None
    online: OnlineSettings | None = None

    @model_validator(mode="after")
    def _updatable(self) -> RPMNetSettings:
        if self.online is not None and self.sampling is None:
            raise ValueError("online needs sampling: what is updated are networks that sample")
        return self


@dataclass
class Previous:
    """The previous frame of a video.

    Attributes:
        features: ``(1, C, h, w)``.
        labels: ``(1, L, h, w)``.
        networks: that follow this video.
    """

    features: Tensor
    labels: Tensor
    networks: Networks


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

    def protocol(self) -> ProtocolRecord:
        """With the sampler, what is copied from, and whether the networks are updated."""
        sampling, online = self.settings.sampling, self.settings.online
        record = super().protocol()
        if sampling is None:
            return record
        return ProtocolRecord(
            resolution=record.resolution,
            stride=record.stride,
            memory="1",
            radius=sampling.dilation * (sampling.samples - 1) / 2,
            temperature=1 / sampling.scale,
            label_resize=record.label_resize,
            extra={
                "window": "deformable",
                "selection": "softmax",
                "labels": "soft",
                "online update": "no" if online is None else f"{online.steps} steps",
            },
        )

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

    def begin(self, frame: Frame, mask: Mask) -> VideoState:
        """As all systems; the previous frame is kept besides, and so are networks of the video."""
        state = super().begin(frame, mask)
        networks = self._networks(frame, mask)
        if networks is not None:
            with torch.inference_mode():
                features = networks.encoder(self.prepared(frame.image))
                labels = self.labels(mask, (features.shape[2], features.shape[3]))
            state.extra = Previous(features, labels[None], networks)
        return state

    def _networks(self, frame: Frame, mask: Mask) -> Networks | None:
        """The networks that follow a video; None where it is propagated as by other systems."""
        sampling, online = self.settings.sampling, self.settings.online
        if self.sampler is None or sampling is None:
            return None
        networks = Networks(self.encoder, self.sampler, sampling.scale)
        if online is None:
            return networks
        number = np.zeros(256, np.uint8)
        number[list(object_ids(mask))] = range(1, 1 + len(object_ids(mask)))
        first = FirstFrame(frame.image, number[mask], self.prepared, self.settings.policy)
        return updated(networks, first, online, self.context.seed)

    @torch.inference_mode()
    def step(self, state: VideoState, frame: Frame) -> tuple[VideoState, Tensor]:
        """Copy from the previous frame's samples."""
        previous = state.extra
        if previous is None:
            return super().step(state, frame)
        networks: Networks = previous.networks
        features = networks.encoder(self.prepared(frame.image))
        grid, affinity = networks.sampler(features, previous.features)
        weights = F.softmax(networks.scale * affinity, 1)
        copied = copy_sampled(weights, grid, previous.labels)
        state.extra = Previous(features, copied, networks)
        return state, self.restored(state, copied[0])

    @torch.inference_mode()
    def add_objects(self, state: VideoState, frame: Frame, mask: Mask) -> VideoState:
        """As all systems. The networks do not learn the frames in which objects enter later."""
        state = super().add_objects(state, frame, mask)
        if state.extra is not None:
            labels = state.extra.labels
            new = self.labels(mask, (labels.shape[2], labels.shape[3]))
            state.extra.labels = torch.cat([labels, new[None]], 1)
        return state
