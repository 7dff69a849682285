"""``adv`` under the harness, with the tiny networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from bench.config import CONFIGS
from bench.conformance import CHECKS, Check, scene, segment
from bench.errors import MethodError
from bench.method import Context, LabelRegime
from bench.metrics import region_j
from bench.protocol import unsupervised
from bench.registry import get_dataset
from bench.training import save_weights
from methods.adversarial.method import Adversarial, AdversarialSettings
from methods.adversarial.networks import build_network
from methods.adversarial.protocols.fine_tune import FineTuneSettings
from methods.adversarial.protocols.matching import MatchingSettings
from methods.adversarial.protocols.multi_object import MultiObjectSettings
from methods.adversarial.protocols.propagation import PropagationProtocolSettings
from methods.adversarial.protocols.semantic_prior import SemanticPriorSettings
from methods.adversarial.settings import NetworkSettings
from tests.methods.adversarial.rigged import frame, moving_square

QUICK: dict[str, dict[str, Any]] = {
    "propagation": {"kind": "propagation"},
    "fine_tune": {"kind": "fine_tune", "steps": 1},
    "matching": {"kind": "matching"},
    "semantic_prior": {"kind": "semantic_prior"},
}


CATEGORIES: dict[str, Any] = {"settings": {"training": {"domains": {"categories": ["dog", "cat"]}}}}
"""Header of weights whose semantic head has two classes beside background."""


def settings(**changes: object) -> AdversarialSettings:
    return AdversarialSettings.model_validate({"initial": "random"} | changes)


def built(seed: int = 0, **changes: object) -> Adversarial:
    return Adversarial(settings(**changes), Context(seed=seed))


@pytest.fixture(scope="module")
def method() -> Adversarial:
    return built()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_contract(method: Adversarial, check: Check) -> None:
    assert check.complaint(method) is None


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("size", [(33, 57), (64, 96)])
def test_contract_of_every_protocol(kind: str, size: tuple[int, int]) -> None:
    # Coarse cells and shrunk frames at once.
    method = built(protocol=QUICK[kind], short_side=32)
    video = scene(4, size, objects=3, vanishes=range(2, 3))
    masks = segment(method, video)
    assert {int(label) for mask in masks for label in np.unique(mask)} <= {0, 1, 3, 5}
    assert all(map(np.array_equal, masks, segment(method, video)))


@pytest.mark.parametrize("time", ["inflate", "attention", "shift"])
def test_networks_over_clips(time: str) -> None:
    method = built(network={"time": time}, clip_frames=5)
    masks = segment(method, scene(4, objects=2))
    assert len(masks) == 4
    assert "5 frames" in method.protocol().extra["clip"]
    assert method.frames.clip_frames == 5
    assert built(clip_frames=5).frames.clip_frames == 1


def test_inflated_networks_that_see_centres_only_segment_like_those_of_frames() -> None:
    video = scene(4, objects=2)
    one = segment(built(), video)
    three = segment(built(network={"time": "inflate", "inflation": "center"}), video)
    differing = np.mean([np.mean(a != b) for a, b in zip(one, three, strict=True)])
    assert differing < 0.01


def test_the_documentations_example_of_semantic_segmentation_runs(tmp_path: Path) -> None:
    text = (CONFIGS.parent / "docs" / "methods" / "adversarial.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    weights = tmp_path / "weights.safetensors"
    network = build_network(NetworkSettings(head="semantic", classes=3), 0)
    save_weights(weights, network.state_dict(), CATEGORIES)
    found, split = get_dataset("synthetic-clips")
    dataset: Any = found(None, split, sequences=3, frames=2, height=64, width=64)
    names: dict[str, Any] = {"weights": weights, "dataset": dataset}
    exec(compile(example, "adversarial.md", "exec"), names)
    scores = names["scores"]
    assert set(scores.videos) == set(dataset.sequences())
    assert set(scores.classes) == {"background", "cat"}
    assert scores.classes["background"] > 0
    shown = {video.name: float(video.objects[1].category == "cat") for video in dataset}
    assert scores.coverage == shown


def test_classes_are_those_that_the_weights_were_trained_on(tmp_path: Path) -> None:
    assert built().class_names() == ("foreground",)
    semantic = settings(network={"head": "semantic", "classes": 3})
    weights = {name: tmp_path / f"{name}.safetensors" for name in ("named", "nameless", "other")}
    network = build_network(semantic.network, 0)
    save_weights(weights["named"], network.state_dict(), CATEGORIES)
    save_weights(weights["nameless"], network.state_dict(), {})
    fewer: dict[str, Any] = {"settings": {"training": {"domains": {"categories": ["dog"]}}}}
    save_weights(weights["other"], network.state_dict(), fewer)
    named = Adversarial(semantic, Context(weights=weights["named"]))
    assert named.class_names() == ("dog", "cat")
    assert named.why_not_semantic(semantic, named.context) is None
    for name, count in (("nameless", 0), ("other", 1)):
        context = Context(weights=weights[name])
        assert f"name {count} classes for" in (named.why_not_semantic(semantic, context) or "")
        with pytest.raises(MethodError, match=r"domains\.categories"):
            Adversarial(semantic, context).class_names()
    assert "name 0 classes" in (named.why_not_semantic(semantic, Context()) or "")


def test_a_semantic_head_keeps_the_contract(tmp_path: Path) -> None:
    wanted = settings(network={"head": "both", "classes": 3}, short_side=48)
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, build_network(wanted.network, 0).state_dict(), CATEGORIES)
    method = Adversarial(wanted, Context(weights=weights))
    (check,) = (one for one in CHECKS if one.title.startswith("classes"))
    assert check.skipped(method) is None
    assert check.test(method) is None


@pytest.mark.parametrize("head", ["foreground", "semantic", "both"])
@pytest.mark.parametrize("kind", ["foreground", "multi_object"])
def test_unsupervised_videos(head: str, kind: str) -> None:
    method = built(network={"head": head, "classes": 4}, unprompted={"kind": kind})
    video = scene(4, (40, 56), objects=2)
    predictions = list(unsupervised(method, video))
    assert [prediction.mask.shape for prediction in predictions] == [(40, 56)] * 4
    _, scores = method.begin_semantic(video.frame(0))
    assert scores.shape == (2 if head == "foreground" else 4, 40, 56)


def test_a_network_trained_for_a_moment_finds_a_bright_object() -> None:
    method = built()
    network = method.network.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(25):
        examples = [moving_square((64, 64), 24, length=1, seed=4 * step + i)[0] for i in range(4)]
        shift = [(7 * (4 * step + i)) % 30 for i in range(4)]
        images = [np.roll(image, s, (0, 1)) for (image, _), s in zip(examples, shift, strict=True)]
        masks = [np.roll(mask, s, (0, 1)) for (_, mask), s in zip(examples, shift, strict=True)]
        clips = torch.stack([method.frames.prepare(image) for image in images])[:, None]
        logits = network(clips).foreground
        assert logits is not None
        loss = F.cross_entropy(logits, torch.from_numpy(np.stack(masks)).long())
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    network.eval().requires_grad_(False)
    video = moving_square((64, 96), 24, length=4, seed=999)
    state, scores = method.begin_unprompted(frame(video[0][0]))
    for index, (image, truth) in enumerate(video):
        if index:
            state, scores = method.step(state, frame(image, index))
        assert region_j((scores[1] > scores[0]).numpy(), truth > 0) > 0.8


# ------------------------------------------------------------------ settings and weights


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, PropagationProtocolSettings),
        ({"tap": "neck"}, PropagationProtocolSettings),
        ({"kind": "fine_tune", "tap": "neck"}, FineTuneSettings),
        ({"kind": "matching", "tap": "neck"}, MatchingSettings),
        ({"kind": "semantic_prior", "tap": "neck", "strength": 1}, SemanticPriorSettings),
    ],
)
def test_the_kind_chooses_the_protocol(given: dict[str, Any], expected: type) -> None:
    found = settings(protocol=given)
    assert type(found.protocol) is expected
    again = AdversarialSettings.model_validate(found.model_dump(mode="json"))
    assert again == found
    assert isinstance(settings(unprompted={"kind": "multi_object"}).unprompted, MultiObjectSettings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": {"kind": "guess"}},
        {"protocol": {"kind": "matching", "beta": 1}},
        {"protocol": "matching"},
        {"clip_frames": 2},
        {"unprompted": {"most": 21, "kind": "multi_object"}},
    ],
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_random_weights_follow_the_seed_and_nothing_pretrained_gets_in() -> None:
    states = [
        built(seed, network=network).network.state_dict()
        for seed, network in ((1, {}), (1, {"initial": "imagenet"}), (2, {}))
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert built().regime() == LabelRegime(note="random weights")
    assert not built().network.training


REGIME = {"images": 10, "image_labels": "mask", "videos": 3, "pretraining": ["ImageNet-1k classes"]}


def saved(folder: Path, seed: int = 7, **network: Any) -> Path:
    wanted = NetworkSettings.model_validate(network)
    folder.mkdir(parents=True)
    header = {
        "settings": {
            "network": wanted.model_dump(mode="json"),
            "training": {"batch_norm": {"evaluation": "video"}, "entropy_weight": 0.1},
        },
        "regime": REGIME,
    }
    path = folder / "weights.safetensors"
    save_weights(path, build_network(wanted, seed).state_dict(), header)
    return path


def test_weights_are_found_by_the_network_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = settings(initial="trained", network={"time": "shift"})
    assert Adversarial.lacks_weights(wanted)
    assert "bench train" in str(Adversarial.why_not(wanted, Context()))
    saved(Path("checkpoints/adv/other"))
    assert Adversarial.find_weights(wanted) is None
    path = saved(Path("checkpoints/adv/mine"), time="shift")
    assert Adversarial.find_weights(wanted) == path
    assert Adversarial.find_weights(settings(network={"time": "shift"})) is None
    assert Adversarial.why_not(wanted, Context()) is None

    method = Adversarial(wanted, Context())
    expected = build_network(wanted.network, 7).state_dict()
    for name, tensor in method.network.state_dict().items():
        assert torch.allclose(tensor.float(), expected[name].float(), atol=2e-3)
    assert method.regime() == LabelRegime(
        images=10, image_labels="mask", videos=3, pretraining=("ImageNet-1k classes",)
    )
    assert method.protocol().extra["batch norm statistics"] == "video"


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    state = build_network(NetworkSettings(), 0).state_dict()
    lost = next(iter(state))
    torch.save(
        {**{k: v for k, v in state.items() if k != lost}, "odd": torch.ones(1)},
        tmp_path / "broken.pth",
    )
    with pytest.raises(MethodError) as error:
        Adversarial(settings(), Context(weights=tmp_path / "broken.pth"))
    assert lost in str(error.value)
    assert "odd" in str(error.value)
    torch.save(state, tmp_path / "bare.pth")
    bare = Adversarial(settings(), Context(weights=tmp_path / "bare.pth"))
    assert "unknown origin" in bare.regime().note


def test_the_record_says_how_masks_were_made() -> None:
    record = built(short_side=48, protocol={"tap": "enc2"}).protocol()
    assert (record.stride, record.resolution, record.memory) == (8, "short side 48", "first + 7")
    assert (record.top_k, record.radius, record.temperature) == (5, 12, 0.1)
    assert record.extra["protocol"] == "propagation"
    assert record.extra["tap"] == "enc2"
    assert record.extra["unprompted"] == "foreground"
    assert record.extra["unprompted threshold"] == "0.5"
    assert record.extra["batch norm statistics"] == "initial"
    for kind, wanted in {
        "fine_tune": "steps",
        "matching": "prototypes",
        "semantic_prior": "prior",
    }.items():
        extra = built(protocol=QUICK[kind]).protocol().extra
        assert extra["protocol"] == kind.replace("_", " ")
        assert wanted in extra


def test_the_card_claims_no_reproduction() -> None:
    description = Adversarial.card.description
    assert "a reading, not a reproduction" in description
    assert "ICLR 2023 submission" in description
