"""Every check must fail for a method that breaks exactly that clause."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from bench.conformance import CHECKS, reachable_bytes
from bench.method import (
    Context,
    HasFeatures,
    LabelRegime,
    Method,
    MethodCard,
    MethodSettings,
    Semantic,
)
from bench.video import object_ids


class Good(Method):
    card = MethodCard("good", "Good", "Repeats the mask.", LabelRegime())

    def begin(self, frame, mask):
        return [torch.from_numpy(np.stack([mask == i for i in (0, *object_ids(mask))])).float()]

    def step(self, state, frame):
        return state, state[0]


class WrongShape(Good):
    def step(self, state, frame):
        return state, state[0][:, :-1]


class Nameless(Good):
    card = MethodCard("", "No name", "Repeats the mask.", LabelRegime())


class EvenSizesOnly(Good):
    def step(self, state, frame):
        if frame.image.shape[0] % 2:
            raise ValueError("odd height")
        return state, state[0]


class Random(Good):
    def step(self, state, frame):
        return state, torch.rand_like(state[0])


class StateInMethod(Good):
    def begin(self, frame, mask):
        self.kept = super().begin(frame, mask)
        return self.kept

    def step(self, state, frame):
        return self.kept, self.kept[0]


class NeedsTheObject(Good):
    """Gives up when the first object's colours are gone."""

    def begin(self, frame, mask):
        self.colours = {tuple(c) for c in frame.image[mask == object_ids(mask)[0]]}
        return super().begin(frame, mask)

    def step(self, state, frame):
        if not self.colours & {tuple(c) for c in frame.image.reshape(-1, 3)}:
            raise ValueError("object lost")
        return state, state[0]


class DividesByContrast(Good):
    def step(self, state, frame):
        return state, state[0] / (0.0 if frame.image.std() == 0 else 1.0)


class PaintsOnFrames(Good):
    def step(self, state, frame):
        frame.image[0, 0] = 255 - frame.image[0, 0]
        return state, state[0]


class RemembersEverything(Good):
    def step(self, state, frame):
        state.append(torch.from_numpy(frame.image.copy()))
        return state, state[0]


class HidesMemoryInTheMethod(Good):
    def begin(self, frame, mask):
        self.frames = []
        return super().begin(frame, mask)

    def step(self, state, frame):
        self.frames.append(frame.image.copy())
        return state, state[0]


class StartsOver(Good):
    """Predicts the new object before and after it is given, as if it were always there."""

    begun = 0

    def begin(self, frame, mask):
        self.begun += 1
        if self.begun > 1:
            raise RuntimeError("begin was called twice")
        return super().begin(frame, mask)


class WithFeatures(Good, HasFeatures):
    """Good features: colours of every second pixel, and of every fourth one."""

    def feature_taps(self):
        return "fine", "coarse"

    def features_at(self, image, taps):
        pixels = torch.from_numpy(image).permute(2, 0, 1).float()
        steps = {"fine": 2, "coarse": 4}
        return {tap: pixels[:, :: steps[tap], :: steps[tap]] for tap in taps}


class NoTaps(WithFeatures):
    def feature_taps(self):
        return ()


class TapNamedTwice(WithFeatures):
    def feature_taps(self):
        return "fine", "fine"


class AllTapsAlways(WithFeatures):
    def features_at(self, image, taps):
        return super().features_at(image, self.feature_taps())


class FeaturesInABatch(WithFeatures):
    def features_at(self, image, taps):
        return {tap: maps[None] for tap, maps in super().features_at(image, taps).items()}


class HalfPrecision(WithFeatures):
    def features_at(self, image, taps):
        return {tap: maps.half() for tap, maps in super().features_at(image, taps).items()}


class FeaturesDividedByZero(WithFeatures):
    def features_at(self, image, taps):
        return {tap: maps / 0 for tap, maps in super().features_at(image, taps).items()}


class ChannelsOfTheSize(WithFeatures):
    def features_at(self, image, taps):
        return {tap: maps.transpose(0, 1) for tap, maps in super().features_at(image, taps).items()}


class NoisyFeatures(WithFeatures):
    def features_at(self, image, taps):
        found = super().features_at(image, taps)
        return {tap: maps + torch.rand_like(maps) for tap, maps in found.items()}


class FeaturesOfEarlierImages(WithFeatures):
    """Normalises by the brightest image so far."""

    brightest = 0.0

    def features_at(self, image, taps):
        self.brightest = max(self.brightest, float(image.mean()))
        found = super().features_at(image, taps)
        return {tap: maps / self.brightest for tap, maps in found.items()}


class FeaturesOfOtherTaps(WithFeatures):
    """A tap is another one where it is asked for alone."""

    def features_at(self, image, taps):
        found = super().features_at(image, taps)
        return {tap: maps * len(taps) for tap, maps in found.items()}


class FeaturesPaintOnImages(WithFeatures):
    def features_at(self, image, taps):
        found = super().features_at(image.copy(), taps)
        image[0, 0] = 0
        return {tap: maps[:, 1:, 1:] for tap, maps in found.items()}


class NoClasses(Good, Semantic):
    def class_names(self):
        return ()

    def begin_semantic(self, frame):
        return super().begin(frame, np.zeros(frame.image.shape[:2], np.uint8)), torch.zeros(1, 1, 1)


FEATURES = "features, where it has some, are finite float32 maps that repeat"

BAD_FEATURES = {
    NoTaps: "each once",
    TapNamedTwice: "each once",
    AllTapsAlways: "asked for",
    FeaturesInABatch: r"expected \(C, h, w\)",
    HalfPrecision: r"torch\.float16",
    FeaturesDividedByZero: "not finite",
    ChannelsOfTheSize: "channels",
    NoisyFeatures: "other features",
    FeaturesOfEarlierImages: "other features",
    FeaturesOfOtherTaps: "other features",
    FeaturesPaintOnImages: "in place",
}

TITLES = {check.title: check for check in CHECKS}

BREAKS = [
    (Nameless, "the card has a name, a title and a description"),
    (WrongShape, "scores have the right shape and labels come from the given ids"),
    (EvenSizesOnly, "frames of odd sizes"),
    (Random, "the same video twice gives the same masks"),
    (StateInMethod, "two videos at once do not disturb each other"),
    (NeedsTheObject, "an object that vanishes and comes back"),
    (StartsOver, "an object that enters later"),
    (DividesByContrast, "frames without any texture"),
    (PaintsOnFrames, "frames are left as they are"),
    (RemembersEverything, "memory does not grow with the video"),
    (HidesMemoryInTheMethod, "memory does not grow with the video"),
    (NoisyFeatures, FEATURES),
    (NoClasses, "classes, where it tells them apart, have names and repeat"),
]


def test_every_check_has_a_method_that_fails_it():
    assert {title for _, title in BREAKS} == set(TITLES)


@pytest.mark.parametrize("title", TITLES)
def test_a_good_method_passes(title):
    assert TITLES[title].complaint(Good(MethodSettings(), Context())) is None


def test_good_features_pass():
    assert TITLES[FEATURES].complaint(WithFeatures(MethodSettings(), Context())) is None


@pytest.mark.parametrize("broken", BAD_FEATURES, ids=lambda broken: broken.__name__)
def test_bad_features_are_caught_for_what_they_are(broken):
    complaint = TITLES[FEATURES].complaint(broken(MethodSettings(), Context()))
    assert complaint is not None
    assert re.search(BAD_FEATURES[broken], complaint)


@pytest.mark.parametrize(("broken", "title"), BREAKS)
def test_a_broken_method_is_caught(broken, title):
    assert TITLES[title].complaint(broken(MethodSettings(), Context()))


def test_reachable_bytes_counts_shared_storage_once():
    tensor, array = torch.zeros(1000), np.zeros(500)
    assert reachable_bytes([tensor, tensor[10:], {"a": tensor}]) == 4000
    assert reachable_bytes((array, array[5:])) == 4000
