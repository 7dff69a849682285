"""The auxiliary head: a loss of its own, gradients up to its stage, and nothing left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.training import load_strictly, read_header, read_weights, train
from methods.adversarial.data import Step
from methods.adversarial.networks import build_network
from methods.adversarial.objectives import foreground_loss
from methods.adversarial.settings import BatchNormSettings, NetworkSettings
from methods.adversarial.supervision import AUXILIARY_TAP, AuxiliaryHead
from tests.methods.adversarial.test_adaptation import adaptation, gradients, part, step
from tests.methods.adversarial.test_training import asked, task_of


@pytest.mark.parametrize("architecture", ["deeplabv3", "segformer", "segmenter", "swin"])
def test_logits_at_the_frames_size_from_the_stage_before_the_last(architecture: Any) -> None:
    network = build_network(NetworkSettings(architecture=architecture, head="both", classes=3), 0)
    head = AuxiliaryHead(network.eval()).eval()
    with torch.no_grad():
        maps = network.features(torch.randn(2, 1, 3, 64, 48), AUXILIARY_TAP)
        output = head(maps, (64, 48))
        hidden = head.hidden(maps)
        assert hidden.shape[1] == max(maps.shape[1] // 4, 16)
        for name, classes in (("foreground", 2), ("semantic", 3)):
            logits = getattr(output, name)
            assert logits.shape == (2, classes, 64, 48)
            coarse = head.classifiers.linear[name](hidden)
            finer = F.interpolate(coarse, scale_factor=head.stride, mode="bilinear")
            torch.testing.assert_close(logits, finer[..., :64, :48])


def test_its_loss_is_the_segmentation_loss_of_its_logits() -> None:
    frozen = BatchNormSettings(mode="frozen")
    model = adaptation(auxiliary_weight=0.1, batch_norm=frozen).eval()
    images, clips = part(2, 1, 0, True, 0), part(2, 2, 1, True, 1)
    mixed = clips._replace(supervised=torch.tensor([False, True]))
    with torch.no_grad():
        losses = model(Step(images, mixed))
        frames = torch.cat([images.frames[:, 0], clips.frames[1]])
        labels = torch.cat([images.foreground[:, 0], clips.foreground[1]])
        maps = model.network.features(model.normalise(frames[:, None]), AUXILIARY_TAP)
        wanted = foreground_loss(model.auxiliary(maps, (32, 32)).foreground, labels)
        assert losses["auxiliary"].item() == pytest.approx(0.1 * wanted.item(), rel=1e-5)
        nothing = model(Step(part(2, 1, 0, False, 0), part(1, 2, 1, False, 1)))
    assert nothing["auxiliary"].item() == 0
    assert "auxiliary" not in adaptation()(step())


def test_its_gradient_ends_at_its_stage() -> None:
    """Everything else is as without it."""
    deeplab = NetworkSettings(architecture="deeplabv3")
    plain = adaptation(network=deeplab)
    taught = adaptation(network=deeplab, auxiliary_weight=0.4)
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(tensor, taught.network.state_dict()[name]), name
    wanted, found = (gradients(model, step(), 0.5) for model in (plain, taught))
    changed = {name for name in wanted if not torch.equal(wanted[name], found[name])}
    assert changed
    assert all(name.startswith("encoder") for name in changed)
    model = adaptation(network=deeplab, auxiliary_weight=0.4)
    model(step())["auxiliary"].backward()
    inside = {name for name, p in model.network.named_parameters() if p.grad is not None}
    assert changed == inside
    assert len(inside) < len([n for n in wanted if n.startswith("encoder")]), "not the last stage"
    assert all(p.grad is not None for p in model.auxiliary.parameters())


def test_it_is_trained_but_not_exported(tmp_path: Path) -> None:
    request = asked(tmp_path / "t", "2it")
    task = task_of(request, auxiliary_weight=0.1)
    model: Any = task.model
    own = {id(parameter) for parameter in model.auxiliary.parameters()}
    optimised = [id(parameter) for group in task.parameters for parameter in group["params"]]
    assert own <= set(optimised)
    assert len(optimised) == len(set(optimised))
    assert own <= {id(parameter) for parameter in task.clip_parameters or ()}
    before = [p.detach().clone() for p in model.auxiliary.parameters()]
    path = train(task, request)
    after = list(model.auxiliary.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    plain = build_network(NetworkSettings(), 1)
    assert set(read_weights(path)) == set(plain.state_dict())
    load_strictly(plain, read_weights(path), path)
    assert "auxiliary" not in read_header(path)["settings"]["network"]
    # Weights without a head are a start for training with one.
    again = task_of(asked(tmp_path / "again", start=path), auxiliary_weight=0.1)
    name, tensor = next(iter(plain.state_dict().items()))
    assert torch.equal(again.model.network.state_dict()[name], tensor)
