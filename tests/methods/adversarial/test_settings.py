"""Settings that cannot be say what to set instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from methods.adversarial.adversary_settings import AlignmentSettings
from methods.adversarial.method import AdversarialSettings
from methods.adversarial.settings import DomainSettings


def alignment(**changes: Any) -> AlignmentSettings:
    return AlignmentSettings.model_validate(changes)


JOINT_PATCH = {"network": "patch", "kind": "joint2K"}


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (
            lambda: alignment(tap="prob", loss="clustered", discriminator=JOINT_PATCH),
            "set discriminator.network to one of them, or discriminator.kind to per_cluster",
        ),
        (
            lambda: alignment(tap="enc4", discriminator={"network": "pair"}),
            "set discriminator.network to token, pixel or patch",
        ),
        (lambda: alignment(tap="enc4", gate="input"), "set gate to loss"),
        (
            lambda: DomainSettings(labelled_videos=0.5, used_videos=0.2),
            "raise used_videos or lower labelled_videos",
        ),
        (lambda: AdversarialSettings(clip_frames=4), "set 3 or 5"),
    ],
)
def test_a_remedy_is_named(make: Callable[[], object], remedy: str) -> None:
    with pytest.raises(ValidationError, match=remedy):
        make()


def test_each_remedy_helps() -> None:
    for discriminator in (
        JOINT_PATCH | {"network": "token"},
        JOINT_PATCH | {"network": "pixel"},
        JOINT_PATCH | {"kind": "per_cluster"},
    ):
        alignment(tap="prob", loss="clustered", discriminator=discriminator)
    for network in ("token", "pixel", "patch"):
        alignment(tap="enc4", discriminator={"network": network})
    alignment(tap="enc4", gate="loss")
    DomainSettings(labelled_videos=0.5, used_videos=0.5)
    for count in (3, 5):
        AdversarialSettings(clip_frames=count)
