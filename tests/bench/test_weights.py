"""Methods with weights of their own: which file is used, what is advised, what is recorded."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.config import method_config
from bench.dataset import Dataset
from bench.errors import MethodError
from bench.method import Context, LabelRegime, Method, MethodCard, MethodSettings
from bench.registry import METHODS, get_method
from bench.training import (
    TrainingRequest,
    TrainingTask,
    load_strictly,
    read_weights,
    regime_from,
    save_weights,
)
from bench.video import Frame, Mask
from bench.weights import OwnWeights, TrainedSettings, header_of_file

REGIME = LabelRegime(images=12, image_labels="class", pretraining=("edges",))


class Wide(TrainedSettings):
    """A network's width, and a setting that weights do not depend on."""

    width: int = 2
    threshold: float = 0.5


class Line(OwnWeights, Method):
    """A linear layer."""

    Settings = Wide
    fitted = ("width",)
    card = MethodCard("line", "Line", "For tests.", LabelRegime(note="the card's"))

    def __init__(self, settings: Wide, context: Context) -> None:
        super().__init__(settings, context)
        torch.manual_seed(context.seed)
        self.layer = nn.Linear(settings.width, 1)
        self.load_chosen()

    def load(self, path: Path) -> None:
        load_strictly(self.layer, read_weights(path), path)
        self.trained_on = regime_from(header_of_file(path))

    @classmethod
    def training_task(
        cls,
        settings: MethodSettings,
        training: MethodSettings,
        data: Sequence[Dataset],
        request: TrainingRequest,
    ) -> TrainingTask:
        raise NotImplementedError

    def begin(self, frame: Frame, mask: Mask) -> None:
        raise NotImplementedError

    def step(self, state: None, frame: Frame) -> tuple[None, Tensor]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has trainings and shipped files of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Line, "packaged", tmp_path / "shipped", raising=False)


def saved(folder: str, width: int = 2, age: int = 0, regime: LabelRegime | None = REGIME) -> Path:
    path = Path(folder, "weights.safetensors")
    path.parent.mkdir(parents=True)
    torch.manual_seed(7 + age)
    header: dict[str, Any] = {"settings": {"width": width}, "seconds": 12.5, "iterations": 40}
    if regime is not None:
        header["regime"] = asdict(regime)
    save_weights(path, nn.Linear(width, 1).state_dict(), header)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_newest_that_fit_are_found() -> None:
    assert Line.find_weights(Wide()) is None  # no folder need exist
    assert Line.lacks_weights(Wide())
    shipped = saved("shipped")
    assert Line.find_weights(Wide()) == shipped.resolve()
    older = saved("checkpoints/line/b", age=20)
    assert Line.find_weights(Wide(threshold=0.9)) == older
    newer = saved("checkpoints/line/a", age=10)
    saved("checkpoints/line/wide", width=3)
    saved("checkpoints/other/c")
    assert Line.find_weights(Wide()) == newer
    assert not Line.lacks_weights(Wide())
    assert Line.lacks_weights(Wide(width=4))


def test_the_control_neither_has_nor_lacks_weights() -> None:
    path = saved("checkpoints/line/a")
    random = Wide(initial="random")
    assert Line.find_weights(random) is None
    assert not Line.lacks_weights(random)
    assert not Line.lacks_weights(Wide(initial="random", width=9))
    assert Line.why_not(Wide(initial="random", width=9), Context()) is None
    stored = read_weights(path)["weight"]
    assert torch.equal(Line(Wide(), Context()).layer.weight, stored)
    assert not torch.allclose(Line(random, Context()).layer.weight, stored, atol=1e-2)


@pytest.mark.parametrize(
    ("released", "first", "advice"),
    [
        (True, "data: ecssd", "name the authors' file with --weights, or train with "
         "`python -m bench train --methods line --data ecssd`"),
        (False, "data: [ecssd, davis16-train]", "name a file with --weights, or train with "
         "`python -m bench train --methods line --data ecssd,davis16-train`"),
        (False, None, "`python -m bench train --methods line --data NAME`"),
    ],
)  # fmt: skip
def test_advice_names_the_data_of_the_first_training(
    released: bool, first: str | None, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if first is not None:
        config = Path("line.yaml")
        config.write_text(f"first_training: {{{first}, budget: 1m}}\n", encoding="utf-8")
        monkeypatch.setattr(Line, "config_file", config)
    monkeypatch.setattr(Line, "card", replace(Line.card, paper_checkpoint=released))
    reason = Line.why_not(Wide(), Context())
    assert reason is not None
    assert reason.startswith("no weights fit its settings; ")
    assert advice in reason
    assert Line.why_not(Wide(), Context(weights=Path("named.pth"))) is None
    saved("checkpoints/line/a")
    assert Line.why_not(Wide(), Context()) is None


def test_the_regime_is_that_of_the_weights_in_use() -> None:
    random = Wide(initial="random")
    untrained = LabelRegime(note="random weights")
    assert Line(random, Context()).regime() == untrained
    path = saved("checkpoints/line/a")
    assert Line(Wide(), Context()).regime() == REGIME
    assert Line(random, Context()).regime() == untrained
    assert Line(random, Context(weights=path)).regime() == REGIME
    silent = saved("elsewhere", regime=None)
    bare = Path("bare.pth")
    torch.save(nn.Linear(2, 1).state_dict(), bare)
    for named in (silent, bare):
        found = Line(Wide(), Context(weights=named)).regime()
        assert found == LabelRegime(note="weights of unknown origin, given by the user")


def test_training_time_and_steps_are_those_of_the_weights_in_use() -> None:
    saved("checkpoints/line/a")
    trained = Line(Wide(), Context())
    assert (trained.training_seconds(), trained.training_steps()) == (12.5, 40)
    random = Line(Wide(initial="random"), Context())
    assert (random.training_seconds(), random.training_steps()) == (0, 0)
    bare = Path("bare.pth")
    torch.save(nn.Linear(2, 1).state_dict(), bare)
    unknown = Line(Wide(), Context(weights=bare))
    assert math.isnan(unknown.training_seconds())
    assert math.isnan(unknown.training_steps())


def test_named_weights_come_before_those_found() -> None:
    saved("checkpoints/line/a")
    named = saved("elsewhere", age=5)
    method = Line(Wide(), Context(weights=named))
    assert torch.equal(method.layer.weight, read_weights(named)["weight"])
    with pytest.raises(MethodError, match="no such file"):
        Line(Wide(), Context(weights=Path("nowhere.pth")))


def test_every_method_of_the_tree_lets_it_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Method``'s own answers would win if it stood first among the bases."""
    get_method("copy")
    found = {
        name: each for name, each in METHODS.module_dict.items() if issubclass(each, OwnWeights)
    }
    assert {"shls", "adv", "crw", "mamp"} <= set(found)
    for name, method in found.items():
        assert issubclass(method.Settings, TrainedSettings), name
        assert method.packaged.name == "weights"
        for shared in ("why_not", "find_weights", "lacks_weights"):
            assert getattr(method, shared).__func__ is getattr(OwnWeights, shared).__func__, name
        monkeypatch.setattr(method, "packaged", tmp_path)  # some ship weights that fit
        reason = method.why_not(method.Settings(), Context())
        first = method_config(name, method).first_training
        assert first is not None, name
        assert f"--methods {name} --data {','.join(first.datasets)}`" in str(reason)
        named = "the authors' file" if method.card.paper_checkpoint else "name a file"
        assert named in str(reason)
