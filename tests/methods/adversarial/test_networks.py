"""The networks: taps, 3D from 2D, batch normalisation with two domains, initial weights."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import MethodError
from methods.adversarial.networks import (
    SIZES,
    PerDomainBatchNorm,
    SegmentationNetwork,
    apply_mode,
    build_network,
    freeze_batch_norm,
    merge_domains,
    reestimate,
    set_domain,
)
from methods.adversarial.networks.batch_norm import batch_norms
from methods.adversarial.networks.decoders import mask_norm
from methods.adversarial.networks.network import weighted_self_information
from methods.adversarial.networks.temporal import (
    HEADS,
    ClipLength,
    InflatedConv2d,
    TemporalAttention,
    TemporalShift,
)
from methods.adversarial.settings import NetworkSettings
from methods.pretrained.imagenet import packaged_state

ARCHITECTURES = tuple(SIZES)
OUTPUTS = ("logits", "prob", "ent")


@cache
def _cached(architecture: str, time: str, inflation: str, head: str) -> SegmentationNetwork:
    settings = NetworkSettings(
        architecture=architecture,
        time=time,
        inflation=inflation,
        head=head,
        classes=5,
    )
    return build_network(settings, seed=3)


def network(
    architecture: str, time: str = "none", inflation: str = "center", head: str = "both"
) -> SegmentationNetwork:
    """A copy that a test may change."""
    return copy.deepcopy(_cached(architecture, time, inflation, head))


def clips(batch: int, frames: int, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, 3, height, width, generator=generator)


def disturb(model: nn.Module, size: float = 0.05) -> None:
    """Move all parameters, so that none sits at an initial zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=size)


# Taps


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
def test_channels_and_strides_are_true(architecture: str, size: tuple[int, int]) -> None:
    model = network(architecture, "attention").eval()
    frames = clips(1, 2, *size)
    with torch.no_grad():
        output = model(frames, tuple(model.channels))
    assert set(model.channels) == set(model.strides) == set(output.taps)
    assert {"embed", "enc1", "enc2", "enc3", "enc4", "temporal", "neck", "dec"} < set(output.taps)
    for tap, maps in output.taps.items():
        grid = tuple(-(-side // model.strides[tap]) for side in size)
        assert maps.shape == (2, model.channels[tap], *grid), tap
    assert output.foreground is not None
    assert output.semantic is not None
    assert output.foreground.shape == (2, 2, *size)
    assert output.semantic.shape == (2, 5, *size)


PAPER_SIZES = {
    ("deeplabv3", "r50"): ([64, 256, 512, 1024, 2048, 256, 256], [4, 4, 8, 8, 8, 8, 8]),
    ("segformer", "b0"): ([32, 32, 64, 160, 256, 256, 256], [4, 4, 8, 16, 32, 4, 4]),
    ("segformer", "b1"): ([64, 64, 128, 320, 512, 256, 256], [4, 4, 8, 16, 32, 4, 4]),
    ("segmenter", "s16"): ([384] * 7, [16] * 7),
    ("swin", "t"): ([96, 96, 192, 384, 768, 512, 512], [4, 4, 8, 16, 32, 32, 4]),
}


@pytest.mark.parametrize(("name", "expected"), PAPER_SIZES.items())
def test_paper_sizes(name: tuple[str, str], expected: tuple[list[int], list[int]]) -> None:
    model = build_network(NetworkSettings(architecture=name[0], size=name[1]), seed=0).eval()
    taps = ("embed", "enc1", "enc2", "enc3", "enc4", "neck", "dec")
    assert [model.channels[tap] for tap in taps] == expected[0]
    assert [model.strides[tap] for tap in taps] == expected[1]
    with torch.no_grad():
        output = model(clips(1, 1, 64, 64), taps)
    for tap, channels, stride in zip(taps, *expected, strict=True):
        assert output.taps[tap].shape == (1, channels, 64 // stride, 64 // stride), tap
    assert output.semantic is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_equal_the_taps_of_forward(architecture: str) -> None:
    model = network(architecture, "attention").eval()
    disturb(model)
    frames = clips(1, 2, 32, 32)
    with torch.no_grad():
        taps = model(frames, tuple(model.channels)).taps
        for tap in model.channels:
            # Alone, no later module can have changed the map in place.
            assert torch.equal(model.features(frames, tap), taps[tap]), tap


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_run_no_further_than_the_tap(architecture: str) -> None:
    model = network(architecture, "attention").eval()
    called: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    before: set[str] = set()
    with torch.no_grad():
        for tap in ("embed", "enc1", "enc2", "enc3", "enc4", "temporal", "neck"):
            called.clear()
            model.features(clips(1, 2), tap)
            assert before < set(called), tap
            before = set(called)
            if tap not in ("temporal", "neck"):
                assert all(name.startswith("encoder") for name in called), tap
    assert not any(name.startswith("decoder.classifiers.linear") for name in called)


def test_output_taps_follow_the_main_head() -> None:
    both = network("segformer").eval()
    frames = clips(1, 1)
    with torch.no_grad():
        output = both(frames, OUTPUTS)
        foreground = network("segformer", head="foreground").eval()(frames, OUTPUTS)
    assert output.taps["logits"].shape[1] == 5
    assert foreground.semantic is None
    assert foreground.taps["logits"].shape[1] == 2
    finer = F.interpolate(output.taps["logits"], scale_factor=4, mode="bilinear")
    assert output.semantic is not None
    torch.testing.assert_close(output.semantic, finer)
    probabilities = output.taps["logits"].softmax(1)
    torch.testing.assert_close(output.taps["prob"], probabilities)
    entropy = -(probabilities * probabilities.log2()).sum(1) / torch.tensor(5.0).log2()
    torch.testing.assert_close(output.taps["ent"].sum(1), entropy)


def test_self_information_at_certainty_has_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0]]).view(1, 2, 1, 1).requires_grad_()
    information = weighted_self_information(logits.softmax(1))
    information.sum().backward()
    assert information.abs().max() == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_unknown_taps_are_errors() -> None:
    model = network("segformer")
    with pytest.raises(MethodError, match=r"temporal.*attention"):
        model(clips(1, 1), ("temporal",))
    with pytest.raises(MethodError, match="nowhere"):
        model.features(clips(1, 1), "nowhere")


# Encoders and decoders against mmsegmentation's own forwards


def test_stepwise_encoders_equal_the_whole() -> None:
    frames = clips(1, 2)[0]
    with torch.no_grad():
        for architecture in ("segformer", "segmenter", "swin"):
            encoder = network(architecture).eval().encoder
            disturb(encoder)
            maps = list(encoder.stages(frames))
            whole: Any = encoder.transformer
            if architecture == "segmenter":
                whole.out_indices, whole.out_origin = (0, 1, 2, 3), True
                expected = list(whole(frames))
            else:
                expected = [None, *whole(frames)]
            for index, (ours, theirs) in enumerate(zip(maps, expected, strict=True)):
                if theirs is not None:
                    torch.testing.assert_close(ours, theirs, msg=f"{architecture} {index}")


def test_the_feature_pyramid_equals_the_whole() -> None:
    decoder = network("swin").eval().decoder
    disturb(decoder)
    maps = [torch.randn(2, 24 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(4)]
    with torch.no_grad():
        last = dict(decoder.stages(maps))["dec"]
        torch.testing.assert_close(last, decoder.pyramid._forward_feature(maps))


def test_the_mask_transformer_equals_the_whole() -> None:
    decoder = network("segmenter", head="semantic").eval().decoder
    disturb(decoder)
    maps = torch.randn(2, 128, 4, 6)
    with torch.no_grad():
        logits = dict(decoder.stages([maps]))["semantic"]
        # The original's head has the normalisation of scores that we keep by head.
        decoder.head.mask_norm = decoder.mask_norms["semantic"]
        normalised = decoder.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(logits, decoder.head([normalised]))


def test_timm_encoder_equals_timm() -> None:
    import timm

    encoder = network("deeplabv3").eval().encoder
    disturb(encoder, 0.01)
    reference = timm.create_model(
        "tf_efficientnet_lite0", features_only=True, output_stride=16, pretrained=False
    ).eval()
    weights = list(encoder.state_dict().values())
    names = list(reference.state_dict())
    reference.load_state_dict(dict(zip(names, weights, strict=True)))
    frames = clips(1, 1)[0]
    with torch.no_grad():
        for ours, theirs in zip(encoder.stages(frames), reference(frames), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_mask_scores_of_two_classes_pass_gradient() -> None:
    def gradient(norm: nn.Module) -> float:
        cosines = torch.tensor([[0.9, -0.4]], requires_grad=True)
        norm(cosines)[0, 0].backward()
        assert cosines.grad is not None
        return float(cosines.grad.abs().max())

    assert gradient(nn.LayerNorm(2)) < 1e-4
    assert gradient(mask_norm(2)) > 1
    assert isinstance(mask_norm(3), nn.LayerNorm)


# Gradients, weights, seeds


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("time", ["attention", "inflate", "shift"])
def test_gradient_reaches_every_parameter(architecture: str, time: str) -> None:
    model = network(architecture, time).train()
    disturb(model)
    output = model(clips(2, 2, 32, 32))
    assert output.foreground is not None
    assert output.semantic is not None
    (output.foreground.square().mean() + output.semantic.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        used = parameter.grad[:2] if name == "temporal.time" else parameter.grad
        assert used.isfinite().all(), name
        assert used.abs().max() > 0, name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_seeds_and_strict_round_trip(architecture: str) -> None:
    settings = NetworkSettings(architecture=architecture, time="attention", head="both", classes=5)
    before = torch.get_rng_state()
    first = build_network(settings, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    second = _cached(architecture, "attention", "center", "both")
    for ours, theirs in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    disturb(first)
    other = network(architecture, "attention")
    assert other.load_state_dict(first.state_dict(), strict=True)
    frames = clips(1, 2)
    with torch.no_grad():
        logits = [m.eval()(frames).foreground for m in (first, other)]
    assert torch.equal(*logits)
    # The frame network of the same seed has the same weights.
    plain = _cached(architecture, "none", "center", "both").state_dict()
    assert all(torch.equal(plain[name], second.state_dict()[name]) for name in plain)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameter_groups_divide_the_parameters(architecture: str) -> None:
    model = network(architecture, "attention")
    encoder, rest = model.parameter_groups()
    assert {id(p) for p in encoder} == {id(p) for p in model.encoder.parameters()}
    assert len(encoder) + len(rest) == len(list(model.parameters()))
    assert not {id(p) for p in encoder} & {id(p) for p in rest}


def test_tiny_networks_are_small() -> None:
    counts = {
        name: sum(p.numel() for p in _cached(name, "none", "center", "both").parameters())
        for name in ARCHITECTURES
    }
    assert 0.8e6 < counts["segformer"] < 1.3e6
    assert max(counts.values()) < 5e6
    for name in ARCHITECTURES:
        model = _cached(name, "none", "center", "both")
        assert min(model.channels[tap] for tap in model.channels if tap not in OUTPUTS) >= 16
        assert not any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())


def test_imagenet_weights_are_all_loaded() -> None:
    settings = NetworkSettings(architecture="deeplabv3", initial="imagenet")
    loaded = build_network(settings, seed=0).encoder.state_dict()
    import timm

    packaged = packaged_state(timm.create_model("tf_efficientnet_lite0").state_dict())
    values = list(packaged.values())
    # All but the classifier and the layers after the last map: convolution, normalisation (5).
    assert len(loaded) == len(values) - 8
    for ours, theirs in zip(loaded.values(), values, strict=False):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "segformer", "initial": "imagenet"}, "tf_efficientnet_lite0"),
        ({"architecture": "swin", "size": "t", "initial": "imagenet"}, "'random'"),
        ({"architecture": "deeplabv3", "size": "r50", "initial": "imagenet"}, "'random'"),
        ({"architecture": "deeplabv3", "encoder": "resnet18", "initial": "imagenet"}, "packaged"),
        ({"architecture": "segformer", "encoder": "resnet18"}, "only deeplabv3"),
        ({"architecture": "deeplabv3", "encoder": "no_such_model"}, "no_such_model"),
        ({"architecture": "deeplabv3", "encoder": "vit_tiny_patch16_224"}, "encoder"),
        ({"architecture": "segformer", "size": "b9"}, "tiny, b0, b1"),
    ],
)
def test_what_cannot_be_built_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        build_network(NetworkSettings(**settings), seed=0)


def test_another_timm_encoder() -> None:
    model = build_network(NetworkSettings(architecture="deeplabv3", encoder="resnet18"), seed=0)
    with torch.no_grad():
        maps = model.eval().features(clips(1, 1), "enc4")
    assert maps.shape == (1, 512, 4, 4)


# From 2D to 3D


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("time", "inflation"), [("inflate", "center"), ("inflate", "mean"), ("attention", "center")]
)
def test_clip_networks_start_as_frame_networks(
    architecture: str, time: str, inflation: str
) -> None:
    plain = network(architecture).eval()
    model = network(architecture, time, inflation).eval()
    frames = clips(2, 3, 32, 48)
    if inflation == "mean":
        frames = frames[:, :1].expand(-1, 3, -1, -1, -1)  # a static clip
    with torch.no_grad():
        ours, theirs = model(frames), plain(frames)
    assert theirs.foreground.abs().max() > 1e-3
    assert (ours.foreground - theirs.foreground).abs().max() < 1e-5
    assert (ours.semantic - theirs.semantic).abs().max() < 1e-5
    if inflation == "mean":  # and differs where something moves
        with torch.no_grad():
            moving = clips(2, 3, 32, 48)
            assert (model(moving).foreground - plain(moving).foreground).abs().max() > 1e-4


@pytest.mark.parametrize("time", ["inflate", "attention", "shift"])
def test_frames_of_a_clip_see_each_other_and_clips_do_not(time: str) -> None:
    model = network("segformer", time).eval()
    disturb(model)
    frames = clips(2, 3)
    changed = frames.clone()
    changed[0, 1] += 1
    with torch.no_grad():
        first, second = model(frames).foreground, model(changed).foreground
    difference = (first - second).abs().amax((1, 2, 3))
    assert (difference[:3] > 1e-5).all()
    assert (difference[3:] < 1e-6).all()


@pytest.mark.parametrize("same", [False, True])
def test_inflated_convolution_equals_a_sum_over_frames(same: bool) -> None:
    from timm.layers import Conv2dSame

    if same:
        conv: nn.Conv2d = Conv2dSame(8, 16, 3, stride=2, groups=4)
    else:
        conv = nn.Conv2d(8, 16, 5, stride=2, padding=4, dilation=2, groups=2)
    clip = ClipLength()
    clip.frames = 4
    module = InflatedConv2d(conv, clip, "center")
    disturb(module, 1.0)
    maps = torch.randn(2, 4, 8, 9, 12)
    result = module(maps.flatten(0, 1)).unflatten(0, (2, 4))
    for b in range(2):
        for t in range(4):
            expected = 0
            for offset in range(3):
                with torch.no_grad():
                    conv.weight.copy_(module.weight[:, :, offset])
                frame = maps[b, min(max(t + offset - 1, 0), 3)]
                expected = expected + conv(frame[None])[0] - conv.bias.view(-1, 1, 1)
            expected = expected + conv.bias.view(-1, 1, 1)
            torch.testing.assert_close(result[b, t], expected, rtol=1e-4, atol=1e-4)


def test_temporal_attention_equals_torchs() -> None:
    clip = ClipLength()
    clip.frames = 3
    module = TemporalAttention(16, clip)
    disturb(module, 0.3)
    reference = nn.MultiheadAttention(16, HEADS, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": module.query_key_value.weight,
            "in_proj_bias": module.query_key_value.bias,
            "out_proj.weight": module.projection.weight,
            "out_proj.bias": module.projection.bias,
        }
    )
    maps = torch.randn(2, 3, 16, 4, 5)
    result = module(maps.flatten(0, 1)).unflatten(0, (2, 3))
    for y in range(4):
        for x in range(5):
            tokens = maps[..., y, x]
            inputs = module.norm(tokens) + module.time[:3]
            expected = tokens + reference(inputs, inputs, inputs)[0]
            torch.testing.assert_close(result[..., y, x], expected, rtol=1e-4, atol=1e-5)


def test_temporal_attention_tells_of_clips_that_are_too_long() -> None:
    clip = ClipLength()
    clip.frames = 33
    with pytest.raises(MethodError, match="33 frames"):
        TemporalAttention(16, clip)(torch.zeros(33, 16, 1, 1))


def test_temporal_shift_moves_an_eighth_each_way() -> None:
    clip = ClipLength()
    clip.frames = 3
    maps = torch.randn(2, 3, 16, 2, 2)
    result = TemporalShift(16, clip)(maps.flatten(0, 1)).unflatten(0, (2, 3))
    for t in range(3):
        past = maps[:, t - 1, :2] if t > 0 else torch.zeros(2, 2, 2, 2)
        future = maps[:, t + 1, 2:4] if t < 2 else torch.zeros(2, 2, 2, 2)
        assert torch.equal(result[:, t], torch.cat([past, future, maps[:, t, 4:]], dim=1))


# Batch normalisation


def statistics(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for name, buffer in model.named_buffers() if "running" in name]


def train_steps(model: SegmentationNetwork, steps: int) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.1)
    for step in range(steps):
        for domain in (0, 1):
            model.train()
            set_domain(model, domain)
            output = model(clips(2, 1, 32, 32, seed=step) + domain)
            optimiser.zero_grad()
            output.foreground.square().mean().backward()
            optimiser.step()


@pytest.mark.parametrize("architecture", ["deeplabv3", "segformer"])
@pytest.mark.parametrize("time", ["none", "inflate"])
def test_frozen_statistics_stay_over_training_steps(architecture: str, time: str) -> None:
    model = network(architecture, time, head="foreground")
    apply_mode(model, "frozen")
    model = copy.deepcopy(model)  # as a moving average of the network would
    weights = [p.clone() for norm in batch_norms(model) for p in norm.parameters()]
    before, head = statistics(model), model.decoder.classifiers.linear["foreground"].weight.clone()
    assert before
    train_steps(model, 5)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True))
    after = [p for norm in batch_norms(model) for p in norm.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    assert not torch.equal(head, model.decoder.classifiers.linear["foreground"].weight)
    groups = model.parameter_groups()
    assert sum(map(len, groups)) == sum(p.requires_grad for p in model.parameters())


def test_unfrozen_statistics_move() -> None:
    model = network("deeplabv3", head="foreground")
    before = statistics(model)
    train_steps(model, 1)
    assert not any(torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True))


def test_each_domain_has_statistics_of_its_own() -> None:
    norm = nn.BatchNorm2d(4, momentum=1.0)
    reference = copy.deepcopy(norm)
    model = nn.Sequential(norm)
    apply_mode(model, "per_domain")
    assert isinstance(model[0], PerDomainBatchNorm)
    assert len(list(model.parameters())) == 2  # one scale, one shift
    images, video = torch.randn(8, 4, 5, 5), 3 * torch.randn(8, 4, 5, 5) + 2
    for domain, maps in enumerate((images, video)):
        set_domain(model, domain)
        torch.testing.assert_close(model(maps), reference(maps))
    model = copy.deepcopy(model).eval()
    for domain, maps in enumerate((images, video)):
        set_domain(model, domain)
        fresh = copy.deepcopy(norm).train()
        torch.testing.assert_close(model(maps), fresh(maps), rtol=0.02, atol=0.02)
    with pytest.raises(MethodError, match="two domains"):
        set_domain(model, 2)


@pytest.mark.parametrize("evaluation", ["image", "video", "moving_average"])
def test_merged_domains_give_a_plain_network(evaluation: Any) -> None:
    model = network("deeplabv3", head="foreground")
    apply_mode(model, "per_domain")
    train_steps(model, 1)
    pairs = [m for m in model.modules() if isinstance(m, PerDomainBatchNorm)]
    means = torch.stack([torch.stack([n.running_mean.mean() for n in m.norms]) for m in pairs])
    merge_domains(model, evaluation)
    plain = network("deeplabv3", head="foreground")
    plain.load_state_dict(model.state_dict(), strict=True)
    merged = torch.stack([norm.running_mean.mean() for norm in batch_norms(plain)])
    expected = {"image": means[:, 0], "video": means[:, 1], "moving_average": means.mean(1)}
    torch.testing.assert_close(merged, expected[evaluation])


def test_merged_statistics_are_those_of_the_mixture() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=1.0))
    apply_mode(model, "per_domain")
    images, video = torch.randn(20000, 3), 3 * torch.randn(20000, 3) + 2
    for domain, values in enumerate((images, video)):
        set_domain(model, domain)
        model(values)
    merge_domains(model, "moving_average")
    both = torch.cat([images, video])
    torch.testing.assert_close(model[0].running_mean, both.mean(0))
    torch.testing.assert_close(model[0].running_var, both.var(0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("frozen", [False, True])
def test_reestimated_statistics_are_the_average_of_batches(frozen: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    if frozen:
        freeze_batch_norm(model)
    model.train()
    before = [p.clone() for p in model.parameters()]
    batches = [torch.randn(4, 3, 6, 6) + i for i in range(3)]
    reestimate(model, iter(batches))
    with torch.no_grad():
        hidden = [model[0](batch) for batch in batches]
    torch.testing.assert_close(
        model[1].running_mean, torch.stack([h.mean((0, 2, 3)) for h in hidden]).mean(0)
    )
    torch.testing.assert_close(
        model[1].running_var, torch.stack([h.var((0, 2, 3)) for h in hidden]).mean(0)
    )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert model.training
    assert model[2].training
    assert model[1].momentum == 0.1
    now = statistics(model)
    model.train()
    model(batches[0])
    assert torch.equal(now[0], statistics(model)[0]) == frozen


def test_reestimation_concerns_the_current_domain_alone() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    apply_mode(model, "per_domain")
    model(torch.randn(4, 3, 5, 5) - 7)
    first, second = model[0].norms
    before = first.running_mean.clone()
    set_domain(model, 1)
    reestimate(model, [torch.randn(4, 3, 5, 5) + 7])
    assert before.abs().min() > 0.3
    assert torch.equal(first.running_mean, before)
    assert (second.running_mean - 7).abs().max() < 0.5
    with pytest.raises(MethodError, match="no batch"):
        reestimate(model, [])


def test_a_training_before_does_not_hide_the_parts() -> None:
    from mmengine.registry import DefaultScope

    # Every Runner sets the default scope and leaves it so.
    with DefaultScope.overwrite_default_scope("mmengine"):
        build_network(NetworkSettings(architecture="segformer", size="tiny"), 0)
        assert DefaultScope.get_current_instance().scope_name == "mmengine"
