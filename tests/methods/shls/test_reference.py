"""The paper's variant against outputs of the authors' model, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import MethodError
from bench.masks import read_mask
from methods.shls.checkpoint import PREFIX, from_official, to_official
from methods.shls.memory import MemoryClustering, MemorySettings
from methods.shls.method import MEAN, STD
from methods.shls.network import NetworkSettings, SHLSNetwork
from methods.shls.pooling import paint
from methods.shls.segmentation import (
    UNASSIGNED,
    FrameFeatures,
    SegmentationSettings,
    Sequence,
    decode,
    encode,
)
from tests.oracle import rule_weights

PARAMETERS = 13_946_572


@pytest.fixture(scope="module")
def oracle(shared_dir: Path) -> Path:
    return shared_dir / "oracle" / "shls"


def network(oracle: Path, settings: dict[str, Any]) -> SHLSNetwork:
    shapes = json.loads((oracle / "keys.json").read_text())
    weights = rule_weights(shapes, settings.get("scale"), settings.get("override"))
    built = SHLSNetwork(NetworkSettings(variant="paper"))
    named = {PREFIX + name: tensor for name, tensor in weights.items()}
    built.load_state_dict(from_official(named, oracle), strict=True)
    return built.eval()


def features(built: SHLSNetwork, image: np.ndarray, superpixels: np.ndarray) -> FrameFeatures:
    shape = (1, 3, 1, 1)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    return encode(built, pixels, [torch.from_numpy(superpixels.astype(np.int64))])[0]


def largest_difference(found: torch.Tensor, expected: np.ndarray) -> float:
    assert tuple(found.shape) == expected.shape
    return float((found - torch.from_numpy(expected)).abs().max())


def with_zero_unassigned(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == UNASSIGNED, 0, labels.astype(int) + 1)


def test_sizes_and_names(oracle: Path) -> None:
    shapes = json.loads((oracle / "keys.json").read_text())
    built = SHLSNetwork(NetworkSettings(variant="paper"))
    official = to_official(built.state_dict())
    assert {name: list(tensor.shape) for name, tensor in official.items()} == {
        name: list(shape) for name, shape in shapes.items()
    }
    assert len(official) == 244
    assert sum(parameter.numel() for parameter in built.parameters()) == PARAMETERS
    assert set(from_official(official, oracle)) == set(built.state_dict())


def test_unknown_official_tensor_is_named(oracle: Path) -> None:
    with pytest.raises(MethodError, match=r"module\.extra\.weight"):
        from_official({"module.extra.weight": torch.zeros(1)}, oracle)


def test_backbone(oracle: Path) -> None:
    stored = np.load(oracle / "encoder.npz")
    built = network(oracle, {})
    with torch.inference_mode():
        half, quarter = built.backbone(torch.from_numpy(stored["image"]))
    assert largest_difference(half, stored["feat_half"]) <= 1e-5 * np.abs(stored["feat_half"]).max()
    limit = 1e-5 * np.abs(stored["feat_quarter"]).max()
    assert largest_difference(quarter, stored["feat_quarter"]) <= limit


@torch.inference_mode()
def test_every_stage_with_two_objects(oracle: Path) -> None:
    stored = np.load(oracle / "stages.npz")
    built = network(oracle, json.loads(str(stored["settings"])))
    first = features(built, stored["frames"][0], stored["f0_spx0"])
    assert largest_difference(first.full[64:], stored["f0_info_L1"]) < 1e-6
    assert largest_difference(first.full[:64, ::8, ::8], stored["f0_feat_half_up_sub"]) < 1e-5
    assert largest_difference(first.quarter, stored["f0_L4"]) < 1e-5
    assert largest_difference(first.superfeatures, stored["f0_sf0"]) < 1e-5
    sequence = Sequence.begin(SegmentationSettings(), False, first, stored["mask0"], 2)
    assert sequence.memory.limit == stored["f0_max_mem"]
    assert sequence.memory.protected == stored["f0_init_mem"].tolist()
    for found, expected in zip(sequence.memory.centroids, stored["f0_cent0"], strict=True):
        assert np.abs(found - expected).max() < 1e-6
    for number, view in enumerate(sequence.first):
        assert list(view.box) == stored["f0_bbox0"][number].tolist()
        painted = paint(view.attention, view.box.cut(first.superpixels))
        assert largest_difference(painted, stored[f"f0_att{number + 1}"]) < 1e-5
    for frame in (1, 2):

        def expected(name: str, frame: int = frame) -> np.ndarray:
            return stored[f"f{frame}_{name}"]

        current = features(built, stored["frames"][frame], stored["superpixels"][frame])
        assert largest_difference(current.superfeatures, expected("sf")) < 1e-5
        recall, views = sequence.look(current)
        assert (recall.labels.numpy() + 1 == expected("knn_label")).all()
        assert largest_difference(recall.neighbours, expected("knn_att")) < 1e-5
        assert largest_difference(recall.centroids, expected("cent_att")) < 1e-5
        assert (with_zero_unassigned(sequence.presegmentation) == expected("preseg")).all()
        assert [list(view.box) for view in views] == expected("bbox").tolist()
        for number, view in enumerate(views):
            painted = paint(view.attention, view.box.cut(current.superpixels))
            assert largest_difference(painted, expected(f"att{number + 1}")) < 1e-5
        inputs = sequence.inputs(views)
        if frame == 1:
            item = inputs[1]
            assert largest_difference(item.attention, expected("o2_mod_am")) < 1e-5
            assert largest_difference(item.full, expected("o2_mod_L1")) < 1e-5
            assert largest_difference(item.quarter, expected("o2_mod_L4")) < 1e-5
            assert largest_difference(item.first_quarter, expected("o2_dec_first_L4")[0]) < 1e-5
            assert largest_difference(item.skip, expected("o2_dec_L1")[0]) < 1e-5
            modulated = built.modulator(item.attention, item.full, item.quarter)
            modulated = modulated.reshape(1, -1, *modulated.shape[-2:])
            assert largest_difference(modulated, expected("o2_mod_out")) < 1e-5
        logits = decode(built, inputs)
        for number, found in enumerate(logits):
            reference = expected(f"o{number + 1}_dec_out")[0]
            assert largest_difference(found, reference) < 1e-4 * np.abs(reference).max()
        combined = sequence.combine(logits, inputs)
        assert largest_difference(combined, expected("logits")[0]) < 1e-2
        assert (combined.argmax(0).numpy() == stored["ids"][frame]).all()
        sequence.advance(current, views, combined)
        if frame == 1:
            assert [len(rows) for rows in sequence.memory.items] == [
                before + added
                for before, added in zip([94, 19, 8], _stored_per_class(stored), strict=True)
            ]
            for found, reference in zip(sequence.memory.centroids, expected("cent"), strict=True):
                assert np.abs(found - reference).max() < 1e-5


def _stored_per_class(stored: Any) -> list[int]:
    labels = np.where(stored["f1_conf"] > 0, stored["f1_pools"], 0)
    return [int((labels == number).sum()) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "frames"), [("one", 3), ("one_plain", 5), ("two_plain", 4)], ids=str
)
@torch.inference_mode()
def test_whole_clips(oracle: Path, name: str, frames: int) -> None:
    stored = np.load(oracle / f"propagate_{name}.npz")
    clip = np.load(oracle.parent / "clips" / f"{stored['clip']}.npz")
    built = network(oracle, json.loads(str(stored["settings"])))
    first = features(built, clip["frames"][0], stored["merged_superpixels0"])
    objects = int(clip["mask0"].max())
    sequence = Sequence.begin(SegmentationSettings(), False, first, clip["mask0"], objects)
    for number in range(1, frames):
        current = features(built, clip["frames"][number], stored["superpixels"][number])
        _, views = sequence.look(current)
        assert [list(view.box) for view in views] == stored["bbox"][number].tolist()
        assert (
            with_zero_unassigned(sequence.presegmentation) == stored["preseg"][number]
        ).mean() >= 0.99
        inputs = sequence.inputs(views)
        logits = sequence.combine(decode(built, inputs), inputs)
        assert (logits.argmax(0).numpy() == stored["ids"][number]).mean() >= 0.995
        sequence.advance(current, views, logits)


def test_k_means_of_given_items(oracle: Path) -> None:
    stored = np.load(oracle / "stages.npz")
    vectors = torch.from_numpy(stored["f0_sf0"])
    classes = torch.from_numpy(stored["f0_pools0"]).long() - 1
    memory = MemoryClustering(vectors, classes, 3, MemorySettings())
    for found, expected in zip(memory.centroids, stored["f0_cent0"], strict=True):
        assert found is not None
        assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_command_gives_the_authors_masks(oracle: Path, tmp_path: Path, precision: str) -> None:
    """Everything at once: their file, our superpixels, split, networks, memory, written masks."""
    stored = np.load(oracle / "propagate_one_plain.npz")
    clip = np.load(oracle.parent / "clips" / f"{stored['clip']}.npz")
    weights = rule_weights(json.loads((oracle / "keys.json").read_text()))
    official = {"model": {PREFIX + name: tensor for name, tensor in weights.items()}, "epoch": 1}
    torch.save(official, tmp_path / "official.pth")
    frames, out = tmp_path / "frames", tmp_path / "masks"
    frames.mkdir()
    for number, frame in enumerate(clip["frames"][: len(stored["ids"])]):
        Image.fromarray(frame).save(frames / f"{number:05d}.png")
    Image.fromarray(clip["mask0"]).save(tmp_path / "first.png")
    arguments = [
        *("segment", str(frames), "--mask", str(tmp_path / "first.png"), "--method", "shls"),
        *("--preset", "paper", "--weights", str(tmp_path / "official.pth")),
        *("--set", f"precision={precision}", "--out", str(out)),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for number in range(1, len(stored["ids"])):
        found = read_mask(out / f"{number:05d}.png")
        assert (found == stored["ids"][number]).mean() >= 0.995
