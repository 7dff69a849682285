import itertools
import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from methods.correspondence.pretext import crw, cycletime, dul, mug, twiaa, uvc
from methods.correspondence.pretext.autoencoder import ColourAutoencoder
from methods.correspondence.pretext.clips import collate
from methods.correspondence.pretext.transformer import crop, grid_distance


class PooledColours(nn.Module):
    """The colour auto-encoder's interface: a cell's code is its mean colour."""

    def encode(self, lab):
        return F.avg_pool2d(lab, 8)

    def decode(self, code):
        return F.interpolate(code, scale_factor=8)


class StandIn(nn.Module):
    """The interface of the real encoder, at stride 8."""

    channels, stride = 24, 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 7, 4, 3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3, 2, 1),
        )

    def forward(self, images):
        return self.layers(images)


def moving_shapes(length, seed):
    """Two discs that move over a smooth ground."""
    random = np.random.default_rng(seed)
    ground = cv2.resize(random.integers(0, 200, (6, 8, 3), np.uint8), (80, 60))
    places, speeds = random.uniform(15, 45, (2, 2)), random.uniform(-1.5, 1.5, (2, 2))
    colours = random.integers(0, 256, (2, 3)).tolist()
    frames = []
    for index in range(length):
        frame = ground.copy()
        for place, speed, colour in zip(places, speeds, colours, strict=True):
            centre = tuple(int(value) for value in place + index * speed)
            cv2.circle(frame, centre, 9, colour, -1)
        frames.append(frame)
    return frames


CRW = crw.CRWSettings(crop=48, patch=24, stride=12, embedding=16)
CYCLETIME = {"offsets": (0, 1, 2, 4), "short_side": 52, "crop": 48, "localiser_kernel": 1}
CYCLE = cycletime.CycleTimeSettings(**CYCLETIME)
TWIAA = twiaa.TWIAASettings(**CYCLETIME, attention=8)
DUL = dul.DULSettings(
    frames=3, short_side=(48, 56), crop=48, anchors=3, cross_cells=2, hidden=16, embedding=16
)
UVC = {
    "short_side": 48, "crop": 32, "full": 64, "concentration_block": 2, "concentration_from": 0,
}  # fmt: skip
UVC_1, UVC_2 = (uvc.UVCSettings(stage=stage, **UVC) for stage in ("warm_up", "localise"))


def build(module, settings):
    torch.manual_seed(0)
    if module is uvc:
        return uvc.UVCObjective(StandIn(), settings, PooledColours())
    kind = {crw: "CRW", cycletime: "CycleTime", twiaa: "TWIAA", dul: "DUL"}[module]
    return getattr(module, f"{kind}Objective")(StandIn(), settings)


def make_batch(module, settings, count=2):
    samples = []
    for seed in range(count):
        video = moving_shapes(12, seed)
        random = np.random.default_rng(seed)
        numbers = settings.draw_frames(random, len(video))
        samples.append(module.augment([video[number] for number in numbers], random, settings))
    return collate(samples)


SYSTEMS = pytest.mark.parametrize(
    ("module", "settings"),
    [(crw, CRW), (cycletime, CYCLE), (twiaa, TWIAA), (dul, DUL), (uvc, UVC_1), (uvc, UVC_2)],
    ids=["crw", "cycletime", "twiaa", "dul", "uvc-1", "uvc-2"],
)


@SYSTEMS
def test_training_lowers_the_losses_and_gradients_are_finite(module, settings):
    objective, batch = build(module, settings), make_batch(module, settings)
    trained = [each for each in objective.parameters() if each.requires_grad]
    optimiser = torch.optim.Adam(trained, 2e-3)

    def total():
        # The same dropped edges and anchors each time, so that losses can be compared.
        torch.manual_seed(1)
        return sum(objective(batch).values())

    totals = []
    for _ in range(10):
        loss = total()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    for each in objective.encoder.parameters():
        assert bool(torch.isfinite(each.grad).all())
        assert each.grad.abs().max() > 0
    assert all(math.isfinite(value) for value in totals)
    assert totals[-1] < totals[0] - 0.01 * abs(totals[0])


@SYSTEMS
def test_validation_scores_each_sample_and_repeats(module, settings):
    objective, batch = build(module, settings).eval(), make_batch(module, settings)
    scores = objective.validate(batch)
    assert len(scores) == 2
    assert objective.validate(batch) == scores
    assert all(isinstance(score, float) and math.isfinite(score) for score in scores)
    assert set(objective.exported()) == set(objective.encoder.state_dict())


@SYSTEMS
def test_samples_depend_on_the_generator_alone(module, settings):
    one, other = (make_batch(module, settings) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@SYSTEMS
def test_settings_survive_json_and_refuse_unknown_keys(module, settings):
    kind = type(settings)
    assert kind.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(ValidationError):
        kind(no_such_key=1)
    assert kind() == kind.model_validate(kind().model_dump())


@pytest.mark.parametrize(
    "kind",
    [cycletime.CycleTimeSettings, dul.DULSettings, uvc.UVCSettings, mug.MUGSettings],
)
def test_crops_must_fit_into_frames(kind):
    with pytest.raises(ValidationError, match="larger than"):
        kind(crop=2400)


@SYSTEMS
def test_bfloat16_gives_finite_losses_close_to_those_of_float32(module, settings):
    objective, batch = build(module, settings).eval(), make_batch(module, settings)
    torch.manual_seed(0)
    exact = objective(batch)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        rounded = objective(batch)
    for name, loss in exact.items():
        assert rounded[name].item() == pytest.approx(loss.item(), rel=0.1, abs=0.05)


def test_crw_patches_form_the_grid():
    settings = CRW.model_copy(
        update={
            "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0),
            "patch_scale": (1.0, 1.0), "patch_ratio": (1.0, 1.0),
        }
    )  # fmt: skip
    frame = moving_shapes(1, 0)[0][:48, :48]
    patches = crw.augment([frame], np.random.default_rng(0), settings)["patches"]
    assert patches.shape == (1, 9, 3, 24, 24)
    for number in range(9):
        top, left = number // 3 * 12, number % 3 * 12
        expected = frame[top : top + 24, left : left + 24].transpose(2, 0, 1)
        assert np.array_equal(patches[0, number].numpy(), expected)


def test_crw_paper_grid_has_49_patches():
    frames = [np.zeros((256, 340, 3), np.uint8)]
    sample = crw.augment(frames, np.random.default_rng(0), crw.CRWSettings())
    assert sample["patches"].shape == (1, 49, 3, 64, 64)


def test_crw_loss_is_the_mean_over_cycles_of_nodes_encoded_one_by_one():
    objective, batch = build(crw, CRW).eval(), make_batch(crw, CRW)
    nodes = torch.zeros(2, 4, 9, 16)
    for clip in range(2):
        for frame in range(4):
            for number in range(9):
                image = batch["patches"][clip, frame, number].float() / 255
                mean, std = (torch.tensor(v)[:, None, None] for v in (CRW.mean, CRW.std))
                found = objective.encoder(((image - mean) / std)[None]).mean((2, 3))
                nodes[clip, frame, number] = F.normalize(objective.head(found)[0], dim=0)
    losses = []
    for k in (2, 3):
        path = [*range(k + 1), *reversed(range(k))]
        walk = torch.eye(9).expand(2, 9, 9)
        for here, there in itertools.pairwise(path):
            walk = walk @ (nodes[:, here] @ nodes[:, there].mT / 0.05).softmax(2)
        losses.append(F.cross_entropy(walk.log().flatten(0, 1), torch.arange(9).repeat(2)))
    assert objective(batch)["cycle"].item() == pytest.approx(
        torch.stack(losses).mean().item(), rel=1e-4
    )


def test_crw_drops_edges_while_training_alone():
    batch = make_batch(crw, CRW)
    losses = {}
    for dropout in (0.0, 0.4):
        objective = build(crw, CRW.model_copy(update={"edge_dropout": dropout}))
        for training in (True, False):
            losses[dropout, training] = objective.train(training)(batch)["cycle"].item()
    assert losses[0.4, True] > losses[0.0, True] + 0.1
    assert losses[0.4, False] == pytest.approx(losses[0.0, False], rel=1e-5)


def test_crw_settings_need_a_cycle():
    with pytest.raises(ValidationError, match="first_cycle"):
        crw.CRWSettings(frames=2)


def test_lively_block_is_where_frames_differ():
    still = np.zeros((90, 90, 3), np.uint8)
    moved = still.copy()
    moved[65:75, 5:15] = 255
    found = {
        tuple(cycletime.lively_block(moved, still, np.random.default_rng(s)).tolist())
        for s in range(40)
    }
    blocks = {(round((x + 1) / 2 * 9 - 1.5), round((y + 1) / 2 * 9 - 1.5)) for x, y in found}
    # Nine blocks at most hold the one cell that moved; the tenth place is any other.
    holding = {(x, y) for x, y in blocks if x <= 1 and 5 <= y <= 6}
    assert len(holding) >= 3
    assert np.abs(np.array(list(found))).max() <= 2 / 3 + 1e-6


def naive_cycles(tracker, frames, target, patch):
    """Every cycle tracked from its beginning."""
    count = frames.shape[1]
    ends, skips = [], []
    for length in range(1, count + 1):
        back = [count - step for step in range(1, length + 1)]
        template = patch
        for number in [*back, *reversed(back[:-1])]:
            template = tracker(template, frames[:, number]).template
        ends.append(tracker(template, target).theta)
        alone = tracker(patch, frames[:, count - length]).template
        skips.append(tracker(alone, target).theta)
    return ends, skips


def test_cycles_equal_those_tracked_one_by_one():
    objective, batch = build(cycletime, CYCLE).eval(), make_batch(cycletime, CYCLE)
    encoded = objective.encode(batch)
    found = objective.track(*encoded)
    ends, skips = naive_cycles(objective.tracker, *encoded)
    assert len(ends) == 3
    assert torch.allclose(torch.stack(found.ends), torch.stack(ends), atol=1e-5)
    assert torch.allclose(torch.stack(found.skips), torch.stack(skips), atol=1e-5)
    # Inliers are those of the patch itself in each frame.
    frames, _, patch = encoded
    expected = [objective.tracker(patch, frame).inliers for frame in frames.unbind(1)]
    assert torch.allclose(found.inliers, torch.stack(expected))


class Whereabouts(nn.Module):
    """Features that say where a cell is and nothing of what is there."""

    channels, stride = 36, 8

    def forward(self, images):
        rows, columns = images.shape[2] // 8, images.shape[3] // 8
        cells = torch.arange(rows)[:, None] * 6 + torch.arange(columns)
        return F.one_hot(cells, 36).permute(2, 0, 1).float().expand(len(images), -1, -1, -1)


def test_following_crops_of_frames_earns_no_similarity():
    """Or else it is enough to call the frame's middle the patch, and to encode the place alone."""
    batch = make_batch(cycletime, CYCLE)
    objective = cycletime.CycleTimeObjective(Whereabouts(), CYCLE).eval()
    nn.init.zeros_(objective.tracker.localiser.layers[-1].weight)
    nn.init.zeros_(objective.tracker.localiser.layers[-1].bias)  # always the middle
    _, target, patch = objective.encode(batch)
    middle = objective.tracker(patch, target).template
    assert objective.tracker(middle, target).inliers.min() > 0.2
    assert objective(batch)["similarity"].item() == pytest.approx(0, abs=0.01)


def test_cycletime_losses_are_weighted_as_the_authors_do():
    objective, batch = build(cycletime, CYCLE).eval(), make_batch(cycletime, CYCLE)
    cycles = objective.track(*objective.encode(batch))
    losses = objective(batch)
    ends = [grid_distance(end, batch["theta"]).mean().item() for end in cycles.ends]
    skips = [grid_distance(end, batch["theta"]).mean().item() for end in cycles.skips]
    assert losses["cycle"].item() == pytest.approx(0.02 * np.mean(ends), rel=1e-4)
    assert losses["skip"].item() == pytest.approx(0.1 * np.mean(skips), rel=1e-4)
    assert losses["similarity"].item() == pytest.approx(-cycles.inliers.mean().item(), rel=1e-4)


def test_cycletime_patch_is_cut_where_theta_says():
    """The loss compares with theta: cut there again, the target must give the very same patch."""
    batch = make_batch(cycletime, CYCLE)
    objective = build(cycletime, CYCLE).eval()
    patch = crop(objective.normalise(batch["target"]), batch["theta"], 16)
    assert torch.allclose(objective.encode(batch)[2], objective.features(patch))
    scale = batch["theta"][:, :, :2].norm(dim=1)
    assert torch.allclose(scale, torch.full_like(scale, 1 / 3))


def test_twiaa_weights_sum_up_to_one_and_a_single_template_is_kept():
    objective, batch = build(twiaa, TWIAA).eval(), make_batch(twiaa, TWIAA)
    patch = objective.encode(batch)[2]
    assert objective.attention(patch).sum((1, 2)).tolist() == pytest.approx([1, 1])
    weights = objective.point_weights(patch)
    assert weights.shape == (2, 20, 20)
    assert weights.sum((1, 2)).tolist() == pytest.approx([1, 1])
    assert objective.next_template([patch]) is patch
    earlier = [F.normalize(torch.randn_like(patch), dim=1) for _ in range(4)]
    aggregated = objective.next_template([*earlier, patch])
    assert aggregated.norm(dim=1).flatten().tolist() == pytest.approx([1] * 8, rel=1e-4)
    # Three templates are aggregated: the latest and the two before it.
    for row in range(2):
        for column in range(2):
            cells = torch.cat([each.flatten(2) for each in earlier[2:]], 2)
            now = patch[:, :, row, column]
            paid = ((now[:, None] @ cells) * 512**0.5).softmax(2)
            expected = F.normalize(now + (paid @ cells.mT)[:, 0], dim=1)
            assert torch.allclose(aggregated[:, :, row, column], expected, atol=1e-5)


def test_twiaa_without_its_additions_is_cycletime():
    settings = TWIAA.model_copy(update={"uniform_share": 1.0, "history": 1})
    batch = make_batch(cycletime, CYCLE)
    plain, ours = build(cycletime, CYCLE).eval(), build(twiaa, settings).eval()
    ours.load_state_dict(plain.state_dict(), strict=False)
    expected = plain(batch)
    for name, loss in ours(batch).items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-4)


def test_dul_gives_gradients_to_view_2_through_its_anchor_frame_alone():
    objective, batch = build(dul, DUL), make_batch(dul, DUL)
    clips = objective.normalise(batch["frames"])
    first, second = objective.embed_views(clips, batch["zoom"])
    assert first.shape == second.shape == (2, 3, 16, 6, 6)
    wanted = next(objective.encoder.parameters())
    (of_anchor,) = torch.autograd.grad(second[:, 0, 0].sum(), wanted, retain_graph=True)
    assert of_anchor.abs().max() > 0
    (of_others,) = torch.autograd.grad(
        second[:, 1:, 0].sum() + 0 * second[:, 0].sum(), wanted, retain_graph=True
    )
    assert of_others.abs().max() == 0


def test_dul_uses_batch_statistics_in_both_passes_and_without_gradients_too():
    objective, batch = build(dul, DUL), make_batch(dul, DUL)
    norm = objective.encoder.layers[1]
    objective.clip_losses(batch, torch.full((2, 2), 0.5))
    assert norm.num_batches_tracked.item() == 2


def test_dul_loss_is_zero_for_a_perfect_embedding():
    """Cells that are told apart by their place in view 1 are assigned alike in all frames."""

    class Placed(nn.Module):
        """Reads the place that is painted into the pixels: red and green count the cells."""

        channels, stride = 36, 8

        def forward(self, images):
            colours = F.avg_pool2d(images, 8)
            std, mean = 0.229, torch.tensor([0.485, 0.456, 0.406])
            column = (colours[:, 0] * std + mean[0]) * 255 / 40
            row = (colours[:, 1] * 0.224 + mean[1]) * 255 / 40
            cell = (row.round() * 6 + column.round()).long().clamp(0, 35)
            return F.one_hot(cell, 36).permute(0, 3, 1, 2).float()

    rows, columns = np.mgrid[:48, :48] // 8 * 40
    frame = torch.from_numpy(np.stack([columns, rows, rows]).astype(np.uint8))
    batch = {
        "frames": frame.expand(1, 3, 3, 48, 48),
        "zoom": torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]]),
    }
    settings = DUL.model_copy(update={"anchors": 6})
    objective = dul.DULObjective(Placed(), settings)
    objective.head = nn.Identity()
    temporal, cross = objective.clip_losses(batch, torch.zeros(2, 2))
    assert temporal.item() == pytest.approx(0, abs=1e-4)
    assert cross.item() == pytest.approx(0, abs=1e-4)


def test_dul_biases_learn_twice_as_fast_and_do_not_decay():
    objective = build(dul, DUL)
    optimiser = torch.optim.AdamW(objective.parameter_groups(), lr=1e-4)
    weights, biases = optimiser.param_groups
    assert (weights["lr"], weights["weight_decay"]) == (1e-4, 5e-4)
    assert (biases["lr"], biases["weight_decay"]) == (2e-4, 0)
    assert all(each.dim() == 1 for each in biases["params"])
    count = len(weights["params"]) + len(biases["params"])
    assert count == len(list(objective.parameters()))


def test_dul_shuffles_frames_and_draws_other_zooms():
    video = [np.full((60, 80, 3), 40 * index, np.uint8) for index in range(5)]
    settings = dul.DULSettings(short_side=(48, 56), crop=48)
    samples = [dul.augment(video, np.random.default_rng(s), settings) for s in range(6)]
    firsts = {int(sample["frames"][0, 0, 0, 0]) for sample in samples}
    assert len(firsts) > 1
    for sample in samples:
        assert sorted(sample["frames"][:, 0, 0, 0].tolist()) == [0, 40, 80, 120, 160]


def test_uvc_zeroes_samples_whose_colours_cannot_be_copied():
    settings = UVC_1.model_copy(update={"largest_from": 1})
    objective = build(uvc, settings)
    colour = torch.tensor([2.4, 2.6])
    assert objective.counted(colour).tolist() == [1, 1]
    objective.steps += 1
    assert objective.counted(colour).tolist() == [1, 0]


def test_uvc_concentration_sets_in_at_its_step():
    settings = UVC_1.model_copy(update={"concentration_from": 1})
    objective, batch = build(uvc, settings), make_batch(uvc, settings)
    assert objective(batch)["concentration"].item() == 0
    assert objective(batch)["concentration"].item() > 0
    assert objective.steps.item() == 2
    objective.eval()(batch)
    assert objective.steps.item() == 2


def test_uvc_keeps_the_autoencoder_as_it_is():
    batch = make_batch(uvc, UVC_1)
    objective = uvc.UVCObjective(StandIn(), UVC_1, ColourAutoencoder(4))
    before = {name: each.clone() for name, each in objective.autoencoder.state_dict().items()}
    optimiser = torch.optim.Adam(objective.parameters(), 1e-2)
    sum(objective(batch).values()).backward()
    optimiser.step()
    after = objective.autoencoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_uvc_crops_features_and_colours_where_the_reference_lies():
    """Stage 2 of a frame with itself, all cells of unlike lightness: the box is the crop."""
    lightness = np.arange(64, dtype=np.uint8).reshape(8, 8).repeat(8, 0).repeat(8, 1) * 4
    full = torch.from_numpy(np.stack([lightness, 255 - lightness, lightness // 2])) / 128 - 1

    class OneHot(nn.Module):
        channels, stride = 64, 8

        def forward(self, images):
            cell = (F.avg_pool2d(images[:, 0], 8) * 0.229 + 0.485) * 2 - 1
            return 30 * F.one_hot((cell * 32 + 32).round().long(), 64).permute(0, 3, 1, 2).float()

    objective = uvc.UVCObjective(OneHot(), UVC_2, PooledColours())
    batch = {"reference": full[None, :, 16:48, 8:40], "target": full[None]}
    first, second, reference, target = objective.encode(batch)
    assert torch.allclose(second, first, atol=1e-2)
    assert torch.allclose(target, reference, atol=1e-2)
    losses = objective(batch)
    assert losses["colour"].item() == pytest.approx(0, abs=1e-2)
    assert losses["switch"].item() == pytest.approx(0, abs=1e-2)
