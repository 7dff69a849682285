"""When a training raises its alarms: against what, after how long, and what remains at the end."""

from __future__ import annotations

import csv
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.training import read_header, train
from methods.adversarial.adversary_settings import AlignmentSettings, ClusterSettings, GameSettings
from methods.adversarial.aligned_tap import AlignedTap, Side
from methods.adversarial.monitoring import ALARMS, MONITORS, Monitoring
from methods.adversarial.partition import Refresh
from methods.adversarial.reversal import schedule
from methods.adversarial.settings import AdaptationSettings
from tests.methods.adversarial.test_adaptation import aligned_tap, mixed_side
from tests.methods.adversarial.test_training import BOTH, asked, task_of

CHANNELS = 32


def global_tap(refresh: int, **game: Any) -> AlignedTap:
    """An alignment whose examinations are so many steps apart."""
    torch.manual_seed(0)
    one = AlignmentSettings(tap="enc4", discriminator={"width": 16})
    settings = AdaptationSettings(
        alignments=(one,),
        clusters=ClusterSettings(refresh=refresh),
        game=GameSettings(**game),
        tokens=64,
    )
    return AlignedTap(one, settings, CHANNELS, CHANNELS, 2, 0)


def side(seed: int, spread: float = 1.0) -> Side:
    """Features around one direction; without any spread they are a line."""
    random = torch.Generator().manual_seed(seed)
    shape = (4, CHANNELS, 4, 4)
    line = torch.zeros(CHANNELS)
    line[0] = 1
    features = line[None, :, None, None] * torch.randn(4, 1, 4, 4, generator=random)
    features = features + spread * torch.randn(shape, generator=random)
    return Side(features.requires_grad_(), None, torch.zeros(4, 8, 8), None)


def play(
    tap: AlignedTap,
    steps: int,
    monitoring: Monitoring,
    spread: Any = lambda number: 1.0,
    accuracy: Any = lambda number: 0.5,
) -> None:
    """A whole training, with features of a spread and a discriminator of an accuracy by step."""
    settings = tap.training_settings.game
    play_game = tap.alignment.forward
    sides_of = functools.cache(lambda spread: (side(0, spread), side(1, spread)))
    played: dict[float, Any] = {}

    def rigged(*arguments: Any) -> Any:
        if spread(number) not in played:
            played[spread(number)] = play_game(*arguments)
        result, given = played[spread(number)], accuracy(number)
        told = {"accuracy_image": given, "accuracy_video": given}
        return result._replace(monitors=result.monitors | told)

    tap.alignment.forward = rigged  # type: ignore[method-assign]
    for number in range(steps):
        spent = number / steps
        strength = schedule(settings.schedule, settings.start, spent)
        tap(sides_of(spread(number)), strength, number, (8, 8), monitoring, spent)


def steps_of(monitoring: Monitoring, words: str) -> list[int]:
    return [note["first"] for note in monitoring.notes()["alarms"] if words in note["alarm"]]


# ---------------------------------------------------------------------------------- the baseline


def test_what_supervision_does_to_features_is_not_the_adversarys_fault() -> None:
    """They lose their directions after the last examination before the game, at step 15."""
    tap, monitoring = global_tap(refresh=15, start=0.5), Monitoring(None)
    play(tap, 40, monitoring, spread=lambda number: 1.0 if number < 18 else 0.02)
    latest = monitoring.notes()["monitors"]["enc4_global"]
    assert latest["participation_ratio"] < 1.5
    assert float(tap.first[1]) < 1.5
    assert steps_of(monitoring, "collapsed") == []
    assert not tap.collapsed


def test_features_that_collapse_in_the_game_are() -> None:
    tap, monitoring = global_tap(refresh=15, start=0.5), Monitoring(None)
    play(tap, 40, monitoring, spread=lambda number: 1.0 if number < 25 else 0.02)
    assert float(tap.first[1]) > 15
    assert steps_of(monitoring, "collapsed since the adversarial loss set in") == [30]
    assert tap.collapsed


def test_a_game_from_the_first_step_is_compared_with_it() -> None:
    tap, monitoring = global_tap(refresh=10, start=0.0, schedule="constant"), Monitoring(None)
    assert math.isnan(float(tap.first[0]))
    play(tap, 1, monitoring)
    first = tap.first.clone()
    assert first.isfinite().all()
    play(tap, 12, monitoring, spread=lambda number: 0.1)
    assert torch.equal(tap.first, first)


def test_the_last_step_counts_even_where_nothing_examines_it() -> None:
    tap, monitoring = global_tap(refresh=100, start=0.0, schedule="constant"), Monitoring(None)
    assert not tap.collapsed
    play(tap, 30, monitoring, spread=lambda number: 1.0 if number < 29 else 0.0)
    assert steps_of(monitoring, "collapsed") == []
    assert tap.collapsed
    play(tap, 30, monitoring, accuracy=lambda number: 0.9, spread=lambda number: 0.0)
    assert not tap.collapsed


# ------------------------------------------------------------------- domains never told apart


@pytest.mark.parametrize(
    ("steps", "refresh"), [(400, 100), (800, 200), (2000, 500), (400, 150), (400, 1000)]
)
def test_a_discriminator_that_never_learns_is_told_of(steps: int, refresh: int) -> None:
    """Half-way, whatever single batches look like and whenever it is examined; not before."""
    random = torch.Generator().manual_seed(0)
    noise = (0.5 + 0.03 * torch.randn(steps, generator=random)).tolist()
    assert max(noise) > 0.55
    tap, monitoring = global_tap(refresh), Monitoring(None)
    play(tap, steps, monitoring, accuracy=lambda number: noise[number])
    assert steps_of(monitoring, "never told the domains apart") == [steps // 2]


@pytest.mark.parametrize(
    ("steps", "refresh", "later"),
    [(400, 100, 0.6), (400, 100, 0.5), (800, 200, 0.5), (2000, 500, 0.5)],
)
def test_one_that_needs_its_first_tenth_is_not(steps: int, refresh: int, later: float) -> None:
    """Nor one that is fooled later on: there was a game."""

    def accuracy(number: int) -> float:
        if number < steps // 10:
            return 0.5
        return 0.62 if number < steps // 5 else later

    tap, monitoring = global_tap(refresh), Monitoring(None)
    play(tap, steps, monitoring, accuracy=accuracy)
    assert monitoring.notes()["alarms"] == []


# ------------------------------------------------------------------ clusters that fail to come


def clustered_tap(refresh: int, bank: int, start: float = 0.1) -> AlignedTap:
    """A clustered alignment; its bank gets ``bank / (2 refresh)`` tokens of each domain a step."""
    torch.manual_seed(0)
    one = AlignmentSettings(tap="embed", loss="clustered", discriminator={"width": 16})
    settings = AdaptationSettings(
        alignments=(one,),
        clusters=ClusterSettings(
            count=2, bank=bank, refresh=refresh, fewest=4, features="self", dimensions=None
        ),
        game=GameSettings(start=start),
        tokens=128,
    )
    return AlignedTap(one, settings, 8, 8, 2, 0)


def play_clustered(tap: AlignedTap, steps: int, monitoring: Monitoring) -> list[float]:
    """A whole training on mixed clusters; returns which steps were skipped."""
    game, skipped = tap.training_settings.game, []
    for number in range(steps):
        strength = schedule(game.schedule, game.start, number / steps)
        sides = (mixed_side(2 * number), mixed_side(2 * number + 1))
        result = tap(sides, strength, number, (12, 12), monitoring, number / steps)
        skipped.append(result.monitors["skipped"])
    return skipped


@pytest.mark.parametrize(("start", "first"), [(0.1, 22), (0.0, 20), (0.5, 30)])
def test_a_bank_that_never_fills_is_told_of(start: float, first: int) -> None:
    """Half-way through the game, though no examination is due, and not before."""
    tap, monitoring = clustered_tap(refresh=4000, bank=32768, start=start), Monitoring(None)
    assert all(play_clustered(tap, 40, monitoring))
    assert steps_of(monitoring, "still no clusters") == [first]
    assert tap.idle


@pytest.mark.parametrize(("refresh", "clusters_from"), [(40, 9), (80, 19)])
def test_one_that_only_takes_its_time_is_not(refresh: int, clusters_from: int) -> None:
    """A quarter of a bank of 8 tokens per step of an interval between refreshes."""
    tap, monitoring = clustered_tap(refresh, bank=8 * refresh), Monitoring(None)
    skipped = play_clustered(tap, 40, monitoring)
    assert skipped.index(0) == clusters_from
    assert steps_of(monitoring, "clusters") == []
    assert not tap.idle


def test_a_loss_that_was_skipped_in_most_steps_is_called_idle() -> None:
    """Clusters come in the last quarter: too late for anything, if not for ever."""
    tap, monitoring = clustered_tap(refresh=120, bank=960), Monitoring(None)
    skipped = play_clustered(tap, 40, monitoring)
    assert 0 < sum(one == 0 for one in skipped) < 18
    assert steps_of(monitoring, "still no clusters") == [22]
    assert tap.idle


def test_what_does_not_cluster_waits_for_no_clusters() -> None:
    tap, monitoring = global_tap(refresh=1000), Monitoring(None)
    play(tap, 40, monitoring, accuracy=lambda number: 0.7)
    assert monitoring.notes()["alarms"] == []
    assert not tap.idle


# ------------------------------------------------------------------------------------- notes


def test_weights_say_that_the_clustered_loss_did_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bank that would be full after 250 steps, in a training of ten."""
    request = asked(tmp_path / "t", "10it")
    never = ClusterSettings(count=2, bank=8192, refresh=1000, fewest=4)
    path = train(task_of(request, alignments=BOTH, clusters=never), request)
    notes = read_header(path)["notes"]
    assert notes["idle"] == {"embed_clustered": True, "enc4_global": False}
    assert notes["skipped_steps"] == {"embed_clustered": 10, "enc4_global": 0}
    (alarm,) = [one for one in notes["alarms"] if one["tap"] == "embed_clustered"]
    assert "the clustered loss does nothing" in alarm["alarm"]
    assert capsys.readouterr().err.count("still no clusters") == 1


def test_weights_say_which_games_were_over_and_what_k_means_did(tmp_path: Path) -> None:
    request = asked(tmp_path / "t", "6it")
    task = task_of(request, alignments=BOTH)
    path = train(task, request)
    notes = read_header(path)["notes"]
    assert notes["collapsed"] == {"embed_clustered": False, "enc4_global": False}
    assert notes["idle"] == {"embed_clustered": False, "enc4_global": False}
    with (tmp_path / "t" / MONITORS).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["tap"] == "embed_clustered"]
    found = {
        name: {int(row["iteration"]): float(row["value"]) for row in rows if row["monitor"] == name}
        for name in ("clusters_imbalance", "clusters_splits", "clusters_churn")
    }
    # At the first clustering there is nothing that could have changed.
    refreshes = set(found["clusters_imbalance"])
    assert set(found["clusters_churn"]) <= refreshes | {0, 2, 4}
    assert len(refreshes) >= 2
    assert all(0.99 < value < 2.01 for value in found["clusters_imbalance"].values())
    assert set(found["clusters_splits"]) == refreshes
    assert (tmp_path / "t" / ALARMS).is_file()
    # A discriminator that has won is noted whether or not an examination saw it.
    task.model.taps[1].watch.steps.fill_(1000)
    assert task.notes is not None
    assert task.notes()["collapsed"] == {"embed_clustered": False, "enc4_global": True}


def test_splits_of_empty_clusters_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are those of the refresh."""
    tap, monitoring = aligned_tap(), Monitoring(None)
    report = Refresh(churn=0.25, imbalance=1.75, splits=3)
    for number in range(3):
        sides = (mixed_side(10 * number), mixed_side(10 * number + 1))
        if number == 2:
            monkeypatch.setattr(tap.clusters, "refresh", lambda: report)
        tap(sides, 1.0, number, (12, 12), monitoring)
    latest = monitoring.notes()["monitors"]["embed_clustered"]
    assert latest["clusters_imbalance"] == 1.75
    assert latest["clusters_splits"] == 3
    assert latest["clusters_churn"] == 0.25
