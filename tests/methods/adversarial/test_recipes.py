"""Recipes that are refused before anything runs, and all of the ablations' that can be built."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.ablate import combinations, load_ablation, nest
from bench.config import CONFIGS, method_settings, training_settings
from bench.errors import ConfigError
from bench.registry import get_method
from methods.adversarial.adaptation import Adaptation
from methods.adversarial.checks import check
from methods.adversarial.networks import SegmentationNetwork, build_network
from methods.adversarial.settings import AdaptationSettings, NetworkSettings
from tests.methods.adversarial.test_training import asked, task_of

EMBED: dict[str, Any] = {"tap": "embed", "loss": "clustered"}
ENC4: dict[str, Any] = {"tap": "enc4"}
CLIPS: dict[str, Any] = {"time": "attention"}
IMAGENET: dict[str, Any] = {"architecture": "deeplabv3", "initial": "imagenet"}
SEMANTIC: dict[str, Any] = {"head": "semantic", "classes": 3}
CATEGORIES: dict[str, Any] = {"domains": {"categories": ("cat", "dog")}}


def checked(network: dict[str, Any], recipe: dict[str, Any], started: bool = False) -> None:
    check(NetworkSettings(**network), AdaptationSettings(**recipe), started)


def batch_norm(mode: str, evaluation: str = "image") -> dict[str, Any]:
    return {"batch_norm": {"mode": mode, "evaluation": evaluation}, "alignments": (ENC4,)}


def clusters(how: str, count: int) -> dict[str, Any]:
    return {"alignments": (EMBED,), "clusters": {"how": how, "count": count}}


def regions(network: str, crop: int) -> dict[str, Any]:
    one = {"tap": "prob", "discriminator": {"network": network}}
    return {"alignments": (one,), "augmentation": {"crop": crop}}


# --------------------------------------------------------------------------------- refused or not


@pytest.mark.parametrize(
    ("network", "recipe", "started", "found"),
    [
        *(
            ({}, batch_norm("joint", evaluation), False, f"{evaluation} with batch_norm.mode=joint")
            for evaluation in ("video", "moving_average")
        ),
        *(
            (IMAGENET, batch_norm("frozen", evaluation), True, "those of the weights to start from")
            for evaluation in ("video", "moving_average")
        ),
        ({}, batch_norm("frozen"), False, "no weights to start from"),
        ({"architecture": "deeplabv3"}, batch_norm("frozen"), False, "no weights to start from"),
        (
            {},
            {
                "batch_norm": {"mode": "per_domain"},
                "domains": {"labelled_videos": 1.0, "use_image_labels": False},
            },
            False,
            "a domain has no samples",
        ),
        ({}, clusters("truth", 3), False, "expected 2, the number of classes"),
        ({}, clusters("prediction", 1), False, "expected 2, the number of classes"),
        (SEMANTIC, CATEGORIES | clusters("truth", 2), False, "expected 3, the number of classes"),
        (
            SEMANTIC | {"head": "both"},
            CATEGORIES | clusters("prediction", 2),
            False,
            "expected 3, the number of classes",
        ),
        ({}, regions("patch", 31), False, "at least 32"),
        ({}, regions("pair", 31), False, "at least 32"),
        (CLIPS, regions("patch3d", 31), False, "at least 32"),
    ],
)
def test_what_does_nothing_or_fails_later_is_refused(
    network: dict[str, Any], recipe: dict[str, Any], started: bool, found: str
) -> None:
    with pytest.raises(ConfigError) as error:
        checked(network, recipe, started)
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("network", "recipe", "started"),
    [
        ({}, batch_norm("joint"), False),
        ({}, batch_norm("joint", "reestimated"), False),
        ({}, batch_norm("separate", "video"), False),
        ({}, batch_norm("per_domain", "moving_average"), False),
        # The decoder, at least, follows what is asked for.
        (IMAGENET, batch_norm("frozen", "video"), False),
        (IMAGENET, batch_norm("frozen"), True),
        ({}, batch_norm("frozen"), True),
        ({}, batch_norm("frozen", "reestimated"), True),
        ({}, clusters("truth", 2), False),
        ({}, clusters("kmeans_epoch", 3), False),
        ({}, clusters("truth", 3) | {"alignments": (ENC4,)}, False),
        (SEMANTIC, CATEGORIES | clusters("prediction", 3), False),
        ({}, regions("patch", 32), False),
        ({}, regions("pixel", 16), False),
    ],
)
def test_what_means_something_is_not(
    network: dict[str, Any], recipe: dict[str, Any], started: bool
) -> None:
    checked(network, recipe, started)


@pytest.mark.parametrize(
    ("tap", "network"), [("temporal", "patch3d"), ("enc4", "patch3d"), ("enc4", "patch")]
)
def test_patches_are_judged_where_maps_are_small(tmp_path: Path, tap: str, network: str) -> None:
    """Recipes that are let pass take their first step; here maps of 2 x 2 are judged."""
    one = {"tap": tap, "discriminator": {"network": network, "width": 16}}
    task = task_of(asked(tmp_path), NetworkSettings(**CLIPS), alignments=(one,))
    task.model.train()
    task.progress(0.9, 0)
    losses = task.model(task.samples[0])
    sum(losses.values()).backward()
    assert torch.isfinite(losses[f"discriminator_{tap}_global"])
    assert any(p.grad is not None and p.grad.any() for p in task.model.taps.parameters())


# ---------------------------------------------------------------------------------- ablations


@functools.cache
def points() -> dict[str, tuple[NetworkSettings, AdaptationSettings]]:
    """All points of all ablations by name of the ablation and of the point."""
    method: Any = get_method("adv")
    found = {}
    for path in sorted((CONFIGS / "ablations" / "adv").glob("*.yaml")):
        for point in combinations(load_ablation(path)):
            settings = training_settings("adv", method, "tiny", nest(point.training))
            chosen, _ = method_settings("adv", method, "tiny", nest(point.settings))
            assert isinstance(settings, AdaptationSettings)
            found[f"{path.stem}: {point.name}"] = chosen.network, settings
    return found


class Builder:
    """Builds what is trained, with one network for all recipes that share its settings."""

    def __init__(self) -> None:
        self.networks: dict[str, SegmentationNetwork] = {}

    def __call__(self, network: NetworkSettings, settings: AdaptationSettings) -> Adaptation:
        name = network.model_dump_json()
        if name not in self.networks:
            self.networks[name] = build_network(network, 0)
        # Batch normalisation is prepared in place.
        return Adaptation(copy.deepcopy(self.networks[name]), settings)


def test_every_point_of_every_ablation_can_be_built() -> None:
    """Discriminators and clusters have mistakes of their own, which the checks do not know."""
    unread = ("domains", "augmentation", "optimiser", "learning_rate", "weight_decay", "clips")
    plain = AdaptationSettings()
    defaults = {name: getattr(plain, name) for name in unread}
    distinct = {}
    for name, (network, settings) in points().items():
        settings = settings.model_copy(update=defaults)
        distinct.setdefault((network.model_dump_json(), settings.model_dump_json()), name)
    assert len(distinct) > 80
    build = Builder()
    for (network, settings), name in distinct.items():
        recipe = AdaptationSettings.model_validate_json(settings)
        model = build(NetworkSettings.model_validate_json(network), recipe)
        assert len(model.taps) == len(recipe.alignments), name


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (
            {
                "alignments": (EMBED | {"discriminator": {"kind": "joint2K"}},),
                "game": {"loss": "least_squares"},
            },
            "least_squares with a joint2K discriminator",
        ),
        ({"alignments": (EMBED,), "clusters": {"how": "batch", "count": 16}}, "within a batch"),
        ({"alignments": (EMBED,), "clusters": {"bank": 64}}, "at least 39 per cluster"),
    ],
)
def test_building_finds_what_checking_does_not(recipe: dict[str, Any], named: str) -> None:
    network, settings = NetworkSettings(), AdaptationSettings(**recipe)
    check(network, settings)
    with pytest.raises(ConfigError, match=named):
        Builder()(network, settings)


def test_fadas_discriminator_is_ablated_with_soft_targets() -> None:
    """One-hot targets make its temperature and its clip mean nothing."""
    found = [
        settings.clusters.assignment
        for _, settings in points().values()
        for one in settings.alignments
        if one.discriminator.kind == "joint2K"
    ]
    assert found
    assert set(found) == {"soft"}
