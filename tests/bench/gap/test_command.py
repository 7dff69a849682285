"""The command `gap` on two small domains whose gap is known."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from bench.errors import ConfigError, DataError, MethodError, StoreError
from bench.gap.command import RECORD, TABLES, fresh_folder, measure_gap
from bench.gap.domains import choose_images, choose_videos, shrunk_size
from bench.gap.features import TOKENS_PER_CLASS, Tokens, extract, grid_classes
from bench.gap.measures import closed_rows, missing_reasons, performance_drop, relative_to_oracle
from bench.gap.probe import FOLDS, LinearProbe, dealt_folds, trained_probes, training_size
from bench.gap.representation import Representation, representation_of
from bench.gap.request import gap_request
from bench.gap.variants import Variant, overrides_of, parse_weights, trained_on
from bench.method import Context
from bench.metrics.binary import region_j
from bench.registry import get_method
from bench.video import VOID
from tests.bench.gap.small_domains import COUNT, SIZE, SmallClips, SmallPictures

SMALL = {
    "images": "small-pictures",
    "videos": "small-clips",
    "short_side": 48,
    "limit": 10,
    "reference": "none",
}


def request(methods=("bright",), **changes):
    return gap_request({**SMALL, "methods": list(methods), "factors": ["compression"], **changes})


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One measurement with an adapted network between source and oracle."""
    folder = tmp_path_factory.mktemp("gap")
    files = {}
    for label, threshold in (("source", 0.5), ("oracle", 0.3), ("adapted", 0.41)):
        files[label] = folder / f"{label}.txt"
        files[label].write_text(str(threshold))
    weights = [",".join(f"{label}={file}" for label, file in files.items())]
    chosen = request(["bright", "featureless"], factors=["low_light", "framing"], weights=weights)
    measure_gap(chosen, folder)
    tables = {
        name: pd.read_csv(folder / f"{name}.csv", dtype={"sample": str})
        for name in TABLES
        if (folder / f"{name}.csv").is_file()
    }
    return SimpleNamespace(
        folder=folder, tables=tables, record=json.loads((folder / RECORD).read_text())
    )


# --- samples ---------------------------------------------------------------------------------


def test_images_come_from_the_front_of_the_permutation_that_training_holds_out_by():
    sample = choose_images("small-pictures", None, 7, 48, seed=3)
    order = np.random.default_rng(3).permutation(COUNT)[:7].tolist()
    assert list(sample.indices) == order
    assert [one.name for one in sample.items] == [f"{index:04d}" for index in order]


def test_one_seeded_frame_of_each_video():
    first, again = (choose_videos("small-clips", None, 8, 48, seed=1) for _ in range(2))
    other = choose_videos("small-clips", None, 8, 48, seed=2)
    assert first.sequences() == again.sequences()
    assert first.chosen == again.chosen
    assert (first.sequences(), first.chosen) != (other.sequences(), other.chosen)
    assert len(set(first.sequences())) == 8
    for one, index in zip(first.frames(), first.chosen, strict=True):
        clean = SmallClips().video(one.name)
        np.testing.assert_array_equal(one.image, clean.load_frame(index))
        np.testing.assert_array_equal(one.mask, clean.load_mask(index))


def test_both_domains_are_shrunk_alike_and_never_enlarged():
    images = choose_images("small-pictures", None, 6, 32, 0)
    videos = choose_videos("small-clips", None, 6, 32, 0)
    assert images.items[0].image.shape == videos.frames()[0].image.shape == (32, 43, 3)
    assert videos.frames()[0].mask.shape == (32, 43)
    assert shrunk_size((48, 64, 3), 100) == (48, 64)


def test_wrong_or_too_little_data_are_named():
    with pytest.raises(ConfigError, match="--images small-clips"):
        choose_images("small-clips", None, 8, 48, 0)
    with pytest.raises(ConfigError, match="--videos small-pictures"):
        choose_videos("small-pictures", None, 8, 48, 0)
    with pytest.raises(DataError, match="5 samples"):
        choose_images("small-pictures", None, 5, 48, 0)


# --- features --------------------------------------------------------------------------------


def test_grid_classes_are_the_majority_of_a_cells_pixels():
    generator = np.random.default_rng(0)
    mask = generator.choice([0, 1, VOID], (24, 40), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    mask[:8, :8] = VOID
    found = grid_classes(mask, (6, 10))
    for row in range(6):
        for column in range(10):
            cell = mask[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            void, shown = (cell == VOID).mean(), (cell == 1).mean()
            expected = -1 if void > 0.5 else int(shown > (1 - void) / 2)
            assert found[row, column] == expected


def test_tokens_are_of_their_class_and_repeat_for_changed_pictures():
    taps = ("only",)
    representation = Representation(
        taps, lambda image, names: {"only": torch.from_numpy(image).permute(2, 0, 1)}, None
    )
    samples = [SmallPictures()[index] for index in range(6)]
    negatives = [type(one)(one.name, 255 - one.image, one.mask) for one in samples]
    features, changed = (extract(representation, part, 0) for part in (samples, negatives))
    tokens = features.taps["only"].tokens
    # Bright is foreground in these pictures, at full resolution without exception.
    np.testing.assert_array_equal(tokens.features.min(1) > 128, tokens.classes == 1)
    assert np.bincount(tokens.sample).tolist() == [2 * TOKENS_PER_CLASS] * 6
    # The same positions, or CKA would compare different things.
    np.testing.assert_array_equal(changed.taps["only"].tokens.features, 255 - tokens.features)
    for number, one in enumerate(samples):
        stands_for = tokens.weight[(tokens.sample == number) & (tokens.classes == 1)].sum()
        assert stands_for == pytest.approx((one.mask == 1).sum())


def test_methods_take_part_by_the_contract_or_not_at_all():
    def built(name):
        method = get_method(name)
        return method(method.Settings(), Context())

    image = SmallPictures()[0].image
    prompted = representation_of(built("prompted-only"))
    assert prompted.taps == ("fine", "coarse")
    assert prompted.segment is None
    found = prompted.features(image)
    assert {tap: maps.shape for tap, maps in found.items()} == {
        "fine": (6, 12, 16),
        "coarse": (6, 6, 8),
    }
    assert {maps.dtype for maps in found.values()} == {np.dtype(np.float32)}
    assert prompted.restricted(["fine"]).features(image).keys() == {"fine"}
    bright = representation_of(built("bright"))
    np.testing.assert_array_equal(bright.segment(image), SmallPictures()[0].mask > 0)
    assert representation_of(built("featureless")) is None
    with pytest.raises(ConfigError, match="fine, coarse"):
        prompted.restricted(["enc5"])


def test_features_that_are_not_offered_by_the_contract_are_not_taken():
    method = get_method("featureless")
    looks_alike = method(method.Settings(), Context())
    looks_alike.features = lambda image: torch.ones(2, 3, 4)
    looks_alike.frames = SimpleNamespace(network=None, on_frame=None)
    assert representation_of(looks_alike) is None


# --- the linear probe ------------------------------------------------------------------------


def test_a_probe_never_sees_the_fold_it_is_tested_on(monkeypatch):
    seen = []

    def remember(cls, tokens, seed):
        seen.append(set(tokens.sample.tolist()))
        return LinearProbe(np.zeros(3), 0.0)

    monkeypatch.setattr(LinearProbe, "trained_on", classmethod(remember))
    count = 11
    tokens = Tokens(
        np.zeros((count, 3)), np.zeros(count, np.intp), np.arange(count), np.ones(count)
    )
    features = type("F", (), {"__len__": lambda self: count})()
    features.taps = {"t": SimpleNamespace(tokens=tokens)}
    trained_probes(features, "t", training_size(count, 30), 0)
    fold = dealt_folds(count, 0)
    assert len(seen) == FOLDS
    for held_out, samples in enumerate(seen):
        assert len(samples) == training_size(count, 30) == 8
        assert not samples & set(np.flatnonzero(fold == held_out).tolist())


def test_a_probe_finds_a_linear_foreground_and_survives_a_single_class():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 5)) * [1, 10, 1, 1, 1] + 3
    classes = (features[:, 1] > 5).astype(np.intp)
    tokens = Tokens(features, classes, np.zeros(400, np.intp), np.ones(400))
    maps = generator.normal(size=(5, 12, 16)) * np.array([1, 10, 1, 1, 1])[:, None, None] + 3
    found = LinearProbe.trained_on(tokens, 0).segment(maps, (12, 16))
    assert region_j(found, maps[1] > 5) > 0.85
    nothing = Tokens(features, np.zeros(400, np.intp), tokens.sample, tokens.weight)
    assert not LinearProbe.trained_on(nothing, 0).segment(maps, (24, 32)).any()


# --- the numbers -----------------------------------------------------------------------------


def test_own_foreground_has_the_known_drop(measured):
    """Every image is found; of the videos half are, by the source; all by the oracle."""
    drop = measured.tables["drop"].query("head == 'own foreground'").set_index("trained_on")
    lit = np.mean(
        [int(n.rpartition("-")[2]) % 2 for n in measured.record["datasets"]["videos"]["samples"]]
    )
    assert 0 < lit < 1
    assert drop.loc["images", "J_images"] == 1.0
    assert drop.loc["images", "J_videos"] == pytest.approx(lit)
    assert drop.loc["images", "drop"] == pytest.approx(1 - lit)
    assert drop.loc["images", "drop_low"] > 0
    assert drop.loc["videos", "J_videos"] == 1.0
    assert measured.record["relative_to_oracle"]["bright"] == pytest.approx(1 - lit)


def test_gap_closed_relates_adapted_to_source_and_oracle(measured):
    own = measured.tables["drop"].query("head == 'own foreground'").set_index("weights")["J_videos"]
    row = measured.tables["gap_closed"].iloc[0]
    expected = (own["adapted"] - own["source"]) / (own["oracle"] - own["source"])
    assert row["weights"] == "adapted"
    assert row["value"] == pytest.approx(expected)
    assert 0 < expected < 1
    assert "3 advised" in row["note"]


def test_low_light_is_what_separates_these_domains(measured):
    curves = measured.tables["curves"].query("weights == 'source' and domain == 'images'")
    scores = curves.query("measure == 'own foreground' and factor == 'low_light'")
    by_severity = scores.set_index("severity")["value"]
    assert by_severity[0] == 1.0
    assert by_severity[5] == 0.0
    # The videos are darker, so that images that lose some light come nearer to them.
    mmd = curves.query("measure == 'squared_mmd' and factor == 'low_light'").set_index("severity")
    assert mmd["value"].idxmin() > 0
    compared = measured.tables["statistics"].set_index("statistic")
    assert compared.loc["mean_luma", "images"] > compared.loc["mean_luma", "videos"]


def test_similarity_is_one_when_clean_and_falls_and_skips_what_moves(measured):
    cka = measured.tables["cka"].query("weights == 'source' and domain == 'videos'")
    assert set(cka["factor"]) == {"low_light"}
    assert set(cka["tap"]) == {"fine", "coarse"}
    for _, rows in cka.groupby("tap"):
        values = rows.sort_values("severity")["value"].to_numpy()
        assert values[0] == 1.0
        assert 0 < values[5] < values[1] < 1
    missing = measured.tables["missing"].set_index("what")
    assert "moves the object" in missing.loc["CKA under framing", "reason"]


def test_every_network_has_every_distance(measured):
    table = measured.tables["distances"]
    assert set(table["weights"]) == {"source", "oracle", "adapted"}
    per_place = table.groupby(["weights", "tap"])["measure"].apply(set)
    assert len(per_place) == 6
    assert len(set(map(frozenset, per_place))) == 1
    assert {
        "a_distance",
        "a_distance_foreground",
        "squared_mmd",
        "frechet_ratio",
    } <= per_place.iloc[0]
    assert table.query("measure == 'squared_mmd'")["p_value"].between(0, 1).all()
    unmeasured = table[table["value"].isna()]
    assert unmeasured["note"].str.startswith("Undefined").all()


def test_factors_made_equal_add_up(measured):
    for _, rows in measured.tables["equalisation"].groupby(["weights", "order"]):
        assert rows["value"].iloc[0] + rows["change"].sum() == pytest.approx(rows["value"].iloc[-1])
        inside = rows[rows["step"] > 0]
        assert (inside["low"] <= inside["change"] + 1e-9).all()
        assert (inside["change"] <= inside["high"] + 1e-9).all()


def test_the_record_says_what_was_measured(measured):
    record = measured.record
    videos = record["datasets"]["videos"]
    assert len(record["datasets"]["images"]["samples"]) == len(videos["samples"]) == 10
    assert set(videos["fingerprint"]) == set(videos["samples"])
    assert record["request"]["limit"] == 10
    assert {"torch", "numpy"} <= set(record["versions"])
    assert [one["main_tap"] for one in record["networks"]] == ["coarse"] * 3
    missing = measured.tables["missing"]
    assert missing.query("method == 'featureless'")["reason"].tolist() == ["it offers no features"]
    assert record["reference"] is None
    assert "reference encoder" not in set(measured.tables["distances"]["method"])


def test_factors_are_described_before_and_after(measured):
    table = measured.tables["equalised_statistics"]
    assert set(table["stage"]) == {"before", "after"}
    by_network = table[table["factor"] == "diversity"]
    assert set(by_network["weights"]) == {"source", "oracle", "adapted"}
    assert set(table[table["factor"] != "diversity"]["method"]) == {"all"}
    # As many images are left in the waterfall as show something else.
    left = measured.tables["equalisation"].query("factor == 'diversity' and order == 'fixed'")
    unique = by_network.query(
        "statistic == 'unique_samples' and domain == 'images' and stage == 'after'"
    )
    assert left["images"].tolist() == unique["value"].tolist()
    reasons = measured.tables["missing"].set_index("what")["reason"]
    assert "--video-label-accuracy" in reasons["label accuracy made equal"]


def test_inexact_labels_of_videos_are_made_equal_first(tmp_path):
    missing = measure_gap(request(factors=[], video_label_accuracy=0.7), tmp_path)
    assert not [one for one in missing if one.what == "label accuracy made equal"]
    equal = pd.read_csv(tmp_path / "equalisation.csv")
    factors = equal.groupby("order", sort=False)["factor"].apply(list)
    expected = ["label accuracy", "diversity", "sharpness", "brightness", "framing"]
    assert factors["fixed"] == ["none", *expected]
    assert factors["reverse"] == ["none", *expected[::-1]]
    table = pd.read_csv(tmp_path / "equalised_statistics.csv").query("factor == 'label accuracy'")
    after = table.query("domain == 'images' and stage == 'after'")["value"].iloc[0]
    assert after == pytest.approx(0.7, abs=0.06)
    with pytest.raises(ConfigError, match="video_label_accuracy"):
        request(video_label_accuracy=1.5)


def test_equal_requests_give_equal_tables(tmp_path):
    texts = []
    for place in ("a", "b"):
        with fresh_folder(tmp_path / place) as work:
            measure_gap(request(), work)
        texts.append({p.name: p.read_bytes() for p in (tmp_path / place).glob("*.csv")})
    assert len(texts[0]) >= 9
    assert texts[0] == texts[1]


def test_what_only_prompted_methods_lack_is_said(tmp_path):
    missing = measure_gap(request(["prompted-only"], factors=[]), tmp_path)
    assert any("first mask" in one.reason for one in missing)
    drop = pd.read_csv(tmp_path / "drop.csv")
    assert set(drop["head"]) == {"linear probe"}
    assert set(drop["trained_on"]) == {"images", "videos"}
    # Brightness is a feature, and in images it is foreground: a probe learns that.
    assert drop.query("trained_on == 'images'")["J_images"].iloc[0] > 0.6


def test_nothing_measurable_is_an_error_with_the_reason(tmp_path):
    with pytest.raises(MethodError, match="featureless: it offers no features"):
        measure_gap(request(["featureless"]), tmp_path)


# --- tables from rows ------------------------------------------------------------------------


def test_performance_drop_is_a_difference_of_means():
    generator = np.random.default_rng(0)
    rows = [
        {"method": "m", "weights": "", "seed": 0, "head": "h", "trained_on": "images",
         "tested_on": place, "sample": str(i), "J": value}
        for place, mean in (("images", 0.8), ("videos", 0.5))
        for i, value in enumerate(mean + 0.05 * generator.standard_normal(200))
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    row = performance_drop(table, 0).iloc[0]
    means = table.groupby("tested_on")["J"].mean()
    assert row["drop"] == pytest.approx(means["images"] - means["videos"])
    # Two standard errors of a difference of means of 200: 2 * 0.05 * sqrt(2 / 200).
    assert row["drop_high"] - row["drop_low"] == pytest.approx(
        4 * 0.05 * math.sqrt(2 / 200), rel=0.2
    )


def test_gap_closed_needs_both_ends():
    rows = [
        {"method": "adv", "weights": label, "seed": seed, "head": "own foreground",
         "trained_on": label, "J_images": 0.8, "J_videos": value + 0.01 * seed}
        for label, value in (("source", 0.4), ("oracle", 0.8), ("global", 0.6))
        for seed in range(3)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    (closed,) = closed_rows(table)
    assert closed["weights"] == "global"
    assert closed["value"] == pytest.approx(0.5)
    assert closed["seeds"] == 3
    assert relative_to_oracle(table)["adv"] == pytest.approx(0.4 / 0.81)
    assert not list(closed_rows(table[table["weights"] != "oracle"]))


def variant(weights="", header=None, segment=True):
    function = (lambda image: np.zeros(SIZE, bool)) if segment else None
    representation = Representation(["t"], lambda image, taps: {}, function)
    return Variant("adv", weights, 0, representation, None, header or {})


def test_every_hole_has_its_reason():
    def whats(*labels):
        return [what for what, _, _ in missing_reasons([variant(label) for label in labels])]

    assert whats("source", "oracle", "global") == []
    assert whats("source", "oracle") == ["gap closed"]
    assert whats("source") == ["own foreground trained on videos", "gap closed"]
    assert whats("") == [
        "own foreground trained on images", "own foreground trained on videos", "gap closed",
    ]  # fmt: skip


def test_training_images_among_the_measured_ones_are_counted():
    images = choose_images("small-pictures", None, 8, 48, seed=0)
    training = {"held_out": 8, "split_seed": 0}
    header = {"data": ["small-pictures"], "settings": {"training": training}}
    assert trained_on(variant(header=header), images) == ""
    training["held_out"] = 5
    assert "3 of the 8 images" in trained_on(variant(header=header), images)
    unknown = {"data": ["small-pictures"]}
    assert "8 of the 8 images" in trained_on(variant(header=unknown), images)
    assert trained_on(variant(header={"data": ["coco"]}), images) == ""


# --- options ---------------------------------------------------------------------------------


def test_weights_are_labelled(tmp_path):
    file = tmp_path / "w.txt"
    file.write_text("0.5")
    methods = ["bright", "featureless"]
    found = parse_weights([f"source={file},bright.oracle={file}", f"bright={file}"], methods)
    assert [(one.method, one.label) for one in found] == [
        ("bright", "source"), ("bright", "oracle"), ("bright", ""),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no LABEL=FILE"):
        parse_weights([str(file)], methods)
    with pytest.raises(ConfigError, match="no such file"):
        parse_weights(["source=nowhere"], methods)
    with pytest.raises(ConfigError, match=r"2 methods.*METHOD\.LABEL=FILE"):
        parse_weights([f"source={file}"], ["bright", "prompted-only"])


def test_settings_go_to_the_method_they_name():
    assert overrides_of(["a", "b"], {"a.x.y": 1}) == {"a": {"x": {"y": 1}}, "b": {}}
    assert overrides_of(["a"], {"x.y": 1}) == {"a": {"x": {"y": 1}}}
    with pytest.raises(ConfigError, match="--set x"):
        overrides_of(["a", "b"], {"x": 1})


def test_seeds_of_one_label_are_told_apart(tmp_path):
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text(str(0.5 - number / 5))
    weights = [f"source={file}" for file in files]
    measure_gap(request(weights=weights, factors=[]), tmp_path)
    drop = pd.read_csv(tmp_path / "drop.csv").query("head == 'own foreground'")
    assert drop["seed"].tolist() == [0, 1]
    assert drop["J_videos"].nunique() == 2


def test_unknown_factors_and_options_are_named(tmp_path):
    with pytest.raises(ConfigError, match="motion_blur"):
        measure_gap(request(factors=["wind"]), tmp_path)
    with pytest.raises(ConfigError, match="limit"):
        request(limit=0)
    assert not list(tmp_path.iterdir())


# --- the folder ------------------------------------------------------------------------------


def test_a_stopped_measurement_leaves_nothing(tmp_path):
    def stop(what, done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), fresh_folder(tmp_path / "out") as work:
        measure_gap(request(), work, stop)
    assert not list(tmp_path.iterdir())


def test_only_earlier_measurements_are_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="other files"), fresh_folder(out):
        pass
    assert (out / "notes.txt").read_text() == "mine"
    (out / RECORD).write_text("{}")
    with pytest.raises(ValueError, match="stop"), fresh_folder(out):
        raise ValueError("stop")
    assert (out / "notes.txt").is_file()
    with fresh_folder(out) as work:
        (work / "new").touch()
    assert [path.name for path in out.iterdir()] == ["new"]
