"""All systems as methods: they run, train by command, and say what they are."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from bench.config import method_settings, training_settings
from bench.errors import ConfigError, MethodError
from bench.method import Context, Method
from bench.propagation import PropagationSettings, Propagator
from bench.registry import get_method
from bench.train import TrainingChoice, train_method
from bench.training import read_header, read_weights, regime_from, save_weights
from bench.video import Frame, Mask
from methods.correspondence.mamp import MAMP, RaftFlow
from methods.correspondence.method import Correspondence, CorrespondenceSettings
from methods.correspondence.training import ClipTraining, all_footage
from tests.pretend_gpu import pretend_gpu

SYSTEMS = (
    "vidcolor", "corrflow", "cycletime", "uvc", "rpmnet", "mast", "mug", "crw", "dul", "twiaa",
    "stt", "mamp",
)  # fmt: skip

READINGS = ("rpmnet", "twiaa")


def image(number: int, size: tuple[int, int] = (96, 120)) -> NDArray[np.uint8]:
    """A textured disc that moves over other texture."""
    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.integers(0, 255, (*size, 3), dtype=np.uint8), (7, 7), 2)
    disc = random.integers(0, 255, (30, 30, 3), dtype=np.uint8)
    top, left = 30, 20 + 3 * number
    ground[top : top + 30, left : left + 30] = 255 - disc // 3
    return ground


def first_mask(size: tuple[int, int] = (96, 120)) -> Mask:
    mask = np.zeros(size, np.uint8)
    mask[30:60, 20:50] = 3
    mask[70:80, 80:100] = 5
    return mask


def build(system: str, preset: str, **overrides: object) -> Method:
    method = get_method(system)
    settings, _ = method_settings(system, method, preset, {"initial": "random"} | overrides)
    return method(settings, Context())


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_segments_with_its_own_settings(system: str) -> None:
    """The networks of `paper` are large, so the small one stands in for all but VidColor's."""
    overrides = {} if system == "vidcolor" else {"encoder": "tiny"}
    if system in ("cycletime", "twiaa", "uvc", "mug"):
        overrides["resize_to"] = 64  # type: ignore[assignment]
    method = build(system, "paper", **overrides)
    state = method.begin(Frame(0, "0", image(0)), first_mask())
    for number in (1, 2):
        state, scores = method.step(state, Frame(number, str(number), image(number)))
        assert scores.shape == (3, 96, 120)
        assert torch.isfinite(scores).all()
    assert method.regime().note == "random weights"
    assert method.parameters_count() > 0
    assert method.protocol().resolution


@pytest.mark.parametrize("system", SYSTEMS)
def test_cards_say_what_was_consumed_and_what_is_a_reading(system: str) -> None:
    card = get_method(system).card
    assert "h of unlabelled video" in card.regime.summary
    assert ("not a reproduction" in card.description) == (system in READINGS)
    assert card.paper
    assert card.paper_checkpoint == (system not in (*READINGS, "vidcolor"))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four unlabelled videos of eight frames."""
    root = tmp_path / "videos"
    for video in range(4):
        folder = root / f"clip{video}"
        folder.mkdir(parents=True)
        for number in range(8):
            cv2.imwrite(str(folder / f"{number:05d}.png"), image(number + video))
    return root


SMALL: dict[str, list[str]] = {
    "crw": ["objective.crop=64", "objective.patch=32", "objective.stride=16"],
    "mast": ["objective.size=64"],
    "rpmnet": ["objective.size=64"],
    "stt": ["objective.size=64"],
}


@pytest.mark.parametrize("system", SMALL)
def test_training_by_command_then_segmenting(
    system: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    choice = TrainingChoice(
        ["frames"],
        root=clips,
        preset="tiny",
        budget="2it",
        workers=0,
        assignments=[
            f"training.{setting}"
            for setting in (
                "held_out=1", "validation_clips=2", "objective.batch_size=2", *SMALL[system]
            )
        ],
    )  # fmt: skip
    path = train_method(system, choice)
    assert path is not None
    header = read_header(path)
    assert header["settings"]["encoder"] == "tiny"
    assert header["regime"]["videos"] == 3
    assert header["regime"]["video_hours"] > 0
    method = get_method(system)
    settings, _ = method_settings(system, method, "tiny", {})
    found = method.find_weights(settings)  # type: ignore[attr-defined]
    assert found is not None
    assert found.resolve() == path.resolve()
    trained = method(settings, Context())
    assert trained.regime().videos == 3
    state = trained.begin(Frame(0, "0", image(0)), first_mask())
    _, scores = trained.step(state, Frame(1, "1", image(1)))
    assert scores.shape == (3, 96, 120)
    other, _ = method_settings(system, method, "tiny", {"encoder": "dul"})
    assert method.find_weights(other) is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("system", sorted({*SYSTEMS} - {"uvc"}))
def test_training_keeps_to_the_gpu(system: str, clips: Path, tmp_path: Path) -> None:
    choice = TrainingChoice(
        ["frames"],
        root=clips,
        preset="tiny",
        budget="2it",
        workers=0,
        device="cuda",
        out=tmp_path / "training",
        assignments=[
            f"training.{setting}"
            for setting in (
                "held_out=1",
                "validation_clips=2",
                "objective.batch_size=2",
                *SMALL.get(system, ()),
            )
        ],
    )
    with pretend_gpu():
        assert train_method(system, choice) is not None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_uvc_needs_its_auto_encoder_which_trains_by_the_same_command(
    device: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [
        "training.held_out=1",
        "training.validation_clips=2",
        "training.autoencoder.batch_size=2",
        "training.autoencoder.crop=64",
        "training.objective.batch_size=2",
        "training.objective.crop=64",
        "training.objective.short_side=80",
    ]

    def trained(*settings: str, name: str) -> Path:
        choice = TrainingChoice(
            ["frames"],
            root=clips,
            preset="tiny",
            budget="2it",
            workers=0,
            device=device,
            assignments=[*small, *settings],
            out=tmp_path / name,
        )
        with pretend_gpu() if device == "cuda" else nullcontext():
            path = train_method("uvc", choice)
        assert path is not None
        return path

    with pytest.raises(ConfigError, match="auto-encoder"):
        trained(name="without")
    first = trained("training.part=autoencoder", name="colours")
    assert read_header(first)["settings"]["encoder"] != "tiny"
    second = trained(f"training.objective.autoencoder={first}", name="encoder")
    assert read_header(second)["settings"]["encoder"] == "tiny"


def test_images_are_trained_on_as_videos_and_said_to_be_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_images(tmp_path / "ECSSD", 6)
    choice = TrainingChoice(
        ["ecssd"],
        root=tmp_path / "ECSSD",
        preset="tiny",
        budget="2it",
        workers=0,
        out=tmp_path / "training",
        assignments=[
            "training.held_out=2",
            "training.validation_clips=2",
            "training.camera.frames=5",
            "training.objective.batch_size=2",
        ],
    )
    path = train_method("vidcolor", choice)
    assert path is not None
    regime = regime_from(read_header(path))
    assert regime is not None
    assert regime.summary == "4 unlabelled images"
    assert regime.annotation_hours == 0


def draw_images(root: Path, count: int) -> None:
    """Images in ECSSD's layout, the masks all black: who looked at them would find nothing."""
    for folder in ("images", "ground_truth_mask"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(root / "images" / f"{number:04}.jpg"), image(number, (170, 200)))
        black = np.zeros((170, 200), np.uint8)
        cv2.imwrite(str(root / "ground_truth_mask" / f"{number:04}.png"), black)


def test_training_without_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="videos or of images"):
        all_footage([], ClipTraining())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": "resnet"}, "expected one of"),
        ({"preparation": "hsv"}, "expected one of"),
        ({"resize": "half"}, "expected one of"),
        ({"resize": "square", "short_side": 240}, "short_side"),
        ({"resize_to": 320}, "no side"),
    ],
)
def test_settings_that_make_no_sense(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CorrespondenceSettings(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("system", SYSTEMS)
def test_config_files_fit_their_models(system: str) -> None:
    method = get_method(system)
    assert issubclass(method, Correspondence)
    for preset in ("tiny", "paper"):
        settings, _ = method_settings(system, method, preset, {})
        assert isinstance(settings, CorrespondenceSettings)
        training_settings(system, method, preset, {})
    tiny, _ = method_settings(system, method, "tiny", {})
    # One encoder and one propagation, so that scores differ by the objective alone.
    assert (tiny.encoder, tiny.short_side) == ("tiny", 240)  # type: ignore[attr-defined]
    assert tiny.propagation == PropagationSettings()  # type: ignore[attr-defined]


def test_rpmnets_sampler_travels_with_its_weights(tmp_path: Path) -> None:
    method = build("rpmnet", "paper", encoder="tiny")
    assert method.sampler is not None  # type: ignore[attr-defined]
    sampler = method.sampler.state_dict()  # type: ignore[attr-defined]
    sampler["offsets.bias"] = torch.arange(float(len(sampler["offsets.bias"])))
    tensors = dict(method.encoder.state_dict())  # type: ignore[attr-defined]
    path = tmp_path / "weights.safetensors"
    save_weights(path, tensors | {f"sampler.{k}": v for k, v in sampler.items()}, {})
    settings, _ = method_settings("rpmnet", type(method), "paper", {"encoder": "tiny"})
    loaded = type(method)(settings, Context(weights=path))
    assert torch.equal(loaded.sampler.state_dict()["offsets.bias"], sampler["offsets.bias"])
    assert set(read_weights(path)) > set(tensors)


def test_mamp_says_which_flow_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="flow_folder"):
        build("mamp", "paper", encoder="tiny", flow="precomputed")
    with pytest.raises(MethodError, match="flow_weights"):
        build("mamp", "paper", encoder="tiny", flow="raft", flow_weights=tmp_path / "none.pth")
    method = build("mamp", "paper", encoder="tiny", flow="precomputed", flow_folder=tmp_path)
    assert isinstance(method, MAMP)
    state = method.begin(Frame(0, "0", image(0)), first_mask())
    with pytest.raises(MethodError, match=r"00001_00000\.npy"):
        method.step(state, Frame(1, "1", image(1)))
    np.save(tmp_path / "00001_00000.npy", np.zeros((2, 3, 3)))
    with pytest.raises(MethodError, match=r"\(2, 3, 3\)"):
        method.step(state, Frame(1, "1", image(1)))
    assert method.regime().pretraining == ("optical flow trained on labelled synthetic video",)


def test_raft_gives_flow_on_the_feature_grid(tmp_path: Path) -> None:
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    torch.save(raft_large(weights=None).state_dict(), tmp_path / "raft.pth")
    raft = RaftFlow(tmp_path / "raft.pth", "cpu")
    size = (130, 157)
    frames = [image(n, size) for n in (0, 1)]
    policy = build("mamp", "paper", encoder="tiny").settings.policy  # type: ignore[attr-defined]
    with torch.inference_mode():
        flow = raft.flow(frames[1], frames[0], policy, (33, 40), 4, updates=2)
        again = raft.flow(frames[1], frames[0], policy, (33, 40), 4, updates=2)
        longer = raft.flow(frames[1], frames[0], policy, (33, 40), 4, updates=3)
    assert flow.shape == (2, 33, 40)
    assert torch.equal(flow, again)
    assert not torch.equal(flow, longer)


def test_known_flow_brings_content_back() -> None:
    """A frame shifted by two cells, aligned by that flow, is the frame again."""
    features = torch.rand(8, 6, 9)
    labels = torch.rand(2, 6, 9)
    propagator = Propagator(
        PropagationSettings(radius=1, radius_first=1, top_k=1, early="available")
    )
    memory = propagator.begin(features, labels, (6, 9))
    moved = torch.roll(features, 2, dims=2)
    flow = torch.zeros(2, 6, 9, dtype=torch.long)
    flow[0] = -2
    found = propagator.step(memory, moved, {0: flow})
    torch.testing.assert_close(found[:, :, 2:], labels[:, :, :-2])
    assert (found[:, :, :2] == 0).all()  # came from outside the map
