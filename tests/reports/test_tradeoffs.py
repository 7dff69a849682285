"""Figures of what accuracy costs: places, names, the line of highest scores, what is left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_runs import FakeJob, FakeMethod, Maker
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.text import Text

from bench.method import LabelRegime
from reports import tradeoffs
from reports.combine import collect
from reports.cost_axes import ASIDE, CostAxis, apart
from reports.drawing import Drawing, score_limits
from reports.figures import telling
from reports.labels import names_of, place_labels
from reports.lines import Line, lines_of
from reports.looks import styles
from reports.placement import PLACES, Obstacles, best_places
from reports.results import Results
from reports.tradeoffs import (
    _cost_axis,
    _front,
    _points,
    against_fps,
    against_hours,
    against_images,
)

UNLABELLED = LabelRegime(videos=3, video_hours=1)
OUTLINES = LabelRegime(images=1000, image_labels="saliency")


def row(name: str, score: float, regime: LabelRegime, seed: int = 0) -> FakeMethod:
    jobs = [FakeJob("ant", {1: (score, score, None)}, seed=seed)]
    return FakeMethod(name.lower().replace(" ", "_"), jobs, title=name, regime=regime)


def many() -> list[FakeMethod]:
    """Ten rows: seven pretexts, two with outlines, one without training."""
    pretexts = [row(f"Video, {place}", 0.3 + place / 50, UNLABELLED) for place in range(7)]
    outlined = [row("Outlines", 0.35, OUTLINES), row("More outlines", 0.3, OUTLINES)]
    return [*pretexts, *outlined, row("Random", 0.1, LabelRegime())]


def lines(results: Results) -> list[Line]:
    (dataset,) = results.datasets.values()
    return lines_of(results, dataset)


def made(make_run: Maker, methods: list[FakeMethod], name: str = "one") -> Results:
    return collect([make_run(name, methods, sequences=["ant"], masks=False)])


def with_group(results: Results, *labels: str) -> Results:
    """The same results with some methods outside the controlled comparison."""
    methods = {
        key: replace(info, group="apart" if info.label in labels else "")
        for key, info in results.methods.items()
    }
    return replace(results, methods=methods, groups=("", "apart"))


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 60).map(float)),
        min_size=1,
        max_size=14,
    )
)
def test_points_move_apart(points: list[tuple[float, float]]) -> None:
    """No shift exceeds its room; five markers fit side by side into it, whatever their heights."""
    shifts = apart(points, [0.25] * len(points), (0.1, 3.0))
    assert max(abs(shift) for shift in shifts) <= 0.25
    moved = [(x + shift, y) for (x, y), shift in zip(points, shifts, strict=True)]
    if max(sum(x == place for x, _ in points) for place in (0.0, 1.0)) <= 5:
        for (a, c), (b, d) in itertools.combinations(moved, 2):
            assert abs(a - b) > 0.099 or abs(c - d) >= 3
    alone = apart(points[:1], [0.25], (0.1, 3.0))
    assert alone == [0.0]


def test_two_equal_points_are_both_seen() -> None:
    shifts = apart([(1.0, 40.0), (1.0, 40.0)], [0.25, 0.25], (0.1, 3.0))
    assert abs(shifts[0] - shifts[1]) == pytest.approx(0.1)


def test_the_band_for_zero_has_a_column_per_kind() -> None:
    kinds = ["video, no labels", "no training", "video, no labels"]
    axis = CostAxis.of([0, 0, 0, 10, 5000], kinds, first=0)
    assert axis.columns == ("no training", "video, no labels"), "cheapest labels first"
    left, right = axis.band
    first, second = (axis.place(0, kind) for kind in axis.columns)
    assert left < first < second < right < axis.place(1) == 0
    assert axis.place(100) - axis.place(10) == pytest.approx(1)
    assert axis.highest > math.log10(5000)
    # Shifted points stay in their column.
    assert axis.room(0) < (second - first) / 2
    assert axis.room(10) == ASIDE
    assert CostAxis.of([0.02], [], first=0).lowest == -2, "less than an hour is on the axis"


def test_the_extremes_of_each_kind_are_named(make_run: Maker) -> None:
    results = made(make_run, many())
    names = names_of(lines(results))
    assert names == {
        "Video, 6": "6",
        "Video, 0": "0",
        "Outlines": "Outlines",
        "More outlines": "More outlines",
        "Random": "Random",
    }
    few = names_of(lines(results)[:4])
    assert list(few.values()) == ["6", "5", "4", "3"], "few are all named"
    grouped = names_of(lines(with_group(results, "Video, 3")))
    assert set(grouped) - set(names) == {"Video, 3"}, "outside the comparison: by itself"


def test_the_best_of_each_kind_is_told(make_run: Maker) -> None:
    results = made(make_run, many())
    assert [line.info.label for line in telling(lines(results))] == [
        "Video, 6", "Outlines", "Random",
    ]  # fmt: skip
    apart_ = telling(lines(with_group(results, "Video, 6", "Random")))
    assert [line.info.label for line in apart_] == ["Video, 5", "Outlines", "Random"]
    assert len(telling(lines(results)[:5])) == 5


def test_the_highest_score_is_that_of_the_comparison(make_run: Maker) -> None:
    """A row of a group is hollow and does not carry the line."""
    results = made(make_run, many())
    (dataset,) = results.datasets.values()
    plain = against_hours(results, dataset, lines(results))
    assert "Hollow" not in plain.text
    assert "of the controlled comparison" not in plain.text
    grouped = with_group(results, "Video, 6")
    drawing = against_hours(grouped, dataset, lines(grouped))
    assert "of the controlled comparison alone" in drawing.text
    assert "Hollow: not of the controlled comparison." in drawing.text
    colour = styles(results)["Video, 6"].colour.lower()
    assert f"fill: none; stroke: {colour}" in drawing.svg
    assert f"fill: none; stroke: {colour}" not in plain.svg


def test_the_front_is_a_staircase_to_the_right_border(make_run: Maker) -> None:
    results = made(make_run, [row("Free", 0.3, UNLABELLED), row("Dear", 0.5, OUTLINES)])
    shown = lines(results)
    costs = {line.info.label: line.info.annotation_hours for line in shown}
    axis = _cost_axis(shown, costs, first=0)
    points = _points(shown, costs, axis)
    places = {point.line.info.label: point.x for point in points}
    assert _front(points, costs, axis) == [
        (places["Free"], pytest.approx(30)),
        (places["Dear"], pytest.approx(50)),
        (axis.highest, pytest.approx(50)),
    ]
    marked = with_group(results, "Dear")
    points = _points(lines(marked), costs, axis)
    assert [y for _, y in _front(points, costs, axis)] == [pytest.approx(30)] * 2


def crowded() -> list[FakeMethod]:
    """24 rows, 20 of which share one network and so nearly one speed, as in a controlled suite."""
    regimes = [UNLABELLED, LabelRegime(images=900), OUTLINES, replace(OUTLINES, videos=3)]
    regimes += [LabelRegime(videos=3, video_labels="mask", video_masks=99), LabelRegime()]
    methods = []
    for place in range(24):
        score, regime = 0.53 - 0.007 * place, regimes[place % 6]
        seconds = 8 / (5 + 0.02 * (7 * place % 11)) if place < 20 else 8 / (0.4 + place / 100)
        job = FakeJob("ant", {1: (score, score, None)}, seconds=seconds)
        name = f"{regime.image_labels} and {regime.video_labels}, a row {place}"
        methods.append(FakeMethod(f"m{place}", [job], title=name, regime=regime))
    return methods


@pytest.mark.parametrize("draw", [against_fps, against_hours, against_images])
def test_names_stand_apart_and_inside(
    draw: Callable[..., Drawing | None], make_run: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the layout that is saved, not in one before the legend took its room."""
    drawn_on: list[Axes] = []

    def place(axes: Axes, *given: Any) -> None:
        drawn_on.append(axes)
        place_labels(axes, *given)

    monkeypatch.setattr(tradeoffs, "place_labels", place)
    results = made(make_run, crowded())
    (dataset,) = results.datasets.values()
    draw(results, dataset, lines(results))
    (axes,) = drawn_on
    axes.figure.draw_without_rendering()
    inside = axes.get_window_extent()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) >= 11
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1


def test_a_lonely_name_stands_beside_its_point() -> None:
    points, sizes = np.array([[100.0, 100.0], [100, 300]]), np.array([[60.0, 9.0], [60, 9]])
    room = np.array([0.0, 0, 400, 400])
    free = Obstacles.of(points, [], room)
    assert best_places(points, sizes, free) == [PLACES[0]] * 2
    wall = np.array([[120.0, 0.0], [120.0, 200.0]])
    left, right = best_places(points, sizes, Obstacles.of(points, [wall], room))
    assert (left, right) == (PLACES[1], PLACES[0]), "a name crosses no line"
    cramped = best_places(points, sizes, Obstacles.of(points, [], np.array([0.0, 0, 165, 400])))
    assert cramped == [PLACES[1]] * 2, "nor the border"


def test_names_in_a_crowd_are_led_out_of_it() -> None:
    """Beside the middle of a crowd each near place touches another point."""
    grid = [(200.0 + 9 * x, 200.0 + 9 * y) for x in range(-2, 3) for y in range(-2, 3)]
    grid.remove((200.0, 200.0))
    points = np.array([(200.0, 200.0), *grid])
    (place,) = best_places(
        points[:1], np.array([[40.0, 9.0]]), Obstacles.of(points, [], np.array([0.0, 0, 400, 400]))
    )
    assert not place.near
    assert math.hypot(place.right, place.up) >= 18


def test_what_has_no_parameters_has_no_speed_to_compare(make_run: Maker) -> None:
    results = made(make_run, [row("Network", 0.5, UNLABELLED), row("Copy", 0.2, LabelRegime())])
    (dataset,) = results.datasets.values()
    shown = lines(results)
    assert "Left out" not in drawn(against_fps(results, dataset, shown)).text
    copy = next(line for line in shown if line.info.label == "Copy")
    copy.numbers["parameters"] = replace(copy.numbers["parameters"], mean=0.0)
    drawing = drawn(against_fps(results, dataset, shown))
    assert "Left out, having no parameters: Copy." in drawing.text
    assert styles(results)["Copy"].colour.lower() not in drawing.svg
    assert against_fps(results, dataset, [copy]) is None


def drawn(drawing: Drawing | None) -> Drawing:
    assert drawing is not None
    return drawing


def test_error_bars_are_not_clipped() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    score_limits(axes, [10.4 - 12.1, 60.0], [10.4 + 12.1, 60.0])
    low, high = axes.get_ylim()
    assert low < 10.4 - 12.1
    assert high > 60
    score_limits(axes, [50.0], [50.5])
    assert np.diff(axes.get_ylim()) == pytest.approx(12), "small differences are not blown up"
    score_limits(axes, [math.nan], [math.nan])
    assert np.diff(axes.get_ylim()) == pytest.approx(12), "as before"
    score_limits(axes, [0.0, 100.0], [0.0, 100.0])
    assert axes.get_ylim() == (-1, 101)


def test_error_bars_are_within_the_limits(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two seeds with 0 and 60 the bar reaches below 0, and the axis with it."""
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(
        tradeoffs,
        "score_limits",
        lambda axes, lowest, highest: asked.append((min(lowest), max(highest))),
    )
    jobs = [FakeJob("ant", {1: (j, j, None)}, seed=seed) for seed, j in enumerate((0.0, 0.6))]
    results = made(make_run, [FakeMethod("a", jobs, regime=UNLABELLED)])
    (dataset,) = results.datasets.values()
    against_hours(results, dataset, lines(results))
    deviation = 60 / math.sqrt(2)
    assert asked == [pytest.approx((30 - deviation, 30 + deviation))]


def test_without_points_at_zero_there_is_no_band() -> None:
    axis = CostAxis.of([15.0], [], first=0)
    assert axis.band[0] == axis.band[1]
