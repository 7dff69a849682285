"""The harness's training: budgets, schedule, resuming, weights files, several processes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.config import FirstTraining
from bench.errors import ConfigError, MethodError
from bench.method import LabelRegime
from bench.registry import get_method
from bench.train import TrainingChoice, train_method
from bench.training import (
    CURVE,
    ENDLESS,
    STATE,
    WEIGHTS,
    Budget,
    CurveWriter,
    EndlessSampler,
    OptimiserSettings,
    TrainingRequest,
    TrainingTask,
    load_strictly,
    newest_weights,
    read_header,
    read_weights,
    regime_from,
    save_weights,
    schedule,
    train,
)


class Line(nn.Module):
    """Learns y = 3 x + 1; has batch normalisation, so that buffers matter when resuming."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"fit": (self.predict(batch) - (3 * batch + 1)).square().mean()}

    def predict(self, batch: Tensor) -> Tensor:
        return self.layer(self.norm(batch))

    def validate(self, batch: Tensor) -> list[float]:
        error = (self.predict(batch) - (3 * batch + 1)).abs()[:, 0]
        return [-float(value) for value in error.detach()]


class Points:
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        return torch.randn(1, generator=generator)


def task(model: nn.Module | None = None, **changes: Any) -> TrainingTask:
    model = model or Line()
    fields: dict[str, Any] = {
        "model": model,
        "samples": Points(ENDLESS),
        "held_out": Points(8),
        "collate": torch.stack,
        "batch_size": 4,
        "parameters": list(model.parameters()),
        "learning_rate": 0.05,
        "validate_every": 10,
        "score": "closeness",
        "weights": model.state_dict,
        "settings": {"network": {"size": 1}},
        "regime": LabelRegime(images=5, note="points"),
    }
    return TrainingTask(**(fields | changes))


def request(out: Path, budget: str, **changes: Any) -> TrainingRequest:
    fields: dict[str, Any] = {"method": "line", "out": out, "budget": Budget.parse(budget)}
    return TrainingRequest(**({"workers": 0} | fields | changes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", Budget(seconds=90)),
        ("1.5m", Budget(seconds=90)),
        ("2h", Budget(seconds=7200)),
        ("20000it", Budget(iterations=20000)),
    ],
)
def test_budget(text: str, expected: Budget) -> None:
    assert Budget.parse(text) == expected


@pytest.mark.parametrize("text", ["", "10", "0it", "0s", "-5m", "1.5it", "m", "5 days"])
def test_bad_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="30m"):
        Budget.parse(text)


def test_schedule_rises_stays_and_falls_to_zero() -> None:
    assert schedule(0) == 0
    assert schedule(0.01) == pytest.approx(0.5)
    assert schedule(0.3) == 1
    assert schedule(0.8) == pytest.approx(0.5)
    assert schedule(1) == 0
    assert schedule(1.3) == 0


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_poly_schedule_by_iteration(power: float) -> None:
    """As DeepLab writes it, with iterations; warm-up multiplies."""
    settings = OptimiserSettings(schedule="poly", power=power, warm_up=0.0)
    warm = OptimiserSettings(schedule="poly", power=power, warm_up=0.25)
    most = 40
    for iteration in range(most + 3):
        rate = (1 - iteration / most) ** power if iteration < most else 0.0
        found = schedule(iteration / most, settings)
        assert found == pytest.approx(rate)
        rising = iteration / 10 if iteration < 10 else 1.0
        assert schedule(iteration / most, warm) == pytest.approx(rate * rising)


def test_the_usual_schedule_is_what_it_was() -> None:
    for spent in torch.linspace(0, 1.2, 400).tolist():
        before = spent / 0.02 if spent < 0.02 else min(1.0, max(0.0, (1 - spent) / (1 - 0.6)))
        assert schedule(spent) == before


def test_sampler_shares_out_all_numbers() -> None:
    taken = []
    for rank in range(3):
        numbers = iter(EndlessSampler(rank, 3))
        taken += [next(numbers) for _ in range(4)]
    assert sorted(taken) == list(range(12))
    skipped = EndlessSampler(1, 2)
    skipped.skip(5)
    assert next(iter(skipped)) == 11


def test_training_learns_and_leaves_weights_with_their_story(tmp_path: Path) -> None:
    out = tmp_path / "training"
    path = train(task(), request(out, "80it", command="python -m bench train", data=("dots",)))
    assert path == out / WEIGHTS
    header = read_header(path)
    assert header["command"] == "python -m bench train"
    assert header["settings"] == {"network": {"size": 1}}
    assert header["data"] == ["dots"]
    assert regime_from(header) == LabelRegime(images=5, note="points")
    with (out / CURVE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["closeness"]) for row in rows if row["closeness"]]
    assert len(scores) == 8
    assert scores[-1] > 0.5 * scores[0]
    assert header["closeness"] == pytest.approx(max(scores))
    assert all(
        tensor.dtype == torch.float32 for n, tensor in read_weights(path).items() if "num" not in n
    )


class Fixed(Line):
    """Scores what it was told to."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = score

    def validate(self, batch: Tensor) -> list[float]:
        return [self.score] * len(batch)


def test_a_method_may_keep_the_last_weights(tmp_path: Path) -> None:
    """Whatever their score; the method is told how far training is, and notes are recorded."""

    class Falling(Line):
        scores = iter([0.9] * 8 + [0.2] * 8)

        def validate(self, batch: Tensor) -> list[float]:
            return [next(self.scores) for _ in batch]

    seen: list[tuple[float, int]] = []
    asked = task(
        Falling(),
        keep="last",
        progress=lambda spent, step: seen.append((spent, step)),
        notes=lambda: {"steps": len(seen)},
    )
    header = read_header(train(asked, request(tmp_path / "t", "20it")))
    assert (header["iterations"], header["closeness"]) == (20, 0.2)
    assert seen == [(number / 20, number) for number in range(20)]
    assert header["notes"] == {"steps": 20}
    assert "notes" not in read_header(train(task(), request(tmp_path / "plain", "10it")))


def test_gradients_are_clipped_for_some_parameters_alone() -> None:
    from bench._runner import AutocastOptimWrapper

    for chosen in (True, False):
        network, opponent = (nn.Parameter(torch.zeros(3)) for _ in range(2))
        wrapper = AutocastOptimWrapper(
            device="cpu",
            enabled=False,
            clipped=[network] if chosen else None,
            optimizer=torch.optim.SGD([network, opponent], lr=1.0),
            clip_grad={"max_norm": 1.0},
        )
        wrapper.update_params(40 * network.sum() + 40 * opponent.sum())
        norms = [float(parameter.detach().norm()) for parameter in (network, opponent)]
        expected = [1.0, 40 * 3**0.5] if chosen else [0.5**0.5] * 2
        assert norms == pytest.approx(expected, rel=1e-4)


def test_first_training_names_one_dataset_or_several() -> None:
    assert FirstTraining(data="ecssd", budget="1it").datasets == ["ecssd"]
    assert FirstTraining(data=["ecssd", "davis16"], budget="1it").datasets == ["ecssd", "davis16"]


@pytest.mark.parametrize("later", [0.4, 0.6])
def test_resuming_remembers_the_best_weights(tmp_path: Path, later: float) -> None:
    def stop(progress: Any) -> None:
        if progress.iteration == 11:  # the state is that of iteration 10, stored before its score
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task(Fixed(0.5)), request(tmp_path, "20it"), stop)
    path = train(task(Fixed(later)), request(tmp_path, "20it", resume=True))
    assert read_header(path)["closeness"] == max(0.5, later)
    assert read_header(path)["iterations"] == (10 if later < 0.5 else 20)


SGD = OptimiserSettings(name="sgd", schedule="poly", warm_up=0.0)


def mixed(model: Line) -> list[dict[str, Any]]:
    """The layer by the task's optimiser, batch normalisation by Adam."""
    return [
        {"params": list(model.layer.parameters())},
        {"params": list(model.norm.parameters()), "optimiser": "adamw", "lr": 0.02},
    ]


def test_optimisers_are_torchs_own(tmp_path: Path) -> None:
    """By hand with one of each, under the schedule."""
    trained, by_hand = Line(), Line()
    changes = {"optimiser": SGD, "weight_decay": 0.01}
    train(task(trained, parameters=mixed(trained), **changes), request(tmp_path, "30it"))
    optimisers = [
        torch.optim.SGD(by_hand.layer.parameters(), 0.05, 0.9, weight_decay=0.01),
        torch.optim.AdamW(by_hand.norm.parameters(), 0.02, weight_decay=0.01),
    ]
    by_hand.train()
    for number in range(30):
        for optimiser, rate in zip(optimisers, (0.05, 0.02), strict=True):
            optimiser.param_groups[0]["lr"] = rate * (1 - number / 30) ** 0.9
            optimiser.zero_grad()
        batch = torch.stack([Points(ENDLESS)[4 * number + place] for place in range(4)])
        by_hand(batch)["fit"].backward()
        for optimiser in optimisers:
            optimiser.step()
    for name, tensor in by_hand.state_dict().items():
        assert torch.allclose(tensor, trained.state_dict()[name], atol=1e-6), name


@pytest.mark.parametrize("groups", [mixed, None])
def test_resumed_momentum_equals_an_uninterrupted_one(tmp_path: Path, groups: Any) -> None:
    def asked(model: Line) -> TrainingTask:
        given = {} if groups is None else {"parameters": groups(model)}
        return task(model, optimiser=SGD, **given)

    def stop(progress: Any) -> None:
        if progress.iteration == 13:
            raise KeyboardInterrupt

    whole, resumed = Line(), Line()
    train(asked(whole), request(tmp_path / "whole", "20it"))
    with pytest.raises(KeyboardInterrupt):
        train(asked(Line()), request(tmp_path / "parts", "20it"), stop)
    train(asked(resumed), request(tmp_path / "parts", "20it", resume=True))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    state = torch.load(
        Path((tmp_path / "parts" / STATE / "last_checkpoint").read_text()), weights_only=True
    )
    momenta = [one for one in state["optimizer"]["state"].values() if "momentum_buffer" in one]
    assert len(momenta) == (4 if groups is None else 2)


def test_a_value_that_is_new_gets_a_column(tmp_path: Path) -> None:
    """Also in a training that is resumed, which keeps the rows it has."""
    path = tmp_path / CURVE

    def rows() -> list[dict[str, str]]:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    curve = CurveWriter(path, None)
    curve.write({"iteration": 20, "a": 1})
    curve.write({"iteration": 40, "b": 2, "a": 3})
    curve.write({"iteration": 60, "a": 4})
    kept = [
        {"iteration": "20", "a": "1", "b": ""},
        {"iteration": "40", "a": "3", "b": "2"},
    ]
    assert rows() == [*kept, {"iteration": "60", "a": "4", "b": ""}]
    resumed = CurveWriter(path, 40)
    assert rows() == kept
    resumed.write({"iteration": 60, "c": 5, "a": 4})
    assert rows() == [
        *({**row, "c": ""} for row in kept),
        {"iteration": "60", "a": "4", "b": "", "c": "5"},
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == [CURVE]
    CurveWriter(path, None)
    assert not path.exists()


def test_losses_that_come_late_are_in_the_curve(tmp_path: Path) -> None:
    class Late(Line):
        calls = 0

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            self.calls += 1
            losses = super().forward(batch)
            return losses if self.calls <= 20 else losses | {"late": losses["fit"]}

    train(task(Late(), validate_every=100), request(tmp_path / "t", "60it"))
    with (tmp_path / "t" / CURVE).open(newline="") as file:
        late = [row["late_loss"] for row in csv.DictReader(file)]
    assert late[0] == ""
    assert all(float(value) >= 0 for value in late[1:])
    assert len(late) == 4


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = Line(), Line()
    train(task(whole), request(tmp_path / "whole", "40it"))
    interrupted = task(parts)

    def stop(progress: Any) -> None:
        if progress.iteration == 23:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(interrupted, request(tmp_path / "parts", "40it"), stop)
    resumed = Line()
    with torch.no_grad():
        resumed.layer.weight.fill_(99)  # must come from the stored state
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*weights_only.*")
        train(task(resumed), request(tmp_path / "parts", "40it", resume=True))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    rows = [
        [
            (row["iteration"], row["fit_loss"])
            for row in csv.DictReader((tmp_path / name / CURVE).open())
        ]
        for name in ("whole", "parts")
    ]
    assert rows[0] == rows[1]


def test_state_is_read_without_unpickling_code(tmp_path: Path) -> None:
    train(task(), request(tmp_path / "t", "10it"))
    state = Path((tmp_path / "t" / STATE / "last_checkpoint").read_text())
    loaded = torch.load(state, map_location="cpu", weights_only=True)
    assert loaded["meta"]["iter"] == 10


def test_time_budget_ends_training(tmp_path: Path) -> None:
    seen = []
    train(task(validate_every=10_000), request(tmp_path / "t", "1s"), seen.append)
    assert seen[-1].spent >= 1
    assert (tmp_path / "t" / WEIGHTS).is_file()


def test_bfloat16(tmp_path: Path) -> None:
    path = train(task(), request(tmp_path / "t", "10it", amp=True))
    assert all(torch.isfinite(tensor).all() for tensor in read_weights(path).values())


def test_infinite_losses_stop_with_an_explanation(tmp_path: Path) -> None:
    class Broken(Line):
        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            return {"fit": super().forward(batch)["fit"] * float("inf")}

    with pytest.raises(MethodError, match="finite losses"):
        train(task(Broken()), request(tmp_path / "t", "10it"))


def test_folder_of_another_training_is_not_overwritten(tmp_path: Path) -> None:
    train(task(), request(tmp_path / "t", "10it"))
    before = (tmp_path / "t" / WEIGHTS).read_bytes()
    with pytest.raises(ConfigError, match="--resume"):
        train(task(), request(tmp_path / "t", "10it"))
    assert (tmp_path / "t" / WEIGHTS).read_bytes() == before
    with pytest.raises(MethodError, match="no state"):
        train(task(), request(tmp_path / "nothing", "10it", resume=True))


def test_newest_fitting_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = tmp_path / "packaged"
    packaged.mkdir()
    tensors = {"a": torch.ones(2)}
    save_weights(packaged / "tiny.safetensors", tensors, {"settings": {"network": 1}})
    other = {"method": "curve", "settings": {"network": 1}}
    save_weights(packaged / "a-method-that-shares-the-network.safetensors", tensors, other)

    def fits(header: Any) -> bool:
        return bool(header.get("settings", {}).get("network") == 1)

    assert newest_weights("line", packaged, fits) == packaged / "tiny.safetensors"
    for number, network in enumerate((1, 1, 2)):
        folder = Path("checkpoints", "line", str(number))
        folder.mkdir(parents=True)
        save_weights(folder / WEIGHTS, tensors, {"settings": {"network": network}})
        os.utime(folder / WEIGHTS, (number, number))
    assert newest_weights("line", packaged, fits) == Path("checkpoints/line/1") / WEIGHTS
    assert newest_weights("line", packaged, lambda header: False) is None


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = Line()
    state = model.state_dict()
    missing = {name: tensor for name, tensor in state.items() if name != "layer.bias"}
    with pytest.raises(MethodError, match=r"layer\.bias"):
        load_strictly(model, missing, tmp_path)
    with pytest.raises(MethodError, match="surplus"):
        load_strictly(model, state | {"surplus": torch.ones(1)}, tmp_path)
    with pytest.raises(MethodError, match=r"\(3, 3\)"):
        load_strictly(model, state | {"layer.weight": torch.ones(3, 3)}, tmp_path)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nonsense")
    with pytest.raises(MethodError, match=r"bad\.safetensors"):
        read_weights(bad)
    with pytest.raises(MethodError, match="no such file"):
        read_weights(tmp_path / "absent.pth")


SCRIPT = """
import sys
from pathlib import Path
import torch
from bench.training import train
from tests.bench.test_training import Line, request, task
model, spent = Line(), []
asked = task(model, progress=lambda share, step: spent.append(share))
train(asked, request(Path(sys.argv[1]), "2s", distributed=True))
import os
state = model.state_dict() | {"spent": torch.tensor(spent)}
torch.save(state, Path(sys.argv[1]) / f"rank{os.environ['RANK']}.pth")
"""


def test_two_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    """With a time budget: whatever each one's clock says, learning rates are the same."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "training"
    out.mkdir()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-port=29533",
    ]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [*command, str(script), str(out)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(out / f"rank{rank}.pth", weights_only=True) for rank in (0, 1))
    for name in ("layer.weight", "layer.bias", "spent"):
        assert torch.equal(first[name], second[name])
    assert (out / WEIGHTS).is_file()


def test_under_torchrun_a_task_is_built_on_the_process_own_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class StopError(Exception):
        """Nothing needs to be trained here."""

    def task(*_: object) -> None:
        order.append("task")
        raise StopError

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("bench.train.resolve_device", lambda wanted: "cuda")
    monkeypatch.setattr(torch.cuda, "set_device", lambda rank: order.append(f"gpu {rank}"))
    monkeypatch.setattr(get_method("crw"), "training_task", task)
    with pytest.raises(StopError):
        train_method("crw", TrainingChoice(["synthetic"], budget="2it", out=tmp_path / "out"))
    assert order == ["gpu 1", "task"]
