"""Several processes under torchrun: what they share, and that together they are as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench._runner import TrainedModel
from bench.training import CURVE, WEIGHTS, _shared, train
from methods.adversarial.adaptation import Adaptation
from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    ClusterSettings,
    DisagreementSettings,
    GameSettings,
)
from methods.adversarial.data import Part, Step
from methods.adversarial.monitoring import MONITORS
from methods.adversarial.networks import build_network
from methods.adversarial.processes import (
    broadcast_from_first,
    gather_rows,
    mean_over_processes,
    rank,
    sum_over_processes,
    world_size,
)
from methods.adversarial.settings import AdaptationSettings, NetworkSettings
from tests.methods.adversarial.test_adaptation import BOTH, CLUSTERS, part
from tests.methods.adversarial.test_training import asked, task_of

PROCESSES = 2
STEPS = 3
"""Clusters are made in the first and renewed in the last."""


def clustered(tap: str = "embed", **discriminator: Any) -> AlignmentSettings:
    given = {"width": 8, "dropout": 0.0} | discriminator
    return AlignmentSettings(tap=tap, loss="clustered", weight=0.3, discriminator=given)


def over_all(tap: str, network: str, **changes: Any) -> AlignmentSettings:
    given = {"network": network, "width": 8, "dropout": 0.0}
    return AlignmentSettings(tap=tap, weight=0.3, discriminator=given | changes)


def made(**changes: Any) -> ClusterSettings:
    return CLUSTERS.model_copy(update=changes)


def played(loss: str, **changes: Any) -> GameSettings:
    return GameSettings(loss=loss, schedule="constant", start=0.0, **changes)


RECIPES: dict[str, dict[str, Any]] = {
    "k-means, and over all positions": {
        "alignments": (clustered(), over_all("enc4", "token")),
        "game": played("reversal"),
    },
    "moving prototypes, soft": {
        "alignments": (clustered(kind="conditioned"),),
        "clusters": made(how="ema", assignment="soft", features="self"),
        "game": played("non_saturating"),
    },
    "of the batch": {
        "alignments": (clustered("enc2", kind="shared_balanced"),),
        "clusters": made(how="batch", weighting="sqrt", fewest=1),
        "game": played("confusion"),
    },
    "equally large": {
        "alignments": (clustered(kind="joint2K"),),
        "clusters": made(how="sinkhorn", assignment="soft", clip=0.9),
        "game": played("non_saturating", label_smoothing=0.1),
    },
    "predicted classes": {
        "alignments": (clustered("enc3", kind="per_cluster", shared_trunk=False),),
        "clusters": made(how="prediction", fewest=1),
        "game": played("least_squares"),
    },
    "where classifiers disagree, by patches": {
        "alignments": (
            over_all("prob", "patch").model_copy(update={"disagreement": DisagreementSettings()}),
        ),
        "auxiliary_weight": 0.1,
        "game": played("non_saturating"),
    },
    "alone and penalised": {
        "alignments": (over_all("neck", "pixel", penalty_weight=0.1),),
        "game": played("reversal", discriminator_steps=1),
    },
    "few labels": {"auxiliary_weight": 0.5, "entropy_weight": 0.1, "pseudo_label_weight": 0.1},
}
"""Everything that is drawn is left out, and batch normalisation: each process has its own batch."""


def share_of(number: int, process: int, few: bool) -> Step:
    """What one process sees in a step; with few labels only the first one has any."""
    seed = 10 * number + process
    labelled = not few or process == 0
    clips = part(1, 2, 1, labelled and few, seed + 500)
    return Step(part(2, 1, 0, labelled, seed), clips)


def joined(parts: list[Part]) -> Part:
    return Part(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def trained(name: str, processes: list[int]) -> dict[str, Any]:
    """Gradients of every step, and what is there after some, of these processes' shares."""
    settings = AdaptationSettings(**({"clusters": CLUSTERS, "tokens": 4096} | RECIPES[name]))
    model = Adaptation(build_network(NetworkSettings(), 0), settings, 0)
    wrapped: Any = TrainedModel(model)
    if world_size() > 1:
        wrapped = _shared(wrapped, True)
    wrapped.eval()
    gradients = []
    for number in range(STEPS):
        shares = [share_of(number, process, name == "few labels") for process in processes]
        batch = Step(*(joined(list(parts)) for parts in zip(*shares, strict=True)))
        model.progress(0.5, number)
        model.zero_grad()
        sum(wrapped(batch, mode="loss").values()).backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad
        gradients.append(found)
    return {
        "gradients": gradients,
        "state": {n: t.clone() for n, t in model.state_dict().items()},
        "notes": model.notes(),
    }


def under_torchrun(out: Path) -> None:
    """What each process does: a training under the harness, then all recipes."""
    request = asked(out / "training", "6it", distributed=True)
    task = task_of(
        request,
        alignments=(*BOTH, over_all("aux_prob", "pixel")),
        auxiliary_weight=0.1,
        pseudo_label_weight=0.5,
        game=GameSettings(start=0.2, discriminator_steps=2),
    )
    train(task, request)
    model: Any = task.model
    values = torch.arange(6).reshape(3, 2) + 100 * rank()
    mine = torch.full((2,), float(rank()))
    broadcast_from_first([mine])
    found = {
        "training": {n: t.clone() for n, t in model.state_dict().items()},
        "sum": sum_over_processes(values),
        "mean": mean_over_processes(values.float()),
        "rows": gather_rows(values),
        "first": mine,
        "recipes": {name: trained(name, [rank()]) for name in RECIPES},
    }
    torch.save(found, out / f"{rank()}.pth")


SCRIPT = """
import sys
from pathlib import Path
from tests.methods.adversarial.test_processes import under_torchrun
under_torchrun(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a training in two processes, and what each of these came to."""
    out = tmp_path_factory.mktemp("processes")
    script = out / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={PROCESSES}"]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, *launcher, "--master-port=29541", str(script), str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        cwd=out,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = [out / f"{number}.pth" for number in range(PROCESSES)]
    return out, [torch.load(file, weights_only=True) for file in files]


def test_what_processes_share(processes: Any) -> None:
    first, second = processes[1]
    values = torch.arange(6).reshape(3, 2)
    for one in (first, second):
        assert torch.equal(one["sum"], 2 * values + 100)
        assert torch.equal(one["mean"], values + 50.0)
        assert torch.equal(one["rows"], torch.cat([values, values + 100]))
        assert torch.equal(one["first"], torch.zeros(2))


def test_one_process_shares_with_itself() -> None:
    values = torch.arange(4)
    assert (rank(), world_size()) == (0, 1)
    for shared in (sum_over_processes, mean_over_processes, gather_rows):
        assert shared(values) is values


def test_discriminators_and_clusters_stay_the_same_everywhere(processes: Any) -> None:
    """Under the harness, with steps of the discriminators' own, dropout and sampled tokens."""
    out, (first, second) = processes
    assert sum(name.startswith("taps.") for name in first["training"]) > 20
    for name, tensor in first["training"].items():
        if "running_" not in name:  # each process normalises by its own batch
            assert torch.equal(tensor.nan_to_num(7), second["training"][name].nan_to_num(7)), name
    fresh = task_of(
        asked(out / "fresh"),
        alignments=(*BOTH, over_all("aux_prob", "pixel")),
        auxiliary_weight=0.1,
    ).model.state_dict()
    moved = [n for n in fresh if n.startswith("taps.") and "discriminator" in n]
    assert moved
    assert not any(torch.equal(fresh[name], first["training"][name]) for name in moved)
    folder = out / "training"
    assert all((folder / name).is_file() for name in (WEIGHTS, CURVE, MONITORS))


def close(found: Tensor, wanted: Tensor, name: str) -> None:
    torch.testing.assert_close(
        found, wanted, rtol=2e-3, atol=2e-5, equal_nan=True, msg=lambda text: f"{name}: {text}"
    )


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_are_one_with_both_their_batches(processes: Any, name: str) -> None:
    """Gradients of every step, then parameters, clusters, bank, counters and monitors."""
    whole = trained(name, list(range(PROCESSES)))
    for one in processes[1]:
        found = one["recipes"][name]
        for number, (mine, wanted) in enumerate(
            zip(found["gradients"], whole["gradients"], strict=True)
        ):
            assert mine.keys() == wanted.keys(), number
            for parameter, gradient in wanted.items():
                close(mine[parameter], gradient, f"step {number}, gradient of {parameter}")
        for key, tensor in whole["state"].items():
            if tensor.dtype == torch.float16:  # the bank's rounding
                assert (found["state"][key].float() - tensor.float()).abs().max() < 2e-3, key
            else:
                close(found["state"][key], tensor, key)
        assert found["notes"]["skipped_steps"] == whole["notes"]["skipped_steps"]
        for tap, monitors in whole["notes"]["monitors"].items():
            assert found["notes"]["monitors"][tap] == pytest.approx(monitors, rel=5e-3, abs=1e-4)
    learned = set().union(*(gradient.keys() for gradient in whole["gradients"]))
    discriminators = any(key.startswith("taps.") for key in learned)
    assert discriminators == bool(RECIPES[name].get("alignments"))


def test_without_sharing_they_would_not_be(processes: Any) -> None:
    """The comparison can fail: one process's own batch gives other gradients."""
    name = "moving prototypes, soft"
    alone, together = trained(name, [0]), processes[1][0]["recipes"][name]
    gradients = alone["gradients"][-1], together["gradients"][-1]
    names = [key for key in gradients[0] if key.startswith("taps.")]
    assert names
    assert not any(torch.allclose(*(g[key] for g in gradients), rtol=0.05) for key in names)
