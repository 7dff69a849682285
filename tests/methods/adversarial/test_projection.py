"""The projection discriminator against a loop over clusters and positions."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from methods.adversarial.adversary_settings import DiscriminatorSettings
from methods.adversarial.discriminators import ProjectionNetwork, build_discriminator

CHANNELS, CLUSTERS = 5, 3

SHAPES = {
    "token": (7, CHANNELS),
    "pixel": (2, CHANNELS, 3, 4),
    "patch": (2, CHANNELS, 32, 64),
    "patch3d": (1, CHANNELS, 3, 32, 64),
}


def projection(network: str) -> ProjectionNetwork:
    torch.manual_seed(3)
    settings = DiscriminatorSettings(
        network=network, kind="conditioned", conditioning="projection", width=8, dropout=0.0
    )
    built = build_discriminator(settings, CHANNELS, CLUSTERS, False)
    assert isinstance(built, ProjectionNetwork)
    return built


def windows(hidden: Tensor, layer: nn.Module) -> Tensor:
    """What a layer sees at each of its positions, ``(N, positions, numbers)``, one by one."""
    if isinstance(layer, nn.Linear):
        return hidden[:, None]
    assert isinstance(layer, nn.Conv2d | nn.Conv3d)
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    assert not isinstance(padding, str)
    around = [side for size in reversed(padding) for side in (size, size)]
    padded = nn.functional.pad(hidden, around)
    starts = [
        range(0, size - length + 1, step)
        for size, length, step in zip(padded.shape[2:], kernel, stride, strict=True)
    ]
    seen = []
    for corner in itertools.product(*starts):
        window = padded
        for axis, (start, length) in enumerate(zip(corner, kernel, strict=True)):
            window = window.narrow(axis + 2, start, length)
        seen.append(window.flatten(1))
    return torch.stack(seen, 1)


@pytest.mark.parametrize("network", SHAPES)
def test_logits_by_a_loop_over_clusters(network: str) -> None:
    discriminator = projection(network)
    features = torch.randn(SHAPES[network])
    with torch.no_grad():
        logits = discriminator(features)
        hidden = discriminator.trunk(features)
        own = discriminator.output(hidden)
        seen = windows(hidden, discriminator.embeddings)
        assert seen.shape[1] > 1 or network == "token"
        for cluster, embedding in enumerate(discriminator.embeddings.weight):
            for number, position in itertools.product(*map(range, seen.shape[:2])):
                psi = own.reshape(len(seen), -1)[number, position]
                product = sum(
                    a * b
                    for a, b in zip(
                        embedding.flatten().tolist(), seen[number, position].tolist(), strict=True
                    )
                )
                found = logits[:, cluster].reshape(len(seen), -1)[number, position]
                assert found.item() == pytest.approx(psi.item() + product, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("network", SHAPES)
def test_the_network_up_to_the_last_layer_runs_once(network: str) -> None:
    discriminator = projection(network)
    calls = []
    discriminator.trunk.register_forward_hook(lambda *_: calls.append(1))
    discriminator(torch.randn(SHAPES[network]))
    assert len(calls) == 1


@pytest.mark.parametrize("network", SHAPES)
def test_a_copied_cluster_takes_the_embedding_and_leaves_the_rest(network: str) -> None:
    discriminator = projection(network)
    before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
    features = torch.randn(SHAPES[network])
    logits = discriminator(features)
    discriminator.copy_cluster(source=2, target=0)
    after = discriminator.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"embeddings.weight"}
    torch.testing.assert_close(discriminator(features), logits[:, [2, 1, 2]])


def test_the_setting_is_off_and_changes_no_other_weights() -> None:
    """The draws of the layers that both ways of conditioning share are the same."""
    assert DiscriminatorSettings().conditioning == "concatenated"
    torch.manual_seed(3)
    told = DiscriminatorSettings(kind="conditioned", width=8, dropout=0.0)
    beside = build_discriminator(told, CHANNELS, CLUSTERS, False).state_dict()
    projected = projection("token").state_dict()
    assert torch.equal(beside["first.weight"], projected["trunk.0.weight"])
    assert torch.equal(beside["rest.1.weight"], projected["output.weight"])
