"""What a network sees of a video: frames made ready, sliding clips, outputs cut to the frame."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import MethodError
from bench.video import RGB
from methods.adversarial.networks import Output, SegmentationNetwork
from methods.feature_propagation import short_side_size

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in [0, 1]; what all networks of the family are normalised with."""

Size = tuple[int, int]
"""(H, W) in pixels, or (h, w) in cells."""


@dataclass(frozen=True)
class Geometry:
    """The sizes that one video has on its way through a network.

    Attributes:
        native: of the video's frames.
        working: of the frames that are segmented; native, or shrunk.
        padded: of the network's input: ``working`` and a margin on the right and at the bottom.
    """

    native: Size
    working: Size
    padded: Size

    def grid(self, stride: int) -> Size:
        """Cells of a feature map of this stride that see the frame, without those of the margin."""
        return -(-self.working[0] // stride), -(-self.working[1] // stride)

    def cover(self, stride: int) -> Size:
        """What :meth:`grid` covers in native pixels: the frame, and the rest of the last cells."""
        rows, columns = self.grid(stride)
        height = -(-rows * stride * self.native[0] // self.working[0])
        width = -(-columns * stride * self.native[1] // self.working[1])
        return height, width


class SlidingClip:
    """The last frames of a video as a clip with the newest one at its centre.

    A 3D network sees frames on both sides of the one it segments. Frames come one at a time, so
    the later ones are not there yet; the newest frame stands in for them, as the first one does
    for those before the video.

    Args:
        length: T, odd; 1 for 2D networks.
    """

    def __init__(self, length: int) -> None:
        self.reach = length // 2
        self.past: deque[Tensor] = deque(maxlen=self.reach)

    def push(self, frame: Tensor) -> Tensor:
        """Add the next frame ``(3, H, W)``; the clip ``(1, T, 3, H, W)`` around it."""
        known = [*self.past, frame]
        before = [known[0]] * (self.reach + 1 - len(known))
        self.past.append(frame)
        return torch.stack([*before, *known, *[frame] * self.reach])[None]


class FrameNetwork:
    """A trained network with its way of looking at frames; what every protocol works with.

    Args:
        network: in evaluation mode.
        short_side: frames are shrunk to it in pixels; None keeps them.
        clip_frames: T of a 3D network's sliding clip.
        device: where the network lies.
    """

    def __init__(
        self, network: SegmentationNetwork, short_side: int | None, clip_frames: int, device: str
    ) -> None:
        self.network = network
        self.short_side = short_side
        self.clip_frames = clip_frames
        self.device = device
        self.multiple = math.lcm(*network.strides.values())
        self.mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(STD, device=device).view(3, 1, 1)

    @property
    def resolution(self) -> str:
        """Of the frames as the network sees them, for the protocol record."""
        return "native" if self.short_side is None else f"short side {self.short_side}"

    def stride(self, tap: str) -> int:
        """Stride of a tap in pixels.

        Raises:
            MethodError: the network has no such tap.
        """
        if tap not in self.network.strides:
            raise MethodError(
                f"adv.protocol.tap = {tap!r}",
                "a tap that this network does not have",
                f"one of {', '.join(self.network.strides)}",
                "Change the protocol's tap.",
            )
        return self.network.strides[tap]

    # ------------------------------------------------------------------ in

    def geometry(self, native: tuple[int, ...]) -> Geometry:
        """Sizes for a video whose frames are ``(H, W, ...)``."""
        size = (native[0], native[1])
        working = short_side_size(size, self.short_side)
        height, width = (-(-side // self.multiple) * self.multiple for side in working)
        return Geometry(size, working, (height, width))

    def prepare(self, image: RGB) -> Tensor:
        """A frame as the network wants it: float32 ``(3, H, W)``, normalised, shrunk and padded."""
        sizes = self.geometry(image.shape)
        if sizes.working != sizes.native:
            import cv2

            height, width = sizes.working
            shrunk = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            pixels = torch.from_numpy(shrunk)
        else:
            pixels = torch.from_numpy(image)
        frame = pixels.to(self.device).permute(2, 0, 1).float() / 255
        return pad((frame - self.mean) / self.std, sizes.padded)

    def clip(self) -> SlidingClip:
        """An empty clip for a new video."""
        return SlidingClip(self.clip_frames)

    # ------------------------------------------------------------------ out; always the centre

    def features(self, clip: Tensor, tap: str, sizes: Geometry) -> Tensor:
        """Features ``(C, h, w)`` at a tap, on the cells that see the frame."""
        return self.on_frame(self.network.features(clip, tap), tap, sizes)

    def on_frame(self, features: Tensor, tap: str, sizes: Geometry) -> Tensor:
        """The centre frame's part of the network's features ``(T, C, h', w')``: ``(C, h, w)``."""
        rows, columns = sizes.grid(self.stride(tap))
        return features[self.clip_frames // 2, :, :rows, :columns]

    def foreground(self, output: Output, sizes: Geometry) -> Tensor:
        """Probability of foreground ``(H, W)`` at the working size.

        Where there is no foreground head it is one minus the background's probability.
        """
        if output.foreground is not None:
            return self._softmax(output.foreground, sizes)[1]
        return 1 - self.classes(output, sizes)[0]

    def classes(self, output: Output, sizes: Geometry) -> Tensor:
        """Class probabilities ``(C, H, W)`` at the working size, background first.

        Where there is no semantic head the classes are background and foreground.
        """
        logits = output.foreground if output.semantic is None else output.semantic
        assert logits is not None  # every network has a head
        return self._softmax(logits, sizes)

    def _softmax(self, logits: Tensor, sizes: Geometry) -> Tensor:
        height, width = sizes.working
        return logits[self.clip_frames // 2, :, :height, :width].softmax(0)


def pad(maps: Tensor, size: Size) -> Tensor:
    """Maps ``(C, H, W)`` with their last row and column repeated up to a size."""
    margin = (0, size[1] - maps.shape[2], 0, size[0] - maps.shape[1])
    return F.pad(maps[None], margin, mode="replicate")[0] if any(margin) else maps


def to_native(maps: Tensor, sizes: Geometry) -> Tensor:
    """Maps ``(C, H, W)`` from the working to the native size, bilinearly at pixel centres."""
    if sizes.native == sizes.working:
        return maps
    return F.interpolate(maps[None], size=sizes.native, mode="bilinear", align_corners=False)[0]


def object_scores(probabilities: Tensor) -> Tensor:
    """Scores ``(1 + K, H, W)`` of objects with independent probabilities ``(K, H, W)``.

    Background gets one minus the largest of them.
    """
    return torch.cat([1 - probabilities.amax(0, keepdim=True), probabilities])
