"""Features that methods hand out: named taps, their strides, and the network's own values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.conformance import CHECKS
from bench.gap.representation import representation_of
from bench.method import Context, HasFeatures, LabelRegime, Method, MethodCard, MethodSettings
from bench.propagation import PropagationSettings
from bench.registry import get_method
from methods.adversarial.method import Adversarial
from methods.correspondence.method import Correspondence
from methods.feature_propagation import FeaturePropagation
from methods.pretrained.imagenet import ImageNet
from methods.shls import SHLS

SIZE = (75, 110)
"""No multiple of any stride."""

[CONTRACT] = [check for check in CHECKS if check.title.startswith("features")]

NARROW = {"width": 16, "modulator_width": 8, "decoder_width": 8, "decoder_skip_width": 8}

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "adv segformer": ("adv", {}),
    "adv deeplabv3": ("adv", {"network": {"architecture": "deeplabv3"}}),
    "adv swin": ("adv", {"network": {"architecture": "swin"}}),
    "adv attention": ("adv", {"network": {"time": "attention"}, "short_side": 48}),
    "adv inflate": ("adv", {"network": {"time": "inflate"}}),
    "stages": ("crw", {"encoder": "tiny", "short_side": 48}),
    "projection": ("mast", {"encoder": "mast", "preparation": "lab", "resize": "pad_4"}),
    "unit projection": ("cycletime", {"encoder": "cycletime", "resize": "square", "resize_to": 64}),
    "vidcolor": ("vidcolor", {"encoder": "vidcolor", "preparation": "grey"}),
    "shls": ("shls", {"network": NARROW, "short_side": 48}),
    "shls paper": ("shls", {"network": NARROW | {"variant": "paper"}}),
    "shls bfloat16": ("shls", {"network": NARROW, "precision": "bfloat16"}),
    "imagenet": ("imagenet", {}),
}


def built(name: str, **changes: object) -> Any:
    method, fields = METHODS[name]
    cls = get_method(method)
    settings = cls.Settings.model_validate({"initial": "random", **fields, **changes})
    return cls(settings, Context())


def picture(size: tuple[int, int] = SIZE, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of colour, so that superpixels have something to follow."""
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    rows, columns = (np.arange(side) // 10 for side in size)
    return blocks[rows[:, None] % 12, columns % 16]


def grids(method: HasFeatures, size: tuple[int, int] = SIZE) -> dict[str, tuple[int, int]]:
    found = method.features_at(picture(size), method.feature_taps())
    return {tap: (maps.shape[1], maps.shape[2]) for tap, maps in found.items()}


def cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str) -> None:
    method = built(name)
    assert isinstance(method, Method)
    assert isinstance(method, HasFeatures)
    assert CONTRACT.complaint(method) is None
    representation = representation_of(method)
    assert representation is not None
    assert representation.taps == method.feature_taps()


# ------------------------------------------------------------------ adversarial

STAGES = ("embed", "enc1", "enc2", "enc3", "enc4")


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("adv")])
def test_taps_of_a_segmentation_network(name: str) -> None:
    method: Adversarial = built(name)
    taps = method.feature_taps()
    temporal = ("temporal",) if name == "adv attention" else ()
    assert taps == (*STAGES, *temporal, "neck", "dec")
    working = (48, 70) if name == "adv attention" else SIZE
    strides = method.network.strides
    assert grids(method) == {tap: cells(working, strides[tap]) for tap in taps}
    sizes = method.frames.geometry(SIZE)
    assert sizes.working == working
    still = torch.stack([method.frames.prepare(picture())] * method.frames.clip_frames)[None]
    found = method.features_at(picture(), taps)
    for tap in taps:
        own = method.network.features(still, tap)[method.frames.clip_frames // 2]
        rows, columns = cells(working, strides[tap])
        assert torch.equal(found[tap], own[:, :rows, :columns]), tap


# ------------------------------------------------------------------ correspondence


@pytest.mark.parametrize(
    ("name", "taps", "strides", "working"),
    [
        ("stages", ("layer1", "layer2", "layer3"), (4, 8, 8), (48, 70)),
        ("projection", ("layer1", "layer2", "layer3", "layer4", "projection"), (2, 4, 4, 4, 4),
         (76, 112)),
        ("unit projection", ("layer1", "layer2", "layer3", "projection"), (4, 8, 8, 8), (64, 64)),
        ("vidcolor", ("feature",), (8,), SIZE),
    ],
)  # fmt: skip
def test_taps_of_an_encoder(
    name: str, taps: tuple[str, ...], strides: tuple[int, ...], working: tuple[int, int]
) -> None:
    method: Correspondence = built(name)
    assert method.feature_taps() == taps
    assert method.encoder.stride == strides[-1]
    assert grids(method) == {
        tap: cells(working, stride) for tap, stride in zip(taps, strides, strict=True)
    }
    found = method.features_at(picture(), taps)
    images = method.prepared(picture())
    with torch.inference_mode():
        # What labels are copied along is the last tap, whole.
        assert torch.equal(found[taps[-1]], method.encoder(images)[0])
        assert torch.equal(found[taps[-1]], method.features(picture()))
    seen: dict[str, Tensor] = {}
    for tap in taps:
        if tap.startswith("layer"):
            module = method.encoder.get_submodule(tap)
            module.register_forward_hook(lambda _, __, maps, tap=tap: seen.update({tap: maps[0]}))
    with torch.inference_mode():
        method.encoder(images)
    for tap, maps in seen.items():
        assert torch.equal(found[tap], maps), tap
    assert len(seen) == len([tap for tap in taps if tap.startswith("layer")])


# ------------------------------------------------------------------ SHLS


def shls_pixels(method: SHLS, image: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return (pixels - method.mean) / method.std


@pytest.mark.parametrize("name", ["shls", "shls paper"])
def test_taps_of_shls(name: str) -> None:
    method: SHLS = built(name)
    working = (48, 70) if name == "shls" else SIZE
    taps = ("half", "quarter", "superfeatures")
    assert method.feature_taps() == taps
    strides = {"half": 2, "quarter": 4, "superfeatures": 4}
    assert grids(method) == {tap: cells(working, strides[tap]) for tap in taps}


def test_features_of_shls_are_those_of_its_networks() -> None:
    method: SHLS = built("shls paper")
    image = picture()
    found = method.features_at(image, method.feature_taps())
    superpixels = torch.from_numpy(method._superpixels(image)).long()
    with torch.inference_mode():
        half, quarter = method.network.backbone(shls_pixels(method, image))
        features = method._features(image, superpixels.int().numpy())
    channels = quarter.shape[1]
    torch.testing.assert_close(found["half"], half[0])
    torch.testing.assert_close(found["quarter"][:channels], quarter[0])
    # Area, row and column: rows grow downwards only, columns to the right only.
    info = found["quarter"][channels:]
    assert info.shape[0] == 3
    assert float(info.min()) >= 0
    assert float(info.max()) <= 1
    assert info[1, -1].mean() > info[1, 0].mean() + 0.5
    assert info[2, :, -1].mean() > info[2, :, 0].mean() + 0.5
    # Each cell has the superfeature of the superpixel that its nearest pixel lies in.
    grid = found["superfeatures"].shape[1:]
    assert features.count > 10
    for row in range(grid[0]):
        for column in range(grid[1]):
            y, x = row * SIZE[0] // grid[0], column * SIZE[1] // grid[1]
            expected = features.superfeatures[superpixels[y, x] - 1]
            assert torch.equal(found["superfeatures"][:, row, column], expected)


def test_bfloat16_networks_hand_out_float32() -> None:
    method = built("shls bfloat16")
    found = method.features_at(picture(), method.feature_taps())
    assert {maps.dtype for maps in found.values()} == {torch.float32}
    whole = built("shls bfloat16", precision="float32")
    for tap, maps in whole.features_at(picture(), whole.feature_taps()).items():
        assert F.cosine_similarity(maps.flatten(), found[tap].flatten(), dim=0) > 0.99


# ------------------------------------------------------------------ encoders under the propagator


class Colours(FeaturePropagation):
    """Features are the means of 4 x 4 pixels, in double precision."""

    card = MethodCard("colours", "Colours", "For tests.", LabelRegime())

    def encode(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 4, ceil_mode=True)[0].double()

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // 2, size[1] // 2


def test_what_labels_are_propagated_along_is_a_tap() -> None:
    method = Colours(MethodSettings(), Context(), PropagationSettings())
    assert isinstance(method, Method)
    assert CONTRACT.complaint(method) is None
    assert method.feature_taps() == ("features",)
    assert grids(method) == {"features": cells((37, 55), 4)}
    half = F.interpolate(
        torch.from_numpy(picture()).permute(2, 0, 1)[None].float() / 255,
        (37, 55), mode="bilinear", align_corners=False, antialias=True,
    )  # fmt: skip
    found = method.features_at(picture(), ["features"])["features"]
    torch.testing.assert_close(found, F.avg_pool2d(half, 4, ceil_mode=True)[0])


def test_imagenet_hands_out_the_parts_of_what_it_propagates_on() -> None:
    method: ImageNet = built("imagenet")
    found = method.features_at(picture(), method.feature_taps())
    assert list(found) == ["stride8", "stride16"]
    assert grids(method) == dict.fromkeys(found, cells(SIZE, 8))  # both on the finest grid
    with torch.inference_mode():
        whole = method._features(picture())
    torch.testing.assert_close(torch.cat(list(found.values())), whole)
    assert torch.allclose(found["stride8"].norm(dim=0), torch.tensor(1.0))
    assert list(method.features_at(picture(), ["stride16"])) == ["stride16"]
