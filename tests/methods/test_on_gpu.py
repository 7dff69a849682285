"""Every method on a pretended GPU: nothing it computes with may be left on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.config import method_settings
from bench.conformance import scene, segment
from bench.method import Context, HasFeatures, Method, MethodSettings
from bench.protocol import unsupervised
from bench.registry import METHODS, discover, get_method
from tests.pretend_gpu import pretend_gpu

discover("methods")
# Not those that other tests make.
NAMES = sorted(n for n, c in METHODS.module_dict.items() if c.__module__.startswith("methods."))
RANDOM: dict[str, Any] = {"initial": "random"}
PROTOCOLS: list[dict[str, Any]] = [
    {"kind": "fine_tune", "steps": 1},
    {"kind": "matching"},
    {"kind": "semantic_prior"},
]


def settings_of(name: str, changes: dict[str, Any]) -> tuple[type[Method], MethodSettings]:
    method = get_method(name)
    known = {} if "initial" not in method.Settings.model_fields else RANDOM
    settings, _ = method_settings(name, method, "tiny", known | changes)
    return method, settings


def both_places(name: str, changes: dict[str, Any]) -> tuple[Method, Method]:
    """The method on the CPU and, within :func:`pretend_gpu`, on the GPU."""
    method, settings = settings_of(name, changes)
    return method(settings, Context("cpu")), method(settings, Context("cuda"))


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_those_of_the_cpu(name: str) -> None:
    video = scene(length=4, size=(64, 96), objects=2, enters=2)
    with pretend_gpu():
        on_cpu, on_gpu = both_places(name, {})
        expected, found = segment(on_cpu, video), segment(on_gpu, video)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol["kind"])
def test_protocols_of_adv(protocol: dict[str, Any]) -> None:
    video = scene(length=3, size=(64, 96), objects=2)
    with pretend_gpu():
        on_cpu, on_gpu = both_places("adv", {"protocol": protocol})
        expected, found = segment(on_cpu, video), segment(on_gpu, video)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["foreground", "multi_object"])
def test_adv_without_a_prompt(kind: str) -> None:
    video = scene(length=3, size=(64, 96))
    with pretend_gpu():
        on_cpu, on_gpu = both_places("adv", {"unprompted": {"kind": kind}})
        expected, found = [
            [prediction.mask for prediction in unsupervised(method, video)]  # type: ignore[arg-type]
            for method in (on_cpu, on_gpu)
        ]
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_features_stay_on_the_gpu(name: str) -> None:
    video = scene(length=1, size=(64, 96))
    image = next(iter(video.frames())).image
    with pretend_gpu():
        _, on_gpu = both_places(name, {})
        if not isinstance(on_gpu, HasFeatures):
            pytest.skip(f"{name} has no features")
        for maps in on_gpu.features_at(image, on_gpu.feature_taps()).values():
            assert maps.device.type == "cuda"
