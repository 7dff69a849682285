"""What is read off the game: accuracies of the discriminator as it is, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    ClusterSettings,
    DiscriminatorSettings,
    GameSettings,
)
from methods.adversarial.games import Alignment
from methods.adversarial.readings import drops_out, nothing_dropped
from tests.methods.adversarial.playing import CHANNELS, CLUSTERS, KINDS, assignment


def dropping(kind: str = "global", loss: str = "reversal", **changes: Any) -> Alignment:
    """An alignment whose discriminator drops half of its hidden units."""
    torch.manual_seed(5)
    settings = DiscriminatorSettings(**({"width": 16, "dropout": 0.5} | KINDS[kind] | changes))
    one = AlignmentSettings(
        tap="enc4", loss="global" if kind == "global" else "clustered", discriminator=settings
    )
    clusters = ClusterSettings(count=CLUSTERS, fewest=0)
    return Alignment(one, GameSettings(loss=loss), clusters, CHANNELS, False).train()


def batch(kind: str, seed: int = 0, gap: float = 1.0) -> list[Tensor | None]:
    """Tokens of both domains, which lie apart, and their clusters."""
    random = torch.Generator().manual_seed(seed)
    image, video = (torch.randn(200, CHANNELS, generator=random) for _ in range(2))
    shares = [None if kind == "global" else assignment(seed + d, 200, False) for d in range(2)]
    return [(image - gap / 2).requires_grad_(), (video + gap / 2).requires_grad_(), *shares]


def naive_accuracies(alignment: Alignment, given: list[Tensor | None], kind: str) -> list[float]:
    """Shares of each domain's tokens that are called what they are, token by token."""
    found = []
    with torch.no_grad():
        for domain in range(2):
            tokens, shares = given[domain], given[2 + domain]
            assert tokens is not None
            logits = alignment.discriminator(tokens)
            if kind == "joint2K":
                logits = logits[:, CLUSTERS:] - logits[:, :CLUSTERS]
            right, total = 0.0, 0.0
            for row in range(len(tokens)):
                cluster = None if shares is None else shares[row].nonzero()
                if cluster is not None and len(cluster) == 0:
                    continue  # rejected
                number = 0 if cluster is None else int(cluster[0])
                logit = float(logits[row, min(number, logits.shape[1] - 1)])
                total += 1
                right += (logit > 0) == (domain == 1)
            found.append(right / total)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["reversal", "non_saturating"])
def test_accuracies_are_those_without_dropout(kind: str, loss: str) -> None:
    alignment, given = dropping(kind, loss), batch(kind)
    torch.manual_seed(1)
    monitors = alignment(*given, 1.0).monitors
    alignment.eval()
    expected = naive_accuracies(alignment, given, kind)
    found = [monitors["accuracy_image"], monitors["accuracy_video"]]
    assert found == pytest.approx(expected, abs=1e-6)
    alignment.train()
    torch.manual_seed(1)
    dropped = naive_accuracies(alignment, given, kind)
    assert found != pytest.approx(dropped, abs=0.01), "with dropout they are others"


def test_a_discriminator_that_knows_is_not_called_blind() -> None:
    """With nine of ten units dropped it guesses in training, and yet tells the domains apart."""
    alignment = dropping(dropout=0.9)
    optimiser = torch.optim.Adam(alignment.parameters(), 1e-2)
    for number in range(40):
        torch.manual_seed(number)
        result = alignment(*batch("global", 10 * number), 0.0)
        optimiser.zero_grad()
        result.discriminator_loss.backward()
        optimiser.step()
    told = (result.monitors["accuracy_image"] + result.monitors["accuracy_video"]) / 2
    heard = [naive_accuracies(alignment, batch("global"), "global") for _ in range(8)]
    assert told > 0.8
    assert float(torch.tensor(heard).mean()) < told - 0.15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["reversal", "non_saturating"])
@pytest.mark.parametrize(
    "changes", [{}, {"spectral_norm": True}, {"penalty_weight": 1.0}], ids=lambda c: "".join(c)
)
def test_reading_moves_nothing(kind: str, loss: str, changes: dict[str, Any]) -> None:
    """Losses, gradients, buffers and random numbers are those of a game that nobody reads."""
    found: list[list[Tensor]] = []
    for read in (True, False):
        alignment, given = dropping(kind, loss, **changes), batch(kind)
        assert alignment._drops_out
        alignment._drops_out = read
        torch.manual_seed(1)
        result = alignment(*given, 1.0)
        (result.network_loss + result.discriminator_loss).backward()
        assert all(module.training for module in alignment.modules())
        inputs = [one for one in given[:2] if one is not None]
        leaves = [*alignment.parameters(), *inputs]
        gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
        assert len(gradients) > 2
        losses = [result.network_loss.detach(), result.discriminator_loss.detach()]
        found.append([*losses, *gradients, *alignment.buffers(), torch.get_rng_state()])
    assert len(found[0]) == len(found[1])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("loss", ["reversal", "non_saturating"])
def test_gradients_survive_autocast(loss: str) -> None:
    """It keeps parameters that it has cast; those of the reading have no gradient."""
    found = []
    for read in (True, False):
        alignment, given = dropping("per_cluster", loss), batch("per_cluster")
        alignment._drops_out = read
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            result = alignment(*given, 1.0)
        result.discriminator_loss.backward()
        found.append([p.grad for p in alignment.parameters()])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert one.any()
        assert torch.equal(one, other)


def test_only_what_drops_is_asked_twice() -> None:
    assert drops_out(dropping().discriminator)
    assert not drops_out(dropping(dropout=0.0).discriminator)
    assert not drops_out(dropping(network="pixel").discriminator)
    module = dropping(dropout=0.5).discriminator
    module.eval()
    with nothing_dropped(module):
        assert not torch.is_grad_enabled()
    assert not module.training
    assert torch.is_grad_enabled()
