"""How much CPU time scoring takes, as ratios of runs side by side, so that the machine cancels.

Run with ``pytest tests/benchmarks --benchmark-only``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from bench.evaluate import evaluate
from bench.metrics import SEMI_SUPERVISED, SequenceScorer
from tests.naive_metrics import load_volume, opencv_dilation, skimage_dilation, volume_scores

SEQUENCES = ("blackswan", "bmx-trees", "camel", "dog")


@pytest.fixture(scope="module")
def published(shared_dir, tmp_path_factory) -> Path:
    """Two systems' published masks for DAVIS-2016, extracted."""
    archives = shared_dir / "oracle" / "davis2016_results"
    if not archives.is_dir() or not (shared_dir / "data" / "DAVIS2016").is_dir():
        pytest.skip(f"No published masks ({archives}) or no DAVIS-2016 beside them.")
    folder = tmp_path_factory.mktemp("published")
    for system in ("osvos", "stm"):
        with zipfile.ZipFile(archives / f"{system}.zip") as archive:
            archive.extractall(folder / system)
    return folder


@pytest.fixture(scope="module")
def davis(shared_dir, published):
    from bench.dataset import find_root
    from bench.registry import get_dataset

    dataset, _ = get_dataset("davis16")
    return dataset(find_root(dataset, shared_dir / "data"))


@pytest.fixture(autouse=True)
def one_thread():
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def paths_of(davis, published, system, sequence):
    true = sorted((davis.root / "Annotations" / "480p" / sequence).glob("*.png"))
    return [published / system / sequence / path.name for path in true], true


def decode(paths):
    for path in paths:
        with Image.open(path) as image:
            np.array(image)


def cpu_seconds(call, *arguments):
    start = time.process_time()
    call(*arguments)
    return time.process_time() - start


@pytest.mark.parametrize("system", ["osvos", "stm"])
def test_evaluate_against_decoding_alone(benchmark, davis, published, tmp_path, system):
    """All 20 sequences: at most twice the CPU time of decoding the same PNGs."""
    paths = [
        path
        for sequence in davis.sequences()
        for part in paths_of(davis, published, system, sequence)
        for path in part
    ]
    decode(paths[:100])
    before = cpu_seconds(decode, paths)

    def score():
        return cpu_seconds(evaluate, published / system, davis, tmp_path / "scores.csv")

    spent = benchmark.pedantic(score, rounds=1, iterations=1)
    ratio = spent / ((before + cpu_seconds(decode, paths)) / 2)
    benchmark.extra_info["evaluate / decoding"] = round(ratio, 2)
    assert ratio <= 2


@pytest.mark.parametrize("system", ["osvos", "stm"])
@pytest.mark.parametrize("dilate", [skimage_dilation, opencv_dilation])
def test_evaluate_against_the_plain_formulas(benchmark, davis, published, tmp_path, system, dilate):
    """PNGs to scores, against full-frame volumes: 8 times less.

    With scikit-image's dilation, one sequence shows it; with OpenCV's, all 20 are. Both take
    turns, sequence by sequence, so that a slow minute hits both.
    """
    chosen = SEQUENCES[:1] if dilate is skimage_dilation else davis.sequences()
    out = tmp_path / "scores.csv"

    def plain(sequence):
        volume_scores(*map(load_volume, paths_of(davis, published, system, sequence)), dilate)

    def fast(sequence):
        evaluate(published / system, davis, out, sequences=[sequence])

    def measure():
        spent = [
            (cpu_seconds(fast, name), cpu_seconds(plain, name), cpu_seconds(fast, name))
            for name in chosen
        ]
        before, slow, after = np.sum(spent, axis=0)
        return slow / ((before + after) / 2)

    fast(SEQUENCES[0])
    ratio = benchmark.pedantic(measure, rounds=1, iterations=1)
    benchmark.extra_info[f"plain with {dilate.__name__} / evaluate"] = round(ratio, 1)
    assert ratio >= 8


def scoring_ratio(davis, published, system, sequence):
    """Scoring masks that are in memory: CPU time of the plain formulas over that of the scorer."""
    volumes = [load_volume(p) for p in paths_of(davis, published, system, sequence)]
    maps = [(volume > 0).astype(np.uint8) for volume in volumes]
    values = []

    def plain():
        values.append(volume_scores(*volumes))

    def fast():
        scorer = SequenceScorer(SEMI_SUPERVISED, len(maps[0]))
        for index, (predicted, true) in enumerate(zip(*maps, strict=True)):
            scorer.update(index, predicted, true)
        scores = scorer.result().objects[1]
        values.append(np.array([scores.j, scores.f]))

    fast()
    ratio = cpu_seconds(plain) / cpu_seconds(fast)
    assert all(np.array_equal(values[0], value) for value in values)
    return ratio


@pytest.mark.parametrize("system", ["osvos", "stm"])
def test_scoring_against_the_plain_formulas(benchmark, davis, published, system):
    """Masks in memory: 8 times less, OpenCV's dilation in both, and equal to the last bit."""

    def ratios():
        return [scoring_ratio(davis, published, system, sequence) for sequence in SEQUENCES]

    found = benchmark.pedantic(ratios, rounds=1, iterations=1)
    benchmark.extra_info["plain / scorer"] = {
        sequence: round(ratio, 1) for sequence, ratio in zip(SEQUENCES, found, strict=True)
    }
    assert sum(found) / len(found) >= 8


def test_scoring_is_several_times_faster_than_the_plain_formulas(davis, published):
    """The same with a wide margin, in every run of the tests."""
    assert scoring_ratio(davis, published, "stm", "blackswan") >= 3


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="One core has nothing to share out.")
def test_two_workers(benchmark, davis, published, tmp_path):
    """All 20 sequences with two workers, by the command, as users start it: near-linear.

    Wall time depends on what else is running, so it is bounded loosely. CPU time, which is what
    says whether the work divides, may hardly grow.
    """

    def measure(workers):
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "bench", "evaluate", published / "stm", "--data", "davis16",
             "--root", davis.root, "--out", tmp_path / "scores.csv", "--workers", str(workers)],
            check=True,
            capture_output=True,
        )  # fmt: skip
        return np.subtract(os.times(), before)

    measure(1)
    alone = measure(1)
    together = benchmark.pedantic(measure, (2,), rounds=1, iterations=1)
    cpu = together[2:4].sum() / alone[2:4].sum()
    benchmark.extra_info["wall, one worker / two"] = round(alone[4] / together[4], 2)
    benchmark.extra_info["CPU, two workers / one"] = round(cpu, 2)
    assert cpu < 1.25
