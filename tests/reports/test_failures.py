"""Worst cases on constructed scores and masks."""

from __future__ import annotations

import numpy as np
import pytest
from fake_runs import COPY, MASKS, FakeJob, FakeMethod, Maker, with_frames

from bench.masks import write_mask
from reports.combine import collect
from reports.failures import Case, chosen, drops, lost_from, lost_objects, of_trained, swaps
from reports.galleries import galleries


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ([0.9, 0.8, 0.05, 0.0, 0.0], 2),
        ([0.9, 0.05, 0.8, 0.0, 0.0], 3),
        ([0.9, 0.05, 0.0, 0.0, 0.2], None),  # found again at the end
        ([0.3, 0.05, 0.0, 0.0, 0.0], None),  # never found
        ([0.0, 0.0, 0.0], None),
        ([0.9] * 30 + [0.0, 0.0], None),  # less than a tenth
        ([0.9] * 18 + [0.0, 0.0], 18),
        ([], None),
    ],
)
def test_lost_from(values: list[float], start: int | None) -> None:
    assert lost_from(np.array(values)) == start


def test_lost_objects(make_run: Maker) -> None:
    falling = (0.9, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0)
    jobs = [FakeJob("ant", {1: (0.9, 0.9, None), 2: (falling, 0.5, None)})]
    run = make_run("one", [FakeMethod("a", jobs)], sequences=["ant"])
    results = collect([run])
    (dataset,) = results.datasets.values()
    (case,) = lost_objects(results, dataset)
    assert (case.kind, case.sequence, case.method, case.size) == ("lost", "ant", "A", 0.5)
    assert case.text == "object 2 is lost for the last 50 % of ant"
    assert case.frame == 7, "in the middle of the frames without it"


def test_drops(make_run: Maker) -> None:
    late = (0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.0)
    a = FakeMethod(
        "a", [FakeJob("ant", {1: (0.9, 0.9, None)}), FakeJob("bee", {1: (0.9, 0.9, None)})]
    )
    b = FakeMethod(
        "b", [FakeJob("ant", {1: (late, late, None)}), FakeJob("bee", {1: (0.95, 0.95, None)})]
    )
    results = collect([make_run("one", [a, b])])
    (dataset,) = results.datasets.values()
    first, second = drops(results, dataset)
    assert (first.method, first.other, first.sequence, first.frame) == ("B", "A", "ant", 8)
    assert first.size == pytest.approx(20)
    assert first.text == "20 points below A on ant: 70 against 90 J&F"
    # The best method's own worst sequence.
    assert (second.method, second.other, second.sequence) == ("A", "B", "bee")


def test_swaps() -> None:
    truth = np.zeros((10, 20), np.uint8)
    truth[:, :8], truth[:, 12:] = 1, 2
    exchanged = np.choose(truth, [0, 2, 1]).astype(np.uint8)
    assert list(swaps(truth, truth)) == []
    assert list(swaps(exchanged, truth)) == [(1, 2), (2, 1)]
    one = np.where(truth == 2, 1, 0).astype(np.uint8)
    assert list(swaps(one, truth)) == [(1, 2)], "object 1's mask has moved onto object 2"
    assert list(swaps(np.ones_like(truth), truth)) == [], "it still covers its own object"
    assert list(swaps(one, np.minimum(truth, 1))) == [], "one object cannot be swapped"


def test_the_gallery_is_not_of_one_method() -> None:
    cases = [Case("lost", f"s{n}", "bad", "", 0, 1.0, "") for n in range(9)]
    cases.append(Case("lost", "s", "good", "", 0, 0.1, ""))
    assert [case.method for case in chosen(cases)] == ["bad", "bad", "good"]


def test_the_gallery_is_not_of_one_sequence() -> None:
    cases = [Case("lost", "s", f"m{n}", "", 0, 1 - n / 10, "") for n in range(4)]
    cases.append(Case("lost", "t", "m0", "", 0, 0.1, ""))
    assert [(case.sequence, case.method) for case in chosen(cases)] == [("s", "m0"), ("t", "m0")]


def test_failures_of_untrained_methods_are_left_out(make_run: Maker) -> None:
    results = collect([make_run("one", [COPY, MASKS])])
    cases = [Case("drop", "ant", name, "", 0, 1.0, "") for name in (COPY.title, MASKS.title)]
    assert [case.method for case in of_trained(results, cases)] == [MASKS.title]
    (gallery,), _ = galleries(results)
    shown = {picture.case.method for group in gallery.failures for picture in group.pictures}
    assert COPY.title not in shown
    alone = collect([make_run("two", [COPY])])
    assert of_trained(alone, cases[:1]) == cases[:1], "where nothing else is, it is shown"


def test_swapped_ids_are_found_in_stored_masks(
    make_run: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [FakeJob("ant", {1: (0.0, 0.0, None), 2: (0.0, 0.0, None)})]
    run = make_run("one", [COPY, FakeMethod("b", jobs)], sequences=["ant"])
    with_frames(run, monkeypatch, objects=2)
    truth = run.frames_of("toy-val", "ant").load_mask(0)
    for path in run.masks("b", "", "toy-val", "ant", 0).glob("*.png"):
        write_mask(path, np.choose(truth, [0, 2, 1]).astype(np.uint8))
    (gallery,), _ = galleries(collect([run]))
    group = next(group for group in gallery.failures if group.title == "Ids swapped")
    assert group.counts == "B: 2"
    texts = {picture.case.text for picture in group.pictures}
    assert "object 1's mask lies on object 2 of ant in 10 of 10 frames" in texts
    for picture in group.pictures:
        assert picture.anchor == "clip-toy-val-ant"
        assert [tile.column for tile in picture.tiles] == ["Ground truth", "B"]
        assert all(tile.source for tile in picture.tiles)
