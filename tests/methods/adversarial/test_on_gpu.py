"""Trainings of ``adv`` on a pretended GPU: clusters, games, teachers and monitors keep to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from bench.training import Budget, TrainingRequest, train
from methods.adversarial.adversary_settings import ClusterSettings
from methods.adversarial.settings import AdaptationSettings, NetworkSettings
from methods.adversarial.training import training_task
from tests.methods.adversarial.shapes import ShapeImages, ShapeVideos
from tests.pretend_gpu import pretend_gpu

SMALL: dict[str, Any] = {
    "images": 2,
    "clips": 2,
    "held_out": 4,
    "tokens": 256,
    "augmentation": {"crop": 32},
    "validate_every": 2,
    "game": {"start": 0},
}
CLUSTERS: dict[str, Any] = {"count": 2, "bank": 256, "refresh": 1, "fewest": 4}
GLOBAL = [{"tap": "enc4"}]
CLUSTERED = [{"tap": "embed", "loss": "clustered"}]
KINDS = ("shared_balanced", "conditioned", "joint2K")

RECIPES: dict[str, dict[str, Any]] = {
    **{
        f"clusters by {how}": {"alignments": CLUSTERED, "clusters": CLUSTERS | {"how": how}}
        for how in get_args(ClusterSettings.model_fields["how"].annotation)
    },
    **{
        f"{kind} discriminator": {
            "alignments": [CLUSTERED[0] | {"discriminator": {"kind": kind}}],
            "clusters": CLUSTERS,
        }
        for kind in KINDS
    },
    **{
        f"{game} game": {"alignments": GLOBAL, "game": {"loss": game, "start": 0}}
        for game in ("non_saturating", "least_squares", "confusion")
    },
    "patches and pixels": {
        "alignments": [
            {"tap": "prob", "discriminator": {"network": "patch"}},
            {"tap": "enc3", "discriminator": {"network": "pixel", "penalty_weight": 1.0}},
        ]
    },
    "projection, spectral norm, turns": {
        "alignments": [
            CLUSTERED[0]
            | {
                "discriminator": {
                    "kind": "conditioned",
                    "conditioning": "projection",
                    "spectral_norm": True,
                }
            }
        ],
        "clusters": CLUSTERS,
        "game": {"start": 0, "discriminator_steps": 1},
    },
    "two levels": {
        "alignments": [{"tap": "prob"}, {"tap": "aux_prob"}],
        "auxiliary_weight": 0.1,
    },
    "pairs": {"alignments": [{"tap": "ent", "discriminator": {"network": "pair"}}]},
    "soft clusters of the network at first": {
        "alignments": CLUSTERED,
        "clusters": CLUSTERS | {"assignment": "soft", "features": "frozen", "center": "joint"},
    },
    "teachers": {
        "entropy_weight": 0.1,
        "auxiliary_weight": 0.1,
        "pseudo_label_weight": 1.0,
        "pseudo_label_frame": "previous",
        "pseudo_label_threshold": 0.1,
    },
    "few labels": {"domains": {"labelled_videos": 0.5}, "batch_norm": {"mode": "joint"}},
    "own statistics": {
        "alignments": GLOBAL,
        "batch_norm": {"mode": "per_domain", "evaluation": "moving_average"},
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_training_keeps_to_the_gpu(name: str, tmp_path: Path) -> None:
    request = TrainingRequest(
        "adv",
        tmp_path / "training",
        Budget.parse("2it"),
        workers=0,
        device="cuda",
        data=("shapes", "shape-videos"),
    )
    settings = AdaptationSettings.model_validate(SMALL | RECIPES[name])
    with pretend_gpu():
        task = training_task(NetworkSettings(), settings, [ShapeImages(), ShapeVideos()], request)
        assert train(task, request).is_file()
