"""Whose weights were measured, and the alarms of their trainings, as runs record them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_runs import COPY, MASKS, FakeJob, FakeMethod, Maker, two

from bench.jobs import weights_record
from bench.method import LabelRegime
from bench.plan import DataChoice
from bench.training import save_weights
from reports.combine import collect
from reports.page import make_page
from reports.results import AUTHORS_WEIGHTS, MEASURED
from reports.tables import table_latex, table_markdown

OURS: dict[str, Any] = {"trained_here": True, "notes": {}}
THEIRS: dict[str, Any] = {"trained_here": False, "notes": {}}
NOTHING = LabelRegime()
CLASSES = LabelRegime(images=1_281_167, image_labels="class")
PRETRAINED = LabelRegime(pretraining=("ImageNet-1k classes",))


def alarm(tap: str, text: str, first: int, last: int, times: int) -> dict[str, Any]:
    return {"tap": tap, "alarm": text, "first": first, "last": last, "times": times}


@pytest.mark.parametrize(
    ("weights", "record", "seconds", "regime", "expected"),
    [
        ("/w/best.safetensors", OURS, 60.0, MASKS.regime, MEASURED),
        ("/w/theirs.safetensors", THEIRS, math.nan, NOTHING, AUTHORS_WEIGHTS),
        ("/w/released.pth", THEIRS, math.nan, MASKS.regime, AUTHORS_WEIGHTS),
        # Weights that a package carries, and methods that learn nothing.
        (None, None, math.nan, CLASSES, AUTHORS_WEIGHTS),
        (None, None, math.nan, PRETRAINED, AUTHORS_WEIGHTS),
        (None, None, 0.0, NOTHING, MEASURED),
        (None, None, math.nan, LabelRegime(videos=3), AUTHORS_WEIGHTS),
        # Runs of earlier versions: only a header tells how long training took.
        ("/w/best.safetensors", None, 60.0, MASKS.regime, MEASURED),
        ("/w/theirs.safetensors", None, math.nan, MASKS.regime, AUTHORS_WEIGHTS),
    ],
)
def test_whose_weights(
    make_run: Maker,
    weights: str | None,
    record: dict[str, Any] | None,
    seconds: float,
    regime: LabelRegime,
    expected: str,
) -> None:
    method = replace(MASKS, weights=weights, record=record, training_seconds=seconds, regime=regime)
    (info,) = collect([make_run("one", [method])]).methods.values()
    assert info.origin == expected


def test_the_newest_run_decides(make_run: Maker) -> None:
    old = make_run("old", [replace(MASKS, weights="/w/a.pth", record=THEIRS)])
    ours = replace(MASKS, weights="/w/b.safetensors", record=OURS)
    new = make_run("new", [ours], started="2026-02-01")
    (info,) = collect([new, old]).methods.values()
    assert info.origin == MEASURED


def test_what_a_job_records(tmp_path: Path) -> None:
    notes = {"alarms": [alarm("embed", "won", 5, 5, 1)]}
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pth"
    save_weights(ours, {"w": torch.zeros(2)}, {"method": "adv", "notes": notes})
    torch.save({"w": torch.zeros(2)}, theirs)
    val = DataChoice("davis16", "davis16", "val", None, {})
    assert weights_record(ours, val) == {
        "trained_here": True,
        "notes": notes,
        "transductive": [],
    }
    assert weights_record(theirs, val) == {
        "trained_here": False,
        "notes": {},
        "transductive": [],
    }
    assert weights_record(None, val) is None


@pytest.mark.parametrize(
    ("trained", "tested", "shared"),
    [
        (["ecssd", "davis16-train"], ("davis16", "val"), []),
        (["ecssd", "davis16"], ("davis16", "val"), ["davis16"]),
        (["davis17", "ytvos18"], ("davis16", "val"), ["davis17"]),  # 2017 holds all of 2016
        (["davis17-train"], ("davis16", "train"), ["davis17-train"]),
        (["frames", "no longer installed"], ("davis16", "val"), []),
        (["ytvos19-train"], ("ytvos18", "train"), ["ytvos19-train"]),
        (["synthetic"], ("davis16", "val"), []),
    ],
)
def test_who_saw_the_test_videos_in_training_is_known(
    trained: list[str], tested: tuple[str, str], shared: list[str], tmp_path: Path
) -> None:
    save_weights(tmp_path / "w.safetensors", {"w": torch.zeros(2)}, {"data": trained})
    record = weights_record(tmp_path / "w.safetensors", DataChoice(tested[0], *tested, None, {}))
    assert record is not None
    assert record["transductive"] == shared


def test_who_saw_the_test_videos_in_training_is_said_first(make_run: Maker) -> None:
    notes = {"alarms": [alarm("embed", "won", 5, 5, 1)]}
    record = {"trained_here": True, "notes": notes, "transductive": ["davis17"]}
    adapted = replace(MASKS, weights="/w/b.safetensors", record=record)
    results = collect([make_run("a", [COPY, adapted])])
    info = results.methods[MASKS.name, ""]
    assert info.alarms[0] == (
        "it saw davis17, which may hold videos that are tested on (transductive)"
    )
    assert info.alarms[0] in table_markdown(results)


def test_alarms_are_shown(make_run: Maker) -> None:
    """Trainings of two seeds, one of which raised two alarms."""
    notes = {
        "alarms": [
            alarm("embed", "The discriminator won: 99 %.", 40, 90, 6),
            alarm("enc4", "2 clusters are empty", 7, 7, 1),
        ]
    }
    first = FakeMethod(
        "adv", two(0.5, 0.5), weights="/w/0.safetensors", record=OURS, title="Adapted"
    )
    second = replace(
        first,
        jobs=two(0.6, 0.6, seed=1),
        weights="/w/1.safetensors",
        record={"trained_here": True, "notes": notes},
    )
    results = collect([make_run("a", [COPY, first]), make_run("b", [second])])
    info = results.methods["adv", ""]
    assert info.alarms == (
        "seed 1: The discriminator won: 99 % (embed, steps 40 to 90, 6 times)",
        "seed 1: 2 clusters are empty (enc4, step 7)",
    )
    sentence = f"ALARM of the training of Adapted: {info.alarms[0]}. And 1 more."
    page, _ = make_page(results, [])
    assert page.tables[0].alarms == [sentence]
    cards = {card.label: card.alarms for card in page.cards}
    assert cards == {"Adapted": info.alarms, "Copy the first mask": ()}
    assert sentence in table_markdown(results)
    assert f"% {sentence}" in table_latex(results)


def test_no_alarm_is_no_word(make_run: Maker) -> None:
    results = collect([make_run("a", [replace(MASKS, weights="/w/a.safetensors", record=OURS)])])
    assert "ALARM" not in table_markdown(results)


def test_a_method_that_never_finished(make_run: Maker) -> None:
    jobs = [FakeJob("ant", status="failed", reason="boom")]
    results = collect([make_run("one", [COPY, FakeMethod("b", jobs, weights="/w/b.pth")])])
    assert results.methods["b", ""].alarms == ()
