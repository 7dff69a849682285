"""The streaming scorer: which objects, which frames, void, matching, aggregation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import DataError
from bench.metrics import (
    COLUMNS,
    FOREGROUND,
    RULES,
    SEMI_SUPERVISED,
    UNSUPERVISED,
    YOUTUBE_VOS,
    YOUTUBE_VOS_WITHOUT_LAST,
    ScoringRule,
    SequenceScorer,
    dataset_figures,
)
from tests.naive_metrics import naive_f, naive_j


def score(rule, predicted, true, indices=None, frame_count=None):
    indices = range(len(true)) if indices is None else indices
    scorer = SequenceScorer(rule, frame_count or len(true))
    for index, p, g in zip(indices, predicted, true, strict=True):
        scorer.update(index, p, g)
    return scorer.result().objects


def noise(rng, frames, ids, shape=(13, 17)):
    """Label maps made of random boxes."""
    out = np.zeros((frames, *shape), np.uint8)
    for t, number in itertools.product(range(frames), ids):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        out[t, y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = number
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sets(st.integers(1, 254), min_size=1, max_size=4))
def test_semi_supervised_equals_the_definition(seed, ids):
    rng = np.random.default_rng(seed)
    true, predicted = noise(rng, 6, [*ids, 255]), noise(rng, 6, [*ids, 255, 0])
    true[0].ravel()[: len(ids)] = sorted(ids)  # all are there from the start
    found = score(SEMI_SUPERVISED, predicted, true)
    assert list(found) == sorted(ids)
    for number, scores in found.items():
        assert scores.frames == (1, 2, 3, 4)
        for t, j, f in zip(scores.frames, scores.j, scores.f, strict=True):
            p, g = predicted[t] == number, true[t] == number
            assert (j, f) == (naive_j(p, g), naive_f(p, g))


def test_ids_with_gaps_make_no_phantoms():
    true = np.zeros((5, 8, 8), np.uint8)
    true[:, :3, :3], true[:, 5:, 5:] = 1, 5
    found = score(SEMI_SUPERVISED, true, true)
    assert list(found) == [1, 5]


def late(first):
    """Object 1 from the start, object 4 from frame ``first`` on."""
    true = np.zeros((8, 10, 10), np.uint8)
    true[:, :4, :4] = 1
    true[first:, 6:, 6:] = 4
    return true


def test_late_objects_are_scored_after_the_frame_they_enter_in():
    true = late(3)
    predicted = true.copy()
    predicted[5][predicted[5] == 4] = 0
    found = score(SEMI_SUPERVISED, predicted, true)
    assert found[1].frames == tuple(range(1, 7))
    assert found[4].frames == (4, 5, 6)
    assert found[4].j.tolist() == [1, 0, 1]


def test_an_object_that_enters_at_the_end_has_no_scored_frame():
    found = score(SEMI_SUPERVISED, late(7), late(7))
    assert found[4].frames == ()
    assert found[4].j.shape == found[4].f.shape == (0,)
    assert all(map(math.isnan, found[4].row))
    assert not np.isnan(dataset_figures({"a": score_result(SEMI_SUPERVISED, late(7))}).j_and_f)


def score_result(rule, true, predicted=None):
    scorer = SequenceScorer(rule, len(true))
    for index, mask in enumerate(true):
        scorer.update(index, mask if predicted is None else predicted[index], mask)
    return scorer.result()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (SEMI_SUPERVISED, {1: (5, 10), 4: (10,)}),
        (YOUTUBE_VOS, {1: (5, 10, 14), 4: (10, 14)}),
        (YOUTUBE_VOS_WITHOUT_LAST, {1: (5, 10), 4: (10,)}),
        (ScoringRule("all", False, False, "background"), {1: (0, 5, 10, 14), 4: (5, 10, 14)}),
    ],
    ids=lambda value: value.name if isinstance(value, ScoringRule) else "",
)
def test_only_annotated_frames_are_scored(rule, expected):
    true = late(1)[:4]
    found = score(rule, true, true, indices=[0, 5, 10, 14], frame_count=15)
    assert {number: scores.frames for number, scores in found.items()} == expected


def test_the_last_frame_is_the_videos_not_the_last_annotated():
    true = late(1)[:3]
    found = score(SEMI_SUPERVISED, true, true, indices=[0, 5, 10], frame_count=13)
    assert found[1].frames == (5, 10)


def test_rules_are_found_by_name():
    assert all(RULES[name].name == name for name in RULES)
    assert len(RULES) == 5


def test_void_is_background_or_ignored():
    true = np.zeros((3, 10, 10), np.uint8)
    true[:, :5, :5] = 1
    true[:, :5, 5:7] = 255
    predicted = np.zeros_like(true)
    predicted[:, :5, :7] = 1
    semi = score(SEMI_SUPERVISED, predicted, true)[1]
    assert semi.j.tolist() == [25 / 35]
    for rule in (UNSUPERVISED, FOREGROUND):
        assert score(rule, predicted, true)[1].j.tolist() == [1.0, 1.0, 1.0]
    ignoring = replace(SEMI_SUPERVISED, void="ignored")
    assert score(ignoring, predicted, true)[1].j.tolist() == [1.0]


def naive_matched(predicted, true):
    """Best assignment by trying all of them; J and F by object."""
    proposals = sorted(set(np.unique(predicted)) - {0})
    objects = sorted(set(np.unique(true)) - {0, 255})
    table = {}
    for p, o in itertools.product(proposals, objects):
        table[p, o] = np.array(
            [
                [metric(a == p, b == o, b == 255) for metric in (naive_j, naive_f)]
                for a, b in zip(predicted, true, strict=True)
            ]
        )
    slots = [*proposals, *[None] * len(objects)]
    best = max(
        itertools.permutations(slots, len(objects)),
        key=lambda chosen: sum(
            table[p, o].mean() for p, o in zip(chosen, objects, strict=True) if p is not None
        ),
    )
    nothing = np.zeros((len(true), 2))
    return {o: nothing if p is None else table[p, o] for p, o in zip(best, objects, strict=True)}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sets(st.integers(1, 255), max_size=3),
    st.sets(st.integers(1, 254), min_size=1, max_size=3),
)
def test_matching_equals_trying_everything(seed, proposals, objects):
    rng = np.random.default_rng(seed)
    true = noise(rng, 4, [*objects, 255])
    predicted = noise(rng, 4, proposals)
    true[0] = 0  # objects enter late; all frames count all the same
    predicted[1] = 0
    expected = naive_matched(predicted, true)
    found = score(UNSUPERVISED, predicted, true)
    assert list(found) == sorted(expected)
    assert sum((s.j + s.f).mean() for s in found.values()) == pytest.approx(
        sum(table.sum(1).mean() for table in expected.values())
    )
    for number, scores in found.items():
        assert scores.frames == (0, 1, 2, 3)
        if scores.proposal is None:
            assert not scores.j.any()
            assert not scores.f.any()
            continue
        for t, g in enumerate(true):
            p, o, void = predicted[t] == scores.proposal, g == number, g == 255
            assert (scores.j[t], scores.f[t]) == (naive_j(p, o, void), naive_f(p, o, void))


def test_swapped_ids_are_matched_and_leftover_objects_score_0():
    true = late(0)
    predicted = np.zeros_like(true)
    predicted[true == 4] = 9
    found = score(UNSUPERVISED, predicted, true)
    assert found[4].proposal == 9
    assert found[4].j.tolist() == [1.0] * 8
    assert found[1].proposal is None
    assert found[1].row[0] == 0.0


def test_no_proposals_at_all():
    true = late(0)
    found = score(UNSUPERVISED, np.zeros_like(true), true)
    assert all(scores.proposal is None and not scores.j.any() for scores in found.values())


def test_at_most_20_proposals():
    true = np.ones((3, 6, 6), np.uint8)
    predicted = np.zeros_like(true)
    predicted[0].ravel()[:20] = range(1, 21)
    assert score(UNSUPERVISED, predicted, true)
    predicted[2, 0, 0] = 99
    with pytest.raises(DataError, match="at most 20"):
        score(UNSUPERVISED, predicted, true)


def test_foreground_merges_everything():
    true, predicted = late(2), late(2) + 6
    predicted[predicted == 6] = 0
    true[0] = 0
    predicted[0] = 0
    found = score(FOREGROUND, predicted, true)
    assert list(found) == [1]
    assert found[1].frames == tuple(range(8))
    assert found[1].j.tolist() == [1.0] * 8
    # A single foreground scores the same when it is matched as a proposal.
    one, many = (true > 0).view(np.uint8), (predicted > 0).view(np.uint8) * np.uint8(255)
    assert score(UNSUPERVISED, many, one)[1].j.tolist() == found[1].j.tolist()


def test_frames_come_in_order_and_fit():
    frame = np.ones((4, 5), np.uint8)
    scorer = SequenceScorer(SEMI_SUPERVISED, 3)
    assert not scorer.will_score(0)
    scorer.observe(0, frame)
    assert scorer.objects == (1,)
    assert scorer.will_score(1)
    assert not scorer.will_score(2)
    with pytest.raises(ValueError, match="in order"):
        scorer.update(0, frame, frame)
    with pytest.raises(ValueError, match="shape"):
        scorer.update(1, frame[:3], frame)
    with pytest.raises(ValueError, match="uint8"):
        scorer.update(1, frame.astype(int), frame)
    with pytest.raises(ValueError, match="in order"):
        scorer.update(3, frame, frame)


def test_means_over_objects_and_over_sequences_differ():
    two, one = late(0), np.ones((8, 10, 10), np.uint8)
    one[:, 5:] = 0
    wrong = np.zeros_like(one)
    results = {
        "two": score_result(SEMI_SUPERVISED, two),
        "one": score_result(SEMI_SUPERVISED, one, wrong),
    }
    figures = dataset_figures(results)
    assert figures.object_mean["J"] == pytest.approx(2 / 3)
    assert figures.sequence_mean["J"] == pytest.approx(1 / 2)
    assert figures.j_and_f == pytest.approx(2 / 3)
    assert list(figures.headline) == ["J&F", *COLUMNS]
    assert figures.youtube_vos is None


def test_youtube_vos_figures():
    two, one = late(0), np.ones((8, 10, 10), np.uint8)
    one[:, 5:] = 0
    results = {
        "two": score_result(YOUTUBE_VOS, two),
        "one": score_result(YOUTUBE_VOS, one, np.zeros_like(one)),
    }
    seen = {("two", 1): True, ("two", 4): False, ("one", 1): False}
    figures = dataset_figures(results, seen).youtube_vos
    assert (figures.j_seen, figures.f_seen) == (1, 1)
    assert (figures.j_unseen, figures.f_unseen) == (0.5, 0.5)
    assert figures.g == 0.75
    assert dataset_figures(results, seen).headline["G"] == 0.75
    assert dataset_figures(results, {**seen, ("one", 1): None}).youtube_vos is None
    only_seen = dataset_figures(results, dict.fromkeys(seen, True)).youtube_vos
    assert math.isnan(only_seen.g)
    assert only_seen.j_seen == pytest.approx(2 / 3)


def test_no_results():
    assert math.isnan(dataset_figures({}).j_and_f)
