"""What training consumed, published systems, label regimes, the Pareto front."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pandas as pd
import pytest
from fake_runs import COPY, MASKS, Maker, two
from hypothesis import given
from hypothesis import strategies as st

from bench.method import SECONDS_PER_LABEL, LabelRegime
from reports.combine import collect
from reports.cost_axes import short_count
from reports.costs import FRAMES_PER_HOUR, pareto_front, published_points, training_images
from reports.lines import lines_of
from reports.looks import styles
from reports.page import ANNOTATION, make_page, render
from reports.page_tables import cost_table, count_text, duration, result_table, training
from reports.regimes import KINDS, annotation_hours, label_counts, regime_groups, regime_kind
from reports.results import DatasetInfo, Results
from reports.tables import table_csv, table_latex, table_markdown
from reports.tradeoffs import against_hours, against_images

DAVIS16 = DatasetInfo("davis16", "val", "semi-supervised", "DAVIS-2016, val", (), True)

REGIMES = [
    (None, "unknown"),
    (LabelRegime(), "no training"),
    (LabelRegime(images=9, image_labels="class"), "image classes"),
    (LabelRegime(images=9), "still images, no labels"),
    (LabelRegime(video_hours=2), "video, no labels"),
    (LabelRegime(videos=2, images=9), "video, no labels"),
    (LabelRegime(images=9, image_labels="mask"), "labelled images"),
    (LabelRegime(images=9, image_labels="saliency", videos=3), "labelled images and video"),
    (LabelRegime(videos=3, video_labels="mask", video_masks=50), "video masks"),
]


@pytest.mark.parametrize(("regime", "kind"), REGIMES)
def test_regime_kinds(regime: LabelRegime | None, kind: str) -> None:
    assert regime_kind(regime) == kind
    assert kind in KINDS


@pytest.mark.parametrize("regime", [regime for regime, _ in REGIMES if regime])
def test_label_counts_give_the_regimes_hours(regime: LabelRegime) -> None:
    counts = label_counts(regime)
    hours = sum(SECONDS_PER_LABEL[kind] * count for kind, count in counts.items()) / 3600
    assert hours == pytest.approx(regime.annotation_hours)
    assert annotation_hours(regime, SECONDS_PER_LABEL) == pytest.approx(hours)


def test_groups_name_every_method_once(make_run: Maker) -> None:
    results = collect([make_run("one", [COPY, MASKS])])
    groups = regime_groups(list(results.methods.values()))
    assert [(group.kind, [info.method for info in group.methods]) for group in groups] == [
        ("no training", ["copy"]),
        ("video masks", ["masks"]),
    ]


def test_training_images() -> None:
    assert training_images(LabelRegime(images=950)) == 950
    assert training_images(LabelRegime(images=10, video_hours=0.5)) == 10 + 12 * 3600
    assert training_images(LabelRegime(video_masks=70)) == 70
    assert training_images(None) != training_images(None), "NaN"


def test_published_points() -> None:
    points = {point.method: point for point in published_points(DAVIS16)}
    assert set(points) == {"VidColor", "CorrFlow", "CycleTime", "MUG", "SHLS"}
    assert (points["SHLS"].images, points["SHLS"].score) == (10_000, 73.5)
    assert points["VidColor"].images == 833 * FRAMES_PER_HOUR
    later = replace(DAVIS16, dataset="davis17")
    stt = next(point for point in published_points(later) if point.method == "STT")
    assert stt.images == pytest.approx(1_281_167 + 5.67 * FRAMES_PER_HOUR)


@given(
    st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=3),
        st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)),
        max_size=12,
    )
)
def test_pareto_front_against_all_pairs(points: dict[str, tuple[float, float]]) -> None:
    def beaten(cost: float, score: float) -> bool:
        return any(c <= cost and s >= score and (c < cost or s > score) for c, s in points.values())

    expected = {value for value in points.values() if not beaten(*value)}
    front = pareto_front(points)
    assert {points[name] for name in front} == expected
    assert len(front) == len(expected), "of equal points one is named"


def test_measured_and_published_points_are_told_apart(make_run: Maker) -> None:
    results = collect([make_run("one", [COPY, MASKS], dataset="davis16-val")])
    (dataset,) = results.datasets.values()
    drawing = against_images(results, dataset, lines_of(results, dataset))
    source = "SHLS thesis summary (CBIC 2023) Table I"
    assert f"Crosses: published, as printed in {source}; not measured here." in drawing.text
    other = collect([make_run("two", [COPY, MASKS])])
    (toy,) = other.datasets.values()
    assert "published" not in against_images(other, toy, lines_of(other, toy)).text


def test_cost_table_and_csv_say_what_was_consumed(make_run: Maker) -> None:
    results = collect([make_run("one", [COPY, MASKS])])
    (dataset,) = results.datasets.values()
    table = cost_table(results, dataset)
    cells = {row.cells[0].text: [cell.text for cell in row.cells] for row in table.rows}
    titles = [head.text for head in table.heads]
    masks = dict(zip(titles, cells[MASKS.title], strict=True))
    assert masks["Label regime"] == "video masks"
    assert (masks["Images"], masks["Image labels"], masks["Video masks"]) == (
        "3.6 k",
        "saliency",
        "100",
    )
    assert (masks["Pretraining"], masks["Params"], masks["FPS"]) == ("ImageNet-1k", "1.5 M", "2")
    row = pd.read_csv(io.StringIO(table_csv(results))).set_index("method").loc["masks"]
    assert (row["images"], row["image_labels"], row["video_masks"]) == (3600, "saliency", 100)
    assert "training_images" not in row, "images are counted once"
    assert (row["regime"], row["origin"]) == ("video masks", "measured with authors' weights")


def test_hours_of_pretraining_are_pointed_out(make_run: Maker) -> None:
    """Of two methods without hours, the one that started from labels has an arrow to the right."""
    pretrained = replace(
        COPY, name="warm", title="Warm", regime=LabelRegime(pretraining=("ImageNet-1k classes",))
    )
    results = collect([make_run("one", [COPY, pretrained])])
    (dataset,) = results.datasets.values()
    lines = lines_of(results, dataset)
    drawing = against_hours(results, dataset, lines)
    assert "labels of that pretraining are not in the hours" in drawing.text
    look = styles(results)["Warm"]
    arrow = f"stroke: {look.colour.lower()}; stroke-linecap: round"
    assert drawing.svg.count(arrow) > 0
    images = against_images(results, dataset, lines)
    assert images.svg.count(arrow) == 0, "images are counted without pretraining for all"
    alone = collect([make_run("two", [COPY])])
    lines = lines_of(alone, dataset)
    assert "Arrow" not in against_hours(alone, dataset, lines).text


def trained(results: Results) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Steps and time in the table of costs, and the card's words on both, by label."""
    (dataset,) = results.datasets.values()
    table = cost_table(results, dataset)
    titles = [head.text for head in table.heads]
    places = [titles.index(name) for name in ("Training steps", "Training time")]
    cells = {row.cells[0].text: [row.cells[place].text for place in places] for row in table.rows}
    cards = {card.label: dict(card.facts)["Training"] for card in make_page(results, [])[0].cards}
    return cells, cards


def test_training_is_told_in_steps_and_time(make_run: Maker) -> None:
    jobs = [*two(0.5, 0.5), *two(0.5, 0.6, seed=1)]
    ours = replace(MASKS, jobs=jobs, training_seconds=700.0, training_steps=1200.0)
    old = replace(COPY, name="old", title="Old", training_seconds=90.0)
    theirs = replace(COPY, name="theirs", title="Theirs")
    still = replace(COPY, training_seconds=0.0, training_steps=0.0)
    results = collect([make_run("one", [ours, old, theirs, still])])
    cells, cards = trained(results)
    assert cells == {
        MASKS.title: ["1,200", "12 min"],
        "Old": ["–", "2 min"],
        "Theirs": ["–", "–"],
        COPY.title: ["0", "0"],
    }
    assert cards == {
        MASKS.title: "1,200 steps, 12 min",
        "Old": "2 min",
        "Theirs": "–",
        COPY.title: "none",
    }
    rows = pd.read_csv(io.StringIO(table_csv(results))).set_index("method")
    assert rows.loc["masks", "training_steps"].tolist() == [1200, 1200]
    assert rows.loc["copy", "training_steps"] == 0
    assert math.isnan(rows.loc["old", "training_steps"])


def test_runs_of_earlier_versions_know_no_steps(make_run: Maker) -> None:
    """Nor do their tables have the column."""
    run = make_run("one", [replace(COPY, training_seconds=90.0)])
    run.__dict__["cost"] = run.cost.drop(columns="training_steps")
    assert trained(collect([run]))[0] == {COPY.title: ["–", "2 min"]}


def test_labels_may_cost_something_else(make_run: Maker) -> None:
    """3,600 outlines and 100 masks, at 27 and 158 seconds."""
    run = make_run("one", [COPY, MASKS])
    results = collect([run], label_seconds={"saliency": 27.0, "mask": 158.0})
    (dataset,) = results.datasets.values()
    hours = (3600 * 27 + 100 * 158) / 3600
    assert results.methods["masks", ""].annotation_hours == pytest.approx(hours)
    words = (
        "Annotation counts other seconds per label than by default: 27 for an outline "
        "(instead of 54), 158 for an object's mask (instead of 79)."
    )
    lines = lines_of(results, dataset)
    for table in (result_table(results, dataset), cost_table(results, dataset)):
        (cell,) = [cell for row in table.rows for cell in row.cells if cell.text == "31.4 h"]
        assert cell.value == pytest.approx(hours)
        assert words in table.remarks
    assert words in against_hours(results, dataset, lines).text
    for text in (table_markdown(results), table_latex(results)):
        assert "31.4 h" in text
        assert words in text
    row = pd.read_csv(io.StringIO(table_csv(results))).set_index("method").loc["masks"]
    assert row["annotation_hours"] == pytest.approx(hours)
    assert row["label_seconds"] == "class 20, saliency 27, mask 158"
    page, _ = make_page(results, [])
    costs = {cost.kind: (cost.seconds, cost.source) for cost in page.label_costs}
    assert costs["class"] == (20, "Bearman et al., ECCV 2016: class labels of an image")
    assert costs["mask"][0] == 158
    assert costs["mask"][1].startswith("as this report was told; otherwise 79 (Lin et al.")
    (facts,) = [dict(card.facts) for card in page.cards if card.label == MASKS.title]
    assert facts[ANNOTATION] == "31.4 h"
    text = render(results, [])[0]
    assert text.count(words.replace("'", "&#39;")) == 3
    own = collect([run])
    assert "by default" not in table_markdown(own)
    assert "by default" not in render(own, [])[0]


def test_the_axis_of_hours_follows_the_costs(make_run: Maker) -> None:
    run = make_run("one", [COPY, MASKS])
    (dataset,) = collect([run]).datasets.values()

    def svg(**seconds: float) -> str:
        results = collect([run], label_seconds=seconds)
        return against_hours(results, dataset, lines_of(results, dataset)).svg

    assert svg() == svg(saliency=54)
    assert svg() != svg(saliency=5400)


def test_numbers_as_words() -> None:
    assert [count_text(v) for v in (0, 950, 3600, 1.5e6, 2.014e12)] == [
        "0", "950", "3.6 k", "1.5 M", "2.0 T",
    ]  # fmt: skip
    words = ["1 step, 45 s", "1,200 steps", "45 s", "–", "none", "none"]
    nan = math.nan
    pairs = [(1, 45), (1200, nan), (nan, 45), (nan, nan), (0, 0), (nan, 0)]
    assert [training(*pair) for pair in pairs] == words
    assert [duration(v) for v in (0, 45, 720, 7200)] == ["0", "45 s", "12 min", "2.0 h"]
    assert [short_count(v) for v in (0, 100, 1e4, 1e6)] == ["0", "100", "10 k", "1 M"]
