"""Steps in which the discriminators alone learn: which they are, and what stays as it is."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.training import CURVE, TrainingRequest, TrainingTask, read_weights, train
from methods.adversarial.adversary_settings import AlignmentSettings, GameSettings
from methods.adversarial.games import discriminators_alone
from methods.adversarial.networks.batch_norm import batch_norms
from tests.methods.adversarial.test_adaptation import BOTH, adaptation, step
from tests.methods.adversarial.test_training import asked, task_of

LEVELS = (
    AlignmentSettings(tap="enc4", weight=0.1),
    AlignmentSettings(tap="aux_prob", weight=0.1, discriminator={"network": "pixel", "width": 8}),
)


@pytest.mark.parametrize(
    ("count", "start", "wanted"),
    [
        (0, 0.0, "nnnnnnnnnn"),
        (1, 0.0, "dndndndndn"),
        (2, 0.0, "ddnddnddnd"),
        (5, 0.0, "dddddndddd"),
        (2, 0.4, "nnnndnddnd"),
    ],
)
def test_whose_turn_it_is(count: int, start: float, wanted: str) -> None:
    game = GameSettings(discriminator_steps=count, start=start)
    turns = [discriminators_alone(game, number / 10, number) for number in range(10)]
    assert "".join("d" if alone else "n" for alone in turns) == wanted


class Watched:
    """Notes, look by look, whether anything at all has changed in some modules."""

    def __init__(self, *modules: nn.Module | None) -> None:
        self.modules = [module for module in modules if module is not None]
        self.before: list[Tensor] = []
        self.changes = ""

    def look(self) -> None:
        now = [t.clone() for module in self.modules for t in module.state_dict().values()]
        if self.before:
            same = all(torch.equal(a, b) for a, b in zip(self.before, now, strict=True))
            self.changes += "." if same else "x"
        self.before = now


def test_nothing_but_discriminators_changes_when_they_learn_alone(tmp_path: Path) -> None:
    """Under the harness: its optimiser has weight decay and moments, and clips gradients."""
    request = asked(tmp_path / "t", "8it")
    task = task_of(
        request,
        alignments=(AlignmentSettings(tap="embed", loss="clustered", weight=0.1), *LEVELS),
        game=GameSettings(loss="non_saturating", start=0.25, discriminator_steps=2),
        auxiliary_weight=0.1,
        pseudo_label_weight=0.5,
    )
    model: Any = task.model
    assert batch_norms(model.network), "their statistics are among what is watched"
    watched = {
        "network": Watched(model.network),
        "averages": Watched(model.reference, model.teacher),
        "auxiliary": Watched(model.auxiliary),
        "discriminators": Watched(*(tap.alignment for tap in model.taps)),
    }

    def progress(spent: float, number: int) -> None:
        for one in watched.values():
            one.look()
        model.progress(spent, number)

    train(dataclasses.replace(task, progress=progress), request)
    found = {}
    for name, one in watched.items():
        one.look()
        found[name] = one.changes
    # Before the game's start, at a quarter, the network learns in all steps. The learning rate of
    # the very first one is 0, so that only statistics and averages change.
    turns = "xxx..x.."
    assert found == {
        "network": turns,
        "averages": turns,
        "auxiliary": turns,
        "discriminators": ".xxxxxxx",
    }


@pytest.mark.parametrize("loss", ["reversal", "non_saturating", "confusion"])
def test_their_losses_are_those_of_a_step_together_without_the_networks_gradient(loss: str) -> None:
    """Same losses, same gradients for the discriminators, none for anything else."""
    losses, gradients = [], []
    for count in (0, 1):
        model = adaptation(
            alignments=LEVELS,
            auxiliary_weight=0.1,
            entropy_weight=0.1,
            pseudo_label_weight=1.0,
            game=GameSettings(loss=loss, discriminator_steps=count),
        )
        model.progress(0.5, 4)
        found = model(step())
        sum(found.values()).backward()
        losses.append(found)
        gradients.append([p.grad for p in model.taps.parameters()])
    names = {"discriminator_enc4_global", "discriminator_aux_prob_global"}
    assert set(losses[1]) == names
    assert set(losses[0]) > names
    for name in names:
        assert torch.equal(losses[0][name], losses[1][name])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert model.auxiliary is not None
    own = {id(parameter) for parameter in model.taps.parameters()}
    others = [p for p in model.parameters() if id(p) not in own]
    assert len(others) > 100
    assert all(parameter.grad is None for parameter in others)


def test_before_there_are_clusters_there_is_nothing_to_learn() -> None:
    model = adaptation(
        alignments=BOTH[:1], game=GameSettings(start=0.0, discriminator_steps=3), tokens=8
    )
    model.progress(0.0, 0)
    losses = model(step())
    assert not model.taps[0].clusters.ready
    assert losses["discriminator_embed_clustered"].item() == 0
    sum(losses.values()).backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_without_discriminators_there_is_no_turn_of_theirs() -> None:
    model = adaptation(game=GameSettings(start=0.0, discriminator_steps=3))
    model.progress(0.5, 0)
    assert set(model(step())) == {"segmentation"}


def test_resumed_between_turns_it_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    """With spectral normalisation, projection and two levels, whose state is stored as well."""

    def recipe(request: TrainingRequest) -> TrainingTask:
        projection = {
            "kind": "conditioned",
            "conditioning": "projection",
            "spectral_norm": True,
            "width": 16,
        }
        clustered = AlignmentSettings(
            tap="embed", loss="clustered", weight=0.1, discriminator=projection
        )
        return task_of(
            request,
            alignments=(clustered, *LEVELS),
            auxiliary_weight=0.1,
            game=GameSettings(start=0.2, discriminator_steps=2),
            validate_every=4,  # in the midst of a turn; its state is what is resumed from
        )

    def stop(progress: Any) -> None:
        if progress.iteration == 5:
            raise KeyboardInterrupt

    whole, parts = asked(tmp_path / "whole", "9it"), asked(tmp_path / "parts", "9it")
    train(recipe(whole), whole)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(parts), parts, stop)
    again = asked(tmp_path / "parts", "9it", resume=True)
    train(recipe(again), again)
    first, second = (
        read_weights(tmp_path / name / "weights.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(opened)]
        for opened in ((tmp_path / name / CURVE).open() for name in ("whole", "parts"))
    ]
    assert rows[0] == rows[1]
    assert any(float(row["discriminator_embed_clustered_loss"] or 0) > 0 for row in rows[0])
