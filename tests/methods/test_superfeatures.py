"""SHLS's way of learning on the common encoder: what is described, learned, and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.conformance import CHECKS, Check, scene, segment
from bench.errors import ConfigError
from bench.method import Context
from bench.train import TrainingChoice, train_method
from bench.training import read_header, read_weights
from methods.clips import IMAGENET_MEAN, IMAGENET_STD
from methods.correspondence.encoder import TINY, Encoder, EncoderSettings, ProjectionSettings
from methods.correspondence.method import CorrespondenceSettings, build_encoder
from methods.shls.losses import nt_xent, sample_triplets
from methods.shls.model import Batch, Sample, collate
from methods.shls.pooling import majority
from methods.superfeatures import SuperfeatureObjective, Superfeatures
from tests.methods.stills import write_stills

SIDE = 48
SMALL = EncoderSettings(
    layers=(1, 1, 1, 1), widths=(16, 16, 24, 24), strides=(1, 2, 1, 1), last_stage=3
)


def sample(seed: int = 0, length: int = 3) -> Sample:
    """A bright square that moves over noise, on superpixels of 6 x 6."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 90, (length, SIDE, SIDE, 3))
    labels = np.zeros((length, SIDE, SIDE), np.uint8)
    for frame in range(length):
        part = (frame, slice(12, 30), slice(6 + 6 * frame, 24 + 6 * frame))
        frames[part] += 150
        labels[part] = 1
    blocks = np.arange(SIDE) // 6
    grid = (blocks[:, None] * 8 + blocks + 1).astype(np.int32)
    return Sample(frames.astype(np.uint8), labels, np.stack([grid] * length), 1)


def objective(across_frames: bool = True) -> SuperfeatureObjective:
    torch.manual_seed(0)
    return SuperfeatureObjective(Encoder(SMALL), size=8, across_frames=across_frames)


@pytest.fixture(scope="module")
def method() -> Superfeatures:
    return Superfeatures(CorrespondenceSettings(initial="random", short_side=48), Context())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_contract(method: Superfeatures, check: Check) -> None:
    assert check.complaint(method) is None


@torch.no_grad()
def test_superpixels_are_described_as_by_plain_loops() -> None:
    made, one = objective().eval(), sample()
    [frames] = made.describe(collate([one]))
    for number, frame in enumerate(frames):
        pixels = (one.frames[number].astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        maps = made.encoder.forward_stages(image, (1, 3))
        fine = F.interpolate(maps[1], (SIDE, SIDE), mode="bilinear")[0]
        coarse = F.interpolate(maps[3], (SIDE // 4, SIDE // 4), mode="bilinear")[0]
        ids = torch.from_numpy(one.superpixels[number])
        small = ids[::4, ::4]
        for superpixel in (1, 23, 64):
            rows = []
            for features, where, side in ((fine, ids, SIDE), (coarse, small, SIDE // 4)):
                inside = where == superpixel
                y, x = inside.nonzero().float().mean(0)
                info = torch.stack([inside.sum() / side**2, y / (side - 1), x / (side - 1)])
                rows.append(torch.cat([features[:, inside].mean(1), info]))
            heads = made.superfeatures
            weight = heads.combine.weight.view(2)
            expected = weight[0] * heads.full(rows[0][None]) + heads.combine.bias
            expected = expected + weight[1] * heads.quarter(rows[1][None])
            torch.testing.assert_close(
                frame.superfeatures[superpixel - 1], expected[0], rtol=1e-3, atol=1e-4
            )


def test_a_projection_learns_too_because_labels_are_propagated_along_it() -> None:
    projected = SMALL.model_copy(update={"projection": ProjectionSettings(channels=8)})
    torch.manual_seed(0)
    made = SuperfeatureObjective(Encoder(projected), size=8, across_frames=True)
    made(collate([sample()]))["metric_loss"].backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


@torch.no_grad()
@pytest.mark.parametrize("across", [False, True])
def test_the_loss_is_shls_metric_loss(across: bool) -> None:
    made, one = objective(across).eval(), sample()
    batch = collate([one])
    [frames] = made.describe(batch)
    labels = [
        majority(frame.superpixels, torch.from_numpy(truth).long(), 64, 2)
        for frame, truth in zip(frames, one.labels, strict=True)
    ]
    torch.manual_seed(3)
    if across:
        vectors = torch.cat([frame.superfeatures for frame in frames])
        expected = nt_xent(vectors, sample_triplets(torch.cat(labels)))
    else:
        each = [
            nt_xent(frame.superfeatures, sample_triplets(of_frame))
            for frame, of_frame in zip(frames, labels, strict=True)
        ]
        expected = torch.stack(each).mean()
    torch.manual_seed(3)
    torch.testing.assert_close(made(batch)["metric_loss"], expected)


def test_learning_lowers_the_loss_and_raises_the_score_on_other_sequences() -> None:
    made = objective()
    batch: Batch = collate([sample(seed) for seed in (1, 2)])
    other = collate([sample(7), sample(8)])
    optimiser = torch.optim.AdamW(made.parameters(), 2e-3)
    torch.manual_seed(0)
    before = np.mean(made.eval().validate(other))
    losses = []
    for _ in range(12):
        made.train()
        loss = made(batch)["metric_loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    after = np.mean(made.eval().validate(other))
    assert after > max(before, 0.8)


@torch.no_grad()
def test_the_score_is_that_of_the_nearest_superfeature_of_the_first_frame() -> None:
    made, one = objective().eval(), sample()
    batch = collate([one])
    [frames] = made.describe(batch)
    known = frames[0].superfeatures
    scores = []
    for number in (1, 2):
        mask = np.zeros((SIDE, SIDE), bool)
        for superpixel, vector in enumerate(frames[number].superfeatures, start=1):
            nearest = int(F.cosine_similarity(vector[None], known).argmax())
            inside = one.superpixels[0] == nearest + 1
            if one.labels[0][inside].mean() > 0.5:
                mask |= one.superpixels[number] == superpixel
        truth = one.labels[number] > 0
        scores.append((mask & truth).sum() / (mask | truth).sum())
    assert made.validate(batch) == [pytest.approx(np.mean(scores))]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A dataset of still images."""
    return write_stills(tmp_path / "ECSSD", 6)


SHORT = [
    "training.sequences.size=48",
    "training.held_out=2",
    "training.validation_sequences=2",
    "training.batch_size=2",
    "training.validate_every=2",
]


def test_training_by_command_exports_the_encoder_alone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    choice = TrainingChoice(["ecssd"], root=images, budget="3it", workers=0, assignments=SHORT)
    path = train_method("superfeatures", choice)
    assert path is not None
    assert read_weights(path).keys() == Encoder(TINY).state_dict().keys()
    regime = read_header(path)["regime"]
    assert (regime["images"], regime["image_labels"]) == (4, "none")
    built = Superfeatures(CorrespondenceSettings(short_side=48), Context(weights=path))
    assert built.regime().images == 4
    untrained = build_encoder("tiny", 0).state_dict()
    assert not torch.equal(built.encoder.state_dict()["conv1.weight"], untrained["conv1.weight"])
    for name, tensor in read_weights(path).items():
        torch.testing.assert_close(built.encoder.state_dict()[name], tensor, check_dtype=False)
    assert len(segment(built, scene(4))) == 4


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("preparation=lab", r"superfeatures\.preparation.*rgb_imagenet"),
        ("encoder=vidcolor", r"superfeatures\.encoder.*ResNet"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    images: Path, tmp_path: Path, assignment: str, message: str
) -> None:
    out = tmp_path / "training"
    choice = TrainingChoice(
        ["ecssd"], root=images, budget="2it", workers=0, assignments=[assignment, *SHORT], out=out
    )
    with pytest.raises(ConfigError, match=message):
        train_method("superfeatures", choice)
    assert not (out / "weights.safetensors").exists()


def test_videos_are_refused(tmp_path: Path) -> None:
    choice = TrainingChoice(["synthetic"], budget="2it", workers=0, out=tmp_path / "training")
    with pytest.raises(ConfigError, match="images"):
        train_method("superfeatures", choice)
