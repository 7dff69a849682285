"""One encoder for label regimes that are compared: adv's with a correspondence system's ResNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.errors import MethodError
from bench.method import Context
from bench.propagation import PropagationSettings
from bench.video import Frame
from methods.adversarial.method import Adversarial, AdversarialSettings
from methods.adversarial.networks import build_network
from methods.adversarial.protocols.propagation import PropagationProtocolSettings
from methods.adversarial.settings import NetworkSettings
from methods.correspondence.encoder import ENCODERS, Encoder
from methods.correspondence.method import CorrespondenceSettings
from methods.correspondence.systems import CRW

NETWORK = NetworkSettings(architecture="deeplabv3", encoder="correspondence_tiny")


def test_maps_are_those_of_the_correspondence_encoder() -> None:
    encoder = build_network(NETWORK, seed=0).encoder.eval()
    reference = Encoder(ENCODERS["tiny"]).eval()
    reference.load_state_dict(encoder.resnet.state_dict(), strict=False)
    assert set(reference.state_dict()) < set(encoder.resnet.state_dict())
    frames = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        maps = list(encoder.stages(frames))
        expected = reference.forward_stages(frames, (1, 2, 3))
    for stage in (1, 2, 3):
        assert torch.equal(maps[stage], expected[stage])
    for found, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert found.shape == (2, channels, 40 // stride, 56 // stride)


def test_labels_are_propagated_as_a_correspondence_system_does() -> None:
    settings = AdversarialSettings(
        network=NETWORK,
        protocol=PropagationProtocolSettings(
            tap="enc3", propagation=PropagationSettings(), radius_stride=None
        ),
    )
    context = Context(device="cpu", seed=0)
    adv = Adversarial(settings, context)
    crw = CRW(CorrespondenceSettings(encoder="tiny", initial="random"), context)
    names = list(crw.encoder.state_dict())
    weights = adv.network.encoder.resnet.state_dict()
    crw.encoder.load_state_dict({name: weights[name] for name in names})
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[16:40, 24:60] = 1
    mask[44:60, 8:20] = 2
    states = [method.begin(Frame(0, "00000", image), mask) for method in (adv, crw)]
    for number in range(1, 4):
        frame = Frame(number, f"{number:05d}", np.roll(image, 3 * number, axis=1))
        scores = []
        for index, method in enumerate((adv, crw)):
            states[index], one = method.step(states[index], frame)  # type: ignore[arg-type]
            scores.append(one)
        assert scores[0].shape == (3, 64, 96)
        torch.testing.assert_close(scores[0], scores[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "correspondence_none"}, "tiny"),
        ({"encoder": "correspondence_tiny", "initial": "imagenet"}, "'random'"),
    ],
)
def test_what_cannot_be_built_is_an_error(settings: dict[str, str], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        build_network(NetworkSettings(architecture="deeplabv3", **settings), seed=0)  # type: ignore[arg-type]
