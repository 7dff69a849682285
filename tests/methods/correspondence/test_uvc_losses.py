import json
import math

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.errors import ConfigError, MethodError
from methods.correspondence.inputs import lab_bytes, lightness
from methods.correspondence.pretext.affinity import (
    concentration_loss,
    coordinate_switch_loss,
    coordinates,
    soft_affinity,
    transposed,
)
from methods.correspondence.pretext.autoencoder import (
    AutoencoderObjective,
    AutoencoderSettings,
    ColourAutoencoder,
    colour_distance,
    grey_input,
    load_autoencoder,
)
from methods.correspondence.pretext.copying import copy_global
from methods.correspondence.pretext.transformer import crop
from methods.correspondence.pretext.uvc import (
    UVCObjective,
    UVCSettings,
    augment,
    box_transform,
    locate,
    whole_square,
)
from tests.methods.correspondence.test_cycle_objectives import PooledColours, StandIn
from tests.oracle import rule_weights


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distinct(height, width):
    """A map whose cells are all unlike each other."""
    return 8 * torch.eye(height * width).view(1, height * width, height, width)


def test_lab_and_grey_input_equal_the_stored_ones(shared_dir):
    file = shared_dir / "oracle" / "uvc" / "encoder.npz"
    if not file.is_file():
        pytest.skip(f"No reference outputs: {file} is missing.")
    stored = np.load(file)
    lab = torch.stack([lab_bytes(frame) for frame in stored["frames"]])
    assert np.abs(lab.numpy() - stored["lab"]).max() <= 1e-6
    assert np.abs(grey_input(lab)[:, :1].numpy() - stored["gray_input"]).max() <= 1e-5
    assert torch.allclose(grey_input(lab)[1], lightness(stored["frames"][1]), atol=1e-6)


def test_affinity_and_copy_equal_loops():
    reference, target = (torch.randn(1, 3, 2, 3, generator=generator(s)) for s in range(2))
    values = torch.randn(1, 2, 2, 3, generator=generator(2))
    affinity = soft_affinity(reference, target, 0.7)
    copied = copy_global(affinity, values)
    for q in range(6):
        query = target[0, :, q // 3, q % 3]
        weights = [math.exp(float(reference[0, :, j // 3, j % 3] @ query) / 0.7) for j in range(6)]
        expected = [weight / sum(weights) for weight in weights]
        assert affinity[0, :, q // 3, q % 3].tolist() == pytest.approx(expected, rel=1e-4)
        for channel in range(2):
            value = sum(expected[j] * float(values[0, channel, j // 3, j % 3]) for j in range(6))
            assert copied[0, channel, q // 3, q % 3].item() == pytest.approx(value, abs=1e-5)


def test_identical_distinct_frames_copy_themselves():
    values = torch.randn(1, 2, 3, 4)
    copied = copy_global(soft_affinity(distinct(3, 4), distinct(3, 4)), values)
    assert torch.allclose(copied, values, atol=1e-5)


def test_colour_distance_weighs_a_and_b_tenfold():
    true = torch.zeros(3, 3, 4, 4)
    found = true.clone()
    for channel in range(3):
        found[channel, channel] = 0.25
    assert colour_distance(found, true).tolist() == pytest.approx([0.25, 2.5, 2.5])


def naive_concentration(affinity, height, width, block):
    total, count = 0.0, 0
    for top in range(0, height - block + 1, block):
        for left in range(0, width - block + 1, block):
            for axis in range(2):
                values = []
                for row in range(top, top + block):
                    for column in range(left, left + block):
                        weights = affinity[0, :, row * width + column]
                        values.append(
                            sum(
                                float(weights[j])
                                * (
                                    2 * (j % width) / (width - 1) - 1
                                    if axis == 0
                                    else 2 * (j // width) / (height - 1) - 1
                                )
                                for j in range(height * width)
                            )
                        )
                total += float(np.var(values))
                count += 1
    return total / count


def test_concentration_equals_loops():
    affinity = torch.rand(1, 35, 35, generator=generator()).softmax(1)
    found = concentration_loss(affinity.view(1, 35, 5, 7), 2)
    assert found.item() == pytest.approx(naive_concentration(affinity, 5, 7, 2), rel=1e-3)


def test_concentration_is_zero_where_all_cells_go_to_one_place():
    affinity = torch.zeros(1, 16, 16)
    affinity[:, 5] = 1
    assert concentration_loss(affinity.view(1, 16, 4, 4), 2).item() == pytest.approx(0, abs=1e-9)
    together = torch.eye(16).view(1, 16, 4, 4)
    apart = torch.eye(16)[torch.randperm(16, generator=generator())].view(1, 16, 4, 4)
    assert concentration_loss(apart, 2) > concentration_loss(together, 2)


def test_coordinates_run_from_corner_to_corner():
    x, y = coordinates((2, 3), torch.zeros(()))
    assert x.tolist() == [-1, 0, 1, -1, 0, 1]
    assert y.tolist() == [-1, -1, -1, 1, 1, 1]


def place_of(cell, height, width):
    """x and y of a cell, counted along rows."""
    return 2 * (cell % width) / (width - 1) - 1, 2 * (cell // width) / (height - 1) - 1


def naive_coordinate_switch(affinity, reference, target):
    """Mean over cells, x and y of one sample; reference and target are heights and widths."""
    cells, others = math.prod(reference), math.prod(target)
    total = 0.0
    for axis in range(2):
        arrived = [
            sum(float(affinity[i, t]) * place_of(i, *reference)[axis] for i in range(cells))
            for t in range(others)
        ]
        for i in range(cells):
            returned = sum(float(affinity[i, t]) * arrived[t] for t in range(others))
            total += abs(returned - place_of(i, *reference)[axis])
    return total / (2 * cells)


def test_coordinate_switch_equals_loops():
    affinity = torch.randn(2, 6, 12, generator=generator()).mul(3).softmax(1)
    found = coordinate_switch_loss(affinity.view(2, 6, 3, 4), (2, 3))
    expected = [naive_coordinate_switch(each, (2, 3), (3, 4)) for each in affinity]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    there_and_back = transposed(transposed(affinity.view(2, 6, 3, 4), (2, 3)), (3, 4))
    assert torch.equal(there_and_back.flatten(2), affinity)


def test_coordinate_switch_is_zero_for_every_motion_that_matches_cells_one_to_one():
    for seed in range(3):
        motion = torch.eye(12)[torch.randperm(12, generator=generator(seed))]
        assert coordinate_switch_loss(motion.view(1, 12, 3, 4), (3, 4)).item() < 1e-6


def test_coordinate_switch_of_a_uniform_affinity_is_the_mean_coordinate():
    # Everything arrives and returns at the centre; |x| and |y| are 1, 1/3, 1/3, 1.
    uniform = torch.full((1, 16, 4, 4), 1 / 16)
    assert coordinate_switch_loss(uniform, (4, 4)).item() == pytest.approx(2 / 3, rel=1e-5)


def test_coordinate_switch_descends_to_its_minimum():
    motion = torch.eye(9)[torch.randperm(9, generator=generator())]
    logits = (2 * motion + 0.1 * torch.randn(9, 9, generator=generator(1))).requires_grad_()
    optimiser = torch.optim.Adam([logits], 0.1)
    losses = []
    for _ in range(200):
        loss = coordinate_switch_loss(logits.softmax(0).view(1, 9, 3, 3), (3, 3)).mean()
        optimiser.zero_grad()
        loss.backward()
        assert bool(torch.isfinite(logits.grad).all())
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.3
    assert losses[-1] < 0.02
    assert torch.equal(logits.argmax(0), motion.argmax(0))


@pytest.mark.parametrize("stage", ["warm_up", "localise"])
def test_coordinate_switch_joins_the_objective_where_it_has_a_weight(stage):
    sizes = {"short_side": 48, "crop": 32, "full": 64, "concentration_block": 2}
    released = UVCSettings(stage=stage, **sizes)
    weighted = released.model_copy(update={"coordinate_switch_weight": 0.5})
    torch.manual_seed(0)
    encoder = StandIn().eval()
    side = 32 if stage == "warm_up" else 64
    batch = {
        "reference": torch.rand(2, 3, 32, 32, generator=generator()),
        "target": torch.rand(2, 3, side, side, generator=generator(1)),
    }
    objective = UVCObjective(encoder, weighted, PooledColours())
    losses = objective(batch)
    without = UVCObjective(encoder, released, PooledColours())(batch)
    assert set(losses) - set(without) == {"coordinate_switch"}
    assert all(losses[name].item() == pytest.approx(without[name].item()) for name in without)
    first, second, _, _ = objective.encode(batch)
    affinity = soft_affinity(first, second).detach().flatten(2)
    expected = np.mean([naive_coordinate_switch(each, (4, 4), (4, 4)) for each in affinity])
    assert losses["coordinate_switch"].item() == pytest.approx(0.5 * expected, rel=1e-4)
    losses["coordinate_switch"].backward()
    for each in encoder.parameters():
        assert bool(torch.isfinite(each.grad).all())
    assert next(encoder.parameters()).grad.abs().max() > 0


def test_coordinate_switch_leaves_out_samples_whose_colours_cannot_be_copied():
    settings = UVCSettings(
        short_side=48, crop=32, concentration_block=2, coordinate_switch_weight=1.0,
        largest_colour_loss=1e-6, largest_from=0,
    )  # fmt: skip
    reference, target = (torch.rand(2, 3, 32, 32, generator=generator(s)) for s in range(2))
    losses = UVCObjective(StandIn().eval(), settings, PooledColours())(
        {"reference": reference, "target": target}
    )
    assert losses["coordinate_switch"].item() == losses["switch"].item() == 0


@pytest.mark.parametrize(("top", "left"), [(0, 0), (2, 5), (6, 6)])
def test_locate_finds_a_crop(top, left):
    target = distinct(10, 10)
    reference = target[:, :, top : top + 4, left : left + 4]
    corner = locate(reference, target)
    assert corner[0].tolist() == pytest.approx([left, top], abs=1e-3)
    box = crop(target, box_transform(corner, 4, 10), 4)
    assert torch.allclose(box, reference, atol=1e-2)


def test_locate_keeps_the_box_inside():
    target = distinct(6, 6)
    corner = locate(target[:, :, :1, 5:].expand(-1, -1, 3, 3), target)
    assert corner[0].tolist() == pytest.approx([3, 0], abs=1e-4)


def test_pixel_box_is_the_cells_box():
    image = torch.randn(1, 3, 80, 80)
    corner = torch.tensor([[3.0, 1.0]])
    found = crop(image, box_transform(corner * 8, 32, 80), 32)
    assert torch.allclose(found, image[:, :, 8:40, 24:56], atol=1e-4)


def test_gradients_are_finite():
    first = torch.randn(2, 4, 4, 4, requires_grad=True)
    second = torch.randn(2, 4, 8, 8, requires_grad=True)
    boxed = crop(second, box_transform(locate(first, second), 4, 8), 4)
    affinity = soft_affinity(first, boxed)
    loss = concentration_loss(affinity, 2)
    (loss + copy_global(affinity, torch.rand(2, 3, 4, 4)).sum()).backward()
    for tensor in (first, second):
        assert bool(torch.isfinite(tensor.grad).all())
        assert tensor.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(9, 20, 3), (20, 9, 3), (16, 16, 3), (4, 20, 3)])
def test_whole_square_reflects(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = whole_square(image, 20)
    assert found.shape == (20, 20, 3)
    if shape == (9, 20, 3):
        assert np.array_equal(found[5:14], image)
        assert np.array_equal(found[4], image[1])


@pytest.mark.parametrize("stage", ["warm_up", "localise"])
def test_augment_makes_crops_of_the_stage(stage):
    settings = UVCSettings(stage=stage, short_side=40, crop=32, full=64)
    frames = [np.random.default_rng(s).integers(0, 256, (40, 60, 3), np.uint8) for s in range(2)]
    sample = augment(frames, np.random.default_rng(0), settings)
    assert sample["reference"].shape == (3, 32, 32)
    assert sample["target"].shape == ((3, 32, 32) if stage == "warm_up" else (3, 64, 64))
    assert sample["target"].dtype == torch.float32
    again = augment(frames, np.random.default_rng(0), settings)
    assert all(torch.equal(sample[name], again[name]) for name in sample)


def test_autoencoder_has_the_released_names_and_shapes(shared_dir, tmp_path):
    file = shared_dir / "oracle" / "uvc" / "keys_full_checkpoint.json"
    if not file.is_file():
        pytest.skip(f"No released names: {file} is missing.")
    tensors = rule_weights(json.loads(file.read_text()))
    path = tmp_path / "released.pth.tar"
    torch.save({"state_dict": {f"module.{name}": each for name, each in tensors.items()}}, path)
    autoencoder = load_autoencoder(path)
    for name, tensor in autoencoder.state_dict().items():
        assert torch.equal(tensor, tensors[name])
    assert not any(each.requires_grad for each in autoencoder.parameters())


def test_autoencoder_sizes_and_gradients():
    autoencoder = ColourAutoencoder(4).requires_grad_(False)
    lab = torch.rand(1, 3, 24, 32, requires_grad=True)
    code = autoencoder.encode(lab)
    assert code.shape == (1, 16, 3, 4)
    autoencoder(lab).sum().backward()
    assert autoencoder(lab).shape == lab.shape
    assert lab.grad.abs().max() > 0


def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="autoencoder"):
        load_autoencoder(None)
    path = tmp_path / "weights.safetensors"
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(MethodError, match="other"):
        load_autoencoder(path)


def test_trained_autoencoder_reconstructs_and_is_loaded(tmp_path):
    torch.manual_seed(0)
    objective = AutoencoderObjective(AutoencoderSettings(width=8))
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8), (32, 32))
    batch = {"lab": lab_bytes(image)[None]}
    optimiser = torch.optim.Adam(objective.parameters(), 3e-3)
    before = objective.validate(batch)[0]
    for _ in range(40):
        optimiser.zero_grad()
        sum(objective(batch).values()).backward()
        optimiser.step()
    assert objective.validate(batch)[0] > 0.6 * before
    path = tmp_path / "weights.safetensors"
    save_file(objective.exported(), path)
    lab = batch["lab"]
    assert torch.allclose(load_autoencoder(path, 8)(lab), objective.autoencoder(lab))
