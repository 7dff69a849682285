"""One step of an adaptation: gradients, clusters that do nothing, copies, batch normalisation."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import ConfigError
from methods.adversarial.adaptation import Adaptation
from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    ClusterSettings,
    DiscriminatorSettings,
    GameSettings,
)
from methods.adversarial.aligned_tap import AlignedTap, Side
from methods.adversarial.data import Part, Step
from methods.adversarial.monitoring import ALARMS, MONITORS, Monitoring
from methods.adversarial.networks import build_network
from methods.adversarial.networks.batch_norm import batch_norms
from methods.adversarial.objectives import (
    cell_labels,
    dice_loss,
    entropy_loss,
    foreground_iou,
    foreground_loss,
    pseudo_label_loss,
    segmentation_loss,
)
from methods.adversarial.passes import still_statistics
from methods.adversarial.settings import AdaptationSettings, BatchNormSettings, NetworkSettings
from methods.adversarial.teacher import MovingAverage

SIDE = 32
CLUSTERS = ClusterSettings(count=2, bank=256, refresh=2, fewest=4)
BOTH = (
    AlignmentSettings(tap="embed", loss="clustered", weight=0.1),
    AlignmentSettings(tap="enc4", weight=0.1),
)


def part(count: int, frames: int, domain: int, supervised: bool, seed: int) -> Part:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, frames, 3, SIDE, SIDE), generator=random)
    labels = torch.zeros(count, frames, SIDE, SIDE, dtype=torch.uint8)
    labels[..., 8:24, 10:20] = 1
    if not supervised:
        labels[:] = 255
    return Part(
        (pixels // (1 + domain)).to(torch.uint8),
        labels,
        labels,
        torch.full((count,), supervised),
        torch.full((count,), domain),
    )


def step(images: int = 2, clips: int = 1, seed: int = 0) -> Step:
    return Step(part(images, 1, 0, True, seed), part(clips, 2, 1, False, seed + 100))


def adaptation(monitoring: Monitoring | None = None, **changes: Any) -> Adaptation:
    network = changes.pop("network", NetworkSettings())
    settings = AdaptationSettings(**({"clusters": CLUSTERS, "tokens": 256} | changes))
    return Adaptation(build_network(network, 0), settings, 0, monitoring).train()


def gradients(model: Adaptation, batch: Step, spent: float, number: int = 0) -> dict[str, Tensor]:
    model.progress(spent, number)
    model.zero_grad()
    sum(model(batch).values()).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.network.named_parameters()
        if parameter.grad is not None
    }


# ------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("game", ["reversal", "non_saturating", "confusion"])
@pytest.mark.parametrize(("weight", "spent"), [(0.0, 0.9), (0.5, 0.05)])
def test_without_lambda_the_gradient_is_source_onlys(
    game: str, weight: float, spent: float
) -> None:
    """Exactly, with everything else running: discriminators, clusters, teacher, video forwards."""
    alignments = tuple(one.model_copy(update={"weight": weight}) for one in BOTH)
    adversarial = adaptation(alignments=alignments, game=GameSettings(loss=game))
    source = adaptation()
    for number in range(3):
        # A loss that is not there still draws no different samples.
        batch = step(seed=number)
        wanted = gradients(source, batch._replace(clips=part(0, 1, 1, False, 0)), spent, number)
        found = gradients(adversarial, batch, spent, number)
        assert wanted.keys() == found.keys()
        for name, gradient in wanted.items():
            assert torch.equal(gradient, found[name]), name
    trained = [p for p in adversarial.taps.parameters() if p.grad is not None and p.grad.any()]
    assert trained, "the discriminators learn meanwhile"


def test_with_lambda_it_is_not() -> None:
    wanted = gradients(adaptation(), step(), 0.9)
    found = gradients(adaptation(alignments=BOTH[1:]), step(), 0.9)
    changed = {name for name in wanted if not torch.equal(wanted[name], found[name])}
    assert changed
    assert all(name.startswith("encoder") for name in changed), "the decoder lies behind the tap"


def test_all_wishes_at_once() -> None:
    model = adaptation(
        alignments=(*BOTH, AlignmentSettings(tap="prob", discriminator={"network": "pixel"})),
        entropy_weight=0.1,
        pseudo_label_weight=1.0,
        pseudo_label_threshold=0.4,
    )
    losses = {}
    for number in range(2):
        model.progress(0.5, number)
        losses = model(step(seed=number))
    assert set(losses) == {
        "segmentation",
        "entropy",
        "pseudo_label",
        "discriminator_embed_clustered",
        "network_embed_clustered",
        "discriminator_enc4_global",
        "network_enc4_global",
        "discriminator_prob_global",
        "network_prob_global",
    }
    assert all(math.isfinite(value.item()) for value in losses.values())
    assert losses["entropy"].item() > 0
    assert losses["pseudo_label"].item() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"features": "self"},
        {"features": "frozen"},
        {"features": "embed"},
        {"how": "prediction"},
        {"how": "prediction", "features": "self"},
        {"how": "ema"},
        {"how": "random", "assignment": "soft"},
    ],
)
def test_every_source_of_clusters(changes: dict[str, Any]) -> None:
    model = adaptation(
        alignments=(AlignmentSettings(tap="enc2", loss="clustered"),),
        clusters=CLUSTERS.model_copy(update=changes | {"bank": 78, "fewest": 1}),
    )
    for number in range(3):
        gradients(model, step(images=4, clips=2, seed=number), 0.5, number)
    assert model.taps[0].clusters.ready
    assert int(model.taps[0].skipped) < 3


def test_supervision_counts_only_frames_with_labels() -> None:
    model = adaptation(batch_norm=BatchNormSettings(mode="frozen")).eval()
    images, clips = part(2, 1, 0, True, 0), part(2, 2, 1, True, 1)
    mixed = clips._replace(supervised=torch.tensor([False, True]))
    with torch.no_grad():
        both = model(Step(images, mixed))["segmentation"]
        frames = torch.cat([images.frames[:, 0], clips.frames[1]])
        labels = torch.cat([images.foreground[:, 0], clips.foreground[1]])
        output = model.network(model.normalise(frames[:, None]))
        wanted = foreground_loss(output.foreground, labels)
    assert both.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_domains_say_which_frames_play_which_side() -> None:
    """Shuffled labels, and images that belong to neither domain."""
    model = adaptation(alignments=BOTH[1:])
    images = part(3, 1, 0, True, 0)._replace(domains=torch.tensor([1, 0, -1]))
    clips = part(2, 2, 1, False, 1)._replace(domains=torch.tensor([0, 1]))
    seen = model._see(Step(images, clips))
    ((_, sides),) = list(model._sides(*seen))
    image, video = (one.output.taps["enc4"] for one in seen)
    assert torch.equal(sides[0].features, torch.cat([image[1:2], video[0:2]]))
    assert torch.equal(sides[1].features, torch.cat([image[0:1], video[2:4]]))


def test_unknown_taps_are_named() -> None:
    with pytest.raises(ConfigError, match="temporal"):
        adaptation(alignments=(AlignmentSettings(tap="temporal"),))
    with pytest.raises(ConfigError, match="twice"):
        adaptation(alignments=(BOTH[1], BOTH[1]))


# ----------------------------------------------------------------------------- clusters at work


def side(direction: Tensor, seed: int) -> Side:
    random = torch.Generator().manual_seed(seed)
    noise = 0.1 * torch.randn(4, len(direction), 6, 6, generator=random)
    features = direction[None, :, None, None] + noise
    return Side(features.requires_grad_(), features, torch.zeros(4, 12, 12), None)


def aligned_tap(features: str = "self") -> AlignedTap:
    settings = AdaptationSettings(
        alignments=BOTH[:1],
        clusters=CLUSTERS.model_copy(update={"features": features}),
        tokens=128,
    )
    return AlignedTap(BOTH[0], settings, 8, 8, 2, 0)


def test_clusters_of_one_domain_each_do_nothing_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tap, monitoring = aligned_tap(), Monitoring(tmp_path)
    monitoring.begin(0)
    one, other = torch.eye(8)[0], torch.eye(8)[1]
    for number in range(5):
        sides = (side(one, number), side(other, number + 50))
        result = tap(sides, 1.0, number, (12, 12), monitoring)
    assert result.monitors["skipped"] == 1
    assert result.discriminator_loss.item() == 0
    result.discriminator_loss.backward()
    assert all(s.features.grad is None or not s.features.grad.any() for s in sides)
    assert int(tap.skipped) == 5
    told = capsys.readouterr().err
    assert told.count("clustered loss does almost nothing; cluster teacher") == 1
    alarms = {note["alarm"][:14]: note for note in monitoring.notes()["alarms"]}
    assert alarms["Clusters follo"]["tap"] == "embed_clustered"
    assert alarms["Clusters follo"]["times"] > 1
    assert any("too few" in note["alarm"] for note in alarms.values())
    with (tmp_path / MONITORS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    nmi = [float(row["value"]) for row in rows if row["monitor"] == "clusters_nmi_domain"]
    assert nmi[-1] > 0.9
    # A resumed training continues these files, up to the step that it starts from.
    again = Monitoring(tmp_path, resumed=True)
    again.begin(3)
    with (tmp_path / ALARMS).open(newline="") as file:
        assert {int(row["iteration"]) for row in csv.DictReader(file)} == {0, 2}
    assert [note["last"] for note in again.notes()["alarms"]] == [2, 2]


def test_mixed_clusters_do_play() -> None:
    tap, monitoring = aligned_tap(), Monitoring(None)
    for number in range(3):
        sides = tuple(mixed_side(10 * number + domain) for domain in range(2))
        result = tap(sides, 1.0, number, (12, 12), monitoring)
    assert result.monitors["skipped"] == 0
    result.discriminator_loss.backward()
    assert all(bool(one.features.grad.any()) for one in sides)
    assert monitoring.notes()["alarms"] == []


def mixed_side(seed: int) -> Side:
    """Two kinds of tokens, whatever the domain."""
    kinds = [side(torch.eye(8)[kind], 2 * seed + kind).features[:2] for kind in range(2)]
    features = torch.cat(kinds).detach()
    return Side(features.requires_grad_(), features.detach(), torch.zeros(4, 12, 12), None)


# -------------------------------------------------------------------------------------- copies


def test_moving_average_follows_and_stays_in_evaluation() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, 0.75)
    naive = [p.detach().clone() for p in network.parameters()]
    for number in range(8):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(number + 1.0)
            network[1].running_mean.add_(1)
        average.follow(network)
        decay = min(0.75, number / (number + 1))
        naive = [
            decay * old + (1 - decay) * new.detach()
            for old, new in zip(naive, network.parameters(), strict=True)
        ]
    for mine, wanted in zip(average.network.parameters(), naive, strict=True):
        assert torch.allclose(mine, wanted, rtol=1e-5)
        assert not mine.requires_grad
    assert torch.equal(average.network[1].running_mean, network[1].running_mean)
    holder = nn.ModuleList([average]).train()
    assert not holder[0].network[1].training


def test_nothing_but_network_and_discriminators_gets_a_gradient() -> None:
    model = adaptation(alignments=BOTH, pseudo_label_weight=1.0)
    gradients(model, step(), 0.5)
    copies = [model.reference, model.teacher]
    assert all(p.grad is None for one in copies for p in one.parameters())


# ------------------------------------------------------------------------- batch normalisation


DEEPLAB = NetworkSettings(architecture="deeplabv3")


def statistics(model: Adaptation) -> list[Tensor]:
    return [norm.running_mean.clone() for norm in batch_norms(model.network)]


def test_statistics_follow_the_domains_asked_for() -> None:
    """One network; frozen statistics stay, others follow images, video, or both."""
    before = statistics(adaptation(network=DEEPLAB))
    after = {}
    for mode, evaluation, clips in (
        ("frozen", "moving_average", 2),
        ("separate", "moving_average", 0),
        ("separate", "video", 0),
        ("separate", "image", 2),
        ("separate", "moving_average", 2),
        ("separate", "video", 2),
    ):
        model = adaptation(
            network=DEEPLAB, batch_norm=BatchNormSettings(mode=mode, evaluation=evaluation)
        )
        with torch.no_grad():
            for number in range(2):
                model(Step(part(2, 1, 0, True, number), part(clips, 1, 1, False, number + 9)))
        after[mode, evaluation, clips] = statistics(model)

    def same(first: list[Tensor], second: list[Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    images = after["separate", "moving_average", 0]
    assert same(before, after["frozen", "moving_average", 2])
    assert not same(before, images)
    assert same(images, after["separate", "image", 2])
    assert same(images, after["separate", "video", 0])
    assert not same(images, after["separate", "moving_average", 2])
    assert not same(after["separate", "video", 2], after["separate", "moving_average", 2])


def test_joint_batches_equal_separate_ones_where_statistics_are_frozen() -> None:
    outputs = []
    for mode in ("frozen", "joint"):
        model = adaptation(alignments=BOTH[1:], batch_norm=BatchNormSettings(mode=mode)).eval()
        outputs.append(model._see(step()))
    for separate, joint in zip(*outputs, strict=True):
        assert torch.allclose(separate.output.foreground, joint.output.foreground, atol=1e-5)
        assert torch.allclose(separate.output.taps["enc4"], joint.output.taps["enc4"], atol=1e-5)


def test_still_statistics_restores_the_momentum() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2, momentum=0.3)).train()
    with still_statistics(network, True):
        network(torch.randn(4, 2) + 3)
    assert torch.equal(network[0].running_mean, torch.zeros(2))
    assert network[0].momentum == 0.3
    with still_statistics(network, False):
        network(torch.randn(4, 2) + 3)
    assert network[0].running_mean.min() > 0.5


# -------------------------------------------------------------------------------------- losses


def test_segmentation_losses_by_pixel() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 4, 5)
    target = torch.randint(0, 2, (3, 4, 5))
    target[0, :2] = 255
    target[2] = 255
    total, count, dice = 0.0, 0, []
    for n in range(3):
        overlap = predicted = true = 0.0
        for row in range(4):
            for column in range(5):
                label = int(target[n, row, column])
                if label == 255:
                    continue
                chances = logits[n, :, row, column].softmax(0)
                total -= math.log(chances[label])
                count += 1
                overlap += float(chances[1]) * label
                predicted += float(chances[1])
                true += label
        if n < 2:
            dice.append(1 - (2 * overlap + 1) / (predicted + true + 1))
    assert segmentation_loss(logits, target).item() == pytest.approx(total / count, rel=1e-5)
    assert dice_loss(logits, target).item() == pytest.approx(sum(dice) / 2, rel=1e-5)


def test_nothing_labelled_is_no_loss() -> None:
    logits = torch.randn(2, 2, 3, 3, requires_grad=True)
    for target in (torch.full((2, 3, 3), 255), torch.full((0, 3, 3), 255)):
        loss = foreground_loss(logits[: len(target)], target)
        assert loss.item() == 0
        loss.backward()
        assert not logits.grad.any()


def test_entropy_and_pseudo_labels() -> None:
    assert entropy_loss(torch.zeros(1, 3, 2, 2)).item() == pytest.approx(1)
    sure = torch.zeros(1, 3, 2, 2)
    sure[:, 1] = 50
    assert entropy_loss(sure).item() == pytest.approx(0, abs=1e-6)
    teacher = torch.zeros(1, 2, 1, 2)
    teacher[0, 1, 0, 0] = 5  # sure of one pixel only
    student = torch.randn(1, 2, 1, 2)
    wanted = F.cross_entropy(student[..., 0].reshape(1, 2), torch.tensor([1])) / 2
    assert pseudo_label_loss(student, teacher, 0.9).item() == pytest.approx(wanted.item())


def test_labels_of_cells() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 255])[torch.randint(0, 3, (2, 12, 9))]
    cells = cell_labels(labels, (4, 3), 2)
    for n in range(2):
        for row in range(4):
            for column in range(3):
                cell = labels[n, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].flatten()
                counts = {value: int((cell == value).sum()) for value in (0, 1, 255)}
                assert counts[int(cells[n, row, column])] == max(counts.values())


def test_intersection_over_union() -> None:
    target = torch.tensor([[[1, 1, 0, 255]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]])
    predicted = torch.tensor([[[1, 0, 1, 1]], [[0, 0, 0, 0]], [[1, 0, 0, 0]]])
    logits = F.one_hot(predicted, 2).movedim(-1, 1).float()
    assert foreground_iou(logits, target) == pytest.approx([1 / 3, 1, 0])


def test_validation_scores_every_image() -> None:
    scores = adaptation().eval().validate(part(3, 1, 0, True, 0))
    assert len(scores) == 3
    assert all(0 <= score <= 1 for score in scores)


def test_pixel_and_patch_discriminators_see_maps() -> None:
    model = adaptation(
        alignments=(
            AlignmentSettings(
                tap="enc2",
                loss="clustered",
                discriminator=DiscriminatorSettings(network="pixel", width=16),
            ),
            AlignmentSettings(
                tap="prob", discriminator=DiscriminatorSettings(network="patch", width=16)
            ),
        ),
        clusters=CLUSTERS.model_copy(update={"bank": 78, "fewest": 1, "features": "teacher"}),
    )
    for number in range(3):
        found = gradients(model, step(images=4, clips=2, seed=number), 0.9, number)
    assert model.taps[0].clusters.ready
    assert all(torch.isfinite(gradient).all() for gradient in found.values())
