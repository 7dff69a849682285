import itertools
import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn
from torch.testing import assert_close

from bench.errors import MethodError
from methods.correspondence.deformable import DeformableSampler, copy_sampled
from methods.correspondence.encoder import TINY, Encoder
from methods.correspondence.pretext import corrflow, mamp, mast, rpmnet, stt, vidcolor
from methods.correspondence.pretext.clips import collate
from methods.correspondence.pretext.colours import ab, lab_targets, quantise

SIDE = 32


class StandIn(nn.Module):
    """The interface of the real encoder, with stages of stride 4, 8 and 32, or one of stride 8."""

    channels, stride = 16, 8

    def __init__(self, channels_in=3):
        super().__init__()
        self.layer2 = nn.Sequential(
            nn.Conv2d(channels_in, 12, 7, 4, 3, bias=False), nn.BatchNorm2d(12), nn.ReLU()
        )
        self.layer3 = nn.Conv2d(12, 16, 3, 2, 1)
        self.layer4 = nn.Conv2d(16, 16, 3, 4, 1)

    def forward(self, images):
        return self.layer3(self.layer2(images))

    def forward_stages(self, images, stages):
        second = self.layer2(images)
        third = self.layer3(second)
        maps = {2: second, 3: third, 4: self.layer4(third)}
        return {stage: maps[stage] for stage in stages}


class Given(nn.Module):
    """An encoder whose maps are parameters, whatever it sees."""

    def __init__(self, maps, channels=None):
        super().__init__()
        self.maps = nn.Parameter(maps)
        self.channels = channels or maps.shape[1]

    def forward(self, images):
        assert len(images) == len(self.maps)
        return self.maps


class GivenStages(nn.Module):
    """As :class:`Given`, by stage."""

    def __init__(self, maps):
        super().__init__()
        self.maps = nn.ParameterDict(
            {str(stage): nn.Parameter(each) for stage, each in maps.items()}
        )

    def forward_stages(self, images, stages):
        return {stage: self.maps[str(stage)] for stage in stages}


def random_maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distinct_cells(frames, height, width, factor=30.0):
    """Features in which every cell is like itself alone, the same in all frames."""
    cells = torch.eye(height * width).view(1, -1, height, width)
    return factor * cells.expand(frames, -1, -1, -1)


def moving_shapes(length, seed):
    """Two discs that move over a smooth ground."""
    random = np.random.default_rng(seed)
    ground = cv2.resize(random.integers(0, 200, (5, 7, 3), np.uint8), (56, 48))
    places, speeds = random.uniform(12, 36, (2, 2)), random.uniform(-1, 1, (2, 2))
    colours = random.integers(0, 256, (2, 3)).tolist()
    frames = []
    for index in range(length):
        frame = ground.copy()
        for place, speed, colour in zip(places, speeds, colours, strict=True):
            cv2.circle(frame, tuple(int(value) for value in place + index * speed), 7, colour, -1)
        frames.append(frame)
    return frames


SYSTEMS = {
    "vidcolor": (
        vidcolor,
        vidcolor.VidColorSettings(short_side=40, crop=SIDE, cells=4, offsets=(0, 1, 2, 3)),
        vidcolor.VidColorObjective,
    ),
    "corrflow": (
        corrflow,
        corrflow.CorrFlowSettings(size=SIDE, radius=2, sampling_steps=4, jitter_probability=0.5),
        corrflow.CorrFlowObjective,
    ),
    "mast": (mast, mast.MASTSettings(size=SIDE, radius=2), mast.MASTObjective),
    "mamp": (mamp, mamp.MAMPSettings(size=SIDE, radius=2), mamp.MAMPObjective),
    "stt": (stt, stt.STTSettings(size=2 * SIDE, fine_radius=4, coarse_radius=2), stt.STTObjective),
    "rpmnet": (rpmnet, rpmnet.RPMNetSettings(size=SIDE, samples=3), rpmnet.RPMNetObjective),
}


def make(name, clips=2):
    """A system's objective with a stand-in encoder, and a batch of clips of moving shapes."""
    module, settings, objective = SYSTEMS[name]
    torch.manual_seed(0)
    encoder = StandIn(1 if name == "vidcolor" else 3)
    samples = []
    for seed in range(clips):
        random = np.random.default_rng(seed)
        frames = moving_shapes(30, seed)
        numbers = settings.draw_frames(random, len(frames))
        samples.append(module.augment([frames[n] for n in numbers], random, settings))
    batch = collate(samples)
    if name == "stt":
        return objective(encoder, settings, StandIn()), batch
    return objective(encoder, settings), batch


# ---------------------------------------------------------------------------------- all systems


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_few_steps_lower_the_loss(name):
    objective, batch = make(name)
    optimiser = torch.optim.Adam(
        [each for each in objective.parameters() if each.requires_grad], 3e-3
    )
    before = objective.eval().validate(batch)
    objective.train()
    for _ in range(10):
        loss = torch.stack(list(objective(batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        for parameter in objective.parameters():
            assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())
        optimiser.step()
    objective.train()
    with torch.no_grad():
        last = torch.stack(list(objective(batch).values())).sum()
        fresh, _ = make(name)
        first = torch.stack(list(fresh.train()(batch).values())).sum()
    assert float(last) < float(first)
    after = objective.validate(batch)
    assert len(before) == len(after) == 2
    assert all(math.isfinite(score) for score in before + after)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_parameter_that_is_trained_gets_a_gradient(name):
    objective, batch = make(name)
    torch.stack(list(objective(batch).values())).sum().backward()
    for key, parameter in objective.named_parameters():
        if parameter.requires_grad and not (name != "stt" and "layer4" in key):
            assert parameter.grad is not None, key
            assert bool(torch.isfinite(parameter.grad).all())
            assert float(parameter.grad.abs().max()) > 0, key


@pytest.mark.parametrize("name", SYSTEMS)
def test_losses_in_bfloat16_are_near(name):
    objective, batch = make(name)
    objective.eval()
    torch.manual_seed(0)
    exact = {key: each.item() for key, each in objective(batch).items()}
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = objective(batch)
    assert {key: each.item() for key, each in coarse.items()} == pytest.approx(exact, rel=0.05)
    assert all(each.dtype == torch.float32 for each in coarse.values())


@pytest.mark.parametrize("name", SYSTEMS)
def test_validation_is_by_sample_and_leaves_the_batch_and_the_weights_alone(name):
    objective, batch = make(name, clips=3)
    objective.eval()
    before = {key: each.clone() for key, each in batch.items()}
    state = {key: each.clone() for key, each in objective.state_dict().items()}
    together = objective.validate(batch)
    single = [
        objective.validate({key: each[number : number + 1] for key, each in batch.items()})[0]
        for number in range(3)
    ]
    assert together == pytest.approx(single, rel=1e-4)
    assert len(set(together)) == 3
    assert all(torch.equal(each, before[key]) for key, each in batch.items())
    assert all(torch.equal(each, state[key]) for key, each in objective.state_dict().items())


@pytest.mark.parametrize("name", SYSTEMS)
def test_samples_repeat_and_frames_are_left_alone(name):
    module, settings, _ = SYSTEMS[name]
    frames = moving_shapes(len(settings.draw_frames(np.random.default_rng(0), 30)), 0)
    before = [frame.copy() for frame in frames]
    first, again = (module.augment(frames, np.random.default_rng(5), settings) for _ in range(2))
    assert first.keys() == again.keys()
    assert all(torch.equal(each, again[key]) for key, each in first.items())
    assert all(np.array_equal(*pair) for pair in zip(frames, before, strict=True))
    assert first["images"].dtype == torch.float32


@pytest.mark.parametrize("name", SYSTEMS)
def test_exported_tensors_load_into_the_encoder(name):
    objective, _ = make(name)
    exported = objective.exported()
    sampler = {key for key in exported if key.startswith("sampler.")}
    assert bool(sampler) == (name == "rpmnet")
    encoder = StandIn(1 if name == "vidcolor" else 3)
    encoder.load_state_dict({key: exported[key] for key in exported.keys() - sampler})


@pytest.mark.parametrize(
    ("settings", "offsets"),
    [
        (vidcolor.VidColorSettings(), {(0, 5, 10, 19)}),
        (corrflow.CorrFlowSettings(), {(0, 4, 8)}),
        (mast.MASTSettings(), {(0, 2), (0, 5), (0, 8)}),
        (stt.STTSettings(), {(0, 1)}),
        (rpmnet.RPMNetSettings(), {(0, 1)}),
    ],
)
def test_clips_have_the_systems_gaps(settings, offsets):
    random = np.random.default_rng(0)
    drawn = [settings.draw_frames(random, 100) for _ in range(60)]
    assert {tuple(n - each[0] for n in each) for each in drawn} == offsets


def test_intervals_of_mast_are_drawn_by_probability():
    random = np.random.default_rng(0)
    drawn = [mast.MASTSettings().draw_frames(random, 100) for _ in range(3000)]
    shares = [np.mean([b - a == gap for a, b in drawn]) for gap in (2, 5, 8)]
    assert shares == pytest.approx([0.4, 0.4, 0.2], abs=0.03)


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (mast.MASTSettings, {"interval_probabilities": (0.5, 0.5)}),
        (mast.MASTSettings, {"interval_probabilities": (0.5, 0.5, 0.5)}),
        (mast.MASTSettings, {"intervals": (0, 1, 2)}),
        (stt.STTSettings, {"fine_radius": 10}),
        (corrflow.CorrFlowSettings, {"reduction": "nearest"}),
    ],
)
def test_settings_that_do_not_fit_are_refused(model, wrong):
    with pytest.raises(ValidationError):
        model(**wrong)


# ------------------------------------------------------------------------------------ references


def naive_copy(target, reference, values, radius, scale, outside):
    """Softmax over a window and weighted sum, cell by cell; ``(C, h, w)`` to ``(L, h, w)``."""
    height, width = target.shape[1:]
    copied = torch.zeros(values.shape[0], height, width)
    for y, x in itertools.product(range(height), range(width)):
        total = torch.zeros(())
        for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
            there = y + dy, x + dx
            if 0 <= there[0] < height and 0 <= there[1] < width:
                dot = target[:, y, x] @ reference[:, there[0], there[1]]
                weight = (scale * dot).exp()
                copied[:, y, x] += weight * values[:, there[0], there[1]]
                total += weight
            elif outside == "zero":
                total += 1
        copied[:, y, x] /= total
    return copied


def resize(maps, size):
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def test_vidcolor_equals_loops():
    settings = vidcolor.VidColorSettings(temperature=0.7, weight_penalty=0.1)
    maps = random_maps(6, 3, 2, 3)
    ids = torch.randint(16, (2, 3, 2, 3), generator=torch.Generator().manual_seed(1))
    objective = vidcolor.VidColorObjective(Given(maps), settings)
    batch = {"images": torch.zeros(2, 3, 1, 8, 8), "colours": ids}
    losses = []
    for clip in range(2):
        *references, target = maps[3 * clip : 3 * clip + 3]
        for y, x in itertools.product(range(2), range(3)):
            right = total = 0.0
            for t, i, j in itertools.product(range(2), range(2), range(3)):
                weight = math.exp(float(target[:, y, x] @ references[t][:, i, j]) / 0.7)
                total += weight
                right += weight * (ids[clip, t, i, j] == ids[clip, 2, y, x]).item()
            losses.append(-math.log(right / total + 1e-8))
    found = objective(batch)
    assert found["colour"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["weights"].item() == pytest.approx(0.05 * maps.square().sum().item(), rel=1e-5)
    by_clip = np.reshape(losses, (2, -1)).mean(1)
    assert objective.validate(batch) == pytest.approx(-by_clip, rel=1e-4)


@pytest.mark.parametrize("outside", ["zero", "exclude"])
@pytest.mark.parametrize("objective", [mast.MASTObjective, mamp.MAMPObjective])
def test_mast_and_mamp_equal_loops(objective, outside):
    settings = mast.MASTSettings(radius=1, scale=0.3, outside=outside)
    maps, colours = random_maps(4, 3, 3, 4), random_maps(2, 2, 1, 6, 8, seed=1)
    losses = []
    for pair in range(2):
        values = colours[pair, 0][:, ::2, ::2]
        copied = naive_copy(maps[2 * pair + 1], maps[2 * pair], values, 1, 0.3, outside)
        difference = 20 * (resize(copied, (6, 8)) - colours[pair, 1]).abs()
        huber = torch.where(difference < 1, difference.square() / 2, difference - 0.5)
        losses.append(huber.mean().item())
    batch = {"images": torch.zeros(2, 2, 3, 6, 8), "colours": colours}
    made = objective(Given(maps), settings)
    assert made(batch)["colour"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert made.validate(batch) == pytest.approx([-loss for loss in losses], rel=1e-4)


def naive_corrflow(maps, ids, reduce, radius, true_colours):
    """Step losses and cycle losses of one clip of three frames."""

    def walk(path, values):
        for number, (here, there) in enumerate(itertools.pairwise(path)):
            copied = naive_copy(maps[there], maps[here], values, radius, 1.0, "exclude")
            copied = resize(copied, ids.shape[1:])
            if number < len(path) - 2:
                values = resize(copied, maps.shape[2:])
        return copied

    def nll(copied, true):
        return -(copied.gather(0, true[None]) + 1e-8).log().mean().item()

    first = nll(walk((0, 1), reduce(ids[0])), ids[1])
    if true_colours:
        second = nll(walk((1, 2), reduce(ids[1])), ids[2])
    else:
        second = nll(walk((0, 1, 2), reduce(ids[0])), ids[2])
    cycles = [nll(walk(path, reduce(ids[0])), ids[0]) for path in [(0, 1, 0), (0, 1, 2, 1, 0)]]
    return first + second, sum(cycles)


@pytest.mark.parametrize("true_colours", [True, False])
@pytest.mark.parametrize("reduction", ["truncated_ids", "bilinear"])
def test_corrflow_equals_loops(reduction, true_colours):
    share = (1.0, 1.0) if true_colours else (0.0, 0.0)
    settings = corrflow.CorrFlowSettings(radius=1, reduction=reduction, true_colours=share)
    maps = random_maps(6, 3, 3, 4)
    ids = torch.randint(16, (2, 3, 6, 8), generator=torch.Generator().manual_seed(1))

    def reduce(one):
        if reduction == "bilinear":
            return resize(F.one_hot(one, 16).permute(2, 0, 1).float(), (3, 4))
        numbers = resize(one[None].float(), (3, 4))[0].int().long()
        return F.one_hot(numbers, 16).permute(2, 0, 1).float()

    expected = [
        naive_corrflow(maps[3 * clip : 3 * clip + 3], ids[clip], reduce, 1, true_colours)
        for clip in range(2)
    ]
    objective = corrflow.CorrFlowObjective(Given(maps), settings)
    found = objective({"images": torch.zeros(2, 3, 3, 6, 8), "colours": ids})
    similarity, long = np.mean(expected, 0)
    assert found["similarity"].item() == pytest.approx(similarity, rel=1e-4)
    assert found["long"].item() == pytest.approx(0.1 * long, rel=1e-4)


def test_corrflow_truncates_numbers_which_makes_up_classes():
    ids = torch.tensor([[[0, 3], [0, 3]]])
    found = corrflow.truncated_classes(ids, (1, 1), 16)
    assert int(found.argmax(1)) == 1


def test_corrflow_comes_to_copy_from_copied_colours():
    settings = corrflow.CorrFlowSettings(sampling_steps=4)
    maps = distinct_cells(3, 3, 3)
    objective = corrflow.CorrFlowObjective(Given(maps), settings)
    batch = {
        "images": torch.zeros(1, 3, 3, 3, 3),
        "colours": torch.zeros(1, 3, 3, 3, dtype=torch.long),
    }
    shares = []
    for _ in range(6):
        shares.append(objective.true_colours)
        objective(batch)
    assert shares == pytest.approx([0.9, 0.825, 0.75, 0.675, 0.6, 0.6])
    objective.eval()
    objective(batch)
    assert int(objective.steps) == 6
    fresh = corrflow.CorrFlowObjective(Given(maps), settings)
    fresh.load_state_dict(objective.state_dict())
    assert fresh.true_colours == pytest.approx(0.6)


def test_corrflow_drops_none_one_or_two_channels():
    random = np.random.default_rng(0)
    drawn = [tuple(sorted(corrflow.draw_dropped(random, 0.3))) for _ in range(4000)]
    counts = np.bincount([len(each) for each in drawn]) / len(drawn)
    assert counts == pytest.approx([0.3, 0.35, 0.35], abs=0.03)
    assert {each for each in drawn if len(each) == 2} == {(0, 1), (0, 2), (1, 2)}
    assert {each for each in drawn if len(each) == 1} == {(0,), (1,), (2,)}


def naive_rpmnet(target, reference, ids, offsets, samples, scale):
    """Loss of one pair: colours at bilinear samples of places moved by offsets."""
    height, width = target.shape[1:]
    shares = F.adaptive_avg_pool2d(F.one_hot(ids[0], 16).permute(2, 0, 1).float(), (height, width))

    def at(maps, y, x):
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = min(int(y), height - 2), min(int(x), width - 2)
        fy, fx = y - top, x - left
        return (
            (1 - fy) * (1 - fx) * maps[:, top, left]
            + (1 - fy) * fx * maps[:, top, left + 1]
            + fy * (1 - fx) * maps[:, top + 1, left]
            + fy * fx * maps[:, top + 1, left + 1]
        )

    copied = torch.zeros(16, height, width)
    for y, x in itertools.product(range(height), range(width)):
        total = 0.0
        for row, column in itertools.product(range(samples), repeat=2):
            dx, dy = offsets[row * samples + column].tolist()
            place = y + row - samples // 2 + dy, x + column - samples // 2 + dx
            weight = math.exp(scale * float(target[:, y, x] @ at(reference, *place)))
            copied[:, y, x] += weight * at(shares, *place)
            total += weight
        copied[:, y, x] /= total
    full = resize(copied, ids.shape[1:])
    return -(full.gather(0, ids[1][None]) + 1e-8).log().mean().item()


def test_rpmnet_equals_loops_with_offsets():
    settings = rpmnet.RPMNetSettings(samples=3, scale=0.4)
    maps = random_maps(4, 3, 3, 4)
    ids = torch.randint(16, (2, 2, 6, 8), generator=torch.Generator().manual_seed(1))
    objective = rpmnet.RPMNetObjective(Given(maps), settings)
    batch = {"images": torch.zeros(2, 2, 3, 6, 8), "colours": ids}
    for factor in (0.0, 1.5):
        offsets = factor * random_maps(9, 2, seed=3)
        objective.sampler.offsets.bias.data = offsets.flatten()
        losses = [
            naive_rpmnet(maps[2 * pair + 1], maps[2 * pair], ids[pair], offsets, 3, 0.4)
            for pair in range(2)
        ]
        assert objective.validate(batch) == pytest.approx([-loss for loss in losses], rel=1e-3)
        assert objective(batch)["colour"].item() == pytest.approx(np.mean(losses), rel=1e-3)


def test_a_sampler_that_learns_the_motion_copies_exactly():
    reference = distinct_cells(1, 6, 6)
    target = torch.roll(reference, 3, 3)
    sampler = DeformableSampler(36, 1)
    sampler.offsets.bias.data = torch.tensor([-3.0, 0.0])
    grid, affinity = sampler(target, reference)
    assert grid.shape == (1, 6, 6, 1, 2)
    assert affinity.shape == (1, 1, 6, 6)
    colours = random_maps(1, 2, 6, 6)
    copied = copy_sampled(F.softmax(affinity, 1), grid, colours)
    assert_close(copied[..., 3:], torch.roll(colours, 3, 3)[..., 3:])


def test_stt_equals_dense_matrices():
    settings = stt.STTSettings(fine_radius=4, coarse_radius=2)
    maps = {
        2: random_maps(4, 3, 8, 8),
        3: random_maps(4, 5, 4, 4, seed=1),
        4: random_maps(4, 6, 2, 2, seed=2),
    }
    taught = random_maps(4, 7, 2, 2, seed=3)
    colours = random_maps(2, 2, 1, 16, 16, seed=4)
    batch = {
        "images": torch.zeros(2, 2, 3, 16, 16),
        "rgb": torch.zeros(2, 2, 3, 16, 16),
        "colours": colours,
    }
    objective = stt.STTObjective(GivenStages(maps), settings, GivenStages({4: taught}))

    def matrix(features, radius, scale):
        """Target cells first."""
        reference, target = features
        cells = target.shape[1]
        logits = scale * target.flatten(1).T @ reference.flatten(1)
        places = np.array(list(np.ndindex(cells, cells)))
        far = np.abs(places[:, None] - places[None]).max(2) > radius
        return logits.masked_fill(torch.from_numpy(far), -torch.inf), logits

    def copy_loss(weights, values, true):
        copied = (weights @ values.flatten()).view(1, *values.shape)
        return F.smooth_l1_loss(20 * resize(copied, (16, 16)), 20 * true).item()

    expected = {name: [] for name in ("fine", "coarse", "local", "global")}
    for pair in range(2):
        two = slice(2 * pair, 2 * pair + 2)
        fine = matrix(maps[2][two], 4, 3**-0.5)[0].softmax(1)
        logits, unmasked = matrix(maps[3][two], 2, 5**-0.5)
        coarse = logits.softmax(1)
        source, true = colours[pair]
        expected["fine"].append(copy_loss(fine, source[0, ::2, ::2], true))
        expected["coarse"].append(copy_loss(coarse, source[0, ::4, ::4], true))
        pooled = F.avg_pool2d(fine.view(1, 64, 8, 8), 2).view(8, 8, 16).permute(2, 0, 1)
        pooled = F.avg_pool2d(pooled[None], 2)[0].flatten(1).T
        scores = []
        for cell in range(16):
            inside = unmasked[cell][~logits[cell].isinf()]
            window = torch.cat([inside, torch.zeros(25 - len(inside))])
            scores.append(-window.log_softmax(0).sum().item())
        chosen = torch.tensor(scores) >= sorted(scores)[int(0.7 * 16)]
        expected["local"].append(F.mse_loss(coarse[chosen], pooled[chosen]).item())
        found = matrix(maps[4][two], 2, 6**-0.5)[0].softmax(1)
        teacher = matrix(taught[two], 2, 1 / 0.07)[0].softmax(1)
        expected["global"].append(F.mse_loss(found, teacher).item())
    losses = objective(batch)
    weights = {"fine": 1, "coarse": 1, "local": 1000, "global": 50}
    for name, weight in weights.items():
        assert losses[name].item() == pytest.approx(weight * np.mean(expected[name]), rel=1e-3)
    both = [-a - b for a, b in zip(expected["fine"], expected["coarse"], strict=True)]
    assert objective.validate(batch) == pytest.approx(both, rel=1e-3)


# ------------------------------------------------------------------------------- known minima


def batch_of_identical_frames(count, side, seed=0):
    """Sharp features of stride 1, and colour targets of frames that are all the same."""
    frame = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    images, colours = lab_targets([frame] * count, 1)
    ids = quantise(torch.stack([ab(frame)] * count), vidcolor.CENTROIDS)
    return images[None], colours[None], ids[None]


@pytest.mark.parametrize("name", ["vidcolor", "corrflow", "mast", "mamp", "rpmnet"])
def test_identical_frames_with_sharp_features_cost_nothing(name):
    _, settings, objective = SYSTEMS[name]
    settings = settings.model_copy(update={"weight_penalty": 0.0} if name == "vidcolor" else {})
    frames = 3 if name in ("vidcolor", "corrflow") else 2
    images, colours, ids = batch_of_identical_frames(frames, 6)
    made = objective(Given(distinct_cells(frames, 6, 6)), settings)
    target = colours if name in ("mast", "mamp") else ids
    found = made({"images": images, "colours": target})
    for name_of_loss, loss in found.items():
        assert loss.item() == pytest.approx(0, abs=1e-4), name_of_loss


def test_distillation_costs_nothing_where_stages_agree_but_for_the_mean_over_reference_cells():
    settings = stt.STTSettings(fine_radius=4, coarse_radius=2)
    maps = {2: torch.zeros(2, 4, 8, 8), 3: torch.zeros(2, 4, 4, 4), 4: torch.zeros(2, 4, 2, 2)}
    objective = stt.STTObjective(GivenStages(maps), settings, GivenStages({4: maps[4]}))
    flat = torch.ones(1, 2, 1, 16, 16)
    batch = {key: torch.zeros(1, 2, 3, 16, 16) for key in ("images", "rgb")}
    found = objective({**batch, "colours": flat})
    # Constant colours are copied exactly, and both last stages match anything with anything.
    for name in ("fine", "coarse", "global"):
        assert found[name].item() == pytest.approx(0, abs=1e-6)
    assert found["local"].item() > 0


# ---------------------------------------------------------------------------------- single points


def test_vidcolor_refuses_a_map_of_another_size():
    objective, batch = make("vidcolor")
    with pytest.raises(MethodError):
        objective({**batch, "colours": batch["colours"][:, :, :2, :2]})


def test_vidcolor_shows_the_encoder_no_colour():
    settings = SYSTEMS["vidcolor"][1].model_copy(update={"preparation": "lightness"})
    made = vidcolor.augment(moving_shapes(4, 0), np.random.default_rng(0), settings)
    assert made["images"].shape == (4, 3, SIDE, SIDE)
    light = made["images"] * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    light = light + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    assert_close(light[:, 0], light[:, 1], rtol=0, atol=1e-5)
    assert_close(light[:, 0], light[:, 2], rtol=0, atol=1e-5)
    assert made["colours"].shape == (4, 4, 4)


def test_channels_are_dropped_alike_in_a_pair_and_both_are_dropped_at_times():
    frames = moving_shapes(2, 0)
    dropped = set()
    for seed in range(20):
        made = mast.augment(frames, np.random.default_rng(seed), SYSTEMS["mast"][1])
        empty = (made["images"].abs().amax((2, 3)) == 0).nonzero().tolist()
        assert [frame for frame, _ in empty] == [0, 1]
        assert empty[0][1] == empty[1][1]
        assert float(made["colours"].abs().max()) > 0
        dropped.add(empty[0][1])
    assert dropped == {1, 2}


def test_stt_crops_both_frames_alike():
    frame = moving_shapes(1, 0)[0]
    for seed in range(4):
        made = stt.augment([frame, frame], np.random.default_rng(seed), SYSTEMS["stt"][1])
        for each in made.values():
            assert torch.equal(each[0], each[1])


def test_the_teacher_stays_as_it_is():
    objective, batch = make("stt")
    before = {key: each.clone() for key, each in objective.teacher.state_dict().items()}
    objective.train()
    torch.stack(list(objective(batch).values())).sum().backward()
    after = objective.teacher.state_dict()
    assert all(torch.equal(each, before[key]) for key, each in after.items())
    assert not any(each.requires_grad for each in objective.teacher.parameters())
    assert not any(module.training for module in objective.teacher.modules())


def test_without_a_teacher_there_is_no_global_distillation():
    with_teacher, batch = make("stt")
    objective = stt.STTObjective(StandIn(), with_teacher.settings)
    assert set(with_teacher(batch)) - set(objective(batch)) == {"global"}


def test_layouts_of_student_and_teacher_have_the_same_last_map():
    student, teacher = (
        Encoder(layout(TINY)).forward_stages(torch.zeros(1, 3, 64, 64), (2, 3, 4))
        for layout in (stt.student_layout, stt.teacher_layout)
    )
    assert [64 // student[stage].shape[3] for stage in (2, 3, 4)] == [4, 8, 32]
    assert teacher[4].shape[2:] == student[4].shape[2:]


def test_settings_repeat_the_papers_constants():
    assert vidcolor.VidColorSettings().learning_rate == 1e-4
    mine = mast.MASTSettings()
    assert (mine.radius, mine.size, mine.batch_size, mine.scale) == (6, 256, 12, 1 / 8)
    assert (mamp.MAMPSettings().batch_size, mamp.MAMPSettings().scale) == (24, 1 / 8)
    assert (stt.STTSettings().local_weight, stt.STTSettings().global_weight) == (1000, 50)
