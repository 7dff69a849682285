"""What is frozen, whose statistics exported weights have, and what the record says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bench.training import TrainingTask, load_strictly, read_header, read_weights, save_weights
from methods.adversarial.domains import statistics_at_test
from methods.adversarial.method import Adversarial, batch_norm_statistics
from methods.adversarial.networks import build_network
from methods.adversarial.networks.batch_norm import batch_norms
from methods.adversarial.settings import AdaptationSettings, NetworkSettings
from tests.methods.adversarial.test_training import asked, task_of

IMAGENET = NetworkSettings(architecture="deeplabv3", initial="imagenet")
ALIGNED: dict[str, Any] = {"alignments": ({"tap": "enc4"},)}
ON_VIDEO: dict[str, Any] = {"domains": {"labelled_videos": 1.0, "use_image_labels": False}}


# -------------------------------------------------------------------------------- what is frozen


def steps(task: TrainingTask, count: int = 2) -> None:
    optimiser = torch.optim.SGD([p for p in task.model.parameters() if p.requires_grad], 0.1)
    task.model.train()
    for number in range(count):
        task.progress(0.5, number)
        optimiser.zero_grad()
        sum(task.model(task.samples[number]).values()).backward()
        optimiser.step()


def state_of(norms: list[_BatchNorm]) -> list[Tensor]:
    kept = [[n.running_mean, n.running_var, n.weight, n.bias] for n in norms]
    return [tensor.detach().clone() for one in kept for tensor in one if tensor is not None]


def same(before: list[Tensor], after: list[Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(before, after, strict=True)]


def test_what_imagenet_has_taught_is_frozen_and_the_rest_is_not(tmp_path: Path) -> None:
    """Statistics that have never seen data would stay those of nothing at all."""
    task = task_of(asked(tmp_path), IMAGENET, batch_norm={"mode": "frozen"}, **ALIGNED)
    network: Any = task.model.network
    encoder, everything = batch_norms(network.encoder), batch_norms(network)
    rest = [norm for norm in everything if id(norm) not in set(map(id, encoder))]
    assert encoder
    assert rest
    before = state_of(encoder), state_of(rest)
    steps(task)
    assert all(same(before[0], state_of(encoder)))
    assert not any(same(before[1], state_of(rest)))


def test_a_start_is_frozen_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    random = IMAGENET.model_copy(update={"initial": "random"})
    save_weights(path, build_network(random, 7).state_dict(), {})
    request = asked(tmp_path / "t", start=path)
    task = task_of(request, random, batch_norm={"mode": "frozen"}, **ALIGNED)
    norms = batch_norms(task.model.network)
    before = state_of(norms)
    steps(task)
    assert all(same(before, state_of(norms)))


# ----------------------------------------------------------------------------------- the record


@pytest.mark.parametrize(
    ("mode", "evaluation", "changes", "expected"),
    [
        ("separate", "image", ALIGNED, "image"),
        ("separate", "video", ALIGNED, "video"),
        ("separate", "moving_average", ALIGNED, "moving_average"),
        ("separate", "reestimated", {}, "reestimated"),
        ("per_domain", "image", {}, "image"),
        ("per_domain", "moving_average", {}, "moving_average"),
        ("per_domain", "reestimated", {}, "reestimated"),
        # A batch of both domains has one set of statistics, whatever is asked for.
        ("joint", "image", ALIGNED, "both"),
        ("joint", "image", {}, "both"),
        ("joint", "reestimated", ALIGNED, "reestimated"),
        ("frozen", "image", ALIGNED, "initial where pretrained, image elsewhere"),
        ("frozen", "video", ALIGNED, "initial where pretrained, video elsewhere"),
        ("frozen", "reestimated", ALIGNED, "reestimated"),
        # Where a recipe sees one domain alone, they are that one's.
        ("separate", "video", {}, "image"),
        ("separate", "moving_average", {}, "image"),
        ("separate", "image", ON_VIDEO, "video"),
        ("joint", "image", ALIGNED | {"domains": {"pairing": "image_image"}}, "image"),
        ("joint", "image", ON_VIDEO, "video"),
    ],
)
def test_the_record_says_whose_statistics_they_are(
    mode: str, evaluation: str, changes: dict[str, Any], expected: str
) -> None:
    batch_norm = {"mode": mode, "evaluation": evaluation}
    settings = AdaptationSettings(batch_norm=batch_norm, **changes)
    assert statistics_at_test(settings) == expected
    header = {"settings": {"training": settings.model_dump(mode="json")}}
    assert batch_norm_statistics(header) == expected


def test_unknown_recipes_are_not_guessed_at() -> None:
    assert batch_norm_statistics({}) == "initial"
    assert batch_norm_statistics({"iterations": 3}) == "as in the file"
    other = {"settings": {"training": {"batch_norm": {"evaluation": "image", "speed": 3}}}}
    assert batch_norm_statistics(other) == "as in the file"


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        ("separate", ALIGNED),
        ("joint", ALIGNED),
        ("separate", ON_VIDEO),
        ("separate", {}),
    ],
)
def test_the_record_is_what_the_statistics_are(
    tmp_path: Path, mode: str, changes: dict[str, Any]
) -> None:
    """With a momentum of 1 they are those of the last batch: of images, of video, or of both."""
    network = NetworkSettings(architecture="deeplabv3")
    task = task_of(asked(tmp_path), network, batch_norm={"mode": mode}, **changes)
    model: Any = task.model.train()
    first = batch_norms(model.network)[0]
    first.momentum = 1.0
    seen: list[Tensor] = []
    first.register_forward_hook(lambda module, given, result: seen.append(given[0].detach()))
    step = task.samples[0]
    with torch.no_grad():
        model(step)
        parts = {"image": step.images.frames, "video": step.clips.frames}
        # What the first normalisation sees of each domain: convolutions look at frames one by one.
        frames = {name: part.flatten(0, 1)[:, None] for name, part in parts.items() if len(part)}
        model.eval()
        given = {}
        for name, one in frames.items():
            seen.clear()
            model.network(model.normalise(one))
            given[name] = seen[0]
    if len(given) == 2:
        given["both"] = torch.cat(list(given.values()))
    means = {name: maps.mean((0, 2, 3)) for name, maps in given.items()}
    assert first.running_mean is not None
    fitting = [
        name for name, mean in means.items() if torch.allclose(mean, first.running_mean, atol=1e-5)
    ]
    assert fitting == [statistics_at_test(AdaptationSettings(batch_norm={"mode": mode}, **changes))]


SHIPPED = sorted(Adversarial.packaged.rglob("*.safetensors"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_weights_that_ship_say_whose_statistics_they_have(path: Path) -> None:
    """Those of trainings on masks of videos alone are the videos'."""
    header = read_header(path)
    alone = any(word in path.stem for word in ("oracle", "video_masks"))
    assert header["settings"]["training"]["batch_norm"]["mode"] == "separate"
    assert batch_norm_statistics(header) == ("video" if alone else "image")
    network = NetworkSettings.model_validate(header["settings"]["network"])
    random = network.model_copy(update={"initial": "random"})
    load_strictly(build_network(random, 0), read_weights(path), path)
