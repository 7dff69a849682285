"""Ways of turning one network into masks of a video; a setting chooses among them.

With a first mask (``adv.protocol.kind``):

- ``propagation``: labels are copied along the network's features. Measures the representation.
- ``fine_tune``: a copy of the network is trained on the first frame.
- ``matching``: prototypes of object and surroundings.
- ``semantic_prior``: propagation, weighted by what the head says. Measures what the head adds.

Without one (``adv.unprompted.kind``):

- ``foreground``: the head's foreground in every frame.
- ``multi_object``: components of the first frame, propagated.

Without one, under the harness's semantic protocol: ``semantic``, the class of every pixel. It has
no settings.

``frames`` is what all of them share.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from bench.method import MethodSettings
from methods.adversarial.protocols.base import FromNothing, Prompted
from methods.adversarial.protocols.fine_tune import FineTuneProtocol, FineTuneSettings
from methods.adversarial.protocols.foreground import ForegroundProtocol, ForegroundSettings
from methods.adversarial.protocols.frames import FrameNetwork
from methods.adversarial.protocols.matching import MatchingProtocol, MatchingSettings
from methods.adversarial.protocols.multi_object import MultiObjectProtocol, MultiObjectSettings
from methods.adversarial.protocols.propagation import (
    FeaturePropagationProtocol,
    PropagationProtocolSettings,
)
from methods.adversarial.protocols.semantic import SemanticProtocol
from methods.adversarial.protocols.semantic_prior import (
    SemanticPriorProtocol,
    SemanticPriorSettings,
)


def _kind(default: str) -> Discriminator:
    """Tells settings apart by ``kind``, which may be left out for the default."""

    def kind(value: Any) -> str:
        if isinstance(value, MethodSettings):
            return str(getattr(value, "kind", default))
        return str(value.get("kind", default)) if isinstance(value, dict) else default

    return Discriminator(kind)


PromptedSettings = Annotated[
    Annotated[PropagationProtocolSettings, Tag("propagation")]
    | Annotated[FineTuneSettings, Tag("fine_tune")]
    | Annotated[MatchingSettings, Tag("matching")]
    | Annotated[SemanticPriorSettings, Tag("semantic_prior")],
    _kind("propagation"),
]
"""Which protocol is used where a first mask is given, and its settings."""

UnpromptedSettings = Annotated[
    Annotated[ForegroundSettings, Tag("foreground")]
    | Annotated[MultiObjectSettings, Tag("multi_object")],
    _kind("foreground"),
]
"""Which protocol is used where nothing is given, and its settings."""


def build_prompted(frames: FrameNetwork, settings: PromptedSettings, seed: int) -> Prompted:
    """The protocol that belongs to these settings."""
    match settings:
        case FineTuneSettings():
            return FineTuneProtocol(frames, settings, seed)
        case MatchingSettings():
            return MatchingProtocol(frames, settings, seed)
        case SemanticPriorSettings():
            return SemanticPriorProtocol(frames, settings)
        case PropagationProtocolSettings():
            return FeaturePropagationProtocol(frames, settings)


def build_unprompted(frames: FrameNetwork, settings: UnpromptedSettings) -> FromNothing:
    """The protocol that belongs to these settings."""
    match settings:
        case ForegroundSettings():
            return ForegroundProtocol(frames, settings)
        case MultiObjectSettings():
            return MultiObjectProtocol(frames, settings)


__all__ = [
    "FrameNetwork",
    "FromNothing",
    "Prompted",
    "PromptedSettings",
    "SemanticProtocol",
    "UnpromptedSettings",
    "build_prompted",
    "build_unprompted",
]
