"""SHLS under the harness: settings, weights, and the streaming loop over a video (section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.dataset import Dataset
from bench.method import (
    AddsObjects,
    Context,
    HasFeatures,
    LabelRegime,
    Method,
    MethodCard,
    MethodSettings,
    ProtocolRecord,
)
from bench.registry import register_method
from bench.training import (
    TrainingRequest,
    TrainingTask,
    load_strictly,
    parameter_count,
    read_weights,
    regime_from,
)
from bench.video import RGB, Frame, Mask, object_ids
from bench.weights import OwnWeights, TrainedSettings, header_of_file
from methods.feature_propagation import short_side_size
from methods.shls.checkpoint import from_official, is_official
from methods.shls.inference import Precision, dtype_of, ready
from methods.shls.network import NetworkSettings
from methods.shls.pooling import paint, shrink_superpixels
from methods.shls.segmentation import (
    FrameFeatures,
    SegmentationSettings,
    Sequence,
    decode,
    encode,
)
from methods.shls.superpixels import (
    SuperpixelCache,
    SuperpixelMap,
    SuperpixelSettings,
    split_by_mask,
)
from methods.shls.training import SHLSTrainingSettings, build_network, training_task

MEAN, STD = (0.4512, 0.4448, 0.4111), (0.2485, 0.2403, 0.2617)
"""Of DAVIS frames, RGB in [0, 1]; the authors' values at test (section 1.1)."""


class SHLSSettings(TrainedSettings):
    """Settings of ``shls``.

    Attributes:
        network: sizes and variant of the networks; weights belong to one of them.
        segmentation: memory, regions and refinement.
        superpixels: ISEC in the paper.
        short_side: frames are shrunk to this short side in pixels; None keeps the native size.
        superpixel_cache: folder in which superpixels are kept by the frames' content, for runs
            that share them; None computes them each time.
        precision: networks compute in ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 where
            the device is faster with it.
        mean: subtracted from RGB in [0, 1].
        std: divides.
    """

    network: NetworkSettings = NetworkSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    superpixels: SuperpixelSettings = SuperpixelSettings()
    short_side: int | None = None
    superpixel_cache: Path | None = None
    precision: Precision = "float32"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


@dataclass
class VideoState:
    """One video.

    Attributes:
        sequence: what SHLS carries from frame to frame.
        size: (H, W) at which frames are processed.
        ids: the objects' ids in the order of their labels 1 .. K.
    """

    sequence: Sequence
    size: tuple[int, int]
    ids: tuple[int, ...]


@register_method("shls")
class SHLS(OwnWeights, Method, AddsObjects, HasFeatures):
    """Superfeatures in a high-compressed latent space."""

    Settings = SHLSSettings
    packaged = Path(__file__).parent / "weights"
    fitted = ("network",)
    TrainingSettings = SHLSTrainingSettings
    card = MethodCard(
        name="shls",
        title="SHLS",
        description=(
            "Superpixels are described by 32 learned values each and labelled by their nearest "
            "neighbours in a memory; a decoder refines each object. Trained on pseudo-sequences "
            "made of still images, without any human label."
        ),
        regime=LabelRegime(images=10_000, note="MSRA10K without its masks, as published"),
        paper=(
            "Mendonça, Fontinele, Oliveira: SHLS: Superfeatures learned from still images for "
            "self-supervised VOS. BMVC 2023"
        ),
        paper_checkpoint=True,
    )

    def __init__(self, settings: SHLSSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.settings: SHLSSettings = settings
        self.network = build_network(settings.network, context.seed)
        self.superpixel_cache = SuperpixelCache(settings.superpixel_cache)
        self.load_chosen()
        self.parameters = parameter_count(self.network)
        self.refinement_parameters = parameter_count(self.network.modulator)
        self.refinement_parameters += parameter_count(self.network.decoder)
        self.dtype = dtype_of(settings.precision, context.device)
        self.network = ready(self.network, context.device, self.dtype)
        shape = (1, 3, 1, 1)
        self.mean = torch.tensor(settings.mean, device=context.device).view(shape)
        self.std = torch.tensor(settings.std, device=context.device).view(shape)

    @classmethod
    def training_task(
        cls,
        settings: MethodSettings,
        training: MethodSettings,
        data: Rows[Dataset],
        request: TrainingRequest,
    ) -> TrainingTask:
        """Networks, pseudo-sequences and losses; see :mod:`methods.shls.training`."""
        assert isinstance(settings, SHLSSettings)
        assert isinstance(training, SHLSTrainingSettings)
        network = build_network(settings.network, request.seed)
        normalisation = (settings.mean, settings.std)
        return training_task(network, settings.segmentation, normalisation, training, data, request)

    def load(self, path: Path) -> None:
        """Load the authors' file or ours, strictly; see :meth:`FromCheckpoint.load`."""
        tensors = read_weights(path)
        if is_official(tensors):
            tensors = from_official(tensors, path)
            self.trained_on = self.card.regime
        else:
            self.trained_on = regime_from(header_of_file(path))
        load_strictly(self.network, tensors, path)

    def protocol(self) -> ProtocolRecord:
        """Superpixels, memory and resolution."""
        segmentation, side = self.settings.segmentation, self.settings.short_side
        memory = segmentation.memory
        return ProtocolRecord(
            resolution="native" if side is None else f"short side {side}",
            stride=1,
            memory=(
                f"first frame and up to {memory.capacity:g} x its superpixels per class"
                if memory.update
                else "first frame"
            ),
            top_k=memory.neighbours,
            label_resize="superpixels",
            extra={
                "superpixels": self.settings.superpixels.method,
                "variant": self.settings.network.variant,
                "precision": str(self.dtype).removeprefix("torch."),
                "refinement": "decoder" if segmentation.refine else "none",
            },
        )

    def parameters_count(self) -> int:
        """Parameters of all networks, or of those used without refinement."""
        refine = self.settings.segmentation.refine
        return self.parameters - (0 if refine else self.refinement_parameters)

    # ------------------------------------------------------------------ features

    def feature_taps(self) -> tuple[str, ...]:
        """The maps of :class:`methods.shls.segmentation.FrameFeatures`, then superfeatures.

        - ``half``: the backbone's first stage, stride 2, ``width`` channels.
        - ``quarter``: its last stage, stride 4, ``4 width`` channels, and as the network's other
          parts get it, three more: area, row and column of each cell's superpixel.
        - ``superfeatures``: what the memory compares, S values per superpixel, painted on its
          cells of the same grid. Superpixels that have none there are left out.
        """
        return ("half", "quarter", "superfeatures")

    @torch.inference_mode()
    def features_at(self, image: RGB, taps: Rows[str]) -> Mapping[str, Tensor]:
        """Features before any label comes in; superpixels follow the image alone.

        Strides are those of the working size, sizes are rounded up; see
        :meth:`bench.method.HasFeatures.features_at`.
        """
        working = resized(image, short_side_size(image.shape[:2], self.settings.short_side))
        features = self._features(working, self._superpixels(working))
        grid = (features.quarter.shape[1], features.quarter.shape[2])
        cells = shrink_superpixels(features.superpixels, grid)
        found = {
            "half": features.half,
            "quarter": features.quarter,
            "superfeatures": paint(features.superfeatures, cells),
        }
        return {tap: found[tap].float() for tap in taps}  # networks may compute in bfloat16

    # ------------------------------------------------------------------ one frame

    def _superpixels(self, image: RGB) -> SuperpixelMap:
        return self.superpixel_cache.get(image, self.settings.superpixels)

    def _features(self, image: RGB, superpixels: SuperpixelMap) -> FrameFeatures:
        device = self.context.device
        pixels = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255
        pixels = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        ids = torch.from_numpy(superpixels).to(device).long()
        return encode(self.network, pixels, [ids])[0]

    @torch.inference_mode()
    def begin(self, frame: Frame, mask: Mask) -> VideoState:
        """Fill the memory from the first frame; see :meth:`bench.method.Method.begin`."""
        ids = object_ids(mask)
        size = short_side_size(mask.shape, self.settings.short_side)
        labels = shrink_labels(labels_of(mask, ids), size)
        image = resized(frame.image, size)
        superpixels, _ = split_by_mask(self._superpixels(image), labels)
        features = self._features(image, superpixels)
        fixed = self.settings.network.variant == "fixed"
        settings = self.settings.segmentation
        sequence = Sequence.begin(settings, fixed, features, labels, len(ids))
        return VideoState(sequence, size, ids)

    @torch.inference_mode()
    def step(self, state: VideoState, frame: Frame) -> tuple[VideoState, Tensor]:
        """Segment the next frame; scores are aggregated logits."""
        image = resized(frame.image, state.size)
        sequence = state.sequence
        features = self._features(image, self._superpixels(image))
        recall, views = sequence.look(features)
        if self.settings.segmentation.refine:
            inputs = sequence.inputs(views)
            logits = sequence.combine(decode(self.network, inputs), inputs)
        else:
            logits = sequence.presegmentation_logits(recall, features)
        sequence.advance(features, views, logits)
        if frame.image.shape[:2] != state.size:
            native = (frame.image.shape[0], frame.image.shape[1])
            logits = F.interpolate(logits[None], size=native, mode="bilinear", align_corners=False)
            logits = logits[0]
        return state, logits

    @torch.inference_mode()
    def add_objects(self, state: VideoState, frame: Frame, mask: Mask) -> VideoState:
        """Remember new objects; see :meth:`bench.method.AddsObjects.add_objects`."""
        new = object_ids(mask)
        known = len(state.ids)
        given = shrink_labels(labels_of(mask, new, start=known + 1), state.size)
        labels = np.where(given > 0, given, state.sequence.labels).astype(np.uint8)
        image = resized(frame.image, state.size)
        superpixels, _ = split_by_mask(self._superpixels(image), labels)
        state.ids += new
        state.sequence.add(self._features(image, superpixels), labels, len(state.ids))
        return state


def labels_of(mask: Mask, ids: tuple[int, ...], start: int = 1) -> NDArray[np.uint8]:
    """Object ids ``(H, W)`` to labels: ``start`` for the first id, and so on; 0 elsewhere."""
    table = np.zeros(256, np.uint8)
    table[list(ids)] = range(start, start + len(ids))
    return table[mask]


def shrink_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels at a smaller size, by nearest neighbour, none of them lost.

    An object that falls between the samples keeps the pixel nearest to its centre.
    """
    if labels.shape == size:
        return labels
    import cv2

    found = np.asarray(
        cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.uint8
    )
    for lost in np.setdiff1d(labels, found):
        rows, columns = np.nonzero(labels == lost)
        middle = len(rows) // 2
        row = rows[middle] * size[0] // labels.shape[0]
        column = columns[middle] * size[1] // labels.shape[1]
        found[row, column] = lost
    return found


def resized(image: RGB, size: tuple[int, int]) -> RGB:
    """An image at a smaller size (H, W), by area."""
    if image.shape[:2] == size:
        return image
    import cv2

    found = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(found, np.uint8)
