"""Encoders, released checkpoints and input preparation, against outputs of the official code."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import MethodError
from bench.training import save_weights
from methods.correspondence.checkpoint import LAYOUTS, load_encoder, load_official
from methods.correspondence.encoder import ENCODERS, TINY, Encoder, EncoderSettings
from methods.correspondence.inputs import (
    PREPARATIONS,
    RESIZE_POLICIES,
    CropToMultiple,
    LongSideToMultiple,
    PadToMultiple,
    ResizePolicy,
    Square,
    lab_bytes,
    prepare,
)
from methods.correspondence.preactivation import (
    EPSILON,
    PreactivationEncoder,
    PreactivationSettings,
    PreactivationUnit,
)
from tests.oracle import rule_weights

# System, preparation, folder, keys of the released file, encoder outputs.
OFFICIAL = [
    ("crw", "rgb_imagenet", "crw", "keys", "encoder"),
    ("uvc", "lightness", "uvc", "keys_full_checkpoint", "encoder"),
    ("cycletime", "rgb_imagenet", "cycletime", "keys_full_checkpoint", "encoder"),
    ("corrflow", "rgb_unit", "corrflow", "keys", "encoder"),
    ("mast", "lab", "mast", "keys", "encoder"),
    ("mamp", "lab", "mamp", "keys", "encoder"),
    ("stt_resnet18_d8", "lab", "stt", "keys_full_model_res18_d8", "encoder_res18_d8"),
    ("stt_resnet18_d4", "lab", "stt", "keys_full_model_res18_d4", "encoder_res18_d4"),
]


@pytest.fixture(scope="module")
def oracle(shared_dir: Path) -> Path:
    folder = shared_dir / "oracle"
    if not folder.is_dir():
        pytest.skip(f"No reference outputs: {folder} is no folder.")
    return folder


def released_names(system: str, names: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as in the released file, where the list of keys differs from it."""
    if system in ("corrflow", "uvc", "cycletime"):
        return {f"module.{name}": tensor for name, tensor in names.items()}
    if system == "crw":
        # Padded convolutions are a sequence of padding and convolution in the file. The stem's
        # and the blocks' 3x3 convolutions are padded.
        stored = {
            name.replace("conv1.weight", "conv1.1.weight").replace(
                "conv2.weight", "conv2.1.weight"
            ): tensor
            for name, tensor in names.items()
        }
        stored["selfsim_fc.0.weight"] = torch.zeros(128, 512)
        stored["encoder.model.layer4.0.conv1.1.weight"] = torch.zeros(512, 256, 3, 3)
        return stored
    return names


def released_file(oracle: Path, system: str, folder: str, keys: str, path: Path) -> Path:
    """A stand-in for the released file, with what lies beside the tensors in such files."""
    shapes = json.loads((oracle / folder / f"{keys}.json").read_text())
    state = released_names(system, rule_weights(shapes))
    outer = "model" if system in ("crw", "dul") else "state_dict"
    beside: dict[str, Any] = {
        "epoch": 14,
        "args": argparse.Namespace(lr=1e-4),
        "best_loss": np.float64(0.5),
        "lr_scheduler": {"milestones": Counter([20, 30])},
    }
    torch.save({outer: state, **beside}, path)
    return path


def prepared_reference(reference: dict[str, np.ndarray]) -> np.ndarray:
    return reference["gray_input"] if "gray_input" in reference else reference["image"]


# ------------------------------------------------------------------------- official outputs


@pytest.mark.parametrize(("system", "preparation", "folder", "keys", "outputs"), OFFICIAL)
def test_official_file_and_frames_give_official_features(
    oracle: Path,
    tmp_path: Path,
    system: str,
    preparation: str,
    folder: str,
    keys: str,
    outputs: str,
) -> None:
    path = released_file(oracle, system, folder, keys, tmp_path / "released.pth.tar")
    encoder = Encoder(ENCODERS[system]).eval()
    load_encoder(encoder, path, system)
    reference = dict(np.load(oracle / folder / f"{outputs}.npz"))
    images = torch.stack([PREPARATIONS[preparation](frame) for frame in reference["frames"]])

    expected_image = prepared_reference(reference)
    np.testing.assert_allclose(
        images.numpy()[:, : expected_image.shape[1]], expected_image, rtol=0, atol=1e-5
    )

    with torch.no_grad():
        found = encoder(images)
    expected = torch.from_numpy(reference["features"])
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_official_dul_file_gives_official_stages(oracle: Path, tmp_path: Path) -> None:
    """Unit features of the first frame and un-normalised means of both are stored."""
    path = released_file(oracle, "dul", "dul", "keys", tmp_path / "dul.pth")
    encoder = Encoder(ENCODERS["dul"]).eval()
    load_encoder(encoder, path, "dul")
    reference = dict(np.load(oracle / "dul" / "encoder.npz"))
    images = torch.stack([PREPARATIONS["rgb_imagenet"](frame) for frame in reference["frames"]])
    np.testing.assert_allclose(images.numpy(), reference["image"], rtol=0, atol=1e-5)
    with torch.no_grad():
        stages = encoder.forward_stages(images, (3, 4))
    for stage, maps in stages.items():
        unit = torch.from_numpy(reference[f"res{stage}"])
        assert (F.normalize(maps[:1]) - unit).abs().max() <= 1e-4 * unit.abs().max()
        mean = torch.from_numpy(reference[f"res{stage}_unnormalised_mean"])
        assert (maps.mean((2, 3)) - mean).abs().max() <= 1e-4 * mean.abs().max()


def test_uvc_colour_target_equals_official_lab(oracle: Path) -> None:
    reference = np.load(oracle / "uvc" / "encoder.npz")
    for frame, expected in zip(reference["frames"], reference["lab"], strict=True):
        np.testing.assert_allclose(lab_bytes(frame).numpy(), expected, rtol=0, atol=1e-6)


def test_uvc_label_grid_through_the_working_size_equals_official(oracle: Path) -> None:
    reference = np.load(oracle / "uvc" / "propagate_one_soft.npz")
    mask = np.load(oracle / "clips" / "one.npz")["mask0"]
    policy = LongSideToMultiple(short_side=256)
    working = policy.resize_mask(mask)
    assert working.shape == policy.working_size(*mask.shape) == (256, 448)
    small = np.asarray(Image.fromarray(working).resize((56, 32), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(small, reference["first_label_small"])


def test_cycletime_prepares_frames_and_masks_as_the_official_propagation(
    oracle: Path, tmp_path: Path
) -> None:
    """The official mask of frame 0 is propagated from frame 0 itself, by the plain formulas.

    ImageNet's mean and deviation, which the official training and encoder output have, do not
    enter the official propagation: with them 12 % of the pixels differ.
    """
    reference = np.load(oracle / "cycletime" / "propagate_one.npz")
    clip = np.load(oracle / "clips" / f"{reference['clip']}.npz")
    path = released_file(oracle, "cycletime", "cycletime", "keys", tmp_path / "cycletime.pth.tar")
    encoder = Encoder(ENCODERS["cycletime"]).eval()
    load_encoder(encoder, path, "cycletime")
    policy = Square(320)
    one_hot = np.eye(2, dtype=np.float32)[policy.resize_mask(clip["mask0"])]
    labels = torch.from_numpy(cv2.resize(one_hot, (40, 40))).reshape(1600, 2)

    agreement = {}
    for preparation in ("rgb_unit", "rgb_imagenet"):
        with torch.no_grad():
            unit = encoder(prepare(clip["frames"][0], preparation, policy)[None])[0].flatten(1)
        values, places = (unit.T @ unit * 512**0.5).softmax(0).topk(5, 0)
        copied = (values[..., None] * labels[places]).sum(0)
        low, high = copied.amin(0), copied.amax(0)
        scores = ((copied - low) / (high - low)).reshape(40, 40, 2).numpy()
        found = cv2.resize(scores, (320, 320)).argmax(-1)
        agreement[preparation] = (found == reference["ids_crop"][0]).mean()
    assert agreement["rgb_unit"] >= 0.999
    assert agreement["rgb_imagenet"] < 0.9

    ids = torch.from_numpy(reference["ids_crop"])
    back = policy.restore_scores(ids, *reference["ids"].shape[1:])
    np.testing.assert_array_equal(back.numpy(), reference["ids"])


def test_uvc_prepares_frames_as_the_official_propagation(oracle: Path, tmp_path: Path) -> None:
    """The official mask of frame 1 is propagated from frame 0 alone, by the plain formulas."""
    reference = np.load(oracle / "uvc" / "propagate_one_soft.npz")
    told = json.loads(str(reference["settings"]))
    clip = np.load(oracle / "clips" / f"{reference['clip']}.npz")
    shapes = json.loads((oracle / "uvc" / "keys_full_checkpoint.json").read_text())
    path = tmp_path / "uvc.pth"
    torch.save({"state_dict": rule_weights(shapes, told["scale"], told["override"])}, path)
    encoder = Encoder(ENCODERS["uvc"]).eval()
    load_encoder(encoder, path, "uvc")
    policy = LongSideToMultiple(short_side=256)
    with torch.no_grad():
        first, second = (
            encoder(prepare(frame, "lightness", policy)[None])[0].flatten(1)
            for frame in clip["frames"][:2]
        )
    values, places = (first.T @ second).softmax(0).topk(5, 0)
    labels = torch.eye(2)[torch.from_numpy(reference["first_label_small"]).long().flatten()]
    copied = (values[..., None] * labels[places]).sum(0).T.reshape(1, 2, 32, 56)
    scores = F.interpolate(copied, scale_factor=8, mode="bilinear")[0]
    low, high = scores.amin((1, 2), True), scores.amax((1, 2), True)
    native = policy.restore_scores((scores - low) / (high - low), 240, 427)
    assert (native.argmax(0).numpy() == reference["ids"][1]).mean() >= 0.999


def test_corrflow_shift_is_the_official_one(oracle: Path) -> None:
    reference = np.load(oracle / "corrflow" / "propagate_one_soft.npz")
    ids = reference["ids"]
    predicted = torch.from_numpy(ids[:, :, 3:-3])
    height, width = 240, 427
    assert tuple(predicted.shape[1:]) == RESIZE_POLICIES["crop_8"].working_size(height, width)
    shifted = RESIZE_POLICIES["crop_8_shifted"].restore_scores(predicted, height, width)
    np.testing.assert_array_equal(shifted.numpy(), ids[:, :, :width])
    straight = RESIZE_POLICIES["crop_8"].restore_scores(predicted, height, width)
    np.testing.assert_array_equal(straight.numpy(), ids[:, :, 3 : 3 + width])


# ------------------------------------------------------------------------------- checkpoints


def to_mmcv(name: str) -> str:
    """A torchvision name as mmcv's ResNet has it, which wraps convolution and normalisation."""
    parts = name.split(".")
    kinds = {"conv": "conv", "bn": "bn"}
    if "downsample" in parts:
        kind = "conv" if parts[3] == "0" else "bn"
        return ".".join(["backbone", *parts[:3], kind, parts[-1]])
    module = parts[-2]
    kind, number = kinds[module[:-1]], module[-1]
    return ".".join(["backbone", *parts[:-2], f"conv{number}", kind, parts[-1]])


@pytest.mark.parametrize("last_stage", [3, 4])
def test_stt_resnet50_names_round_trip(tmp_path: Path, last_stage: int) -> None:
    settings = ENCODERS["stt_resnet50_d8"].model_copy(
        update={"widths": (4, 8, 16, 32), "last_stage": 4}
    )
    state = Encoder(settings).state_dict()
    stored = {to_mmcv(name): tensor for name, tensor in state.items()}
    assert "backbone.layer1.0.downsample.conv.weight" in stored
    assert "backbone.layer3.5.conv3.bn.running_var" in stored
    stored |= {"iteration": torch.tensor([5.0]), "backbone_t.conv1.conv.weight": torch.zeros(1)}
    path = tmp_path / "res50.pth"
    torch.save({"meta": {"epoch": 800}, "state_dict": stored}, path)

    official = load_official(path, "stt_resnet50_d8")
    assert official.keys() == state.keys()
    encoder = Encoder(settings.model_copy(update={"last_stage": last_stage}))
    load_encoder(encoder, path, "stt_resnet50_d8")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def tiny_file(path: Path, change: dict[str, Tensor | None]) -> Path:
    """A stand-in for a DUL file of the tiny encoder, with tensors added or (None) taken away."""
    state = {f"fast_net.backbone.{n}": t for n, t in Encoder(TINY).state_dict().items()}
    for name, tensor in change.items():
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    torch.save({"model": state}, path)
    return path


def test_unknown_and_missing_tensors_are_named(tmp_path: Path) -> None:
    missing = tiny_file(tmp_path / "missing.pth", {"fast_net.backbone.layer2.0.conv2.weight": None})
    with pytest.raises(MethodError, match=r"missing tensors \['layer2.0.conv2.weight'\]"):
        load_encoder(Encoder(TINY), missing, "dul")
    unknown = tiny_file(tmp_path / "unknown.pth", {"slow_net.extra.weight": torch.zeros(3)})
    with pytest.raises(MethodError, match=r"unknown tensors \['slow_net.extra.weight'\]"):
        load_encoder(Encoder(TINY), unknown, "dul")
    deeper = tiny_file(
        tmp_path / "deeper.pth", {"fast_net.backbone.layer3.9.conv1.weight": torch.zeros(3)}
    )
    with pytest.raises(MethodError, match=r"unknown tensors \['layer3.9.conv1.weight'\]"):
        load_encoder(Encoder(TINY), deeper, "dul")
    twice = tiny_file(tmp_path / "twice.pth", {"conv1.weight": torch.zeros(24, 3, 7, 7)})
    with pytest.raises(MethodError, match=r"unknown tensors \['conv1.weight'\]"):
        load_official(twice, "dul")
    shape = tiny_file(tmp_path / "shape.pth", {"fast_net.backbone.bn1.weight": torch.zeros(5)})
    with pytest.raises(MethodError, match=r"bn1.weight of shape \(5,\)"):
        load_encoder(Encoder(TINY), shape, "dul")


def test_documented_extras_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    head = tiny_file(tmp_path / "head.pth", {"fast_net.emb_q.conv1.bias": torch.zeros(2)})
    load_encoder(Encoder(TINY), head, "dul")
    # The same head is unknown to another system's file.
    state = {f"encoder.model.{n}": t for n, t in Encoder(TINY).state_dict().items()}
    torch.save({"model": {**state, "fast_net.emb_q.conv1.bias": torch.zeros(2)}}, head)
    with pytest.raises(MethodError, match="emb_q"):
        load_encoder(Encoder(TINY), head, "crw")


def test_batch_counters_may_be_absent_in_official_files_only(tmp_path: Path) -> None:
    counter = "layer1.0.bn1.num_batches_tracked"
    old = tiny_file(tmp_path / "old.pth", {f"fast_net.backbone.{counter}": None})
    encoder = Encoder(TINY)
    load_encoder(encoder, old, "dul")
    assert encoder.state_dict()[counter] == 0
    ours = {name: tensor for name, tensor in encoder.state_dict().items() if name != counter}
    save_weights(tmp_path / "ours.safetensors", ours, {})
    with pytest.raises(MethodError, match=counter):
        load_encoder(encoder, tmp_path / "ours.safetensors", "dul")


def test_own_files_load_for_any_system(tmp_path: Path) -> None:
    trained = Encoder(TINY.model_copy(update={"last_stage": 4}))
    path = tmp_path / "ours.safetensors"
    save_weights(path, trained.state_dict(), {})
    encoder = Encoder(TINY)
    load_encoder(encoder, path, "rpmnet")
    expected = trained.layer3[0].conv1.weight.half().float()
    assert torch.equal(encoder.layer3[0].conv1.weight, expected)

    grey = PreactivationEncoder(PreactivationSettings(widths=(4, 4, 8, 8), channels=4))
    save_weights(path, grey.state_dict(), {})
    load_encoder(grey, path, "vidcolor")
    with pytest.raises(MethodError, match="missing tensors"):
        load_encoder(encoder, path, "vidcolor")


def test_systems_without_a_released_file_say_so(tmp_path: Path) -> None:
    for system in ("rpmnet", "twiaa", "vidcolor", "tiny"):
        assert system not in LAYOUTS
        with pytest.raises(MethodError, match="released no file"):
            load_official(tmp_path / "any.pth", system)


class Surprise:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_pickled_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "code.pth"
    torch.save({"model": {}, "args": Surprise()}, path)
    with pytest.raises(MethodError, match="unreadable"):
        load_official(path, "crw")
    assert "code ran" not in capsys.readouterr().out


# ---------------------------------------------------------------------------------- encoders


def test_channels_and_strides_are_the_systems() -> None:
    expected = {
        "corrflow": (64, 4),
        "cycletime": (512, 8),
        "uvc": (512, 8),
        "rpmnet": (64, 8),
        "mast": (64, 4),
        "mug": (512, 8),
        "crw": (256, 8),
        "dul": (512, 8),
        "twiaa": (512, 8),
        "stt_resnet18_d8": (256, 8),
        "stt_resnet18_d4": (256, 4),
        "stt_resnet50_d8": (1024, 8),
        "stt_resnet50_d4": (1024, 4),
        "mamp": (64, 4),
        "tiny": (128, 8),
    }
    assert ENCODERS.keys() == expected.keys()
    for system, (channels, stride) in expected.items():
        settings = ENCODERS[system]
        assert (settings.channels, settings.stride) == (channels, stride), system


@pytest.mark.parametrize("system", ENCODERS)
def test_features_have_the_promised_shape(system: str) -> None:
    """At a sixteenth of the widths, and at a size that no stride divides."""
    narrow = tuple(max(width // 16, 1) for width in ENCODERS[system].widths)
    encoder = Encoder(ENCODERS[system].model_copy(update={"widths": narrow})).eval()
    height, width = 61, 90
    with torch.no_grad():
        features = encoder(torch.randn(2, 3, height, width))
    cells = (-(-height // encoder.stride), -(-width // encoder.stride))
    assert features.shape == (2, encoder.channels, *cells)


def test_parameter_counts_are_the_published_ones() -> None:
    """In millions, from the table of MAMP."""
    published = {"corrflow": 5, "cycletime": 9, "crw": 3, "mast": 5, "mamp": 5, "rpmnet": 43}
    with torch.device("meta"):
        networks = {system: Encoder(ENCODERS[system]) for system in published}
        counts = {s: sum(p.numel() for p in n.parameters()) for s, n in networks.items()}
        vidcolor = sum(p.numel() for p in PreactivationEncoder().parameters())
    assert {system: round(count / 1e6) for system, count in counts.items()} == published
    assert round(vidcolor / 1e6) == 5


def test_tiny_costs_what_it_says() -> None:
    encoder = Encoder(TINY).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        encoder(torch.zeros(1, 3, 480, 854))
    assert sum(p.numel() for p in encoder.parameters()) == 533_128
    assert round(counter.get_total_flops() / 1e9, 2) == 7.90


def test_stages_and_projection_compose_to_forward() -> None:
    torch.manual_seed(0)
    settings = ENCODERS["cycletime"].model_copy(update={"widths": (4, 4, 8, 8)})
    encoder = Encoder(settings).eval()
    images = torch.randn(2, 3, 33, 41)
    stages = encoder.forward_stages(images, (3, 1))
    assert list(stages) == [3, 1]
    for stage, maps in stages.items():
        stride = settings.stage_stride(stage)
        assert maps.shape == (2, encoder.stage_channels(stage), -(-33 // stride), -(-41 // stride))
    features = encoder(images)
    assert torch.equal(encoder.project(stages[3]), features)
    assert features.min() >= 0
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, 5, 6))


@pytest.mark.parametrize("stages", [(4,), (0,), ()])
def test_stages_that_are_not_there_are_an_error(stages: tuple[int, ...]) -> None:
    with pytest.raises(MethodError, match="forward_stages"):
        Encoder(TINY).forward_stages(torch.zeros(1, 3, 16, 16), stages)


def test_training_layout_of_stt_is_a_setting() -> None:
    settings = TINY.model_copy(update={"pool": "none", "strides": (1, 2, 2, 4), "last_stage": 4})
    stages = Encoder(settings).forward_stages(torch.zeros(2, 3, 64, 64), (2, 3, 4))
    assert [tuple(maps.shape[2:]) for maps in stages.values()] == [(16, 16), (8, 8), (2, 2)]


def test_dilation_replaces_stride() -> None:
    """A dilated stage sees, at every second cell, what the strided stage sees."""
    torch.manual_seed(1)
    strided = EncoderSettings(
        block="bottleneck", layers=(1, 1, 1, 2), widths=(16, 16, 16, 16), strides=(1, 2, 1, 2)
    )
    dilated = strided.model_copy(update={"strides": (1, 2, 1, 1), "dilations": (1, 1, 1, 2)})
    first, second = Encoder(strided).eval(), Encoder(dilated).eval()
    # Only the strided stage has a 1x1 shortcut. Make both shortcuts the identity.
    second.layer4[0].downsample = first.layer4[0].downsample
    second.load_state_dict(first.state_dict())
    second.layer4[0].downsample = None
    first.layer4[0].downsample = torch.nn.MaxPool2d(1, 2)
    images = torch.randn(1, 3, 80, 96)
    torch.testing.assert_close(second(images)[:, :, ::2, ::2], first(images))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValidationError, match="strides must be at least 1"):
        EncoderSettings(strides=(1, 0, 1, 1))
    with pytest.raises(ValidationError, match="bottleneck"):
        EncoderSettings(dilations=(1, 1, 2, 4))
    with pytest.raises(ValidationError):
        EncoderSettings(last_stage=5)


# ------------------------------------------------------------------------------ pre-activation


def naive_normalise(maps: np.ndarray, norm: torch.nn.BatchNorm2d) -> np.ndarray:
    mean, variance, weight, bias = (
        values.detach().double().numpy()[:, None, None]
        for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return np.maximum((maps - mean) / np.sqrt(variance + EPSILON) * weight + bias, 0)


def naive_convolution(maps: np.ndarray, weights: Tensor, stride: int) -> np.ndarray:
    kernel = weights.shape[-1]
    margin = (kernel - 1) // 2
    padded = np.pad(maps, ((0, 0), (margin, margin), (margin, margin)))
    height, width = (-(-size // stride) for size in maps.shape[1:])
    out = np.zeros((weights.shape[0], height, width))
    values = weights.detach().double().numpy()
    for y in range(height):
        for x in range(width):
            window = padded[:, y * stride : y * stride + kernel, x * stride : x * stride + kernel]
            out[:, y, x] = (values * window).sum((1, 2, 3))
    return out


def naive_shortcut(maps: np.ndarray, unit: PreactivationUnit, stride: int) -> np.ndarray:
    channels_in, channels_out = maps.shape[0], unit.bn2.num_features
    if channels_out < channels_in:
        return naive_convolution(maps, unit.shortcut.weight, stride)
    height, width = (-(-size // stride) for size in maps.shape[1:])
    out = np.zeros((channels_out, height, width))
    before = (channels_out - channels_in) // 2
    for y in range(height):
        for x in range(width):
            block = maps[:, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
            out[before : before + channels_in, y, x] = block.mean((1, 2))
    return out


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "kernel", "stride"),
    [(3, 3, 3, 2), (3, 8, 3, 2), (4, 6, 3, 1), (4, 4, 3, 1), (6, 4, 1, 1)],
)
def test_preactivation_unit_equals_naive(
    channels_in: int, channels_out: int, kernel: int, stride: int
) -> None:
    torch.manual_seed(2)
    unit = PreactivationUnit(channels_in, channels_out, kernel, stride).eval()
    for norm in (unit.bn1, unit.bn2):
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.01, 1)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    maps = torch.randn(2, channels_in, 7, 10)
    with torch.no_grad():
        found = unit(maps).double().numpy()
    for single, image in zip(found, maps.double().numpy(), strict=True):
        residual = naive_convolution(naive_normalise(image, unit.bn1), unit.conv1.weight, stride)
        residual = naive_convolution(naive_normalise(residual, unit.bn2), unit.conv2.weight, 1)
        expected = residual + naive_shortcut(image, unit, stride)
        np.testing.assert_allclose(single, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (61, 75), (1, 9)])
def test_preactivation_encoder_has_stride_8(size: tuple[int, int]) -> None:
    encoder = PreactivationEncoder(PreactivationSettings(widths=(4, 8, 8, 8), channels=6)).eval()
    features = encoder(torch.zeros(2, 1, *size))
    assert (encoder.channels, encoder.stride) == (6, 8)
    assert features.shape == (2, 6, *(-(-side // 8) for side in size))


def test_strided_convolutions_are_padded_alike_on_both_sides() -> None:
    """Features of the upper left do not depend on whether the frame's size is even."""
    torch.manual_seed(3)
    stem = PreactivationEncoder(PreactivationSettings(widths=(4, 4, 4, 4))).conv1
    image = torch.randn(1, 1, 33, 33)
    even, odd = stem(image[..., :32, :32]), stem(image)
    torch.testing.assert_close(even[..., :14, :14], odd[..., :14, :14])
    # The first cell is centred on the first pixel.
    impulse = torch.zeros(1, 1, 32, 32)
    impulse[..., 0, 0] = 1
    torch.testing.assert_close(stem(impulse)[0, :, 0, 0], stem.weight[:, 0, 3, 3])


# ------------------------------------------------------------------------------------- inputs


def random_frame(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", PREPARATIONS)
@pytest.mark.parametrize("policy", RESIZE_POLICIES)
def test_prepared_frames_have_the_working_size(name: str, policy: str) -> None:
    frame = random_frame(33, 45)
    image = prepare(frame, name, RESIZE_POLICIES[policy])
    size = RESIZE_POLICIES[policy].working_size(33, 45)
    assert image.shape == (1 if name == "grey" else 3, *size)
    assert image.dtype == torch.float32
    mask = frame[..., 0] // 100
    assert RESIZE_POLICIES[policy].resize_mask(mask).shape == size
    scores = torch.rand(4, *size)
    assert RESIZE_POLICIES[policy].restore_scores(scores, 33, 45).shape == (4, 33, 45)


def test_preparations_of_known_colours() -> None:
    """White, black and pure red, by the definitions of the colour spaces."""
    frame = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)
    lab = PREPARATIONS["lab"](frame)[:, 0].T
    expected = [[1, 0, 0], [-1, 0, 0], [(53.24 - 50) / 50, 80.09 / 127, 67.20 / 127]]
    np.testing.assert_allclose(lab.numpy(), expected, atol=2e-3)
    grey = PREPARATIONS["grey"](frame)[0, 0]
    np.testing.assert_allclose(grey.numpy(), [255 / 128 - 1, -1, round(0.299 * 255) / 128 - 1])
    light = PREPARATIONS["lightness"](frame)[:, 0, 0]
    np.testing.assert_allclose(
        light.numpy(), (255 / 256 - np.array((0.485, 0.456, 0.406))) / (0.229, 0.224, 0.225), 1e-5
    )


@pytest.mark.parametrize(
    ("policy", "native", "working"),
    [
        (ResizePolicy(), (480, 854), (480, 854)),
        (LongSideToMultiple(), (480, 854), (480, 832)),
        (LongSideToMultiple(), (854, 480), (832, 480)),
        (LongSideToMultiple(short_side=256), (240, 427), (256, 448)),
        (LongSideToMultiple(short_side=32), (48, 50), (32, 64)),
        (Square(), (480, 854), (480, 480)),
        (CropToMultiple(), (480, 854), (480, 848)),
        (PadToMultiple(), (480, 854), (480, 856)),
    ],
)
def test_working_sizes(
    policy: ResizePolicy, native: tuple[int, int], working: tuple[int, int]
) -> None:
    assert policy.working_size(*native) == working


@pytest.mark.parametrize("size", [(240, 427), (480, 854), (101, 67), (7, 5)])
def test_nearest_is_that_of_opencv_and_pillow(size: tuple[int, int]) -> None:
    height, width = size
    ids = np.random.default_rng(5).integers(0, 6, size, np.uint8)
    nearest = Image.Resampling.NEAREST
    square = Square(96)
    small = square.resize_mask(ids)
    np.testing.assert_array_equal(small, np.asarray(Image.fromarray(ids).resize((96, 96), nearest)))
    back = square.restore_scores(torch.from_numpy(small), height, width).numpy()
    expected = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(back, expected)

    uvc = LongSideToMultiple(short_side=64)
    small = uvc.resize_mask(ids)
    working = uvc.working_size(height, width)
    expected = cv2.resize(ids, working[::-1], interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(small, expected)
    back = uvc.restore_scores(torch.from_numpy(small), height, width).numpy()
    expected = np.asarray(Image.fromarray(small).resize((width, height), nearest))
    np.testing.assert_array_equal(back, expected)


def test_padding_comes_after_normalisation_and_is_cut_again() -> None:
    frame = random_frame(6, 9)
    policy = RESIZE_POLICIES["pad_4"]
    image = prepare(frame, "lab", policy)
    assert torch.equal(image[:, :6, :9], PREPARATIONS["lab"](frame))
    assert image[:, 6:].abs().sum() == image[:, :, 9:].abs().sum() == 0
    mask = np.full((6, 9), 3, np.uint8)
    padded = policy.resize_mask(mask)
    assert padded.sum() == mask.sum()
    np.testing.assert_array_equal(policy.restore_scores(torch.from_numpy(padded), 6, 9), mask)


def test_crop_repeats_the_border_when_it_comes_back() -> None:
    policy = RESIZE_POLICIES["crop_8"]
    scores = torch.arange(2 * 8 * 16).view(2, 8, 16)
    back = policy.restore_scores(scores, 10, 19)
    assert torch.equal(back[:, :8, :16], scores)
    assert torch.equal(back[:, 9, :16], scores[:, 7])
    assert torch.equal(back[:, :8, 18], scores[:, :, 15])
