"""Places in a network where features are taken, named alike in all architectures."""

from __future__ import annotations

from typing import Literal

Tap = Literal[
    "embed", "enc1", "enc2", "enc3", "enc4", "neck", "dec", "logits", "prob", "ent", "temporal"
]
"""Of the network itself.

``embed`` is the stem or patch embedding, ``enc1`` to ``enc4`` are the encoder's stages, ``neck``
the bottleneck before the classifier (ASPP, fused MLP, ...), ``dec`` the last map before the
classifier.
``logits``, ``prob`` and ``ent`` are the output: class scores, their softmax, and its weighted
self-information (ADVENT). ``temporal`` is what a 3D network's temporal module returns.
"""

AuxiliaryTap = Literal["aux_logits", "aux_prob", "aux_ent"]
"""The same three of the auxiliary head, which exists in training alone."""

AlignmentTap = Literal[Tap, AuxiliaryTap]
"""Where an adversarial loss can be."""

OUTPUT_TAPS: tuple[str, ...] = ("logits", "prob", "ent")

AUXILIARY_PREFIX = "aux_"

AUXILIARY_TAPS: tuple[str, ...] = tuple(AUXILIARY_PREFIX + tap for tap in OUTPUT_TAPS)


def is_output(tap: str) -> bool:
    """Whether a tap is the output of a head, the main or the auxiliary one."""
    return tap in OUTPUT_TAPS or tap in AUXILIARY_TAPS
