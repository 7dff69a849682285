"""How much CPU time propagation takes at 480p, against a dense masked implementation.

Run with ``pytest tests/benchmarks --benchmark-only``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bench.method import Context
from bench.propagation import Memory, PropagationSettings, Propagator
from methods.pretrained.imagenet import ImageNet, ImageNetSettings

CHANNELS = 256
CONTEXT = 20
SIZE = (480, 854)


@pytest.fixture(scope="module")
def features(shared_dir: Path) -> list[Tensor]:
    """Maps ``(256, 60, 107)`` of 22 real frames.

    Trained features of 152 channels, turned into 256 by a random matrix with orthonormal
    columns, which leaves all dot products as they are.
    """
    frames = sorted((shared_dir / "data/DAVIS2016/JPEGImages/480p/dog").glob("*.jpg"))
    if not frames:
        pytest.skip("No DAVIS-2016 among the real samples.")
    encoder = ImageNet(ImageNetSettings(), Context())
    maps = []
    with torch.inference_mode():
        for path in frames[: CONTEXT + 2]:
            pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
            maps.append(encoder.encode(pixels.float() / 255))
    torch.manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(CHANNELS, maps[0].shape[0]))
    return [torch.einsum("dc,chw->dhw", turn, each) for each in maps]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def filled(propagator: Propagator, features: list[Tensor], objects: int) -> Memory:
    """A memory with the first frame and 20 others."""
    labels = torch.rand(1 + objects, *features[0].shape[1:])
    memory = propagator.begin(features[0], labels, SIZE)
    for each in features[1 : 1 + CONTEXT]:
        prepared = F.normalize(each, dim=0)
        memory.store(prepared, torch.rand_like(labels))
    return memory


def dense_step(memory: Memory, query: Tensor, settings: PropagationSettings) -> Tensor:
    """The affinity of all pairs, masked, in blocks of 100 target cells: ``(N, L)``."""
    cells = torch.arange(memory.cells)
    y, x = cells // memory.width, cells % memory.width
    keys = memory.keys.reshape(-1, CHANNELS)
    labels = memory.labels.flatten(0, 1)
    queries = F.normalize(query, dim=0).flatten(1).T
    assert settings.radius is not None
    found = []
    for block in torch.split(cells, 100):
        scores = (keys @ queries[block].T).view(1 + CONTEXT, memory.cells, -1)
        far = (y[:, None] - y[block]) ** 2 + (x[:, None] - x[block]) ** 2 >= settings.radius**2
        scores[1:] += far * -1e10
        best, index = scores.flatten(0, 1).topk(settings.top_k, dim=0)
        weights = torch.softmax(best / settings.temperature, 0)
        found.append(torch.einsum("kn,knl->nl", weights, labels[index]))
    return torch.cat(found)


def cpu_seconds(call, *arguments):
    start = time.process_time()
    result = call(*arguments)
    return time.process_time() - start, result


def test_crws_setting_against_a_dense_implementation(benchmark, features):
    """First frame and 20 others, radius 12, top 10, 256 channels: the same labels, 8 times less."""
    settings = PropagationSettings()
    propagator = Propagator(settings)
    memory = filled(propagator, features, 1)
    queries = F.normalize(features[-1], dim=0).flatten(1).T.contiguous()
    propagator.affinity(memory, queries)

    dense, expected = cpu_seconds(dense_step, memory, features[-1], settings)
    spent, labels = benchmark.pedantic(
        cpu_seconds, (propagator.step, memory, features[-1]), rounds=1, iterations=1
    )
    difference = (labels.flatten(1).T - expected).abs().amax(1)
    benchmark.extra_info["CPU-seconds a frame"] = round(spent, 2)
    benchmark.extra_info["dense / ours"] = round(dense / spent, 1)
    assert (difference > 1e-4).sum() <= 5  # ties for the last place may fall otherwise
    assert dense >= 8 * spent


def test_many_objects_cost_almost_nothing(benchmark, features):
    """One object against ten: affinities do not depend on labels."""
    propagator = Propagator(PropagationSettings())

    def one_and_ten():
        times = []
        for objects in (1, 10, 1, 10):
            memory = filled(propagator, features, objects)
            times.append(cpu_seconds(propagator.step, memory, features[-1])[0])
        return (times[1] + times[3]) / (times[0] + times[2])

    ratio = benchmark.pedantic(one_and_ten, rounds=1, iterations=1)
    benchmark.extra_info["ten objects / one"] = round(ratio, 2)
    assert ratio < 1.25


STRIDE_4 = """
import resource, sys
import torch
from bench.propagation import PropagationSettings, Propagator

channels = int(sys.argv[1])
square = {"window": "square", "radius": 35, "radius_first": 35}
propagator = Propagator(PropagationSettings(temperature=0.07, early="again", **square))
features = torch.rand(channels, 120, 214)
labels = torch.rand(2, 120, 214)
memory = propagator.begin(features, labels, (480, 854))
for _ in range(20):
    memory.store(torch.nn.functional.normalize(torch.rand_like(features), dim=0), labels)
propagator.step(memory, features)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
"""A step of STT's setting at stride 4, with a full memory, in a process of its own."""


@pytest.mark.parametrize("channels", [256, 1024])
def test_memory_at_stride_4(benchmark, channels):
    """25,680 cells, first frame and 20 others: less than 4 GB."""

    def peak() -> int:
        command = [sys.executable, "-c", STRIDE_4, str(channels)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    found = benchmark.pedantic(peak, rounds=1, iterations=1)
    benchmark.extra_info["peak, GB"] = round(found / 1e9, 2)
    assert found < 4e9
