"""The pretended GPU complains where CUDA would, and only there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.pretend_gpu import GPU, WrongPlaceError, pretend_gpu


def test_places_follow_tensors() -> None:
    with pretend_gpu():
        here = torch.arange(6.0)
        there = here.to("cuda")
        assert (here.device.type, there.device) == ("cpu", GPU)
        assert (there * 2 + 1).view(2, 3)[0].device == GPU
        assert torch.zeros(2, device=there.device).device == GPU
        assert there.new_ones(2).device == GPU
        assert (there.new_tensor([1.0, 2.0]) + there[:2]).device == GPU
        assert here.new_tensor([1.0]).device.type == "cpu"
        assert F.one_hot(there.long(), 6).device == GPU
        assert torch.zeros_like(there).device == GPU
        assert there.cpu().device.type == "cpu"
        assert torch.zeros_like(there, device="cpu").device.type == "cpu"
        assert torch.as_tensor(here, device=GPU).device == GPU
        assert here.to(there).device == GPU
        assert here.to(device=GPU, dtype=torch.float64).dtype == torch.float64
    assert there.device.type == "cpu"


def test_what_cuda_allows() -> None:
    with pretend_gpu():
        there = torch.arange(6.0, device="cuda")
        assert float((there * torch.tensor(2.0))[3]) == 6
        assert there[torch.tensor([1, 2])].tolist() == [1, 2]
        there[torch.tensor([0])] = 5.0
        there.copy_(torch.ones(6))
        assert there.device == GPU
        here = torch.zeros(6)
        here.copy_(there)
        assert here.device.type == "cpu"
        assert np.asarray(there.cpu()).sum() == 6
        assert torch.rand(3, device="cuda").device == GPU


def test_what_cuda_refuses() -> None:
    with pretend_gpu():
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        for mixed in (
            lambda: here + there,
            lambda: torch.cat([here, there]),
            lambda: here[there.long()],
            lambda: there.numpy(),
            lambda: np.asarray(there),
            lambda: torch.randn(3, device="cuda", generator=torch.Generator()),
        ):
            with pytest.raises(WrongPlaceError):
                mixed()


def test_modules_and_gradients() -> None:
    with pretend_gpu():
        layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to("cuda")
        loss = layer(torch.ones(2, 3, device="cuda")).square().sum()
        loss.backward()
        assert all(one.grad is not None and one.grad.device == GPU for one in layer.parameters())
        optimiser = torch.optim.AdamW(layer.parameters())
        optimiser.step()
        with pytest.raises(WrongPlaceError):
            layer(torch.ones(2, 3))
