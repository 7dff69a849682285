"""Training of ``adv`` under the harness: weights, regimes, resuming, recipes, the null control."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.ablate import combinations, load_ablation, nest
from bench.config import (
    CONFIGS,
    flatten,
    method_config,
    method_settings,
    read_yaml,
    training_settings,
)
from bench.errors import ConfigError, MethodError
from bench.method import LabelRegime
from bench.registry import get_method
from bench.train import _split
from bench.training import (
    CURVE,
    Budget,
    TrainingRequest,
    TrainingTask,
    load_strictly,
    read_header,
    read_weights,
    regime_from,
    save_weights,
    schedule,
    train,
)
from datasets.synthetic.clips import SyntheticClips
from datasets.synthetic.stills import SyntheticStills
from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    ClusterSettings,
    DiscriminatorSettings,
)
from methods.adversarial.checks import check
from methods.adversarial.domains import needed
from methods.adversarial.monitoring import MONITORS
from methods.adversarial.networks import build_network
from methods.adversarial.objectives import foreground_iou
from methods.adversarial.settings import (
    AdaptationSettings,
    AugmentationSettings,
    BatchNormSettings,
    DomainSettings,
    NetworkSettings,
)
from methods.adversarial.taps import AUXILIARY_TAPS
from methods.adversarial.training import training_task
from tests.methods.adversarial.shapes import FRAMES, ShapeImages, ShapeVideos

BOTH = (
    AlignmentSettings(tap="embed", loss="clustered", weight=0.1),
    AlignmentSettings(tap="enc4", weight=0.1),
)
SMALL: dict[str, Any] = {
    "images": 2,
    "clips": 2,
    "held_out": 4,
    "tokens": 256,
    "clusters": ClusterSettings(count=2, bank=256, refresh=2, fewest=4),
    "augmentation": AugmentationSettings(crop=32),
    "validate_every": 100,
}


def asked(out: Path, budget: str = "4it", **changes: Any) -> TrainingRequest:
    fields: dict[str, Any] = {"workers": 0, "data": ("shapes", "shape-videos")}
    return TrainingRequest("adv", out, Budget.parse(budget), **(fields | changes))


def task_of(
    request: TrainingRequest,
    network: NetworkSettings | None = None,
    data: Sequence[Any] | None = None,
    **changes: Any,
) -> TrainingTask:
    settings = AdaptationSettings(**(SMALL | changes))
    return training_task(
        network or NetworkSettings(), settings, data or [ShapeImages(), ShapeVideos()], request
    )


# ------------------------------------------------------------------------------- under the harness


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """Byte for byte: clusters, teachers, token samples and dropout continue where they were."""

    def recipe(request: TrainingRequest) -> TrainingTask:
        return task_of(request, alignments=BOTH, pseudo_label_weight=0.5, validate_every=3)

    def stop(progress: Any) -> None:
        if progress.iteration == 5:
            raise KeyboardInterrupt

    whole, parts = asked(tmp_path / "whole", "8it"), asked(tmp_path / "parts", "8it")
    train(recipe(whole), whole)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(parts), parts, stop)
    again = asked(tmp_path / "parts", "8it", resume=True)
    train(recipe(again), again)
    first, second = (
        read_weights(tmp_path / name / "weights.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    for file in (CURVE, MONITORS):
        rows = [
            [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(opened)]
            for opened in ((tmp_path / name / file).open() for name in ("whole", "parts"))
        ]
        assert rows[0] == rows[1]
    headers = [read_header(tmp_path / name / "weights.safetensors") for name in ("whole", "parts")]
    assert headers[0]["notes"] == headers[1]["notes"]
    assert headers[0]["notes"]["monitors"]["embed_clustered"]["clusters_purity"] > 0


def test_the_last_weights_are_exported_whatever_their_score(tmp_path: Path) -> None:
    request = asked(tmp_path / "t", "4it")
    task = task_of(request, alignments=BOTH[1:], validate_every=2)
    scores = iter([0.9, 0.1])
    # The first validation is the better one.
    batches = len(task.held_out)
    given = [score for score in scores for _ in range(batches)]
    task.model.validate = lambda part: [given.pop(0)] * len(part.frames)
    path = train(task, request)
    header = read_header(path)
    assert header["iterations"] == 4
    assert header["image_iou"] == 0.1
    assert set(header["settings"]) == {"network", "training"}
    assert header["settings"]["training"]["alignments"][0]["tap"] == "enc4"
    fresh = build_network(NetworkSettings(), 1)
    load_strictly(fresh, read_weights(path), path)
    for name, tensor in task.model.network.state_dict().items():
        exported = fresh.state_dict()[name].float()
        assert torch.allclose(exported, tensor.float(), atol=1e-3, rtol=1e-3), name


def test_discriminators_have_an_optimiser_of_their_own(tmp_path: Path) -> None:
    task = task_of(asked(tmp_path), alignments=BOTH)
    groups = {len(group["params"]): group for group in task.parameters}
    opponent = groups[len(list(task.model.taps.parameters()))]
    assert opponent["lr"] == 1e-4
    assert opponent["weight_decay"] == 0
    counted = sum(len(group["params"]) for group in task.parameters)
    trained = [p for p in task.model.parameters() if p.requires_grad]
    assert counted == len(trained)
    assert task.clip_parameters is not None
    clipped = {id(parameter) for parameter in task.clip_parameters}
    assert clipped.isdisjoint(map(id, task.model.taps.parameters()))
    assert clipped == {id(parameter) for parameter in task.model.network.parameters()}


def test_training_starts_from_weights_and_says_so(tmp_path: Path) -> None:
    network = build_network(NetworkSettings(), 7)
    path = tmp_path / "start.safetensors"
    before = LabelRegime(images=12, image_labels="saliency")
    save_weights(path, network.state_dict(), {"regime": before.__dict__})
    task = task_of(asked(tmp_path, start=path))
    name, tensor = next(iter(network.state_dict().items()))
    assert torch.allclose(task.model.network.state_dict()[name], tensor, atol=1e-3)
    assert "12 saliency-labelled images" in task.regime.note
    save_weights(path, {"a": torch.ones(1)}, {})
    with pytest.raises(MethodError, match="missing tensors"):
        task_of(asked(tmp_path, start=path))


# -------------------------------------------------------------------------- batch normalisation


DEEPLAB = NetworkSettings(architecture="deeplabv3")


@pytest.mark.parametrize(
    ("mode", "evaluation"),
    [("per_domain", "image"), ("per_domain", "video"), ("separate", "reestimated")],
)
def test_exported_statistics(tmp_path: Path, mode: Any, evaluation: Any) -> None:
    """Exported weights fit a plain network, and have the statistics asked for."""
    batch_norm = BatchNormSettings(mode=mode, evaluation=evaluation)
    task = task_of(asked(tmp_path), DEEPLAB, batch_norm=batch_norm, alignments=BOTH[1:])
    task.model.train()
    with torch.no_grad():
        task.model(task.samples[0])
    tensors = dict(task.weights())
    load_strictly(build_network(DEEPLAB, 3), tensors, tmp_path)
    trained = dict(task.model.network.state_dict())
    name = next(name for name in tensors if name.endswith("running_mean"))
    if mode == "per_domain":
        own = name.replace("running_mean", f"norms.{int(evaluation == 'video')}.running_mean")
        other = name.replace("running_mean", f"norms.{int(evaluation != 'video')}.running_mean")
        assert torch.equal(tensors[name], trained[own])
        assert not torch.equal(tensors[name], trained[other])
    else:
        assert not torch.equal(tensors[name], trained[name])
        same = [key for key in tensors if "running" not in key and "tracked" not in key]
        assert all(torch.equal(tensors[key], trained[key]) for key in same)


# -------------------------------------------------------------------------------------- regimes


HOURS, HALF = (round(count * FRAMES / 24 / 3600, 4) for count in (6, 3))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"images": 20, "image_labels": "mask"}),
        (
            {"alignments": BOTH},
            {"images": 20, "image_labels": "mask", "videos": 6, "video_hours": HOURS},
        ),
        (
            {"domains": DomainSettings(labelled_videos=1.0, use_image_labels=False)},
            {"videos": 6, "video_hours": HOURS, "video_labels": "mask", "video_masks": 6 * FRAMES},
        ),
        (
            {"alignments": BOTH, "domains": DomainSettings(labelled_videos=0.1)},
            {
                "images": 20,
                "image_labels": "mask",
                "videos": 6,
                "video_hours": HOURS,
                "video_labels": "mask",
                "video_masks": FRAMES,
            },
        ),
        (
            {
                "alignments": BOTH[:1],
                "clusters": SMALL["clusters"].model_copy(update={"how": "truth"}),
            },
            {
                "images": 20,
                "image_labels": "mask",
                "videos": 6,
                "video_hours": HOURS,
                "video_labels": "mask",
                "video_masks": 6 * FRAMES,
            },
        ),
        (
            {"alignments": BOTH, "domains": DomainSettings(used_videos=0.5)},
            {"images": 20, "image_labels": "mask", "videos": 3, "video_hours": HALF},
        ),
        (
            {"alignments": BOTH, "domains": DomainSettings(pairing="image_image")},
            {"images": 20, "image_labels": "mask"},
        ),
        (
            {"batch_norm": BatchNormSettings(evaluation="reestimated")},
            {"images": 20, "image_labels": "mask", "videos": 6, "video_hours": HOURS},
        ),
    ],
)
def test_regime_counts_what_is_consumed(
    tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    task = task_of(asked(tmp_path), **changes)
    assert task.regime == LabelRegime(**expected, note="shapes and shape-videos")


def test_second_images_are_counted_as_unlabelled(tmp_path: Path) -> None:
    data = [ShapeImages(), ShapeImages(count=9)]
    domains = DomainSettings(pairing="second_images")
    task = task_of(asked(tmp_path), data=data, alignments=BOTH, domains=domains)
    assert task.regime.images == 20
    assert task.regime.videos == 0
    assert "9 more images without labels" in task.regime.note


def test_truth_is_never_trained_on(tmp_path: Path) -> None:
    """Clusters of true classes see the videos' masks; the segmentation loss does not."""
    clusters = SMALL["clusters"].model_copy(update={"how": "truth"})
    task = task_of(asked(tmp_path), alignments=BOTH[:1], clusters=clusters)
    step = task.samples[0]
    assert (step.clips.foreground != 255).all()
    assert not step.clips.supervised.any()
    task.model(step)
    assert task.model.taps[0].clusters.ready


# ------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("network", "changes", "named"),
    [
        ({}, {"domains": DomainSettings(use_image_labels=False)}, "labelled_videos"),
        ({"head": "semantic", "classes": 3}, {}, "categories"),
        (
            {"head": "both", "classes": 3},
            {"domains": {"image_masks": "saliency", "categories": ("a", "b")}},
            "image_masks",
        ),
        ({}, {"alignments": BOTH, "images": 1, "domains": {"pairing": "shuffled"}}, "images"),
        (
            {},
            {"alignments": ({"tap": "logits", "discriminator": {"network": "patch3d"}},)},
            "alignments",
        ),
        (
            {"time": "attention"},
            {"batch_norm": {"mode": "joint"}, "domains": {"images_as": "single"}},
            "images_as",
        ),
        ({}, {"held_out": 24}, "held_out"),
        ({}, {"alignments": ({"tap": "prob", "disagreement": {}},)}, "auxiliary_weight"),
        ({}, {"entropy_weight": 0.1, "domains": {"pairing": "image_image"}}, "pairing"),
        (
            {},
            {"domains": {"pairing": "second_images", "labelled_videos": 0.1}},
            "labelled_videos",
        ),
        *(
            (
                {},
                {
                    "pseudo_label_weight": 1.0,
                    "pseudo_label_frame": "previous",
                    "domains": domains,
                },
                "pseudo_label_frame",
            )
            for domains in ({"clip_frames": 1}, {"pairing": "sharpest"})
        ),
    ],
)
def test_recipes_that_mean_nothing_are_refused(
    tmp_path: Path, network: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        task_of(asked(tmp_path), NetworkSettings(**network), **changes)


# ------------------------------------------------------------------ semantic and 3D networks


def test_semantic_heads_learn_named_classes(tmp_path: Path) -> None:
    network = NetworkSettings(head="both", classes=3)
    domains = DomainSettings(categories=("square", "disc"), labelled_videos=1.0)
    task = task_of(asked(tmp_path), network, domains=domains, alignments=BOTH)
    step = task.samples[0]
    assert set(step.images.classes.unique().tolist()) == {0, 2}
    assert set(step.clips.classes.unique().tolist()) == {0, 2}
    assert torch.isfinite(sum(task.model(step).values()))


@pytest.mark.parametrize("time", ["inflate", "attention", "shift"])
def test_networks_over_time(tmp_path: Path, time: Any) -> None:
    tap = "enc4" if time == "inflate" else "temporal"
    patch3d = {"tap": "logits", "discriminator": {"network": "patch3d", "width": 16}}
    alignments = ({"tap": tap}, patch3d)
    crop = AugmentationSettings(crop=128)
    task = task_of(
        asked(tmp_path), NetworkSettings(time=time), alignments=alignments, augmentation=crop
    )
    task.progress(0.9, 0)
    losses = task.model(task.samples[0])
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())


# --------------------------------------------------------------------------------------- recipes


def recipe(path: Path, preset: Any = "tiny") -> AdaptationSettings:
    method: Any = get_method("adv")
    network, training = _split("adv", method, flatten(read_yaml(path)))
    assert not network
    settings = training_settings("adv", method, preset, training)
    assert isinstance(settings, AdaptationSettings)
    return settings


RECIPES = sorted((CONFIGS / "training" / "adv").glob("*.yaml"))


def test_recipes_are_what_their_names_say() -> None:
    found = {path.stem: recipe(path) for path in RECIPES}
    plain = found["source"]
    assert needed(plain) == (plain.images, 0)
    for name, changed in {
        "source_augmented": {"augmentation"},
        "batch_norm_reestimated": {"batch_norm"},
        "entropy": {"entropy_weight"},
        "pseudo_labels": {"pseudo_label_weight"},
        "pseudo_labels_temporal": {"pseudo_label_weight", "pseudo_label_frame"},
        "global_enc4": {"alignments"},
        "clustered_embed": {"alignments"},
        "source_pseudo_masks": {"domains"},
        "clustered_global": {"alignments"},
        "category_level": {"alignments", "auxiliary_weight", "game"},
        "oracle_video": {"domains"},
        "oracle_both": {"domains"},
    }.items():
        fields = AdaptationSettings.model_fields
        differing = {key for key in fields if getattr(found[name], key) != getattr(plain, key)}
        assert differing == changed, name
    full = found["clustered_global"]
    for name, settings in found.items():
        if name.startswith("control_"):
            assert settings.domains.pairing != "image_video"
            same = settings.model_copy(update={"domains": full.domains})
            assert same == full, name
    assert found["category_level"].by_disagreement
    assert found["few_10"].domains.labelled_videos == 0.1
    pseudo = full.domains.model_copy(update={"image_masks": "saliency"})
    assert found["pseudo_masks"] == full.model_copy(update={"domains": pseudo})
    assert found["source_pseudo_masks"].domains == pseudo
    assert needed(found["oracle_video"]) == (0, plain.clips)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_train(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of each, at a small size."""
    monkeypatch.chdir(tmp_path)  # where detected saliency is kept
    settings = recipe(path).model_copy(update=SMALL)
    augmentation = recipe(path).augmentation.model_copy(update={"crop": 32})
    settings = settings.model_copy(update={"augmentation": augmentation})
    data: list[Any] = [ShapeImages(), ShapeImages(), ShapeVideos()]
    task = training_task(NetworkSettings(), settings, data, asked(tmp_path))
    task.progress(0.5, 0)
    losses = task.model(task.samples[0])
    assert torch.isfinite(sum(losses.values()))


def test_paper_preset_is_complete() -> None:
    settings = recipe(CONFIGS / "training" / "adv" / "clustered_global.yaml", "paper")
    assert settings.augmentation.crop == 480
    assert settings.head_factor == 10
    first = method_config("adv", get_method("adv")).first_training
    assert first is not None
    assert first.datasets == ["ecssd", "davis16-train"]


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "ablations" / "adv").glob("*.yaml")), ids=lambda path: path.stem
)
def test_ablations_are_valid(path: Path) -> None:
    config = load_ablation(path)
    found = combinations(config)
    assert len({point.name for point in found}) == len(found)
    method: Any = get_method("adv")
    for point in found:
        nested: dict[str, Any] = {}
        for key, value in point.training.items():
            place = nested
            *parents, last = key.split(".")
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        settings = training_settings("adv", method, "tiny", nested)
        assert isinstance(settings, AdaptationSettings)
        chosen, _ = method_settings("adv", method, "tiny", nest(point.settings))
        check(chosen.network, settings)


def test_every_tap_is_ablated_and_exists() -> None:
    """All taps that a network has, and none that it has not."""
    points = combinations(load_ablation(CONFIGS / "ablations" / "adv" / "location.yaml"))
    method: Any = get_method("adv")
    ablated = set()
    channels: dict[str, Any] = {}
    for point in points:
        chosen, _ = method_settings("adv", method, "tiny", nest(point.settings))
        time = chosen.network.time
        if time not in channels:
            channels[time] = build_network(chosen.network, 0).channels
        taps = {one["tap"] for one in point.training["alignments"]}
        assert taps - set(AUXILIARY_TAPS) <= set(channels[time]), point.name
        ablated |= taps
    assert set(channels) == {"none", "attention"}
    assert ablated - set(AUXILIARY_TAPS) == set(channels["attention"])


# ---------------------------------------------------------------------------------- null control


CONTROL_STEPS = 50
SEEDS = range(3)
ALIGNED = (
    AlignmentSettings(tap="embed", weight=0.03, discriminator=DiscriminatorSettings(dropout=0.0)),
)


SIZE = {"height": 64, "width": 96}
"""The suite's own synthetic data, tiny: stills as they are, clips in low light and compressed."""


def short_training(folder: Path, seed: int, **changes: Any) -> tuple[float, float]:
    """A training whose discriminator learns fast enough to matter.

    Batch normalisation has the images' statistics: those of video alone change scores.

    Returns:
        Mean intersection over union on frames of the videos, and the discriminator's accuracy, NaN
        where there is none.
    """
    recipe = {
        "images": 4,
        "tokens": 512,
        "batch_norm": BatchNormSettings(evaluation="image"),
        "augmentation": AugmentationSettings(crop=64),
    }
    settings = AdaptationSettings(**(SMALL | recipe | changes))
    request = TrainingRequest("adv", folder, Budget(iterations=CONTROL_STEPS), seed)
    stills = SyntheticStills(None, "train", images=60, **SIZE)
    clips = SyntheticClips(
        None, "train", sequences=12, frames=5, low_light=0.6, compression=0.5, **SIZE
    )
    task = training_task(NetworkSettings(), settings, [stills, clips], request)
    model: Any = task.model.train()
    optimiser = torch.optim.AdamW(task.parameters, 1e-3)
    segmenter, *discriminators = optimiser.param_groups
    for number in range(CONTROL_STEPS):
        spent = number / CONTROL_STEPS
        segmenter["lr"] = 1e-3 * schedule(spent + 0.02)
        for group in discriminators:
            group["lr"] = 1e-2 * schedule(spent + 0.02)
        model.progress(spent, number)
        optimiser.zero_grad()
        sum(model(task.samples[number]).values()).backward()
        torch.nn.utils.clip_grad_norm_(task.clip_parameters, 1.0)
        optimiser.step()
    model.eval()
    seen = [(video, number) for video in clips for number in (0, 4)]
    frames = torch.from_numpy(np.stack([video.load_frame(number) for video, number in seen]))
    masks = torch.from_numpy(np.stack([video.load_mask(number) for video, number in seen]))
    with torch.no_grad():
        output = model.network(model.normalise(frames.permute(0, 3, 1, 2)[:, None]))
    overlap = float(np.mean(foreground_iou(output.foreground, masks)))
    monitors = model.notes()["monitors"]
    accuracy = monitors["embed_global"]["accuracy_average"] if monitors else float("nan")
    return overlap, accuracy


@pytest.fixture(scope="module")
def source_only(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Overlap on video without an adversary, by seed."""
    folder = tmp_path_factory.mktemp("source")
    found = [short_training(folder, seed)[0] for seed in SEEDS]
    assert min(found) > 0.5, "the source has learned something"
    return found


@pytest.mark.parametrize("pairing", ["shuffled", "image_image"])
def test_domains_without_meaning_do_what_source_only_does(
    pairing: str, source_only: list[float], tmp_path: Path
) -> None:
    """Nobody can tell them apart, and scores stay within two standard deviations over seeds."""
    domains = DomainSettings(pairing=pairing)
    runs = [short_training(tmp_path, s, alignments=ALIGNED, domains=domains) for s in SEEDS]
    control, accuracies = zip(*runs, strict=True)
    assert max(accuracies) < 0.6
    spread = float(np.sqrt((np.var(source_only, ddof=1) + np.var(control, ddof=1)) / 2))
    assert abs(np.mean(control) - np.mean(source_only)) < 2 * spread, (source_only, control)


def test_the_same_discriminator_tells_real_domains_apart(tmp_path: Path) -> None:
    """Otherwise the controls would show nothing."""
    _, accuracy = short_training(tmp_path, 0, alignments=ALIGNED)
    assert accuracy > 0.65


def test_images_are_all_the_source_has(tmp_path: Path) -> None:
    """Without an adversary nothing of the videos is decoded, so no weight can depend on them."""
    videos = ShapeVideos()
    request = asked(tmp_path / "t", "2it")
    train(task_of(request, data=[ShapeImages(), videos]), request)
    assert videos.frames_read == 0
    assert regime_from(read_header(tmp_path / "t" / "weights.safetensors")) == LabelRegime(
        images=20, image_labels="mask", note="shapes and shape-videos"
    )
