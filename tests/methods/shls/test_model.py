"""Networks, soft aggregation, and the model that is trained: losses, gradients, batches."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from methods.shls.losses import nt_xent, sample_triplets
from methods.shls.memory import MemorySettings
from methods.shls.model import Batch, Part, Sample, SHLSModel, collate
from methods.shls.network import NetworkSettings, PerSuperpixelNorm, SHLSNetwork
from methods.shls.offline import PseudoSequences, SequenceSettings, Source
from methods.shls.pooling import majority, paint, shrink_superpixels
from methods.shls.regions import Box, take, take_quarter, window_of
from methods.shls.segmentation import (
    DecoderInputs,
    SegmentationSettings,
    Sequence,
    View,
    aggregate,
    decoder_inputs,
    encode,
)
from methods.shls.superpixels import SuperpixelSettings, split_by_mask
from methods.shls.training import Samples

SIDE = 48

Variant = Literal["paper", "fixed"]
BOTH: tuple[Variant, Variant] = ("fixed", "paper")
PARTS: tuple[Part, ...] = ("backbone", "superfeatures", "modulator", "decoder")

FAST = MemorySettings(kmeans_iterations=10, kmeans_restarts=1)


def network(variant: Variant = "fixed") -> SHLSNetwork:
    torch.manual_seed(0)
    return SHLSNetwork(
        NetworkSettings(
            width=16,
            superfeature_size=8,
            modulator_width=8,
            decoder_width=16,
            decoder_skip_width=8,
            variant=variant,
        )
    )


def model(variant: Variant = "fixed", window: int | None = None, **changes: Any) -> SHLSModel:
    settings = SegmentationSettings(memory=FAST, window=window)
    return SHLSModel(network(variant), settings, (0.45,) * 3, (0.25,) * 3, **changes)


def sample(seed: int = 0, objects: int = 2, length: int = 3) -> Sample:
    """Squares of one colour each that move over a noisy background, on superpixels of 6 x 6."""
    random = np.random.default_rng(seed)
    frames = random.integers(60, 100, (length, SIDE, SIDE, 3))
    labels = np.zeros((length, SIDE, SIDE), np.uint8)
    for number in range(1, objects + 1):
        colour = np.eye(3)[number % 3] * 200 + 40
        y, x = random.integers(4, SIDE - 24, 2)
        for frame in range(length):
            part = (frame, slice(y, y + 15), slice(x + 3 * frame, x + 3 * frame + 13))
            frames[part] = colour + random.integers(-10, 10, (15, 13, 3))
            labels[part] = number
    blocks = np.arange(SIDE) // 6
    grid = (blocks[:, None] * 8 + blocks + 1).astype(np.int32)
    maps = np.stack([grid] * length)
    maps[0], _ = split_by_mask(grid, labels[0])
    return Sample(frames.astype(np.uint8), labels, maps, objects)


def total(losses: dict[str, Tensor]) -> Tensor:
    assert set(losses) == {"metric_loss", "segmentation_loss"}
    return torch.stack(list(losses.values())).sum()


# --- soft aggregation -----------------------------------------------------------------------


@pytest.mark.parametrize("objects", [1, 2, 4])
def test_softmax_of_aggregated_logits_normalises_the_odds(objects: int) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(objects, 5, 7, generator=generator) * 0.98 + 0.01
    found = torch.softmax(aggregate(probabilities), 0)
    for y in range(5):
        for x in range(7):
            own = probabilities[:, y, x].double().tolist()
            shares = [float(np.prod([1 - p for p in own])), *own]
            odds = [share / (1 - share) for share in shares]
            expected = [value / sum(odds) for value in odds]
            assert found[:, y, x].tolist() == pytest.approx(expected, rel=1e-4)


def test_aggregated_logits_are_finite_at_the_extremes() -> None:
    probabilities = torch.tensor([[[0.0, 1.0, 0.0, 1.0]], [[0.0, 0.0, 1.0, 1.0]]])
    probabilities.requires_grad_()
    logits = aggregate(probabilities)
    assert logits.isfinite().all()
    assert logits.abs().max() < 17
    assert logits.argmax(0)[0, :3].tolist() == [0, 1, 2]
    logits.sum().backward()
    assert probabilities.grad is not None
    assert probabilities.grad.isfinite().all()


@torch.inference_mode()
def test_outside_of_all_regions_is_background() -> None:
    """Whatever the decoder says: its windows are put back and nothing else."""
    one = sample()
    made = model().eval()
    features = made.encode(collate([one]))[0]
    sequence = Sequence.begin(
        SegmentationSettings(memory=FAST), True, features[0], one.labels[0], 2
    )
    placed = (Box(3, 14, 5, 16), Box(10, 30, 8, 40))
    inputs, logits = [], []
    nothing = torch.zeros(0)
    for box in placed:
        window = window_of(box, None)
        inputs.append(DecoderInputs(box, window, *[nothing] * 5))
        logits.append(torch.full((2, *window.padded), -9.0))
        logits[-1][1] = 9.0 if box is placed[0] else 4.0
    combined = sequence.combine(logits, inputs)
    found = combined.argmax(0)
    expected = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    placed[1].cut(expected)[:] = 2
    placed[0].cut(expected)[:] = 1  # the more certain one
    assert found.equal(expected)
    assert torch.softmax(combined, 0)[0][expected == 0].min() > 1 - 1e-5


@pytest.mark.parametrize("side", [None, 16])
@torch.inference_mode()
def test_each_view_is_cut_out_of_its_own_frame_at_its_own_region(side: int | None) -> None:
    """Section 3.6: what is cut where, and by which interpolation."""
    one = sample()
    features = model().eval().encode(collate([one]))[0]
    places = (Box(2, 20, 3, 31), Box(5, 40, 6, 30), Box(10, 33, 12, 47))
    first, previous, current = (
        View(frame, box, torch.rand(SIDE, SIDE), torch.rand(frame.count, 4))
        for frame, box in zip(features, places, strict=True)
    )
    window = window_of(current.box, side)

    def cut(maps: Tensor, view: View, mode: str = "bilinear") -> Tensor:
        return take(maps, view.box, window, mode)

    found = decoder_inputs(first, previous, current, side, True)
    assert (found.box, found.window) == (current.box, window)
    for number, view in enumerate((previous, current)):
        assert found.full[number].equal(cut(view.frame.full, view))
        quarter = take_quarter(view.frame.quarter, view.box, window, True)
        assert found.quarter[number].equal(quarter)
        painted = paint(view.attention, view.frame.superpixels)
        assert found.attention[number].equal(cut(painted, view))
    quarter = take_quarter(first.frame.quarter, first.box, window, True)
    assert found.first_quarter.equal(quarter)
    assert found.skip[0].equal(cut(first.mask[None], first, "nearest")[0])
    assert found.skip[1].equal(cut(previous.mask[None], previous)[0])
    assert found.skip[2:].equal(cut(first.frame.full, first))


# --- networks -------------------------------------------------------------------------------


def test_norm_of_one_superpixel_at_a_time_equals_batch_norm_in_a_loop() -> None:
    """In training, for the running statistics, their count, the gradients, and at test."""
    ours, theirs = PerSuperpixelNorm(), nn.BatchNorm1d(1)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.fill_(1.7)
            norm.bias.fill_(-0.3)
    for count in (1, 7, 40):
        rows = torch.randn(count, 8, generator=torch.Generator().manual_seed(count)) * 3 + count
        ours_in, theirs_in = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        found = ours(ours_in)
        expected = torch.cat([theirs(row[None, None])[0] for row in theirs_in])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-5, atol=1e-6)
        assert ours.num_batches_tracked == theirs.num_batches_tracked
        weights = torch.randn(count, 8)
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-3, atol=1e-5)
    rows = torch.randn(5, 8)
    expected = theirs.eval()(rows[:, None])[:, 0]
    torch.testing.assert_close(ours.eval()(rows), expected)


@pytest.mark.parametrize("variant", BOTH)
@torch.inference_mode()
def test_superfeatures_equal_a_loop(variant: Variant) -> None:
    """Superpixel by superpixel; one of them vanishes at a quarter."""
    built = network(variant).eval()
    embedding = built.superfeatures
    ids = torch.from_numpy(sample().superpixels[1]).long()
    ids[1:4, 1:4] = ids.max() + 1  # between the samples
    count = int(ids.max())
    small = shrink_superpixels(ids, (SIDE // 4, SIDE // 4))
    gone = sorted(set(range(1, count + 1)) - set(small.unique().tolist()))
    assert gone
    full = torch.randn(19, SIDE, SIDE)
    quarter = torch.randn(67, SIDE // 4, SIDE // 4)
    found = embedding(full, quarter, ids, small)
    weight, bias = embedding.combine.weight.flatten(), embedding.combine.bias
    for number in range(1, count + 1):
        value = weight[0] * embedding.full(full[:, ids == number].mean(1)[None])[0] + bias
        if number not in gone:
            value += weight[1] * embedding.quarter(quarter[:, small == number].mean(1)[None])[0]
        expected = F.relu(value) if variant == "paper" else value
        torch.testing.assert_close(found[number - 1], expected, rtol=1e-4, atol=1e-5)
    assert (found >= 0).all() == (variant == "paper")


@torch.inference_mode()
def test_superfeatures_are_the_same_in_training_and_at_test_if_fixed() -> None:
    """The authors' are not: their norm is another function."""
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    ids = torch.from_numpy(sample().superpixels[0]).long()
    for variant, same in (("fixed", True), ("paper", False)):
        built = network(variant)
        built.backbone.eval()
        training = encode(built.train(False), images, [ids])[0].superfeatures
        built.superfeatures.train()
        assert encode(built, images, [ids])[0].superfeatures.allclose(training) == same


@torch.inference_mode()
def test_features_of_odd_sizes() -> None:
    """Sizes are rounded up twice, and info is painted at both."""
    ids = torch.arange(1, 45 * 51 + 1).view(45, 51) // 40 + 1
    frame = encode(network().eval(), torch.randn(1, 3, 45, 51), [ids])[0]
    assert frame.half.shape == (16, 23, 26)
    assert frame.quarter.shape == (67, 12, 13)
    assert frame.full.shape == (19, 45, 51)
    assert frame.superfeatures.shape == (int(ids.max()), 8)
    assert frame.full[16:].equal(paint(frame.info, ids))
    whole = frame.full.clone()
    frame.release()
    torch.testing.assert_close(frame.full, whole)


# --- the model ------------------------------------------------------------------------------


def eval_losses(made: SHLSModel, samples: list[Sample]) -> dict[str, float]:
    with torch.no_grad():
        return {name: loss.item() for name, loss in made.eval()(collate(samples)).items()}


@pytest.mark.parametrize("variant", BOTH)
@pytest.mark.parametrize("window", [None, 32])
@pytest.mark.parametrize("across_frames", [False, True])
def test_a_batch_is_its_samples(variant: Variant, window: int | None, across_frames: bool) -> None:
    made = model(variant, window, across_frames=across_frames)
    both = [sample(0, 2), sample(1, 1)]
    torch.manual_seed(0)
    together = eval_losses(made, both)
    torch.manual_seed(0)  # the same triplets
    alone = [eval_losses(made, [one]) for one in both]
    assert abs(alone[0]["segmentation_loss"] - alone[1]["segmentation_loss"]) > 1e-3
    for name, value in together.items():
        assert value == pytest.approx(np.mean([one[name] for one in alone]), rel=1e-4)


@torch.no_grad()
def test_segmentation_loss_equals_frames_one_after_another() -> None:
    """Through :class:`Sequence` alone, as at test, with regions from the true masks."""
    one = sample()
    made = model().eval()
    features = made.encode(collate([one]))[0]
    sequence = Sequence.begin(made.settings, True, features[0], one.labels[0], one.objects)
    expected = []
    for number in (1, 2):
        views = sequence.look(features[number], one.labels[number])[1]
        logits = []
        for item in sequence.inputs(views):
            modulated = made.network.modulator(item.attention, item.full, item.quarter)
            deep = torch.cat([item.first_quarter, *modulated])
            logits.append(made.network.decoder(deep[None], item.skip[None], item.attention[1:])[0])
        combined = sequence.combine(logits, sequence.inputs(views))
        probability = torch.softmax(combined.double(), 0)
        truth = torch.from_numpy(one.labels[number]).long()
        expected.append(-probability.gather(0, truth[None]).log().mean().item())
        sequence.advance(features[number], views, combined)
    assert eval_losses(made, [one])["segmentation_loss"] == pytest.approx(
        np.mean(expected), rel=1e-4
    )


@torch.no_grad()
def test_metric_loss_compares_superpixels_of_one_frame_or_of_all() -> None:
    one = sample()
    batch = collate([one])
    found = {}
    for across in (False, True):
        made = model(across_frames=across).eval()
        frames = made.encode(batch)[0]
        labels = [
            majority(frame.superpixels, torch.from_numpy(one.labels[number]).long(), frame.count, 3)
            for number, frame in enumerate(frames)
        ]
        torch.manual_seed(7)
        if across:
            rows, of_rows = torch.cat([f.superfeatures for f in frames]), torch.cat(labels)
            expected = nt_xent(rows, sample_triplets(of_rows))
        else:
            losses = [
                nt_xent(frame.superfeatures, sample_triplets(of_frame))
                for frame, of_frame in zip(frames, labels, strict=True)
            ]
            expected = torch.stack(losses).mean()
        torch.manual_seed(7)
        found[across] = made.metric_loss([frames], batch)
        torch.testing.assert_close(found[across], expected)
    assert not found[True].allclose(found[False])


def test_weights_of_losses() -> None:
    plain, weighted = model().eval(), model(metric_weight=3, segmentation_weight=0.5).eval()
    torch.manual_seed(0)
    once = eval_losses(plain, [sample()])
    torch.manual_seed(0)
    again = eval_losses(weighted, [sample()])
    assert again["metric_loss"] == pytest.approx(3 * once["metric_loss"])
    assert again["segmentation_loss"] == pytest.approx(0.5 * once["segmentation_loss"])
    assert set(eval_losses(model(metric_weight=0), [sample()])) == {"segmentation_loss"}
    assert set(eval_losses(model(segmentation_weight=0), [sample()])) == {"metric_loss"}


@pytest.mark.parametrize(("forcing", "forced"), [(0.0, False), (1.0, True)])
def test_teacher_forcing_takes_regions_from_the_true_masks(
    forcing: float, forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, told = Sequence.look, []

    def watched(self: Sequence, frame: Any, regions_from: Any = None) -> Any:
        told.append(regions_from)
        return original(self, frame, regions_from)

    monkeypatch.setattr(Sequence, "look", watched)
    one = sample()
    eval_losses(model(teacher_forcing=forcing), [one])
    assert len(told) == 2
    for labels, true in zip(told, one.labels[1:], strict=True):
        if forced:
            np.testing.assert_array_equal(labels, true)
        else:
            assert labels is None


@pytest.mark.parametrize("variant", BOTH)
@pytest.mark.parametrize("forcing", [0.0, 1.0])
def test_every_parameter_gets_a_finite_gradient(variant: Variant, forcing: float) -> None:
    made = model(variant, 32, teacher_forcing=forcing).train()
    total(made(collate([sample(0), sample(1, 1)]))).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("part", PARTS)
def test_frozen_parts_keep_weights_and_running_statistics(part: Part) -> None:
    made = model("paper", 32, frozen=(part,)).train()
    before = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
    wanted = [parameter for parameter in made.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(wanted, lr=1.0)
    total(made(collate([sample()]))).backward()
    optimiser.step()
    changed = {
        name.split(".")[0]
        for name, tensor in made.network.state_dict().items()
        if not tensor.equal(before[name])
    }
    assert changed == set(PARTS) - {part}
    assert all(parameter.grad is None for parameter in getattr(made.network, part).parameters())


@pytest.mark.parametrize("variant", BOTH)
def test_losses_fall(variant: Variant) -> None:
    torch.manual_seed(0)
    made = model(variant, 32, across_frames=True).train()
    batch = collate([sample(0), sample(1)])
    optimiser = torch.optim.Adam(made.parameters(), lr=5e-3)
    steps = []
    for _ in range(15):
        losses = made(batch)
        optimiser.zero_grad()
        total(losses).backward()
        optimiser.step()
        steps.append([loss.item() for loss in losses.values()])
    assert np.isfinite(steps).all()
    metric, segmentation = np.array(steps).T
    assert metric[-3:].mean() < 0.8 * metric[0]
    assert segmentation[-3:].mean() < 0.5 * segmentation[0]


def test_an_object_that_is_absent_later_is_no_error() -> None:
    one = sample(objects=2)
    one.labels[1:][one.labels[1:] == 2] = 0
    losses = model(window=32).train()(collate([one]))
    total(losses).backward()
    assert total(losses).isfinite()


def test_scores_are_the_mean_j_of_objects_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [sample(0, 2), sample(1, 1)]
    both[0].labels[2][both[0].labels[2] == 2] = 0
    shown = [np.roll(one.labels, 2, axis=2) for one in both]
    frame = iter((1, 2))

    def step(self: SHLSModel, sequences: Any, frames: Any, truth: Any, last: bool) -> list[Tensor]:
        assert truth is None  # regions must not come from the answer
        number = next(frame)
        assert last == (number == 2)
        return [
            F.one_hot(torch.from_numpy(labels[number]).long(), 3).permute(2, 0, 1).float()
            for labels in shown
        ]

    monkeypatch.setattr(SHLSModel, "_step", step)
    found = model().eval().validate(collate(both))
    for one, moved, score in zip(both, shown, found, strict=True):
        overlaps = []
        for number in (1, 2):
            for label in set(one.labels[number].ravel().tolist()) - {0}:
                truth, guess = one.labels[number] == label, moved[number] == label
                overlaps.append((truth & guess).sum() / (truth | guess).sum())
        assert score == pytest.approx(np.mean(overlaps))
        assert 0.2 < score < 0.99
    assert len(found) == 2


@pytest.mark.parametrize("variant", BOTH)
def test_validation_changes_no_weights_and_is_repeatable(variant: Variant) -> None:
    made = model(variant).eval()
    batch = collate([sample(0), sample(1, 1)])
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    once = made.validate(batch)
    assert made.validate(batch) == once
    assert len(once) == 2
    assert all(0 <= score <= 1 for score in once)
    assert all(tensor.equal(before[name]) for name, tensor in made.state_dict().items())


# --- samples and batches --------------------------------------------------------------------


def pseudo_samples(length: int = 6) -> Samples:
    """Of discs of one colour each."""
    y, x = np.mgrid[:80, :100]
    sources = []
    for index in range(4):
        disc = np.hypot(y - 40, x - 35 - 10 * index) < 15 + 2 * index
        image = np.where(disc[..., None], np.eye(3)[index % 3] * 200 + 30, 90).astype(np.uint8)
        sources.append(Source(image, np.where(disc, 200, 0).astype(np.uint8)))
    sequences = PseudoSequences(sources, SequenceSettings(size=64), 3)
    return Samples(sequences, SuperpixelSettings(), length)


def test_samples_are_the_same_in_worker_processes() -> None:
    samples = pseudo_samples()
    loader = DataLoader(
        samples, batch_size=2, num_workers=2, collate_fn=collate, multiprocessing_context="fork"
    )
    numbers = 0
    for start, batch in zip((0, 2, 4), loader, strict=True):
        assert isinstance(batch, Batch)
        for offset in (0, 1):
            expected = samples[start + offset]
            assert batch.objects[offset] == expected.objects
            assert batch.frames[offset].equal(torch.from_numpy(expected.frames))
            assert batch.labels[offset].equal(torch.from_numpy(expected.labels))
            assert batch.superpixels[offset].equal(torch.from_numpy(expected.superpixels))
            numbers += 1
    assert numbers == len(samples)


def test_superpixels_of_samples_are_compact_and_pure_in_the_first_frame() -> None:
    samples = pseudo_samples()
    for index in range(3):
        made = samples[index]
        for ids in made.superpixels:
            assert np.unique(ids).tolist() == list(range(1, ids.max() + 1))
        pairs = np.stack([made.superpixels[0], made.labels[0]], -1).reshape(-1, 2)
        assert len(np.unique(pairs, axis=0)) == made.superpixels[0].max()
