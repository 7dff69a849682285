"""The teacher of STT's global distillation: named by a setting, from any file that holds one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from bench.config import training_settings
from bench.errors import BenchError, ConfigError, MethodError
from bench.registry import get_method
from bench.train import TrainingChoice, train_method
from bench.training import read_header, save_weights
from methods.correspondence.encoder import ENCODERS, TINY, Encoder
from methods.correspondence.pretext.stt import (
    STTObjective,
    STTSettings,
    load_teacher,
    student_layout,
    teacher_layout,
)
from tests.methods.correspondence.test_encoders import to_mmcv


def teacher_weights(seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(Encoder(teacher_layout(TINY)).state_dict())


def as_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}


def as_contrastive(state: dict[str, Tensor]) -> dict[str, Tensor]:
    query = {f"module.encoder_q.{name}": tensor for name, tensor in state.items()}
    key = {f"module.encoder_k.{name}": torch.zeros_like(t) for name, t in state.items()}
    heads = {"module.encoder_q.fc.0.weight": torch.zeros(2, 2), "module.queue": torch.zeros(3)}
    return query | key | heads | {"module.queue_ptr": torch.zeros(1)}


def as_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    student = {to_mmcv(name): torch.zeros_like(tensor) for name, tensor in state.items()}
    teacher = {
        to_mmcv(name).replace("backbone.", "backbone_t."): tensor for name, tensor in state.items()
    }
    return student | teacher | {"iteration": torch.zeros(1)}


@pytest.mark.parametrize("packed", [as_torchvision, as_contrastive, as_released])
def test_a_teacher_is_read_from_files_of_others(packed, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state = teacher_weights()
    torch.save({"state_dict": packed(state)}, tmp_path / "teacher.pth")
    teacher = load_teacher(
        Encoder(student_layout(TINY)), STTSettings(teacher=tmp_path / "teacher.pth")
    )
    assert teacher is not None
    assert teacher.stride == 32
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_teacher_may_have_another_encoder(tmp_path: Path) -> None:
    layout = teacher_layout(ENCODERS["stt_resnet18_d8"])
    torch.save(Encoder(layout).state_dict(), tmp_path / "teacher.pth")
    settings = STTSettings(
        size=64, teacher=tmp_path / "teacher.pth", teacher_encoder="stt_resnet18_d8"
    )
    objective = STTObjective(Encoder(student_layout(TINY)), settings)
    assert objective.teacher is not None
    assert objective.teacher.channels == 512
    batch = {
        "images": torch.rand(1, 2, 3, 64, 64),
        "colours": torch.rand(1, 2, 1, 64, 64),
        "rgb": torch.rand(1, 2, 3, 64, 64),
    }
    assert torch.isfinite(objective(batch)["global"])


def test_what_is_no_teacher_is_refused_by_name(tmp_path: Path) -> None:
    student = Encoder(student_layout(TINY))
    state = teacher_weights()
    del state["layer4.0.conv1.weight"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(MethodError, match=r"layer4\.0\.conv1\.weight"):
        load_teacher(student, STTSettings(teacher=tmp_path / "short.pth"))
    with pytest.raises(MethodError, match="no such file"):
        load_teacher(student, STTSettings(teacher=tmp_path / "none.pth"))
    with pytest.raises(ConfigError, match="teacher_encoder"):
        training_settings(
            "stt",
            get_method("stt"),
            "tiny",
            {"objective": {"teacher_encoder": "vgg"}},  # type: ignore[arg-type]
        )
    assert load_teacher(student, STTSettings()) is None


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two unlabelled videos of three frames."""
    random = np.random.default_rng(0)
    for video in range(2):
        folder = tmp_path / "videos" / f"clip{video}"
        folder.mkdir(parents=True)
        for number in range(3):
            frame = random.integers(0, 255, (72, 96, 3), np.uint8)
            cv2.imwrite(str(folder / f"{number:05d}.png"), frame)
    return tmp_path / "videos"


def test_training_by_command_with_a_teacher(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def trained(*settings: str, name: str) -> tuple[Path, list[str]]:
        small = ["held_out=1", "validation_clips=1", "objective.batch_size=1", "objective.size=64"]
        choice = TrainingChoice(
            ["frames"],
            root=clips,
            preset="tiny",
            budget="1it",
            workers=0,
            assignments=[f"training.{setting}" for setting in (*small, *settings)],
            out=tmp_path / name,
        )
        path = train_method("stt", choice)
        assert path is not None
        curve = (tmp_path / name / "curve.csv").read_text().splitlines()
        return path, curve[0].split(",")

    alone, columns = trained(name="alone")
    assert not any("global" in column for column in columns)
    regime = {"images": 1000, "image_labels": "none"}
    path = tmp_path / "teacher.safetensors"
    save_weights(path, teacher_weights(), {"regime": regime})
    taught, columns = trained(f"training.objective.teacher={path}"[9:], name="taught")
    assert any("global" in column for column in columns)
    assert read_header(taught)["regime"]["pretraining"] == ["teacher: 1,000 unlabelled images"]
    assert read_header(alone)["regime"]["pretraining"] == []
    with pytest.raises(BenchError, match="no such file"):
        trained("objective.teacher=nowhere.pth", name="nowhere")
