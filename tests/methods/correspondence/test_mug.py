import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from methods.correspondence.pretext.mug import (
    MUGObjective,
    MUGSettings,
    augment,
    frame_losses,
    long_term_loss,
    short_term_loss,
    video_loss,
)
from methods.correspondence.pretext.saliency_head import ExemplarAttention, SaliencyHead

TINY = {"exemplars": 2, "short_side": 40, "crop": 32}


class StagedEncoder(nn.Module):
    """The interface of the real encoder: stages 2, 3 and 4 at stride 8."""

    channels, stride = 16, 8

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 8, 3), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(8, 12, 3, 1, 1), nn.ReLU())
        self.fourth = nn.Sequential(nn.Conv2d(12, 16, 3, 1, 1), nn.ReLU())

    def stage_channels(self, stage):
        return {2: 8, 3: 12, 4: 16}[stage]

    def forward_stages(self, images, stages):
        second = self.stem(images)
        third = self.third(second)
        maps = {2: second, 3: third, 4: self.fourth(third)}
        return {stage: maps[stage] for stage in stages}


def moving_square(length, seed=0):
    """A bright square that moves over noise."""
    random = np.random.default_rng(seed)
    ground = random.integers(60, 120, (40, 56, 3), np.uint8)
    frames = []
    for index in range(length):
        frame = ground.copy()
        frame[12:28, 14 + 2 * index : 30 + 2 * index] = (230, 60, 40)
        frames.append(frame)
    return frames


def striped(length, spacing, seed=0):
    """A video of noisy vertical stripes."""
    random = np.random.default_rng(seed)
    frame = np.full((40, 56, 3), 60.0)
    frame[:, np.arange(56) // spacing % 2 == 0] = 190
    noise = random.normal(0, 10, (length, *frame.shape))
    return list((frame + noise).clip(0, 255).astype(np.uint8))


def batch_of(settings, count=2):
    frames = moving_square(2 + settings.exemplars)
    samples = [augment(frames, np.random.default_rng(s), settings) for s in range(count)]
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def test_frame_losses_equal_loops():
    logits = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    saliency = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    saliency[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    prior, mask = frame_losses(logits, saliency, 0.2, 0.01)
    for sample in range(2):
        distance = entropy = 0.0
        for z, s in zip(logits[sample].flatten(), saliency[sample].flatten(), strict=True):
            kept = min(max(float(s), 0.01), 0.99)
            distance += abs(float(z) - math.log(kept / (1 - kept))) / 12
            probability = 1 / (1 + math.exp(-float(z)))
            entropy -= math.log(probability if s > 0.2 else 1 - probability) / 12
        assert prior[sample].item() == pytest.approx(distance, rel=1e-4)
        assert mask[sample].item() == pytest.approx(entropy, rel=1e-4)


def test_frame_losses_have_their_minimum_at_the_prior():
    saliency = torch.tensor([0.01, 0.99, 0.99, 0.01]).view(1, 1, 2, 2)
    prior, mask = frame_losses(torch.logit(saliency), saliency, 0.2, 0.001)
    assert prior.item() == pytest.approx(0, abs=1e-6)
    assert mask.item() == pytest.approx(-math.log(0.99), rel=1e-3)


def test_attention_equals_loops():
    torch.manual_seed(0)
    attention = ExemplarAttention(4)
    key, keys, values = (torch.randn(*s) for s in [(1, 4, 2, 2), (1, 3, 4, 2, 2), (1, 3, 5, 2, 2)])
    found = attention(key, keys, values).detach()
    memory = [(m, r, c) for m in range(3) for r in range(2) for c in range(2)]
    for row in range(2):
        for column in range(2):
            query = attention.form.weight.detach() @ key[0, :, row, column]
            weights = [math.exp(float(query @ keys[0, m, :, r, c])) for m, r, c in memory]
            read = sum(
                weight / sum(weights) * values[0, m, :, r, c]
                for weight, (m, r, c) in zip(weights, memory, strict=True)
            )
            assert torch.allclose(found[0, :, row, column], read, atol=1e-5)


def test_head_works_with_stages_of_unequal_size():
    head = SaliencyHead((8, 12, 16))
    stages = (torch.randn(2, 8, 10, 12), torch.randn(2, 12, 5, 6), torch.randn(2, 16, 5, 6))
    logits = head(stages, torch.randn(2, 3, 16, 5, 6))
    assert logits.shape == (2, 1, 10, 12)


def test_head_reads_the_exemplars():
    torch.manual_seed(0)
    head = SaliencyHead((8, 12, 16))
    stages = (torch.randn(1, 8, 4, 4), torch.randn(1, 12, 4, 4), torch.randn(1, 16, 4, 4))
    exemplars = torch.randn(1, 3, 16, 4, 4)
    same = head(stages, exemplars)
    assert torch.allclose(head(stages, exemplars.flip(1)), same, atol=1e-5)
    assert not torch.allclose(head(stages, exemplars + 1), same, atol=1e-3)


def test_short_term_loss_is_zero_for_frames_alike_and_cells_distinct():
    features = 40 * torch.eye(16).view(1, 16, 4, 4)
    lab = torch.rand(1, 3, 32, 32)
    assert short_term_loss(features, features, lab, lab).item() == pytest.approx(0, abs=1e-4)
    assert short_term_loss(features, features, lab, -lab).item() > 0.1


def test_long_term_loss_is_zero_for_cells_found_again():
    features = torch.eye(16).view(1, 16, 4, 4)
    moved = features[:, :, torch.randperm(4)]
    assert long_term_loss(features, moved, 0.02).item() == pytest.approx(0, abs=1e-4)
    alike = torch.ones_like(features)
    assert long_term_loss(features, alike, 0.02).item() == pytest.approx(math.log(16), rel=1e-4)


def naive_video_loss(frame, memory, temperature):
    def summary(vectors):
        mean = np.mean(vectors, 0)
        return mean / math.sqrt(sum(value**2 for value in mean))

    def cells(maps):
        return [maps[:, row, column] for row in range(2) for column in range(3)]

    own = [summary(cells(each)) for each in frame.numpy()]
    memories = [summary([v for maps in each for v in cells(maps)]) for each in memory.numpy()]
    losses = []
    for video, vector in enumerate(own):
        scores = [math.exp(float(vector @ other) / temperature) for other in memories]
        losses.append(-math.log(scores[video] / sum(scores)))
    return losses


def test_video_loss_equals_loops():
    generator = torch.Generator().manual_seed(0)
    frame = torch.randn(4, 5, 2, 3, generator=generator)
    memory = torch.randn(4, 3, 5, 2, 3, generator=generator)
    found = video_loss(frame, memory, 0.3)
    assert found.tolist() == pytest.approx(naive_video_loss(frame, memory, 0.3), rel=1e-4)


def test_clips_of_one_video_are_no_negatives_of_each_other():
    generator = torch.Generator().manual_seed(0)
    frame = torch.randn(3, 5, 2, 3, generator=generator)
    memory = torch.randn(3, 2, 5, 2, 3, generator=generator)
    found = video_loss(frame, memory, 0.3, torch.tensor([7, 7, 2]))
    pairs = [(0, 2), (1, 2)]
    expected = [naive_video_loss(frame[list(p)], memory[list(p)], 0.3)[0] for p in pairs]
    expected.append(naive_video_loss(frame, memory, 0.3)[2])
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    alone = video_loss(frame, memory, 0.3, torch.tensor([7, 7, 7]))
    assert alone.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_video_loss_is_small_for_videos_apart_and_log_b_for_videos_alike():
    apart = torch.eye(4)[:, :, None, None].expand(4, 4, 2, 3)
    memory = 5 * apart[:, None].expand(4, 2, 4, 2, 3)
    # Cosines of 1 with the own memory and 0 with the three others.
    expected = math.log(1 + 3 * math.exp(-1 / 0.2))
    assert video_loss(apart, memory, 0.2).tolist() == pytest.approx([expected] * 4, rel=1e-4)
    assert video_loss(apart.roll(1, 0), memory, 0.2).min() > 4
    alike = torch.ones_like(apart)
    found = video_loss(alike, torch.ones_like(memory), 0.2)
    assert found.tolist() == pytest.approx([math.log(4)] * 4, rel=1e-4)
    # The least possible for two videos: opposite memories.
    opposite = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    least = math.log(1 + math.exp(-2 / 0.5))
    found = video_loss(opposite, opposite[:, None], 0.5)
    assert found.tolist() == pytest.approx([least] * 2, rel=1e-4)


def test_video_loss_disregards_where_and_when():
    generator = torch.Generator().manual_seed(0)
    frame = torch.randn(3, 5, 4, 4, generator=generator)
    memory = torch.randn(3, 4, 5, 4, 4, generator=generator)
    moved = frame.roll((1, 2), (2, 3)), memory.flip(1).roll((2, 1), (3, 4))
    expected = video_loss(frame, memory, 0.1)
    assert torch.allclose(video_loss(*moved, 0.1), expected, atol=1e-5)


def test_video_loss_has_finite_gradients_for_frame_and_memory():
    for scale in (1.0, 1e-4, 1e4):
        frame = (scale * torch.randn(3, 5, 4, 4)).requires_grad_()
        memory = (scale * torch.randn(3, 2, 5, 4, 4)).requires_grad_()
        video_loss(frame, memory, 0.07).sum().backward()
        for each in (frame, memory):
            assert bool(torch.isfinite(each.grad).all())
            assert each.grad.abs().max() > 0


def test_training_on_the_video_loss_tells_videos_apart():
    """New clips of videos trained on are told apart, which they were not before."""
    torch.manual_seed(0)
    settings = MUGSettings(**TINY, prior_weight=0, mask_weight=0, video_weight=1)
    videos = [striped(4, spacing) for spacing in (2, 3, 5, 9)]

    def batch(seed):
        random = np.random.default_rng(seed)
        samples = [augment(video, random, settings) for video in videos]
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    objective = MUGObjective(StagedEncoder(), settings)
    unseen = batch(1000)
    assert objective(unseen)["video"].item() > 0.8
    optimiser = torch.optim.Adam(objective.parameters(), 4e-3)
    clips = [batch(seed) for seed in range(4)]
    for step in range(12):
        optimiser.zero_grad()
        objective(clips[step % 4])["video"].backward()
        optimiser.step()
    for part in (objective.encoder, objective.head.memory.value):
        assert all(bool(torch.isfinite(each.grad).all()) for each in part.parameters())
        assert all(each.grad.abs().max() > 0 for each in part.parameters())
    assert objective(clips[0])["video"].item() < 0.05
    assert objective(unseen)["video"].item() < 0.3


def test_defaults_are_the_released_losses_and_one_video_is_refused():
    objective = MUGObjective(StagedEncoder(), MUGSettings(**TINY))
    assert set(objective(batch_of(objective.settings))) == {"prior", "mask"}
    with pytest.raises(ValidationError, match="batch_size"):
        MUGSettings(video_weight=0.1, batch_size=1)


def test_draw_frames_takes_a_neighbour_and_spreads_the_exemplars():
    settings = MUGSettings(exemplars=4, short_gap=3)
    random = np.random.default_rng(0)
    for _ in range(100):
        frame, neighbour, *exemplars = settings.draw_frames(random, 40)
        assert 1 <= abs(frame - neighbour) <= 3
        assert [number // 10 for number in exemplars] == [0, 1, 2, 3]
    assert all(number < 3 for number in settings.draw_frames(random, 3))


def test_augment_cuts_prior_and_frame_alike():
    sample = augment(moving_square(4), np.random.default_rng(0), MUGSettings(**TINY))
    assert sample["frames"].shape == (4, 3, 32, 32)
    assert sample["saliency"].shape == (1, 32, 32)
    # The square is the reddest thing; 8-bit Lab has that in its second channel.
    square = sample["frames"][0, 1] > 0.25
    saliency = sample["saliency"][0]
    assert saliency[square].mean() > 2 * saliency[~square].mean()


@pytest.mark.parametrize(
    "weights",
    [{}, {"short_term_weight": 0.5, "long_term_weight": 0.2}, {"video_weight": 0.1}],
    ids=["frame", "short and long term", "video"],
)
def test_training_lowers_the_losses_and_gradients_are_finite(weights):
    torch.manual_seed(0)
    settings = MUGSettings(**TINY, **weights)
    batch = batch_of(settings)
    objective = MUGObjective(StagedEncoder(), settings)
    assert len(objective(batch)) == 2 + len(weights)
    optimiser = torch.optim.Adam(objective.parameters(), 4e-3)
    totals = []
    for _ in range(8):
        total = sum(objective(batch).values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.9 * totals[0]
    assert all(bool(torch.isfinite(each.grad).all()) for each in objective.parameters())
    scores = objective.validate(batch)
    assert len(scores) == 2
    losses = objective(batch)
    assert -np.mean(scores) == pytest.approx((losses["prior"] + losses["mask"]).item(), rel=1e-4)
    assert set(objective.exported()) == set(objective.encoder.state_dict())
