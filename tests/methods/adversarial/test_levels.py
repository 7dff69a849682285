"""Adversarial losses at two levels: the main output, and that of the auxiliary head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config import method_settings
from bench.errors import ConfigError
from bench.registry import get_method
from bench.training import read_weights, train
from methods.adversarial.adversary_settings import AlignmentSettings, GameSettings
from methods.adversarial.data import Step
from methods.adversarial.networks import build_network
from methods.adversarial.networks.network import weighted_self_information
from methods.adversarial.settings import BatchNormSettings, NetworkSettings
from methods.adversarial.supervision import AUXILIARY_TAP
from methods.adversarial.taps import AUXILIARY_TAPS
from tests.methods.adversarial.test_adaptation import (
    CLUSTERS,
    SIDE,
    adaptation,
    gradients,
    part,
    step,
)
from tests.methods.adversarial.test_training import asked, task_of

PATCH = {"network": "patch", "width": 16}
LEVELS = (
    AlignmentSettings(tap="prob", weight=0.001, discriminator=PATCH),
    AlignmentSettings(tap="aux_prob", weight=0.0002, discriminator=PATCH),
)


def levels(**changes: Any) -> Any:
    given: dict[str, Any] = {
        "alignments": LEVELS,
        "auxiliary_weight": 0.1,
        "game": GameSettings(loss="non_saturating", schedule="constant"),
    }
    return adaptation(**(given | changes))


@pytest.mark.parametrize("tap", AUXILIARY_TAPS)
@pytest.mark.parametrize("semantic", [False, True])
def test_both_losses_by_hand(tap: Any, semantic: bool) -> None:
    network = NetworkSettings(head="both", classes=3) if semantic else NetworkSettings()
    alignment = AlignmentSettings(tap=tap, weight=0.0002, discriminator=PATCH)
    model = levels(
        network=network,
        alignments=(alignment,),
        batch_norm=BatchNormSettings(mode="frozen"),
    ).eval()
    batch = step()
    model.progress(0.5, 0)
    with torch.no_grad():
        # So sure that it matters where probabilities are taken, before or after upsampling.
        model.auxiliary.classifiers.linear[model.network.main].weight.mul_(200)
        losses = model(batch)

        def logit_of_video(frames: Tensor) -> Tensor:
            shown = model.normalise(frames)
            maps = model.network.features(shown, AUXILIARY_TAP)
            hidden = model.auxiliary.hidden(maps)
            logits = model.auxiliary.classifiers.linear[model.network.main](hidden)
            assert logits.shape[1:] == (3 if semantic else 2, *maps.shape[2:])
            output = {
                "aux_logits": logits,
                "aux_prob": logits.softmax(1),
                "aux_ent": weighted_self_information(logits.softmax(1)),
            }[tap]
            large = F.interpolate(output, (SIDE, SIDE), mode="bilinear", align_corners=False)
            logit: Tensor = model.taps[0].alignment.discriminator(large)
            return logit

        u, v = logit_of_video(batch.images.frames), logit_of_video(batch.clips.frames)
        own = (F.softplus(u).mean() + F.softplus(-v).mean()) / 2
    assert len(u) == 2
    assert losses[f"discriminator_{tap}_global"].item() == pytest.approx(own.item(), rel=1e-5)
    wanted = 0.0002 * F.softplus(v).mean().item()
    assert losses[f"network_{tap}_global"].item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("game", ["reversal", "non_saturating"])
def test_the_gradient_goes_into_head_and_encoder_and_not_beyond(game: str) -> None:
    deeplab = NetworkSettings(architecture="deeplabv3")
    model = levels(
        network=deeplab,
        alignments=LEVELS[1:],
        game=GameSettings(loss=game, schedule="constant"),
    )
    model.progress(0.5, 0)
    losses = model(step(images=4, clips=2))
    name = "discriminator" if game == "reversal" else "network"
    losses[f"{name}_aux_prob_global"].backward()
    head = dict(model.auxiliary.named_parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.values())
    assert head["classifiers.linear.foreground.weight"].grad.any()
    assert head["hidden.conv.weight"].grad.any()
    reached = {
        n for n, p in model.network.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert reached
    assert all(one.startswith("encoder") for one in reached)
    whole = {n for n in dict(model.network.named_parameters()) if n.startswith("encoder")}
    assert reached < whole, "not the last stage"


def test_two_levels_add_up() -> None:
    """Each level's gradient is its own; the main level's ends in no auxiliary head."""
    model = levels()
    assert set(gradients(model, step(), 0.5)) == set(gradients(levels(alignments=()), step(), 0.5))
    losses = model(step())
    assert {"auxiliary", "network_prob_global", "network_aux_prob_global"} < set(losses)
    model.zero_grad()
    losses["network_prob_global"].backward()
    assert all(p.grad is None for p in model.auxiliary.parameters())


def test_the_head_sees_each_domain_once() -> None:
    def calls(**changes: Any) -> int:
        model = levels(**changes)
        seen = []
        model.auxiliary.register_forward_hook(lambda *_: seen.append(1))
        model.progress(0.5, 0)
        model(step())
        return len(seen)

    assert calls() == 2
    assert calls(alignments=(*LEVELS, AlignmentSettings(tap="aux_ent", discriminator=PATCH))) == 2
    assert calls(alignments=LEVELS[:1]) == 1, "video has no labels"
    alone = GameSettings(discriminator_steps=1, start=0.0)
    assert calls(game=alone) == 2
    assert calls(game=alone, alignments=LEVELS[:1]) == 0


@pytest.mark.parametrize("features", ["self", "embed"])
def test_clusters_of_the_heads_own_output_or_of_the_embedding(features: Any) -> None:
    clustered = AlignmentSettings(tap="aux_logits", loss="clustered", weight=0.1)
    model = levels(
        alignments=(clustered,),
        clusters=CLUSTERS.model_copy(update={"features": features, "bank": 78, "fewest": 1}),
    )
    for number in range(3):
        # Both from one distribution: clusters of other domains than these would hold one each.
        clips = part(4, 2, 0, False, number + 100)._replace(domains=torch.ones(4))
        found = gradients(model, Step(part(8, 1, 0, True, number), clips), 0.9, number)
    assert model.taps[0].clusters.ready
    assert int(model.taps[0].skipped) < 3
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_clips_and_pairs_of_frames_can_be_judged(tmp_path: Path) -> None:
    pair = AlignmentSettings(tap="aux_prob", discriminator={"network": "pair", "width": 16})
    task = task_of(asked(tmp_path), alignments=(pair,), auxiliary_weight=0.1)
    task.progress(0.9, 0)
    losses = task.model(task.samples[0])
    assert all(torch.isfinite(value) for value in losses.values())


def test_exported_weights_are_those_of_the_network_alone(tmp_path: Path) -> None:
    request = asked(tmp_path / "t", "2it")
    path = train(task_of(request, alignments=LEVELS, auxiliary_weight=0.1), request)
    assert set(read_weights(path)) == set(build_network(NetworkSettings(), 1).state_dict())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"alignments": LEVELS}, "Set training.auxiliary_weight"),
        (
            {
                "alignments": ({"tap": "aux_logits", "loss": "clustered"},),
                "auxiliary_weight": 0.1,
            },
            "training.clusters.features to self or embed",
        ),
    ],
)
def test_levels_that_cannot_be_are_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    changes = {"clusters": CLUSTERS, **changes}
    with pytest.raises(ConfigError, match=told):
        task_of(asked(tmp_path), **changes)


@pytest.mark.parametrize("kind", ["propagation", "matching", "fine_tune", "semantic_prior"])
def test_protocols_know_no_auxiliary_head(kind: str) -> None:
    """It is gone when a protocol runs; the error is that of any unknown tap."""
    errors = []
    for tap in ("aux_prob", "nowhere"):
        with pytest.raises(ConfigError) as caught:
            method_settings(
                "adv", get_method("adv"), None, {"protocol": {"kind": kind, "tap": tap}}
            )
        errors.append(str(caught.value).replace(tap, "TAP"))
    assert errors[0] == errors[1]
