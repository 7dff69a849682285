"""Classes in the place of objects: mappings, counts, and runs under the semantic protocol."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tests.semantic_fakes
from bench.cli import app
from bench.config import CONFIGS, RunConfig, load_run_config
from bench.conformance import CHECKS, scene
from bench.errors import ConfigError, MethodError
from bench.masks import read_mask
from bench.method import Context
from bench.metrics import SEMANTIC, SequenceScorer, region_j
from bench.plan import make_plan
from bench.protocol import semantic
from bench.semantic import BACKGROUND, ClassCounts, ClassMapping, SemanticScorer
from bench.store import load_run
from bench.suite import classes_of, load_suite
from bench.video import VOID, ObjectInfo, Video
from tests.fakes import FakeSettings, Scenes, Shifting
from tests.semantic_fakes import CLASSES, Knowing, run_semantic

NAMES = ("hot", "fog", "cold")
"""Of a method's classes."""

MAPPING = ClassMapping(
    shared=("warm", "cold"), network={"hot": "warm"}, truth={"fire": "warm", "ice": "cold"}
)


def video(name: str, categories: dict[int, str | None]) -> Video:
    """A video of which nothing but its objects is looked at."""
    objects = {number: ObjectInfo(category) for number, category in categories.items()}
    return dataclasses.replace(scene(1), name=name, objects=objects)


def mask(*values: int) -> NDArray[np.uint8]:
    return np.array([values], np.uint8)


# ------------------------------------------------------------------ mapping


def test_classes_are_mapped_and_the_rest_is_void() -> None:
    assert MAPPING.of_network(mask(0, 1, 2, 3), NAMES).tolist() == [[0, 1, 0, 2]]
    seen = video("a", {1: "ice", 2: "fire", 3: "dust", 4: None})
    categories = MAPPING.categories(seen)
    truth = mask(0, 1, 2, 3, 4, 5, VOID)
    assert MAPPING.of_truth(truth, categories).tolist() == [[0, 2, 1, VOID, VOID, VOID, VOID]]
    shown = MAPPING.of_video(dataclasses.replace(seen, load_mask=lambda index: truth))
    assert shown.load_mask(0).tolist() == [[0, 2, 1, VOID, VOID, VOID, VOID]]
    assert {number: info.category for number, info in shown.objects.items()} == {
        1: "warm",
        2: "cold",
    }


def test_a_file_can_give_objects_their_categories() -> None:
    given = MAPPING.model_copy(update={"objects": {"a": {1: "fire", 7: "cold"}}})
    assert given.categories(video("a", {1: "ice", 2: "dust"})) == {1: "fire", 2: "dust", 7: "cold"}
    assert given.shows(video("a", {}))
    assert not given.shows(video("b", {}))
    assert given.shows(video("b", {3: "ice"}))
    assert not given.shows(video("b", {3: "dust"}))


def test_classes_by_name() -> None:
    assert ClassMapping.by_name(["ice", "fire", "fog"], ["fire", "rain", "fog"]) == ClassMapping(
        shared=("fire", "fog")
    )
    with pytest.raises(ConfigError, match="--classes"):
        ClassMapping.by_name(["ice"], ["fire"])


def test_shared_classes_that_a_method_does_not_have() -> None:
    assert MAPPING.missing(NAMES) == ()
    assert MAPPING.missing(["hot", "fog"]) == ("cold",)


def test_a_mapping_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(
        "shared: [warm, cold]\nnetwork: {hot: warm}\ntruth: {fire: warm, ice: cold}\n"
        "objects: {dog: {1: fire}}\n"
    )
    found = ClassMapping.read(path)
    assert found == MAPPING.model_copy(update={"objects": {"dog": {1: "fire"}}})
    # As plans keep it.
    assert ClassMapping.model_validate(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("network: {hot: warm}\n", ["shared", "required"]),
        ("shared: []\n", ["shared", "at least 1"]),
        ("shared: [warm, warm]\n", ["shared", "each class once"]),
        ("shared: [background]\n", ["shared", "background"]),
        ("shared: [warm]\nnetwork: {hot: hotter}\n", ["network", "hotter", "not among"]),
        ("shared: [warm]\ntruth: {ice: cold}\n", ["truth", "cold", "not among"]),
        ("shared: [warm]\nobjects: {a: {0: warm}}\n", ["objects.a.0", "greater than"]),
        ("shared: [warm]\nobjects: {a: warm}\n", ["objects.a", "dictionary"]),
        ("shared: [warm]\nobject: {a: {1: warm}}\n", ["Did you mean 'objects'"]),
        ("[warm]\n", ["list", "mapping"]),
        ("shared: [\n", ["unreadable YAML"]),
    ],
)
def test_a_wrong_mapping_names_the_key(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        ClassMapping.read(path)
    assert all(part in str(error.value) for part in ["mapping.yaml", *parts]), error.value
    if "unreadable" not in parts[0]:  # the parser's own complaint has lines
        assert "\n" not in str(error.value)


def test_the_mapping_that_ships_is_one_of_davis(shared_dir: Path) -> None:
    mapping = ClassMapping.read(CONFIGS / "classes" / "davis_coco.yaml")
    lists = shared_dir / "data/DAVIS2016/ImageSets/480p/val.txt"
    if not lists.is_file():
        pytest.skip(f"No DAVIS-2016: {lists} is not there.")
    sequences = {line.split("/")[3] for line in lists.read_text().splitlines() if line}
    assert set(mapping.objects) < sequences
    assert len(mapping.objects) == 11
    used = {category for objects in mapping.objects.values() for category in objects.values()}
    assert used == set(mapping.shared)
    assert {tuple(objects) for objects in mapping.objects.values()} == {(1,)}


# ------------------------------------------------------------------ counting


def naive_iou(frames: list[tuple[Any, Any]], number: int) -> tuple[float, bool]:
    """IoU of a shared class over frames of (predicted, true) shared classes, and if it is true."""
    inside = either = 0
    present = False
    for predicted, truth in frames:
        for p, t in zip(predicted.ravel(), truth.ravel(), strict=True):
            if t == VOID:
                continue
            inside += p == number and t == number
            either += p == number or t == number
            present |= bool(t == number)
    return (inside / either if either else math.nan), present


def naive_mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


pixels = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 3, VOID])), max_size=12)
"""Of a frame: classes of :data:`NAMES`, and objects: ice, fire, dust, void."""


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(pixels, min_size=1, max_size=3), min_size=1, max_size=3))
def test_scores_equal_those_written_out(videos: list[list[list[tuple[int, int]]]]) -> None:
    categories: dict[int, str | None] = {1: "ice", 2: "fire", 3: "dust"}
    scorer = SemanticScorer(MAPPING, NAMES)
    meaning, true_meaning = {0: 0, 1: 1, 2: 0, 3: 2}, {0: 0, 1: 2, 2: 1, 3: VOID, VOID: VOID}
    shared: dict[str, list[tuple[Any, Any]]] = {}
    for number, frames in enumerate(videos):
        one = video(f"v{number}", categories)
        for frame in frames:
            predicted, truth = np.array(frame, np.uint8).reshape(1, -1, 2).transpose(2, 0, 1)
            scorer.add(one, predicted, truth)
            pair = (
                np.array([meaning[int(value)] for value in predicted.ravel()]),
                np.array([true_meaning[int(value)] for value in truth.ravel()]),
            )
            shared.setdefault(one.name, []).append(pair)
    found = scorer.result()
    everything = [pair for pairs in shared.values() for pair in pairs]
    pooled = [naive_iou(everything, number)[0] for number in (0, 1, 2)]
    expected = dict(zip((BACKGROUND, "warm", "cold"), pooled, strict=True))
    assert found.classes == pytest.approx(expected, nan_ok=True)
    assert found.pooled == pytest.approx(naive_mean(pooled[1:]), nan_ok=True)
    by_video = {
        name: naive_mean([v for v, present in (naive_iou(pairs, n) for n in (1, 2)) if present])
        for name, pairs in shared.items()
    }
    assert found.videos == pytest.approx(by_video, nan_ok=True)
    assert found.averaged == pytest.approx(naive_mean(list(by_video.values())), nan_ok=True)
    for number, frames in enumerate(videos):
        objects = [true for frame in frames for _, true in frame if true in (1, 2, 3)]
        share = sum(true != 3 for true in objects) / len(objects) if objects else math.nan
        assert found.coverage[f"v{number}"] == pytest.approx(share, nan_ok=True)


def test_the_two_means_can_differ() -> None:
    """Two pixels right in one video, of a hundred in another: pooled, the first hardly counts."""
    scorer = SemanticScorer(ClassMapping(shared=("cold",)), NAMES)
    truth = np.ones((1, 100), np.uint8)
    scorer.add(video("small", {1: "cold"}), mask(3, 3), mask(1, 1))
    scorer.add(video("large", {1: "cold"}), np.zeros((1, 100), np.uint8), truth)
    found = scorer.result()
    assert (found.pooled, found.averaged) == (pytest.approx(2 / 102), 0.5)


def test_nothing_counted_is_no_score() -> None:
    scorer = SemanticScorer(MAPPING, NAMES)
    assert scorer.add(video("a", {}), mask(1, 2), None)[0].tolist() == [[1, 0]]
    assert scorer.record(video("a", {})) == {
        "classes": [BACKGROUND, "warm", "cold"],
        "confusion": None,
        "coverage": None,
    }
    with pytest.raises(ConfigError, match="no annotated frame"):
        scorer.result()


def test_what_is_stored_gives_the_counts_back() -> None:
    scorer = SemanticScorer(MAPPING, NAMES)
    one = video("a", {1: "ice", 2: "dust"})
    scorer.add(one, mask(3, 3, 0, 1), mask(1, 0, 2, 1))
    stored = scorer.record(one)
    again = ClassCounts.of_confusion(np.array(stored["confusion"]), stored["coverage"])
    assert again.intersection.tolist() == [0, 0, 1]
    assert again.union.tolist() == [1, 1, 3]
    assert again.true.tolist() == [1, 0, 2]
    assert stored["coverage"] == pytest.approx(2 / 3)


# ------------------------------------------------------------------ protocol


def knowing(shift: int = 0) -> Knowing:
    return Knowing(FakeSettings(shift=shift), Context())


def test_nothing_is_given_and_every_frame_is_segmented() -> None:
    found = list(semantic(knowing(), Scenes().video("scene-1")))
    assert [prediction.steps for prediction in found] == [1] * 5
    for prediction in found:
        assert prediction.truth is not None
        numbers = np.array([0, 3, 0, 1], np.uint8)
        assert np.array_equal(prediction.mask, numbers[prediction.truth])


def test_methods_without_classes_are_refused() -> None:
    with pytest.raises(MethodError, match="does not tell classes apart"):
        list(semantic(Shifting(FakeSettings(), Context()), scene(2)))


def test_another_number_of_scores_than_of_classes_is_named() -> None:
    class Fewer(Knowing):
        def class_names(self) -> tuple[str, ...]:
            return CLASSES[:2]

    method = Fewer(FakeSettings(), Context())
    with pytest.raises(MethodError, match=r"shape \(4, 24, 32\)"):
        list(semantic(method, Scenes().video("scene-0")))


def test_all_frames_are_scored_by_id_and_void_is_ignored() -> None:
    scorer = SequenceScorer(SEMANTIC, 3)
    truth = np.zeros((8, 8), np.uint8)
    truth[:4, :4], truth[:4, 4:] = 2, VOID
    predicted = np.where(truth == VOID, 2, truth).astype(np.uint8)
    for index in range(3):
        scorer.update(index, predicted, truth)
    (number,) = scorer.result().objects
    assert number == 2
    assert scorer.result().objects[2].frames == (0, 1, 2)
    assert scorer.result().objects[2].j.tolist() == [1, 1, 1]


# ------------------------------------------------------------------ runs


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_perfect_method_scores_one(tmp_path: Path) -> None:
    assert not run_semantic(tmp_path / "one").failures
    stored = load_run(tmp_path / "one")
    assert (stored.scores["value"] == 1).all()
    assert sorted(stored.scores["frame"].unique()) == [0, 1, 2, 3, 4]
    # Shared by name, in the method's order: dog is 1, cat is 2.
    assert stored.provenance["classes"]["knowing@"]["scenes"]["shared"] == ["dog", "cat"]
    assert set(stored.scores["object"]) == {1, 2}
    table = stored.classes
    assert table is not None
    assert (table["intersection"] == table["union"]).all()
    assert (table["coverage"] == 1).all()
    assert list(table["class"].unique()) == [BACKGROUND, "dog", "cat"]


def test_masks_and_the_shown_truth_hold_shared_classes(tmp_path: Path) -> None:
    run_semantic(tmp_path / "one")
    stored = load_run(tmp_path / "one")
    masks = stored.masks("knowing", "", "scenes", "scene-1", 0)
    shown = stored.frames_of("scenes", "scene-1")
    assert shown is not None
    numbers = np.array([0, 2, 0, 1], np.uint8)
    for index in range(5):
        expected = numbers[Scenes().video("scene-1").load_mask(index)]
        assert {0, 1, 2} == set(np.unique(expected))
        assert np.array_equal(read_mask(masks / f"{index:05d}.png"), expected)
        assert np.array_equal(shown.load_mask(index), expected)


def test_counts_and_scores_are_those_of_the_written_masks(tmp_path: Path) -> None:
    run_semantic(tmp_path / "one", {"knowing.shift": 2})
    stored = load_run(tmp_path / "one")
    table = stored.classes
    assert table is not None
    for name in ("scene-0", "scene-3"):
        masks = stored.masks("knowing", "shift=2", "scenes", name, 0)
        pairs = [
            (
                read_mask(masks / f"{index:05d}.png"),
                np.array([0, 2, 0, 1])[Scenes().video(name).load_mask(index)],
            )
            for index in range(5)
        ]
        rows = table[table["sequence"] == name].set_index("object")
        for number in (0, 1, 2):
            ratio = rows["intersection"][number] / max(rows["union"][number], 1)
            expected, present = naive_iou(pairs, number)
            assert ratio == pytest.approx(0 if math.isnan(expected) else expected)
            assert (rows["true"][number] > 0) == present
        mine = stored.scores[(stored.scores["sequence"] == name) & (stored.scores["metric"] == "J")]
        for row in mine.itertuples():
            predicted, truth = (part == row.object for part in pairs[row.frame])
            assert row.value == pytest.approx(region_j(predicted, truth))


def test_an_unshared_category_is_void(tmp_path: Path) -> None:
    """Cats are no class here: what is predicted on them costs nothing, and coverage says so."""
    file = write(tmp_path / "dogs.yaml", "shared: [dog]\n")
    run_semantic(tmp_path / "one", classes=file)
    table = load_run(tmp_path / "one").classes
    assert table is not None
    assert (table["intersection"] == table["union"]).all()
    for number in range(4):
        masks = [Scenes().video(f"scene-{number}").load_mask(index) for index in range(5)]
        dogs, all_of_it = (sum((m == 3).sum() for m in masks), sum((m > 0).sum() for m in masks))
        rows = table[table["sequence"] == f"scene-{number}"]
        assert rows["coverage"].to_numpy() == pytest.approx(dogs / all_of_it)
        assert rows["true"].to_list()[1] == dogs


def test_sequences_without_a_shared_class_are_left_out_with_the_reason(tmp_path: Path) -> None:
    file = write(
        tmp_path / "some.yaml",
        "shared: [dog, cat]\nobjects: {scene-0: {1: bird, 3: bird}, scene-2: {1: bird, 3: bird}}\n",
    )
    result = run_semantic(tmp_path / "one", classes=file, seeds=[3, 4])
    assert [job.sequence for job in result.plan.jobs] == ["scene-1"] * 2 + ["scene-3"] * 2
    (skip,) = result.plan.skips
    assert skip.sequences == ("scene-0", "scene-2")
    assert str(skip).startswith("knowing on scenes (scene-0, scene-2): no object has one of")
    jobs = load_run(tmp_path / "one").jobs
    skipped = jobs[jobs["status"] == "skipped"]
    assert list(zip(skipped["sequence"], skipped["seed"], strict=True)) == [
        ("scene-0", 3),
        ("scene-0", 4),
        ("scene-2", 3),
        ("scene-2", 4),
    ]
    assert (load_run(tmp_path / "one").scores["value"] == 1).all()


def plan(**options: Any) -> Any:
    config = {"methods": ["knowing"], "data": ["scenes"], "protocol": "semantic"} | options
    return make_plan(RunConfig.model_validate(config))


@pytest.mark.parametrize(
    ("method", "mapping", "sentence"),
    [
        ("shifting", "shared: [cat]", "tells objects from background, not the classes"),
        ("nameless", "shared: [cat]", "do not name their classes"),
        ("elsewhere", "shared: [cat]", "a machine that is not there"),
        ("knowing", "shared: [cat, owl]", "no class for owl; it has dog, tree, cat"),
        ("knowing", "shared: [tree]", "no object has one of the shared classes (tree)"),
    ],
)
def test_what_cannot_be_scored_is_skipped_with_a_sentence(
    tmp_path: Path, method: str, mapping: str, sentence: str
) -> None:
    made = plan(methods=[method], classes=write(tmp_path / "classes.yaml", mapping))
    assert not made.jobs
    (skip,) = made.skips
    assert sentence in skip.reason
    assert skip.sequences == ()


def test_nothing_in_common_by_name_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Knowing, "class_names", lambda self: ("a", "b"))
    (skip,) = plan().skips
    assert "no class that both have: a, b and cat, dog" in skip.reason
    assert "--classes" in skip.reason


def test_classes_are_part_of_a_jobs_identity_by_content(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "shared: [dog, cat]\n")
    same = write(tmp_path / "same.yaml", "# the same\nshared: [dog, cat]\n")
    other = write(tmp_path / "other.yaml", "shared: [cat, dog]\n")
    ids = {path.stem: [job.id for job in plan(classes=path).jobs] for path in (one, same, other)}
    assert ids["one"] == ids["same"] == [job.id for job in plan().jobs]
    assert not set(ids["one"]) & set(ids["other"])
    assert not set(ids["one"]) & {job.id for job in plan(protocol="semi-supervised").jobs}


def test_classes_need_the_semantic_protocol(tmp_path: Path) -> None:
    file = write(tmp_path / "classes.yaml", "shared: [cat]\n")
    with pytest.raises(ConfigError, match="--protocol semantic"):
        plan(classes=file, protocol="unsupervised")


def test_a_continued_run_has_the_same_tables(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    result = run_semantic(whole, {"knowing.shift": 1})
    names = ("classes.parquet", "scores.parquet")
    before = {name: (whole / name).read_bytes() for name in names}
    for job in result.plan.jobs[1:3]:
        shutil.rmtree(whole / "jobs" / job.id)
    for name in names:
        (whole / name).unlink()
    again = run_semantic(whole, {"knowing.shift": 1})
    assert again.reused == 2
    assert {name: (whole / name).read_bytes() for name in names} == before


def test_other_protocols_have_no_table_of_classes(tmp_path: Path) -> None:
    run_semantic(tmp_path / "one", protocol="semi-supervised", methods=["shifting"])
    assert not (tmp_path / "one/classes.parquet").exists()
    assert load_run(tmp_path / "one").classes is None


# ------------------------------------------------------------------ files and commands


def test_the_file_of_classes_may_lie_beside_the_yaml(tmp_path: Path) -> None:
    near = write(tmp_path / "near.yaml", "shared: [cat]\n")
    config = write(tmp_path / "run.yaml", "protocol: semantic\nclasses: near.yaml\n")
    assert load_run_config(config, {}).classes == near
    assert load_run_config(config, {"classes": Path("far.yaml")}).classes == Path("far.yaml")


SUITE = """
title: Classes
comparison: as published
data: [scenes]
protocols: [semi-supervised, semantic]
classes: near.yaml
rows:
  Knows:
    method: knowing
"""


def test_suites_take_classes(tmp_path: Path) -> None:
    near = write(tmp_path / "near.yaml", "shared: [cat]\n")
    path = write(tmp_path / "suite.yaml", SUITE)
    config = load_suite(path)
    assert classes_of(config, path) == near
    write(path, SUITE.replace(", semantic]", "]"))
    with pytest.raises(ConfigError, match="the protocol semantic"):
        load_suite(path)


def command(*words: object) -> Any:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_suite_runs_its_semantic_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "near.yaml", "shared: [cat]\n")
    path = write(tmp_path / "suite.yaml", SUITE)
    monkeypatch.setattr("bench.engine.local.Local.map", _serial)
    monkeypatch.setattr("bench.cli.experiments._write_report", lambda outcomes, folder: None)
    done = command("suite", path, "--out", tmp_path / "out")
    assert done.exit_code == 0, (done.output, done.exception)
    stored = load_run(tmp_path / "out/semantic/Knows")
    assert stored.classes is not None
    assert stored.provenance["classes"]["knowing@Knows"]["scenes"]["shared"] == ["cat"]
    assert load_run(tmp_path / "out/semi-supervised/Knows").classes is None


def _serial(self: Any, job_fn: Any, jobs: Any) -> Any:
    from bench.engine.serial import Serial

    return Serial(1).map(job_fn, jobs)


def test_the_command_on_synthetic_videos(tmp_path: Path) -> None:
    """``adv`` as it ships knows foreground, which is taken for every category here."""
    categories = ["cat", "rocket", "motorcycle"]
    truth = ", ".join(f"{name}: thing" for name in categories)
    file = write(
        tmp_path / "things.yaml",
        f"shared: [thing]\nnetwork: {{foreground: thing}}\ntruth: {{{truth}}}\n",
    )
    small = ["frames=3", "sequences=3", "height=64", "width=96"]
    chosen = [word for each in small for word in ("--set", f"synthetic-clips.{each}")]
    options = ["--methods", "adv,copy", "--data", "synthetic-clips", "--engine", "serial"]
    options += ["--protocol", "semantic", "--classes", file, *chosen]
    done = command("run", *options, "--out", tmp_path / "run")
    assert done.exit_code == 0, (done.output, done.exception)
    words = " ".join(done.output.split())
    assert "copy on synthetic-clips" in words
    assert "not the classes that the protocol asks for" in words
    assert "with pixels pooled" in words
    table = load_run(tmp_path / "run").classes
    assert table is not None
    assert set(table["class"]) == {BACKGROUND, "thing"}
    assert (table["union"] >= table["true"]).all()


def test_wrong_classes_are_one_message_and_leave_no_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "classes.yaml", "shared: [cat]\ntruth: {dog: doggy}\n")
    options = ["--methods", "knowing", "--data", "scenes", "--protocol", "semantic"]
    done = command("run", *options, "--classes", file, "--out", tmp_path / "run")
    assert isinstance(done.exception, ConfigError)
    assert "classes.yaml: truth" in str(done.exception)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ contract

[CONTRACT] = [check for check in CHECKS if check.title.startswith("classes")]


class Painted(Knowing):
    """Bright pixels are of a class; keeps the contract on any video."""

    def class_names(self) -> tuple[str, ...]:
        return ("bright", "blue")

    def begin_semantic(self, frame: Any) -> Any:
        return self.step(0, frame)

    def step(self, state: Any, frame: Any) -> Any:
        colours = torch.from_numpy(frame.image.astype(np.float32))
        return state, torch.stack(
            [torch.full_like(colours[..., 0], 127), *colours[..., 1:].unbind(2)]
        )


class NamedTwice(Painted):
    def class_names(self) -> tuple[str, ...]:
        return ("bright", "bright")


class NamesBackground(Painted):
    def class_names(self) -> tuple[str, ...]:
        return (BACKGROUND, "blue")


class OneClassMore(Painted):
    def class_names(self) -> tuple[str, ...]:
        return ("bright", "blue", "red")


class FirstFrameElsewhere(Painted):
    def begin_semantic(self, frame: Any) -> Any:
        state, scores = super().begin_semantic(frame)
        return state, scores[:, 1:]


class RemembersOtherVideos(Painted):
    brightest = 0.0

    def step(self, state: Any, frame: Any) -> Any:
        state, scores = super().step(state, frame)
        type(self).brightest += 40.0
        scores[0] = self.brightest
        return state, scores


class Paints(Painted):
    def step(self, state: Any, frame: Any) -> Any:
        found = super().step(state, frame)
        frame.image[0, 0] = 0
        return found


def test_a_method_with_classes_keeps_the_contract() -> None:
    method = Painted(FakeSettings(), Context())
    assert CONTRACT.skipped(method) is None
    assert CONTRACT.test(method) is None


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (NamedTwice, "each once"),
        (NamesBackground, "no background"),
        (OneClassMore, "shape"),
        (FirstFrameElsewhere, "shape"),
        (RemembersOtherVideos, "gave other classes"),
        (Paints, "in place"),
    ],
)
def test_broken_classes_are_caught_for_what_they_are(broken: type[Painted], words: str) -> None:
    assert words in (CONTRACT.complaint(broken(FakeSettings(), Context())) or "")


def test_the_contract_says_why_it_is_skipped() -> None:
    plain = Shifting(FakeSettings(), Context())
    assert CONTRACT.skipped(plain) == "it has no mix-in Semantic"
    assert CONTRACT.complaint(plain) is None
    nameless = tests.semantic_fakes.NamelessClasses(FakeSettings(), Context())
    assert CONTRACT.skipped(nameless) == "its weights do not name their classes"
