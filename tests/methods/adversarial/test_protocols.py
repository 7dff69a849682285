"""Every way of using a network, on networks whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bench.errors import MethodError
from bench.metrics import region_j
from bench.protocol import labels_of
from bench.video import Mask
from methods.adversarial.networks import build_network
from methods.adversarial.protocols import FrameNetwork, Prompted, SemanticProtocol
from methods.adversarial.protocols.fine_tune import (
    FineTuneProtocol,
    FineTuneSettings,
    TunedVideo,
    augmented,
    balanced_cross_entropy,
)
from methods.adversarial.protocols.foreground import (
    Chains,
    ForegroundProtocol,
    ForegroundSettings,
)
from methods.adversarial.protocols.frames import Geometry, SlidingClip, object_scores
from methods.adversarial.protocols.matching import MatchingProtocol, MatchingSettings
from methods.adversarial.protocols.multi_object import (
    MultiObjectProtocol,
    MultiObjectSettings,
    proposals,
)
from methods.adversarial.protocols.propagation import (
    DINO,
    FeaturePropagationProtocol,
    LabelPropagationSettings,
    PropagationProtocolSettings,
)
from methods.adversarial.protocols.semantic_prior import (
    SemanticPriorProtocol,
    SemanticPriorSettings,
)
from methods.adversarial.settings import NetworkSettings
from tests.methods.adversarial.rigged import frame, moving_square, noise, rigged


def follow(
    protocol: Prompted, images: list[NDArray[np.uint8]], mask: Mask, ids: tuple[int, ...] = (1,)
) -> list[Mask]:
    """Predicted masks of all images after the first."""
    state = protocol.begin(frame(images[0]), mask)
    masks = []
    for index, image in enumerate(images[1:], start=1):
        state, scores = protocol.step(state, frame(image, index))
        assert scores.shape == (1 + len(ids), *mask.shape)
        masks.append(labels_of(scores, ids))
    return masks


def square_j(protocol: Prompted, **changes: Any) -> float:
    """Smallest J over a video of a moving square."""
    video = moving_square(**changes)
    masks = follow(protocol, [image for image, _ in video], video[0][1])
    scores = [region_j(m > 0, truth > 0) for m, (_, truth) in zip(masks, video[1:], strict=True)]
    return float(min(scores))


# ------------------------------------------------------------------ frames


@pytest.mark.parametrize("native", [(33, 57), (64, 64), (1, 40), (97, 31)])
@pytest.mark.parametrize("short_side", [None, 32])
@pytest.mark.parametrize("stride", [1, 4, 16])
def test_grids_cover_the_frame_and_hardly_more(
    native: tuple[int, int], short_side: int | None, stride: int
) -> None:
    sizes = rigged(stride, short_side).geometry(native)
    assert sizes.native == native
    assert min(sizes.working) == min(*native, short_side or 1000)
    for side in (0, 1):
        assert sizes.padded[side] % stride == 0
        assert 0 <= sizes.padded[side] - sizes.working[side] < stride
        cell = math.ceil(stride * native[side] / sizes.working[side])
        assert native[side] <= sizes.cover(stride)[side] <= native[side] + cell
        assert sizes.padded[side] == sizes.grid(stride)[side] * stride


def test_cover_of_unshrunk_frames_is_whole_cells() -> None:
    assert Geometry((33, 57), (33, 57), (64, 64)).cover(8) == (40, 64)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, ["0", "1", "2"]), (3, ["000", "011", "122"]), (5, ["00000", "00111", "01222"])],
)
def test_the_newest_frame_is_the_centre_of_its_clip(length: int, expected: list[str]) -> None:
    clip = SlidingClip(length)
    for number, wanted in enumerate(expected):
        found = clip.push(torch.full((3, 2, 2), float(number)))
        assert found.shape == (1, length, 3, 2, 2)
        assert "".join(str(int(value)) for value in found[0, :, 0, 0, 0]) == wanted


def test_only_the_centre_frame_of_a_clip_counts() -> None:
    video = [image for image, _ in moving_square((32, 48), 16, (0, 4), length=3)]
    mask = moving_square((32, 48), 16, length=1)[0][1]
    for build in (
        lambda f: FeaturePropagationProtocol(f, PropagationProtocolSettings()),
        lambda f: SemanticPriorProtocol(f, SemanticPriorSettings()),
        lambda f: MatchingProtocol(f, MatchingSettings(), 0),
        lambda f: FineTuneProtocol(f, FineTuneSettings(steps=3), 0),
    ):
        one = follow(build(rigged(4)), video, mask)
        three = follow(build(rigged(4, clip_frames=3)), video, mask)
        assert all(map(np.array_equal, one, three))


def test_an_unknown_tap_names_those_there_are() -> None:
    with pytest.raises(MethodError, match="enc3, dec"):
        FeaturePropagationProtocol(rigged(), PropagationProtocolSettings(tap="temporal"))


def test_frames_are_normalised_with_imagenet_statistics() -> None:
    prepared = rigged().prepare(np.full((2, 2, 3), 255, np.uint8))
    assert prepared[:, 0, 0].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    )


# ------------------------------------------------------------------ propagation


def test_radii_cover_the_same_pixels_at_every_stride() -> None:
    settings = LabelPropagationSettings()
    assert (settings.at_stride(8).radius, settings.at_stride(8).radius_first) == (12, 12)
    assert settings.at_stride(16).radius == 6
    assert settings.at_stride(4).radius == 24
    assert settings.at_stride(512).radius == 1
    as_given = LabelPropagationSettings(radius_stride=None)
    assert as_given.at_stride(4) == DINO
    whole = LabelPropagationSettings(propagation=DINO.model_copy(update={"radius_first": None}))
    assert whole.at_stride(4).radius_first is None


def test_propagation_has_the_setting_of_dino() -> None:
    assert (DINO.context, DINO.radius, DINO.top_k, DINO.temperature) == (7, 12, 5, 0.1)
    assert DINO.anchors == (0,)


def test_a_static_clip_keeps_its_first_mask_exactly() -> None:
    image, mask = noise((24, 40), 3), np.zeros((24, 40), np.uint8)
    mask[3:17, 5:20] = 2
    mask[10:22, 18:33] = 7
    mask[12, 25] = 0
    protocol = FeaturePropagationProtocol(
        # Colours of single pixels repeat; those of 3 x 3 pixels do not.
        neighbourhoods(),
        PropagationProtocolSettings(),
    )
    for found in follow(protocol, [image] * 11, mask, (2, 7)):
        assert np.array_equal(found, mask)


def neighbourhoods() -> FrameNetwork:
    """Stride 1, features of 3 x 3 pixels."""
    frames = rigged(1)

    def features(clip: torch.Tensor, tap: str) -> torch.Tensor:
        pixels = clip.flatten(0, 1)
        return F.unfold(pixels, 3, padding=1).view(len(pixels), 27, *pixels.shape[-2:])

    network: Any = frames.network
    network.features = features
    return frames


@pytest.mark.parametrize("short_side", [None, 32])
def test_a_static_clip_keeps_its_mask_on_coarse_cells(short_side: int | None) -> None:
    image, mask = noise((50, 75), 3), np.zeros((50, 75), np.uint8)
    mask[8:31, 11:40] = 1
    protocol = FeaturePropagationProtocol(rigged(4, short_side), PropagationProtocolSettings())
    state = protocol.begin(frame(image), mask)
    once = state.memory.labels[0].T.reshape(2, state.memory.height, state.memory.width)
    expected = labels_of(state.memory.to_frame(once)[:, :50, :75], (1,))
    for index in range(1, 11):
        state, scores = protocol.step(state, frame(image, index))
        found = labels_of(scores, (1,))
        # Shrinking takes contrast away, so that pixels of the edge tip.
        assert np.array_equal(found, expected) or short_side is not None
        assert region_j(found > 0, expected > 0) > 0.93
    assert region_j(expected > 0, mask > 0) > 0.8  # cells of 6 pixels, where it was shrunk


@pytest.mark.parametrize("step", [(4, 4), (1, 3)])
def test_a_translated_square_is_followed(step: tuple[int, int]) -> None:
    protocol = FeaturePropagationProtocol(rigged(1), PropagationProtocolSettings())
    assert square_j(protocol, size=(40, 64), side=16, step=step, length=5) > 0.9


@pytest.mark.parametrize("architecture", ["segformer", "deeplabv3", "segmenter", "swin"])
def test_a_translated_square_is_followed_by_networks_with_random_weights(
    architecture: str,
) -> None:
    network = build_network(NetworkSettings.model_validate({"architecture": architecture}), 0)
    frames = FrameNetwork(network.eval().requires_grad_(False), None, 1, "cpu")
    protocol = FeaturePropagationProtocol(frames, PropagationProtocolSettings(tap="enc1"))
    assert square_j(protocol, size=(96, 128), side=56, step=(8, 8), length=3) > 0.9


# ------------------------------------------------------------------ semantic prior


def test_the_prior_weighs_propagation_by_agreement_of_classes() -> None:
    video = moving_square(length=3)
    frames = rigged(4, semantic=True)
    plain = FeaturePropagationProtocol(frames, PropagationProtocolSettings())
    prior = SemanticPriorProtocol(frames, SemanticPriorSettings(strength=0.7))
    classes = [
        frames.network(frames.prepare(image)[None, None]).semantic[0].softmax(0).double().numpy()
        for image, _ in video
    ]
    mask = video[0][1]
    inside = [[float(c[mask == o].mean()) for c in classes[0]] for o in (0, 1)]  # [object][class]
    first, second = plain.begin(frame(video[0][0]), mask), prior.begin(frame(video[0][0]), mask)
    for index in (1, 2):
        first, unweighted = plain.step(first, frame(video[index][0], index))
        second, weighted = prior.step(second, frame(video[index][0], index))
        for o in (0, 1):
            agreement = sum(inside[o][c] * classes[index][c] for c in range(4))
            expected = unweighted[o].double().numpy() * agreement**0.7
            assert np.allclose(weighted[o].numpy(), expected, atol=1e-5)


def test_a_prior_without_strength_is_propagation() -> None:
    video = [image for image, _ in moving_square(length=3)]
    mask = moving_square()[0][1]
    frames = rigged(4, short_side=40)
    plain = FeaturePropagationProtocol(frames, PropagationProtocolSettings())
    prior = SemanticPriorProtocol(frames, SemanticPriorSettings(strength=0))
    a, b = plain.begin(frame(video[0]), mask), prior.begin(frame(video[0]), mask)
    for image in video[1:]:
        a, expected = plain.step(a, frame(image))
        b, found = prior.step(b, frame(image))
        assert torch.equal(found, expected)


def test_the_prior_removes_what_is_not_of_the_objects_class() -> None:
    """A green patch on the object's place loses the label that propagation gives it."""
    image, mask = np.full((32, 32, 3), 40, np.uint8), np.zeros((32, 32), np.uint8)
    image[8:24, 8:24] = (255, 40, 40)
    mask[8:24, 8:24] = 1
    later = image.copy()
    later[8:24, 16:24] = (40, 255, 40)
    frames = rigged(4, semantic=True)
    network: Any = frames.network
    colours = network.features
    network.features = lambda clip, tap: colours(clip * 0 + 1, tap)  # the same everywhere
    where = {"propagation": {**DINO.model_dump(), "radius": 0.5, "radius_first": 0.5}}
    plain = FeaturePropagationProtocol(frames, PropagationProtocolSettings.model_validate(where))
    prior = SemanticPriorProtocol(
        frames, SemanticPriorSettings.model_validate({**where, "strength": 1})
    )
    assert follow(plain, [image, later], mask)[0][16, 20] == 1
    found = follow(prior, [image, later], mask)[0]
    assert (found[16, 12], found[16, 20]) == (1, 0)


# ------------------------------------------------------------------ matching


def test_matching_finds_a_distinct_object_wherever_it_is() -> None:
    """It jumps farther than any window of propagation."""
    frames = rigged(4)
    protocol = MatchingProtocol(frames, MatchingSettings(), 0)
    assert square_j(protocol, size=(80, 160), step=(8, 24), length=5) > 0.9


def test_matching_tells_two_objects_apart() -> None:
    image, mask = np.full((48, 64, 3), 30, np.uint8), np.zeros((48, 64), np.uint8)
    image[8:24, 8:24], mask[8:24, 8:24] = (230, 30, 30), 3
    image[24:40, 40:56], mask[24:40, 40:56] = (30, 30, 230), 9
    image = np.clip(image + noise((48, 64), 0, 0, 20), 0, 255).astype(np.uint8)
    swapped, expected = image[:, ::-1].copy(), mask[:, ::-1]
    found = follow(
        MatchingProtocol(rigged(2), MatchingSettings(), 0), [image, swapped], mask, (3, 9)
    )
    assert np.mean(found[0] == expected) > 0.97


def test_prototypes_follow_confident_cells_of_the_previous_frame() -> None:
    protocol = MatchingProtocol(rigged(4), MatchingSettings(), 0)
    video = moving_square(length=2)
    state = protocol.begin(frame(video[0][0]), video[0][1])
    before = state.objects[0].of_object.clone()
    state, _ = protocol.step(state, frame(video[0][0]))
    drawn = state.objects[0].of_object.clone()
    # A darker square: still surely the object, and its cells move the prototypes.
    darker = video[0][0].copy()
    darker[8:32, 8:32] = noise((24, 24), 9, 140, 200)
    state, _ = protocol.step(state, frame(darker))
    assert before.shape == (8, 48)
    assert torch.allclose(drawn.norm(dim=1), torch.ones(8), atol=1e-5)
    assert (state.objects[0].of_object - drawn).abs().max() > 1e-3


@pytest.mark.parametrize("where", [(slice(5, 6), slice(7, 8)), (slice(None), slice(None))])
def test_matching_takes_objects_of_one_pixel_and_of_the_whole_frame(where: Any) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[where] = 1
    image = noise((20, 30), 0)
    protocol = MatchingProtocol(rigged(4), MatchingSettings(), 0)
    found = follow(protocol, [image, image], mask)[0]
    assert found[5, 7] == 1
    assert mask.all() == found.all()


def test_background_is_one_minus_the_likeliest_object() -> None:
    scores = object_scores(torch.tensor([[[0.2, 0.7]], [[0.4, 0.6]]]))
    assert torch.allclose(scores[0], torch.tensor([[0.6, 0.3]]))
    assert scores.argmax(0).tolist() == [[0, 1]]


# ------------------------------------------------------------------ fine-tuning


def tiny_network(**changes: Any) -> FrameNetwork:
    settings = NetworkSettings.model_validate({"architecture": "deeplabv3", **changes})
    network = build_network(settings, 0)
    clip_frames = 1 if settings.time == "none" else 3
    return FrameNetwork(network.eval().requires_grad_(False), None, clip_frames, "cpu")


def tuned(architecture: str, **changes: Any) -> tuple[FrameNetwork, TunedVideo, float]:
    """A network with random weights, what fine-tuning makes of it, and its J on the first frame."""
    network = build_network(NetworkSettings.model_validate({"architecture": architecture}), 0)
    frames = FrameNetwork(network.eval().requires_grad_(False), None, 1, "cpu")
    protocol = FineTuneProtocol(frames, FineTuneSettings.model_validate(changes), 0)
    image, mask = moving_square(size=(64, 64))[0]
    state = protocol.begin(frame(image), mask)
    state, scores = protocol.step(state, frame(image))
    return frames, state, region_j(labels_of(scores, (1,)) > 0, mask > 0)


@pytest.mark.parametrize("classifier", ["linear", "foreground_head"])
def test_fine_tuning_overfits_the_first_frame(classifier: str) -> None:
    rates = {"head_learning_rate": 3e-3, "encoder_learning_rate": 1e-3}
    _, _, untrained = tuned("segformer", classifier=classifier, steps=0)
    _, _, trained = tuned("segformer", classifier=classifier, steps=40, **rates)
    assert untrained < 0.5
    assert trained > 0.9


@pytest.mark.parametrize("classifier", ["linear", "foreground_head"])
def test_fine_tuning_leaves_the_network_and_all_batch_statistics(classifier: str) -> None:
    rates = {"head_learning_rate": 0.1, "encoder_learning_rate": 0.1}
    frames, state, _ = tuned("deeplabv3", classifier=classifier, steps=2, **rates)
    untouched = build_network(frames.network.settings, 0).state_dict()
    after = frames.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in untouched.items())
    copies = {
        name.removeprefix("network.").removeprefix("networks.0."): tensor
        for name, tensor in state.classifiers.state_dict().items()
    }
    running = [name for name in copies if "running" in name]
    assert running
    assert all(torch.equal(copies[name], untouched[name]) for name in running)
    convolutions = [name for name in untouched if untouched[name].ndim == 4 and "encoder" in name]
    assert any(not torch.equal(copies[name], untouched[name]) for name in convolutions)


def test_two_fine_tuned_objects_are_told_apart_and_the_seed_decides() -> None:
    image, mask = np.full((32, 48, 3), 30, np.uint8), np.zeros((32, 48), np.uint8)
    image[4:20, 4:20], mask[4:20, 4:20] = (230, 30, 30), 1
    image[12:28, 28:44], mask[12:28, 28:44] = (30, 30, 230), 2
    settings = FineTuneSettings(steps=80, head_learning_rate=0.1)
    runs = []
    for seed in (0, 0, 1):
        protocol = FineTuneProtocol(rigged(1), settings, seed)
        state = protocol.begin(frame(image), mask)
        runs.append(protocol.step(state, frame(image[:, ::-1].copy()))[1])
    assert np.mean(labels_of(runs[0], (1, 2)) == mask[:, ::-1]) > 0.97
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_balanced_cross_entropy_weighs_object_and_rest_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, generator=generator)
    targets = (torch.rand(2, 5, 6, generator=generator) > 0.8).float()
    weight = (torch.rand(5, 6, generator=generator) > 0.3).float()
    total = 0.0
    for k in range(2):
        sides: dict[bool, list[float]] = {True: [], False: []}
        for y in range(5):
            for x in range(6):
                if weight[y, x]:
                    positive = bool(targets[k, y, x])
                    p = 1 / (1 + math.exp(-float(logits[k, y, x])))
                    sides[positive].append(-math.log(p if positive else 1 - p))
        total += sum(sum(side) / len(side) for side in sides.values()) / 2
    assert float(balanced_cross_entropy(logits, targets, weight)) == pytest.approx(total / 2)


def test_an_object_out_of_view_has_no_positive_loss() -> None:
    logits = torch.zeros(1, 4, 4)
    found = balanced_cross_entropy(logits, torch.zeros(1, 4, 4), torch.ones(4, 4))
    assert float(found) == pytest.approx(math.log(2) / 2)


def test_views_are_flipped_rotated_and_scaled() -> None:
    maps = torch.rand(2, 24, 40, generator=torch.Generator().manual_seed(0))
    flip = FineTuneSettings(rotation=0, scale=(1, 1), flip=1)
    views = augmented(maps, flip, 0)
    assert torch.equal(next(views), maps)
    assert torch.allclose(next(views), maps.flip(2), atol=1e-5)
    small = FineTuneSettings(rotation=0, scale=(0.5, 0.5), flip=0)
    views = augmented(torch.ones(1, 24, 40), small, 0)
    next(views)
    assert float(next(views).sum()) == pytest.approx(24 * 40 / 4, rel=0.02)
    # Rotation keeps shapes: a disc in a wide frame stays a disc of its area.
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = (y**2 + x**2 < 15**2).float()[None]
    turned = FineTuneSettings(rotation=90, scale=(1, 1), flip=0)
    views = augmented(disc, turned, 0)
    for _, view in zip(range(4), views, strict=False):
        assert float((view - disc).abs().mean()) < 0.01


# ------------------------------------------------------------------ foreground


def unprompted_masks(protocol: Any, images: list[NDArray[np.uint8]]) -> list[Mask]:
    state, scores = protocol.begin(frame(images[0]))
    ids = tuple(range(1, len(scores)))
    masks = [labels_of(scores, ids)]
    for index, image in enumerate(images[1:], start=1):
        state, scores = protocol.step(state, frame(image, index))
        assert len(scores) == 1 + len(ids)
        masks.append(labels_of(scores, ids))
    return masks


@pytest.mark.parametrize("heads", [{}, {"semantic": True, "foreground": False}])
def test_a_bright_object_is_found_without_a_mask(heads: dict[str, bool]) -> None:
    video = moving_square(length=4)
    images = [image for image, _ in video]
    masks = unprompted_masks(ForegroundProtocol(rigged(4, **heads), ForegroundSettings()), images)
    for found, (_, truth) in zip(masks, video, strict=True):
        assert region_j(found > 0, truth > 0) > (0.95 if heads else 0.999)


def test_the_threshold_and_the_mean_with_the_previous_frame() -> None:
    def grey(value: int) -> NDArray[np.uint8]:
        return np.full((8, 8, 3), value, np.uint8)

    def probability(value: int) -> float:
        return 1 / (1 + math.exp(-40 * (value / 255 - 0.5)))

    protocol = ForegroundProtocol(rigged(), ForegroundSettings(threshold=0.3, smooth=True))
    state, scores = protocol.begin(frame(grey(130)))
    assert float(scores[1, 0, 0]) == pytest.approx(probability(130), abs=1e-4)
    assert float(scores[0, 0, 0]) == pytest.approx(0.3)
    state, _ = protocol.step(state, frame(grey(120)))
    state, scores = protocol.step(state, frame(grey(140)))
    expected = (probability(120) + probability(140)) / 2
    assert float(scores[1, 0, 0]) == pytest.approx(expected, abs=1e-4)


def test_the_primary_component_gathered_most_probability_over_the_video() -> None:
    first, second, third = (np.zeros((20, 40), np.float32) for _ in range(3))
    first[2:8, 2:8] = 0.9  # 36 pixels
    first[2:7, 20:25] = 0.9  # 25 pixels
    second[3:9, 3:9] = 0.6
    second[2:12, 20:30] = 0.9  # overtakes
    third[3:9, 3:9] = 1.0
    third[2:4, 22:24] = 0.8  # small now, but of the leading chain
    chains = Chains()
    assert chains.primary(first, 0.5)[4, 4]
    assert not chains.primary(second, 0.5)[4, 4]
    kept = chains.primary(third, 0.5)
    assert kept[2, 22]
    assert kept.sum() == 4
    sums = {1: 36 * 0.9 + 36 * 0.6 + 36 * 1.0, 2: 25 * 0.9 + 100 * 0.9 + 4 * 0.8}
    assert chains.gathered == pytest.approx(sums, rel=1e-4)
    assert not chains.primary(np.zeros((20, 40), np.float32), 0.5).any()


def test_only_the_primary_component_is_left() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[4:20, 4:20] = 255
    image[24:28, 36:40] = 255
    every = unprompted_masks(ForegroundProtocol(rigged(), ForegroundSettings()), [image] * 2)
    one = unprompted_masks(
        ForegroundProtocol(rigged(), ForegroundSettings(primary=True)), [image] * 2
    )
    assert [int(mask.sum()) for mask in every] == [272, 272]
    assert [int(mask.sum()) for mask in one] == [256, 256]


# ------------------------------------------------------------------ several objects


def test_two_bright_objects_are_two_proposals_that_keep_their_ids() -> None:
    left = moving_square(step=(4, 4), length=4)
    right = moving_square(step=(0, 0), length=4, seed=5)
    video = []
    for (image, mask), (other, other_mask) in zip(left, right, strict=True):
        shifted, place = np.roll(other, 60, 1), np.roll(other_mask, 60, 1) > 0
        both = np.where(place[..., None], shifted, image)
        video.append((both, np.where(place, 2, mask)))
    protocol = MultiObjectProtocol(rigged(4), MultiObjectSettings())
    masks = unprompted_masks(protocol, [image for image, _ in video])
    ids = {int(masks[0][20, 20]): 1, int(masks[0][20, 75]): 2}
    assert set(ids) == {1, 2}
    for found, (_, truth) in zip(masks, video, strict=True):
        for number, true in ids.items():
            assert region_j(found == number, truth == true) > 0.85


def test_proposals_are_components_of_classes_in_order_of_probability() -> None:
    classes = np.zeros((3, 40, 50), np.float32)
    classes[1, 2:8, 2:8] = 0.7
    classes[1, 2:8, 20:26] = 0.9
    classes[2, 20:26, 2:8] = 0.8
    classes[2, 30:31, 30:32] = 0.99  # two pixels: not more than 0.1 % of 2,000
    found = proposals(classes, MultiObjectSettings())
    assert [int(found[y, x]) for y, x in ((4, 22), (22, 4), (4, 4), (30, 30))] == [1, 2, 3, 0]
    assert found.max() == 3
    assert proposals(classes, MultiObjectSettings(most=2)).max() == 2
    many = np.zeros((2, 100, 100), np.float32)
    many[1, ::4, ::4] = 0.8
    assert proposals(many, MultiObjectSettings(smallest=0)).max() == 20


def test_nothing_to_propose_leaves_every_frame_background() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    protocol = MultiObjectProtocol(rigged(4), MultiObjectSettings())
    masks = unprompted_masks(protocol, [image] * 3)
    assert not np.any(masks)


# ------------------------------------------------------------------ classes


def test_the_class_of_every_pixel() -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :8], image[:8, 8:16], image[8:, 16:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    protocol = SemanticProtocol(rigged(4, semantic=True))
    expected = np.zeros((16, 24), np.uint8)
    expected[:8, :8], expected[:8, 8:16], expected[8:, 16:] = 1, 2, 3
    state, scores = protocol.begin(frame(image))
    assert np.array_equal(labels_of(scores, (1, 2, 3)), expected)
    assert torch.allclose(scores.sum(0), torch.ones(16, 24))
    _, scores = protocol.step(state, frame(image, 1))
    assert np.array_equal(labels_of(scores, (1, 2, 3)), expected)
    assert protocol.record().memory == "none"
