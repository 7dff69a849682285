"""SHLS under the harness: the contract, hard inputs, checkpoints, training by command."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench.cli import app
from bench.config import FirstTraining, MethodConfig, RunConfig, method_settings
from bench.conformance import CHECKS, Check, scene, segment
from bench.errors import ConfigError, MethodError
from bench.method import Context
from bench.train import TrainingChoice, train_method, train_missing
from bench.training import read_header, read_weights, save_weights
from bench.video import Frame
from methods.shls import SHLS
from methods.shls.checkpoint import PREFIX, to_official
from methods.shls.method import SHLSSettings, shrink_labels
from methods.shls.network import SHLSNetwork
from methods.shls.training import SHLSTrainingSettings, split_images
from tests.methods.stills import write_stills
from tests.pretend_gpu import pretend_gpu

SMALL = {"width": 16, "modulator_width": 8, "decoder_width": 8, "decoder_skip_width": 8}


def settings(**changes: object) -> SHLSSettings:
    fields = {"network": SMALL, "initial": "random"} | changes
    return SHLSSettings.model_validate(fields)


@pytest.fixture(scope="module")
def method() -> SHLS:
    return SHLS(settings(segmentation={"window": 32}), Context())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_contract(method: SHLS, check: Check) -> None:
    assert check.complaint(method) is None


@pytest.mark.parametrize("variant", ["fixed", "paper"])
@pytest.mark.parametrize("refine", [True, False])
def test_contract_of_variants(variant: str, refine: bool) -> None:
    built = SHLS(
        settings(network=SMALL | {"variant": variant}, segmentation={"refine": refine}), Context()
    )
    masks = segment(built, scene(5, objects=3, vanishes=range(2, 3)))
    assert len(masks) == 5
    assert {int(label) for mask in masks for label in np.unique(mask)} <= {0, 1, 3, 5}


@pytest.mark.parametrize(
    "size", [(1, 40), (40, 1), (2, 2), (3, 500), (97, 131)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_frames_of_any_size(method: SHLS, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(3)]
    mask = np.zeros(size, np.uint8)
    mask[: max(1, size[0] // 2), : max(1, size[1] // 2)] = 7
    state = method.begin(Frame(0, "0", frames[0]), mask)
    for index in (1, 2):
        state, scores = method.step(state, Frame(index, str(index), frames[index]))
        assert scores.shape == (2, *size)
        assert torch.isfinite(scores).all()


def test_4k_frames_with_the_tiny_preset() -> None:
    built = SHLS(settings(short_side=120), Context())
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (2160, 3840, 3), dtype=np.uint8)
    mask = np.zeros((2160, 3840), np.uint8)
    mask[1000:1001, 2000:2003] = 1  # three pixels, between the samples of the shrunk mask
    state = built.begin(Frame(0, "0", frame), mask)
    assert (state.sequence.labels == 1).any()
    _, scores = built.step(state, Frame(1, "1", frame))
    assert scores.shape == (2, 2160, 3840)


def test_twelve_objects_and_one_of_three_pixels(method: SHLS) -> None:
    image = np.full((64, 96, 3), 90, np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    for number in range(12):
        y, x = 20 * (number // 4), 24 * (number % 4)
        mask[y + 2 : y + 14, x + 2 : x + 14] = number + 1
        image[mask == number + 1] = (20 * number, 255 - 20 * number, 100)
    mask[62, 90:93] = 40
    state = method.begin(Frame(0, "0", image), mask)
    _, scores = method.step(state, Frame(1, "1", image))
    assert scores.shape == (14, 64, 96)


def test_shrinking_loses_no_object() -> None:
    labels = np.zeros((480, 854), np.uint8)
    labels[100:102, 300] = 1
    labels[400, 850:853] = 2
    assert set(np.unique(shrink_labels(labels, (120, 214)))) == {0, 1, 2}


def test_random_weights_follow_the_seed() -> None:
    video = scene(4, objects=2)
    masks = [segment(SHLS(settings(), Context(seed=seed)), video) for seed in (0, 0, 1)]
    assert all(map(np.array_equal, masks[0], masks[1]))
    assert not all(map(np.array_equal, masks[0], masks[2]))


def test_bfloat16_changes_hardly_any_pixel() -> None:
    video = scene(5, (96, 128), objects=2)
    single, half = (
        np.stack(segment(SHLS(settings(precision=precision), Context()), video))
        for precision in ("float32", "bfloat16")
    )
    assert (single == half).mean() > 0.98


def official_file(path: Path, network: SHLSNetwork) -> Path:
    model = {PREFIX + name: tensor for name, tensor in to_official(network.state_dict()).items()}
    torch.save({"model": model, "optimizer": {}, "epoch": 3, "top_iou": 0.7}, path)
    return path


def test_official_file_is_loaded_strictly(tmp_path: Path) -> None:
    paper = settings(network=SMALL | {"variant": "paper"})
    source = SHLS(paper, Context(seed=5))
    network = SHLSNetwork(paper.network)
    path = official_file(tmp_path / "authors.pth", network)
    loaded = SHLS(settings(network=SMALL | {"variant": "paper"}), Context(weights=path))
    assert loaded.regime() == SHLS.card.regime
    assert torch.allclose(
        loaded.network.superfeatures.full.linear.weight, network.superfeatures.full.linear.weight
    )
    assert source.parameters_count() == loaded.parameters_count()
    stored = torch.load(path, weights_only=True)
    del stored["model"][PREFIX + "sf_head_L1.0.bias"]
    torch.save(stored, path)
    with pytest.raises(MethodError, match=r"superfeatures\.full\.linear\.bias"):
        SHLS(paper, Context(weights=path))


def test_weights_are_found_by_the_networks_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = settings(initial="trained")
    assert SHLS.lacks_weights(wanted)
    reason = SHLS.why_not(wanted, Context())
    assert reason is not None
    assert "bench train" in reason
    folder = Path("checkpoints/shls/mine")
    folder.mkdir(parents=True)
    header = {"settings": {"network": wanted.network.model_dump(mode="json")}}
    save_weights(folder / "weights.safetensors", SHLSNetwork(wanted.network).state_dict(), header)
    assert SHLS.find_weights(wanted) == folder / "weights.safetensors"
    assert SHLS.find_weights(settings()) is None  # random weights are asked for
    assert SHLS.why_not(wanted, Context()) is None


def test_held_out_images_are_never_trained_on_and_subsets_are_nested() -> None:
    draws = {
        count: split_images(1000, SHLSTrainingSettings(images=count, held_out=50))
        for count in (50, 250, 950)
    }
    for train, held_out in draws.values():
        assert held_out == draws[50][1]
        assert not set(train) & set(held_out)
    assert set(draws[50][0]) < set(draws[250][0]) < set(draws[950][0])
    with pytest.raises(ConfigError, match=r"training\.images"):
        split_images(60, SHLSTrainingSettings(images=20, held_out=50))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A dataset of still images."""
    return write_stills(tmp_path / "ECSSD", 8)


TINY_TRAINING = [
    *(f"network.{name}={width}" for name, width in SMALL.items()),
    "training.sequences.size=48",
    "training.window=32",
    "training.held_out=3",
    "training.validation_sequences=2",
    "training.batch_size=2",
    "training.validate_every=4",
]


def test_training_by_command_then_segmenting_with_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    choice = TrainingChoice(
        ["ecssd"], root=images, preset="tiny", budget="6it", workers=0, assignments=TINY_TRAINING
    )
    path = train_method("shls", choice)
    assert path is not None
    header = read_header(path)
    assert header["regime"]["images"] == 5
    assert header["regime"]["image_labels"] == "none"
    chosen, _ = method_settings("shls", SHLS, "tiny", {"network": SMALL})
    found = SHLS.find_weights(chosen)
    assert found is not None
    assert found.resolve() == path.resolve()
    built = SHLS(chosen, Context())
    assert built.regime().images == 5
    masks = segment(built, scene(4))
    assert len(masks) == 4
    json.loads((path.parent / "training.json").read_text())


def test_training_keeps_to_the_gpu(images: Path, tmp_path: Path) -> None:
    choice = TrainingChoice(
        ["ecssd"],
        root=images,
        preset="tiny",
        budget="2it",
        workers=0,
        device="cuda",
        assignments=TINY_TRAINING,
        out=tmp_path / "training",
    )
    with pretend_gpu():
        assert train_method("shls", choice) is not None


def test_human_masks_are_admitted_by_the_regime(images: Path, tmp_path: Path) -> None:
    choice = TrainingChoice(
        ["ecssd"],
        root=images,
        preset="tiny",
        budget="2it",
        workers=0,
        assignments=[*TINY_TRAINING, "training.saliency=ground_truth"],
        out=tmp_path / "training",
    )
    path = train_method("shls", choice)
    assert path is not None
    assert read_header(path)["regime"]["image_labels"] == "saliency"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ["davis16"]}, "videos"),
        ({"assignments": ["training.imagse=3"]}, "imagse"),
        ({"budget": "soon"}, "--budget"),
    ],
)
def test_wrong_training_options(
    images: Path, shared_dir: Path, changes: dict[str, object], message: str
) -> None:
    root = shared_dir / "data" if "data" in changes else images
    fields: dict[str, object] = {"data": ["ecssd"], "root": root, "workers": 0, "budget": "2it"}
    with pytest.raises(ConfigError, match=message):
        train_method("shls", TrainingChoice(**(fields | changes)))  # type: ignore[arg-type]


def test_resuming_by_command_needs_no_option_again(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "training"
    options = [f"--set={setting}" for setting in TINY_TRAINING]
    start = ["train", "--methods=shls", "--data=ecssd", f"--root={images}", "--preset=tiny"]
    run = CliRunner()
    started = run.invoke(
        app, [*start, *options, "--workers=0", "--budget=2it", "--seed=3", f"--out={folder}"]
    )
    assert started.exit_code == 0, started.output
    resumed = run.invoke(app, ["train", f"--resume={folder}", "--budget=4it"])
    assert resumed.exit_code == 0, resumed.output
    header = read_header(folder / "weights.safetensors")
    assert header["seed"] == 3
    assert header["settings"]["training"]["window"] == 32
    refused = run.invoke(app, ["train", f"--resume={folder}", "--seed=4"])
    assert isinstance(refused.exception, ConfigError)
    assert "--seed" in str(refused.exception)
    missing = run.invoke(app, ["train", f"--resume={tmp_path}"])
    assert isinstance(missing.exception, ConfigError)
    nothing = run.invoke(app, ["train"])
    assert isinstance(nothing.exception, ConfigError)


def test_stages_start_from_one_another(images: Path, tmp_path: Path) -> None:
    stages = Path(__file__).resolve().parents[3] / "configs" / "training" / "shls"
    start = None
    for stage in sorted(stages.glob("*.yaml")):
        choice = TrainingChoice(
            ["ecssd"],
            root=images,
            preset="tiny",
            budget="2it",
            workers=0,
            weights=start,
            config=stage,
            assignments=TINY_TRAINING,
            out=tmp_path / stage.stem,
        )
        before = read_weights(start) if start else {}
        start = train_method("shls", choice)
        assert start is not None
        after = read_weights(start)
        frozen = read_header(start)["settings"]["training"]["freeze"]
        for name, tensor in before.items():
            if name.split(".")[0] in frozen:
                assert torch.equal(tensor, after[name]), name
        trained = [name for name in before if name.split(".")[0] not in frozen]
        assert not before or any(not torch.equal(before[name], after[name]) for name in trained)
    assert start is not None


def test_run_trains_what_lacks_weights_and_says_so(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = MethodConfig(
        presets={"tiny": {"network": SMALL}},
        training={
            "tiny": {
                "sequences": {"size": 48},
                "window": 32,
                "held_out": 3,
                "validation_sequences": 1,
                "batch_size": 2,
            }
        },
        first_training=FirstTraining(data="ecssd", budget="2it"),
    )
    monkeypatch.setattr("bench.config.method_config", lambda name, method: config)
    monkeypatch.setattr("bench.train.method_config", lambda name, method: config)
    lines: list[str] = []
    request = RunConfig(methods=["shls", "copy"], root=images)
    for _ in range(2):
        train_missing(request, {}, lambda name: nullcontext(lambda progress: None), lines.append)
    assert len(lines) == 2  # trained once, found the second time
    assert "no weights fit" in lines[0]
    assert "weights.safetensors" in lines[1]
    elsewhere = RunConfig(methods=["shls"], root=tmp_path / "nowhere")
    train_missing(
        elsewhere,
        {"shls.network.width": 20},
        lambda name: nullcontext(lambda progress: None),
        lines.append,
    )
    assert "cannot be trained first" in lines[2]


def test_superpixels_are_kept_where_asked(tmp_path: Path) -> None:
    video = scene(3)
    plain = segment(SHLS(settings(), Context()), video)
    for _ in range(2):
        kept = segment(SHLS(settings(superpixel_cache=tmp_path), Context()), video)
        assert all(map(np.array_equal, plain, kept))
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 3
