"""SHLS against the machine: its time as a multiple of its FLOPs' at matrix-product speed."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.method import Context
from bench.video import Frame
from methods.shls import SHLS
from methods.shls.method import SHLSSettings

SIDE = 2048
"""Of the matrices whose product measures the machine."""


def matrix_product_rate(dtype: torch.dtype) -> float:
    """FLOPs per CPU-second of the best of a few matrix products."""
    first, second = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        start = time.process_time()
        torch.mm(first, second)
        best = min(best, time.process_time() - start)
    return 2 * SIDE**3 / best


@pytest.fixture
def one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.benchmark(group="shls")
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_paper_preset_near_matrix_product_speed(benchmark, precision: str) -> None:  # type: ignore[no-untyped-def]
    """At most 1.5 times the CPU time of its FLOPs; superpixels and memory included."""
    network = {"variant": "paper"}
    method = SHLS(
        SHLSSettings.model_validate(
            {"network": network, "initial": "random", "precision": precision}
        ),
        Context(),
    )
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (30, 54, 3), dtype=np.uint8)
    image = coarse.repeat(16, 0).repeat(16, 1)[:480, :854]
    mask = np.zeros((480, 854), np.uint8)
    mask[120:360, 250:600] = 1
    state = method.begin(Frame(0, "0", image), mask)
    with FlopCounterMode(display=False) as counter:
        state, _ = method.step(state, Frame(1, "1", image))
    rate = matrix_product_rate(method.dtype)

    def step() -> float:
        start = time.process_time()
        method.step(state, Frame(2, "2", image))
        return time.process_time() - start

    seconds = benchmark.pedantic(step, rounds=1)
    ratio = seconds / (counter.get_total_flops() / rate)
    benchmark.extra_info["ratio to matrix product"] = round(ratio, 2)
    assert ratio < 1.5
