"""ImageNet's classes by way of a teacher: affinities, what is learned, what is admitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.conformance import CHECKS, Check, scene, segment
from bench.errors import ConfigError
from bench.method import Context
from bench.train import TrainingChoice, train_method
from bench.training import read_header, read_weights
from methods.correspondence.encoder import TINY, Encoder
from methods.correspondence.method import CorrespondenceSettings
from methods.pretrained.distilled import (
    DistillationObjective,
    DistillationTraining,
    DistilledImageNet,
    affinity,
    agreement,
    augment,
    distillation,
)
from methods.pretrained.imagenet import IMAGENET_IMAGES, ImageNet, ImageNetSettings
from tests.methods.stills import write_stills


@pytest.fixture(scope="module")
def method() -> DistilledImageNet:
    return DistilledImageNet(CorrespondenceSettings(initial="random", short_side=48), Context())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_contract(method: DistilledImageNet, check: Check) -> None:
    assert check.complaint(method) is None


def test_affinity_loss_and_agreement_are_those_of_plain_loops() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 2, 3), torch.randn(2, 7, 2, 3)
    found = distillation(affinity(student), affinity(teacher), 0.3)
    agreed = agreement(affinity(student), affinity(teacher), 2)
    for image in range(2):
        total, shared = 0.0, 0
        for cell in range(6):
            shares, nearest = [], []
            for features in (student, teacher):
                cells = features[image].flatten(1).T.double().numpy()
                cells /= np.linalg.norm(cells, axis=1, keepdims=True)
                others = [other for other in range(6) if other != cell]
                cosine = np.array([cells[cell] @ cells[other] for other in others])
                shares.append(np.exp(cosine / 0.3) / np.exp(cosine / 0.3).sum())
                nearest.append({others[number] for number in np.argsort(-cosine)[:2]})
            total += (shares[1] * np.log(shares[1] / shares[0])).sum()
            shared += len(nearest[0] & nearest[1])
        assert found[image].item() == pytest.approx(total / 6, rel=1e-4)
        assert agreed[image].item() == pytest.approx(shared / 12)


def test_similarities_are_exact_where_networks_compute_in_bfloat16() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 16, 4, 4)
    exact = affinity(features)
    with torch.autocast("cpu", torch.bfloat16):
        found = affinity(features)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)


def test_the_loss_is_zero_for_the_teacher_itself_and_finite_for_flat_features() -> None:
    torch.manual_seed(0)
    teacher = affinity(torch.randn(1, 7, 3, 3))
    assert distillation(teacher, teacher, 0.05).item() == pytest.approx(0, abs=1e-6)
    flat = torch.ones(1, 4, 3, 3, requires_grad=True)
    loss = distillation(affinity(flat), teacher, 0.05).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


def objective(initial: str = "random") -> DistillationObjective:
    torch.manual_seed(0)
    teacher = ImageNet(ImageNetSettings.model_validate({"initial": initial}), Context(seed=5))
    return DistillationObjective(Encoder(TINY), teacher, temperature=0.05)


def crops(count: int) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    settings = DistillationTraining(size=64)
    images = [
        np.kron(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
        for _ in range(count)
    ]
    made = [augment([image], random, settings)["image"] for image in images]
    return {"image": torch.stack(made)}


def test_only_the_encoder_learns_and_it_comes_nearer_to_its_teacher() -> None:
    made = objective("imagenet")
    assert {name.partition(".")[0] for name, _ in made.named_parameters()} == {"encoder"}
    assert set(made.state_dict()) == {f"encoder.{name}" for name in made.encoder.state_dict()}
    frozen = {name: tensor.clone() for name, tensor in made._teacher.encoder.state_dict().items()}
    batch = crops(4)
    before = np.mean(made.eval().validate(batch))
    optimiser = torch.optim.Adam(made.parameters(), 1e-3)
    losses = []
    for _ in range(10):
        loss = made.train()(batch)["neighbour_loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert np.mean(made.train().validate(batch)) > before
    for name, tensor in made._teacher.encoder.state_dict().items():
        assert torch.equal(tensor, frozen[name])


@torch.no_grad()
def test_the_teacher_sees_what_imagenet_propagates_on() -> None:
    made, batch = objective("imagenet").eval(), crops(2)
    _, seen = made.affinities(batch)
    alone = ImageNet(ImageNetSettings(), Context())
    for image, found in zip(batch["image"], seen, strict=True):
        features = alone.encode(image[None].float() / 255).flatten(1).T.double()
        unit = features / features.norm(dim=1, keepdim=True)
        torch.testing.assert_close(found.double(), unit @ unit.T, rtol=1e-4, atol=1e-5)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A dataset of still images."""
    return write_stills(tmp_path / "ECSSD", 6)


SHORT = [
    "training.size=64",
    "training.held_out=2",
    "training.validation_crops=2",
    "training.batch_size=2",
    "training.validate_every=2",
]


@pytest.mark.parametrize(
    ("teacher", "count", "labels"), [("imagenet", IMAGENET_IMAGES, "class"), ("random", 4, "none")]
)
def test_the_labels_of_the_teacher_are_admitted(
    images: Path, tmp_path: Path, teacher: str, count: int, labels: str
) -> None:
    choice = TrainingChoice(
        ["ecssd"],
        root=images,
        budget="3it",
        workers=0,
        assignments=[*SHORT, f"training.teacher={teacher}"],
        out=tmp_path / "training",
    )
    path = train_method("imagenet_distilled", choice)
    assert path is not None
    assert read_weights(path).keys() == Encoder(TINY).state_dict().keys()
    regime = read_header(path)["regime"]
    assert (regime["images"], regime["image_labels"]) == (count, labels)
    told = "4 unlabelled images" if teacher == "imagenet" else "random weights"
    assert told in regime["note"]
    built = DistilledImageNet(CorrespondenceSettings(short_side=48), Context(weights=path))
    assert built.regime().images == count
    assert len(segment(built, scene(4))) == 4


def test_frames_of_videos_serve_as_images(tmp_path: Path) -> None:
    choice = TrainingChoice(
        ["synthetic"],
        budget="2it",
        workers=0,
        assignments=SHORT,
        out=tmp_path / "training",
    )
    path = train_method("imagenet_distilled", choice)
    assert path is not None
    regime = read_header(path)["regime"]
    assert regime["videos"] > 1
    assert regime["images"] == IMAGENET_IMAGES


def test_other_colours_than_the_trained_ones_are_refused(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "training"
    choice = TrainingChoice(
        ["ecssd"],
        root=images,
        budget="2it",
        workers=0,
        assignments=["preparation=lab", *SHORT],
        out=out,
    )
    with pytest.raises(ConfigError, match=r"imagenet_distilled\.preparation"):
        train_method("imagenet_distilled", choice)
    assert not (out / "weights.safetensors").exists()
