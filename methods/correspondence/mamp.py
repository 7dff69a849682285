"""MAMP: remembered frames are moved onto the target by optical flow before they are compared.

Source: Miao et al., Self-Supervised Video Object Segmentation by Motion-Aware Mask Propagation,
ICME 2022. The flow network of the released code, RAFT, was trained with labels of synthetic video.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import MethodError
from bench.method import Context, LabelRegime
from bench.registry import register_method
from bench.training import load_strictly, read_weights
from bench.video import RGB, Frame, Mask
from methods.correspondence.inputs import ResizePolicy
from methods.correspondence.method import (
    Correspondence,
    CorrespondenceSettings,
    VideoState,
    require,
)
from methods.correspondence.systems import make_card
from methods.correspondence.training import training_settings

DISTANT = 15
"""References older than this get more updates of the flow."""

UPDATES, UPDATES_DISTANT = 2, 5

FLOW_STRIDE = 8
"""Of RAFT's own flow field."""


class MAMPSettings(CorrespondenceSettings):
    """Settings of ``mamp``.

    Attributes:
        flow: ``"none"`` aligns nothing; ``"raft"`` runs torchvision's RAFT; ``"precomputed"`` reads
            fields that any flow network made.
        flow_weights: torchvision's state dict of ``raft_large``, for ``"raft"``.
        flow_folder: for ``"precomputed"``: files ``<target>_<reference>.npy``, numbers of frames
            from 0 with five digits; ``(2, h, w)`` on the feature grid, in cells: where to the right
            and down of a target cell its content was in the reference.
    """

    flow: Literal["none", "raft", "precomputed"] = "none"
    flow_weights: Path | None = None
    flow_folder: Path | None = None


@register_method("mamp")
class MAMP(Correspondence):
    """Copies from motion-aligned references."""

    Settings = MAMPSettings
    TrainingSettings = training_settings("mamp")
    card = make_card(
        "mamp",
        "MAMP",
        "MAST's training; at test, references are aligned by optical flow before matching.",
        "Miao et al.: Self-Supervised Video Object Segmentation by Motion-Aware Mask Propagation. "
        "ICME 2022",
        5.67,
        "YouTube-VOS",
    )

    def __init__(self, settings: MAMPSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.settings: MAMPSettings = settings
        self.raft: RaftFlow | None = None
        if settings.flow == "raft":
            path = require(settings.flow_weights, "RAFT weights", "mamp.flow_weights")
            self.raft = RaftFlow(path, context.device)
        if settings.flow == "precomputed":
            require(settings.flow_folder, "a folder of flow fields", "mamp.flow_folder")

    def regime(self) -> LabelRegime:
        """RAFT was trained with labels, which counts."""
        regime = super().regime()
        if self.settings.flow == "none":
            return regime
        return LabelRegime(
            **{
                **regime.__dict__,
                "pretraining": (
                    *regime.pretraining,
                    "optical flow trained on labelled synthetic video",
                ),
            }
        )

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> VideoState:
        """As all systems; with RAFT, frames are kept as well."""
        state = super().begin(frame, mask)
        state.extra = {0: frame.image} if self.raft else {}
        return state

    def flows(self, state: VideoState, frame: Frame) -> Mapping[int, Tensor] | None:
        """Integer flow to every reference, clamped to the map."""
        if self.settings.flow == "none":
            return None
        memory = state.memory
        grid = (memory.height, memory.width)
        found: dict[int, Tensor] = {}
        for reference in memory.referenced():
            if self.raft is None:
                flow = self._read(memory.next, reference, grid)
            else:
                updates = UPDATES_DISTANT if memory.next - reference > DISTANT else UPDATES
                policy = self.settings.policy
                images = (frame.image, state.extra[reference])
                flow = self.raft.flow(*images, policy, grid, self.encoder.stride, updates)
            limit = torch.tensor([memory.width, memory.height], device=flow.device).view(2, 1, 1)
            found[reference] = flow.clamp(-limit, limit).round().long()
        if self.raft is not None:
            state.extra[memory.next] = frame.image
            kept = {*found, memory.next, *memory.settings.anchors}
            reach = memory.next - memory.ring
            state.extra = {n: i for n, i in state.extra.items() if n in kept or n > reach}
        return found

    def _read(self, target: int, reference: int, grid: tuple[int, int]) -> Tensor:
        assert self.settings.flow_folder is not None
        path = self.settings.flow_folder / f"{target:05d}_{reference:05d}.npy"
        try:
            flow = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise MethodError(
                path, f"unreadable: {error}", "a flow field", "Compute it, or set mamp.flow=none."
            ) from error
        if flow.shape != (2, *grid):
            raise MethodError(
                path, f"shape {flow.shape}", f"{(2, *grid)}", "Compute it on the feature grid."
            )
        return torch.from_numpy(flow.astype(np.float32)).to(self.context.device)


class RaftFlow:
    """torchvision's RAFT (Teed and Deng, ECCV 2020), stopped early and read at its own stride.

    Args:
        weights: a state dict of ``torchvision.models.optical_flow.raft_large``.
        device: where it runs.
    """

    def __init__(self, weights: Path, device: str) -> None:
        from torchvision.models.optical_flow import raft_large

        network: nn.Module = raft_large(weights=None)
        load_strictly(network, read_weights(weights), weights)
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device
        self.changes: list[Tensor] = []
        update: nn.Module = network.get_submodule("update_block")
        update.register_forward_hook(lambda module, given, out: self.changes.append(out[1]))

    def flow(
        self,
        target: RGB,
        reference: RGB,
        policy: ResizePolicy,
        grid: tuple[int, int],
        stride: int,
        updates: int,
    ) -> Tensor:
        """Flow ``(2, h, w)`` from target to reference on the feature grid, in its cells.

        Args:
            target: uint8 ``(H, W, 3)``.
            reference: uint8 ``(H, W, 3)``.
            policy: how frames are brought to the size that the encoder sees.
            grid: (h, w) of the features.
            stride: pixels per cell.
            updates: of RAFT's recurrent unit.
        """
        images = [self._image(image, policy) for image in (target, reference)]
        self.changes.clear()
        self.network(*images, num_flow_updates=updates)
        flow = torch.stack(self.changes).sum(0)
        # The released code doubles the field bilinearly instead of by RAFT's learned upsampling.
        size = [-(-side // stride) for side in images[0].shape[-2:]]
        flow = F.interpolate(flow, size, mode="bilinear", align_corners=True)[0]
        return flow[:, : grid[0], : grid[1]] * (FLOW_STRIDE / stride)

    def _image(self, image: RGB, policy: ResizePolicy) -> Tensor:
        pixels = torch.from_numpy(policy.resize_image(image)).permute(2, 0, 1)[None]
        prepared = policy.pad_image(pixels.float().to(self.device) / 127.5 - 1)
        height, width = prepared.shape[-2:]
        return F.pad(prepared, (0, -width % FLOW_STRIDE, 0, -height % FLOW_STRIDE))
