"""MAMP: MAST's objective with divided dot products; what is new in MAMP happens at test time.

Source: Miao, Bennamoun, Gao, Mian: Self-supervised video object segmentation by motion-aware mask
propagation, ICME 2022.
"""

from __future__ import annotations

from pydantic import Field

from methods.correspondence.pretext.mast import MASTObjective, MASTSettings, augment

__all__ = ["MAMPObjective", "MAMPSettings", "augment"]


class MAMPSettings(MASTSettings):
    """How MAMP is trained. The defaults are the authors'.

    They differ from :class:`MASTSettings` in ``batch_size``. ``scale`` is MAMP's own; MAST's
    default borrows it.
    """

    scale: float = Field(default=64**-0.5, gt=0)
    batch_size: int = Field(default=24, ge=1)


class MAMPObjective(MASTObjective):
    """The Huber loss of :class:`MASTObjective`.

    Args:
        encoder: maps of Lab frames with a hidden channel.
        settings: of the training.
    """
